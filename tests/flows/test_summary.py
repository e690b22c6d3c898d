import json
from pathlib import Path

import pytest

from flows.stages import Outcome, StageResult
from flows.summary import headline, summary, verdict_rows

METRICS = {"top1": 0.9012, "top1_low": 0.8952, "top1_high": 0.9069, "images": 10_000, "dataset": "cifar10"}
OFFER = {
    "uri": "s3://retrain/models/releases/abc",
    "champion": True,
    "outcome": "it is the champion now",
    "verdict": [
        {"rule": "reaches_floor", "passed": True, "sentence": "top-1 90.12 % reaches …", "figures": {"top1": 0.9012}},
        {
            "rule": "is_not_worse",
            "passed": False,
            "sentence": "a significant loss",
            "figures": {"lost": 31, "won": 9, "p_value": 0.0003},
        },
    ],
}
RESULTS = [StageResult("train", Outcome.RAN, 605), StageResult("evaluate", Outcome.UNCHANGED, 1)]


@pytest.fixture
def finished(tmp_path: Path) -> Path:
    for path, text in (
        ("evaluation/metrics.json", json.dumps(METRICS)),
        ("evaluation/report.html", "<html>"),
        (".dvc/tmp/offer.json", json.dumps(OFFER)),
    ):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)
    return tmp_path


def test_headline_says_how_sure_and_on_what() -> None:
    assert headline(METRICS) == "top-1 90.12 % (95 % interval 89.52 % to 90.69 %) on 10,000 test images of cifar10"


def test_summary_names_everything_worth_knowing(finished: Path) -> None:
    text = summary(RESULTS, finished)
    assert "train      ran (10m05s)" in text
    assert "evaluate   unchanged (1s)" in text
    assert headline(METRICS) in text
    assert "evaluation/report.html" in text
    assert "s3://retrain/models/releases/abc (champion)" in text
    assert "gate       it is the champion now\n           ✓ reaches_floor: top-1 90.12 % reaches …\n" in text
    assert "           ✗ is_not_worse: a significant loss\n" in text
    assert len(text.partition("next:")[2].strip().splitlines()) == 3


def test_where_no_release_is_champion_what_is_to_be_typed_answers(finished: Path) -> None:
    offered = OFFER | {"champion": False, "champion_now": None}
    (finished / ".dvc/tmp/offer.json").write_text(json.dumps(offered))
    assert "tasks.predict IMAGE.png --model candidate" in summary(RESULTS, finished)
    (finished / ".dvc/tmp/offer.json").write_text(json.dumps(offered | {"champion_now": "abc"}))
    assert "--model" not in summary(RESULTS, finished)


def test_summary_without_evaluation_does_not_invent_one(tmp_path: Path) -> None:
    text = summary(RESULTS[:1], tmp_path)
    assert "no top-1 accuracy recorded" in text
    assert "release " not in text


def test_every_rule_has_a_row_with_its_figures() -> None:
    assert verdict_rows(OFFER)[1] == {
        "rule": "is_not_worse",
        "passed": "✗",
        "says": "a significant loss",
        "figures": "lost 31, won 9, p_value 0.0003",
    }


def test_a_release_that_lost_the_title_is_not_called_champion(finished: Path) -> None:
    lost = {**OFFER, "champion": False, "outcome": "not champion: it was champion until release abd took its place"}
    (finished / ".dvc/tmp/offer.json").write_text(json.dumps(lost))
    text = summary(RESULTS, finished)
    assert "release    s3://retrain/models/releases/abc\n" in text
    assert "gate       not champion: it was champion until release abd took its place\n" in text

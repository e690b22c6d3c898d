import json
from pathlib import Path

import pytest

from flows.report_text import report_text
from tests.flows.test_summary import METRICS, OFFER

LINK = "[the full report](http://127.0.0.1:1/a?X-Amz-Date=1)"


def write_evaluation(folder: Path, answers: list[tuple[str, str]]) -> None:
    (folder / "evaluation").mkdir(exist_ok=True)
    lines = ["actual,predicted", *(f"{actual},{predicted}" for actual, predicted in answers)]
    (folder / "evaluation/confusion.csv").write_text("\n".join(lines) + "\n")
    scores = {
        "cat": {"images": 1_200, "precision": 0.9, "recall": 0.75, "f1": 0.818},
        "eel": {"images": 0, "precision": 0.0, "recall": None, "f1": None},
        "a|b": {"images": 800, "precision": 0.8, "recall": 0.5, "f1": 0.615},
    }
    (folder / "evaluation/per_class.json").write_text(json.dumps(scores))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_evaluation(tmp_path, [("cat", "cat"), ("cat", "cat"), ("cat", "dog"), ("dog", "cat")])
    return tmp_path


def test_headline_gate_and_link(folder: Path) -> None:
    text = report_text(METRICS, OFFER, folder, LINK)
    assert text.startswith("# top-1 90.12 %")
    assert f"- Open {LINK}; the link lives" in text
    assert "- Gate: it is the champion now\n  - ✓ `reaches_floor`: top-1 90.12 % reaches …\n" in text
    assert "  - ✗ `is_not_worse`: a significant loss\n" in text
    assert str(folder) not in text


def test_weakest_class_first_and_a_name_breaks_no_table(folder: Path) -> None:
    lines = report_text(METRICS, {}, folder).splitlines()
    start = lines.index("| class | images | precision | recall | F1 |")
    assert lines[start + 2 : start + 5] == [
        "| a&#124;b | 800 | 80.0 % | 50.0 % | 61.5 % |",
        "| cat | 1,200 | 90.0 % | 75.0 % | 81.8 % |",
        "| eel | 0 | 0.0 % | – | – |",
    ]


def test_a_name_is_text_and_no_markup(folder: Path) -> None:
    write_evaluation(folder, [("<img src=x onerror=a>", "[x](javascript:a)"), ("cat", "*b*")])
    text = report_text(METRICS, {}, folder)
    assert not any(markup in text for markup in ("<img", "[x]", "*b*"))
    assert "&#60;img src&#61;x onerror&#61;a&#62;" in text
    assert "&#91;x&#93;&#40;javascript&#58;a&#41;" in text


def test_few_classes_have_a_matrix(folder: Path) -> None:
    text = report_text(METRICS, {}, folder)
    assert (
        "| actual ↓ predicted → | cat | dog |\n| --- | --- | --- |\n| **cat** | 2 | 1 |\n| **dog** | 1 | 0 |\n" in text
    )


def test_many_classes_have_their_most_frequent_confusions(folder: Path) -> None:
    right = [(f"class {number}", f"class {number}") for number in range(20)]
    write_evaluation(folder, [*right, ("class 3", "class 5"), ("class 3", "class 5"), ("class 7", "class 1")])
    text = report_text(METRICS, {}, folder)
    assert "| actual | predicted | images |\n| --- | --- | --- |\n| class 3 | class 5 | 2 |\n| class 7 |" in text


def test_without_release_and_tables_the_headline_is_all(tmp_path: Path) -> None:
    assert report_text(METRICS, {}, tmp_path).strip().count("\n") == 0

"""A run that cannot use another's checkpoints says why, and keeps the last few."""

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tasks.training.checkpoint import Checkpoint, CheckpointFolder
from tasks.training.unfinished import KEPT_RUNS, note_makings

FACTS: dict[str, Any] = {
    "data": "d0",
    "recipe": {"epochs": 3, "model": {"base": "airbench", "widths": [8, 8]}},
    "seed": 0,
    "precision": "float32",
    "versions": ["2.21", "3.15", "2.3"],
}


@pytest.fixture
def sources(tmp_path: Path) -> dict[str, Path]:
    files = {name: tmp_path / "code" / name.replace("/", "-") for name in ("train.py", "training/step.py")}
    (tmp_path / "code").mkdir()
    for path in files.values():
        path.write_text("code")
    return files


def begin(folder: CheckpointFolder, sources: dict[str, Path], stored: Any = None, **facts: Any) -> str | None:
    return note_makings(folder, FACTS | facts, sources, lambda: stored)


def folders(tmp_path: Path) -> tuple[CheckpointFolder, CheckpointFolder]:
    """Return the folders of two runs, the first of which was stopped after step 7."""
    return CheckpointFolder(tmp_path / "root", "before"), CheckpointFolder(tmp_path / "root", "now")


@pytest.mark.parametrize(
    ("facts", "reasons"),
    [
        ({"data": "d1"}, "data"),
        ({"seed": 1, "precision": "bfloat16"}, "precision (float32 → bfloat16); seed (0 → 1)"),
        (
            {"recipe": {"epochs": 4, "model": {"base": "airbench", "widths": [8, 9]}}},
            "recipe (epochs, model.widths)",
        ),
        ({"recipe": dict.fromkeys("abcd", 1)}, "recipe (a, b, c and 3 more)"),
        ({"versions": ["2.21", "3.16", "2.3"]}, "versions (keras)"),
        ({"start": {"release": "0123456789abcdef"}}, "start"),
    ],
)
def test_what_differs_is_named(tmp_path: Path, sources: dict[str, Path], facts: dict[str, Any], reasons: str) -> None:
    before, now = folders(tmp_path)
    assert begin(before, sources) is None
    saved = before.save(Checkpoint(step=7))
    os.utime(saved, (0, datetime(2026, 5, 4, 3, 2).astimezone().timestamp()))
    assert begin(now, sources, **facts) == (
        f"begins anew: the run that stopped after step 7 (2026-05-04 03:02) differs in: {reasons}"
    )


def test_changed_code_is_named_by_its_files(tmp_path: Path, sources: dict[str, Path]) -> None:
    before, now = folders(tmp_path)
    begin(before, sources)
    before.save(Checkpoint(step=7))
    sources["training/step.py"].write_text("new code")
    assert str(begin(now, sources)).endswith(" differs in: code (tasks/training/step.py)")


def test_a_run_that_goes_on_or_is_the_only_one_says_nothing(tmp_path: Path, sources: dict[str, Path]) -> None:
    before, now = folders(tmp_path)
    begin(before, sources)
    assert begin(now, sources, seed=1) is None  # the other never saved
    now.save(Checkpoint(step=1))
    before.save(Checkpoint(step=7))
    assert begin(now, sources, seed=1) is None
    before.remove()
    assert not before.path.exists()


@pytest.mark.parametrize("text", ["", "[1]", "{", "null"])
def test_a_note_that_cannot_be_read_is_no_obstacle(tmp_path: Path, sources: dict[str, Path], text: str) -> None:
    before, now = folders(tmp_path)
    before.save(Checkpoint(step=7))
    (before.path / "run.json").write_text(text)
    assert begin(now, sources) is None


def test_a_run_that_is_unfinished_elsewhere_counts_where_none_is_here(tmp_path: Path, sources: dict[str, Path]) -> None:
    before, now = folders(tmp_path)
    begin(before, sources)
    stored = ((before.path / "run.json").read_bytes(), 9, datetime(2026, 5, 4, tzinfo=UTC))
    assert "after step 9" in str(begin(now, sources, stored, seed=1))
    before.save(Checkpoint(step=7))
    assert "after step 7" in str(begin(now, sources, stored, seed=1))


def test_the_last_few_others_are_kept(tmp_path: Path, sources: dict[str, Path]) -> None:
    runs = [CheckpointFolder(tmp_path / "root", f"run-{number}") for number in range(KEPT_RUNS + 3)]
    for age, run in enumerate(reversed(runs)):
        begin(run, sources)
        saved = run.save(Checkpoint(step=1))
        for path in (saved, run.path):
            os.utime(path, (0, 1_000_000 - age))
    now = CheckpointFolder(tmp_path / "root", "now")
    begin(now, sources, seed=1)
    assert {path.name for path in now.path.parent.iterdir()} == {"now", *(run.run for run in runs[-KEPT_RUNS:])}

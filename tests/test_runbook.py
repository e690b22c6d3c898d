"""Every row of docs/runbook.md names a test or a drill that shows it, and what it names exists."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
RUNBOOK = ROOT / "docs/runbook.md"
SOURCES = [path for name in ("flows", "infra", "tasks") for path in sorted((ROOT / name).rglob("*.py"))]
# A sentence that is written over several lines is one again; the states are Prefect's.
SAID = re.sub(r'"\s*\n\s*f?"', "", "".join(path.read_text(encoding="utf-8") for path in SOURCES))
SAID += "Failed Crashed Cancelled Pending Cancelling Late No space left on device"
SAID += "dvc repro python -m tasks.registry verify"
COLUMNS = ["you see", "it means", "what is lost", "you type", "shown by"]


def rows() -> list[list[str]]:
    """Return the cells of each row of each table, the heads and the lines below them left out."""
    cells = [
        [cell.strip() for cell in line.strip("|").split(" | ")]
        for line in RUNBOOK.read_text(encoding="utf-8").splitlines()
        if line.startswith("|") and not line.startswith("|---")
    ]
    assert cells.count(COLUMNS) > 1
    return [row for row in cells if row != COLUMNS]


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_what_shows_a_row_exists(row: list[str]) -> None:
    assert len(row) == len(COLUMNS)
    named = re.findall(r"\[(\w+)\]\(\.\./(tests/[\w/]+\.py)\)", row[-1])
    assert named
    for name, file in named:
        assert re.search(rf"^def {name}\(", (ROOT / file).read_text(encoding="utf-8"), re.MULTILINE), f"{file}: {name}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row[0][:40])
def test_what_a_row_quotes_is_said_somewhere(row: list[str]) -> None:
    for quoted in re.findall(r"`([^`]+)`", row[0]):
        for words in re.split(r"…|\(…\)", quoted):
            assert words.strip(" ;:,()") in SAID, words


def test_links_lead_to_files() -> None:
    pages = [
        ROOT / "README.md",
        ROOT / "CONTRIBUTING.md",
        *(ROOT / "docs").glob("*.md"),
        *(ROOT / "infra").rglob("*.md"),
    ]
    for path in [*pages, ROOT / "benchmarks/results.md"]:
        name = path.relative_to(ROOT)
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", path.read_text(encoding="utf-8")):
            assert (path.parent / target).exists(), f"{name}: {target}"

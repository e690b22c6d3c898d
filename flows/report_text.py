"""The report as an artifact shows it: the headline, the gate, each class and what is taken for what, as Markdown."""

import csv
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flows.summary import headline, verdict_rows
from tasks.stage.files import read_json
from tasks.stage.shown import markdown_text, percent

PER_CLASS = Path("evaluation/per_class.json")
CONFUSION = Path("evaluation/confusion.csv")
SHOWN_CLASSES = 40  # the weakest of more
MATRIX_CLASSES = 12  # of more, the most frequent confusions
SHOWN_PAIRS = 12


def report_text(metrics: dict[str, Any], offer: dict[str, Any], folder: Path, link: str | None = None) -> str:
    """Return the report as Markdown; nothing in it names a path of this machine.

    Args:
        metrics: evaluation/metrics.json.
        offer: What became of the release (flows/decision.py); empty where there is none.
        folder: The workspace.
        link: Of the whole report, in Markdown.
    """
    lines = [f"# {headline(metrics)}", ""]
    if link:
        lines.append(f"- Open {link}; the link lives for some days, and later runs renew it.")
    if "uri" in offer:
        lines.append(f"- Release: `{offer['uri']}`{', the champion' if offer.get('champion') else ''}")
        lines.append(f"- Gate: {offer.get('outcome', 'not recorded')}")
        lines += [f"  - {row['passed']} `{row['rule']}`: {row['says']}" for row in verdict_rows(offer)]
    lines += [*_classes(folder / PER_CLASS), *_confusions(folder / CONFUSION)]
    return "\n".join(lines) + "\n"


def _classes(path: Path) -> Iterator[str]:
    """Yield a table of the classes, the one with the lowest recall first, and last what was not measured."""
    if not path.exists():
        return
    classes = sorted(read_json(path).items(), key=lambda item: math.inf if (r := item[1]["recall"]) is None else r)
    rows = [
        (
            markdown_text(name),
            f"{row['images']:,}",
            *(percent(row[score], 1) for score in ("precision", "recall", "f1")),
        )
        for name, row in classes[:SHOWN_CLASSES]
    ]
    more = len(classes) - len(rows)
    yield from ("", "## Class by class" + (f", the weakest {len(rows)} of {len(classes)}" if more else ""), "")
    yield from _table(("class", "images", "precision", "recall", "F1"), rows)


def _confusions(path: Path) -> Iterator[str]:
    """Yield the confusion matrix where it is small, else the most frequent confusions."""
    if not path.exists():
        return
    with path.open(encoding="utf-8", newline="") as stream:
        counts = Counter(
            (markdown_text(row["actual"]), markdown_text(row["predicted"])) for row in csv.DictReader(stream)
        )
    yield from ("", "## What is taken for what", "")
    names = list(dict.fromkeys(sorted(name for pair in counts for name in pair)))
    if len(names) <= MATRIX_CLASSES:
        rows = [(f"**{actual}**", *(f"{counts[actual, given]:,}" for given in names)) for actual in names]
        yield from _table(("actual ↓ predicted →", *names), rows)
    else:
        wrong = Counter({pair: count for pair, count in counts.items() if pair[0] != pair[1]})
        pairs = [(actual, given, f"{count:,}") for (actual, given), count in wrong.most_common(SHOWN_PAIRS)]
        yield from _table(("actual", "predicted", "images"), pairs)


def _table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> Iterator[str]:
    for cells in (titles, ["---"] * len(titles), *rows):
        yield f"| {' | '.join(cells)} |"

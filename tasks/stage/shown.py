"""How things are shown: shares, data sets, and the names that strangers chose, for a terminal and for Markdown.

Spreadsheets have tasks/stage/table.py, and HTML has Jinja's autoescape (tasks/reporting/report.py).
"""

from collections.abc import Mapping

DATASETS = {"cifar10": "CIFAR-10", "folders": "image folders", "digits": "scikit-learn's handwritten digits"}


def percent(share: float | None, digits: int = 2) -> str:
    """Return 0.9023 as `90.23 %`; a dash for what was not measured."""
    return "–" if share is None else f"{100 * share:.{digits}f} %"


def costs_text(costs: Mapping[str, float]) -> str:
    """Return what mistakes cost, by class or pair of classes, as `defective 10, sound > scratched 2.5`."""
    return ", ".join(f"{name} {cost:,.6g}" for name, cost in costs.items())


def printable(text: str) -> str:
    """Return a text without what a terminal would obey: each control character is a question mark, but line ends."""
    return "".join(letter if letter.isprintable() or letter == "\n" else "?" for letter in text)


def one_line(text: str) -> str:
    """Return a name as printable does, and on one line: its line ends are question marks, too."""
    return printable(text).replace("\n", "?")


def markdown_text(name: str) -> str:
    """Return a name as text that Markdown and HTML leave alone."""
    return "".join(letter if letter.isalnum() or letter in " .,-" else f"&#{ord(letter)};" for letter in name)

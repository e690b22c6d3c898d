"""What a data set holds and what came, as one self-contained HTML page: no script, no request."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tasks.reporting.pictures import page_template
from tasks.stage.shown import percent

TEMPLATE = "data_page.html.j2"


@dataclass(frozen=True)
class Picture:
    """A picture of the page: its address, and the words below it, the first of them the strongest."""

    address: str
    words: tuple[str, ...]


@dataclass(frozen=True)
class DataPage:
    """What the page tells of.

    Attributes:
        title: How the data set is called.
        sentences: What is worth saying first: what came, how the champion does on it, what is unusual.
        counts: For each class its images in train, validation and test, and how many of all came; in label order.
        history: For each earlier snapshot its date, and its images of each class; the oldest first.
        classes: For each class some of its pictures.
        came: Pictures of what came.
        pairs: Copies, near-copies and contradictory labels: two pictures each.
        set_aside: Files that could not be read, and why.
        contradictions: What the champion takes for something else.
    """

    title: str
    sentences: Sequence[str]
    counts: Mapping[str, Sequence[int]]
    history: Sequence[tuple[str, Mapping[str, int]]]
    classes: Mapping[str, Sequence[Picture]]
    came: Sequence[Picture]
    pairs: Sequence[tuple[Picture, Picture]]
    set_aside: Sequence[tuple[str, str]]
    contradictions: Sequence[Picture]


def render_data_page(page: DataPage) -> str:
    """Return the page's text."""
    images = sum(sum(counts[:3]) for counts in page.counts.values())
    return page_template(TEMPLATE, percent=percent).render(page=page, images=images)

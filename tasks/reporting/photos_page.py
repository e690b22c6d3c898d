"""What a model says of somebody's photos as one self-contained HTML page: no script, no request."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tasks.reporting.answers import Chance, shown_name
from tasks.reporting.pictures import page_template
from tasks.stage.shown import one_line, percent

TEMPLATE = "photos_page.html.j2"
MAX_PHOTOS = 1000
MAX_UNREAD = 100  # sentences
MAX_CHANCES = 10  # classes beside a photo
PHOTO_SIDE = 160  # pixels that the longer side of a shown photo has at most


@dataclass(frozen=True)
class Photo:
    """A photo of the page.

    Attributes:
        name: Of its file.
        picture: Its address; empty where the file went after it was answered.
        chances: The answer, then the most probable other classes.
    """

    name: str
    picture: str
    chances: Sequence[Chance]


@dataclass(frozen=True)
class PhotosPage:
    """What the page tells of.

    Attributes:
        model: Where the model came from.
        photos: At most MAX_PHOTOS, the least sure first.
        answered: How many photos there are, those that are not shown included.
        unread: Why others could not be read, a sentence each.
        by_cost: Whether answers are those of the least expected cost, and not the most probable classes.
    """

    model: str
    photos: Sequence[Photo]
    answered: int
    unread: Sequence[str]
    by_cost: bool = False


def render_photos_page(page: PhotosPage) -> str:
    """Return the page's text."""
    counts = Counter(photo.chances[0].name for photo in page.photos)
    return page_template(TEMPLATE, percent=percent, shown_name=shown_name, one_line=one_line).render(
        page=page,
        classes={name: (number, counts[name]) for number, name in enumerate(sorted(counts), start=1)},
        unread=page.unread[:MAX_UNREAD],
    )

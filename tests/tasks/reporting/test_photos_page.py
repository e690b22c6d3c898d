"""The page of somebody's photos: escaped, bounded, and filtered by class in a real browser without a script."""

import re
from pathlib import Path

import numpy as np
import pytest

from tasks.reporting.answers import Chance
from tasks.reporting.photos_page import MAX_UNREAD, Photo, PhotosPage, render_photos_page
from tasks.reporting.pictures import thumbnail
from tests.tasks.reporting.chromium import chromium_page, find_chromium

NASTY = '"><img src=x onerror="alert(1)">\n\u202e\'gnp.exe\udcff'
PICTURE = thumbnail(np.full((120, 160, 3), 90, np.uint8), 160)


def photo(name: str, best: str, sure: float = 0.75) -> Photo:
    return Photo(name, PICTURE, (Chance(best, sure), Chance("other", 1 - sure)))


def page_of(*photos: Photo, answered: int = 0, unread: tuple[str, ...] = ()) -> str:
    return render_photos_page(PhotosPage("model/model.keras", photos, answered or len(photos), unread))


def test_names_classes_and_reasons_are_never_markup() -> None:
    page = page_of(photo(NASTY, NASTY), unread=(f"{NASTY} is no image",))
    assert page.count("&gt;??&#39;gnp.exe?") == 5, "file, best class, its chance, its filter, reason"
    assert 'onerror="' not in page
    assert "<script" not in page
    assert "\u202e" not in page
    assert page.encode()
    assert all(target.startswith("data:") for target in re.findall(r"""(?:src|href)=["']([^"']*)""", page))
    assert "default-src 'none'" in page


def test_it_says_where_it_stops() -> None:
    assert "are not on this page" not in page_of(photo("1.png", "cat"))
    page = page_of(photo("1.png", "cat"), answered=1_235, unread=("x is no image",) * (MAX_UNREAD + 2))
    assert "Shown are the 1 of which it is least sure; the other\n  1,234 are not on this page." in page
    assert page.count("x is no image") == MAX_UNREAD
    assert "<p>And 2 more.</p>" in page


def test_it_says_where_answers_are_those_of_the_least_cost() -> None:
    assert "least expected cost" not in page_of(photo("1.png", "cat"))
    page = PhotosPage("model", [photo("1.png", "cat")], 1, (), by_cost=True)
    assert "each by the least expected cost" in render_photos_page(page)


def test_a_photo_that_went_is_named_without_a_picture() -> None:
    page = page_of(Photo("gone.png", "", (Chance("cat", 1.0),)))
    assert "gone.png" in page
    assert "<img" not in page
    assert "it can no longer be read" in page


@pytest.mark.chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_a_class_can_be_picked_and_the_page_is_clean(tmp_path: Path, width: int) -> None:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on PATH")
    photos = [photo(f"{number}.png", ("cat", NASTY, "dog")[number % 3]) for number in range(30)]
    path = tmp_path / "page.html"
    path.write_text(page_of(*photos, photo("x" * 150 + ".png", "ant")), encoding="utf-8")
    shown = "[...document.querySelectorAll('.photos > li')].filter(one => getComputedStyle(one).display != 'none')"
    names = f"{shown}.map(one => one.querySelector('.file').textContent)"
    with chromium_page(program, tmp_path / "profile") as page:
        page.open(path, width)
        assert len(page.evaluate(names)) == 31
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out sideways"
        assert page.evaluate(f"Math.max(...{shown}.map(one => one.getBoundingClientRect().height))") < 600
        page.evaluate("document.querySelector('select').value = '3'")
        assert page.evaluate("document.querySelector('option:checked').innerText") == "cat (10)"
        assert page.evaluate(names) == [f"{number}.png" for number in range(0, 30, 3)]
        page.evaluate("document.querySelector('select').value = '0'")
        assert len(page.evaluate(names)) == 31
        assert page.evaluate("document.querySelectorAll('[onerror]').length") == 0
        assert [url for url in page.requests if url != path.as_uri() and not url.startswith("data:")] == []
        assert page.problems == []

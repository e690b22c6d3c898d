"""Near-copies: what is told, and what is not taken for one."""

import csv
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tasks.data.arrays import Images
from tasks.data.near_copies import COPIES_NAME, find_near_copies
from tasks.params.data import SplitParams
from tasks.split import split
from tests.fixtures.archives import make_raw, write_tar

SIDE = 64


def picture(seed: int) -> Image.Image:
    """Return a drawing: some shapes on a gradient, another for each seed."""
    stream = np.random.default_rng(seed)
    across = np.linspace(0, 1, 3 * SIDE)[None, :, None] * stream.integers(60, 200, 3)
    image = Image.fromarray(np.broadcast_to(across, (3 * SIDE, 3 * SIDE, 3)).astype(np.uint8))
    for _ in range(6):
        box = np.sort(stream.integers(0, 3 * SIDE, (2, 2)), axis=0).ravel().tolist()
        colour = tuple(stream.integers(0, 256, 3).tolist())
        ImageDraw.Draw(image).rectangle(box, fill=colour)
    return image


def encoded(image: Image.Image, form: str = "png", **options: int) -> bytes:
    image.save(stream := io.BytesIO(), form, **options)
    return stream.getvalue()


def small(image: Image.Image) -> Images:
    return np.asarray(image.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def test_what_was_saved_anew_or_resized_is_found_and_another_picture_is_not() -> None:
    pictures = [picture(seed) for seed in range(40)]
    jpegs = [Image.open(io.BytesIO(encoded(image, "jpeg", quality=80))) for image in pictures]
    halves = [image.resize((SIDE * 3 // 2,) * 2) for image in pictures]
    images = np.stack([small(image) for image in (*pictures, *jpegs, *halves)])
    found = find_near_copies(images, np.arange(len(images), dtype=np.int64))
    assert (found[:40] == np.arange(40)).all()
    assert (found[40:] == np.tile(np.arange(40), 2)).mean() > 0.75
    mistaken = (found[40:] != np.tile(np.arange(40), 2)) & (found[40:] != np.arange(40, 120))
    assert not mistaken.any()


def test_equal_images_look_like_what_their_first_looks_like() -> None:
    images = np.stack([small(picture(seed)) for seed in (1, 2, 1, 2)])
    assert find_near_copies(images, np.array([0, 1, 0, 1])).tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize("value", [0, 255])
def test_plain_images_that_differ_much_are_not_one(value: int) -> None:
    """A flat picture has the hash of any other flat picture."""
    images = np.stack([np.full((SIDE, SIDE, 3), level, np.uint8) for level in (value, 128, value)])
    assert find_near_copies(images, np.arange(3, dtype=np.int64)).tolist() == [0, 1, 0]


def test_split_names_copies_near_copies_and_contradictions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = {f"{label}/{seed}.png": encoded(picture(seed)) for seed in range(40) for label in [("a", "b")[seed % 2]]}
    files["a/copy.png"] = files["a/0.png"]
    files["a/contradiction.png"] = files["b/1.png"]
    files["a/near.jpg"] = encoded(picture(2), "jpeg", quality=90)
    files["a/wrong.jpg"] = encoded(picture(3), "jpeg", quality=90)
    params = SplitParams(method="stable", validation_fraction=0.2, test_fraction=0.2, image_size=SIDE)
    raw = make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "a.tar", files))
    split(params, raw, tmp_path / "split")
    with (tmp_path / "split" / COPIES_NAME).open(newline="") as stream:
        rows = {row["path"]: row for row in csv.DictReader(stream)}
    assert {path: (row["kind"], row["copy_of"]) for path, row in rows.items()} == {
        "a/copy.png": ("copy", "a/0.png"),
        "b/1.png": ("copy under another label", "a/contradiction.png"),
        "a/near.jpg": ("near copy", "a/2.png"),
        "b/3.png": ("near copy under another label", "a/wrong.jpg"),
    }
    assert rows["b/1.png"]["split"] in ("train", "left out")
    said = capsys.readouterr().out
    assert "2 images look like another one, saved anew: see" in said
    assert "1 images lie there under several labels, and test nothing: see" in said

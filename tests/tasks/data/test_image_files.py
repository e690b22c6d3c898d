"""Each image of a split by the name of its file: the right one, whatever was set aside, copied or strangely called."""

import csv
import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest

from tasks.data.arrays import SPLITS, SplitRecord, load_arrays, load_split_record
from tasks.data.image_files import INDEX_NAME, ImageFile, image_files
from tasks.data.images import decode_image
from tasks.params.data import SplitParams
from tasks.split import split
from tasks.stage.errors import InputError
from tasks.stage.shown import one_line
from tests.fixtures.archives import encoded, make_raw, write_tar

SIDE = 16
PARAMS = SplitParams(method="stable", validation_fraction=0.2, test_fraction=0.4, image_size=SIDE, max_quarantined=0.2)
CLASSES = ("=red", "blue")
NASTY = (
    '<img src=x onerror="alert(1)">.png',
    'it\'s "so", they say.png',
    "line\nend.png",
    "\u202egnp.exe.png",
    "'quoted.png",
    "#17.png",
)


def strange_files() -> dict[str, bytes]:
    """40 images of two classes and six of strange names; two unreadable ones among them, a copy and a near-copy."""
    stream = np.random.default_rng(0)
    names = [f"{label}/{number:02d}.png" for label in CLASSES for number in range(20)]
    names += [f"{label}/{name}" for label, name in zip(CLASSES * 3, NASTY, strict=True)]
    pixels = {name: stream.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8) for name in names}
    files = {name: encoded(image) for name, image in pixels.items()}
    for name in ("=red/00-cut.png", "blue/07-cut.png"):
        files[name] = files["blue/00.png"][:80]
    files["=red/05-copy.png"] = files["=red/05.png"]
    near = pixels["blue/03.png"].copy()
    near[0, 0, 0] ^= 1
    files["blue/02-near.png"] = encoded(near)
    return files


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return strange_files()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, files: dict[str, bytes]) -> Path:
    root = tmp_path_factory.mktemp("strange")
    split(PARAMS, make_raw(root / "raw", "folders", write_tar(root / "a.tar", files)), root / "split")
    return root / "split"


def files_of(folder: Path, part: str, record: SplitRecord | None = None) -> tuple[ImageFile, ...]:
    return image_files(folder, part, record or load_split_record(folder), load_arrays(folder, part).labels)


def test_every_name_is_that_of_its_pixels(folder: Path, files: dict[str, bytes]) -> None:
    content = {one_line(name): data for name, data in files.items()}
    assert len(content) == len(files)
    seen = set()
    for part in SPLITS:
        images, found = load_arrays(folder, part).images, files_of(folder, part)
        assert len(found) == len(images) > 0
        for file, image in zip(found, images, strict=True):
            assert file.sha256 == hashlib.sha256(content[file.path]).hexdigest()
            np.testing.assert_array_equal(decode_image(content[file.path], file.path, SIDE, "squash"), image)
            assert file.path.isprintable()
        seen |= {file.path for file in found}
    readable = {path for path in content if "cut" not in path}
    assert {path for path in readable if not path.startswith("=red/05")} <= seen <= readable


def test_images_without_files_have_no_names(folder: Path) -> None:
    record = dataclasses.replace(load_split_record(folder), dataset="cifar10")
    assert files_of(folder, "test", record) == ()


def copied(folder: Path, target: Path) -> tuple[Path, list[list[str]]]:
    for path in folder.iterdir():
        (target / path.name).write_bytes(path.read_bytes())
    with (target / INDEX_NAME).open(encoding="utf-8", newline="") as stream:
        return target / INDEX_NAME, list(csv.reader(stream))


def written(path: Path, rows: list[list[str]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream, lineterminator="\n").writerows(rows)


def test_a_table_of_other_images_is_refused(folder: Path, tmp_path: Path) -> None:
    path, rows = copied(folder, tmp_path)
    first = next(place for place, row in enumerate(rows) if row[0] == "test")
    for changed in (
        rows[:first] + rows[first + 1 :],
        [*rows[:first], [rows[first][0], "green", *rows[first][2:]], *rows[first + 1 :]],
    ):
        written(path, changed)
        with pytest.raises(InputError, match=r"index\.csv does not list the test images of the arrays beside it"):
            files_of(tmp_path, "test")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "path,label\n",
        "split,label,sha256,group,path\ntest,blue\n",
        'split,label,sha256,group,path\n"test',
        "\udcff",
    ],
)
def test_what_is_no_such_table_is_named(folder: Path, tmp_path: Path, text: str) -> None:
    path, _ = copied(folder, tmp_path)
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"index\.csv (is not what the stage split writes|does not list)"):
        files_of(tmp_path, "test")


def test_without_the_table_split_is_to_be_run(folder: Path, tmp_path: Path) -> None:
    path, _ = copied(folder, tmp_path)
    path.unlink()
    with pytest.raises(InputError, match=r"index\.csv does not exist; run the stage split first"):
        files_of(tmp_path, "test")

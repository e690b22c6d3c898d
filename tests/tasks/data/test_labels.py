"""labels.csv: what people write, and what their spreadsheets make of it."""

from pathlib import Path, PurePosixPath

import numpy as np
import pytest

from tasks.data.folders import read_folders
from tasks.data.labels import Labelled, label, labels_file, read_labels
from tasks.data.layout import Entry
from tasks.stage.errors import InputError
from tests.fixtures.archives import colour_images, write_tar

HERE = PurePosixPath()


def labelled(files: list[str], text: str) -> Labelled:
    return label(files, read_labels(text.encode(), HERE), HERE)


def test_the_table_wins_over_folders_and_folders_say_the_rest() -> None:
    files = ["1.png", "2.png", "cat/3.png", "cat/4.png", "test/dog/5.png", "new.png", "notes.txt"]
    found = labelled(
        files, "path,label,group,split\n1.png,cat,p1,\n2.png,dog,p1,val\ncat/4.png,dog,,\ngone.png,cat,,\n"
    )
    assert found.entries == [
        Entry("1.png", None, "cat", "p1"),
        Entry("2.png", "validation", "dog", "p1"),
        Entry("cat/3.png", None, "cat"),
        Entry("cat/4.png", None, "dog"),
        Entry("test/dog/5.png", "test", "dog"),
    ]
    assert (found.unlabelled, found.absent) == (("new.png",), ("gone.png",))
    assert found.remarks == (
        "1 images have no label, as 'new.png'",
        "labels.csv names 1 files that are not there, as 'gone.png'",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\xef\xbb\xbfpath,label\r\n1.png,cat\r\n./2.png,dog\r\n",
        b"label;path\n cat ;1.png\ndog;2.png\n",
        b'path,label\n"1.png","cat"\n"2.png",dog\n\n',
    ],
)
def test_what_excel_writes_is_read(data: bytes) -> None:
    assert read_labels(data, HERE) == {"1.png": Entry("1.png", None, "cat"), "2.png": Entry("2.png", None, "dog")}


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        (b"path,label\n1.png,cat\n1.png,dog\n", "labels.csv has the path '1.png' twice, again in line 3"),
        (b"path,label\n1.png,cat\n./1.png,cat\n", "labels.csv has the path '1.png' twice, again in line 3"),
        (
            b"path,label,colour\n1.png,cat,red\n",
            "labels.csv has the unknown column 'colour'; its columns may be path, la",
        ),
        (b"file,label\n1.png,cat\n", "labels.csv has no column 'path'; its columns may be path, label, group, split"),
        (b"", "labels.csv has no column 'path'"),
        (b"path,label,label\n1.png,cat,cat\n", "labels.csv has a column twice"),
        (b"path,label\n1.png,\n", "labels.csv has no label in line 2"),
        (b"path,label\n,cat\n", "labels.csv has no path in line 2"),
        (b"path,label\n../1.png,cat\n", "labels.csv has a member whose path is absolute or climbs out"),
        (
            b"path,label\n1.png,\x1b[31mred\n",
            r"labels.csv has the class '\\x1b\[31mred', with a character that cannot be",
        ),
        (b"path,label,split\n1.png,cat,holdout\n", "labels.csv has the unknown split 'holdout' in line 2"),
        ("path,label\n1.png,Müll\n".encode("latin-1"), "labels.csv is not UTF-8: save it as CSV UTF-8"),
        (b'path,label\n"1.png,cat\n', "labels.csv is damaged in line"),
    ],
)
def test_what_cannot_be_meant_is_refused_by_its_line(data: bytes, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        read_labels(data, HERE)


def test_one_class_and_no_class_are_refused(tmp_path: Path) -> None:
    (picture,) = colour_images(1, classes=("red",)).values()
    for number, sentence in (("1", "holds the one class 'cat'"), ("2", "holds no image")):
        files = {"1.png": picture, "labels.csv": f"path,label\n{number}.png,cat\n".encode()}
        with pytest.raises(InputError, match=sentence):
            read_folders(write_tar(tmp_path / f"{number}.tar", files), 32, "squash", tmp_path / "decoded")


def test_the_highest_table_counts_and_its_paths_begin_where_it_lies(tmp_path: Path) -> None:
    assert labels_file(["photos/labels.csv", "photos/a/b/labels.csv", ".labels/labels.csv"]) == "photos/labels.csv"
    files = {f"photos/{number}.png": data for number, data in enumerate(colour_images(2).values())}
    names = ["red", "red", "green", "green", "green"]
    table = "path,label,group\n" + "".join(f"{number}.png,{name},g\n" for number, name in enumerate(names))
    archive = write_tar(tmp_path / "photos.tar", {**files, "photos/labels.csv": table.encode()})
    data = read_folders(archive, 32, "squash", tmp_path / "decoded")
    assert [data.classes[place] for place in data.arrays.labels] == names
    assert data.groups == ("g",) * 5
    assert data.group_names(None) == ["g"] * 5
    assert data.quarantine == (("photos/5.png", "it has no label"),)
    assert np.array_equal(data.published, np.full(5, -1))

"""Which paths are images of which class and split."""

import pytest

from tasks.data.layout import Entry, read_layout
from tasks.stage.errors import InputError


def layout(*names: str, folders: tuple[str, ...] = ()) -> list[tuple[str | None, str]]:
    return [(entry.split, entry.label) for entry in read_layout(names, folders)]


def test_classes_alone() -> None:
    assert layout("dog/1.png", "cat/1.png") == [(None, "cat"), (None, "dog")]


def test_splits_and_classes() -> None:
    names = ["train/a/1.png", "train/b/1.png", "val/a/1.png", "Test/b/2.png"]
    assert set(layout(*names)) == {("train", "a"), ("train", "b"), ("validation", "a"), ("test", "b")}


@pytest.mark.parametrize("top", ["", "images/"])
def test_one_folder_around_everything_is_taken_off(top: str) -> None:
    names = [f"{top}train/a/1.png", f"{top}train/b/1.png", f"{top}README.md"]
    assert layout(*names) == [("train", "a"), ("train", "b")]
    names = [f"{top}a/1.png", f"{top}b/1.png", f"{top}LICENSE"]
    assert layout(*names, folders=(top,) if top else ()) == [(None, "a"), (None, "b")]


@pytest.mark.parametrize("name", ["validation", "val", "valid", "Valid", "dev"])
def test_validation_has_many_names(name: str) -> None:
    names = ["training/a/1.png", "training/b/1.png", f"{name}/a/1.png", "testing/b/1.png"]
    assert set(layout(*names)) == {("train", "a"), ("train", "b"), ("validation", "a"), ("test", "b")}


@pytest.mark.parametrize("top", ["", "strips/", "strips/strips/"])
def test_a_class_may_be_called_as_a_split_is(top: str) -> None:
    assert layout(f"{top}bus/1.png", f"{top}train/1.png") == [(None, "bus"), (None, "train")]
    assert layout(f"{top}control/1.png", f"{top}test/1.png") == [(None, "control"), (None, "test")]
    names = (f"{top}train/test/1.png", f"{top}train/train/1.png", f"{top}test/test/1.png")
    assert set(layout(*names)) == {("train", "test"), ("train", "train"), ("test", "test")}


@pytest.mark.parametrize("top", ["a/", "chest/chest/", "one/two/three/"])
def test_folders_around_everything_are_taken_off_however_many(top: str) -> None:
    names = [f"{top}train/a/1.png", f"{top}train/b/1.png", f"{top}test/b/2.png", f"{top}README.md"]
    assert set(layout(*names)) == {("train", "a"), ("train", "b"), ("test", "b")}
    assert layout(f"{top}x/1.png", f"{top}y/1.png") == [(None, "x"), (None, "y")]


def test_order_is_by_path_and_names_are_kept() -> None:
    entries = read_layout(["b/2.png", "a/10.png", "a/1.png"], [])
    assert entries[0] == Entry("a/1.png", None, "a")
    assert [entry.name for entry in entries] == ["a/1.png", "a/10.png", "b/2.png"]


def test_clutter_is_ignored() -> None:
    clutter = ["__MACOSX/a/._1.png", "a/.DS_Store", "b/Thumbs.db", ".git/config", "a/._1.png", ".hidden/x/1.png"]
    clutter += ["a/thumbs.db", "a/Desktop.ini", "a/@eaDir/1.png", "System Volume Information/x/1.png", "b/Icon\r"]
    assert layout("a/1.png", "b/1.png", *clutter, folders=("__MACOSX", ".git", ".")) == [(None, "a"), (None, "b")]


@pytest.mark.parametrize(
    ("names", "folders", "sentence"),
    [
        ((), (), "no image in a class folder"),
        (("1.png", "2.png"), (), "'1.png' does not lie in <class>/<image>"),
        (("a/1.png",), (), "one class 'a'"),
        (("train/a/1.png", "test/a/1.png"), (), "one class 'a'"),
        (("a/1.png", "b/1.png"), ("empty",), "class folder 'empty' holds no image"),
        (("a/1.png", "b/1.png", "empty/.gitkeep"), (), "class folder 'empty' holds no image"),
        (("top/a/1.png", "top/b/1.png"), ("top", "top/c"), "class folder 'c' holds no image"),
        (("train/a/1.png", "train/b/1.png"), ("train/c",), "class folder 'train/c' holds no image"),
        (("train/a/1.png", "train/b/1.png"), ("test",), "folder 'test' holds no class"),
        (("train/a/1.png", "train/b/1.png", "test/c/1.png"), (), "class 'c' has no image in 'train'"),
        (("train/a/1.png", "train/b/1.png", "c/1.png"), (), "'c/1.png' does not lie in <split>/<class>/<image>"),
        (
            ("train/a/1.png", "train/b/1.png", "extra/c/1.png"),
            (),
            "folder 'extra' is not the name of a split; these are: train, ",
        ),
        (("a/1.png", "b/deep/1.png"), (), "'b/deep/1.png' does not lie in <class>/<image>"),
        (("train/1.png", "test/1.png"), (), "images lie in 'test' and 'train' without class folders"),
        (("a/1.png", "\x1b[31mred/1.png"), (), r"has the class '\x1b[31mred', with a character that cannot be printed"),
        (("train/a/1.png", "train/b/1.png", "val/a/1.png", "validation/a/1.png"), (), "several folders for validation"),
        (("Train/a/1.png", "train/b/1.png"), (), "several folders for train: 'Train' and 'train'"),
    ],
)
def test_unusable_layout_is_named(names: tuple[str, ...], folders: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(InputError) as caught:
        read_layout(names, folders)
    assert sentence in str(caught.value)


def test_a_class_name_without_end_is_refused_and_not_shown() -> None:
    with pytest.raises(InputError, match=r"has the class 'a{40}'…, with a name of 60,000 characters"):
        layout(f"{'a' * 60_000}/1.png", "b/1.png")


def test_folders_inside_a_class_are_a_person_s_order_of_it() -> None:
    names = ("cat/1.png", "cat/Sommer 2024/2.png", "cat/a/b/3.png", "dog/1.png")
    assert layout(*names) == [(None, "cat")] * 3 + [(None, "dog")]
    assert set(layout("train/cat/1.png", "train/cat/x/2.png", "train/dog/1.png")) == {
        ("train", "cat"),
        ("train", "dog"),
    }
    refused = r"'2023/cat/1.png' does not lie in <class>/<image> like the others, nor do 2 more"
    with pytest.raises(InputError, match=refused):
        layout("2023/cat/1.png", "2023/dog/2.png", "2024/cat/3.png", "dog/1.png")

"""data/raw: the archive and what is said of it."""

from pathlib import Path

import pytest

from tasks.sources.source import is_intact, load_source
from tasks.stage.errors import InputError
from tests.fixtures.archives import make_raw, write_tar


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    return make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", {"a/1": b"1"}))


def test_source_comes_back(raw: Path) -> None:
    source = load_source(raw)
    assert (source.dataset, source.archive) == ("folders", raw / "images.tar")
    assert is_intact(source)


def test_source_does_not_say_where_it_came_from(raw: Path) -> None:
    assert "://" not in (raw / "source.json").read_text()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"source\.json does not exist; run the stage download first"):
        load_source(tmp_path / "raw")


def test_missing_archive_is_named(raw: Path) -> None:
    (raw / "images.tar").unlink()
    with pytest.raises(InputError, match=r"images\.tar does not exist"):
        load_source(raw)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"dataset": "folders", "more": 1}', "3"])
def test_document_of_another_form_is_named(raw: Path, text: str) -> None:
    (raw / "source.json").write_text(text)
    with pytest.raises(InputError, match=r"source\.json does not say which data set is beside it"):
        load_source(raw)


def test_changed_archive_is_noticed(raw: Path) -> None:
    archive = raw / "images.tar"
    data = archive.read_bytes()
    archive.write_bytes(data[:-1] + b"x")
    assert not is_intact(load_source(raw))
    archive.write_bytes(data[:-1])
    with pytest.raises(InputError, match="truncated or changed: 10,239 bytes instead of 10,240"):
        load_source(raw)

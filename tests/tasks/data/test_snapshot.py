"""A snapshot is read from its shards as an archive is read, and damage is named."""

import hashlib
import tarfile
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.data import shards
from tasks.data.folders import read_folders, read_snapshot
from tasks.data.shards import SHARDS_NAME, ShardWriter, places, read_content
from tasks.data.snapshot import SNAPSHOT_NAME, Changes, Row, changes, read_table, table
from tasks.stage.errors import InputError
from tests.fixtures.archives import colour_images, write_tar

NAMES = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=12)
ROWS = st.lists(
    st.builds(Row, NAMES, st.sampled_from(["0" * 64, "1" * 64, "2" * 64]), st.integers(0, 9), NAMES, st.just("")),
    max_size=8,
    unique_by=lambda row: row.path,
)


def placed(folder: Path, files: dict[str, bytes]) -> Path:
    """Write a snapshot of image files as download does; return its table."""
    rows = []
    with ShardWriter(folder / SHARDS_NAME) as writer:
        for name, data in files.items():
            sha256 = hashlib.sha256(data).hexdigest()
            writer.add(sha256, data)
            rows.append(Row(name, sha256, len(data), name.split("/")[0], ""))
    (folder / SNAPSHOT_NAME).write_bytes(table(rows))
    return folder / SNAPSHOT_NAME


@given(ROWS)
def test_a_table_is_read_as_it_was_written_in_whatever_order(rows: list[Row]) -> None:
    data = table(rows)
    assert data == table(rows[::-1])
    with tempfile.TemporaryDirectory() as name:
        (path := Path(name) / SNAPSHOT_NAME).write_bytes(data)
        assert read_table(path) == sorted(rows)


@given(ROWS)
def test_nothing_changes_between_equal_snapshots(rows: list[Row]) -> None:
    assert changes(rows, rows[::-1]) == Changes(0, 0, 0, 0)
    assert changes([], rows).came == changes(rows, []).went == len({row.sha256 for row in rows})


def test_a_snapshot_gives_the_arrays_that_an_archive_of_it_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shards, "SHARD_BYTES", 20_000)
    files = colour_images(20)
    files["red/copy.png"] = files["red/00000.png"]
    snapshot = read_snapshot(placed(tmp_path, files), 16, "squash", tmp_path / "a")
    archive = read_folders(write_tar(tmp_path / "a.tar", files), 16, "squash", tmp_path / "b")
    assert len(list((tmp_path / SHARDS_NAME).glob("*.tar"))) > 1
    assert np.array_equal(snapshot.arrays.images, archive.arrays.images)
    assert np.array_equal(snapshot.arrays.labels, archive.arrays.labels)
    assert (snapshot.classes, snapshot.paths, snapshot.sha256) == (archive.classes, archive.paths, archive.sha256)


def test_a_shard_is_a_tar_and_equal_contents_are_equal_shards(tmp_path: Path) -> None:
    for name in ("a", "b"):
        with ShardWriter(tmp_path / name) as writer:
            for number in range(5):
                writer.add(f"{number:064}", bytes([number]) * 1000)
    (first,), (second,) = ((tmp_path / name).glob("*.tar") for name in ("a", "b"))
    assert first.name == second.name
    with tarfile.open(first) as tar:
        assert tar.getnames() == [f"{number:064}" for number in range(5)]


def test_damage_is_named(tmp_path: Path) -> None:
    path = placed(tmp_path, colour_images(2))
    row = read_table(path)[0]
    place = places(tmp_path / SHARDS_NAME)[row.sha256]
    data = bytearray(place.shard.read_bytes())
    data[place.offset] ^= 1
    place.shard.write_bytes(data)
    with pytest.raises(InputError, match="is damaged: what it holds as "):
        read_content(place, row.sha256)
    with pytest.raises(InputError, match="is damaged"):
        read_snapshot(path, 8, "squash", tmp_path / "scratch")
    place.shard.unlink()
    with pytest.raises(InputError, match="does not exist; run the stage download again"):
        read_content(place, row.sha256)
    place.shard.with_suffix(".csv").unlink()
    with pytest.raises(InputError, match=r"lacks 6 images, as 'blue/00000.png'; run download again"):
        read_snapshot(path, 8, "squash", tmp_path / "scratch")
    path.write_text("path,sha256\n")
    with pytest.raises(InputError, match="is no table of a snapshot: its columns are not"):
        read_table(path)

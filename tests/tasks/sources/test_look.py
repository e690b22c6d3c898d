"""Looking at a collection that grows: what is new is read once, and whoever looks finds the same snapshot."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.data.shards import places, read_content
from tasks.data.snapshot import Changes, name_of, table
from tasks.s3.client import connect
from tasks.sources import look as looking
from tasks.sources.addresses import TransferSettings
from tasks.sources.collection import Listed, list_collection, read_listed
from tasks.sources.memory import Memory, Snapshot
from tasks.sources.snapshots import look_again, place_snapshot, told
from tasks.sources.transfer import RetryPolicy
from tasks.stage.errors import InputError, OutageError
from tests.fixtures.archives import colour_images, write_files
from tests.fixtures.faults import Fault
from tests.fixtures.faulty_s3 import FaultyS3

ROOT = Path(__file__).parents[3]
RETRY = RetryPolicy(attempts=3, first_pause_seconds=0.01)
LONG_AGO = 1_000_000_000


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    write_files(folder, colour_images(4))
    return folder


def settings(client: Any = None) -> TransferSettings:
    return TransferSettings(timeout_seconds=10, connect_s3=lambda: client)


def look(address: str, cache: Path, client: Any = None) -> Snapshot:
    with Memory(cache, address) as memory:
        return looking.look(address, memory, settings(client), RETRY)


def address_of(folder: Path) -> str:
    return f"{folder.as_uri()}/"


def test_two_with_different_pasts_find_the_same_snapshot(photos: Path, tmp_path: Path) -> None:
    look(address_of(photos), tmp_path / "early")
    write_files(photos, {"red/new.png": colour_images(1, seed=9)["red/00000.png"]})
    (photos / "blue/00001.png").unlink()
    (photos / "green/00002.png").rename(photos / "red/moved.png")
    early, late = (look(address_of(photos), tmp_path / name) for name in ("early", "late"))
    assert early == late
    assert early.name == name_of(table(early.rows))
    assert [row.path for row in early.rows] == sorted(row.path for row in early.rows)
    assert len(early.rows) == 12
    assert {row.path: row.label for row in early.rows}["red/moved.png"] == "red"


def test_what_was_read_is_not_read_again(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look(address_of(photos), tmp_path / "cache")
    write_files(photos, {"red/new.png": colour_images(1, seed=9)["red/00000.png"]})
    read: list[str] = []

    def noted(file: Listed, how: TransferSettings) -> bytes | None:
        read.append(file.path)
        return read_listed(file, how)

    monkeypatch.setattr(looking, "read_listed", noted)
    look(address_of(photos), tmp_path / "cache")
    look(address_of(photos), tmp_path / "cache")
    assert read == ["red/new.png"]


def test_what_came_is_told_and_a_loss_too_great_is_refused(photos: Path, tmp_path: Path) -> None:
    address = address_of(photos)

    def again(pinned: str | None, max_lost: float = 0.2) -> Any:
        with Memory(tmp_path / "cache", address) as memory:
            return look_again(address, memory, pinned, max_lost, settings(), RETRY)

    first = again(None)
    assert first.changes is None
    write_files(photos, {"red/new.png": colour_images(1, seed=9)["red/00000.png"]})
    (photos / "blue/00001.png").unlink()
    (photos / "green/00002.png").rename(photos / "red/moved.png")
    (photos / "green/00001.png").rename(photos / "green/renamed.png")
    second = again(first.snapshot.name)
    assert second.changes == Changes(came=1, went=1, relabelled=1, moved=1)
    assert told(second).startswith("1 images came, 1 went, 1 changed their class: 12 images of 3 classes, snapshot ")
    assert told(again(second.snapshot.name)).startswith("nothing new: ")
    for name in ("blue/00000.png", "blue/00002.png", "green/00000.png"):
        (photos / name).unlink()
    with pytest.raises(InputError, match=r"has lost 3 of the 12 images of snapshot \w{16}, more than "):
        again(second.snapshot.name)
    assert again(second.snapshot.name, max_lost=1).changes.went == 3


def test_an_empty_or_absent_collection_is_one_sentence(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="the collection holds no image in a class folder"):
        look(address_of(tmp_path / "empty"), tmp_path / "cache")
    with pytest.raises(InputError, match=r"the collection file://.*/absent/ could not be listed: no such folder"):
        look(address_of(tmp_path / "absent"), tmp_path / "cache")


def test_a_file_that_still_changes_is_left_for_the_next_look(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing = photos / "red/growing.png"
    write_files(photos, {"red/growing.png": b"half"}, when=time.time())

    def grow(_seconds: float) -> None:
        growing.write_bytes(b"half and more")

    monkeypatch.setattr("tasks.sources.collection.time.sleep", grow)
    found = look(address_of(photos), tmp_path / "cache")
    assert found.unsettled == ("red/growing.png",)
    assert len(found.rows) == 12
    os.utime(growing, (LONG_AGO, LONG_AGO))
    assert len(look(address_of(photos), tmp_path / "cache").rows) == 13


def test_links_and_clutter_are_no_part_of_it(photos: Path, tmp_path: Path) -> None:
    (photos / "red/link.png").symlink_to("/etc/hostname")
    (photos / "red/a\nb.png").write_bytes(b"x")
    with pytest.raises(InputError, match=r"has a file whose name has a control character: 'red/a\\nb.png'"):
        look(address_of(photos), tmp_path / "cache")
    (photos / "red/a\nb.png").unlink()
    write_files(photos, {"red/.DS_Store": b"x", "@eaDir/red/0.png": b"x", "README.md": b"x"})
    assert len(look(address_of(photos), tmp_path / "cache").rows) == 12


def test_the_snapshot_holds_every_byte(photos: Path, tmp_path: Path) -> None:
    address, raw = address_of(photos), tmp_path / "raw"
    found = look(address, tmp_path / "cache")
    raw.mkdir()
    with Memory(tmp_path / "cache", address) as memory:
        place_snapshot(address, found.rows, found.name, memory, raw, settings())
    held = places(raw / "shards")
    for row in found.rows:
        assert read_content(held[row.sha256], row.sha256) == (photos / row.path).read_bytes()


def test_what_this_machine_lost_is_fetched_again_or_named(photos: Path, tmp_path: Path) -> None:
    address, cache = address_of(photos), tmp_path / "cache"
    found = look(address, cache)
    with Memory(cache, address) as memory:
        for path in memory.shards.iterdir():
            path.unlink()
        (raw := tmp_path / "raw").mkdir()
        place_snapshot(address, found.rows, found.name, memory, raw, settings())
        assert len(places(raw / "shards")) == 12
        for path in memory.shards.iterdir():
            path.unlink()
        (photos / "red/00000.png").write_bytes(b"something else")
        (again := tmp_path / "again").mkdir()
        with pytest.raises(InputError, match=r"no longer 1 of the images that snapshot .* needs, as 'red/00000.png'"):
            place_snapshot(address, found.rows, found.name, memory, again, settings())


SLOWLY = """
import sys, time
from pathlib import Path
from tasks.data import shards
from tasks.sources import look
from tasks.sources.addresses import TransferSettings
shards.SHARD_BYTES = 20_000
read = look.read_listed
look.read_listed = lambda *arguments: (time.sleep(0.01), read(*arguments))[1]
address = sys.argv[1]
with look.Memory(Path(sys.argv[2]), address) as memory:
    look.look(address, memory, TransferSettings(10, None), look.RetryPolicy())
"""


def test_a_look_that_is_killed_costs_nothing_but_time(photos: Path, tmp_path: Path) -> None:
    write_files(photos, colour_images(60, seed=3))
    undisturbed = look(address_of(photos), tmp_path / "undisturbed")
    for milliseconds in (900, 1_100, 1_300, 1_500):
        command = [sys.executable, "-c", SLOWLY, address_of(photos), str(tmp_path / "killed")]
        process = subprocess.Popen(command, cwd=ROOT)
        time.sleep(milliseconds / 1000)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert look(address_of(photos), tmp_path / "killed") == undisturbed
    with Memory(tmp_path / "killed", address_of(photos)) as memory:
        held = places(memory.shards)
        assert all(read_content(held[row.sha256], row.sha256) for row in undisturbed.rows)


@pytest.fixture
def prefix(object_store: ObjectStore, photos: Path) -> Iterator[str]:
    """A collection in S3 with the files of `photos`, and what it is in the bucket."""
    client, key = connect(object_store.environment), f"photos-{uuid.uuid4().hex}"
    for path in photos.rglob("*.png"):
        name = f"{key}/{path.relative_to(photos).as_posix()}"
        client.put_object(Bucket="retrain", Key=name, Body=path.read_bytes())
    yield key


def test_an_s3_prefix_and_a_folder_of_the_same_images_are_the_same_snapshot(
    object_store: ObjectStore, prefix: str, photos: Path, tmp_path: Path
) -> None:
    client = connect(object_store.environment)
    client.put_object(Bucket="retrain", Key=f"{prefix}/red/ü x.png", Body=(photos / "red/00000.png").read_bytes())
    write_files(photos, {"red/ü x.png": (photos / "red/00000.png").read_bytes()})
    there = look(f"s3://retrain/{prefix}/", tmp_path / "there", client)
    assert there == look(address_of(photos), tmp_path / "here")
    client.put_object(Bucket="retrain", Key=f"{prefix}/red/00001.png", Body=b"another")
    assert look(f"s3://retrain/{prefix}/", tmp_path / "there", client).name != there.name


def test_an_object_that_is_replaced_after_the_listing_is_left_for_the_next_look(
    object_store: ObjectStore, prefix: str
) -> None:
    client = connect(object_store.environment)
    listed = list_collection(f"s3://retrain/{prefix}/", settings(client))
    client.put_object(Bucket="retrain", Key=f"{prefix}/{listed[0].path}", Body=b"another")
    client.delete_object(Bucket="retrain", Key=f"{prefix}/{listed[1].path}")
    assert [read_listed(file, settings(client)) for file in listed[:2]] == [None, None]
    assert read_listed(listed[2], settings(client)) is not None


def test_requests_that_fail_are_tried_again(faulty_s3: FaultyS3, prefix: str, tmp_path: Path) -> None:
    client = connect(faulty_s3.environment)
    for kind in ("truncated", "reset", "status"):
        faulty_s3.fail(Fault(kind), "GET", "red/00001.png")
    assert len(look(f"s3://retrain/{prefix}/", tmp_path / "cache", client).rows) == 12


def test_a_store_that_is_away_is_an_outage_and_what_was_read_stays(
    faulty_s3: FaultyS3, prefix: str, tmp_path: Path
) -> None:
    client = connect(faulty_s3.environment)
    faulty_s3.go_away()
    with pytest.raises(OutageError, match=r"the collection s3://retrain/photos-.* could not be listed"):
        look(f"s3://retrain/{prefix}/", tmp_path / "cache", client)


def test_labels_csv_wins_over_folders_and_is_read_anew_each_time(photos: Path, tmp_path: Path) -> None:
    write_files(photos, {"labels.csv": b"path,label,group\nred/00000.png,green,p1\nlater.png,red,\n"})
    write_files(photos, {"loose.png": next(iter(colour_images(1, seed=3).values()))})
    first = look(address_of(photos), tmp_path / "cache")
    (corrected,) = (row for row in first.rows if row.path == "red/00000.png")
    assert (corrected.label, corrected.group) == ("green", "p1")
    assert len(first.rows) == 12
    assert first.remarks == (
        "1 images have no label, as 'loose.png'",
        "labels.csv names 1 files that are not there, as 'later.png'",
    )
    (photos / "labels.csv").write_bytes(b"path;label\nloose.png;red\n")
    second = look(address_of(photos), tmp_path / "cache")
    assert (len(second.rows), second.remarks) == (13, ())
    assert look(address_of(photos), tmp_path / "other").name == second.name
    (photos / "labels.csv").write_bytes(b"path,colour\n")
    with pytest.raises(InputError, match="has no column 'label'"):
        look(address_of(photos), tmp_path / "cache")

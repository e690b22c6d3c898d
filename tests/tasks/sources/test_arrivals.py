"""Archives that arrive in a collection."""

import tempfile
import uuid
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.data.shards import places
from tasks.s3.client import connect
from tasks.sources import look as looking
from tasks.sources.addresses import TransferSettings
from tasks.sources.memory import Memory, Snapshot
from tasks.sources.snapshots import place_snapshot
from tasks.sources.transfer import RetryPolicy
from tests.fixtures.archives import colour_images, write_files, write_tar, write_zip

LONG_AGO = 1_000_000_000


def packed(name: str, files: dict[str, bytes]) -> bytes:
    """Return an archive of some files, of the kind that its name says."""
    with tempfile.TemporaryDirectory() as folder:
        write_archive = write_zip if name.endswith(".zip") else write_tar
        return write_archive(Path(folder) / Path(name).name.lower(), files).read_bytes()


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    write_files(tmp_path / "photos", colour_images(4))
    return tmp_path / "photos"


def settings(client: Any = None) -> TransferSettings:
    return TransferSettings(timeout_seconds=10, connect_s3=lambda: client)


def look(address: str, cache: Path, client: Any = None) -> Snapshot:
    with Memory(cache, address) as memory:
        return looking.look(address, memory, settings(client), RetryPolicy(attempts=3, first_pause_seconds=0.01))


def address_of(folder: Path) -> str:
    return f"{folder.as_uri()}/"


@pytest.mark.parametrize("name", ["monday.zip", "2024/monday.tar.gz", "monday.TAR"])
def test_an_archive_may_arrive_and_its_images_are_the_collections(photos: Path, tmp_path: Path, name: str) -> None:
    arrived = {f"monday/{path}": data for path, data in colour_images(3, classes=("red", "blue"), seed=5).items()}
    write_files(photos, {name: packed(name, arrived | {"monday/README.md": b"hello"})})
    first = look(address_of(photos), tmp_path / "cache")
    inside = {row.path: row.label for row in first.rows if "!/" in row.path}
    assert inside == {f"{name}!/{path}": path.split("/")[1] for path in arrived}
    assert len(first.rows) == 12 + 6
    assert look(address_of(photos), tmp_path / "cache").name == first.name
    assert look(address_of(photos), tmp_path / "other").name == first.name
    # A copy of its bytes as a file is the same image; another archive in its place is another set.
    (photos / name).unlink()
    write_files(photos, {name: packed(name, dict(list(arrived.items())[:2]))}, when=LONG_AGO + 5)
    second = look(address_of(photos), tmp_path / "cache")
    assert len([row for row in second.rows if "!/" in row.path]) == 2
    (photos / name).unlink()
    assert len(look(address_of(photos), tmp_path / "cache").rows) == 12


def test_a_collection_may_hold_archives_alone(tmp_path: Path) -> None:
    for day, label in (("monday", "red"), ("tuesday", "blue")):
        write_files(
            tmp_path / "photos", {f"{day}.zip": packed("monday.zip", colour_images(3, classes=(label,), seed=len(day)))}
        )
    found = look(address_of(tmp_path / "photos"), tmp_path / "cache")
    assert {row.label for row in found.rows} == {"red", "blue"}
    assert len(found.rows) == 6


def test_a_damaged_arrival_is_said_and_tried_again(photos: Path, tmp_path: Path) -> None:
    whole = packed("monday.zip", colour_images(3, seed=5))
    write_files(photos, {"monday.zip": whole[: len(whole) // 2], "loose.zip": packed("monday.zip", {"1.png": b"x"})})
    found = look(address_of(photos), tmp_path / "cache")
    assert len(found.rows) == 12
    damaged, loose = sorted(found.remarks, reverse=True)
    assert damaged.startswith("monday.zip is left out: ")
    assert loose.startswith("loose.zip is left out: it's file '1.png' does not lie in <class>/<image>")
    write_files(photos, {"monday.zip": whole}, when=LONG_AGO + 5)
    assert len(look(address_of(photos), tmp_path / "cache").rows) == 12 + 9


def test_labels_csv_reaches_into_archives(photos: Path, tmp_path: Path) -> None:
    write_files(photos, {"monday.zip": packed("monday.zip", colour_images(1, classes=("red",), seed=5))})
    write_files(photos, {"labels.csv": b"path,label\nmonday.zip!/red/00000.png,green\n"})
    found = look(address_of(photos), tmp_path / "cache")
    assert [row.label for row in found.rows if row.path.startswith("monday")] == ["green"]
    assert found.remarks == ()


def test_what_the_memory_lost_of_an_archive_is_read_from_it_again(photos: Path, tmp_path: Path) -> None:
    write_files(photos, {"monday.zip": packed("monday.zip", colour_images(3, classes=("red",), seed=5))})
    found = look(address_of(photos), tmp_path / "cache")
    with Memory(tmp_path / "cache", address_of(photos)) as memory:
        for shard in memory.shards.iterdir():
            shard.unlink()
        (tmp_path / "raw").mkdir()
        place_snapshot(address_of(photos), found.rows, found.name, memory, tmp_path / "raw", settings())
    assert len(places(tmp_path / "raw/shards")) == len({row.sha256 for row in found.rows})


def test_an_archive_in_a_bucket_is_read_too(object_store: ObjectStore, tmp_path: Path) -> None:
    client, prefix = connect(object_store.environment), f"photos-{uuid.uuid4().hex}"
    for name, data in colour_images(2).items():
        client.put_object(Bucket="retrain", Key=f"{prefix}/{name}", Body=data)
    body = packed("monday.zip", colour_images(2, classes=("red",), seed=5))
    client.put_object(Bucket="retrain", Key=f"{prefix}/monday.zip", Body=body)
    found = look(f"s3://retrain/{prefix}/", tmp_path / "cache", client)
    assert len(found.rows) == 6 + 2
    assert not list(tmp_path.rglob("arriving.tmp"))


def test_a_folder_whose_name_ends_with_a_mark_is_no_archive(photos: Path, tmp_path: Path) -> None:
    write_files(photos, colour_images(3, classes=("wow!",), seed=5))
    write_files(photos, {"new!/monday.zip": packed("monday.zip", colour_images(2, classes=("red",), seed=6))})
    found = look(address_of(photos), tmp_path / "cache")
    assert sum(row.label == "wow!" for row in found.rows) == 3
    assert sum(row.path.startswith("new!/monday.zip!/red/") for row in found.rows) == 2
    assert look(address_of(photos), tmp_path / "cache").name == found.name

"""A large model to the object store and back: as a release, and by boto3's bare upload_file and download_file.

The store is that of the AWS_* variables. Every upload is of new bytes to a new name, every download to a new file; what
a round needs and leaves is made and removed outside its time.
"""

import itertools
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sides.serve import serve
from infra.local.object_store import BUCKET
from tasks.registry.manifest import Manifest, list_files, release_id, tree_name
from tasks.registry.releases import publish_release, pull_release, read_manifest
from tasks.registry.store import Store
from tasks.s3.client import connect
from tasks.stage.files import write_json

MODEL = "model.keras"


class Place:
    """A folder of this machine and one of the bucket, both of their own.

    Args:
        size: Bytes of the model.
    """

    def __init__(self, size: int) -> None:
        self.bucket = Store(connect(), BUCKET, f"benchmark/{uuid.uuid4().hex}")
        self._temporary = tempfile.TemporaryDirectory()  # goes with this program
        self.folder = Path(self._temporary.name)
        self.release = self.folder / "release"
        self._numbers = itertools.count()
        write_files(self.release, size)

    def renew(self) -> int:
        """Give the model other bytes; return how many times that was done before."""
        number = next(self._numbers)
        with (self.release / MODEL).open("r+b") as stream:
            stream.write(uuid.uuid4().bytes)
        return number

    def clear(self) -> None:
        """Remove everything of the bucket's folder."""
        client, start = self.bucket.client, f"{self.bucket.prefix}/"
        for page in client.get_paginator("list_objects_v2").paginate(Bucket=BUCKET, Prefix=start):
            for entry in page.get("Contents", ()):
                client.delete_object(Bucket=BUCKET, Key=entry["Key"])


def write_files(folder: Path, size: int) -> None:
    """Write the files of a release with a model of so many bytes, all different at each call."""
    folder.mkdir(parents=True, exist_ok=True)
    stream = np.random.default_rng()
    with (folder / MODEL).open("wb") as file:
        for start in range(0, size, 1 << 20):
            file.write(stream.bytes(min(1 << 20, size - start)))
    interval = {"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6}
    write_json(folder / "metrics.json", {**interval, "images": 100, "dataset": "cifar10", "test_sha256": "0" * 64})
    for name in ("labels.json", "probabilities.npy", "split.json"):
        (folder / name).write_bytes(stream.bytes(1000))


def describe(folder: Path) -> Manifest:
    """Return the manifest of a folder's files, hashed here."""
    files = list_files(folder)
    return Manifest(
        id=release_id(files),
        tree=tree_name(files),
        files=files,
        created_at="2024-01-01T00:00:00+00:00",
        git=None,
        dvc_lock=None,
        parameters={"train": {"recipe": "fast", "seed": 0}},
        data={},
        metrics={"top1": 0.5, "top1_low": 0.4, "top1_high": 0.6, "images": 100, "dataset": "cifar10"},
        training={},
        environment={},
        runtime={},
        parent=None,
        verdict=(),
    )


def publish(place: Place) -> float:
    """Hash and publish a release with new bytes; return the seconds."""
    place.renew()
    began = time.perf_counter()
    publish_release(place.bucket, place.release, describe(place.release))
    seconds = time.perf_counter() - began
    place.clear()
    return seconds


def upload(place: Place) -> float:
    """Upload new bytes as boto3 does it if not told otherwise; return the seconds."""
    key = f"{place.bucket.prefix}/{place.renew()}"
    began = time.perf_counter()
    place.bucket.client.upload_file(str(place.release / MODEL), BUCKET, key)
    seconds = time.perf_counter() - began
    place.clear()
    return seconds


def pull(place: Place, release: str) -> float:
    """Read the manifest and fetch the release, verified and synced; return the seconds."""
    target = place.folder / "pulled"
    began = time.perf_counter()
    pull_release(place.bucket, read_manifest(place.bucket, release), target)
    seconds = time.perf_counter() - began
    shutil.rmtree(target)
    return seconds


def download(place: Place, key: str) -> float:
    """Download as boto3 does it if not told otherwise; return the seconds."""
    target = place.folder / "downloaded"
    began = time.perf_counter()
    place.bucket.client.download_file(BUCKET, key, str(target))
    seconds = time.perf_counter() - began
    target.unlink()
    return seconds


def make(case: dict[str, Any]) -> Callable[[], float]:
    """Return a round of the case's `operation`, on a model of `bytes`: publish, upload, pull or download."""
    place = Place(case["bytes"])
    if case["operation"] == "publish":
        return lambda: publish(place)
    if case["operation"] == "upload":
        return lambda: upload(place)
    manifest = publish_release(place.bucket, place.release, describe(place.release))
    if case["operation"] == "pull":
        return lambda: pull(place, manifest.id)
    key = next(f"{manifest.id}/{manifest.tree}/{entry.path}" for entry in manifest.files if entry.path == MODEL)
    return lambda: download(place, f"{place.bucket.prefix}/releases/{key}")


if __name__ == "__main__":
    serve(make)

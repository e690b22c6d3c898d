"""A publisher in a process of its own, without TensorFlow: a small release and the moves of both channels."""

import os
import random
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from boto3.s3.transfer import TransferConfig

from tasks.registry.channels import move_pointer
from tasks.registry.manifest import Manifest
from tasks.registry.releases import publish_release
from tasks.registry.store import Store
from tasks.s3 import bucket as bucket_module
from tasks.s3 import client as client_module
from tasks.s3.client import connect
from tasks.stage.errors import run_command
from tests.fixtures.buckets import write_release
from tests.soak.gate import passes

PART_BYTES = 5 << 20  # the least that S3 takes
PATIENCE_SECONDS = 2


@dataclass(frozen=True)
class Place:
    """Where a process works.

    Attributes:
        environment: The AWS_* variables that reach the store.
        bucket: Its name.
        prefix: The folder in it.
        folder: On this machine, for releases and logs.
    """

    environment: dict[str, str]
    bucket: str
    prefix: str
    folder: Path

    def open(self, client: str) -> Store:
        """Return the bucket, for a client of this name that does not wait long."""
        os.environ["AWS_SDK_UA_APP_ID"] = f"{client}.{os.getpid()}"
        client_module.READ_SECONDS = client_module.CONNECT_SECONDS = PATIENCE_SECONDS
        bucket_module.TRANSFER = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES)
        return Store(connect(self.environment), self.bucket, self.prefix)

    def log_to(self, name: str) -> None:
        """Send what this process prints to `<folder>/<name>.log`."""
        log = os.open(self.folder / f"{name}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        for descriptor in (1, 2):
            os.dup2(log, descriptor)


@dataclass(frozen=True)
class Publication:
    """What is published.

    Attributes:
        name: Its id follows from it.
        top1: Its accuracy, by which the gate decides.
        large: Whether a file of it goes up in parts.
    """

    name: str
    top1: float
    large: bool

    def write(self, folder: Path) -> Manifest:
        """Write its files and return its manifest."""
        extra = random.Random(self.name).randbytes(PART_BYTES + (1 << 20)) if self.large else b"extra"  # noqa: S311
        return write_release(folder, self.name, top1=self.top1, extra=extra)


def publish(place: Place, publication: Publication, client: str) -> None:
    """Publish and end the process as the stage publish would: status 0, or 2 and one sentence in its log."""
    place.log_to(client)
    run_command("publish", lambda: _publish(place.open(client), publication, place.folder / publication.name))
    sys.stdout.flush()


def _publish(bucket: Store, publication: Publication, folder: Path) -> None:
    release = publish_release(bucket, folder, publication.write(folder))
    now = datetime.now(UTC).isoformat(timespec="seconds")
    move_pointer(bucket, "candidate", release, now, lambda _: "published")
    move_pointer(bucket, "champion", release, now, lambda champion: passes(release, champion))

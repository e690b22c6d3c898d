"""A collection that grows: what a look and the stages after it cost when nothing came, and when 1 % did."""

import hashlib
import io
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from infra.local.object_store import ObjectStore
from tasks.data.snapshot import SNAPSHOT_NAME
from tasks.params.data import SplitParams
from tasks.s3.client import connect
from tasks.sources.addresses import TransferSettings
from tasks.sources.look import look
from tasks.sources.memory import Memory, Snapshot
from tasks.sources.snapshots import place_snapshot
from tasks.sources.source import RawSource, save_source
from tasks.sources.transfer import RetryPolicy
from tasks.split import split

SIZES = (10_000, 100_000)
SHARE = 0.01
CLASSES = 10
SIDE = 8  # pixels: what is measured follows the number of images, and bytes are told beside
AT_ONCE = 32
SPLIT = SplitParams(method="stable", validation_fraction=0.1, test_fraction=0.15, image_size=SIDE)

Put = Callable[[str, bytes], None]


@dataclass(frozen=True)
class Cost:
    """What one step cost: seconds, and the bytes that DVC would push of it."""

    seconds: float
    pushed: int = 0


def measure() -> str:
    """Grow collections on this machine's disk and in its S3; return the section for results.md."""
    rows = []
    with tempfile.TemporaryDirectory(prefix="growth-") as name:
        store = ObjectStore(Path(name) / ".local")
        store.start()
        try:
            client = connect(store.environment)
            for size in SIZES:
                rows += [_row("a folder", size, *_grown(_folder(Path(name) / f"folder-{size}"), size, None))]
                print(rows[-1], flush=True)
                rows += [_row("an S3 prefix", size, *_grown(_prefix(client), size, client))]
                print(rows[-1], flush=True)
        finally:
            store.stop()
    table = "\n".join(rows)
    return f"""## A collection that grows

PNG files of {SIDE}×{SIDE} pixels (about 250 bytes each, so that counts are measured and not transfers), in {CLASSES}
classes; then {SHARE:.0%} more. Seconds; in brackets the bytes that DVC would push because of it. `download` links
shards, `split` writes its arrays whole.

| collection | images | first look | nothing came | look at 1 % | download | split |
|---|---|---|---|---|---|---|
{table}"""


def _row(place: str, size: int, *costs: Cost) -> str:
    cells = (f"{cost.seconds:.1f}" + (f" ({_bytes(cost.pushed)})" if cost.pushed else "") for cost in costs)
    return f"| {place} | {size:,} | {' | '.join(cells)} |"


def _bytes(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 1e6 else f"{count / 1e3:.0f} kB"


def _grown(place: tuple[str, Put], size: int, client: Any) -> tuple[Cost, ...]:
    """Fill a collection, look, look again, add to it, and run the stages on it."""
    address, put = place
    settings = TransferSettings(timeout_seconds=60, connect_s3=lambda: client)
    retry = RetryPolicy(attempts=5)
    with tempfile.TemporaryDirectory(prefix="growth-work-") as name, Memory(Path(name) / "cache", address) as memory:
        work = Path(name)

        def looked() -> tuple[Snapshot, float]:
            start = time.monotonic()
            return look(address, memory, settings, retry), time.monotonic() - start

        _add(put, range(size))
        snapshot, first = looked()
        _stages(work, address, snapshot, memory, settings)
        before = _hashes(work)
        _, unchanged = looked()
        _add(put, range(size, size + round(SHARE * size)))
        snapshot, came = looked()
        download, splitting = _stages(work, address, snapshot, memory, settings)
        new = {path: count for (path, digest), count in _hashes(work).items() if (path, digest) not in before}
        pushed = [sum(count for path, count in new.items() if path.startswith(f"{part}/")) for part in ("raw", "split")]
    return Cost(first), Cost(unchanged), Cost(came), Cost(download, pushed[0]), Cost(splitting, pushed[1])


def _stages(
    work: Path, address: str, snapshot: Snapshot, memory: Memory, settings: TransferSettings
) -> tuple[float, float]:
    """Do what download and split do; return their seconds."""
    raw = work / "raw"
    shutil.rmtree(raw, ignore_errors=True)
    raw.mkdir()
    start = time.monotonic()
    place_snapshot(address, snapshot.rows, snapshot.name, memory, raw, settings)
    table = raw / SNAPSHOT_NAME
    save_source(raw, RawSource("folders", table, snapshot.name, table.stat().st_size))
    between = time.monotonic()
    split(SPLIT, raw, work / "split")
    return between - start, time.monotonic() - between


def _hashes(work: Path) -> dict[tuple[str, str], int]:
    """Return the size of each file of the stages by its path and content: a file with both is not pushed again."""
    return {
        (path.relative_to(work).as_posix(), hashlib.sha256(path.read_bytes()).hexdigest()): path.stat().st_size
        for part in ("raw", "split")
        for path in (work / part).rglob("*")
        if path.is_file()
    }


def _add(put: Put, numbers: range) -> None:
    def one(number: int) -> None:
        pixels = np.random.default_rng(number).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream := io.BytesIO(), "png")
        put(f"class{number % CLASSES}/{number:07d}.png", stream.getvalue())

    with ThreadPoolExecutor(AT_ONCE) as pool:
        for _ in pool.map(one, numbers):
            pass


def _folder(folder: Path) -> tuple[str, Put]:
    for number in range(CLASSES):
        (folder / f"class{number}").mkdir(parents=True)

    def put(name: str, data: bytes) -> None:
        (folder / name).write_bytes(data)

    return f"{folder.as_uri()}/", put


def _prefix(client: Any) -> tuple[str, Put]:
    prefix = f"growth-{uuid.uuid4().hex}"

    def put(name: str, data: bytes) -> None:
        client.put_object(Bucket="retrain", Key=f"{prefix}/{name}", Body=data)

    return f"s3://retrain/{prefix}/", put

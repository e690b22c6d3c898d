"""Publishing and pulling a large model against bare boto3 on the same server; listing many releases; memory."""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.sides.registry import describe, write_files
from benchmarks.turns import spread, take_turns
from benchmarks.workspace import object_store
from infra.local.object_store import BUCKET
from tasks.registry.__main__ import COMMANDS
from tasks.registry.releases import publish_release
from tasks.registry.store import Store
from tasks.s3.client import connect

ROUNDS = 41
MODEL_BYTES = 60_000_000
LARGE_BYTES = 10 * MODEL_BYTES
RELEASES = 1000
LISTINGS = 9
PREFIX = "benchmark/many"


def measure() -> str:
    """Measure with an object store of its own; return the section for results.md."""
    with object_store():
        return f"""## The registry

A release whose model has {MODEL_BYTES / 1e6:.0f} MB, beside boto3's bare `upload_file` and `download_file` of that
model with their own settings, to and from one SeaweedFS on the same processor, in turns, up to {ROUNDS} rounds.
Publishing is hashing the files, uploading them, the manifest and the row of the list; pulling is reading the manifest,
fetching, verifying and syncing to disk, which `download_file` does not. Median (quartiles), also of the rounds' ratios.

| | seconds | bare boto3, seconds | ratio |
|---|---|---|---|
{transfer_row("publish", "upload")}
{transfer_row("pull", "download")}

{listing_sentence()}

| peak of memory above what was held before, MB | {MODEL_BYTES / 1e6:.0f} MB model | {LARGE_BYTES / 1e6:.0f} MB model |
|---|---|---|
{memory_row("publish")}
{memory_row("pull")}"""


def transfer_row(ours: str, bare: str) -> str:
    """Measure a release's way and bare boto3's in turns; return the row of the table."""
    sides = {name: ("registry", {"operation": name, "bytes": MODEL_BYTES}, sys.executable) for name in (ours, bare)}
    seconds = {name: [each.seconds for each in rounds] for name, rounds in take_turns(sides, ROUNDS).items()}
    ratios = [mine / other for mine, other in zip(seconds[ours], seconds[bare], strict=True)]
    fastest = f"fastest {min(seconds[ours]) / min(seconds[bare]):.2f}"
    row = f"| {ours} | {spread(seconds[ours], 3)} | {spread(seconds[bare], 3)} | {spread(ratios, 2)}, {fastest} |"
    print(row, flush=True)
    return row


def listing_sentence() -> str:
    """Publish many small releases and list them by the command that a person types; return what that took."""
    bucket = Store(connect(), BUCKET, PREFIX)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda _: publish_small(bucket), range(RELEASES)))
    command = [sys.executable, "-m", "tasks.registry", "list", "--json", "--bucket", BUCKET, "--prefix", PREFIX]
    seconds = []
    for _ in range(LISTINGS):
        began = time.perf_counter()
        listed = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
        seconds.append(time.perf_counter() - began)
        assert len(listed) == RELEASES
    sentence = (
        f"`python -m tasks.registry list` of {RELEASES:,} releases takes {spread(seconds, 2)} s, Python's start "
        f"included, and {count_requests(bucket)} requests."
    )
    print(sentence, flush=True)
    return sentence


def publish_small(bucket: Store) -> None:
    """Publish a release of a few kilobytes, unlike any other."""
    with tempfile.TemporaryDirectory() as folder:
        write_files(Path(folder), 1000)
        publish_release(bucket, Path(folder), describe(Path(folder)))


def count_requests(bucket: Store) -> int:
    """Return the requests of a listing, with the one that opens the bucket."""
    sent: list[str] = []

    def note(model: Any, **_: Any) -> None:
        sent.append(model.name)

    bucket.client.meta.events.register("before-call.s3", note)
    bucket.check()
    COMMANDS["list"](bucket, argparse.Namespace())
    return len(sent)


def memory_row(operation: str) -> str:
    """Return what an operation adds to a program's peak memory, for both sizes."""
    cells = []
    for size in (MODEL_BYTES, LARGE_BYTES):
        case = json.dumps({"operation": operation, "bytes": size})
        command = [sys.executable, "-m", "benchmarks.sides.registry_memory", case]
        found = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        cells.append(f"{(found['after'] - found['before']) / 1e6:.0f}")
    row = f"| {operation} | {cells[0]} | {cells[1]} |"
    print(row, flush=True)
    return row

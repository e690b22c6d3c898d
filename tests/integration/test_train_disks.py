"""The stage train on a full disk, and on a machine that lost its disk and has its checkpoints in a bucket."""

import re
import shutil
import uuid
from pathlib import Path

from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tests.fixtures.nursery import Nursery
from tests.fixtures.train_workspace import checkpoints, contents, newest_step, write_workspace

RECIPE = {"epochs": 6}


def test_a_full_disk_costs_a_warning_and_no_bit(nursery: Nursery, tmp_path: Path, small_disk: Path) -> None:
    alone = write_workspace(tmp_path / "alone", RECIPE)
    running = nursery.start(alone)
    folder = write_workspace(tmp_path / "full", RECIPE, checkpoint_every_steps=4)
    (folder / ".cache").symlink_to(small_disk)
    run = nursery.start(folder)
    assert run.wait_until(lambda: newest_step(folder) >= 8), run.err
    with (small_disk / "filler").open("wb", buffering=0) as filler:
        try:
            while True:
                filler.write(bytes(4096))
        except OSError:
            pass
    assert run.wait_until(lambda: "could not be saved" in run.err), run.err
    standing = checkpoints(folder)
    assert run.wait() == 0, run.err
    warnings = re.findall(
        r"^train: step (\d+) could not be saved: No space left on device; the last good checkpoint is (\S+)$",
        run.err,
        re.MULTILINE,
    )
    assert warnings
    assert len(run.err.splitlines()) == len(warnings)
    assert {folder / path for _, path in warnings} == {standing[-1]}
    assert running.wait() == 0, running.err
    assert contents(folder / "model") == contents(alone / "model")


def test_a_machine_with_an_empty_disk_goes_on_from_the_bucket(
    nursery: Nursery, tmp_path: Path, object_store: ObjectStore
) -> None:
    alone = write_workspace(tmp_path / "alone", RECIPE)
    running = nursery.start(alone)
    prefix = f"checkpoints/{uuid.uuid4().hex}"
    address = f"s3://{object_store.bucket}/{prefix}"
    folder = write_workspace(tmp_path / "lost", RECIPE, checkpoint_every_steps=5, checkpoint_remote=address)
    client = connect(object_store.environment)

    def mirrored() -> list[str]:
        found = client.list_objects_v2(Bucket=object_store.bucket, Prefix=prefix).get("Contents", [])
        return sorted(entry["Key"].rpartition("/")[2] for entry in found)

    run = nursery.start(folder, environment=object_store.environment)
    assert run.wait_until(lambda: any(name >= "step-00000010" for name in mirrored())), run.err
    run.kill()
    steps = {int(name.split("-")[1]) for name in mirrored() if name.startswith("step-")}
    shutil.rmtree(folder / ".cache")
    again = nursery.start(folder, environment=object_store.environment)
    assert again.wait() == 0, again.err
    resumed = re.search(r"resuming in epoch .* \((\d+) in all\)", again.out)
    assert resumed
    assert int(resumed[1]) == max(steps)
    assert running.wait() == 0, running.err
    assert contents(folder / "model") == contents(alone / "model")
    assert mirrored() == []


def test_a_bucket_that_cannot_be_reached_is_one_sentence_before_any_step(nursery: Nursery, tmp_path: Path) -> None:
    folder = write_workspace(tmp_path, checkpoint_remote="s3://retrain/checkpoints")
    unreachable = {
        "AWS_ENDPOINT_URL_S3": "http://127.0.0.1:9",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    run = nursery.start(folder, environment=unreachable)
    assert run.wait() == 69
    assert len(run.err.splitlines()) == 1
    assert run.err.startswith("train: ")
    assert "127.0.0.1:9" in run.err
    assert "step" not in run.out
    assert not (folder / "model").exists()

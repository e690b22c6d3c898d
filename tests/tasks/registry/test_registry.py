"""`python -m tasks.registry` as a person and as a program use it, against a real server."""

import json
import os
import shutil
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.actor import current_actor
from tasks.registry.channels import move_pointer, resolve
from tasks.registry.manifest import Manifest
from tasks.registry.releases import file_key, manifest_key, publish_release, verify_folder
from tasks.registry.store import Store
from tests.fixtures.buckets import all_keys, new_bucket, write_leftovers, write_release
from tests.fixtures.shifted_store import ShiftedStore

if TYPE_CHECKING:
    from tests.fixtures.published import Workspace

REPOSITORY = Path(__file__).parents[3]


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


@pytest.fixture
def releases(bucket: Store, tmp_path: Path) -> list[Manifest]:
    """Two releases; the second is candidate and champion."""
    published = []
    for name, top1 in (("first", 0.5), ("second", 0.625)):
        manifest = write_release(tmp_path / name, name, top1=top1)
        if name == "second":
            manifest = manifest.model_copy(update={"created_at": "2024-02-02T00:00:00+00:00"})
        published.append(publish_release(bucket, tmp_path / name, manifest))
    move_pointer(bucket, "candidate", published[1], "2024-02-02T00:00:00+00:00", lambda _: "published")
    move_pointer(bucket, "champion", published[1], "2024-02-02T00:00:00+00:00", lambda _: "better")
    return published


def _registry(
    store: ObjectStore, bucket: Store, *arguments: str | Path, **environment: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.registry", *map(str, arguments)]
    return subprocess.run(
        [*command, "--bucket", bucket.name, "--prefix", bucket.prefix],
        env={**os.environ, **store.environment, **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def _answer(store: ObjectStore, bucket: Store, *arguments: str | Path) -> str:
    done = _registry(store, bucket, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def _refusal(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one sentence of a command that refused."""
    assert done.returncode == 2
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith("registry: ")
    return line


def test_list_shows_the_newest_first(object_store: ObjectStore, bucket: Store, releases: list[Manifest]) -> None:
    title, newest, oldest = _answer(object_store, bucket, "list").splitlines()
    assert title.split()[:2] == ["ID", "PUBLISHED"]
    for part in (releases[1].id, "62.50 %", "40.00 to 60.00 %", "candidate, champion", "cifar10", "fast"):
        assert part in newest
    assert releases[0].id in oldest
    assert "champion" not in oldest
    answer: list[dict[str, Any]] = json.loads(_answer(object_store, bucket, "list", "--json"))
    assert [(entry["id"], entry["top1"], entry["channels"]) for entry in answer] == [
        (releases[1].id, 0.625, ["candidate", "champion"]),
        (releases[0].id, 0.5, []),
    ]


def test_an_empty_registry_says_so(object_store: ObjectStore, bucket: Store) -> None:
    assert _answer(object_store, bucket, "list") == f"no releases in s3://retrain/{bucket.prefix}/releases yet\n"
    assert json.loads(_answer(object_store, bucket, "list", "--json")) == []
    assert "there is no champion" in _refusal(_registry(object_store, bucket, "show"))


def test_show_says_what_a_release_is(object_store: ObjectStore, bucket: Store, releases: list[Manifest]) -> None:
    text = _answer(object_store, bucket, "show")
    for part in (
        releases[1].id,
        "62.50 % (95 % interval 40.00 to 60.00 %) on 100 test images",
        "c" * 40,
        "model.keras",
    ):
        assert part in text
    shown = json.loads(_answer(object_store, bucket, "show", releases[0].id[:8], "--json"))
    assert shown == releases[0].model_dump(mode="json")


def test_pull_fetches_a_verified_release(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest], tmp_path: Path
) -> None:
    done = json.loads(_answer(object_store, bucket, "pull", "champion", tmp_path / "pulled", "--json"))
    assert done == {"id": releases[1].id, "folder": str(tmp_path / "pulled"), "files": 6, "bytes": releases[1].size}
    assert verify_folder(tmp_path / "pulled") == releases[1]


def test_pull_refuses_a_flipped_bit_and_leaves_the_old_copy(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest], tmp_path: Path
) -> None:
    first, second = releases
    _answer(object_store, bucket, "pull", first.id, tmp_path / "pulled")
    key = file_key(second, second.files[2])
    body = bytearray((tmp_path / "second" / second.files[2].path).read_bytes())
    body[0] ^= 1
    bucket.client.put_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}", Body=bytes(body))
    done = _registry(object_store, bucket, "pull", second.id, tmp_path / "pulled")
    assert done.returncode == 2
    assert f"{key} was altered" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    assert verify_folder(tmp_path / "pulled") == first


def test_a_full_disk_leaves_the_old_copy(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest], small_disk: Path, tmp_path: Path
) -> None:
    large = write_release(tmp_path / "large", "large", extra=bytes(2 << 20))
    publish_release(bucket, tmp_path / "large", large)
    _answer(object_store, bucket, "pull", releases[0].id, small_disk / "pulled")
    done = _registry(object_store, bucket, "pull", large.id, small_disk / "pulled")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith("registry: No space left on device")
    assert verify_folder(small_disk / "pulled") == releases[0]
    assert [path.name for path in small_disk.iterdir()] == ["pulled"]


def test_diff_compares_two_releases(object_store: ObjectStore, bucket: Store, releases: list[Manifest]) -> None:
    first, second = releases
    text = _answer(object_store, bucket, "diff", first.id, "champion")
    assert ["top1", "0.5", "0.625", "(+0.125)"] in [line.split() for line in text.splitlines()]
    found = json.loads(_answer(object_store, bucket, "diff", first.id[:8], second.id, "--json"))
    assert found["metrics"]["top1"] == {"before": 0.5, "after": 0.625, "change": 0.125}
    assert (found["before"], found["after"]) == (first.id, second.id)


def test_verify_answers_with_its_status(object_store: ObjectStore, bucket: Store, releases: list[Manifest]) -> None:
    assert _answer(object_store, bucket, "verify").startswith(f"{releases[1].id}: sound, 6 files of ")
    found = json.loads(_answer(object_store, bucket, "verify", "--all", "--json"))
    assert {each["subject"] for each in found["verified"]} == {*(r.id for r in releases), "candidate", "champion"}
    key = file_key(releases[0], releases[0].files[2])
    bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")
    for arguments in (("--all",), (releases[0].id,)):
        done = _registry(object_store, bucket, "verify", *arguments)
        assert done.returncode == 1
        assert f"{key} is missing" in done.stdout
        assert done.stderr == ""
    _answer(object_store, bucket, "verify", "champion")
    assert "there is no release" in _refusal(_registry(object_store, bucket, "verify", "0" * 16))
    assert "not 'champion' and --all" in _refusal(_registry(object_store, bucket, "verify", "champion", "--all"))


def test_history_tells_every_move(object_store: ObjectStore, bucket: Store, releases: list[Manifest]) -> None:
    first, second = releases
    move_pointer(bucket, "candidate", first, "2024-03-03T00:00:00+00:00", lambda _: "published again")
    moves = json.loads(_answer(object_store, bucket, "history", "candidate", "--json"))
    assert [(move["release"], move["reason"]) for move in moves] == [
        (second.id, "published"),
        (first.id, "published again"),
    ]
    assert _answer(object_store, bucket, "history", "champion").count(second.id) == 1


def test_a_forced_promotion_is_in_the_history_with_who_and_why(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest]
) -> None:
    first, second = releases
    assert "needs a reason" in _refusal(_registry(object_store, bucket, "promote", first.id, "--force"))
    assert "is not a list of names" in _refusal(_registry(object_store, bucket, "promote", first.id))
    reason = ("--force", "--reason", "the new one fails on night pictures")
    done = json.loads(_answer(object_store, bucket, "promote", first.id, *reason, "--json"))
    assert done == {"id": first.id, "champion": True, "forced": True, "verdict": []}
    title, last, earlier = _answer(object_store, bucket, "history").splitlines()
    assert title.split() == ["MOVED", "RELEASE", "BY", "WHO", "WHY"]
    for part in (first.id, "promote, forced", current_actor(), "the new one fails on night pictures"):
        assert part in last
    assert second.id in earlier


def test_promote_asks_the_gate(object_store: ObjectStore, workspace: "Workspace") -> None:
    shutil.copy(REPOSITORY / "params.yaml", "params.yaml")
    champion = resolve(workspace.bucket, "champion")
    workspace.retrain(right=6)
    worse = workspace.publish()["id"]
    done = _registry(object_store, workspace.bucket, "promote", worse, PYTHONPATH=str(REPOSITORY))
    assert (done.returncode, done.stderr) == (1, "")
    first, *sentences = done.stdout.splitlines()
    assert first == f"{worse} is not champion"
    assert any(line.startswith("✗ top-1 25.00 % is 50.00 points below") for line in sentences)
    assert any(line.startswith("✓ model.keras reproduces") for line in sentences)
    assert resolve(workspace.bucket, "champion") == champion


def test_rollback_points_a_channel_at_the_release_before(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest]
) -> None:
    first, second = releases
    assert "nothing to go back to" in _refusal(_registry(object_store, bucket, "rollback", "--reason", "x"))
    move_pointer(bucket, "champion", first, "2024-03-03T00:00:00+00:00", lambda _: "better")
    unexplained = _registry(object_store, bucket, "rollback")
    assert (unexplained.returncode, unexplained.stdout) == (2, "")
    assert "--reason" in unexplained.stderr
    text = _answer(object_store, bucket, "rollback", "champion", "--reason", "it fails at night")
    assert text == f"champion points at release {second.id} again\n"
    last = json.loads(_answer(object_store, bucket, "history", "--json"))[-1]
    assert (last["release"], last["action"], last["reason"]) == (second.id, "rollback", "it fails at night")


def test_gc_shows_and_removes_what_is_a_day_old(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest], shifted_store: ShiftedStore, tmp_path: Path
) -> None:
    before = all_keys(bucket)
    left = set(write_leftovers(bucket, tmp_path / "died", write_release(tmp_path / "died", "died")))
    assert _answer(object_store, bucket, "gc", "--delete") == "no garbage that is a day old\n"
    shifted_store.ahead = timedelta(hours=25)
    there = shifted_store.environment
    shown = _registry(object_store, bucket, "gc", **there)
    assert (shown.returncode, shown.stdout.count("file of an unfinished release")) == (0, len(left))
    assert shown.stdout.endswith("to remove: registry gc --delete\n")
    assert all_keys(bucket) == before | left
    removed = json.loads(_registry(object_store, bucket, "gc", "--delete", "--json", **there).stdout)
    assert removed["deleted"] is True
    assert {item["key"] for item in removed["garbage"]} == left
    assert all_keys(bucket) == before


def test_a_damaged_manifest_is_said_and_answered_with_1(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest]
) -> None:
    bucket.write(manifest_key("0" * 16), b"{}", replacing=None)
    for command in ("list", "gc"):
        done = _registry(object_store, bucket, command)
        assert done.returncode == 1
        assert "0000000000000000/manifest.json is not a manifest" in done.stderr
        assert done.stderr.count("\n") == 1
    assert releases[1].id in _registry(object_store, bucket, "list").stdout


def test_rebuild_prints_commands_and_its_doubts(
    object_store: ObjectStore, bucket: Store, releases: list[Manifest]
) -> None:
    done = _registry(object_store, bucket, "rebuild")
    assert done.returncode == 1  # the releases of this test know no dvc.lock
    assert done.stderr.startswith("registry: it was published without a dvc.lock")
    assert f"git checkout --quiet --detach {'c' * 40}" in done.stdout
    found = json.loads(_registry(object_store, bucket, "rebuild", releases[0].id, "--json").stdout)
    assert found["id"] == releases[0].id
    assert f"cd .cache/rebuild-{releases[0].id}" in [line for step in found["steps"] for line in step["commands"]]


def test_an_unreachable_store_is_one_sentence(object_store: ObjectStore, bucket: Store) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        done = _registry(object_store, bucket, "list", AWS_ENDPOINT_URL_S3=endpoint)
    assert (done.returncode, done.stdout) == (69, "")
    assert done.stderr.startswith(f"registry: the object store at {endpoint} cannot be reached; is it running?")


def test_wrong_credentials_are_one_sentence(object_store: ObjectStore, bucket: Store) -> None:
    sentence = _refusal(_registry(object_store, bucket, "list", AWS_SECRET_ACCESS_KEY="PLANTED"))
    assert "does not accept the S3 credentials" in sentence
    assert "PLANTED" not in sentence


def test_a_missing_bucket_is_one_sentence(object_store: ObjectStore, bucket: Store) -> None:
    missing = Store(bucket.client, "no-such-bucket", "models")
    assert "bucket 'no-such-bucket' does not exist" in _refusal(_registry(object_store, missing, "list"))


def test_the_default_bucket_is_that_of_the_parameters(object_store: ObjectStore) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tasks.registry", "show", "0" * 16],
        env={**os.environ, **object_store.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "there is no release '0000000000000000' in s3://retrain/models/releases" in _refusal(done)


def test_it_starts_without_tensorflow() -> None:
    code = "import sys, tasks.registry; print([name for name in ('tensorflow', 'keras') if name in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"

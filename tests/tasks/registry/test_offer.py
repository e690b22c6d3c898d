"""Which channels an offer moves, on a real S3 server; the releases hold answers and no model, so none is loaded."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.params.params import Params, PublishParams, load_params
from tasks.registry.channels import promote, read_pointer, rollback
from tasks.registry.manifest import Manifest
from tasks.registry.offer import Offer, offer
from tasks.registry.releases import file_key, manifest_key
from tasks.registry.store import Store
from tasks.s3.bucket import Stored
from tasks.stage.errors import InputError
from tests.fixtures.answered import IMAGES, publish_answered, write_receipt
from tests.fixtures.buckets import all_keys, new_bucket
from tests.fixtures.dvc_project import REPOSITORY

RIGHT = 300
NOW = "2024-01-02T03:04:05+00:00"


class Workspace:
    """A folder with a receipt, and a prefix of its own."""

    def __init__(self, folder: Path, bucket: Store) -> None:
        self.folder, self.bucket = folder, bucket

    def publish(self, right: int, **facts: Any) -> Manifest:
        return publish_answered(self.bucket, self.folder, right, **facts)

    def params(self, **changes: Any) -> Params:
        place = {"bucket": self.bucket.name, "prefix": self.bucket.prefix}
        chosen = PublishParams.model_validate({**place, **changes})
        return load_params(REPOSITORY / "params.yaml").model_copy(update={"publish": chosen})

    def offer(self, **changes: Any) -> Offer:
        return offer(self.bucket, self.params(**changes))

    def run(self, right: int) -> Manifest:
        """Publish a release and offer it."""
        release = self.publish(right)
        self.offer()
        return release

    def channels(self) -> dict[str, list[str]]:
        """Return every release that a channel pointed at, the present one last."""
        pointers = {channel: read_pointer(self.bucket, channel) for channel in ("candidate", "champion")}
        return {
            name: [move.release for move in pointer.history] if pointer else [] for name, pointer in pointers.items()
        }


@pytest.fixture
def workspace(tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Workspace:
    monkeypatch.chdir(tmp_path)
    return Workspace(tmp_path, new_bucket(object_store))


def refused(verdict: tuple[Any, ...]) -> list[str]:
    return [each["rule"] for each in verdict if not each["passed"]]


def test_the_first_release_takes_both_channels(workspace: Workspace) -> None:
    release = workspace.publish(RIGHT)
    assert workspace.channels() == {"candidate": [], "champion": []}
    offered = workspace.offer()
    assert workspace.channels() == {"candidate": [release.id], "champion": [release.id]}
    assert (offered.published, offered.candidate, offered.champion) == (True, True, True)
    assert (offered.champion_before, offered.champion_now) == (None, release.id)
    assert (offered.moved, offered.outcome) == (("candidate", "champion"), "it is the champion now")
    rules = {finding["rule"] for finding in offered.verdict if isinstance(finding, dict)}
    assert rules > {"reaches_floor", "beats_the_largest_class", "reloads", "serves"}


def test_a_better_release_says_whose_place_it_took(workspace: Workspace) -> None:
    first, second = workspace.run(RIGHT), workspace.publish(RIGHT + 1)
    offered = workspace.offer()
    assert (offered.champion_before, offered.champion_now, offered.champion) == (first.id, second.id, True)


def test_offering_again_changes_nothing_and_says_so(workspace: Workspace) -> None:
    workspace.run(RIGHT)
    before = all_keys(workspace.bucket), workspace.channels()
    offered = workspace.offer()
    assert (all_keys(workspace.bucket), workspace.channels()) == before
    assert (offered.moved, offered.champion, offered.outcome) == ((), True, "it is the champion already")


def test_a_worse_release_is_candidate_only(workspace: Workspace) -> None:
    first, worse = workspace.run(RIGHT), workspace.publish(RIGHT - 40)
    for moved in (("candidate",), ()):
        offered = workspace.offer()
        assert (offered.moved, offered.candidate, offered.champion) == (moved, True, False)
        assert (offered.champion_before, offered.champion_now) == (first.id, first.id)
        assert offered.outcome.startswith("not champion: top-1 65.00 % is 10.00 points below the 75.00 % of the champ")
        assert refused(offered.verdict)[0] == "is_not_worse"
    assert workspace.channels() == {"candidate": [first.id, worse.id], "champion": [first.id]}


def test_a_beaten_champion_says_so_and_comes_back_by_a_person_only(workspace: Workspace) -> None:
    old, better = workspace.run(RIGHT), workspace.run(RIGHT + 1)
    write_receipt(workspace.bucket, workspace.folder, old)  # the old parameters again, or a run with nothing new
    offered = workspace.offer()
    assert (offered.moved, offered.champion_now) == ((), better.id)
    assert refused(offered.verdict) == ["was_not_beaten"]  # one image of 400 is within the tolerance
    assert offered.outcome.startswith(f"not champion: it was champion until release {better.id} took its place at ")
    assert promote(workspace.bucket, old, lambda _: "it is smaller", reason="", actor="ann@lab", now=NOW)
    assert workspace.offer().champion
    assert workspace.channels() == {"candidate": [old.id, better.id], "champion": [old.id, better.id, old.id]}


def test_what_was_rolled_back_stays_so(workspace: Workspace) -> None:
    first, second = workspace.run(RIGHT), workspace.run(RIGHT + 1)
    rollback(workspace.bucket, "champion", actor="ann@lab", reason="it fails at night", now=NOW)
    offered = workspace.offer()
    assert (offered.id, offered.champion_now) == (second.id, first.id)
    assert refused(offered.verdict) == ["was_not_rolled_back"]


def test_an_offer_that_was_cut_off_between_the_channels_is_completed(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = workspace.run(RIGHT), workspace.publish(RIGHT + 1)
    write = Store.write

    def die(self: Store, key: str, body: bytes, *, replacing: Stored | None) -> None:
        if key == "channels/champion.json":
            raise KeyboardInterrupt
        write(self, key, body, replacing=replacing)

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Store, "write", die)
        workspace.offer()
    assert workspace.channels() == {"candidate": [first.id, second.id], "champion": [first.id]}
    assert workspace.offer().moved == ("champion",)
    assert workspace.channels() == {"candidate": [first.id, second.id], "champion": [first.id, second.id]}


def test_a_release_that_was_damaged_later_is_never_pointed_at(workspace: Workspace) -> None:
    release = workspace.publish(RIGHT)
    entry = next(entry for entry in release.files if entry.path == "model.keras")
    key = f"{workspace.bucket.prefix}/{file_key(release, entry)}"
    workspace.bucket.client.put_object(Bucket="retrain", Key=key, Body=bytes(entry.size))
    with pytest.raises(InputError, match=r"model\.keras was altered"):
        workspace.offer()
    assert workspace.channels() == {"candidate": [], "champion": []}


def test_a_bucket_that_lost_the_release_is_noticed(workspace: Workspace) -> None:
    release = workspace.run(RIGHT)
    key = f"{workspace.bucket.prefix}/{manifest_key(release.id)}"
    workspace.bucket.client.delete_object(Bucket="retrain", Key=key)
    offered = workspace.offer()
    assert (offered.published, offered.champion, offered.moved) == (False, False, ())
    assert "is not there (any more): publish it again" in offered.outcome


def test_a_receipt_of_another_place_is_refused(workspace: Workspace, object_store: ObjectStore) -> None:
    with pytest.raises(InputError, match="does not exist; run the stage publish first"):
        workspace.offer()
    workspace.publish(RIGHT)
    elsewhere = Workspace(workspace.folder, new_bucket(object_store))
    with pytest.raises(InputError, match=rf"is of s3://retrain/{workspace.bucket.prefix}, not of "):
        elsewhere.offer()
    (workspace.folder / "release/receipt.json").write_text("[]")
    with pytest.raises(InputError, match="is not what the stage publish writes"):
        workspace.offer()


def test_a_champion_of_another_test_set_needs_the_images(workspace: Workspace) -> None:
    workspace.run(RIGHT)
    workspace.publish(RIGHT + 1, test_sha256="b" * 64)
    with pytest.raises(InputError, match=r"data/split/split\.json"):
        workspace.offer()


def test_the_command_says_and_writes_what_became_of_it(workspace: Workspace, object_store: ObjectStore) -> None:
    shutil.copy(REPOSITORY / "params.yaml", "params.yaml")

    def registry(*arguments: str) -> subprocess.CompletedProcess[str]:
        place = ["--bucket", workspace.bucket.name, "--prefix", workspace.bucket.prefix]
        environment = {**os.environ, **object_store.environment, "PYTHONPATH": str(REPOSITORY)}
        command = [sys.executable, "-X", "importtime", "-m", "tasks.registry", "offer", *arguments, *place]
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    release = workspace.publish(RIGHT)
    done = registry("--output", "offer.json")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == f"{release.id}: it is the champion now"
    assert f"✓ top-1 {RIGHT / IMAGES:.2%} reaches the floor".replace("%", " %") in done.stdout
    assert json.loads(Path("offer.json").read_text())["moved"] == ["candidate", "champion"]
    assert "tensorflow" not in done.stderr
    again = registry("--json")
    assert json.loads(again.stdout)["outcome"] == "it is the champion already"
    worse = workspace.publish(RIGHT - 40)
    refusal = registry()
    assert refusal.returncode == 1
    assert refusal.stdout.splitlines()[-1].startswith(f"{worse.id}: not champion: ")


def best(workspace: Workspace) -> list[str]:
    pointer = read_pointer(workspace.bucket, "best")
    return [] if pointer is None else [move.release for move in pointer.history]


def test_the_best_release_is_the_one_that_no_later_champion_exceeds(workspace: Workspace) -> None:
    first = workspace.run(RIGHT)
    lower = workspace.run(RIGHT - 1)  # within the tolerance: champion, and not the best
    assert workspace.channels()["champion"] == [first.id, lower.id]
    assert best(workspace) == [first.id]
    higher = workspace.run(RIGHT + 1)
    assert best(workspace) == [first.id, higher.id]


def test_a_move_of_the_best_that_was_cut_off_is_mended(workspace: Workspace) -> None:
    release = workspace.run(RIGHT)
    client, key = workspace.bucket.client, f"{workspace.bucket.prefix}/channels/best.json"
    client.delete_object(Bucket=workspace.bucket.name, Key=key)
    assert workspace.offer().outcome == "it is the champion already"
    assert best(workspace) == [release.id]


def test_a_best_release_that_was_rolled_back_from_is_no_bound(workspace: Workspace) -> None:
    first, wrong = workspace.run(RIGHT), workspace.run(RIGHT + 5)  # its figure came from a leak, say
    rollback(workspace.bucket, "champion", actor="ann@lab", reason="it was trained on test images", now=NOW)
    later = workspace.run(RIGHT + 1)
    assert workspace.channels()["champion"] == [first.id, wrong.id, first.id, later.id]
    assert best(workspace) == [first.id, wrong.id, later.id]


def test_many_small_losses_end_at_the_bound_below_the_best(workspace: Workspace) -> None:
    first, second = workspace.run(RIGHT), workspace.run(RIGHT - 2)
    workspace.publish(RIGHT - 40)
    offered = workspace.offer(tolerance_top1=1.0, largest_class_drop=1.0, largest_calibration_rise=1.0)
    assert refused(offered.verdict) == ["stays_near_the_best"]
    assert f"of the best release {first.id}, which is hardly chance, and more than the 1.00 points" in offered.outcome
    assert offered.champion_now == second.id

"""Which release becomes champion, on real releases in a real S3 server, each reloaded in a process of its own."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.data.arrays import load_arrays, load_split_record
from tasks.registry import promotion
from tasks.registry.champion_answers import CACHE, CurrentTestSet
from tasks.registry.channels import promote, read_channel, read_pointer, resolve, rollback
from tasks.registry.fair_comparison import measure
from tasks.registry.manifest import Finding, Manifest, list_files, release_id, tree_name
from tasks.registry.promotion import promote_by_gate
from tasks.registry.recorded_answers import CannotAnswerError, load_probabilities
from tasks.registry.releases import publish_release, pull_release
from tasks.registry.reload import reload_in_clean_process
from tasks.registry.store import Store
from tasks.s3.bucket import Stored
from tasks.stage.errors import InputError
from tests.fixtures.published import NOW, RIGHT, Published, Workspace, channels, rules
from tests.fixtures.stages import write_stages


def test_a_worse_release_is_published_but_not_champion(
    workspace: Workspace, capsys: pytest.CaptureFixture[str]
) -> None:
    first = resolve(workspace.bucket, "champion")
    workspace.retrain(right=RIGHT - 12)
    second = workspace.publish_and_offer()
    assert second["champion"] is False
    assert channels(workspace) == (second["id"], first.id)
    refused = ["is_not_worse", "stays_calibrated"]  # four images of each class are lost, which may be chance
    assert rules(second["verdict"], False) == refused
    figures, classes = (figures_of(second["verdict"], rule) for rule in ("is_not_worse", "keeps_every_class"))
    assert (figures["champion"], figures["change"]) == (first.id, -0.5)
    assert (figures["lost"], figures["won"], figures["p_value"]) == (12, 0, 0.5**12)
    assert (classes["images"], classes["change"], classes["p_value"]) == (8, -0.5, 1 / 16)
    assert second["outcome"].startswith("not champion: top-1 25.00 % is 50.00 points below the 75.00 % of the champion")
    printed = capsys.readouterr().out
    assert f"published {second['uri']}" in printed
    manifest = resolve(workspace.bucket, second["id"])
    assert manifest.parent == first.id
    assert rules(manifest.verdict, False) == refused


def test_a_release_below_the_floor_is_champion_when_the_floor_is_lowered(
    published_twice: Published, workspace_with_candidate: Workspace
) -> None:
    workspace, receipt = workspace_with_candidate, published_twice[1]
    assert receipt["champion"] is False
    assert receipt["outcome"] == "not champion: top-1 79.17 % is below the floor of 100.00 %"
    candidate, champion = channels(workspace)
    assert candidate == receipt["id"] != champion
    accepted = workspace.publish_and_offer(minimum_top1=19 / 24)
    assert (accepted["champion"], accepted["moved"]) == (True, ("champion",))
    assert accepted["outcome"] == "it is the champion now"
    assert channels(workspace) == (candidate, candidate)


def test_what_was_rolled_back_is_champion_again_only_when_a_person_wants_it(
    workspace_with_candidate: Workspace,
) -> None:
    workspace = workspace_with_candidate
    second, first = (resolve(workspace.bucket, channel) for channel in ("candidate", "champion"))
    assert promote(workspace.bucket, second, None, reason="night", actor="ann@lab", now=NOW)
    rollback(workspace.bucket, "champion", actor="ann@lab", reason="it fails at night", now=NOW)
    receipt = workspace.publish_and_offer()
    assert channels(workspace) == (second.id, first.id)
    assert rules(receipt["verdict"], False) == ["was_not_rolled_back"]
    assert "ann@lab took the champion back" in receipt["outcome"]
    assert promote(workspace.bucket, second, None, reason="day", actor="ann@lab", now=NOW)
    assert workspace.publish_and_offer()["outcome"] == "it is the champion already"


def test_a_champion_of_another_test_set_is_evaluated_again_on_this_one(workspace: Workspace) -> None:
    first = resolve(workspace.bucket, "champion")
    workspace.retrain(right=RIGHT - 1, test_seed=8)
    second = workspace.publish_and_offer(tolerance_top1=0.05)
    assert channels(workspace) == (second["id"], second["id"])
    finding = next(each for each in second["verdict"] if each["rule"] == "is_not_worse")
    assert (
        finding["figures"].items()
        >= {
            "champion": first.id,
            "evaluated_again": True,
            "top1": (RIGHT - 1) / 24,
            "champion_top1": RIGHT / 24,
            "change": -1 / 24,
            "allowed": 0.05,
        }.items()
    )
    assert f"the champion {first.id}, evaluated again on this test set" in finding["sentence"]
    assert resolve(workspace.bucket, first.id) == first
    (kept,) = CACHE.iterdir()  # for the next run with nothing new, which loads no TensorFlow
    assert kept.name.startswith(first.id)


def test_a_champion_of_other_classes_is_compared_on_those_that_both_know(workspace: Workspace) -> None:
    first = resolve(workspace.bucket, "champion")
    workspace.retrain(right=24, classes=("ant", "bee", "dog"))
    second = workspace.publish_and_offer()
    assert channels(workspace) == (second["id"], second["id"])
    scope, learnt = (find(second["verdict"], rule) for rule in ("enough_to_compare", "learns_new_classes"))
    assert f"the champion {first.id} on 16 of 24 test images, without 8 of " in scope
    assert scope.endswith("classes that the champion does not know; not asked for any more: cat")
    assert learnt == "new classes, answered rightly: dog 8 of 8"


def test_a_champion_that_knows_none_of_the_classes_keeps_its_place(workspace: Workspace) -> None:
    first = resolve(workspace.bucket, "champion")
    workspace.retrain(right=24, classes=("elk", "fox", "dog"))
    second = workspace.publish_and_offer()
    assert channels(workspace) == (second["id"], first.id)
    assert "no test image is of a class that both know" in second["outcome"]


def test_a_champion_is_not_compared_on_what_it_trained_on(workspace: Workspace) -> None:
    """It has seen 10 of the 24 test images of the next, and answers those by heart."""
    workspace.retrain(right=20, trained_on=(9, 10))
    champion = workspace.publish_and_offer()
    assert champion["champion"]
    workspace.retrain(right=20, test_seed=9)
    second = workspace.publish_and_offer()
    scope = find(second["verdict"], "enough_to_compare")
    assert (
        f"champion {champion['id']}, evaluated again on this test set on 14 of 24 test images, without 10 that" in scope
    )
    workspace.retrain(right=21, test_seed=9)
    assert "on 14 of 24" not in find(workspace.publish_and_offer()["verdict"], "is_not_worse")


def test_the_verdict_is_on_the_champion_at_the_moment_of_the_move(
    workspace_with_candidate: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    workspace = workspace_with_candidate
    workspace.retrain(right=24)
    better = resolve(workspace.bucket, workspace.publish()["id"])
    write, reloaded, overtaken = Store.write, list[str](), list[str]()

    def counted(bucket: Store, manifest: Manifest, allowed: float, *, is_ours: bool) -> tuple[Finding, ...]:
        reloaded.append(manifest.id)
        return reload_in_clean_process(bucket, manifest, allowed, is_ours=is_ours)

    def overtake(self: Store, key: str, body: bytes, *, replacing: Stored | None) -> None:
        if key == "channels/champion.json" and not overtaken:
            overtaken.append(key)
            promote(self, better, None, reason="another publisher", actor="b", now=NOW)
        write(self, key, body, replacing=replacing)

    monkeypatch.setattr(promotion, "reload_in_clean_process", counted)
    monkeypatch.setattr(Store, "write", overtake)
    workspace.retrain(right=RIGHT, confidence=0.8)  # no worse than the champion of now, worse than the next
    receipt = workspace.publish_and_offer(significance=0.2)
    assert overtaken
    assert reloaded == [receipt["id"]]
    assert receipt["champion"] is False
    champions = {each["figures"].get("champion") for each in receipt["verdict"]}
    assert champions - {None} == {better.id}
    assert "is_not_worse" in rules(receipt["verdict"], False)
    assert resolve(workspace.bucket, "champion") == better
    published = resolve(workspace.bucket, receipt["id"])
    assert rules(published.verdict, False) == []  # as it stood when the manifest was written


def test_a_champion_cannot_answer_images_of_another_size(workspace: Workspace, tmp_path: Path) -> None:
    champion = resolve(workspace.bucket, "champion")
    write_stages(tmp_path / "other", size=10)
    split = tmp_path / "other/data/split"
    test_set = CurrentTestSet(load_split_record(split), load_arrays(split, "test"), workspace.bucket, batch_size=500)
    with pytest.raises(CannotAnswerError, match="it takes images of 8×8×3, and these have 10×10×3"):
        test_set.answers_of(champion)


def figures_of(verdict: Any, rule: str) -> dict[str, Any]:
    """Return the figures by which a rule decided."""
    return next(dict(finding["figures"]) for finding in verdict if finding["rule"] == rule)


def find(verdict: Any, rule: str) -> str:
    """Return what a rule says."""
    return next(str(finding["sentence"]) for finding in verdict if finding["rule"] == rule)


# The command of a person


def _promote(workspace: Workspace, manifest: Manifest) -> tuple[bool, Any]:
    return promote_by_gate(workspace.bucket, manifest, workspace.params(), reason="try it", actor="ann@lab", now=NOW)


def _published_with(workspace: Workspace, folder: Path, **changes: Any) -> Manifest:
    """Publish the champion's files with other probabilities, as somebody would who does not use the stage publish."""
    champion = resolve(workspace.bucket, "champion")
    pull_release(workspace.bucket, champion, folder)
    recorded = np.load(folder / "probabilities.npy")
    np.save(folder / "probabilities.npy", recorded * np.float32(0.99))
    for name in changes.get("without", ()):
        (folder / name).unlink()
    files = list_files(folder)
    names = {"files": files, "id": release_id(files), "tree": tree_name(files)}
    return publish_release(workspace.bucket, folder, champion.model_copy(update=names))


def test_a_release_that_does_not_answer_as_recorded_is_promoted_by_force_only(
    workspace: Workspace, tmp_path: Path
) -> None:
    first = resolve(workspace.bucket, "champion")
    manifest = _published_with(workspace, tmp_path / "pulled")
    moved, verdict = _promote(workspace, manifest)
    assert (moved, read_channel(workspace.bucket, "champion")) == (False, first)
    assert rules(verdict.findings, False) == ["reloads"]  # its SavedModel is a stranger's program, and was not run
    assert "model.keras does not reproduce the recorded answers to 16 test images" in verdict.objections[0]
    assert promote(workspace.bucket, manifest, None, reason="they are close", actor="ann@lab", now=NOW)
    pointer = read_pointer(workspace.bucket, "champion")
    assert pointer is not None
    assert (pointer.current.release, pointer.current.forced) == (manifest.id, True)
    assert (pointer.current.actor, pointer.current.reason) == ("ann@lab", "they are close")


def test_a_person_promotes_by_the_gate_what_the_bucket_holds(workspace_with_candidate: Workspace) -> None:
    workspace = workspace_with_candidate
    second, first = (resolve(workspace.bucket, channel) for channel in ("candidate", "champion"))
    assert _promote(workspace, first) == (True, None)
    moved, verdict = _promote(workspace, second)
    assert moved
    assert verdict.passed
    pointer = read_pointer(workspace.bucket, "champion")
    assert pointer is not None
    assert (pointer.current.action, pointer.current.forced) == ("promote", False)
    assert pointer.current.reason == f"try it: {'; '.join(verdict.sentences)}"
    assert rollback(workspace.bucket, "champion", actor="ann@lab", reason="", now=NOW) == first


def test_a_release_without_its_predictions_cannot_be_judged(workspace: Workspace, tmp_path: Path) -> None:
    manifest = _published_with(workspace, tmp_path / "pulled", without=["predictions.csv"])
    with pytest.raises(InputError, match=f"release {manifest.id} has no predictions.csv"):
        _promote(workspace, manifest)


# What is measured


def test_answers_are_measured_against_their_labels() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.3, 0.7]], np.float32)
    measured = measure(probabilities, np.array([0, 1, 1], np.int32), ("ant", "bee"), bins=2)
    assert measured.correct.tolist() == [True, False, True]
    assert measured.top1 == 2 / 3
    assert measured.confidences.error == pytest.approx(abs(2 / 3 - (0.8 + 0.6 + 0.7) / 3))


@pytest.mark.parametrize("shape", [(2, 2), (3, 3), (3, 1)])
def test_answers_to_something_else_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(InputError, match="to 3 test images of 2 classes"):
        measure(np.full(shape, 0.5, np.float32), np.zeros(3, np.int32), ("ant", "bee"), bins=2)


@pytest.mark.parametrize(
    "array",
    [np.zeros((2, 2)), np.zeros(2, np.float32), np.zeros((0, 2), np.float32), np.full((1, 2), np.nan, np.float32)],
)
def test_what_are_no_probabilities_is_refused(tmp_path: Path, array: Any) -> None:
    np.save(tmp_path / "probabilities.npy", array)
    with pytest.raises(InputError, match=r"probabilities\.npy holds"):
        load_probabilities(tmp_path / "probabilities.npy")


@pytest.mark.parametrize("body", [b"", b"text", b"\x93NUMPY\x01\x00"])
def test_what_is_no_array_is_refused(tmp_path: Path, body: bytes) -> None:
    (tmp_path / "probabilities.npy").write_bytes(body)
    with pytest.raises(InputError, match="is not a complete array"):
        load_probabilities(tmp_path / "probabilities.npy")

"""Offer the workspace's release for the channels: `candidate` and, where the gate lets it pass, `champion`.

The stage publish moves no channel, so an experiment is no promotion. The flow offers after its stages; a person types
`python -m tasks.registry offer`. The bucket is asked what is, never an old receipt. What the workspace held is kept for
`registry checkout` (tasks/registry/checkout.py). Offering again changes nothing, and mends what was cut off between two
moves; where nothing is to do it takes a second, and TensorFlow is not loaded.
"""

from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.arrays import Fit, Images, load_arrays, load_split_record
from tasks.params.params import Params
from tasks.registry.actor import current_actor
from tasks.registry.champion_answers import CurrentTestSet
from tasks.registry.channels import CHANNELS, HEEDED_MOVES, move_pointer, read_pointer
from tasks.registry.manifest import DamagedError, Finding, Manifest
from tasks.registry.moves import Channel, Pointer, late_moves
from tasks.registry.other_size import images_at
from tasks.registry.promotion import Gatekeeper, gatekeeper_of, record_best
from tasks.registry.releases import FOLDER, find_manifest, read_manifest
from tasks.registry.reload import Probabilities, reload_in_clean_process
from tasks.registry.store import Store
from tasks.registry.verification import verify_release
from tasks.registry.workspaces import record_workspace
from tasks.stage.errors import InputError
from tasks.stage.files import read_json

RECEIPT = Path("release/receipt.json")
RAW = Path("data/raw")
SPLIT = Path("data/split")
EXAMINED = ("reloads", "serves")


@dataclass(frozen=True)
class Offer:
    """What became of an offer; `registry offer --json` prints these names.

    Attributes:
        id: The release's.
        uri: Where it is.
        published: Whether the bucket has it. Where it has not, nothing was done, and the stage publish must run again.
        candidate: Whether it is candidate now.
        champion: Whether it is champion now.
        moved: The channels that this very offer moved to it, of `candidate` and `champion`.
        champion_before: The release that was champion before the offer; None: there was none.
        champion_now: The release that is champion after it; None: there is none.
        outcome: One sentence: it is champion, was so already, or why not.
        verdict: What each rule of the gate said, as in a manifest: `rule`, `passed`, `sentence`, `figures`; where the
            release was champion already, what they said when it was published.
    """

    id: str
    uri: str
    published: bool
    candidate: bool = False
    champion: bool = False
    moved: tuple[Channel, ...] = ()
    champion_before: str | None = None
    champion_now: str | None = None
    outcome: str = ""
    verdict: tuple[dict[str, Any] | str, ...] = ()


def offer(bucket: Store, params: Params) -> Offer:
    """Move the channels to the release that `release/receipt.json` names, as far as they should point at it.

    `candidate` moves to a release that never was candidate: a run with nothing new does not take the place of what came
    after it. `champion` moves where the gate (tasks/registry/gate.py) passes the release against the champion of this
    moment, on the test images that the release was measured on.

    Args:
        bucket: Where the release is; the receipt must say so too.
        params: The thresholds.

    Raises:
        InputError: There is no receipt, it is of another bucket, the release is damaged, or the store refused.
    """
    release_id = _offered(bucket)
    uri = bucket.uri(f"{FOLDER}/{release_id}")
    release = find_manifest(bucket, release_id)
    if release is None:
        return Offer(release_id, uri, published=False, outcome=f"{uri} is not there (any more): publish it again")
    record_workspace(bucket, release, Path())
    before = {channel: read_pointer(bucket, channel) for channel in CHANNELS}
    mover = _Mover(bucket, release, params)
    moved: list[Channel] = []
    candidates = late_moves(bucket, before["candidate"], HEEDED_MOVES)
    if all(move.release != release.id for move in candidates) and mover.make_candidate():
        moved.append("candidate")
    champion_before = _current(before["champion"])
    if champion_before == release.id:
        mover.mend_best(before["best"])
        outcome, findings = "it is the champion already", release.verdict
    else:
        outcome, findings = mover.make_champion()
    after = {channel: _current(read_pointer(bucket, channel)) for channel in before}
    if after["champion"] == release.id != champion_before:
        moved.append("champion")
    return Offer(
        id=release.id,
        uri=uri,
        published=True,
        candidate=after["candidate"] == release.id,
        champion=after["champion"] == release.id,
        moved=tuple(moved),
        champion_before=champion_before,
        champion_now=after["champion"],
        outcome=outcome,
        verdict=tuple(each if isinstance(each, str) else each.model_dump(mode="json") for each in findings),
    )


class _Mover:
    """Moves channels to one release, once every byte of it in the bucket was read and found right."""

    def __init__(self, bucket: Store, release: Manifest, params: Params) -> None:
        self.bucket, self.release, self.params = bucket, release, params
        self._moment = {"moved_at": datetime.now(UTC).isoformat(timespec="seconds"), "actor": current_actor()}
        self._whole = False

    def make_candidate(self) -> bool:
        """Point candidate at the release, as the newest there is."""

        def decide(_: Manifest | None) -> str:
            self._check_whole()
            return "published"

        return move_pointer(self.bucket, "candidate", self.release, decide=decide, **self._moment)

    def make_champion(self) -> tuple[str, tuple[Finding | str, ...]]:
        """Point champion at the release if the gate lets it; return the outcome, and what each rule says."""
        gatekeeper = self._gatekeeper()

        def decide(champion: Manifest | None) -> str | None:
            reason = gatekeeper.decide(self.release, champion)
            if reason is not None:
                self._check_whole()
            return reason

        wins = move_pointer(self.bucket, "champion", self.release, decide=decide, **self._moment)
        verdict = gatekeeper.verdict
        if verdict is None:
            return "it is the champion already", self.release.verdict
        if wins:
            record_best(gatekeeper, self.release, now=self._moment["moved_at"], actor=self._moment["actor"])
            return "it is the champion now", verdict.findings
        objections = "; ".join(verdict.objections) or "another release took its place at once"
        return f"not champion: {objections}", verdict.findings

    def mend_best(self, best: Pointer | None) -> None:
        """Do what was cut off between two moves: `best` may lack the champion, which answers more images."""
        if best is not None:
            known = read_manifest(self.bucket, best.current.release, best.current.manifest_sha256)
            same_test_set = known.metrics.get("test_sha256") == self.release.metrics.get("test_sha256")
            if known.id == self.release.id or not same_test_set or known.top1 >= self.release.top1:
                return
        record_best(self._gatekeeper(), self.release, now=self._moment["moved_at"], actor=self._moment["actor"])

    def _gatekeeper(self) -> Gatekeeper:
        gatekeeper = gatekeeper_of(self.bucket, self.release, self.params)
        gatekeeper.answer, gatekeeper.examiner = self._answers_of, examined
        return gatekeeper

    def _answers_of(self, champion: Manifest) -> Probabilities:
        """Have a champion of another test set answer that of the release, which is this workspace's."""
        record = load_split_record(SPLIT)
        if record.content_sha256["test"] != self.release.metrics.get("test_sha256"):
            raise InputError(
                f"{SPLIT} holds other test images than release {self.release.id} was measured on: dvc repro"
            )
        test, batch_size = load_arrays(SPLIT, "test"), self.params.evaluate.batch_size
        places = {"test": np.arange(len(test.labels), dtype=np.int64)}

        def prepared(pixels: int, fit: Fit) -> AbstractContextManager[Images]:
            return images_at(pixels, fit, record, places, test.labels, self.params.split, RAW)

        return CurrentTestSet(record, test, self.bucket, batch_size, prepared).answers_of(champion)

    def _check_whole(self) -> None:
        """Raise DamagedError unless every byte in the bucket is as the manifest has it; it is read once."""
        if not self._whole:
            problems = verify_release(self.bucket, self.release.id).problems
            if problems:
                raise DamagedError(problems[0])
            self._whole = True


def _offered(bucket: Store) -> str:
    """Return the id in release/receipt.json, once it is known to be of this bucket."""
    try:
        receipt = dict(read_json(RECEIPT))
        place, identity = (receipt["bucket"], receipt["prefix"]), str(receipt["id"])
    except FileNotFoundError as error:
        raise InputError(f"{RECEIPT} does not exist; run the stage publish first: dvc repro") from error
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{RECEIPT} is not what the stage publish writes: {error}") from error
    if place != (bucket.name, bucket.prefix):
        raise InputError(
            f"{RECEIPT} is of s3://{'/'.join(map(str, place))}, not of {bucket.uri('')}: dvc repro publishes anew"
        )
    return identity


def examined(bucket: Store, release: Manifest, allowed: float) -> tuple[Finding, ...]:
    """Return what was found when the release was published, if that suffices: the same bytes answer the same.

    A release whose check failed or broke off is checked anew, and so is one under a threshold that became narrower.
    """
    found = tuple(each for each in release.verdict if isinstance(each, Finding) and each.rule in EXAMINED)
    differences = [each.figures.get("difference") for each in found if each.passed]
    if len(differences) == len(EXAMINED) and all(isinstance(d, float) and d <= allowed for d in differences):
        return found
    return reload_in_clean_process(bucket, release, allowed)


def _current(pointer: Pointer | None) -> str | None:
    return None if pointer is None else pointer.current.release

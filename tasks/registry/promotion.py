"""How a release becomes champion: what both answered is fetched, and the gate's rules decide, anew at every try.

The stage publish asks for its manifest's verdict, `registry offer` for what the stages made, `registry promote` for
what a person names.
"""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from tasks.params.params import Params
from tasks.registry.channels import HEEDED_MOVES, move_pointer, promote, read_channel, read_pointer
from tasks.registry.fair_comparison import Answers, Comparison, JudgedImages, compare_fairly, measure
from tasks.registry.gate import Verdict, judge
from tasks.registry.history_rules import was_not_beaten, was_not_rolled_back
from tasks.registry.manifest import Finding, Manifest
from tasks.registry.moves import Move, late_moves
from tasks.registry.opponents import Incomparable, Measurement, Opponent
from tasks.registry.recorded_answers import (
    CannotAnswerError,
    fetch_classes,
    fetch_hashes,
    fetch_labels,
    fetch_probabilities,
)
from tasks.registry.releases import read_manifest
from tasks.registry.reload import Probabilities, reload_in_clean_process
from tasks.registry.scope_rules import tells_start
from tasks.registry.store import Store
from tasks.stage.shown import percent

Examiner = Callable[[Store, Manifest, float], tuple[Finding, ...]]


def no_answers(champion: Manifest) -> Probabilities:
    """Say that a champion cannot be asked here: there are no test images."""
    raise CannotAnswerError("only `registry offer`, where the test images are, measures it again on another test set")


@dataclass
class Gatekeeper:
    """Judges one release against whatever champion there is; the expensive parts are done once.

    Attributes:
        bucket: Where releases and channels are.
        release: The release's id.
        candidate: Its answers to the test images.
        test: These images.
        test_sha256: Of them and their labels.
        params: Thresholds, and the calibration error's bins.
        answer: Has a champion that was measured on another test set answer the present one; float32 (N, C). Raises
            CannotAnswerError.
        examiner: Says whether the files in the bucket answer as recorded; reload_in_clean_process if not given.
        is_ours: Whether this workspace made the release, so that its SavedModel may be run.
        heeds_history: Whether a release that was champion and lost its place is refused.
        verdict: By which it was last decided whether the release becomes champion.
    """

    bucket: Store
    release: str
    candidate: Answers
    test: JudgedImages
    test_sha256: str
    params: Params
    answer: Callable[[Manifest], Probabilities] = no_answers
    examiner: Examiner | None = None
    heeds_history: bool = True
    is_ours: bool = False
    verdict: Verdict | None = None
    _examined: dict[str, tuple[Finding, ...]] = field(default_factory=dict, init=False)  # by the folder of the files
    _compared: dict[str, Comparison | Incomparable] = field(default_factory=dict, init=False)

    @cached_property
    def measurement(self) -> Measurement:
        """The release's answers to all test images."""
        bins = self.params.evaluate.calibration_bins
        return measure(self.candidate.probabilities, self.test.labels, self.candidate.classes, bins)

    def complete(self, manifest: Manifest) -> Manifest:
        """Return the manifest of files that are in the bucket with the verdict, and with the champion of this moment.

        Raises:
            InputError: What is in the bucket is not what was uploaded, or the store refused.
        """
        champion = read_channel(self.bucket, "champion")
        verdict = self.judge(manifest, champion)
        parent = None if champion is None else champion.id
        return manifest.model_copy(update={"parent": parent, "verdict": verdict.findings})

    def judge(self, manifest: Manifest, champion: Manifest | None) -> Verdict:
        """Apply every rule; the release is reloaded for its first verdict only."""
        further, history = self.examine(manifest), self._history()
        if self.heeds_history:
            rules = (was_not_rolled_back, was_not_beaten)
            further = (*(rule(self.release, history) for rule in rules), *further)
        if (start := manifest.training.get("start")) is not None:
            further = (tells_start(start), *further)
        opponent = None if champion is None else self._opponent(champion)
        return judge(self.measurement, opponent, self._best(champion, history), self.params.publish, further)

    def decide(self, manifest: Manifest, champion: Manifest | None) -> str | None:
        """Return why the release may take the champion's place, or None: it may not."""
        self.verdict = self.judge(manifest, champion)
        return "; ".join(self.verdict.sentences) if self.verdict.passed else None

    def examine(self, manifest: Manifest) -> tuple[Finding, ...]:
        """Return what the rules `reloads` and `serves` say of the files in the bucket; raises like complete."""
        if manifest.tree not in self._examined:
            allowed = self.params.publish.largest_answer_difference
            if self.examiner is not None:
                found = self.examiner(self.bucket, manifest, allowed)
            else:
                found = reload_in_clean_process(self.bucket, manifest, allowed, is_ours=self.is_ours)
            self._examined[manifest.tree] = found
        return self._examined[manifest.tree]

    def is_better_than(self, best: Manifest | None) -> str | None:
        """Return why the release is the best of its line from now on, or None: it is not."""
        if best is None:
            return "the first"
        if not was_not_rolled_back(best.id, self._history()).passed:
            return f"a rollback took the champion back from {best.id}"
        compared = self._compare(best)
        if isinstance(compared, Incomparable):
            return compared.sentence
        ours, theirs = compared.ours.top1, compared.theirs.top1
        return f"top-1 {percent(ours)} on this test set, {percent(theirs)} of {best.id}" if ours > theirs else None

    def _history(self) -> tuple[Move, ...]:
        return late_moves(self.bucket, read_pointer(self.bucket, "champion"), HEEDED_MOVES)

    def _best(self, champion: Manifest | None, history: tuple[Move, ...]) -> Opponent | Incomparable | None:
        """Return the best release where it is another than the champion, and no rollback took the champion from it."""
        pointer = read_pointer(self.bucket, "best")
        if pointer is None or champion is None or pointer.current.release in (champion.id, self.release):
            return None
        if not was_not_rolled_back(pointer.current.release, history).passed:
            return None
        best = read_manifest(self.bucket, pointer.current.release, pointer.current.manifest_sha256)
        return self._opponent(best, role="best", chosen_from=len(history))

    def _opponent(self, release: Manifest, role: str = "champion", chosen_from: int = 1) -> Opponent | Incomparable:
        compared = self._compare(release)
        if isinstance(compared, Incomparable):
            return compared
        again = self._answers_again(release)
        return Opponent(release.id, compared.theirs, again, role, chosen_from, compared.ours, compared.scope)

    def _compare(self, release: Manifest) -> Comparison | Incomparable:
        if release.id not in self._compared:
            self._compared[release.id] = self._compare_anew(release)
        return self._compared[release.id]

    def _answers_again(self, release: Manifest) -> bool:
        return release.metrics.get("test_sha256") != self.test_sha256

    def _compare_anew(self, release: Manifest) -> Comparison | Incomparable:
        """Compare with a release's answers to the present test images: the recorded ones, or else given now."""
        try:
            with tempfile.TemporaryDirectory(prefix="champion-") as name:
                folder = Path(name)
                classes = fetch_classes(self.bucket, release, folder)
                fit, tested = fetch_hashes(self.bucket, release, folder)
                if self._answers_again(release):
                    probabilities = self.answer(release)
                else:
                    probabilities = fetch_probabilities(self.bucket, release, folder)
                theirs = Answers(probabilities, classes, fit, tested)
                bins = self.params.evaluate.calibration_bins
                compared = compare_fairly(self.candidate, theirs, self.test, bins)
                if compared is None:
                    raise CannotAnswerError("no test image is of a class that both know, and new to both")
                return compared
        except CannotAnswerError as error:
            return Incomparable(
                release.id,
                f"the champion {release.id} cannot be compared with this release on its test set: {error}; "
                "another publish.prefix starts a line of its own",
            )


def record_best(gatekeeper: Gatekeeper, release: Manifest, *, now: str, actor: str) -> None:
    """Point `best` at a release that became champion, if no release of its line answers more of its test images.

    Against it `stays_near_the_best` compares what comes later, so that many small losses do not add up.

    Args:
        gatekeeper: Who judged the release.
        release: Its manifest.
        now: UTC, ISO 8601.
        actor: Who moves it.

    Raises:
        InputError: The store refused.
    """
    move_pointer(gatekeeper.bucket, "best", release, now, gatekeeper.is_better_than, actor=actor)


def gatekeeper_of(bucket: Store, manifest: Manifest, params: Params) -> Gatekeeper:
    """Return who judges a published release by the answers that the bucket holds.

    Raises:
        InputError: The release is damaged or too old to be judged, or the store refused.
    """
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        classes = fetch_classes(bucket, manifest, folder)
        fit, tested = fetch_hashes(bucket, manifest, folder)
        candidate = Answers(fetch_probabilities(bucket, manifest, folder), classes, fit, tested)
        test = JudgedImages(fetch_labels(bucket, manifest, classes, folder), tested)
    return Gatekeeper(bucket, manifest.id, candidate, test, str(manifest.metrics.get("test_sha256")), params)


def promote_by_gate(
    bucket: Store, manifest: Manifest, params: Params, *, reason: str, actor: str, now: str
) -> tuple[bool, Verdict | None]:
    """Make a published release champion if the gate passes it, from what the bucket holds alone.

    Args:
        bucket: Where the release is.
        manifest: Of the release.
        params: Thresholds.
        reason: Why a person wants it.
        actor: Who that is.
        now: UTC, ISO 8601.

    Returns:
        Whether it is champion now, and the verdict; None where it was champion already.

    Raises:
        InputError: The release is damaged or too old to be judged, or the store refused.
    """
    gatekeeper = gatekeeper_of(bucket, manifest, params)
    gatekeeper.heeds_history = False
    moved = promote(
        bucket, manifest, lambda champion: gatekeeper.decide(manifest, champion), reason=reason, actor=actor, now=now
    )
    if moved:
        record_best(gatekeeper, manifest, now=now, actor=actor)
    return moved, gatekeeper.verdict

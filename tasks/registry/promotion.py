"""How a release becomes champion: what both answered is fetched, and the gate's rules decide, anew at every try.

The stage publish asks for its manifest's verdict, `registry offer` for what the stages made, `registry promote` for
what a person names.
"""

import csv
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tasks.params.params import Params
from tasks.registry.channels import HEEDED_MOVES, move_pointer, promote, read_channel, read_pointer
from tasks.registry.gate import Verdict, judge
from tasks.registry.history_rules import was_not_beaten, was_not_rolled_back
from tasks.registry.manifest import Finding, Manifest
from tasks.registry.moves import Move, late_moves
from tasks.registry.paired_tests import Confidences
from tasks.registry.releases import file_key, read_manifest
from tasks.registry.reload import PROBABILITIES, Probabilities, reload_in_clean_process
from tasks.registry.rules import Incomparable, Measurement, Opponent
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tasks.stage.files import read_json
from tasks.stage.shown import percent
from tasks.stage.table import spreadsheet_cell

LABELS = "labels.json"
PREDICTIONS = "predictions.csv"

Labels = NDArray[np.int32]
Examiner = Callable[[Store, Manifest, float], tuple[Finding, ...]]


class CannotAnswerError(Exception):
    """A model does not take the present test images, or knows other classes; the text says which."""


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
        test_sha256: Of these images and labels.
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
    candidate: Measurement
    test_sha256: str
    params: Params
    answer: Callable[[Manifest], Probabilities] = no_answers
    examiner: Examiner | None = None
    heeds_history: bool = True
    is_ours: bool = False
    verdict: Verdict | None = None
    _examined: dict[str, tuple[Finding, ...]] = field(default_factory=dict, init=False)  # by the folder of the files
    _measured: dict[str, Measurement | Incomparable] = field(default_factory=dict, init=False)

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
        opponent = None if champion is None else self._opponent(champion)
        return judge(self.candidate, opponent, self._best(champion, history), self.params.publish, further)

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
        measured = self._answers(best)
        if isinstance(measured, Incomparable):
            return measured.sentence
        ours, theirs = self.candidate.top1, measured.top1
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
        measured = self._answers(release)
        if isinstance(measured, Incomparable):
            return measured
        return Opponent(release.id, measured, self._answers_again(release), role, chosen_from)

    def _answers(self, release: Manifest) -> Measurement | Incomparable:
        if release.id not in self._measured:
            self._measured[release.id] = self._measure(release)
        return self._measured[release.id]

    def _answers_again(self, release: Manifest) -> bool:
        return release.metrics.get("test_sha256") != self.test_sha256

    def _measure(self, release: Manifest) -> Measurement | Incomparable:
        """Return a release's answers to the present test images: the recorded ones, or else given now."""
        try:
            with tempfile.TemporaryDirectory(prefix="champion-") as name:
                folder = Path(name)
                if _read_classes(self.bucket, release, folder) != self.candidate.classes:
                    raise CannotAnswerError("it knows other classes")
                if self._answers_again(release):
                    probabilities = self.answer(release)
                else:
                    probabilities = load_probabilities(fetch(self.bucket, release, PROBABILITIES, folder))
                bins = self.params.evaluate.calibration_bins
                return measure(probabilities, self.candidate.labels, self.candidate.classes, bins)
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
        classes = _read_classes(bucket, manifest, folder)
        labels = _read_labels(fetch(bucket, manifest, PREDICTIONS, folder), classes)
        probabilities = load_probabilities(fetch(bucket, manifest, PROBABILITIES, folder))
        candidate = measure(probabilities, labels, classes, params.evaluate.calibration_bins)
    return Gatekeeper(bucket, manifest.id, candidate, str(manifest.metrics.get("test_sha256")), params)


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


def measure(probabilities: Probabilities, labels: Labels, classes: tuple[str, ...], bins: int) -> Measurement:
    """Return how well answers, float32 (N, C), fit the labels, int32 (N,); raises InputError on other shapes."""
    if probabilities.shape != (len(labels), len(classes)):
        raise InputError(
            f"{PROBABILITIES} holds answers of shape {probabilities.shape} to {len(labels)} test images of "
            f"{len(classes)} classes"
        )
    correct = np.asarray(probabilities.argmax(axis=1) == labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    return Measurement(correct, np.asarray(labels), classes, Confidences(confidence, correct, bins))


def load_probabilities(path: Path) -> Probabilities:
    """Memory-map recorded answers, float32 (N, C).

    Raises:
        InputError: The file is not such an array, or holds what is no number.
    """
    try:
        array: Probabilities = np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise InputError(f"{path.name} is not a complete array: {error}") from error
    if array.dtype != np.float32 or array.ndim != 2 or not array.size:
        raise InputError(f"{path.name} holds {array.dtype} of shape {array.shape}, not float32 (images, classes)")
    if not np.isfinite(array).all():
        raise InputError(f"{path.name} holds answers that are NaN or infinite")
    return array


def fetch(bucket: Store, manifest: Manifest, name: str, folder: Path) -> Path:
    """Download one file of a release into a folder, verified.

    Raises:
        InputError: The release has no such file, or the store refused or holds other bytes.
    """
    entry = next((entry for entry in manifest.files if entry.path == name), None)
    if entry is None:
        raise InputError(f"release {manifest.id} has no {name}, without which it cannot be judged")
    bucket.download(file_key(manifest, entry), folder / name, size=entry.size, sha256=entry.sha256)
    return folder / name


def _read_classes(bucket: Store, manifest: Manifest, folder: Path) -> tuple[str, ...]:
    path = fetch(bucket, manifest, LABELS, folder)
    try:
        return tuple(str(name) for name in read_json(path))
    except (ValueError, TypeError) as error:
        raise InputError(f"{LABELS} of release {manifest.id} is not a list of names: {error}") from error


def _read_labels(path: Path, classes: tuple[str, ...]) -> Labels:
    """Return the right classes that predictions.csv names, as positions in `classes`; int32 (N,)."""
    positions = {name: position for position, name in enumerate(classes)}  # so they stand in older releases
    positions |= {spreadsheet_cell(name): position for position, name in enumerate(classes)}
    try:
        with path.open(encoding="utf-8", newline="") as stream:
            return np.array([positions[row["actual"]] for row in csv.DictReader(stream)], dtype=np.int32)
    except (KeyError, ValueError, csv.Error) as error:
        raise InputError(f"{path.name} is not what the stage evaluate writes: {error}") from error

"""Check in a process of its own that a release in the bucket loads, and answers as was recorded when it was measured.

python -m tasks.registry.reload [ID | champion | candidate]

A release carries a few test images for this, so that anybody can check it who can read it. Exit status: 0, it answers
as recorded; 1, it does not; 2, the input is wrong; 69, the store is away.
"""

import argparse
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tasks.data.arrays import Images
from tasks.params.params import load_params
from tasks.registry.channels import resolve
from tasks.registry.manifest import MANIFEST_NAME, Figures, Finding, Manifest, parse_manifest
from tasks.registry.releases import pull_release
from tasks.registry.store import Store, configured_bucket
from tasks.stage.errors import BAD_INPUT_STATUS, OUTAGE_STATUS, InputError, OutageError, run_command

MODEL = "model.keras"
SAVED_MODEL = "saved_model/1"  # a numeric version folder, as TensorFlow Serving wants it
PROBABILITIES = "probabilities.npy"
CHECKED_IMAGES = "checked_images.npy"  # uint8 (K, H, W, 3): the test images at checked_positions
MAX_IMAGES = 16
MAX_BYTES = 4 << 20  # of checked images, so that large ones do not outweigh the model
SECONDS = 1800.0
REFUSED = 1

Probabilities = NDArray[np.float32]
PredictFn = Callable[[Images], Probabilities]
FINDINGS = TypeAdapter(tuple[Finding, ...])


def checked_positions(count: int, number: int) -> NDArray[np.int64]:
    """Return the positions of `number` of `count` test images, evenly spread from the first to the last; int64."""
    return np.linspace(0, count - 1, number).astype(np.int64)


def choose_checked_images(images: Images) -> Images:
    """Return those of all test images, uint8 (N, H, W, 3), that a release carries."""
    number = min(MAX_IMAGES, len(images), max(1, MAX_BYTES // images[0].nbytes))
    return np.ascontiguousarray(images[checked_positions(len(images), number)])


def reloads(folder: Path, allowed: float) -> Finding:
    """Pass where model.keras, loaded in safe mode, gives the checked images their recorded probabilities.

    Args:
        folder: A release, its bytes verified.
        allowed: Largest difference of a probability, `publish.largest_answer_difference`.
    """
    return _compared("reloads", MODEL, _load_network, folder, allowed)


def serves(folder: Path, allowed: float) -> Finding:
    """Pass where the SavedModel's `serving_default` gives the checked images their recorded probabilities."""
    return _compared("serves", f"{SAVED_MODEL}'s serving_default", _load_signature, folder, allowed)


def as_recorded(manifest: Manifest, allowed: float) -> Finding:
    """Return what `serves` found when a release was published, for whoever does not run its SavedModel."""
    why = "it is a program, and no trusted key signed it, so it was not run now"
    for finding in manifest.verdict:
        if isinstance(finding, Finding) and finding.rule == "serves":
            difference = finding.figures.get("difference")
            passed = finding.passed and isinstance(difference, float) and difference <= allowed
            sentence = f"{finding.sentence}, says its publisher; {why}"
            return finding.model_copy(update={"passed": passed, "sentence": sentence})
    return Finding(rule="serves", passed=False, sentence=f"{SAVED_MODEL} is not known to answer: {why}", figures={})


def reload_in_clean_process(
    bucket: Store, manifest: Manifest, allowed: float, *, is_ours: bool = False
) -> tuple[Finding, ...]:
    """Have another Python download a release, verify it, and say what `reloads` and `serves` find.

    A SavedModel is a program: it is run only where a trusted key signed the release, or its bytes are known to be ours.

    Args:
        bucket: Where the release's files are.
        manifest: Theirs; it need not be in the bucket yet. Where the bucket asks for signatures, it was checked.
        allowed: Largest difference of a probability.
        is_ours: Whether this workspace made the release.

    Raises:
        OutageError: The store is in trouble.
        InputError: The files in the bucket are not those of the manifest, or the store refused.
    """
    with tempfile.TemporaryDirectory(prefix="reload-") as folder:
        described = Path(folder) / MANIFEST_NAME
        described.write_bytes(manifest.to_bytes())
        where = ["--bucket", bucket.name, "--prefix", bucket.prefix, "--manifest", str(described)]
        runs = ["--run-saved-model"] if is_ours or bucket.trust is not None else []
        command = [sys.executable, "-m", "tasks.registry.reload", "--json", "--allowed", repr(allowed), *runs, *where]
        path = [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH", "")]
        # TMPDIR: what a killed child has downloaded goes with our folder. The other: two processes share a GPU.
        environment = {"TMPDIR": folder, "PYTHONPATH": os.pathsep.join(filter(None, path))}
        environment["TF_FORCE_GPU_ALLOW_GROWTH"] = "true"
        try:
            done = subprocess.run(
                command,
                env={**os.environ, **environment},
                capture_output=True,
                text=True,
                timeout=SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return _failed(f"the process that reloads it did not end within {SECONDS:.0f} s")
    last_words = (done.stderr.strip().splitlines() or ["it said nothing"])[-1]
    if done.returncode in (BAD_INPUT_STATUS, OUTAGE_STATUS):
        raise (InputError if done.returncode == BAD_INPUT_STATUS else OutageError)(last_words.removeprefix("reload: "))
    try:
        return FINDINGS.validate_json((done.stdout.strip().splitlines() or [""])[-1])
    except ValidationError:  # it crashed before its answer
        return _failed(f"the process that reloads it ended with status {done.returncode}: {last_words}")


def _failed(sentence: str) -> tuple[Finding, ...]:
    return tuple(Finding(rule=rule, passed=False, sentence=sentence, figures={}) for rule in ("reloads", "serves"))


def _compared(rule: str, what: str, load: Callable[[Path], PredictFn], folder: Path, allowed: float) -> Finding:
    """Load a model and compare its answers; whatever goes wrong with it is a finding, not an error."""
    try:
        images = _array(folder / CHECKED_IMAGES, np.dtype(np.uint8), dimensions=4)
        recorded = _array(folder / PROBABILITIES, np.dtype(np.float32), dimensions=2)
        expected = recorded[checked_positions(len(recorded), len(images))]
        answers = load(folder)(np.asarray(images))
        if answers.shape != expected.shape:
            raise InputError(f"its answers have shape {answers.shape}, the recorded ones {expected.shape}")
        difference = float(np.abs(answers.astype(np.float64) - expected).max())
    except Exception as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0].replace(f"{folder}/", "")
        return Finding(rule=rule, passed=False, sentence=f"{what} does not answer: {reason}", figures={})
    passed = difference <= allowed  # not so where it is no number
    relation = "reproduces" if passed else "does not reproduce"
    figures: Figures = {"images": len(images), "largest_answer_difference": allowed}
    return Finding(
        rule=rule,
        passed=passed,
        sentence=(
            f"{what} {relation} the recorded answers to {len(images)} test images: it differs by {difference:.2g} "
            f"at most, {allowed:g} is allowed"
        ),
        figures={**figures, "difference": difference} if np.isfinite(difference) else figures,
    )


def _array(path: Path, dtype: np.dtype[Any], dimensions: int) -> NDArray[Any]:
    if not path.is_file():
        raise InputError(f"the release has no {path.name}")
    array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
    if array.dtype != dtype or array.ndim != dimensions or not len(array):
        raise InputError(f"{path.name} holds {array.dtype} of shape {array.shape}")
    return array


def _load_network(folder: Path) -> PredictFn:
    _import_tensorflow()
    from tasks.model_files.files import load_model  # noqa: PLC0415

    network = load_model(folder / MODEL)
    return lambda images: network(images, training=False).numpy()


def _load_signature(folder: Path) -> PredictFn:
    tf = _import_tensorflow()
    serve = tf.saved_model.load(str(folder / SAVED_MODEL)).signatures["serving_default"]

    def answer(images: Images) -> Probabilities:
        (answers,) = serve(images=tf.constant(images)).values()
        return answers.numpy()

    return answer


def _import_tensorflow() -> Any:
    from tasks.stage.quiet_tensorflow import tf  # noqa: PLC0415  takes seconds: only once a release is here

    tf.config.experimental.enable_tensor_float_32_execution(False)  # as evaluate does, for the same probabilities
    return tf


def _run(arguments: argparse.Namespace) -> None:
    bucket = configured_bucket(arguments.bucket, arguments.prefix)
    runs = arguments.run_saved_model
    if arguments.manifest is None:
        manifest = resolve(bucket, arguments.release)
        runs = runs or bucket.trust is not None
    else:
        manifest = parse_manifest(arguments.manifest.read_bytes(), str(arguments.manifest))
    allowed = load_params().publish.largest_answer_difference if arguments.allowed is None else arguments.allowed
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name) / "release"
        pull_release(bucket, manifest, folder)
        findings = reloads(folder, allowed), serves(folder, allowed) if runs else as_recorded(manifest, allowed)
    if arguments.json:
        print(FINDINGS.dump_json(findings).decode())
    else:
        marks = ["✓" if finding.passed else "✗" for finding in findings]
        if not runs and findings[1].passed:
            marks[1] = "?"  # somebody says so
        print("\n".join(f"{mark} {finding.sentence}" for mark, finding in zip(marks, findings, strict=True)))
    if not all(finding.passed for finding in findings):
        raise SystemExit(REFUSED)


def main() -> None:
    """Parse the command line and check a release."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.registry.reload", description="Check that a release answers."
    )
    parser.add_argument("release", nargs="?", default="champion", help="id, champion (default) or candidate")
    parser.add_argument("--manifest", type=Path, metavar="FILE", help="of the files to check, instead of a release")
    parser.add_argument("--allowed", type=float, metavar="X", help="instead of publish.largest_answer_difference")
    parser.add_argument("--json", action="store_true", help="for programs")
    parser.add_argument(
        "--run-saved-model",
        action="store_true",
        help="run the SavedModel too, which is a program; without this only where a trusted key signed the release",
    )
    parser.add_argument("--bucket", help="instead of publish.bucket in params.yaml")
    parser.add_argument("--prefix", help="instead of publish.prefix in params.yaml")
    arguments = parser.parse_args()
    run_command("reload", lambda: _run(arguments))


if __name__ == "__main__":
    main()

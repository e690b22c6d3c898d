"""Publish the evaluated model as a release: immutable, complete or absent, and self-describing."""

import io
import os
import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tasks.stage.quiet_tensorflow import keras
from tasks.data.arrays import Arrays, SplitRecord, check_arrays, load_arrays, load_split_record
from tasks.data.hashes import FIT_HASHES, TEST_HASHES, are_among, load_hashes
from tasks.evaluation.metrics import ROUNDING
from tasks.model_files.files import load_model
from tasks.models.start import START_HASHES
from tasks.params.params import Params, load_params
from tasks.registry.champion_answers import CurrentTestSet
from tasks.registry.fair_comparison import Answers, JudgedImages, measure
from tasks.registry.index import add_to_index
from tasks.registry.lineage import dvc_lock, environment_versions, git_state
from tasks.registry.manifest import Manifest, list_files, release_id, tree_name
from tasks.registry.model_card import model_card
from tasks.registry.promotion import Gatekeeper
from tasks.registry.recorded_answers import load_probabilities
from tasks.registry.releases import FOLDER, find_manifest, publish_release
from tasks.registry.reload import CHECKED_IMAGES, MODEL, PROBABILITIES, SAVED_MODEL, choose_checked_images, serves
from tasks.registry.store import open_bucket
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import read_json, replaced_folder, sha256_of, write_json, write_text
from tasks.stage.runtime import RUNTIME_FOLDER, read_runtime, write_runtime


def publish(
    params: Params, split: Path, model: Path, evaluation: Path, output: Path, runtime: Path = RUNTIME_FOLDER
) -> None:
    """Put a release into the bucket, and write `receipt.json`, which names it.

    When its files are there, another process downloads them, loads the model and compares its answers; then comes the
    manifest, with the gate's verdict (tasks/registry/gate.py) against the champion of that moment. No channel is moved:
    that is what tasks/registry/offer.py does. Publishing the same content again changes nothing.

    Args:
        params: All parameters: `publish` is used, and `evaluate` where a champion is measured again; the rest is
            recorded.
        split: Folder with split.json and the test arrays.
        model: Folder that train wrote.
        evaluation: Folder that evaluate wrote.
        output: Folder for receipt.json.
        runtime: Where the stages' durations and devices are read from.

    Raises:
        InputError: The model or the evaluation is not what the stages before wrote, the SavedModel does not reproduce
            the recorded predictions, or the object store refused or holds other bytes than it was given.
    """
    os.environ.setdefault("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # the process that reloads the release needs some too
    record, test = load_split_record(split), load_arrays(split, "test")
    check_arrays(test, "test", record, split)
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        _collect(folder, record, split, model, evaluation)
        training, metrics = _checked_facts(folder, record, model, evaluation)
        training = _with_what_the_start_has_seen(folder, training, model)
        candidate = _answers(folder, record, test, metrics, params.evaluate.calibration_bins)
        bucket = open_bucket(params.publish.bucket, params.publish.prefix)
        identity = release_id(list_files(folder))
        test_set = CurrentTestSet(record, test, bucket, params.evaluate.batch_size)
        images = JudgedImages(np.asarray(test.labels), candidate.tested)
        gatekeeper = Gatekeeper(
            bucket, identity, candidate, images, metrics["test_sha256"], params, test_set.answers_of
        )
        gatekeeper.is_ours = True
        release = find_manifest(bucket, identity)
        words = "published" if release is None else "already published as"
        if release is None:
            write_text(
                folder / "README.md", model_card(metrics, training, read_json(folder / "split.json"), params.used())
            )
            _add_what_serves(folder, test, params)
            release = publish_release(bucket, folder, _describe(folder, params, record, runtime), gatekeeper.complete)
        else:
            add_to_index(bucket, release)  # its publisher may have died before
    receipt = {
        "id": release.id,
        "uri": bucket.uri(f"{FOLDER}/{release.id}"),
        "bucket": bucket.name,
        "prefix": bucket.prefix,
        "top1": release.top1,
    }
    with replaced_folder(output) as temporary:
        write_json(temporary / "receipt.json", receipt)
    print(f"{words} {receipt['uri']}")
    print("no channel was moved; candidate and champion move by: python -m tasks.registry offer")


def export_saved_model(network: keras.Model, folder: Path) -> None:
    """Write a SavedModel whose `serving_default` takes uint8 (N, H, W, 3) images and gives float32 (N, C)."""
    signature = keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="uint8", name="images")
    network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)


def _collect(folder: Path, record: SplitRecord, split: Path, model: Path, evaluation: Path) -> None:
    """Copy what the stages wrote into the release's folder: what is checked is then what is uploaded."""
    of_split = (split / name for name in ("split.json", FIT_HASHES, TEST_HASHES))
    for path in (*_files_in(model), *_files_in(evaluation), *of_split):
        shutil.copyfile(path, folder / path.name)
    write_json(folder / "labels.json", list(record.classes))


def _checked_facts(
    folder: Path, record: SplitRecord, model: Path, evaluation: Path
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return training.json and metrics.json once model, evaluation and split are known to belong together."""
    wanted = {"model.keras": model, "training.json": model, "metrics.json": evaluation, "probabilities.npy": evaluation}
    for name, origin in wanted.items():
        if not (folder / name).is_file():
            stage = "train" if origin == model else "evaluate"
            raise InputError(f"{origin / name} does not exist; run the stage {stage} first")
    training = _read(folder / "training.json", model)
    metrics = _read(folder / "metrics.json", evaluation)
    if sha256_of(folder / "model.keras") != training.get("model_sha256"):
        raise InputError(
            f"{model / 'model.keras'} was altered: its sha256 is not the one that train recorded in training.json"
        )
    if metrics.get("test_sha256") != record.content_sha256["test"]:
        raise InputError(f"{evaluation} was measured on other test images than the split's; run evaluate again")
    return training, metrics


def _with_what_the_start_has_seen(folder: Path, training: dict[str, Any], model: Path) -> dict[str, Any]:
    """Add the images that a run's start has trained on or chosen by to the release's hashes of such images.

    What its weights have learnt from, the release has seen, though it may be gone from the data set since.

    Returns:
        training.json; where the run began from a release, with `test_images_seen`: of how many test images that holds.

    Raises:
        InputError: The start's hashes are not those that train recorded.
    """
    start = training.get("start")
    if start is None:
        return training
    path = folder / START_HASHES
    if not path.is_file() or sha256_of(path) != start.get("fit_hashes_sha256"):
        raise InputError(f"{model / START_HASHES} is not what train recorded in training.json; run train again")
    seen = load_hashes(path)
    path.unlink()
    buffer = io.BytesIO()
    np.save(buffer, np.union1d(load_hashes(folder / FIT_HASHES), seen), allow_pickle=False)
    (folder / FIT_HASHES).write_bytes(buffer.getvalue())
    count = int(are_among(load_hashes(folder / TEST_HASHES), seen).sum())
    if count:
        print(f"{count:,} test images are such as release {start['release']}, with which it began, has seen")
    return {**training, "start": {**start, "test_images_seen": count}}


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _answers(folder: Path, record: SplitRecord, test: Arrays, metrics: dict[str, Any], bins: int) -> Answers:
    """Return the recorded answers to the test images, once metrics.json is known to be of them."""
    probabilities = load_probabilities(folder / PROBABILITIES)
    measured = measure(probabilities, np.asarray(test.labels), record.classes, bins)
    if not abs(measured.top1 - metrics["top1"]) <= ROUNDING:
        raise InputError(
            f"metrics.json says top-1 {metrics['top1']}, but {PROBABILITIES} gives {measured.top1}; run evaluate again"
        )
    fit, tested = load_hashes(folder / FIT_HASHES), load_hashes(folder / TEST_HASHES)
    if len(tested) != len(test.labels):
        raise InputError(f"{TEST_HASHES} is of {len(tested)} test images, and there are {len(test.labels)}; run split")
    return Answers(probabilities, record.classes, fit, tested)


def _add_what_serves(folder: Path, test: Arrays, params: Params) -> None:
    """Add the SavedModel, and the test images by which anybody can check it and the model."""
    buffer = io.BytesIO()  # written to a file, numpy's own error on a full disk does not say what happened
    np.save(buffer, choose_checked_images(test.images), allow_pickle=False)
    (folder / CHECKED_IMAGES).write_bytes(buffer.getvalue())
    export_saved_model(load_model(folder / MODEL), folder / SAVED_MODEL)
    finding = serves(folder, params.publish.largest_answer_difference)
    if not finding.passed:
        raise InputError(f"{finding.sentence}; run the stage evaluate again on this machine")


def _describe(folder: Path, params: Params, record: SplitRecord, runtime: Path) -> Manifest:
    """Return the manifest of the files in a folder, with everything that is known of their making but the verdict."""
    files = list_files(folder)
    return Manifest(
        id=release_id(files),
        tree=tree_name(files),
        files=files,
        created_at=_now(),
        git=git_state(Path()),
        dvc_lock=dvc_lock(Path(), without="publish"),
        parameters=params.used(),
        data={
            "dataset": record.dataset,
            "content_sha256": record.content_sha256,
            "index_sha256": record.index_sha256,
        },
        metrics=read_json(folder / "metrics.json"),
        training=read_json(folder / "training.json"),
        environment=environment_versions(),
        runtime={path.stem: read_runtime(path.stem, runtime) for path in sorted(runtime.glob("*.json"))},
        parent=None,
        verdict=(),
    )


def _read(path: Path, origin: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except ValueError as error:
        raise InputError(f"{origin / path.name} is not a JSON object: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def main() -> None:
    """Run the stage on the default folders."""

    def run() -> None:
        start = time.monotonic()
        publish(load_params(), Path("data/split"), Path("model"), Path("evaluation"), Path("release"))
        write_runtime("publish", {"seconds": time.monotonic() - start})

    run_command("publish", run)


if __name__ == "__main__":
    main()

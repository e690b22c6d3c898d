"""A training run: what it is made of, what it reads, and what of it must hold before it begins."""

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tasks.data.arrays import Arrays, SplitRecord, check_arrays, load_arrays
from tasks.models.pretrained import RECORD_NAME, pretrained_of
from tasks.models.start import START, Start
from tasks.models.whitening import PixelStatistics, pixel_statistics
from tasks.params.params import TrainParams
from tasks.params.probe import ProbeRecipe
from tasks.params.recipe import ModelParams, Recipe
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, sha256_of
from tasks.training.checkpoint import fingerprint
from tasks.training.cluster import Agreement
from tasks.training.precision import resolve_precision

TASKS = Path(__file__).parents[1]
CODE_FOLDERS = ("models", "training")


@dataclass(frozen=True)
class Makings:
    """What decides a run: facts and code. Not the machine, which a resumed run may change.

    Attributes:
        facts: Hash of the data, recipe, seed, versions of the libraries; `start`, where it begins from a release.
        sources: Its code by name in tasks/: a new machine has it elsewhere and goes on with the same run.
    """

    facts: dict[str, Any]
    sources: dict[str, Path]

    @property
    def fingerprint(self) -> str:
        """Return all of it as one hash, under which the run's checkpoints are kept."""
        return fingerprint(self.facts, self.sources)


@dataclass(frozen=True)
class Prepared:
    """What a recipe of any kind is about to make a model of."""

    params: TrainParams
    recipe: Recipe | ProbeRecipe
    precision: str
    record: SplitRecord
    training: Arrays
    validation: Arrays
    statistics: PixelStatistics
    makings: Makings
    start: Start | None = None


@dataclass(frozen=True)
class Run(Prepared):
    """One training run in steps, with the data that it reads."""

    recipe: Recipe


def makings_of(
    params: TrainParams, recipe: Recipe | ProbeRecipe, record: SplitRecord, weights: Path, start: Start | None = None
) -> Makings:
    """Return what decides the run of a recipe on a split, from pretrained weights where the recipe begins from such.

    Args:
        params: The seed, and what becomes of a release's weights.
        recipe: The recipe.
        record: Of the split.
        weights: Folder of the pretrained weights.
        start: The release that it begins from; None for from scratch.
    """
    facts: dict[str, Any] = {
        "data": record.content_sha256,
        "recipe": recipe.model_dump(mode="json"),
        "seed": params.seed,
        "weights": _pretrained(recipe.model, weights),
        "versions": [tf.__version__, keras.__version__, np.__version__],
    }
    if start is not None:
        mixture = params.shrink_perturb
        facts["start"] = {
            "release": start.release,
            "model_sha256": start.model_sha256,
            "fit_hashes_sha256": start.fit_hashes_sha256,
            "shrink_perturb": None if mixture is None else mixture.model_dump(mode="json"),
        }
    files = [TASKS / "train.py"] + [file for folder in CODE_FOLDERS for file in (TASKS / folder).glob("*.py")]
    return Makings(facts, {file.relative_to(TASKS).as_posix(): file for file in files})


def for_so_many(recipe: Recipe, images: int) -> Recipe:
    """Return the recipe with as many epochs as give `min_steps` steps on so many training images, and say so."""
    steps = images // recipe.batch_size if recipe.drop_last else -(-images // recipe.batch_size)
    times = recipe.min_steps / (max(steps, 1) * recipe.epochs)
    if times <= 1:
        return recipe
    epochs = math.ceil(recipe.epochs * times)
    print(f"{images:,} images are few: {epochs} epochs instead of {recipe.epochs:g}, for {recipe.min_steps} steps")
    return recipe.model_copy(update={"epochs": float(epochs), "head_epochs": recipe.head_epochs * times})


def _pretrained(model: ModelParams, folder: Path) -> dict[str, Any] | None:
    """Return what is known of the file that a network begins with; None where it needs none."""
    known = pretrained_of(model.base, model.weights)
    if known is not None:
        return _recorded(folder, folder / known.file_name)
    if model.weights == "none":
        return None
    path = Path(model.weights)
    if not path.is_file():
        raise InputError(f"model.weights = {model.weights!r}: not none, imagenet or an existing .weights.h5 file")
    return {"base": model.base, "sha256": sha256_of(path), "source": None, "licence": None, "trained_on": None}


def _recorded(folder: Path, path: Path) -> dict[str, Any]:
    """Return what the stage `weights` has recorded of its file, whose bytes are compared."""
    try:
        record = read_json(folder / RECORD_NAME)
        found = sha256_of(path)
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} does not exist; run the stage weights first") from error
    except ValueError as error:
        raise InputError(f"{folder / RECORD_NAME} is not JSON: {error}") from error
    if not isinstance(record, dict) or record.get("sha256") != found:
        raise InputError(f"{path} is not the file that {RECORD_NAME} beside it names; run the stage weights")
    return {name: value for name, value in record.items() if name != START}


def read(
    params: TrainParams,
    recipe: Recipe | ProbeRecipe,
    split: Path,
    record: SplitRecord,
    makings: Makings,
    start: Start | None = None,
) -> Prepared:
    """Read the data of a recipe; the precision is a probe's own, float32, or as the recipe has it.

    Raises:
        InputError: The arrays are not the ones that the record names.
    """
    training, validation = load_arrays(split, "train"), load_arrays(split, "validation")
    check_arrays(training, "train", record, split)
    check_arrays(validation, "validation", record, split)
    precision = "float32" if isinstance(recipe, ProbeRecipe) else recipe.precision
    statistics = pixel_statistics(training.images)
    return Prepared(params, recipe, precision, record, training, validation, statistics, makings, start)


def prepare(
    params: TrainParams,
    recipe: Recipe,
    split: Path,
    record: SplitRecord,
    makings: Makings,
    start: Start | None = None,
) -> Run:
    """Read the data of a run; the precision is as the recipe has it, which may be `auto` still.

    Raises:
        InputError: The arrays are not the ones that the record names, or an augmentation is larger than the images.
    """
    prepared = read(params, recipe, split, record, makings, start)
    _check_augmentation(params, recipe, record)
    fields = {name: value for name, value in vars(prepared).items() if name != "recipe"}
    return Run(recipe=for_so_many(recipe, len(prepared.training.labels)), **fields)


def check_batch_size(params: TrainParams, recipe: Recipe, replicas: int) -> None:
    """Raise InputError where a global batch has no equal part for each replica."""
    if recipe.batch_size % replicas:
        raise InputError(
            f"recipes.{params.recipe}.batch_size = {recipe.batch_size} is global and is not divisible by "
            f"the {replicas} replicas of train.devices = {params.devices!r}"
        )


def agreed(run: Run, begun_in: str | None, agreement: Agreement) -> Run:
    """Return the run with its precision: on every host that in which the chief's began, wherever it goes on.

    Args:
        run: As this host has prepared it.
        begun_in: The precision of the chief's newest checkpoint; None where there is none, and on other hosts.
        agreement: With the other hosts.

    Raises:
        InputError: This host would train something else than the chief, or end its launches at other steps.
    """
    # Windows and saves end launches: two hosts that differ in them would wait for each other for ever.
    params, cluster = run.params, agreement.cluster
    own = f"{run.makings.fingerprint} {params.memory_megabytes} {params.checkpoint_every_steps}"
    precision = (begun_in or resolve_precision(run.recipe.precision)) if cluster.is_chief else ""
    theirs, _, precision = agreement.broadcast(f"{own} {precision}".encode()).decode().rpartition(" ")
    if theirs != own:
        host = cluster.hosts[cluster.own]
        raise InputError(f"{host.job} {host.index} ({host.address}) has other data, parameters or code than the chief")
    return replace(run, precision=precision)


def _check_augmentation(params: TrainParams, recipe: Recipe, record: SplitRecord) -> None:
    """Refuse an augmentation that is larger than the images."""
    augment, side = recipe.augment, min(record.image_shape[:2])
    for name, size in {"crop": augment.crop, "cutout": augment.cutout}.items():
        if size >= side:
            raise InputError(
                f"recipes.{params.recipe}.augment.{name} = {size}: must be less than the images' {side} pixels"
            )

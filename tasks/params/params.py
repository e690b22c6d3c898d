"""params.yaml as frozen, validated types. Read once at the edge of a stage; an unknown or impossible value is named."""

import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML

from tasks.params.address import BUCKET, PREFIX
from tasks.params.costs import Costs
from tasks.params.data import DownloadParams, SplitParams
from tasks.params.probe import RECIPE_KINDS, AnyRecipe, ProbeRecipe
from tasks.params.recipe import Recipe
from tasks.params.retrain import RetrainParams
from tasks.params.section import Fraction, Positive, Section, Seed, Share
from tasks.params.weights import WeightsParams
from tasks.stage.errors import InputError, without_credentials

PARAMS_FILE = Path("params.yaml")


def _without_dots(value: str) -> str:
    """Refuse `.` and `..`, which some stores take literally, some resolve, and some refuse."""
    if {".", ".."} & set(value.split("/")):
        raise ValueError(f"{value!r} has a part that is . or ..")
    return value


DEVICES = re.compile(r"auto|cpu:[1-9]\d*|gpu:\d+(,\d+)*")

SHOWN_PROBLEMS = 10

SECRET_NAME = re.compile(r"signature|credential|token|secret|passw|access[_-]?key|api[_-]?key|^(sig|key|auth)$", re.I)


START = re.compile(r"scratch|champion|[0-9a-f]{16}")


class ShrinkPerturb(Section):
    """What becomes of a release's weights w: shrink · w + perturb · fresh (Ash and Adams 2020, arXiv 1910.08475).

    Attributes:
        shrink: λ of its algorithm 1.
        perturb: Factor on what the seed would have begun with from scratch, which stands for that algorithm's noise.
    """

    shrink: Annotated[float, Field(gt=0, le=1)]
    perturb: Share


class TrainParams(Section):
    """Which recipe trains, from which weights, on which devices; what follows `shrink_perturb` changes rounding alone.

    Attributes:
        recipe: A name under `recipes`.
        seed: Of initial weights, order and augmentation.
        start: `scratch`; the id of a release, whose weights training begins with; or `champion`: the release that
            `weights.release` pins, which a run of the flow moves to the champion when the data have changed.
        shrink_perturb: What becomes of that release's trained weights at the start; null leaves them as they are.
        devices: `auto`, `cpu:N` (N logical devices) or `gpu:0,1`.
        threads: Of an operation on the CPU: sums are cut into as many parts, so that it decides last bits. null for as
            many as the machine has cores where the run began; a number gives equal bytes on any number of cores.
        memory_megabytes: Of images held in memory, half for training and half for validation; more are streamed. Each
            GPU has as much; the logical CPUs of `cpu:N` share it, though each holds a copy.
        checkpoint_every_seconds: How much work a kill may cost.
        checkpoint_every_steps: The same in steps; null for seconds alone.
        checkpoint_remote: `s3://bucket/prefix` to which checkpoints are mirrored, so that a new machine goes on where
            a lost one stopped; null for none.
    """

    recipe: str
    seed: Seed = 0
    start: str = "scratch"
    shrink_perturb: ShrinkPerturb | None = None
    devices: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_megabytes: Positive = 4096
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 60
    checkpoint_every_steps: Positive | None = None
    checkpoint_remote: (
        Annotated[
            str,
            Field(pattern=rf"^s3://{BUCKET}/{PREFIX}$"),
            AfterValidator(_without_dots),
        ]
        | None
    ) = None

    @field_validator("devices")
    @classmethod
    def _known_devices(cls, value: str) -> str:
        if not DEVICES.fullmatch(value):
            raise ValueError(f"{value!r} is not auto, cpu:N or gpu:0,1,…")
        return value

    @field_validator("start", mode="before")
    @classmethod
    def _known_start(cls, value: Any) -> Any:
        if not isinstance(value, str) or not START.fullmatch(value):
            raise ValueError(
                f"{_shown(value)} is not scratch, champion or a release's id of 16 hexadecimal digits (in quotes: YAML "
                "takes some for numbers)"
            )
        return value

    @model_validator(mode="after")
    def _nothing_is_shrunk_from_scratch(self) -> "TrainParams":
        if self.shrink_perturb is not None and self.start == "scratch":
            raise ValueError("shrink_perturb is of a release's weights, and start = scratch begins with none")
        return self


class EvaluateParams(Section):
    """How the test images are read, and answered a second time as an average over views.

    Attributes:
        batch_size: Images at once; it changes speed, not results.
        test_time_augmentation: Views averaged for the second top-1: `none`, `mirror`, `mirror_and_shift`
            (½ mean(image, mirror) + ½ mean over two diagonal one-pixel shifts of mean(view, mirror), on logits), or
            `auto`: which of these is better on the validation images (tasks/evaluation/choice.py), else `none`.
        calibration_bins: Equal-width confidence bins of the expected calibration error.
        costs: What a mistake costs, above 0 and at most a million: by a class any mistake about its images, by
            `actual > answered` that one; 1 where nothing is said. Where it is not empty, the least expected cost
            decides beside the highest probability, and is what `tasks.predict` answers by.
    """

    batch_size: Positive = 500
    test_time_augmentation: Literal["auto", "none", "mirror", "mirror_and_shift"] = "mirror_and_shift"
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15
    costs: Costs = Field(default_factory=dict)


class PublishParams(Section):
    """Where releases go: `s3://<bucket>/<prefix>/releases/<id>/`; and what the gate asks of a new champion.

    All shares are of 1: 0.005 is half a point. tasks/registry/gate.py has the rules, docs/releases.md what a small
    test set cannot see.

    Attributes:
        bucket: Name of the bucket; it must exist.
        prefix: Folder in the bucket. Every prefix has a champion of its own.
        minimum_top1: A release below this top-1 never becomes champion.
        significance: How many equal models the gate may refuse, of 1, all rules that compare together. What it refuses
            is more than the sizes below allow and more than chance; higher is stricter.
        minimum_compared: On how many test images, or half of them where those are fewer, a release must be comparable
            with the champion: those that neither trained on, of classes that both know.
        tolerance_top1: How much lower than the champion's top-1 may be.
        tolerance_below_best: How much lower than the top-1 of the best release of this prefix may be: what many
            releases, each a little worse, may lose together.
        largest_class_drop: By how much the share of right answers of a single class may fall.
        largest_calibration_rise: By how much the expected calibration error may rise.
        largest_answer_difference: By how much a probability may differ from the recorded one when the release answers
            again from the bucket. float32 on another machine rounds by about a millionth.
    """

    bucket: Annotated[str, Field(pattern=rf"^{BUCKET}$")]
    prefix: Annotated[str, Field(pattern=rf"^{PREFIX}$"), AfterValidator(_without_dots)]
    minimum_top1: Share = 0.0
    significance: Fraction = 0.05
    minimum_compared: Positive = 200
    tolerance_top1: Share = 0.005
    tolerance_below_best: Share = 0.01
    largest_class_drop: Share = 0.05
    largest_calibration_rise: Share = 0.02
    largest_answer_difference: Fraction = 0.00001


class Params(Section):
    """The whole of params.yaml."""

    download: DownloadParams
    split: SplitParams
    weights: WeightsParams = WeightsParams()
    train: TrainParams
    evaluate: EvaluateParams
    publish: PublishParams
    retrain: RetrainParams = RetrainParams()
    recipes: dict[str, AnyRecipe]

    @model_validator(mode="after")
    def _recipe_known(self) -> "Params":
        if self.train.recipe not in self.recipes:
            raise ValueError(f"train.recipe: {self.train.recipe!r} is not one of {', '.join(sorted(self.recipes))}")
        return self

    @model_validator(mode="after")
    def _start_takes_steps(self) -> "Params":
        if self.train.start != "scratch" and isinstance(self.recipes.get(self.train.recipe), ProbeRecipe):
            raise ValueError(
                f"train.start = {self.train.start}: recipe {self.train.recipe} is a probe, which takes no training "
                "steps and begins nowhere; train.start = scratch goes with it"
            )
        return self

    @model_validator(mode="after")
    def _what_is_shrunk_was_not_pretrained(self) -> "Params":
        recipe = self.recipes.get(self.train.recipe)
        if self.train.shrink_perturb is not None and recipe is not None and recipe.model.weights != "none":
            raise ValueError(
                f"train.shrink_perturb: recipe {self.train.recipe} begins with pretrained weights, whose batch norm "
                "keeps its statistics; they would not fit weights that were shrunk"
            )
        return self

    @property
    def begins_from(self) -> str | None:
        """The id of the release that training begins from; None for from scratch."""
        return {"scratch": None, "champion": self.weights.release}.get(self.train.start, self.train.start)

    @property
    def recipe(self) -> Recipe | ProbeRecipe:
        """The recipe that `train.recipe` names."""
        return self.recipes[self.train.recipe]

    def used(self) -> dict[str, Any]:
        """Return all values with their defaults, of the recipes only the one that is used: a valid params.yaml."""
        values = self.model_dump(mode="json")
        return {**values, "recipes": {self.train.recipe: values["recipes"][self.train.recipe]}}


def load_params(path: Path = PARAMS_FILE) -> Params:
    """Read and validate params.yaml.

    Raises:
        InputError: The file is missing or not YAML, or a key is unknown, missing or has an impossible value; the text
            names the key, the value and what is allowed.
    """
    try:
        values = read_yaml(path.read_text(encoding="utf-8"), str(path))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run from the repository's root") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not YAML: {error}") from error
    return parse_params(values, str(path))


def read_yaml(text: str, source: str) -> Any:
    """Return the values of YAML text that came from `source`; raises InputError where it is none."""
    try:
        return YAML(typ="safe").load(text)
    except RecursionError as error:
        raise InputError(f"{source} is not YAML that can be read: it is nested too deeply") from error
    except Exception as error:  # the parser raises many types for values that are no dates, numbers or keys
        raise InputError(f"{source} is not YAML: {without_credentials(' '.join(str(error).split()))}") from error


def parse_params(values: Any, source: str) -> Params:
    """Validate parameters that were read from `source`; raises InputError like load_params."""
    try:
        return Params.model_validate(values)
    except ValidationError as error:
        sentences = [_sentence(problem) for problem in error.errors(include_url=False)[:SHOWN_PROBLEMS]]
        raise InputError(f"{source}: {'; '.join(sentences)}") from error


def as_read_today(recorded: dict[str, Any]) -> dict[str, Any]:
    """Return a release's parameters with the defaults of what was not there yet when they were recorded.

    Two releases of equal parameters are then equal, whichever of them knew more keys. What is no valid params.yaml any
    more is returned as it is.
    """
    try:
        return parse_params(recorded, "params.yaml").used()
    except InputError:
        return recorded


def _sentence(problem: Any) -> str:
    """Return one of pydantic's problems as `train.batch_size = 0: input should be greater than 0`."""
    location = _location(problem)
    key = ".".join(str(part) for part in location)
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        value = "…" if SECRET_NAME.search(str(location[-1])) else _shown(problem["input"])
        return f"{key} = {value}: no such parameter; {_allowed_keys(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {_shown(problem['input'])}: {message[0].lower()}{message[1:]}"


def _location(problem: Any) -> tuple[int | str, ...]:
    """Return where a problem is in the file: pydantic also names the kind of a recipe, which stands nowhere there."""
    location: tuple[int | str, ...] = problem["loc"]
    return (*location[:2], *location[3:]) if location[:1] == ("recipes",) else location


def _shown(value: Any) -> str:
    """Return a value for a sentence: short, though aliases can make a few lines of YAML a value without end."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 120, 120
    try:
        return without_credentials(short.repr(value))
    except ValueError:  # Python writes no integer of more than 4,300 digits
        return "a number without end"


def _allowed_keys(location: tuple[int | str, ...]) -> str:
    """Name the keys that the section holding an unknown key may have."""
    section: Any = Params
    if location[0] == "recipes":
        section, location = RECIPE_KINDS[str(location[2])], location[3:]
    for part in location[:-1]:
        annotation = section.model_fields[str(part)].annotation
        section = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    return f"allowed are {', '.join(section.model_fields)}"

"""params.yaml as frozen, validated types. Read once at the edge of a stage; an unknown or impossible value is named."""

import os
import re
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import AfterValidator, Field, ValidationError, field_validator, model_validator
from ruamel.yaml import YAML

from tasks.params.address import DOWNLOAD_URL, check_address
from tasks.params.recipe import Recipe
from tasks.params.section import Positive, Section, Share
from tasks.stage.errors import InputError, without_credentials

PARAMS_FILE = Path("params.yaml")

Fraction = Annotated[float, Field(gt=0, lt=1)]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _without_dots(value: str) -> str:
    """Refuse `.` and `..`, which some stores take literally, some resolve, and some refuse."""
    if {".", ".."} & set(value.split("/")):
        raise ValueError(f"{value!r} has a part that is . or ..")
    return value


def _regular_expression(value: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


Seed = Annotated[int, Field(ge=0, lt=2**31)]
DEVICES = re.compile(r"auto|cpu:[1-9]\d*|gpu:\d+(,\d+)*")

SHOWN_PROBLEMS = 10

SECRET_NAME = re.compile(r"signature|credential|token|secret|passw|access[_-]?key|api[_-]?key|^(sig|key|auth)$", re.I)


class DownloadParams(Section):
    """Where the data set comes from.

    Attributes:
        dataset: `cifar10` (the official binary archive), `folders` (an archive of labelled images) or `digits`
            (scikit-learn's bundled handwritten digits; needs neither `url` nor `sha256`).
        url: One address or several that are tried in order; `http(s)://`, `file://` and `s3://`. Without credentials,
            since parameters are recorded: those are for ~/.netrc, or for addresses in RETRAIN_DOWNLOAD_URL.
            One that ends with a slash, of file:// or s3://, is a collection: a folder or prefix that people add to.
        sha256: Of the archive, or the name of a collection's snapshot; null accepts any and prints what to pin.
        follow: Whether a run of the flow first looks at a collection and moves sha256 to what is there.
        max_lost: What share of its images a collection may lose from one look to the next; more is refused.
        attempts: Tries at each address before the next one.
        timeout_seconds: Longest silence of a server.
    """

    dataset: Literal["cifar10", "folders", "digits"]
    url: tuple[str, ...] = ()
    sha256: Sha256 | None = None
    follow: bool = True
    max_lost: Annotated[float, Field(ge=0, le=1)] = 0.2
    attempts: Positive = 5
    timeout_seconds: Annotated[float, Field(gt=0)] = 30

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            check_address(url)
        return value

    @model_validator(mode="after")
    def _address_present(self) -> "DownloadParams":
        if self.dataset != "digits" and not self.addresses:
            raise ValueError(f"url is empty, and dataset {self.dataset} needs one")
        collections = [url for url in self.url if url.endswith("/")]
        if collections and (self.dataset != "folders" or len(self.url) > 1 or collections[0].startswith("http")):
            raise ValueError(
                f"url {collections[0]} ends with a slash, and so is a collection: one address of file:// or s3://, for "
                "dataset folders"
            )
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """`url`, or instead of it the addresses in RETRAIN_DOWNLOAD_URL, divided by spaces, which nothing records."""
        return tuple(os.environ.get(DOWNLOAD_URL, "").split()) or self.url

    @property
    def collection(self) -> str | None:
        """The address of the collection that people add to, or None where the data set is an archive."""
        if self.dataset == "folders" and self.addresses[0].endswith("/"):
            return self.addresses[0]
        return None


class SplitParams(Section):
    r"""How images become train, validation and test arrays.

    Attributes:
        method: `stable` gives each image a place by a hash of it, which no other image changes; `stratified` keeps
            every class's share exactly; `tail` holds out the last images, in the archive's order; `auto` is stable for
            image folders, which grow, and stratified for the others.
        group: A regular expression on the names of image files, as `^(patient\d+)_`: a stable choice keeps together
            whatever shares what it matches; null for none.
        validation_fraction: Of the training images.
        test_fraction: Of all images, where the data set has no test split of its own.
        image_size: Height and width in pixels to which images from folders are resized.
        max_quarantined: What share of people's own images, and of each class's, may be set aside because they cannot be
            read; more ends the stage.
        seed: Of the choice.
    """

    method: Literal["auto", "stable", "stratified", "tail"]
    group: Annotated[str, AfterValidator(_regular_expression)] | None = None
    validation_fraction: Fraction
    test_fraction: Fraction = 0.15
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    max_quarantined: Share = 0.01
    seed: Seed = 0


class TrainParams(Section):
    """Which recipe trains on which devices; nothing here but `recipe` and `seed` changes the result beyond rounding.

    Attributes:
        recipe: A name under `recipes`.
        seed: Of initial weights, order and augmentation.
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
    devices: str = "auto"
    threads: Annotated[int, Field(ge=1, le=1024)] | None = None
    memory_megabytes: Positive = 4096
    checkpoint_every_seconds: Annotated[float, Field(gt=0)] = 60
    checkpoint_every_steps: Positive | None = None
    checkpoint_remote: (
        Annotated[
            str,
            Field(pattern=r"^s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9](/[A-Za-z0-9._-]+)+$"),
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


class EvaluateParams(Section):
    """How the test images are read.

    Attributes:
        batch_size: Images at once; it changes speed, not results.
        test_time_augmentation: Views averaged for the second top-1: `none`, `mirror`, or `mirror_and_shift`
            (½ mean(image, mirror) + ½ mean over two diagonal one-pixel shifts of mean(view, mirror), on logits).
        calibration_bins: Equal-width confidence bins of the expected calibration error.
    """

    batch_size: Positive = 500
    test_time_augmentation: Literal["none", "mirror", "mirror_and_shift"] = "mirror_and_shift"
    calibration_bins: Annotated[int, Field(ge=2, le=100)] = 15


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

    bucket: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]$")]
    prefix: Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*$"), AfterValidator(_without_dots)]
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
    train: TrainParams
    evaluate: EvaluateParams
    publish: PublishParams
    recipes: dict[str, Recipe]

    @model_validator(mode="after")
    def _recipe_known(self) -> "Params":
        if self.train.recipe not in self.recipes:
            raise ValueError(f"train.recipe: {self.train.recipe!r} is not one of {', '.join(sorted(self.recipes))}")
        return self

    @property
    def recipe(self) -> Recipe:
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


def _sentence(problem: Any) -> str:
    """Return one of pydantic's problems as `train.batch_size = 0: input should be greater than 0`."""
    key = ".".join(str(part) for part in problem["loc"])
    message = problem["msg"].removeprefix("Value error, ")
    if problem["type"] == "extra_forbidden":
        value = "…" if SECRET_NAME.search(str(problem["loc"][-1])) else _shown(problem["input"])
        return f"{key} = {value}: no such parameter; {_allowed_keys(problem['loc'])}"
    if problem["type"] == "missing":
        return f"{key} is missing"
    if problem["type"] == "value_error":
        return f"{key}: {message}" if key else message
    return f"{key} = {_shown(problem['input'])}: {message[0].lower()}{message[1:]}"


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
    for part in location[:-1]:
        if section is Params and part == "recipes":
            section = dict
        elif section is dict:
            section = Recipe
        else:
            annotation = section.model_fields[str(part)].annotation
            section = next(kind for kind in (annotation, *get_args(annotation)) if isinstance(kind, type))
    return f"allowed are {', '.join(section.model_fields)}"

"""A training recipe as frozen, validated types: all that decides a training run but its data and seed."""

from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.params.section import Fraction, NonNegative, Positive, Section, Share


class Whitening(Section):
    """Frozen first convolution from the eigenvectors of 2×2 patches (airbench, arXiv 2404.00498, section 3.2)."""

    images: Positive = 5000
    epsilon: Annotated[float, Field(gt=0)] = 5e-4
    bias_epochs: NonNegative = 3
    bias_rate_factor: Annotated[float, Field(gt=0)] = 1.0


# Bases that begin from pretrained weights or may do so, and how many stages of each may keep them.
STAGES = {
    "efficientnet_lite0": 7,
    "efficientnet_lite1": 7,
    "efficientnet_lite2": 7,
    "efficientnet_v2_b0": 6,
    "mobilenet_v3_large": 6,
    "convnext_tiny": 4,
    "resnet50": 4,
    "vgg16": 5,
}
FROM_SCRATCH = frozenset({"vgg16", "resnet50", "airbench"})  # bases that may begin from nothing

# What only some bases and heads heed.
SETTINGS: dict[str, dict[str, frozenset[str]]] = {
    "base": {
        **dict.fromkeys(STAGES, frozenset({"weights", "frozen_stages"})),
        "vgg16": frozenset({"weights", "frozen_stages", "batch_norm", "batch_norm_momentum"}),
        "airbench": frozenset({"widths", "activation", "convolutions", "whitening", "batch_norm_momentum"}),
    },
    "head": {"residual_separable": frozenset(), "linear": frozenset({"pooling", "logit_scale", "bias"})},
}


class ModelParams(Section):
    """Base and head of the network.

    Attributes:
        base: `vgg16`, `resnet50` (keras.applications, without top), `airbench` (the convnet of the fast recipe), or
            `efficientnet_lite0` to 2, `efficientnet_v2_b0`, `mobilenet_v3_large` or `convnext_tiny`, which begin from
            pretrained weights.
        head: `residual_separable` (the notebook's block) or `linear`.
        weights: `imagenet`, which the stage `weights` fetches; vgg16 and resnet50 may have `none` too, or a path to a
            `.weights.h5` file.
        frozen_stages: Of a base with pretrained weights: the stem and so many of its STAGES keep them.
        scaling: How uint8 pixels become numbers: `unit` ([0, 1]), `standard` (training mean and standard deviation
            per channel), `imagenet` (as the base's own ImageNet weights want them).
        widths: Filters of the three groups of `airbench`.
        activation: Of `airbench`.
        pooling: Of the `linear` head.
        logit_scale: Factor on the `linear` head's logits.
        bias: Whether the `linear` head adds a number to each class.
        batch_norm_momentum: The share of the running statistics kept a step; of `airbench`, and of `vgg16` with
            `batch_norm`.
        convolutions: Of each group of `airbench`; the third is a residual branch, as in airbench96.
        batch_norm: Whether `vgg16` normalizes after every convolution, which then has no bias.
    """

    base: Literal[
        "vgg16",
        "resnet50",
        "airbench",
        "efficientnet_lite0",
        "efficientnet_lite1",
        "efficientnet_lite2",
        "efficientnet_v2_b0",
        "mobilenet_v3_large",
        "convnext_tiny",
    ]
    head: Literal["residual_separable", "linear"]
    weights: str = "none"
    scaling: Literal["unit", "standard", "imagenet"] = "unit"
    widths: tuple[Positive, Positive, Positive] = (64, 256, 256)
    activation: Literal["relu", "gelu", "silu"] = "gelu"
    pooling: Literal["average", "max"] = "average"
    logit_scale: Annotated[float, Field(gt=0)] = 1.0
    bias: bool = False
    batch_norm_momentum: Share = 0.6
    convolutions: Annotated[int, Field(ge=2, le=3)] = 2
    batch_norm: bool = False
    frozen_stages: Annotated[int, Field(ge=0, le=7)] = 0
    whitening: Whitening = Whitening()

    @model_validator(mode="after")
    def _settings_are_of_this_base(self) -> "ModelParams":
        """Refuse a setting that would be ignored: who sets weights means to fine-tune."""
        for part, name in (("base", self.base), ("head", self.head)):
            others = {key for other, keys in SETTINGS[part].items() if other != name for key in keys}
            changed = {key for key, field in type(self).model_fields.items() if getattr(self, key) != field.default}
            ignored = sorted((others - SETTINGS[part][name]) & changed)
            if ignored:
                own = ", ".join(sorted(SETTINGS[part][name])) or "no settings"
                raise ValueError(f"{ignored[0]} is no setting of {part} {name}, which has {own}")
        return self

    @model_validator(mode="after")
    def _weights_fit(self) -> "ModelParams":
        if self.batch_norm and (self.base != "vgg16" or self.weights != "none"):
            raise ValueError("batch_norm = true is for base vgg16 with weights none")
        if self.base not in FROM_SCRATCH and self.weights != "imagenet":
            raise ValueError(f"weights of {self.base} is imagenet; the section weights says which file they are from")
        return self

    @model_validator(mode="after")
    def _frozen_stages_exist(self) -> "ModelParams":
        if self.frozen_stages and self.weights == "none":
            raise ValueError(f"frozen_stages = {self.frozen_stages} of weights by chance: with weights none it is 0")
        if self.frozen_stages > STAGES.get(self.base, 0):
            raise ValueError(f"frozen_stages = {self.frozen_stages}: {self.base} has {STAGES[self.base]} stages")
        return self


class LossParams(Section):
    """What is minimised, as a mean over the global batch.

    Attributes:
        name: Of the loss.
        label_smoothing: What share of the target is spread over all classes.
        balance: How far images of rare classes count more: 0 not at all, 1 so that every class weighs the same.
    """

    name: Literal["binary_crossentropy", "categorical_crossentropy"]
    label_smoothing: Annotated[float, Field(ge=0, lt=1)] = 0.0
    balance: Share = 0.0


class OptimizerParams(Section):
    """Adam as Keras defines it, AdamW, SGD with Nesterov momentum and L2, or Muon for kernels with that SGD.

    Attributes:
        learning_rate: Peak rate, for a mean loss.
        momentum: Of SGD.
        l2: Added to the gradient of the mean loss: l2 × weight.
        batch_norm_rate_factor: Rate of batch norm's betas over `learning_rate`; their L2 is `l2` over this factor.
        kernel_rate, kernel_momentum: Of Muon, for the kernels of convolutions; the schedule is the common one.
        weight_decay: Of AdamW, for kernels: what the rate times this takes off a weight a step.
        input_rate_factor: Of AdamW: the rate of the first layer over that of the last; in between it falls by equal
            factors from layer to layer.
    """

    name: Literal["adam", "adamw", "sgd", "muon"]
    learning_rate: Annotated[float, Field(gt=0)]
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0
    l2: NonNegative = 0.0
    batch_norm_rate_factor: Annotated[float, Field(gt=0)] = 1.0
    kernel_rate: Annotated[float, Field(gt=0)] = 0.24
    kernel_momentum: Annotated[float, Field(ge=0, lt=1)] = 0.6
    weight_decay: NonNegative = 0.0
    input_rate_factor: Annotated[float, Field(gt=0, le=1)] = 1.0


class ScheduleParams(Section):
    """Learning rate over the steps, and what watches the validation images.

    Attributes:
        name: `constant`, or `triangle`: from `start` × peak to the peak over the first `warmup` share of the steps,
            then linearly to `end` × peak; or `cosine`, which falls by half a cosine instead.
        watch: By what of the validation images an epoch is better than those before it, for the patiences below and
            for `select: best`: a lower `loss`, a higher `top1`, or a higher `balanced_accuracy` (the mean share of
            right answers of the classes that have validation images). Of equal epochs the earlier is the better.
        reduce_factor, reduce_patience: After this many epochs that are no better the rate is multiplied by the factor;
            a patience of 0 switches it off.
        stop_patience: After this many epochs that are no better training stops; 0 switches it off.
    """

    name: Literal["constant", "triangle", "cosine"] = "constant"
    start: NonNegative = 0.2
    warmup: Share = 0.23
    end: NonNegative = 0.07
    watch: Literal["loss", "top1", "balanced_accuracy"] = "loss"
    reduce_factor: Annotated[float, Field(gt=0, le=1)] = 0.1
    reduce_patience: Annotated[int, Field(ge=0)] = 0
    stop_patience: Annotated[int, Field(ge=0)] = 0


class Shrinking(Section):
    """Images are shrunk to `size` × `size` pixels in the first `share` of the steps, which are then cheap."""

    size: Annotated[int, Field(ge=8, le=1024)]
    share: Share


def _ascending(area: tuple[float, float]) -> tuple[float, float]:
    if area[0] > area[1]:
        raise ValueError(f"of [{area[0]:g}, {area[1]:g}] the smaller share stands first")
    return area


AreaShare = Annotated[float, Field(gt=0, le=1)]
AreaRange = Annotated[tuple[AreaShare, AreaShare], AfterValidator(_ascending)]


class Erasing(Section):
    """A rectangle set to the mean (random erasing, arXiv 1708.04896, which shows noise there).

    Attributes:
        probability: That an image has one.
        area: Smallest and largest share of the image that it hides, drawn uniformly; its aspect ratio is drawn from
            0.3 to 1 / 0.3, uniformly in the logarithm.
    """

    probability: Share = 0.5
    area: AreaRange = (0.02, 0.4)


class AugmentParams(Section):
    """What happens to a training image before it is seen, in this order: geometry, colour, what is hidden, mixup, size.

    `resized_crop`, `rotate` and `quarter_turns` interpolate, once for all of the geometry; without them pixels only
    change places.

    Attributes:
        crop: Pixels of reflect padding; a window of the image's size is cut at a random offset.
        flip: `none`, `random`, `both` (random, and upside down at random too), or `alternating`: random in the first
            epoch, then the other way round every epoch.
        resized_crop: Smallest and largest share of the area that is seen, drawn uniformly; a window of an aspect ratio
            of 3/4 to 4/3 becomes the whole image (Inception, arXiv 1409.4842, section 6); null for none.
        rotate: Degrees, up to which an image is turned either way.
        quarter_turns: Whether it is turned by a random multiple of 90 degrees: of what has no up.
        brightness, contrast, saturation: By how much a factor of 1 may change; the factor multiplies pixels, their
            difference from the image's mean grey, and theirs from their own grey, as in torchvision's ColorJitter, but
            always in this order.
        cutout: Side in pixels of a square set to the mean; 0 switches it off.
        erase: A rectangle that is set to the mean in some images; null for none.
        shrink: Progressive resizing, as fast.ai's DAWNBench entries had it; null for none.
        mixup: Alpha of the beta distribution from which comes how much of another image of the epoch is laid over each
            (arXiv 1710.09412), with as much of its label; never more than half. 0 switches it off.
    """

    crop: Annotated[int, Field(ge=0, le=64)] = 0
    flip: Literal["none", "random", "both", "alternating"] = "none"
    cutout: Annotated[int, Field(ge=0, le=256)] = 0
    shrink: Shrinking | None = None
    resized_crop: AreaRange | None = None
    rotate: Annotated[float, Field(ge=0, le=180)] = 0.0
    quarter_turns: bool = False
    brightness: Share = 0.0
    contrast: Share = 0.0
    saturation: Share = 0.0
    erase: Erasing | None = None
    mixup: NonNegative = 0.0

    @property
    def interpolates(self) -> bool:
        """Whether pixels come to lie between others."""
        return self.resized_crop is not None or self.rotate > 0 or self.quarter_turns

    @property
    def recolours(self) -> bool:
        """Whether colours change."""
        return max(self.brightness, self.contrast, self.saturation) > 0


class LookaheadParams(Section):
    """Slow copy of all weights, batch norm statistics included (arXiv 1907.08610), as airbench anneals it.

    Every `every` steps slow ← k·slow + (1 - k)·fast and fast ← slow, with k = decay^every · (step / steps)^power.
    """

    every: Positive = 5
    decay: Share = 0.95
    power: NonNegative = 3.0


class AveragingParams(Section):
    """Exponential moving average of all weights, batch norm statistics included (tasks/training/averaging.py).

    Attributes:
        decay: How much of the average a step leaves: 0.99 averages over some hundred steps, 0.999 over some thousand.
            At first it is less: (1 + t) / (10 + t) after t steps.
    """

    decay: Fraction = 0.999


class Recipe(Section):
    """Everything that decides a training run but its data and seed.

    Attributes:
        epochs: Passes over the training images; a fraction ends within the last pass.
        batch_size: Global, over all replicas.
        drop_last: Leave out an epoch's last short batch.
        precision: `float32`, `bfloat16`, `float64`, or `auto`: bfloat16 where the processor computes it natively.
        select: `best` keeps the weights of the best epoch, by what `schedule.watch` names, `last` those of the last
            step.
        head_epochs: For so many epochs at first only the head is trained, at the peak rate: what a new head, which
            knows nothing yet, would ask of pretrained layers is not worth following.
        min_steps: Of the whole run: where images are so few that the epochs have fewer, all epochs are as many times
            more.
        averaging: Validate, select and publish averaged weights, while training goes on with the others; null for none.
    """

    epochs: Annotated[float, Field(gt=0)]
    batch_size: Positive
    drop_last: bool = False
    precision: Literal["auto", "float32", "bfloat16", "float64"] = "float32"
    select: Literal["best", "last"] = "best"
    head_epochs: NonNegative = 0.0
    min_steps: Annotated[int, Field(ge=0)] = 0
    model: ModelParams
    loss: LossParams
    optimizer: OptimizerParams
    schedule: ScheduleParams = ScheduleParams()
    augment: AugmentParams = AugmentParams()
    lookahead: LookaheadParams | None = None
    averaging: AveragingParams | None = None

    @model_validator(mode="after")
    def _has_one_average(self) -> "Recipe":
        if self.lookahead and self.averaging:
            raise ValueError("lookahead and averaging are two averages of the same weights: one of them must be null")
        return self

    @model_validator(mode="after")
    def _muon_begins_from_nothing(self) -> "Recipe":
        if self.optimizer.name == "muon" and self.model.weights != "none":
            raise ValueError(
                f"optimizer.name = muon gives every kernel a norm of its own, by which those of {self.model.base} that "
                "were trained before would mean nothing; adamw goes with pretrained weights"
            )
        return self

"""Give a new network the weights of a released one of the same architecture, layer by layer, its classes by name."""

from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.models.start import Start
from tasks.params.recipe import ModelParams
from tasks.stage.errors import InputError

SAME = ("base", "head", "scaling")  # without which equal shapes mean nothing

Weights = NDArray[Any]


def take_over(
    model: keras.Model,
    released: keras.Model,
    start: Start,
    classes: tuple[str, ...],
    params: ModelParams,
    mixture: tuple[float, float] | None = None,
) -> None:
    """Give a model the weights of a release, batch norm's running statistics and the whitening kernel included.

    The last dense layer is taken over by the names of the classes: one that is new keeps its fresh column, one that is
    gone is left behind. How pixels are scaled is no weight, and stays as the recipe has it for the present images.

    Args:
        model: As it would begin from scratch.
        released: The release's network.
        start: The release.
        classes: Of the model, in the order of its outputs.
        params: Of the model.
        mixture: Shrink λ and perturb σ: a trained weight becomes λ · released + σ · fresh (Ash and Adams 2020,
            arXiv 1910.08475, algorithm 1, with the seed's own beginning as the noise); None leaves it as released.
            What is not trained is taken over as it is: of a mixed variance or frozen layer nothing would be left.

    Raises:
        InputError: The release has another architecture. The model is then as it was.
    """
    ours, theirs = _layers(model), _layers(released)
    recorded = {name: start.model[name] for name in SAME if name in start.model}
    different = [f"its {name} is {value}" for name, value in recorded.items() if value != str(getattr(params, name))]
    different += [f"it has no layer {name}" for name in sorted(ours.keys() - theirs.keys())]
    different += [f"it has a layer {name}" for name in sorted(theirs.keys() - ours.keys())]
    if different:
        raise _refused(start, params, different[0])
    last = _last_dense(model)
    values = {}
    for name, layer in ours.items():
        fresh, known = _copies(layer), _copies(theirs[name])
        if name == last and _is_of_classes(known, fresh, len(start.classes)):
            known = _by_class(known, fresh, start.classes, classes)
        elif name == last or [value.shape for value in known] != [value.shape for value in fresh]:
            raise _refused(start, params, f"its layer {name} has another shape")
        mixed = known if mixture is None else _mixed(layer, known, fresh, mixture)
        if name == last:  # what no release has known begins as it would from scratch
            new = [place for place, each in enumerate(classes) if each not in start.classes]
            for value, begun in zip(mixed, fresh, strict=True):
                value[..., new] = begun[..., new]
        values[name] = mixed
    for name, layer in ours.items():
        layer.set_weights(values[name])


def _layers(model: keras.Model) -> dict[str, keras.layers.Layer]:
    """Return the layers that have weights, by name."""
    return {layer.name: layer for layer in model.layers if layer.weights}


def _last_dense(model: keras.Model) -> str:
    dense = [layer.name for layer in model.layers if isinstance(layer, keras.layers.Dense)]
    return str(dense[-1])


def _copies(layer: keras.layers.Layer) -> list[Weights]:
    return [np.array(value) for value in layer.get_weights()]


def _is_of_classes(known: list[Weights], fresh: list[Weights], classes: int) -> bool:
    """Tell whether a dense layer's weights are of so many classes, and else of the form of ours."""
    columns = all(value.shape[-1] == classes for value in known)
    return columns and [value.shape[:-1] for value in known] == [value.shape[:-1] for value in fresh]


def _by_class(known: list[Weights], fresh: list[Weights], then: tuple[str, ...], now: tuple[str, ...]) -> list[Weights]:
    """Return a dense layer's weights, (F, C) and (C,), with their columns as the classes are ordered now.

    A class that was not there has the fresh column.
    """
    shared = [name for name in now if name in then]
    ours, theirs = ([names.index(name) for name in shared] for names in (now, then))
    result = [value.copy() for value in fresh]
    for value, old in zip(result, known, strict=True):
        value[..., ours] = old[..., theirs]
    return result


def _mixed(
    layer: keras.layers.Layer, known: list[Weights], fresh: list[Weights], mixture: tuple[float, float]
) -> list[Weights]:
    """Return λ · known + σ · fresh for what is trained of a layer, and the rest as it is known."""
    trained = {weight.path for weight in layer.trainable_weights}
    shrink, perturb = mixture
    return [
        (shrink * old.astype(np.float64) + perturb * new).astype(new.dtype) if weight.path in trained else old
        for weight, old, new in zip(layer.weights, known, fresh, strict=True)
    ]


def _refused(start: Start, params: ModelParams, why: str) -> InputError:
    ours = f"base {params.base}, head {params.head}"
    return InputError(
        f"release {start.release} ({start.network}) does not fit this recipe's network ({ours}): {why}; "
        "train.start = scratch begins without it"
    )

"""Squeeze-and-excitation (arXiv 1709.01507): each channel times a number that the means of all channels decide."""

from dataclasses import dataclass

import keras


@dataclass(frozen=True)
class Excitation:
    """How a network has it.

    Attributes:
        activation: Behind the first of its two convolutions.
        gate: Behind the second: what the channels are multiplied with.
        names: Of the two convolutions.
    """

    activation: str
    gate: str
    names: tuple[str, str]


def squeeze_excite(
    x: keras.KerasTensor, filters: int, how: Excitation, prefix: str, trainable: bool
) -> keras.KerasTensor:
    """Return features (N, h, w, c) times (N, 1, 1, c), by way of `filters` numbers; names begin with `prefix`."""
    reduce, expand = how.names
    mean = keras.layers.GlobalAveragePooling2D(keepdims=True, name=f"{prefix}squeeze")(x)
    narrow = keras.layers.Conv2D(filters, 1, activation=how.activation, trainable=trainable, name=f"{prefix}{reduce}")(
        mean
    )
    wide = keras.layers.Conv2D(x.shape[-1], 1, activation=how.gate, trainable=trainable, name=f"{prefix}{expand}")
    return keras.layers.Multiply(name=f"{prefix}excite")([x, wide(narrow)])

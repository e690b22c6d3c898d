"""Phases: stretches of training steps that one trace serves."""

import math
from typing import NamedTuple

import keras

from tasks.models.layers import whitening_biases
from tasks.params.recipe import Recipe


class Phase(NamedTuple):
    """What is the same for a stretch of training steps.

    Attributes:
        size: Height and width that images are shrunk to, if they are.
        whitening_bias: Whether it is trained; where it rests, nothing is propagated back to the first convolution.
        head_only: Whether nothing but the head is trained.
    """

    size: int | None = None
    whitening_bias: bool = True
    head_only: bool = False


class Phases:
    """The phases of a run, by the recipe's progressive resizing, its whitening and its epochs for the head alone."""

    def __init__(self, recipe: Recipe, model: keras.Model, steps_per_epoch: int, total_steps: int) -> None:
        shrink, whitening = recipe.augment.shrink, recipe.model.whitening
        self._small = shrink.size if shrink else None
        self._full_size_from = rounded_up(total_steps * shrink.share) if shrink else 0
        self._bias_rests_from = rounded_up(whitening.bias_epochs * steps_per_epoch) if whitening_biases(model) else 0
        self.head_steps = rounded_up(recipe.head_epochs * steps_per_epoch)

    def at(self, step: int) -> Phase:
        """Return the phase of a step, counted from 0."""
        size = self._small if step < self._full_size_from else None
        return Phase(size, step < self._bias_rests_from, step < self.head_steps)

    def steps_left(self, step: int) -> int | None:
        """Return how many steps there are from `step` on before the next phase; None where none follows."""
        ends = (self._full_size_from, self._bias_rests_from, self.head_steps)
        return min((end - step for end in ends if end > step), default=None)


def rounded_up(steps: float) -> int:
    """Return the next whole number of steps, but 110 for 100 · 1.1, which is a little more in floating point."""
    return math.ceil(round(steps, 6))

"""What a replica needs on its device: the arrays once, and an epoch's order and draws."""

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.params import Recipe
from tasks.training.augment import Draws, draw_augmentation, draw_order


@dataclass(frozen=True)
class Samples:
    """Images (N, H, W, C) uint8 and labels (N,) int32."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Epoch:
    """An epoch's batches: (steps, batch) int32 sample indices, -1 past the end of a short one, and all draws."""

    order: NDArray[np.int32]
    draws: Draws

    @property
    def steps(self) -> int:
        """Steps of the epoch."""
        return len(self.order)


def batches(order: NDArray[np.int32], batch_size: int, drop_last: bool) -> NDArray[np.int32]:
    """Cut sample indices (N,) into (steps, batch_size); a short last batch is filled with -1 or dropped."""
    steps = len(order) // batch_size if drop_last else -(-len(order) // batch_size)
    padded = np.full(max(steps, 1) * batch_size, -1, np.int32)
    count = min(len(order), len(padded))
    padded[:count] = order[:count]
    return padded.reshape(-1, batch_size)


def draw_epoch(recipe: Recipe, count: int, image_shape: tuple[int, int, int], seed: int, epoch: int) -> Epoch:
    """Return the batches and draws of an epoch over `count` samples, a function of (seed, epoch) and the recipe."""
    order = batches(draw_order(count, seed, epoch), recipe.batch_size, recipe.drop_last)
    return Epoch(order, draw_augmentation(recipe.augment, count, image_shape, seed, epoch))


def share_of(order: NDArray[np.int32], replica: int, replicas: int) -> NDArray[np.int32]:
    """Return a replica's part (steps, batch // replicas) of global batches, a short batch shared out evenly."""
    width = order.shape[1] // replicas
    part = np.full((len(order), width), -1, np.int32)
    for step, row in enumerate(order):
        mine = np.array_split(row[row >= 0], replicas)[replica]
        part[step, : len(mine)] = mine
    return part


def on_each_replica(strategy: tf.distribute.Strategy, make: Callable[[int], Any]) -> Any:
    """Return a per-replica value, `make(replica)` converted to tensors on that replica's device."""
    devices = strategy.extended.worker_devices

    def value(context: Any) -> Any:
        replica = context.replica_id_in_sync_group
        with tf.device(devices[replica]):
            return tf.nest.map_structure(tf.constant, make(replica))

    return strategy.experimental_distribute_values_from_function(value)


def as_tuple(draws: Draws) -> tuple[NDArray[np.int32], ...]:
    """Return the arrays of the draws in the order of their fields, for tf.nest."""
    return tuple(getattr(draws, entry.name) for entry in fields(draws))

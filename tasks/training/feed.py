"""What the devices read: an epoch's batches and draws, and the images, resident or streamed within a memory budget."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from tasks.params.recipe import Recipe
from tasks.training.draws import Draws, draw_augmentation, draw_order
from tasks.training.rows import read_rows

DEFAULT_MEMORY = 4 << 30  # bytes of images held in memory
# A window being read, its copy on the devices, the window in use there, and room for the allocator.
WINDOWS_IN_MEMORY = 4


@dataclass(frozen=True)
class Samples:
    """Images (N, H, W, C) uint8, in memory or memory-mapped, and labels (N,) int32."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int32]


@dataclass(frozen=True)
class Epoch:
    """An epoch's batches: (steps, batch) int32 sample indices, -1 past the end of a short one, and all draws."""

    order: NDArray[np.int32]
    draws: Draws | None

    @property
    def steps(self) -> int:
        """Steps of the epoch."""
        return len(self.order)


@dataclass(frozen=True)
class Window:
    """Steps `start` to `stop` - 1 of an epoch, on the devices.

    Attributes:
        values: One a replica: ((images, labels), (order, global batch sizes, draws)). The order holds positions in
            these images, and its first row belongs to step `start`.
    """

    values: Any
    start: int
    stop: int


class Feed(Protocol):
    """Where steps get their images from."""

    def windows(self, plan: Epoch, first: int, stop: int) -> Iterator[Window]:
        """Yield, in order, the windows over steps `first` to `stop` - 1; the first one holds `first`."""


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
    """Return a replica's part (steps, batch // replicas) of global batches, a short last batch shared out evenly."""
    width = order.shape[1] // replicas
    part = order[:, replica * width : (replica + 1) * width].copy()
    if (order[-1] < 0).any():
        mine = np.array_split(order[-1][order[-1] >= 0], replicas)[replica]
        part[-1] = -1
        part[-1, : len(mine)] = mine
    return part


def build_feed(strategy: tf.distribute.Strategy, samples: Samples, memory: int) -> Feed:
    """Return a feed that holds at most `memory` bytes of images: all of them, or a window that moves along.

    Every device has a copy of them all: of several GPUs each in a memory of its own, of several logical CPUs in one.
    """
    devices = strategy.extended.worker_devices
    copies = len(devices) if "CPU" in devices[0] else 1
    if samples.images.nbytes * copies <= memory:
        return ResidentFeed(strategy, samples)
    return StreamedFeed(strategy, samples, memory // WINDOWS_IN_MEMORY)


class ResidentFeed:
    """All images and labels on every replica's device, put there once; an epoch's plan is put beside them."""

    def __init__(self, strategy: tf.distribute.Strategy, samples: Samples) -> None:
        self._strategy = strategy
        arrays = (np.asarray(samples.images), np.asarray(samples.labels, np.int32))
        self._data = on_each_replica(strategy, lambda _: arrays)

    def windows(self, plan: Epoch, first: int, stop: int) -> Iterator[Window]:
        """Yield the one window: the whole epoch."""
        replicas = self._strategy.num_replicas_in_sync
        sizes, draws = _global_sizes(plan.order), plan.draws.arrays() if plan.draws else ()

        def part(replica: int) -> Any:
            return share_of(plan.order, replica, replicas), sizes, draws

        yield Window((self._data, on_each_replica(self._strategy, part)), 0, stop)


class StreamedFeed:
    """A window of steps after the other, read from a memory-mapped file in a background thread, one window ahead.

    Args:
        samples: Their images are memory-mapped.
        window_bytes: Size of a window's images, over all replicas of this process; at least a step's.
    """

    def __init__(self, strategy: tf.distribute.Strategy, samples: Samples, window_bytes: int) -> None:
        self._strategy, self._samples, self._window_bytes = strategy, samples, window_bytes

    def windows(self, plan: Epoch, first: int, stop: int) -> Iterator[Window]:
        """Yield the windows from the one that holds `first`; each begins at a multiple of the window's length."""
        images = plan.order.shape[1] * (2 if plan.draws and plan.draws.mixes else 1)
        length = self._steps_of_a_window(images)
        replicas = self._strategy.num_replicas_in_sync
        shares = [share_of(plan.order, replica, replicas) for replica in range(replicas)]
        if first == stop:
            return  # the run was stopped while it validated: no step of this epoch is left
        starts = range(first // length * length, stop, length)
        with ThreadPoolExecutor(1, thread_name_prefix="window") as reader:
            reading = reader.submit(self._read, plan, shares, starts[0], length)
            for start in starts:
                values = reading.result()
                if start + length < stop:
                    reading = reader.submit(self._read, plan, shares, start + length, length)
                yield Window(values, start, min(start + length, stop))

    def _steps_of_a_window(self, images: int) -> int:
        """Return how many steps, each of which reads so many images on all replicas, fit a window."""
        local = len(self._strategy.extended.worker_devices) / self._strategy.num_replicas_in_sync
        step_bytes = images * local * self._samples.images[0].nbytes
        return max(1, int(self._window_bytes // step_bytes))

    def _read(self, plan: Epoch, shares: list[NDArray[np.int32]], start: int, length: int) -> Any:
        """Put one window on the devices; all windows have one shape, so that no step is traced again."""
        sizes = _padded(_global_sizes(plan.order[start : start + length]), length, 0)

        def values(replica: int) -> Any:
            chosen = _padded(shares[replica][start : start + length], length, -1)
            indices = np.maximum(chosen, 0).ravel()  # past a short batch's end image 0 is read, and masked in the step
            order = np.where(chosen < 0, -1, np.arange(chosen.size, dtype=np.int32).reshape(chosen.shape))
            draws: tuple[NDArray[Any], ...] = ()
            if plan.draws:
                indices, mine = plan.draws.among(indices)
                draws = mine.arrays()
            data = (read_rows(self._samples.images, indices), self._samples.labels[indices].astype(np.int32))
            return data, (order.astype(np.int32), sizes, draws)

        return on_each_replica(self._strategy, values)


def on_each_replica(strategy: tf.distribute.Strategy, make: Callable[[int], Any]) -> Any:
    """Return a per-replica value, `make(replica)` converted to tensors on that replica's device.

    Replicas are counted over all hosts; each host makes the values of its own.
    """
    devices = strategy.extended.worker_devices

    def value(context: Any) -> Any:
        replica = context.replica_id_in_sync_group
        with tf.device(devices[replica % len(devices)]):
            return tf.nest.map_structure(tf.constant, make(replica))

    return strategy.experimental_distribute_values_from_function(value)


def _global_sizes(order: NDArray[np.int32]) -> NDArray[np.int32]:
    return (order >= 0).sum(axis=1).astype(np.int32)


def _padded(rows: NDArray[np.int32], length: int, value: int) -> NDArray[np.int32]:
    return np.concatenate([rows, np.full((length - len(rows), *rows.shape[1:]), value, np.int32)])

"""Which devices train, as one tf.distribute strategy."""

import tensorflow as tf

from tasks.stage.errors import InputError
from tasks.training.cluster import Cluster, LogicalDeviceStrategy


def build_strategy(devices: str, cluster: Cluster | None = None) -> tf.distribute.Strategy:
    """Return the strategy for `devices`, of one host or several.

    It is OneDeviceStrategy for a single device, MirroredStrategy for several, and MultiWorkerMirroredStrategy for
    those of several hosts.

    Args:
        devices: `auto` (every GPU, or else the CPU), `cpu:N` (N logical devices on the CPU) or `gpu:0,1`.
        cluster: The hosts, from read_cluster; the strategy connects to them.

    Raises:
        InputError: A device that is not there; the text names those that are. Or `cpu:N` after TensorFlow has
            started with another number of logical devices.
    """
    kind, _, which = devices.partition(":")
    hosts = cluster is not None and bool(cluster.hosts)
    if kind == "cpu":
        count = _split_cpu(int(which))
        return LogicalDeviceStrategy(count) if hosts else _over([f"CPU:{index}" for index in range(count)])
    present = [gpu.name.rpartition(":")[2] for gpu in tf.config.list_physical_devices("GPU")]
    if kind == "auto" and hosts:
        return tf.distribute.MultiWorkerMirroredStrategy() if present else LogicalDeviceStrategy(1)
    if kind == "auto":
        return _over([f"GPU:{index}" for index in present] or ["CPU:0"])
    chosen = which.split(",")
    if absent := [index for index in chosen if index not in present]:
        there = f"gpu:{','.join(present)}" if present else "no GPU that TensorFlow can use"
        raise InputError(f"train.devices = {devices!r}: gpu {', '.join(absent)} is not here; this machine has {there}")
    if hosts:
        _hide_all_but(chosen)
        return tf.distribute.MultiWorkerMirroredStrategy()
    return _over([f"GPU:{index}" for index in chosen])


def _split_cpu(count: int) -> int:
    """Make at least `count` logical devices of the CPU; TensorFlow allows it only before its first operation."""
    cpu = tf.config.list_physical_devices("CPU")[0]
    if len(tf.config.get_logical_device_configuration(cpu) or [cpu]) >= count:
        return count
    try:
        tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * count)
    except RuntimeError as error:
        raise InputError(f"train.devices = 'cpu:{count}': TensorFlow already runs with fewer devices") from error
    return count


def _hide_all_but(chosen: list[str]) -> None:
    """Leave TensorFlow the chosen GPUs alone: with several hosts its strategy takes every one that it sees."""
    gpus = tf.config.list_physical_devices("GPU")
    tf.config.set_visible_devices([gpu for gpu in gpus if gpu.name.rpartition(":")[2] in chosen], "GPU")


def _over(devices: list[str]) -> tf.distribute.Strategy:
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    # GPUs sum by NCCL, TensorFlow's choice; logical CPUs on one device, out of the way of other strategies.
    on_cpu = devices[0].startswith("CPU")
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice() if on_cpu else None)

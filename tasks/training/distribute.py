"""Which devices train, as one tf.distribute strategy."""

import tensorflow as tf

from tasks.errors import InputError


def build_strategy(devices: str) -> tf.distribute.Strategy:
    """Return the strategy for `devices`: OneDeviceStrategy for a single device, MirroredStrategy for several.

    Args:
        devices: `auto` (every GPU, or else the CPU), `cpu:N` (N logical devices on the CPU) or `gpu:0,1`.

    Raises:
        InputError: A device that is not there; the text names those that are. Or `cpu:N` after TensorFlow has
            started with another number of logical devices.
    """
    kind, _, which = devices.partition(":")
    if kind == "cpu":
        return _over([f"CPU:{index}" for index in range(_split_cpu(int(which)))])
    present = [gpu.name.rpartition(":")[2] for gpu in tf.config.list_physical_devices("GPU")]
    if kind == "auto":
        return _over([f"GPU:{index}" for index in present] or ["CPU:0"])
    chosen = which.split(",")
    if absent := [index for index in chosen if index not in present]:
        there = f"gpu:{','.join(present)}" if present else "no GPU that TensorFlow can use"
        raise InputError(f"train.devices = {devices!r}: gpu {', '.join(absent)} is not here; this machine has {there}")
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


def _over(devices: list[str]) -> tf.distribute.Strategy:
    if len(devices) == 1:
        return tf.distribute.OneDeviceStrategy(devices[0])
    # GPUs sum by NCCL, TensorFlow's choice; logical CPUs on one device, out of the way of other strategies.
    on_cpu = devices[0].startswith("CPU")
    return tf.distribute.MirroredStrategy(devices, tf.distribute.ReductionToOneDevice() if on_cpu else None)

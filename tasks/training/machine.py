"""What decides a run's bits beside data, parameters, code and seed: the machine, noted in every checkpoint.

Sums are cut into as many parts as there are threads, and another instruction set or oneDNN adds in another order. The
number of threads is a run's own, whatever the number of cores: it stands as the run began. So machines with one
instruction set give equal bytes, and others give weights that differ in their last bits and from there on.
"""

import contextlib
import os
import platform
from pathlib import Path

import tensorflow as tf

CPU_FACTS = Path("/proc/cpuinfo")
# Those by which TensorFlow and oneDNN choose their kernels.
DECISIVE = ("avx", "avx2", "fma", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile",
            "amx_bf16", "asimd", "sve", "bf16")  # fmt: skip
VARIABLES = ("TF_ENABLE_ONEDNN_OPTS", "ONEDNN_MAX_CPU_ISA", "TF_DETERMINISTIC_OPS", "TF_CUDNN_DETERMINISTIC")

Machine = dict[str, str]


def cpu_flags() -> set[str]:
    """Return what the processor says that it can do; nothing where the system does not tell."""
    if not CPU_FACTS.exists():
        return set()
    lines = CPU_FACTS.read_text(encoding="utf-8", errors="replace").splitlines()
    return set(next((line.partition(":")[2] for line in lines if line.startswith(("flags", "Features"))), "").split())


def cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def use_threads(count: int | str | None) -> None:
    """Have TensorFlow cut its sums into `count` parts, or where that is None into as many as there are cores.

    Where TensorFlow has started already it stays as it is, and the run's machine says so.
    """
    with contextlib.suppress(RuntimeError):
        tf.config.threading.set_intra_op_parallelism_threads(int(count or cores()))


def describe(strategy: tf.distribute.Strategy, precision: str) -> Machine:
    """Return what of this machine decides a run's bits, each as a word or a few."""
    flags = cpu_flags()
    threads = tf.config.threading.get_intra_op_parallelism_threads() or cores()
    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    kinds = sorted({str(gpu.get("device_name", "GPU")) for gpu in gpus}) if _on_gpu(strategy) else []
    settings = " ".join(f"{name}={os.environ[name]}" for name in VARIABLES if name in os.environ)
    return {
        "devices": f"{strategy.num_replicas_in_sync} × {', '.join(kinds) or platform.machine()}",
        "instruction set": " ".join(name for name in DECISIVE if name in flags) or "unknown",
        "precision": precision,
        "settings": settings or "none",
        "threads": str(threads),
    }


def differences(before: Machine, now: Machine) -> str:
    """Return what differs between the machine of a checkpoint and this one, in words; nothing where nothing does."""
    names = [name for name in sorted(now) if before.get(name, now[name]) != now[name]]
    return "; ".join(f"{name} {before[name]} → {now[name]}" for name in names)


def _on_gpu(strategy: tf.distribute.Strategy) -> bool:
    return any("GPU" in device for device in strategy.extended.worker_devices)

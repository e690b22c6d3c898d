"""Which floating-point format a recipe computes in."""

from typing import Any

import tensorflow as tf

from tasks.training.machine import cpu_flags

NATIVE_BFLOAT16 = {"avx512_bf16", "amx_bf16"}
FIRST_GPU_WITH_BFLOAT16 = 8  # compute capability, Ampere

POLICIES = {"float32": "float32", "bfloat16": "mixed_bfloat16", "float64": "float64"}


def resolve_precision(precision: str) -> str:
    """Return `precision`, or for `auto` bfloat16 where every device computes it natively and float32 elsewhere.

    That is every device of the machine, not of `train.devices`: a run then resumes on others.
    """
    if precision != "auto":
        return precision
    # Physical ones have the details; where none is logical, all are hidden.
    gpus = tf.config.list_logical_devices("GPU") and tf.config.list_physical_devices("GPU")
    native = all(_gpu_has_bfloat16(gpu) for gpu in gpus) if gpus else _cpu_has_bfloat16()
    return "bfloat16" if native else "float32"


def _gpu_has_bfloat16(gpu: Any) -> bool:
    capability = tf.config.experimental.get_device_details(gpu).get("compute_capability", (0, 0))
    return bool(capability[0] >= FIRST_GPU_WITH_BFLOAT16)


def _cpu_has_bfloat16() -> bool:
    return bool(NATIVE_BFLOAT16 & cpu_flags())

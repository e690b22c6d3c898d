"""`python -m benchmarks`: measure side by side and write benchmarks/results.md with the machine's description."""

import os
import platform
from pathlib import Path

import keras
import tensorflow as tf

from benchmarks.training_speed import CASES, ROUNDS, measure
from tasks.errors import run_command
from tasks.files import write_text

RESULTS = Path(__file__).with_name("results.md")
CPU_FACTS = Path("/proc/cpuinfo")


def machine() -> str:
    """Return a line on the processor, its cores, the GPUs and the versions that matter."""
    lines = CPU_FACTS.read_text(encoding="utf-8").splitlines() if CPU_FACTS.exists() else []
    model = next(
        (line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
    gpus = [
        tf.config.experimental.get_device_details(gpu)["device_name"] for gpu in tf.config.list_physical_devices("GPU")
    ]
    return (
        f"{model}, {os.cpu_count()} cores, {', '.join(gpus) or 'no GPU'}; Python {platform.python_version()}, "
        f"TensorFlow {tf.__version__}, Keras {keras.__version__}"
    )


def run() -> None:
    """Measure every case and write the table."""
    rows = []
    for case in CASES:
        rows.append(measure(case).row())
        print(rows[-1], flush=True)
    table = "\n".join(rows)
    write_text(
        RESULTS,
        f"""# Measurements

Written by `make bench`. Machine: {machine()}.

## Training, images a second

Our step against plain Keras `fit` with Keras's own layers, on the same arrays, without augmentation on Keras's side;
{ROUNDS} rounds in turn in one process. Median (smallest–largest); the ratio is the median of the rounds' ratios.

| network | ours | Keras `fit` | ratio |
|---|---|---|---|
{table}
""",
    )
    print(f"written to {RESULTS.relative_to(Path.cwd())}")


if __name__ == "__main__":
    run_command("benchmarks", run)

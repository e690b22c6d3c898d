"""How long `fast` takes to an accuracy, and where the notebook's own recipe is after the same time.

Both train in turn with the real stage; accuracy is top-1 on the validation images after every epoch. It takes twice as
long as `fast`: it is run by its name, and not with the rest.
"""

import json
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.workspace import environment, prepared, run, stage
from tasks.stage.files import read_json
from tasks.training.checkpoint import FACTS

TARGETS = (0.80, 0.85, 0.88, 0.90, 0.92, 0.93)
Curve = list[tuple[float, float]]  # seconds of training, top-1


def measure() -> str:
    """Train both; return the section for results.md."""
    fast = train_fast()
    seconds = fast[-1][0]
    return section(fast, train_seed(seconds), seconds)


def train_fast() -> Curve:
    """Train `fast` to its end."""
    with prepared("fast", 0) as folder:
        run(stage("train"), folder)
        top1 = read_json(folder / "model" / "history.json")["columns"]["validation_top1"]
        return list(zip(read_json(folder / "runtime" / "train.json")["epoch_seconds"], top1, strict=True))


def train_seed(seconds: float) -> list[float]:
    """Train `seed` for so long from its first step on; return its top-1 after each finished epoch."""
    with prepared("seed", 0) as folder:
        pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        with subprocess.Popen(stage("train"), cwd=folder, env=environment(), **pipes) as process:
            assert process.stdout
            while not process.stdout.readline().startswith("["):
                if process.poll() is not None:
                    raise RuntimeError(f"train ended with status {process.returncode} before its first step")
            began = time.monotonic()
            while time.monotonic() - began < seconds:
                process.stdout.readline()
            process.send_signal(signal.SIGTERM)
            process.communicate()
        return [logs["validation_top1"] for logs in newest_history(folder)]


def newest_history(folder: Path) -> list[dict[str, float]]:
    """Return the history in the newest checkpoint of a stopped run."""
    newest = max((folder / ".cache" / "checkpoints").glob("*/step-*.npz"))
    with np.load(newest) as archive:
        history: list[dict[str, float]] = json.loads(archive[FACTS].tobytes())["history"]
    return history


def section(fast: Curve, seed: list[float], seconds: float) -> str:
    """Return the table of targets."""
    rows = [f"| {100 * target:.0f} % | {_time(fast, target)} |" for target in TARGETS]
    reached = (
        f"finishes {len(seed)} epochs and reaches {100 * max(seed):.2f} %"
        if seed
        else "does not finish its first epoch"
    )
    return "\n".join(
        [
            "## Time to an accuracy",
            "",
            "Seconds of training until an epoch of `fast` ends at a top-1 on the validation images, seed 0. In the "
            f"{seconds:,.0f} s that it takes in all, the notebook's recipe (`seed`) {reached}.",
            "",
            "| top-1 | `fast` |",
            "|---|---|",
            *rows,
        ]
    )


def _time(curve: Curve, target: float) -> str:
    reached = [seconds for seconds, top1 in curve if top1 >= target]
    return f"{reached[0]:,.0f} s" if reached else f"not reached; its last epoch ends at {100 * curve[-1][1]:.2f} %"

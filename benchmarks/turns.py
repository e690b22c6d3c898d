"""Sides that take turns: each a program of its own, one computing at a time, so that noise falls on all alike."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tasks.errors import InputError

TORCH_PYTHON = "BENCHMARK_TORCH_PYTHON"
NO_TORCH = "not measured: torch is not installed"
WORDS_SHOWN = 2000  # characters of a failed side's standard error


@dataclass(frozen=True)
class Round:
    """What one round of one side took."""

    seconds: float
    processor_seconds: float


class Side:
    """A running program of benchmarks.sides that measures a round when asked; use it as a context.

    Args:
        module: Its name under benchmarks.sides.
        case: What it reads, as JSON.
        python: Interpreter.
        environment: Variables added to this process's.
    """

    def __init__(
        self, module: str, case: dict[str, Any], python: str = sys.executable, environment: dict[str, str] | None = None
    ) -> None:
        command = [python, "-m", f"benchmarks.sides.{module}", json.dumps(case)]
        self.module = module
        self.process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, **(environment or {})},
        )

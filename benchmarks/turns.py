"""Sides that take turns: each a program of its own, one computing at a time, so that noise falls on all alike."""

import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from tasks.stage.errors import InputError

TORCH_PYTHON = "BENCHMARK_TORCH_PYTHON"
NO_TORCH = "not measured: torch is not installed"

MIN_ROUNDS = 5
MAX_SECONDS = 60.0  # of one comparison's rounds, so that a slow or busy machine measures fewer of them


@dataclass(frozen=True)
class Round:
    """What one round of one side took, by the clock and in processor time of all its threads."""

    seconds: float
    processor_seconds: float


class Side:
    """A program of benchmarks.sides that measures a round whenever it is asked; use it as a context.

    Args:
        module: Its name in benchmarks.sides.
        case: What it measures; it reads this as JSON.
        python: The interpreter that runs it.

    Raises:
        RuntimeError: The program failed; the text is its last words.
    """

    def __init__(self, module: str, case: dict[str, Any], python: str = sys.executable) -> None:
        self.module, self.words = module, tempfile.TemporaryFile("w+")  # noqa: SIM115 closed with the side
        command = [python, "-m", f"benchmarks.sides.{module}", json.dumps(case)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=self.words, text=True)

    def __enter__(self) -> Self:
        """Wait until the side is built and warm."""
        self._answer()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        """End the program."""
        assert self.process.stdin and self.process.stdout
        if error is not None:
            self.process.kill()
        self.process.stdin.close()
        self.process.wait()
        self.process.stdout.close()
        self.words.close()

    def run_round(self) -> Round:
        """Let the side compute one round."""
        assert self.process.stdin
        print(file=self.process.stdin, flush=True)
        answer = self._answer()
        return Round(answer["seconds"], answer["processor_seconds"])

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout
        line = self.process.stdout.readline()
        if not line:
            self.words.seek(0)
            raise RuntimeError(f"{self.module} ended with {self.process.wait()}: {self.words.read()[-2000:]}")
        answer: dict[str, Any] = json.loads(line)
        return answer


def torch_python() -> str | None:
    """Return the interpreter that has torch: this one, or BENCHMARK_TORCH_PYTHON, or None."""
    return sys.executable if importlib.util.find_spec("torch") else os.environ.get(TORCH_PYTHON)


def required_torch_python() -> str:
    """Return the interpreter that has torch; raises InputError where there is none."""
    python = torch_python()
    if python is None:
        raise InputError(f"this part needs torch: install it, or name a Python that has it in {TORCH_PYTHON}")
    return python


def take_turns(sides: dict[str, tuple[str, dict[str, Any], str]], rounds: int) -> dict[str, list[Round]]:
    """Measure up to `rounds` rounds of every side in turn, fewer where they take long.

    Args:
        sides: From a name to (module, case, interpreter), as Side takes them. They start one after another.
        rounds: Of each. Every other one goes through the sides backwards, so that none always follows the same.
    """
    with ExitStack() as stack:
        running = {name: stack.enter_context(Side(*arguments)) for name, arguments in sides.items()}
        measured: dict[str, list[Round]] = {name: [] for name in sides}
        began = time.monotonic()
        for number in range(rounds):
            if number >= MIN_ROUNDS and time.monotonic() - began > MAX_SECONDS:
                break
            for name in list(running) if number % 2 == 0 else reversed(list(running)):
                measured[name].append(running[name].run_round())
    return measured


def rates(rounds: Sequence[Round], amount: float) -> list[float]:
    """Return `amount` (images, bytes, operations) a second of every round."""
    return [amount / each.seconds for each in rounds]


def spread(values: Sequence[float], digits: int = 0) -> str:
    """Return the median and the range from the lower to the upper quartile, `191 (188–200)`."""
    low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return f"{middle:,.{digits}f} ({low:,.{digits}f}–{high:,.{digits}f})"


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> str:
    """Return the median of the rounds' ratios with its quartiles, and the ratio of both sides' fastest rounds.

    Sides measured in the same round are compared. Where other programs come and go, the fastest rounds are those that
    they disturbed least.
    """
    ratios = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return f"{spread(ratios, digits=2)}, fastest {max(ours) / max(theirs):.2f}"

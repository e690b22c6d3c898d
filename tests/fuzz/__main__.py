"""Fuzz what parses outside bytes, guided by coverage; and run again what was once found.

python -m tests.fuzz manifest --seconds 300     with atheris (pip install atheris), in .cache/fuzz/manifest
python -m tests.fuzz all --seconds 300          one target after another
python -m tests.fuzz manifest --replay          the sound inputs and the kept ones, without atheris

An input that ends in anything but an InputError, takes ten seconds or too much memory ends the run with its bytes in
.cache/fuzz/<target>/found-…; once mended, it is kept in tests/fuzz/corpus/<target>.
"""

import argparse
import contextlib
import importlib
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

MEBIBYTE = 1 << 20
TARGETS = {  # by name, how much memory each may take in all, in MiB
    "cifar10": 1024,
    "folders": 2048,
    "image": 2048,
    "keras_file": 512,
    "manifest": 512,
    "model_archive": 512,
    "parameters": 512,
    "pointer": 512,
    "state_dict": 512,
}
SECONDS_PER_INPUT = 10
MAX_INPUT = 1 << 17
CORPUS = Path(__file__).parent / "corpus"
WORK = Path(".cache/fuzz")
INSTRUMENTED = ("flows", "tasks", "tests.fuzz", "PIL", "ruamel", "gzip", "pickletools", "tarfile", "zipfile")


def main() -> None:
    """Parse the command line, and fuzz or replay one target."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("target", choices=(*TARGETS, "all"))
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--replay", action="store_true", help="only the sound inputs and those that were kept")
    arguments = parser.parse_args()
    if arguments.target == "all":
        for target in TARGETS:
            again = [word for word in sys.argv[1:] if word != "all"]
            if subprocess.run([sys.executable, "-m", "tests.fuzz", target, *again], check=False).returncode:
                raise SystemExit(f"fuzz: {target} broke; the input is in {WORK / target}")
    elif arguments.replay:
        replay(arguments.target)
    else:
        fuzz(arguments.target, arguments.seconds)


def fuzz(target: str, seconds: int) -> None:
    """Let atheris look for an input that breaks the target; the process ends when it finds one, or after `seconds`."""
    try:
        import atheris  # noqa: PLC0415  an optional dependency
    except ModuleNotFoundError as error:
        raise SystemExit(
            "fuzz: atheris is not installed: pip install .[fuzz], or name a FUZZ_PYTHON that has it"
        ) from error

    for name in ("gzip", "pickletools", "tarfile", "zipfile"):
        sys.modules.pop(name, None)  # imported already, and so without instruments
    with atheris.instrument_imports(include=list(INSTRUMENTED)):
        module = importlib.import_module(f"tests.fuzz.{target}")
    work = WORK / target
    (work / "inputs").mkdir(parents=True, exist_ok=True)
    for name, body in module.seeds().items():
        (work / "inputs" / name).write_bytes(body)
    (CORPUS / target).mkdir(parents=True, exist_ok=True)
    options = [
        f"-max_total_time={seconds}",
        f"-timeout={SECONDS_PER_INPUT}",
        f"-rss_limit_mb={TARGETS[target]}",
        f"-max_len={MAX_INPUT}",
        f"-artifact_prefix={work}/found-",
        "-print_final_stats=1",
    ]
    atheris.Setup([sys.argv[0], *options, str(work / "inputs"), str(CORPUS / target)], _without_answer(module))
    atheris.Fuzz()


def _without_answer(module: ModuleType) -> Callable[[bytes], None]:
    """Return a target's check as libFuzzer wants it, to which an answer would mean something."""
    check = quietly(module.check)

    def run(data: bytes) -> None:
        check(data)

    return run


def replay(target: str) -> None:
    """Run every sound and every kept input, each in bounded time and all in bounded memory."""
    module = importlib.import_module(f"tests.fuzz.{target}")
    inputs = {**module.seeds(), **{path.name: path.read_bytes() for path in sorted((CORPUS / target).glob("*"))}}
    limit = TARGETS[target] * MEBIBYTE
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    for name, body in inputs.items():
        print(name, flush=True)
        signal.alarm(SECONDS_PER_INPUT)
        quietly(module.check)(body)
        signal.alarm(0)


def quietly(check: Callable[[bytes], bool]) -> Callable[[bytes], bool]:
    """Return the check without the progress that it prints."""

    def run(data: bytes) -> bool:
        with Path(os.devnull).open("w") as nowhere, contextlib.redirect_stdout(nowhere):
            return check(data)

    return run


if __name__ == "__main__":
    main()

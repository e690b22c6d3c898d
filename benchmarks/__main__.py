"""`python -m benchmarks [PART …]`: measure side by side and write the parts' sections of benchmarks/results.md."""

import argparse
import importlib
import os
import platform
import resource
import time
from importlib.metadata import version
from pathlib import Path

from tasks.stage.errors import run_command
from tasks.stage.files import write_text

# Each is a module of this folder whose `measure()` returns its section; those of PARTS take under 20 minutes.
PARTS = (
    "training_speed",
    "compute_share",
    "input_path",
    "training_costs",
    "registry_speed",
    "digits_accuracy",
    "gate_power",
    "growth",
)
LONG_PARTS = ("accuracy_race", "photographs", "time_to_accuracy", "recipe_accuracy", "best_curve")

RESULTS = Path(__file__).with_name("results.md")
HEADING = "## "
INTRODUCTION = """# Measurements

Written by `make bench`, one section a part; `python -m benchmarks PART` measures a part alone and leaves the others.
"""


def main() -> None:
    """Measure the parts named on the command line, or all short ones."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "parts",
        nargs="*",
        metavar="PART",
        help=f"{', '.join(PARTS)} (all without a name); {', '.join(LONG_PARTS)} (hours)",
    )
    parts = parser.parse_args().parts or list(PARTS)
    if unknown := [part for part in parts if part not in PARTS + LONG_PARTS]:
        parser.error(f"{', '.join(unknown)}: no such part; there are {', '.join(PARTS + LONG_PARTS)}")
    run_command("benchmarks", lambda: measure_all(parts))


def measure_all(parts: list[str]) -> None:
    """Measure one part after the other."""
    for part in parts:
        measure(part)


def measure(part: str) -> None:
    """Measure a part and put its section into results.md, with the machine and what else ran on it."""
    began, busy, own = time.monotonic(), busy_seconds(), own_seconds()
    section = importlib.import_module(f"benchmarks.{part}").measure()
    seconds = time.monotonic() - began
    others = (busy_seconds() - busy - (own_seconds() - own)) / (seconds * (os.cpu_count() or 1))
    facts = f"{machine()}; other programs took {max(others, 0):.0%} of the processor meanwhile."
    text = RESULTS.read_text(encoding="utf-8") if RESULTS.exists() else ""
    write_text(RESULTS, with_section(text, f"{section.rstrip()}\n\n{facts}\n"))
    print(f"{part}: {seconds:.0f} s, written to {RESULTS.name}", flush=True)


def with_section(results: str, section: str) -> str:
    """Return results.md with the section in place of the one with its heading, or at the end."""
    old = [HEADING + part.rstrip() + "\n" for part in f"\n{results}".split(f"\n{HEADING}")[1:]]
    headings = [part.partition("\n")[0] for part in old]
    heading = section.partition("\n")[0]
    if heading in headings:
        old[headings.index(heading)] = section
    else:
        old.append(section)
    return "\n".join([INTRODUCTION, *old])


def machine() -> str:
    """Return a line on the processor, its cores, the GPUs and the versions that matter."""
    facts = Path("/proc/cpuinfo")
    lines = facts.read_text(encoding="utf-8").splitlines() if facts.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return (
        f"Machine: {next(names, platform.machine())}, {os.cpu_count()} cores, {gpus() or 'no GPU'}; "
        f"Python {platform.python_version()}, TensorFlow {version('tensorflow')}, Keras {version('keras')}"
    )


def gpus() -> str:
    """Return the names of the GPUs that TensorFlow sees."""
    from tasks.stage.quiet_tensorflow import tf  # noqa: PLC0415 five seconds that bad arguments need not wait for

    details = tf.config.experimental.get_device_details
    return ", ".join(details(gpu)["device_name"] for gpu in tf.config.list_physical_devices("GPU"))


def busy_seconds() -> float:
    """Return the seconds that all processors have worked since the machine started; 0 where nobody counts them."""
    facts = Path("/proc/stat")
    if not facts.exists():
        return 0.0
    user, nice, system, _, _, interrupt, soft = facts.read_text(encoding="utf-8").split()[1:8]
    return sum(map(int, (user, nice, system, interrupt, soft))) / os.sysconf("SC_CLK_TCK")


def own_seconds() -> float:
    """Return the processor time of this program and of the sides that have ended."""
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)


if __name__ == "__main__":
    main()

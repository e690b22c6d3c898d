"""The peak of memory of one publication or one pull of a large model, a program of its own: JSON in, JSON out.

On Linux: the peak is the kernel's, forgotten right before.
"""

import json
import re
import sys
from pathlib import Path

from benchmarks.sides.registry import Place, describe, publish, pull
from tasks.registry.releases import publish_release


def main() -> None:
    """Do what the case on the command line asks for, once; print what was held before, and at most, in bytes."""
    case = json.loads(sys.argv[1])
    place = Place(case["bytes"])
    answers = sys.stdout
    sys.stdout = sys.stderr  # progress is no answer
    if case["operation"] == "publish":
        before = forget_peak()
        publish(place)
    else:
        manifest = publish_release(place.bucket, place.release, describe(place.release))
        before = forget_peak()
        pull(place, manifest.id)
        place.clear()
    print(json.dumps({"before": before, "after": held("VmHWM")}), file=answers)


def forget_peak() -> int:
    """Have the peak begin at what is held now; return that, in bytes (proc_pid_clear_refs(5))."""
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return held("VmRSS")


def held(name: str) -> int:
    """Return memory that this process holds (VmRSS), or the most that it held (VmHWM), in bytes."""
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(re.findall(rf"^{name}:\s+(\d+) kB$", status, re.MULTILINE)[0]) * 1024


if __name__ == "__main__":
    main()

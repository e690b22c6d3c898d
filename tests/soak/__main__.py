"""Storms over a real object store for as long as you like: python -m tests.soak --seed 1 --seconds 600.

Each storm is 200 publications under random faults, 50 of the publishers killed, the store killed twice, while readers
pull the champion. Its plan follows from the seed, which is printed: --seed N --seconds 0 repeats storm N alone.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from infra.local.object_store import ObjectStore
from tests.soak.storm import Storm, Weather


def main() -> None:
    """Run storms one after another; end with status 1 after the first one that left a problem."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--seed", type=int, default=0, help="of the first storm; each later one adds 1")
    parser.add_argument("--seconds", type=float, default=600, help="no storm begins after this time")
    arguments = parser.parse_args()
    start, storms = time.monotonic(), 0
    with tempfile.TemporaryDirectory(prefix="soak-") as name:
        while storms == 0 or time.monotonic() - start < arguments.seconds:
            seed = arguments.seed + storms
            if not _weathered(seed, Path(name) / str(seed)):
                print(f"soak: storm {seed} left problems; repeat it with: make soak SEED={seed} SECONDS=0")
                sys.exit(1)
            storms += 1
    print(f"soak: {storms} storms in {time.monotonic() - start:.0f} s, nothing lost, nothing half there")


def _weathered(seed: int, folder: Path) -> bool:
    """Run one storm over a store of its own; return whether all was well."""
    store = ObjectStore(folder / "store")
    store.start()
    try:
        (folder / "storm").mkdir()
        weather = Weather(seed, publications=200, kills=50, fault_rate=0.08, store_kills=2, readers=2)
        report = Storm(store, "models", weather, folder / "storm").run()
    finally:
        store.stop()
    print(f"storm {seed}: {report.line()}", *report.problems, sep="\n  ", flush=True)
    return not report.problems


if __name__ == "__main__":
    main()

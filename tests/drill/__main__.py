"""python -m tests.drill [--only NAME …]: each drill on the digits, and what was seen of it, a line each.

After each drill: what Prefect shows, no process left behind, a next run that goes on, and the very release of a run
that nobody disturbed.
"""

import argparse
import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.drill.scenarios import DRILLS, Drill
from tests.drill.site import STATE_SECONDS, Site, wait_until

DISK = "5g"  # what a site needs, and small enough to be filled


def main() -> None:
    """Run the drills that are asked for; end with status 1 where one left something wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill", description=__doc__.partition("\n")[0])
    parser.add_argument("--only", nargs="*", choices=sorted(DRILLS), default=[], metavar="NAME", help="these alone")
    chosen = parser.parse_args().only or list(DRILLS)
    failed = []
    with small_disk() as folder:
        site = Site(folder)
        try:
            site.up()
            site.deploy()
            undisturbed = undisturbed_release(site)
            for name in chosen:
                if not report(site, name, DRILLS[name], undisturbed):
                    failed.append(name)
        finally:
            site.down()
    print(
        f"drill: {len(chosen) - len(failed)} of {len(chosen)} as they should be" + "".join(f", not {n}" for n in failed)
    )
    sys.exit(bool(failed))


@contextlib.contextmanager
def small_disk() -> Iterator[Path]:
    """Give a folder on a disk of its own where this user may mount one, else a folder like any other."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("drill: stopped"))  # with its servers
    with tempfile.TemporaryDirectory(prefix="drill-") as name:
        folder = Path(name) / "disk"
        folder.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(folder)]
        mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
        try:
            yield folder
        finally:
            if mounted:
                subprocess.run(["umount", "--lazy", str(folder)], check=True)


def undisturbed_release(site: Site) -> str:
    """Return the id of the release of a run that nobody disturbs: it follows from the bytes of model and answers."""
    start = time.monotonic()
    run = site.trigger({"publish.prefix": "undisturbed"})
    assert site.wait_for_end(run) == "Completed", site.log(run)
    (release,) = site.releases("undisturbed")
    print(f"undisturbed: release {release} after {time.monotonic() - start:.0f} s", flush=True)
    return release


def report(site: Site, name: str, drill: Drill, undisturbed: str) -> bool:
    """Run one drill and print a line of what was seen; tell whether all was as it should be."""
    start = time.monotonic()
    try:
        states, release = rehearse(site, name, drill)
        assert release == undisturbed, f"release {release}, undisturbed {undisturbed}"
    except AssertionError as error:
        print(f"{name:<30} WRONG after {time.monotonic() - start:.0f} s: {error}", flush=True)
        return False
    print(f"{name:<30} {time.monotonic() - start:4.0f} s  {' → '.join(states)}", flush=True)
    return True


def rehearse(site: Site, name: str, drill: Drill) -> tuple[list[str], str]:
    """Run one drill; return the states that its run was in, and the one release that came of it, the champion.

    Raises:
        AssertionError: Something is not as it should be; the text says what.
    """
    site.forget_results()
    prefix = f"drill-{name.replace('_', '-')}"
    run = site.trigger({"publish.prefix": prefix}, dict(drill.variables))
    drill.harm(site, run)
    end = site.wait_for_end(run)
    assert end == drill.end, f"the run ended {end}: {site.log(run)[-5:]}"
    lines = site.log(run)
    if drill.next_run:
        following = site.trigger({"publish.prefix": prefix})
        assert site.wait_for_end(following) == "Completed", site.log(following)[-5:]
        lines += site.log(following)
    if drill.resumes:
        assert any("resuming in epoch" in line for line in lines), "training did not go on from its checkpoint"
    releases = site.releases(prefix)
    assert len(releases) == 1, f"releases {releases}"
    (release,) = releases
    assert site.champion(prefix) == release, f"the champion is {site.champion(prefix)}"
    wait_until("no process is left behind", lambda: not site.orphans() or None, STATE_SECONDS)
    return site.states(run), release


if __name__ == "__main__":
    main()

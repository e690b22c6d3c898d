"""python -m tests.drill.soak --minutes 60: the schedule fires, something is killed every minute, and nobody helps.

The pipeline is the digits'. A run's seed changes now and then, so that there is something to train. What is killed
follows from --seed. At the end every scheduled run must have ended Completed, never two at once, with no process left
behind and every slot free, and every release must be the one that an undisturbed run makes. The log is for
benchmarks/soak.log.
"""

import argparse
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TextIO

from tests.drill.__main__ import small_disk
from tests.drill.processes import processes
from tests.drill.site import ENDED, Site, wait_until
from tests.fixtures import prefect_api

INTERVAL_SECONDS = 180  # of the schedule; a run that nobody disturbs takes about half of it
SEEDS_EVERY = 2  # a new seed with every second time that something is due
KILL_SECONDS = (30.0, 90.0)  # between two kills, a minute on average: never in step with the schedule
WATCH_SECONDS = 1.0
LAST_SECONDS = 2700.0  # that what is due when the killing stops has to come to its end: some of it trains
VICTIMS = (
    ("training", signal.SIGKILL),
    ("flow run", signal.SIGKILL),
    ("prefect worker", signal.SIGKILL),
    ("worker", signal.SIGKILL),
    ("server", signal.SIGKILL),
    ("object store", signal.SIGKILL),
    ("training", signal.SIGTERM),
    ("flow run", signal.SIGTERM),
    ("publishing", signal.SIGKILL),
    ("dvc", signal.SIGKILL),
    ("worker", signal.SIGTERM),
)


class Soak:
    """One hour, or as long as is wanted, of a site with a schedule."""

    def __init__(self, site: Site, log: TextIO, seed: int) -> None:
        self.site, self._log, self._random = site, log, random.Random(seed)  # noqa: S311 - which process dies next
        self.kills: dict[str, int] = {}
        self.problems: list[str] = []
        self.seed = 0

    def say(self, text: str) -> None:
        """Write a line with the time of day to the log and to the terminal."""
        line = f"{datetime.now(UTC):%H:%M:%S} {text}"
        print(line, flush=True)
        print(line, file=self._log, flush=True)

    def run(self, minutes: float) -> None:
        """Kill something every minute while the schedule fires."""
        schedule = self._schedule(active=True)
        end, next_kill, next_seed = time.monotonic() + 60 * minutes, self._next_kill(), 0.0
        while time.monotonic() < end:
            if time.monotonic() >= next_seed:
                self._tolerant(self._next_seed)
                next_seed = time.monotonic() + SEEDS_EVERY * INTERVAL_SECONDS
            if time.monotonic() >= next_kill:
                self._kill_something()
                next_kill = self._next_kill()
            self._tolerant(self._watch)
            time.sleep(WATCH_SECONDS)
        wait_until("the schedule is off", lambda: self._schedule(active=False, known=schedule))
        self.say("the killing has stopped; what is due comes to its end")

    def audit(self) -> None:
        """Wait for what is at work, and look at everything that the hour has left."""
        try:
            wait_until("no run is waiting or at work", lambda: not self._open_runs() or None, LAST_SECONDS)
        except AssertionError as error:
            self.problems.append(str(error))
        for run in self._scheduled_runs():
            states = " → ".join(self.site.states(run["id"]))
            self.say(f"{run['name']:<28} due {run['expected_start_time'][11:19]}  {states}")
            if run["state_type"] != "COMPLETED":
                self.problems.append(f"{run['name']} ended {run['state_name']}")
        try:
            wait_until("no process is left behind", lambda: not self.site.orphans() or None)
        except AssertionError as error:
            self.problems.append(f"{error}: {self.site.orphans()}")
        pool = prefect_api.ask(self.site.api, "work_pools/retrain")
        self.say(f"pool {pool['name']}: limit {pool['concurrency_limit']}, no run holds it")

    def _next_seed(self) -> None:
        """Have the runs that are scheduled from now on train with another seed."""
        overrides = {"train.seed": self.seed + 1}
        prefect_api.ask(
            self.site.api, f"deployments/{self.site.deployment}", {"parameters": {"overrides": overrides}}, "PATCH"
        )
        self.seed += 1
        self.say(f"from now on runs train with seed {self.seed}")

    def _next_kill(self) -> float:
        return time.monotonic() + self._random.uniform(*KILL_SECONDS)

    def _kill_something(self) -> None:
        """Kill one of the processes that are there."""
        there = {each.kind: each for each in processes(self.site.folder)}
        victims = [(kind, sign) for kind, sign in VICTIMS if kind in there]
        if not victims:
            self.problems.append("nothing was there to be killed")
            return
        kind, sign = self._random.choice(victims)
        try:
            os.kill(there[kind].pid, sign)
        except ProcessLookupError:
            return
        name = f"{kind} by {sign.name}"
        self.kills[name] = self.kills.get(name, 0) + 1
        self.say(f"killed: {name}")

    def _watch(self) -> None:
        """See that two runs are never at work at once."""
        at_work = [each for each in processes(self.site.folder) if each.kind == "training"]
        groups = {os.getpgid(each.pid) for each in at_work}
        if len(groups) > 1:
            self.problems.append(f"{len(groups)} trainings at once: {at_work}")
            self.say(self.problems[-1])

    def _tolerant(self, action: Callable[[], None]) -> None:
        """Do what needs a server that may be away just now."""
        try:
            action()
        except OSError as error:
            self.say(f"not now: {error}")

    def _schedule(self, *, active: bool, known: str | None = None) -> str:
        """Make the schedule, or switch the known one on or off; return its id."""
        path = f"deployments/{self.site.deployment}/schedules"
        if known is None:
            schedule = {"interval": INTERVAL_SECONDS, "anchor_date": datetime.now(UTC).isoformat()}
            return str(prefect_api.ask(self.site.api, path, [{"schedule": schedule, "active": active}])[0]["id"])
        prefect_api.ask(self.site.api, f"{path}/{known}", {"active": active}, "PATCH")
        return known

    def _scheduled_runs(self) -> list[dict[str, Any]]:
        """Return the runs that the scheduler made and that were due, in that order."""
        question = {"sort": "EXPECTED_START_TIME_ASC", "limit": 200}
        found = prefect_api.ask(self.site.api, "flow_runs/filter", question)
        now = datetime.now(UTC)
        return [
            run for run in found if run["auto_scheduled"] and datetime.fromisoformat(run["expected_start_time"]) <= now
        ]

    def _open_runs(self) -> list[dict[str, Any]]:
        return [
            run
            for run in self._scheduled_runs()
            if run["state_type"] not in ENDED or run["state_name"] in {"Crashed", "Interrupted"}
        ]


def main() -> None:
    """Soak a site; end with status 1 where something was not as it must be."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.soak", description=__doc__.partition("\n")[0])
    parser.add_argument("--minutes", type=float, default=60, help="how long something is killed every minute")
    parser.add_argument("--seed", type=int, default=0, help="of what is killed")
    parser.add_argument("--log", type=argparse.FileType("w"), default="/dev/null", help="where the lines go too")
    arguments = parser.parse_args()
    with small_disk() as folder:
        site = Site(folder)
        try:
            site.up()
            site.deploy()
            soak = Soak(site, arguments.log, arguments.seed)
            soak.run(arguments.minutes)
            soak.audit()
            compare_releases(soak)
        finally:
            site.down()
    soak.say(f"kills: {', '.join(f'{count} × {name}' for name, count in sorted(soak.kills.items()))}")
    soak.say(f"{len(soak.problems)} problems" + "".join(f"\n  {problem}" for problem in soak.problems))
    sys.exit(bool(soak.problems))


def compare_releases(soak: Soak) -> None:
    """Make every release again, undisturbed, under another prefix, and compare the ids, which follow from the bytes."""
    site = soak.site
    soaked = site.releases("drill")
    for seed in range(1, soak.seed + 1):
        site.forget_results()
        run = site.trigger({"train.seed": seed, "publish.prefix": "undisturbed"})
        if (end := site.wait_for_end(run)) not in {"Completed", "Refused"}:
            soak.problems.append(f"the undisturbed run of seed {seed} ended {end}")
    undisturbed = site.releases("undisturbed")
    soak.say(f"releases {sorted(soaked)}, undisturbed {sorted(undisturbed)}; champion {site.champion('drill')}")
    if not soaked <= undisturbed:
        soak.problems.append(f"releases that no undisturbed run makes: {sorted(soaked - undisturbed)}")
    if site.champion("drill") not in undisturbed:
        soak.problems.append("the champion is none that an undisturbed run makes")


if __name__ == "__main__":
    main()

"""python -m tests.drill.two_workers: ten scheduled runs on two workers, one of which begins each run on an empty disk.

One Prefect server and one bucket; the pipeline is the digits'. The seed in params.yaml upstream changes with some of
the runs, so that these train, and no other does, on whichever worker it lands: what one made, the other finds.
"""

import argparse
import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from tests.drill.__main__ import small_disk
from tests.drill.site import ENDED, PARAMETERS, PREFECT, set_parameters, wait_until
from tests.drill.worker_elsewhere import WorkerElsewhere, may_unshare
from tests.fixtures import prefect_api
from tests.fixtures.dvc_project import REPOSITORY, command

RUNS = 10
NEW_SEED_BEFORE = (0, 3, 7)  # after so many runs a commit upstream changes the seed
INTERVAL_SECONDS = 15
RUN_SECONDS = 1200.0
TRAINED = "trained "  # as the stage says at its end


class Season:
    """The servers, the repository upstream, and two workers.

    Args:
        folder: Everything is in it.
    """

    def __init__(self, folder: Path) -> None:
        self.store, self.server = ObjectStore(folder / ".local"), PrefectServer(folder / ".local")
        self.upstream, image = folder / "upstream", folder / "image"
        for clone in (self.upstream, image):
            command(folder, "git", "clone", "--quiet", str(REPOSITORY), str(clone))
        command(self.upstream, "git", "checkout", "--quiet", "-B", "season")
        set_parameters(self.upstream, *PARAMETERS)
        self.store.start()
        self.server.start()
        clean = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT"))}
        self.environment = clean | self.store.environment | self.server.environment
        prefect_api.know(self.environment)
        self.workers = [
            WorkerElsewhere(name, folder / name, image, "retrain", self.environment) for name in ("keeps", "loses")
        ]
        self.problems: list[str] = []
        self._seen: list[str] = []
        self._changes = list(NEW_SEED_BEFORE)

    def play(self, runs: int) -> None:
        """Let the schedule fire until so many of its runs have ended, and look at each.

        The first that begins after a new seed trains, and no other does.
        """
        self._deploy()
        for worker in self.workers:
            worker.start()
        while len(self._seen) < runs:
            new = bool(self._changes) and self._changes[0] <= len(self._seen)
            if new:
                set_parameters(self.upstream, f"train.seed={self._changes.pop(0) + 1}")
            self._schedule(active=True)
            wait_until("a scheduled run has ended", lambda: self._ended() or None, RUN_SECONDS)
            self._schedule(active=False)
            for run in wait_until("no run is at work", self._all_ended, RUN_SECONDS):
                self._look_at(run, new=new)
                new = False  # what it trained, the others find
            self.workers[1].lose_disk()

    def stop(self) -> None:
        """Stop everything."""
        for worker in self.workers:
            worker.stop()
        self.server.stop()
        self.store.stop()

    @property
    def _api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    def _deploy(self) -> None:
        """Make the pool and register infra/prefect.yaml, as infra/docker/compose.yaml does."""
        variables = self.environment | {"RETRAIN_REPOSITORY": self.upstream.as_uri(), "RETRAIN_BRANCH": "season"}
        for words in (
            ("work-pool", "create", "retrain", "--type", "process", "--overwrite"),
            ("deploy", "--all", "--prefect-file", "infra/prefect.yaml"),
            ("work-queue", "set-concurrency-limit", "retrain", "1", "--pool", "retrain"),
        ):
            command(self.workers[0].image, *PREFECT, *words, environment=variables)
        deployment = prefect_api.ask(self._api, "deployments/name/retrain/retrain")["id"]
        self._schedules = f"deployments/{deployment}/schedules"
        schedule = {"interval": INTERVAL_SECONDS, "anchor_date": datetime.now(UTC).isoformat()}
        question = [{"schedule": schedule, "active": False}]
        self._schedule_id = prefect_api.ask(self._api, self._schedules, question)[0]["id"]

    def _schedule(self, *, active: bool) -> None:
        prefect_api.ask(self._api, f"{self._schedules}/{self._schedule_id}", {"active": active}, "PATCH")

    def _runs(self) -> list[dict[str, Any]]:
        """Return the runs that the scheduler made, in the order in which they began."""
        found = prefect_api.ask(self._api, "flow_runs/filter", {"sort": "START_TIME_ASC", "limit": 200})
        return [run for run in found if run["auto_scheduled"]]

    def _ended(self) -> list[dict[str, Any]]:
        """Return the runs that have ended and were not looked at; one that another did the work of is none."""
        ended = [run for run in self._runs() if run["state_type"] in ENDED and run["state_name"] != "Skipped"]
        return [run for run in ended if run["id"] not in self._seen]

    def _all_ended(self) -> list[dict[str, Any]] | None:
        """Return the runs to be looked at, once none is at work or waits."""
        return self._ended() if all(run["state_type"] in ENDED for run in self._runs()) else None

    def _look_at(self, run: dict[str, Any], *, new: bool) -> None:
        number = len(self._seen)
        self._seen.append(run["id"])
        lines = prefect_api.log_lines(self._api, run["id"])
        trained = any(line.startswith(TRAINED) for line in lines)
        worker = (run.get("labels") or {}).get("prefect.worker.name")
        words = f"run {number}: {run['state_name']} on {worker} in {run['total_run_time']:.0f} s"
        print(f"{words}, {'trained' if trained else 'trained nothing'}{', a new seed' if new else ''}", flush=True)
        if run["state_type"] != "COMPLETED":
            self.problems.append(f"run {number} ended {run['state_name']}: {lines[-3:]}")
        if trained != new:
            self.problems.append(f"run {number} {'trained again' if trained else 'did not train'}")


def main() -> None:
    """Play the season; end with status 1 where a claim does not hold."""
    parser = argparse.ArgumentParser(prog="python -m tests.drill.two_workers", description=__doc__.partition("\n")[0])
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    if not may_unshare():
        sys.exit("two_workers: only root may give each worker a /workspace of its own")
    start = time.monotonic()
    with small_disk() as folder:
        season = Season(folder)
        try:
            season.play(runs)
        finally:
            season.stop()
    print(f"two_workers: {runs} runs in {time.monotonic() - start:.0f} s, {len(season.problems)} problems")
    print(*season.problems, sep="\n")
    sys.exit(bool(season.problems))


if __name__ == "__main__":
    main()

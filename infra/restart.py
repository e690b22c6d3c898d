"""Start again what ended for a reason that may pass, and free what a dead worker holds: `python -m infra.restart`.

A sweep looks at the states that the server has, never at events, which are lost when a server dies. So it may be cut
off anywhere, and several may run at once: every `infra.worker` runs one, and this command runs one alone.

    Crashed, Interrupted   scheduled again as the same flow run, so that it goes on from its checkpoint: a bounded
                           number of tries, each after a longer pause
    Crashed, yet sends     Running again: it was only thought dead, because its server was away
    heartbeats
    Running, but silent    Crashed: its process or machine is gone
    Pending, no worker     Crashed: the worker that took it is gone
    Cancelling, but silent Cancelled: nobody is left who could say so
    Failed, Cancelled      left alone: the input was bad, or a person wanted it

Runs of make run and of other people's work pools are left alone.
"""

import argparse
import threading
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from infra.automations import HEARTBEAT, THOUGHT_DEAD
from infra.prefect_api import NotFoundError, PrefectAPI
from infra.reach import reach_of_tries
from tasks.stage.errors import InputError, run_command

POOL = "retrain"
SWEEP_SECONDS = 15.0
ALIVE = ("RUNNING", "PENDING", "CANCELLING")
CLOCKS = timedelta(days=7)  # events are found by the clock of the machine that sent them, which may be wrong
AFTERMATH = timedelta(seconds=5)  # a run that reports its own end may send one more heartbeat

FlowRun = dict[str, Any]


@dataclass(frozen=True)
class RestartPolicy:
    """How long a sweep waits and how often it tries.

    Args:
        tries: How often one run is started again.
        first_pause: Before the first try; each further one waits twice as long.
        longest_pause: No pause is longer.
        progress: A try that got so much of a stage further than all before made progress: tries count anew.
        silence: A run without heartbeats for so long is dead; they come every 30 seconds.
        doubt: How long a run that was thought dead may still send a heartbeat, before it is started again.
        pending: How long a run may be Pending whose worker is not online.
        without_process: How long a run may have no process on the machine whose worker took it.
        forget: What ended longer ago is not started again.
    """

    tries: int = 10
    first_pause: timedelta = timedelta(seconds=10)
    longest_pause: timedelta = timedelta(minutes=10)
    progress: float = 0.01
    silence: timedelta = timedelta(seconds=150)
    doubt: timedelta = timedelta(seconds=75)
    pending: timedelta = timedelta(minutes=5)
    without_process: timedelta = timedelta(seconds=60)
    forget: timedelta = timedelta(days=1)


@dataclass(frozen=True)
class Machine:
    """What the machine of a worker knows about its flow runs.

    Args:
        worker: The worker's name at the server.
        is_here: Tells whether a flow run has a process on this machine.
        end: Ends all processes of a flow run on this machine.
    """

    worker: str
    is_here: Callable[[str], bool]
    end: Callable[[str], object]


class Sweep:
    """Sweeps over the flow runs of a work pool.

    Args:
        api: The Prefect server.
        pool: The work pool's name.
        policy: How long it waits and how often it tries.
        machine: Where the sweep runs beside a worker: what is known there.
        say: Is given one line for each thing that a sweep does.
    """

    def __init__(
        self,
        api: PrefectAPI,
        pool: str = POOL,
        policy: RestartPolicy | None = None,
        machine: Machine | None = None,
        say: Callable[[str], None] = print,
    ) -> None:
        self.api, self.pool, self.policy = api, pool, policy or RestartPolicy()
        self.machine, self.say = machine, say
        self.heard_since: datetime | None = None  # the server has answered every sweep since
        self._given_up: set[str] = set()

    def once(self) -> None:
        """Look at every run once and do what is to be done.

        Raises:
            InputError: The server cannot be reached, or refuses.
        """
        try:
            for run in self._runs({"type": {"any_": list(ALIVE)}}):
                self._judge_living(run)
            for run in [
                *self._ended({"type": {"any_": ["CRASHED"]}}),
                *self._ended({"name": {"any_": ["Interrupted"]}}),
            ]:
                self._judge_ended(run)
            self.heard_since = self.heard_since or self.api.now
        except InputError:
            self.heard_since = None
            raise

    def forever(self, stop: threading.Event, pause: float = SWEEP_SECONDS) -> None:
        """Sweep until told to stop; wait for a server that is away, with a line when it goes and when it is back."""
        trouble = ""
        while not stop.is_set():
            try:
                self.once()
                if trouble:
                    self.say("the Prefect server answers again")
                trouble = ""
            except InputError as error:
                if not trouble:
                    self.say(f"{error}; what ended is started again when it answers")
                trouble = str(error)
            stop.wait(pause)

    def _judge_living(self, run: FlowRun) -> None:
        kind, age = run["state_type"], self.api.now - _time(run["state"]["timestamp"])
        worker = (run.get("labels") or {}).get("prefect.worker.name")
        if self.machine and worker == self.machine.worker:
            if age <= self.policy.without_process:
                return
            if kind == "CANCELLING":  # Prefect's own worker does not hear of it any more once its server was away
                self.machine.end(run["id"])
            if not self.machine.is_here(run["id"]):
                self._bury(run, f"Worker {worker} has no process of it any more.")
        elif kind == "PENDING":
            if age > self.policy.pending and not self._is_online(worker):
                self._bury(run, f"Pending for {age.seconds // 60} minutes, and its worker is gone.")
        elif self._is_silent(run):
            self._bury(run, f"{THOUGHT_DEAD} {int(self.policy.silence.total_seconds())} seconds.")

    def _is_silent(self, run: FlowRun) -> bool:
        """Return whether a run sent nothing although the server was there to hear it."""
        since = self.heard_since
        if since is None or self.api.now - since < self.policy.silence:
            return False
        last = max(_time(run["state"]["timestamp"]), self._last_heartbeat(run) or datetime.min.replace(tzinfo=UTC))
        return self.api.now - last > self.policy.silence

    def _bury(self, run: FlowRun, message: str) -> None:
        kind = "CANCELLED" if run["state_type"] == "CANCELLING" else "CRASHED"
        if self._set(run, {"type": kind, "message": message}):
            self.say(f"flow run {run['name']} was {run['state_name']} and is {kind.capitalize()} now: {message}")

    def _judge_ended(self, run: FlowRun) -> None:
        state = run["state"]
        since = _time(state["timestamp"])
        if (state["message"] or "").startswith(THOUGHT_DEAD):
            heard = self._last_heartbeat(run)
            if heard and heard > since + AFTERMATH:
                if self._set(
                    run, {"type": "RUNNING", "message": "It was thought dead, and its heartbeats go on."}, True
                ):
                    self.say(f"flow run {run['name']} was thought dead and goes on")
                return
            if self.api.now - since < self.policy.doubt:
                return
            if self.machine and self.machine.is_here(run["id"]):
                self.machine.end(run["id"])  # it hangs, and would be in the way of its next try
        self._start_again(run)

    def _start_again(self, run: FlowRun) -> None:
        tries = self._tries(run)
        if tries >= self.policy.tries:
            if run["state_id"] not in self._given_up:
                self._given_up.add(run["state_id"])
                self.say(f"flow run {run['name']} ended {run['state_name']} after {tries} more tries: given up")
            return
        pause = min(self.policy.first_pause * 2**tries, self.policy.longest_pause)
        reason = " ".join((run["state"]["message"] or "").split())[:200]
        message = f"Try {tries + 1} of {self.policy.tries} after it ended {run['state_name']}: {reason}"
        details = {
            "scheduled_time": (self.api.now + pause).isoformat(),
            "transition_id": str(uuid.uuid5(uuid.UUID(run["state_id"]), "restart")),  # of two sweeps one is rejected
        }
        state = {"type": "SCHEDULED", "name": "AwaitingRetry", "message": message, "state_details": details}
        if self._set(run, state):
            self.say(f"flow run {run['name']} starts again in {pause.total_seconds():.0f} s. {message}")

    def _tries(self, run: FlowRun) -> int:
        """Return how often the run was started again since it last got further than ever before.

        Time is no measure of that: a run that waits for a misspelt host, or dies at its twelfth minute, has worked long
        each time.
        """
        states = sorted(self.api.get(f"flow_run_states/?flow_run_id={run['id']}"), key=lambda s: _time(s["timestamp"]))
        starts = [_time(state["timestamp"]) for state in states if state["type"] == "RUNNING"]
        reach = iter(reach_of_tries(self.api, run["id"], starts))
        tries, furthest = 0, 0.0
        for state in states:
            if state["type"] == "RUNNING" and (reached := next(reach)) >= furthest + self.policy.progress:
                tries, furthest = 0, reached
            tries += state["name"] == "AwaitingRetry"
        return tries

    def _set(self, run: FlowRun, state: dict[str, Any], force: bool = False) -> bool:
        """Give a run another state, unless somebody else did meanwhile; return whether the server took it."""
        if self.api.get(f"flow_runs/{run['id']}")["state_id"] != run["state_id"]:
            return False
        answer = self.api.post(f"flow_runs/{run['id']}/set_state", {"state": state, "force": force})
        return bool(answer["status"] == "ACCEPT")

    def _last_heartbeat(self, run: FlowRun) -> datetime | None:
        """Return when the server received the run's last heartbeat; None where it never did."""
        now = self.api.now
        question = {
            "event": {"name": [HEARTBEAT]},
            "resource": {"id": [f"prefect.flow-run.{run['id']}"]},
            "occurred": {"since": (now - CLOCKS).isoformat(), "until": (now + CLOCKS).isoformat()},
            "order": "DESC",
        }
        events = self.api.post("events/filter", {"filter": question, "limit": 1})["events"]
        return _time(events[0]["received"]) if events else None

    def _is_online(self, worker: str | None) -> bool:
        try:
            workers = self.api.post(f"work_pools/{self.pool}/workers/filter", {})
        except NotFoundError:
            return False
        return any(known["name"] == worker and known["status"] == "ONLINE" for known in workers)

    def _ended(self, state: dict[str, Any]) -> list[FlowRun]:
        return self._runs(state, {"end_time": {"after_": (self.api.now - self.policy.forget).isoformat()}})

    def _runs(self, state: dict[str, Any], further: dict[str, Any] | None = None) -> list[FlowRun]:
        """Return the pool's runs that are in a state; they all have a deployment, so they can be scheduled again."""
        question = {
            "flow_runs": {"state": state, "deployment_id": {"is_null_": False}, **(further or {})},
            "work_pools": {"name": {"any_": [self.pool]}},
            "sort": "EXPECTED_START_TIME_ASC",
        }
        return list(self.api.post("flow_runs/filter", question))


def _time(text: str) -> datetime:
    return datetime.fromisoformat(text)


def main() -> None:
    """Sweep until stopped."""
    parser = argparse.ArgumentParser(prog="python -m infra.restart", description=__doc__.partition("\n")[0])
    parser.add_argument("--pool", default=POOL, help="the work pool (default: %(default)s)")
    parser.add_argument("--once", action="store_true", help="sweep once and leave")
    arguments = parser.parse_args()
    sweep = Sweep(PrefectAPI.from_environment(), arguments.pool, say=say_with_time)
    if arguments.once:
        sweep.once()
    else:
        sweep.forever(threading.Event())


def say_with_time(line: str) -> None:
    """Print a line for a log."""
    print(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {line}", flush=True)


if __name__ == "__main__":
    run_command("infra.restart", main)

"""What ended for a reason that may pass starts again, and nothing else does: sweeps over a real Prefect server."""

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from infra.automations import HEARTBEAT, THOUGHT_DEAD, register, zombies
from infra.local.prefect_server import PrefectServer
from infra.prefect_api import NotFoundError, PrefectAPI, ServerAwayError
from infra.restart import Machine, RestartPolicy, Sweep

POOL = "swept"
AT_ONCE = timedelta(minutes=-1)  # the server tells its time to the second, and late
NOW = RestartPolicy(tries=3, silence=AT_ONCE, doubt=AT_ONCE, pending=AT_ONCE, without_process=AT_ONCE)
DEAD = {"type": "CRASHED", "message": f"{THOUGHT_DEAD} 120 seconds."}


class Flows:
    """A Prefect server with a work pool, a deployment of flow `retrain`, and runs in whatever state a test wants."""

    def __init__(self, server: PrefectServer) -> None:
        self.api = PrefectAPI.from_environment(server.environment)
        self.lines: list[str] = []
        self.deployment = self.deploy(POOL)

    def deploy(self, pool: str) -> str:
        self.api.post("work_pools/", {"name": pool, "type": "process"})
        flow = self.api.post("flows/", {"name": "retrain"})["id"]
        deployment = {"name": pool, "flow_id": flow, "work_pool_name": pool, "entrypoint": "nothing.py:retrain"}
        return str(self.api.post("deployments/", deployment)["id"])

    def run(self, *states: dict[str, Any], deployment: str = "") -> str:
        """Make a run that goes through the states, as `{"type": "RUNNING"}`; return its id."""
        run = str(self.api.post(f"deployments/{deployment or self.deployment}/create_flow_run", {})["id"])
        for state in ({"type": "PENDING"}, *states):
            self.set(run, state)
        return run

    def set(self, run: str, state: dict[str, Any]) -> None:
        answer = self.api.post(f"flow_runs/{run}/set_state", {"state": state, "force": True})
        assert answer["status"] == "ACCEPT", answer

    def state(self, run: str) -> dict[str, Any]:
        return dict(self.api.get(f"flow_runs/{run}")["state"])

    def work(self, run: str, stage: str, end: str, share: float) -> None:
        """Let a run's task go so far and end so, as the flow's tasks do."""
        task = {"flow_run_id": run, "task_key": stage, "dynamic_key": str(uuid.uuid4()), "name": stage}
        made = str(self.api.post("task_runs/", task)["id"])
        for state in ("RUNNING", end):
            self.api.post(f"task_runs/{made}/set_state", {"state": {"type": state}, "force": True})
        artifact = {"key": f"{stage}-progress", "type": "progress", "data": share}
        self.api.post("artifacts/", {**artifact, "task_run_id": made, "flow_run_id": run})

    def send_heartbeat(self, run: str) -> None:
        """Send what a flow run's engine sends."""
        flow = {"prefect.resource.role": "flow", "prefect.resource.name": "retrain", "prefect.resource.id": "x"}
        event = {
            "id": str(uuid.uuid4()),
            "occurred": datetime.now(UTC).isoformat(),
            "event": HEARTBEAT,
            "resource": {"prefect.resource.id": f"prefect.flow-run.{run}"},
            "related": [flow],
        }
        self.api.post("events", [event])

    def heard(self, run: str) -> bool:
        """Return whether the server has recorded a heartbeat, which it does in the background."""
        question = {"event": {"name": [HEARTBEAT]}, "resource": {"id": [f"prefect.flow-run.{run}"]}}
        return bool(self.api.post("events/filter", {"filter": question})["events"])

    def sweep(self, policy: RestartPolicy = NOW, machine: Machine | None = None) -> Sweep:
        sweep = Sweep(self.api, POOL, policy, machine, self.lines.append)
        sweep.once()
        return sweep


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    server = PrefectServer(tmp_path_factory.mktemp("prefect"))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def module_flows(server: PrefectServer) -> Flows:
    return Flows(server)


@pytest.fixture
def flows(module_flows: Flows) -> Iterator[Flows]:
    yield module_flows
    for run in module_flows.api.post("flow_runs/filter", {}):  # a test sees its own runs only
        module_flows.api.ask("DELETE", f"flow_runs/{run['id']}")
    module_flows.lines.clear()


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.1)


def scheduled_in(flows: Flows, run: str) -> float:
    """Return how many seconds from now, by the server's clock, a run is due."""
    due = datetime.fromisoformat(flows.state(run)["state_details"]["scheduled_time"])
    return (due - flows.api.now).total_seconds()


@pytest.mark.parametrize(
    "end", [{"type": "CRASHED", "message": "Killed."}, {"type": "FAILED", "name": "Interrupted", "message": "S3 away."}]
)
def test_what_may_pass_starts_again_with_growing_pauses_and_an_end(flows: Flows, end: dict[str, str]) -> None:
    run = flows.run({"type": "RUNNING"}, end)
    for pause in (10, 20, 40):
        flows.sweep()
        state = flows.state(run)
        assert (state["type"], state["name"]) == ("SCHEDULED", "AwaitingRetry")
        assert end["message"] in state["message"]
        assert pause - 3 <= scheduled_in(flows, run) <= pause + 1
        for following in ({"type": "PENDING"}, {"type": "RUNNING"}, end):
            flows.set(run, following)
    sweep = flows.sweep()
    sweep.once()
    assert flows.state(run)["name"] == end.get("name", "Crashed")
    assert [line for line in flows.lines if "given up" in line] == [flows.lines[-1]]


def try_once_more(flows: Flows, run: str, share: float) -> None:
    """Let a run train up to a share, in percent, and crash."""
    for following in ("PENDING", "RUNNING"):
        flows.set(run, {"type": following})
    flows.work(run, "download", "COMPLETED", 100.0)
    flows.work(run, "train", "CRASHED", share)
    flows.set(run, {"type": "CRASHED"})


def test_a_run_that_gets_further_each_time_is_never_given_up(flows: Flows) -> None:
    run = flows.run()
    for share in (10.0, 20.0, 30.0, 40.0):
        try_once_more(flows, run, share)
        flows.sweep(RestartPolicy(tries=1))
        assert flows.state(run)["name"] == "AwaitingRetry"


def test_a_run_that_gets_nowhere_is_given_up_however_long_it_works(flows: Flows) -> None:
    run = flows.run()
    for share in (10.0, 9.0, 10.5):
        try_once_more(flows, run, share)
        flows.sweep(RestartPolicy(tries=2))
    assert flows.state(run)["name"] == "Crashed"
    assert "given up" in flows.lines[-1]


def test_bad_input_and_what_people_want_is_left_alone(flows: Flows) -> None:
    ends = ({"type": "FAILED"}, {"type": "CANCELLED"}, {"type": "COMPLETED"}, {"type": "COMPLETED", "name": "Refused"})
    runs = [flows.run({"type": "RUNNING"}, end) for end in ends]
    before = [flows.state(run)["id"] for run in runs]
    flows.sweep()
    assert [flows.state(run)["id"] for run in runs] == before


def test_another_pool_is_left_alone(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"}, {"type": "CRASHED"}, deployment=flows.deploy("another"))
    flows.sweep()
    assert flows.state(run)["type"] == "CRASHED"


def test_what_ended_long_ago_is_left_alone(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"}, {"type": "CRASHED"})
    flows.sweep(RestartPolicy(forget=AT_ONCE))
    assert flows.state(run)["type"] == "CRASHED"


def test_two_sweeps_at_once_start_it_once(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"}, {"type": "CRASHED"})
    sweeps = [threading.Thread(target=flows.sweep) for _ in range(4)]
    for sweep in sweeps:
        sweep.start()
    for sweep in sweeps:
        sweep.join()
    states = flows.api.get(f"flow_run_states/?flow_run_id={run}")
    assert [state["name"] for state in states].count("AwaitingRetry") == 1


def test_a_silent_run_is_crashed_once_the_server_was_there_to_hear_it(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"})
    sweep = flows.sweep(replace(NOW, doubt=timedelta(minutes=1)))
    assert flows.state(run)["type"] == "RUNNING"  # it may have been silent because the server was away
    sweep.once()
    assert flows.state(run)["message"].startswith(THOUGHT_DEAD)
    assert flows.state(run)["type"] == "CRASHED"


def test_a_cancelled_run_that_is_silent_is_cancelled(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"}, {"type": "CANCELLING"})
    flows.sweep().once()
    assert flows.state(run)["type"] == "CANCELLED"


def test_a_run_that_was_only_thought_dead_goes_on_and_is_not_started_beside_itself(flows: Flows) -> None:
    run = flows.run({"type": "RUNNING"}, DEAD)
    flows.sweep(RestartPolicy(doubt=timedelta(minutes=1)))
    assert flows.state(run)["type"] == "CRASHED"  # it may still send a heartbeat
    time.sleep(5.1)  # one that comes at once may be the last of a run that ends
    flows.send_heartbeat(run)
    wait_until(lambda: flows.heard(run), "the heartbeat's record")
    flows.sweep()
    assert flows.state(run)["type"] == "RUNNING"
    flows.set(run, {"type": "COMPLETED"})


def test_a_run_that_stays_silent_is_ended_where_it_hangs_and_starts_again(flows: Flows) -> None:
    run, ended = flows.run({"type": "RUNNING"}, DEAD), list[str]()
    flows.sweep(machine=Machine("local", lambda _: True, ended.append))
    assert ended == [run]
    assert flows.state(run)["name"] == "AwaitingRetry"


def test_a_pending_run_without_its_worker_is_freed(flows: Flows) -> None:
    taken, lost = flows.run(), flows.run()
    flows.api.post(f"work_pools/{POOL}/workers/heartbeat", {"name": "there", "heartbeat_interval_seconds": 30})
    for run, worker in ((taken, "there"), (lost, "gone")):
        flows.api.ask("PATCH", f"flow_runs/{run}/labels", {"prefect.worker.name": worker})
    flows.sweep(RestartPolicy(pending=timedelta(minutes=1)))
    assert flows.state(lost)["type"] == "PENDING"
    flows.sweep()
    assert flows.state(taken)["type"] == "PENDING"
    assert flows.state(lost)["type"] != "PENDING"


def test_a_worker_knows_its_dead(flows: Flows) -> None:
    here, gone, unwanted = flows.run({"type": "RUNNING"}), flows.run(), flows.run({"type": "CANCELLING"})
    for run in (here, gone, unwanted):
        flows.api.ask("PATCH", f"flow_runs/{run}/labels", {"prefect.worker.name": "local"})
    alive = {here, unwanted}
    flows.sweep(machine=Machine("local", alive.__contains__, alive.discard))
    assert flows.state(here)["type"] == "RUNNING"
    assert flows.state(gone)["name"] in {"Crashed", "AwaitingRetry"}
    assert flows.state(unwanted)["type"] == "CANCELLED"


def test_the_server_itself_crashes_a_run_whose_heartbeats_end(flows: Flows) -> None:
    automation = {**zombies(timedelta(seconds=10)), "name": "short"}
    assert register(flows.api, [automation]) == ["short"]
    dead, ended = flows.run({"type": "RUNNING"}), flows.run({"type": "RUNNING"})
    for run in (dead, ended):
        flows.send_heartbeat(run)
    flows.set(ended, {"type": "COMPLETED", "name": "Refused"})
    wait_until(lambda: flows.state(dead)["type"] == "CRASHED", "the crash of a silent run")
    assert flows.state(dead)["message"].startswith(THOUGHT_DEAD)
    assert flows.state(ended)["name"] == "Refused"


def test_registering_twice_is_registering_once(flows: Flows) -> None:
    automation = {**zombies(), "name": "once"}
    assert register(flows.api, [automation]) == ["once"]
    assert register(flows.api, [automation]) == []
    (registered,) = flows.api.post("automations/filter", {"automations": {"name": {"any_": ["once"]}}})
    flows.api.ask("PATCH", f"automations/{registered['id']}", {"enabled": False})
    assert register(flows.api, [{**automation, "description": "another"}]) == ["once"]
    (changed,) = flows.api.post("automations/filter", {"automations": {"name": {"any_": ["once"]}}})
    assert (changed["id"], changed["enabled"], changed["description"]) == (registered["id"], False, "another")
    flows.api.post("automations/", automation)  # as another worker may at the same time
    register(flows.api, [automation])
    assert len(flows.api.post("automations/filter", {"automations": {"name": {"any_": ["once"]}}})) == 1


def test_what_the_server_does_not_know_is_named(flows: Flows) -> None:
    with pytest.raises(NotFoundError, match="answers 404"):
        flows.api.get(f"flow_runs/{uuid.uuid4()}")


def test_a_server_that_is_away_is_waited_for(flows: Flows) -> None:
    away = PrefectAPI("http://127.0.0.1:9/api")
    with pytest.raises(ServerAwayError, match="cannot be reached"):
        away.get("health")
    stop, lines = threading.Event(), list[str]()
    sweep = Sweep(away, POOL, NOW, say=lines.append)
    thread = threading.Thread(target=sweep.forever, args=[stop, 0.05])
    thread.start()
    wait_until(lambda: bool(lines), "the line about the outage")
    sweep.api = flows.api
    wait_until(lambda: len(lines) > 1, "the line about its end")
    stop.set()
    thread.join()
    assert lines[1:] == ["the Prefect server answers again"]

"""The deployment of prefect.yaml, registered with the local servers and run by their worker, as people do it."""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from infra.prefect_api import PrefectAPI
from infra.process_group import group_lives
from tests.fixtures import prefect_api
from tests.fixtures.archives import colour_images, write_files
from tests.fixtures.dvc_project import REPOSITORY, make_project

PREFECT = [sys.executable, "-m", "prefect", "--no-prompt"]


class LocalStack:
    """A small project with the repository's code in it, its servers and worker up, its deployment registered."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT"))
        }

    def command(self, *arguments: str) -> str:
        """Run a command in the project; it must succeed."""
        done = subprocess.run(
            arguments, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def infra_local(self, *arguments: str) -> str:
        return self.command(sys.executable, "-m", "infra.local", *arguments)

    @property
    def api(self) -> str:
        return self.environment["PREFECT_API_URL"]

    def deployment(self) -> dict[str, Any]:
        """Return the deployment as the server has it."""
        return dict(prefect_api.ask(self.api, "deployments/name/retrain/retrain"))

    def trigger(self, **overrides: object) -> str:
        """Ask for a run of the deployment, as the UI's button does; return its id."""
        path = f"deployments/{self.deployment()['id']}/create_flow_run"
        return str(prefect_api.ask(self.api, path, {"parameters": {"overrides": overrides}})["id"])

    def wait_for(self, flow_run: str, *states: str) -> str:
        """Wait until a flow run is in one of the states and return it."""
        for _ in range(3000):
            state = str(prefect_api.ask(self.api, f"flow_runs/{flow_run}")["state_name"])
            if state in states:
                return state
            time.sleep(0.1)
        raise AssertionError(f"flow run is {state}: {prefect_api.log_lines(self.api, flow_run)}")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalStack]:
    folder = make_project(tmp_path_factory.mktemp("deployed") / "project", "s3://retrain/dvc")
    for name in ("flows", "infra", "tasks"):
        shutil.copytree(REPOSITORY / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(REPOSITORY / "prefect.yaml", folder)
    local = LocalStack(folder)
    try:
        local.infra_local("up")
        lines = local.infra_local("env").splitlines()
        local.environment |= dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines)
        prefect_api.know(local.environment)
        local.command(*PREFECT, "deploy", "--all")
        yield local
    finally:
        local.infra_local("down")


def test_deployment_shows_its_schedule_switched_off_and_its_parameters(stack: LocalStack) -> None:
    deployment = stack.deployment()
    assert [(entry["schedule"]["cron"], entry["active"]) for entry in deployment["schedules"]] == [("0 3 * * *", False)]
    assert deployment["parameters"] == {"overrides": {}, "push_data": True, "save_run": True}
    assert deployment["global_concurrency_limit"] is None  # its leases could be lost; the pool's limit cannot
    assert deployment["work_pool_name"] == "retrain"
    assert prefect_api.ask(stack.api, "work_pools/retrain")["concurrency_limit"] == 1


def test_deploying_again_keeps_one_deployment(stack: LocalStack) -> None:
    before = stack.deployment()["id"]
    stack.command(*PREFECT, "deploy", "--all")
    assert stack.deployment()["id"] == before
    assert prefect_api.ask(stack.api, "deployments/count", {}) == 2


def test_worker_runs_it_with_overrides_that_are_for_this_run(stack: LocalStack) -> None:
    before = (stack.folder / "params.yaml").read_bytes()
    run = stack.trigger(**{"split.seed": 3})
    assert stack.wait_for(run, "Completed", "Failed", "Crashed") == "Completed"
    assert prefect_api.task_states(stack.api, run) == {
        "make": "Completed",
        "report": "Completed",
        "offer": "Completed",
        "push": "Completed",
    }
    assert (stack.folder / "params.yaml").read_bytes() == before
    name = str(prefect_api.ask(stack.api, f"flow_runs/{run}")["name"])
    experiment = stack.command("git", "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
    for file in ("params.yaml", "dvc.lock"):  # what the run was made with is recorded
        assert "seed: 3" in stack.command("git", "show", f"{experiment}:{file}")
    # A run whose stage fails gives them back too.
    make = (stack.folder / "make.py").read_text()
    (stack.folder / "make.py").write_text("raise SystemExit(2)")
    assert stack.wait_for(stack.trigger(**{"split.seed": 4}), "Completed", "Failed", "Crashed") == "Failed"
    (stack.folder / "make.py").write_text(make)
    assert (stack.folder / "params.yaml").read_bytes() == before


def test_schedule_fires_and_what_waits_starts_in_the_order_of_its_dates(stack: LocalStack) -> None:
    script = (stack.folder / "make.py").read_text()
    (stack.folder / "make.py").write_text(
        "import pathlib, time\nwhile not pathlib.Path('go').exists():\n    time.sleep(0.1)\n" + script
    )
    api, deployment = PrefectAPI.from_environment(stack.environment), stack.deployment()
    first = stack.trigger()
    stack.wait_for(first, "Running")
    (schedule,) = api.post(
        f"deployments/{deployment['id']}/schedules", [{"active": True, "schedule": {"interval": 3.0}}]
    )
    due = wait_for_due_runs(api, deployment["id"], schedule["id"], count=3)
    # Asked for last, of another deployment, and due before them.
    asked = {"state": {"type": "SCHEDULED", "state_details": {"scheduled_time": first_moment(api, first)}}}
    other = str(api.post(f"deployments/{second_deployment(api, deployment)}/create_flow_run", asked)["id"])
    (stack.folder / "go").touch()
    assert stack.wait_for(other, "Completed", "Failed", "Crashed") == "Completed"
    assert stack.wait_for(due[0]["id"], "Running", "Completed", "Skipped", "Failed", "Crashed") in {
        "Running",
        "Completed",
    }
    for waiting in due[1:]:  # one was enough
        assert stack.wait_for(waiting["id"], "Skipped", "Completed", "Failed", "Crashed") == "Skipped"
    # With a schedule go the runs of it that did not begin.
    api.ask("DELETE", f"deployments/{deployment['id']}/schedules/{schedule['id']}")
    assert stack.wait_for(due[0]["id"], "Completed", "Failed", "Crashed") == "Completed"
    ran = [api.get(f"flow_runs/{run}") for run in (first, other, due[0]["id"])]
    for before, after in itertools.pairwise(ran):
        assert datetime.fromisoformat(before["end_time"]) < datetime.fromisoformat(after["start_time"])
    for waiting in due[1:]:
        state = api.get(f"flow_runs/{waiting['id']}")["state"]
        assert (state["type"], state["name"]) == ("COMPLETED", "Skipped")
        assert ran[-1]["name"] in state["message"]


def wait_for_due_runs(api: PrefectAPI, deployment: str, schedule: str, count: int) -> list[dict[str, Any]]:
    """Wait until so many runs are due that the scheduler made for a schedule; return them by their dates."""
    for _ in range(600):
        question = {
            "deployment_id": {"any_": [deployment]},
            "next_scheduled_start_time": {"before_": api.now.isoformat()},
            "state": {"type": {"any_": ["SCHEDULED"]}},
        }
        runs = api.post("flow_runs/filter", {"flow_runs": question, "sort": "EXPECTED_START_TIME_ASC"})
        made = [run for run in runs if run["auto_scheduled"] and run["created_by"]["id"] == schedule]
        if len(made) >= count:
            return made
        time.sleep(0.2)
    raise AssertionError(f"the scheduler made only {made}")


def first_moment(api: PrefectAPI, run: str) -> str:
    """Return when a run was due."""
    return str(api.get(f"flow_runs/{run}")["expected_start_time"])


def second_deployment(api: PrefectAPI, first: dict[str, Any]) -> str:
    """Register the same flow under another name; return its id."""
    copied = ("flow_id", "work_pool_name", "entrypoint", "path", "parameters", "pull_steps")
    return str(api.post("deployments/", {"name": "second", **{key: first[key] for key in copied}})["id"])


def test_watch_asks_for_one_run_on_what_is_new_and_an_event_makes_it_look(stack: LocalStack) -> None:
    write_files(stack.folder.parent / "photos", colour_images(4))
    address = f"{(stack.folder.parent / 'photos').as_uri()}/"
    photos = {"download.dataset": "folders", "download.url": address}
    watching = prefect_api.ask(stack.api, "deployments/name/watch/watch")
    ask = {"parameters": {"overrides": photos}}
    runs = [prefect_api.ask(stack.api, f"deployments/{watching['id']}/create_flow_run", ask)["id"] for _ in range(2)]
    for run in runs:
        assert stack.wait_for(run, "Asked", "Completed", "Failed", "Crashed", "NothingNew") == "Asked"
    said = [prefect_api.ask(stack.api, f"flow_runs/{run}")["state"]["message"] for run in runs]
    names = {message.partition("has the run ")[2].partition(",")[0] for message in said}
    assert len(names) == 1  # one run a snapshot
    question = {"flow_runs": {"name": {"any_": list(names)}}}
    (asked,) = prefect_api.ask(stack.api, "flow_runs/filter", question)
    assert asked["parameters"]["overrides"] == photos
    assert stack.wait_for(asked["id"], "Completed", "Failed", "Crashed") == "Completed"
    # Whoever adds images may say so: the look is then at once, here with the data set that is no collection.
    event = ["event", "emit", "retrain.collection.changed", "--resource-id", "retrain.collection"]
    stack.command(*PREFECT, *event)
    later: dict[str, Any] = {
        "flow_runs": {"deployment_id": {"any_": [watching["id"]]}, "id": {"not_any_": runs}},
        "sort": "START_TIME_DESC",
    }
    for _ in range(300):
        if found := prefect_api.ask(stack.api, "flow_runs/filter", later):
            break
        time.sleep(0.1)
    assert stack.wait_for(found[0]["id"], "Asked", "Completed", "Failed", "Crashed", "NothingNew") == "NothingNew"
    message = prefect_api.ask(stack.api, f"flow_runs/{found[0]['id']}")["state"]["message"]
    assert "there is nothing to watch: download.url is no collection" in message


def test_cancelling_a_run_ends_its_stage_and_puts_back_what_stood_there(stack: LocalStack) -> None:
    stack.command(sys.executable, "-m", "dvc", "repro", "--quiet")
    script = (stack.folder / "make.py").read_text()
    (stack.folder / "make.py").write_text("import os, time\nprint('group', os.getpgid(0), flush=True)\ntime.sleep(600)")
    try:
        run = stack.trigger()
        group = _group(stack, run)
        assert group_lives(group)
        stack.command(*PREFECT, "flow-run", "cancel", run)
        assert stack.wait_for(run, "Cancelled", "Crashed", "Failed") == "Cancelled"
        assert not group_lives(group)
        assert (stack.folder / "made/numbers.txt").exists()
    finally:
        (stack.folder / "make.py").write_text(script)


def test_stopping_the_stack_ends_its_runs(stack: LocalStack) -> None:
    script = (stack.folder / "make.py").read_text()
    (stack.folder / "make.py").write_text("import os, time\nprint('group', os.getpgid(0), flush=True)\ntime.sleep(600)")
    try:
        group = _group(stack, stack.trigger())
        stack.infra_local("down")
        assert not group_lives(group)
    finally:
        (stack.folder / "make.py").write_text(script)


def _group(stack: LocalStack, run: str) -> int:
    """Return the process group that the stage of a run has printed."""
    for _ in range(600):
        for line in prefect_api.log_lines(stack.api, run):
            if match := re.fullmatch(r"group (\d+)", line):
                return int(match[1])
        time.sleep(0.1)
    raise AssertionError(json.dumps(prefect_api.log_lines(stack.api, run)))

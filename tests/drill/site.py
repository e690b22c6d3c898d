"""A site: a clone of this repository with its servers and worker up and its deployment registered, as a team has it."""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from flows.overrides import apply_overrides, parse_assignments
from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tasks.stage.errors import InputError
from tests.drill.processes import Found, processes, workers_of_runs
from tests.fixtures import prefect_api
from tests.fixtures.dvc_project import REPOSITORY, command

PREFECT = (sys.executable, "-m", "prefect", "--no-prompt")
POLL_SECONDS = 0.5
ENDED = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
STATE_SECONDS = 180.0  # within which Prefect must show what became of a run
RUN_SECONDS = 900.0

# The digits, trained long enough to be interrupted: a minute or two on two busy cores, a checkpoint every few steps.
PARAMETERS = (
    "download.dataset=digits",
    "train.recipe=digits",
    "evaluate.test_time_augmentation=none",
    "publish.prefix=drill",
    "recipes.digits.epochs=40",
    "train.checkpoint_every_steps=20",
)


def set_parameters(clone: Path, *assignments: str) -> None:
    """Set values in a clone's params.yaml and commit them, as a person does."""
    apply_overrides(parse_assignments(assignments), clone / "params.yaml")
    identity = ("-c", "user.name=Drill", "-c", "user.email=drill@localhost")
    command(clone, "git", *identity, "commit", "--quiet", "--all", "--message", " ".join(assignments))


def wait_until(what: str, condition: Callable[[], Any], seconds: float = STATE_SECONDS) -> Any:
    """Wait until a condition holds and return what it returned; servers that are away are asked again."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            if (value := condition()) is not None and value is not False:
                return value
        except (OSError, InputError) as error:
            what = f"{what} ({error})" if str(error) not in what else what
        if time.monotonic() > deadline:
            raise AssertionError(f"after {seconds:.0f} s still not: {what}")
        time.sleep(POLL_SECONDS)


class Site:
    """One team's installation, in one folder.

    Args:
        folder: Made; the clone is `folder/site`.
        parameters: Set in params.yaml and committed.
    """

    def __init__(self, folder: Path, parameters: tuple[str, ...] = PARAMETERS) -> None:
        self.folder = folder / "site"
        self.environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT"))
        }
        command(folder.parent, "git", "clone", "--quiet", str(REPOSITORY), str(self.folder))
        set_parameters(self.folder, *parameters)

    def command(self, *arguments: str) -> str:
        """Run a command in the clone; it must succeed."""
        done = subprocess.run(
            arguments, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
        return done.stdout

    def up(self) -> None:
        """Start what is not running, and learn where it is."""
        self.command(sys.executable, "-m", "infra.local", "up")
        lines = self.command(sys.executable, "-m", "infra.local", "env").splitlines()
        self.environment |= dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines)
        prefect_api.know(self.environment)

    def deploy(self) -> None:
        """Register the deployment, as `make deploy` does."""
        self.command(*PREFECT, "deploy", "--all")
        self.command(sys.executable, "-m", "infra.automations")

    def down(self) -> None:
        """Stop everything."""
        self.command(sys.executable, "-m", "infra.local", "down")

    @property
    def api(self) -> str:
        """Address of Prefect's API."""
        return self.environment["PREFECT_API_URL"]

    @property
    def deployment(self) -> str:
        """The deployment's id."""
        return str(prefect_api.ask(self.api, "deployments/name/retrain/retrain")["id"])

    def trigger(self, overrides: dict[str, object], variables: Mapping[str, str] | None = None) -> str:
        """Ask for a run, as the UI's button does, with variables in its processes' environment; return its id."""
        question = {"parameters": {"overrides": overrides}, "job_variables": {"env": dict(variables or {})}}
        return str(prefect_api.ask(self.api, f"deployments/{self.deployment}/create_flow_run", question)["id"])

    def run(self, flow_run: str) -> dict[str, Any]:
        """Return a flow run as the server has it."""
        return dict(prefect_api.ask(self.api, f"flow_runs/{flow_run}"))

    def states(self, flow_run: str) -> list[str]:
        """Return the names of all states that a run was in, the oldest first."""
        found = prefect_api.ask(self.api, f"flow_run_states/?flow_run_id={flow_run}")
        return [state["name"] for state in sorted(found, key=lambda state: str(state["timestamp"]))]

    def log(self, flow_run: str) -> list[str]:
        """Return what a run logged."""
        return prefect_api.log_lines(self.api, flow_run)

    def wait_for_state(self, flow_run: str, *names: str, seconds: float = STATE_SECONDS) -> str:
        """Wait until a run is in one of the named states."""
        name = wait_until(
            f"flow run in {' or '.join(names)}",
            lambda: found if (found := str(self.run(flow_run)["state_name"])) in names else None,
            seconds,
        )
        return str(name)

    def wait_for_end(self, flow_run: str, seconds: float = RUN_SECONDS) -> str:
        """Wait until a run has ended for good: an end that the sweep turns into another try is none."""
        name = wait_until(
            "flow run has ended",
            lambda: (
                run["state_name"]
                if (run := self.run(flow_run))["state_type"] in ENDED
                and run["state_name"] not in {"Crashed", "Interrupted"}
                else None
            ),
            seconds,
        )
        return str(name)

    def pid_of(self, kind: str, seconds: float = STATE_SECONDS) -> int:
        """Wait until a process of a kind is there and return its id."""
        found: Found = wait_until(
            f"a process: {kind}",
            lambda: next((each for each in processes(self.folder) if each.kind == kind), None),
            seconds,
        )
        return found.pid

    def wait_for_checkpoint(self) -> Path:
        """Wait until training has saved something."""
        path: Path = wait_until(
            "a checkpoint",
            lambda: next(iter(sorted((self.folder / ".cache/checkpoints").glob("*/step-*.npz"))), None),
            RUN_SECONDS,
        )
        return path

    def forget_results(self) -> None:
        """Make the next run do everything again: what DVC remembers of earlier runs goes, here and in the bucket."""
        (self.folder / "dvc.lock").unlink(missing_ok=True)
        for name in (".dvc/cache/runs", "model", "evaluation", "release", ".cache/checkpoints"):
            shutil.rmtree(self.folder / name, ignore_errors=True)
        client = connect(self.store().environment)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="retrain", Prefix="dvc/runs/")
        for key in [entry["Key"] for page in pages for entry in page.get("Contents", ())]:
            client.delete_object(Bucket="retrain", Key=key)

    def orphans(self) -> list[Found]:
        """Return what runs though no run is at work."""
        return workers_of_runs(self.folder)

    def store(self) -> ObjectStore:
        """Return the site's object store."""
        return ObjectStore(self.folder / ".local")

    def releases(self, prefix: str) -> set[str]:
        """Return the ids of the complete releases under a prefix."""
        client = connect(self.store().environment)
        pages = client.get_paginator("list_objects_v2").paginate(Bucket="retrain", Prefix=f"{prefix}/releases/")
        keys = [entry["Key"] for page in pages for entry in page.get("Contents", ())]
        return {key.split("/")[-2] for key in keys if key.endswith("/manifest.json")}

    def champion(self, prefix: str) -> str | None:
        """Return the id of the champion under a prefix."""
        client = connect(self.store().environment)
        try:
            body = client.get_object(Bucket="retrain", Key=f"{prefix}/channels/champion.json")["Body"].read()
        except client.exceptions.NoSuchKey:
            return None
        return str(json.loads(body)["current"]["release"])

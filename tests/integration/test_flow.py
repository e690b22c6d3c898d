"""The flow on a small DVC project, against a real Prefect server and a real S3 server."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
import uuid
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from infra.monitoring.metrics import DEFAULT_FILE, read_samples
from infra.process_group import group_lives
from tasks.params.params import load_params
from tasks.registry.channels import move_pointer, read_channel
from tests.fixtures import prefect_api
from tests.fixtures.answered import IMAGES, publish_answered
from tests.fixtures.buckets import new_bucket
from tests.fixtures.dvc_project import REPOSITORY, command, dvc, make_project

# What a worker or flows/run.py does, with retries that do not wait and an end like a command's.
RUN = """
import json, sys
import flows.retrain
import flows.steps
from tasks.stage.errors import run_command
flows.steps.BACKOFF_SECONDS, flows.steps.JITTER = [0.1] * 3, 0
def body():
    results = flows.retrain.retrain(**json.loads(sys.argv[1]))
    print(json.dumps({result.name: result.outcome for result in results}))
run_command("run", body)
"""


class Workspace:
    """A DVC project and the two servers that its runs talk to."""

    def __init__(self, folder: Path, store: ObjectStore, server: PrefectServer) -> None:
        self.folder, self.api = folder, f"{server.url}/api"
        self.environment = os.environ | store.environment | server.environment | {"PYTHONPATH": str(REPOSITORY)}

    def start(self, **parameters: object) -> subprocess.Popen[str]:
        """Start the flow in a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-c", RUN, json.dumps(parameters)],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, **parameters: object) -> dict[str, str]:
        """Run the flow, which must succeed, and return each stage's outcome."""
        process = self.start(**parameters)
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        return dict(json.loads(output.splitlines()[-1]))

    def write(self, name: str, text: str) -> None:
        """Replace a file of the project."""
        (self.folder / name).write_text(text)


@pytest.fixture
def workspace(
    tmp_path: Path, object_store: ObjectStore, prefect_server: PrefectServer, monkeypatch: pytest.MonkeyPatch
) -> Workspace:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    folder = make_project(tmp_path / "project", f"s3://retrain/dvc-{uuid.uuid4().hex}")
    return Workspace(folder, object_store, prefect_server)


def wait_for_line(workspace: Workspace, text: str) -> dict[str, object]:
    """Return the latest flow run once its log holds a line."""
    for _ in range(600):
        run = prefect_api.latest_flow_run(workspace.api)
        if any(text in line for line in prefect_api.log_lines(workspace.api, run["id"])):
            return run
        time.sleep(0.1)
    raise AssertionError(f"no line {text!r} in the log")


def test_a_run_that_starts_from_the_champion_pins_it_and_does_not_move_the_pin_of_a_person(
    workspace: Workspace, object_store: ObjectStore
) -> None:
    bucket, params = new_bucket(object_store), workspace.folder / "params.yaml"
    champion = publish_answered(bucket, workspace.folder, IMAGES - 40)
    move_pointer(bucket, "champion", champion, "2024-02-02T00:00:00+00:00", lambda _: "a test")
    chosen = {"train.start": "champion", "publish.prefix": bucket.prefix}
    workspace.run(overrides=chosen, push_data=False, save_run=False)
    assert load_params(params).begins_from == champion.id
    run = prefect_api.latest_flow_run(workspace.api)
    assert prefect_api.task_states(workspace.api, run["id"])["start"] == "Completed"
    said = f"training starts from the champion {champion.id}"
    assert said in prefect_api.log_lines(workspace.api, run["id"])
    workspace.run(overrides={**chosen, "weights.release": "a" * 16}, push_data=False, save_run=False)
    assert load_params(params).begins_from == "a" * 16


def test_run_and_its_traces(workspace: Workspace, tmp_path: Path, object_store: ObjectStore) -> None:
    release = publish_answered(bucket := new_bucket(object_store), workspace.folder, IMAGES - 40)
    gate = {"publish.prefix": bucket.prefix, "publish.minimum_top1": 0.95}
    assert workspace.run(overrides=gate) == {"make": "ran", "report": "ran"}
    run = prefect_api.latest_flow_run(workspace.api)
    assert (run["state_type"], run["state_name"]) == ("COMPLETED", "Refused")
    assert run["state"]["message"] == "top-1 90.00 % is below the floor of 95.00 %"
    assert prefect_api.task_states(workspace.api, run["id"]) == {
        "make": "Completed",
        "report": "Completed",
        "offer": "Completed",
        "push": "Completed",
    }
    assert run["tags"] == [f"commit:{command(workspace.folder, 'git', 'rev-parse', 'HEAD')[:12]}"]
    assert read_channel(bucket, "candidate") == release
    assert read_channel(bucket, "champion") is None
    (event,) = prefect_api.events(workspace.api, run["id"], "retrain.")
    assert event["event"] == "retrain.champion.refused"
    assert event["resource"]["prefect.resource.id"] == f"retrain.channel.retrain/{bucket.prefix}/champion"
    assert {"prefect.flow", "prefect.flow-run"} <= {
        str(related["prefect.resource.id"]).rpartition(".")[0] for related in event["related"]
    }
    assert event["payload"]["reasons"] == ["top-1 90.00 % is below the floor of 95.00 %"]
    assert (event["payload"]["release"], event["payload"]["top1_low"]) == (release.id, 0.8)
    assert event["payload"]["commit"] == command(workspace.folder, "git", "rev-parse", "HEAD").strip()
    samples = read_samples(workspace.folder / DEFAULT_FILE)
    assert samples["retrain_run_outcome"][("refused",)] == 1
    assert samples["retrain_top1_ratio"] == {("digits",): 0.9}
    assert samples["retrain_last_success_timestamp_seconds"] == samples["retrain_last_run_timestamp_seconds"]
    found = prefect_api.artifacts(workspace.api, run["id"])
    assert str(workspace.folder) not in json.dumps(list(found.values()))
    assert "refused: top-1 90.00 % is below the floor of 95.00 %" in found["headline"]["data"]
    assert found["make-progress"]["data"] == 100.0
    assert {"metric": "top1", "value": 0.9} in json.loads(found["metrics"]["data"])
    assert "top-1 90.00 % (95 % interval 80.00 % to 95.00 %) on 3 test images of digits" in found["report"]["data"]
    assert "  - ✗ `reaches_floor`: top-1 90.00 % is below the floor of 95.00 %" in found["report"]["data"]
    assert found["gate"]["description"] == "not champion: top-1 90.00 % is below the floor of 95.00 %"
    assert json.loads(found["gate"]["data"])[0] == {
        "rule": "reaches_floor",
        "passed": "✗",
        "says": "top-1 90.00 % is below the floor of 95.00 %",
        "figures": "minimum_top1 0.95, top1 0.9",
    }
    assert [row["outcome"] for row in json.loads(found["stages"]["data"])] == ["ran", "ran"]
    wait_for_line(workspace, "[ 50.0%] step 1")
    assert run["name"] in dvc(workspace.folder, "exp", "list", "--name-only").split()

    assert_a_clone_has_nothing_to_do(workspace.folder, tmp_path / "clone")


def assert_a_clone_has_nothing_to_do(project: Path, clone: Path) -> None:
    """Commit what a run recorded; a clone of it pulls what the run made, and repeats nothing."""
    command(project, "git", "add", "dvc.lock")
    command(project, "git", "commit", "--quiet", "--message", "Record the run")
    command(clone.parent, "git", "clone", "--quiet", str(project), str(clone))
    dvc(clone, "pull")
    assert (clone / "evaluation/metrics.json").read_bytes() == (project / "evaluation/metrics.json").read_bytes()
    assert "Data and pipelines are up to date." in dvc(clone, "repro")


def test_new_champion_is_told_and_the_report_opens_from_the_run(
    workspace: Workspace, object_store: ObjectStore
) -> None:
    bucket = new_bucket(object_store)
    options = {"overrides": {"publish.prefix": bucket.prefix, "publish.minimum_top1": 0.5}, "push_data": False}
    releases = []
    for right in (IMAGES - 140, IMAGES - 100):
        (folder := workspace.folder / f".cache/answered-{right}").mkdir(parents=True)
        (folder / "report.html").write_text("<!DOCTYPE html>")
        releases.append(publish_answered(bucket, workspace.folder, right).id)
        workspace.run(**options)
    first, second = releases
    run = prefect_api.latest_flow_run(workspace.api)
    said = f"release {second} is the new champion in the place of {first}: top-1 90.00 %"
    assert run["state_name"] == "Completed"
    assert run["state"]["message"].startswith(said)
    (event,) = prefect_api.events(workspace.api, run["id"], "retrain.")
    assert event["event"] == "retrain.champion.changed"
    assert event["resource"]["prefect.resource.id"] == f"retrain.channel.retrain/{bucket.prefix}/champion"
    assert (event["payload"]["release"], event["payload"]["former"]) == (second, first)
    found = prefect_api.artifacts(workspace.api, run["id"])
    champions = json.loads(found["champions"]["data"])
    assert [row["release"] for row in champions] == [second, first]
    assert champions[0]["top-1"] == "75.00 % (40.00 % to 60.00 %)"
    (url,) = re.findall(r"\[the full report\]\(([^)]+)\)", found["report"]["data"])
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.read() == b"<!DOCTYPE html>"
    samples = read_samples(workspace.folder / DEFAULT_FILE)
    assert samples["retrain_champion_info"] == {(second,): 1}
    assert samples["retrain_champion_top1_ratio"] == {(): 0.75}


def forget_who_commits(workspace: Workspace, home: Path) -> None:
    """Leave git without a name, as in a container."""
    command(workspace.folder, "git", "config", "--unset", "user.name")
    command(workspace.folder, "git", "config", "--unset", "user.email")
    workspace.environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home), "GIT_CONFIG_NOSYSTEM": "1"}


def test_second_run_has_nothing_to_do_and_a_third_what_its_parameter_changes(
    workspace: Workspace, tmp_path: Path
) -> None:
    forget_who_commits(workspace, tmp_path)  # which is no obstacle
    workspace.run()
    saved = dvc(workspace.folder, "exp", "list", "--name-only")
    assert prefect_api.latest_flow_run(workspace.api)["name"] in saved.split()
    locked = (workspace.folder / "dvc.lock").read_bytes()
    assert workspace.run() == {"make": "unchanged", "report": "unchanged"}
    run = prefect_api.latest_flow_run(workspace.api)
    assert run["state_name"] == "Completed"
    assert run["state"]["message"].startswith("no stage had anything new")
    (event,) = prefect_api.events(workspace.api, run["id"], "retrain.")
    assert event["event"] == "retrain.nothing-new"
    assert event["resource"]["prefect.resource.id"] == f"prefect.flow-run.{run['id']}"
    assert dvc(workspace.folder, "exp", "list", "--name-only") == saved
    assert (workspace.folder / "dvc.lock").read_bytes() == locked
    assert "Data and pipelines are up to date." in dvc(workspace.folder, "repro")
    assert workspace.run(overrides={"evaluate.batch_size": 7}) == {"make": "unchanged", "report": "ran"}
    assert "batch_size: 7" in (workspace.folder / "params.yaml").read_text()


def test_bad_parameter_stops_it_before_anything_is_touched(workspace: Workspace) -> None:
    before = (workspace.folder / "params.yaml").read_bytes()
    process = workspace.start(overrides={"train.recipy": "seed"})
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "run: params.yaml: train.recipy = 'seed': no such parameter" in errors
    assert (workspace.folder / "params.yaml").read_bytes() == before
    assert not (workspace.folder / "made").exists()


def test_failed_stage_stops_the_rest_and_shows_its_words(workspace: Workspace) -> None:
    tries = "import pathlib, sys\npathlib.Path('.local-tries').open('a').write('x')\n"
    workspace.write("make.py", tries + "print('counting')\nprint('make: nothing to count')\nsys.exit(2)")
    process = workspace.start()
    process.communicate()
    assert process.returncode == 1
    assert (workspace.folder / ".local-tries").read_text() == "x"  # bad input is not tried again
    run = prefect_api.latest_flow_run(workspace.api)
    assert run["state_name"] == "Failed"
    assert "counting" in run["state"]["message"]
    assert "make: nothing to count" in run["state"]["message"]
    assert prefect_api.task_states(workspace.api, run["id"]) == {"make": "Failed"}
    (event,) = prefect_api.events(workspace.api, run["id"], "retrain.")
    assert event["event"] == "retrain.failed"
    assert event["payload"]["reasons"] == ["stage make failed with exit status 2: make: nothing to count"]
    samples = read_samples(workspace.folder / DEFAULT_FILE)
    assert samples["retrain_run_outcome"][("failed",)] == 1
    assert "retrain_last_success_timestamp_seconds" not in samples
    assert not (workspace.folder / "evaluation").exists()


def flaky(workspace: Workspace, *ends: str) -> int:
    """Let the tries of the first stage end like this, the last for ever; return how often it was tried."""
    tries = f"""import os, pathlib, sys
tries = pathlib.Path('.local-tries')
tries.open('a').write('x')
ends = {ends!r}
print('make: ends', tries.stat().st_size, flush=True)
exec(ends[min(tries.stat().st_size, len(ends)) - 1])
"""
    workspace.write("make.py", tries + (workspace.folder / "make.py").read_text())
    workspace.environment |= {"RETRAIN_OUTAGE_SECONDS": "2", "RETRAIN_OUTAGE_PAUSE_SECONDS": "0.2"}
    workspace.start().communicate()
    return (workspace.folder / ".local-tries").stat().st_size


def test_what_may_pass_is_tried_again(workspace: Workspace) -> None:
    command(workspace.folder, "git", "update-ref", "-d", "HEAD")  # a folder without a commit runs too
    killed = "os.kill(os.getpid(), 9)"
    assert flaky(workspace, "sys.exit(69)", killed, "sys.exit(75)", "sys.exit(69)", "pass") == 5
    run = prefect_api.latest_flow_run(workspace.api)
    assert prefect_api.task_states(workspace.api, run["id"])["make"] == "Completed"
    wait_for_line(workspace, "more: make: ends 1")
    wait_for_line(workspace, "there is no git commit to attach it to")


def test_an_outage_that_does_not_pass_ends_the_run_as_interrupted(workspace: Workspace) -> None:
    assert flaky(workspace, "sys.exit(69)") >= 2
    run = prefect_api.latest_flow_run(workspace.api)
    assert (run["state_type"], run["state_name"]) == ("FAILED", "Interrupted")
    assert run["state"]["message"].startswith("stage make failed with exit status 69: make: ends ")


def test_two_runs_never_share_a_workspace_and_sigterm_leaves_nothing(workspace: Workspace) -> None:
    workspace.run()
    workspace.write("make.py", "import os, time\nprint('group', os.getpgid(0), flush=True)\ntime.sleep(600)")
    first = workspace.start()
    run = wait_for_line(workspace, "group ")
    lines = prefect_api.log_lines(workspace.api, str(run["id"]))
    group = next(int(line.split()[1]) for line in lines if line.startswith("group "))
    second = workspace.start()
    _, errors = second.communicate()
    assert second.returncode == 2
    assert f"another run (process {first.pid}) is at work" in errors
    assert group_lives(group)
    first.send_signal(signal.SIGTERM)
    first.communicate()
    assert first.returncode != 0
    assert not group_lives(group)
    assert (workspace.folder / "made/numbers.txt").exists()

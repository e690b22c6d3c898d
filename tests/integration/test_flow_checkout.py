"""A worker elsewhere: the real pull section of infra/prefect.yaml in a real worker, while its repository changes."""

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from infra.local.prefect_server import PrefectServer
from infra.process_group import stop_group
from tests.fixtures import prefect_api
from tests.fixtures.dvc_project import REPOSITORY, command, make_project

POOL = "elsewhere"
STAGE_NAMES = ("make", "report")
# Where the image's code took the place of the clone's, the flow could not even be imported.
OWN_CODE = """

import sys
import infra.checkout
assert infra.checkout.__file__ == str(Path.cwd() / "infra/checkout.py"), infra.checkout.__file__
assert not [entry for entry in sys.path if entry.endswith("/image")], sys.path
"""


class Elsewhere:
    """A repository, an image's code, a worker with a disk of its own, and the deployment of infra/prefect.yaml."""

    def __init__(self, folder: Path, server: PrefectServer) -> None:
        self.folder, self.api = folder, f"{server.url}/api"
        self.upstream = make_project(folder / "upstream", str(folder / "remote"))
        self.clone = folder / "workspace/retrain"
        for code in (folder / "image", self.upstream):
            for name in ("flows", "infra", "tasks"):
                shutil.copytree(REPOSITORY / name, code / name, ignore=shutil.ignore_patterns("__pycache__"))
        with (self.upstream / ".gitignore").open("a") as ignored:
            ignored.write("/.cache\n__pycache__\n")
        self.commit()
        who = {
            f"GIT_{role}_{what}": "worker@localhost" for role in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
        }
        self.environment = (
            os.environ
            | server.environment
            | who
            | {
                "PYTHONPATH": str(folder / "image"),
                "PREFECT_WORKER_QUERY_SECONDS": "1",
                "RETRAIN_REPOSITORY": f"file://{self.upstream}",
                "RETRAIN_BRANCH": "main",
            }
        )

    def commit(self, *arguments: str) -> str:
        """Commit all changes upstream; return the tag that a run made of them has."""
        command(self.upstream, "git", "add", "--all")
        command(self.upstream, "git", "commit", "--quiet", "--message", "Change", *arguments)
        return "commit:" + command(self.upstream, "git", "rev-parse", "HEAD")[:12]

    def deploy(self) -> None:
        """Register infra/prefect.yaml, its volume in this test's folder."""
        (self.folder / "workspace").mkdir()
        text = (REPOSITORY / "infra/prefect.yaml").read_text()
        text = text.replace("/workspace", str(self.folder / "workspace"))
        text, replaced = re.subn(r"(work_pool:\n +name: )retrain\b", rf"\g<1>{POOL}", text)
        assert replaced == 2
        (self.folder / "prefect.yaml").write_text(text)
        prefect_api.ask(self.api, "work_pools/", {"name": POOL, "type": "process"})
        shutil.copytree(self.upstream / "flows", self.folder / "flows")
        deploy = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all", "--prefect-file", "prefect.yaml"]
        done = subprocess.run(
            deploy, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def run(self, *tags: str) -> dict[str, Any]:
        """Run the deployment; return the flow run once it has completed."""
        deployment = prefect_api.ask(self.api, "deployments/name/retrain/retrain")
        question = {"parameters": {"overrides": {}, "push_data": False, "save_run": False}, "tags": tags}
        run = prefect_api.ask(self.api, f"deployments/{deployment['id']}/create_flow_run", question)["id"]
        for _ in range(4000):
            found = dict(prefect_api.ask(self.api, f"flow_runs/{run}"))
            if found["state_type"] in ("COMPLETED", "FAILED", "CRASHED"):
                break
            time.sleep(0.1)
        assert found["state_type"] == "COMPLETED", (self.folder / "worker.log").read_text()
        return found

    def says(self, run: dict[str, Any], text: str, times: int = 1) -> bool:
        """Return whether a run's log says something so often; its last lines may come after its end."""
        for _ in range(300):
            lines = prefect_api.log_lines(self.api, run["id"])
            if sum(text in line for line in lines) == times:
                return True
            time.sleep(0.1)
        raise AssertionError("\n".join(lines))


@pytest.fixture
def elsewhere(tmp_path: Path, prefect_server: PrefectServer) -> Iterator[Elsewhere]:
    made = Elsewhere(tmp_path, prefect_server)
    made.deploy()
    command_line = [sys.executable, "-m", "infra.worker", "--pool", POOL, "--type", "process", "--limit", "1"]
    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            command_line, cwd=tmp_path / "image", env=made.environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        yield made
    finally:
        stop_group(worker.pid, 60, worker)


def test_a_worker_follows_its_repository_and_keeps_its_own(elsewhere: Elsewhere) -> None:
    first = elsewhere.commit("--allow-empty")
    (elsewhere.upstream / "later.txt").touch()
    elsewhere.commit()
    run = elsewhere.run(first)  # as a run that is started again on an empty disk
    assert run["tags"] == [first]
    assert elsewhere.says(run, f"the run began with commit {first.removeprefix('commit:')} and goes on with it")
    assert not (elsewhere.clone / "later.txt").exists()
    assert elsewhere.says(run, "ran (", times=len(STAGE_NAMES))
    checkpoint = elsewhere.clone / ".cache/checkpoints/1f/step-100.npz"
    checkpoint.parent.mkdir(parents=True)
    checkpoint.write_text("precious")

    with (elsewhere.upstream / "flows/retrain.py").open("a") as flow:
        flow.write(OWN_CODE)
    second = elsewhere.commit("--amend")  # a force-push
    run = elsewhere.run("nightly", "commit:0123456789ab")
    assert run["tags"] == ["nightly", second]
    assert elsewhere.says(run, "commit 0123456789ab, with which the run began, is gone: it begins anew with main")
    assert elsewhere.says(run, "unchanged (", times=len(STAGE_NAMES))
    assert checkpoint.read_text() == "precious"

    elsewhere.upstream.rename(elsewhere.folder / "away")
    run = elsewhere.run()
    assert run["tags"] == [second]
    assert elsewhere.says(run, f"the run goes on with the commit that is here, {second.removeprefix('commit:')}")
    assert elsewhere.says(run, "unchanged (", times=len(STAGE_NAMES))
    assert checkpoint.read_text() == "precious"

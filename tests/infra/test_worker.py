"""The worker's promise: SIGTERM to it reaches the running stage, and it leaves once the stage has saved."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import textwrap
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.left_behind import WORKER, end_left_behind, living_owner, processes_with, worker_environment

ROOT = Path(__file__).parents[2]
FLOW = """
    import os, signal, subprocess, sys
    from prefect import flow

    STAGE = '''
    import pathlib, signal, sys, time
    def save(*_):
        time.sleep(1)
        pathlib.Path("saved").write_text("checkpoint")
        sys.exit(0)
    signal.signal(signal.SIGTERM, save)
    pathlib.Path("started").write_text("training")
    time.sleep(120)
    '''

    @flow
    def training():
        stage = subprocess.Popen([sys.executable, "-c", STAGE], start_new_session=True)
        try:
            stage.wait()
        finally:
            os.killpg(stage.pid, signal.SIGTERM)
            stage.wait()
"""
DEPLOY = """
    import sys
    from prefect import flow

    flow.from_source(source=sys.argv[1], entrypoint="training.py:training").deploy(
        name="test", work_pool_name="retrain", job_variables={"working_dir": sys.argv[1]}, print_next_steps=False
    )
"""


def image_command() -> list[str]:
    """Return the image's command: what is tested is what runs."""
    (command,) = re.findall(r"^CMD (.+)$", (ROOT / "infra/docker/Dockerfile").read_text(), re.MULTILINE)
    return [str(word) for word in json.loads(command)]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 300) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.2)


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as response:  # noqa: S310 - loopback
            return bool(response.status == 200)
    except OSError:
        return False


@pytest.fixture
def environment(tmp_path: Path) -> Iterator[dict[str, str]]:
    """A Prefect server of its own; yields the environment of its clients."""
    port = free_port()
    environment = os.environ | {
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "PREFECT_API_URL": f"http://127.0.0.1:{port}/api",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_WORKER_WEBSERVER_HOST": "127.0.0.1",
        "PREFECT_WORKER_WEBSERVER_PORT": str(free_port()),
        "PREFECT_WORKER_QUERY_SECONDS": "1",
        "DO_NOT_TRACK": "1",
    }
    command = [
        sys.executable,
        "-m",
        "prefect",
        "server",
        "start",
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--no-ui",
    ]
    with (tmp_path / "server.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=tmp_path)
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{port}/api/health"), "the Prefect server's start", 300)
        yield environment
    finally:
        server.terminate()
        server.wait(30)


def run(environment: dict[str, str], folder: Path, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, *arguments],
        env=environment,
        cwd=folder,
        check=True,
        capture_output=True,
        text=True,
        timeout=120,
    ).stdout


def test_sigterm_reaches_the_stage_which_saves_before_the_worker_leaves(
    tmp_path: Path, environment: dict[str, str]
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    (work / "training.py").write_text(textwrap.dedent(FLOW))
    run(environment, work, "-m", "prefect", "work-pool", "create", "retrain", "--type", "process")
    run(environment, work, "-c", textwrap.dedent(DEPLOY), str(work))
    run(environment, work, "-m", "prefect", "deployment", "run", "training/test")

    with (tmp_path / "worker.log").open("wb") as log:
        worker = subprocess.Popen(
            [sys.executable, *image_command()[1:], "--metrics", str(metrics := free_port())],
            env=environment | {"PYTHONPATH": str(ROOT)},
            cwd=work,
            stdout=log,
            stderr=log,
        )
    try:
        wait_until((work / "started").exists, "the stage's start")
        assert answers(f"http://127.0.0.1:{environment['PREFECT_WORKER_WEBSERVER_PORT']}/health")
        assert answers(f"http://127.0.0.1:{metrics}/metrics")

        worker.send_signal(signal.SIGTERM)
        assert worker.wait(60) == 0, (tmp_path / "worker.log").read_text()
    finally:
        worker.kill()
        worker.wait()

    assert (work / "saved").read_text() == "checkpoint"
    runs = json.loads(run(environment, work, "-m", "prefect", "flow-run", "ls", "--output", "json"))
    assert [flow_run["state_type"] for flow_run in runs] in (["CRASHED"], ["SCHEDULED"])  # which it is tried again from


BESIDE = """
    import pathlib, signal, subprocess, sys, time
    signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("saved").write_text("checkpoint"), sys.exit(0)))
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(120)"
    subprocess.Popen([sys.executable, "-c", stubborn], start_new_session=True)
    pathlib.Path("started").write_text("training")
    time.sleep(120)
"""


def test_what_a_killed_worker_left_behind_saves_and_ends(tmp_path: Path) -> None:
    (tmp_path / "flow_run.py").write_text(textwrap.dedent(BESIDE))
    start = "import os, subprocess, sys, time; environment = os.environ | {'PREFECT__FLOW_RUN_ID': '1'}; "
    start += (
        "subprocess.Popen([sys.executable, 'flow_run.py'], env=environment, start_new_session=True); time.sleep(120)"
    )
    theirs = os.environ | worker_environment("worker", tmp_path)
    with subprocess.Popen([sys.executable, "-c", start], env=theirs, cwd=tmp_path) as worker:
        wait_until((tmp_path / "started").exists, "the flow run's start")
        assert living_owner("worker", tmp_path) is None  # it is this process
        assert len(processes_with(WORKER, theirs[WORKER])) == 3
        worker.kill()
    assert end_left_behind("another", tmp_path) == 0
    assert end_left_behind("worker", tmp_path, grace_seconds=2) == 2
    assert (tmp_path / "saved").exists()
    wait_until(lambda: not processes_with(WORKER, theirs[WORKER]), "the end of the stubborn one", 5)


def test_a_worker_runs_once(tmp_path: Path) -> None:
    start = f"""
        import subprocess, sys, time
        sys.path.insert(0, {str(ROOT)!r})
        from pathlib import Path
        from infra.left_behind import worker_environment
        import os
        theirs = os.environ | worker_environment("twin", Path.cwd())
        code = "import pathlib, time; pathlib.Path('up').touch(); time.sleep(120)"
        subprocess.Popen([sys.executable, "-c", code], env=theirs)
        time.sleep(120)
    """
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(start)], cwd=tmp_path, start_new_session=True
    ) as first:
        wait_until((tmp_path / "up").exists, "the first one's start")
        second = subprocess.run(
            [sys.executable, "-m", "infra.worker", "--pool", "retrain", "--name", "twin"],
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        os.killpg(first.pid, signal.SIGKILL)
    message = f"infra.worker: worker twin runs already in {tmp_path}: process {first.pid}\n"
    assert (second.returncode, second.stderr) == (2, message)


def test_a_worker_that_cannot_start_says_so_and_fails() -> None:
    refused = subprocess.run(
        [sys.executable, "-m", "infra.worker", "--no-such-option"],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )

    assert refused.returncode != 0
    assert "no-such-option" in refused.stdout + refused.stderr

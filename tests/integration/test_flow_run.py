"""`make run`'s command on a small project: what a person reads, and what is left when it ends in any way."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fixtures.dvc_project import REPOSITORY, make_project

SLOW = "import time\nprint('[ 10.0%] step 1', flush=True)\ntime.sleep(600)\n"
ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_"))} | {
    "PYTHONPATH": str(REPOSITORY)
}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Path]:
    folder = make_project(tmp_path / "project", "s3://retrain/dvc")
    try:
        yield folder
    finally:
        subprocess.run([sys.executable, "-m", "infra.local", "down"], cwd=folder, env=ENVIRONMENT, check=True)


def start(project: Path) -> subprocess.Popen[str]:
    """Start the command on digits, which need no host, in a session of its own as a terminal would."""
    return subprocess.Popen(
        [sys.executable, "-m", "flows.run", "--set", "download.dataset=digits"],
        cwd=project,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def status(project: Path) -> str:
    """Return what `infra.local status` says runs."""
    command = [sys.executable, "-m", "infra.local", "status"]
    return subprocess.run(command, cwd=project, env=ENVIRONMENT, capture_output=True, text=True, check=True).stdout


def test_a_run_then_a_failure(project: Path) -> None:
    first = start(project)
    output, _ = first.communicate()
    assert first.returncode == 0, output
    assert "make       [  0.0%] step 0" in output
    assert "make       ran (" in output
    assert "top-1 90.00 % (95 % interval 80.00 % to 95.00 %) on 3 test images of digits" in output
    assert "Prefect       not running" in status(project)

    (project / "make.py").write_text("raise SystemExit('make: the archive is empty')")
    second = start(project)
    output, _ = second.communicate()
    assert second.returncode == 1
    assert output.splitlines()[-1] == "run: stage make failed with exit status 1: make: the archive is empty"
    assert "Traceback" not in output
    assert "Prefect       not running" in status(project)


@pytest.mark.parametrize(
    ("number", "expected"), [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.long)]
)
def test_interrupted_run_ends_at_once_and_leaves_no_process(project: Path, number: int, expected: int) -> None:
    (project / "make.py").write_text(SLOW)
    process = start(project)
    assert process.stdout is not None
    for line in process.stdout:
        if "step 1" in line:
            break
    os.killpg(process.pid, number)  # as Ctrl-C does: to all that the terminal holds
    output = process.stdout.read()
    assert process.wait() == expected, output
    assert "Traceback" not in output
    assert "Prefect       not running" in status(project)
    lock = (project / ".dvc/tmp/retrain.lock").read_text()
    assert lock == "{}"

import contextlib
import json
import os
import shlex
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import boto3
import pytest

from infra.left_behind import WORKER, processes_with
from infra.local.prefect_server import PrefectServer, prefect_environment
from infra.local.process import BackgroundProcess, free_port, is_free
from infra.local.worker import NAME
from infra.prefect_api import PrefectAPI
from infra.process_group import birth_of
from tests.fixtures.dvc_project import REPOSITORY

SLEEP = [sys.executable, "-u", "-c", "print('up'); import time; time.sleep(600)"]


def test_process_is_started_once_and_stopped(tmp_path: Path) -> None:
    process = BackgroundProcess("sleeper", tmp_path)
    process.start(SLEEP, os.environ, tmp_path)
    pid = process.pid
    assert pid is not None
    assert os.getsid(pid) == pid  # out of reach of the terminal's Ctrl-C
    again = BackgroundProcess("sleeper", tmp_path)  # as another command would find it
    again.start(SLEEP, os.environ, tmp_path)
    assert again.pid == pid
    assert process.stop()
    assert birth_of(pid) is None
    assert not again.stop()


def test_stale_record_stops_nobody(tmp_path: Path) -> None:
    with subprocess.Popen(SLEEP, stdout=subprocess.DEVNULL) as stranger:
        record = {"pid": stranger.pid, "birth": "another process that had this number"}
        (tmp_path / "sleeper.json").write_text(json.dumps(record))
        process = BackgroundProcess("sleeper", tmp_path)
        assert process.pid is None
        assert not process.stop()
        assert birth_of(stranger.pid) is not None
        stranger.kill()


def test_last_words_are_the_logs_end(tmp_path: Path) -> None:
    process = BackgroundProcess("speaker", tmp_path)
    assert process.last_words() == "nothing"
    (tmp_path / "speaker.log").write_text("one\ntwo\n\nthree\nfour\n")
    assert process.last_words() == "two / three / four"


def test_long_log_is_put_aside_while_its_process_writes_on(tmp_path: Path) -> None:
    process = BackgroundProcess("speaker", tmp_path)
    process.start([sys.executable, "-c", "import time; time.sleep(600)"], os.environ, tmp_path)
    with process.log.open("ab", buffering=0) as writer:  # as the process itself: its output is appended
        for text in (b"first", b"second", b"third", b"fourth", b"fifth"):
            writer.write(text)
            assert not process.rotate_log(limit=100)
            assert process.rotate_log(limit=1)
        writer.write(b"last")
    process.stop()
    logs = {path.name: path.read_bytes().strip(b"\0") for path in tmp_path.glob("speaker.log*")}
    assert {name: logs[name].rsplit(b"\n")[-1] for name in logs} == {
        "speaker.log": b"last",
        "speaker.log.1": b"fifth",
        "speaker.log.2": b"fourth",
        "speaker.log.3": b"third",
    }


def test_taken_port_is_not_chosen() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert not is_free(port)
        assert free_port(port) != port
    assert free_port(port) == port


class AnotherServer(BaseHTTPRequestHandler):
    """A Prefect server of another folder, as far as ours looks."""

    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'{"home": "/elsewhere"}')


def test_a_port_that_another_prefect_server_takes_meanwhile_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with ThreadingHTTPServer(("127.0.0.1", 0), AnotherServer) as another:
        threading.Thread(target=another.serve_forever, daemon=True).start()
        ports = iter([another.server_port, free_port()])
        monkeypatch.setattr("infra.local.prefect_server.free_port", lambda *_: next(ports))
        server = PrefectServer(tmp_path)
        sent_there = prefect_environment(tmp_path)["PREFECT_API_AUTH_STRING"]
        assert server.start()
        try:
            assert server.is_running()
            assert server.url != f"http://127.0.0.1:{another.server_port}"
            assert server.environment["PREFECT_API_AUTH_STRING"] != sent_there, "whoever listens there knows it"
        finally:
            server.stop()
            another.shutdown()


def infra_local(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "PREFECT_"))}
    return subprocess.run(
        [sys.executable, "-m", "infra.local", *arguments],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Yield a folder with a whole stack that runs."""
    folder = tmp_path_factory.mktemp("stack")
    up = infra_local(folder, "up")
    try:
        assert up.returncode == 0, up.stdout + up.stderr
        yield folder
    finally:
        infra_local(folder, "down")


def processes(folder: Path, *names: str) -> dict[str, int]:
    """Return the process ids of the stack by the path of their record, those of the servers or of the named ones."""
    wanted = names or ("server.json", "worker.json")
    records = [path for path in folder.glob(".local/*/*.json") if path.name in wanted]
    return {str(path.relative_to(folder)): json.loads(path.read_text())["pid"] for path in records}


def variables(folder: Path) -> dict[str, str]:
    """Return what `env` tells a shell to export."""
    lines = infra_local(folder, "env").stdout.splitlines()
    return dict(shlex.split(line.removeprefix("export "))[0].split("=", 1) for line in lines)


def test_up_twice_starts_nothing_twice(stack: Path) -> None:
    before = processes(stack)
    assert len(before) == 3
    again = infra_local(stack, "up")
    assert again.returncode == 0, again.stderr
    assert processes(stack) == before
    assert "not running" not in again.stdout


def test_env_reaches_the_servers(stack: Path) -> None:
    found = variables(stack)
    with urllib.request.urlopen(f"{found['PREFECT_API_URL']}/health") as answer:  # noqa: S310
        assert answer.status == 200
    client = boto3.client(
        "s3",
        endpoint_url=found["AWS_ENDPOINT_URL_S3"],
        aws_access_key_id=found["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=found["AWS_SECRET_ACCESS_KEY"],
        region_name=found["AWS_DEFAULT_REGION"],
    )
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["retrain"]


def test_ui_is_served_and_nothing_counts_its_users(stack: Path) -> None:
    address = variables(stack)["PREFECT_API_URL"].removesuffix("/api")
    with urllib.request.urlopen(address) as answer:  # noqa: S310
        assert b"<title>" in answer.read()
    settings = PrefectAPI.from_environment(variables(stack)).get("admin/settings")
    assert settings["server"]["analytics_enabled"] is False


def test_prefect_asks_for_a_password_that_only_the_owner_can_read(stack: Path) -> None:
    found = variables(stack)
    question = urllib.request.Request(f"{found['PREFECT_API_URL']}/deployments/filter", b"{}", method="POST")  # noqa: S310
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(question)  # noqa: S310
    assert refused.value.code == HTTPStatus.UNAUTHORIZED
    password = stack / ".local/prefect/password"
    assert password.read_text() == found["PREFECT_API_AUTH_STRING"]
    modes = {
        path.relative_to(stack).as_posix(): oct(path.stat().st_mode & 0o777) for path in (stack / ".local", password)
    }
    assert modes == {".local": "0o700", ".local/prefect/password": "0o600"}


def test_the_pages_send_the_password_to_their_own_server(stack: Path) -> None:
    api = variables(stack)["PREFECT_API_URL"]
    with urllib.request.urlopen(f"{api.removesuffix('/api')}/ui-settings") as answer:  # noqa: S310
        assert json.load(answer)["api_url"] == api


def test_everything_listens_on_loopback_only(stack: Path) -> None:
    assert is_free_elsewhere(variables(stack)["PREFECT_API_URL"])
    assert is_free_elsewhere(variables(stack)["AWS_ENDPOINT_URL_S3"])


def is_free_elsewhere(address: str) -> bool:
    """Return whether the port of an address can be bound on another loopback address: nobody holds 0.0.0.0."""
    port = int(address.removesuffix("/api").rpartition(":")[2])
    with socket.socket() as probe, contextlib.suppress(OSError):
        probe.bind(("127.0.0.2", port))
        return True
    return False


def test_secrets_are_for_their_owner_only(stack: Path) -> None:
    assert stat.S_IMODE((stack / ".local/object_store.env").stat().st_mode) == 0o600
    assert stat.S_IMODE((stack / ".local/prefect").stat().st_mode) == 0o700


def test_down_and_up_keep_the_data_and_the_addresses(stack: Path) -> None:
    before, pids = variables(stack), processes(stack)
    down = infra_local(stack, "down")
    assert down.returncode == 0, down.stderr
    assert all(birth_of(pid) is None for pid in pids.values())
    assert infra_local(stack, "down").returncode == 0
    assert "not running" in infra_local(stack, "status").stdout
    nothing = infra_local(stack, "env")
    assert (nothing.returncode, nothing.stderr) == (
        2,
        "infra.local: nothing is running here; start it with: make up\n",
    )
    assert infra_local(stack, "up").returncode == 0
    assert variables(stack) == before


WATCHED = ("object store", "Prefect server", "worker")


def test_what_is_killed_is_started_again(stack: Path) -> None:
    before, url = processes(stack), variables(stack)["PREFECT_API_URL"]
    for pid in {*before.values(), *prefect_workers(stack)}:
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: set(before.values()).isdisjoint(processes(stack).values()), "the start of all")
    wait_until(lambda: "not running" not in infra_local(stack, "status").stdout, "their answers")
    assert variables(stack)["PREFECT_API_URL"] == url
    assert len(prefect_workers(stack)) == 1
    log, lines = stack / ".local/supervisor/supervisor.log", [f"the {name} runs again" for name in WATCHED]
    wait_until(lambda: all(line in log.read_text() for line in lines), "a line of each in the supervisor's log")


@pytest.mark.long  # tests/integration/test_drill.py cuts the power while a run is at work
def test_after_a_power_cut_up_brings_everything_back(stack: Path) -> None:
    everything = {**processes(stack), **processes(stack, "supervisor.json")}
    for pid in {*everything.values(), *prefect_workers(stack)}:
        os.kill(pid, signal.SIGKILL)
    up = infra_local(stack, "up")
    assert up.returncode == 0, up.stderr
    assert "not running" not in up.stdout
    assert set(everything.values()).isdisjoint({**processes(stack), **processes(stack, "supervisor.json")}.values())
    assert len(prefect_workers(stack)) == 1


def prefect_workers(folder: Path) -> set[int]:
    """Return the process ids of the Prefect workers of a stack."""
    return processes_with(WORKER, f"{NAME} in {folder}")


def wait_until(holds: Callable[[], bool], what: str, seconds: float = 180) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, f"{what} did not happen within {seconds:.0f} s"
        time.sleep(0.5)


def test_object_store_can_be_alone(tmp_path: Path) -> None:
    try:
        up = infra_local(tmp_path, "up", "--object-store-only")
        assert up.returncode == 0, up.stderr
        assert len(processes(tmp_path)) == 1
        assert "PREFECT_API_URL" not in variables(tmp_path)
    finally:
        assert infra_local(tmp_path, "down").returncode == 0

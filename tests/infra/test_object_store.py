"""SeaweedFS is started once, on loopback, found again, and stopped; a stale record never costs a stranger its life."""

import http.client
import json
import os
import signal
import socket
import ssl
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.s3.client import connect
from tasks.stage.errors import InputError


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path / "local")
    yield store
    store.stop()


def _record(store: ObjectStore) -> Path:
    return store.folder / "object_store/server.json"


def _pid(store: ObjectStore) -> int:
    return int(json.loads(_record(store).read_text())["pid"])


def _listening(pid: int) -> set[str]:
    """Return the addresses, as /proc has them, on which a process listens."""
    sockets = set()
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        target = str(descriptor.readlink())
        if target.startswith("socket:["):
            sockets.add(target.removeprefix("socket:[").rstrip("]"))
    rows = [line.split() for name in ("tcp", "tcp6") for line in Path(f"/proc/net/{name}").read_text().splitlines()[1:]]
    return {row[1].partition(":")[0] for row in rows if row[3] == "0A" and row[9] in sockets}


def test_it_starts_once_keeps_its_data_and_stops(store: ObjectStore) -> None:
    store.start()
    first, endpoint = _pid(store), store.endpoint
    client = connect(store.environment)
    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["retrain"]
    client.put_object(Bucket="retrain", Key="kept", Body=b"kept")

    other = ObjectStore(store.folder)  # as another command would
    other.start()
    assert _pid(store) == first
    assert other.is_running()

    other.stop()
    assert not store.is_running()
    other.stop()
    store.start()
    assert store.endpoint == endpoint
    assert connect(store.environment).get_object(Bucket="retrain", Key="kept")["Body"].read() == b"kept"


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="needs /proc to see who listens where")
def test_it_listens_on_loopback_only(object_store: ObjectStore) -> None:
    assert _listening(_pid(object_store)) == {"0100007F"}


def test_its_secrets_are_its_owners(object_store: ObjectStore) -> None:
    for name in (
        "object_store.env",
        "object_store/identities.json",
        "object_store/security.toml",
        "object_store/key.pem",
    ):
        assert stat.S_IMODE((object_store.folder / name).stat().st_mode) == 0o600
    assert stat.S_IMODE((object_store.folder / "object_store").stat().st_mode) == 0o700
    arguments = Path(f"/proc/{_pid(object_store)}/cmdline")
    for shown in (object_store.log, *([arguments] if arguments.exists() else [])):
        assert object_store.secret_key not in shown.read_text()


def _answer(scheme: str, port: int, path: str) -> str:
    """Return what a stranger without certificate and keys is told: status and body, or the name of the error."""
    unverified = ssl.create_default_context()
    unverified.check_hostname, unverified.verify_mode = False, ssl.CERT_NONE
    if scheme == "http":
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
    else:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=5, context=unverified)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return f"{answer.status} {answer.read(200)!r}"
    except (OSError, http.client.HTTPException) as error:
        return type(error).__name__
    finally:
        connection.close()


def test_only_the_s3_port_answers_and_only_to_the_keys(object_store: ObjectStore) -> None:
    connect(object_store.environment).put_object(Bucket="retrain", Key="secret.txt", Body=b"secret")
    ports = json.loads((object_store.folder / "object_store/ports.json").read_text())
    asked = ("/", "/buckets/retrain/secret.txt", "/retrain/secret.txt", "/dir/assign", "/cluster/status", "/status")
    for name, port in ports.items():
        for scheme in ("http", "https"):
            for path in asked:
                answer = _answer(scheme, port, path)
                alive = (name, answer) == ("s3.port", "200 b''")  # that it lives is all that it says to anybody
                assert alive or not answer.startswith("2"), f"{name} says {answer} to {scheme} {path}"
    for channel in (ports["filer.port.grpc"], ports["master.port.grpc"], ports["volume.port.grpc"]):
        with socket.create_connection(("127.0.0.1", channel), timeout=5) as plain:
            plain.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0")
            assert not plain.recv(64), "gRPC is spoken without a certificate"


def test_its_sockets_are_for_its_owner_alone(object_store: ObjectStore) -> None:
    ports = json.loads((object_store.folder / "object_store/ports.json").read_text())
    sockets = Path("/tmp")  # noqa: S108 - where weed puts them, whatever TMPDIR says
    found = [path for port in ports.values() for path in sockets.glob(f"seaweedfs-*-{port}.sock")]
    assert found, "weed makes none any more: the umask may go"
    for path in found:
        assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0, path


def test_a_killed_server_comes_back_on_another_port_where_its_own_is_taken(store: ObjectStore) -> None:
    store.start()
    keys, endpoint = (store.access_key, store.secret_key), store.endpoint
    connect(store.environment).put_object(Bucket="retrain", Key="kept", Body=b"kept")
    os.kill(_pid(store), signal.SIGKILL)
    with socket.socket() as taken:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        _bind_when_free(taken, int(endpoint.rpartition(":")[2]))
        taken.listen()
        assert not store.is_running()
        store.start()
        assert store.endpoint != endpoint
        assert (store.access_key, store.secret_key) == keys
        assert connect(store.environment).get_object(Bucket="retrain", Key="kept")["Body"].read() == b"kept"


def _bind_when_free(probe: socket.socket, port: int) -> None:
    for _ in range(100):
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            signal.sigtimedwait([], 0.05)
        else:
            return
    raise AssertionError(f"port {port} stays taken")


def test_a_stale_record_never_costs_a_stranger_its_life(store: ObjectStore) -> None:
    store.start()
    record = json.loads(_record(store).read_text())
    store.stop()
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as stranger:
        _record(store).write_text(json.dumps({**record, "pid": stranger.pid}))  # as after a crash
        assert not store.is_running()
        store.stop()
        assert stranger.poll() is None
        stranger.communicate(b"\n")
    assert stranger.returncode == 0


def test_a_store_that_was_never_started_says_so(store: ObjectStore) -> None:
    assert not store.is_running()
    store.stop()
    with pytest.raises(InputError, match="was never started"):
        _ = store.environment


def test_a_server_that_does_not_start_is_quoted(store: ObjectStore) -> None:
    home = store.folder / "object_store"
    home.mkdir(parents=True)
    (home / "data").mkdir()
    (home / "data/filerldb2").write_text("a file where the server wants a folder")
    with pytest.raises(InputError, match=r"the object store did not start; the end of .*server\.log: \S"):
        store.start()
    assert not store.is_running()


def test_dvc_is_told_how_to_reach_the_store_of_the_default_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    config = Path(".dvc/config.local")
    config.write_text("[cache]\n    dir = elsewhere\n['remote \"storage\"']\n    endpointurl = old\n")
    store = ObjectStore()
    store.start()
    try:
        text = config.read_text()
        assert stat.S_IMODE(config.stat().st_mode) == 0o600
        assert "[cache]\n    dir = elsewhere\n" in text
        assert f"endpointurl = {store.endpoint}\n" in text
        assert f"secret_access_key = {store.secret_key}\n" in text
        assert "old" not in text
    finally:
        store.stop()


def test_a_store_elsewhere_leaves_dvc_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path(".dvc").mkdir()
    store = ObjectStore(Path("elsewhere"))
    store.start()
    store.stop()
    assert not Path(".dvc/config.local").exists()

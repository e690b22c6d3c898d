"""The Kubernetes objects fit together and confine the worker; no cluster is needed to see that."""

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.fixtures.kubernetes_objects import FOLDER, ROOT, read_kustomization, read_objects

DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()
OVERLAYS = [FOLDER / "workers", FOLDER / "jobs"]
KUSTOMIZATION = read_kustomization(FOLDER / "workers")
OBJECTS = read_objects(FOLDER / "workers")
POD: dict[str, Any] = OBJECTS["StatefulSet/worker"]["spec"]["template"]["spec"]
WORKER: dict[str, Any] = POD["containers"][0]


@pytest.mark.parametrize("folder", [FOLDER / "base", *OVERLAYS], ids=lambda path: str(path.name))
def test_every_object_is_applied(folder: Path) -> None:
    no_objects = {"kustomization.yaml", "prefect.yaml"}

    assert {path.name for path in folder.glob("*.yaml")} - no_objects == {
        name for name in read_kustomization(folder)["resources"] if name.endswith(".yaml")
    }


def test_the_example_secret_holds_no_secret() -> None:
    example = yaml.safe_load((FOLDER / "secret.example.yaml").read_text())

    assert set(example["stringData"].values()) == {""}
    assert f"Secret/{example['metadata']['name']}" not in OBJECTS
    assert WORKER["envFrom"][1]["secretRef"]["name"] == example["metadata"]["name"]


def test_names_that_the_worker_uses_exist() -> None:
    assert f"ServiceAccount/{POD['serviceAccountName']}" in OBJECTS
    assert f"ConfigMap/{WORKER['envFrom'][0]['configMapRef']['name']}" in OBJECTS
    volumes = {volume["name"] for volume in POD["volumes"]}
    volumes |= {claim["metadata"]["name"] for claim in OBJECTS["StatefulSet/worker"]["spec"]["volumeClaimTemplates"]}
    mounted = {mount["name"] for container in (WORKER, *POD["initContainers"]) for mount in container["volumeMounts"]}
    assert mounted == volumes
    assert {container["image"] for container in (WORKER, *POD["initContainers"])} == {
        KUSTOMIZATION["images"][0]["name"]
    }


def test_everything_that_selects_the_worker_finds_it() -> None:
    labels = OBJECTS["StatefulSet/worker"]["spec"]["template"]["metadata"]["labels"]
    selectors = [
        OBJECTS["StatefulSet/worker"]["spec"]["selector"]["matchLabels"],
        OBJECTS["Service/worker"]["spec"]["selector"],
        OBJECTS["PodDisruptionBudget/worker"]["spec"]["selector"]["matchLabels"],
        OBJECTS["NetworkPolicy/worker"]["spec"]["podSelector"]["matchLabels"],
    ]

    assert all(selector.items() <= labels.items() for selector in selectors)
    assert OBJECTS["StatefulSet/worker"]["spec"]["serviceName"] == "worker"


@pytest.mark.parametrize("container", [WORKER, *POD["initContainers"]], ids=lambda container: str(container["name"]))
def test_a_container_is_confined(container: dict[str, Any]) -> None:
    security = container["securityContext"]

    assert security["readOnlyRootFilesystem"] is True
    assert security["allowPrivilegeEscalation"] is False
    assert security["capabilities"] == {"drop": ["ALL"]}
    assert container["resources"]["limits"]["memory"]


def test_the_pod_is_the_image_s_user_without_an_api_token() -> None:
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]

    assert (str(POD["securityContext"]["runAsUser"]), str(POD["securityContext"]["runAsGroup"])) == user
    assert POD["securityContext"]["runAsNonRoot"] is True
    assert POD["automountServiceAccountToken"] is False
    assert OBJECTS["Namespace/retrain"]["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_the_worker_has_a_gpu_and_time_to_save() -> None:
    assert WORKER["resources"]["limits"]["nvidia.com/gpu"] == 1
    assert POD["terminationGracePeriodSeconds"] >= 60
    assert OBJECTS["PodDisruptionBudget/worker"]["spec"]["maxUnavailable"] == 1


def test_probes_ask_the_port_that_the_image_s_command_opens() -> None:
    assert "--with-healthcheck" in DOCKERFILE
    (port,) = WORKER["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in DOCKERFILE
    assert WORKER["livenessProbe"]["httpGet"] == {"path": "/health", "port": port["name"]}


def test_the_server_s_version_is_the_workers() -> None:
    values = yaml.safe_load((FOLDER / "prefect-server.values.yaml").read_text())
    locked = re.findall(r"^prefect==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)

    assert values["global"]["prefect"]["image"]["prefectTag"] == f"{locked[0]}-python3.11"
    assert values["server"]["basicAuth"]["enabled"] is True
    assert values["postgresql"]["enabled"] is False  # an external one, whose password is in a secret


@pytest.mark.parametrize("folder", OVERLAYS, ids=lambda path: str(path.name))
@pytest.mark.skipif(not shutil.which("kubectl"), reason="kubectl is not installed")
def test_kustomize_renders_every_object(folder: Path) -> None:
    rendered = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True, timeout=60)
    items = list(yaml.safe_load_all(rendered.stdout))

    assert {f"{item['kind']}/{item['metadata']['name']}" for item in items} == set(read_objects(folder))
    assert {item["metadata"].get("namespace", "retrain") for item in items} == {"retrain"}
    assert "image: retrain\n" not in rendered.stdout

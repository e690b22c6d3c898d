"""A run as a Job: the pool and its deployment on a real Prefect server, and the Job that Prefect's own worker makes."""

import asyncio
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import UUID

import pytest
import yaml

from infra.automations import HEARTBEAT_SECONDS, automations
from infra.hosts.place import PORT
from infra.local.prefect_server import PrefectServer
from tests.fixtures.kubernetes_objects import FOLDER, ROOT, read_objects
from tests.fixtures.prefect_api import ask, know

JOBS = FOLDER / "jobs"
OBJECTS = read_objects(JOBS)
TEMPLATE: dict[str, Any] = json.loads((JOBS / "base-job-template.json").read_text())
DOCKERFILE = (ROOT / "infra/docker/Dockerfile").read_text()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrefectServer]:
    """A Prefect server with the pool and the deployment, made by the commands of the README."""
    started = PrefectServer(tmp_path_factory.mktemp("jobs"))
    started.start()
    know(started.environment)
    try:
        environment = os.environ | started.environment
        environment |= {"RETRAIN_REPOSITORY": "https://git.example.com/retrain.git", "RETRAIN_BRANCH": "main"}
        for command in readme_commands():
            subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=environment, check=True, capture_output=True)
        yield started
    finally:
        started.stop()


def readme_commands() -> list[list[str]]:
    """Return the README's Prefect commands for Jobs."""
    text = (FOLDER / "README.md").read_text().replace("\\\n", " ")
    return [
        line.partition("#")[0].removeprefix("python -m ").split()
        for line in text.splitlines()
        if re.match(r"prefect .*(create retrain-jobs|jobs/prefect\.yaml)|python -m infra\.automations", line)
    ]


def rendered(server: PrefectServer, job_variables: dict[str, Any]) -> dict[str, Any]:
    """Return the Job that Prefect's Kubernetes worker makes of a run of the deployment."""
    api = server.environment["PREFECT_API_URL"]
    deployment = ask(api, "deployments/name/retrain/retrain-job")
    run = ask(api, f"deployments/{deployment['id']}/create_flow_run", {"job_variables": job_variables})
    return asyncio.run(_rendered(server, UUID(run["id"])))


async def _rendered(server: PrefectServer, run_id: UUID) -> dict[str, Any]:
    from prefect.client.orchestration import get_client  # noqa: PLC0415 - Prefect takes seconds to import
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings  # noqa: PLC0415
    from prefect_kubernetes.worker import KubernetesWorkerJobConfiguration  # noqa: PLC0415

    settings = {name: server.environment[name.name] for name in (PREFECT_API_URL, PREFECT_API_AUTH_STRING)}
    with temporary_settings(settings):
        async with get_client() as client:
            run = await client.read_flow_run(run_id)
            assert run.deployment_id
            deployment = await client.read_deployment(run.deployment_id)
            pool = await client.read_work_pool("retrain-jobs")
            values = deployment.job_variables | (run.job_variables or {})
            configuration = await KubernetesWorkerJobConfiguration.from_template_and_values(
                pool.base_job_template, values, client=client
            )
            flow = await client.read_flow(run.flow_id)
            configuration.prepare_for_flow_run(run, deployment, flow, pool, "dispatcher")
            return dict(configuration.job_manifest)


def test_a_run_is_a_job_that_holds_its_gpus_only_while_it_lives(server: PrefectServer) -> None:
    job = rendered(server, {"gpus": 2, "memory": "32Gi"})
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]

    assert (job["spec"]["completions"], job["spec"]["parallelism"], job["spec"]["backoffLimit"]) == (1, 1, 0)
    assert job["spec"]["ttlSecondsAfterFinished"] == 86400
    assert pod["restartPolicy"] == "Never"
    assert pod["terminationGracePeriodSeconds"] == 300
    assert container["resources"]["limits"] == {"memory": "32Gi", "ephemeral-storage": "50Gi", "nvidia.com/gpu": 2}
    assert container["args"] == ["prefect", "flow-run", "execute"]
    environment = {item["name"]: item.get("value") for item in container["env"]}
    assert environment["PREFECT__FLOW_RUN_ID"] == job["metadata"]["labels"]["prefect.io/flow-run-id"]
    assert environment["PREFECT_FLOW_RUN_EXECUTE_SIGTERM_BEHAVIOR"] == "reschedule", "a drained node's run comes back"
    assert environment["PREFECT_FLOWS_HEARTBEAT_FREQUENCY"] == str(HEARTBEAT_SECONDS)
    assert job["spec"]["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == "run"


def test_several_hosts_are_an_indexed_job_whose_pods_have_names(server: PrefectServer) -> None:
    job = rendered(server, {"hosts": 3})
    pod = job["spec"]["template"]["spec"]
    command = pod["containers"][0]["command"]

    assert (job["spec"]["completionMode"], job["spec"]["completions"], job["spec"]["parallelism"]) == ("Indexed", 3, 3)
    assert "--count=3" in command
    assert f"--names=$(JOB)-{{index}}.{pod['subdomain']}" in command
    (job_name,) = (item for item in pod["containers"][0]["env"] if item["name"] == "JOB")
    assert job_name["valueFrom"]["fieldRef"]["fieldPath"] == "metadata.labels['batch.kubernetes.io/job-name']"
    service = OBJECTS[f"Service/{pod['subdomain']}"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True, "they become ready together"
    assert service["selector"].items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert [port["port"] for port in service["ports"]] == [PORT, PORT + 1]


def test_the_deployment_keeps_what_a_pod_s_disk_would_lose(server: PrefectServer) -> None:
    deployment = ask(server.environment["PREFECT_API_URL"], "deployments/name/retrain/retrain-job")

    assert deployment["parameters"]["push_data"] is True
    assert deployment["parameters"]["overrides"]["train.checkpoint_remote"].startswith("s3://")
    (pull,) = deployment["pull_steps"]
    (step,) = pull.values()
    command = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]["containers"][0]["command"]
    assert f"--workspace={step['folder']}" in command


def test_the_server_refuses_what_no_cluster_could_run(server: PrefectServer) -> None:
    api = server.environment["PREFECT_API_URL"]
    deployment = ask(api, "deployments/name/retrain/retrain-job")

    with pytest.raises(OSError, match=r"409|422"):
        ask(api, f"deployments/{deployment['id']}/create_flow_run", {"job_variables": {"hosts": 0}})


def test_a_run_s_pod_is_confined_and_names_what_exists() -> None:
    pod = TEMPLATE["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    properties = TEMPLATE["variables"]["properties"]

    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False
    user = re.findall(r"^USER (\d+):(\d+)$", DOCKERFILE, re.MULTILINE)[-1]
    assert (str(pod["securityContext"]["runAsUser"]), str(pod["securityContext"]["runAsGroup"])) == user
    assert f"ServiceAccount/{properties['service_account_name']['default']}" in OBJECTS
    assert f"ConfigMap/{container['envFrom'][0]['configMapRef']['name']}" in OBJECTS
    assert f"Namespace/{properties['namespace']['default']}" in OBJECTS
    images = {f"{item['newName']}:{item['newTag']}" for item in kustomized_images()}
    assert properties["image"]["default"] in images
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}


def kustomized_images() -> list[dict[str, str]]:
    return list(yaml.safe_load((JOBS / "kustomization.yaml").read_text())["images"])


def test_the_dispatcher_may_make_jobs_and_asks_for_no_gpu() -> None:
    pod = OBJECTS["Deployment/dispatcher"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    (lock,) = re.findall(r"^prefect==(\S+)", (ROOT / "requirements.lock").read_text(), re.MULTILINE)
    rules = OBJECTS["Role/dispatcher"]["rules"]

    assert container["image"] == f"prefecthq/prefect:{lock}-python3.11-kubernetes"
    assert "nvidia.com/gpu" not in container["resources"]["limits"]
    assert OBJECTS["RoleBinding/dispatcher"]["subjects"][0]["name"] == pod["serviceAccountName"]
    assert {"create", "delete", "watch"} <= {
        verb for rule in rules for verb in rule["verbs"] if "jobs" in rule["resources"]
    }
    assert not [rule for rule in rules if "secrets" in rule["resources"]]
    names = {item["name"]: item.get("value") for item in container["env"]}
    assert names["PREFECT_INTEGRATIONS_KUBERNETES_WORKER_API_AUTH_STRING_SECRET_NAME"] == "credentials"


def test_what_died_is_seen_and_started_again(server: PrefectServer) -> None:
    pod = OBJECTS["Deployment/sweep"]["spec"]["template"]["spec"]
    (sweep,), (dispatcher,) = (
        pod["containers"],
        OBJECTS["Deployment/dispatcher"]["spec"]["template"]["spec"]["containers"],
    )
    registered = ask(server.environment["PREFECT_API_URL"], "automations/filter", {})

    assert {item["name"] for item in automations()} <= {item["name"] for item in registered}
    assert sweep["args"] == ["python", "-m", "infra.restart", "--pool", "retrain-jobs"]
    assert sweep["image"] in {item["name"] for item in kustomized_images()}
    assert "--name" in dispatcher["args"], "a new pod is the same worker: what it took is not lost with the old one"

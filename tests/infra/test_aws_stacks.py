"""The stacks made by CloudFormation, and the pipeline's S3 calls in the bucket that comes of it: moto, on loopback.

What moto's CloudFormation leaves out of a bucket (versions, access, lifecycle) is put there by S3's own calls, with
what the template says; its policy, whose conditions moto does not know, is not. Whom the policies let do what is tested
in test_policies.py.
"""

import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flows.lineage import missing_in_remote, push
from tasks.registry.channels import move_pointer, read_channel
from tasks.registry.releases import list_releases, manifest_key, publish_release, pull_release, verify_folder
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError
from tasks.s3.client import connect
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tests.fixtures.aws_templates import FOLDER, resources
from tests.fixtures.buckets import write_release
from tests.fixtures.dvc_project import dvc, make_project

NAME = "retrain"
REGION = "us-east-1"
PARTITION = "aws"
NOW = "2024-01-02T03:04:05+00:00"
IMAGE = "/retrain/machine-image"


class Cloud:
    """moto's server, and a client for each of its services."""

    def __init__(self, url: str) -> None:
        self.environment = {
            "AWS_ENDPOINT_URL": url,
            "AWS_ENDPOINT_URL_S3": url,
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests-secret",
            "AWS_DEFAULT_REGION": REGION,
        }

    def client(self, service: str) -> Any:
        import boto3  # noqa: PLC0415 - half a second

        names = {"aws_access_key_id": "tests", "aws_secret_access_key": "tests-secret", "region_name": REGION}
        return boto3.client(service, endpoint_url=self.environment["AWS_ENDPOINT_URL"], **names)

    def create_stack(self, name: str, template: str, **parameters: str) -> dict[str, str]:
        """Create a stack and return the names of its resources by those in the template."""
        formation = self.client("cloudformation")
        given = [{"ParameterKey": key, "ParameterValue": value} for key, value in parameters.items()]
        formation.create_stack(StackName=name, TemplateBody=template, Parameters=given, Capabilities=["CAPABILITY_IAM"])
        (stack,) = formation.describe_stacks(StackName=name)["Stacks"]
        assert stack["StackStatus"] == "CREATE_COMPLETE"
        made = formation.describe_stack_resources(StackName=name)["StackResources"]
        return {item["LogicalResourceId"]: item["PhysicalResourceId"] for item in made if "LogicalResourceId" in item}


@pytest.fixture(scope="module")
def cloud() -> Iterator[Cloud]:
    from moto.server import ThreadedMotoServer  # noqa: PLC0415 - seconds

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield Cloud(f"http://{host}:{port}")
    server.stop()


@pytest.fixture(scope="module")
def bucket(cloud: Cloud) -> Store:
    """The bucket of bucket.yaml's stack, whole."""
    made = cloud.create_stack("bucket", (FOLDER / "bucket.yaml").read_text(), BucketName=NAME)
    assert made["Bucket"] == NAME
    wanted, store = resources("bucket.yaml")["Bucket"], cloud.client("s3")
    store.put_bucket_versioning(Bucket=NAME, VersioningConfiguration=wanted["VersioningConfiguration"])
    store.put_public_access_block(Bucket=NAME, PublicAccessBlockConfiguration=wanted["PublicAccessBlockConfiguration"])
    store.put_bucket_ownership_controls(Bucket=NAME, OwnershipControls=wanted["OwnershipControls"])
    rules = [as_s3_says_it(rule) for rule in wanted["LifecycleConfiguration"]["Rules"]]
    store.put_bucket_lifecycle_configuration(Bucket=NAME, LifecycleConfiguration={"Rules": rules})
    return Store(connect(cloud.environment), NAME, "models")


def as_s3_says_it(rule: dict[str, Any]) -> dict[str, Any]:
    """Return a rule of a template in the words of S3's own call."""
    words = {"Id": "ID", "Prefix": "Filter", "ExpiredObjectDeleteMarker": "Expiration"}
    said = {words.get(key, key): value for key, value in rule.items()}
    if "Expiration" in said:
        said["Expiration"] = {"ExpiredObjectDeleteMarker": said["Expiration"]}
    return {**said, "Filter": {"Prefix": said.get("Filter", "")}}


def test_the_bucket_has_what_the_template_says(cloud: Cloud, bucket: Store) -> None:
    store = cloud.client("s3")

    assert store.get_bucket_versioning(Bucket=bucket.name)["Status"] == "Enabled"
    (rule,) = store.get_bucket_encryption(Bucket=bucket.name)["ServerSideEncryptionConfiguration"]["Rules"]
    assert rule["ApplyServerSideEncryptionByDefault"]["SSEAlgorithm"] == "AES256"
    rules = store.get_bucket_lifecycle_configuration(Bucket=bucket.name)["Rules"]
    assert {item["ID"] for item in rules} == {
        item["Id"] for item in resources("bucket.yaml")["Bucket"]["LifecycleConfiguration"]["Rules"]
    }


def test_the_workers_stack_is_made_with_their_rights(cloud: Cloud) -> None:
    account = cloud.client("sts").get_caller_identity()["Account"]
    identities, machines, parameters = (cloud.client(service) for service in ("iam", "ec2", "ssm"))
    text = (FOLDER / "policies/worker.json").read_text().replace("BUCKET", NAME).replace('"ACCOUNT"', f'"{account}"')
    policy = identities.create_policy(PolicyName="retrain-worker", PolicyDocument=text)["Policy"]["Arn"]
    parameters.put_parameter(Name="/retrain/prefect-auth", Type="SecureString", Value="user:password")
    image = machines.describe_images(Owners=["amazon"], MaxResults=5)["Images"][0]["ImageId"]
    parameters.put_parameter(Name=IMAGE, Type="String", Value=image)
    subnets = [subnet["SubnetId"] for subnet in machines.describe_subnets()["Subnets"][:2]]
    # AWS's own parameter with its newest image is not in moto, which looks a default up even where a value is given.
    template, found = re.subn(r"(?<=Default: )/aws/service/\S+", IMAGE, (FOLDER / "worker.yaml").read_text())
    assert found == 1
    made = cloud.create_stack(
        "workers",
        template,
        WorkerPolicyArn=policy,
        Image=f"{account}.dkr.ecr.{REGION}.amazonaws.com/retrain:gpu-0.1.0",
        PrefectApiUrl="https://prefect.example.com/api",
        GitTokenParameter="/retrain/git-token",
        VpcId=machines.describe_vpcs()["Vpcs"][0]["VpcId"],
        SubnetIds=",".join(subnets),
        WorkerCount="1",
    )

    assert set(made) == set(resources("worker.yaml"))
    inline = identities.get_role_policy(RoleName=made["Role"], PolicyName="secrets")["PolicyDocument"]
    secrets = [
        f"arn:{PARTITION}:ssm:{REGION}:{account}:parameter/retrain/{name}" for name in ("prefect-auth", "git-token")
    ]
    assert re.findall(r"arn:[^']+", str(inline)) == secrets
    (profile,) = identities.list_instance_profiles()["InstanceProfiles"]
    assert [role["RoleName"] for role in profile["Roles"]] == [made["Role"]]
    (version,) = machines.describe_launch_template_versions(LaunchTemplateId=made["LaunchTemplate"])[
        "LaunchTemplateVersions"
    ]
    assert version["LaunchTemplateData"]["MetadataOptions"]["HttpTokens"] == "required"
    (group,) = cloud.client("autoscaling").describe_auto_scaling_groups()["AutoScalingGroups"]
    assert (group["AutoScalingGroupName"], len(group["Instances"])) == (made["Workers"], 1)


@pytest.mark.parametrize("policy", sorted(FOLDER.glob("policies/*.json")), ids=lambda path: str(path.stem))
def test_iam_takes_each_policy(cloud: Cloud, policy: Path) -> None:
    text = policy.read_text().replace("BUCKET", NAME).replace('"ACCOUNT"', '"123456789012"')
    identities = cloud.client("iam")
    made = identities.create_policy(PolicyName=policy.stem, PolicyDocument=text)["Policy"]

    version = identities.get_policy_version(PolicyArn=made["Arn"], VersionId=made["DefaultVersionId"])
    assert version["PolicyVersion"]["Document"] == json.loads(text)


def test_releases_are_published_moved_listed_and_pulled(cloud: Cloud, bucket: Store, tmp_path: Path) -> None:
    bucket.check()
    release = publish_release(bucket, tmp_path / "release", write_release(tmp_path / "release", "first"))
    assert publish_release(bucket, tmp_path / "release", write_release(tmp_path / "release", "first")) == release
    move_pointer(bucket, "champion", release, NOW, lambda _: "published")
    with pytest.raises(ConflictError):
        bucket.write(manifest_key(release.id), b"another", replacing=None)

    assert [found.id for found in list_releases(bucket)] == [release.id]
    assert read_channel(bucket, "champion") == release
    pull_release(bucket, release, tmp_path / "pulled")
    assert verify_folder(tmp_path / "pulled") == release
    listed = subprocess.run(
        [sys.executable, "-m", "tasks.registry", "list"],
        env={**os.environ, **cloud.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (listed.returncode, listed.stderr) == (0, "")
    assert release.id in listed.stdout


def test_checkpoints_reach_another_machine(bucket: Store, tmp_path: Path) -> None:
    remote = RemoteCheckpoints(f"s3://{bucket.name}/checkpoints", "a" * 64, bucket.client)
    remote.check()
    for step in (1, 2, 3):
        path = tmp_path / f"step-{step:08d}-{'b' * 64}.npz"
        path.write_bytes(b"weights")
        remote.upload(path)

    remote.remove()
    left = bucket.client.list_objects_v2(Bucket=bucket.name, Prefix="checkpoints/")
    assert left["KeyCount"] == 0


def test_dvc_s_versions_are_pushed(
    cloud: Cloud, bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in cloud.environment.items():
        monkeypatch.setenv(name, value)
    project = make_project(tmp_path / "project", f"s3://{bucket.name}/dvc")
    dvc(project, "remote", "modify", "--quiet", "storage", "endpointurl", cloud.environment["AWS_ENDPOINT_URL"])
    dvc(project, "repro", "--quiet")

    assert push(project, lambda _: None) > 0
    assert missing_in_remote(project) == []

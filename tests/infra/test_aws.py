"""The AWS templates and policies say what they must; cfn-lint checks the rest."""

import fnmatch
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.registry.releases import manifest_key
from tests.fixtures.aws_templates import FOLDER, resources

POLICIES = sorted((FOLDER / "policies").glob("*.json"))


def statements(policy: Path) -> list[dict[str, Any]]:
    return list(json.loads(policy.read_text())["Statement"])


def as_list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def allowed(policy: str, effect: str = "Allow") -> set[tuple[str, str]]:
    return {
        (action, resource)
        for statement in statements(FOLDER / f"policies/{policy}.json")
        if statement["Effect"] == effect
        for action in as_list(statement["Action"])
        for resource in as_list(statement["Resource"])
    }


def test_cfn_lint_finds_nothing() -> None:
    templates = [FOLDER / "bucket.yaml", FOLDER / "worker.yaml"]
    found = subprocess.run(
        [Path(sys.executable).with_name("cfn-lint"), *templates],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )

    assert (found.returncode, found.stdout) == (0, "")


@pytest.mark.parametrize("policy", POLICIES, ids=lambda path: str(path.stem))
def test_a_policy_grants_named_actions_on_one_bucket_of_one_account(policy: Path) -> None:
    for statement in statements(policy):
        assert statement["Effect"] in {"Allow", "Deny"}
        assert statement["Condition"]["StringEquals"] == {"aws:ResourceAccount": "ACCOUNT"}
        for action in as_list(statement["Action"]):
            assert re.fullmatch(r"s3:\w+", action), action
        for resource in as_list(statement["Resource"]):
            assert re.match(r"arn:aws:s3:::BUCKET(/\w+.*)?$", resource), resource


def test_programs_delete_nothing_but_checkpoints_unfinished_releases_and_rows_of_the_index() -> None:
    deletions = {
        (policy.stem, action, resource)
        for policy in POLICIES
        for action, resource in allowed(policy.stem)
        if action.startswith("s3:Delete")
    }

    assert deletions == {
        ("worker", "s3:DeleteObject", "arn:aws:s3:::BUCKET/checkpoints/*"),
        ("gc", "s3:DeleteObject", "arn:aws:s3:::BUCKET/models/releases/*"),
        ("gc", "s3:DeleteObject", "arn:aws:s3:::BUCKET/models/index/*"),
    }
    assert allowed("gc", "Deny") == {("s3:DeleteObject", "arn:aws:s3:::BUCKET/models/releases/*/manifest.json")}


def test_a_worker_may_do_what_mirrored_checkpoints_need() -> None:
    granted = allowed("worker")

    for action in ("GetObject", "PutObject", "DeleteObject", "AbortMultipartUpload"):
        assert (f"s3:{action}", "arn:aws:s3:::BUCKET/checkpoints/*") in granted
    for action in ("ListBucket", "ListBucketMultipartUploads"):
        assert (f"s3:{action}", "arn:aws:s3:::BUCKET") in granted


def test_each_role_can_do_more_than_the_one_before() -> None:
    read, publish, work = allowed("reader"), allowed("publisher"), allowed("worker")

    assert read < publish < work
    assert not [action for action, _ in read if "Put" in action]
    assert ("s3:PutObject", "arn:aws:s3:::BUCKET/models/channels/*") in publish
    assert ("s3:PutObject", "arn:aws:s3:::BUCKET/dvc/*") in work - publish


def test_the_bucket_is_private_encrypted_versioned_and_kept() -> None:
    bucket = resources("bucket.yaml")["Bucket"]

    assert set(bucket["PublicAccessBlockConfiguration"].values()) == {True}
    assert len(bucket["PublicAccessBlockConfiguration"]) == 4
    assert bucket["VersioningConfiguration"] == {"Status": "Enabled"}
    assert bucket["BucketEncryption"]["ServerSideEncryptionConfiguration"]
    assert any("AbortIncompleteMultipartUpload" in rule for rule in bucket["LifecycleConfiguration"]["Rules"])
    assert (FOLDER / "bucket.yaml").read_text().count(": Retain") == 2


def test_the_bucket_refuses_to_overwrite_a_release() -> None:
    denials = {item["Sid"]: item for item in resources("bucket.yaml")["BucketPolicy"]["PolicyDocument"]["Statement"]}
    immutable, pointers = denials["ReleasesAreImmutable"], denials["PointersMoveByCompareAndSwap"]

    assert {item["Effect"] for item in denials.values()} == {"Deny"}
    assert denials["OnlyTls"]["Condition"] == {"Bool": {"aws:SecureTransport": "false"}}
    guarded = immutable["Resource"]["Sub"].replace("${Bucket.Arn}/${Prefix}/", "")
    assert fnmatch.fnmatch(manifest_key("some-release"), guarded)
    assert immutable["Condition"]["Null"] == {"s3:if-none-match": "true"}
    assert set(pointers["Condition"]["Null"]) == {"s3:if-none-match", "s3:if-match"}


def test_workers_are_not_reachable_and_keep_nothing_in_the_clear() -> None:
    made = resources("worker.yaml")
    machine = made["LaunchTemplate"]["LaunchTemplateData"]

    assert "SecurityGroupIngress" not in made["SecurityGroup"]
    assert machine["MetadataOptions"]["HttpTokens"] == "required"
    assert all(disk["Ebs"]["Encrypted"] for disk in machine["BlockDeviceMappings"])
    assert "KeyName" not in machine


@pytest.fixture
def files() -> dict[str, str]:
    """The files that the user data writes on a new machine, its placeholders filled."""
    data = resources("worker.yaml")["LaunchTemplate"]["LaunchTemplateData"]["UserData"]["Fn::Base64"]["Sub"]
    filled = re.sub(r"\$\{(?!!)[\w:]+\}", "value", data).replace("${!", "${")
    assert filled.startswith("#cloud-config\n")
    written = yaml.safe_load(filled)["write_files"]
    return {Path(item["path"]).name: item["content"] for item in written}


def test_the_machine_s_scripts_parse(files: dict[str, str]) -> None:
    scripts = [content for content in files.values() if content.startswith("#!/usr/bin/env bash")]

    assert len(scripts) == 2
    for script in scripts:
        subprocess.run(["bash", "-n"], input=script, text=True, check=True)
        assert "set -euo pipefail" in script


def test_an_interruption_leaves_the_worker_time_to_save(files: dict[str, str]) -> None:
    unit = files["retrain-worker.service"]
    (stop,) = re.findall(r"^ExecStop=/usr/bin/docker stop --time (\d+)", unit, re.MULTILINE)
    (limit,) = re.findall(r"^TimeoutStopSec=(\d+)", unit, re.MULTILINE)

    assert 60 <= int(stop) < int(limit) < 120  # EC2 gives two minutes
    assert "systemctl stop retrain-worker.service" in files["retrain-interruption"]


def test_the_machine_s_secrets_are_private_and_in_memory(files: dict[str, str]) -> None:
    assert '"RETRAIN_GIT_TOKEN=$git_token"' in files["retrain-prepare"]
    assert files["retrain-prepare"].count("--with-decryption") == 2, "password and token come from SSM"
    assert "umask 077" in files["retrain-prepare"]
    assert "> /run/retrain/environment" in files["retrain-prepare"]
    assert "--env-file /run/retrain/environment" in files["retrain-worker.service"]

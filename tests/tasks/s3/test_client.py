"""boto3's errors become sentences that name the endpoint and the bucket, and never a credential."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.s3 import client as module
from tasks.s3.client import check_credentials, connect, storage_errors
from tasks.stage.errors import InputError, OutageError
from tests.fixtures.remote_checkpoints import READER


def _sentence(client: Any, bucket: str = "retrain", *, kind: type[InputError] = InputError) -> str:
    with pytest.raises(InputError) as caught, storage_errors(client, bucket):
        client.list_objects_v2(Bucket=bucket)
    assert type(caught.value) is kind
    return str(caught.value)


def test_a_custom_endpoint_gets_path_style_and_only_the_checksums_that_s3_requires(object_store: ObjectStore) -> None:
    config = connect(object_store.environment).meta.config
    assert config.s3["addressing_style"] == "path"
    assert config.request_checksum_calculation == "when_required"
    assert config.response_checksum_validation == "when_required"


def test_aws_itself_keeps_its_defaults() -> None:
    config = connect({"AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret"}).meta.config
    assert not (config.s3 or {}).get("addressing_style")
    assert config.request_checksum_calculation == "when_supported"


def test_an_unreachable_store_is_named(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ATTEMPTS", 1)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        endpoint = f"http://127.0.0.1:{unused.getsockname()[1]}"
        sentence = _sentence(connect({**object_store.environment, "AWS_ENDPOINT_URL_S3": endpoint}), kind=OutageError)
    assert sentence.startswith(f"the object store at {endpoint} cannot be reached; is it running?")


@pytest.mark.parametrize("name", ["AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"])
def test_wrong_credentials_are_said_and_not_shown(object_store: ObjectStore, name: str) -> None:
    sentence = _sentence(connect({**object_store.environment, name: "PLANTED"}))
    assert "does not accept the S3 credentials" in sentence
    assert object_store.endpoint in sentence
    for secret in ("PLANTED", object_store.access_key, object_store.secret_key):
        assert secret not in sentence


def test_missing_credentials_say_what_to_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "none"))
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:1")
    assert "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in _sentence(connect())


CONFIG = """
[profile single-sign-on]
sso_start_url = https://company.invalid/start
sso_region = us-east-1
sso_account_id = 111111111111
sso_role_name = retrain
[profile session]
sso_session = company
sso_account_id = 111111111111
sso_role_name = retrain
[sso-session company]
sso_start_url = https://company.invalid/start
sso_region = us-east-1
[profile empty]
region = us-east-1
[profile program]
credential_process = false
[profile role]
role_arn = arn:aws:iam::111111111111:role/retrain
source_profile = gone
[profile half]
aws_access_key_id = key
[profile whole]
aws_access_key_id = key
aws_secret_access_key = secret
"""
UNUSABLE = ("missing", "single-sign-on", "session", "empty", "program", "role", "half")


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Make a person's home with profiles, and an environment that chooses none; return its AWS configuration."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / ".aws").mkdir()
    (tmp_path / ".aws/config").write_text(CONFIG)
    return tmp_path / ".aws/config"


@pytest.mark.usefixtures("home")
@pytest.mark.parametrize("variable", ["AWS_PROFILE", "AWS_DEFAULT_PROFILE"])
@pytest.mark.parametrize("profile", UNUSABLE)
def test_a_profile_that_cannot_be_used_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, variable: str, profile: str
) -> None:
    monkeypatch.setenv(variable, profile)
    with pytest.raises(InputError) as caught:
        check_credentials()
    sentence = str(caught.value)
    assert sentence.startswith(f"{variable}={profile} cannot be used: ")
    assert f"aws sso login --profile {profile}" in sentence
    assert sentence.endswith(f"unset {variable}, for while it is set the local object store is not used")
    with pytest.raises(InputError) as caught:  # as a command of the registry meets it
        client = connect()
        with storage_errors(client, "retrain"):
            client.list_buckets()
    assert str(caught.value) == sentence


def test_credentials_that_can_be_had_pass(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    check_credentials()  # none are chosen: it may be a machine's role
    monkeypatch.setenv("AWS_PROFILE", "whole")
    check_credentials()
    home.write_text("")
    monkeypatch.delenv("AWS_PROFILE")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    with pytest.raises(InputError, match="missing: AWS_SECRET_ACCESS_KEY"):
        check_credentials()
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    check_credentials()


@pytest.mark.usefixtures("home")
def test_whoever_gives_credentials_out_may_be_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", "http://127.0.0.1:9/credentials")
    monkeypatch.setattr("botocore.utils.ContainerMetadataFetcher.SLEEP_TIME", 0)
    check_credentials()
    with pytest.raises(OutageError, match="cannot be had for now"):
        connect()


def test_the_local_store_is_reached_whatever_profile_is_chosen(
    object_store: ObjectStore, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_PROFILE", "missing")
    home.write_text("[default]\ns3 =\n    use_accelerate_endpoint = true\n[broken")
    buckets = connect(object_store.environment).list_buckets()["Buckets"]
    assert object_store.bucket in [bucket["Name"] for bucket in buckets]


def test_a_missing_bucket_is_named(object_store: ObjectStore) -> None:
    sentence = _sentence(connect(object_store.environment), "no-such-bucket")
    assert sentence == f"bucket 'no-such-bucket' does not exist at {object_store.endpoint}"


def test_a_missing_bucket_is_named_when_a_file_is_uploaded(object_store: ObjectStore, tmp_path: Path) -> None:
    client = connect(object_store.environment)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(InputError, match="'no-such-bucket' does not exist"), storage_errors(client, "no-such-bucket"):
        client.upload_file(str(tmp_path / "file"), "no-such-bucket", "key")


def test_a_denial_names_the_object(own_store: ObjectStore, tmp_path: Path) -> None:
    client = connect({**own_store.environment, **READER})
    (tmp_path / "file").write_bytes(b"x")
    place = f"access to s3://retrain/models/x at {own_store.endpoint}"
    with pytest.raises(InputError) as put, storage_errors(client, "retrain", "models/x"):
        client.put_object(Bucket="retrain", Key="models/x", Body=b"x")
    with pytest.raises(InputError) as uploaded, storage_errors(client, "retrain", "models/x"):
        client.upload_file(str(tmp_path / "file"), "retrain", "models/x")
    assert [str(put.value), str(uploaded.value)] == [f"{place} is denied to these S3 credentials"] * 2


# A program whose clock is off by some hours, to sign and to compare: Python reads it in one place.
SKEWED = """
import datetime, runpy, sys

class Skewed(datetime.datetime):
    @classmethod
    def now(cls, tz=None):
        return super().now(tz) + datetime.timedelta(hours=HOURS)

    @classmethod
    def utcnow(cls):
        return cls.now(datetime.timezone.utc).replace(tzinfo=None)

HOURS = int(sys.argv.pop(1))
datetime.datetime = Skewed
runpy.run_module("tasks.registry", run_name="__main__")
"""


@pytest.mark.parametrize(("hours", "relation"), [(24, "24h00m ahead of"), (-24, "2[34]h..m behind")])
def test_a_clock_that_is_off_by_a_day_is_said(object_store: ObjectStore, hours: int, relation: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", SKEWED, str(hours), "list"],
        env={**os.environ, **object_store.environment},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    place = f"that of the object store at {object_store.endpoint}"
    assert re.fullmatch(f"registry: this machine's clock is {relation} {place}; set it right\n", done.stderr)


def test_settings_that_make_no_sense_are_said(object_store: ObjectStore) -> None:
    with pytest.raises(InputError, match="S3 settings are wrong"):
        connect({**object_store.environment, "AWS_ENDPOINT_URL_S3": "not an address"})


@pytest.mark.parametrize("endpoint", ["http://name:PLANTED@127.0.0.1:1", "http://127.0.0.1:1/?token=PLANTED"])
def test_an_endpoint_with_a_credential_is_refused_and_not_shown(object_store: ObjectStore, endpoint: str) -> None:
    with pytest.raises(InputError, match="the S3 endpoint must hold no credentials") as caught:
        connect({**object_store.environment, "AWS_ENDPOINT_URL_S3": endpoint})
    assert "PLANTED" not in str(caught.value)

"""Credentials come from the environment first, then from a file that only its owner can read."""

import os
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.s3.credentials import (
    CHOSEN_ELSEWHERE,
    CREDENTIALS_FILE,
    CUSTOM_ENDPOINT_SETTINGS,
    find_credentials,
    load_credentials,
    read_credentials,
)
from tasks.stage.errors import InputError
from tests.fixtures.dvc_project import dvc, make_project
from tests.fixtures.faulty_s3 import FaultyS3

LINES = "AWS_ENDPOINT_URL_S3=http://127.0.0.1:1\nAWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=a=b\n"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*CHOSEN_ELSEWHERE, *CUSTOM_ENDPOINT_SETTINGS, "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "")  # restored afterwards, whatever load_credentials sets
        monkeypatch.delenv(name)
    path = tmp_path / "object_store.env"
    path.write_text(LINES)
    path.chmod(0o600)
    return path


def test_the_file_fills_an_environment_without_credentials(credentials: Path) -> None:
    load_credentials(credentials)
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key"
    assert os.environ["AWS_SECRET_ACCESS_KEY"] == "a=b"
    assert os.environ["AWS_ENDPOINT_URL_S3"] == "http://127.0.0.1:1"


@pytest.mark.parametrize("name", CHOSEN_ELSEWHERE)
def test_the_environment_comes_first(credentials: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "chosen")
    load_credentials(credentials)
    assert "AWS_SECRET_ACCESS_KEY" not in os.environ
    assert os.environ[name] == "chosen"


def test_no_file_is_no_error(credentials: Path) -> None:
    load_credentials(credentials.with_name("absent.env"))
    assert "AWS_ACCESS_KEY_ID" not in os.environ


@pytest.fixture
def copied_workspace(credentials: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Go to a copy of a project such as DVC makes for an experiment; return the project."""
    (tmp_path / ".local").mkdir()
    credentials.rename(tmp_path / CREDENTIALS_FILE)
    copied = tmp_path / ".dvc/tmp/exps/tmp1"
    copied.mkdir(parents=True)
    monkeypatch.chdir(copied)
    return tmp_path


def test_a_copy_below_the_project_finds_the_projects_file(copied_workspace: Path) -> None:
    assert find_credentials() == copied_workspace / CREDENTIALS_FILE
    load_credentials()
    assert os.environ["AWS_ACCESS_KEY_ID"] == "key"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a file away")
@pytest.mark.parametrize("foreign", [".", ".dvc", str(CREDENTIALS_FILE)])
def test_what_another_user_owns_above_is_not_taken(copied_workspace: Path, foreign: str) -> None:
    os.chown(copied_workspace / foreign, 12345, -1)
    assert find_credentials() is None


def test_a_file_above_that_others_can_read_is_refused(copied_workspace: Path) -> None:
    (copied_workspace / CREDENTIALS_FILE).chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"):
        load_credentials()


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o622])
def test_a_file_that_others_can_read_is_refused(credentials: Path, mode: int) -> None:
    credentials.chmod(mode)
    with pytest.raises(InputError, match="chmod 600"):
        load_credentials(credentials)


@pytest.mark.parametrize("line", ["AWS_ACCESS_KEY_ID", "PATH=/evil", "export AWS_X=1"])
def test_other_lines_are_refused_without_being_quoted(credentials: Path, line: str) -> None:
    credentials.write_text(f"# comment\n\n{line}\n")
    with pytest.raises(InputError, match="line 3") as caught:
        read_credentials(credentials)
    assert line not in str(caught.value)


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_a_custom_endpoint_gets_only_the_checksums_that_s3_requires(
    credentials: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv(name, "https://s3.example.com")
    load_credentials(credentials)
    assert {name: os.environ[name] for name in CUSTOM_ENDPOINT_SETTINGS} == CUSTOM_ENDPOINT_SETTINGS
    monkeypatch.setenv("AWS_REQUEST_CHECKSUM_CALCULATION", "when_supported")
    load_credentials(credentials)
    assert os.environ["AWS_REQUEST_CHECKSUM_CALCULATION"] == "when_supported"  # chosen by a person


def test_aws_itself_keeps_its_defaults(credentials: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    load_credentials(credentials)
    assert not set(CUSTOM_ENDPOINT_SETTINGS) & set(os.environ)


def test_dvc_too_speaks_to_a_custom_endpoint_by_path_and_without_checksums(
    object_store: ObjectStore, faulty_s3: FaultyS3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in faulty_s3.environment.items():
        monkeypatch.setenv(name, value)
    for name in CUSTOM_ENDPOINT_SETTINGS:
        monkeypatch.delenv(name)
    folder = f"dvc-{tmp_path.name}"
    project = make_project(tmp_path / "project", f"s3://{object_store.bucket}/{folder}")
    dvc(project, "repro", "--quiet")
    load_credentials()  # as the flow does before it runs DVC
    dvc(project, "push", "--quiet")
    uploads = faulty_s3.sent("PUT")
    assert uploads
    for request in uploads:
        assert request.path.startswith(f"/{object_store.bucket}/{folder}/")
        assert not [name for name in request.headers if "checksum" in name or name == "x-amz-trailer"]

"""Credentials come from the environment first, then from a file that only its owner can read."""

import os
from pathlib import Path

import pytest

from tasks.errors import InputError
from tasks.storage.credentials import CHOSEN_ELSEWHERE, load_credentials, read_credentials

LINES = "AWS_ENDPOINT_URL_S3=http://127.0.0.1:1\nAWS_ACCESS_KEY_ID=key\nAWS_SECRET_ACCESS_KEY=a=b\n"


@pytest.fixture
def credentials(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in (*CHOSEN_ELSEWHERE, "AWS_SECRET_ACCESS_KEY"):
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

"""A proxy that Prefect's client cannot use does not end Prefect, and is there for a download."""

import os
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from flows.command import run_lines
from infra.prefect_proxies import given_back, set_aside
from tests.fixtures.dvc_project import REPOSITORY
from tests.infra.test_local import infra_local

SOCKS = "socks5://127.0.0.1:9"
DEAD = "http://127.0.0.1:9"


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.lower().endswith("_proxy"):
            monkeypatch.delenv(name)


def put(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALL_PROXY", SOCKS),
        ("all_proxy", "socks5h://user:password@127.0.0.1:9"),
        ("HTTPS_PROXY", "socks://127.0.0.1:9"),  # as a desktop's settings write it
        ("http_proxy", "socks4://127.0.0.1:9"),
        ("HTTP_PROXY", "http://proxy:port"),
        ("NO_PROXY", "localhost,fe80::/10,[::1]"),
    ],
)
def test_what_the_client_cannot_use_is_set_aside_and_given_back(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises((ImportError, ValueError, httpx.InvalidURL)):
        httpx.Client()
    put(monkeypatch, set_aside(os.environ))
    httpx.Client().close()
    assert given_back(os.environ)[name] == value
    assert set_aside(os.environ) == {}
    printed: list[str] = []
    run_lines([sys.executable, "-c", f"import os; print(os.environ[{name!r}])"], Path.cwd(), printed.append)
    assert printed == [value]


@pytest.mark.parametrize("value", ["", DEAD, "127.0.0.1:9", "https://proxy.intranet:3128"])
def test_what_the_client_can_use_stays(value: str) -> None:
    environment = {"HTTPS_PROXY": value, "ALL_PROXY": value, "NO_PROXY": "localhost, .intranet,10.0.0.0/8,::1"}
    assert set_aside(environment) == {}
    assert given_back(environment) == environment


# A flow run with the server that `make run` starts.
RUN = """
import os
from flows.run import _start_prefect
from tasks.stage.errors import run_command
def body():
    _start_prefect()
    from prefect import flow
    flow(lambda: None, name="nothing")()
run_command("run", body)
"""


@pytest.mark.long
@pytest.mark.parametrize("proxies", [{"ALL_PROXY": SOCKS}, {"http_proxy": DEAD, "HTTPS_PROXY": DEAD, "NO_PROXY": "x"}])
def test_prefect_works_behind_any_proxy(tmp_path: Path, proxies: dict[str, str]) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PREFECT_")}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        cwd=tmp_path,
        env=environment | {"PYTHONPATH": str(REPOSITORY)} | proxies,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.long  # a minute; the tests above have each part of it
def test_a_whole_stack_starts_behind_any_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(monkeypatch, {"ALL_PROXY": SOCKS, "HTTP_PROXY": DEAD, "http_proxy": DEAD})
    try:
        up = infra_local(tmp_path, "up")
        assert up.returncode == 0, up.stdout + up.stderr
        variables = infra_local(tmp_path, "env").stdout
        assert "export NO_PROXY=localhost,127.0.0.1,::1\n" in variables
        command = f'{variables}"$0" -m prefect work-pool ls'  # as a person types it after eval
        listed = subprocess.run(
            ["bash", "-c", command, sys.executable], cwd=tmp_path, capture_output=True, text=True, check=False
        )
        assert listed.returncode == 0, listed.stderr
        assert "retrain" in listed.stdout
    finally:
        infra_local(tmp_path, "down")

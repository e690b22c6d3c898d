"""Whatever proxy a shell names, servers of this machine are reached without it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.stage.proxies import reach_loopback_directly
from tests.fixtures.http_server import FaultyServer

DEAD = "http://127.0.0.1:9"
LOOPBACK = "localhost,127.0.0.1,::1"

# Each client that this repository has, and then a process that another one starts.
CLIENTS = {
    "urllib": "import urllib.request; urllib.request.urlopen(URL).read()",
    "requests": "import requests; requests.get(URL).raise_for_status()",
    "httpx": "import httpx; httpx.get(URL).raise_for_status()",
    "aiohttp": """
import asyncio, aiohttp
async def ask():
    async with aiohttp.ClientSession(trust_env=True) as session:
        async with session.get(URL) as answer:
            answer.raise_for_status()
asyncio.run(ask())""",
    "boto3": """
from tasks.s3.client import connect
keys = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b"}
connect({"AWS_ENDPOINT_URL_S3": URL.removesuffix("/bucket/key"), **keys}).get_object(Bucket="bucket", Key="key")""",
    "a child": """
import subprocess, sys
child = f"import urllib.request; urllib.request.urlopen('{URL}').read()"
subprocess.run([sys.executable, "-c", child], check=True)""",
}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("excepted", [{}, {"NO_PROXY": "intranet"}, {"no_proxy": "intranet", "NO_PROXY": "other"}])
def test_every_client_reaches_loopback(http_server: FaultyServer, client: str, excepted: dict[str, str]) -> None:
    http_server.content["/bucket/key"] = b"content"
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
    proxies = {name: DEAD for upper in names for name in (upper, upper.lower())}
    by_number = http_server.url("/bucket/key")
    urls = [by_number, by_number.replace("127.0.0.1", "localhost")]
    ask = f"for url in {urls}:\n  run_command('ask', lambda: exec({CLIENTS[client]!r}, {{'URL': url}}))"
    done = subprocess.run(
        [sys.executable, "-c", f"from tasks.stage.errors import run_command\n{ask}"],
        cwd=Path(__file__).parents[3],
        env={name: value for name, value in os.environ.items() if "proxy" not in name.lower()} | proxies | excepted,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert [request.path for request in http_server.requests] == ["/bucket/key"] * 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {}),
        ({"NO_PROXY": "intranet"}, {"NO_PROXY": "intranet"}),  # macOS takes a proxy from its settings then
        ({"https_proxy": DEAD}, {"NO_PROXY": LOOPBACK, "no_proxy": LOOPBACK}),
        (
            {"ALL_PROXY": DEAD, "NO_PROXY": " a, b ,"},
            {"NO_PROXY": f"a,b,{LOOPBACK}", "no_proxy": f"a,b,{LOOPBACK}"},
        ),
        (
            {"HTTP_PROXY": DEAD, "NO_PROXY": "a", "no_proxy": "127.0.0.1,b"},
            {"NO_PROXY": f"a,{LOOPBACK}", "no_proxy": "127.0.0.1,b,localhost,::1"},
        ),
        ({"HTTP_PROXY": DEAD, "NO_PROXY": "*"}, {"NO_PROXY": "*"}),
    ],
)
def test_what_is_excepted_already_stays(given: dict[str, str], expected: dict[str, str]) -> None:
    environment = dict(given)
    reach_loopback_directly(environment)
    assert environment == given | expected
    reach_loopback_directly(environment)
    assert environment == given | expected

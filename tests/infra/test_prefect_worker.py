"""A worker waits for its server for longer than Prefect's own would."""

import asyncio

import httpx
import pytest
from prefect.utilities.services import critical_service_loop

from infra.prefect_worker import patient_service_loop

GIVES_UP_AFTER = 3 * 4  # Prefect's loop, with the worker's settings: four times three failures in a row


class EndError(Exception):
    """The test has seen enough."""


class Questions:
    """Asks a server that is away again and again, and then one that refuses."""

    def __init__(self, failures: int, status: int) -> None:
        self.asked, self.failures, self.status = 0, failures, status

    async def ask(self) -> None:
        self.asked += 1
        if self.asked > self.failures:
            raise EndError
        if self.asked % 2:
            async with httpx.AsyncClient() as client:
                await client.get("http://127.0.0.1:9")
        httpx.Response(self.status, request=httpx.Request("GET", "http://127.0.0.1:9")).raise_for_status()


def test_an_outage_is_outlasted(capsys: pytest.CaptureFixture[str]) -> None:
    questions = Questions(3 * GIVES_UP_AFTER, 503)
    with pytest.raises(EndError):
        asyncio.run(patient_service_loop(questions.ask, 0, backoff=4))
    printed = capsys.readouterr().out
    assert "the Prefect server is away: " in printed
    assert "the Prefect server is in trouble: 503" in printed


def test_prefects_own_loop_would_give_up() -> None:
    questions = Questions(3 * GIVES_UP_AFTER, 503)
    with pytest.raises(RuntimeError, match="threshold"):
        asyncio.run(critical_service_loop(questions.ask, 0, backoff=4))
    assert questions.asked == GIVES_UP_AFTER


def test_a_refusal_is_no_outage() -> None:
    questions = Questions(3 * GIVES_UP_AFTER, 401)
    with pytest.raises(httpx.HTTPStatusError):
        asyncio.run(patient_service_loop(questions.ask, 0, backoff=4))

"""Questions to a Prefect server over HTTP: a second and 100 MB less than Prefect's own client takes to import.

api = PrefectAPI.from_environment()      # PREFECT_API_URL, and PREFECT_API_AUTH_STRING or PREFECT_API_KEY where set
api.post("flow_runs/filter", {"limit": 1})
"""

import base64
import http.client
import json
import os
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from http import HTTPStatus
from typing import Any

from tasks.stage.errors import InputError, OutageError

TIMEOUT_SECONDS = 10.0
ATTEMPTS = 5  # the server answers 503 while its SQLite is locked, and asks to be asked again
PAUSE_SECONDS = 1.0


class ServerAwayError(OutageError):
    """The server cannot be reached or is in trouble; it may pass."""


class NotFoundError(InputError):
    """The server knows no such thing."""


class PrefectAPI:
    """The API of one server.

    Args:
        url: As PREFECT_API_URL, `http://127.0.0.1:4200/api`.
        authorization: Value of the header of that name; None for a server that asks for none.
    """

    def __init__(self, url: str, authorization: str | None = None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"}
        if authorization:
            self._headers["Authorization"] = authorization
        self._now: datetime | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "PrefectAPI":
        """Return the API that Prefect's own variables name.

        Raises:
            InputError: PREFECT_API_URL is not set.
        """
        url = environment.get("PREFECT_API_URL")
        if not url:
            raise InputError("PREFECT_API_URL is not set: it says where the Prefect server is")
        authorization = None
        if user_and_password := environment.get("PREFECT_API_AUTH_STRING"):
            authorization = f"Basic {base64.b64encode(user_and_password.encode()).decode()}"
        elif key := environment.get("PREFECT_API_KEY"):
            authorization = f"Bearer {key}"
        return cls(url, authorization)

    @property
    def now(self) -> datetime:
        """The server's clock at its last answer, to the second: the clock that its timestamps are of."""
        return self._now or datetime.now(UTC)

    def get(self, path: str) -> Any:
        """Return what the server has at a path; it raises as `ask`."""
        return self.ask("GET", path)

    def post(self, path: str, body: object) -> Any:
        """Send a question or something new; it raises as `ask`."""
        return self.ask("POST", path, body)

    def ask(self, method: str, path: str, body: object = None) -> Any:
        """Send one request and return the answer's JSON, None where there is none.

        Raises:
            ServerAwayError: The server cannot be reached, answers with 5xx, or breaks off.
            NotFoundError: It answers 404.
            InputError: It refuses.
        """
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"{self.url}/{path}", data, self._headers, method=method)  # noqa: S310
        for attempt in range(1, ATTEMPTS + 1):
            try:
                with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS) as answer:  # noqa: S310 - PREFECT_API_URL
                    self._now = parsedate_to_datetime(answer.headers["Date"])
                    text = answer.read()
                    return json.loads(text) if text else None
            except urllib.error.HTTPError as error:
                if error.code != HTTPStatus.SERVICE_UNAVAILABLE or attempt == ATTEMPTS:
                    raise self._refusal(error) from error
                time.sleep(PAUSE_SECONDS)
            except (OSError, http.client.HTTPException, ValueError) as error:  # URLError, TimeoutError are OSErrors
                raise ServerAwayError(f"the Prefect server at {self.url} cannot be reached: {error}") from error
        raise AssertionError("unreachable")

    def _refusal(self, error: urllib.error.HTTPError) -> InputError:
        what = f"the Prefect server at {self.url} answers {error.code}: {error.read(500).decode(errors='replace')}"
        if error.code >= HTTPStatus.INTERNAL_SERVER_ERROR:
            return ServerAwayError(what)
        return NotFoundError(what) if error.code == HTTPStatus.NOT_FOUND else InputError(what)

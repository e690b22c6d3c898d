"""The chief's side: over HTTP it says whether its stage trains, and offers the files that the other hosts need.

Like TensorFlow's own port it asks for no password: a network policy keeps both for the hosts of a run.
"""

import json
import shutil
import threading
import time
from dataclasses import asdict
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

from infra.hosts.files import Digests, Entry, list_files
from infra.hosts.place import Place
from tasks.stage.errors import InputError

LISTENING = "0A"
PRESENT_SECONDS = 10.0  # a follower that has asked so lately is there, and will ask again
END_SECONDS = 30.0
REQUEST_SECONDS = 60.0


class Chief:
    """A server beside the chief's flow run; `with` starts and stops it."""

    def __init__(self, place: Place, workspace: Path) -> None:
        self.place, self.workspace = place, workspace
        self.ended: int | None = None
        self._digests, self._listing = Digests(), threading.Lock()
        self._seen: dict[str, float] = {}
        self._told: set[str] = set()
        self._offered: set[str] = set()
        chief = self

        class Handler(_Handler):
            owner = chief

        self._server = ThreadingHTTPServer(("", place.files_port), Handler)
        self._server.daemon_threads = True

    def __enter__(self) -> "Chief":
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def state(self, host: str) -> dict[str, list[str] | int | None]:
        """Return what a follower asks for: the marks of the training at work, and how the flow run ended."""
        self._seen[host] = time.monotonic()
        if self.ended is not None:
            self._told.add(host)
        return {"training": listeners(self.place.port), "ended": self.ended}

    def files(self) -> list[Entry]:
        """Return what the followers need; one listing at a time, since it reads what has changed."""
        with self._listing:
            entries = list_files(self.workspace, self._digests)
            self._offered |= {entry.path for entry in entries}
        return entries

    def offers(self, path: str) -> bool:
        """Tell whether a file was listed to a follower: the workspace holds others, which are nobody's business."""
        return path in self._offered

    def announce_end(self, status: int, seconds: float = END_SECONDS) -> None:
        """Have the followers know that the flow run has ended; those that are gone are not waited for."""
        self.ended = status
        deadline = time.monotonic() + seconds
        while (now := time.monotonic()) < deadline:
            if not {host for host, seen in dict(self._seen).items() if now - seen < PRESENT_SECONDS} - self._told:
                return
            time.sleep(0.1)


class _Handler(BaseHTTPRequestHandler):
    owner: Chief
    timeout = REQUEST_SECONDS

    def do_GET(self) -> None:
        """Answer /state, /files or /file/PATH."""
        address = urlsplit(self.path)
        try:
            if address.path == "/state":
                self._answer(self.owner.state(parse_qs(address.query).get("host", [""])[0]))
            elif address.path == "/files":
                self._answer([asdict(entry) for entry in self.owner.files()])
            elif address.path.startswith("/file/"):
                self._send_file(unquote(address.path.removeprefix("/file/")))
            else:
                self.send_error(HTTPStatus.NOT_FOUND)
        except InputError as error:
            self.send_error(HTTPStatus.CONFLICT, explain=str(error))

    def _answer(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _send_file(self, path: str) -> None:
        if not self.owner.offers(path):
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        with (self.owner.workspace / path).open("rb") as stream:
            self.send_response(HTTPStatus.OK)
            self.send_header("Content-Type", "application/octet-stream")
            self.end_headers()
            shutil.copyfileobj(stream, self.wfile, 1 << 20)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of each request."""


def listeners(port: int) -> list[str]:
    """Return the kernel's numbers of the sockets that listen on a port of this machine; no other ever has the same.

    TensorFlow opens one or several when the stage begins to train; they close with it.
    """
    found = []
    for name in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{name}").read_text(encoding="ascii").splitlines()[1:]:
            _, local, _, state, *_, inode = line.split()[:10]
            if state == LISTENING and int(local.rpartition(":")[2], 16) == port:
                found.append(inode)
    return found

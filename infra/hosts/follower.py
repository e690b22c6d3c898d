"""A host that is not the chief: whenever the chief's stage trains, have its files and train with it."""

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import quote

import requests

from infra.hosts.files import Digests, Entry, inside
from infra.hosts.place import Place
from tasks.stage.errors import InputError, ResumableError
from tasks.stage.files import CHUNK, replaced_file

POLL_SECONDS = 1.0
PATIENCE_SECONDS = 1800.0  # without an answer of the chief: its pod may wait for a node
REMINDER_SECONDS = 60.0
TIMEOUT = (5.0, 60.0)  # seconds to connect, and between two pieces of an answer
ALONE_SECONDS = 60.0  # that a training may go on here after the chief's is over: TensorFlow notices in less


class Follower:
    """One follower and its folder, which holds what the chief has sent and nothing else."""

    def __init__(self, place: Place, folder: Path, patience: float = PATIENCE_SECONDS) -> None:
        self.place, self.folder, self.patience = place, folder, patience
        self.stopping = threading.Event()
        self._digests = Digests()
        self._session = requests.Session()
        self._session.trust_env = False  # a proxy for the world outside does not know the hosts

    def run(self) -> None:
        """Train whenever the chief does, until its flow run has ended.

        Raises:
            InputError: The folder is not this follower's own.
            ResumableError: SIGTERM stopped it, or the chief has not answered for `patience` seconds.
        """
        if (self.folder / ".git").exists():
            raise InputError(f"{self.folder} is a git checkout: a follower's folder holds what the chief sends alone")
        finished: set[str] = set()  # the marks of the training that was seen to its end last
        while (state := self._ask_state())["ended"] is None:
            if set(state["training"]) - finished and self._synchronized():
                finished = self._train()
            if self.stopping.wait(POLL_SECONDS):
                raise ResumableError("stopped")
        say(f"the chief's flow run has ended with status {state['ended']}")

    def _synchronized(self) -> bool:
        """Have the chief's files; return whether they could be had."""
        start = time.monotonic()
        try:
            fetched = self.synchronize()
        except (requests.RequestException, InputError) as error:
            say(f"the chief's files cannot be had ({' '.join(str(error).split())})")
            return False
        say(f"the chief trains: {fetched} of its files fetched in {time.monotonic() - start:.1f} s; training with it")
        return True

    def _train(self) -> set[str]:
        """Train with the chief; return the marks of its training if that was seen to its end, or else nothing.

        SIGTERM is passed on, so that all hosts save. A training that began as the chief's ended is ended here.
        """
        environment = os.environ | {"TF_CONFIG": self.place.tf_config, "PYTHONUNBUFFERED": "1"}
        process = subprocess.Popen([sys.executable, "-m", "tasks.train"], cwd=self.folder, env=environment)
        seen: set[str] = set()
        together, told = time.monotonic(), False
        while process.poll() is None:
            if self.stopping.is_set() and not told:
                process.send_signal(signal.SIGTERM)
                told = True
            if marks := self._marks():
                seen |= marks
                together = time.monotonic()
            elif time.monotonic() - together > ALONE_SECONDS:
                say("the chief's training is over, and the one here is ended")
                process.kill()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(POLL_SECONDS)
        say(f"the training here has ended with status {process.returncode}")
        return seen if process.returncode == 0 else set()

    def _marks(self) -> set[str]:
        """Return the marks of the chief's training; none where it does not train, or does not answer."""
        try:
            return set(self._get(f"/state?host={self.place.index}").json()["training"])
        except requests.RequestException:
            return set()

    def synchronize(self) -> int:
        """Make the folder what the chief lists; return how many files were fetched.

        Raises:
            InputError: The chief names a path outside, or sends other bytes than it lists.
            requests.RequestException: The chief does not answer.
        """
        wanted = [Entry(**entry) for entry in self._get("/files").json()]
        if outside := [entry.path for entry in wanted if not inside(entry.path)]:
            raise InputError(f"the chief names a file outside its workspace: {outside[0]!r}")
        kept = {entry.path for entry in wanted}
        for file in [file for file in self.folder.rglob("*") if file.is_file()]:
            if file.relative_to(self.folder).as_posix() not in kept:
                file.unlink()  # a module that the chief no longer has would change the run's fingerprint
        missing = [entry for entry in wanted if not self._has(entry)]
        for entry in missing:
            self._fetch(entry)
        return len(missing)

    def _has(self, entry: Entry) -> bool:
        file = self.folder / entry.path
        return file.is_file() and file.stat().st_size == entry.size and self._digests.of(file) == entry.sha256

    def _fetch(self, entry: Entry) -> None:
        with (
            self._get(f"/file/{quote(entry.path)}", stream=True) as answer,
            replaced_file(self.folder / entry.path) as temporary,
        ):
            with temporary.open("wb") as stream:
                for piece in answer.iter_content(CHUNK):
                    stream.write(piece)
            if self._digests.of(temporary) != entry.sha256:
                raise InputError(f"the chief sent other bytes of {entry.path} than it lists")

    def _ask_state(self) -> dict[str, Any]:
        """Ask until the chief answers: its pod may start later, or anew."""
        start = reminded = time.monotonic()
        while True:
            try:
                state: dict[str, Any] = self._get(f"/state?host={self.place.index}").json()
            except requests.RequestException as error:
                now = time.monotonic()
                if now - start > self.patience:
                    raise ResumableError(f"the chief, {self.place.names[0]}, does not answer: {error}") from error
                if now - reminded > REMINDER_SECONDS:
                    say(f"waiting for the chief, {self.place.names[0]} ({type(error).__name__})")
                    reminded = now
                if self.stopping.wait(POLL_SECONDS):
                    raise ResumableError("stopped") from error
            else:
                return state

    def _get(self, path: str, stream: bool = False) -> requests.Response:
        answer = self._session.get(f"{self.place.chief_url}{path}", timeout=TIMEOUT, stream=stream)
        answer.raise_for_status()
        return answer


def follow(place: Place, folder: Path) -> None:
    """Be a follower until the chief's flow run has ended; SIGTERM stops the training first, so that all save.

    Raises:
        InputError: The folder is not this follower's own.
        ResumableError: SIGTERM stopped it, or the chief does not answer.
    """
    follower = Follower(place, folder)

    def stop(_number: int, _frame: FrameType | None) -> None:
        follower.stopping.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    folder.mkdir(parents=True, exist_ok=True)
    follower.run()


def say(text: str) -> None:
    """Print a line for the pod's log."""
    print(f"hosts: {text}", flush=True)

"""Checkpoints sent to their bucket while training runs, which owes the bucket nothing.

One that refuses, hangs or vanishes costs a warning, never a step.
"""

import threading
from collections.abc import Callable
from pathlib import Path

from tasks.stage.errors import InputError
from tasks.training.remote_checkpoints import AbandonedError, RemoteCheckpoints

CLOSE_SECONDS = 5.0


class Mirror:
    """Uploads in one background thread; only the newest offered is uploaded when it falls behind.

    Args:
        remote: Where to.
        warn: Gets one sentence when an outage begins and one when it is over, from the background thread.
    """

    def __init__(self, remote: RemoteCheckpoints, warn: Callable[[str], None]) -> None:
        self._remote, self._warn = remote, warn
        self._changed = threading.Condition()
        self._offered: Path | None = None
        self._waiting: Path | None = None  # offered, and not yet taken up by the thread
        self._stored: Path | None = None
        self._busy = False
        self._closed = False
        self._failing = False
        # A daemon: a bucket that hangs must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, name="checkpoint-mirror", daemon=True)
        self._thread.start()

    def offer(self, path: Path) -> None:
        """Have a checkpoint uploaded, in place of one that still waits; returns at once."""
        with self._changed:
            self._offered = self._waiting = path
            self._changed.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until the newest checkpoint offered is in the bucket; one that failed before is tried once more.

        Returns:
            False where it is not there after these seconds, or the store refused it again.
        """
        with self._changed:
            if self._offered != self._stored and self._is_idle():
                self._waiting = self._offered
                self._changed.notify_all()
            self._changed.wait_for(lambda: self._offered == self._stored or self._is_idle(), seconds)
            return self._offered == self._stored

    def close(self) -> None:
        """Stop; what is not uploaded yet is given up (flush first). Waits 5 seconds at most for a part under way."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join(CLOSE_SECONDS)

    def _is_idle(self) -> bool:
        return not self._busy and self._waiting is None

    def _run(self) -> None:
        while (path := self._next()) is not None:
            self._mirror(path)
            with self._changed:
                self._busy = False
                self._changed.notify_all()

    def _next(self) -> Path | None:
        """Wait for a checkpoint and take it up; nothing once the mirror is closed."""
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._waiting is not None)
            path, self._waiting = self._waiting, None
            self._busy = path is not None and not self._closed
            return path if self._busy else None

    def _mirror(self, path: Path) -> None:
        try:
            self._remote.store(path, abandoned=lambda: self._closed)
            with self._changed:
                self._stored = path
                self._changed.notify_all()
            self._remote.prune(path.name)
        except (FileNotFoundError, AbandonedError):
            return  # pruned here before its turn came: a newer one was offered; or the mirror was closed
        except InputError as error:
            self._fail(str(error))
        except Exception as error:  # whatever answers in the bucket's place must not end the mirror
            self._fail(f"an upload to {self._remote.uri} failed: {type(error).__name__}")
        else:
            if self._failing:
                self._warn(f"checkpoints are mirrored to {self._remote.uri} again")
            self._failing = False

    def _fail(self, sentence: str) -> None:
        if not self._failing:
            self._warn(f"{sentence}; training goes on, and mirroring is tried again with the next checkpoint")
        self._failing = True

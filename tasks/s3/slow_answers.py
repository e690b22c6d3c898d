"""An object that comes in too slowly to be of use counts as a time-out.

A read time-out bounds each silence only: a server that sends one byte a minute would keep a download alive for ever.
"""

import time
from typing import Any

from botocore.exceptions import ResponseStreamingError

MIN_BYTES = 64 << 10
WITHIN_SECONDS = 60.0


class WatchedStream:
    """urllib3's stream of an answer's body, given up where MIN_BYTES do not arrive WITHIN_SECONDS."""

    def __init__(self, stream: Any) -> None:
        self._stream = stream
        self._since, self._received = time.monotonic(), 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def read(self, amount: int | None = None) -> bytes:
        """Return this many bytes, fewer only at the end; all that is left where no amount is given.

        Raises:
            ResponseStreamingError: They come in too slowly.
        """
        pieces = []
        while amount is None or amount > 0:
            piece = self._stream.read1(amount)  # what one look at the socket gives, so that the clock is seen
            if not piece:
                break
            pieces.append(piece)
            amount = None if amount is None else amount - len(piece)
            self._see(len(piece))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def _see(self, count: int) -> None:
        self._received += count
        now = time.monotonic()
        if self._received >= MIN_BYTES:
            self._since, self._received = now, 0
        elif now - self._since > WITHIN_SECONDS:
            self._stream.close()
            raise ResponseStreamingError(error=f"only {self._received} bytes came in {WITHIN_SECONDS:.0f} s")


def give_up_on_slow_answers(client: Any) -> None:
    """Watch every object that an S3 client downloads, whoever reads it."""

    def watch(parsed: dict[str, Any], **_: Any) -> None:
        body = parsed.get("Body")
        if body is not None:
            body._raw_stream = WatchedStream(body._raw_stream)  # botocore has no other way in

    client.meta.events.register("after-call.s3.GetObject", watch)

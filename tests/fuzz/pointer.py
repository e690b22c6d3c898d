"""A channel's pointer, signed and not."""

from dataclasses import replace

from tasks.registry import channels as pointers
from tasks.registry.store import Store
from tasks.s3.bucket import Stored
from tasks.stage.errors import InputError
from tests.fuzz.manifest import KEY

UNSIGNED = Store(None, "retrain", "models")
SIGNED = replace(UNSIGNED, trust=KEY.trusted)


def check(data: bytes) -> bool:
    """Parse bytes as a reader who asks for signatures, and as one who does not."""
    accepted = False
    for bucket in (UNSIGNED, SIGNED):
        try:
            pointer = pointers._parse(bucket, "champion", Stored(data, "tag"))
        except InputError:
            continue
        assert pointer is not None
        assert pointers._parse(bucket, "champion", Stored(pointers._to_bytes(pointer), "tag")) == pointer
        accepted = True
    return accepted


def seeds() -> dict[str, bytes]:
    """Return a pointer without and one with signatures."""
    moves = tuple(
        pointers.Move(release=digit * 16, manifest_sha256=digit * 64, moved_at="2024-01-01T00:00:00+00:00", reason="r")
        for digit in "ab"
    )
    signature = KEY.sign(pointers._statement(UNSIGNED, "champion", moves))
    signed = (moves[0], moves[1].model_copy(update={"signature": signature}))
    return {"unsigned.json": _pointer(moves), "signed.json": _pointer(signed)}


def _pointer(moves: tuple[pointers.Move, ...]) -> bytes:
    return pointers._to_bytes(pointers.Pointer(channel="champion", current=moves[-1], history=moves))

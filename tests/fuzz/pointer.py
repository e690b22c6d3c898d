"""A channel's pointer, signed and not."""

from dataclasses import replace

from tasks.registry.moves import Move, Pointer, parse_pointer, to_bytes, with_move
from tasks.registry.signatures import SigningKey
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tests.fuzz.manifest import KEY

UNSIGNED = Store(None, "retrain", "models")
SIGNED = replace(UNSIGNED, trust=KEY.trusted)


def check(data: bytes) -> bool:
    """Parse bytes as a reader who asks for signatures, and as one who does not."""
    accepted = False
    for bucket in (UNSIGNED, SIGNED):
        try:
            pointer = parse_pointer(bucket, "champion", data)
        except InputError:
            continue
        assert parse_pointer(bucket, "champion", to_bytes(pointer)) == pointer
        accepted = True
    return accepted


def seeds() -> dict[str, bytes]:
    """Return a pointer without and one with signatures."""
    return {"unsigned.json": _pointer(None), "signed.json": _pointer(KEY)}


def _pointer(key: SigningKey | None) -> bytes:
    pointer: Pointer | None = None
    for digit in "ab":
        move = Move(release=digit * 16, manifest_sha256=digit * 64, moved_at="2024-01-01T00:00:00+00:00", reason="r")
        pointer = with_move(UNSIGNED, "champion", pointer, move, key)
    assert pointer is not None
    return to_bytes(pointer)

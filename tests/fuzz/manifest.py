"""A release's manifest, signed and not."""

import contextlib
import json

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from tasks.registry.manifest import Manifest, parse_manifest
from tasks.registry.releases import check_signature
from tasks.registry.signatures import SigningKey, UntrustedError
from tasks.stage.errors import InputError
from tests.fixtures.buckets import write_release
from tests.fuzz.scratch import FOLDER

PLACE = "s3://retrain/models"
KEY = SigningKey(Ed25519PrivateKey.from_private_bytes(bytes(32)))


def check(data: bytes) -> bool:
    """Parse bytes, as they are and in canonical form; a manifest gives them back, all else an InputError."""
    accepted = False
    for body in (data, _canonical(data)):
        try:
            manifest = parse_manifest(body, "source")
        except InputError:
            continue
        assert manifest.to_bytes() == body
        assert manifest.size >= 0
        accepted = True
        with contextlib.suppress(UntrustedError):
            check_signature(manifest, KEY.trusted, PLACE)
    return accepted


def seeds() -> dict[str, bytes]:
    """Return a manifest without and one with a signature."""
    manifest = write_release(FOLDER / "release", "a")
    return {"unsigned.json": manifest.to_bytes(), "signed.json": _signed(manifest).to_bytes()}


def _signed(manifest: Manifest) -> Manifest:
    return manifest.model_copy(update={"signature": KEY.sign(manifest.statement(PLACE))})


def _canonical(data: bytes) -> bytes:
    """Return JSON in the one form that is accepted, so that mutations get past the first check."""
    try:
        return (json.dumps(json.loads(data), indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode()
    except (ValueError, RecursionError):
        return data

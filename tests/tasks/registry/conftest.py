"""A key to sign with."""

from pathlib import Path

import pytest

from tasks.registry.signatures import SIGNING_KEY, SigningKey, read_signing_key
from tasks.registry.signing import generate_key


@pytest.fixture
def key_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A publisher's private key, which RETRAIN_SIGNING_KEY names."""
    path = tmp_path / "keys/release.key"
    generate_key(path)
    monkeypatch.setenv(SIGNING_KEY, str(path))
    return path


@pytest.fixture
def key(key_file: Path) -> SigningKey:
    """The same, read."""
    return read_signing_key(key_file)

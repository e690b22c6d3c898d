"""A key to sign with, a run's checkpoints in the bucket, and a store that a test may kill."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.signing import generate_key
from tasks.storage import client
from tasks.storage.checkpoints import RemoteCheckpoints
from tasks.storage.signatures import SIGNING_KEY, SigningKey, read_signing_key
from tests.fixtures.remote_checkpoints import remote_at


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


@pytest.fixture
def remote(object_store: ObjectStore) -> RemoteCheckpoints:
    """A run's checkpoints in the tests' bucket, none yet."""
    return remote_at(object_store)


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    """Yield a store that a test may kill, with a second identity, reader / reader-secret, that may not write."""
    folder = tmp_path_factory.mktemp("own_store")
    identities = [
        {"name": "owner", "credentials": [{"accessKey": "owner", "secretKey": "owner-secret"}], "actions": ["Admin"]},
        {
            "name": "reader",
            "credentials": [{"accessKey": "reader", "secretKey": "reader-secret"}],
            "actions": ["Read", "List"],
        },
    ]
    (folder / "object_store").mkdir()
    (folder / "object_store/identities.json").write_text(json.dumps({"identities": identities}))
    store = ObjectStore(folder)
    store.start()
    yield store
    store.stop()


@pytest.fixture
def one_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have clients try once: what fails then fails at once."""
    monkeypatch.setattr(client, "ATTEMPTS", 1)

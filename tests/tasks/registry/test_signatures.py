"""Keys, and what a signature proves."""

from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from infra.local.object_store import ObjectStore
from tasks.registry.signatures import (
    SIGNING_KEY,
    TRUSTED_KEY,
    Signature,
    SigningKey,
    Statement,
    UntrustedError,
    configured_trust,
    read_signing_key,
    read_trusted_keys,
    signing_key,
)
from tasks.registry.signing import generate_key
from tasks.registry.store import configured_bucket
from tasks.stage.errors import InputError

STATEMENT = Statement("retrain release manifest 1", "s3://bucket/models", {"id": "0" * 16})


def test_a_signature_is_believed_for_what_was_signed_and_nothing_else(key: SigningKey, tmp_path: Path) -> None:
    signature = key.sign(STATEMENT)
    key.trusted.check(signature, STATEMENT, "it")
    other = SigningKey(Ed25519PrivateKey.generate())
    refused: list[tuple[Signature | None, Statement, str]] = [
        (None, STATEMENT, "it is not signed"),
        (other.sign(STATEMENT), STATEMENT, f"it is signed by the key {other.name}, which is not a trusted one"),
        (signature, replace(STATEMENT, place="s3://bucket/other"), "it was signed for s3://bucket/models, and this is"),
        (signature, replace(STATEMENT, facts={"id": "1" * 16}), "it was altered"),
        (signature, replace(STATEMENT, subject="retrain channel history 1"), "it was altered"),
        (signature.model_copy(update={"value": "0" * 128}), STATEMENT, "it was altered"),
        (other.sign(STATEMENT).model_copy(update={"key": key.name}), STATEMENT, "it was altered"),
        (
            signature.model_copy(update={"place": "s3://bucket/other"}),
            replace(STATEMENT, place="s3://bucket/other"),
            "it was altered",
        ),
    ]
    for attempt, statement, sentence in refused:
        with pytest.raises(UntrustedError, match=f"^{sentence}"):
            key.trusted.check(attempt, statement, "it")


def test_a_private_key_that_others_can_read_is_refused(key_file: Path) -> None:
    key_file.chmod(0o640)
    with pytest.raises(InputError, match=r"can be read by other users; make it private with: chmod 600"):
        signing_key(None)


@pytest.mark.parametrize("body", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_a_file_that_is_no_key_is_refused_without_its_content(key_file: Path, body: bytes) -> None:
    key_file.write_bytes(body)
    with pytest.raises(InputError, match=r"is not an Ed25519 private key in PEM form, without a password$"):
        read_signing_key(key_file)
    with pytest.raises(InputError, match="has no public key"):
        read_trusted_keys(key_file)


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    elliptic = generate_private_key(SECP256R1())
    (tmp_path / "key").write_bytes(elliptic.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    (tmp_path / "key").chmod(0o600)
    public = elliptic.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    (tmp_path / "key.pub").write_bytes(public)
    with pytest.raises(InputError, match="is not an Ed25519 private key"):
        read_signing_key(tmp_path / "key")
    with pytest.raises(InputError, match="of another kind than Ed25519"):
        read_trusted_keys(tmp_path / "key.pub")


@pytest.mark.parametrize("name", ["absent", ""])
def test_a_key_file_that_cannot_be_read_is_named(tmp_path: Path, name: str) -> None:
    for read in (read_signing_key, read_trusted_keys):
        with pytest.raises(InputError, match=f"the key file {tmp_path / name} cannot be read: "):
            read(tmp_path / name)


def test_several_keys_may_be_trusted_so_that_they_can_change(tmp_path: Path, key_file: Path, key: SigningKey) -> None:
    generate_key(tmp_path / "new.key")
    both = tmp_path / "both.pub"
    both.write_bytes((tmp_path / "new.key.pub").read_bytes() + key_file.with_suffix(".key.pub").read_bytes())
    trust = read_trusted_keys(both)
    for publisher in (key, read_signing_key(tmp_path / "new.key")):
        trust.check(publisher.sign(STATEMENT), STATEMENT, "it")


def test_the_environment_names_the_keys(
    key_file: Path, key: SigningKey, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    assert configured_trust() == key.trusted  # who signs and names none trusts his own
    monkeypatch.delenv(SIGNING_KEY)
    assert configured_trust() is None
    assert configured_bucket("retrain", "models").trust is None
    monkeypatch.setenv(TRUSTED_KEY, f"{key_file}.pub")
    assert configured_trust() == key.trusted
    assert configured_bucket("retrain", "models").trust == key.trusted


def test_whoever_asks_for_signatures_writes_none_that_he_would_refuse(
    key: SigningKey, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = SigningKey(Ed25519PrivateKey.generate())
    with pytest.raises(InputError, match=f"names the key {key.name}, which is not a trusted one"):
        signing_key(other.trusted)
    monkeypatch.delenv(SIGNING_KEY)
    with pytest.raises(InputError, match=f"{SIGNING_KEY} must name the key to sign with"):
        signing_key(other.trusted)


def test_no_key_is_shown(key_file: Path, key: SigningKey) -> None:
    secret = key.private.private_bytes_raw()
    assert repr(key) == f"SigningKey({key.name})"
    for text in (repr(key), str(key), repr(key.sign(STATEMENT))):
        assert secret.hex() not in text

"""Signatures (Ed25519, RFC 8032) of manifests and of channels' moves: write access to a bucket is no proof of identity.

A publisher signs with the private key that RETRAIN_SIGNING_KEY names; whoever trusts public keys (--trusted-key, or
RETRAIN_TRUSTED_KEY) takes nothing that none of them signed. A signature says for which bucket and prefix it was made,
so that it proves nothing elsewhere. docs/security.md says what this protects from, and what not.
"""

import hashlib
import json
import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pydantic import BaseModel, ConfigDict, Field

from tasks.stage.errors import InputError

SIGNING_KEY = "RETRAIN_SIGNING_KEY"
TRUSTED_KEY = "RETRAIN_TRUSTED_KEY"
KEY_FILE_LIMIT = 64 << 10  # bytes; a key has 119

PUBLIC_KEY = re.compile(r"-----BEGIN PUBLIC KEY-----.*?-----END PUBLIC KEY-----", re.DOTALL)

Subject = Literal[
    "retrain release manifest 1", "retrain channel history 1", "retrain workspace record 1", "retrain stage run 1"
]


class UntrustedError(InputError):
    """Something is not signed by a trusted key; the text is one sentence that names it."""


class Signature(BaseModel):
    """What a publisher says of a manifest or of a channel's history.

    Attributes:
        key: Names the public key: the first 16 hexadecimal digits of the sha256 of its 32 bytes.
        place: Where it holds, as `s3://bucket/prefix`.
        value: The 64 bytes of the signature, in hexadecimal.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    key: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
    place: str
    value: Annotated[str, Field(pattern=r"^[0-9a-f]{128}$")]


@dataclass(frozen=True)
class Statement:
    """What is signed.

    Attributes:
        subject: What kind of thing, so that a signature of one kind proves nothing of another.
        place: Where it holds, as `s3://bucket/prefix`.
        facts: What is said of it.
    """

    subject: Subject
    place: str
    facts: dict[str, str]

    def to_bytes(self) -> bytes:
        """Return JSON with sorted keys: equal statements are equal bytes."""
        values = {"subject": self.subject, "place": self.place, "facts": self.facts}
        return json.dumps(values, sort_keys=True).encode()


@dataclass(frozen=True)
class TrustedKeys:
    """The public keys whose signatures are believed, by name."""

    keys: dict[str, Ed25519PublicKey]

    def check(self, signature: Signature | None, statement: Statement, name: str) -> None:
        """Raise UntrustedError, which calls the thing `name`, unless a trusted key signed the statement."""
        if signature is None:
            raise UntrustedError(f"{name} is not signed, and only what a trusted key signed is accepted")
        key = self.keys.get(signature.key)
        if key is None:
            raise UntrustedError(f"{name} is signed by the key {signature.key}, which is not a trusted one")
        if signature.place != statement.place:
            raise UntrustedError(f"{name} was signed for {_printable(signature.place)}, and this is {statement.place}")
        try:
            key.verify(bytes.fromhex(signature.value), statement.to_bytes())
        except InvalidSignature as error:
            raise UntrustedError(f"{name} was altered: it is not what the key {signature.key} signed") from error


@dataclass(frozen=True)
class SigningKey:
    """A publisher's private key; `repr` shows its name only."""

    private: Ed25519PrivateKey

    def __repr__(self) -> str:
        return f"SigningKey({self.name})"

    @property
    def name(self) -> str:
        """Name of the public key."""
        return key_name(self.private.public_key())

    @property
    def trusted(self) -> TrustedKeys:
        """Trust in this key alone."""
        return TrustedKeys({self.name: self.private.public_key()})

    def sign(self, statement: Statement) -> Signature:
        """Return the signature of a statement, as TrustedKeys.check takes it."""
        value = self.private.sign(statement.to_bytes()).hex()
        return Signature(key=self.name, place=statement.place, value=value)


def key_name(key: Ed25519PublicKey) -> str:
    """Return the name of a public key: 16 hexadecimal digits of the sha256 of its bytes."""
    return hashlib.sha256(key.public_bytes_raw()).hexdigest()[:16]


def signing_key(trusted: TrustedKeys | None) -> SigningKey | None:
    """Return the private key that RETRAIN_SIGNING_KEY names, or nothing where the variable is not set.

    Args:
        trusted: The keys that this process trusts, if it asks for signatures; it may then write nothing unsigned.

    Raises:
        InputError: The file is missing, readable by others or not such a key, or its signatures would not be accepted.
    """
    path = os.environ.get(SIGNING_KEY)
    if not path:
        if trusted is not None:
            raise InputError(f"signatures are asked for here, so {SIGNING_KEY} must name the key to sign with")
        return None
    key = read_signing_key(Path(path))
    if trusted is not None and key.name not in trusted.keys:
        raise InputError(f"{SIGNING_KEY} names the key {key.name}, which is not a trusted one")
    return key


def read_signing_key(path: Path) -> SigningKey:
    """Read an Ed25519 private key (PEM, PKCS 8, not encrypted) from a file that only its owner can read.

    Raises:
        InputError: The file is missing, readable by others, or not such a key.
    """
    body, status = _read(path), path.stat()
    if stat.S_IMODE(status.st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path} can be read by other users; make it private with: chmod 600 {path}")
    if status.st_uid not in (0, os.geteuid()):
        raise InputError(f"{path} belongs to another user, who could put another key there")
    try:
        key = load_pem_private_key(body, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InputError(f"{path} is not an Ed25519 private key in PEM form, without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is not an Ed25519 private key in PEM form, without a password")
    return SigningKey(key)


def read_trusted_keys(path: Path) -> TrustedKeys:
    """Read the Ed25519 public keys (PEM) of a file, one or several; raises InputError where there is none."""
    blocks = PUBLIC_KEY.findall(_read(path).decode("ascii", errors="replace"))
    keys = {}
    for block in blocks:
        try:
            key = load_pem_public_key(block.encode())
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise InputError(f"{path} has a public key that cannot be read") from error
        if not isinstance(key, Ed25519PublicKey):
            raise InputError(f"{path} has a public key of another kind than Ed25519")
        keys[key_name(key)] = key
    if not keys:
        raise InputError(f"{path} has no public key in PEM form")
    return TrustedKeys(keys)


def configured_trust() -> TrustedKeys | None:
    """Return the keys of the file that RETRAIN_TRUSTED_KEY names, else the own one of whoever signs, or nothing.

    A publisher who believed what nobody signed would put his name to it with his next signature.
    """
    if path := os.environ.get(TRUSTED_KEY):
        return read_trusted_keys(Path(path))
    own = os.environ.get(SIGNING_KEY)
    return read_signing_key(Path(own)).trusted if own else None


def _read(path: Path) -> bytes:
    try:
        with path.open("rb") as stream:
            body = stream.read(KEY_FILE_LIMIT + 1)
    except OSError as error:
        raise InputError(f"the key file {path} cannot be read: {error.strerror}") from error
    if len(body) > KEY_FILE_LIMIT:
        raise InputError(f"{path} is too large for a key file")
    return body


def _printable(text: str) -> str:
    return "".join(character if character.isprintable() else "?" for character in text[:200])

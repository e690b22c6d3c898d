"""Keys to sign releases with, and the options by which a command asks for signatures.

python -m tasks.registry.signing keygen .local/release.key      the private key, and release.key.pub to hand to readers
"""

import argparse
import os
import subprocess
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tasks.registry.signatures import (
    SIGNING_KEY,
    TRUSTED_KEY,
    TrustedKeys,
    configured_trust,
    key_name,
    read_trusted_keys,
)
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import OWNER_ONLY, replaced_file

NOT_IGNORED = 1  # exit status of `git check-ignore` for a file that git would take up


def add_trust_options(parser: argparse.ArgumentParser) -> None:
    """Add --require-signature and --trusted-key to a command that reads releases."""
    parser.add_argument(
        "--require-signature",
        action="store_true",
        help=f"accept only what a trusted key signed; it is an error if neither --trusted-key nor {TRUSTED_KEY} is set",
    )
    parser.add_argument(
        "--trusted-key", type=Path, metavar="FILE", help=f"public keys (PEM); instead of those that {TRUSTED_KEY} names"
    )


def chosen_trust(arguments: argparse.Namespace) -> TrustedKeys | None:
    """Return the keys whose signatures a command asks for, or nothing where it asks for none.

    A trusted key makes signatures required; --require-signature makes a trusted key required.

    Raises:
        InputError: A signature is required and no key is trusted, or the file of keys cannot be used.
    """
    trust = read_trusted_keys(arguments.trusted_key) if arguments.trusted_key else configured_trust()
    if trust is None and arguments.require_signature:
        raise InputError(f"--require-signature needs the public key to trust: --trusted-key FILE, or {TRUSTED_KEY}")
    return trust


def generate_key(path: Path) -> str:
    """Write a new private key to `path`, which only its owner can read, and its public key to `path`.pub.

    Returns:
        The key's name, which signatures carry.

    Raises:
        InputError: One of the files exists, or git would take up the private one.
    """
    public = path.with_name(f"{path.name}.pub")
    for existing in (path, public):
        if existing.exists():
            raise InputError(f"{existing} exists already; a key is never overwritten")
    path.parent.mkdir(parents=True, exist_ok=True)
    _check_ignored(path)
    key = Ed25519PrivateKey.generate()
    with replaced_file(path) as temporary:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, OWNER_ONLY)
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    with replaced_file(public) as temporary:
        temporary.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return key_name(key.public_key())


def _check_ignored(path: Path) -> None:
    """Refuse a place from which `git add` would commit a private key; outside a repository there is none."""
    command = ["git", "-C", str(path.parent), "check-ignore", "--quiet", path.name]
    try:
        status = subprocess.run(command, capture_output=True, check=False).returncode
    except FileNotFoundError:  # no git, so nothing will be committed
        return
    if status == NOT_IGNORED:
        raise InputError(f"{path} would be committed to git; choose a path that git ignores, as .local/release.key")


def main() -> None:
    """Parse the command line and make a key pair."""
    parser = argparse.ArgumentParser(prog="python -m tasks.registry.signing", description="Keys to sign releases with.")
    commands = parser.add_subparsers(dest="command", required=True)
    keygen = commands.add_parser("keygen", help="make a key pair")
    keygen.add_argument("file", type=Path, help="of the private key; the public one is beside it, with .pub")
    arguments = parser.parse_args()
    run_command("signing", lambda: keygen_command(arguments.file))


def keygen_command(path: Path) -> None:
    """Make a key pair and say how it is used; raises InputError like generate_key."""
    name = generate_key(path)
    print(f"key {name}")
    print(f"publishers, and nobody else: export {SIGNING_KEY}={path.absolute()}")
    print(f"readers: export {TRUSTED_KEY}=…/{path.name}.pub, or --trusted-key …/{path.name}.pub")


if __name__ == "__main__":
    main()

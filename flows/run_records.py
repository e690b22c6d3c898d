"""Which records of DVC's run cache a worker believes.

A record says which outputs a stage had, by their hashes, and `dvc repro` puts these into the workspace. So whoever may
write records where DVC's remote is could put a module beside the code, a file outside the workspace, or a model of his
own into a release that a worker then signs. A record is therefore taken only where it is of just this stage, command,
dependencies, parameters and outputs, under the name that its content gives it, and lists no file outside an output; and
where keys are configured (tasks/registry/signatures.py), only where one of them signed it.
"""

import copy
import hashlib
import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from tasks.params.params import read_yaml
from tasks.registry.signatures import Signature, SigningKey, Statement, TrustedKeys
from tasks.registry.workspaces import LOCKED
from tasks.stage.errors import InputError

MAX_RECORD = 1 << 20  # bytes; one has a kilobyte
SIGNATURES = "run-signatures"  # their folder in the remote


class RecordError(InputError):
    """A record is not to be believed; the text says why."""


def check_size(size: int, path: Path) -> None:
    """Raise RecordError for a record that is too large to be one; `size` is in bytes."""
    if size > MAX_RECORD:
        raise RecordError(f"{path.name} has {size} bytes, too many for a record of a run")


def check_record(body: bytes, path: Path) -> None:
    """Raise RecordError unless a record says what its place in the run cache, `<stage's hash>/<own hash>`, promises.

    The stage's hash is of its command, dependencies, parameters and the names of its outputs; its own is of all that it
    says, but the sizes.
    """
    from dvc.stage.cache import _get_cache_hash  # noqa: PLC0415 - DVC takes a second to import

    try:
        record = read_yaml(body.decode(), path.name)
        of_stage, own = _get_cache_hash(copy.deepcopy(record), key=True), _get_cache_hash(record)
    except (InputError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise RecordError(f"{path.name} is no record of a run") from error
    if (of_stage, own) != (path.parent.name, path.name):
        raise RecordError(f"{path.name} is not of this stage, or was altered")
    if not all(_is_plain(out) for out in record["outs"]):
        raise RecordError(f"{path.name} has an output that is more than a path and its hash in DVC's cache")


def _is_plain(out: Any) -> bool:
    """Return whether DVC finds all that an output holds in the one cache that is looked at, and nothing in the record.

    Without `hash` it would look into the cache of its versions before 3, and with `files` write what these name.
    """
    return bool(
        out.keys() <= LOCKED and out.get("hash") == "md5" and re.fullmatch(r"[0-9a-f]{32}(\.dir)?", str(out["md5"]))
    )


def sign_record(key: SigningKey, place: str, body: bytes) -> bytes:
    """Return a signature of a record, as check_signature takes it; `place` is the address of DVC's remote."""
    return key.sign(_statement(place, body)).model_dump_json().encode()


def check_signature(trust: TrustedKeys, place: str, body: bytes, signature: bytes | None, name: str) -> None:
    """Raise UntrustedError or RecordError unless a trusted key signed a record."""
    try:
        given = None if signature is None else Signature.model_validate_json(signature)
    except ValidationError as error:
        raise RecordError(f"the signature of {name} is none") from error
    trust.check(given, _statement(place, body), f"the record {name} of an earlier run")


def _statement(place: str, body: bytes) -> Statement:
    return Statement("retrain stage run 1", place, {"record_sha256": hashlib.sha256(body).hexdigest()})

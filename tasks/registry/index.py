"""The index: for each release an empty object whose key is its row of `registry list`: a listing reads keys only.

    index/<id>/<row>     the row as JSON, in base64 (RFC 4648, URL and filename safe)

It is written right after the manifest, which stays the truth: what shows, verifies or pulls a release never looks here.
Where a row is missing (its publisher died in between), doubled, or not one that this module writes, the manifest is
read instead; the next publisher of the same release, or `registry gc --delete`, puts it right.
"""

import base64
import contextlib
import json
import re
import sys
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from tasks.registry.manifest import ID_LENGTH, DamagedError, Manifest, ReleaseId
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError
from tasks.s3.objects import list_objects
from tasks.stage.errors import InputError

FOLDER = "index"
KEY = re.compile(rf"{FOLDER}/(?P<id>[0-9a-f]{{{ID_LENGTH}}})/(?P<row>[A-Za-z0-9_-]+)")
MAX_NAME = 255  # bytes that a store which keeps objects as files allows between two slashes

Share = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=0)]


class Row(BaseModel):
    """A release's line in the list.

    Attributes:
        id: Of the release.
        created_at: UTC, ISO 8601.
        dataset: Name of the data set.
        recipe: Name of the recipe.
        top1: Single-view top-1 on the test images, 0 to 1.
        top1_low, top1_high: Its 95 % interval.
        images: Test images.
        bytes: Of all files.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    id: ReleaseId
    created_at: str
    dataset: str
    recipe: str
    top1: Share
    top1_low: Share
    top1_high: Share
    images: Count
    bytes: Count


COLUMNS = tuple(name for name in Row.model_fields if name != "id")


def row_of(manifest: Manifest) -> Row:
    """Return a manifest's row; raises DamagedError where it lacks one of the figures."""
    metrics, train = manifest.metrics, manifest.parameters.get("train")
    facts: dict[str, Any] = {name: metrics.get(name) for name in COLUMNS if name in metrics}
    facts["recipe"] = train.get("recipe") if isinstance(train, dict) else None
    try:
        return Row(**{**facts, "id": manifest.id, "created_at": manifest.created_at, "bytes": manifest.size})
    except ValidationError as error:
        name = str(error.errors()[0]["loc"][0])
        raise DamagedError(f"the manifest of release {manifest.id} has no {name} that could be listed") from error


def index_key(row: Row) -> str | None:
    """Return where the row is written, or nothing where it is too long for a name."""
    values = [getattr(row, column) for column in COLUMNS]
    text = json.dumps(values, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    name = base64.urlsafe_b64encode(text.encode()).decode().rstrip("=")
    return f"{FOLDER}/{row.id}/{name}" if len(name) <= MAX_NAME else None


def parse_index_key(key: str) -> Row | None:
    """Return the row that a key holds, or nothing where it is not exactly one that index_key gives."""
    found = KEY.fullmatch(key)
    if found is None:
        return None
    name = found["row"]
    try:
        values = json.loads(base64.urlsafe_b64decode(name + "=" * (-len(name) % 4)))
        row = Row(id=found["id"], **dict(zip(COLUMNS, values, strict=True)))
        return row if index_key(row) == key else None
    except (ValueError, TypeError, RecursionError):  # ValidationError, JSONDecodeError and UnicodeError are ValueErrors
        return None


def add_to_index(bucket: Store, manifest: Manifest) -> None:
    """Write a release's row if it is not there; a store that refuses costs a listing a request, and is said on stderr.

    So a release is published though its row is not, as where a bucket's policy does not know the index.
    """
    try:
        key = index_key(row_of(manifest))
        if key is not None:
            with contextlib.suppress(ConflictError):  # it is there already
                bucket.write(key, b"", replacing=None)
    except InputError as error:
        print(f"release {manifest.id} is not in the index, which slows listings down: {error}", file=sys.stderr)


def read_index(bucket: Store) -> dict[str, Row]:
    """Return the rows by release, without releases that have several."""
    rows: dict[str, list[Row]] = {}
    for entry in list_objects(bucket, FOLDER):
        row = parse_index_key(entry.key)
        if row is not None:
            rows.setdefault(row.id, []).append(row)
    return {release: found[0] for release, found in rows.items() if len(found) == 1}

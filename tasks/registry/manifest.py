"""manifest.json: what a release is made of and where it comes from; checked as strictly as any input from outside."""

import hashlib
import json
import re
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from tasks.registry.signatures import Signature, Statement
from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of

MANIFEST_NAME = "manifest.json"

# The files whose bytes are equal when the release is: the id is derived from them. SavedModel is not among them, since
# TensorFlow orders its protobufs freely; nor is the report, whose pictures depend on the plotting library.
CANONICAL_FILES = ("labels.json", "metrics.json", "model.keras", "probabilities.npy", "split.json")

ID_LENGTH = 16
ReleaseId = Annotated[str, Field(pattern=rf"^[0-9a-f]{{{ID_LENGTH}}}$")]
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


Figures: TypeAlias = dict[str, bool | int | float | str]


class DamagedError(InputError):
    """What the object store holds is not what a publisher put there; the text is one sentence that names it."""


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class FileEntry(_Record):
    """One file of a release.

    Attributes:
        path: Relative to the release's folder, with `/`.
        size: In bytes.
        sha256: Of its bytes.
    """

    path: str
    size: Annotated[int, Field(ge=0)]
    sha256: Sha256

    @field_validator("path")
    @classmethod
    def _stays_inside(cls, value: str) -> str:
        path = PurePosixPath(value)
        plain = str(path) == value and not path.is_absolute() and ".." not in path.parts and value.isprintable()
        if not plain or "\\" in value or ":" in value or value in {".", "", MANIFEST_NAME}:
            raise ValueError(f"{value!r} is not a plain relative path")
        return value


class Finding(_Record):
    """What one rule of the gate says of a release (tasks/registry/gate.py).

    Attributes:
        rule: Its name.
        passed: Whether the release may be champion as far as this rule goes.
        sentence: Why, for people.
        figures: What it was decided by, for programs; a threshold has the name that it has in params.yaml.
    """

    rule: str
    passed: bool
    sentence: str
    figures: Figures


class Manifest(_Record):
    """Everything a reader needs to trust a release, and a builder to make it again.

    Attributes:
        schema_version: Of this format.
        id: Derived from the canonical files by release_id.
        tree: Names the folder of the files beside the manifest; derived by tree_name from all files and from when
            their upload began, so that two publishers with other bytes never write to the same key, and none to one
            that a garbage collector has seen grow old (tasks/registry/garbage.py).
        files: Every file, sorted by path.
        created_at: UTC, ISO 8601; of the first publication.
        git: `{"commit", "dirty"}`; null outside a repository.
        dvc_lock: dvc.lock of the stages before publish; null without DVC.
        parameters: The whole of params.yaml, with defaults filled in.
        data: Data set's name and the hashes of its splits; its archive's is in dvc_lock, and in the parameters where it
            is pinned.
        metrics: metrics.json.
        training: training.json.
        environment: Versions of Python and of the libraries that decide the result.
        runtime: What clocks and machines said: durations, devices, strategy, images/s, by stage.
        parent: The champion that the release was measured against; null where there was none.
        verdict: What each rule of the gate said when it was published; a sentence alone where it was published before
            rules had figures.
        signature: The publisher's, of everything else here and of the bucket and prefix; null where he has no key.
    """

    schema_version: Literal[1] = 1
    id: ReleaseId
    tree: ReleaseId
    files: tuple[FileEntry, ...]
    created_at: str
    git: dict[str, Any] | None
    dvc_lock: dict[str, Any] | None
    parameters: dict[str, Any]
    data: dict[str, Any]
    metrics: dict[str, Any]
    training: dict[str, Any]
    environment: dict[str, str]
    runtime: dict[str, Any]
    parent: ReleaseId | None
    verdict: tuple[Finding | str, ...]
    signature: Signature | None = None

    @model_validator(mode="after")
    def _names_are_derived(self) -> "Manifest":
        paths = [entry.path for entry in self.files]
        if paths != sorted(set(paths)):
            raise ValueError("files are not sorted by path, each once")
        if self.id != release_id(self.files):
            raise ValueError("its id does not follow from its files")
        return self

    @property
    def top1(self) -> float:
        """Single-view top-1 accuracy on the test images, from 0 to 1."""
        return float(self.metrics["top1"])

    @property
    def size(self) -> int:
        """Bytes of all files."""
        return sum(entry.size for entry in self.files)

    @property
    def sentences(self) -> tuple[str, ...]:
        """The verdict for people; what several rules say in the same words once."""
        return tuple(dict.fromkeys(each if isinstance(each, str) else each.sentence for each in self.verdict))

    def to_bytes(self) -> bytes:
        """Return canonical JSON: equal manifests are equal bytes."""
        return _canonical(self.model_dump(mode="json", exclude=set() if self.signature else {"signature"}))

    def statement(self, place: str) -> Statement:
        """Return what a publisher signs of it for `s3://bucket/prefix`."""
        unsigned = self.model_copy(update={"signature": None}).to_bytes()
        digest = hashlib.sha256(unsigned).hexdigest()
        return Statement("retrain release manifest 1", place, {"id": self.id, "manifest_sha256": digest})


def list_files(folder: Path) -> tuple[FileEntry, ...]:
    """Return every file under a folder except its manifest, sorted by path, with size and sha256."""
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and path != folder / MANIFEST_NAME)
    entries = [
        FileEntry(path=path.relative_to(folder).as_posix(), size=path.stat().st_size, sha256=sha256_of(path))
        for path in paths
    ]
    return tuple(sorted(entries, key=lambda entry: entry.path))


def is_release_id(name: str) -> bool:
    """Return whether a name has the form of a release's id."""
    return re.fullmatch(rf"[0-9a-f]{{{ID_LENGTH}}}", name) is not None


def release_id(files: tuple[FileEntry, ...]) -> str:
    """Return the id of a release: 16 hexadecimal digits of a sha256 over its canonical files' sha256.

    Raises:
        ValueError: A canonical file is missing.
    """
    found = {entry.path: entry.sha256 for entry in files if entry.path in CANONICAL_FILES}
    missing = [path for path in CANONICAL_FILES if path not in found]
    if missing:
        raise ValueError(f"a release needs {', '.join(missing)}")
    return _short_hash(found)


def tree_name(files: tuple[FileEntry, ...], period: int = 0) -> str:
    """Return 16 hexadecimal digits of a sha256 over all files' paths and sha256, and the period of their upload."""
    named = {entry.path: entry.sha256 for entry in files}
    return _short_hash({**named, "": str(period)})  # no file has an empty path


def parse_manifest(body: bytes, source: str) -> Manifest:
    """Read a manifest that came from `source`.

    Raises:
        DamagedError: It is not JSON, or not a manifest of this schema that agrees with itself.
    """
    try:
        manifest = Manifest.model_validate_json(body)
        if manifest.to_bytes() != body:
            raise DamagedError(f"{source} is not a manifest: it is not in canonical form")
        return manifest
    except ValidationError as error:
        problem = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in problem["loc"])
        message = problem["msg"].removeprefix("Value error, ")
        raise DamagedError(f"{source} is not a manifest: {f'{where}: ' if where else ''}{message}") from error
    except ValueError as error:  # NaN or infinity
        raise DamagedError(f"{source} is not a manifest: {error}") from error


def _short_hash(value: dict[str, str]) -> str:
    return hashlib.sha256(_canonical(value)).hexdigest()[:ID_LENGTH]


def _canonical(value: Any) -> bytes:
    text = json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False, allow_nan=False)
    return (text + "\n").encode()

"""data/raw: an archive as published, and source.json, which says which data set it is and what its bytes are."""

from dataclasses import asdict, dataclass
from pathlib import Path

from tasks.stage.errors import InputError
from tasks.stage.files import read_json, sha256_of, write_json

SOURCE_NAME = "source.json"


@dataclass(frozen=True)
class RawSource:
    """A downloaded data set.

    Attributes:
        dataset: `cifar10`, `folders` or `digits`.
        archive: The archive's path.
        sha256: Of the archive's bytes.
        size: Bytes of the archive.
    """

    dataset: str
    archive: Path
    sha256: str
    size: int


@dataclass(frozen=True)
class _Document:
    """source.json, field for field; no address, for equal bytes from any mirror are an equal folder."""

    dataset: str
    archive: str
    sha256: str
    bytes: int


def save_source(folder: Path, source: RawSource) -> None:
    """Write source.json into the archive's folder."""
    document = _Document(source.dataset, source.archive.name, source.sha256, source.size)
    write_json(folder / SOURCE_NAME, asdict(document))


def load_source(folder: Path) -> RawSource:
    """Read source.json.

    Raises:
        InputError: It or the archive is missing, it is not such a document, or the archive has another length.
    """
    path = folder / SOURCE_NAME
    try:
        document = _Document(**read_json(path))
        archive = folder / Path(document.archive).name
        size = archive.stat().st_size
    except FileNotFoundError as error:
        raise InputError(f"{error.filename} does not exist; run the stage download first") from error
    except (ValueError, TypeError) as error:
        raise InputError(f"{path} does not say which data set is beside it: {error}") from error
    if size != document.bytes:
        raise InputError(f"{archive} is truncated or changed: {size:,} bytes instead of {document.bytes:,}")
    return RawSource(document.dataset, archive, document.sha256, document.bytes)


def is_intact(source: RawSource) -> bool:
    """Tell whether the archive's bytes are still those of its sha256."""
    return sha256_of(source.archive) == source.sha256

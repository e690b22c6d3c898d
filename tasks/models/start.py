"""The release that a training run begins from: its files in data/weights, and what is known of it.

Nothing here needs TensorFlow: the stage `weights` fetches what the stage `train` then reads.
"""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tasks.models.pretrained import RECORD_NAME
from tasks.stage.errors import InputError
from tasks.stage.files import read_json, sha256_of

START = "start"  # its key in weights.json, where there is one
START_MODEL = "start.keras"
START_HASHES = "start_fit_hashes.npy"  # of the images that it trained on and chose by


@dataclass(frozen=True)
class Start:
    """A release that training begins from.

    Attributes:
        release: Its id.
        model_sha256, fit_hashes_sha256: Of the two files beside the record.
        classes: The names of its classes, in the order of its outputs.
        model: What its recipe says of the network: `base`, `head` and `scaling`, as far as its manifest has them.
    """

    release: str
    model_sha256: str
    fit_hashes_sha256: str
    classes: tuple[str, ...]
    model: dict[str, str]

    def record(self) -> dict[str, Any]:
        """Return it as weights.json has it."""
        return {**asdict(self), "classes": list(self.classes)}

    @property
    def network(self) -> str:
        """The network's base and head, for sentences."""
        return f"base {self.model.get('base', 'unknown')}, head {self.model.get('head', 'unknown')}"


def read_start(folder: Path, release: str | None) -> Start | None:
    """Return the release that the stage `weights` has put into a folder; None where training begins from scratch.

    Args:
        folder: data/weights; it may be missing where `release` is None.
        release: The id that the parameters ask for.

    Raises:
        InputError: The folder holds another one, or none, or its files are not those that its record names.
    """
    path = folder / RECORD_NAME
    try:
        found = (read_json(path) if path.exists() else {}).get(START)
        start = None if found is None else Start(**{**found, "classes": tuple(found["classes"])})
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InputError(f"{path} is not what the stage weights writes; run it again") from error
    has = None if start is None else start.release
    if has != release:
        asked = "none" if release is None else f"release {release}"
        raise InputError(f"{folder} holds {has or 'no release'} to begin from, and {asked} is asked for; run weights")
    if start is not None:
        for name, sha256 in ((START_MODEL, start.model_sha256), (START_HASHES, start.fit_hashes_sha256)):
            if not (folder / name).is_file() or sha256_of(folder / name) != sha256:
                raise InputError(f"{folder / name} is not the file that {RECORD_NAME} beside it names; run weights")
    return start

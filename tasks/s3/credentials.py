"""Where S3 credentials come from: the environment first, then the file that the local object store left.

What goes with a custom endpoint is set here too, for the programs that this one starts: DVC learns it no other way.
"""

import os
import stat
from pathlib import Path

from tasks.stage.errors import InputError

CREDENTIALS_FILE = Path(".local/object_store.env")

# Any of these says that the person has chosen where to get credentials: the file is then left alone.
CHOSEN_ELSEWHERE = (
    "AWS_ACCESS_KEY_ID",
    "AWS_PROFILE",
    "AWS_DEFAULT_PROFILE",
    "AWS_ROLE_ARN",
    "AWS_WEB_IDENTITY_TOKEN_FILE",
    "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
    "AWS_CONTAINER_CREDENTIALS_FULL_URI",
    "AWS_ENDPOINT_URL_S3",
    "AWS_ENDPOINT_URL",
)

# The default checksums of boto3 ≥ 1.36 and of DVC's S3 client break some stores; AWS itself keeps its defaults.
CUSTOM_ENDPOINT_SETTINGS = {
    "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",
    "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
}


def load_credentials(path: Path | None = None) -> None:
    """Fill os.environ with the local object store's AWS_* variables, where the environment names no other source.

    With a custom endpoint, whoever named it, CUSTOM_ENDPOINT_SETTINGS are set where they are not.

    Args:
        path: The file; if not given, the one that find_credentials finds.

    Raises:
        InputError: Others than the owner can read the file, or a line of it is not KEY=VALUE.
    """
    if not any(os.environ.get(name) for name in CHOSEN_ELSEWHERE):
        path = path or find_credentials()
        if path is not None and path.exists():
            os.environ.update(read_credentials(path))
    if os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL"):
        for name, value in CUSTOM_ENDPOINT_SETTINGS.items():
            os.environ.setdefault(name, value)


def find_credentials() -> Path | None:
    """Return the file of the working folder, or else of the nearest folder above it; None where there is none.

    DVC runs an experiment in a copy of the project below the project, which has no file of its own. A folder above that
    another user owns ends the search, and so does a file there that another user owns: neither says where S3 is.
    """
    if CREDENTIALS_FILE.exists():
        return CREDENTIALS_FILE
    for folder in Path.cwd().parents:
        path = folder / CREDENTIALS_FILE
        if folder.stat().st_uid != os.getuid():
            return None
        if path.exists():
            return path if path.stat().st_uid == os.getuid() else None
    return None


def read_credentials(path: Path) -> dict[str, str]:
    """Return the AWS_* variables of a file of KEY=VALUE lines; raises InputError like load_credentials."""
    if stat.S_IMODE(path.stat().st_mode) & (stat.S_IRWXG | stat.S_IRWXO):
        raise InputError(f"{path} can be read by other users; make it private with: chmod 600 {path}")
    variables = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip() or line.startswith("#"):
            continue
        key, equals, value = line.partition("=")
        if not equals or not key.startswith("AWS_"):
            raise InputError(f"line {number} of {path} is not of the form AWS_NAME=value")
        variables[key] = value
    return variables

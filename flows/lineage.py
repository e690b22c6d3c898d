"""What a finished run leaves for others: its data and models in DVC's remote, and an experiment in git."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from flows.command import Limits, OnLine, run_lines
from flows.failures import StepError
from flows.stages import DVC
from tasks.stage.errors import InputError


class RemoteError(StepError):
    """Files did not arrive in DVC's remote, which may be away, or refuse."""

    def __init__(self, sentence: str, *, is_away: bool = False, is_refused: bool = False) -> None:
        self.sentence = self.reason = sentence
        self._is_away, self._is_refused = is_away, is_refused
        super().__init__(sentence)

    @property
    def is_final(self) -> bool:
        """Whether the remote refuses: its address, the credentials or the clock have to be put right."""
        return self._is_refused

    @property
    def is_outage(self) -> bool:
        """Whether the remote cannot be reached for now."""
        return self._is_away

    @property
    def passes_soon(self) -> bool:
        """Whether another try may succeed at once."""
        return not (self._is_away or self._is_refused)


def push(folder: Path, on_line: OnLine, limits: Limits | None = None) -> int:
    """Bring everything that dvc.lock names into DVC's remote; return how many files were missing there.

    `dvc push` trusts its own notes of what it pushed before, and takes a folder's listing in the remote for all of the
    folder's files. So of a bucket that has lost files it says "up to date". The remote itself is therefore asked,
    before and after, and what DVC passed over is uploaded one by one.

    Raises:
        RemoteError: The remote cannot be reached, or files are neither there nor here.
    """
    with open_project(folder) as repo:
        missing = _missing(repo)
    if not missing:
        return 0
    finished = run_lines([*DVC, "push"], folder, on_line, limits)
    with open_project(folder) as repo:
        _upload(repo, _missing(repo))
        lost = _missing(repo)
    if lost:
        raise RemoteError(f"{len(lost)} files are neither here nor in DVC's remote, {lost[0]} among them")
    if finished.status != 0:
        raise RemoteError(f"dvc push failed: {' '.join(line for line in finished.lines[-3:] if line)}")
    return len(missing)


def missing_in_remote(folder: Path) -> list[str]:
    """Return the content hashes of dvc.lock's outputs, files in folders included, that the default remote lacks.

    Raises:
        RemoteError: The remote cannot be asked, or this workspace lacks a folder's listing.
    """
    with open_project(folder) as repo:
        return _missing(repo)


@contextlib.contextmanager
def open_project(folder: Path) -> Iterator[Any]:
    """Open a DVC project; what goes wrong with its remote is a RemoteError of one sentence."""
    from botocore.exceptions import BotoCoreError  # noqa: PLC0415 - with DVC a second to import
    from dvc.exceptions import DvcException  # noqa: PLC0415
    from dvc.repo import Repo  # noqa: PLC0415

    try:
        with Repo(str(folder)) as repo:
            yield repo
    except (BotoCoreError, DvcException, OSError) as error:
        is_away = _is_away(error)
        refusal = None if is_away else _refusal_of_store(folder)
        sentence = f"DVC's remote cannot be asked: {refusal or ' '.join(str(error).split())}"
        raise RemoteError(sentence, is_away=is_away, is_refused=refusal is not None) from error


def _refusal_of_store(folder: Path) -> str | None:
    """Return the object store's own reason, which s3fs shortens to `Forbidden`; nothing where the store has none."""
    from dvc.repo import Repo  # noqa: PLC0415

    from tasks.s3.client import connect, storage_errors  # noqa: PLC0415

    with Repo(str(folder)) as repo:
        address = urlsplit(repo.config["remote"].get(repo.config["core"].get("remote"), {}).get("url", ""))
    if address.scheme != "s3":
        return None
    try:
        client = connect()
        with storage_errors(client, address.netloc, address.path.strip("/")):
            client.list_objects_v2(Bucket=address.netloc, Prefix=address.path.strip("/"), MaxKeys=1)
    except InputError as error:
        return str(error)
    return None


def _is_away(error: BaseException) -> bool:
    """Tell whether an outage is among what caused an error: DVC and s3fs wrap boto3's."""
    from tasks.s3.client import is_outage  # noqa: PLC0415 - with boto3 a second to import

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, TimeoutError | ConnectionError) or (isinstance(cause, Exception) and is_outage(cause)):
            return True
        cause = cause.__cause__ or cause.__context__
    return False


def _missing(repo: Any) -> list[str]:
    """Return what the remote lacks, files before the listings that speak of them."""
    from dvc_data.hashfile.tree import Tree  # noqa: PLC0415

    wanted: set[str] = set()
    for objects in repo.used_objs(push=True).values():
        for item in objects:
            files = (entry.value for _, _, entry in Tree.load(repo.cache.local, item)) if item.isdir else ()
            wanted |= {item.value, *files}
    lacking = wanted - set(repo.cloud.get_remote_odb().list_oids_exists(wanted))
    return sorted(lacking, key=lambda name: (name.endswith(".dir"), name))


def _upload(repo: Any, names: list[str]) -> None:
    """Upload objects of the cache as they are, where the cache has them."""
    cache, remote = repo.cache.local, repo.cloud.get_remote_odb()
    for name in filter(cache.exists, names):
        remote.add(cache.oid_to_path(name), cache.fs, name)


def save_experiment(name: str, folder: Path, on_line: OnLine) -> bool:
    """Record the run as a DVC experiment; return whether there is a git repository with a commit to attach it to."""
    head = subprocess.run(["git", "rev-parse", "--verify", "HEAD"], cwd=folder, capture_output=True, check=False)
    if head.returncode != 0:
        on_line("not saved as an experiment: there is no git commit to attach it to")
        return False
    finished = run_lines([*DVC, "exp", "save", "--force", "--name", name], folder, lambda _: None)
    if finished.status != 0:
        on_line(f"not saved as an experiment: {' '.join(line for line in finished.lines[-3:] if line)}")
    return finished.status == 0

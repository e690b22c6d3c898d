"""The pull step of infra/prefect.yaml: bring a worker's clone to its branch, and keep all else that lies in it.

Prefect's own step, `git_clone`, deletes the folder where `git pull` fails, and with it checkpoints, DVC's cache and
dvc.lock. This one clones where there is no clone, and otherwise fetches and resets: what git ignores or does not track
stays. Where the branch cannot be had, the run goes on with the commit that is there, and says so. A run that is started
again after a crash keeps the commit with which it began, which its tag names, so that its checkpoint still fits.

It runs in the worker's Python, before the clone's code is there: from the image, by PYTHONPATH.
"""

import contextlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from infra.flow_run import Log, preparing
from infra.git import BranchGoneError, DiskFullError, GitError, RefusedError, Remote, in_clone, run_git
from infra.turn import POLL_SECONDS, locked, turn

COMMIT_TAG = "commit:"
COMMIT_TAG_PATTERN = re.compile(rf"{COMMIT_TAG}([0-9a-f]{{7,64}})")
SHORT = 12  # characters of a commit's hash that a tag and a log line show
WORKSPACE_LOCK = Path(".dvc/tmp/retrain.lock")  # held by a run that is at work in the clone
FETCHED = "refs/retrain/fetched"  # of our own: branches a and a/b cannot follow each other under one name
BLOCK_BYTES = 4096  # what a file may take beyond its size
FIRST_PAUSE_SECONDS, MAX_PAUSE_SECONDS = 2.0, 60.0

Result = TypeVar("Result")


class CheckoutError(Exception):
    """The code of a run cannot be had. Its text is one sentence."""


@dataclass(frozen=True)
class Limits:
    """How long things may take, in seconds.

    Attributes:
        fetch: One fetch, and each command on this disk.
        clone: One clone.
        fetch_patience: After so long no fetch is begun again: the commit that is there will do.
        clone_patience: The same of a clone, without which there is no run.
        lock: How long another checkout of the same folder is waited for.
        workspace: How long a run that is at work in the folder, and has been told to stop, may save.
    """

    fetch: float = 120.0
    clone: float = 1800.0
    fetch_patience: float = 20.0
    clone_patience: float = 900.0
    lock: float = 3600.0
    workspace: float = 150.0


def checkout(repository: str = "", branch: str = "", folder: str = "retrain") -> dict[str, str]:
    """Bring the clone in `folder` to the branch; return the folder as Prefect's steps do.

    Args:
        repository: The address; a credential belongs into RETRAIN_GIT_TOKEN or git's credential helper instead.
        branch: A branch or a tag.
        folder: Where the clone is or shall be.

    Raises:
        CheckoutError: There is no clone and none can be had, or the disk is full.
    """
    log, tags = preparing()
    began = next((match[1] for tag in tags if (match := COMMIT_TAG_PATTERN.fullmatch(tag))), None)
    try:
        if not repository or not branch:
            raise CheckoutError(
                "the deployment names no repository or no branch: "
                "set RETRAIN_REPOSITORY and RETRAIN_BRANCH, then deploy infra/prefect.yaml again"
            )
        Checkout(repository, branch, Path(folder).absolute(), log).run(began)
    except CheckoutError as error:
        log.error("%s", error)
        raise
    except OSError as error:
        log.error("the code cannot be checked out: %s (%s)", error.strerror or error, error.filename or folder)
        raise
    _take_own_code_off_the_path()
    return {"directory": str(Path(folder).absolute())}


class Checkout:
    """One folder's clone, and how it is brought to a commit."""

    def __init__(self, repository: str, branch: str, folder: Path, log: Log, limits: Limits | None = None) -> None:
        self.remote = Remote.from_address(repository)
        self.branch = branch
        self.folder = folder
        self.log = log
        self.limits = limits or Limits()
        self._note: Callable[[int], None] | None = None
        # A user's name alone is no secret where ssh asks for a key.
        if repository != self.remote.shown and not re.fullmatch(r"ssh://[^:/@]*@[^@?#]*", repository):
            log.warning(
                "the repository's address holds a credential, which everyone reads who sees the deployment: "
                "put it into RETRAIN_GIT_TOKEN in the worker's environment"
            )

    def run(self, began: str | None = None) -> str:
        """Bring the clone to the commit with which the run began, or else to its branch; return the commit.

        Raises:
            CheckoutError: There is no clone and none can be had, or the disk is full.
        """
        self.folder.parent.mkdir(parents=True, exist_ok=True)
        lock = self.folder.with_name(f".{self.folder.name}.lock")
        try:
            with turn(lock, self.limits.lock, self._say_that_it_waits) as self._note, self._workspace() as free:
                if not free:
                    self.log.warning("another run is at work in %s: its code is left as it is", self.folder)
                    return self._commit("HEAD") or ""
                try:
                    return self._bring_up(began)
                finally:
                    self._sweep()
        except TimeoutError as error:
            raise CheckoutError(str(error)) from error
        except GitError as error:
            full = "its disk is full" if isinstance(error, DiskFullError) else "git failed"
            raise CheckoutError(
                f"the code of {self.remote.shown} cannot be brought to {self.folder}: {full} ({error}); "
                "data, checkpoints and caches there are as they were"
            ) from error

    def _bring_up(self, began: str | None) -> str:
        self._sweep()
        present = self._commit("HEAD")
        if present is None:
            newest: str | None = self._clone()
        else:
            self._git("config", "remote.origin.url", self.remote.url)
            newest = present if began and self._commit(began) else self._fetch(present)
        target = self._began(began) or newest or present
        try:
            self._make_sure_of_room(present, str(target))
            self._reset(str(target))
        except DiskFullError:
            raise
        except GitError as error:
            self.log.warning("the clone in %s is damaged (%s): .git is made anew, all else stays", self.folder, error)
            target = self._clone()
            self._reset(target)
        self.log.info("the code is that of commit %s", str(target)[:SHORT])
        return str(target)

    def _began(self, began: str | None) -> str | None:
        """Return the commit with which the run began, if it began before and the clone has it."""
        if began is None:
            return None
        commit = self._commit(began)
        if commit is not None:
            self.log.info("the run began with commit %s and goes on with it; a new run takes %s", began, self.branch)
        else:
            self.log.warning("commit %s, with which the run began, is gone: it begins anew with %s", began, self.branch)
        return commit

    def _fetch(self, present: str) -> str | None:
        """Return the branch's commit; nothing, and a warning, where it cannot be had."""

        def fetch() -> str:
            source = f"+{self.branch}:{FETCHED}"
            self._git("fetch", "--quiet", "--no-tags", "--", self.remote.url, source, seconds=self.limits.fetch)
            return str(self._commit(FETCHED))

        try:
            return self._persist(fetch, self.limits.fetch_patience)
        except DiskFullError:
            raise
        except BranchGoneError:
            why = f"branch {self.branch} is gone from {self.remote.shown}"
        except GitError as error:
            why = f"{self.remote.shown} cannot be had ({error})"
        self.log.warning("%s: the run goes on with the commit that is here, %s", why, present[:SHORT])
        return None

    def _clone(self) -> str:
        """Clone beside the folder, then rename; of a folder that is there, only .git is replaced. Return the commit."""
        temporary = Path(tempfile.mkdtemp(prefix=self._temporary_prefix, dir=self.folder.parent))
        fresh = temporary / "clone"
        arguments = ("--quiet", "--template=", "--single-branch", "--branch", self.branch)

        def clone() -> None:
            shutil.rmtree(fresh, ignore_errors=True)
            run_git(
                ["clone", *arguments, "--", self.remote.url, str(fresh)], self.limits.clone, self.remote, self._note
            )

        try:
            self._persist(clone, self.limits.clone_patience)
            os.sync()  # a power cut after the rename finds a whole clone
            if self.folder.exists():
                if (self.folder / ".git").exists():
                    (self.folder / ".git").rename(temporary / "former")
                (fresh / ".git").rename(self.folder / ".git")
            else:
                fresh.rename(self.folder)
        finally:
            shutil.rmtree(temporary)
        return str(self._commit("HEAD"))

    def _persist(self, action: Callable[[], Result], patience: float) -> Result:
        """Do what needs the host until it is done, one line a try; a refusal is not worth as long a wait."""
        start, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        while True:
            try:
                return action()
            except (BranchGoneError, DiskFullError):
                raise
            except GitError as error:
                worth = min(patience, self.limits.fetch_patience) if isinstance(error, RefusedError) else patience
                if time.monotonic() - start + pause > worth:
                    raise
                self.log.warning("%s cannot be had (%s): tried again in %.0f s", self.remote.shown, error, pause)
            time.sleep(pause)
            pause = min(2 * pause, MAX_PAUSE_SECONDS)

    def _reset(self, target: str) -> None:
        """Set every tracked file, and no other, to what it is in a commit; say what edits that undoes."""
        try:
            status = self._git("status", "--porcelain", "--untracked-files=no")
        except GitError:  # the list of tracked files is broken; git makes another
            (self.folder / ".git/index").unlink(missing_ok=True)
        else:
            if edited := [line[3:] for line in status.splitlines()]:
                self.log.warning("edits of tracked files are undone: %s", ", ".join(edited))
        self._git("checkout", "--quiet", "--force", "-B", self.branch, target, "--")

    def _make_sure_of_room(self, present: str | None, target: str) -> None:
        """Refuse a commit whose files have no room on the disk, before any of them is written."""
        former = set(self._files(present)) if present else set()
        new = [entry for entry in self._files(target) if entry not in former]
        needed = sum(size + BLOCK_BYTES for _, size in new)
        free = shutil.disk_usage(self.folder).free
        if new and needed > free:
            raise DiskFullError(f"commit {target[:SHORT]} needs {needed:,} bytes and {free:,} are free")

    def _files(self, commit: str) -> list[tuple[str, int]]:
        """Return each file of a commit, by its mode, hash and name, and its size in bytes."""
        entries = [
            entry.partition("\t") for entry in self._git("ls-tree", "-r", "-l", "-z", commit).split("\0") if entry
        ]
        sized = [(left.split(), path) for left, _, path in entries]
        return [(f"{mode} {digest} {path}", int(size)) for (mode, _, digest, size), path in sized if size.isdigit()]

    def _say_that_it_waits(self) -> None:
        self.log.info("another checkout of %s is at work: waiting for it", self.folder)

    def _sweep(self) -> None:
        """Remove what a killed git leaves: half a clone, half a pack, the locks that only it can have held."""
        for leftover in self.folder.parent.glob(f"{self._temporary_prefix}*"):
            shutil.rmtree(leftover)
        git = self.folder / ".git"
        for leftover in [*git.glob("*.lock"), *git.glob("refs/**/*.lock"), *git.glob("objects/pack/tmp_*")]:
            self.log.warning("%s, which a killed git left, is removed", leftover.relative_to(self.folder))
            leftover.unlink()

    @property
    def _temporary_prefix(self) -> str:
        return f".{self.folder.name}.cloning-"

    def _git(self, *arguments: str, seconds: float | None = None) -> str:
        return run_git([*in_clone(self.folder), *arguments], seconds or self.limits.fetch, self.remote, self._note)

    def _commit(self, name: str) -> str | None:
        """Return a commit's whole hash; nothing where the clone has no such commit, or is none."""
        with contextlib.suppress(GitError):
            return self._git("rev-parse", "--verify", "--quiet", "--end-of-options", f"{name}^{{commit}}").strip()
        return None

    @contextlib.contextmanager
    def _workspace(self) -> Iterator[bool]:
        """Hold the folder against runs that begin, once the one before has tidied up; yield whether none is at work."""
        if not (self.folder / ".dvc").is_dir():
            yield True
            return
        path = self.folder / WORKSPACE_LOCK
        path.parent.mkdir(parents=True, exist_ok=True)
        deadline, said = time.monotonic() + self.limits.workspace, False
        with path.open("a") as stream:
            while not (free := locked(stream)) and time.monotonic() < deadline:
                if not said:
                    self.log.info("another run is still at work in %s: waiting for its end", self.folder)
                said = True
                time.sleep(POLL_SECONDS)
            yield free


def _take_own_code_off_the_path() -> None:
    """Leave the run no way to the image's code: the engine that follows inherits PYTHONPATH, and has its clone."""
    own = Path(__file__).resolve().parents[1]
    entries = [entry for entry in os.environ.get("PYTHONPATH", "").split(os.pathsep) if entry]
    os.environ["PYTHONPATH"] = os.pathsep.join(entry for entry in entries if Path(entry).resolve() != own)

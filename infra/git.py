"""Run git for a machine: it never asks, never hangs, runs no hook, and neither shows nor stores a credential."""

import os
import re
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from infra.prefect_proxies import given_back
from infra.process_group import stop_group

GRACE_SECONDS = 5.0
TOKEN_VARIABLE, USER_VARIABLE = "RETRAIN_GIT_TOKEN", "RETRAIN_GIT_USER"
USER = "x-access-token"  # beside a token GitHub and GitLab take any name; Bitbucket wants x-token-auth
# Where another process of this machine has set one of them, git would look into another repository.
FOREIGN = ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_COMMON_DIR", "GIT_NAMESPACE")
SILENT = {"LC_ALL": "C", "GIT_TERMINAL_PROMPT": "0", "GIT_ASKPASS": "", "SSH_ASKPASS_REQUIRE": "never"}
SETTINGS = (
    ("core.fsync", "all"),  # a power cut leaves no empty ref behind
    ("core.hooksPath", os.devnull),
    ("gc.autoDetach", "false"),  # nothing of git goes on behind our back
    ("maintenance.autoDetach", "false"),
    ("submodule.recurse", "false"),
    ("fetch.recurseSubmodules", "false"),
    ("fetch.unpackLimit", "1"),  # one pack, synced once, instead of a file an object
    ("http.lowSpeedLimit", "1"),  # a host that says nothing for so long is away; bytes a second, seconds
    ("http.lowSpeedTime", "30"),
)
HELPER = (  # a line of shell: the token is read from the environment when git asks for it
    f'!f() {{ test "$1" = get && printf \'username=%s\\npassword=%s\\n\' "${USER_VARIABLE}" "${TOKEN_VARIABLE}"; }}; f'
)
DISK_FULL = re.compile("No space left on device|Out of diskspace|Disk quota exceeded")
BRANCH_GONE = re.compile("couldn't find remote ref|Remote branch .* not found")
REFUSED = re.compile(
    r"Authentication failed|could not read (Username|Password)|returned error: 40[0134]|Permission denied \(publickey"
    r"|Host key verification failed|[Rr]epository .*(not found|does not exist)|does not appear to be a git repository"
)


class GitError(Exception):
    """A git command failed, and may work later: its host is away, or broke off. Its text is one sentence."""


class RefusedError(GitError):
    """The host knows no such repository, or none for whoever asks."""


class BranchGoneError(GitError):
    """The repository has no such branch."""


class DiskFullError(GitError):
    """There is no room for what git wants to write."""


@dataclass(frozen=True)
class Remote:
    """A repository's address without what it may hold of a credential, which goes to git through the environment."""

    url: str
    user: str = ""
    token: str = ""

    @classmethod
    def from_address(cls, address: str) -> "Remote":
        """Take the credential out of an http(s) address; without one, take it from RETRAIN_GIT_TOKEN."""
        parts = urlsplit(address)
        if parts.scheme not in ("http", "https"):
            return cls(address)
        place, user, password = parts.netloc.rpartition("@")[2], parts.username or "", parts.password
        url = urlunsplit((parts.scheme, place, parts.path, parts.query, ""))
        if password is not None or user:  # a lone name is a token, as hosts' pages show it: https://TOKEN@host/…
            own = (user, password) if password is not None else (USER, user)
            return cls(url, *map(unquote, own))
        return cls(url, os.environ.get(USER_VARIABLE) or USER, os.environ.get(TOKEN_VARIABLE, ""))

    @property
    def shown(self) -> str:
        """The address for sentences: what another scheme, or a query, may hold of a credential is left out."""
        return _without_secrets(self.url)

    @property
    def settings(self) -> list[tuple[str, str]]:
        """Return what makes git ask our helper, and no other, for this host's credential and for no other host's."""
        if not self.token:
            return []
        parts = urlsplit(self.url)
        key = f"credential.{parts.scheme}://{parts.netloc}.helper"
        return [(key, ""), (key, HELPER)]


def run_git(
    arguments: Sequence[str],
    seconds: float,
    remote: Remote | None = None,
    on_start: Callable[[int], None] | None = None,
) -> str:
    """Run git and return what it prints.

    Args:
        arguments: git's own, the repository among them.
        seconds: After so long it is stopped, with all its helpers.
        remote: The repository that it talks to, if any.
        on_start: Called with the number of git's process group.

    Raises:
        GitError: It failed or took too long; of the kind that its words tell.
    """
    process = subprocess.Popen(
        ["git", *arguments],
        env=_environment(remote or Remote("")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,  # no terminal to ask at, and one group to stop
    )
    try:
        if on_start is not None:
            on_start(process.pid)
        printed, said = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired as error:
        raise GitError(f"git took longer than {seconds:g} s") from error
    finally:
        if process.poll() is None:
            stop_group(process.pid, GRACE_SECONDS, process)
    if process.returncode != 0:
        raise _error(said.decode(errors="replace"), process.returncode)
    return printed.decode(errors="surrogateescape")


def in_clone(folder: Path) -> list[str]:
    """Return git's first arguments for a clone: this one, whatever repository lies round it."""
    return [f"--git-dir={folder / '.git'}", f"--work-tree={folder}"]


def _environment(remote: Remote) -> dict[str, str]:
    environment = {name: value for name, value in given_back(os.environ).items() if name not in FOREIGN} | SILENT
    environment |= {USER_VARIABLE: remote.user, TOKEN_VARIABLE: remote.token}
    first = int(environment.get("GIT_CONFIG_COUNT", "0"))
    settings = [*SETTINGS, *remote.settings]
    for number, (key, value) in enumerate(settings, first):
        environment |= {f"GIT_CONFIG_KEY_{number}": key, f"GIT_CONFIG_VALUE_{number}": value}
    return environment | {"GIT_CONFIG_COUNT": str(first + len(settings))}


def _without_secrets(text: str) -> str:
    """Return a text without what stands in its addresses before an @ or after a ? or #; `git@host:` is no secret."""
    return re.sub(r"([?#])[^\s'\"]+", r"\1…", re.sub(r"://[^/\s]*@", "://…@", text))


def _error(said: str, status: int) -> GitError:
    """Return the error that git's words mean, with the words that say why."""
    lines = [line.strip() for line in said.splitlines()]
    telling = [line for line in lines if re.match("fatal:|error:|remote:|ssh:|warning: unable", line)] or lines[-1:]
    words = "; ".join(re.sub("^(fatal|error): ", "", line) for line in telling)
    text = _without_secrets(words) or f"git ended with status {status}"
    kinds = ((DISK_FULL, DiskFullError), (BRANCH_GONE, BranchGoneError), (REFUSED, RefusedError))
    kind = next((kind for pattern, kind in kinds if pattern.search(said)), GitError)
    return kind(text)

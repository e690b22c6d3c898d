"""A worker's clone that was cut off, damaged, or has no room: it becomes whole, and keeps what runs left in it."""

import logging
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from infra.checkout import CheckoutError
from tests.fixtures.checkouts import bring, clean, head, kept, live_in
from tests.fixtures.dvc_project import command
from tests.fixtures.git_host import GitHost, Upstream

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


KILLED = """
    import logging, pathlib, sys
    from infra.checkout import Checkout
    logging.basicConfig(level=logging.INFO)
    Checkout(sys.argv[1], "main", pathlib.Path(sys.argv[2]), logging.getLogger()).run()
"""


def start(address: str, worker_clone: Path) -> subprocess.Popen[bytes]:
    command_line = [sys.executable, "-c", textwrap.dedent(KILLED), address, str(worker_clone)]
    return subprocess.Popen(
        command_line, env=os.environ | {"PYTHONPATH": str(ROOT)}, cwd=worker_clone.parents[1], stderr=subprocess.PIPE
    )


def test_a_clone_that_was_killed_is_never_taken_for_one(
    upstream: Upstream, worker_clone: Path, git_host: GitHost
) -> None:
    git_host.speaks.clear()
    killed = start(git_host.address(upstream), worker_clone)
    assert git_host.asked.wait(60)
    killed.kill()
    killed.communicate()
    (half,) = worker_clone.parent.glob(".retrain.cloning-*")
    assert not worker_clone.exists()
    git_host.speaks.set()

    assert bring(git_host.address(upstream), worker_clone) == upstream.git("rev-parse", "HEAD")
    assert not half.exists()


def test_of_two_clones_at_once_the_second_waits(upstream: Upstream, worker_clone: Path, git_host: GitHost) -> None:
    address = git_host.address(upstream)
    git_host.speaks.clear()
    first = start(address, worker_clone)
    assert git_host.asked.wait(60)
    second = start(address, worker_clone)
    assert second.stderr is not None
    line = second.stderr.readline()
    git_host.speaks.set()

    assert b"another checkout of" in line
    assert first.communicate()[0] is None
    assert second.communicate()[0] is None
    assert (first.returncode, second.returncode) == (0, 0)
    assert (worker_clone / "code.txt").read_text() == "one"


def test_half_a_clone_of_another_making_gets_a_whole_git_folder(upstream: Upstream, worker_clone: Path) -> None:
    live_in(worker_clone)
    command(worker_clone, "git", "init", "--quiet")
    (worker_clone / "code.txt").write_text("half")

    assert bring(upstream, worker_clone) == upstream.git("rev-parse", "HEAD")
    assert (worker_clone / "code.txt").read_text() == "one"
    assert kept(worker_clone)


def test_a_damaged_clone_gets_a_whole_git_folder(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (lived_in / ".git/index").write_bytes(b"torn")
    assert head(lived_in)
    for pack in (lived_in / ".git/objects/pack").glob("*.pack"):
        pack.chmod(0o600)
        content = pack.read_bytes()
        pack.write_bytes(content[:-60] + bytes(40) + content[-20:])  # the files, which come after the commits
    (lived_in / "code.txt").write_text("")

    assert bring(upstream, lived_in) == upstream.git("rev-parse", "HEAD")
    assert "is damaged" in caplog.text
    assert (lived_in / "code.txt").read_text() == "one"
    assert kept(lived_in)


def test_what_a_killed_git_leaves_is_swept(upstream: Upstream, lived_in: Path) -> None:
    for name in ("index.lock", "refs/heads/main.lock", "objects/pack/tmp_pack_1"):
        (lived_in / ".git" / name).touch()
    new = upstream.commit(code="two")

    assert bring(upstream, lived_in) == new == head(lived_in)
    assert not (lived_in / ".git/objects/pack/tmp_pack_1").exists()


@pytest.mark.parametrize("large", [os.urandom(2**21), b"x" * 2**21], ids=["fetch", "checkout"])
def test_a_full_disk_is_one_sentence_and_changes_nothing(large: bytes, upstream: Upstream, small_disk: Path) -> None:
    worker_clone = small_disk / "retrain"
    old = bring(upstream, worker_clone)
    live_in(worker_clone)
    upstream.commit(code="two", large=large)

    with pytest.raises(CheckoutError, match="its disk is full") as caught:
        bring(upstream, worker_clone)
    assert "\n" not in str(caught.value)
    assert head(worker_clone) == old
    assert (worker_clone / "code.txt").read_text() == "one"
    assert kept(worker_clone)
    assert clean(worker_clone)


def test_a_disk_too_small_for_the_first_clone_keeps_nothing_of_it(upstream: Upstream, small_disk: Path) -> None:
    upstream.commit(large=os.urandom(2**21))
    with pytest.raises(CheckoutError, match="its disk is full"):
        bring(upstream, small_disk / "retrain")
    assert [path.name for path in small_disk.iterdir()] == [".retrain.lock"]

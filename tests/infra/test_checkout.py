"""A worker's clone: it follows its branch, survives what happens to hosts, disks and processes, and keeps the rest."""

import contextlib
import logging
import threading
from http import HTTPStatus
from pathlib import Path

import pytest

from flows.workspace import LOCK_FILE, exclusive_workspace
from infra.checkout import WORKSPACE_LOCK, Checkout, CheckoutError, Limits
from infra.git import TOKEN_VARIABLE
from tests.fixtures.checkouts import LOG, bring, clean, head, kept, live_in
from tests.fixtures.dvc_project import command
from tests.fixtures.git_host import GitHost, Upstream, serving

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def _hear_everything(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def test_the_first_run_clones(upstream: Upstream, worker_clone: Path) -> None:
    assert bring(upstream, worker_clone) == upstream.git("rev-parse", "HEAD") == head(worker_clone)
    assert (worker_clone / "code.txt").read_text() == "one"
    assert sorted(path.name for path in worker_clone.parent.iterdir()) == [".retrain.lock", "retrain"]


def test_a_new_commit_arrives_and_the_rest_stays(upstream: Upstream, lived_in: Path) -> None:
    upstream.commit(old="two")
    bring(upstream, lived_in)
    new = upstream.commit(code="three", old=None, new="three")

    assert bring(upstream, lived_in) == new == head(lived_in)
    assert (lived_in / "code.txt").read_text() == (lived_in / "new.txt").read_text() == "three"
    assert not (lived_in / "old.txt").exists()
    assert kept(lived_in)
    assert clean(lived_in)


def test_a_force_push_arrives_and_the_rest_stays(upstream: Upstream, lived_in: Path) -> None:
    new = upstream.commit("--amend", code="other")
    assert bring(upstream, lived_in) == new
    upstream.git("checkout", "--quiet", "--orphan", "unrelated")
    unrelated = upstream.commit(code="unrelated")
    upstream.git("branch", "--force", "main")

    assert bring(upstream, lived_in) == unrelated == head(lived_in)
    assert (lived_in / "code.txt").read_text() == "unrelated"
    assert kept(lived_in)


def test_another_branch_or_a_tag_is_followed(upstream: Upstream, lived_in: Path) -> None:
    upstream.git("tag", "-a", "v1", "-m", "first")
    upstream.git("checkout", "--quiet", "-b", "main2/fast")
    new = upstream.commit(code="two")

    assert bring(upstream, lived_in, "main2/fast") == new == head(lived_in)
    assert bring(upstream, lived_in, "v1") == upstream.git("rev-parse", "main") == head(lived_in)
    assert kept(lived_in)


@pytest.mark.parametrize(
    ("away", "says"),
    [("gone", "Failed to connect"), (HTTPStatus.SERVICE_UNAVAILABLE, "503"), ("password", "could not read Username")],
)
def test_a_host_that_is_away_costs_a_warning(
    away: HTTPStatus | str,
    says: str,
    upstream: Upstream,
    worker_clone: Path,
    git_host: GitHost,
    caplog: pytest.LogCaptureFixture,
) -> None:
    old = bring(git_host.address(upstream), worker_clone)
    live_in(worker_clone)
    upstream.commit(code="two")
    address = git_host.address(upstream)
    if away == "gone":
        address = "http://127.0.0.1:1/upstream"
    elif away == "password":
        git_host.password = "not for us"
    else:
        git_host.status = HTTPStatus(int(away))

    assert bring(address, worker_clone) == old == head(worker_clone)
    assert (worker_clone / "code.txt").read_text() == "one"
    assert kept(worker_clone)
    (warning,) = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert says in warning
    assert f"the run goes on with the commit that is here, {old[:12]}" in warning


def test_a_host_that_never_answers_is_left_in_bounded_time(
    upstream: Upstream, worker_clone: Path, git_host: GitHost, caplog: pytest.LogCaptureFixture
) -> None:
    address = git_host.address(upstream)
    old = bring(address, worker_clone)
    upstream.commit(code="two")
    git_host.speaks.clear()

    assert Checkout(address, "main", worker_clone, LOG, Limits(fetch=1, fetch_patience=0)).run() == old
    assert "git took longer than 1 s" in caplog.text


def test_a_host_that_comes_back_is_tried_again(
    upstream: Upstream, worker_clone: Path, git_host: GitHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    git_host.status = HTTPStatus.BAD_GATEWAY

    def come_back(_seconds: float) -> None:
        git_host.status = HTTPStatus.OK

    monkeypatch.setattr("infra.checkout.time.sleep", come_back)
    assert Checkout(git_host.address(upstream), "main", worker_clone, LOG).run() == upstream.git("rev-parse", "HEAD")


def test_a_branch_that_is_gone_is_named(upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture) -> None:
    old = head(lived_in)
    upstream.git("branch", "--move", "trunk")
    upstream.commit(code="two")

    assert bring(upstream, lived_in) == old
    assert f"branch main is gone from {upstream.address}" in caplog.text
    assert kept(lived_in)


@pytest.mark.parametrize(("address", "branch"), [("file:///nowhere", "main"), (None, "gone")])
def test_without_a_clone_and_without_a_source_there_is_one_sentence(
    address: str | None, branch: str, upstream: Upstream, worker_clone: Path
) -> None:
    with pytest.raises(CheckoutError, match=r"the code of .* cannot be brought to .*retrain: git failed \(.*\); data"):
        bring(address or upstream, worker_clone, branch)
    assert [path.name for path in worker_clone.parent.iterdir()] == [".retrain.lock"]


def test_edits_of_tracked_files_are_undone_and_named(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (lived_in / "code.txt").write_text("edited")
    bring(upstream, lived_in)

    assert (lived_in / "code.txt").read_text() == "one"
    assert "edits of tracked files are undone: code.txt" in caplog.text


def test_the_repository_may_move(upstream: Upstream, lived_in: Path, tmp_path: Path) -> None:
    moved = Upstream(tmp_path / "moved")
    new = moved.commit(code="moved")

    assert bring(moved, lived_in) == new
    assert command(lived_in, "git", "remote", "get-url", "origin").strip() == moved.address
    assert kept(lived_in)


@pytest.mark.parametrize("address_holds_it", [False, True])
def test_a_token_is_used_and_neither_stored_nor_shown(
    address_holds_it: bool,
    upstream: Upstream,
    worker_clone: Path,
    git_host: GitHost,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    git_host.password = "s3cret-token"
    if address_holds_it:
        address = git_host.address(upstream, "s3cret-token@")
    else:
        address = git_host.address(upstream)
        monkeypatch.setenv(TOKEN_VARIABLE, "s3cret-token")
    bring(address, worker_clone)
    new = upstream.commit(code="two")

    assert bring(address, worker_clone) == new
    assert set(git_host.seen) == {"x-access-token:s3cret-token"}
    git_host.password = "renewed"
    assert bring(address, worker_clone) == new
    assert "Authentication failed" in caplog.text
    assert "s3cret" not in caplog.text
    stored = [path for path in (worker_clone / ".git").rglob("*") if path.is_file() and b"s3cret" in path.read_bytes()]
    assert stored == []
    assert ("put it into RETRAIN_GIT_TOKEN" in caplog.text) is address_holds_it


def test_a_token_is_for_its_own_host_alone(
    upstream: Upstream, worker_clone: Path, git_host: GitHost, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_VARIABLE, "s3cret-token")
    git_host.password = "s3cret-token"
    with serving(tmp_path) as stranger:
        stranger.password = "whatever comes"
        git_host.moved_to = f"http://localhost:{stranger.server_port}"
        with pytest.raises(CheckoutError, match="Authentication failed"):
            bring(git_host.address(upstream), worker_clone)
        assert git_host.seen
        assert stranger.seen == []


def test_a_run_that_began_goes_on_with_its_commit(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    old = head(lived_in)
    new = upstream.commit(code="two")
    newest = upstream.commit(code="three")
    assert bring(upstream, lived_in) == newest

    assert bring(upstream, lived_in, began=old[:12]) == old == head(lived_in)
    assert bring(upstream, lived_in, began=new[:12]) == new
    assert f"the run began with commit {new[:12]} and goes on with it" in caplog.text
    assert bring(upstream, lived_in) == newest
    assert kept(lived_in)


def test_a_worker_that_lacks_the_commit_of_a_run_fetches_it(upstream: Upstream, lived_in: Path) -> None:
    new = upstream.commit(code="two")
    upstream.commit(code="three")
    assert bring(upstream, lived_in, began=new[:12]) == new


def test_a_run_whose_commit_is_gone_begins_anew_and_says_so(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert bring(upstream, lived_in, began="0123456789ab") == head(lived_in)
    assert "commit 0123456789ab, with which the run began, is gone: it begins anew with main" in caplog.text


def test_the_code_of_a_run_at_work_is_left_as_it_is(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert WORKSPACE_LOCK == LOCK_FILE
    old = head(lived_in)
    new = upstream.commit(code="two")
    with exclusive_workspace(lived_in):
        assert bring(upstream, lived_in) == old
    assert "another run is at work" in caplog.text
    assert bring(upstream, lived_in) == new


def test_a_run_that_tidies_up_is_waited_for(
    upstream: Upstream, lived_in: Path, caplog: pytest.LogCaptureFixture
) -> None:
    new = upstream.commit(code="two")
    with contextlib.ExitStack() as stack:
        stack.enter_context(exclusive_workspace(lived_in))
        threading.Timer(0.5, stack.close).start()
        assert Checkout(upstream.address, "main", lived_in, LOG).run() == new
    assert "waiting for its end" in caplog.text


def test_a_repository_round_the_folder_is_not_touched(upstream: Upstream, tmp_path: Path) -> None:
    around = Upstream(tmp_path / "around")
    mine = around.commit(code="mine")
    worker_clone = around.folder / "retrain"
    live_in(worker_clone)

    bring(upstream, worker_clone)
    assert around.git("rev-parse", "HEAD") == mine
    assert kept(worker_clone)
    assert (worker_clone / "code.txt").read_text() == "one"

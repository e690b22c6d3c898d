"""git's addresses: what they hold of a credential goes to git, and into no sentence."""

import logging
from pathlib import Path

import pytest

from infra.checkout import Checkout
from infra.git import GitError, Remote, run_git

SECRETS = (
    "https://me:SECRET@127.0.0.1:1/x.git",
    "https://127.0.0.1:1/x.git?private_token=SECRET",
    "https://127.0.0.1:1/x.git#SECRET",
    "ssh://me:SECRET@127.0.0.1:1/x.git",
)
PLAIN = ("https://127.0.0.1:1/x.git", "ssh://git@127.0.0.1:1/x.git", "git@127.0.0.1:x.git", "/srv/x.git")


@pytest.mark.parametrize("address", SECRETS)
def test_no_sentence_shows_what_an_address_holds(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    remote = Remote.from_address(address)
    assert "SECRET" not in remote.shown
    assert "127.0.0.1:1/x.git" in remote.shown
    with pytest.raises(GitError) as caught:
        run_git(["ls-remote", "--", remote.url], 30, remote)
    assert "SECRET" not in str(caught.value)
    Checkout(address, "main", tmp_path, logging.getLogger("checkout"))
    assert "the repository's address holds a credential" in caplog.text
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("address", PLAIN)
def test_a_plain_address_is_shown_and_not_warned_of(
    address: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    assert Remote.from_address(address).shown.endswith(address.rpartition("@")[2])
    Checkout(address, "main", tmp_path, logging.getLogger("checkout"))
    assert caplog.text == ""

"""Making a key pair, and asking for signatures on the command line."""

import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer
from tasks.registry.manifest import Manifest
from tasks.registry.releases import publish_release, verify_folder
from tasks.registry.signatures import SIGNING_KEY, TRUSTED_KEY, read_signing_key, read_trusted_keys
from tasks.registry.signing import generate_key
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release
from tests.fixtures.dvc_project import REPOSITORY

NOW = "2024-01-02T03:04:05+00:00"


def run(*arguments: str | Path, folder: Path | None = None, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("RETRAIN_")}
    return subprocess.run(
        [sys.executable, "-m", *map(str, arguments)],
        cwd=folder,
        env={**clean, "PYTHONPATH": str(REPOSITORY), **environment},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_key_pair_is_made_for_its_owner_alone(tmp_path: Path) -> None:
    done = run("tasks.registry.signing", "keygen", tmp_path / "keys/release.key")
    assert (done.returncode, done.stderr) == (0, "")
    private, public = tmp_path / "keys/release.key", tmp_path / "keys/release.key.pub"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    key = read_signing_key(private)
    assert read_trusted_keys(public) == key.trusted
    assert done.stdout.splitlines()[0] == f"key {key.name}"
    assert private.read_text().splitlines()[1] not in done.stdout + public.read_text()
    assert sorted(path.name for path in private.parent.iterdir()) == ["release.key", "release.key.pub"]


@pytest.mark.parametrize("existing", ["release.key", "release.key.pub"])
def test_a_key_is_never_overwritten(tmp_path: Path, existing: str) -> None:
    (tmp_path / existing).write_text("precious")
    done = run("tasks.registry.signing", "keygen", tmp_path / "release.key")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == f"signing: {tmp_path / existing} exists already; a key is never overwritten\n"
    assert [path.name for path in tmp_path.iterdir()] == [existing]
    assert (tmp_path / existing).read_text() == "precious"


def test_a_key_that_git_would_commit_is_not_made(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / ".gitignore").write_text("/.local/\n")
    with pytest.raises(InputError, match="would be committed to git"):
        generate_key(tmp_path / "release.key")
    assert not (tmp_path / "release.key").exists()
    generate_key(tmp_path / ".local/release.key")


def test_this_repository_ignores_private_keys() -> None:
    for path in (".local/release.key", "release.key"):
        subprocess.run(["git", "check-ignore", "--quiet", path], cwd=REPOSITORY, check=True)


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


@pytest.fixture
def release(bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Manifest:
    """A release that is the champion, signed with keys/release.key."""
    generate_key(tmp_path / "keys/release.key")
    generate_key(tmp_path / "keys/other.key")
    with monkeypatch.context() as publisher:
        publisher.setenv(SIGNING_KEY, str(tmp_path / "keys/release.key"))
        manifest = publish_release(bucket, tmp_path / "release", write_release(tmp_path / "release", "a"))
        move_pointer(bucket, "champion", manifest, NOW, lambda _: "better")
    return manifest


def registry(store: ObjectStore, bucket: Store, *arguments: str | Path, **environment: str) -> tuple[int, str]:
    """Run tasks.registry; return its status and what it says on standard error."""
    place = ("--bucket", bucket.name, "--prefix", bucket.prefix)
    variables: dict[str, Any] = {**store.environment, **environment}
    done = run("tasks.registry", *arguments, *place, **variables)
    return done.returncode, done.stderr


def test_a_command_asks_for_signatures_by_option_or_environment(
    object_store: ObjectStore, bucket: Store, release: Manifest, tmp_path: Path
) -> None:
    right, wrong = tmp_path / "keys/release.key.pub", tmp_path / "keys/other.key.pub"
    pull = ("pull", "champion", tmp_path / "pulled")
    assert registry(object_store, bucket, *pull, "--require-signature", "--trusted-key", right)[0] == 0
    assert verify_folder(tmp_path / "pulled") == release
    status, words = registry(object_store, bucket, *pull, "--trusted-key", wrong)
    assert status == 2
    assert "which is not a trusted one" in words
    status, words = registry(object_store, bucket, "show", **{TRUSTED_KEY: str(wrong)})
    assert status == 2
    assert words.startswith("registry: ")
    assert len(words.splitlines()) == 1
    assert registry(object_store, bucket, "show", "--trusted-key", right, **{TRUSTED_KEY: str(wrong)})[0] == 0


def test_a_signature_cannot_be_required_of_nobody(object_store: ObjectStore, bucket: Store) -> None:
    status, words = registry(object_store, bucket, "show", "--require-signature")
    assert status == 2
    assert words == (
        "registry: --require-signature needs the public key to trust: --trusted-key FILE, or RETRAIN_TRUSTED_KEY\n"
    )

"""Somebody may write where DVC's remote is: nothing that he plants among the earlier runs comes into a workspace."""

import contextlib
import copy
import hashlib
import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from flows.lineage import push
from flows.run_cache import EarlierRuns, push_runs
from flows.stages import Outcome, run_stage
from infra.local.object_store import ObjectStore
from tasks.registry.signatures import SIGNING_KEY, TRUSTED_KEY
from tasks.registry.signing import generate_key
from tasks.s3.client import connect
from tests.fixtures.dvc_project import command, make_project

REMOTE = f"attacked-{uuid.uuid4().hex}"
STAGE = "make"
EVIL = b"raise SystemExit('code of a stranger')"


@pytest.fixture(scope="module")
def client(object_store: ObjectStore) -> Iterator[Any]:
    """The store's client; its variables are in the environment."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in object_store.environment.items():
            patch.setenv(name, value)
        yield connect()


@pytest.fixture(scope="module")
def project(client: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project whose first stage somebody ran, and handed over without a signature."""
    folder = make_project(tmp_path_factory.mktemp("attacked") / "project", f"s3://retrain/{REMOTE}")
    assert run_stage(STAGE, folder, lambda _: None).outcome is Outcome.RAN
    push(folder, lambda _: None)
    push_runs(folder)
    return folder


def fresh(project: Path, folder: Path) -> tuple[Path, Outcome, list[str]]:
    """Bring the stage up to date in a fresh clone; return it, what became of the stage, and the warnings."""
    warnings: list[str] = []
    command(folder, "git", "clone", "--quiet", str(project), "victim")
    EarlierRuns(folder / "victim").fetch(STAGE, warnings.append)
    return folder / "victim", run_stage(STAGE, folder / "victim", lambda _: None).outcome, warnings


class Attacker:
    """Writes into the remote, and knows what is there."""

    def __init__(self, client: Any) -> None:
        self._client = client
        (self.run_key,) = [key for key in self.keys("runs/") if not key.endswith("/")]
        self.record: dict[str, Any] = YAML(typ="safe").load(self.get(self.run_key))
        self.listing_key = self.object_key(self.record["outs"][0]["md5"])

    def keys(self, prefix: str) -> list[str]:
        found = self._client.list_objects_v2(Bucket="retrain", Prefix=f"{REMOTE}/{prefix}").get("Contents", [])
        return [each["Key"] for each in found if each["Size"]]

    def object_key(self, md5: str) -> str:
        return f"{REMOTE}/files/md5/{md5[:2]}/{md5[2:]}"

    def get(self, key: str) -> bytes:
        return bytes(self._client.get_object(Bucket="retrain", Key=key)["Body"].read())

    @contextlib.contextmanager
    def planted(self, objects: dict[str, bytes | None]) -> Iterator[None]:
        """Put objects, or take them away, for as long as the block runs."""
        before = {key: self.get(key) if self.keys(key.removeprefix(f"{REMOTE}/")) else None for key in objects}
        self._write(objects)
        try:
            yield
        finally:
            self._write(before)

    def _write(self, objects: dict[str, bytes | None]) -> None:
        for key, body in objects.items():
            if body is None:
                self._client.delete_object(Bucket="retrain", Key=key)
            else:
                self._client.put_object(Bucket="retrain", Key=key, Body=body)

    def another_record(self, record: dict[str, Any], name: str | None = None) -> dict[str, bytes | None]:
        """Return a record in the place of the honest one, under a name or the one that its content gives it."""
        from dvc.stage.cache import _get_cache_hash  # noqa: PLC0415 - DVC takes a second to import

        key = f"{self.run_key.rpartition('/')[0]}/{name or _get_cache_hash(copy.deepcopy(record))}"
        return {self.run_key: None, key: json.dumps(record).encode()}

    def another_listing(self, *relpaths: str) -> bytes:
        """Return the honest listing with the evil file at further places."""
        listed = json.loads(self.get(self.listing_key))
        listed += [{"md5": hashlib.md5(EVIL).hexdigest(), "relpath": path} for path in relpaths]  # noqa: S324
        return json.dumps(sorted(listed, key=lambda each: str(each["relpath"]))).encode()


@pytest.fixture
def attacker(project: Path, client: Any) -> Iterator[Attacker]:
    attacker = Attacker(client)
    with attacker.planted({attacker.object_key(hashlib.md5(EVIL).hexdigest()): EVIL}):  # noqa: S324
        yield attacker


def test_what_was_handed_over_is_restored(project: Path, tmp_path: Path) -> None:
    assert fresh(project, tmp_path)[1:] == (Outcome.RESTORED, [])


@pytest.mark.parametrize("name", ["f" * 64, None], ids=["any name", "its own name"])
def test_a_record_with_an_output_more_is_not_taken(
    project: Path, attacker: Attacker, tmp_path: Path, name: str | None
) -> None:
    record = copy.deepcopy(attacker.record)
    record["outs"].append({"path": "numpy.py", "hash": "md5", "md5": hashlib.md5(EVIL).hexdigest()})  # noqa: S324
    with attacker.planted(attacker.another_record(record, name)):
        victim, outcome, (warning,) = fresh(project, tmp_path)
    assert outcome is Outcome.RAN
    assert "an earlier run is not taken: " in warning
    assert not (victim / "numpy.py").exists()


@pytest.mark.parametrize("way", ["another cache", "files of its own"])
def test_a_record_whose_output_is_more_than_a_hash_is_not_taken(
    project: Path, attacker: Attacker, tmp_path: Path, way: str
) -> None:
    record = copy.deepcopy(attacker.record)
    if way == "another cache":  # that of DVC's versions before 3, which nobody looks through
        del record["outs"][0]["hash"]
    else:
        record["outs"][0]["files"] = [{"relpath": "../numpy.py", "md5": hashlib.md5(EVIL).hexdigest()}]  # noqa: S324
    with attacker.planted(attacker.another_record(record)):
        victim, outcome, (warning,) = fresh(project, tmp_path)
    assert outcome is Outcome.RAN
    assert "has an output that is more than a path and its hash" in warning
    assert not (victim / "numpy.py").exists()


def test_a_listing_with_a_file_outside_its_folder_is_not_taken(
    project: Path, attacker: Attacker, tmp_path: Path
) -> None:
    listing = attacker.another_listing("../numpy.py", "../../outside.py")
    md5 = f"{hashlib.md5(listing).hexdigest()}.dir"  # noqa: S324
    record = copy.deepcopy(attacker.record)
    record["outs"][0]["md5"] = md5
    with attacker.planted({**attacker.another_record(record), attacker.object_key(md5): listing}):
        victim, outcome, (warning,) = fresh(project, tmp_path)
    assert outcome is Outcome.RAN
    assert "which is outside its folder" in warning
    assert not (victim / "numpy.py").exists()
    assert not (tmp_path / "outside.py").exists()


def test_a_listing_that_was_altered_under_its_own_hash_is_not_taken(
    project: Path, attacker: Attacker, tmp_path: Path
) -> None:
    with attacker.planted({attacker.listing_key: attacker.another_listing("extra.txt")}):
        victim, outcome, _ = fresh(project, tmp_path)
    assert outcome is Outcome.RAN
    assert not (victim / "made/extra.txt").exists()


def test_where_keys_are_configured_only_what_one_of_them_signed_is_taken(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    generate_key(tmp_path / "release.key")
    generate_key(tmp_path / "strangers.key")
    monkeypatch.setenv(TRUSTED_KEY, str(tmp_path / "release.key.pub"))
    for folder in (unsigned := tmp_path / "unsigned", signed := tmp_path / "signed", other := tmp_path / "other"):
        folder.mkdir()
    _, outcome, (warning,) = fresh(project, unsigned)
    assert outcome is Outcome.RAN
    assert "is not signed, and only what a trusted key signed is accepted" in warning

    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "release.key"))
    assert push_runs(project) == 1
    assert push_runs(project) == 0
    assert fresh(project, signed)[1:] == (Outcome.RESTORED, [])

    monkeypatch.delenv(TRUSTED_KEY)  # who signs believes himself alone
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "strangers.key"))
    _, outcome, (warning,) = fresh(project, other)
    assert outcome is Outcome.RAN
    assert "which is not a trusted one" in warning

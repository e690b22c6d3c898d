"""What a run made reaches another disk: `registry checkout`, `dvc pull`, and `dvc repro` has nothing to do."""

import hashlib
import json
import os
import shutil
import sys
import uuid
from dataclasses import replace
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from flows.lineage import push
from flows.stages import run_stage
from infra.local.object_store import ObjectStore
from tasks.params.params import load_params, read_yaml
from tasks.registry.checkout import checkout
from tasks.registry.lineage import dvc_lock, git_state
from tasks.registry.manifest import Manifest
from tasks.registry.releases import publish_release
from tasks.registry.signatures import SIGNING_KEY, UntrustedError, read_signing_key
from tasks.registry.signing import generate_key
from tasks.registry.workspaces import read_workspace, record_workspace
from tasks.stage.errors import InputError
from tests.fixtures.answered import answered_release
from tests.fixtures.buckets import new_bucket
from tests.fixtures.dvc_project import REPOSITORY, command, dvc, make_project

PUBLISH = """\
  publish:
    cmd: python publish.py
    deps: [evaluation, publish.py]
    params: [publish]
    outs: [release]
"""


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory, object_store: ObjectStore) -> Path:
    """A project whose stages ran, and which is in its remote."""
    project = make_project(tmp_path_factory.mktemp("ran") / "project", f"s3://retrain/dvc-{uuid.uuid4().hex}")
    text = (project / "dvc.yaml").read_text()
    (project / "dvc.yaml").write_text(text.replace("metrics:\n", f"{PUBLISH}metrics:\n"))
    (project / "publish.py").write_text(
        "import pathlib; pathlib.Path('release').mkdir(exist_ok=True); pathlib.Path('release/receipt.json').touch()"
    )
    command(project, "git", "add", ".")
    command(project, "git", "commit", "--quiet", "--message", "Publish")
    (project / "params.yaml").write_text(
        (project / "params.yaml").read_text().replace("split:\n", "split:  # as the run had it\n", 1)
    )
    with pytest.MonkeyPatch.context() as environment:
        for name, value in object_store.environment.items():
            environment.setenv(name, value)
        for stage in ("make", "report", "publish"):
            run_stage(stage, project, lambda _: None)
        push(project, lambda _: None)
    return project


class Made:
    """A project whose stages ran, and the release that they made."""

    def __init__(self, ran: Path, folder: Path, store: ObjectStore) -> None:
        self.project = folder / "project"
        shutil.copytree(ran, self.project, symlinks=True)
        self.bucket = new_bucket(store)
        self.release = self.publish(folder / "release", right=300)

    def publish(self, folder: Path, right: int) -> Manifest:
        facts = {
            "git": git_state(self.project),
            "dvc_lock": dvc_lock(self.project, without="publish"),
            "parameters": load_params(self.project / "params.yaml").used(),
        }
        return publish_release(self.bucket, folder, answered_release(folder, right).model_copy(update=facts))

    def clone(self, name: str) -> Path:
        command(self.project.parent, "git", "clone", "--quiet", str(self.project), name)
        return self.project.parent / name


@pytest.fixture
def made(ran: Path, tmp_path: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Made:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return Made(ran, tmp_path, object_store)


def test_after_a_checkout_and_dvc_pull_there_is_nothing_to_do(made: Made) -> None:
    assert record_workspace(made.bucket, made.release, made.project)
    clone = made.clone("laptop")
    done = checkout(made.bucket, made.release, clone)
    assert done.commit == done.here == command(clone, "git", "rev-parse", "HEAD").strip()
    assert (set(done.changed), done.doubts) == ({"params.yaml", "dvc.lock"}, ())
    for name in done.changed:
        assert (clone / name).read_bytes() == (made.project / name).read_bytes()
    dvc(clone, "pull")
    assert "Data and pipelines are up to date." in dvc(clone, "repro")
    words = ("checkout", made.release.id, "--bucket", made.bucket.name, "--prefix", made.bucket.prefix)
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    said = command(clone, sys.executable, "-m", "tasks.registry", *words, environment=environment)
    assert said == (
        f"params.yaml and dvc.lock are as in release {made.release.id}, made of commit {done.commit}; now: dvc pull\n"
    )


def test_another_commit_is_named(made: Made) -> None:
    record_workspace(made.bucket, made.release, made.project)
    clone = made.clone("laptop")
    command(clone, "git", "-c", "user.name=T", "-c", "user.email=t@l", "commit", "--allow-empty", "--quiet", "-m", "On")
    (doubt,) = checkout(made.bucket, made.release, clone).doubts
    assert doubt.startswith(f"it was made of commit {(made.release.git or {})['commit']}, and this workspace is at ")


@pytest.mark.parametrize("name", ["params.yaml", "dvc.lock"])
def test_what_would_be_lost_is_refused_and_nothing_is_written(made: Made, name: str) -> None:
    record_workspace(made.bucket, made.release, made.project)
    clone = made.clone("laptop")
    with (clone / name).open("a") as file:
        file.write("# mine\n")
    before = {path: path.read_bytes() for path in (clone / "params.yaml", clone / "dvc.lock") if path.exists()}
    with pytest.raises(InputError, match=f"{name} has changes that would be lost"):
        checkout(made.bucket, made.release, clone)
    assert {path: path.read_bytes() for path in (clone / "params.yaml", clone / "dvc.lock") if path.exists()} == before


def test_a_workspace_that_did_not_make_the_release_is_not_kept(made: Made) -> None:
    params = made.project / "params.yaml"
    params.write_text(params.read_text().replace("  seed: ", "  seed: 1", 1))
    assert not record_workspace(made.bucket, made.release, made.project)
    assert read_workspace(made.bucket, made.release) is None
    with pytest.raises(InputError, match=f"of release {made.release.id} was not kept: .* rebuild {made.release.id}"):
        checkout(made.bucket, made.release, made.clone("laptop"))


def test_a_record_of_another_release_is_not_believed(made: Made, tmp_path: Path) -> None:
    record_workspace(made.bucket, made.release, made.project)
    planted = read_workspace(made.bucket, made.release)
    assert planted is not None
    text = planted.model_dump_json().replace("batch_size: ", "batch_size: 1")
    other = made.publish(tmp_path / "other", right=301)
    made.bucket.write(f"workspaces/{other.id}.json", text.encode(), replacing=None)
    with pytest.raises(InputError, match="does not say what the manifest of release"):
        checkout(made.bucket, other, made.clone("laptop"))
    made.bucket.write(f"workspaces/{'0' * 16}.json", json.dumps({"params": ""}).encode(), replacing=None)
    with pytest.raises(InputError, match="is not what a publisher writes"):
        checkout(made.bucket, other.model_copy(update={"id": "0" * 16}), made.project)


def test_a_release_from_before_a_parameter_was_there_comes_too_and_what_dvc_will_miss_is_said(made: Made) -> None:
    values = read_yaml((made.project / "params.yaml").read_text(), "params.yaml")
    parameters = load_params(made.project / "params.yaml").used()
    for older in (values, parameters):
        for section, name in (("split", "fit"), ("train", "start"), ("train", "shrink_perturb"), ("evaluate", "costs")):
            older[section].pop(name, None)
    YAML().dump(values, made.project / "params.yaml")
    release = made.release.model_copy(update={"parameters": parameters})
    assert record_workspace(made.bucket, release, made.project)
    clone = made.clone("laptop")
    text = (clone / "dvc.yaml").read_text().replace("params: [publish]", "params: [publish, train.start, train.seed]")
    (clone / "dvc.yaml").write_text(text)
    done = checkout(made.bucket, release, clone)
    assert any("is older than dvc.yaml here and has no train.start: dvc repro wants" in doubt for doubt in done.doubts)
    assert load_params(clone / "params.yaml").split.fit == "squash"


def test_a_record_that_lists_files_of_its_own_is_not_believed(made: Made) -> None:
    record_workspace(made.bucket, made.release, made.project)
    key = f"workspaces/{made.release.id}.json"
    stored = made.bucket.read(key)
    assert stored is not None
    record = json.loads(stored.body)
    lock = read_yaml(record["lock"], "dvc.lock")
    lock["stages"]["publish"]["outs"] = [{"path": "release", "files": [{"relpath": "../outside", "md5": "0" * 32}]}]
    made.bucket.write(key, json.dumps({**record, "lock": json.dumps(lock)}).encode(), replacing=stored)
    with pytest.raises(InputError, match="does not say what the manifest of release"):
        checkout(made.bucket, made.release, made.clone("laptop"))


def test_what_dvc_pull_would_write_outside_its_folder_is_refused(made: Made) -> None:
    """Whoever may write to the bucket, without a key, gives an output a listing of his own, and all hashes agree."""
    command(made.project, "git", "checkout", "--quiet", "--", "params.yaml")
    remote = dvc(made.project, "config", "remote.storage.url").strip().removeprefix("s3://retrain/")
    planted = json.dumps([{"md5": hashlib.md5(b"evil").hexdigest(), "relpath": "../../numpy.py"}]).encode()  # noqa: S324
    value = f"{hashlib.md5(planted).hexdigest()}.dir"  # noqa: S324
    made.bucket.client.put_object(Bucket="retrain", Key=f"{remote}/files/md5/{value[:2]}/{value[2:]}", Body=planted)
    lock = read_yaml((made.project / "dvc.lock").read_text(), "dvc.lock")
    lock["stages"]["make"]["outs"][0] = {"path": "made", "hash": "md5", "md5": value, "size": 4, "nfiles": 1}
    YAML().dump(lock, made.project / "dvc.lock")
    forged = made.publish(made.project.parent / "forged", right=301)
    assert record_workspace(made.bucket, forged, made.project)
    clone = made.clone("laptop")
    with pytest.raises(InputError, match=r"lists '\.\./\.\./numpy\.py', which is outside its folder"):
        checkout(made.bucket, forged, clone)
    assert not (clone / "dvc.lock").exists()
    assert not list((clone / ".dvc/cache").glob(f"files/md5/{value[:2]}/*"))


def test_a_remote_that_cannot_be_asked_is_one_sentence(made: Made) -> None:
    record_workspace(made.bucket, made.release, made.project)
    clone = made.clone("laptop")
    dvc(clone, "remote", "modify", "--local", "storage", "endpointurl", "http://127.0.0.1:9")
    with pytest.raises(InputError, match=r"what dvc pull would write cannot be looked at, for DVC's remote cannot be"):
        checkout(made.bucket, made.release, clone)


def test_where_signatures_are_asked_for_an_unsigned_record_is_not_believed(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record_workspace(made.bucket, made.release, made.project)
    generate_key(tmp_path / "release.key")
    key = read_signing_key(tmp_path / "release.key")
    signed = replace(made.bucket, trust=key.trusted)
    with pytest.raises(UntrustedError, match="is not signed"):
        read_workspace(signed, made.release)
    made.bucket.client.delete_object(
        Bucket=made.bucket.name, Key=f"{made.bucket.prefix}/workspaces/{made.release.id}.json"
    )
    monkeypatch.setenv(SIGNING_KEY, str(tmp_path / "release.key"))
    assert record_workspace(signed, made.release, made.project)
    assert read_workspace(signed, made.release) is not None


def test_a_folder_without_git_is_refused(made: Made, tmp_path: Path) -> None:
    (folder := tmp_path / "plain").mkdir()
    record_workspace(made.bucket, made.release, made.project)
    with pytest.raises(InputError, match="is in no git repository with a commit"):
        checkout(made.bucket, made.release, folder)

"""A rebuild's commands hold all that the manifest records, as text that no shell reads; a doubt is said."""

import subprocess
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from tasks.registry.manifest import Manifest
from tasks.registry.rebuild import plan_rebuild
from tests.fixtures.buckets import write_release

LOCK = {"schema": "2.0", "stages": {"split": {"cmd": "python -m tasks.split", "outs": [{"path": "data/split"}]}}}
PARAMETERS = {"train": {"recipe": "fast", "seed": 0}, "recipes": {"fast": {"rate": 1e-05, "name": "1e5", "on": None}}}


def _manifest(folder: Path, **changes: Any) -> Manifest:
    made = write_release(folder, "a")
    return made.model_copy(update={"dvc_lock": LOCK, "parameters": PARAMETERS, **changes})


def _run(script: str, folder: Path) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["bash", "-c", script], cwd=folder, capture_output=True, text=True, check=False)


def _files(manifest: Manifest, folder: Path) -> None:
    """Run those of the commands that write files."""
    commands = [command for step in plan_rebuild(manifest).steps for command in step.commands]
    for command in commands:
        if command.startswith("cat >"):
            assert _run(command, folder).returncode == 0


def test_parameters_and_lock_are_written_as_they_were(tmp_path: Path) -> None:
    _files(_manifest(tmp_path / "release"), tmp_path)
    yaml = YAML(typ="safe")
    assert yaml.load(tmp_path / "params.yaml") == PARAMETERS
    assert yaml.load(tmp_path / "dvc.lock") == LOCK


def test_the_commands_name_the_commit_and_every_hash(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path)
    plan = plan_rebuild(manifest)
    script = plan.script()
    assert plan.doubts == ()
    assert f"git checkout --quiet --detach {'c' * 40}" in script
    assert "python -m dvc repro evaluate" in script
    hashes = {entry.path: entry.sha256 for entry in manifest.files}
    for name, folder in (("model.keras", "model"), ("split.json", "data/split"), ("metrics.json", "evaluation")):
        assert f"{hashes[name]}  {folder}/{name}" in script
    assert _run(f"bash -n <<'SCRIPT'\n{script}\nSCRIPT", tmp_path).returncode == 0


def test_the_proof_accepts_equal_files_alone(tmp_path: Path) -> None:
    manifest = _manifest(tmp_path / "release")
    (proof,) = plan_rebuild(manifest).steps[-1].commands
    for name, folder in (
        ("model.keras", "model"),
        ("split.json", "data/split"),
        ("metrics.json", "evaluation"),
        ("probabilities.npy", "evaluation"),
    ):
        (tmp_path / folder).mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / name).write_bytes((tmp_path / "release" / name).read_bytes())
    assert _run(proof, tmp_path).returncode == 0
    (tmp_path / "model/model.keras").write_bytes(b"another model")
    assert _run(proof, tmp_path).returncode != 0


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        ({"git": None}, "outside a git repository"),
        ({"git": {"commit": "c" * 40, "dirty": True}}, "had uncommitted changes"),
        ({"git": {"commit": "c" * 40}}, "had uncommitted changes"),
        ({"git": {"commit": "main; rm -rf ~", "dirty": False}}, "outside a git repository"),
        ({"dvc_lock": None}, "without a dvc.lock"),
    ],
)
def test_what_cannot_be_promised_is_said(tmp_path: Path, changes: dict[str, Any], doubt: str) -> None:
    plan = plan_rebuild(_manifest(tmp_path, **changes))
    assert len(plan.doubts) == 1
    assert doubt in plan.doubts[0]
    assert f"# NOT PROMISED: {plan.doubts[0]}" in plan.script()
    assert "rm -rf" not in plan.script()


def test_nothing_in_a_manifest_becomes_a_command(tmp_path: Path) -> None:
    break_out = "x\nEND\n$(touch owned)`touch owned`'; touch owned; '\ntouch owned\n"
    manifest = _manifest(
        tmp_path / "release",
        parameters={"name": break_out, break_out: 1},
        dvc_lock={"cmd": break_out},
        environment={"python": break_out},
        training={"precision": break_out},
    )
    _files(manifest, tmp_path)
    assert YAML(typ="safe").load(tmp_path / "params.yaml") == {"name": break_out, break_out: 1}
    comments = [line for line in plan_rebuild(manifest).script().splitlines() if line.startswith("#")]
    assert _run("\n".join(comments), tmp_path).stdout == ""
    titles = "\n".join(f"# {step.purpose}" for step in plan_rebuild(manifest).steps)
    assert _run(titles, tmp_path).returncode == 0
    assert not (tmp_path / "owned").exists()

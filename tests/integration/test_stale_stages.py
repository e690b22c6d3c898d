"""Which edits make which stages stale, as DVC sees it: what decides a result does, and nothing else."""

import json
import shutil
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tests.fixtures.dvc_project import REPOSITORY, dvc, make_project

STAGES = YAML(typ="safe").load(REPOSITORY / "dvc.yaml")["stages"]


@pytest.fixture(scope="module")
def up_to_date(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with the repository's code and DAG, in whose lock every stage is as it should be."""
    folder = make_project(tmp_path_factory.mktemp("stale") / "project", "s3://nowhere/dvc")
    shutil.copytree(REPOSITORY / "tasks", folder / "tasks", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("dvc.yaml", "params.yaml"):
        shutil.copy(REPOSITORY / name, folder)
    for stage in STAGES.values():
        for path in [*(f"{out}/made" for out in stage["outs"]), *stage["deps"]]:
            if not (folder / path).exists():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                (folder / path).write_text(path)
    dvc(folder, "commit", "--force")
    assert json.loads(dvc(folder, "status", "--json")) == {}
    return folder


@pytest.mark.parametrize(
    ("edited", "stale"),
    [
        ("tasks/s3/client.py", set()),  # a sentence about S3
        ("tasks/stage/progress.py", set()),  # a progress line
        ("tasks/stage/errors.py", set()),
        ("tasks/params/params.py", set()),
        ("tasks/reporting/plots.py", {"evaluate"}),
        ("tasks/reporting/architecture/picture.py", {"evaluate"}),
        ("tasks/registry/gate.py", {"publish"}),
        ("tasks/registry/tables.py", {"publish"}),
        ("tasks/evaluation/metrics.py", {"evaluate", "publish"}),
        ("tasks/sources/transfer.py", {"download", "weights"}),
        ("tasks/models/pretrained.py", {"weights", "train", "evaluate", "publish"}),
        ("tasks/data/folders.py", {"split"}),
        ("tasks/training/augment.py", {"train"}),
        ("tasks/params/recipe.py", {"train"}),
        ("tasks/models/layers.py", {"train", "evaluate", "publish"}),
    ],
)
def test_an_edit_makes_stale_what_it_decides(up_to_date: Path, edited: str, stale: set[str]) -> None:
    path = up_to_date / edited
    before = path.read_bytes()
    path.write_bytes(before + b"\n# edited\n")
    try:
        assert set(json.loads(dvc(up_to_date, "status", "--json"))) == stale
    finally:
        path.write_bytes(before)

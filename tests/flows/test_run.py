import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fixtures.dvc_project import REPOSITORY


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["train.recipy=seed"], "params.yaml: train.recipy = 'seed': no such parameter"),
        (["train.recipe"], "run: 'train.recipe' is not of the form KEY=VALUE"),
        (["split.validation_fraction=0"], "split.validation_fraction = 0"),
    ],
)
def test_bad_setting_is_one_sentence_before_anything_starts(tmp_path: Path, words: list[str], sentence: str) -> None:
    shutil.copy(REPOSITORY / "params.yaml", tmp_path)
    before = (tmp_path / "params.yaml").read_bytes()
    done = subprocess.run(
        [sys.executable, "-m", "flows.run", "--set", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert sentence in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["params.yaml"]
    assert (tmp_path / "params.yaml").read_bytes() == before

"""The drill's short form: the worst that can happen, on real servers. `make drill` has all of it (tests/drill)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drill.__main__ import rehearse
from tests.drill.scenarios import DRILLS
from tests.drill.site import PARAMETERS, Site
from tests.fixtures.dvc_project import REPOSITORY

SHORT_FORM = ("power_cut",)
# Time enough for what interrupts at the first checkpoint.
SHORTER = (*PARAMETERS, "recipes.digits.epochs=6", "train.checkpoint_every_steps=10")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("drilled"), SHORTER)
    try:
        site.up()
        site.deploy()
        yield site
    finally:
        site.down()


def train_undisturbed(site: Site, folder: Path) -> bytes:
    """Return the model that the stage train makes of a site's arrays and parameters, when nothing disturbs it."""
    shutil.copy(site.folder / "params.yaml", folder)
    (folder / "data").symlink_to(site.folder / "data")
    environment = os.environ | {"PYTHONPATH": str(REPOSITORY)}
    subprocess.run([sys.executable, "-m", "tasks.train"], cwd=folder, env=environment, check=True)
    return (folder / "model/model.keras").read_bytes()


@pytest.mark.parametrize("name", SHORT_FORM)
def test_what_dies_comes_back_and_ends_in_the_model_of_an_undisturbed_run(
    site: Site, name: str, tmp_path: Path
) -> None:
    states, _ = rehearse(site, name, DRILLS[name])
    assert {"Crashed", "Running"} < set(states)
    assert states[-1] == "Completed"
    assert (site.folder / "model/model.keras").read_bytes() == train_undisturbed(site, tmp_path)

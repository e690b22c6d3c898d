"""Where sides work: a folder with parameters of its own and this repository's data/split; an object store."""

import contextlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from infra.local.object_store import ObjectStore
from tasks.params.params import PARAMS_FILE, load_params
from tasks.params.recipe import Recipe
from tasks.stage.errors import InputError

ROOT = Path(__file__).parent.parent
SPLIT = Path("data/split")


@contextlib.contextmanager
def prepared(recipe: str, seed: int) -> Iterator[Path]:
    """Give a temporary folder with params.yaml set to a recipe and a seed; raises InputError without data/split."""
    with tempfile.TemporaryDirectory() as name:
        fill(Path(name), recipe, seed, {})
        yield Path(name)


def fill(folder: Path, recipe: str, seed: int, changes: dict[str, Any], data: Path = SPLIT.parent) -> None:
    """Put params.yaml and the folder `data` into a folder, the recipe's parameters changed; raises InputError."""
    if not (data / SPLIT.name).is_dir():
        raise InputError(f"{data / SPLIT.name} does not exist; make it with: dvc repro split")
    if not (folder / SPLIT.parent).exists():
        (folder / SPLIT.parent).symlink_to(data.resolve())
    write_params(folder, recipe, seed, changes)


def write_params(
    folder: Path, recipe: str, seed: int, changes: dict[str, Any], sections: Mapping[str, dict[str, Any]] | None = None
) -> None:
    """Put params.yaml into a folder, with a recipe and a seed, the recipe's parameters and other sections changed."""
    values = YAML(typ="safe").load(PARAMS_FILE.read_text(encoding="utf-8"))
    values["train"].update(recipe=recipe, seed=seed)
    values["recipes"][recipe].update(changes)
    for name, changed in (sections or {}).items():
        values[name].update(changed)
    with (folder / PARAMS_FILE).open("w", encoding="utf-8") as stream:
        YAML().dump(values, stream)


def steps_recipe(name: str) -> Recipe:
    """Return a recipe of params.yaml; raises InputError where it is one without training steps."""
    recipe = load_params().recipes[name]
    if not isinstance(recipe, Recipe):
        raise InputError(f"recipes.{name} takes no training steps")
    return recipe


def stage(name: str) -> list[str]:
    """Return the command of a stage."""
    return [sys.executable, "-m", f"tasks.{name}"]


def environment() -> dict[str, str]:
    """Return the environment in which a stage finds this repository's code from any folder."""
    return {**os.environ, "PYTHONPATH": str(ROOT)}


def run(command: list[str], folder: Path) -> str:
    """Run a program to its end and return what it printed; raises InputError with its last words where it failed."""
    done = subprocess.run(command, cwd=folder, env=environment(), capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"{' '.join(command)} failed: {done.stderr.strip()[-500:]}")
    return done.stdout


@contextlib.contextmanager
def object_store() -> Iterator[None]:
    """Run an object store for a while, and have every program started here use it."""
    with tempfile.TemporaryDirectory() as folder:
        store = ObjectStore(Path(folder))
        store.start()
        before = dict(os.environ)
        os.environ.update(store.environment)
        try:
            yield
        finally:
            os.environ.clear()
            os.environ.update(before)
            store.stop()

"""The DAG against the code: one name a stage, and every module that a stage imports among its deps."""

import ast
import graphlib
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from tasks.params.params import Params

ROOT = Path(__file__).parent.parent
STAGES = YAML(typ="safe").load(ROOT / "dvc.yaml")["stages"]
# Each room of tasks/, and the rooms that it may enter: its __init__.py says what for.
ROOMS: dict[str, set[str]] = {
    "stage": set(),
    "params": {"stage"},
    "data": {"stage"},
    "sources": {"data", "stage"},
    "evaluation": {"stage"},
    "s3": {"stage"},
    "models": {"params", "stage"},
    "model_files": {"models", "stage"},
    "training": {"data", "evaluation", "models", "params", "s3", "stage"},
    "reporting": {"evaluation", "stage"},
    "registry": {"data", "evaluation", "model_files", "params", "s3", "sources", "stage"},
}


# What a stage uses and what does not decide its result, with the reason: no dep, so that an edit makes nothing stale.
USED = {
    "tasks/params": "what it says of this stage's values is in the stage's params; all defaults stand in params.yaml",
    "tasks/s3": "it moves bytes, and checks that they arrive as they were",
    "tasks/stage": "errors, progress and how files are put in their place, not what is in them",
}


# The same of single stages, with all that lies behind it.
USED_BY = {
    "weights": {
        "tasks/registry": "it fetches what a release's id names, and compares it with that: other code, equal bytes",
        "tasks/data": "of it the name of a file",
    }
}


DECIDE_NOTHING = {"download": {"attempts", "timeout_seconds"}, "train": {"checkpoint_every_steps"}}


def modules_named(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom) and node.module and not node.level:
        return [node.module] + [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def file_of(module: str) -> Path | None:
    path = ROOT.joinpath(*module.split("."))
    candidates = [path.with_suffix(".py"), path / "__init__.py"]
    return next((candidate for candidate in candidates if candidate.is_file()), None)


@cache
def imports_of(file: Path) -> frozenset[Path]:
    """The files of this repository that a file imports, also inside functions."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    found = {file_of(name) for node in ast.walk(tree) for name in modules_named(node)}
    return frozenset(path for path in found if path)


def reachable_from(file: Path, but: Iterable[str] = ()) -> set[Path]:
    """The files that a file imports, and those that these do; not through the folders in `but`."""
    seen, waiting, closed = {file}, [file], [ROOT / folder for folder in but]
    while waiting:
        for imported in imports_of(waiting.pop()) - seen:
            if any(folder in imported.parents for folder in closed):
                continue
            seen.add(imported)
            waiting.append(imported)
    return {path.relative_to(ROOT) for path in seen if path.read_text(encoding="utf-8").strip()}


@pytest.mark.parametrize("stage", STAGES)
def test_one_name_a_stage(stage: str) -> None:
    assert STAGES[stage]["cmd"] == f"python -m tasks.{stage}"
    assert stage in Params.model_fields
    assert stage in [str(key).partition(".")[0] for key in STAGES[stage]["params"]]
    functions = [node.name for node in ast.parse(file_text(stage)).body if isinstance(node, ast.FunctionDef)]
    assert {stage, "main"} <= set(functions)


def file_text(stage: str) -> str:
    return (ROOT / "tasks" / f"{stage}.py").read_text(encoding="utf-8")


@pytest.mark.parametrize("stage", STAGES)
def test_every_imported_module_is_a_dep(stage: str) -> None:
    deps = [Path(dep) for dep in STAGES[stage]["deps"]]
    used = USED_BY.get(stage, {})
    needed = reachable_from(ROOT / "tasks" / f"{stage}.py", used) - {Path("tasks/__init__.py")}
    known = deps + [Path(used) for used in USED]
    missing = {path for path in needed if not any(path == dep or dep in path.parents for dep in known)}
    assert not missing, f"add to the deps of {stage} in dvc.yaml: {sorted(map(str, missing))}"


@pytest.mark.parametrize("stage", STAGES)
def test_every_code_dep_is_imported(stage: str) -> None:
    used = reachable_from(ROOT / "tasks" / f"{stage}.py")
    for dep in STAGES[stage]["deps"]:
        if dep.startswith("tasks"):
            assert any(path == Path(dep) or Path(dep) in path.parents for path in used), f"{stage} does not use {dep}"


@pytest.mark.parametrize("file", sorted((ROOT / "tasks").rglob("*.py")), ids=lambda file: str(file.relative_to(ROOT)))
def test_dependencies_point_one_way(file: Path) -> None:
    imported = {path.relative_to(ROOT) for path in imports_of(file)}
    assert not [path for path in imported if path.parts[0] in ("flows", "infra", "tests")]
    names = [name for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))) for name in modules_named(node)]
    assert not [name for name in names if name.split(".")[0] == "prefect"]
    parts = file.relative_to(ROOT / "tasks").parts
    if len(parts) > 1:
        assert not imported & {Path("tasks") / f"{stage}.py" for stage in STAGES}, "a room imports a stage"
        entered = {path.parts[1] for path in imported if len(path.parts) > 2 and path.parts[0] == "tasks"}
        assert entered - {parts[0]} <= ROOMS[parts[0]], f"{parts[0]} looks into a room that lies above it"


def test_no_two_rooms_lead_into_each_other() -> None:
    tuple(graphlib.TopologicalSorter(ROOMS).static_order())  # raises where there is a circle
    assert set(ROOMS) == {path.name for path in (ROOT / "tasks").iterdir() if (path / "__init__.py").is_file()}


@pytest.mark.parametrize("stage", STAGES)
def test_every_default_stands_in_params_yaml(stage: str) -> None:
    """An edit of tasks/params makes no stage stale, so a default there must not be what decides."""
    written = YAML(typ="safe").load(ROOT / "params.yaml")[stage]
    section = Params.model_fields[stage].annotation
    assert section is not None
    assert set(section.model_fields) - set(written) <= DECIDE_NOTHING.get(stage, set())


def test_flows_never_import_tensorflow() -> None:
    for file in (ROOT / "flows").rglob("*.py"):
        names = [name for node in ast.walk(ast.parse(file.read_text())) for name in modules_named(node)]
        assert not [name for name in names if name.split(".")[0] in ("tensorflow", "keras")], file
        for imported in imports_of(file):
            reached = {name for path in [imported] for name in text_imports(path)}
            assert "tensorflow" not in reached, f"{file} reaches TensorFlow through {imported}"


def text_imports(file: Path) -> set[str]:
    tree = ast.parse(file.read_text(encoding="utf-8"))
    return {name.split(".")[0] for node in ast.walk(tree) for name in modules_named(node)}

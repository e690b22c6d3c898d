"""`make` on a fresh machine: finding a Python, making the environment once, and saying what is wrong."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tasks.stage.files import sha256_of
from tests.fixtures.dvc_project import REPOSITORY

TOOLS = ("bash", "sh", "rm", "touch", "sed", "awk", "grep", "expand")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """Return a folder with the Makefile, a lock that asks for nothing, and `bin`, which is all that is on PATH."""
    shutil.copy(REPOSITORY / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").write_text("# nothing\n")
    (tmp_path / "bin").mkdir()
    for tool in TOOLS:
        (tmp_path / "bin" / tool).symlink_to(str(shutil.which(tool)))
    return tmp_path


def add_python(machine: Path, name: str, command: str) -> None:
    """Put a program on PATH under the name of a Python."""
    path = machine / "bin" / name
    path.write_text(f'#!/bin/sh\n{command} "$@"\n')
    path.chmod(0o755)


def make(machine: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": str(machine / "bin"), "HOME": os.environ.get("HOME", "/")} | variables
    program = str(shutil.which("make"))
    return subprocess.run(
        [program, *arguments], cwd=machine, env=environment, capture_output=True, text=True, check=False
    )


def real_python() -> str:
    """Return the interpreter beneath this test's own virtual environment."""
    return f"exec {getattr(sys, '_base_executable', sys.executable)}"


def test_help_lists_every_target(machine: Path) -> None:
    done = make(machine)
    assert done.returncode == 0, done.stderr
    names = [line.split()[0] for line in done.stdout.splitlines()]
    assert {"run", "test", "soak", "bench", "lint", "up", "down", "deploy", "image"} <= set(names)


def test_no_python_is_one_clear_sentence(machine: Path) -> None:
    add_python(machine, "python3.13", "echo 'pyenv: version is not installed' >&2; exit 127 #")
    add_python(machine, "python3", "exit 1 #")
    done = make(machine, "environment")
    assert done.returncode != 0
    assert "no Python 3.11, 3.12 or 3.13" in done.stderr
    assert not (machine / ".venv").exists()


def test_environment_is_made_once_with_a_python_that_runs(machine: Path) -> None:
    add_python(machine, "python3.13", "exit 127 #")  # a shim of a version that is not installed
    add_python(machine, "python3.11", real_python())
    first = make(machine, "environment")
    assert first.returncode == 0, first.stdout + first.stderr
    assert "making .venv" in first.stdout
    again = make(machine, "environment")
    assert again.returncode == 0
    assert "making" not in again.stdout


def pack(machine: Path) -> str:
    """Make a package in the machine's folder; return its line of a lock."""
    path = machine / "small-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        wheel.writestr("small.py", "")
        wheel.writestr("small-1.0.dist-info/METADATA", "Metadata-Version: 2.1\nName: small\nVersion: 1.0\n")
        wheel.writestr("small-1.0.dist-info/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        wheel.writestr("small-1.0.dist-info/RECORD", "")
    return f"./{path.name} --hash=sha256:{sha256_of(path)}\n"


@pytest.mark.parametrize("place", ["variables", "pip.conf"])
def test_where_a_person_has_pip_install_is_not_where_the_environment_is_made(machine: Path, place: str) -> None:
    add_python(machine, "python3", real_python())
    (machine / "requirements.lock").write_text(pack(machine))
    elsewhere = dict.fromkeys(("target", "prefix", "root"), str(machine / "elsewhere"))
    settings = {"no-index": "1", "user": "1", "dry-run": "1"} | elsewhere
    variables = {f"PIP_{name.replace('-', '_').upper()}": value for name, value in settings.items()}
    if place == "pip.conf":
        config = machine / ".config/pip/pip.conf"
        config.parent.mkdir(parents=True)
        config.write_text("[global]\n" + "".join(f"{name} = {value}\n" for name, value in settings.items()))
        variables = {}
    done = make(machine, "environment", HOME=str(machine), **variables)
    assert done.returncode == 0, done.stdout + done.stderr
    assert list(machine.glob(".venv/lib/python*/site-packages/small.py")), done.stdout + done.stderr
    assert not (machine / "elsewhere").exists()


def test_what_the_environment_starts_finds_its_programs_first(machine: Path) -> None:
    add_python(machine, "python3", real_python())
    make(machine, "environment")
    (machine / ".venv/activated").unlink()  # as in an environment that was made before there was such a file
    assert "making" not in make(machine, "environment").stdout
    program = "import subprocess; subprocess.run(['python', '-c', 'import sys; print(sys.prefix)'], check=True)"
    for path in (str(machine / "bin"), f"{machine / 'bin'}:{machine / '.venv/bin'}", ""):
        done = subprocess.run(
            [machine / ".venv/bin/python", "-c", program],
            env={"PATH": path},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout == f"{machine / '.venv'}\n"


def test_changed_lock_makes_it_again_and_a_failed_one_is_not_taken_for_complete(machine: Path) -> None:
    add_python(machine, "python3", real_python())
    make(machine, "environment")
    (machine / "requirements.lock").write_text(f"./nowhere.whl --hash=sha256:{'0' * 64}\n")
    stamp = (machine / ".venv/complete").stat()
    os.utime(machine / "requirements.lock", (stamp.st_atime + 5, stamp.st_mtime + 5))
    assert make(machine, "environment").returncode != 0
    assert not (machine / ".venv/complete").exists()
    assert make(machine, "environment").returncode != 0


def test_settings_reach_the_command_word_by_word_and_uninterpreted(machine: Path) -> None:
    stub = "import sys; print(sys.argv[1:])"
    add_python(machine, "python3", real_python())
    make(machine, "environment")
    (machine / "flows").mkdir()
    (machine / "flows/run.py").write_text(stub)
    settings = "download.url=https://host/a?x=1&y=2;z=* train.recipe=seed"
    done = make(machine, "run", f"SET={settings}")
    assert done.stdout.splitlines()[-1] == str(["--set", *settings.split()]), done.stderr
    done = make(machine, "run")
    assert done.stdout.splitlines()[-1] == "['--set']", done.stderr

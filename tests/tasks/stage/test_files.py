import hashlib
import json
from pathlib import Path

import pytest

from tasks.stage.files import read_json, remove_leftovers, replaced_file, replaced_folder, sha256_of, write_json


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    with replaced_file(path) as temporary:
        temporary.write_text("one")
        assert not path.exists()
    assert path.read_text() == "one"
    assert names_in(path.parent) == ["file"]


def test_a_failed_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")
    with pytest.raises(RuntimeError), replaced_file(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old"
    assert names_in(tmp_path) == ["file"]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    for name in ("first", "second"):
        with replaced_folder(path) as temporary:
            (temporary / "below").mkdir()
            (temporary / "below" / name).write_text(name)
    assert names_in(path / "below") == ["second"]
    assert names_in(tmp_path) == ["folder"]


def test_a_failed_folder_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "folder"
    with replaced_folder(path) as temporary:
        (temporary / "kept").write_text("old")
    with pytest.raises(RuntimeError), replaced_folder(path) as temporary:
        (temporary / "half").write_text("new")
        raise RuntimeError
    assert names_in(path) == ["kept"]
    assert names_in(tmp_path) == ["folder"]


def test_a_folder_that_cannot_take_its_place_gives_it_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "folder"
    with replaced_folder(path) as temporary:
        (temporary / "kept").write_text("old")
    rename = Path.rename

    def refused(self: Path, target: Path) -> Path:
        if self.name.endswith(".tmp"):
            raise PermissionError(13, "Permission denied")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refused)
    with pytest.raises(PermissionError), replaced_folder(path) as temporary:
        (temporary / "new").write_text("new")
    assert names_in(path) == ["kept"]


@pytest.mark.parametrize("stands", [True, False])
def test_what_killed_processes_left_is_removed_or_brought_back(tmp_path: Path, stands: bool) -> None:
    for name in (".folder.1.tmp", ".folder.2.old", ".folder2.3.tmp"):
        (tmp_path / name / "inside").mkdir(parents=True)
    if stands:
        (tmp_path / "folder" / "new").mkdir(parents=True)
    remove_leftovers(tmp_path / "folder")
    assert names_in(tmp_path) == [".folder2.3.tmp", "folder"]
    assert names_in(tmp_path / "folder") == ["new" if stands else "inside"]


def test_equal_values_are_equal_bytes(tmp_path: Path) -> None:
    write_json(tmp_path / "first", {"b": 1, "a": [1.5, "é"]})
    write_json(tmp_path / "second", {"a": [1.5, "é"], "b": 1})
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()
    assert read_json(tmp_path / "first") == {"a": [1.5, "é"], "b": 1}


def test_json_has_no_number_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "file", {"loss": float("nan")})
    assert not list(tmp_path.iterdir())


def test_sha256_is_that_of_the_bytes(tmp_path: Path) -> None:
    data = json.dumps(list(range(300_000))).encode()
    (tmp_path / "file").write_bytes(data)
    assert sha256_of(tmp_path / "file") == hashlib.sha256(data).hexdigest()

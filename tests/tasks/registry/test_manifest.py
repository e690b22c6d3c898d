"""A manifest is derived from its files, canonical, and refused where it does not agree with itself."""

import json
from pathlib import Path
from typing import Any

import pytest

from tasks.registry.manifest import Figures, FileEntry, Finding, list_files, parse_manifest, release_id, tree_name
from tasks.stage.errors import InputError
from tests.fixtures.buckets import write_release


def test_the_same_manifest_is_read_back(tmp_path: Path) -> None:
    manifest = write_release(tmp_path, "a")
    assert parse_manifest(manifest.to_bytes(), "here") == manifest


def test_a_verdict_is_read_back_with_its_figures_and_as_the_sentences_of_old(tmp_path: Path) -> None:
    figures: Figures = {"share": 1.0, "images": 3, "again": False, "class": "ant"}
    finding = Finding(rule="keeps_every_class", passed=True, sentence="no class falls", figures=figures)
    manifest = write_release(tmp_path, "a").model_copy(update={"verdict": (finding, finding, "a sentence of old")})
    read = parse_manifest(manifest.to_bytes(), "here")
    assert read == manifest
    assert read.to_bytes() == manifest.to_bytes()
    assert isinstance(read.verdict[0], Finding)
    assert {name: type(value) for name, value in read.verdict[0].figures.items()} == {
        "share": float,
        "images": int,
        "again": bool,
        "class": str,
    }
    assert read.sentences == ("no class falls", "a sentence of old")


def test_the_id_follows_from_canonical_files_only(tmp_path: Path) -> None:
    first = write_release(tmp_path / "first", "a", extra=b"one order of protobufs")
    second = write_release(tmp_path / "second", "a", extra=b"another order of protobufs")
    third = write_release(tmp_path / "third", "b", extra=b"one order of protobufs")
    assert first.id == second.id
    assert first.tree != second.tree
    assert first.id != third.id


@pytest.mark.parametrize("missing", ["model.keras", "labels.json", "metrics.json", "probabilities.npy", "split.json"])
def test_a_release_needs_every_canonical_file(tmp_path: Path, missing: str) -> None:
    write_release(tmp_path, "a")
    (tmp_path / missing).unlink()
    with pytest.raises(ValueError, match=missing):
        release_id(list_files(tmp_path))


@pytest.mark.parametrize(
    "path",
    ["../model.keras", "/etc/passwd", "a/../../b", "a//b", "./a", "a\\b", "C:a", "", ".", "manifest.json", "a\nb"],
)
def test_a_path_that_climbs_out_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="plain relative path"):
        FileEntry(path=path, size=1, sha256="0" * 64)


def _altered(body: bytes, **changes: Any) -> bytes:
    return (json.dumps({**json.loads(body), **changes}, indent=2, sort_keys=True) + "\n").encode()


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "0" * 16},
        {"tree": "../elsewhere"},
        {"schema_version": 2},
        {"files": []},
        {"unknown": 1},
        {"metrics": {"top1": float("nan")}},
        {"parent": "../../other"},
    ],
)
def test_a_manifest_that_does_not_agree_with_itself_is_refused(tmp_path: Path, changes: dict[str, Any]) -> None:
    body = _altered(write_release(tmp_path, "a").to_bytes(), **changes)
    with pytest.raises(InputError, match=r"^s3://here is not a manifest: "):
        parse_manifest(body, "s3://here")


@pytest.mark.parametrize("body", [b"", b"{}", b"[]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_manifest_is_refused(body: bytes) -> None:
    with pytest.raises(InputError, match="is not a manifest"):
        parse_manifest(body, "here")


def test_other_spellings_of_the_same_json_are_refused(tmp_path: Path) -> None:
    compact = json.dumps(json.loads(write_release(tmp_path, "a").to_bytes())).encode()
    with pytest.raises(InputError, match="canonical form"):
        parse_manifest(compact, "here")


def test_another_period_is_another_folder_of_the_same_release(tmp_path: Path) -> None:
    files = write_release(tmp_path, "a").files
    assert tree_name(files, 1) == tree_name(files, 1)
    assert len({tree_name(files, period) for period in range(100)}) == 100


def test_the_order_of_files_does_not_change_the_names(tmp_path: Path) -> None:
    files = write_release(tmp_path, "a").files
    assert (release_id(files[::-1]), tree_name(files[::-1])) == (release_id(files), tree_name(files))

"""A renewed archive is fetched though nothing that DVC knows has changed."""

from pathlib import Path

import pytest

from flows.overrides import apply_overrides
from flows.renewed import UNKNOWN, has_renewed_source
from tasks.download import RAW, main
from tasks.sources.source import load_source
from tests.fixtures.archives import colour_images, write_zip
from tests.fixtures.dvc_project import REPOSITORY


def test_only_an_archive_without_a_hash_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())
    archive = write_zip(tmp_path / "set.zip", colour_images(2))
    said: list[str] = []
    assert not has_renewed_source("download", said.append)  # the repository's own archive has one
    apply_overrides({"download.dataset": "folders", "download.url": archive.as_uri(), "download.sha256": None})
    assert not has_renewed_source("split", said.append)
    assert said == []
    assert not has_renewed_source("download", said.append)
    assert said == [f"{UNKNOWN}; dvc repro --force download fetches what is there"]
    main()
    assert not has_renewed_source("download", said.append)
    archive.write_bytes(write_zip(tmp_path / "next.zip", colour_images(3)).read_bytes())
    assert has_renewed_source("download", said.append)
    assert len(said) == 1
    taken = load_source(RAW).sha256
    apply_overrides({"download.sha256": taken})
    assert not has_renewed_source("download", said.append)
    assert len(said) == 2, "whoever renewed it and forgot the hash learns of it"
    assert said[1].startswith(f"{archive} is not the archive that download.sha256 asks for, and is not taken")

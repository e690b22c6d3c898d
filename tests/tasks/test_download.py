"""The stage download, from real servers into data/raw."""

import hashlib
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from infra.local.object_store import ObjectStore
from tasks.data.digits import bundled_digits
from tasks.download import archive_is_renewed, download
from tasks.params.data import DownloadParams
from tasks.sources.source import load_source
from tasks.stage.errors import InputError
from tasks.stage.files import sha256_of
from tests.fixtures.archives import colour_images, write_tar, write_zip
from tests.fixtures.http_server import FaultyServer
from tests.tasks.test_split import REPOSITORY, assert_refused, command, folder_bytes


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "published.tar.gz", colour_images(3))


def folders(archive: Path, url: str | None = None) -> DownloadParams:
    return DownloadParams(dataset="folders", url=(url or archive.as_uri(),), sha256=sha256_of(archive), attempts=1)


def write_params(workspace: Path, **values: Any) -> None:
    params = YAML(typ="safe").load((REPOSITORY / "params.yaml").read_text())
    params["download"] |= {"attempts": 1, **values}
    with (workspace / "params.yaml").open("w") as stream:
        YAML().dump(params, stream)


def test_archive_is_kept_exactly_as_published(tmp_path: Path, archive: Path) -> None:
    download(folders(archive), tmp_path / "raw", tmp_path / "cache")
    source = load_source(tmp_path / "raw")
    assert (source.dataset, source.archive.name, source.sha256) == ("folders", "images.tar.gz", sha256_of(archive))
    assert source.archive.read_bytes() == archive.read_bytes()
    assert set(folder_bytes(tmp_path / "raw")) == {"images.tar.gz", "source.json"}


def test_equal_bytes_from_any_address_give_an_equal_folder(
    tmp_path: Path, archive: Path, http_server: FaultyServer
) -> None:
    http_server.content["/mirror/other-name"] = archive.read_bytes()
    download(folders(archive), tmp_path / "a", tmp_path / "cache a")
    download(folders(archive, http_server.url("/mirror/other-name?download=1")), tmp_path / "b", tmp_path / "cache b")
    assert folder_bytes(tmp_path / "a") == folder_bytes(tmp_path / "b")


def test_verified_data_is_not_fetched_again(tmp_path: Path, archive: Path, http_server: FaultyServer) -> None:
    http_server.content["/a"] = archive.read_bytes()
    params = folders(archive, http_server.url("/a"))
    download(params, tmp_path / "raw", tmp_path / "cache")
    shutil.rmtree(tmp_path / "cache")
    download(params, tmp_path / "raw", tmp_path / "cache")  # from raw itself
    assert len(http_server.requests) == 1


def test_verified_data_survives_that_dvc_removes_the_output(
    tmp_path: Path, archive: Path, http_server: FaultyServer
) -> None:
    http_server.content["/a"] = archive.read_bytes()
    params = folders(archive, http_server.url("/a"))
    download(params, tmp_path / "raw", tmp_path / "cache")
    first = folder_bytes(tmp_path / "raw")
    kept = tmp_path / "cache" / sha256_of(archive)
    assert kept.samefile(tmp_path / "raw" / "images.tar.gz"), "the second name costs no space"
    shutil.rmtree(tmp_path / "raw")
    download(params, tmp_path / "raw", tmp_path / "cache")
    assert len(http_server.requests) == 1
    assert folder_bytes(tmp_path / "raw") == first


def test_damaged_data_is_fetched_again(tmp_path: Path, archive: Path) -> None:
    download(folders(archive), tmp_path / "raw", tmp_path / "cache")
    (tmp_path / "raw" / "images.tar.gz").write_bytes(bytes(archive.stat().st_size))
    download(folders(archive), tmp_path / "raw", tmp_path / "cache")
    assert (tmp_path / "raw" / "images.tar.gz").read_bytes() == archive.read_bytes()


def test_another_data_set_takes_the_place(tmp_path: Path, archive: Path) -> None:
    download(folders(archive), tmp_path / "raw", tmp_path / "cache")
    other = write_zip(tmp_path / "other", colour_images(2))
    download(folders(other), tmp_path / "raw", tmp_path / "cache")
    assert set(folder_bytes(tmp_path / "raw")) == {"images.zip", "source.json"}


def test_unpinned_archive_prints_the_line_to_pin_it(
    tmp_path: Path, archive: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    params = folders(archive).model_copy(update={"sha256": None})
    download(params, tmp_path / "raw", tmp_path / "cache")
    said = capsys.readouterr().out
    assert f"download.sha256: {sha256_of(archive)}" in said
    assert "dvc repro does not notice another archive" in said


def unpinned(*urls: str) -> DownloadParams:
    return DownloadParams(dataset="folders", url=urls, sha256=None, attempts=1)


def test_a_renewed_file_is_noticed_where_no_hash_says_which(tmp_path: Path, archive: Path) -> None:
    params = unpinned(archive.as_uri())
    assert archive_is_renewed(params, tmp_path / "cache") is None  # never fetched here
    download(params, tmp_path / "raw", tmp_path / "cache")
    assert archive_is_renewed(params, tmp_path / "cache") is False
    archive.write_bytes(write_tar(tmp_path / "next.tar.gz", colour_images(4)).read_bytes())
    assert archive_is_renewed(params, tmp_path / "cache") is True
    assert archive_is_renewed(folders(archive), tmp_path / "cache") is False  # its hash says which
    download(params, tmp_path / "raw", tmp_path / "cache")
    assert archive_is_renewed(params, tmp_path / "cache") is False
    assert load_source(tmp_path / "raw").sha256 == sha256_of(archive)
    archive.unlink()
    assert archive_is_renewed(params, tmp_path / "cache") is None


def test_a_renewed_archive_of_a_server_is_noticed_by_its_mark(
    tmp_path: Path, archive: Path, http_server: FaultyServer
) -> None:
    http_server.content["/a"] = archive.read_bytes()
    params = unpinned("http://127.0.0.1:9/away", http_server.url("/a"))
    download(params, tmp_path / "raw", tmp_path / "cache")
    assert archive_is_renewed(params, tmp_path / "cache") is False
    http_server.etags["/a"] = '"v2"'
    assert archive_is_renewed(params, tmp_path / "cache") is True
    http_server.etags["/a"] = ""  # it gives no mark any more
    assert archive_is_renewed(params, tmp_path / "cache") is None


def test_digits_need_no_network_address_or_hash(tmp_path: Path) -> None:
    write_params(tmp_path, dataset="digits")  # url and sha256 stay CIFAR-10's
    done = command(tmp_path, "download")
    assert (done.returncode, done.stderr) == (0, "")
    source = load_source(tmp_path / "data" / "raw")
    assert (source.dataset, source.sha256) == ("digits", sha256_of(bundled_digits()))
    assert not source.archive.samefile(bundled_digits())


def test_command_shows_bytes_rate_and_share(tmp_path: Path, http_server: FaultyServer) -> None:
    data = write_tar(tmp_path / "large.tar", {"cat/1.png": os.urandom(2_990_080)}).read_bytes()
    http_server.content["/a"] = data
    write_params(tmp_path, dataset="folders", url=http_server.url("/a"), sha256=hashlib.sha256(data).hexdigest())
    done = command(tmp_path, "download")
    assert (done.returncode, done.stderr) == (0, "")
    assert "[100.0%] downloading, 3.0 MB of 3.0 MB, " in done.stdout
    assert "MB/s" in done.stdout


def test_s3_address_as_a_command(
    tmp_path: Path, archive: Path, object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tasks.s3.client import connect  # noqa: PLC0415  # boto3 is imported where S3 is used

    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    connect().put_object(Bucket="retrain", Key="raw/images.tar.gz", Body=archive.read_bytes())
    write_params(tmp_path, dataset="folders", url="s3://retrain/raw/images.tar.gz", sha256=sha256_of(archive))
    done = command(tmp_path, "download")
    assert (done.returncode, done.stderr) == (0, "")
    assert load_source(tmp_path / "data" / "raw").sha256 == sha256_of(archive)


def test_wrong_hash_is_refused(tmp_path: Path, archive: Path) -> None:
    write_params(tmp_path, dataset="folders", url=archive.as_uri(), sha256="0" * 64)
    assert_refused(tmp_path, "download", f"its sha256 is {sha256_of(archive)} instead of {'0' * 64}")
    assert list((tmp_path / ".cache" / "downloads").iterdir()) == []


def test_unreachable_addresses_are_refused(tmp_path: Path, http_server: FaultyServer) -> None:
    gone = http_server.url("/gone")
    write_params(tmp_path, url=["http://127.0.0.1:1/a", gone])
    sentence = f"could not be downloaded: http://127.0.0.1:1/a (Connection refused); {gone} (404 Not Found)"
    assert_refused(tmp_path, "download", sentence, status=69)


def test_full_disk_leaves_what_was_there(small_disk: Path, http_server: FaultyServer) -> None:
    data = os.urandom(2 << 20)
    http_server.content["/a"] = data
    write_params(small_disk, dataset="folders", url=http_server.url("/a"), sha256=hashlib.sha256(data).hexdigest())
    assert_refused(small_disk, "download", "No space left on device")


@pytest.mark.parametrize("content", [b"root:x:0:0:root:/root:/bin/bash\n" * 40, b"<html>Please log in</html>", b""])
def test_what_is_no_archive_is_kept_nowhere(tmp_path: Path, content: bytes) -> None:
    secret = tmp_path / "secret"
    secret.write_bytes(content)
    params = DownloadParams(dataset="folders", url=(secret.as_uri(),), attempts=1)
    with pytest.raises(InputError, match=r"no archive of images: it .*; download\.url"):
        download(params, tmp_path / "raw", tmp_path / "cache")
    assert not (tmp_path / "raw").exists()
    assert not any(path.is_file() for path in (tmp_path / "cache").rglob("*"))

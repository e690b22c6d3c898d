"""Archives as they come, and as no one should trust them."""

import gzip
import io
import stat
import subprocess
import tarfile
import unicodedata
import zipfile
from pathlib import Path

import pytest

from tasks.data import archive as module
from tasks.data.archive import archive_suffix, members
from tasks.stage.errors import InputError
from tests.fixtures.archives import write_tar, write_zip

FILES = {"top/a": b"first" * 300, "top/b": b"second", "top/empty": b""}
SUFFIXES = (".tar", ".tar.gz", ".zip")


def write(path: Path) -> Path:
    return write_zip(path, FILES, ["top"]) if path.suffix == ".zip" else write_tar(path, FILES, ["top"])


def read_all(path: Path) -> dict[str, bytes]:
    return {member.name: member.read() for member in members(path) if not member.is_folder}


def tar_with(path: Path, name: str, kind: bytes, target: str = "") -> Path:
    with tarfile.open(path, "w") as tar:
        header = tarfile.TarInfo(name)
        header.type, header.linkname = kind, target
        tar.addfile(header)
    return path


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_members_come_in_order_with_their_bytes(tmp_path: Path, suffix: str) -> None:
    path = write(tmp_path / f"a{suffix}")
    assert archive_suffix(path) == suffix
    assert read_all(path) == FILES
    assert [member.name for member in members(path)] == ["top", *FILES]
    assert [member.is_folder for member in members(path)] == [True, False, False, False]


def test_kind_is_told_by_content_and_not_by_name(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip").rename(tmp_path / "a.tar.gz")
    assert read_all(path) == FILES


def test_leading_dot_is_taken_off(tmp_path: Path) -> None:
    assert read_all(write_tar(tmp_path / "a.tar", {"./cat/1.png": b"1"})) == {"cat/1.png": b"1"}


@pytest.mark.parametrize(
    "content", [b"", b"<html>404</html>", bytes(range(256)) * 8, b"\x1f\x8b not gzip", b"PK\x03\x04 no"]
)
def test_not_an_archive(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.tar.gz"
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a\.tar\.gz is (not a \.tar, \.tar\.gz or \.zip archive|truncated)"):
        read_all(path)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_truncation_is_noticed(tmp_path: Path, suffix: str) -> None:
    whole = write(tmp_path / f"a{suffix}").read_bytes()
    end = len(whole) if suffix != ".tar" else whole.rindex(b"top/empty") + tarfile.BLOCKSIZE
    path = tmp_path / "cut"
    for length in range(4, end, 97 if suffix == ".tar" else 7):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"truncated|damaged|not a"):
            read_all(path)


def test_tar_cut_between_two_members_is_truncated(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar")
    boundary = path.read_bytes().index(b"top/b")
    path.write_bytes(path.read_bytes()[:boundary])
    with pytest.raises(InputError, match="truncated after 'top/a'"):
        read_all(path)


def test_damaged_header_in_the_middle_is_no_end(tmp_path: Path) -> None:
    path = write(tmp_path / "a.tar")
    path.write_bytes(path.read_bytes().replace(b"top/b", b"tip/b"))
    with pytest.raises(InputError, match="damaged after 'top/a'"):
        read_all(path)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_one_altered_byte_of_content_is_noticed(tmp_path: Path, suffix: str) -> None:
    plain = write_tar(tmp_path / "plain.tar", FILES)
    path = tmp_path / f"a{suffix}"
    if suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
            archive.writestr("a", FILES["top/a"])
    else:
        path.write_bytes(gzip.compress(plain.read_bytes(), compresslevel=0))
    path.write_bytes(path.read_bytes().replace(b"firstfirst", b"firsTfirst", 1))
    with pytest.raises(InputError, match="damaged"):
        read_all(path)


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_link_or_device_in_a_tar_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tar_with(tmp_path / "a.tar", "cat/1.png", kind, "/etc/passwd")
    with pytest.raises(InputError, match=r"link, a device or sparse: 'cat/1\.png'"):
        read_all(path)


def test_sparse_member_is_refused(tmp_path: Path) -> None:
    with (tmp_path / "holes").open("wb") as stream:
        stream.seek(1 << 20)
        stream.write(b"end")
    subprocess.run(["tar", "--sparse", "--format=gnu", "-cf", "a.tar", "holes"], cwd=tmp_path, check=True)
    with pytest.raises(InputError, match="device or sparse: 'holes'"):
        read_all(tmp_path / "a.tar")


def test_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        entry = zipfile.ZipInfo("cat/1.png")
        entry.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(entry, "/etc/passwd")
    with pytest.raises(InputError, match=r"link or a device: 'cat/1\.png'"):
        read_all(path)


@pytest.mark.parametrize("name", ["../evil.png", "cat/../../evil.png", "/etc/evil.png", "cat\\..\\evil.png", ".."])
@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_path_that_climbs_out_is_refused(tmp_path: Path, suffix: str, name: str) -> None:
    make = write_zip if suffix == ".zip" else write_tar
    with pytest.raises(InputError, match=r"absolute or climbs out|backslashes in its name"):
        read_all(make(tmp_path / f"a{suffix}", {name: b"x"}))


class Named(zipfile.ZipInfo):
    """An entry whose name stands in the archive in an encoding of its own, without the UTF-8 flag."""

    encoding = "utf-8"

    def _encodeFilenameFlags(self) -> tuple[bytes, int]:  # noqa: N802  zipfile's own name
        return self.filename.encode(self.encoding), self.flag_bits & ~0x800


def zip_named(path: Path, *names: str, encoding: str = "utf-8") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name in names:
            entry = Named("placeholder")
            entry.filename, entry.encoding = name, encoding
            archive.writestr(entry, name.encode())
    return path


def test_a_mac_names_are_utf8_without_the_flag(tmp_path: Path) -> None:
    path = zip_named(tmp_path / "a.zip", unicodedata.normalize("NFD", "café/1.png"), "茶/1.png", "plain/1.png")
    assert [member.name for member in members(path)] == ["café/1.png", "茶/1.png", "plain/1.png"]
    assert [member.read().decode() for member in members(path)][1] == "茶/1.png"


def test_names_in_the_encoding_of_one_language_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = zip_named(tmp_path / "a.zip", "狗/1.png", encoding="gbk")
    with pytest.raises(InputError, match=r"a\.zip has a member whose name is neither UTF-8 nor ASCII.*pack it again"):
        list(members(path))


def test_backslashes_of_windows_are_folders(tmp_path: Path) -> None:
    path = zip_named(tmp_path / "a.zip", "cat\\", "cat\\1.png", "pets\\dog\\2.png")
    found = [(member.name, member.is_folder) for member in members(path)]
    assert found == [("cat", True), ("cat/1.png", False), ("pets/dog/2.png", False)]
    with pytest.raises(InputError, match="climbs out"):
        list(members(zip_named(tmp_path / "b.zip", "cat\\..\\..\\evil.png")))


@pytest.mark.parametrize("suffix", [".tar", ".zip"])
def test_what_looks_alike_is_alike(tmp_path: Path, suffix: str) -> None:
    composed, decomposed = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    write = write_tar if suffix == ".tar" else write_zip
    path = write(tmp_path / f"a{suffix}", {f"{composed}/1.png": b"1", f"{decomposed}/2.png": b"2"})
    assert [member.name for member in members(path)] == [f"{composed}/1.png", f"{composed}/2.png"]
    path = write(tmp_path / f"b{suffix}", {f"{composed}/1.png": b"1", f"{decomposed}/1.png": b"2"})
    with pytest.raises(InputError, match="twice"):
        list(members(path))


def test_name_that_is_not_utf8_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as tar:
        tar.addfile(tarfile.TarInfo("k\xe4fer/1.png"))
    with pytest.raises(InputError, match="not UTF-8"):
        read_all(path)


def test_member_without_a_name_is_refused(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        tar.addfile(tarfile.TarInfo(""))
    with pytest.raises(InputError, match="a member without a name"):
        read_all(tmp_path / "a.tar")


def test_member_named_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as tar:
        for name in ("cat/1.png", "./cat/1.png"):
            tar.addfile(tarfile.TarInfo(name))
    with pytest.raises(InputError, match=r"member 'cat/1\.png' twice"):
        read_all(path)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_member_compressed_by_something_else_than_deflate_is_refused(tmp_path: Path, method: int) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w", method) as archive:
        archive.writestr("cat/1.png", b"pixels")
    with pytest.raises(InputError, match=r"compressed by something else than deflate: 'cat/1\.png'"):
        read_all(tmp_path / "a.zip")


def test_encrypted_member_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.zip")
    data = bytearray(path.read_bytes())
    position = 0
    while (position := data.find(b"PK\x01\x02", position)) >= 0:
        data[position + 8] |= 1
        position += 1
    path.write_bytes(data)
    with pytest.raises(InputError, match="encrypted member: 'top'"):
        read_all(path)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_bomb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    monkeypatch.setattr(module, "EXPANSION_ALWAYS_ALLOWED", 1 << 20)
    make = write_zip if suffix == ".zip" else write_tar
    path = make(tmp_path / f"a{suffix}", {"bomb": bytes(4 << 20)})
    with pytest.raises(InputError, match="expands to more than 1,048,576 bytes"):
        read_all(path)


@pytest.mark.parametrize("suffix", [".tar.gz", ".zip"])
def test_member_too_large_to_read_is_refused(tmp_path: Path, suffix: str) -> None:
    make = write_zip if suffix == ".zip" else write_tar
    path = make(tmp_path / f"a{suffix}", {"large": bytes((64 << 20) + 1)})
    with pytest.raises(InputError, match="67,108,865 bytes, too large to read: 'large'"):
        read_all(path)


def test_too_many_members_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MEMBERS_LIMIT", 3)
    with pytest.raises(InputError, match="more than 3 members"):
        read_all(write(tmp_path / "a.tar"))


def test_header_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    header = tarfile.TarInfo("pax")
    header.type, header.size = tarfile.XHDTYPE, 1 << 40
    path = tmp_path / "a.tar"
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(1024))
    with pytest.raises(InputError, match="impossible size"):
        read_all(path)


def test_size_in_extended_header_below_zero_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"size": "-1024"}) as tar:
        tar.addfile(tarfile.TarInfo("a"), io.BytesIO())
    with pytest.raises(InputError, match=r"impossible size"):
        read_all(path)

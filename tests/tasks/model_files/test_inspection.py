"""The archive of a stranger's model file: anything else than Keras writes is refused, before it costs memory."""

import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import keras
import pytest

from tasks.model_files import files as module
from tasks.model_files.files import load_model, save_model
from tasks.model_files.inspection import inspect_archive
from tasks.stage.errors import InputError
from tests.fixtures.model_archives import (
    CONFIG,
    MEBIBYTE,
    METADATA,
    WEIGHTS,
    Config,
    layer_named,
    refusal,
    with_config,
    write_members,
)

Members = dict[str, bytes]


def test_what_we_save_is_accepted_and_loaded(sound_model: Path) -> None:
    inspect_archive(sound_model)
    assert load_model(sound_model).count_params() == 4 * 27 + 4 + 15


def test_what_keras_itself_saves_is_accepted(sound_model: Path, tmp_path: Path) -> None:
    load_model(sound_model).save(tmp_path / "plain.keras")
    inspect_archive(tmp_path / "plain.keras")


def duplicate(path: Path, members: Members) -> None:
    write_members(path, members)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(CONFIG, members[CONFIG])


def renamed(name: str) -> Callable[[Path, Members], None]:
    """Give the weights another name."""
    return lambda path, members: (write_members(path, {**members, name: members.pop(WEIGHTS)}), None)[1]


def added(name: str) -> Callable[[Path, Members], None]:
    return lambda path, members: (write_members(path, {**members, name: b"x"}), None)[1]


def compressed(path: Path, members: Members) -> None:
    write_members(path, {**members, WEIGHTS: bytes(256 * MEBIBYTE)}, zipfile.ZIP_DEFLATED)


def encrypted(path: Path, members: Members) -> None:
    write_members(path, members)
    body = bytearray(path.read_bytes())
    body[body.index(b"PK\x01\x02") + 8] |= 1
    path.write_bytes(body)


def claims_more(path: Path, members: Members) -> None:
    """Let the directory say that the weights have a gigabyte."""
    write_members(path, members)
    body = path.read_bytes()
    size = struct.pack("<LL", len(members[WEIGHTS]), len(members[WEIGHTS]))
    path.write_bytes(body.replace(size, struct.pack("<LL", 1 << 30, 1 << 30)))


def claims_a_million_members(path: Path, members: Members) -> None:
    write_members(path, members)
    end = bytearray(path.read_bytes())
    end[-14:-10] = struct.pack("<HH", 65535, 65535)
    path.write_bytes(end)


def large_directory(path: Path, members: Members) -> None:
    """Put a megabyte of extra fields into the directory."""
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.comment = bytes(60_000)
            archive.writestr(info, body)


def wide_end(path: Path, members: Members) -> None:
    """Put a Zip64 locator before the end, by which zipfile would look for another directory."""
    write_members(path, members)
    body = path.read_bytes()
    path.write_bytes(body[:-22] + b"PK\x06\x07" + bytes(16) + body[-22:])


def followed(path: Path, members: Members) -> None:
    path.write_bytes(write_members(path, members).read_bytes() + b"x")


def preceded(path: Path, members: Members) -> None:
    path.write_bytes(b"#!/bin/sh\n" + write_members(path, members).read_bytes())


def preceded_within(path: Path, members: Members) -> None:
    """Put bytes before the first member, and have the directory know of it."""
    with path.open("wb") as stream:
        stream.write(b"#!/bin/sh\nexit 1\n")
        with zipfile.ZipFile(stream, "a") as archive:
            for name, body in members.items():
                archive.writestr(name, body)


def interleaved(path: Path, members: Members) -> None:
    """Put bytes between two members."""
    with path.open("w+b") as stream, zipfile.ZipFile(stream, "w") as archive:
        for name, body in members.items():
            archive.writestr(name, body)
            stream.write(hidden := b"hidden")
            archive.start_dir += len(hidden)


def said_beside(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH4s", 0x9999, 4, b"seen")
            archive.writestr(info, body)


def commented(path: Path, members: Members) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for name, body in members.items():
            info = zipfile.ZipInfo(name)
            info.comment = b"seen"
            archive.writestr(info, body)


def old_format(path: Path, members: Members) -> None:
    path.write_bytes(members[WEIGHTS])


def damaged(path: Path, members: Members) -> None:
    write_members(path, members)
    body = bytearray(path.read_bytes())
    body[body.index(b"DTypePolicy")] ^= 1
    path.write_bytes(body)


def cut_short(path: Path, members: Members) -> None:
    body = write_members(path, members).read_bytes()
    path.write_bytes(body[: len(body) // 2])


def large_metadata(path: Path, members: Members) -> None:
    write_members(path, {**members, METADATA: bytes(5000)})


def large_config(path: Path, members: Members) -> None:
    write_members(path, {**members, CONFIG: b" " * (2 * MEBIBYTE) + members[CONFIG]})


ONLY = "its members are not exactly config.json, metadata.json, model.weights.h5"
ARCHIVES: dict[str, tuple[Callable[[Path, Members], None], str]] = {
    "an HDF5 model": (old_format, "is an HDF5 file, a format that can carry code"),
    "a member twice": (duplicate, ONLY),
    "a member more": (added("assets/vocabulary.txt"), ONLY),
    "an absolute name": (renamed("/etc/model.weights.h5"), ONLY),
    "a climbing name": (renamed("../model.weights.h5"), ONLY),
    "npz weights": (renamed("model.weights.npz"), ONLY),
    "a compressed member": (compressed, "compressed or encrypted, as Keras does not write it"),
    "an encrypted member": (encrypted, "compressed or encrypted"),
    "a member that claims more": (claims_more, "claim more bytes than the archive has"),
    "a million members": (claims_a_million_members, ONLY),
    "a large directory": (large_directory, ONLY),
    "a second directory": (wide_end, ONLY),
    "bytes after it": (followed, "is no .keras archive, or one that was cut short"),
    "bytes before it": (preceded, ONLY),
    "bytes before it that its directory knows": (preceded_within, "bytes beside config.json that no member holds"),
    "bytes between members": (interleaved, "that no member holds"),
    "extra fields": (said_beside, "that no member holds"),
    "a comment on a member": (commented, "that no member holds"),
    "a flipped bit": (damaged, "is damaged: Bad CRC-32"),
    "cut short": (cut_short, "is no .keras archive, or one that was cut short"),
    "large metadata": (large_metadata, "a metadata.json of 5,000 bytes"),
    "a large config": (large_config, "a config.json of "),
}


@pytest.mark.parametrize("case", ARCHIVES)
def test_an_archive_that_keras_did_not_write_is_refused(case: str, members: Members, tmp_path: Path) -> None:
    damage, sentence = ARCHIVES[case]
    damage(tmp_path / "model.keras", members)
    with pytest.raises(InputError, match=sentence):
        inspect_archive(tmp_path / "model.keras")


def test_a_bomb_of_zeros_is_refused_before_it_is_expanded(members: Members, tmp_path: Path) -> None:
    compressed(tmp_path / "model.keras", members)
    assert "compressed or encrypted" in refusal(tmp_path / "model.keras")


def test_the_bytes_that_were_checked_are_the_bytes_that_are_loaded(
    sound_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.keras"
    path.write_bytes(sound_model.read_bytes())

    def inspect_and_swap(checked: Path) -> None:
        inspect_archive(checked)
        path.write_bytes(b"another file")  # what an enemy would do between the check and the loading

    monkeypatch.setattr(module, "inspect_archive", inspect_and_swap)
    assert load_model(path).name == "sound"


def test_other_bytes_than_the_recorded_ones_never_reach_keras(
    sound_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was called"))
    with pytest.raises(InputError) as caught:
        load_model(sound_model, "0" * 64)
    assert str(caught.value) == f"{sound_model} was altered: its sha256 is not the one that was recorded for it"


def test_what_the_inspection_refuses_never_reaches_keras(
    members: Members, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def disguise(config: Config) -> None:
        layer_named(config, "pooling")["class_name"] = "Lambda"

    path = write_members(tmp_path / "model.keras", with_config(members, disguise))
    monkeypatch.setattr(keras.saving, "load_model", lambda *_, **__: pytest.fail("Keras was called"))
    with pytest.raises(InputError, match=rf"^{path} has a config\.json with the layer keras\.layers\.Lambda"):
        load_model(path)


def test_few_weights_that_make_gigabytes_of_one_image_are_refused(members: Members, tmp_path: Path) -> None:
    def enlarge(config: Config) -> None:
        layer_named(config, "images")["config"]["batch_shape"] = [None, 50_000, 50_000, 3]

    path = write_members(tmp_path / "model.keras", with_config(members, enlarge))
    inspect_archive(path)
    with pytest.raises(InputError, match=r"numbers of one image, more than 134,217,728"):
        load_model(path)


def test_a_model_for_images_of_any_size_is_refused(members: Members, tmp_path: Path) -> None:
    def unbind(config: Config) -> None:
        layer_named(config, "images")["config"]["batch_shape"] = [None, None, 8, 3]

    path = write_members(tmp_path / "model.keras", with_config(members, unbind))
    with pytest.raises(InputError, match="takes images of any size"):
        load_model(path)


def test_what_a_separable_convolution_makes_within_counts_too(tmp_path: Path) -> None:
    inputs = keras.Input((256, 256, 3), dtype="uint8", name="images")
    scaled = keras.layers.Rescaling(1 / 255, name="scaling")(inputs)
    wide = keras.layers.SeparableConv2D(1, 1, depth_multiplier=700, name="residual_convolution")(scaled)
    save_model(keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(wide)), tmp_path / "model.keras")
    with pytest.raises(InputError, match=r"137,625,600 numbers of one image, more than 134,217,728"):
        load_model(tmp_path / "model.keras")


def test_a_config_that_does_not_fit_together_is_one_sentence(members: Members, tmp_path: Path) -> None:
    def disconnect(config: Config) -> None:
        config["config"]["output_layers"] = ["nowhere", 0, 0]

    path = write_members(tmp_path / "model.keras", with_config(members, disconnect))
    with pytest.raises(InputError, match=r"is not a Keras model that can be read: ") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)

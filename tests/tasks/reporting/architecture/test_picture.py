"""The pictures: readable sizes, equal bytes for equal models, and the notebook's model in figures."""

import hashlib
import os
import struct
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from tasks.models.build import build_model
from tasks.models.whitening import pixel_statistics
from tasks.params.recipe import ModelParams
from tasks.reporting.architecture import draw_architecture, write_summary
from tasks.reporting.architecture.picture import _shorten
from tasks.reporting.architecture.summary import summary_text
from tests.tasks.reporting.small_run import build_small_model

ROOT = Path(__file__).parents[4]


def chunks(path: Path) -> list[str]:
    data, position, found = path.read_bytes(), 8, []
    while position < len(data):
        (length,) = struct.unpack(">I", data[position : position + 4])
        found.append(data[position + 4 : position + 8].decode())
        position += 12 + length
    return found


def seed_model() -> keras.Model:
    statistics = pixel_statistics(np.arange(2 * 32 * 32 * 3, dtype=np.uint32).astype(np.uint8).reshape(2, 32, 32, 3))
    return build_model(ModelParams(base="vgg16", head="residual_separable"), (32, 32, 3), 10, statistics)


@pytest.mark.parametrize("depth", [31, 175])
def test_pictures_of_deep_models_are_of_a_readable_size(depth: int, tmp_path: Path) -> None:
    shape = (32, 32, 3)
    model = (
        seed_model() if depth == 31 else keras.applications.ResNet50(weights=None, include_top=False, input_shape=shape)
    )
    assert len(model.layers) == depth
    path = tmp_path / "architecture.png"
    draw_architecture(model, path)
    with Image.open(path) as picture:
        assert 0.6 < picture.width / picture.height < 2.5
        assert picture.width * picture.height < 12e6
        assert picture.width * picture.height > depth * 10_000
    assert path.stat().st_size < 1.5e6


def test_no_date_and_no_software_in_the_pictures(tmp_path: Path) -> None:
    model = build_small_model()
    draw_architecture(model, tmp_path / "architecture.png")
    write_summary(model, tmp_path)
    for name in ("architecture.png", "summary.png"):
        assert set(chunks(tmp_path / name)) <= {"IHDR", "PLTE", "pHYs", "IDAT", "IEND"}


def test_terminal_locale_and_time_change_no_byte(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tests.tasks.reporting.small_run import build_small_model as build;"
        "from tasks.reporting.architecture import draw_architecture as draw, write_summary as write;"
        "folder = pathlib.Path(sys.argv[1]); folder.mkdir(); draw(build(), folder / 'a.png'); write(build(), folder)"
    )
    hashes = []
    for number, settings in enumerate(({"COLUMNS": "40", "LC_ALL": "C", "TZ": "Asia/Tokyo"}, {"COLUMNS": "200"})):
        folder = tmp_path / str(number)
        environment = {**os.environ, **settings, "PYTHONPATH": str(ROOT)}
        subprocess.run(
            [sys.executable, "-c", code, str(folder)], env=environment, cwd=ROOT, check=True, capture_output=True
        )
        hashes.append({path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()})
    assert set(hashes[0]) == {"a.png", "summary.txt", "summary.png"}
    assert hashes[0] == hashes[1]


def test_the_summary_of_the_authors_model_has_his_parameters() -> None:
    lines = summary_text(seed_model()).splitlines()
    totals = [line.split(":") for line in lines[-3:]]
    assert [(name.strip(), int(value.replace(",", ""))) for name, value in totals] == [
        ("Parameters", 14_732_426), ("trainable", 14_732_362), ("not trainable", 64),
    ]  # fmt: skip
    assert len(lines) == 31 + 8
    assert "residual_add (Add)" in "\n".join(lines)


def test_the_summary_names_what_feeds_a_branch(tmp_path: Path) -> None:
    write_summary(build_small_model(), tmp_path)
    text = (tmp_path / "summary.txt").read_text(encoding="utf-8")
    (line,) = [line for line in text.splitlines() if line.startswith("add (Add)")]
    assert line.split()[-2:] == ["convolution,", "shortcut"]


def test_long_names_lose_their_middle() -> None:
    assert _shorten("group1_convolution1_activation", 13) == "group1…vation"
    assert _shorten("short", 13) == "short"

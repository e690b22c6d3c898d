"""The page of a data set: what came, what the champion contradicts, what is unusual; safe whatever files are called."""

import csv
import io
import re
import shutil
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.data.hashes import FIT_HASHES, TEST_HASHES, load_hashes
from tasks.data.labels import read_labels
from tasks.data_report import CONTRADICTIONS, PAGE, data_report
from tasks.params.data import SplitParams
from tasks.params.params import Params
from tasks.split import split
from tests.fixtures.archives import make_raw, write_tar
from tests.fixtures.published import Workspace
from tests.fixtures.stages import CLASSES, SIZE

PARAMS = SplitParams(method="stable", validation_fraction=0.1, test_fraction=0.2, image_size=SIZE, max_quarantined=0.1)
NASTY = '<img src=x onerror="alert(1)">.png'


def images(count: int) -> dict[str, bytes]:
    files = {}
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (SIZE, SIZE, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(stream := io.BytesIO(), "png")
        files[f"{CLASSES[number % 3]}/{number}.png"] = stream.getvalue()
    return files


def divide(folder: Path, files: dict[str, bytes]) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    split(PARAMS, make_raw(folder / "raw", "folders", write_tar(folder / "images.tar", files)), folder / "split")


def params_of(workspace: Workspace) -> Params:
    params = workspace.params()
    download = params.download.model_copy(update={"dataset": "folders", "url": ("file:///photos.tar",)})
    return params.model_copy(update={"download": download})


@pytest.fixture
def page(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> str:
    """The page of a set of 90 images, 30 of which came since the champion, some of them strange."""
    divide(Path("then"), images(60))
    workspace.retrain(right=20)
    for name in (FIT_HASHES, TEST_HASHES):
        hashes = load_hashes(Path("then/split") / name)
        np.save(Path("data/split") / name, np.resize(hashes, (24, 2)) if name == TEST_HASHES else hashes)
    assert workspace.publish_and_offer()["champion"]
    files = images(90)
    files["ant/twice.png"] = files["bee/1.png"]
    files[f"cat/{NASTY}"] = files["cat/2.png"]
    files["ant/cut.png"] = files["ant/0.png"][:60]
    divide(Path("data"), files)
    monkeypatch.setattr("tasks.data_report.configured_bucket", lambda: workspace.bucket)
    data_report(params_of(workspace), Path("data/split"), PAGE, CONTRADICTIONS)
    return PAGE.read_text(encoding="utf-8")


def test_it_says_what_came_and_shows_what_is_strange(page: str) -> None:
    assert "30 of 92 images came since the champion" in page
    assert "copy under another label" in page
    assert "ant/cut.png is not an image that can be read" in page
    assert page.count("<img src=") > 50
    rows = re.findall(r"<tr><td>(\w+)</td>(.*?)</tr>", page, re.DOTALL)
    assert [name for name, _ in rows] == list(CLASSES)
    came = [int(re.findall(r">([\d,]+)<", cells)[-1]) for _, cells in rows]
    assert sum(came) == 30


def test_what_files_are_called_is_never_markup_and_nothing_is_fetched(page: str) -> None:
    assert "onerror=&#34;alert(1)&#34;" in page or "onerror" not in page
    assert "<script" not in page
    assert not re.search(r'(?:src|href)="(?!data:)', page)


def test_the_contradictions_are_a_labels_csv(page: str) -> None:
    assert "contradictions.csv" in page
    with CONTRADICTIONS.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) > 20  # a network that reads one pixel, asked about noise
    labels = read_labels(CONTRADICTIONS.read_bytes(), PurePosixPath())
    assert {path.split("/")[0] for path in labels} <= set(CLASSES)
    assert all(entry.label == path.split("/")[0] for path, entry in labels.items())


def test_a_class_that_a_spreadsheet_would_take_for_a_formula_is_shown(
    workspace: Workspace, monkeypatch: pytest.MonkeyPatch
) -> None:
    files = {name.replace("cat/", "-40 °C/"): data for name, data in images(60).items()}
    files["-40 °C/again.png"] = files["-40 °C/2.png"]
    divide(Path("data"), files)
    nobody: Any = workspace.bucket.__class__(workspace.bucket.client, "retrain", f"{workspace.prefix}-empty")
    monkeypatch.setattr("tasks.data_report.configured_bucket", lambda: nobody)
    data_report(params_of(workspace), Path("data/split"), PAGE, CONTRADICTIONS)
    page = PAGE.read_text(encoding="utf-8")
    assert "&#39;-40" not in page
    assert page.partition("<h3>-40 °C</h3>")[2].partition("<h3>")[0].count("<img") == 10
    assert "-40 °C: -40 °C/again.png" in page


def test_without_a_champion_it_shows_what_is_there(workspace: Workspace, monkeypatch: pytest.MonkeyPatch) -> None:
    divide(Path("data"), images(60))
    nobody: Any = workspace.bucket.__class__(workspace.bucket.client, "retrain", f"{workspace.prefix}-empty")
    monkeypatch.setattr("tasks.data_report.configured_bucket", lambda: nobody)
    data_report(params_of(workspace), Path("data/split"), PAGE, CONTRADICTIONS)
    page = PAGE.read_text(encoding="utf-8")
    assert "60 images of" in page
    assert "What the champion" not in page
    assert CONTRADICTIONS.read_text() == "path,label\n"

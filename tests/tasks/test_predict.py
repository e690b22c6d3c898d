"""`python -m tasks.predict` on every kind of image, and in every form of answer."""

import csv
import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tasks.registry.releases import verify_folder
from tests.fixtures.predictions import ROOT, read_table, recorded
from tests.fixtures.stages import CLASSES, IMAGES


def test_the_champion_answers_as_the_evaluation_recorded(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    status, output, errors = predict(pictures)
    assert status == 0, errors
    header, probabilities = read_table(output)
    assert header == ["image", "predicted", "confidence", *(f"p({name})" for name in CLASSES)]
    np.testing.assert_allclose(probabilities, recorded(classifier_workspace), atol=1e-5)
    (cached,) = Path(".cache/releases").iterdir()
    before = (cached / "model.keras").stat().st_ino
    assert predict(pictures / "000.png")[0] == 0
    assert (cached / "model.keras").stat().st_ino == before  # fetched once


def test_the_top_classes_are_printed(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    status, output, _ = predict(pictures / "000.png", pictures / "001.png", "--model", "model", "--top", "2")
    assert status == 0
    lines = output.splitlines()
    assert len(lines) == 6
    best = recorded(classifier_workspace)[0].argmax()
    assert lines[0].endswith("000.png")
    assert lines[1].split() == [CLASSES[best], f"{100 * recorded(classifier_workspace)[0, best]:.2f}", "%"]


def test_programs_get_json(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    status, output, _ = predict(pictures / "003.png", "--model", "model", "--json", "--top", "9")
    (answer,) = json.loads(output)["predictions"]
    assert status == 0
    assert answer["image"].endswith("003.png")
    shown = {entry["class"]: entry["probability"] for entry in answer["classes"]}
    assert list(shown.values()) == sorted(shown.values(), reverse=True)
    np.testing.assert_allclose([shown[name] for name in CLASSES], recorded(classifier_workspace)[3], atol=1e-5)


@pytest.fixture
def costly(predict: Any, classifier_workspace: Path, pictures: Path) -> Path:
    """The champion as it was pulled, had it been evaluated with costs by which each third image has another answer."""
    assert predict(pictures / "000.png")[0] == 0
    (cached,) = Path(".cache/releases").iterdir()
    folder = cached.rename("pulled")
    return with_costs(folder, {CLASSES[2]: 1000.0})


def with_costs(folder: Path, costs: Any) -> Path:
    manifest = verify_folder(folder)
    changed = manifest.model_copy(update={"metrics": {**manifest.metrics, "costs": costs}})
    (folder / "manifest.json").write_bytes(changed.to_bytes())
    return folder


def test_a_release_with_costs_answers_by_the_least_expected_one_and_says_so(
    predict: Any, classifier_workspace: Path, pictures: Path, costly: Path
) -> None:
    probabilities = recorded(classifier_workspace)
    costs = np.array([[0, 1, 1], [1, 0, 1], [1000, 1000, 0]])
    expected = [CLASSES[answer] for answer in (probabilities @ costs).argmin(axis=1)]
    plain = [CLASSES[answer] for answer in probabilities.argmax(axis=1)]
    assert expected != plain, "or nothing is shown"
    status, output, errors = predict(pictures, "--model", costly)
    assert status == 0, errors
    header, *rows = csv.reader(io.StringIO(output))
    assert header == ["image", "predicted", "confidence", *(f"p({name})" for name in CLASSES), "most_probable"]
    assert [row[1] for row in rows] == expected
    assert [row[-1] for row in rows] == plain
    np.testing.assert_allclose(np.array([row[3:6] for row in rows], float), probabilities, atol=1e-5)
    assert [float(row[2]) for row in rows] == [float(row[3 + CLASSES.index(row[1])]) for row in rows]

    other = next(number for number, names in enumerate(zip(expected, plain, strict=True)) if len(set(names)) == 2)
    image = pictures / f"{other:03}.png"
    _, output, _ = predict(image, "--model", costly)
    share = f"{100 * probabilities[other, 2]:.2f}"
    assert output.splitlines()[1].split() == [CLASSES[2], share, "%", "least", "expected", "cost"]
    assert output.count("least expected cost") == 1
    answer = json.loads(predict(image, "--model", costly, "--json")[1])
    assert answer["costs"] == {CLASSES[2]: 1000.0}
    assert answer["predictions"][0]["most_probable"] == plain[other]
    assert [entry["class"] for entry in answer["predictions"][0]["classes"]][:2] == [CLASSES[2], plain[other]]


@pytest.mark.parametrize("form", ["--json", ""])
def test_costs_can_be_ignored(predict: Any, pictures: Path, costly: Path, form: str) -> None:
    options = ["--model", costly, *([form] if form else [])]
    told = predict(pictures, *options)[1]
    _, ignoring, _ = predict(pictures, *options, "--ignore-costs")
    with_costs(costly, {})
    assert predict(pictures, *options) == (0, ignoring, "")
    assert told != ignoring


@pytest.mark.parametrize(
    ("costs", "sentence"),
    [
        ({"dog": 10.0}, "costs of release .*: 'dog' is no class, .*; the classes are ant, bee, cat$"),
        ({"cat": -1.0}, "costs.cat of release .* are not what mistakes cost: Input should be greater than 0$"),
        ("dear", "costs of release .* are not what mistakes cost: Input should be a valid dictionary$"),
    ],
)
def test_costs_that_are_none_are_refused(predict: Any, pictures: Path, costly: Path, costs: Any, sentence: str) -> None:
    status, output, errors = predict(pictures, "--model", with_costs(costly, costs))
    assert (status, output) == (2, "")
    assert re.fullmatch(f"predict: {sentence}", errors.strip())


@pytest.mark.parametrize("form", ["--csv", "--json", ""])
def test_a_bad_image_costs_its_row_and_the_exit_status(
    predict: Any, classifier_workspace: Path, pictures: Path, form: str
) -> None:
    target = classifier_workspace / "answers.csv"
    options = ["--model", "model", *([form] if form else []), *([target] if form == "--csv" else [])]
    status, said, _ = predict(pictures, *options)
    assert status == 0
    before = target.read_text() if form == "--csv" else said
    (pictures / "000-bad.png").write_text("not an image")
    (pictures / "zzz.png").write_bytes((pictures / "000.png").read_bytes()[:60])
    status, said, errors = predict(pictures, *options)
    assert status == 2
    assert f"2 of {IMAGES + 2} images were not answered: " in errors
    assert "000-bad.png is not an image" in errors
    assert "zzz.png is not an image" in errors
    assert (target.read_text() if form == "--csv" else said) == before


def test_a_page_shows_the_least_sure_first_and_who_could_not_be_read(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    nasty = "<img src=x onerror='alert(1)'>\n\u202egnp.png"
    (pictures / "007.png").rename(pictures / nasty)
    (pictures / "000-bad.png").write_text("not an image")
    target = classifier_workspace / "answers.html"
    status, said, errors = predict(pictures, "--model", "model", "--page", target)
    assert status == 2
    assert f"1 of {IMAGES + 1} images were not answered: " in errors
    assert said == f"{IMAGES} images are in {target}\n"
    page = target.read_text(encoding="utf-8")
    assert "000-bad.png is not an image" in page
    ordered = np.sort(recorded(classifier_workspace), axis=1)
    expected = [f"{place:03}.png" for place in np.argsort(ordered[:, -1] - ordered[:, -2], kind="stable")]
    expected[expected.index("007.png")] = "&lt;img src=x onerror=&#39;alert(1)&#39;&gt;??gnp.png"
    assert re.findall(r'<p class="file"><bdi>(.*)</bdi>', page) == expected
    assert page.count('src="data:image/') == IMAGES
    assert "--share: " in page


def test_a_page_stops_at_so_many_photos_and_says_so(
    predict: Any, classifier_workspace: Path, pictures: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.predict.MAX_PHOTOS", 5)
    status, said, _ = predict(pictures, "--model", "model", "--page", "answers.html", "--top", "1000")
    assert (status, said) == (0, f"5 of {IMAGES} images, the least sure, are in answers.html\n")
    page = Path("answers.html").read_text()
    assert page.count('class="file"') == 5
    assert f"{IMAGES - 5} are not on this page" in page


def test_no_photo_is_written_over_by_a_page(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    before = (pictures / "000.png").read_bytes()
    status, _, errors = predict(pictures, "--model", "model", "--page", pictures / "000.png")
    assert status == 2
    assert "000.png does not end in .html" in errors
    assert (pictures / "000.png").read_bytes() == before


@pytest.mark.parametrize("count", [IMAGES, 130])  # more are not tried before the model is loaded
def test_a_page_stands_as_it_was_where_nothing_was_answered(
    predict: Any, classifier_workspace: Path, count: int
) -> None:
    Path("answers.html").write_text("before")
    Path("broken").mkdir()
    for number in range(count):
        (Path("broken") / f"{number}.png").write_text("not an image")
    status, _, errors = predict("broken", "--model", "model", "--page", "answers.html")
    assert (status, Path("answers.html").read_text()) == (2, "before")
    assert f"; and {count - 10} more" in errors


def test_a_csv_stands_as_it_was_where_nothing_was_answered(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    target = classifier_workspace / "answers.csv"
    target.write_text("before")
    for picture in pictures.iterdir():
        picture.write_text("not an image")
    status, _, errors = predict(pictures, "--model", "model", "--csv", target)
    assert (status, target.read_text()) == (2, "before")
    assert f"; and {IMAGES - 10} more" in errors


def test_a_folder_gives_what_training_takes_and_names_the_rest(
    predict: Any, classifier_workspace: Path, pictures: Path
) -> None:
    folder = classifier_workspace / "photos"
    (folder / "__MACOSX").mkdir(parents=True)
    for suffix in ("png", "jpg", "webp", "bmp", "gif", "tif", "ppm"):
        Image.open(pictures / "000.png").convert("RGB").save(folder / f"photo.{suffix}")
    for clutter in ("._photo.jpg", "__MACOSX/._x.jpg", "thumbs.db", ".DS_Store"):
        (folder / clutter).write_bytes(b"\0\5\x16\7")
    (folder / "IMG_1.HEIC").write_bytes(b"\0\0\0\x24ftypheic")
    (folder / "=notes.txt").write_text("seen in May")
    status, output, errors = predict(folder, "--model", "model")
    assert status == 0
    assert len(output.splitlines()) == 8
    assert errors.startswith(
        "predict: left out, by their names no images: =notes.txt, IMG_1.HEIC; HEIC and AVIF are not "
    )


def test_no_cell_of_a_csv_is_a_formula(predict: Any, classifier_workspace: Path, pictures: Path) -> None:
    Path("=x").mkdir()
    (pictures / "000.png").rename("=x/\x1b[2J.png")
    status, output, _ = predict("=x", "--model", "model")
    assert status == 0
    assert output.splitlines()[1].startswith("'=x/?[2J.png,")


def _odd_images(folder: Path) -> dict[str, Path]:
    """Return one file of every kind that people have."""
    colour = Image.fromarray(np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    deep = Image.fromarray(np.arange(400, dtype=np.uint16).reshape(20, 20) * 160)
    paths = {}
    for name, image, suffix, options in (
        ("grey", colour.convert("L"), "png", {}),
        ("two-level", colour.convert("1"), "png", {}),
        ("rgba", colour.convert("RGBA"), "png", {}),
        ("grey-alpha", colour.convert("LA"), "png", {}),
        ("palette", colour.convert("P"), "png", {}),
        ("palette-transparent", colour.convert("P"), "png", {"transparency": 0}),
        ("16-bit", deep, "png", {}),
        ("cmyk", colour.convert("CMYK"), "jpg", {}),
        ("rotated", colour, "jpeg", {"exif": rotated}),
        ("progressive", colour, "jpg", {"progressive": True}),
        ("one pixel", Image.new("RGB", (1, 1), "red"), "png", {}),
    ):
        paths[name] = folder / f"{name}.{suffix}"
        image.save(paths[name], **options)
    return paths


def test_every_kind_of_image_is_answered(predict: Any, classifier_workspace: Path) -> None:
    paths = _odd_images(classifier_workspace)
    status, output, errors = predict(*paths.values(), "--model", "model", "--json", "--top", "3")
    assert status == 0, errors
    answers = json.loads(output)["predictions"]
    assert [answer["image"] for answer in answers] == [str(path) for path in paths.values()]
    for answer in answers:
        assert sum(entry["probability"] for entry in answer["classes"]) == pytest.approx(1, abs=1e-5)


def test_a_huge_image_ends_in_an_answer_or_a_sentence(predict: Any, classifier_workspace: Path) -> None:
    Image.new("1", (10_000, 10_000)).save("huge.png")
    status, output, errors = predict("huge.png", "--model", "model")
    assert (status, output) == (2, "")
    assert errors.startswith("predict: huge.png has 10000×10000 pixels")


@pytest.mark.parametrize("body", [b"a shopping list\n", b"", b"\x89PNG\r\n\x1a\n" + b"\0" * 50])
def test_a_file_that_is_no_image_is_named(classifier_workspace: Path, body: bytes) -> None:
    Path("list.png").write_bytes(body)
    done = subprocess.run(
        [sys.executable, "-m", "tasks.predict", "list.png", "--model", "model"],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (2, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("predict: list.png is not an image that can be read")


def test_a_truncated_image_is_named(predict: Any, pictures: Path) -> None:
    whole = (pictures / "000.png").read_bytes()
    (pictures / "000.png").write_bytes(whole[: len(whole) // 2])
    status, _, errors = predict(pictures / "000.png", "--model", "model")
    assert status == 2
    assert "000.png is not an image that can be read" in errors


@pytest.mark.parametrize("path", ["absent.png", "empty"])
def test_nothing_to_answer_is_said(predict: Any, classifier_workspace: Path, path: str) -> None:
    Path("empty").mkdir()
    status, output, errors = predict(path, "--model", "model")
    assert (status, output) == (2, "")
    assert path in errors

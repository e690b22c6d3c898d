"""The report: self-contained, escaped, and clean in a real browser on a desk, on a phone and on paper."""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest

from tasks.evaluation.calibration import calibration
from tasks.evaluation.choice import Choice
from tasks.evaluation.costs import compare_costs
from tasks.evaluation.metrics import confusion_matrix
from tasks.evaluation.ranking import ranking
from tasks.params.costs import cost_matrix
from tasks.reporting.answers import least_sure, most_confident_mistakes
from tasks.reporting.architecture import draw_architecture
from tasks.reporting.architecture.summary import summary_text
from tasks.reporting.cost_words import cost_sentences
from tasks.reporting.report import LEAST_SURE, MISTAKES, Evaluated, confused_pairs, plain, render_report
from tests.tasks.reporting.chromium import Page, chromium_page, find_chromium
from tests.tasks.reporting.small_run import CLASSES, SHAPE, build_small_model, small_history, small_training

IMAGES = 40
NASTY = "<script>alert('x')</script>"


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    model, path = build_small_model(), tmp_path_factory.mktemp("model") / "architecture.png"
    draw_architecture(model, path)
    generator = np.random.default_rng(3)
    images = generator.integers(0, 256, (IMAGES, *SHAPE), dtype=np.uint8)
    labels = generator.integers(0, len(CLASSES), IMAGES).astype(np.int32)
    probabilities = generator.dirichlet(np.ones(len(CLASSES)), IMAGES).astype(np.float32)
    metrics = {
        "top1": 0.4321, "top1_low": 0.4, "top1_high": 0.5, "top1_augmented": 0.45, "binary_accuracy": 0.7,
        "log_loss": 1.1, "expected_calibration_error": 0.1, "macro_f1": 0.4, "images": IMAGES, "dataset": "cifar10",
        "balanced_accuracy": 0.41, "test_sha256": "f" * 64, "parameters": 283, "model_bytes": 12345,
    }  # fmt: skip
    counts = {name: {"total": IMAGES} for name in ("train", "validation", "test")}
    split = {
        "image_shape": SHAPE, "method": "stratified", "seed": 0, "counts": counts,
        "content_sha256": {"test": "f" * 64}, "duplicates": {"across": {"train+test": 2, "train+validation": 0}},
    }  # fmt: skip
    return Evaluated(
        metrics=metrics,
        augmentation="mirror_and_shift",
        classes=CLASSES,
        images=images,
        labels=labels,
        probabilities=probabilities,
        names=(),
        confusion=confusion_matrix(probabilities.argmax(axis=1), labels, len(CLASSES)),
        calibration=calibration(probabilities, labels, 15),
        ranking=None,
        split=split,
        training=small_training(),
        history=small_history(),
        model_picture=path.read_bytes(),
        model_summary=summary_text(model),
    )


def test_nothing_is_loaded_from_outside(evaluated: Evaluated) -> None:
    text = render_report(evaluated)
    assert "default-src 'none'" in text
    assert "<script" not in text
    assert all(target.startswith("data:") for target in re.findall(r"""(?:src|href)=["']([^"']*)""", text))
    assert "url(" not in text
    assert "@import" not in text


def test_equal_inputs_are_equal_text(evaluated: Evaluated) -> None:
    assert render_report(evaluated) == render_report(evaluated)


def test_names_from_outside_are_escaped(evaluated: Evaluated) -> None:
    training = {**evaluated.training, "recipe": NASTY}
    text = render_report(dataclasses.replace(evaluated, classes=(NASTY, "b", "c"), training=training))
    assert NASTY not in text
    assert "<script" not in text


def test_the_page_tells_data_recipe_and_lineage(evaluated: Evaluated) -> None:
    text = render_report(evaluated)
    for fact in (
        "f" * 64,
        "3" * 64,
        "model.widths",
        "64, 256, 256",
        "stratified",
        "across train and test",
        "95.00\u00a0%",
    ):
        assert fact in text
    assert "across train and validation" not in text, "counts of zero say nothing"


def test_a_faultless_model_has_no_mistakes_to_show(evaluated: Evaluated) -> None:
    right = np.eye(len(CLASSES), dtype=np.float32)[evaluated.labels]
    confusion = confusion_matrix(evaluated.labels, evaluated.labels, len(CLASSES))
    text = render_report(dataclasses.replace(evaluated, probabilities=right, confusion=confusion))
    assert text.count("every test image was answered rightly") == 2


def test_two_classes_are_shown_their_curves_and_no_others(evaluated: Evaluated) -> None:
    assert "ROC" not in render_report(evaluated)
    shares = np.random.default_rng(0).uniform(size=IMAGES).astype(np.float32)
    probabilities, labels = np.stack([1 - shares, shares], axis=1), evaluated.labels % 2
    name = "sick & <tired>"
    two = {"roc_auc": 0.51234, "average_precision": 0.4, "positive_class": name}
    text = render_report(
        dataclasses.replace(
            evaluated,
            metrics={**evaluated.metrics, **two},
            classes=("sound", name),
            labels=labels,
            probabilities=probabilities,
            confusion=confusion_matrix(probabilities.argmax(axis=1), labels, 2),
            ranking=ranking(probabilities, labels),
        )
    )
    assert "How well it tells sick &amp; &lt;tired&gt; from sound" in text
    assert '<span data-metric="roc_auc">0.5123</span>' in text
    assert text.count('class="ideal"') == 3, "in two curves and the reliability diagram"


def with_costs(evaluated: Evaluated, costs: Mapping[str, float], classes: Sequence[str]) -> Evaluated:
    labels = (evaluated.labels % len(classes)).astype(np.int32)
    probabilities = np.random.default_rng(0).dirichlet(np.ones(len(classes)), IMAGES).astype(np.float32)
    return dataclasses.replace(
        evaluated,
        metrics={**evaluated.metrics, "costs": costs},
        classes=classes,
        labels=labels,
        probabilities=probabilities,
        confusion=confusion_matrix(probabilities.argmax(axis=1), labels, len(classes)),
        by_cost=compare_costs(probabilities, labels, cost_matrix(costs, classes)),
    )


def test_costs_are_told_in_words_in_rows_and_for_two_classes_in_a_curve(evaluated: Evaluated) -> None:
    assert 'id="costs"' not in render_report(evaluated)
    two = with_costs(evaluated, {NASTY: 10.0}, (NASTY, "sound"))
    assert two.by_cost is not None
    text = render_report(two)
    assert NASTY not in text
    assert "A mistake costs: &lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt; 10; any other 1." in text
    assert "where its probability is above 9.09\u00a0%." in text
    assert "<figcaption>Mean cost by threshold</figcaption>" in text
    recalls = [f"{100 * table[1, 1] / table[1].sum():.1f}\u00a0%" for table in (two.confusion, two.by_cost.chosen)]
    assert f'<td class="n">{recalls[0]} → {recalls[1]}</td>' in text
    three = render_report(with_costs(evaluated, {"red": 3.0, "red > blue": 5.0}, CLASSES))
    assert '<td>red</td><td class="n">3 to 5</td>' in three
    assert "Mean cost by threshold" not in three


def test_the_words_on_costs_by_hand(evaluated: Evaluated) -> None:
    probabilities = np.array([[0.8, 0.2], [0.3, 0.7], [0.05, 0.95], [0.2, 0.8], [0.01, 0.99]], np.float32)
    costs = cost_matrix({"defective": 10.0}, ("defective", "sound"))
    found = compare_costs(probabilities, np.array([0, 0, 0, 1, 1], np.int32), costs)
    first, *others = cost_sentences(found, ("defective", "sound"), evaluated.training)
    assert first.endswith("takes the mean cost of a test image from 4.0000 (most probable class) to 2.2000")
    assert others == [
        "it finds 2 of 3 defective, where the most probable class finds 1; false alarms 0 → 1",
    ]
    none = compare_costs(probabilities, np.ones(5, np.int32), costs)
    assert "no test image is of defective; false alarms 1 → 3" in list(cost_sentences(none, ("defective", "sound"), {}))
    for recipe in ({"loss": {"name": "categorical_crossentropy", "balance": 0.5}}, {"method": "probe", "balance": 1}):
        *_, last = cost_sentences(found, ("defective", "sound"), {"recipe_parameters": recipe})
        assert last.startswith("it was trained with balance")


def test_a_model_that_began_from_a_release_may_have_seen_test_images_there(evaluated: Evaluated) -> None:
    assert "may have seen some" not in render_report(evaluated)
    training = {**evaluated.training, "start": {"release": "0123456789abcdef"}}
    text = render_report(dataclasses.replace(evaluated, training=training))
    assert "Release 0123456789abcdef, from whose weights it began, may have seen some" in text


def test_the_temperature_is_told_or_why_there_is_none(evaluated: Evaluated) -> None:
    assert "temperature" not in render_report(evaluated), "a model from before has none"
    error = {"log_loss": 0.5, "expected_calibration_error": 0.189}
    fitted = {
        "temperature": 0.36233,
        "images": 5000,
        "before": error,
        "after": {**error, "expected_calibration_error": 0.01},
    }
    text = render_report(dataclasses.replace(evaluated, training={**evaluated.training, "calibration": fitted}))
    assert "divided by a temperature of 0.362,\n      fitted on 5,000 validation images" in text
    assert "18.90\u00a0% to\n      1.00\u00a0%" in text
    none = {"temperature": 1.0, "images": 3, "reason": "3 validation images are too few, 20 are needed"}
    text = render_report(dataclasses.replace(evaluated, training={**evaluated.training, "calibration": none}))
    assert "It was not calibrated: 3 validation images are too few, 20 are needed." in text


def test_it_tells_why_these_views_were_averaged(evaluated: Evaluated) -> None:
    assert "Test-time augmentation was chosen" not in render_report(evaluated), "a person did"
    choice = Choice("mirror_and_shift", 2000, {}, "on 2,000 validation images mirror_and_shift is <better>")
    text = render_report(dataclasses.replace(evaluated, choice=choice))
    assert "Test-time augmentation was chosen without the test images" in text
    assert "on 2,000 validation images mirror and shift is &lt;better&gt;." in text


def test_one_epoch_can_be_shown(evaluated: Evaluated) -> None:
    render_report(dataclasses.replace(evaluated, history=small_history(1)))


def tiles(page: str, heading: str) -> list[str]:
    """Return the markup of each image below a heading."""
    section = page.partition(f"<h2>{heading}</h2>")[2].partition("</section>")[0]
    return section.split("<li><img")[1:]


def test_mistakes_and_the_least_sure_are_shown_by_name_with_their_chances(evaluated: Evaluated) -> None:
    names = tuple(f"monday.zip!/{number}.png" for number in range(IMAGES))
    page = render_report(dataclasses.replace(evaluated, names=names))
    mistakes, unsure = tiles(page, "The most confident mistakes"), tiles(page, "What it was least sure of")
    wrong = most_confident_mistakes(evaluated.labels, evaluated.probabilities, IMAGES)
    assert len(mistakes) == len(wrong) > 5
    assert len(unsure) == LEAST_SURE
    for tile, place in zip(mistakes + unsure, [*wrong, *least_sure(evaluated.probabilities, LEAST_SURE)], strict=True):
        assert f"<bdi>{names[place]}</bdi>" in tile
        answer, actual = evaluated.probabilities[place], CLASSES[evaluated.labels[place]]
        assert f'<p class="said">{CLASSES[answer.argmax()]}</p>' in tile
        assert (f">is {actual}</p>" in tile) == (place in wrong)
        assert (">is right</p>" in tile) == (place not in wrong)
        said = re.findall(r"<bdi>(\w+)</bdi> <span>([\d.]+)", tile)
        assert said == [(CLASSES[n], f"{100 * answer[n]:.1f}") for n in np.argsort(-answer)]
    assert "with the path of its file" in page


def test_images_without_files_are_numbered(evaluated: Evaluated) -> None:
    page = render_report(evaluated)
    (first, *_) = most_confident_mistakes(evaluated.labels, evaluated.probabilities, 1)
    assert f"<bdi>test image {first}</bdi>" in tiles(page, "The most confident mistakes")[0]
    assert "with the path of its file" not in page


def test_names_of_files_are_never_markup(evaluated: Evaluated) -> None:
    nasty = '<img src=x onerror="alert(1)">\n\u202egnp.\'exe'
    page = render_report(dataclasses.replace(evaluated, names=(nasty,) * IMAGES))
    assert "&lt;img src=x onerror=&#34;alert(1)&#34;&gt;??gnp.&#39;exe" in page
    assert 'onerror="' not in page
    assert "\u202e" not in page


def test_photographs_are_shown_large_and_a_thousand_mistakes_not_all(evaluated: Evaluated) -> None:
    small = render_report(evaluated)
    assert 'class="mistakes large"' not in small
    assert "data:image/jpeg" not in small, "tiles as small as CIFAR-10's keep every pixel"
    noise = np.random.default_rng(0).integers(0, 256, (128, 128, 3), dtype=np.uint8)
    images = np.broadcast_to(noise, (1000, *noise.shape))
    labels = np.zeros(1000, np.int32)
    probabilities = np.tile(np.array([0.2, 0.5, 0.3], np.float32), (1000, 1))
    page = render_report(dataclasses.replace(evaluated, images=images, labels=labels, probabilities=probabilities))
    assert page.count('class="mistakes large"') == 2
    assert len(tiles(page, "The most confident mistakes")) == MISTAKES
    assert f"{MISTAKES} of 1,000;" in page
    assert len(page) < 3_000_000, "of noise, which is the worst"


def test_confused_pairs_are_the_most_frequent_first(evaluated: Evaluated) -> None:
    confusion = np.array([[5, 0, 5], [9, 1, 0], [0, 0, 4]])
    pairs = list(confused_pairs(dataclasses.replace(evaluated, confusion=confusion)))
    assert pairs == [("green", "red", 9, 0.9), ("red", "blue", 5, 0.5)]


@pytest.mark.parametrize(
    ("value", "text"), [(True, "yes"), (None, "none"), (1024, "1,024"), (0.00133, "0.00133"), ([1, 2.5], "1, 2.5")]
)
def test_plain_values(value: object, text: str) -> None:
    assert plain(value) == text


@pytest.fixture
def page(evaluated: Evaluated, tmp_path: Path) -> Iterator[Page]:
    program = find_chromium()
    if program is None:
        pytest.skip("no Chromium on PATH")
    (tmp_path / "report.html").write_text(render_report(evaluated), encoding="utf-8")
    with chromium_page(program, tmp_path / "profile") as opened:
        yield opened


@pytest.mark.chromium
@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_clean_in_a_browser(page: Page, tmp_path: Path, width: int) -> None:
    page.open(tmp_path / "report.html", width)
    assert page.evaluate("document.querySelector('[data-metric=top1]').innerText") == "43.21\u00a0%"
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "nothing sticks out sideways"
    broken = "[...document.images].filter(image => !image.complete || !image.naturalWidth).length"
    assert page.evaluate("document.images.length") > 5
    assert page.evaluate(broken) == 0
    style = "getComputedStyle(document.querySelector('.mistakes img')).imageRendering"
    assert page.evaluate(style) == "pixelated", "the style sheet is applied and test images are enlarged crisply"
    own = (tmp_path / "report.html").as_uri()
    assert [url for url in page.requests if url != own and not url.startswith("data:")] == []
    assert page.problems == []


@pytest.mark.chromium
def test_the_page_prints_and_has_a_dark_side(page: Page, tmp_path: Path) -> None:
    page.open(tmp_path / "report.html", 1280)
    light = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.dark()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != light
    assert page.pdf().startswith(b"%PDF")


@pytest.mark.chromium
def test_the_browser_would_have_seen_a_problem(page: Page, tmp_path: Path) -> None:
    """The check above can fail: a page with a script and a foreign picture is caught."""
    text = (tmp_path / "report.html").read_text()
    foreign = "<script>console.error('x')</script><img src='http://127.0.0.1:9/x.png'></main>"
    (tmp_path / "report.html").write_text(text.replace("</main>", foreign))
    page.open(tmp_path / "report.html", 1280)
    assert page.problems


def test_a_probe_shows_its_penalties_in_place_of_epochs(evaluated: Evaluated) -> None:
    history = {name: values for name, values in small_history().items() if name != "learning_rate"}
    penalties = [10.0 / (row + 1) for row in range(len(history["train_loss"]))]
    page = render_report(dataclasses.replace(evaluated, history={**history, "penalty": penalties}))
    assert "<figcaption>Penalty</figcaption>" in page
    assert "A linear head on frozen features" in page
    assert "Learning rate" not in page
    assert "epochs; the weights of epoch" not in page

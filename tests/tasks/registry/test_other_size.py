"""A champion of another image size or fit is asked about the same images, read from the archive at its own."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tasks.data.arrays import load_arrays, load_split_record
from tasks.model_files.files import load_model
from tasks.params.data import SplitParams
from tasks.registry.champion_answers import CurrentTestSet
from tasks.registry.channels import resolve
from tasks.registry.offer import _Mover
from tasks.registry.other_size import images_at
from tasks.registry.recorded_answers import CannotAnswerError
from tasks.registry.releases import pull_release
from tasks.registry.reload import MODEL
from tasks.split import split
from tasks.stage.errors import InputError
from tests.fixtures.archives import colour_images, make_raw, wide_images, write_tar
from tests.fixtures.published import Workspace

PRESENT = SplitParams(method="stratified", validation_fraction=0.1, test_fraction=0.2, image_size=12)
AT_8 = PRESENT.model_copy(update={"image_size": 8})
PLACES = {"test": np.arange(12)}  # of 60 images


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Images of 16×16 pixels, without a split of their own."""
    files = colour_images(20, side=16)
    return make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", files))


def test_they_are_the_test_images_that_a_split_at_that_size_has(
    tmp_path: Path, raw: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split(PRESENT, raw, tmp_path / "now")
    split(AT_8, raw, tmp_path / "then")
    record, labels = load_split_record(tmp_path / "now"), load_arrays(tmp_path / "now", "test").labels
    capsys.readouterr()
    with images_at(8, "squash", record, PLACES, labels, PRESENT, raw) as images:
        assert np.array_equal(images, load_arrays(tmp_path / "then", "test").images)
    output, progress = capsys.readouterr()
    assert (output, "decoding" in progress) == ("", True), "standard output is for the answer of the command"


def test_another_archive_or_another_split_is_refused(tmp_path: Path, raw: Path) -> None:
    split(PRESENT, raw, tmp_path / "now")
    record, labels = load_split_record(tmp_path / "now"), load_arrays(tmp_path / "now", "test").labels
    other_seed = PRESENT.model_copy(update={"seed": 5})
    for params, right in ((other_seed, labels), (PRESENT, labels[::-1])):
        with pytest.raises(InputError, match=r"is divided otherwise at 8 pixels \(squash\) than at 12 \(squash\)"):
            images_at(8, "squash", record, PLACES, np.asarray(right), params, raw).__enter__()


def test_the_champion_answers_at_its_own_size(workspace: Workspace, tmp_path: Path, raw: Path) -> None:
    champion = resolve(workspace.bucket, "champion")  # it takes 8×8
    now = tmp_path / "now"
    split(PRESENT, raw, now)
    record, test = load_split_record(now), load_arrays(now, "test")
    with pytest.raises(CannotAnswerError, match="it takes images of 8×8×3, and these have 12×12×3"):
        CurrentTestSet(record, test, workspace.bucket, 500).answers_of(champion)
    test_set = CurrentTestSet(
        record,
        test,
        workspace.bucket,
        500,
        lambda pixels, fit: images_at(pixels, fit, record, PLACES, test.labels, PRESENT, raw),
    )
    answers = test_set.answers_of(champion)
    split(AT_8, raw, tmp_path / "then")
    pull_release(workspace.bucket, champion, tmp_path / "pulled")
    network = load_model(tmp_path / "pulled" / MODEL)
    expected = network.predict(load_arrays(tmp_path / "then", "test").images, verbose=0)
    assert np.allclose(answers, expected, atol=1e-6)
    assert len(answers) == len(test.labels)


CROP = AT_8.model_copy(update={"fit": "crop"})


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    """Images of 24×16 pixels."""
    return make_raw(tmp_path / "raw", "folders", write_tar(tmp_path / "images.tar", wide_images(20)))


def test_a_champion_of_another_fit_is_asked_about_the_photos_as_it_knows_them(
    workspace: Workspace, tmp_path: Path, wide: Path
) -> None:
    champion = resolve(workspace.bucket, "champion")  # published without an entry: it was squashed
    shutil.rmtree("data/split")
    split(CROP, wide, Path("data/split"))
    split(AT_8, wide, tmp_path / "then")
    wide.rename("data/raw")
    record, test = load_split_record(Path("data/split")), load_arrays(Path("data/split"), "test")
    with pytest.raises(CannotAnswerError, match=r"it has learnt from images of split\.fit squash, and these have crop"):
        CurrentTestSet(record, test, workspace.bucket, 500).answers_of(champion)
    release = champion.model_copy(update={"metrics": {"test_sha256": record.content_sha256["test"]}})
    params = workspace.params().model_copy(update={"split": CROP})
    answers = _Mover(workspace.bucket, release, params)._answers_of(champion)
    pull_release(workspace.bucket, champion, tmp_path / "pulled")
    network = load_model(tmp_path / "pulled" / MODEL)
    squashed = load_arrays(tmp_path / "then", "test").images
    np.testing.assert_allclose(answers, network.predict(squashed, verbose=0), atol=1e-6)
    assert not np.allclose(answers, network.predict(test.images, verbose=0), atol=1e-3)

import contextlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flows.look import PIN
from flows.overrides import (
    JOURNAL,
    apply_overrides,
    kept_unless_refused,
    overridden,
    parse_assignments,
    preview,
    put_back,
)
from tasks.params.params import load_params
from tasks.stage.errors import InputError, OutageError
from tests.fixtures.dvc_project import REPOSITORY


@pytest.fixture
def params(tmp_path: Path) -> Path:
    return Path(shutil.copy(REPOSITORY / "params.yaml", tmp_path / "params.yaml"))


def test_only_the_named_value_changes_and_comments_stay(params: Path) -> None:
    before = params.read_text().splitlines()
    assert apply_overrides({"train.recipe": "seed"}, params)
    after = params.read_text().splitlines()
    different = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    assert different == [("  recipe: fast # a name under recipes", "  recipe: seed # a name under recipes")]


@pytest.mark.parametrize("overrides", [{}, {"train.recipe": "fast", "split.validation_fraction": 0.1}])
def test_same_values_leave_the_file_alone(params: Path, overrides: dict[str, object]) -> None:
    before, moment = params.read_bytes(), params.stat().st_mtime_ns
    assert not apply_overrides(overrides, params)
    assert (params.read_bytes(), params.stat().st_mtime_ns) == (before, moment)


def test_list_may_become_one_address(params: Path) -> None:
    assert apply_overrides({"download.url": "file:///data/archive.tar.gz"}, params)
    assert load_params(params).download.url == ("file:///data/archive.tar.gz",)


def test_number_and_truth_are_not_confused(params: Path) -> None:
    apply_overrides({"recipes.fast.drop_last": False}, params)
    assert "drop_last: false" in params.read_text()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ({"train.recipy": "seed"}, r"train\.recipy"),
        ({"trian.recipe": "seed"}, r"no section trian"),
        ({"seed": 1}, r"seed"),
        ({"split.seed.value": 1}, r"split\.seed\.value"),
        ({"split.validation_fraction": 1}, r"split\.validation_fraction = 1"),
        ({"train.recipe": "slow"}, r"'slow' is not one of"),
    ],
)
def test_bad_value_is_named_and_the_file_untouched(params: Path, overrides: dict[str, object], words: str) -> None:
    before = params.read_bytes()
    with pytest.raises(InputError, match=words):
        apply_overrides(overrides, params)
    assert params.read_bytes() == before


def test_bad_file_is_refused_even_without_overrides(params: Path) -> None:
    params.write_text(params.read_text().replace("  recipe: fast", "  recipee: fast"))
    with pytest.raises(InputError, match="recipee"):
        apply_overrides({}, params)


@pytest.mark.parametrize("content", [b"", b"- a\n", b"a: [\n", b"\xff\xfe\x00"])
def test_file_that_holds_no_parameters_is_refused(params: Path, content: bytes) -> None:
    params.write_bytes(content)
    with pytest.raises(InputError, match=r"params\.yaml"):
        apply_overrides({"train.seed": 1}, params)


def test_preview_writes_nothing(params: Path) -> None:
    before = params.read_bytes()
    assert preview({"train.seed": 7}, params).train.seed == 7
    assert params.read_bytes() == before


def test_assignments_are_yaml() -> None:
    words = [
        "train.recipe=seed",
        "split.seed=2",
        "download.url=file:///a=b",
        "recipes.fast.drop_last=false",
        "x=[1, 2]",
    ]
    assert parse_assignments(words) == {
        "train.recipe": "seed",
        "split.seed": 2,
        "download.url": "file:///a=b",
        "recipes.fast.drop_last": False,
        "x": [1, 2],
    }


@pytest.mark.parametrize(("word", "text"), [("train.recipe", "KEY=VALUE"), ("=3", "KEY=VALUE"), ("a=[", "not YAML")])
def test_bad_assignment_is_named(word: str, text: str) -> None:
    with pytest.raises(InputError, match=text):
        parse_assignments([word])


@pytest.mark.parametrize(
    "word",
    [
        "https://name:PLANTED@host/file",
        "download.url=[https://name:PLANTED@host/file",
        "name:PLANTED@host:/x",
        "//name:PLANTED@host/x",
        "https://host/x;sig:PLANTED",
        "https://host/x#PLANTED",
    ],
)
def test_a_credential_in_a_word_that_is_refused_is_not_shown(word: str) -> None:
    with pytest.raises(InputError) as caught:
        parse_assignments([word])
    assert "PLANTED" not in str(caught.value)


KILLED = """
import os, signal
from pathlib import Path
from flows.overrides import overridden
with overridden({"train.seed": 7}, Path.cwd(), print):
    os.kill(os.getpid(), signal.SIGKILL)
"""


def kill_a_run(folder: Path) -> None:
    """Have a run set train.seed to 7 and be killed."""
    done = subprocess.run(
        [sys.executable, "-c", KILLED], cwd=folder, env=os.environ | {"PYTHONPATH": str(REPOSITORY)}, check=False
    )
    assert done.returncode == -9
    assert load_params(folder / "params.yaml").train.seed == 7


@pytest.mark.parametrize("end", [None, InputError("it failed"), KeyboardInterrupt()])
def test_a_run_has_its_overrides_and_gives_back_what_stood_there(params: Path, end: BaseException | None) -> None:
    before, said = params.read_bytes(), list[str]()

    def run() -> None:
        with overridden({"train.seed": 7}, params.parent, said.append):
            assert load_params(params).train.seed == 7
            if end is not None:
                raise end

    if end is None:
        run()
    else:
        with pytest.raises(type(end)):
            run()
    assert (params.read_bytes(), said) == (before, [])
    assert not (params.parent / JOURNAL).exists()


def test_what_a_person_edits_during_a_run_stays_and_is_said(params: Path) -> None:
    said = list[str]()
    with overridden({"train.seed": 7}, params.parent, said.append):
        apply_overrides({"train.recipe": "seed"}, params)
    assert (load_params(params).train.recipe, load_params(params).train.seed) == ("seed", 7)
    (line,) = said
    assert line == f"{params} was edited since a run set its overrides there: it stays as it is"
    assert not (params.parent / JOURNAL).exists()


def test_a_killed_run_s_overrides_are_taken_back_by_the_next(params: Path) -> None:
    before, said = params.read_bytes(), list[str]()
    kill_a_run(params.parent)
    put_back(params.parent, said.append)
    assert params.read_bytes() == before
    with overridden({"train.recipe": "seed"}, params.parent, said.append):
        assert load_params(params).train.seed != 7
    assert (params.read_bytes(), said) == (before, [])


@pytest.mark.parametrize("edited", [True, False])
def test_after_a_killed_run_an_edit_or_a_checkout_stays(params: Path, edited: bool) -> None:
    before, said = params.read_text(), list[str]()
    kill_a_run(params.parent)
    text = before + "# edited\n" * edited
    params.write_text(text)
    put_back(params.parent, said.append)
    assert params.read_text() == text
    assert len(said) == edited
    assert not (params.parent / JOURNAL).exists()


@pytest.mark.parametrize("text", ["{}", "[1]", '{"before": ', ""])
def test_a_journal_that_no_run_wrote_stops_no_run(params: Path, text: str) -> None:
    before, said = params.read_bytes(), list[str]()
    journal = params.parent / JOURNAL
    journal.parent.mkdir(parents=True)
    journal.write_text(text)
    put_back(params.parent, said.append)
    assert said == [f"{journal} is not what a run writes there: {params} stays as it is"]
    assert (params.read_bytes(), journal.exists()) == (before, False)


def test_a_bad_override_leaves_no_journal(params: Path) -> None:
    before = params.read_bytes()
    with pytest.raises(InputError), overridden({"train.recipy": "x"}, params.parent, print):
        pytest.fail("it began")
    assert params.read_bytes() == before
    assert not (params.parent / JOURNAL).exists()


@pytest.mark.parametrize(
    ("ending", "edited", "stays"),
    [
        (InputError("bad"), False, False),
        (OutageError("away"), False, True),
        (None, False, True),
        (InputError("bad"), True, True),
    ],
)
def test_what_a_person_sets_stays_unless_it_is_refused(
    params: Path, ending: Exception | None, edited: bool, stays: bool
) -> None:
    before, said = params.read_text(), list[str]()
    overrides = {"train.seed": 3, "train.recipe": "seed"}
    with contextlib.suppress(InputError), kept_unless_refused(overrides, (PIN,), params.parent, said.append):
        apply_overrides(overrides, params)
        apply_overrides({PIN: "0" * 64}, params)  # as a look does
        if edited:
            params.write_text(params.read_text() + "# a person's line\n")
        if ending is not None:
            raise ending
    assert (params.read_text() != before) is stays
    assert said == ([] if stays else ["params.yaml is again as it was before this run"])

"""Which test images two releases are compared on, and what the gate says of it: figures worked out by hand."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.registry.fair_comparison import Answers, JudgedImages, compare_fairly
from tasks.registry.gate import judge
from tasks.registry.opponents import Cohort, NewClass, Opponent, Scope
from tests.tasks.registry.measurements import BINS, ID, measurement, publish_params

ABC = ("ant", "bee", "cat")


def answers(said: list[int], classes: tuple[str, ...] = ABC, fit: list[int] | None = None, tested: int = 0) -> Answers:
    """Return answers that are sure of these classes, of a release that knew images by these numbers."""
    hashes = None if fit is None else np.array(fit, np.uint64)
    return Answers(np.eye(len(classes), dtype=np.float32)[said], classes, hashes, images(tested))


def images(count: int) -> "np.ndarray[tuple[int, int], np.dtype[np.uint64]]":
    """Return the hashes of images 0, 1, …: of the file an even number, of the pixels the odd one after it."""
    return np.arange(2 * count, dtype=np.uint64).reshape(count, 2)


def labels(right: list[int]) -> JudgedImages:
    return JudgedImages(np.array(right, np.int32), images(len(right)))


def scope_of(ours: Answers, theirs: Answers, test: JudgedImages) -> Scope:
    compared = compare_fairly(ours, theirs, test, BINS)
    assert compared is not None
    return compared.scope


def test_what_either_trained_on_is_told_by_its_file_or_by_its_pixels_and_left_out() -> None:
    test = labels([0, 1, 2, 0, 1, 2])
    ours, theirs = answers([0, 1, 2, 0, 1, 2], fit=[2]), answers([0, 1, 2, 1, 2, 0], fit=[5, 99])
    compared = compare_fairly(ours, theirs, test, BINS)
    assert compared is not None
    assert (compared.scope.images, compared.scope.compared, compared.scope.seen) == (6, 4, 2)
    assert compared.ours.labels.tolist() == [0, 0, 1, 2]  # without images 1 and 2
    assert (compared.ours.top1, compared.theirs.top1) == (1.0, 0.25)


def test_of_a_class_that_only_one_knows_nothing_is_asked_and_nothing_said() -> None:
    """The new class takes answers from the others; they count as what the release says among the classes of both."""
    test = JudgedImages(np.array([0, 1, 2, 2, 3], np.int32))
    probabilities = np.array(
        [[0.6, 0.1, 0.1, 0.2], [0.0, 0.4, 0.1, 0.5], [0.0, 0.0, 0.3, 0.7], [0, 0, 0.2, 0.8], [0, 0, 0.6, 0.4]],
        np.float32,
    )
    ours = Answers(probabilities, ("ant", "bee", "cat", "dog"))
    theirs = Answers(np.eye(3, dtype=np.float32)[[2, 1, 1, 0, 2]], ("bee", "cat", "yak"))
    compared = compare_fairly(ours, theirs, test, BINS)
    assert compared is not None
    assert compared.ours.classes == ("bee", "cat")
    assert compared.ours.labels.tolist() == [0, 1, 1]
    assert compared.ours.correct.tolist() == [True, True, True]
    assert compared.theirs.correct.tolist() == [False, True, False]
    np.testing.assert_allclose(compared.ours.confidences.confidence, [0.8, 1.0, 1.0], rtol=1e-6)
    scope = compared.scope
    assert (scope.of_unknown_classes, scope.lost_classes) == (2, ("yak",))
    assert scope.new_classes == (NewClass("ant", 1, 1, 4, 0), NewClass("dog", 1, 0, 4, 3))


def test_cohorts_are_what_the_other_knew_and_what_came_since() -> None:
    test = labels([0, 1, 2, 0, 1, 2])
    theirs = answers([0, 1, 2, 1, 1, 1], fit=[50], tested=4)  # images 0 to 3 were its test images
    scope = scope_of(answers([0, 1, 1, 0, 1, 2], fit=[]), theirs, test)
    assert scope.cohorts == (Cohort("core", 4, 3, 3), Cohort("came", 2, 2, 1))
    assert scope_of(answers([0] * 6, fit=[]), answers([0] * 6, fit=[50], tested=6), test).cohorts == ()


def test_releases_without_a_class_or_an_image_in_common_cannot_be_compared() -> None:
    test = labels([0, 1])
    assert compare_fairly(answers([0, 1]), answers([0, 1], ("x", "y", "z")), test, BINS) is None
    assert compare_fairly(answers([0, 1]), answers([0, 1], ("ant", "y", "z")), test, BINS) is None
    assert compare_fairly(answers([0, 1]), answers([0, 1], fit=[0, 2]), test, BINS) is None


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2), st.integers(0, 2)), min_size=1, max_size=40))
@settings(deadline=None)
def test_of_the_same_classes_and_new_images_all_are_compared_as_they_are(rows: list[tuple[int, int, int]]) -> None:
    right, ours, theirs = (list(column) for column in zip(*rows, strict=True))
    compared = compare_fairly(answers(ours, fit=[]), answers(theirs, fit=[]), labels(right), BINS)
    assert compared is not None
    assert compared.scope == Scope(len(rows), len(rows))
    assert compared.ours.correct.tolist() == [a == b for a, b in zip(ours, right, strict=True)]
    assert compared.theirs.correct.tolist() == [a == b for a, b in zip(theirs, right, strict=True)]


# What the gate makes of it


def judged(scope: Scope, right: int = 300) -> tuple[list[str], str]:
    """Return the rules that refuse a release that answers as the champion does, and all that the gate says."""
    same = measurement([True] * right)
    verdict = judge(same, Opponent(ID, same, against=same, scope=scope), None, publish_params())
    return [finding.rule for finding in verdict.findings if not finding.passed], "\n".join(verdict.sentences)


def test_too_few_images_to_compare_are_a_refusal_and_not_a_pass() -> None:
    refused, said = judged(Scope(images=1000, compared=199, seen=801))
    assert refused == ["enough_to_compare"]
    assert "on 199 of 1,000 test images, without 801 that one of them trained on or chose by: too few" in said
    assert judged(Scope(images=1000, compared=200, seen=800))[0] == []
    assert judged(Scope(images=60, compared=30, seen=30))[0] == []
    assert judged(Scope(images=60, compared=29, seen=31))[0] == ["enough_to_compare"]


def test_best_release_with_too_few_images_to_compare_says_nothing() -> None:
    release, best = measurement([True, False] * 20), measurement([True] * 40)
    scope = Scope(images=1000, compared=40, seen=960)
    champion = Opponent(ID, release, against=release, scope=Scope(1000, 1000))
    verdict = judge(release, champion, Opponent(ID, best, role="best", against=release, scope=scope), publish_params())
    assert verdict.passed


def test_a_new_class_that_is_not_learnt_is_a_refusal_and_is_named() -> None:
    refused, said = judged(Scope(100, 80, of_unknown_classes=20, new_classes=(NewClass("owl", 20, 2, 80, 8),)))
    assert refused == ["learns_new_classes"]
    assert "owl 2 of 20; not told from the others better than by chance: owl" in said
    learnt = NewClass("owl", 20, 9, 80, 8)  # p = 0.0013
    refused, said = judged(Scope(100, 80, of_unknown_classes=20, new_classes=(learnt,)))
    assert (refused, "new classes, answered rightly: owl 9 of 20" in said) == ([], True)
    refused, said = judged(Scope(80, 80, new_classes=(NewClass("owl", 0, 0, 80, 1),)))
    assert (refused, "without a test image, so not measured: owl" in said) == ([], True)


def test_cohorts_are_told_beside_each_other_and_decide_nothing() -> None:
    scope = Scope(100, 100, cohorts=(Cohort("core", 80, 72, 76), Cohort("came", 20, 18, 10)))
    refused, said = judged(scope)
    assert refused == []
    assert "it answers 50.00 % rightly and this release 90.00 %; of the 80 that were there, 95.00 % and 90.00 %" in said
    assert f"of 20 test images that came since the champion {ID} was made" in said

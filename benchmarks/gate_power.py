"""What the gate refuses: equals, losses of every size, and a line of releases that each are a little worse."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tasks.params.params import PublishParams
from tasks.registry.gate import judge
from tasks.registry.opponents import Measurement, Opponent
from tasks.registry.paired_tests import Confidences

DRAWS, NIGHTS, LINES = 400, 100, 10
EQUALS = ((200, 2), (200, 10), (270, 10), (1_000, 10), (10_000, 10), (10_000, 100), (10_000, 1_000), (50_000, 1_000))
TEST_SETS = (200, 1_000, 10_000, 50_000)
LOSSES = (0.005, 0.01, 0.015, 0.02, 0.03, 0.05)
CLASS_LOSSES = (0.05, 0.1, 0.15, 0.2)
DRIFTS = (0.0, 0.001, 0.004)
ACCURACY, DISAGREEMENT = 0.9, 0.06  # of two seeds of one recipe, as on CIFAR-10
BINS = 15

Answers = NDArray[np.bool_]


def measure() -> str:
    """Simulate the gate with its default parameters; return the section for results.md."""
    losses = " | ".join(f"-{100 * loss:g}" for loss in LOSSES)
    classes = " | ".join(f"-{100 * loss:g}" for loss in CLASS_LOSSES)
    return f"""## What the gate refuses

Simulated with the rules themselves and the default parameters, {DRAWS} draws each (a fifth of them at 50,000 images):
each of two models is right on {ACCURACY:.0%} of the images, and they differ on {DISAGREEMENT:.0%}, as two seeds of one
recipe do. `publish.significance` is {params().significance:.0%}.

Equals that are refused; at most {params().significance:.0%} is the goal:

| test images | classes | refused |
|---|---|---|
{_table(EQUALS, _equal_row)}

Losses of top-1, in points, by the share of them that is refused; the goal is 99 % of -2 at 10,000 images:

| test images | {losses} |
|---|{"---|" * len(LOSSES)}
{_table(TEST_SETS, _loss_row)}

One class of ten that falls, in points, by the share that is refused; the goal is 80 % of -15 at 100 images of it:

| images of the class | {classes} |
|---|{"---|" * len(CLASS_LOSSES)}
{_table((20, 100, 1_000), _class_row)}

{NIGHTS} nights, each release a little worse than that of the night before: how many points the champion has lost at
their end, median (most) of {LINES} lines. A champion is replaced only by what passes against it and against the best.

| test images | {" | ".join(f"-{100 * drift:g} a night" if drift else "equal every night" for drift in DRIFTS)} |
|---|{"---|" * len(DRIFTS)}
{_table(TEST_SETS[:3], _nights_row)}"""


def params() -> PublishParams:
    """Return the gate's parameters as they are by default."""
    return PublishParams(bucket="retrain", prefix="models")


def drawn(
    generator: np.random.Generator, images: int, classes: int, *, drop: float = 0.0, of_class: int | None = None
) -> tuple[Measurement, Opponent]:
    """Draw what a release and its champion answer.

    Args:
        generator: Of the draws.
        images: In the test set, as many of each class as of any other.
        classes: How many.
        drop: By how much the release is worse.
        of_class: On the images of this class only.
    """
    labels = np.arange(images) % classes
    worse = drop * (np.ones(images) if of_class is None else labels == of_class)
    half, where = DISAGREEMENT / 2, generator.random(images)
    lost, won = where < half + worse, (where >= half + worse) & (where < 2 * half + worse)
    both = ~lost & ~won & (generator.random(images) < (ACCURACY - half) / (1 - 2 * half))
    hard = generator.random(images)
    return (
        measured(generator, both | won, labels, classes, hard),
        Opponent("champion", measured(generator, both | lost, labels, classes, hard)),
    )


def measured(
    generator: np.random.Generator, correct: Answers, labels: NDArray[np.int_], classes: int, hard: NDArray[np.float64]
) -> Measurement:
    """Return a model's answers: the harder an image (0 to 1), the less sure it is of a right one."""
    sure = np.where(correct, 1 - 0.4 * hard**2, 0.4 + 0.5 * hard) + generator.normal(0, 0.03, len(correct))
    confidences = Confidences(np.clip(sure, 1 / classes, 1), correct, BINS)
    return Measurement(correct, labels.astype(np.int32), tuple(map(str, range(classes))), confidences)


def refused(images: int, classes: int, times: int, *, drop: float = 0.0, of_class: int | None = None) -> float:
    """Return the share of releases that are refused where the champion is the best of its line, too."""
    generator = np.random.default_rng((images, classes, round(1e6 * drop)))
    passed = 0
    for _ in range(times):
        release, champion = drawn(generator, images, classes, drop=drop, of_class=of_class)
        best = Opponent("best", champion.measurement, role="best")
        passed += judge(release, champion, best, params()).passed
    return 1 - passed / times


@dataclass
class Line:
    """One line of releases on one test set; night k's is right on `drift` · k fewer images than the first.

    Of the images all models answer some rightly and some wrongly; the others are a coin's throw to each.
    """

    generator: np.random.Generator
    images: int
    drift: float
    classes: int = 10

    def __post_init__(self) -> None:
        coins = 2 * DISAGREEMENT
        self._kind, self._hard = self.generator.random(self.images), self.generator.random(self.images)
        self._coins, self._right = coins, coins + ACCURACY - coins / 2

    def release(self, night: int) -> Measurement:
        """Return the answers of a night's release."""
        thrown = (self._kind < self._coins) & (self.generator.random(self.images) < 0.5)
        known = (self._kind >= self._coins) & (self._kind < self._right - self.drift * night)
        labels = np.arange(self.images) % self.classes
        return measured(self.generator, thrown | known, labels, self.classes, self._hard)

    def lost(self, nights: int) -> float:
        """Return by how much the last champion is worse than the first, of all images that there could be."""
        first = self.release(0)
        champion, best, at, moves = first, first, 0, 1
        for night in range(1, nights):
            release = self.release(night)
            opponent = None if best is champion else Opponent("best", best, role="best", chosen_from=moves)
            if judge(release, Opponent("champion", champion), opponent, params()).passed:
                champion, at, moves = release, night, moves + 1
                best = release if release.top1 > best.top1 else best
        return self.drift * at


def _equal_row(test_set: tuple[int, int]) -> str:
    images, classes = test_set
    return f"| {images:,} | {classes:,} | {refused(images, classes, _draws(images)):.1%} |"


def _loss_row(images: int) -> str:
    return f"| {images:,} | {' | '.join(f'{refused(images, 10, _draws(images), drop=loss):.0%}' for loss in LOSSES)} |"


def _class_row(images: int) -> str:
    shares = (refused(10 * images, 10, DRAWS, drop=loss, of_class=3) for loss in CLASS_LOSSES)
    return f"| {images:,} | {' | '.join(f'{share:.0%}' for share in shares)} |"


def _nights_row(images: int) -> str:
    cells = []
    for drift in DRIFTS:
        lines = [
            Line(np.random.default_rng((images, round(1e4 * drift), line)), images, drift) for line in range(LINES)
        ]
        points = [100 * line.lost(NIGHTS) for line in lines]
        cells.append(f"{np.median(points):.1f} ({max(points):.1f})")
    return f"| {images:,} | {' | '.join(cells)} |"


def _draws(images: int) -> int:
    return DRAWS if images < 50_000 else DRAWS // 5


def _table(cases: tuple[Any, ...], row: Callable[[Any], str]) -> str:
    rows = []
    for case in cases:
        rows.append(row(case))
        print(rows[-1], flush=True)
    return "\n".join(rows)

"""How a champion that was measured on another test set answers the present one: it is fetched, and asked.

One that takes images of another size, or has learnt from images that were fitted otherwise (`split.fit`), is asked
about the same images at its own (tasks/registry/other_size.py). What it answered is kept under .cache/, so that a run
with nothing new need not ask again: that takes TensorFlow.
"""

import tempfile
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tasks.data.arrays import Arrays, Fit, Images, SplitRecord, recorded_fit
from tasks.registry.manifest import Manifest
from tasks.registry.recorded_answers import CannotAnswerError, load_probabilities
from tasks.registry.releases import pull_release
from tasks.registry.reload import MODEL, Probabilities
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tasks.stage.files import replaced_file

CACHE = Path(".cache/champion_answers")

Prepared = Callable[[int, Fit], AbstractContextManager[Images]]


@dataclass(frozen=True)
class CurrentTestSet:
    """What the present test set is, and how a champion of another one answers it.

    Attributes:
        record: What the split says of itself.
        test: The test images, and their labels.
        bucket: Where champions are.
        batch_size: Images at once.
        prepared: Gives the same images at a height and width, fitted in a way; None where only `test` can be asked.
    """

    record: SplitRecord
    test: Arrays
    bucket: Store
    batch_size: int
    prepared: Prepared | None = None

    def answers_of(self, champion: Manifest) -> Probabilities:
        """Return a champion's answers to the present test images, float32 (N, C).

        Raises:
            CannotAnswerError: Its model cannot be loaded, or takes other images.
            InputError: The store refused, or the champion is damaged there.
        """
        kept = CACHE / f"{champion.id}-{champion.tree}-{self.record.content_sha256['test']}.npy"
        try:
            return load_probabilities(kept)
        except (FileNotFoundError, InputError):  # a cache: what it held is computed again
            answers = self._asked(champion)
        with replaced_file(kept) as temporary, temporary.open("wb") as stream:
            np.save(stream, answers, allow_pickle=False)
        return answers

    def _asked(self, champion: Manifest) -> Probabilities:
        import tasks.stage.quiet_tensorflow  # noqa: F401, PLC0415  TensorFlow takes seconds to load, and must be quiet
        from tasks.model_files.files import load_model  # noqa: PLC0415

        with tempfile.TemporaryDirectory(prefix="champion-") as name:
            folder = Path(name) / "release"
            pull_release(self.bucket, champion, folder)
            try:
                fit = recorded_fit(champion.training, f"release {champion.id}")
                return self._predictions_of(load_model(folder / MODEL), fit)
            except InputError as error:
                raise CannotAnswerError(f"it does not answer ({str(error).replace(f'{folder}/', '')})") from error

    def _predictions_of(self, network: Any, fit: Fit) -> Probabilities:
        from tasks.evaluation.answers import predict_all  # noqa: PLC0415

        takes, has = tuple(network.input_shape[1:]), self.record.image_shape
        if takes == has and fit == self.record.fit:
            return predict_all(network, self.test.images, self.batch_size, "none").single
        if takes != has and (self.prepared is None or takes[0] != takes[1]):
            raise CannotAnswerError(f"it takes images of {_size(takes)}, and these have {_size(has)}")
        if self.prepared is None:
            raise CannotAnswerError(
                f"it has learnt from images of split.fit {fit}, and these have {self.record.fit}; when this release is "
                "offered, it is asked about the same photographs as it knows them"
            )
        with self.prepared(takes[0], fit) as images:
            return predict_all(network, images, self.batch_size, "none").single


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))

"""The same trajectory on any number of replicas, in one process or several that talk over loopback."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.nursery import Nursery, cluster_environments
from tests.fixtures.train_workspace import largest_relative_gap

SHUFFLED = [f"shuffled{seed}" for seed in range(5)]
# Name: devices of a process, number of processes.
CLUSTERS = {
    "one": ("cpu:1", 1),
    "two mirrored": ("cpu:2", 1),
    "four mirrored": ("cpu:4", 1),
    "two workers": ("cpu:1", 2),
    "two workers of two": ("cpu:2", 2),
}
SEVERAL = [name for name in CLUSTERS if name != "one"]


class Trainings:
    """Three epochs on a cluster: batch norm, augmentation, momentum, L2, label smoothing and Lookahead.

    An epoch is 12 batches of 16 images and a last one of 5, which two and four replicas cannot share evenly. Each is
    trained when it is first asked for.
    """

    def __init__(self, nursery: Nursery, root: Path) -> None:
        self._nursery, self._root = nursery, root

    def weights(self, cluster: str, training: str) -> list[np.ndarray]:
        """Return what a training ends in: `float64`, `float32`, or `shuffled0` and so on, which is in float32."""
        with np.load(self._train(cluster, training).with_suffix(".npz")) as archive:
            return [archive[name] for name in archive.files]

    def history(self, cluster: str, training: str) -> list[dict[str, float]]:
        """Return what a training says of each epoch."""
        history: list[dict[str, float]] = json.loads(self._train(cluster, training).with_suffix(".json").read_text())
        return history

    def _train(self, cluster: str, training: str) -> Path:
        """Return the path of a training's results, without its suffix."""
        devices, hosts = CLUSTERS[cluster]
        folder = self._root / cluster
        folder.mkdir(exist_ok=True)
        if not (folder / f"{training}.npz").exists():
            arguments = (devices, str(folder), training)
            runs = [
                self._nursery.start(
                    folder, *arguments, module="tests.fixtures.trained_weights", environment=environment
                )
                for environment in (cluster_environments(hosts) if hosts > 1 else [{}])
            ]
            for run in runs:
                assert run.wait() == 0, run.err
        return folder / training


@pytest.fixture(scope="module")
def trained(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Trainings:
    return Trainings(nursery, tmp_path_factory.mktemp("trained"))


def gap(trained: Trainings, cluster: str, training: str, reference: str) -> float:
    ours, theirs = trained.weights(cluster, training), trained.weights("one", reference)
    assert theirs[0].dtype == ("float64" if training == "float64" else "float32")
    return largest_relative_gap(ours, theirs)


@pytest.mark.parametrize(
    "cluster",
    [
        "two mirrored",
        pytest.param("four mirrored", marks=pytest.mark.long),
        "two workers",
        pytest.param("two workers of two", marks=pytest.mark.long),
    ],
)
def test_the_trajectory_is_the_single_devices(trained: Trainings, cluster: str) -> None:
    assert gap(trained, cluster, "float64", "float64") < 1e-10
    ours, theirs = (trained.history(name, "float64") for name in (cluster, "one"))
    assert len(theirs) == 3
    for epoch, expected in zip(ours, theirs, strict=True):
        assert epoch == pytest.approx(expected, rel=1e-10)
    assert theirs[-1]["train_loss"] < theirs[0]["train_loss"]


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_devices_and_two_processes_agree_to_the_bit(trained: Trainings, precision: str) -> None:
    mirrored, workers = (trained.weights(name, precision) for name in ("two mirrored", "two workers"))
    for ours, theirs in zip(mirrored, workers, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.long
@pytest.mark.parametrize("cluster", SEVERAL)
def test_in_float32_replicas_change_no_more_than_another_order_within_batches(trained: Trainings, cluster: str) -> None:
    # Both only regroup the sums of a batch, so that both gaps come from the same rounding: that of replicas must lie
    # within what five orders of the same images show.
    orders = [gap(trained, "one", shuffled, "float32") for shuffled in SHUFFLED]
    assert min(orders) > 0
    assert max(orders) < 1e-3, "the training itself blows rounding up, and would hide a real difference"
    assert 0 < gap(trained, cluster, "float32", "float32") <= max(orders)

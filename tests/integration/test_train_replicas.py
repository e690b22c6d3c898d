"""The same trajectory on any number of replicas, in one process or several that talk over loopback."""

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from tests.fixtures.nursery import Nursery, cluster_environments
from tests.fixtures.train_workspace import largest_relative_gap

SHUFFLED = [f"shuffled{seed}" for seed in range(5)]
# Name: devices of a process, number of processes, what is trained.
CLUSTERS = {
    "one": ("cpu:1", 1, ["float64", "float32", *SHUFFLED]),
    "two mirrored": ("cpu:2", 1, ["float64", "float32"]),
    "four mirrored": ("cpu:4", 1, ["float64", "float32"]),
    "two workers": ("cpu:1", 2, ["float64", "float32"]),
    "two workers of two": ("cpu:2", 2, ["float64", "float32"]),
}
SEVERAL = [name for name in CLUSTERS if name != "one"]


@pytest.fixture(scope="module")
def trained(nursery: Nursery, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train three epochs on every cluster: batch norm, augmentation, momentum, L2, label smoothing and Lookahead.

    An epoch is 12 batches of 16 images and a last one of 5, which two and four replicas cannot share evenly.
    """
    root = tmp_path_factory.mktemp("trained")

    def train(name: str) -> None:
        devices, hosts, trainings = CLUSTERS[name]
        (root / name).mkdir()
        environments = cluster_environments(hosts) if hosts > 1 else [{}]
        runs = [
            nursery.start(
                root / name,
                *(devices, str(root / name), *trainings),
                module="tests.fixtures.trained_weights",
                environment=environment,
            )
            for environment in environments
        ]
        for run in runs:
            assert run.wait() == 0, run.err

    # Two at a time: most of it is tracing, on one core.
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(train, CLUSTERS))
    return root


def weights(trained: Path, cluster: str, training: str) -> list[np.ndarray]:
    with np.load(trained / cluster / f"{training}.npz") as archive:
        return [archive[name] for name in archive.files]


def gap(trained: Path, cluster: str, training: str, reference: str) -> float:
    ours, theirs = weights(trained, cluster, training), weights(trained, "one", reference)
    assert theirs[0].dtype == ("float64" if training == "float64" else "float32")
    return largest_relative_gap(ours, theirs)


@pytest.mark.parametrize("cluster", SEVERAL)
def test_the_trajectory_is_the_single_devices(trained: Path, cluster: str) -> None:
    assert gap(trained, cluster, "float64", "float64") < 1e-10
    ours, theirs = (json.loads((trained / name / "float64.json").read_text()) for name in (cluster, "one"))
    assert len(theirs) == 3
    for epoch, expected in zip(ours, theirs, strict=True):
        assert epoch == pytest.approx(expected, rel=1e-10)
    assert theirs[-1]["train_loss"] < theirs[0]["train_loss"]


@pytest.mark.parametrize("precision", ["float64", "float32"])
def test_two_devices_and_two_processes_agree_to_the_bit(trained: Path, precision: str) -> None:
    mirrored, workers = (weights(trained, name, precision) for name in ("two mirrored", "two workers"))
    for ours, theirs in zip(mirrored, workers, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize("cluster", SEVERAL)
def test_in_float32_replicas_change_no_more_than_another_order_within_batches(trained: Path, cluster: str) -> None:
    # Both only regroup the sums of a batch, so that both gaps come from the same rounding: that of replicas must lie
    # within what five orders of the same images show.
    orders = [gap(trained, "one", shuffled, "float32") for shuffled in SHUFFLED]
    assert min(orders) > 0
    assert max(orders) < 1e-3, "the training itself blows rounding up, and would hide a real difference"
    assert 0 < gap(trained, cluster, "float32", "float32") <= max(orders)

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from tasks.data.arrays import load_arrays
from tasks.params.recipe import AugmentParams
from tasks.stage.errors import ResumableError
from tasks.training.checkpoint import CheckpointFolder
from tasks.training.cluster import Cluster
from tasks.training.distribute import build_strategy
from tasks.training.draws import Draws, draw_augmentation
from tasks.training.feed import Epoch, Feed, ResidentFeed, Samples, StreamedFeed, batches, build_feed, share_of
from tasks.training.saver import Saver
from tasks.training.trainer import Trainer
from tests.fixtures.train_workspace import write_split
from tests.fixtures.trained_weights import build_trainer
from tests.tasks.training.test_trainer import StopAfter, one_step_a_launch

# An eighth of it is a window: two of the tiles' thirteen steps, so that the last of seven windows has the short batch.
MEMORY = 2 * 16 * 32 * 32 * 3 * 8


@given(count=st.integers(1, 200), batch=st.integers(1, 32), drop_last=st.booleans())
def test_batches_hold_every_sample_once_in_order(count: int, batch: int, drop_last: bool) -> None:
    order = np.random.default_rng(count).permutation(count).astype(np.int32)
    cut = batches(order, batch, drop_last)
    held = cut[cut >= 0]
    full = count // batch * batch
    # A set smaller than one batch is kept whole: an epoch without a step would train nothing.
    expected = order[:full] if drop_last and full else order
    np.testing.assert_array_equal(held, expected)
    assert cut.shape[1] == batch


@given(count=st.integers(1, 100), replicas=st.sampled_from([1, 2, 4, 8]))
def test_replicas_share_every_batch_without_loss_or_repetition(count: int, replicas: int) -> None:
    order = batches(np.arange(count, dtype=np.int32), 16, drop_last=False)
    shares = [share_of(order, replica, replicas) for replica in range(replicas)]
    for step, row in enumerate(order):
        parts = [share[step][share[step] >= 0] for share in shares]
        np.testing.assert_array_equal(np.concatenate(parts), row[row >= 0])
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


@pytest.fixture(scope="module")
def split(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("streamed") / "split"
    write_split(folder)
    return folder


def streaming(split: Path, devices: str) -> Trainer:
    """A trainer whose images stay in their file."""
    engine = build_trainer(build_strategy(devices), Cluster(), "float32")
    engine.memory = MEMORY
    arrays = load_arrays(split, "train")
    engine.training = Samples(arrays.images, arrays.labels)
    assert isinstance(engine._feed("training"), StreamedFeed)
    return engine


@pytest.mark.parametrize("devices", ["cpu:1", pytest.param("cpu:2", marks=pytest.mark.long)])
def test_streamed_training_is_resident_training_to_the_bit(split: Path, tmp_path: Path, devices: str) -> None:
    resident = build_trainer(build_strategy(devices), Cluster(), "float32")
    assert isinstance(resident._feed("training"), ResidentFeed)
    expected = resident.fit()
    straight = streaming(split, devices)
    histories = [straight.fit().history]
    # Once with the whitening bias, once for the third epoch, in which it rests.
    assert straight._step.train.experimental_get_tracing_count() == 2, "a window was traced again"
    # Stopped after the first of a window's two steps, in the second epoch; then to the end.
    stopped, saver = one_step_a_launch(streaming(split, devices)), Saver(CheckpointFolder(tmp_path, "run"))
    stopped.stop_requested = StopAfter(13 + 1 + 6)
    with pytest.raises(ResumableError, match="stopped after step 20"):
        stopped.fit(saver)
    resumed, saver = streaming(split, devices), Saver(CheckpointFolder(tmp_path, "run"))
    checkpoint = resumed.resume(saver)
    assert checkpoint is not None
    assert (checkpoint.step - 13) % 2 == 1
    histories.append(resumed.fit(saver).history)
    for engine, history in zip((straight, resumed), histories, strict=True):
        assert history == expected.history
        for ours, theirs in zip(engine.model.get_weights(), resident.model.get_weights(), strict=True):
            np.testing.assert_array_equal(ours, theirs)


def test_streamed_windows_follow_one_another_and_stay_within_the_budget(split: Path) -> None:
    arrays = load_arrays(split, "validation")
    samples = Samples(arrays.images, arrays.labels)
    engine = build_trainer(build_strategy("cpu:2"), Cluster(), "float32")
    feed = build_feed(engine.strategy, samples, samples.images.nbytes - 1)
    assert isinstance(feed, StreamedFeed)
    plan_order = batches(np.arange(60, dtype=np.int32), 8, drop_last=False)
    windows = list(feed.windows(Epoch(plan_order, None), 3, 7))
    # 60 images in all, a quarter of them, 14, at once: one step of eight.
    assert [(window.start, window.stop) for window in windows] == [(step, step + 1) for step in range(3, 7)]
    for window in windows:
        (images, _), (order, sizes, _) = engine.strategy.experimental_local_results(window.values)[1]
        np.testing.assert_array_equal(images, arrays.images[plan_order[window.start][4:]])
        np.testing.assert_array_equal(order, [np.arange(4)])
        assert sizes.numpy().tolist() == [8]


def test_an_image_and_what_is_laid_over_it_are_the_same_streamed_as_resident(split: Path) -> None:
    arrays, strategy = load_arrays(split, "train"), build_strategy("cpu:2")
    samples = Samples(arrays.images, arrays.labels)
    augment, count = AugmentParams(flip="both", mixup=0.4), len(arrays.labels)
    draws = draw_augmentation(augment, count, arrays.images.shape[1:], 0, 0)
    plan = Epoch(batches(np.arange(count, dtype=np.int32)[::-1], 16, drop_last=False), draws)
    # Room for four batches is for two and for what is laid over them.
    feeds: list[Feed] = [
        ResidentFeed(strategy, samples),
        StreamedFeed(strategy, samples, 4 * 16 * samples.images[0].nbytes),
    ]
    seen: list[list[Any]] = [[], []]
    for feed, found in zip(feeds, seen, strict=True):
        for window in feed.windows(plan, 0, plan.steps):
            assert window.stop - window.start <= (2 if isinstance(feed, StreamedFeed) else plan.steps)
            replicas = strategy.experimental_local_results(window.values)
            for step in range(window.start, window.stop):
                for (images, labels), (order, _, values) in replicas:
                    here, chosen = Draws(*values), order[step - window.start]
                    chosen = chosen[chosen >= 0]
                    partners = tf.gather(here.partners, chosen)
                    for places in (chosen, partners):
                        found.append([tf.gather(each, places) for each in (images, labels, here.flip, here.shares)])
    assert len(seen[0]) == plan.steps * 2 * 2
    for resident, streamed in zip(*seen, strict=True):
        for ours, theirs in zip(streamed, resident, strict=True):
            np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(("devices", "copies"), [("cpu:1", 1), ("cpu:2", 2)])
def test_the_budget_counts_the_copies_that_share_a_memory(split: Path, devices: str, copies: int) -> None:
    arrays = load_arrays(split, "validation")
    samples, strategy = Samples(arrays.images, arrays.labels), build_strategy(devices)
    assert isinstance(build_feed(strategy, samples, copies * samples.images.nbytes), ResidentFeed)
    assert isinstance(build_feed(strategy, samples, copies * samples.images.nbytes - 1), StreamedFeed)


def test_streamed_evaluation_counts_every_image_once(split: Path) -> None:
    engine = streaming(split, "cpu:2")
    arrays = load_arrays(split, "train")
    in_memory = Samples(np.asarray(arrays.images), arrays.labels)
    engine.memory = MEMORY
    streamed = engine.evaluate(Samples(arrays.images, arrays.labels))
    engine.memory = 1 << 30
    assert streamed == engine.evaluate(in_memory)

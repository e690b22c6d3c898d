import math
from types import SimpleNamespace

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.params.recipe import ScheduleParams
from tasks.training.schedule import RateSchedule, best_epoch, count_reductions, should_stop, watched_values

losses = st.lists(st.floats(0, 3, width=16), min_size=1, max_size=30)
shares = st.lists(st.floats(0, 1, width=16), min_size=1, max_size=30)


def test_triangle_rises_to_the_peak_and_falls_to_its_end() -> None:
    schedule = RateSchedule(ScheduleParams(name="triangle", start=0.2, warmup=0.25, end=0.1), 2.0, 100)
    assert [float(schedule(step)) for step in (0, 25, 100)] == pytest.approx([0.4, 2.0, 0.2])
    assert float(schedule(10)) == pytest.approx(2.0 * (0.2 + 0.8 * 10 / 25))
    assert float(schedule(70)) == pytest.approx(2.0 * (0.1 + 0.9 * 30 / 75))


def test_cosine_falls_slowly_at_first_and_at_last() -> None:
    schedule = RateSchedule(ScheduleParams(name="cosine", start=0.2, warmup=0.2, end=0.1), 2.0, 100)
    assert [float(schedule(step)) for step in (0, 10, 20, 60, 100)] == pytest.approx([0.4, 1.2, 2.0, 1.1, 0.2])
    assert float(schedule(40)) == pytest.approx(2.0 * (0.1 + 0.9 * (1 + math.cos(math.pi / 4)) / 2))


def test_the_shape_begins_when_all_layers_are_trained() -> None:
    params = ScheduleParams(name="triangle", start=0.2, warmup=0.25, end=0.1)
    schedule, later = RateSchedule(params, 2.0, 100), RateSchedule(params, 2.0, 130, head_steps=30)
    assert [float(later(step)) for step in (0, 29)] == [2.0, 2.0]
    assert [float(later(30 + step)) for step in (0, 10, 70, 100)] == pytest.approx(
        [float(schedule(step)) for step in (0, 10, 70, 100)]
    )


def test_plateau_lowers_the_rate() -> None:
    schedule = RateSchedule(ScheduleParams(reduce_factor=0.1, reduce_patience=2), 1e-3, 100)
    schedule.reduce_for([1.0, 1.0])
    assert float(schedule(5)) == pytest.approx(1e-3)
    schedule.reduce_for([1.0, 1.0, 1.0])
    assert float(schedule(5)) == pytest.approx(1e-4)
    schedule.reduce_for([1.0] * 5)
    assert float(schedule(5)) == pytest.approx(1e-5)


@settings(max_examples=50, deadline=None)
@given(losses=losses, patience=st.integers(1, 5))
def test_reductions_are_those_of_keras(losses: list[float], patience: int) -> None:
    optimizer = keras.optimizers.SGD(1.0)
    callback = keras.callbacks.ReduceLROnPlateau(patience=patience, factor=0.5)
    callback.set_model(SimpleNamespace(optimizer=optimizer))
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
    assert float(optimizer.learning_rate) == pytest.approx(0.5 ** count_reductions(losses, patience))


@settings(max_examples=50, deadline=None)
@given(losses=losses, patience=st.integers(1, 5))
def test_early_stopping_is_that_of_keras(losses: list[float], patience: int) -> None:
    model = SimpleNamespace(stop_training=False, get_weights=list)
    callback = keras.callbacks.EarlyStopping(patience=patience)
    callback.set_model(model)
    callback.on_train_begin()
    for epoch, loss in enumerate(losses):
        callback.on_epoch_end(epoch, {"val_loss": loss})
        assert should_stop(losses[: epoch + 1], patience) == model.stop_training
        if model.stop_training:
            break
    assert callback.best_epoch == best_epoch(losses[: epoch + 1])


@settings(max_examples=50, deadline=None)
@given(top1=shares, patience=st.integers(1, 5))
def test_a_watched_share_is_better_where_it_is_higher_as_keras_has_it(top1: list[float], patience: int) -> None:
    model, optimizer = SimpleNamespace(stop_training=False, get_weights=list), keras.optimizers.SGD(1.0)
    stopping = keras.callbacks.EarlyStopping("top1", patience=patience, mode="max")
    plateau = keras.callbacks.ReduceLROnPlateau("top1", patience=patience, factor=0.5, mode="max")
    stopping.set_model(model)
    plateau.set_model(SimpleNamespace(optimizer=optimizer))
    for callback in (stopping, plateau):
        callback.on_train_begin()
    watched = watched_values([{"validation_top1": share} for share in top1], "top1")
    for epoch, share in enumerate(top1):
        for callback in (stopping, plateau):
            callback.on_epoch_end(epoch, {"top1": share})
        assert should_stop(watched[: epoch + 1], patience) == model.stop_training
        assert float(optimizer.learning_rate) == pytest.approx(0.5 ** count_reductions(watched[: epoch + 1], patience))
        if model.stop_training:
            break
    assert stopping.best_epoch == best_epoch(watched[: epoch + 1])


def test_the_best_epoch_is_by_what_is_watched_and_of_equal_ones_the_earlier() -> None:
    rows = [(1.0, 0.8, 0.5), (0.5, 0.9, 0.6), (0.6, 0.9, 0.7), (0.6, 0.7, 0.7)]
    names = ("loss", "top1", "balanced_accuracy")
    history = [{f"validation_{name}": value for name, value in zip(names, row, strict=True)} for row in rows]
    assert [best_epoch(watched_values(history, name)) for name in names] == [1, 1, 2]


def test_a_patience_of_zero_is_off() -> None:
    assert count_reductions([1.0] * 50, 0) == 0
    assert not should_stop([1.0] * 50, 0)

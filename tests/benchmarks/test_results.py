import keras
import pytest

from benchmarks.__main__ import INTRODUCTION, main, with_section
from benchmarks.compute_share import forward_operations


def test_a_section_takes_the_place_of_the_old_one_and_leaves_the_others() -> None:
    first = with_section("", "## One\n\n1\n")
    both = with_section(first, "## Two\n\n2\n")
    assert with_section(both, "## One\n\nnew\n") == f"{INTRODUCTION}\n## One\n\nnew\n\n## Two\n\n2\n"


def test_an_unknown_part_is_named(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.argv", ["benchmarks", "sped"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert "sped: no such part; there are training_speed" in capsys.readouterr().err


def test_operations_are_two_a_multiplication() -> None:
    inputs = keras.Input((8, 8, 3))
    x = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)  # 4×4 pixels
    x = keras.layers.SeparableConv2D(5, 1)(x)
    x = keras.layers.Dense(10)(keras.layers.GlobalAveragePooling2D()(x))
    expected = 2 * (16 * 3 * 3 * 3 * 4) + 2 * 16 * (4 + 4 * 5) + 2 * 5 * 10
    assert forward_operations(keras.Model(inputs, x)) == expected

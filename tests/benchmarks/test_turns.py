import json
import os
import subprocess
import sys

import pytest

from benchmarks.sides.ours import build_trainer
from benchmarks.training_speed import CASES, Case
from benchmarks.turns import TORCH_PYTHON, Side, ratio, spread, take_turns, torch_python

TORCH_WEIGHTS = """
import json, sys
from benchmarks.sides.torch_loop import network_of
weights = network_of(json.loads(sys.argv[1])["recipe"]).parameters()
print(sum(weight.numel() for weight in weights if weight.requires_grad))
"""


def test_ratios_are_those_within_a_round() -> None:
    # Both sides are slowed together in the second round.
    assert ratio([100, 10, 40], [50, 5, 20]) == "2.00 (2.00–2.00), fastest 2.00"
    assert spread([1, 2, 3, 4, 1000]) == "3 (2–4)"


def test_sides_take_turns_and_measure_themselves() -> None:
    rounds = take_turns({"products": ("matmul", {"precision": "float32"}, sys.executable)}, 2)["products"]
    assert len(rounds) == 2
    assert all(each.seconds > 0 and each.processor_seconds > 0 for each in rounds)


def test_a_side_that_fails_says_why() -> None:
    with (
        pytest.raises(RuntimeError, match=r"matmul ended with 1(.|\n)*float31"),
        Side("matmul", {"precision": "float31"}),
    ):
        pass


def test_torch_is_taken_from_here_or_from_the_environment_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    monkeypatch.setenv(TORCH_PYTHON, "there/bin/python")
    assert torch_python() == "there/bin/python"
    monkeypatch.delenv(TORCH_PYTHON)
    assert torch_python() is None
    monkeypatch.setattr("importlib.util.find_spec", lambda _: object())
    assert torch_python() == sys.executable


@pytest.mark.parametrize("case", [CASES[0], CASES[-1]], ids=lambda case: case.recipe)
def test_the_pytorch_network_has_as_many_weights_as_ours(case: Case) -> None:
    python = os.environ.get(TORCH_PYTHON)
    if not python:
        pytest.skip(f"{TORCH_PYTHON} is unset")
    facts = {**case.facts(), "steps": 1}
    output = subprocess.check_output([python, "-c", TORCH_WEIGHTS, json.dumps(facts)], text=True)
    ours = build_trainer(facts).model.trainable_weights
    assert int(output) == sum(weight.value.shape.num_elements() for weight in ours)

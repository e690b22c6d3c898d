"""What a mistake costs, as params.yaml says it: a table worked out by hand, and each way in which it can be wrong."""

from typing import Any

import pytest

from tasks.params.costs import cost_matrix
from tasks.params.params import EvaluateParams, parse_params, read_yaml
from tasks.stage.errors import InputError
from tests.tasks.params.test_params import changed


def test_a_class_costs_in_its_row_and_a_pair_in_its_cell() -> None:
    costs = {"b > a": 2.0, "a": 10.0, "b": 0.5}  # the pair counts, wherever it stands
    assert cost_matrix(costs, ("a", "b", "c")).tolist() == [[0, 10, 10], [2, 0, 0.5], [1, 1, 0]]
    assert cost_matrix({}, ("a", "b")).tolist() == [[0, 1], [1, 0]]


def test_names_may_hold_what_parts_two() -> None:
    classes = ("a", "a > b", "c")
    assert cost_matrix({"a > b": 3.0}, classes).tolist() == [[0, 1, 1], [3, 0, 3], [1, 1, 0]]
    assert cost_matrix({"a > b > c": 3.0}, classes).tolist() == [[0, 1, 1], [1, 0, 3], [1, 1, 0]]
    assert cost_matrix({"a > a > b": 3.0}, classes).tolist() == [[0, 3, 1], [1, 0, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    "key", ["defectiv", "sound > defectiv", "defectiv > sound", "sound > sound", "sound>defective"]
)
def test_what_names_no_class_is_refused_with_the_classes(key: str) -> None:
    with pytest.raises(InputError) as caught:
        cost_matrix({"sound": 2.0, key: 10.0}, ("defective", "sound"))
    assert str(caught.value) == (
        f"evaluate.costs: {key!r} is no class, and no two of them as 'actual > answered'; the classes are "
        "defective, sound"
    )


def test_of_many_classes_some_are_named() -> None:
    with pytest.raises(InputError, match=r"the classes are c0, c1, .*, c19 and 980 more$"):
        cost_matrix({"x": 2.0}, [f"c{number}" for number in range(1000)])


def parsed(text: str) -> EvaluateParams:
    values: Any = read_yaml(f"evaluate:\n  costs: {text}\n", "params.yaml")
    return parse_params(changed("evaluate.costs", values["evaluate"]["costs"]), "params.yaml").evaluate


def test_costs_as_people_write_them() -> None:
    assert parsed("{}").costs == EvaluateParams().costs == {}
    assert parsed("{defective: 10, defective > sound: 2.5}").costs == {"defective": 10, "defective > sound": 2.5}
    assert parsed("{'0': 10, '01': 3}").costs == {"0": 10, "01": 3}, "a class may be called as a number is"
    with pytest.raises(InputError, match=r"evaluate\.costs\.0\..* = 0: input should be a valid string"):
        parsed("{0: 10}")


@pytest.mark.parametrize(
    ("cost", "allowed"),
    [
        ("0", "greater than 0"),
        ("-3", "greater than 0"),
        (".inf", "finite number"),
        (".nan", "finite number"),
        ("1000001", "less than or equal to 1000000"),
        ("dear", "valid number"),
    ],
)
def test_what_no_mistake_can_cost_is_refused(cost: str, allowed: str) -> None:
    with pytest.raises(
        InputError, match=rf"^params\.yaml: evaluate\.costs\.defective = .*: input should be .*{allowed}"
    ):
        parsed(f"{{defective: {cost}}}")

"""params.yaml, and values set on the command line."""

import contextlib

from flows.overrides import parse_assignments
from tasks.params.params import load_params, parse_params
from tasks.stage.errors import InputError
from tests.fixtures.dvc_project import REPOSITORY
from tests.fuzz.scratch import file_of

SHORTEST = b"""
download: {dataset: digits}
split: {method: tail, validation_fraction: 0.1}
train: {recipe: a}
evaluate: {}
publish: {bucket: abc, prefix: p}
recipes:
  a:
    epochs: 1
    batch_size: 2
    model: {base: vgg16, head: linear}
    loss: {name: binary_crossentropy}
    optimizer: {name: adam, learning_rate: 1}
"""


def check(data: bytes) -> bool:
    """Read bytes as params.yaml, and as one value; parameters that are accepted are accepted again as they stand."""
    with contextlib.suppress(InputError):
        parse_assignments([f"train.seed={data.decode(errors='replace')}"])
    try:
        params = load_params(file_of(data))
    except InputError:
        return False
    assert parse_params(params.model_dump(mode="json"), "source") == params
    return True


def seeds() -> dict[str, bytes]:
    """Return the repository's own parameters, and the shortest that are whole."""
    return {"repository.yaml": (REPOSITORY / "params.yaml").read_bytes(), "shortest.yaml": SHORTEST}

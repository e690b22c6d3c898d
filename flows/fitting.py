"""What goes with a data set: whoever names another one in a run's values need not know the rest.

A recipe for CIFAR-10 learns nothing from 900 photographs, and the hash of one archive is not another's. What goes with
the new data set is set beside it, and said; whatever a person sets himself stays.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from flows.overrides import Overrides, preview, sets, value_of
from tasks.params.params import PARAMS_FILE

DATASET, PIN, VIEWS = "download.dataset", "download.sha256", "evaluate.test_time_augmentation"
# What names classes or releases of another data set.
OF_ANOTHER: dict[str, Any] = {"evaluate.costs": {}, "train.start": "scratch", "train.shrink_perturb": None}
GOES_WITH: dict[str, dict[str, Any]] = {
    "folders": {"train.recipe": "finetune", "split.image_size": 128, VIEWS: "auto"},
    "digits": {"train.recipe": "digits", VIEWS: "auto"},
}


def fitting(given: Overrides, say: Callable[[str], None], path: Path = PARAMS_FILE) -> dict[str, Any]:
    """Return a run's values with those that go with its data set, where that is another than params.yaml's.

    Args:
        given: The values that were asked for.
        say: Gets a line that names what was added.
        path: Of params.yaml.

    Raises:
        InputError: params.yaml with the values given is not valid.
    """
    before, after = preview({}, path), preview(given, path)
    if after.download.dataset == before.download.dataset:
        return dict(given)
    added = {key: value for key, value in GOES_WITH.get(after.download.dataset, {}).items() if key not in given}
    added |= {key: value for key, value in OF_ANOTHER.items() if not sets(given, key) and value_of(after, key) != value}
    if PIN not in given and after.download.collection is None and before.download.sha256 is not None:
        added[PIN] = None  # it is the other data set's
    if added:
        words = ", ".join(f"{key}={'null' if value is None else value}" for key, value in added.items())
        say(f"with {DATASET}={after.download.dataset} goes {words}")
    return {**given, **added}

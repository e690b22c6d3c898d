"""Large square matrix products by TensorFlow: what this machine's arithmetic can do."""

from collections.abc import Callable
from typing import Any

from tasks.stage.quiet_tensorflow import tf

# isort: split
from benchmarks.sides.serve import serve

SIDE = 3072
REPEATS = 2
OPERATIONS = REPEATS * 2 * SIDE**3  # of a round


def make(case: dict[str, Any]) -> Callable[[], None]:
    """Return a round of products at the case's precision."""
    one, other = (tf.cast(tf.random.normal((SIDE, SIDE), seed=seed), case["precision"]) for seed in (0, 1))
    product = tf.function(lambda left, right: left @ right, autograph=False)

    def run_round() -> None:
        for _ in range(REPEATS):
            product(one, other)

    return run_round


if __name__ == "__main__":
    serve(make)

"""A linear probe (Alain and Bengio 2016, arXiv 1610.01644): logistic regression on frozen features, to its optimum.

There are no steps and no luck of a seed: the problem is convex, scikit-learn's L-BFGS solves it, once for each penalty,
and the validation images choose which.
"""

import json
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from numpy.typing import NDArray

from tasks.params.probe import ProbeRecipe
from tasks.stage.errors import InputError
from tasks.training.balance import by_label, class_weights
from tasks.training.features import Features, FeatureStore, complete, names_of, network_key
from tasks.training.machine import Machine
from tasks.training.run import Prepared
from tasks.training.schedule import best_epoch
from tasks.training.trainer import Result

MODELS = Path(__file__).parents[1] / "models"

# Of the mean loss's gradient, in any weight; ten times stricter than scikit-learn's default.
TOLERANCE = 1e-5
TINY = 1e-12  # below a float's resolution of a feature that never changes

Labels = NDArray[np.int32]
Wide = NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """What a head sees of images: features (N, F) and labels (N,)."""

    features: Features
    labels: Labels


@dataclass(frozen=True)
class Head:
    """Logits are features · kernel + bias.

    Attributes:
        kernel: (F, classes).
        bias: (classes,).
        metrics: One dict a penalty: the penalty, loss and top-1 on training and validation images.
        best: Which penalty it has.
        iterations: Of the solver, over all penalties.
        unfinished: Penalties at which the solver came to its last iteration before the optimum.
    """

    kernel: Wide
    bias: Wide
    metrics: list[dict[str, float]]
    best: int
    iterations: int
    unfinished: list[float]


def probe(network: keras.Model, run: Prepared, store: FeatureStore, stop_requested: Callable[[], bool]) -> Result:
    """Give a network with pretrained weights the best linear head; the history has a row for each penalty.

    Args:
        network: From build_model, with the recipe's weights; its head's are set.
        run: With a ProbeRecipe.
        store: Of features of this network; what it lacks is computed and kept.
        stop_requested: Asked every few images.

    Raises:
        InputError: A class has no training image.
        ResumableError: The run was asked to stop.
    """
    recipe, classes, began = run.recipe, run.record.classes, time.perf_counter()
    if not isinstance(recipe, ProbeRecipe):
        raise TypeError("a recipe of training steps is no probe")
    if absent := sorted(set(range(len(classes))) - set(run.training.labels.tolist())):
        raise InputError(f"class {classes[absent[0]]!r} has no training image")
    training, validation = _look(network, run, store, stop_requested)
    head = solve(training, validation, len(classes), recipe)
    for penalty in head.unfinished:
        print(f"penalty {penalty:g}: not at its optimum after {recipe.max_iterations} iterations", flush=True)
    scale = recipe.model.logit_scale
    network.get_layer("unscaled_logits").set_weights([head.kernel / scale, head.bias / scale])
    seconds = time.perf_counter() - began
    return Result(head.metrics, head.best, head.iterations, len(run.training.labels), seconds, [seconds])


def _look(
    network: keras.Model, run: Prepared, store: FeatureStore, stop_requested: Callable[[], bool]
) -> tuple[Seen, Seen]:
    """Return what a head sees of the training and of the validation images."""
    frozen = keras.Model(network.input, network.get_layer("pooling").output)
    both = (run.training, run.validation)
    names = [names_of(arrays.images) for arrays in both]
    every, save_seconds = sum(map(len, names)), run.params.checkpoint_every_seconds
    computed = sum(
        complete(store, frozen, arrays.images, own, save_seconds, stop_requested)
        for arrays, own in zip(both, names, strict=True)
    )
    print(f"features of {every:,} images, {every - computed:,} of them known from before", flush=True)
    store.tidy([*names[0], *names[1]])
    training, validation = (Seen(store.take(own), arrays.labels) for arrays, own in zip(both, names, strict=True))
    return training, validation


def features_key(run: Prepared, machine: Machine) -> str:
    """Return what decides the features of a run's network, as one hash: equal networks share theirs."""
    facts = [json.dumps(run.makings.facts[name], sort_keys=True) for name in ("weights", "versions")] + [
        json.dumps([run.recipe.model.model_dump(mode="json"), run.record.image_shape, machine], sort_keys=True)
    ]
    if run.recipe.model.scaling == "standard":
        facts.append(json.dumps([run.statistics.mean, run.statistics.std]))
    return network_key(facts, [Path(__file__).with_name("features.py"), *MODELS.glob("*.py")])


def solve(training: Seen, validation: Seen, classes: int, recipe: ProbeRecipe) -> Head:
    """Return the head with the lowest validation loss over the recipe's penalties.

    Args:
        training: Of every class at least one image.
        validation: Of any.
        classes: At least two.
        recipe: Penalties, and how many iterations each may take.
    """
    mean, std = training.features.mean(axis=0, dtype=np.float64), training.features.std(axis=0, dtype=np.float64)
    std = np.where(std < TINY, 1.0, std)
    inputs = (training.features - mean) / std
    heads: list[tuple[Wide, Wide]] = []
    metrics: list[dict[str, float]] = []
    iterations, unfinished = 0, []
    solver = _solver(recipe).set_params(class_weight=by_label(class_weights(training.labels, classes, recipe.balance)))
    for penalty in sorted(recipe.penalties, reverse=True):  # each begins where a stronger one has ended
        # Of two classes scikit-learn solves for one row, the difference of ours, whose square is twice theirs together.
        with warnings.catch_warnings(category=UserWarning, action="ignore"):  # of the last iteration: said below
            solver.set_params(C=(2 if classes == 2 else 1) / penalty).fit(inputs, training.labels)
        steps = int(solver.n_iter_.max())
        iterations += steps
        unfinished += [penalty] if steps >= recipe.max_iterations else []
        coefficients, intercept = _of_every_class(solver.coef_, solver.intercept_)
        kernel = coefficients.T / std[:, np.newaxis]
        heads.append((kernel, intercept - mean @ kernel))
        metrics.append({"penalty": penalty, **_measured("train", training, *heads[-1])})
        metrics[-1].update(_measured("validation", validation, *heads[-1]))
    best = best_epoch([row["validation_loss"] for row in metrics])
    return Head(*heads[best], metrics, best, iterations, unfinished)


def _solver(recipe: ProbeRecipe) -> Any:
    """Return scikit-learn's logistic regression; importing it takes a second that no other recipe should pay."""
    from sklearn.linear_model import LogisticRegression  # noqa: PLC0415

    return LogisticRegression(tol=TOLERANCE, max_iter=recipe.max_iterations, warm_start=True)


def _of_every_class(coefficients: Wide, intercept: Wide) -> tuple[Wide, Wide]:
    """Return a row for each class, where scikit-learn has one for two of them: the second's logit over the first's."""
    if len(coefficients) > 1:
        return coefficients, intercept
    return np.concatenate([-coefficients, coefficients]) / 2, np.concatenate([-intercept, intercept]) / 2


def _measured(name: str, samples: Seen, kernel: Wide, bias: Wide) -> dict[str, float]:
    """Return loss, top-1 and binary accuracy of a head, with a split's name before each."""
    logits = samples.features @ kernel + bias
    logits -= logits.max(axis=1, keepdims=True)
    probabilities = np.exp(logits)
    totals = probabilities.sum(axis=1, keepdims=True)
    rows = np.arange(len(samples.labels))
    losses = np.log(totals[:, 0]) - logits[rows, samples.labels]
    yes = probabilities / totals > 0.5
    wanted = np.zeros_like(yes)
    wanted[rows, samples.labels] = True
    return {
        f"{name}_loss": float(losses.mean()),
        f"{name}_top1": float(np.mean(logits.argmax(axis=1) == samples.labels)),
        f"{name}_binary_accuracy": float(np.mean(yes == wanted)),
    }

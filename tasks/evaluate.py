"""Measure the trained model on every test image, once: model, data/split → evaluation.

`python -m tasks.evaluate`, with the section `evaluate` of params.yaml.
"""

import io
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from tasks.stage.quiet_tensorflow import keras, tf
from tasks.data.arrays import Arrays, SplitRecord, check_arrays, load_arrays, load_split_record, recorded_fit
from tasks.data.image_files import ImageFile, image_files
from tasks.evaluation import metrics as measures
from tasks.evaluation.answers import Predictions, average_views, predict_all
from tasks.evaluation.calibration import calibration as measure_calibration
from tasks.evaluation.choice import Choice, choose, chosen_images
from tasks.evaluation.costs import CostComparison, compare_costs
from tasks.evaluation.ranking import POSITIVE, Ranking, ranking
from tasks.model_files.files import load_model
from tasks.params.costs import cost_matrix
from tasks.params.params import EvaluateParams, load_params
from tasks.reporting.architecture import draw_architecture, write_summary
from tasks.reporting.cost_words import cost_sentences
from tasks.reporting.report import Evaluated, render_report
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import read_json, replaced_folder, write_json, write_text
from tasks.stage.runtime import RUNTIME_FOLDER, write_runtime
from tasks.stage.shown import percent, printable
from tasks.stage.table import write_table

SPLIT_FOLDER = Path("data/split")
MODEL_FOLDER = Path("model")
EVALUATION_FOLDER = Path("evaluation")
PICTURE, SUMMARY = "architecture.png", "summary.txt"
FILE_COLUMNS = ("path", "sha256")  # of predictions.csv, where the test images have files
AUTO = "auto"


@dataclass(frozen=True)
class Trained:
    """What train left in its folder.

    Attributes:
        network: uint8 images (N, H, W, 3) in, float32 probabilities (N, C) out.
        training, history: training.json and the columns of history.json.
        size: Bytes of model.keras.
    """

    network: keras.Model
    training: dict[str, Any]
    history: dict[str, list[Any]]
    size: int


def evaluate(
    params: EvaluateParams, split: Path, model: Path, output: Path, runtime: Path = RUNTIME_FOLDER
) -> dict[str, Any]:
    """Answer every test image and write metrics, predictions and report to the folder `output`.

    Args:
        params: Batch size, views, bins and costs.
        split: Folder with split.json, the test arrays, uint8 (N, H, W, 3) and int32 (N,), of images that have files
            index.csv, and where the views are to be chosen the validation arrays.
        model: Folder that train wrote.
        output: Folder that is replaced as a whole.
        runtime: Folder for durations and throughput, which depend on the machine.

    Returns:
        metrics.json.

    Raises:
        InputError: A file is missing or altered, the model and the data do not belong together, or costs name no class.
    """
    start = time.monotonic()
    record, test = load_split_record(split), load_arrays(split, "test")
    check_arrays(test, "test", record, split)
    cost_matrix(params.costs, record.classes)  # at once, before seconds are spent on the model
    files = image_files(split, "test", record, test.labels)
    trained = load_trained(model)
    _check_fit(trained, record, model)
    choice = _choose_views(params, split, record, trained.network) if params.test_time_augmentation == AUTO else None
    augmentation = choice.augmentation if choice else params.test_time_augmentation
    answers = predict_all(trained.network, test.images, params.batch_size, augmentation)
    with replaced_folder(output) as temporary:
        write_summary(trained.network, temporary)
        draw_architecture(trained.network, temporary / PICTURE)
        evaluated = replace(_evaluated(params, record, test, files, trained, answers, temporary), choice=choice)
        _write(temporary, evaluated, files)
    facts = {
        "seconds": round(time.monotonic() - start, 3),
        "images_per_second": round(answers.images_per_second, 1),
        "images": len(test.labels),
        "batch_size": params.batch_size,
        "devices": [device.name for device in tf.config.list_logical_devices()],
    }
    write_runtime("evaluate", facts, runtime)
    _announce(evaluated, output)
    return dict(evaluated.metrics)


def load_trained(folder: Path) -> Trained:
    """Read a model folder, its bytes checked against what train recorded before Keras sees them.

    Raises:
        InputError: A file is missing, altered or not what train writes.
    """
    path = folder / "model.keras"
    training, history = _read_object(folder / "training.json"), _read_object(folder / "history.json")
    if not path.is_file():
        raise InputError(f"{path} does not exist; run the stage train first")
    if not isinstance(training.get("model_sha256"), str) or "columns" not in history:
        raise InputError(f"{folder} does not hold what the stage train writes; run it again")
    return Trained(load_model(path, training["model_sha256"]), training, history["columns"], path.stat().st_size)


def _choose_views(params: EvaluateParams, split: Path, record: SplitRecord, network: keras.Model) -> Choice:
    """Return which views of a test image to average, by the answers to validation images."""
    validation = load_arrays(split, "validation")
    check_arrays(validation, "validation", record, split)
    positions = chosen_images(len(validation.labels))
    averages = average_views(network, validation.images, positions, params.batch_size)
    return choose(averages, np.asarray(validation.labels[positions]))


def _evaluated(
    params: EvaluateParams,
    record: SplitRecord,
    test: Arrays,
    files: Sequence[ImageFile],
    trained: Trained,
    answers: Predictions,
    drawn: Path,
) -> Evaluated:
    labels, classes = np.asarray(test.labels), len(record.classes)
    predicted = answers.single.argmax(axis=1)
    confusion = measures.confusion_matrix(predicted, labels, classes)
    calibration = measure_calibration(answers.single, labels, params.calibration_bins)
    ranked = ranking(answers.single, labels)
    by_cost = compare_costs(answers.single, labels, cost_matrix(params.costs, record.classes)) if params.costs else None
    low, high = measures.wilson_interval(int((predicted == labels).sum()), len(labels))
    metrics = {
        "top1": measures.top1(answers.single, labels),
        "top1_low": low,
        "top1_high": high,
        "top1_augmented": float(np.mean(answers.augmented == labels)),
        "test_time_augmentation": answers.augmentation,
        "binary_accuracy": measures.binary_accuracy(answers.single, labels),
        "log_loss": measures.log_loss(answers.single, labels),
        "expected_calibration_error": calibration.expected_error,
        "balanced_accuracy": measures.balanced_accuracy(confusion),
        "macro_f1": measures.macro_f1(confusion),
        **_ranking_metrics(ranked, record.classes),
        **_cost_metrics(by_cost, params.costs),
        "images": len(labels),
        "dataset": record.dataset,
        "test_sha256": record.content_sha256["test"],
        "parameters": trained.network.count_params(),
        "model_bytes": trained.size,
    }
    return Evaluated(
        metrics=metrics,
        augmentation=answers.augmentation,
        classes=record.classes,
        images=test.images,
        labels=labels,
        probabilities=answers.single,
        names=tuple(file.path for file in files),
        confusion=confusion,
        calibration=calibration,
        ranking=ranked,
        by_cost=by_cost,
        split=asdict(record),
        training=trained.training,
        history=trained.history,
        model_picture=(drawn / PICTURE).read_bytes(),
        model_summary=(drawn / SUMMARY).read_text(encoding="utf-8"),
    )


def _ranking_metrics(ranked: Ranking | None, classes: Sequence[str]) -> dict[str, float | str]:
    """Return what two classes have beside all others' metrics; nothing where it was not measured."""
    if ranked is None:
        return {}
    return {
        "roc_auc": ranked.roc_auc,
        "average_precision": ranked.average_precision,
        "positive_class": classes[POSITIVE],
    }


def _cost_metrics(by_cost: CostComparison | None, costs: Mapping[str, float]) -> dict[str, Any]:
    """Return what answers cost, and by which costs: a release's id follows from them; nothing where none are given."""
    if by_cost is None:
        return {}
    return {"mean_cost": by_cost.mean_cost, "mean_cost_plain": by_cost.mean_cost_plain, "costs": dict(costs)}


def _class_rows(evaluated: Evaluated) -> dict[str, dict[str, float | None]]:
    """Return per_class.json: scores of the most probable class, and beside them those of least expected cost."""
    rows = measures.class_table(evaluated.classes, evaluated.confusion)
    if evaluated.by_cost is None:
        return rows
    chosen = measures.class_table(evaluated.classes, evaluated.by_cost.chosen)
    return {
        name: {**row, **{f"{score}_by_cost": chosen[name][score] for score in ("precision", "recall")}}
        for name, row in rows.items()
    }


def _write(folder: Path, evaluated: Evaluated, files: Sequence[ImageFile]) -> None:
    write_json(folder / "metrics.json", dict(evaluated.metrics))
    if evaluated.choice is not None:
        write_json(folder / "views.json", evaluated.choice.facts())
    write_json(folder / "per_class.json", _class_rows(evaluated))
    buffer = io.BytesIO()  # written to a file, numpy's own error on a full disk does not say what happened
    np.save(buffer, evaluated.probabilities, allow_pickle=False)
    (folder / "probabilities.npy").write_bytes(buffer.getvalue())
    names = np.array(evaluated.classes, dtype=object)
    predicted = evaluated.probabilities.argmax(axis=1)
    confidence = evaluated.probabilities.max(axis=1)
    answers = list(zip(names[evaluated.labels], names[predicted], strict=True))
    _write_table(folder / "confusion.csv", ("actual", "predicted"), answers)
    header: tuple[str, ...] = ("index", "actual", "predicted", "confidence", "correct")
    rows: list[tuple[Any, ...]] = [
        (position, actual, answer, f"{sure:.6f}", int(actual == answer))
        for position, ((actual, answer), sure) in enumerate(zip(answers, confidence, strict=True))
    ]
    if evaluated.by_cost is not None:
        header += ("least_cost",)
        rows = [(*row, answer) for row, answer in zip(rows, names[evaluated.by_cost.answers], strict=True)]
    if files:
        header += FILE_COLUMNS
        rows = [(*row, file.path, file.sha256) for row, file in zip(rows, files, strict=True)]
    _write_table(folder / "predictions.csv", header, rows)
    write_text(folder / "report.html", render_report(evaluated))


def _write_table(path: Path, header: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    with path.open("w", encoding="utf-8", newline="") as stream:
        write_table(stream, header, rows)


def _check_fit(trained: Trained, record: SplitRecord, folder: Path) -> None:
    """Refuse a model that was built for other images or classes."""
    takes, gives = tuple(trained.network.input_shape[1:]), trained.network.output_shape[-1]
    if takes != record.image_shape:
        wanted, found = ("×".join(map(str, shape)) for shape in (takes, record.image_shape))
        raise InputError(f"{folder / 'model.keras'} takes images of {wanted}, but the test images have {found}")
    if gives != len(record.classes):
        raise InputError(f"{folder / 'model.keras'} knows {gives} classes, but {len(record.classes)} are in split.json")
    fit = recorded_fit(trained.training, str(folder / "training.json"))
    if fit != record.fit:
        raise InputError(
            f"{folder / 'model.keras'} was trained on images of fit {fit}, but the test images have {record.fit}"
        )


def _read_object(path: Path) -> dict[str, Any]:
    try:
        value = read_json(path)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; run the stage train first") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise InputError(f"{path} does not hold an object")
    return value


def _announce(evaluated: Evaluated, output: Path) -> None:
    metrics = evaluated.metrics
    print(
        f"top-1 {percent(metrics['top1'])} (95 % interval {percent(metrics['top1_low'])} to "
        f"{percent(metrics['top1_high'])}) on all {metrics['images']:,} test images of {metrics['dataset']}"
    )
    if evaluated.augmentation != "none":
        print(f"top-1 with test-time augmentation {percent(metrics['top1_augmented'])}")
    if evaluated.choice is not None:
        print(f"test-time augmentation {evaluated.augmentation}: {evaluated.choice.reason}")
    print(
        f"binary accuracy {percent(metrics['binary_accuracy'])}, log loss {metrics['log_loss']:.4f}, "
        f"expected calibration error {percent(metrics['expected_calibration_error'])}"
    )
    print(f"balanced accuracy {percent(metrics['balanced_accuracy'])}, macro F1 {percent(metrics['macro_f1'])}")
    if evaluated.ranking is not None:
        print(
            f"of class {printable(metrics['positive_class'])}: area under the ROC curve {metrics['roc_auc']:.4f}, "
            f"average precision {metrics['average_precision']:.4f}"
        )
    if evaluated.by_cost is not None:
        for sentence in cost_sentences(evaluated.by_cost, evaluated.classes, evaluated.training):
            print(printable(sentence))
    print(f"report: {output / 'report.html'}", flush=True)


def main() -> None:
    """Run the stage on the files that dvc.yaml names."""

    def command() -> None:
        evaluate(load_params().evaluate, SPLIT_FOLDER, MODEL_FOLDER, EVALUATION_FOLDER)

    run_command("evaluate", command)


if __name__ == "__main__":
    main()

"""What a run leaves for Prometheus: the metrics of infra/monitoring/metrics.py, in a text file, at its end."""

import time
from collections.abc import Callable, Sequence
from datetime import datetime
from pathlib import Path

from flows.conclusion import Conclusion, Ending
from flows.decision import Line
from flows.stages import Outcome, StageResult
from infra.monitoring.metrics import Samples, metrics_file, read_samples, write_samples
from tasks.stage.runtime import RUNTIME_FOLDER, read_runtime

NOT_SUCCEEDED = (Ending.FAILED, Ending.INTERRUPTED, Ending.STOPPED)


def record_run(
    conclusion: Conclusion,
    results: Sequence[StageResult],
    start: float,
    folder: Path,
    warn: Callable[[str], object],
) -> None:
    """Write the metrics of a run that ends now; what it did not come to keeps its former value.

    Args:
        conclusion: How it ends.
        results: Of the stages that it came to.
        start: When it began, Unix time.
        folder: The workspace.
        warn: Is given a sentence where the file cannot be written.
    """
    path = folder / metrics_file()
    new = run_samples(conclusion, results, start, time.time())
    new |= _speed(results, folder)
    try:
        write_samples(_merged(read_samples(path), new), path)
    except OSError as error:
        warn(f"the metrics are not written to {path}: {error.strerror}")


def run_samples(conclusion: Conclusion, results: Sequence[StageResult], start: float, end: float) -> Samples:
    """Return what a run says of itself; `start` and `end` are Unix time."""
    samples: Samples = {
        "retrain_last_run_timestamp_seconds": {(): end},
        "retrain_run_duration_seconds": {(): end - start},
        "retrain_run_outcome": {(str(each),): float(each is conclusion.ending) for each in Ending},
        "retrain_stage_duration_seconds": {(result.name,): result.seconds for result in results},
        "retrain_stage_outcome": {
            (result.name, str(each)): float(each is result.outcome) for result in results for each in Outcome
        },
    }
    if conclusion.ending not in NOT_SUCCEEDED:
        samples["retrain_last_success_timestamp_seconds"] = {(): end}
    metrics = conclusion.metrics
    for name in ("top1", "top1_low", "top1_high"):
        if name in metrics:
            samples[f"retrain_{name}_ratio"] = {(str(metrics.get("dataset")),): float(metrics[name])}
    if conclusion.line and conclusion.line.moves:
        samples |= _champion(conclusion.line)
    return samples


def _champion(line: Line) -> Samples:
    present = line.moves[-1]
    samples: Samples = {
        "retrain_champion_info": {(present.release,): 1.0},
        "retrain_champion_since_timestamp_seconds": {(): datetime.fromisoformat(present.moved_at).timestamp()},
    }
    if row := line.rows.get(present.release):
        samples["retrain_champion_top1_ratio"] = {(): row.top1}
    return samples


def _speed(results: Sequence[StageResult], folder: Path) -> Samples:
    """Return how fast this run trained, if it did."""
    trained = any(result.name == "train" and result.outcome is Outcome.RAN for result in results)
    speed = read_runtime("train", folder / RUNTIME_FOLDER).get("images_per_second") if trained else None
    return {} if speed is None else {"retrain_train_images_per_second": {(): float(speed)}}


def _merged(former: Samples, new: Samples) -> Samples:
    """Return the new values, and the former ones of what has none; of stages, each one's latest."""
    merged = former | {name: values for name, values in new.items() if values}
    for name in ("retrain_stage_duration_seconds", "retrain_stage_outcome"):
        merged[name] = former.get(name, {}) | new.get(name, {})
    return merged

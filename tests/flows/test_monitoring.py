import json
from pathlib import Path

import pytest

from flows.conclusion import Conclusion, Ending
from flows.monitoring import record_run
from flows.stages import Outcome, StageResult
from infra.monitoring.metrics import Samples, read_samples

METRICS = {"top1": 0.9, "top1_low": 0.85, "top1_high": 0.93, "dataset": "digits"}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "metrics/retrain.prom"
    monkeypatch.setenv("RETRAIN_METRICS_FILE", str(path))
    return path


def record(folder: Path, path: Path, ending: Ending, *results: StageResult, start: float = 1000.0) -> Samples:
    metrics = METRICS if ending is Ending.COMPLETED else {}
    warnings: list[str] = []
    record_run(Conclusion(ending, "why", metrics=metrics), results, start, folder, warnings.append)
    assert warnings == []
    return read_samples(path)


def test_a_failed_run_keeps_what_the_last_success_left(tmp_path: Path, path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/train.json").write_text(json.dumps({"images_per_second": 250.5}))
    trained, published = StageResult("train", Outcome.RAN, 60.0), StageResult("publish", Outcome.RAN, 5.0)
    first = record(tmp_path, path, Ending.COMPLETED, trained, published)
    assert first["retrain_train_images_per_second"] == {(): 250.5}
    assert first["retrain_top1_low_ratio"] == {("digits",): 0.85}
    assert first["retrain_last_success_timestamp_seconds"] == first["retrain_last_run_timestamp_seconds"]

    second = record(tmp_path, path, Ending.FAILED, StageResult("train", Outcome.UNCHANGED, 1.0))
    assert second["retrain_last_success_timestamp_seconds"] == first["retrain_last_success_timestamp_seconds"]
    assert second["retrain_last_run_timestamp_seconds"][()] > first["retrain_last_run_timestamp_seconds"][()]
    assert [ending for ending, value in second["retrain_run_outcome"].items() if value] == [("failed",)]
    assert second["retrain_stage_duration_seconds"] == {("train",): 1.0, ("publish",): 5.0}
    assert second["retrain_stage_outcome"]["train", "unchanged"] == 1
    assert second["retrain_stage_outcome"]["train", "ran"] == 0
    for kept in ("retrain_top1_ratio", "retrain_train_images_per_second"):
        assert second[kept] == first[kept]


def test_speed_is_of_a_run_that_trained(tmp_path: Path, path: Path) -> None:
    (tmp_path / "runtime").mkdir()
    (tmp_path / "runtime/train.json").write_text(json.dumps({"images_per_second": 250.5}))
    samples = record(tmp_path, path, Ending.NOTHING_NEW, StageResult("train", Outcome.RESTORED, 1.0))
    assert "retrain_train_images_per_second" not in samples


@pytest.mark.parametrize("ending", [Ending.INTERRUPTED, Ending.STOPPED, Ending.FAILED])
def test_what_did_not_succeed_is_no_success(tmp_path: Path, path: Path, ending: Ending) -> None:
    assert "retrain_last_success_timestamp_seconds" not in record(tmp_path, path, ending)


def test_a_file_that_cannot_be_written_costs_a_warning(tmp_path: Path, path: Path) -> None:
    warnings: list[str] = []
    path.parent.write_text("a file where a folder should be")
    record_run(Conclusion(Ending.COMPLETED, ""), [], 0.0, tmp_path, warnings.append)
    assert len(warnings) == 1
    assert warnings[0].startswith(f"the metrics are not written to {path}: ")

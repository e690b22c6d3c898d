"""The text file of metrics, and the worker's endpoint against a real Prefect server."""

import time
import urllib.request
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from infra.local.prefect_server import PrefectServer
from infra.local.process import free_port
from infra.monitoring.endpoint import serve
from infra.monitoring.metrics import METRICS, Samples, metrics_file, read_samples, write_samples
from infra.prefect_api import PrefectAPI
from tasks.stage.errors import InputError
from tests.infra.test_messages import run_of

SAMPLES: Samples = {
    "retrain_last_success_timestamp_seconds": {(): 1_790_000_000.25},
    "retrain_stage_outcome": {("train", "ran"): 1.0, ("train", "unchanged"): 0.0},
    "retrain_top1_ratio": {('a "name"\\with\nall',): 0.9012},
}


def scrape(port: int) -> dict[tuple[str, tuple[str, ...]], float]:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
        families = text_string_to_metric_families(answer.read().decode())
        return {(s.name, tuple(s.labels.values())): s.value for family in families for s in family.samples}


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "folder/retrain.prom"
    write_samples(SAMPLES, path)
    assert read_samples(path) == SAMPLES
    assert [each.name for each in path.parent.iterdir()] == ["retrain.prom"]
    assert "# HELP retrain_stage_outcome 1 for what became of a stage" in path.read_text()


@pytest.mark.parametrize("text", ["", "no metrics {", "another_metric 1\n", 'retrain_top1_ratio{another="x"} 1\n'])
def test_a_file_that_is_not_ours_says_nothing(tmp_path: Path, text: str) -> None:
    path = tmp_path / "retrain.prom"
    assert read_samples(path) == {}
    path.write_text(text)
    assert read_samples(path) == {}


def test_the_file_is_where_the_variable_says() -> None:
    assert metrics_file({"RETRAIN_METRICS_FILE": "/var/lib/node_exporter/retrain.prom"}).name == "retrain.prom"
    assert metrics_file({}) == Path(".cache/metrics/retrain.prom")


def test_endpoint_shows_the_last_run_and_the_queue(prefect_server: PrefectServer, tmp_path: Path) -> None:
    path, port = tmp_path / "retrain.prom", free_port()
    refused = ("retrain_runs_recent", ("Refused",))
    write_samples(SAMPLES, path)
    api = PrefectAPI.from_environment(prefect_server.environment)
    stop = serve(str(port), api, path)
    try:
        before = scrape(port)
        run_of(api, "retrain", ("SCHEDULED", "Scheduled", "due"))
        run_of(api, "another", ("SCHEDULED", "Scheduled", "somebody else's"))
        run_of(api, "retrain", ("COMPLETED", "Refused", "too low"))
        counted = {("retrain_queue_runs", ()), refused}
        deadline = time.monotonic() + 20  # a run is shown from its date on, by the server's clock
        while any((after := scrape(port)).get(each, 0) == before.get(each, 0) for each in counted):
            assert time.monotonic() < deadline, after
            time.sleep(0.2)
    finally:
        stop()
    assert after["retrain_prefect_up", ()] == 1
    assert after["retrain_last_success_timestamp_seconds", ()] == 1_790_000_000.25
    assert after["retrain_queue_runs", ()] == before["retrain_queue_runs", ()] + 1
    assert after["retrain_queue_oldest_seconds", ()] < 3600
    assert after[refused] == before.get(refused, 0) + 1
    assert after["process_start_time_seconds", ()] > 0
    assert {name for name, _ in after if name.startswith("retrain_")} <= METRICS.keys()


def test_a_server_that_is_away_is_a_metric(tmp_path: Path) -> None:
    port = free_port()
    stop = serve(f"127.0.0.1:{port}", PrefectAPI(f"http://127.0.0.1:{free_port()}/api"), tmp_path / "none.prom")
    try:
        assert scrape(port)["retrain_prefect_up", ()] == 0
        with pytest.raises(InputError, match="in use"):
            serve(str(port), None, tmp_path / "none.prom")
    finally:
        stop()
    with pytest.raises(InputError, match=r"not of the form \[HOST:\]PORT"):
        serve("everywhere", None)

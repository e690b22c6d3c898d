"""The worker's metrics over HTTP, for Prometheus to scrape: what the last run left, and what Prefect says of the queue.

python -m infra.worker --metrics 9108 …     # on loopback; --metrics 0.0.0.0:9108 for a scraper on another machine
"""

from collections import Counter
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from pathlib import Path
from wsgiref.simple_server import WSGIServer

from prometheus_client import CollectorRegistry, Metric, ProcessCollector, start_http_server

from infra.monitoring.metrics import SampleCollector, Samples, metrics_file, read_samples
from infra.prefect_api import PrefectAPI
from tasks.stage.errors import InputError

FLOW = "retrain"
LOOPBACK = "127.0.0.1"
WAITING = ["SCHEDULED", "PENDING"]
RECENT = timedelta(days=1)
LIMIT = 200  # Prefect's own, for one answer


class WorkerCollector:
    """Asks anew at every scrape.

    Args:
        api: The Prefect server's; None where none is configured.
        path: The text file of the last run.
    """

    def __init__(self, api: PrefectAPI | None, path: Path) -> None:
        self._api, self._path = api, path

    def collect(self) -> Iterator[Metric]:
        """Yield what the last run left, then the queue; a server that is away is a metric of its own."""
        yield from SampleCollector(read_samples(self._path)).collect()
        yield from SampleCollector(self._queue()).collect()

    def _queue(self) -> Samples:
        try:
            samples = queue_samples(self._api) if self._api else {}
        except InputError:
            samples = {}
        return samples | {"retrain_prefect_up": {(): float(bool(samples))}}


def queue_samples(api: PrefectAPI) -> Samples:
    """Return how many runs wait and for how long, and in which states those of the last day are.

    Raises:
        InputError: The server cannot be reached, or refuses.
    """
    flows = {"flows": {"name": {"any_": [FLOW]}}}
    api.get("version")
    now = api.now + timedelta(seconds=1)  # the server's clock is told to the second, rounded down
    due = {"state": {"type": {"any_": WAITING}}, "expected_start_time": {"before_": now.isoformat()}}
    question = {"flow_runs": due, "sort": "EXPECTED_START_TIME_ASC", "limit": LIMIT}
    waiting = api.post("flow_runs/filter", flows | question)
    oldest = max((now - datetime.fromisoformat(run["expected_start_time"]) for run in waiting), default=timedelta())
    since = (now - RECENT).isoformat()
    recent = api.post(
        "flow_runs/history",
        flows
        | {"history_start": since, "history_end": now.isoformat(), "history_interval_seconds": RECENT.total_seconds()},
    )
    states: Counter[str] = Counter()
    for interval in recent:
        for state in interval["states"]:
            states[state["state_name"]] += state["count_runs"]
    return {
        "retrain_queue_runs": {(): float(len(waiting))},
        "retrain_queue_oldest_seconds": {(): max(oldest.total_seconds(), 0.0)},
        "retrain_runs_recent": {(state,): float(count) for state, count in states.items()},
    }


def serve(address: str, api: PrefectAPI | None, path: Path | None = None) -> Callable[[], None]:
    """Serve the metrics at `[HOST:]PORT`, on loopback where no host is given; return what stops it.

    Raises:
        InputError: The address is no such thing, or taken.
    """
    host, _, port = address.rpartition(":")
    if not port.isdecimal() or not int(port) < 1 << 16:
        raise InputError(f"--metrics {address!r} is not of the form [HOST:]PORT, as 9108")
    registry = CollectorRegistry()
    registry.register(WorkerCollector(api, path or metrics_file()))
    ProcessCollector(registry=registry)
    try:
        server, _ = start_http_server(int(port), host or LOOPBACK, registry)
    except OSError as error:
        raise InputError(f"--metrics {address}: {error.strerror or error}") from error
    return _stop(server)


def _stop(server: WSGIServer) -> Callable[[], None]:
    def stop() -> None:
        server.shutdown()
        server.server_close()

    return stop

"""The metrics by name, and the text file in which a run leaves them for node_exporter's textfile collector.

A flow run writes the file at its end (flows/monitoring.py); the worker's endpoint shows it and adds what Prefect says
of the queue (infra/monitoring/endpoint.py). The dashboard and the alert rules beside this file name no others.
"""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.parser import text_string_to_metric_families

from tasks.stage.files import write_text

FILE = "RETRAIN_METRICS_FILE"
DEFAULT_FILE = Path(".cache/metrics/retrain.prom")

Labels = tuple[str, ...]
Samples = dict[str, dict[Labels, float]]  # by name, then by the values of its labels


@dataclass(frozen=True)
class Gauge:
    """A metric: what it says, in which unit, and the names of its labels."""

    says: str
    labels: Labels = ()


RUN_METRICS = {
    "retrain_last_run_timestamp_seconds": Gauge("When the last run ended, Unix time"),
    "retrain_last_success_timestamp_seconds": Gauge("When a run last succeeded (a refusal is a success), Unix time"),
    "retrain_run_duration_seconds": Gauge("How long the last run took"),
    "retrain_run_outcome": Gauge("1 for how the last run ended, 0 for the others", ("outcome",)),
    "retrain_stage_duration_seconds": Gauge("How long a stage took in the last run that reached it", ("stage",)),
    "retrain_stage_outcome": Gauge("1 for what became of a stage in that run, 0 else", ("stage", "outcome")),
    "retrain_train_images_per_second": Gauge("Training speed when the stage train last ran"),
    "retrain_top1_ratio": Gauge("Top-1 on the test images of the model evaluated last", ("dataset",)),
    "retrain_top1_low_ratio": Gauge("Lower end of its 95 % interval", ("dataset",)),
    "retrain_top1_high_ratio": Gauge("Upper end of its 95 % interval", ("dataset",)),
    "retrain_champion_info": Gauge("1 for the champion", ("release",)),
    "retrain_champion_since_timestamp_seconds": Gauge("Since when it is champion, Unix time"),
    "retrain_champion_top1_ratio": Gauge("Its top-1 on the test images that it was evaluated on"),
}
WORKER_METRICS = {
    "retrain_prefect_up": Gauge("1 where Prefect's server answered the worker, 0 where it did not"),
    "retrain_queue_runs": Gauge("Runs of the flow that are due and wait for a worker"),
    "retrain_queue_oldest_seconds": Gauge("How long the oldest of them waits; 0 where none does"),
    "retrain_runs_recent": Gauge("Runs of the last 24 hours by the name of their state", ("state",)),
}
METRICS = RUN_METRICS | WORKER_METRICS


class SampleCollector:
    """Shows samples to a Prometheus registry."""

    def __init__(self, samples: Samples) -> None:
        self._samples = samples

    def collect(self) -> Iterator[Metric]:
        """Yield a family for each name."""
        for name, values in self._samples.items():
            gauge = METRICS[name]
            family = GaugeMetricFamily(name, gauge.says, labels=gauge.labels)
            for labels, value in values.items():
                family.add_metric(labels, value)
            yield family


def metrics_file(environment: Mapping[str, str] = os.environ) -> Path:
    """Return where the text file is: RETRAIN_METRICS_FILE, or a file in the workspace's .cache."""
    return Path(environment.get(FILE) or DEFAULT_FILE)


def read_samples(path: Path) -> Samples:
    """Return what a text file says of our metrics; nothing where there is none, or none that can be read."""
    try:
        families = list(text_string_to_metric_families(path.read_text(encoding="utf-8")))
    except (FileNotFoundError, ValueError):
        return {}
    samples: Samples = {}
    for sample in (sample for family in families for sample in family.samples):
        gauge = METRICS.get(sample.name)
        if gauge is not None and set(sample.labels) == set(gauge.labels):
            values = samples.setdefault(sample.name, {})
            values[tuple(sample.labels[name] for name in gauge.labels)] = sample.value
    return samples


def write_samples(samples: Samples, path: Path) -> None:
    """Write a text file, whole or not at all; raises OSError."""
    registry = CollectorRegistry()
    registry.register(SampleCollector(samples))
    write_text(path, generate_latest(registry).decode())

"""Events of ours, which automations and other people's programs act on; docs/monitoring.md lists them.

retrain.champion.changed    a new release is champion
retrain.champion.refused    the gate refused a new release
retrain.nothing-new         every stage was up to date
retrain.not-needed          data changed, and none of retrain.when's thresholds is reached
retrain.failed              the run failed for a reason that does not pass

The first two are about `retrain.channel.<bucket>/<prefix>/champion`, the others about `prefect.flow-run.<id>`; each is
related to the flow run, its flow and its deployment. Prefect sends them in the background, and again when its server
was away for a moment: one that is away for longer costs a warning.
"""

from pathlib import Path
from typing import Any

from prefect import get_run_logger
from prefect.events import emit_event
from prefect.runtime import flow_run

from flows.conclusion import Conclusion, Ending
from flows.summary import headline
from tasks.registry.lineage import git_state

NAMES = {
    Ending.CHAMPION: "retrain.champion.changed",
    Ending.REFUSED: "retrain.champion.refused",
    Ending.NOTHING_NEW: "retrain.nothing-new",
    Ending.NOT_NEEDED: "retrain.not-needed",
    Ending.FAILED: "retrain.failed",
}


def announce(conclusion: Conclusion, folder: Path) -> None:
    """Emit the event of a run's end, where that has one."""
    name = NAMES.get(conclusion.ending)
    if name is None:
        return
    resource = _channel(conclusion) if name.startswith("retrain.champion.") else _run()
    if emit_event(event=name, resource=resource, payload=_payload(conclusion, folder)) is None:
        get_run_logger().warning("the event %s was not sent: Prefect's server is away", name)


def _payload(conclusion: Conclusion, folder: Path) -> dict[str, Any]:
    """Return what every event of ours says; null where there is no release, or no evaluation."""
    decision, metrics = conclusion.decision, conclusion.metrics
    git = git_state(folder)
    figures = {name: metrics.get(name) for name in ("top1", "top1_low", "top1_high", "images", "dataset")}
    failed = conclusion.ending is Ending.FAILED
    return figures | {
        "release": decision.release if decision and not failed else None,
        "uri": decision.uri if decision and not failed else None,
        "former": decision.former if decision else None,
        "headline": headline(metrics),
        "outcome": conclusion.message,
        "reasons": [conclusion.message] if failed else list(decision.reasons) if decision and decision.refused else [],
        "commit": git["commit"] if git else None,
    }


def _channel(conclusion: Conclusion) -> dict[str, str]:
    uri = conclusion.decision.uri if conclusion.decision else ""
    place = uri.removeprefix("s3://").partition("/releases/")[0]
    return {
        "prefect.resource.id": f"retrain.channel.{place}/champion",
        "prefect.resource.name": f"champion of s3://{place}",
    }


def _run() -> dict[str, str]:
    return {
        "prefect.resource.id": f"prefect.flow-run.{flow_run.get_id()}",
        "prefect.resource.name": str(flow_run.get_name()),
    }

"""The dashboard and the alert rules: of the form that Grafana and Prometheus read, and of metrics that exist."""

import itertools
import json
import re
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from infra.monitoring.metrics import METRICS

FOLDER = Path(__file__).parents[3] / "infra/monitoring"
NAME = re.compile(r"\bretrain_[a-z0-9_]+")
DURATION = re.compile(r"(\d+[smhdw])+")
LABELS = {"instance"}  # that Prometheus adds


def dashboard() -> dict[str, Any]:
    return dict(json.loads((FOLDER / "dashboard.json").read_text()))


def expressions() -> list[str]:
    panels = [target["expr"] for panel in dashboard()["panels"] for target in panel["targets"]]
    return [*panels, *(rule["expr"] for rule in rules())]


def rules() -> list[dict[str, Any]]:
    document = YAML(typ="safe").load((FOLDER / "alerts.yaml").read_text())
    assert list(document) == ["groups"]
    (group,) = document["groups"]
    assert set(group) == {"name", "rules"}
    return list(group["rules"])


@pytest.mark.parametrize("expression", expressions())
def test_expressions_are_of_metrics_and_labels_that_exist(expression: str) -> None:
    names = NAME.findall(expression)
    assert names
    assert not set(names) - METRICS.keys()
    for opening, closing in ("()", "{}", "[]"):
        assert expression.count(opening) == expression.count(closing)
    known = LABELS | {label for name in names for label in METRICS[name].labels}
    selected = {label for part in re.findall(r"\{([^}]*)\}", expression) for label in re.findall(r"(\w+)\s*[=!]", part)}
    grouped = {label.strip() for part in re.findall(r"\bby \(([^)]*)\)", expression) for label in part.split(",")}
    assert selected | grouped <= known


def test_the_dashboard_shows_every_metric() -> None:
    shown = {
        name for panel in dashboard()["panels"] for target in panel["targets"] for name in NAME.findall(target["expr"])
    }
    assert shown == METRICS.keys()


def test_panels_do_not_overlap_and_ask_the_chosen_server() -> None:
    panels = dashboard()["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    for one, other in itertools.combinations([panel["gridPos"] for panel in panels], 2):
        apart = (
            one["x"] + one["w"] <= other["x"]
            or other["x"] + other["w"] <= one["x"]
            or one["y"] + one["h"] <= other["y"]
            or other["y"] + other["h"] <= one["y"]
        )
        assert apart, (one, other)
    assert {panel["datasource"]["uid"] for panel in panels} == {"${datasource}"}
    assert {"datasource", "instance"} == {variable["name"] for variable in dashboard()["templating"]["list"]}


def test_rules_are_of_the_form_that_prometheus_reads() -> None:
    names = [rule["alert"] for rule in rules()]
    assert len(set(names)) == len(names)
    for rule in rules():
        assert set(rule) == {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert DURATION.fullmatch(rule["for"])
        assert rule["labels"].keys() == {"severity"}
        assert rule["labels"]["severity"] in {"page", "ticket"}
        assert rule["annotations"].keys() == {"summary", "description"}
        shown = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        assert shown <= LABELS | {label for name in NAME.findall(rule["expr"]) for label in METRICS[name].labels}

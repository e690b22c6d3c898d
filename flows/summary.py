"""What came out of a run, in words: for the terminal, and for what Prefect's UI shows of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flows.data_report import PAGE
from flows.offer import read_offer
from flows.stages import StageResult
from tasks.stage.files import read_json
from tasks.stage.progress import format_duration
from tasks.stage.shown import percent

METRICS = Path("evaluation/metrics.json")
REPORT = Path("evaluation/report.html")
PASSED, REFUSED = "✓", "✗"
PREDICT = ".venv/bin/python -m tasks.predict IMAGE.png"
NEXT = (
    (PREDICT, "what is on your own image"),
    (".venv/bin/python -m tasks.registry list", "the releases and which is champion"),
    ("make up deploy", "Prefect's UI, the schedule, runs from a button"),
)


def read_metrics(folder: Path) -> dict[str, Any]:
    """Return evaluation/metrics.json; nothing where there is no evaluation."""
    return dict(read_json(folder / METRICS)) if (folder / METRICS).exists() else {}


def headline(metrics: dict[str, Any]) -> str:
    """Return top-1 with its interval, on how many images of what, as far as the metrics say so."""
    if "top1" not in metrics:
        return "no top-1 accuracy recorded"
    text = f"top-1 {percent(metrics['top1'])}"
    if "top1_low" in metrics and "top1_high" in metrics:
        text += f" (95 % interval {percent(metrics['top1_low'])} to {percent(metrics['top1_high'])})"
    if "images" in metrics and "dataset" in metrics:
        text += f" on {metrics['images']:,} test images of {metrics['dataset']}"
    return text


def verdict_rows(offered: dict[str, Any]) -> list[dict[str, Any]]:
    """Return a row for each rule of the gate in an offer: its name, a mark, its sentence and its figures."""
    findings = [finding for finding in offered.get("verdict", []) if isinstance(finding, dict)]
    return [
        {
            "rule": finding["rule"],
            "passed": PASSED if finding["passed"] else REFUSED,
            "says": finding["sentence"],
            "figures": ", ".join(f"{name} {value}" for name, value in finding["figures"].items()),
        }
        for finding in findings
    ]


def summary(results: Sequence[StageResult], folder: Path) -> str:
    """Return the end of `make run`: each stage, the headline, where things are, and what to type next."""
    lines = [""]
    lines += [f"{result.name:<10} {result.outcome} ({format_duration(result.seconds)})" for result in results]
    lines += ["", headline(read_metrics(folder))]
    for name, page in (("data", PAGE), ("report", REPORT)):
        if (folder / page).exists():
            lines.append(f"{name:<10} {page}")
    offered = read_offer(folder)
    if offered:
        lines.append(f"release    {offered['uri']}{' (champion)' if offered['champion'] else ''}")
        lines.append(f"gate       {offered['outcome']}")
        lines += [f"           {row['passed']} {row['rule']}: {row['says']}" for row in verdict_rows(offered)]
    commands = dict(NEXT)
    if offered and not offered.get("champion_now", offered["champion"]):  # there is none that would answer
        commands = {f"{PREDICT} --model candidate": commands.pop(PREDICT), **commands}
    width = max(map(len, commands))
    lines += ["", "next:"] + [f"  {command:<{width}}  # {why}" for command, why in commands.items()]
    return "\n".join(lines)

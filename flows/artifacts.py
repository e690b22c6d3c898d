"""What a person sees of a run in Prefect's UI: live progress, the metrics, the report, and the line of champions."""

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.client.orchestration import get_client

from flows.conclusion import Conclusion
from flows.decision import Line
from flows.offer import read_offer
from flows.report_link import link_text, renew_links
from flows.report_text import report_text
from flows.stages import StageResult, parse_progress
from flows.summary import headline, verdict_rows
from tasks.stage.errors import InputError
from tasks.stage.shown import costs_text, percent

UPDATE_SECONDS = 2.0
REPORT_KEY = "report"
SHOWN_MOVES = 30


class ProgressArtifact:
    """The share of a stage's work that is done, as `<stage>-progress`; made when the stage first speaks of a share."""

    def __init__(self, stage: str) -> None:
        self.stage = stage
        self._id: UUID | None = None
        self._updated = -float("inf")

    def see(self, line: str) -> None:
        """Take the share from a line that begins with one; at most every two seconds."""
        progress = parse_progress(line)
        if progress is not None and time.monotonic() - self._updated >= UPDATE_SECONDS:
            self._show(*progress)

    def finish(self) -> None:
        """Set the share to all, where there ever was one."""
        if self._id is not None:
            self._show(100.0, "done")

    def _show(self, share: float, text: str) -> None:
        self._updated = time.monotonic()
        try:
            if self._id is None:
                key = f"{self.stage.lower().replace('_', '-')}-progress"
                self._id = cast(UUID, create_progress_artifact(progress=share, key=key, description=text))
            else:
                update_progress_artifact(artifact_id=self._id, progress=share, description=text)
        except httpx.HTTPError as error:  # hours of training are not to end for a server that restarts
            get_run_logger().warning("progress is not shown for now: %s", error)


def record_drift(found: Mapping[str, Any]) -> None:
    """Create the artifact `data`: what came since the champion was made, and what it answers to that."""
    drift = found["drift"] or {}
    rows = "".join(f"| {name.replace('_', ' ')} | {value} |\n" for name, value in drift.items() if value != "")
    table = f"\n| | |\n|---|---|\n{rows}" if rows else ""
    with _costs_a_warning():
        create_markdown_artifact(
            markdown=f"**{found['sentence']}**\n{table}", key="data", description=found["sentence"]
        )


def record_results(results: Sequence[StageResult], folder: Path, conclusion: Conclusion) -> None:
    """Create the artifacts of a run whose stages are through; each has a key that compares over runs.

    `stages` always; with an evaluation `headline`, `metrics` and `report`; with a release `gate` and `champions`. A
    server or a store that is away costs a warning. No artifact names a path of this machine, or a credential.
    """
    rows = [{"stage": r.name, "outcome": str(r.outcome), "seconds": round(r.seconds, 1)} for r in results]
    with _costs_a_warning():
        create_table_artifact(table=rows, key="stages", description="What became of each stage")
        if conclusion.metrics:
            _record_evaluation(folder, conclusion)
        if conclusion.line and conclusion.line.moves:
            create_table_artifact(
                table=champion_rows(conclusion.line), key="champions", description="The line of champions, latest first"
            )
    if conclusion.line:
        with _costs_a_warning(), get_client(sync_client=True) as client:
            renew_links(conclusion.line.bucket, client, REPORT_KEY)


def _record_evaluation(folder: Path, conclusion: Conclusion) -> None:
    metrics, offer, decision = conclusion.metrics, read_offer(folder), conclusion.decision
    text = f"**{headline(metrics)}**\n\n{conclusion.ending}: {conclusion.message}\n"
    create_markdown_artifact(markdown=text, key="headline", description=str(conclusion.ending))
    shown = metrics | ({"costs": costs_text(metrics["costs"])} if "costs" in metrics else {})
    table = [{"metric": name, "value": value} for name, value in shown.items()]
    create_table_artifact(table=table, key="metrics", description=headline(metrics))
    rules = verdict_rows(offer)
    if rules:
        create_table_artifact(table=rules, key="gate", description=offer.get("outcome"))
    link = link_text(conclusion.line.bucket, decision.release) if conclusion.line and decision else None
    page = report_text(metrics, offer, folder, link)
    create_markdown_artifact(markdown=page, key=REPORT_KEY, description="The report")


def champion_rows(line: Line) -> list[dict[str, Any]]:
    """Return a row for each of the latest moves of the champion's channel, latest first."""
    rows = []
    for move in reversed(line.moves[-SHOWN_MOVES:]):
        row = line.rows.get(move.release)
        interval = f"{percent(row.top1)} ({percent(row.top1_low)} to {percent(row.top1_high)})" if row else "unknown"
        facts = {
            "since": move.moved_at,
            "release": move.release,
            "top-1": interval,
            "recipe": row.recipe if row else "",
        }
        rows.append(facts | {"how": f"{move.action}{', forced' if move.forced else ''}", "why": move.reason})
    return rows


@contextlib.contextmanager
def _costs_a_warning() -> Iterator[None]:
    """Let a run go on whose results cannot be shown: hours of training are not to end for a server that restarts."""
    try:
        yield
    except (httpx.HTTPError, InputError) as error:
        get_run_logger().warning("the results are not shown in full: %s", error)

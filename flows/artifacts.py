"""What a person sees of a run in Prefect's UI: live progress, the metrics, and where the report is."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import cast
from uuid import UUID

import httpx
from prefect import get_run_logger
from prefect.artifacts import (
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)

from flows.offer import read_offer
from flows.stages import StageResult, parse_progress
from flows.summary import headline, read_metrics, report_text, verdict_rows

UPDATE_SECONDS = 2.0


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


def record_results(results: Sequence[StageResult], folder: Path) -> None:
    """Create the artifacts `stages`, `metrics`, `gate` and `report`; all but the first where there is an evaluation."""
    rows = [{"stage": r.name, "outcome": str(r.outcome), "seconds": round(r.seconds, 1)} for r in results]
    create_table_artifact(table=rows, key="stages", description="What became of each stage")
    metrics = read_metrics(folder)
    if not metrics:
        return
    table = [{"metric": name, "value": value} for name, value in metrics.items()]
    create_table_artifact(table=table, key="metrics", description=headline(metrics))
    offered = read_offer(folder)
    rules = verdict_rows(offered)
    if rules:
        create_table_artifact(table=rules, key="gate", description=offered.get("outcome"))
    text = report_text(metrics, offered, folder)
    create_markdown_artifact(markdown=text, key="report", description="The report")

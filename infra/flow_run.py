"""What a pull step knows of the flow run that it prepares: where it logs, and the run's tags."""

import logging
import os
from typing import Any
from uuid import UUID

Log = logging.Logger | logging.LoggerAdapter[Any]


def preparing() -> tuple[Log, list[str]]:
    """Return the log and the tags of the flow run that Prefect prepares in this process; outside one, a log alone."""
    identity = os.environ.get("PREFECT__FLOW_RUN_ID")
    if identity is None:
        return logging.getLogger(__name__), []
    # Only where Prefect has imported itself already: what imports this module need not have it.
    from prefect.client.orchestration import get_client  # noqa: PLC0415
    from prefect.logging.loggers import flow_run_logger  # noqa: PLC0415

    with get_client(sync_client=True) as client:
        run = client.read_flow_run(UUID(identity))
    return flow_run_logger(run), list(run.tags)

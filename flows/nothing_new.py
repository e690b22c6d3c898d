"""Whether a run would find nothing to do, asked without Prefect, whose server alone takes ten seconds to start.

The questions are the flow's own, in its order. Only where each is answered is there nothing new; else the flow runs,
does what is to be done and says what is wrong.
"""

import time
from pathlib import Path

from flows.failures import StepError
from flows.lineage import missing_in_remote
from flows.offer import RECEIPT, offer
from flows.overrides import Overrides, would_change
from flows.renewed import has_renewed_source
from flows.run_cache import missing_runs
from flows.stages import Outcome, StageResult, is_unchanged, read_stages
from flows.workspace import exclusive_workspace
from tasks.params.params import PARAMS_FILE
from tasks.registry.channels import read_pointer
from tasks.registry.store import configured_bucket
from tasks.s3.credentials import load_credentials
from tasks.stage.errors import InputError
from tasks.stage.files import read_json


def nothing_new(overrides: Overrides, folder: Path) -> list[StageResult] | None:
    """Return what became of the stages where all are unchanged, their release is champion and the remote has it all.

    None where something is to be done, or cannot be told. The offer is then as new as after a run (flows/offer.py).
    """
    try:
        if would_change(overrides, folder / PARAMS_FILE):
            return None
        with exclusive_workspace(folder):
            results = _unchanged_stages(folder)
            return results if results and _is_champion(folder) and _is_in_remote(folder) else None
    except (InputError, StepError):
        return None


def _unchanged_stages(folder: Path) -> list[StageResult]:
    """Return a result for each stage; nothing where one would run."""
    results = []
    for name in read_stages(folder):
        start = time.monotonic()
        if not is_unchanged(name, folder) or has_renewed_source(name, print):
            return []
        results.append(StageResult(name, Outcome.UNCHANGED, time.monotonic() - start))
    return results


def _is_champion(folder: Path) -> bool:
    """Offer the release once more if it is champion, which moves nothing; return whether it is."""
    if not (folder / RECEIPT).exists():
        return False
    load_credentials()
    champion = read_pointer(configured_bucket(), "champion")
    if champion is None or champion.current.release != read_json(folder / RECEIPT)["id"]:
        return False
    offered = offer(folder, lambda _: None)
    return bool(offered["champion"]) and not offered["moved"]


def _is_in_remote(folder: Path) -> bool:
    return not missing_in_remote(folder) and not missing_runs(folder)

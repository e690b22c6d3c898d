"""Which commit a run is made of, as tags of the run: shown in Prefect's list of runs, and read by infra/checkout.py."""

from pathlib import Path
from uuid import UUID

from prefect import get_run_logger
from prefect.client.orchestration import get_client
from prefect.runtime import flow_run

from infra.checkout import COMMIT_TAG, SHORT
from tasks.registry.lineage import git_state

DIRTY_TAG = "dirty"


def tag_commit(folder: Path) -> None:
    """Tag the flow run at work with `commit:` and twelve characters of its hash, and with `dirty` where files differ.

    The release's manifest says the same of the commit: both ask git_state. Where an earlier try of this run had another
    commit, that is said and its tag is replaced. A folder outside git gives no tag.
    """
    identity = UUID(str(flow_run.get_id()))
    with get_client(sync_client=True) as client:
        former = list(client.read_flow_run(identity).tags)
        tags = [tag for tag in former if not _is_of_a_commit(tag)] + commit_tags(folder)
        if set(tags) != set(former):
            client.update_flow_run(identity, tags=tags)
    changed = {tag for tag in former if tag.startswith(COMMIT_TAG)} - set(tags)
    if changed:
        get_run_logger().warning(
            "an earlier try of this run was made of %s, this one of %s", ", ".join(changed), commit_of(tags)
        )


def commit_tags(folder: Path) -> list[str]:
    """Return the tags that say what a working tree is made of; none outside git."""
    state = git_state(folder)
    if state is None:
        return []
    return [f"{COMMIT_TAG}{state['commit'][:SHORT]}", *([DIRTY_TAG] if state["dirty"] else [])]


def commit_of(tags: list[str]) -> str:
    """Return the commit that tags name, in words where they name none."""
    return next((tag for tag in tags if tag.startswith(COMMIT_TAG)), "no commit")


def _is_of_a_commit(tag: str) -> bool:
    return tag == DIRTY_TAG or tag.startswith(COMMIT_TAG)

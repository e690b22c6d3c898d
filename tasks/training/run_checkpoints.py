"""The checkpoints of one run from its start to its end: fetched, saved, mirrored, and removed when it is finished."""

import contextlib
from collections.abc import Iterator

from tasks.params.params import TrainParams
from tasks.stage.errors import InputError, ResumableError
from tasks.training.checkpoint import NOTE, CheckpointFolder
from tasks.training.mirror import Mirror
from tasks.training.remote_checkpoints import RemoteCheckpoints
from tasks.training.run import Makings
from tasks.training.saver import Saver, warn_on_stderr
from tasks.training.unfinished import note_makings

MIRROR_SECONDS = 20.0  # that a stopped run waits for its last checkpoint to reach the remote


def fetch_newer(address: str | None, folder: CheckpointFolder) -> RemoteCheckpoints | None:
    """Return where a run's checkpoints are mirrored, if anywhere, once what is newer there is in `folder`.

    Raises:
        InputError: The store refused, or cannot be reached.
    """
    if address is None:
        return None
    remote = RemoteCheckpoints(address, folder.run)
    remote.check()
    for problem in remote.download_newer(folder.path, folder.newest_step()):
        warn_on_stderr(problem)
    return remote


@contextlib.contextmanager
def saving(
    params: TrainParams, makings: Makings, folder: CheckpointFolder, remote: RemoteCheckpoints | None
) -> Iterator[Saver]:
    """Give the saver of the run, mirrored where there is a remote; remove the checkpoints of a finished run."""
    every = (params.checkpoint_every_seconds, params.checkpoint_every_steps)
    _note(makings, folder, remote)
    if remote is None:
        yield Saver(folder, *every)
        folder.remove()
        return
    mirror = Mirror(remote, warn_on_stderr)
    try:
        yield Saver(folder, *every, mirror.offer)
    except (ResumableError, InputError):
        if not mirror.flush(MIRROR_SECONDS):
            warn_on_stderr(f"the last checkpoint did not reach {params.checkpoint_remote} in {MIRROR_SECONDS:.0f} s")
        raise
    finally:
        mirror.close()
    folder.remove()
    try:
        remote.remove()
    except InputError as error:
        warn_on_stderr(f"{error}; the finished run's checkpoints stay there")


def _note(makings: Makings, folder: CheckpointFolder, remote: RemoteCheckpoints | None) -> None:
    """Keep what the run is made of beside its checkpoints; where it has none and another run does, say why."""
    try:
        stored = remote.newest_other if remote else lambda: None
        anew = note_makings(folder, makings.facts, makings.sources, stored)
        if anew is not None:
            warn_on_stderr(anew)
        if remote is not None:
            remote.describe(folder.path / NOTE)
    except (OSError, InputError) as error:
        warn_on_stderr(f"what this run is made of is not kept beside its checkpoints: {error}")

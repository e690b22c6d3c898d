"""Rules of the gate that look at the champion's history: what lost its place comes back only when a person wants it."""

from tasks.registry.manifest import Finding
from tasks.registry.moves import Move


def was_not_rolled_back(release: str, history: tuple[Move, ...]) -> Finding:
    """Pass unless a rollback took the champion back from this release, and no person promoted it since.

    Args:
        release: Its id.
        history: The champion's.
    """
    lost = _how_it_lost(release, history)
    if lost is None or lost.action != "rollback":
        return Finding(rule="was_not_rolled_back", passed=True, sentence="no rollback took it back", figures={})
    reason = f": {lost.reason}" if lost.reason else ""
    return Finding(
        rule="was_not_rolled_back",
        passed=False,
        sentence=f"{lost.actor} took the champion back from this release at {lost.moved_at}{reason}",
        figures={"actor": str(lost.actor), "moved_at": lost.moved_at},
    )


def was_not_beaten(release: str, history: tuple[Move, ...]) -> Finding:
    """Pass unless this release was champion and another took its place: the gate lets releases lose a little.

    Without it, to run old parameters again would bring an old champion back past a better one that is within the
    tolerance.

    Args:
        release: Its id.
        history: The champion's.
    """
    lost = _how_it_lost(release, history)
    if lost is None or lost.action == "rollback":
        return Finding(rule="was_not_beaten", passed=True, sentence="no other release took its place", figures={})
    return Finding(
        rule="was_not_beaten",
        passed=False,
        sentence=(
            f"it was champion until release {lost.release} took its place at {lost.moved_at}; "
            "`registry promote` brings it back"
        ),
        figures={"champion": lost.release, "moved_at": lost.moved_at},
    )


def _how_it_lost(release: str, history: tuple[Move, ...]) -> Move | None:
    """Return the last move from the release to another; nothing where it never was champion, or is."""
    lost: Move | None = None
    for before, move in zip((None, *history), history, strict=False):
        if move.release == release:
            lost = None
        elif before is not None and before.release == release:
            lost = move
    return lost

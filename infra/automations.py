"""What the Prefect server itself watches for, as automations: `python -m infra.automations`.

Registering twice is registering once: an automation is known by its name, made where there is none, and brought up to
date where this file says something else; one that was switched off by a person stays off. `make deploy` registers them,
and so does every `infra.worker` when it starts and when its server comes back, perhaps with an empty database.

To add an automation: a function that returns it, in the form of Prefect's API, and its name in `automations()`. Those
that tell people are in infra/messages.py; `make up` and `make deploy` register them.
"""

import os
from datetime import timedelta
from typing import Any

from infra.messages import configured_messages, who_is_told
from infra.prefect_api import PrefectAPI
from tasks.stage.errors import run_command

FLOWS = ("retrain",)  # other people's flows on the same server are their own affair
HEARTBEAT = "prefect.flow-run.heartbeat"
HEARTBEAT_SECONDS = 30  # Prefect's smallest; its default is 180
SILENCE = timedelta(seconds=120)  # four heartbeats; with the server's own pauses it is seen within three minutes
THOUGHT_DEAD = "No heartbeat for"  # how the message of a state begins that was given to a silent run

# The names of the states in which no heartbeat is due: a state's event has the state's name, not its type.
RESTING = (
    "Asked",
    "AwaitingRetry",
    "Cancelled",
    "Completed",
    "Crashed",
    "Failed",
    "Interrupted",
    "NotNeeded",
    "NothingNew",
    "Paused",
    "Refused",
    "Scheduled",
    "Skipped",
    "Suspended",
)

Automation = dict[str, Any]


def automations() -> list[Automation]:
    """Return every automation of this project."""
    return [zombies()]


def zombies(silence: timedelta = SILENCE) -> Automation:
    """Return what marks a run Crashed when its heartbeats end without the run's end: its machine or process is gone.

    Args:
        silence: How long after one heartbeat nothing is heard.
    """
    seconds = int(silence.total_seconds())
    return {
        "name": "retrain: a run without heartbeats is crashed",
        "description": "A run whose process died can no longer say so. infra/restart.py starts it again.",
        "trigger": {
            "type": "event",
            "posture": "Proactive",
            "match": {"prefect.resource.id": "prefect.flow-run.*"},
            "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": list(FLOWS)},
            "for_each": ["prefect.resource.id"],
            "after": [HEARTBEAT],
            "expect": [HEARTBEAT, *(f"prefect.flow-run.{name}" for name in RESTING)],
            "threshold": 1,
            "within": seconds,
        },
        "actions": [
            {
                "type": "change-flow-run-state",
                "state": "CRASHED",
                "message": f"{THOUGHT_DEAD} {seconds} seconds: the process or its machine is gone.",
            }
        ],
    }


def register(api: PrefectAPI, wanted: list[Automation]) -> list[str]:
    """Make the server have the automations as they are here, each once; return the names of those that changed.

    Raises:
        InputError: The server cannot be reached, or refuses.
    """
    changed = []
    for automation in wanted:
        named = {"automations": {"name": {"any_": [automation["name"]]}}, "sort": "CREATED_DESC"}
        *twins, existing = [*api.post("automations/filter", named)] or [None]
        for twin in twins:  # two workers registered at the same time
            api.ask("DELETE", f"automations/{twin['id']}")
        if existing is None:
            api.post("automations/", automation)
        elif not _says(existing, automation):
            api.ask("PUT", f"automations/{existing['id']}", {**automation, "enabled": existing["enabled"]})
        else:
            continue
        changed.append(automation["name"])
    return changed


def _says(existing: Any, wanted: Any) -> bool:
    """Return whether what the server has says all that is wanted; it adds defaults and ids, and orders sets anew."""
    if isinstance(wanted, dict):
        return isinstance(existing, dict) and all(_says(existing.get(name), wanted[name]) for name in wanted)
    if isinstance(wanted, list):
        if not isinstance(existing, list) or len(existing) != len(wanted):
            return False
        return all(any(_says(there, item) for there in existing) for item in wanted)
    return bool(existing == wanted)


def main() -> None:
    """Register all, those that tell people where a block is named, and say what changed and who is told."""
    api = PrefectAPI.from_environment()
    changed = register(api, [*automations(), *configured_messages(api, os.environ)])
    print("\n".join(f"registered: {name}" for name in changed) or "the automations are registered")
    print(who_is_told(os.environ))


if __name__ == "__main__":
    run_command("infra.automations", main)

"""Who is told what of runs: automations that send to the Prefect block that RETRAIN_NOTIFY_BLOCK names.

It is named as TYPE/NAME, as slack-webhook/team; docs/monitoring.md says which blocks there are and how one is made.
Each reason to send a message is a function here; infra/automations.py registers them.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from infra.prefect_api import NotFoundError, PrefectAPI
from tasks.stage.errors import InputError

FLOW = "retrain"
BLOCK = "RETRAIN_NOTIFY_BLOCK"
DAYS = "RETRAIN_NOTIFY_AFTER_DAYS"
DEFAULT_DAYS = 7.0

# A run that ended for a reason that may pass is started again within half a minute (infra/restart.py), one that was
# only thought dead within two.
RESTART_PATIENCE = timedelta(minutes=4)

RUN_STATE = "prefect.flow-run."
SUCCESS = [f"{RUN_STATE}{name}" for name in ("Completed", "NotNeeded", "Refused")]
GOES_ON = [f"{RUN_STATE}{name}" for name in ("AwaitingRetry", "Scheduled", "Late", "Pending", "Running")]

RUN = "{% if flow_run %}{{ flow_run.name }}: {{ (flow_run|ui_url) or flow_run.id }}{% endif %}"
STATE = "{% if flow_run %}{{ flow_run.state.name }}: {{ flow_run.state.message }}{% endif %}"
FACTS = "release {{ event.payload.release }}, {{ event.payload.headline }}, commit {{ event.payload.commit }}"

Automation = dict[str, Any]
Action = dict[str, Any]


class Messenger:
    """Sends messages through one Prefect block.

    Args:
        block: The block document, as the API has it.

    Raises:
        InputError: It is of a type that sends no messages.
    """

    def __init__(self, block: Mapping[str, Any]) -> None:
        self._id = block["id"]
        self._is_webhook = block["block_type"]["slug"] == "webhook"
        if not self._is_webhook and "notify" not in block["block_schema"]["capabilities"]:
            raise InputError(f"the block {block['name']} ({block['block_type']['name']}) sends no messages")

    def says(self, subject: str, body: str) -> Action:
        """Return the action that sends a message; subject and body are Jinja templates, as Prefect fills them.

        A webhook gets both as JSON, `{"subject": …, "text": …}`, which Slack and its like show.
        """
        if not self._is_webhook:
            return {"type": "send-notification", "block_document_id": self._id, "subject": subject, "body": body}
        parts = (("subject", subject), ("body", body))
        payload = "".join(f"{{% set {name} %}}{text}{{% endset %}}" for name, text in parts)
        payload += '{"subject": {{ subject|string|tojson }}, "text": {{ (subject ~ "\\n" ~ body)|string|tojson }}}'
        return {"type": "call-webhook", "block_document_id": self._id, "payload": payload}


def run_failed(messenger: Messenger) -> Automation:
    """A run ended Failed: its input is wrong, or a stage's own error; nothing starts it again."""
    trigger = _of_runs(expect=[f"{RUN_STATE}Failed"])
    text = messenger.says("retrain: a run failed", f"{STATE}\n{RUN}")
    return _automation("retrain: a run failed", run_failed, trigger, text)


def run_given_up(messenger: Messenger, patience: timedelta = RESTART_PATIENCE) -> Automation:
    """A run ended for a reason that may pass and was not started again: each try is spent, or no worker is there."""
    trigger = _of_runs(
        after=[f"{RUN_STATE}Crashed", f"{RUN_STATE}Interrupted"],
        expect=GOES_ON,
        for_each=["prefect.resource.id"],
        posture="Proactive",
        within=int(patience.total_seconds()),
    )
    text = messenger.says("retrain: a run was given up", f"Nothing starts it again.\n{STATE}\n{RUN}")
    return _automation("retrain: a run was given up", run_given_up, trigger, text)


def run_died(messenger: Messenger) -> Automation:
    """A run's process died, or was not heard of any more; it is started again while there are tries left."""
    trigger = _of_runs(expect=[f"{RUN_STATE}Crashed"])
    text = messenger.says("retrain: a run died", f"It is started again, a bounded number of times.\n{STATE}\n{RUN}")
    return _automation("retrain: a run died", run_died, trigger, text)


def champion_refused(messenger: Messenger) -> Automation:
    """The gate refused a new release: it is published, and the champion stays."""
    reasons = "{{ event.payload.reasons|join('; ') }}"
    text = messenger.says("retrain: a release was refused", f"{reasons}\n{FACTS}\n{RUN}")
    return _automation("retrain: a release was refused", champion_refused, _of_event("retrain.champion.refused"), text)


def champion_changed(messenger: Messenger) -> Automation:
    """A new release is champion."""
    former = "in the place of {{ event.payload.former or 'none' }}"
    text = messenger.says("retrain: a new champion", f"{FACTS}\n{former}\n{RUN}")
    return _automation("retrain: a new champion", champion_changed, _of_event("retrain.champion.changed"), text)


def no_success(messenger: Messenger, within: timedelta = timedelta(days=DEFAULT_DAYS)) -> Automation:
    """No run has succeeded for so long, whatever the reason: no schedule, no worker, failures alone."""
    trigger = _of_runs(expect=SUCCESS, posture="Proactive", within=int(within.total_seconds()))
    words = f"no run has succeeded for {within / timedelta(days=1):g} days"
    return _automation(
        "retrain: no success", no_success, trigger, messenger.says(f"retrain: {words}", "See which ran.")
    )


def messages(messenger: Messenger, days: float = DEFAULT_DAYS) -> list[Automation]:
    """Return every automation that tells people; that none succeeded for `days` is one of the reasons."""
    reasons = (run_failed, run_given_up, run_died, champion_refused, champion_changed)
    return [*(reason(messenger) for reason in reasons), no_success(messenger, timedelta(days=days))]


def configured_messages(api: PrefectAPI, environment: Mapping[str, str]) -> list[Automation]:
    """Return the automations that tell people, by the variables named above; none where no block is named.

    Raises:
        InputError: The block is named wrongly, there is none, or it sends no messages; or the days are no number.
    """
    if not environment.get(BLOCK):
        return []
    return messages(find_messenger(api, environment[BLOCK]), _days(environment.get(DAYS, "")))


def find_messenger(api: PrefectAPI, address: str) -> Messenger:
    """Return the messenger of a block that is named as TYPE/NAME.

    Raises:
        InputError: It is named otherwise, there is none, or it sends no messages.
    """
    slug, _, name = address.partition("/")
    if not slug or not name or not set(f"{slug}{name}") <= set("abcdefghijklmnopqrstuvwxyz0123456789-"):
        raise InputError(f"{BLOCK}={address!r} is not of the form TYPE/NAME, as slack-webhook/team")
    try:
        return Messenger(api.get(f"block_types/slug/{slug}/block_documents/name/{name}"))
    except NotFoundError as error:
        raise InputError(
            f"{BLOCK}={address}: Prefect has no such block; `prefect block ls` lists those it has"
        ) from error


def who_is_told(environment: Mapping[str, str]) -> str:
    """Return a line that says where messages go, or how they come to go somewhere."""
    if address := environment.get(BLOCK):
        return f"{address} is told of failures, refusals and new champions"
    return f"nobody is told of failures: {BLOCK}=slack-webhook/NAME names a Prefect block (docs/monitoring.md)"


def _automation(name: str, reason: object, trigger: dict[str, Any], action: Action) -> Automation:
    words = " ".join((reason.__doc__ or "").split())
    return {"name": name, "description": words, "trigger": trigger, "actions": [action]}


def _of_runs(**facts: object) -> dict[str, Any]:
    """Return a trigger by what the server says of the states of this flow's runs."""
    return {
        "type": "event",
        "posture": "Reactive",
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
        "threshold": 1,
        **facts,
    }


def _of_event(event: str) -> dict[str, Any]:
    """Return a trigger by an event of flows/events.py."""
    return {"type": "event", "posture": "Reactive", "expect": [event], "threshold": 1}


def _days(text: str) -> float:
    try:
        days = float(text or DEFAULT_DAYS)
    except ValueError:
        days = 0.0
    if not 0 < days <= 10_000:
        raise InputError(f"{DAYS}={text!r} is not a number of days, as 7")
    return days

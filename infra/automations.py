"""What Prefect's server does by itself about runs: `python -m infra.automations` registers it, as often as one likes.

Each automation is a function that returns it. By its name it is found again: one that is there as it should be is left
alone, since an update would let every deadline that it watches begin anew. Whether it is switched on is for people to
say, in the UI.

Those that tell people send to the Prefect block that RETRAIN_NOTIFY_BLOCK names as TYPE/NAME, as slack-webhook/team;
docs/monitoring.md says which blocks there are, and how one is made.
"""

import json
import os
from collections.abc import Sequence
from datetime import timedelta

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.objects import BlockDocument
from prefect.events.actions import ActionTypes, CallWebhook, SendNotification
from prefect.events.schemas.automations import AutomationCore, EventTrigger, Posture
from prefect.events.schemas.events import ResourceSpecification
from prefect.exceptions import ObjectNotFound

from tasks.errors import InputError, run_command

FLOW = "retrain"
BLOCK = "RETRAIN_NOTIFY_BLOCK"
DAYS = "RETRAIN_NOTIFY_AFTER_DAYS"
DEFAULT_DAYS = 7.0
WEBHOOK = "webhook"
NOTIFY = "notify"

# A run that ended for a reason that may pass is started again within half a minute (infra/restart.py).
RESTART_PATIENCE = timedelta(minutes=3)

RUN_STATE = "prefect.flow-run."
SUCCESS = {f"{RUN_STATE}Completed", f"{RUN_STATE}Refused"}
GOES_ON = {f"{RUN_STATE}{name}" for name in ("AwaitingRetry", "Scheduled", "Late", "Pending", "Running")}

RUN_LINE = "{% if flow_run %}{{ flow_run.name }}: {{ (flow_run|ui_url) or flow_run.id }}{% endif %}"
STATE = "{% if flow_run %}{{ flow_run.state.name }}: {{ flow_run.state.message }}{% endif %}"
FACTS = "release {{ event.payload.release }}, {{ event.payload.headline }}, commit {{ event.payload.commit }}"


class Messenger:
    """Sends messages through one Prefect block.

    Args:
        document: The block's document; one of a type that can notify, or a webhook.

    Raises:
        InputError: It is of another type.
    """

    def __init__(self, document: BlockDocument) -> None:
        self._id = document.id
        self._is_webhook = document.block_type is not None and document.block_type.slug == WEBHOOK
        able = document.block_schema is not None and NOTIFY in document.block_schema.capabilities
        if not (able or self._is_webhook):
            raise InputError(f"the block {document.name} ({document.block_type_name}) sends no messages")

    def says(self, subject: str, body: str) -> ActionTypes:
        """Return the action that sends a message; subject and body are Jinja templates, as Prefect fills them.

        A webhook gets both as JSON: `{"subject": …, "text": …}`, which Slack and its like show.
        """
        if not self._is_webhook:
            return SendNotification(block_document_id=self._id, subject=subject, body=body)
        payload = "".join(
            f"{{% set {name} %}}{text}{{% endset %}}" for name, text in (("subject", subject), ("text", body))
        )
        payload += '{"subject": {{ subject|string|tojson }}, "text": {{ (subject ~ "\\n" ~ text)|string|tojson }}}'
        return CallWebhook(block_document_id=self._id, payload=payload)


def run_failed(messenger: Messenger) -> AutomationCore:
    """A run ended Failed: its input is wrong, or a stage's own error; it is not started again."""
    trigger = _of_runs(expect={f"{RUN_STATE}Failed"})
    text = messenger.says("retrain failed", f"{STATE}\n{RUN_LINE}")
    return AutomationCore(name="retrain: a run failed", description=_words(run_failed), trigger=trigger, actions=[text])


def run_given_up(messenger: Messenger, patience: timedelta = RESTART_PATIENCE) -> AutomationCore:
    """A run ended for a reason that may pass and was not started again: every try is spent, or no worker is there."""
    trigger = _of_runs(
        after={f"{RUN_STATE}Crashed", f"{RUN_STATE}Interrupted"},
        expect=GOES_ON,
        for_each={"prefect.resource.id"},
        posture=Posture.Proactive,
        within=patience,
    )
    text = messenger.says("retrain gave up", f"Nothing starts this run again.\n{STATE}\n{RUN_LINE}")
    return AutomationCore(
        name="retrain: a run was given up", description=_words(run_given_up), trigger=trigger, actions=[text]
    )


def run_died(messenger: Messenger) -> AutomationCore:
    """A run's process died, or was not heard of any more; it is started again by itself while there are tries left."""
    trigger = _of_runs(expect={f"{RUN_STATE}Crashed"})
    text = messenger.says(
        "retrain: a run died", f"It is started again, a bounded number of times.\n{STATE}\n{RUN_LINE}"
    )
    return AutomationCore(name="retrain: a run died", description=_words(run_died), trigger=trigger, actions=[text])


def champion_refused(messenger: Messenger) -> AutomationCore:
    """The gate refused a new release: it is published, and the champion stays."""
    trigger = _of_events("retrain.champion.refused")
    text = messenger.says(
        "retrain: no new champion", f"{{{{ event.payload.reasons|join('; ') }}}}\nrefused: {FACTS}\n{RUN_LINE}"
    )
    return AutomationCore(
        name="retrain: a release was refused", description=_words(champion_refused), trigger=trigger, actions=[text]
    )


def champion_changed(messenger: Messenger) -> AutomationCore:
    """A new release is champion."""
    trigger = _of_events("retrain.champion.changed")
    text = messenger.says(
        "retrain: a new champion",
        f"{FACTS}\nin the place of {{{{ event.payload.former or 'none' }}}}\n{RUN_LINE}",
    )
    return AutomationCore(
        name="retrain: a new champion", description=_words(champion_changed), trigger=trigger, actions=[text]
    )


def no_success(messenger: Messenger, within: timedelta = timedelta(days=DEFAULT_DAYS)) -> AutomationCore:
    """No run has succeeded for so long, whatever the reason: no schedule, no worker, only failures."""
    trigger = _of_runs(expect=SUCCESS, posture=Posture.Proactive, within=within)
    days = f"{within / timedelta(days=1):g}"
    text = messenger.says(f"retrain: no success for {days} days", f"No run has succeeded for {days} days.")
    return AutomationCore(name="retrain: no success", description=_words(no_success), trigger=trigger, actions=[text])


def messages(messenger: Messenger, days: float = DEFAULT_DAYS) -> list[AutomationCore]:
    """Return every automation that tells people; `days` without success are one of the reasons."""
    reasons = (run_failed, run_given_up, run_died, champion_refused, champion_changed)
    return [*(reason(messenger) for reason in reasons), no_success(messenger, timedelta(days=days))]


def without_messages() -> list[AutomationCore]:
    """Return every automation that is needed whether people are told or not."""
    return []


def register(wanted: Sequence[AutomationCore], client: SyncPrefectClient) -> list[str]:
    """Make or update automations so that there is one of each name, as wanted; return the names of those that were not.

    One that a person has switched off stays off.
    """
    changed = []
    for automation in wanted:
        found = client.read_automations_by_name(automation.name)
        for double in found[1:]:
            client.delete_automation(double.id)
        if not found:
            client.create_automation(automation)
        elif _essence(found[0]) != _essence(automation):
            # All of it but whose it is: Prefect sends what was set, and refuses an owner.
            kept = {**automation.model_dump(exclude={"owner_resource"}), "enabled": found[0].enabled}
            client.update_automation(found[0].id, AutomationCore.model_validate(kept))
        else:
            continue
        changed.append(automation.name)
    return changed


def find_messenger(address: str, client: SyncPrefectClient) -> Messenger:
    """Return the messenger of a block that is named as TYPE/NAME.

    Raises:
        InputError: It is named otherwise, there is none, or it sends no messages.
    """
    slug, _, name = address.partition("/")
    if not slug or not name or "/" in name:
        raise InputError(f"{BLOCK}={address!r} is not of the form TYPE/NAME, as slack-webhook/team")
    try:
        return Messenger(client.read_block_document_by_name(name, slug, include_secrets=False))
    except ObjectNotFound as error:
        raise InputError(
            f"{BLOCK}={address}: Prefect has no such block; `prefect block ls` lists those it has"
        ) from error


def _of_runs(**facts: object) -> EventTrigger:
    """Return a trigger by what the server says of the states of this flow's runs."""
    return EventTrigger.model_validate(
        {
            "match": ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            "match_related": ResourceSpecification(
                {"prefect.resource.role": "flow", "prefect.resource.name": FLOW},
            ),
            **facts,
        }
    )


def _of_events(event: str) -> EventTrigger:
    """Return a trigger by an event of flows/events.py."""
    return EventTrigger.model_validate({"expect": {event}})


def _words(automation: object) -> str:
    return (automation.__doc__ or "").strip()


def _essence(automation: AutomationCore) -> str:
    """Return what an automation does, without who made it, when, and whether it is switched on."""
    core = AutomationCore.model_validate(automation.model_dump(include=set(AutomationCore.model_fields)))
    values = core.model_dump(mode="json", exclude={"enabled", "owner_resource"})
    return json.dumps(values, sort_keys=True, default=str)


def _days() -> float:
    text = os.environ.get(DAYS, "")
    try:
        days = float(text or DEFAULT_DAYS)
    except ValueError:
        days = 0.0
    if not 0 < days < float("inf"):
        raise InputError(f"{DAYS}={text!r} is not a number of days, as 7")
    return days


def main() -> None:
    """Register what belongs to this flow with the server of PREFECT_API_URL, and say in a line who is told."""

    def run() -> None:
        address = os.environ.get(BLOCK, "")
        with get_client(sync_client=True) as client:
            wanted = without_messages()
            if address:
                wanted += messages(find_messenger(address, client), _days())
            register(wanted, client)
        if address:
            print(f"messages    failures, refusals, new champions: to {address}")
        else:
            print(f"messages    none; {BLOCK}=slack-webhook/NAME sends them to a Prefect block: docs/monitoring.md")

    run_command("automations", run)


if __name__ == "__main__":
    main()

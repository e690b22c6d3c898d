"""The automations on a real Prefect server: each one's message arrives, in words that a person can act on."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.settings import PREFECT_API_URL, temporary_settings

from infra.automations import find_messenger, main, messages, no_success, register, run_given_up
from infra.local.prefect_server import PrefectServer
from tasks.errors import InputError
from tests.fixtures import prefect_api
from tests.fixtures.message_sink import MessageSink

SHORTEST = timedelta(seconds=10)  # that Prefect waits for what does not come
PAYLOAD = {
    "release": "0123456789abcdef",
    "former": "fedcba9876543210",
    "headline": "top-1 90.12%",
    "commit": "7fa83a7",
    "reasons": ['top-1 is below "the floor"', "class cat is worse"],
}


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    """Yield a client of the server, which forgets the automations afterwards."""
    address = {PREFECT_API_URL: prefect_server.environment["PREFECT_API_URL"]}
    with temporary_settings(address), get_client(sync_client=True) as opened:
        yield opened
        for automation in opened.read_automations():
            opened.delete_automation(automation.id)


def make_block(client: SyncPrefectClient, slug: str, data: dict[str, Any]) -> str:
    """Save a block, as the UI's form does; return its address."""
    name = f"team-{uuid.uuid4().hex[:8]}"
    block_type = client.read_block_type_by_slug(slug)
    schema = client.get_most_recent_block_schema_for_block_type(block_type.id)
    assert schema is not None
    body = {"name": name, "data": data, "block_schema_id": str(schema.id), "block_type_id": str(block_type.id)}
    client.request("POST", "/block_documents/", json=body).raise_for_status()
    return f"{slug}/{name}"


def webhook(client: SyncPrefectClient, sink: MessageSink) -> str:
    return make_block(client, "webhook", {"url": sink.url})


def run_of(api: str, flow: str, *states: tuple[str, str, str]) -> None:
    """Make a flow run go through states (type, name, message), as the engine or a worker reports them."""
    identity = prefect_api.ask(api, "flows/", {"name": flow})["id"]
    run = prefect_api.ask(api, "flow_runs/", {"flow_id": identity, "name": f"{flow}-run"})["id"]
    for kind, name, message in states:
        state = {"type": kind, "name": name, "message": message}
        prefect_api.ask(api, f"flow_runs/{run}/set_state", {"state": state, "force": True})


def send_event(client: SyncPrefectClient, event: str) -> None:
    resource = {"prefect.resource.id": "retrain.channel.retrain/models/champion"}
    body = {"event": event, "occurred": "2026-01-01T00:00:00Z", "resource": resource, "payload": PAYLOAD}
    body |= {"id": str(uuid.uuid4())}
    client.request("POST", "/events", json=[body]).raise_for_status()


def test_every_reason_has_its_message(
    client: SyncPrefectClient, prefect_server: PrefectServer, message_sink: MessageSink
) -> None:
    block = make_block(
        client,
        "custom-webhook",
        {"name": "team", "url": message_sink.url, "json_data": {"text": "{{subject}}\n{{body}}"}},
    )
    messenger = find_messenger(block, client)
    wanted = [
        each for each in messages(messenger) if each.name not in {"retrain: no success", "retrain: a run was given up"}
    ]
    wanted += [no_success(messenger, SHORTEST), run_given_up(messenger, SHORTEST)]
    assert len({each.name for each in wanted}) == len(messages(messenger))
    register(wanted, client)
    api = f"{prefect_server.url}/api"
    run_of(api, "another", ("FAILED", "Failed", "somebody else's"))
    run_of(api, "retrain", ("FAILED", "Failed", "stage download failed: no such recipe"))
    run_of(api, "retrain", ("CRASHED", "Crashed", "no heartbeat"), ("SCHEDULED", "AwaitingRetry", "again"))
    run_of(api, "retrain", ("FAILED", "Interrupted", "S3 is away"))
    for event in ("retrain.champion.refused", "retrain.champion.changed"):
        send_event(client, event)

    failed = message_sink.wait_for("retrain failed")
    assert "Failed: stage download failed: no such recipe" in failed
    assert f"retrain-run: {prefect_server.url}/runs/flow-run/" in failed
    assert "Crashed: no heartbeat" in message_sink.wait_for("a run died")
    refused = message_sink.wait_for("no new champion")
    assert 'top-1 is below "the floor"; class cat is worse' in refused
    assert "release 0123456789abcdef, top-1 90.12%, commit 7fa83a7" in refused
    assert "in the place of fedcba9876543210" in message_sink.wait_for("a new champion", "0123456789abcdef")
    assert "Interrupted: S3 is away" in message_sink.wait_for("gave up")
    assert "No run has succeeded for" in message_sink.wait_for("no success")
    texts = [message["text"] for message in message_sink.received]
    assert not [text for text in texts if "somebody else's" in text]
    assert not [text for text in texts if "gave up" in text and "no heartbeat" in text]


def test_a_webhook_block_gets_json_that_slack_shows(client: SyncPrefectClient, message_sink: MessageSink) -> None:
    register(messages(find_messenger(webhook(client, message_sink), client)), client)
    send_event(client, "retrain.champion.refused")
    assert 'top-1 is below "the floor"' in message_sink.wait_for("retrain: no new champion\n")


def test_registering_again_lets_deadlines_run_and_what_is_off_stay_off(
    client: SyncPrefectClient, message_sink: MessageSink
) -> None:
    messenger = find_messenger(webhook(client, message_sink), client)
    names = register(messages(messenger), client)
    assert register(messages(messenger), client) == []
    found = client.read_automations_by_name("retrain: no success")
    client.pause_automation(found[0].id)
    assert register(messages(messenger, days=2), client) == ["retrain: no success"]
    (changed,) = client.read_automations_by_name("retrain: no success")
    assert changed.id == found[0].id
    assert not changed.enabled
    assert changed.trigger.within == timedelta(days=2)  # type: ignore[union-attr]
    assert sorted(each.name for each in client.read_automations()) == sorted(names)


def test_a_block_that_cannot_send_is_refused_in_a_sentence(client: SyncPrefectClient) -> None:
    with pytest.raises(InputError, match="not of the form TYPE/NAME"):
        find_messenger("team", client)
    with pytest.raises(InputError, match="Prefect has no such block"):
        find_messenger("slack-webhook/nobody", client)
    with pytest.raises(InputError, match="sends no messages"):
        find_messenger(make_block(client, "secret", {"value": "x"}), client)


def test_the_command_says_who_is_told(
    client: SyncPrefectClient,
    message_sink: MessageSink,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    main()
    assert "none; RETRAIN_NOTIFY_BLOCK=slack-webhook/NAME" in capsys.readouterr().out
    assert client.read_automations_by_name("retrain: no success") == []
    block = webhook(client, message_sink)
    monkeypatch.setenv("RETRAIN_NOTIFY_BLOCK", block)
    monkeypatch.setenv("RETRAIN_NOTIFY_AFTER_DAYS", "3")
    main()
    assert f"to {block}" in capsys.readouterr().out
    (found,) = client.read_automations_by_name("retrain: no success")
    assert "No run has succeeded for 3 days" in str(found.actions)
    monkeypatch.setenv("RETRAIN_NOTIFY_AFTER_DAYS", "soon")
    with pytest.raises(SystemExit, match="2"):
        main()
    words = "automations: RETRAIN_NOTIFY_AFTER_DAYS='soon' is not a number of days, as 7\n"
    assert capsys.readouterr().err == words

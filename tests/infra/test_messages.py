"""The messages on a real Prefect server: each reason's arrives, in words that a person can act on."""

import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import pytest

from infra.automations import main, register
from infra.local.prefect_server import PrefectServer
from infra.messages import (
    champion_changed,
    champion_refused,
    find_messenger,
    messages,
    no_success,
    run_died,
    run_failed,
    run_given_up,
)
from infra.prefect_api import PrefectAPI
from tasks.stage.errors import InputError
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
def api(prefect_server: PrefectServer) -> Iterator[PrefectAPI]:
    """Yield the server's API; the automations of the test are removed afterwards."""
    api = PrefectAPI.from_environment(prefect_server.environment)
    yield api
    for automation in api.post("automations/filter", {}):
        api.ask("DELETE", f"automations/{automation['id']}")


def make_block(api: PrefectAPI, slug: str, data: dict[str, Any]) -> str:
    """Save a block, as the UI's form does; return its address."""
    name = f"team-{uuid.uuid4().hex[:8]}"
    kind = api.get(f"block_types/slug/{slug}")["id"]
    (schema, *_) = api.post("block_schemas/filter", {"block_schemas": {"block_type_id": {"any_": [kind]}}})
    api.post("block_documents/", {"name": name, "data": data, "block_schema_id": schema["id"], "block_type_id": kind})
    return f"{slug}/{name}"


def webhook(api: PrefectAPI, sink: MessageSink) -> str:
    return make_block(api, "webhook", {"url": sink.url})


def run_of(api: PrefectAPI, flow: str, *states: tuple[str, str, str]) -> None:
    """Make a flow run go through states (type, name, message), as the engine or a worker reports them."""
    flow_id = api.post("flows/", {"name": flow})["id"]
    run = api.post("flow_runs/", {"flow_id": flow_id, "name": f"{flow}-run"})["id"]
    for kind, name, message in states:
        state = {"type": kind, "name": name, "message": message}
        api.post(f"flow_runs/{run}/set_state", {"state": state, "force": True})


def send_event(api: PrefectAPI, event: str) -> None:
    resource = {"prefect.resource.id": "retrain.channel.retrain/models/champion"}
    body = {"event": event, "occurred": "2026-01-01T00:00:00Z", "resource": resource, "payload": PAYLOAD}
    api.post("events", [body | {"id": str(uuid.uuid4())}])


def test_every_reason_has_its_message(
    api: PrefectAPI, prefect_server: PrefectServer, message_sink: MessageSink
) -> None:
    form = {"name": "team", "url": message_sink.url, "json_data": {"text": "{{subject}}\n{{body}}"}}
    messenger = find_messenger(api, make_block(api, "custom-webhook", form))
    wanted = [reason(messenger) for reason in (run_failed, run_died, champion_refused, champion_changed)]
    wanted += [no_success(messenger, SHORTEST), run_given_up(messenger, SHORTEST)]
    assert {each["name"] for each in wanted} == {each["name"] for each in messages(messenger)}
    register(api, wanted)
    run_of(api, "another", ("FAILED", "Failed", "somebody else's"))
    run_of(api, "retrain", ("FAILED", "Failed", "stage download failed: no such recipe"))
    run_of(api, "retrain", ("CRASHED", "Crashed", "no heartbeat"), ("SCHEDULED", "AwaitingRetry", "again"))
    run_of(api, "retrain", ("FAILED", "Interrupted", "S3 is away"))
    for event in ("retrain.champion.refused", "retrain.champion.changed"):
        send_event(api, event)

    failed = message_sink.wait_for("a run failed")
    assert "Failed: stage download failed: no such recipe" in failed
    assert f"retrain-run: {prefect_server.url}/runs/flow-run/" in failed
    assert "Crashed: no heartbeat" in message_sink.wait_for("a run died")
    refused = message_sink.wait_for("was refused")
    assert 'top-1 is below "the floor"; class cat is worse' in refused
    assert "release 0123456789abcdef, top-1 90.12%, commit 7fa83a7" in refused
    assert "in the place of fedcba9876543210" in message_sink.wait_for("a new champion", "0123456789abcdef")
    assert "Interrupted: S3 is away" in message_sink.wait_for("was given up")
    message_sink.wait_for("no run has succeeded for")
    texts = [message["text"] for message in message_sink.received]
    assert not [text for text in texts if "somebody else's" in text]
    assert not [text for text in texts if "given up" in text and "no heartbeat" in text]


def test_a_webhook_block_gets_json_that_slack_shows(api: PrefectAPI, message_sink: MessageSink) -> None:
    register(api, messages(find_messenger(api, webhook(api, message_sink))))
    send_event(api, "retrain.champion.refused")
    assert 'top-1 is below "the floor"' in message_sink.wait_for("retrain: a release was refused\n")


def test_registering_again_lets_deadlines_run_and_what_is_off_stay_off(
    api: PrefectAPI, message_sink: MessageSink
) -> None:
    messenger = find_messenger(api, webhook(api, message_sink))
    names = register(api, messages(messenger))
    before = api.post("automations/filter", {})
    assert register(api, messages(messenger)) == []
    assert api.post("automations/filter", {}) == before
    deadline = next(each["id"] for each in before if each["name"] == "retrain: no success")
    api.ask("PATCH", f"automations/{deadline}", {"enabled": False})
    assert register(api, messages(messenger, days=2)) == ["retrain: no success"]
    changed = api.get(f"automations/{deadline}")
    assert (changed["enabled"], changed["trigger"]["within"]) == (False, 172_800)
    assert sorted(each["name"] for each in api.post("automations/filter", {})) == sorted(names)


def test_a_block_that_cannot_send_is_refused_in_a_sentence(api: PrefectAPI) -> None:
    with pytest.raises(InputError, match="not of the form TYPE/NAME"):
        find_messenger(api, "team")
    with pytest.raises(InputError, match="Prefect has no such block"):
        find_messenger(api, "slack-webhook/nobody")
    with pytest.raises(InputError, match="sends no messages"):
        find_messenger(api, make_block(api, "secret", {"value": "x"}))


def test_the_command_says_who_is_told(
    api: PrefectAPI,
    prefect_server: PrefectServer,
    message_sink: MessageSink,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("PREFECT_API_URL", "PREFECT_API_AUTH_STRING"):
        monkeypatch.setenv(name, prefect_server.environment[name])
    main()
    assert "nobody is told of failures: RETRAIN_NOTIFY_BLOCK=slack-webhook/NAME" in capsys.readouterr().out
    assert "retrain: no success" not in str(api.post("automations/filter", {}))
    block = webhook(api, message_sink)
    monkeypatch.setenv("RETRAIN_NOTIFY_BLOCK", block)
    monkeypatch.setenv("RETRAIN_NOTIFY_AFTER_DAYS", "3")
    main()
    assert f"{block} is told" in capsys.readouterr().out
    assert "no run has succeeded for 3 days" in str(api.post("automations/filter", {}))
    monkeypatch.setenv("RETRAIN_NOTIFY_AFTER_DAYS", "soon")
    with pytest.raises(InputError, match="RETRAIN_NOTIFY_AFTER_DAYS='soon' is not a number of days"):
        main()

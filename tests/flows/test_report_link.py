"""The link to a report, opened against a real S3 server, and its renewal in a real Prefect server's artifacts."""

import re
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import ArtifactCreate
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

from flows.report_link import link_text, renew_links
from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from tasks.registry.releases import publish_release
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tests.fixtures.buckets import new_bucket, write_release

PAGE = "<!DOCTYPE html><title>the report</title>"


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return new_bucket(object_store)


@pytest.fixture
def client(prefect_server: PrefectServer) -> Iterator[SyncPrefectClient]:
    settings = {name: prefect_server.environment[name.name] for name in (PREFECT_API_URL, PREFECT_API_AUTH_STRING)}
    with temporary_settings(settings), get_client(sync_client=True) as opened:
        yield opened


def publish(bucket: Store, folder: Path) -> str:
    folder.mkdir()
    (folder / "report.html").write_text(PAGE)
    return publish_release(bucket, folder, write_release(folder, "one")).id


def url_of(text: str | None) -> str:
    match = re.fullmatch(r".*\[the full report\]\(([^()\s]+)\).*", text or "", re.DOTALL)
    assert match, text
    return match[1]


def test_it_opens_as_a_page_without_credentials(bucket: Store, tmp_path: Path) -> None:
    url = url_of(link_text(bucket, publish(bucket, tmp_path / "release")))
    assert "X-Amz-Expires=604800" in url
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.headers["Content-Type"] == "text/html; charset=utf-8"
        assert answer.headers["Content-Disposition"] == "inline"
        assert answer.read().decode() == PAGE
    with pytest.raises(urllib.error.HTTPError, match="403"):
        urllib.request.urlopen(url.replace("report.html", "metrics.json"), timeout=10)  # noqa: S310


def test_none_where_it_is_not_wanted_or_there_is_no_report(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert link_text(bucket, "0" * 16) is None
    release = publish(bucket, tmp_path / "release")
    monkeypatch.setenv("RETRAIN_REPORT_LINK_DAYS", "0")
    assert link_text(bucket, release) is None
    monkeypatch.setenv("RETRAIN_REPORT_LINK_DAYS", "8")
    with pytest.raises(InputError, match="not a number of days from 0 to 7"):
        link_text(bucket, release)


def test_browsers_may_know_the_store_by_another_address(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RETRAIN_REPORT_ENDPOINT", "https://s3.example.org")
    url = url_of(link_text(bucket, publish(bucket, tmp_path / "release")))
    assert url.startswith(f"https://s3.example.org/retrain/{bucket.prefix}/releases/")


def test_old_links_are_renewed_and_nothing_else_is_signed(
    bucket: Store, client: SyncPrefectClient, tmp_path: Path
) -> None:
    key = bucket.prefix.replace("/", "-")
    url = url_of(link_text(bucket, publish(bucket, tmp_path / "release")))
    old = re.sub(r"X-Amz-Date=\d+", "X-Amz-Date=20250101", url)
    texts = {
        "old": f"before [the full report]({old}) after",
        "young": f"[the full report]({url})",
        "another file": f"[the full report]({old.replace('report.html', 'model.keras')})",
        "none": "no link",
    }
    made = {
        name: client.create_artifact(ArtifactCreate(key=key, type="markdown", data=text, description=name))
        for name, text in texts.items()
    }
    assert renew_links(bucket, client, key) == 1
    found = {artifact.id: artifact for artifact in client.read_artifacts(limit=200)}
    assert {name: found[artifact.id].data for name, artifact in made.items() if name != "old"} == {
        name: text for name, text in texts.items() if name != "old"
    }
    renewed = str(found[made["old"].id].data)
    assert renewed.startswith("before ")
    assert renewed.endswith(" after")
    with urllib.request.urlopen(url_of(renewed), timeout=10) as answer:  # noqa: S310 - loopback
        assert answer.read().decode() == PAGE

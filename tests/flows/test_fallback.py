import http.server
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from flows.fallback import DOWNLOADS, RAW, RECORD, probe, reachable_data
from flows.overrides import apply_overrides
from infra.local.process import free_port
from tasks.params.address import DOWNLOAD_URL
from tasks.params.params import load_params
from tasks.stage.errors import InputError
from tests.fixtures.dvc_project import REPOSITORY


class Host(http.server.BaseHTTPRequestHandler):
    """Answers /archive, and nothing else."""

    def do_GET(self) -> None:
        self.send_response(206 if self.path == "/archive" else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Keep the test's output clean."""


@pytest.fixture
def host() -> Iterator[str]:
    """Yield the address of an archive on a host that answers."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/archive"
        server.shutdown()


@pytest.fixture
def dead() -> str:
    """Return an address at which nothing listens."""
    return f"http://127.0.0.1:{free_port()}/archive"


class Person:
    """Somebody who types `make run` again and again in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.heard: list[str] = []
        (folder / "params.yaml").write_bytes((REPOSITORY / "params.yaml").read_bytes())

    def run(self, **given: object) -> None:
        """Set what `make run` would set."""
        self.heard.clear()
        values = reachable_data({key.replace("__", "."): value for key, value in given.items()}, self.folder, self.say)
        apply_overrides(values, self.folder / "params.yaml")

    def say(self, sentence: str) -> None:
        self.heard.append(sentence)

    def set(self, key: str, value: object) -> None:
        """Edit params.yaml by hand."""
        apply_overrides({key: value}, self.folder / "params.yaml")

    @property
    def parameters(self) -> str:
        return (self.folder / "params.yaml").read_text()

    @property
    def is_on_digits(self) -> bool:
        return "dataset: digits" in self.parameters and "recipe: digits" in self.parameters


@pytest.fixture
def person(tmp_path: Path) -> Person:
    return Person(tmp_path)


def test_host_that_answers_changes_nothing(person: Person, host: str) -> None:
    person.set("download.url", host)
    before = person.parameters
    person.run()
    assert person.parameters == before
    assert person.heard == []


def test_dead_hosts_mean_digits_in_plain_words_without_credentials(
    person: Person, dead: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOWNLOAD_URL, dead.replace("://", "://user:secret@"))
    person.run()
    assert person.is_on_digits
    text = " ".join(person.heard)
    assert "does not answer" in text
    assert "NOT CIFAR-10" in text
    assert "secret" not in text


def test_a_host_that_answers_again_is_named_without_credentials(
    person: Person, dead: str, host: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(DOWNLOAD_URL, dead)
    person.run()
    monkeypatch.setenv(DOWNLOAD_URL, host.replace("://", "://user:secret@"))
    person.run()
    assert not person.is_on_digits
    assert "answers again" in person.heard[0]
    assert "secret" not in person.heard[0]


def test_one_host_of_two_is_enough(person: Person, host: str, dead: str) -> None:
    person.set("download.url", [dead, host])
    person.run()
    assert not person.is_on_digits


def test_it_goes_back_when_the_host_answers_again(person: Person, host: str, dead: str) -> None:
    person.set("download.url", dead)
    person.run()
    person.run()
    assert person.is_on_digits
    assert person.heard
    person.set("download.url", host)
    person.run()
    assert "dataset: cifar10" in person.parameters
    assert "recipe: fast" in person.parameters
    assert "answers again" in person.heard[0]
    person.run()
    assert person.heard == []


def test_it_goes_back_from_what_an_older_fallback_set(person: Person, host: str, dead: str) -> None:
    person.set("evaluate.test_time_augmentation", "mirror")
    person.set("download.url", dead)
    person.run()
    assert "test_time_augmentation: auto " in person.parameters
    person.set("evaluate.test_time_augmentation", "none")
    person.set("download.url", host)
    person.run()
    assert "dataset: cifar10" in person.parameters
    assert "test_time_augmentation: mirror " in person.parameters


def test_it_goes_back_to_a_mirror_that_is_given(person: Person, dead: str) -> None:
    person.set("download.url", dead)
    person.run()
    person.run(download__url="file:///mirror/archive.tar.gz")
    assert "dataset: cifar10" in person.parameters
    assert "recipe: fast" in person.parameters


def test_what_the_person_sets_stays(person: Person, dead: str) -> None:
    person.set("download.url", dead)
    person.run(train__recipe="seed")
    assert "dataset: digits" in person.parameters
    assert "recipe: seed" in person.parameters
    person.run(download__dataset="cifar10")
    assert "dataset: cifar10" in person.parameters


def test_what_names_classes_or_releases_of_the_data_set_comes_back_with_it(
    person: Person, host: str, dead: str
) -> None:
    person.set("download.url", dead)
    person.set("evaluate.costs", {"cat": 5})
    person.set("train.start", "0123456789abcdef")
    person.set("train.shrink_perturb", {"shrink": 0.4, "perturb": 0.1})
    before = load_params(person.folder / "params.yaml")
    person.run()
    assert person.is_on_digits
    params = load_params(person.folder / "params.yaml")
    assert (params.evaluate.costs, params.train.start, params.train.shrink_perturb) == ({}, "scratch", None)
    person.run(download__url=host)
    after = load_params(person.folder / "params.yaml")
    assert (after.evaluate, after.train) == (before.evaluate, before.train)


def test_person_who_chose_digits_keeps_them(person: Person, host: str) -> None:
    person.set("download.url", host)
    person.set("download.dataset", "digits")
    person.set("train.recipe", "digits")
    person.run()
    assert person.is_on_digits
    assert person.heard == []


def test_edit_after_the_fallback_is_not_undone(person: Person, host: str, dead: str) -> None:
    person.set("download.url", dead)
    person.run()
    person.set("train.recipe", "seed")
    person.set("download.url", host)
    person.run()
    assert "dataset: digits" in person.parameters
    assert "recipe: seed" in person.parameters


@pytest.mark.parametrize("where", ["raw", "cache"])
def test_archive_that_is_there_needs_no_host(person: Person, dead: str, where: str) -> None:
    person.set("download.url", dead)
    sha256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
    if where == "raw":
        (person.folder / RAW).mkdir(parents=True)
        (person.folder / RAW / "source.json").write_text(json.dumps({"sha256": sha256}))
    else:
        (person.folder / DOWNLOADS).mkdir(parents=True)
        (person.folder / DOWNLOADS / sha256).touch()
    person.run()
    assert not person.is_on_digits


@pytest.mark.parametrize("url", ["file:///nowhere/archive.tar.gz", "s3://bucket/archive.tar.gz"])
def test_mirror_that_is_no_web_host_is_never_replaced(person: Person, url: str) -> None:
    person.set("download.url", url)
    person.run()
    assert not person.is_on_digits


def test_unknown_key_is_named_and_nothing_noted(person: Person) -> None:
    before = person.parameters
    with pytest.raises(InputError, match="recipy"):
        person.run(train__recipy="seed")
    assert person.parameters == before
    assert not (person.folder / RECORD).exists()


def test_page_that_is_not_there_is_no_answer(host: str) -> None:
    assert probe(host) is None
    assert "404" in (probe(host + "s") or "")

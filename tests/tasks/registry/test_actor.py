"""Histories name a person or a runner, and nothing else of the environment."""

import getpass
import socket

import pytest

from tasks.registry.actor import LONGEST, current_actor


def test_it_is_the_user_and_the_host() -> None:
    assert current_actor({}) == f"{getpass.getuser()}@{socket.gethostname()}"


@pytest.mark.parametrize("name", ["RETRAIN_ACTOR", "GITHUB_ACTOR", "GITLAB_USER_LOGIN"])
def test_a_runner_says_who_it_is(name: str) -> None:
    assert current_actor({name: "ann", "AWS_SECRET_ACCESS_KEY": "PLANTED"}) == "ann"


def test_what_a_person_chose_comes_first() -> None:
    assert current_actor({"GITHUB_ACTOR": "bot", "RETRAIN_ACTOR": "ann"}) == "ann"
    assert current_actor({"RETRAIN_ACTOR": ""}) == current_actor({})


def test_it_is_one_short_line() -> None:
    assert current_actor({"RETRAIN_ACTOR": "a\nb\x1b[1mc" + "x" * 1000}) == ("ab[1mc" + "x" * 1000)[:LONGEST]


def test_a_user_without_a_name_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", nameless)
    assert current_actor({}).partition("@")[0].isdecimal()

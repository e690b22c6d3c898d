"""Which release a run begins from: the champion, and yet never a reason to train where nothing came."""

from typing import Any

import pytest

from tasks.params.params import Params, load_params, parse_params
from tasks.registry.manifest import Manifest
from tasks.registry.start import choose_start
from tests.fixtures.published import PARAMS_FILE

CHAMPION = "c" * 16


def params(start: str = "champion", pin: str | None = "d" * 64, **download: Any) -> Params:
    values = load_params(PARAMS_FILE).model_dump(mode="json")
    values["train"]["start"] = start
    values["download"] |= {"sha256": pin, **download}
    return parse_params(values, "params.yaml")


def made_by(parameters: Params, release: str | None = None, identity: str = CHAMPION) -> Manifest:
    """Return as much of a release's manifest as is asked, of a run that began from `release`."""
    values = parameters.used()
    values["weights"]["release"] = release
    return Manifest.model_construct(id=identity, parameters=values)


def test_without_a_champion_it_is_scratch_in_one_line() -> None:
    chosen = choose_start(None, params())
    assert (chosen.release, chosen.sentence) == (None, "training starts from scratch: there is no champion yet")


def test_what_a_person_has_said_stays() -> None:
    assert choose_start(made_by(params()), params("scratch")).release is None
    assert choose_start(made_by(params()), params("a" * 16)).release == "a" * 16


@pytest.mark.parametrize("start", ["scratch", "a" * 16, None])
def test_a_champion_that_began_otherwise_is_begun_from_once_on_the_same_data_too(start: str | None) -> None:
    champion = made_by(params(start or "scratch"))
    if start is None:  # of a release from before there was a choice
        del champion.parameters["train"]["start"]
        del champion.parameters["weights"]
    chosen = choose_start(champion, params())
    assert (chosen.release, chosen.sentence) == (CHAMPION, f"training starts from the champion {CHAMPION}")


def test_other_data_are_begun_from_the_champion_and_the_same_where_the_champion_began() -> None:
    champion = made_by(params(), "b" * 16)
    assert choose_start(champion, params(pin="e" * 64)).release == CHAMPION
    assert choose_start(champion, params()).release == "b" * 16
    assert choose_start(made_by(params(), None), params()).release is None, "the first champion began from scratch"


def test_data_without_a_hash_are_told_by_their_addresses() -> None:
    unpinned: dict[str, Any] = {"pin": None, "url": ["file:///a.tar"]}
    champion = made_by(params(**unpinned), "b" * 16)
    assert choose_start(champion, params(**unpinned)).release == "b" * 16
    assert choose_start(champion, params(**{**unpinned, "url": ["file:///b.tar"]})).release == CHAMPION


@pytest.mark.parametrize("promoted", [True, False])
def test_nights_on_which_nothing_came_train_nothing_and_every_arrival_trains_once(promoted: bool) -> None:
    """Each night as a run does it: the pin is chosen, and equal parameters are the run that was there before."""
    champion: Manifest | None = None
    trained: list[tuple[str, str | None]] = []
    for night in "dddeeeddff":
        data = params(pin=night * 64)
        made = (night, choose_start(champion, data).release)
        if made not in trained:
            trained.append(made)
            if promoted or champion is None:
                champion = made_by(data, made[1], identity=f"{len(trained):016x}")
    one, two, three = (f"{number:016x}" for number in (1, 2, 3))
    if promoted:
        assert trained == [("d", None), ("e", one), ("d", two), ("f", three)]
    else:  # the first champion stays, and was made of the first data
        assert trained == [("d", None), ("e", one), ("f", one)]

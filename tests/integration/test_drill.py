"""The drill's short form: the worst that can happen, on real servers. `make drill` has all of it (tests/drill)."""

from collections.abc import Iterator

import pytest

from tests.drill.__main__ import rehearse, undisturbed_release
from tests.drill.scenarios import DRILLS
from tests.drill.site import PARAMETERS, Site

SHORT_FORM = ("power_cut",)
SHORTER = (*PARAMETERS, "recipes.digits.epochs=16")  # time enough for what interrupts at the first checkpoint


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    site = Site(tmp_path_factory.mktemp("drilled"), SHORTER)
    try:
        site.up()
        site.deploy()
        yield site
    finally:
        site.down()


@pytest.fixture(scope="module")
def undisturbed(site: Site) -> str:
    return undisturbed_release(site)


@pytest.mark.parametrize("name", SHORT_FORM)
def test_what_dies_comes_back_and_ends_in_the_release_of_an_undisturbed_run(
    site: Site, undisturbed: str, name: str
) -> None:
    states = rehearse(site, name, DRILLS[name], undisturbed)
    assert {"Crashed", "Running"} < set(states)
    assert states[-1] == "Completed"

"""The object store is killed and started again: what it had acknowledged is there, and who was at work goes on."""

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.store import Store
from tasks.s3.client import connect
from tests.fixtures.killed_store import kill_store
from tests.soak.storm import Storm, Weather


@pytest.fixture(scope="module")
def own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectStore]:
    store = ObjectStore(tmp_path_factory.mktemp("own"))
    store.start()
    yield store
    store.stop()


def test_what_was_acknowledged_is_there_after_a_kill_in_mid_write(own_store: ObjectStore) -> None:
    bucket = Store(connect(own_store.environment), own_store.bucket, "kill")
    bucket.learn_conditions()
    acknowledged: list[int] = []
    enough = threading.Event()

    def write() -> None:
        while not enough.is_set():
            number = len(acknowledged)
            bucket.write(f"objects/{number}", body(number), replacing=None)
            acknowledged.append(number)

    writer = threading.Thread(target=write)
    writer.start()
    for target in (100, 200):
        wait_until(lambda: len(acknowledged) >= target or not writer.is_alive())  # noqa: B023
        kill_store(own_store)
        own_store.start()
    wait_until(lambda: len(acknowledged) >= 220 or not writer.is_alive())
    enough.set()
    writer.join()
    assert len(acknowledged) >= 220
    for number in acknowledged:
        stored = bucket.read(f"objects/{number}")
        assert stored is not None, number
        assert stored.body == body(number)


def body(number: int) -> bytes:
    return f"{number} ".encode() * 1000


def wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def test_publishers_and_readers_survive_kills_of_the_store(own_store: ObjectStore, tmp_path: Path) -> None:
    weather = Weather(seed=3, publications=24, kills=2, store_kills=2)
    report = Storm(own_store, "storm", weather, tmp_path).run()
    assert report.problems == []
    assert report.publications == 24

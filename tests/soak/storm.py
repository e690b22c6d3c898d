"""Many publishers and readers at once, on a network that fails, some killed, the store too; then the audit.

Who publishes what, which request meets which fault, and who is killed where, all follow from the seed. Which publisher
is how fast does not.
"""

import multiprocessing
import random
import time
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.connection import wait
from pathlib import Path
from typing import Any

from infra.local.object_store import ObjectStore
from tasks.registry.store import Store
from tasks.s3.client import connect
from tasks.stage.files import read_json
from tests.fixtures.faults import Kill, Moment, SeededPlan
from tests.fixtures.faulty_s3 import FaultyS3
from tests.fixtures.killed_store import kill_store
from tests.soak.audit import audit, passed_over
from tests.soak.gate import passes
from tests.soak.publisher import PATIENCE_SECONDS, Place, Publication, publish
from tests.soak.reader import read

# Processes are forked from one that has imported all this and runs no threads.
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["tests.soak.publisher", "tests.soak.reader", "scipy.stats"])

PUBLISHED, REFUSED, KILLED = 0, 2, -9
REQUESTS = 16  # of a publication without faults, at least
MOMENTS: tuple[Moment, ...] = ("before", "during", "after")
ROUNDS = 4  # in which what was killed or refused is published again; in the last one the network is sound
MAX_SECONDS = 400.0


@dataclass(frozen=True)
class Weather:
    """How bad it is.

    Attributes:
        seed: Of everything that is drawn.
        publications: How many releases.
        kills: How many of their publishers are killed, at a random request each.
        fault_rate: Share of all requests that go wrong.
        store_kills: How often the store is killed and started again, spread over the publications.
        publishers: How many at once.
        readers: How many at once.
    """

    seed: int
    publications: int
    kills: int = 0
    fault_rate: float = 0.0
    store_kills: int = 0
    publishers: int = 8
    readers: int = 1


@dataclass
class Report:
    """What happened.

    Attributes:
        publications: Releases that were published in the end.
        killed: Publishers that were killed.
        refused: Publishers that ended on a sentence.
        pulled: Pulls that were verified.
        pulls_refused: Pulls that ended on a sentence and left the old copy.
        faults: How often each kind was met.
        problems: What must not be, in sentences; empty where all is well.
    """

    publications: int = 0
    killed: int = 0
    refused: int = 0
    pulled: int = 0
    pulls_refused: int = 0
    faults: "Counter[str]" = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def line(self) -> str:
        """Return it in a line."""
        faults = ", ".join(f"{count} {kind}" for kind, count in sorted(self.faults.items())) or "none"
        return (
            f"{self.publications} published, {self.killed} killed, {self.refused} refused and repeated; "
            f"{self.pulled} pulls verified, {self.pulls_refused} refused; faults: {faults}; "
            f"{len(self.problems)} problems"
        )


class Storm:
    """One storm over one store.

    Args:
        store: Running; it is killed and started again where the weather says so.
        prefix: Of the bucket, which nothing else uses.
        weather: How bad it is.
        folder: An empty one, for releases, copies and logs.
        say: Gets a line now and then.
    """

    def __init__(
        self, store: ObjectStore, prefix: str, weather: Weather, folder: Path, say: Callable[[str], None] = print
    ) -> None:
        self._store, self._weather, self._folder, self._say = store, weather, folder, say
        self._bucket = Store(connect(store.environment), store.bucket, prefix)
        self._chance = random.Random(weather.seed)  # noqa: S311  not a secret
        self._publications = [self._draw(number) for number in range(weather.publications)]
        self._proxy = FaultyS3(
            store, SeededPlan(weather.seed, weather.fault_rate, timeout_seconds=2 * PATIENCE_SECONDS)
        )
        self._proxy.kills = self._draw_kills()
        self._place = Place(self._proxy.environment, store.bucket, prefix, folder)
        self._acknowledged: set[str] = set()
        self._report = Report()

    def run(self) -> Report:
        """Let it blow, publish again what did not get through, and look at what is left."""
        names = [f"reader-{number}" for number in range(self._weather.readers)]
        readers = [self._start(read, name, self._place, name) for name in names]
        try:
            self._publish_all()
        finally:
            (self._folder / "stop").touch()
            for reader in readers:
                reader.join(MAX_SECONDS)
            self._proxy.stop()
        self._collect(names, readers)
        self._report.problems += passed_over(self._bucket, passes)
        self._report.faults = self._proxy.met
        return self._report

    def _draw(self, number: int) -> Publication:
        name = f"{self._weather.seed}-{number}"
        return Publication(name, self._chance.randrange(1000) / 1000, large=number % 8 == 7)

    def _draw_kills(self) -> dict[str, Kill]:
        chosen = self._chance.sample(self._publications, self._weather.kills)
        return {
            _client(publication, 0): Kill(self._chance.randrange(REQUESTS), self._chance.choice(MOMENTS))
            for publication in chosen
        }

    def _publish_all(self) -> None:
        waiting = self._publications
        for attempt in range(ROUNDS):
            if attempt == ROUNDS - 1:
                self._proxy.plan = SeededPlan(self._weather.seed, 0)
            waiting = self._publish(waiting, attempt)
            self._report.problems += audit(self._bucket, self._acknowledged, passes, self._folder / "copies")
            if not waiting:
                break
        for publication in waiting:
            log = (self._folder / f"{_client(publication, ROUNDS - 1)}.log").read_text()
            self._report.problems.append(f"{publication.name} could not be published: {log[-300:]}")

    def _publish(self, publications: list[Publication], attempt: int) -> list[Publication]:
        """Publish each once, several at a time; return those that must be published again."""
        waiting, again, done = deque(publications), list[Publication](), 0
        running: dict[Any, tuple[Any, Publication]] = {}
        store_kills = self._store_kills(len(publications)) if attempt == 0 else set()
        deadline = time.monotonic() + MAX_SECONDS
        while waiting or running:
            while waiting and len(running) < self._weather.publishers:
                publication = waiting.popleft()
                client = _client(publication, attempt)
                process = self._start(publish, client, self._place, publication, client)
                running[process.sentinel] = (process, publication)
            for ended in wait(list(running), timeout=deadline - time.monotonic()) or [next(iter(running))]:
                process, publication = running.pop(ended)
                done += 1
                if not self._is_published(process, publication, attempt):
                    again.append(publication)
                if done in store_kills:
                    kill_store(self._store)
                    self._store.start()
        return again

    def _store_kills(self, publications: int) -> set[int]:
        return set(self._chance.sample(range(1, publications), self._weather.store_kills))

    def _is_published(self, process: Any, publication: Publication, attempt: int) -> bool:
        if process.is_alive():  # long after its time
            process.kill()
            self._report.problems.append(f"{publication.name} was still being published after {MAX_SECONDS:.0f} s")
        process.join()
        log = (self._folder / f"{_client(publication, attempt)}.log").read_text()
        if process.exitcode == PUBLISHED:
            self._acknowledged.add(publication.write(self._folder / publication.name).id)
            self._report.publications += 1
        elif process.exitcode == KILLED:
            self._report.killed += 1
        elif process.exitcode == REFUSED:
            self._report.refused += 1
            self._say(log.splitlines()[-1])
        else:
            self._report.problems.append(f"{publication.name} ended with {process.exitcode}: {log[-500:]}")
        return process.exitcode == PUBLISHED

    def _collect(self, names: list[str], readers: list[Any]) -> None:
        for name, reader in zip(names, readers, strict=True):
            if reader.exitcode != 0:
                log = (self._folder / f"{name}.log").read_text()
                self._report.problems.append(f"{name} ended with {reader.exitcode}: {log[-500:]}")
                continue
            seen = read_json(self._folder / f"{name}.json")
            self._report.pulled += seen["pulled"]
            self._report.pulls_refused += seen["refused"]
            self._report.problems += seen["problems"]

    def _start(self, target: Callable[..., None], name: str, *arguments: Any) -> Any:
        process = PROCESSES.Process(target=target, args=arguments, name=name, daemon=True)
        process.start()
        return process


def _client(publication: Publication, attempt: int) -> str:
    """Return the name that a publisher gives itself, by which the proxy knows it; no dots."""
    return f"publisher-{publication.name}-{attempt}"

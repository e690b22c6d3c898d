"""Publishers and readers at once on a network that fails; `make soak` does the same for as long as you like."""

from collections import Counter
from pathlib import Path

from infra.local.object_store import ObjectStore
from tasks.registry.channels import read_pointer
from tasks.registry.releases import list_releases
from tests.fixtures.buckets import new_bucket
from tests.fixtures.faults import KINDS
from tests.soak.gate import passes
from tests.soak.storm import Storm, Weather


def test_faults_and_kills_lose_nothing_and_leave_nothing_half_there(object_store: ObjectStore, tmp_path: Path) -> None:
    bucket = new_bucket(object_store)
    weather = Weather(seed=1, publications=40, kills=10, fault_rate=0.08)
    report = Storm(object_store, bucket.prefix, weather, tmp_path).run()
    assert report.problems == []
    assert len(list(list_releases(bucket))) == report.publications == 40
    assert report.killed >= 7
    assert report.pulled > 0  # how many is a matter of speed
    assert set(report.faults) == set(KINDS)


def test_eight_publishers_at_once_leave_what_some_order_of_them_would_have_left(
    object_store: ObjectStore, tmp_path: Path
) -> None:
    bucket = new_bucket(object_store)
    report = Storm(object_store, bucket.prefix, Weather(seed=2, publications=8, readers=2), tmp_path).run()
    assert report.problems == []
    releases = {manifest.id: manifest for manifest in list_releases(bucket)}
    candidate, champion = read_pointer(bucket, "candidate"), read_pointer(bucket, "champion")
    assert candidate is not None
    assert champion is not None
    assert len(releases) == 8
    assert Counter(move.release for move in candidate.history) == Counter(list(releases))  # no gap, no fork
    champions = [releases[move.release] for move in champion.history]
    assert all(passes(after, before) for before, after in zip([None, *champions], champions, strict=False))
    refused = [release for release in releases.values() if release not in champions]
    assert all(any(passes(release, each) is None for each in champions) for release in refused)
    assert refused

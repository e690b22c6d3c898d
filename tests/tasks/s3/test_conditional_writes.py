"""A store is asked once whether it honours conditional writes; one that ignores them is used by a single writer."""

import re
from pathlib import Path

import pytest

from infra.local.object_store import ObjectStore
from tasks.registry.channels import move_pointer, read_channel
from tasks.registry.releases import list_releases, publish_release
from tasks.registry.store import Store
from tasks.s3.bucket import ConflictError
from tasks.s3.client import connect
from tasks.s3.conditional_writes import PROBE
from tests.fixtures.buckets import new_bucket, write_release
from tests.fixtures.faults import Fault, Request
from tests.fixtures.faulty_s3 import CONDITIONAL_HEADERS, FaultyS3

NOW = "2024-01-02T03:04:05+00:00"


@pytest.fixture
def bucket(object_store: ObjectStore, faulty_s3: FaultyS3) -> Store:
    return Store(connect(faulty_s3.environment), object_store.bucket, new_bucket(object_store).prefix)


@pytest.fixture
def careless(bucket: Store, faulty_s3: FaultyS3) -> Store:
    """A store that ignores conditions: it never gets to see them."""
    faulty_s3.stripped = CONDITIONAL_HEADERS
    return bucket


def test_a_store_that_honours_conditions_is_asked_once_and_nothing_is_said(
    bucket: Store, faulty_s3: FaultyS3, capfd: pytest.CaptureFixture[str]
) -> None:
    assert bucket.learn_conditions()
    asked = faulty_s3.sent("PUT", PROBE)
    assert ["if-none-match" in request.headers for request in asked] == [True, True, False]  # made, refused; If-Match
    for key in ("a", "b"):
        bucket.write(key, b"x", replacing=None)
    assert bucket.learn_conditions()
    assert faulty_s3.sent("PUT", PROBE) == asked
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("ignored", sorted(CONDITIONAL_HEADERS))
def test_a_store_that_ignores_either_condition_is_named_in_one_line(
    bucket: Store, faulty_s3: FaultyS3, capfd: pytest.CaptureFixture[str], ignored: str
) -> None:
    faulty_s3.stripped = frozenset({ignored})
    assert not bucket.learn_conditions()
    bucket.write("object", b"x", replacing=None)
    assert re.fullmatch(
        rf"the object store at {faulty_s3.endpoint} ignores conditional writes: .* no two publishers run at once\n",
        capfd.readouterr().err,
    )


def test_a_store_that_knows_no_conditions_is_one_that_ignores_them(bucket: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.plan = lambda request: Fault("status", status=501) if CONDITIONAL_HEADERS & set(request.headers) else None
    assert not bucket.learn_conditions()
    bucket.write("object", b"x", replacing=None)
    assert bucket.read("object") is not None


def test_an_answer_that_is_lost_does_not_decide(bucket: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.fail(Fault("lost_answer"), "PUT", PROBE, times=2)
    faulty_s3.fail(Fault("status", status=500), "PUT", PROBE)
    assert bucket.learn_conditions()


def test_a_single_writer_is_safe_on_a_store_that_ignores_conditions(careless: Store, tmp_path: Path) -> None:
    published = []
    for number in range(3):
        folder = tmp_path / str(number)
        published.append(publish_release(careless, folder, write_release(folder, str(number))))
        assert move_pointer(careless, "candidate", published[-1], NOW, lambda _: "published")
    assert publish_release(careless, tmp_path / "0", published[0]) == published[0]
    assert {manifest.id for manifest in list_releases(careless)} == {manifest.id for manifest in published}
    assert read_channel(careless, "candidate") == published[-1]


def test_a_writer_that_comes_late_is_refused_on_a_store_that_ignores_conditions(careless: Store) -> None:
    careless.write("object", b"first", replacing=None)
    first = careless.read("object")
    careless.write("object", b"first", replacing=None)  # the same bytes are no conflict
    careless.write("object", b"second", replacing=first)
    for stale in (None, first):
        with pytest.raises(ConflictError):
            careless.write("object", b"third", replacing=stale)
    stored = careless.read("object")
    assert stored is not None
    assert stored.body == b"second"


def test_a_writer_that_is_overtaken_notices_when_it_reads_back(
    object_store: ObjectStore, careless: Store, faulty_s3: FaultyS3
) -> None:
    direct = connect(object_store.environment)
    careless.learn_conditions()

    def overtake(request: Request) -> Fault | None:
        if request.matches("GET", "object") and faulty_s3.sent("PUT", "object"):
            direct.put_object(Bucket=careless.name, Key=f"{careless.prefix}/object", Body=b"theirs")
        return None

    faulty_s3.plan = overtake
    with pytest.raises(ConflictError):
        careless.write("object", b"mine", replacing=None)


def test_a_lost_answer_is_no_conflict_on_a_store_that_ignores_conditions(careless: Store, faulty_s3: FaultyS3) -> None:
    faulty_s3.fail(Fault("lost_answer"), "PUT", "object", times=5)  # one more than botocore repeats by itself
    careless.write("object", b"mine", replacing=None)
    stored = careless.read("object")
    assert stored is not None
    assert stored.body == b"mine"

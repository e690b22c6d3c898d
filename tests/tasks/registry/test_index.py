"""The index: a row survives its key, a key that is not a row is nothing, and publishers keep it up."""

import base64
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.local.object_store import ObjectStore
from tasks.registry.index import Row, add_to_index, index_key, parse_index_key, read_index, row_of
from tasks.registry.manifest import DamagedError
from tasks.registry.releases import publish_release
from tasks.registry.store import Store
from tasks.s3.client import connect
from tests.fixtures.buckets import all_keys, new_bucket, write_release

SHARES = st.floats(0, 1)
ROWS = st.builds(
    Row,
    id=st.from_regex(r"\A[0-9a-f]{16}\Z"),
    created_at=st.text(max_size=30),
    dataset=st.text(max_size=20),
    recipe=st.text(max_size=20),
    top1=SHARES,
    top1_low=SHARES,
    top1_high=SHARES,
    images=st.integers(0, 10**9),
    bytes=st.integers(0, 10**12),
)
GOOD = ["2024-01-01T00:00:00+00:00", "cifar10", "fast", 0.5, 0.4, 0.6, 100, 5]


@pytest.fixture
def bucket(object_store: ObjectStore) -> Store:
    return new_bucket(object_store)


def _key(*values: object, text: str = "") -> str:
    row = text or json.dumps(values, separators=(",", ":"))
    return f"index/{'a' * 16}/{base64.urlsafe_b64encode(row.encode()).decode().rstrip('=')}"


@settings(max_examples=50)
@given(ROWS)
def test_a_row_is_read_back_from_its_key_or_has_none(row: Row) -> None:
    key = index_key(row)
    if key is None:
        assert len(row.dataset + row.recipe + row.created_at) > 5  # too long for a name
    else:
        assert parse_index_key(key) == row
        assert len(key.rpartition("/")[2]) <= 255


@given(st.text(max_size=60), st.recursive(st.none() | st.floats() | st.text(max_size=5), st.lists, max_leaves=9))
def test_any_key_is_a_row_or_nothing(name: str, value: object) -> None:
    for key in (name, f"index/{'a' * 16}/{name}", _key(text=json.dumps(value))):
        row = parse_index_key(key)
        assert row is None or index_key(row) == key


@pytest.mark.parametrize(
    "key",
    [
        _key(*GOOD[:-1]),
        _key(*GOOD, 1),
        _key(*GOOD[:3], 1.5, *GOOD[4:]),
        _key(*GOOD[:3], "0.5", *GOOD[4:]),
        _key(*GOOD[:6], -1, 5),
        _key(text=json.dumps(GOOD)),  # with spaces: the same row, another key
        _key(*GOOD) + "==",
        _key(text="[" * 150),
        _key(text="NaN"),
        _key(*GOOD).replace("a" * 16, "a" * 15),
        _key(*GOOD) + "/more",
    ],
)
def test_what_index_key_does_not_write_is_not_read(key: str) -> None:
    assert parse_index_key(_key(*GOOD)) is not None
    assert parse_index_key(key) is None


def test_publishing_writes_the_row_once(bucket: Store, tmp_path: Path) -> None:
    manifest = publish_release(bucket, tmp_path, write_release(tmp_path, "a"))
    assert read_index(bucket) == {manifest.id: row_of(manifest)}
    publish_release(bucket, tmp_path, manifest)
    (key,) = [key for key in all_keys(bucket) if key.startswith("index/")]
    assert key == index_key(row_of(manifest))
    assert bucket.client.head_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")["ContentLength"] == 0


def test_the_next_publisher_adds_the_row_of_one_that_died_before_it(bucket: Store, tmp_path: Path) -> None:
    manifest = publish_release(bucket, tmp_path, write_release(tmp_path, "a"))
    key = index_key(row_of(manifest))
    bucket.client.delete_object(Bucket=bucket.name, Key=f"{bucket.prefix}/{key}")
    assert read_index(bucket) == {}
    publish_release(bucket, tmp_path, manifest)
    assert read_index(bucket) == {manifest.id: row_of(manifest)}


def test_a_release_with_two_rows_has_none(bucket: Store, tmp_path: Path) -> None:
    manifest = publish_release(bucket, tmp_path, write_release(tmp_path, "a"))
    other = index_key(row_of(manifest).model_copy(update={"top1": 0.99}))
    assert other is not None
    bucket.write(other, b"", replacing=None)
    assert read_index(bucket) == {}


def test_a_figure_that_a_manifest_lacks_is_named(tmp_path: Path) -> None:
    manifest = write_release(tmp_path, "a")
    for changes, name in (({"metrics": {}}, "dataset"), ({"parameters": {"train": None}}, "recipe")):
        with pytest.raises(DamagedError, match=f"has no {name} that could be listed"):
            row_of(manifest.model_copy(update=changes))


def test_a_store_that_refuses_the_row_is_said_and_is_no_error(
    object_store: ObjectStore, bucket: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    refused = Store(connect({**object_store.environment, "AWS_SECRET_ACCESS_KEY": "x"}), bucket.name, bucket.prefix)
    manifest = write_release(tmp_path, "a")
    add_to_index(refused, manifest)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"release {manifest.id} is not in the index")
    assert "does not accept the S3 credentials" in line

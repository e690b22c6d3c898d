"""Features: an image's own bits, whatever is beside it; computed once; kept whole or not at all."""

import os
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from numpy.typing import NDArray

from tasks.models.efficientnet_lite import SIZES, efficientnet_lite
from tasks.stage.errors import ResumableError
from tasks.training.features import IMAGES_AT_ONCE, KEPT_NETWORKS, MAX_FILES, FeatureStore, complete, names_of

IMAGES: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 256, (150, 32, 32, 3)).astype(np.uint8)
NETWORK = "a" * 64


@pytest.fixture(scope="module")
def network() -> keras.Model:
    keras.config.set_dtype_policy("float32")  # whatever another test has left
    keras.utils.set_random_seed(0)
    inputs = keras.Input(IMAGES.shape[1:], dtype="uint8")
    features = keras.layers.Conv2D(24, 3, activation="relu")(keras.layers.Rescaling(1 / 128, -1.0)(inputs))
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))


def real_network() -> keras.Model:
    """One whose bits do depend on what is beside an image, where several go through it together."""
    keras.config.set_dtype_policy("float32")
    keras.utils.set_random_seed(0)
    inputs = keras.Input(IMAGES.shape[1:], dtype="uint8")
    features = efficientnet_lite(keras.layers.Rescaling(1 / 128, -1.0)(inputs), SIZES["efficientnet_lite0"])
    return keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(features))


def unexpected(sentence: str) -> None:
    raise AssertionError(sentence)


def opened(root: Path, warn: Callable[[str], None] = unexpected) -> FeatureStore:
    return FeatureStore(root, NETWORK, warn)


def filled(
    store: FeatureStore,
    network: keras.Model,
    images: NDArray[np.uint8],
    stop_requested: Callable[[], bool] = lambda: False,
) -> int:
    return complete(store, network, images, names_of(images), 60, stop_requested)


@pytest.fixture(scope="module")
def undisturbed(network: keras.Model, tmp_path_factory: pytest.TempPathFactory) -> NDArray[np.float32]:
    store = opened(tmp_path_factory.mktemp("undisturbed"))
    assert filled(store, network, IMAGES) == len(IMAGES)
    return store.take(names_of(IMAGES))


def test_an_image_has_the_same_bits_whatever_is_beside_it(tmp_path: Path) -> None:
    network, images = real_network(), IMAGES[: IMAGES_AT_ONCE + 6]
    one, other = opened(tmp_path / "one"), opened(tmp_path / "other")
    filled(one, network, images)
    for part in np.array_split(np.random.default_rng(1).permutation(len(images)), [7, 8]):
        filled(other, network, images[part])
    features = one.take(names_of(images))
    np.testing.assert_array_equal(other.take(names_of(images)), features)
    np.testing.assert_allclose(features, network(images, training=False).numpy(), rtol=1e-4, atol=1e-5)
    assert np.ptp(features, axis=0).max() > 0  # images differ


def test_what_is_known_or_twice_there_is_not_computed_again(network: keras.Model, tmp_path: Path) -> None:
    assert filled(opened(tmp_path), network, np.concatenate([IMAGES[:10], IMAGES[:5]])) == 10
    assert filled(opened(tmp_path), network, IMAGES[:12]) == 2
    assert filled(opened(tmp_path), network, IMAGES[:12]) == 0


def test_a_stopped_run_keeps_what_it_has_and_goes_on(
    network: keras.Model, undisturbed: NDArray[np.float32], tmp_path: Path
) -> None:
    with pytest.raises(ResumableError, match=f"after the features of {IMAGES_AT_ONCE} images, which are kept"):
        filled(opened(tmp_path), network, IMAGES, lambda: True)
    store = opened(tmp_path)
    assert filled(store, network, IMAGES) == len(IMAGES) - IMAGES_AT_ONCE
    np.testing.assert_array_equal(store.take(names_of(IMAGES)), undisturbed)


@pytest.mark.parametrize("harm", ["cut off", "another number", "no file of ours"])
def test_a_damaged_file_is_said_and_computed_again(
    network: keras.Model, undisturbed: NDArray[np.float32], tmp_path: Path, harm: str
) -> None:
    filled(opened(tmp_path), network, IMAGES[:8])
    [path] = tmp_path.glob("*/*.npz")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    harmed = {"cut off": bytes(data[:-100]), "another number": bytes(data), "no file of ours": b"PK"}
    path.write_bytes(harmed[harm])
    said: list[str] = []
    store = opened(tmp_path, said.append)
    assert said == [f"{path} is damaged: its images are computed again"]
    assert filled(store, network, IMAGES[:8]) == 8
    np.testing.assert_array_equal(store.take(names_of(IMAGES[:8])), undisturbed[:8])
    assert filled(opened(tmp_path), network, IMAGES[:8]) == 0  # the sound file has taken its place


def test_many_files_become_one_of_what_is_in_use(tmp_path: Path) -> None:
    store, names = opened(tmp_path), names_of(IMAGES)
    features = np.arange(len(IMAGES) * 3, dtype=np.float32).reshape(-1, 3)
    for number in range(MAX_FILES + 1):
        store.add([names[number]], features[number : number + 1])
    store.tidy(names[1 : MAX_FILES + 1])
    assert len(list(store.folder.glob("*.npz"))) == 1
    again = opened(tmp_path)
    np.testing.assert_array_equal(again.take(names[1 : MAX_FILES + 1]), features[1 : MAX_FILES + 1])
    assert names[0] not in again


def test_networks_that_were_not_used_for_long_are_forgotten(tmp_path: Path) -> None:
    stores = [FeatureStore(tmp_path, character * 64, unexpected) for character in "abcde"]
    for moment, store in enumerate(stores):
        store.add(names_of(IMAGES[:1]), np.ones((1, 3), np.float32))
        os.utime(store.folder, (moment, moment))
    stores[0].tidy(names_of(IMAGES[:1]))
    assert set(tmp_path.iterdir()) == {stores[0].folder, *(store.folder for store in stores[-KEPT_NETWORKS + 1 :])}

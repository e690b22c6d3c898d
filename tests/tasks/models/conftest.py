"""A sound model file, whole and in its members, for the tests that damage it."""

from pathlib import Path

import pytest

from tests.fixtures.model_archives import read_members, write_sound_model


@pytest.fixture(scope="session")
def sound_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small model of ours; not to be written to."""
    path = tmp_path_factory.mktemp("sound") / "model.keras"
    write_sound_model(path)
    return path


@pytest.fixture
def members(sound_model: Path) -> dict[str, bytes]:
    """The members of its archive."""
    return read_members(sound_model)

"""Keras is the same for everybody: a person's settings of it would train another network under the same parameters."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SHOWN = """
from tasks.stage.quiet_tensorflow import keras
from keras.src.backend.config import is_nnx_enabled, keras_home, max_epochs, max_steps_per_epoch
layer = keras.layers.Conv2D(4, 3)
layer.build((None, 8, 9, 3))
settings = [keras.backend.backend(), keras.config.floatx(), keras.config.epsilon(), keras.config.image_data_format()]
policy = [keras.config.dtype_policy().name, layer.data_format, layer.kernel.dtype, list(layer.kernel.shape)]
print([*settings, *policy, max_epochs(), max_steps_per_epoch(), is_nnx_enabled()])
print(keras_home())
"""
POLICY = "'float32', 'channels_last', 'float32', [3, 3, 3, 4]"
USUAL = f"['tensorflow', 'float32', 1e-07, 'channels_last', {POLICY}, None, None, False]"


def shown(home: Path, **variables: str) -> list[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    done = subprocess.run(
        [sys.executable, "-c", SHOWN],
        cwd=ROOT,
        env=environment | {"HOME": str(home)} | variables,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    ("folder", "settings"),
    [
        (".keras", {"image_data_format": "channels_first"}),
        (".keras", {"floatx": "float16", "epsilon": 0.1, "backend": "jax", "nnx_enabled": True}),
        ("elsewhere", {"floatx": "no such type"}),
    ],
)
def test_a_keras_json_changes_nothing_and_stays(tmp_path: Path, folder: str, settings: dict[str, object]) -> None:
    file = tmp_path / folder / "keras.json"
    file.parent.mkdir()
    file.write_text(json.dumps(settings))
    variables = {} if folder == ".keras" else {"KERAS_HOME": str(file.parent)}
    assert shown(tmp_path, **variables) == [USUAL, str(file.parent)]  # where fetched weights are kept
    assert json.loads(file.read_text()) == settings


def test_a_home_without_one_gets_none(tmp_path: Path) -> None:
    assert shown(tmp_path) == [USUAL, str(tmp_path / ".keras")]
    assert list((tmp_path / ".keras").iterdir()) == []


def test_variables_change_nothing(tmp_path: Path) -> None:
    limits = {"KERAS_MAX_EPOCHS": "1", "KERAS_MAX_STEPS_PER_EPOCH": "1"}
    others = {"KERAS_BACKEND": "jax", "KERAS_NNX_ENABLED": "1", "TF_USE_LEGACY_KERAS": "1"}
    assert shown(tmp_path, **limits, **others)[0] == USUAL


@pytest.mark.parametrize("package", ["sklearn", "matplotlib"])
def test_what_keras_does_without_is_there_for_whoever_wants_it(package: str) -> None:
    script = "import sys; from tasks.stage.quiet_tensorflow import keras; print(sys.argv[1] in sys.modules)"
    script += "; __import__(sys.argv[1])"
    done = subprocess.run(
        [sys.executable, "-c", script, package], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "False\n"), done.stderr

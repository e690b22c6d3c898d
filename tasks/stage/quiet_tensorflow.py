"""TensorFlow and Keras without their dozen start-up lines: `from tasks.stage.quiet_tensorflow import keras, tf`, first.

TensorFlow 2.21 logs from C++ while it is imported and while it looks for devices, whatever TF_CPP_MIN_LOG_LEVEL says.
A stage's own sentence would drown in it. What it logs later obeys the variable; set to 0 it shows all.

Keras is here as it comes: what a person's shell or ~/.keras says of its backend, image format, precision or length of
training would train another network under the same parameters.
"""

import contextlib
import gc
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["held_back_stderr", "keras", "tf"]

NVIDIA_DRIVER = Path("/dev/nvidiactl")
SETTINGS_OF_THE_SHELL = ("KERAS_MAX_EPOCHS", "KERAS_MAX_STEPS_PER_EPOCH", "KERAS_NNX_ENABLED", "TF_USE_LEGACY_KERAS")


@contextlib.contextmanager
def held_back_stderr() -> Iterator[None]:
    """Keep back what is written to file descriptor 2, and show it only before an error."""
    sys.stderr.flush()
    shown = os.dup(2)
    with tempfile.TemporaryFile() as kept:
        os.dup2(kept.fileno(), 2)
        try:
            yield
        except BaseException:
            kept.seek(0)
            os.write(shown, kept.read())
            raise
        finally:
            os.dup2(shown, 2)
            os.close(shown)


@contextlib.contextmanager
def uncollected() -> Iterator[None]:
    """Let imports make their million objects without a search for garbage among them, now and ever after.

    None of them ever goes. It saves a sixth of the processor time that the import takes.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()


@contextlib.contextmanager
def without(*packages: str) -> Iterator[None]:
    """Let what is imported do without packages that it would load if they are there."""
    absent = [name for name in packages if name not in sys.modules]
    for name in absent:
        sys.modules[name] = None  # type: ignore[assignment]  # as the import system notes what is not there
    try:
        yield
    finally:
        for name in absent:
            del sys.modules[name]


if not NVIDIA_DRIVER.exists():
    # With a driver its words are wanted: they say why a GPU is not used. Errors come as exceptions too, and those of a
    # host that is gone fill pages before ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")

for name in SETTINGS_OF_THE_SHELL:
    os.environ.pop(name, None)
# Keras looks there for its keras.json, writes one where there is none, and keeps the weights that it fetches.
home = Path(os.environ.get("KERAS_HOME") or "~/.keras").expanduser()
os.environ |= {"KERAS_BACKEND": "tensorflow", "KERAS_HOME": os.devnull}

# For wrappers and galleries of Keras's that nobody uses here: a quarter of the time that the import takes.
with held_back_stderr(), uncollected(), without("sklearn", "matplotlib"):
    import keras
    import tensorflow as tf
    from keras.src.backend import config

    if not NVIDIA_DRIVER.exists():
        tf.config.list_physical_devices()

os.environ["KERAS_HOME"] = config._KERAS_DIR = str(home)
with contextlib.suppress(OSError):  # Keras then takes a folder of its own for weights
    home.mkdir(parents=True, exist_ok=True)

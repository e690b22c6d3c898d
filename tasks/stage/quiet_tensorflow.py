"""TensorFlow and Keras without their dozen start-up lines: `from tasks.stage.quiet_tensorflow import keras, tf`, first.

TensorFlow 2.21 logs from C++ while it is imported and while it looks for devices, whatever TF_CPP_MIN_LOG_LEVEL says.
A stage's own sentence would drown in it. What it logs later obeys the variable; set to 0 it shows all.
"""

import contextlib
import os
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

__all__ = ["held_back_stderr", "keras", "tf"]

NVIDIA_DRIVER = Path("/dev/nvidiactl")


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


if not NVIDIA_DRIVER.exists():
    # With a driver its words are wanted: they say why a GPU is not used. Errors come as exceptions too, and those of a
    # host that is gone fill pages before ours.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3" if "TF_CONFIG" in os.environ else "2")

with held_back_stderr():
    import keras
    import tensorflow as tf

    if not NVIDIA_DRIVER.exists():
        tf.config.list_physical_devices()

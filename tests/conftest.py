"""Fixtures that every test may ask for."""

import os
import signal
import sys

import pytest
from hypothesis import settings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

# Where a shell forbids it, hundreds of processes would each compile this project's modules for themselves.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

LOGICAL_CPUS = 4

settings.register_profile("shared machine", deadline=None)  # how long an example takes is the machine's affair
settings.load_profile("shared machine")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    # A shell lets its background jobs ignore Ctrl-C, and so would every process that a test interrupts.
    signal.signal(signal.SIGINT, signal.default_int_handler)

pytest_plugins = [
    "tests.fixtures.archives",
    "tests.fixtures.faulty_s3",
    "tests.fixtures.git_host",
    "tests.fixtures.checkouts",  # which imports it, and must come after
    "tests.fixtures.http_server",
    "tests.fixtures.message_sink",
    "tests.fixtures.nursery",
    "tests.fixtures.object_store",
    "tests.fixtures.own_store",
    "tests.fixtures.prefect_server",
    "tests.fixtures.shifted_store",
    "tests.fixtures.small_disk",
    "tests.fixtures.sound_model",
]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the files whose few tests take longest first, so that none of two workers is left to wait for the other."""
    items.sort(key=lambda item: "integration" not in item.path.parts)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Split the CPU for the tests of several replicas; TensorFlow allows it only before its first operation."""
    tensorflow = sys.modules.get("tensorflow")
    if tensorflow is None or session.config.option.collectonly:
        return
    cpu = tensorflow.config.list_physical_devices("CPU")[0]
    logical = [tensorflow.config.LogicalDeviceConfiguration()] * LOGICAL_CPUS
    tensorflow.config.set_logical_device_configuration(cpu, logical)

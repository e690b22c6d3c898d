"""Inputs that once broke a parser, and any others: an answer or an InputError, in bounded time and memory."""

import importlib
import subprocess
import sys

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fixtures.dvc_project import REPOSITORY
from tests.fuzz.__main__ import CORPUS, TARGETS, quietly

EXAMPLES = 60


@st.composite
def mutations(draw: st.DrawFn, sound: list[bytes]) -> bytes:
    """Draw a sound input with a few bytes changed, and now and then a part left out, doubled or put in."""
    body = bytearray(draw(st.sampled_from(sound)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(body)))
        end = min(len(body), start + draw(st.sampled_from((0, 1, 4, 64, 512))))
        body[start:end] = draw(
            st.one_of(st.binary(max_size=8), st.just(bytes(body[start:end]) * 2), st.just(b"\xff" * (end - start)))
        )
    return bytes(body)


@pytest.mark.parametrize("target", TARGETS)
def test_sound_and_kept_inputs_end_in_bounded_time_and_memory(target: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", target, "--replay"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-200:] + done.stderr
    assert {path.name for path in (CORPUS / target).glob("*")} < set(done.stdout.splitlines())


@pytest.mark.parametrize("target", TARGETS)
def test_any_bytes_are_an_answer_or_an_input_error(target: str) -> None:
    module = importlib.import_module(f"tests.fuzz.{target}")
    check, sound = quietly(module.check), list(module.seeds().values())

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
    @given(st.one_of(mutations(sound), st.binary(max_size=512)))
    def run(data: bytes) -> None:
        check(data)

    run()


@pytest.mark.parametrize("target", TARGETS)
def test_sound_inputs_are_accepted(target: str) -> None:
    """Or the fuzzer would only ever see the first line of a parser."""
    module = importlib.import_module(f"tests.fuzz.{target}")
    assert [name for name, body in module.seeds().items() if not quietly(module.check)(body)] == []

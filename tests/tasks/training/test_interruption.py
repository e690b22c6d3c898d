import os
import signal

import pytest

from tasks.training.interruption import interruptible


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_first_signal_is_remembered_and_the_second_acts_as_before(number: signal.Signals) -> None:
    acted: list[int] = []
    before = signal.signal(number, lambda received, _: acted.append(received))
    try:
        with interruptible() as interruption:
            assert not interruption.requested()
            os.kill(os.getpid(), number)
            assert interruption.requested()
            assert interruption.signal == number
            assert acted == []
            os.kill(os.getpid(), number)
            assert acted == [number]
        os.kill(os.getpid(), number)
        assert acted == [number, number]
    finally:
        signal.signal(number, before)


def test_a_signal_that_was_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with interruptible() as interruption:
            os.kill(os.getpid(), signal.SIGINT)
            assert not interruption.requested()
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)

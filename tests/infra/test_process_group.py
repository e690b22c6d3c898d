import os
import subprocess
import sys

from infra.process_group import birth_of, group_lives, stop_group

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


def test_stopped_group_is_gone() -> None:
    process = subprocess.Popen(SLEEP, start_new_session=True)
    assert group_lives(process.pid)
    stop_group(process.pid, 10, process)
    assert not group_lives(process.pid)


def test_zombie_does_not_count_as_alive() -> None:
    process = subprocess.Popen([sys.executable, "-c", "print()"], stdout=subprocess.PIPE, start_new_session=True)
    assert process.stdout is not None
    process.stdout.read()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # dead, and left a zombie
    assert not group_lives(process.pid)
    assert birth_of(process.pid) is None
    process.wait()


def test_birth_tells_two_processes_apart() -> None:
    with subprocess.Popen(SLEEP) as one, subprocess.Popen(SLEEP) as other:
        assert birth_of(one.pid) == birth_of(one.pid)
        assert birth_of(other.pid) is not None
        one.kill()
        other.kill()
    assert birth_of(one.pid) is None

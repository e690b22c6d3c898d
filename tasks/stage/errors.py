"""The one exception that a stage shows to a person, and the way every command ends on it."""

import os
import re
import select
import signal
import sys
from collections.abc import Callable
from typing import TextIO

from tasks.stage.proxies import reach_loopback_directly
from tasks.stage.shown import printable

BAD_INPUT_STATUS = 2
OUTAGE_STATUS = 69  # EX_UNAVAILABLE of sysexits.h: the same command succeeds once what it needs is back
RESUMABLE_STATUS = 75  # EX_TEMPFAIL of sysexits.h: the same command, run again, goes on
INTERRUPTED_STATUS = 130
UNREAD_STATUS = 128 + signal.SIGPIPE  # as a shell says of a program that wrote to a pipe whose reader had gone


class InputError(Exception):
    """Something from outside is wrong: a parameter, a file, a server. Its text is one sentence that names the thing."""


class OutageError(InputError):
    """Something that is needed is away for now: a server that cannot be reached, is throttled, or broke off.

    The same command may succeed later, with nothing put right by a person. What was denied, is missing or has the wrong
    bytes is no outage.
    """


class ResumableError(Exception):
    """The work stopped before its end and is saved; the same command goes on with it. Its text is one sentence."""


def without_credentials(text: str) -> str:
    """Return a text without what may hold a password or a signature, in an address or in what was meant to be one.

    That is all before an @, from `//` or else from the word's start on, and what follows a ?, # or ; without a space.
    """
    named = re.sub(r"//.*@|[^\s'\"`=]+@", lambda found: "//…@" if "//" in found[0] else "…@", text, flags=re.DOTALL)
    return re.sub(r"([?#;])\S+", r"\1…", named)


def run_command(name: str, command: Callable[[], None]) -> None:
    """Run a command's body; end the process with one sentence on stderr where it fails for a reason from outside.

    All that runs in it, processes that it starts included, reaches this machine's servers without a proxy.

    Args:
        name: The stage or command, put before the sentence.
        command: The body; it raises InputError for anything that the person can put right.

    Raises:
        SystemExit: With status 2 after an InputError or an operating-system refusal (disk full, no permission),
            with status 69 after an OutageError, with status 75 after a ResumableError, with status 130 after an
            interrupt, and silently with 141 where nobody reads its output any more, as after `| head`.
    """
    reach_loopback_directly(os.environ)
    try:
        _run(name, command)
    finally:
        _let_go(sys.stdout)


def _run(name: str, command: Callable[[], None]) -> None:
    try:
        command()
        print(end="", flush=True)  # what cannot be written is an error of this command, not of Python's end
    except OutageError as error:
        print(printable(f"{name}: {error}"), file=sys.stderr)
        raise SystemExit(OUTAGE_STATUS) from error
    except InputError as error:
        print(printable(f"{name}: {error}"), file=sys.stderr)
        raise SystemExit(BAD_INPUT_STATUS) from error
    except ResumableError as error:
        print(f"{name}: {error}", file=sys.stderr)
        raise SystemExit(RESUMABLE_STATUS) from error
    except OSError as error:
        if isinstance(error, BrokenPipeError) and (_is_unread(sys.stdout) or _is_unread(sys.stderr)):
            raise SystemExit(UNREAD_STATUS) from error
        if error.errno is None:
            raise
        where = f" ({error.filename})" if error.filename else ""
        print(printable(f"{name}: {error.strerror or error}{where}"), file=sys.stderr)
        raise SystemExit(BAD_INPUT_STATUS) from error
    except KeyboardInterrupt as error:
        print(f"{name}: interrupted", file=sys.stderr)
        raise SystemExit(INTERRUPTED_STATUS) from error


def _let_go(stream: TextIO | None) -> None:
    """Write what is still to be written; forget what cannot be, or Python would try once more at its end and say so."""
    if stream is None:
        return
    try:
        stream.flush()
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _is_unread(stream: TextIO | None) -> bool:
    """Return whether a stream is a pipe whose reader has gone: a broken pipe may also be a server's."""
    if stream is None:
        return False
    try:
        poll = select.poll()
        poll.register(stream.fileno(), 0)  # what has ended is told unasked
        return bool(poll.poll(0))
    except (OSError, ValueError):  # a stream without a file, as in a test
        return False

"""The whole pipeline on this machine, as `make run` starts it: `python -m flows.run [--set KEY=VALUE …]`.

Starts the local object store, runs the flow (against the Prefect server of `make up` where it is up, else against one
that lives as long as the run, unless nothing is new), and ends with what came out and what to type next.
"""

import argparse
import atexit
import contextlib
import importlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import FrameType
from typing import cast

from flows import stop_signal
from flows.failures import StepError
from flows.fallback import reachable_data
from flows.fitting import fitting
from flows.look import PIN, is_followed, look
from flows.nothing_new import nothing_new
from flows.outages import outlast
from flows.overrides import Overrides, apply_overrides, kept_unless_refused, parse_assignments
from flows.stages import StageResult
from flows.start import RELEASE, ask_start, begins_from_champion
from flows.summary import summary
from flows.workspace import check_dvc, check_git
from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from infra.local.worker import Worker
from tasks.s3.credentials import CHOSEN_ELSEWHERE
from tasks.stage.errors import InputError, OutageError, run_command

NEEDED_LATER = ("dvc.repo.reproduce", "dvc_s3", "s3fs", "tasks.s3.client")


def run(given: Overrides) -> None:
    """Run the pipeline with values set in params.yaml.

    Raises:
        InputError: The parameters, the data or a server are not as they must be.
        SystemExit: A stage failed for another reason.
    """
    folder, remarks = Path.cwd(), list[str]()
    overrides: Overrides = reachable_data(fitting(given, remarks.append), folder, _say)
    check_dvc(folder)
    check_git(folder)
    store_elsewhere = any(os.environ.get(name) for name in CHOSEN_ELSEWHERE)
    if store_elsewhere:
        from tasks.s3.client import check_credentials  # noqa: PLC0415 - with boto3 a second to import

        check_credentials()
    for remark in remarks:
        _say(remark)
    if not store_elsewhere:
        _say("starting the object store …")
        ObjectStore().start()
    with kept_unless_refused(overrides, (PIN, RELEASE), folder, _say):
        _run(overrides)


def _run(overrides: Overrides) -> None:
    overrides = _started(_followed(overrides, Path.cwd()), Path.cwd())
    if not PrefectServer().is_running() and (unchanged := nothing_new(overrides, Path.cwd())) is not None:
        print("nothing is new, so Prefect is not started")
        print(summary(unchanged, Path.cwd()))
        return
    print("starting Prefect …", flush=True)
    _start_prefect()
    print(summary(_run_flow(overrides), Path.cwd()))


def _say(line: str) -> None:
    print(line, flush=True)


def _followed(overrides: Overrides, folder: Path) -> Overrides:
    """Return the values with the snapshot that a collection holds now; as they are where the data are no collection."""
    if not is_followed(overrides):
        return overrides
    apply_overrides(overrides)  # by which the look goes; the run would set them for good all the same

    with _one_sentence():
        return {**overrides, PIN: outlast(lambda lines: look(folder, lines), _say, _say)}


def _started(overrides: Overrides, folder: Path) -> Overrides:
    """Return the values with the release that training begins from, where that is to be the champion."""
    if not begins_from_champion(overrides):
        return overrides
    apply_overrides(overrides)  # by which the registry answers

    with _one_sentence():
        return {**overrides, RELEASE: outlast(lambda lines: ask_start(folder, lines), _say, _say)}


def _start_prefect() -> None:
    """Use the Prefect server that runs here, or start one for as long as this process lives.

    Prefect's own temporary server would get the terminal's Ctrl-C too, and the run could no longer report its end.
    """
    server = PrefectServer()

    def import_meanwhile() -> None:
        atexit.register(_stop_prefect, server)  # before Prefect is imported, so after it has sent its last records
        os.environ.update(server.environment)
        importlib.import_module("flows.retrain")
        for name in NEEDED_LATER:
            importlib.import_module(name)

    started = server.start(import_meanwhile)
    os.environ.update(server.environment)
    if started:  # at another address, where another server took the port while it started
        from prefect.context import refresh_global_settings_context  # noqa: PLC0415

        refresh_global_settings_context()


def _stop_prefect(server: PrefectServer) -> None:
    """Stop the server, unless `make up` came meanwhile and gave it a worker."""
    if not Worker(server, Path.cwd()).is_running():
        server.stop()


def _run_flow(overrides: Overrides) -> list[StageResult]:
    """Run the flow in this process."""
    from flows.console import use_stage_console  # noqa: PLC0415 - Prefect reads its settings when it is imported
    from flows.retrain import retrain  # noqa: PLC0415

    use_stage_console()
    with _one_sentence():
        return cast(list[StageResult], retrain(dict(overrides)))  # Prefect gives the data of the flow's state


@contextlib.contextmanager
def _one_sentence() -> Iterator[None]:
    """End with one sentence where a stage, the look or the push fails."""
    try:
        yield
    except StepError as error:
        if error.is_outage:
            raise OutageError(error.sentence) from error
        if error.is_final:
            raise InputError(error.sentence) from error
        raise SystemExit(f"run: {error.sentence}") from error


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Make of SIGINT and SIGTERM an end like others, so that nothing is left running; the exit status names the signal.

    The end is raised wherever the process happens to be. A library that is just at work may turn it into an error of
    its own; that error is then not what happened. One that swallows it does not keep it (flows/stop_signal.py).
    """

    def end(number: int, _frame: FrameType | None) -> None:
        stop_signal.end(number)

    stop_signal.forget()
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background job keeps ignoring Ctrl-C
            signal.signal(number, end)
    try:
        yield
    except Exception as error:
        first = stop_signal.first_received()
        if first is None:
            raise
        raise SystemExit(stop_signal.STATUS + first) from error


def main() -> None:
    """Read the command's arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="set in params.yaml")
    arguments = parser.parse_args()
    with ended_by_signals():
        run_command("run", lambda: run(parse_assignments(arguments.set)))


if __name__ == "__main__":
    main()

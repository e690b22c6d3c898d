"""The whole pipeline on this machine, as `make run` starts it: `python -m flows.run [--set KEY=VALUE …]`.

Starts the local object store, runs the flow (against the Prefect server of `make up` where it is up, else against one
that lives as long as the run), and ends with what came out and what to type next.
"""

import argparse
import atexit
import os
import signal
import sys
from pathlib import Path

from flows.fallback import reachable_data
from flows.lineage import PushError
from flows.overrides import Overrides, parse_assignments
from flows.stages import StageError, StageResult
from flows.summary import summary
from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer
from infra.local.worker import Worker
from tasks.errors import InputError, run_command
from tasks.storage.credentials import CHOSEN_ELSEWHERE

TERMINATED_STATUS = 143


def run(given: Overrides) -> None:
    """Run the pipeline with values set in params.yaml.

    Raises:
        InputError: The parameters, the data or a server are not as they must be.
        SystemExit: A stage failed for another reason.
    """
    overrides = reachable_data(given, Path.cwd(), lambda sentence: print(sentence, flush=True))
    if not any(os.environ.get(name) for name in CHOSEN_ELSEWHERE):
        print("starting the object store …", flush=True)
        ObjectStore().start()
    print("starting Prefect …", flush=True)
    _start_prefect()
    print(summary(_run_flow(overrides), Path.cwd()))


def _start_prefect() -> None:
    """Use the Prefect server that runs here, or start one for as long as this process lives.

    Prefect's own temporary server would get the terminal's Ctrl-C too, and the run could no longer report its end.
    """
    server = PrefectServer()
    if server.start():
        atexit.register(_stop_prefect, server)  # before Prefect is imported, so after it has sent its last records
    os.environ.update(server.environment)


def _stop_prefect(server: PrefectServer) -> None:
    """Stop the server, unless `make up` came meanwhile and gave it a worker."""
    if not Worker(server, Path.cwd()).is_running():
        server.stop()


def _run_flow(overrides: Overrides) -> list[StageResult]:
    """Run the flow in this process; end it with one sentence where a stage or the push fails."""
    from flows.console import use_stage_console  # noqa: PLC0415 - Prefect reads its settings when it is imported
    from flows.retrain import retrain  # noqa: PLC0415

    use_stage_console()
    try:
        return retrain(dict(overrides))
    except StageError as error:
        if error.is_final:
            raise InputError(error.sentence) from error
        raise SystemExit(f"run: {error.sentence}") from error
    except PushError as error:
        raise SystemExit(f"run: {error}") from error


def main() -> None:
    """Read the command's arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m flows.run", description=__doc__.partition("\n")[0])
    parser.add_argument("--set", nargs="*", action="extend", default=[], metavar="KEY=VALUE", help="set in params.yaml")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(TERMINATED_STATUS))  # an end like others: nothing is left running
    run_command("run", lambda: run(parse_assignments(arguments.set)))


if __name__ == "__main__":
    main()

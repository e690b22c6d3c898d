"""The whole pipeline on this machine, as `make run` starts it: `python -m flows.run [--set KEY=VALUE …]`.

Starts the local object store, runs the flow (against the Prefect server of `make up` where it is up, else against one
that lives as long as the run), and ends with what came out and what to type next.
"""

import argparse
import os
from pathlib import Path

from flows.fallback import reachable_data
from flows.lineage import PushError
from flows.overrides import Overrides, parse_assignments
from flows.stages import StageError, StageResult
from flows.summary import summary
from infra.local.object_store import ObjectStore
from infra.local.prefect_server import PrefectServer, prefect_environment
from tasks.errors import InputError, run_command
from tasks.storage.credentials import CHOSEN_ELSEWHERE


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
    server = PrefectServer()
    os.environ.update(server.environment if server.is_running() else prefect_environment())
    print(summary(_run_flow(overrides), Path.cwd()))


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
    run_command("run", lambda: run(parse_assignments(arguments.set)))


if __name__ == "__main__":
    main()

"""Run a command on one of several hosts that train together: `python -m infra.hosts --count N --names … COMMAND…`.

Every pod of an indexed Job starts this same line. The first, the chief, runs the command, a flow run, with TF_CONFIG in
its environment, so that its stage train waits for the other hosts. Each of those takes the code, the parameters and the
arrays from the chief whenever its stage trains, and trains with it; so they are of one commit and of one split, and
need neither git nor the bucket. A host that is lost ends the training, which the chief's flow run tries again: whoever
comes in its place joins then. With one host it is the command alone.

JOB_COMPLETION_INDEX, which Kubernetes sets, says which of them this one is.
"""

import argparse
import os
from pathlib import Path

from infra.hosts.chief import Chief
from infra.hosts.children import run_with_descendants
from infra.hosts.follower import follow
from infra.hosts.place import PORT, Place, read_place
from tasks.stage.errors import InputError, run_command


def lead(place: Place, workspace: Path, command: list[str]) -> int:
    """Run the command as the chief; return its exit status."""
    environment = os.environ | {"TF_CONFIG": place.tf_config}
    with Chief(place, workspace) as chief:
        status = run_with_descendants(command, environment)
        chief.announce_end(status)
    return status


def main() -> None:
    """Be the host that the environment says this one is."""
    parser = argparse.ArgumentParser(prog="python -m infra.hosts", description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=1, metavar="N", help="how many hosts train together")
    parser.add_argument("--names", default="", metavar="NAME", help="their names, {index} standing for the number")
    parser.add_argument("--port", type=int, default=PORT, help="TensorFlow's; the files are offered on the next one")
    parser.add_argument("--workspace", type=Path, required=True, metavar="FOLDER", help="where the flow run works")
    parser.add_argument("command", nargs=argparse.REMAINDER, metavar="COMMAND", help="what the chief runs")
    arguments = parser.parse_args()

    def command() -> None:
        if not arguments.command:
            raise InputError("no command to run: it comes last")
        place = read_place(arguments.count, arguments.names, arguments.port, os.environ)
        if not place.is_chief:
            follow(place, arguments.workspace)
        elif len(place.names) == 1:
            raise SystemExit(run_with_descendants(arguments.command, os.environ))
        else:
            raise SystemExit(lead(place, arguments.workspace, arguments.command))

    run_command("hosts", command)


if __name__ == "__main__":
    main()

"""Snapshots of a collection, by hand: `python -m tasks.snapshot [look|list|diff A B]`.

`look` says what the collection at download.url holds and what came since the snapshot that download.sha256 pins;
`make run` and the schedule look by themselves, and `dvc repro` never does.
"""

import argparse
from pathlib import Path

from tasks.data.snapshot import changes
from tasks.download import CACHE, RAW, look_at
from tasks.params.params import load_params
from tasks.sources.memory import Memory
from tasks.sources.snapshots import told
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import write_json


def look(output: Path | None) -> None:
    """Look at the collection, say what is there, and write its snapshot's name to a file where one is given."""
    params = load_params().download
    looked = look_at(params, _collection(), RAW)
    print(told(looked))
    if output is not None:
        write_json(output, {"sha256": looked.snapshot.name})
    elif looked.snapshot.name != params.sha256:
        print(f"To pin it, set in params.yaml: download.sha256: {looked.snapshot.name}")


def show_list() -> None:
    """Name the snapshots that are known on this machine, the newest last, and mark the one that is pinned."""
    with Memory(CACHE, _collection()) as memory:
        paths = sorted(memory.snapshot_path("").parent.glob("*.csv"), key=lambda path: path.stat().st_mtime_ns)
        pinned = load_params().download.sha256
        for path in paths:
            rows = memory.snapshot(path.stem) or ()
            mark = "  pinned" if path.stem == pinned else ""
            print(f"{path.stem}  {len(rows):>9,} images  {len({row.label for row in rows}):>4} classes{mark}")


def show_changes(before: str, now: str) -> None:
    """Say what came from one snapshot to another, each given by the start of its name."""
    with Memory(CACHE, _collection()) as memory:
        rows = [memory.snapshot(_whole(memory, start)) or () for start in (before, now)]
    c = changes(*rows)
    print(f"{c.came:,} came, {c.went:,} went, {c.relabelled:,} changed their class, {c.moved:,} changed their path")


def _whole(memory: Memory, start: str) -> str:
    """Return the name of the one snapshot whose name begins so."""
    found = [path.stem for path in memory.snapshot_path("").parent.glob("*.csv") if path.stem.startswith(start)]
    if len(found) != 1:
        known = "no snapshot here begins" if not found else f"{len(found)} snapshots here begin"
        raise InputError(f"{known} with {start!r}; python -m tasks.snapshot list names them")
    return found[0]


def _collection() -> str:
    address = load_params().download.collection
    if address is None:
        raise InputError("download.url is no collection: one ends with a slash, and download.dataset is folders")
    return address


def main() -> None:
    """Read the command's arguments and run it."""
    parser = argparse.ArgumentParser(prog="python -m tasks.snapshot", description=__doc__.partition("\n")[0])
    commands = parser.add_subparsers(dest="command")
    looking = commands.add_parser("look", help="what is there, and what came since the snapshot that is pinned")
    looking.add_argument("--output", type=Path, help="a file for the snapshot's name, as JSON")
    commands.add_parser("list", help="the snapshots that are known on this machine")
    comparing = commands.add_parser("diff", help="what came from one snapshot to another")
    comparing.add_argument("before")
    comparing.add_argument("now")
    arguments = parser.parse_args()

    def command() -> None:
        if arguments.command == "list":
            show_list()
        elif arguments.command == "diff":
            show_changes(arguments.before, arguments.now)
        else:
            look(getattr(arguments, "output", None))

    run_command("snapshot", command)


if __name__ == "__main__":
    main()

"""The model registry: releases in an object store, and the channels that name them.

python -m tasks.registry list                              all releases, newest first
python -m tasks.registry show [RELEASE]                    what a release is and where it comes from
python -m tasks.registry diff BEFORE AFTER                 parameters, data, metrics and classes that differ
python -m tasks.registry verify [RELEASE | --all]          read every byte in the store against its manifest
python -m tasks.registry pull [RELEASE] [FOLDER]           fetch a release, verified
python -m tasks.registry checkout [RELEASE]                bring its params.yaml and dvc.lock here, for dvc pull
python -m tasks.registry drift                             how the champion does on the images that came since
python -m tasks.registry start                             the release that train.start=champion begins from now
python -m tasks.registry offer                             make the release of this workspace champion, if it may
python -m tasks.registry promote RELEASE [--force --reason WHY]     make it champion, if the gate's rules allow
python -m tasks.registry rollback [CHANNEL] --reason WHY   point a channel at the release before
python -m tasks.registry history [CHANNEL]                 every move of a channel, and why
python -m tasks.registry gc [--delete]                     what died or lost a race, a day old at least; remove it
python -m tasks.registry rebuild [RELEASE]                 the commands that make it again

RELEASE is an id, the first digits of one, champion (where none is given) or candidate. --json answers for programs.

Exit status: 0, it is done, or the answer is yes; 1, the answer is no (list, gc: a manifest cannot be read; verify:
damage; drift: no reason to retrain; offer, promote: the gate refuses; rebuild: equality cannot be promised); 2, the
input is wrong, and 69, the store is away, said in one sentence on standard error, and nothing was changed halfway; 130,
interrupted.
"""

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tasks.params.params import load_params
from tasks.registry.actor import current_actor
from tasks.registry.channels import CHANNELS, promote, read_channel, read_pointer, resolve, rollback
from tasks.registry.checkout import checkout
from tasks.registry.comparison import compare
from tasks.registry.drift import asked_through, measure_drift
from tasks.registry.garbage import find_garbage, remove_garbage
from tasks.registry.index import row_of
from tasks.registry.listing import list_rows
from tasks.registry.moves import all_moves
from tasks.registry.need import decide
from tasks.registry.offer import RAW, SPLIT, offer
from tasks.registry.promotion import promote_by_gate
from tasks.registry.rebuild import plan_rebuild
from tasks.registry.releases import CACHE, FOLDER, pull_release
from tasks.registry.signing import add_trust_options, chosen_trust
from tasks.registry.start import choose_start
from tasks.registry.store import Store, configured_bucket
from tasks.registry.tables import (
    checkout_text,
    diff_text,
    garbage_text,
    history_text,
    list_text,
    offer_text,
    promotion_text,
    show_text,
    verification_text,
)
from tasks.registry.verification import verify_all, verify_release
from tasks.stage.errors import InputError, run_command
from tasks.stage.files import write_json

NO = 1
RELEASE = "an id, the first digits of one, champion or candidate"


@dataclass(frozen=True)
class CommandResult:
    """What a command found: for programs, for people, for standard error a sentence each, and its exit status."""

    value: Any
    text: str
    problems: tuple[str, ...] = ()
    status: int = 0


def main() -> None:
    """Parse the command line, run one of the commands, and end with its status."""
    arguments = _parser().parse_args()
    run_command("registry", lambda: _run(arguments))


def _run(arguments: argparse.Namespace) -> None:
    bucket = configured_bucket(arguments.bucket, arguments.prefix, chosen_trust(arguments))
    answer = COMMANDS[arguments.command](bucket, arguments)
    print(json.dumps(answer.value, indent=2, sort_keys=True, ensure_ascii=False) if arguments.json else answer.text)
    for problem in answer.problems:
        print(f"registry: {problem}", file=sys.stderr)
    if answer.status:
        raise SystemExit(answer.status)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m tasks.registry", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--bucket", help="instead of publish.bucket in params.yaml")
    shared.add_argument("--prefix", help="instead of publish.prefix in params.yaml")
    shared.add_argument("--json", action="store_true", help="for programs")
    add_trust_options(shared)
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    made = {name: commands.add_parser(name, parents=[shared]) for name in COMMANDS}
    for name in ("show", "pull", "checkout", "rebuild"):
        made[name].add_argument("release", nargs="?", default="champion", help=RELEASE)
    made["pull"].add_argument("folder", nargs="?", type=Path, help=f"where to; {CACHE}/<id> if not given")
    made["diff"].add_argument("before", help=RELEASE)
    made["diff"].add_argument("after", help=RELEASE)
    made["verify"].add_argument("release", nargs="?", help=RELEASE)
    made["verify"].add_argument("--all", action="store_true", help="every release, and what the channels name")
    for name in ("drift", "start", "offer"):
        made[name].add_argument("--output", type=Path, metavar="FILE", help="write what --json prints into a file, too")
    made["promote"].add_argument("release", help=RELEASE)
    made["promote"].add_argument("--force", action="store_true", help="past the gate; --reason is needed then")
    made["promote"].add_argument("--reason", default="", help="why; the history keeps it")
    for name in ("rollback", "history"):
        made[name].add_argument("channel", nargs="?", choices=CHANNELS, default="champion")
    made["rollback"].add_argument("--reason", required=True, help="why; the history keeps it")
    made["gc"].add_argument("--delete", action="store_true", help="remove what is listed without it")
    return parser


def _list(bucket: Store, _: argparse.Namespace) -> CommandResult:
    found, channels = list_rows(bucket), _channels(bucket)
    rows = [{**row.model_dump(), "channels": channels.get(row.id, [])} for row in found.rows]
    return CommandResult(rows, list_text(rows, bucket.uri(FOLDER)), found.problems, NO if found.problems else 0)


def _show(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    manifest = resolve(bucket, arguments.release)
    row_of(manifest)  # its figures are there
    value = manifest.model_dump(mode="json")
    address, channels = bucket.uri(f"{FOLDER}/{manifest.id}"), _channels(bucket).get(manifest.id, [])
    return CommandResult(value, show_text(value, address, channels))


def _diff(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    difference = compare(bucket, resolve(bucket, arguments.before), resolve(bucket, arguments.after))
    return CommandResult(difference, diff_text(difference))


def _verify(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    if arguments.all and arguments.release:
        raise InputError(f"verify takes a release or --all, not {arguments.release!r} and --all")
    verified = list(verify_all(bucket)) if arguments.all else [verify_release(bucket, arguments.release or "champion")]
    sound = not any(each.problems for each in verified)
    value = {"sound": sound, "verified": [asdict(each) for each in verified]}
    return CommandResult(value, verification_text(value), status=0 if sound else NO)


def _pull(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    manifest = resolve(bucket, arguments.release)
    folder = arguments.folder or CACHE / manifest.id
    pull_release(bucket, manifest, folder)
    value = {"id": manifest.id, "folder": str(folder), "files": len(manifest.files), "bytes": manifest.size}
    return CommandResult(value, f"release {manifest.id} is in {folder}: {len(manifest.files)} files, all verified")


def _checkout(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    done = checkout(bucket, resolve(bucket, arguments.release), Path())
    return CommandResult(asdict(done), checkout_text(asdict(done)), done.doubts)


def _offer(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    value = asdict(offer(bucket, load_params()))
    if arguments.output is not None:
        write_json(arguments.output, value)
    return CommandResult(value, offer_text(value), status=0 if value["champion"] else NO)


def _drift(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    params, champion = load_params(), read_channel(bucket, "champion")
    ask = asked_through(bucket, params.evaluate.batch_size, params.split, RAW)
    drift = None if champion is None else measure_drift(bucket, champion, SPLIT, ask)
    need = decide(champion, drift, params)
    value = {"drift": None if drift is None else asdict(drift), **asdict(need)}
    if arguments.output is not None:
        write_json(arguments.output, value)
    text = need.sentence if drift is None else f"{drift.sentence}\n{need.sentence}"
    return CommandResult(value, text, status=0 if need.retrain else NO)


def _start(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    chosen = choose_start(read_channel(bucket, "champion"), load_params())
    if arguments.output is not None:
        write_json(arguments.output, asdict(chosen))
    return CommandResult(asdict(chosen), chosen.sentence)


def _promote(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    manifest, verdict = resolve(bucket, arguments.release), None
    why = {"reason": arguments.reason, "actor": current_actor(), "now": _now()}
    if arguments.force:
        champion = promote(bucket, manifest, None, **why)
    else:
        champion, verdict = promote_by_gate(bucket, manifest, load_params(), **why)
    findings = [] if verdict is None else [finding.model_dump(mode="json") for finding in verdict.findings]
    value = {"id": manifest.id, "champion": champion, "forced": arguments.force, "verdict": findings}
    return CommandResult(value, promotion_text(value), status=0 if champion else NO)


def _rollback(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    channel = arguments.channel
    manifest = rollback(bucket, channel, actor=current_actor(), reason=arguments.reason, now=_now())
    return CommandResult({"channel": channel, "id": manifest.id}, f"{channel} points at release {manifest.id} again")


def _history(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    moves = [move.model_dump() for move in all_moves(bucket, read_pointer(bucket, arguments.channel))]
    return CommandResult(moves, history_text(moves, arguments.channel))


def _gc(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    found = find_garbage(bucket)
    if arguments.delete:
        remove_garbage(bucket, found)
    value = {
        "deleted": arguments.delete,
        "garbage": [
            {"kind": item.kind, "key": item.key, "bytes": item.size, "age_seconds": item.age.total_seconds()}
            for item in found.garbage
        ],
        "unlisted": [manifest.id for manifest in found.unlisted],
        "problems": list(found.problems),
    }
    return CommandResult(value, garbage_text(value), found.problems, NO if found.problems else 0)


def _rebuild(bucket: Store, arguments: argparse.Namespace) -> CommandResult:
    manifest = resolve(bucket, arguments.release)
    plan = plan_rebuild(manifest)
    value = {"id": manifest.id, **asdict(plan)}
    return CommandResult(value, plan.script(), plan.doubts, NO if plan.doubts else 0)


def _channels(bucket: Store) -> dict[str, list[str]]:
    """Return for each release that a channel points at the channels' names."""
    names: dict[str, list[str]] = {}
    for channel in CHANNELS:
        pointer = read_pointer(bucket, channel)
        if pointer is not None:
            names.setdefault(pointer.current.release, []).append(channel)
    return names


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


COMMANDS: dict[str, Callable[[Store, argparse.Namespace], CommandResult]] = {
    "list": _list,
    "show": _show,
    "diff": _diff,
    "verify": _verify,
    "pull": _pull,
    "checkout": _checkout,
    "drift": _drift,
    "start": _start,
    "offer": _offer,
    "promote": _promote,
    "rollback": _rollback,
    "history": _history,
    "gc": _gc,
    "rebuild": _rebuild,
}


if __name__ == "__main__":
    main()

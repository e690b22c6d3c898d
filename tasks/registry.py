"""Look at published releases, and fetch one.

python -m tasks.registry list
python -m tasks.registry show [ID | champion | candidate]
python -m tasks.registry pull [ID | champion | candidate] [FOLDER]
"""

import argparse
import json
from pathlib import Path
from typing import Any

from tasks.errors import run_command
from tasks.progress import format_bytes
from tasks.storage.bucket import Bucket, configured_bucket
from tasks.storage.manifest import Manifest
from tasks.storage.pointers import CHANNELS, read_pointer, resolve
from tasks.storage.releases import CACHE, FOLDER, list_releases, pull_release

COLUMNS = ("id", "created_at", "dataset", "recipe", "top1", "interval", "size", "channels")


def main() -> None:
    """Parse the command line and run one of the commands."""
    arguments = _parser().parse_args()
    run_command("registry", lambda: _run(arguments))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m tasks.registry", description="Releases in the object store.")
    shared = argparse.ArgumentParser(add_help=False)
    shared.add_argument("--bucket", help="instead of publish.bucket in params.yaml")
    shared.add_argument("--prefix", help="instead of publish.prefix in params.yaml")
    shared.add_argument("--json", action="store_true", help="for programs")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("list", parents=[shared], help="all releases, newest first")
    for name, text in (("show", "what a release is and where it comes from"), ("pull", "fetch a release, verified")):
        command = commands.add_parser(name, parents=[shared], help=text)
        command.add_argument("release", nargs="?", default="champion", help="id, champion (default) or candidate")
        if name == "pull":
            command.add_argument("folder", nargs="?", type=Path, help=f"where to; {CACHE}/<id> if not given")
    return parser


def _run(arguments: argparse.Namespace) -> None:
    bucket = configured_bucket(arguments.bucket, arguments.prefix)
    if arguments.command == "list":
        _list(bucket, as_json=arguments.json)
        return
    manifest = resolve(bucket, arguments.release)
    if arguments.command == "show":
        _show(bucket, manifest, as_json=arguments.json)
    else:
        _pull(bucket, manifest, arguments.folder or CACHE / manifest.id, as_json=arguments.json)


def _list(bucket: Bucket, *, as_json: bool) -> None:
    channels = _channels(bucket)
    manifests = sorted(list_releases(bucket), key=lambda manifest: (manifest.created_at, manifest.id), reverse=True)
    if as_json:
        _print_json([_summary(manifest, channels) for manifest in manifests])
    elif manifests:
        _print_table([_row(_summary(manifest, channels)) for manifest in manifests])
    else:
        print(f"no releases in {bucket.uri(FOLDER)} yet")


def _show(bucket: Bucket, manifest: Manifest, *, as_json: bool) -> None:
    if as_json:
        _print_json(manifest.model_dump(mode="json"))
        return
    summary = _summary(manifest, _channels(bucket))
    row = _row(summary)
    git = manifest.git
    commit = "none" if git is None else f"{git['commit']}{' (with uncommitted changes)' if git['dirty'] else ''}"
    facts = {
        "release": manifest.id,
        "address": bucket.uri(f"{FOLDER}/{manifest.id}"),
        "channels": row["channels"] or "none",
        "published": row["created_at"],
        "top-1": f"{row['top1']} (95 % interval {row['interval']}) on {manifest.metrics['images']:,} test images",
        "data set": f"{row['dataset']}, test set {manifest.metrics['test_sha256'][:16]}…",
        "recipe": f"{row['recipe']}, seed {manifest.parameters['train']['seed']}",
        "commit": commit,
        "measured against": manifest.parent or "nothing: there was no champion",
        "verdict": "; ".join(manifest.sentences),
        "environment": ", ".join(f"{name} {version}" for name, version in manifest.environment.items()),
    }
    width = max(map(len, facts))
    print("\n".join(f"{name:<{width}}  {value}" for name, value in facts.items()))
    print(f"\n{len(manifest.files)} files, {row['size']}")
    print("\n".join(f"  {format_bytes(entry.size):>9}  {entry.path}" for entry in manifest.files))


def _pull(bucket: Bucket, manifest: Manifest, folder: Path, *, as_json: bool) -> None:
    pull_release(bucket, manifest, folder)
    if as_json:
        _print_json({"id": manifest.id, "folder": str(folder), "files": len(manifest.files), "bytes": manifest.size})
    else:
        print(f"release {manifest.id} is in {folder}: {len(manifest.files)} files, all verified")


def _channels(bucket: Bucket) -> dict[str, list[str]]:
    """Return for each release that a channel points at the channels' names."""
    names: dict[str, list[str]] = {}
    for channel in CHANNELS:
        pointer = read_pointer(bucket, channel)
        if pointer is not None:
            names.setdefault(pointer.current.release, []).append(channel)
    return names


def _summary(manifest: Manifest, channels: dict[str, list[str]]) -> dict[str, Any]:
    return {
        "id": manifest.id,
        "created_at": manifest.created_at,
        "dataset": manifest.metrics["dataset"],
        "recipe": manifest.parameters["train"]["recipe"],
        "top1": manifest.top1,
        "top1_low": manifest.metrics["top1_low"],
        "top1_high": manifest.metrics["top1_high"],
        "images": manifest.metrics["images"],
        "bytes": manifest.size,
        "channels": channels.get(manifest.id, []),
    }


def _row(summary: dict[str, Any]) -> dict[str, str]:
    """Return a summary as a person reads it."""
    return {
        "id": summary["id"],
        "created_at": summary["created_at"].replace("T", " ").replace("+00:00", " UTC"),
        "dataset": summary["dataset"],
        "recipe": summary["recipe"],
        "top1": f"{100 * summary['top1']:.2f} %",
        "interval": f"{100 * summary['top1_low']:.2f} to {100 * summary['top1_high']:.2f} %",
        "size": format_bytes(summary["bytes"]),
        "channels": ", ".join(summary["channels"]),
    }


def _print_table(rows: list[dict[str, str]]) -> None:
    titles = dict(
        zip(COLUMNS, ("ID", "PUBLISHED", "DATA", "RECIPE", "TOP-1", "95 % INTERVAL", "SIZE", "CHANNELS"), strict=True)
    )
    widths = {column: max(len(row[column]) for row in (titles, *rows)) for column in COLUMNS}
    for row in (titles, *rows):
        print("  ".join(f"{row[column]:<{widths[column]}}" for column in COLUMNS).rstrip())


def _print_json(value: Any) -> None:
    print(json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False))


if __name__ == "__main__":
    main()

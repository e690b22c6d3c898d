"""What the commands of `tasks.registry` print for people, from the same values that `--json` prints for programs.

Names in them come from manifests that others wrote, so whatever a terminal would obey is shown as a question mark.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tasks.stage.progress import format_bytes, format_duration
from tasks.stage.shown import percent

Value = Mapping[str, Any]

LIST_TITLES = {
    "id": "ID",
    "created_at": "PUBLISHED",
    "dataset": "DATA",
    "recipe": "RECIPE",
    "top1": "TOP-1",
    "interval": "95 % INTERVAL",
    "size": "SIZE",
    "channels": "CHANNELS",
}
KINDS = {
    "upload": "unfinished upload",
    "unfinished": "file of an unfinished release",
    "stray": "file that no manifest names",
    "index": "row of no release",
}


def list_text(releases: Sequence[Value], place: str) -> str:
    """Return the table of `list`; `place` is where the releases would be."""
    if not releases:
        return f"no releases in {place} yet"
    return table([_list_row(release) for release in releases], LIST_TITLES)


def show_text(manifest: Value, address: str, channels: Sequence[str]) -> str:
    """Return what `show` says of a release.

    Args:
        manifest: As `show --json` prints it.
        address: Where it is.
        channels: Those that point at it.
    """
    git, metrics, train = manifest["git"], manifest["metrics"], manifest["parameters"].get("train") or {}
    changed = " (with uncommitted changes)" if git and git.get("dirty") else ""
    facts = {
        "release": manifest["id"],
        "address": address,
        "channels": ", ".join(channels) or "none",
        "published": _time(manifest["created_at"]),
        "top-1": f"{_top1(metrics)} (95 % interval {_interval(metrics)}) on {metrics['images']:,} test images",
        "data set": f"{metrics['dataset']}, test set {_shown(metrics.get('test_sha256'))}",
        "recipe": f"{train.get('recipe')}, seed {train.get('seed')}",
        **_began_with(manifest["training"].get("start")),
        "commit": f"{git.get('commit')}{changed}" if git else "none",
        "measured against": manifest["parent"] or "nothing: there was no champion",
        "verdict": "; ".join(_sentences(manifest["verdict"])),
        "environment": ", ".join(f"{name} {version}" for name, version in manifest["environment"].items()),
    }
    size = sum(file["size"] for file in manifest["files"])
    files = [f"  {format_bytes(file['size']):>9}  {file['path']}" for file in manifest["files"]]
    return "\n".join([*_facts(facts), "", f"{len(files)} files, {format_bytes(size)}", *map(plain, files)])


def _began_with(start: Value | None) -> dict[str, str]:
    """Return the fact of which release training began with, where it did; `start` is training.json's word of it."""
    if start is None:
        return {}
    mixture = start.get("shrink_perturb")
    mixed = f" × {mixture['shrink']} + {mixture['perturb']} × the seed's own" if mixture else ""
    return {"began with": f"the weights of release {start.get('release')}{mixed}"}


def diff_text(difference: Value) -> str:
    """Return what `diff` says, a table for each kind of difference."""
    before, after = difference["before"], difference["after"]
    parts = []
    for name in ("metrics", "parameters", "data", "code", "environment"):
        if difference[name]:
            parts.append(_change_table(name.upper(), difference[name], before, after))
    if difference["classes"]:
        parts.append(_class_table(difference["classes"]))
    if not parts:
        parts.append(f"{before} and {after} do not differ")
    if not difference["same_test_images"]:
        parts.append("The metrics were measured on different test images, so their differences mean little.")
    if difference["classes"] is None:
        parts.append("Classes are not compared: one of the two has no per_class.json.")
    return "\n\n".join(parts)


def verification_text(answer: Value) -> str:
    """Return what `verify` says: a line for each release and channel, and below it what is wrong."""
    lines = []
    for each in answer["verified"]:
        state = "damaged" if each["problems"] else "sound"
        read = f", {each['files']} files of {format_bytes(each['bytes'])} read" if each["files"] else ""
        lines += [f"{plain(each['subject'])}: {state}{read}", *(f"  {plain(problem)}" for problem in each["problems"])]
    return "\n".join(lines) or "there is nothing to verify yet"


def garbage_text(answer: Value) -> str:
    """Return what `gc` says: a line for everything that is removed, and what it comes to."""
    items = answer["garbage"]
    rows = [
        {
            "kind": KINDS[item["kind"]],
            "age": format_duration(item["age_seconds"]),
            "size": "" if item["bytes"] is None else format_bytes(item["bytes"]),
            "key": item["key"],
        }
        for item in items
    ]
    lines = [table(rows, {"kind": "WHAT", "age": "AGE", "size": "SIZE", "key": "KEY"})] if rows else []
    total = format_bytes(sum(item["bytes"] or 0 for item in items))
    done = "removed" if answer["deleted"] else "to remove: registry gc --delete"
    lines.append(f"{len(items)} objects and uploads, {total}, {done}" if items else "no garbage that is a day old")
    if answer["unlisted"]:
        done = "added to" if answer["deleted"] else "not in, until registry gc --delete,"
        lines.append(f"releases {done} the index that lists are read from: {len(answer['unlisted'])}")
    return "\n".join(lines)


def history_text(moves: Sequence[Value], channel: str) -> str:
    """Return the table of `history`, the last move first."""
    if not moves:
        return f"{channel} never pointed at a release"
    rows = [
        {
            "moved_at": _time(move["moved_at"]),
            "release": move["release"],
            "action": f"{move['action']}{', forced' if move['forced'] else ''}",
            "actor": move["actor"] or "–",
            "reason": move["reason"],
        }
        for move in reversed(moves)
    ]
    titles = {"moved_at": "MOVED", "release": "RELEASE", "action": "BY", "actor": "WHO", "reason": "WHY"}
    return table(rows, titles)


def checkout_text(value: dict[str, Any]) -> str:
    """Return what a workspace has now, and what to type next."""
    files = " and ".join(value["changed"]) or "params.yaml and dvc.lock"
    made = f", made of commit {value['commit']}" if value["commit"] else ""
    return f"{files} {'is' if len(value['changed']) == 1 else 'are'} as in release {value['id']}{made}; now: dvc pull"


def offer_text(answer: Value) -> str:
    """Return what `offer` says: what each rule of the gate says, and last the outcome."""
    lines = [each if isinstance(each, str) else _rule(each) for each in answer["verdict"]]
    if answer["champion"] and "champion" not in answer["moved"]:
        lines = []  # what was said long ago
    return "\n".join([*lines, f"{answer['id']}: {plain(answer['outcome'])}"])


def promotion_text(answer: Value) -> str:
    """Return what `promote` says: whether the release is champion now, and what each rule of the gate says."""
    state = "is champion" if answer["champion"] else "is not champion"
    forced = ", past the gate" if answer["champion"] and answer["forced"] else ""
    return "\n".join([f"{answer['id']} {state}{forced}", *map(_rule, answer["verdict"])])


def table(rows: Sequence[Mapping[str, str]], titles: Mapping[str, str]) -> str:
    """Return aligned columns under their titles, in the order of `titles`."""
    lines = [titles, *({name: plain(row[name]) for name in titles} for row in rows)]
    widths = {name: max(len(line[name]) for line in lines) for name in titles}
    return "\n".join("  ".join(f"{line[name]:<{widths[name]}}" for name in titles).rstrip() for line in lines)


def plain(text: str) -> str:
    """Return text without anything that a terminal would obey."""
    return "".join(character if character.isprintable() else "?" for character in text)


def _rule(finding: Value) -> str:
    return f"{'✓' if finding['passed'] else '✗'} {plain(finding['sentence'])}"


def _list_row(release: Value) -> dict[str, str]:
    return {
        "id": release["id"],
        "created_at": _time(release["created_at"]),
        "dataset": release["dataset"],
        "recipe": release["recipe"],
        "top1": _top1(release),
        "interval": _interval(release),
        "size": format_bytes(release["bytes"]),
        "channels": ", ".join(release["channels"]),
    }


def _sentences(verdict: Sequence[Any]) -> Iterable[str]:
    """Return what the rules say, each sentence once; old manifests hold sentences alone."""
    return dict.fromkeys(each if isinstance(each, str) else each["sentence"] for each in verdict)


def _facts(facts: Mapping[str, str]) -> Iterable[str]:
    width = max(map(len, facts))
    return (f"{name:<{width}}  {plain(value)}" for name, value in facts.items())


def _change_table(title: str, changes: Mapping[str, Value], before: str, after: str) -> str:
    rows = [
        {"name": name, "before": _shown(change["before"]), "after": _shown(change["after"]), "change": _signed(change)}
        for name, change in changes.items()
    ]
    return table(rows, {"name": title, "before": before, "after": after, "change": "CHANGE"})


def _class_table(classes: Mapping[str, Mapping[str, Value]]) -> str:
    """Return the scores that differ; the classes that lost most recall come first."""
    ordered = sorted(classes.items(), key=lambda item: item[1].get("recall", {}).get("change", 0.0))
    scores = ("recall", "precision", "f1", "images")
    rows = [{"name": name, **{score: _moved(changes.get(score)) for score in scores}} for name, changes in ordered]
    return table(rows, {"name": "CLASSES", **{score: score.upper() for score in scores}})


def _moved(change: Value | None) -> str:
    if change is None:
        return "="
    return f"{_shown(change['before'])} → {_shown(change['after'])} {_signed(change)}".rstrip()


def _shown(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, float):
        return f"{value:.6g}"
    text = str(value)
    return f"{text[:16]}…" if len(text) == 64 else text  # a sha256


def _signed(change: Value) -> str:
    return f"({change['change']:+.4g})" if "change" in change else ""


def _time(moment: str) -> str:
    return moment.replace("T", " ").replace("+00:00", " UTC")


def _top1(metrics: Value) -> str:
    return percent(metrics["top1"])


def _interval(metrics: Value) -> str:
    return f"{100 * metrics['top1_low']:.2f} to {100 * metrics['top1_high']:.2f} %"

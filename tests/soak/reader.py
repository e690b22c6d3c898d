"""A reader that pulls the champion over and over while others publish: what it holds is always one whole release."""

from dataclasses import asdict, dataclass, field
from pathlib import Path

from tasks.registry.channels import CHANNELS, read_pointer, resolve
from tasks.registry.manifest import Manifest
from tasks.registry.moves import Move, all_moves
from tasks.registry.releases import pull_release, verify_folder
from tasks.registry.store import Store
from tasks.stage.errors import InputError
from tasks.stage.files import write_json
from tests.soak.publisher import Place


@dataclass
class Seen:
    """What a reader saw.

    Attributes:
        pulled: How often it got the champion, verified.
        refused: How often it was refused with a sentence, and kept what it had.
        problems: What must not be, in sentences.
    """

    pulled: int = 0
    refused: int = 0
    problems: list[str] = field(default_factory=list)


def read(place: Place, client: str) -> None:
    """Pull until `<folder>/stop` exists; then leave what was seen in `<folder>/<client>.json`."""
    place.log_to(client)
    bucket, seen = place.open(client), Seen()
    copy: Manifest | None = None
    histories: dict[str, tuple[Move, ...]] = {}
    while not (place.folder / "stop").exists():
        copy = _pull(bucket, place.folder / client, copy, seen)
        for channel in CHANNELS:
            try:
                now = all_moves(bucket, read_pointer(bucket, channel))
            except InputError:
                continue
            before = histories.get(channel, ())
            if now[: len(before)] != before:
                seen.problems.append(f"{channel}: {len(now)} moves do not go on from the {len(before)} seen before")
            histories[channel] = now
    write_json(place.folder / f"{client}.json", asdict(seen))


def _pull(bucket: Store, folder: Path, copy: Manifest | None, seen: Seen) -> Manifest | None:
    """Pull once; return whose copy the folder is then known to hold."""
    try:
        manifest = resolve(bucket, "champion")
        pull_release(bucket, manifest, folder)
    except InputError as error:
        print(error, flush=True)
        seen.refused += 1
    else:
        seen.pulled += 1
        copy = manifest
    try:
        if copy is not None and verify_folder(folder) != copy:
            seen.problems.append(f"the copy is not {copy.id}")
    except InputError as error:
        seen.problems.append(f"after {seen.pulled} pulls and {seen.refused} refusals: {error}")
    return copy

"""What `make run`, and only it, does on a machine that cannot reach CIFAR-10's hosts: it runs on digits, and says so.

What params.yaml said before is noted under .local/, so that a later run goes back as soon as a host answers.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from flows.fitting import OF_ANOTHER
from flows.overrides import Overrides, preview, sets, value_of
from tasks.params.data import DownloadParams
from tasks.stage.files import read_json, write_json

DIGITS = {
    "download.dataset": "digits",
    "train.recipe": "digits",
    "evaluate.test_time_augmentation": "auto",
    "publish.prefix": "digits",  # a champion of its own: two test sets cannot be compared
    **OF_ANOTHER,
}
FORMERLY = {"evaluate.test_time_augmentation": "none"}  # what DIGITS said when an older record was written
RECORD = Path(".local/fallback.json")
RAW = Path("data/raw")
DOWNLOADS = Path(".cache/downloads")
PROBE_SECONDS = 5.0


def reachable_data(given: Overrides, folder: Path, say: Callable[[str], None]) -> dict[str, Any]:
    """Return the values to set in params.yaml so that the data set can be had.

    Args:
        given: What the person has set; it always wins.
        folder: The repository.
        say: Called with a sentence for each thing that differs from what the person would expect.

    Raises:
        InputError: params.yaml with the values given is not valid.
    """
    former = _former_values(folder)
    wanted = former | dict(given)
    params = preview(wanted, folder / "params.yaml")
    if "download.dataset" in given or not _needs_network(params.download, folder):
        return wanted
    addresses = params.download.addresses
    refusals = [refusal for url in addresses if (refusal := probe(url)) is not None]
    if len(refusals) < len(addresses):
        if former:
            say(f"{_host(addresses[0])} answers again: going back from digits to {params.download.dataset}")
        return wanted
    say("The data set cannot be fetched: " + "; ".join(refusals) + ".")
    say("Running on scikit-learn's bundled handwritten digits instead, up-scaled to 32×32×3: NOT CIFAR-10.")
    say('With a mirror: make run SET="download.url=file:///…/cifar-10-binary.tar.gz"')
    digits = {key: value for key, value in DIGITS.items() if not sets(given, key)}
    write_json(folder / RECORD, {key: value_of(params, key) for key in digits})
    return dict(given) | digits


def probe(url: str) -> str | None:
    """Ask for one byte of an address; return None where it answers, else a few words about why not."""
    try:
        with requests.get(url, headers={"Range": "bytes=0-0"}, stream=True, timeout=PROBE_SECONDS) as answer:
            return None if answer.ok else f"{_host(url)} answers {answer.status_code}"
    except requests.RequestException as error:
        return f"{_host(url)} does not answer ({type(error).__name__})"


def _former_values(folder: Path) -> dict[str, Any]:
    """Return what params.yaml said before the fallback; nothing where none is in force or a person has edited since."""
    record = folder / RECORD
    if not record.exists():
        return {}
    former: dict[str, Any] = read_json(record)
    params = preview({}, folder / "params.yaml")
    return former if all(value_of(params, key) in (DIGITS[key], FORMERLY.get(key)) for key in former) else {}


def _needs_network(params: DownloadParams, folder: Path) -> bool:
    """Tell whether the archive is still to be fetched, over HTTP only."""
    if params.dataset != "cifar10" or not all(url.startswith(("http://", "https://")) for url in params.addresses):
        return False
    source = folder / RAW / "source.json"
    there = source.exists() and read_json(source).get("sha256") == params.sha256
    return not there and not (params.sha256 and (folder / DOWNLOADS / params.sha256).exists())


def _host(url: str) -> str:
    """Return an address's host without the credentials that may stand before it."""
    return url.partition("://")[2].partition("/")[0].rpartition("@")[2]

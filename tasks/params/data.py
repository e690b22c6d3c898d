"""The parameters of the data: where they come from, and who trains and who tests."""

import os
import re
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator

from tasks.params.address import DOWNLOAD_URL, Addresses
from tasks.params.section import Fraction, Positive, Section, Seed, Share

Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]


def _regular_expression(value: str) -> str:
    """Refuse what is no regular expression."""
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"{value!r} is no regular expression: {error}") from error
    return value


class DownloadParams(Section):
    """Where the data set comes from.

    Attributes:
        dataset: `cifar10` (the official binary archive), `folders` (an archive of labelled images) or `digits`
            (scikit-learn's bundled handwritten digits; needs neither `url` nor `sha256`).
        url: One address or several that are tried in order; `http(s)://`, `file://` and `s3://`. Without credentials,
            since parameters are recorded: those are for ~/.netrc, or for addresses in RETRAIN_DOWNLOAD_URL.
            One that ends with a slash, of file:// or s3://, is a collection: a folder or prefix that people add to.
        sha256: Of the archive, or the name of a collection's snapshot; null accepts any and prints what to pin.
        follow: Whether a run of the flow first looks at a collection and moves sha256 to what is there.
        max_lost: What share of its images a collection may lose from one look to the next; more is refused.
        attempts: Tries at each address before the next one.
        timeout_seconds: Longest silence of a server.
    """

    dataset: Literal["cifar10", "folders", "digits"]
    url: Addresses = ()
    sha256: Sha256 | None = None
    follow: bool = True
    max_lost: Annotated[float, Field(ge=0, le=1)] = 0.2
    attempts: Positive = 5
    timeout_seconds: Annotated[float, Field(gt=0)] = 30

    @model_validator(mode="after")
    def _address_present(self) -> "DownloadParams":
        if self.dataset != "digits" and not self.addresses:
            raise ValueError(f"url is empty, and dataset {self.dataset} needs one")
        collections = [url for url in self.url if url.endswith("/")]
        if collections and (self.dataset != "folders" or len(self.url) > 1 or collections[0].startswith("http")):
            raise ValueError(
                f"url {collections[0]} ends with a slash, and so is a collection: one address of file:// or s3://, for "
                "dataset folders"
            )
        return self

    @property
    def addresses(self) -> tuple[str, ...]:
        """`url`, or instead of it the addresses in RETRAIN_DOWNLOAD_URL, divided by spaces, which nothing records."""
        return tuple(os.environ.get(DOWNLOAD_URL, "").split()) or self.url

    @property
    def collection(self) -> str | None:
        """The address of the collection that people add to, or None where the data set is an archive."""
        if self.dataset == "folders" and self.addresses[0].endswith("/"):
            return self.addresses[0]
        return None


class SplitParams(Section):
    r"""How images become train, validation and test arrays.

    Attributes:
        method: `stable` gives each image a place by a hash of it, which no other image changes; `stratified` keeps
            every class's share exactly; `tail` holds out the last images, in the archive's order; `auto` is stable for
            image folders, which grow, and stratified for the others.
        group: A regular expression on the names of image files, as `^(patient\d+)_`: a stable choice keeps together
            whatever shares what it matches; null for none.
        validation_fraction: Of the training images.
        test_fraction: Of all images, where the data set has no test split of its own.
        image_size: Height and width in pixels to which images from folders are brought.
        fit: How: `crop` scales the shorter side and cuts out the middle; `pad` scales the longer side and fills the
            rest with black; `squash`, as before there was a choice, scales each side by itself: a circle becomes an
            ellipse.
        max_quarantined: What share of people's own images, and of each class's, may be set aside because they cannot be
            read; more ends the stage.
        seed: Of the choice.
    """

    method: Literal["auto", "stable", "stratified", "tail"]
    group: Annotated[str, AfterValidator(_regular_expression)] | None = None
    validation_fraction: Fraction
    test_fraction: Fraction = 0.15
    image_size: Annotated[int, Field(ge=8, le=1024)] = 32
    fit: Literal["crop", "pad", "squash"] = "squash"
    max_quarantined: Share = 0.01
    seed: Seed = 0

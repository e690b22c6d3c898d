"""Which addresses parameters may have: whatever stands there is recorded, by git, dvc.lock and releases."""

import re
from typing import Annotated, Any
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import AfterValidator, BeforeValidator

DOWNLOAD_URL = "RETRAIN_DOWNLOAD_URL"  # holds the addresses that nothing may record
BUCKET = r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]"  # patterns of S3's names, without / at an end
PREFIX = r"[A-Za-z0-9._-]+(/[A-Za-z0-9._-]+)*"
# What stands in the query of an address that anybody may know. Every other name may be a key's, of which there is no
# end of names.
OPEN_NAMES = frozenset(
    """alt branch dl download export file filename format generation gid id inline name path raw ref rev revision tag
    usp v version versionid""".split()  # noqa: SIM905 - a line, not a page
)


def check_address(url: str) -> None:
    """Refuse an address that is none, or that holds what nobody else should read.

    Raises:
        ValueError: It has another scheme, a user, a fragment, a path parameter, or a query that may be a key.
    """
    if not re.match(r"(https?|file|s3)://.", url):
        raise ValueError(f"{_start_of(url)} does not start with http://, https://, file:// or s3://")
    if "#" in url or re.match(r"https?://[^?]*;", url):
        raise ValueError(
            "an address has a fragment or a path parameter (what follows # or ;), which may be a token, and "
            "which git, dvc.lock and the release would record; leave it out, or write %23 or %3B for the sign, "
            f"or put a data set's whole address into the environment variable {DOWNLOAD_URL}"
        )
    if _holds_secret(url):
        raise ValueError(
            "an address holds a password or a signature, or a query that may be one, which git, dvc.lock and "
            "the release would record; put it into ~/.netrc, or a data set's whole address into the "
            f"environment variable {DOWNLOAD_URL} (a query may have {', '.join(sorted(OPEN_NAMES))})"
        )


def _start_of(malformed: str) -> str:
    """Return as much of what is no address as cannot hold a password."""
    if re.fullmatch(r"[\w ./-]{0,120}", malformed):
        return repr(malformed)
    scheme = re.match(r"[a-z][a-z0-9+.-]{1,11}://", malformed)
    return f"'{scheme.group()}…'" if scheme else "an address that is not shown, for it may hold a password,"


def _holds_secret(url: str) -> bool:
    """Tell whether an address has a user, or a query with something that is not known to be open."""
    try:
        parts = urlsplit(url)
        names = [name.lower() for name, _ in parse_qsl(parts.query, keep_blank_values=True)]
    except ValueError:  # no address at all, as the stage download will say
        return "@" in url
    has_user = "@" in parts.netloc or (not parts.netloc and "@" in parts.path.lstrip("/").partition("/")[0])
    hidden_query = parts.scheme.startswith("http") and "?" in unquote(parts.path)
    values_without_name = bool(parts.query) and not names
    return has_user or hidden_query or values_without_name or not OPEN_NAMES.issuperset(names)


def _checked(urls: tuple[str, ...]) -> tuple[str, ...]:
    for url in urls:
        check_address(url)
    return urls


def _one_or_several(value: Any) -> Any:
    """Return one address as a list of it, and nothing as an empty one."""
    return [value] if isinstance(value, str) else value or ()


Addresses = Annotated[tuple[str, ...], BeforeValidator(_one_or_several), AfterValidator(_checked)]

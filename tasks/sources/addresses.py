"""One address opened for reading from any position: http(s)://, file:// and s3://."""

import contextlib
import email.utils
import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

import requests
import urllib3

CHUNK = 1 << 16
PROXY_KINDS = "HTTPS_PROXY and HTTP_PROXY take http://host:port; for socks5:// install the package pysocks"
TEMPORARY_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504})


class TransferError(Exception):
    """An address did not give what was asked; the text says why, without any credentials."""


class TemporaryError(TransferError):
    """It may do so later.

    Attributes:
        retry_after: Seconds that the server asked to be left alone.
    """

    def __init__(self, reason: str, retry_after: float = 0) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


class StaleError(TransferError):
    """It cannot go on from the position asked for: what it has is no longer what was begun."""


@dataclass(frozen=True)
class Body:
    """The bytes of an address from a position on.

    Attributes:
        start: Position of the first byte; 0 where a server ignores the position asked for.
        total: Bytes of the whole, if known.
        validator: What tells this version of the content from others, if the server says.
        chunks: The bytes; raises TemporaryError when the connection breaks.
    """

    start: int
    total: int | None
    validator: str | None
    chunks: Iterator[bytes]


@dataclass(frozen=True)
class TransferSettings:
    """What opening an address needs.

    Attributes:
        timeout_seconds: Longest silence of a server.
        connect_s3: Gives a boto3 S3 client; called for s3:// addresses only.
    """

    timeout_seconds: float
    connect_s3: Callable[[], Any]


def is_address(address: str) -> bool:
    """Tell whether an address can be taken apart."""
    try:
        return urlsplit(address).port is None or bool(urlsplit(address).hostname)
    except ValueError:
        return False


def shown(address: str) -> str:
    """Return an address without what may be secret: user, password, query (signatures) and fragment."""
    parts = urlsplit(address)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def open_address(
    address: str, start: int, validator: str | None, settings: TransferSettings
) -> contextlib.AbstractContextManager[Body]:
    """Open an address from a position on.

    Args:
        address: Starts with http://, https://, file:// or s3://.
        start: The first byte wanted.
        validator: Of the version begun earlier; a server that has another one now starts from 0 or is stale.
        settings: Timeouts and clients.

    Raises:
        TransferError: It never will (missing, forbidden), for now does not (TemporaryError), or cannot go on from
            there (StaleError).
    """
    scheme = urlsplit(address).scheme
    if scheme == "file":
        return _open_file(address, start, validator)
    if scheme == "s3":
        return _open_s3(address, start, validator, settings)
    return _open_http(address, start, validator, settings.timeout_seconds)


@contextlib.contextmanager
def _open_http(address: str, start: int, validator: str | None, timeout: float) -> Iterator[Body]:
    """Ask for a range (RFC 9110, section 14), as it is and not re-encoded, of the version begun."""
    headers = {"Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
        if validator:
            headers["If-Range"] = validator
    with _network_errors(timeout):
        response = requests.get(address, headers=headers, stream=True, timeout=timeout)
    with response:
        _check_status(response)
        length = response.headers.get("Content-Length", "")
        if response.status_code == requests.codes.partial_content:
            first, total = _content_range(response.headers.get("Content-Range", ""), start)
        else:
            first, total = 0, int(length) if length.isdigit() else None
        yield Body(first, total, _http_validator(response), _http_chunks(response, timeout))


def _check_status(response: requests.Response) -> None:
    status = response.status_code
    reason = f"{status} {response.reason}".strip()
    if status == requests.codes.requested_range_not_satisfiable:
        raise StaleError(reason)
    if status in TEMPORARY_STATUSES:
        raise TemporaryError(reason, _retry_after(response.headers.get("Retry-After", "")))
    if status not in (requests.codes.ok, requests.codes.partial_content):
        raise TransferError(reason)


def _content_range(header: str, start: int) -> tuple[int, int | None]:
    """Return first position and total of `bytes 100-199/200`; the total may be `*`."""
    match = re.fullmatch(r"bytes (\d+)-\d+/(\d+|\*)", header.strip())
    if match is None or int(match[1]) != start:
        raise StaleError(f"it answered the range from {start} with {header!r}")
    return start, None if match[2] == "*" else int(match[2])


def _http_validator(response: requests.Response) -> str | None:
    """Return a strong ETag or else the date; a weak ETag does not vouch for the bytes (RFC 9110, section 13.1.5)."""
    tag = response.headers.get("ETag", "")
    return tag if tag.startswith('"') else response.headers.get("Last-Modified")


def _retry_after(header: str) -> float:
    """Return the seconds that `Retry-After` asks for, given as a number or as a date."""
    if header.strip().isdigit():
        return float(header)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(header).timestamp() - time.time())
    except ValueError:
        return 0.0


def _http_chunks(response: requests.Response, timeout: float) -> Iterator[bytes]:
    with _network_errors(timeout):
        yield from response.raw.stream(CHUNK, decode_content=False)


@contextlib.contextmanager
def _network_errors(timeout: float) -> Iterator[None]:
    """Turn the many exceptions of a broken connection into TemporaryError; their own texts hold the whole URL."""
    try:
        yield
    except (requests.Timeout, urllib3.exceptions.TimeoutError) as error:
        raise TemporaryError(f"no answer within {timeout:g} s") from error
    except requests.exceptions.SSLError as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise TransferError("its TLS certificate is not trusted") from error
        raise TemporaryError("the TLS connection broke off") from error
    except (requests.ConnectionError, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise TemporaryError(_root_cause(error)) from error
    except requests.RequestException as error:
        if isinstance(error, requests.exceptions.InvalidProxyURL) or "SOCKS" in str(error):
            raise TransferError(f"the shell's proxy cannot be used: {PROXY_KINDS}") from error
        raise TransferError(f"the request failed: {type(error).__name__}") from error


def _root_cause(error: BaseException) -> str:
    """Return what the operating system said first, as `Connection refused`."""
    cause: BaseException | None = error
    reason = "the connection broke off"
    while cause is not None:
        if isinstance(cause, OSError) and cause.strerror:
            reason = cause.strerror
        elif type(cause) is OSError:  # as http.client says that a proxy refused
            reason = str(cause)
        cause = cause.__cause__ or cause.__context__
    return reason


@contextlib.contextmanager
def _open_file(address: str, start: int, validator: str | None) -> Iterator[Body]:
    parts = urlsplit(address)
    if parts.netloc not in ("", "localhost"):
        raise TransferError(f"a file:// address names no host, and this one names {parts.netloc!r}")
    path = Path(url2pathname(parts.path))
    if path.is_dir():
        raise TransferError(
            "no such file, but a folder: end its address with a slash, and it is taken as a folder that people add to"
        )
    if path.exists() and not path.is_file():
        raise TransferError("no such file, but a device or a pipe")
    if not path.is_file() or not os.access(path, os.R_OK):
        raise TransferError("no such file, or not readable")
    with path.open("rb") as stream:
        status = path.stat()
        version = f"{status.st_size}-{status.st_mtime_ns}"
        if start > status.st_size or validator not in (None, version):
            raise StaleError("the file has changed")
        stream.seek(start)
        yield Body(start, status.st_size, version, iter(lambda: stream.read(CHUNK), b""))


@contextlib.contextmanager
def _open_s3(address: str, start: int, validator: str | None, settings: TransferSettings) -> Iterator[Body]:
    from botocore import exceptions as s3  # noqa: PLC0415  # for s3:// addresses only

    parts = urlsplit(address)
    request = {"Bucket": parts.netloc, "Key": unquote(parts.path.removeprefix("/"))}
    if start:
        request["Range"] = f"bytes={start}-"
    if validator:
        request["IfMatch"] = validator
    with s3_errors():
        response = settings.connect_s3().get_object(**request)
    with contextlib.closing(response["Body"]) as body:
        total = start + int(response["ContentLength"])
        yield Body(start, total, response["ETag"], _s3_chunks(body, s3.BotoCoreError))


@contextlib.contextmanager
def s3_errors() -> Iterator[None]:
    """Turn what boto3 raises into a TransferError: a TemporaryError where the same request may succeed later."""
    from botocore import exceptions as s3  # noqa: PLC0415  # for s3:// addresses only

    try:
        yield
    except s3.ClientError as error:
        raise _s3_refusal(error) from error
    except (s3.NoCredentialsError, s3.PartialCredentialsError, s3.ParamValidationError) as error:
        raise TransferError(f"it could not be asked for: {type(error).__name__}") from error
    except s3.BotoCoreError as error:
        raise TemporaryError(type(error).__name__) from error


def _s3_refusal(error: Any) -> TransferError:
    """Return what a refusal of the server means for this address."""
    status = int(error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
    code = error.response.get("Error", {}).get("Code", "unknown error")
    reason = f"{status} {code}"
    if status in (requests.codes.precondition_failed, requests.codes.requested_range_not_satisfiable):
        return StaleError(reason)
    return TemporaryError(reason) if status in TEMPORARY_STATUSES else TransferError(reason)


def _s3_chunks(body: Any, broken: type[Exception]) -> Iterator[bytes]:
    try:
        yield from body.iter_chunks(CHUNK)
    except (broken, urllib3.exceptions.HTTPError, ConnectionError) as error:
        raise TemporaryError(_root_cause(error)) from error

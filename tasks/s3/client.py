"""The one place that speaks to boto3's client: how it is set up, and what its errors mean to a person."""

import contextlib
import os
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import boto3
import botocore.session
from boto3.exceptions import Boto3Error, RetriesExceededError
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    EndpointConnectionError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    InvalidConfigError,
    LoginError,
    MetadataRetrievalError,
    NoCredentialsError,
    PartialCredentialsError,
    ProfileNotFound,
    SSLError,
    SSOError,
)
from s3transfer.exceptions import S3DownloadFailedError
from urllib3.exceptions import HTTPError

from tasks.s3.credentials import CHOSEN_ELSEWHERE, load_credentials
from tasks.s3.slow_answers import give_up_on_slow_answers
from tasks.stage.errors import InputError, OutageError
from tasks.stage.progress import format_duration

CONNECT_SECONDS = 10
READ_SECONDS = 60
ATTEMPTS = 4
DEFAULT_REGION = "us-east-1"

WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "InvalidToken", "ExpiredToken", "AuthFailure"}
DENIED = {"AccessDenied", "403", "Forbidden", "AllAccessDisabled"}
MISSING = {"NoSuchKey", "404", "NotFound"}
ALTERED = {"BadDigest", "XAmzContentSHA256Mismatch"}
CLOCK_WRONG = {"RequestTimeTooSkewed", "RequestExpired"}
BUSY = {"ConditionalRequestConflict", "OperationAborted"}
THROTTLED = {"SlowDown", "Throttling", "ThrottlingException", "TooManyRequests", "RequestLimitExceeded", "429"}
BROKE_OFF = {"IncompleteBody", "RequestTimeout"}
OUTAGE_CODES = BUSY | THROTTLED | BROKE_OFF
NO_PROFILE: dict[str, Any] = {"profile": (None, [], None, None), "config_file": (None, [], os.devnull, None)}
CREDENTIAL_ERRORS = (
    *(CredentialRetrievalError, InvalidConfigError, LoginError, MetadataRetrievalError, NoCredentialsError),
    *(PartialCredentialsError, ProfileNotFound, SSOError),
)
OUTAGE_STATUSES = {429, 500, 502, 503, 504}


def connect(environment: Mapping[str, str] | None = None) -> Any:
    """Return an S3 client for the endpoint and the credentials of the AWS_* variables.

    Args:
        environment: The AWS_* variables to use, and no profile or file of the person's; if not given, those of the
            process, completed by load_credentials.

    A custom endpoint gets path-style addressing, and checksums only where S3 requires them: the default ones of
    boto3 ≥ 1.36 break some stores. AWS itself keeps its defaults. Retries and time-outs are bounded, and an object that
    comes in too slowly counts as a time-out.

    Raises:
        InputError: The file with the local credentials is not private, or the settings make no sense to boto3.
    """
    if environment is None:
        load_credentials()
        environment = os.environ
    endpoint = environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or None
    if endpoint is not None and ("@" in endpoint or "?" in endpoint):  # every sentence about the store names it
        raise InputError("the S3 endpoint must hold no credentials: they go into AWS_ACCESS_KEY_ID and its companions")
    given = environment is not os.environ
    try:
        own = botocore.session.Session(session_vars=NO_PROFILE) if given else None
        client = boto3.session.Session(botocore_session=own).client(  # the default one remembers the first credentials
            "s3",
            endpoint_url=endpoint,
            region_name=environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or DEFAULT_REGION,
            aws_access_key_id=environment["AWS_ACCESS_KEY_ID"] if given else None,
            aws_secret_access_key=environment["AWS_SECRET_ACCESS_KEY"] if given else None,
            config=_config(custom_endpoint=endpoint is not None),
        )
    except CREDENTIAL_ERRORS as error:
        raise _credentials_refused(error) from error
    except (BotoCoreError, ValueError) as error:
        raise InputError(f"the S3 settings are wrong: {_one_line(error)}") from error
    give_up_on_slow_answers(client)
    return client


def check_credentials() -> None:
    """Look for the credentials that the environment chooses, before work that would end for want of them.

    S3 is not asked. Whoever gives them out may be away for now: that is for the stage to say that needs them.

    Raises:
        InputError: They cannot be had, because of the profile, a login or a variable.
    """
    with contextlib.suppress(OutageError):
        connect()
        if not any(os.environ.get(name) for name in CHOSEN_ELSEWHERE):
            return
        try:
            credentials = boto3.session.Session().get_credentials()
            if credentials is None:
                raise NoCredentialsError
            credentials.get_frozen_credentials()
        except (BotoCoreError, ClientError) as error:
            raise _credentials_refused(error) from error


def _credentials_refused(error: Exception) -> InputError:
    """Return an error that says what is wrong with the credentials that the environment chooses, and what to type."""
    reason = _one_line(error)
    if is_outage(error) or isinstance(error, MetadataRetrievalError) or "container-role" in reason:
        return OutageError(f"the S3 credentials cannot be had for now: {reason}")
    variable = next((name for name in ("AWS_PROFILE", "AWS_DEFAULT_PROFILE") if os.environ.get(name)), None)
    if variable is None:
        return InputError(f"the S3 credentials of the environment cannot be used: {reason}")
    profile = os.environ[variable]
    return InputError(
        f"{variable}={profile} cannot be used: {reason}; log in with: aws sso login --profile {profile}, or take a "
        f"profile that `aws configure list-profiles` names, or: unset {variable}, for while it is set the local object "
        "store is not used"
    )


def _config(*, custom_endpoint: bool) -> Config:
    bounded: dict[str, Any] = {
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        "retries": {"mode": "standard", "total_max_attempts": ATTEMPTS},
    }
    if not custom_endpoint:
        return Config(**bounded)
    return Config(
        **bounded,
        s3={"addressing_style": "path"},
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
    )


def error_code(error: ClientError) -> str:
    """Return S3's name of an error, as `PreconditionFailed`, or its HTTP status where a HEAD has no name."""
    return str(error.response.get("Error", {}).get("Code", ""))


@contextlib.contextmanager
def storage_errors(client: Any, bucket: str, key: str = "") -> Iterator[None]:
    """Turn boto3's errors into sentences that name the endpoint, the bucket and the key's path, never a credential.

    Raises:
        OutageError: The store is unreachable, throttles, fails inside, or the connection broke.
        InputError: The credentials are missing or wrong, the bucket or the object does not exist, access is denied, or
            the store refused for another reason, which is named.
    """
    endpoint = client.meta.endpoint_url
    place = f"s3://{bucket}/{key}" if key else f"bucket {bucket!r}"
    try:
        yield
    except (NoCredentialsError, PartialCredentialsError) as error:
        if os.environ.get("AWS_PROFILE") or os.environ.get("AWS_DEFAULT_PROFILE"):
            raise _credentials_refused(error) from error
        raise InputError(
            f"no S3 credentials for {endpoint}: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "or start the local object store with: make up"
        ) from error
    except EndpointConnectionError as error:
        hint = " (make up starts the one of this machine)" if "//127.0.0.1:" in str(endpoint) else ""
        raise OutageError(f"the object store at {endpoint} cannot be reached; is it running?{hint}") from error
    except (ConnectionError, HTTPClientError, HTTPError, IncompleteReadError) as error:
        if _is_untrusted(error):
            raise InputError(f"the TLS certificate of the object store at {endpoint} is not trusted") from error
        raise OutageError(f"the connection to the object store at {endpoint} broke: {_one_line(error)}") from error
    except (ClientError, Boto3Error, S3DownloadFailedError) as error:
        kind = OutageError if is_outage(error) else InputError
        raise kind(_sentence(cause_of(error), endpoint, bucket, place)) from error
    except FlexibleChecksumError as error:
        raise InputError(
            f"what came of {place} from {endpoint} is not what was written: its checksum differs"
        ) from error
    except CREDENTIAL_ERRORS as error:
        raise _credentials_refused(error) from error
    except BotoCoreError as error:
        raise InputError(f"the object store at {endpoint} could not be used: {_one_line(error)}") from error


def is_outage(error: Exception) -> bool:
    """Return whether the store is away, busy or failing for now, or the connection to it broke."""
    if isinstance(error, RetriesExceededError):  # boto3's own, of a download that broke off
        return True
    error = cause_of(error)
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status in OUTAGE_STATUSES or error_code(error) in OUTAGE_CODES
    broken = ConnectionError | HTTPClientError | IncompleteReadError | S3DownloadFailedError
    # A refusal that breaks off is urllib3's error: botocore lets it through as it is.
    return isinstance(error, broken | HTTPError) and not _is_untrusted(error)


def _is_untrusted(error: Exception) -> bool:
    return isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error)


def cause_of(error: Exception) -> Exception:
    """Return the error that boto3's file transfers wrapped into one of theirs; any other error as it is."""
    if isinstance(error, RetriesExceededError):
        return error.last_exception
    return error.__context__ if isinstance(error.__context__, ClientError) else error


def _sentence(error: Exception, endpoint: str, bucket: str, place: str) -> str:
    if not isinstance(error, ClientError):
        return f"a transfer between {place} and the object store at {endpoint} failed: {_one_line(error)}"
    code = error_code(error)
    if code in CLOCK_WRONG:
        return f"this machine's clock {_clock_difference(error)} that of the object store at {endpoint}; set it right"
    sentences = {
        **dict.fromkeys(
            WRONG_CREDENTIALS, f"the object store at {endpoint} does not accept the S3 credentials ({code})"
        ),
        **dict.fromkeys(DENIED, f"access to {place} at {endpoint} is denied to these S3 credentials"),
        **dict.fromkeys(MISSING, f"{place} does not exist at {endpoint}"),
        **dict.fromkeys(ALTERED, f"what arrived at {endpoint} for {place} is not what was sent ({code})"),
        "NoSuchBucket": f"bucket {bucket!r} does not exist at {endpoint}",
    }
    unknown = f"the object store at {endpoint} refused {error.operation_name} on {place}: {code or _one_line(error)}"
    return sentences.get(code, unknown)


def _clock_difference(error: ClientError) -> str:
    """Return how this machine's clock stands to the one that a refusal carries, as `is 24h00m ahead of`."""
    sent = error.response.get("ResponseMetadata", {}).get("HTTPHeaders", {}).get("date")
    try:
        seconds = (datetime.now(UTC) - parsedate_to_datetime(sent)).total_seconds()
    except (TypeError, ValueError):  # no date, or none that can be read
        return "is too far from"
    return f"is {format_duration(abs(seconds))} {'ahead of' if seconds > 0 else 'behind'}"


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())

"""A link to a release's report.html in the bucket, that a browser opens and that later runs renew.

The link is signed by the worker's S3 credentials and is good for this one file and for seven days at most, S3's own
limit; not longer than temporary credentials live. Whoever sees the artifact can read the report:
RETRAIN_REPORT_LINK_DAYS=0 makes none. RETRAIN_REPORT_ENDPOINT is the store's address for browsers, where that differs
from the one for workers.
"""

import os
import re
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, unquote, urlsplit

import boto3
from botocore.config import Config
from prefect.client.orchestration import SyncPrefectClient
from prefect.client.schemas.actions import ArtifactUpdate
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.client.schemas.sorting import ArtifactSort

from tasks.registry.releases import FOLDER, find_manifest
from tasks.registry.store import Store
from tasks.stage.errors import InputError

DAYS = "RETRAIN_REPORT_LINK_DAYS"
ENDPOINT = "RETRAIN_REPORT_ENDPOINT"
LONGEST = timedelta(days=7)
REPORT = "report.html"
LINK = re.compile(r"\[the full report\]\((?P<url>[^()\s]+)\)")
RENEWED = 20  # of the latest artifacts
YOUNG = timedelta(days=1)  # such a link is not renewed yet


def link_text(bucket: Store, release: str) -> str | None:
    """Return `[the full report](URL)`; None where the bucket has no such release, or links are not wanted.

    Raises:
        InputError: The store refused, or RETRAIN_REPORT_LINK_DAYS is no number of days.
    """
    manifest = find_manifest(bucket, release)
    if manifest is None or REPORT not in {entry.path for entry in manifest.files}:
        return None
    return _signed(bucket, f"{bucket.prefix}/{FOLDER}/{release}/{manifest.tree}/{REPORT}")


def renew_links(bucket: Store, client: SyncPrefectClient, key: str) -> int:
    """Sign the links anew of the latest artifacts of a key; return how many were.

    What an artifact says is not trusted: nothing is signed but a report of a release of this bucket.
    """
    wanted = ArtifactFilter(key=ArtifactFilterKey(any_=[key]))
    renewed = 0
    for artifact in client.read_artifacts(artifact_filter=wanted, sort=ArtifactSort.UPDATED_DESC, limit=RENEWED):
        text = str(artifact.data)
        match = LINK.search(text)
        place = match and _report_of(bucket, match["url"])
        link = _signed(bucket, place) if place else None
        if match and link:
            update = ArtifactUpdate(data=text.replace(match[0], link), description=artifact.description)
            client.update_artifact(artifact.id, update)
            renewed += 1
    return renewed


def _report_of(bucket: Store, url: str) -> str | None:
    """Return the full key of the report that a link opens, if it is one of the bucket's and the link is growing old."""
    parts = urlsplit(url)
    key = rf"{re.escape(bucket.prefix)}/{FOLDER}/[0-9a-f]{{16}}/[0-9a-f]{{16}}/{re.escape(REPORT)}"
    match = re.fullmatch(rf"/(?:{re.escape(bucket.name)}/)?(?P<key>{key})", unquote(parts.path))
    signed = parse_qs(parts.query).get("X-Amz-Date", [""])[0]
    try:
        age = datetime.now(UTC) - datetime.strptime(signed, "%Y%m%dT%H%M%SZ").replace(tzinfo=UTC)
    except ValueError:
        return None
    return match["key"] if match and age > YOUNG else None


def _signed(bucket: Store, key: str) -> str | None:
    lifetime = _lifetime()
    if not lifetime:
        return None
    own = bucket.client.meta
    signer = boto3.session.Session().client(
        "s3",
        endpoint_url=os.environ.get(ENDPOINT) or own.endpoint_url,
        region_name=own.region_name,
        config=Config(signature_version="s3v4", s3=own.config.s3),
    )
    headers = {"ResponseContentType": "text/html; charset=utf-8", "ResponseContentDisposition": "inline"}
    url = signer.generate_presigned_url(
        "get_object",
        Params={"Bucket": bucket.name, "Key": key, **headers},
        ExpiresIn=int(lifetime.total_seconds()),
    )
    return f"[the full report]({url})"


def _lifetime() -> timedelta:
    text = os.environ.get(DAYS, "")
    try:
        lifetime = timedelta(days=float(text)) if text else LONGEST
    except (ValueError, OverflowError):
        lifetime = timedelta(days=-1)
    if not timedelta(0) <= lifetime <= LONGEST:
        raise InputError(f"{DAYS}={text!r} is not a number of days from 0 to 7")
    return lifetime

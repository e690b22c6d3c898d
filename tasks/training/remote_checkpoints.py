"""Checkpoints in a bucket, so that a new machine with an empty disk goes on where the lost one stopped.

RemoteCheckpoints is the folder of one run in the bucket; tasks/training/mirror.py keeps it up to date during training.
"""

import contextlib
import re
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from boto3.s3.transfer import TransferConfig
from botocore.exceptions import BotoCoreError, ClientError

from tasks.params.address import BUCKET, PREFIX
from tasks.s3.client import MISSING, connect, error_code, storage_errors
from tasks.stage.errors import InputError
from tasks.stage.files import replaced_file, sha256_of
from tasks.training.checkpoint import KEPT, NOTE, UnsoundError

ADDRESS = re.compile(rf"s3://(?P<bucket>{BUCKET})/(?P<prefix>{PREFIX})")
NAME = re.compile(r"step-(?P<step>\d{8,})-(?P<sha256>[0-9a-f]{64})\.npz")

# One part is in memory at a time, from a file that stays open. boto3's own transfers open it anew for every part, which
# loses the race against the local pruning on a slow line, and use threads that the end of the process waits for.
PART_BYTES = 8 << 20

DOWNLOAD = TransferConfig(multipart_threshold=PART_BYTES, multipart_chunksize=PART_BYTES, max_concurrency=4)


class AbandonedError(Exception):
    """The upload was given up between two parts, because nobody wants it any more."""


def parse_address(address: str) -> tuple[str, str]:
    """Return bucket and prefix of `s3://bucket/prefix`.

    Raises:
        InputError: It is of another form; what may be a credential in it is not shown.
    """
    found = ADDRESS.fullmatch(address)
    if found is None or {".", ".."} & set(found["prefix"].split("/")):
        shown = re.sub(r"\?.*", "?…", re.sub(r"//.*@", "//…@", address, flags=re.DOTALL), flags=re.DOTALL)
        raise InputError(
            f"train.checkpoint_remote = {shown!r}: allowed is s3://bucket/prefix, the bucket in lower case, the prefix "
            "of letters, digits, '.', '_', '-' and single slashes between them"
        )
    return found["bucket"], found["prefix"]


class RemoteCheckpoints:
    """The checkpoints of one run in a bucket: s3://<bucket>/<prefix>/<run[:16]>/step-….npz, the last two kept.

    Args:
        address: `s3://bucket/prefix`, the place of all runs' checkpoints.
        run: The run's fingerprint.
        client: S3 client; if not given, that of the AWS_* variables.

    Raises:
        InputError: The address is of another form, or the S3 settings are wrong.
    """

    def __init__(self, address: str, run: str, client: Any | None = None) -> None:
        self.bucket, prefix = parse_address(address)
        self.folder = f"{prefix}/{run[:16]}"
        self._client = connect() if client is None else client
        self._unsound: set[str] = set()  # names, found so by download_newer

    @property
    def uri(self) -> str:
        """Where the run's checkpoints are, as `s3://bucket/prefix/run`."""
        return f"s3://{self.bucket}/{self.folder}"

    def check(self) -> None:
        """Ask for every right that is needed and can be tried without leaving a trace: to list, to read, to write.

        Raises:
            InputError: The store is unreachable, refuses the credentials or one of these, or has no such bucket.
        """
        self._names()
        probe = {"Bucket": self.bucket, "Key": f"{self.folder}/access-check"}
        with storage_errors(self._client, self.bucket, probe["Key"]):
            try:
                self._client.head_object(**probe)
            except ClientError as error:
                if error_code(error) not in MISSING:
                    raise
            upload = self._client.create_multipart_upload(**probe)["UploadId"]
            self._client.abort_multipart_upload(**probe, UploadId=upload)

    def upload(self, path: Path) -> None:
        """Store a checkpoint, then remove what it makes superfluous.

        Raises:
            InputError: The store refused, or cannot be reached.
            FileNotFoundError: The file is gone.
        """
        self.store(path)
        self.prune(path.name)

    def store(self, path: Path, abandoned: Callable[[], bool] = lambda: False) -> None:
        """Upload a checkpoint, one part in memory at a time; absent or complete there, whatever happens here.

        The store checks every part in transit; the sha256 in the name is checked by whoever downloads it.

        Args:
            path: The checkpoint's file. It may be unlinked once the upload has begun.
            abandoned: Asked before each part; True gives the upload up.

        Raises:
            InputError: The store refused, or cannot be reached.
            FileNotFoundError: The file is gone.
            AbandonedError: `abandoned` said so.
        """
        target = {"Bucket": self.bucket, "Key": f"{self.folder}/{path.name}"}
        with path.open("rb") as stream, storage_errors(self._client, self.bucket, target["Key"]):
            part = stream.read(PART_BYTES)
            if len(part) < PART_BYTES:
                self._client.put_object(**target, Body=part)
                return
            target["UploadId"] = self._client.create_multipart_upload(**target)["UploadId"]
            try:
                parts: list[dict[str, Any]] = []
                while part:
                    if abandoned():
                        raise AbandonedError(path.name)
                    number = len(parts) + 1
                    etag = self._client.upload_part(**target, PartNumber=number, Body=part)["ETag"]
                    parts.append({"PartNumber": number, "ETag": etag})
                    part = stream.read(PART_BYTES)
                self._client.complete_multipart_upload(**target, MultipartUpload={"Parts": parts})
            except (ClientError, AbandonedError, OSError):
                with contextlib.suppress(ClientError, BotoCoreError):  # where this fails, a later prune does it
                    self._client.abort_multipart_upload(**target)
                raise

    def prune(self, newest: str) -> None:
        """Remove all but checkpoint `newest` and the one before it, and what interrupted uploads left behind.

        Unsound ones, which this run went back behind, stay until it has overtaken them, and count for none.

        Raises:
            InputError: The store refused, or cannot be reached.
        """
        self._unsound.discard(newest)
        earlier = [name for name in self._names() if _step(name) <= _step(newest) and name != newest]
        kept = [name for name in earlier if name not in self._unsound][: KEPT - 1]
        for name in earlier:
            if name not in kept:
                self._delete(name)
        self._abort_unfinished()

    def download_newer(self, folder: Path, than: int) -> list[str]:
        """Fetch the newest sound checkpoint of a step > `than` into `folder`, complete or not at all.

        Args:
            folder: The run's folder on this machine; made where there is something to fetch.
            than: Step of the newest sound checkpoint on this machine, -1 where there is none.

        Returns:
            A sentence for each checkpoint that was passed over because it is unsound.

        Raises:
            InputError: The store refused, or cannot be reached.
            OSError: The disk refused.
        """
        problems: list[str] = []
        for name in self._names():
            if _step(name) <= than:
                break
            try:
                self._fetch(name, folder)
                break
            except UnsoundError as error:
                self._unsound.add(name)
                problems.append(str(error))
        return problems

    def describe(self, note: Path) -> None:
        """Store the note of what the run is made of; raises InputError where the store refuses."""
        key = f"{self.folder}/{NOTE}"
        with storage_errors(self._client, self.bucket, key):
            self._client.put_object(Bucket=self.bucket, Key=key, Body=note.read_bytes())

    def newest_other(self) -> tuple[bytes, int, datetime] | None:
        """Return the note of the other run with checkpoints here that saved last, its newest step, and when that was.

        Raises:
            InputError: The store refused, or cannot be reached.
        """
        start = f"{self.folder.rpartition('/')[0]}/"
        saved: list[tuple[datetime, int, str]] = []
        noted: set[str] = set()
        with storage_errors(self._client, self.bucket, start):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            for entry in (entry for page in pages for entry in page.get("Contents", ())):
                folder, _, name = entry["Key"].rpartition("/")
                if folder != self.folder and NAME.fullmatch(name):
                    saved.append((entry["LastModified"], _step(name), folder))
                elif name == NOTE:
                    noted.add(folder)
            when, step, folder = max((run for run in saved if run[2] in noted), default=(None, 0, ""))
            if when is None:
                return None
            answer = self._client.get_object(Bucket=self.bucket, Key=f"{folder}/{NOTE}")
            return answer["Body"].read(), step, when

    def remove(self) -> None:
        """Remove checkpoints and note; the result is written. Raises InputError where the store refuses."""
        for name in [*self._names(), NOTE]:
            self._delete(name)
        self._abort_unfinished()

    def _fetch(self, name: str, folder: Path) -> None:
        key = f"{self.folder}/{name}"
        with replaced_file(folder / name) as temporary:
            with temporary.open("wb") as stream, storage_errors(self._client, self.bucket, key):
                try:
                    self._client.download_fileobj(self.bucket, key, stream, Config=DOWNLOAD)
                except ClientError as error:
                    if error_code(error) not in MISSING:
                        raise
                    raise UnsoundError(f"{self.uri}/{name} was listed, but is not there, and is passed over") from error
            if sha256_of(temporary) != _sha256(name):
                raise UnsoundError(f"{self.uri}/{name} does not match its sha256 and is passed over")

    def _names(self) -> list[str]:
        """Return the names of the run's checkpoints, the newest first; of one step, the one written last."""
        found: list[tuple[int, Any, str]] = []
        start = f"{self.folder}/"
        with storage_errors(self._client, self.bucket):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=start)
            for entry in (entry for page in pages for entry in page.get("Contents", ())):
                name = entry["Key"].removeprefix(start)
                if NAME.fullmatch(name):
                    found.append((_step(name), entry["LastModified"], name))
        return [name for _, _, name in sorted(found, reverse=True)]

    def _delete(self, name: str) -> None:
        key = f"{self.folder}/{name}"
        with storage_errors(self._client, self.bucket, key):
            self._client.delete_object(Bucket=self.bucket, Key=key)

    def _abort_unfinished(self) -> None:
        """Abort the run's unfinished uploads: a killed process could not, nor one whose store was gone."""
        start = f"{self.folder}/"
        with storage_errors(self._client, self.bucket, start):
            pages = self._client.get_paginator("list_multipart_uploads").paginate(Bucket=self.bucket, Prefix=start)
            for entry in (entry for page in pages for entry in page.get("Uploads", ())):
                self._client.abort_multipart_upload(Bucket=self.bucket, Key=entry["Key"], UploadId=entry["UploadId"])


def _step(name: str) -> int:
    return int(name.split("-")[1])


def _sha256(name: str) -> str:
    return name.removesuffix(".npz").rpartition("-")[2]

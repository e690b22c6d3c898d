"""Photographs of CIFAR-10 as files, and a prefix in a bucket to which people add them, week by week."""

import io
import random
import tarfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from PIL import Image

LATE_CLASS = "truck"  # nobody has a photo of one before the fifth week
AT_ONCE = 8


def photographs(archive: Path, per_class: int) -> dict[str, list[bytes]]:
    """Return the first training images of each class, as the files' bytes."""
    found: dict[str, list[bytes]] = {}
    with tarfile.open(archive) as tar:
        for member in tar:
            parts = Path(member.name).parts
            if len(parts) != 4 or parts[1] != "train" or len(found.setdefault(parts[2], [])) >= per_class:
                continue
            stream = tar.extractfile(member)
            assert stream is not None
            found[parts[2]].append(stream.read())
    return found


class Collection:
    """A prefix of a bucket as people keep it; what is in it is known here, by key.

    Args:
        client: Of S3.
        bucket: The bucket.
        prefix: Of the collection, without a slash at its end.
        photographs: Of each class, those that may come; each comes once.
    """

    def __init__(self, client: Any, bucket: str, prefix: str, photographs: dict[str, list[bytes]]) -> None:
        self._client, self._bucket, self._prefix = client, bucket, prefix
        self._coming = {label: iter(data) for label, data in photographs.items()}
        self._choice = random.Random(0)  # noqa: S311  no secret
        self._number = 0
        self.files: dict[str, bytes] = {}

    @property
    def address(self) -> str:
        """Its address, as download.url has it."""
        return f"s3://{self._bucket}/{self._prefix}/"

    def add(self, count: int, *, late_class: bool = False) -> None:
        """Add so many photographs, of each class as many."""
        labels = [label for label in self._coming if late_class or label != LATE_CLASS]
        new = {self._name(labels[place % len(labels)]): b"" for place in range(count)}
        self._put({name: next(self._coming[name.partition("/")[0]]) for name in new})

    def remove(self, count: int) -> None:
        """Remove some."""
        for name in self._some(count):
            self._delete(name)

    def relabel(self, count: int) -> None:
        """Move some into the folder of another class: the same bytes under another label."""
        labels = sorted({name.partition("/")[0] for name in self.files})
        for name in self._some(count):
            other = self._choice.choice([label for label in labels if label != name.partition("/")[0]])
            self._put({f"{other}/{name.partition('/')[2]}": self.files[name]})
            self._delete(name)

    def rename(self, count: int) -> None:
        """Give some another name."""
        for name in self._some(count):
            self._put({self._name(name.partition("/")[0]): self.files[name]})
            self._delete(name)

    def overwrite(self, count: int) -> None:
        """Put another photograph of the same class under the key of one that is there."""
        self._put({name: next(self._coming[name.partition("/")[0]]) for name in self._some(count)})

    def spoil(self, count: int) -> list[str]:
        """Add files that are cut off; return their names."""
        labels = sorted({name.partition("/")[0] for name in self.files})
        new = {self._name(labels[place % len(labels)]): b"" for place in range(count)}
        self._put({name: next(self._coming[name.partition("/")[0]])[:200] for name in new})
        return sorted(new)

    def copy_anew(self, count: int) -> None:
        """Add photographs that are there, saved once more: other bytes, other pixels by a little."""
        for name in self._some(count):
            Image.open(io.BytesIO(self.files[name])).save(stream := io.BytesIO(), "jpeg", quality=90)
            self._put({self._name(name.partition("/")[0]): stream.getvalue()})

    def correct(self, count: int) -> None:
        """Say in labels.csv what some of them really show."""
        labels = sorted({name.partition("/")[0] for name in self.files})
        rows = [f"{name},{self._choice.choice(labels)}\n" for name in self._some(count)]
        self._client.put_object(
            Bucket=self._bucket, Key=f"{self._prefix}/labels.csv", Body=("path,label\n" + "".join(rows)).encode()
        )

    def _some(self, count: int) -> list[str]:
        return self._choice.sample(sorted(self.files), count)

    def _name(self, label: str) -> str:
        self._number += 1
        return f"{label}/{self._number:05d}.jpg"

    def _put(self, files: dict[str, bytes]) -> None:
        def put(item: tuple[str, bytes]) -> None:
            self._client.put_object(Bucket=self._bucket, Key=f"{self._prefix}/{item[0]}", Body=item[1])

        with ThreadPoolExecutor(AT_ONCE) as pool:
            list(pool.map(put, files.items()))
        self.files |= files

    def _delete(self, name: str) -> None:
        self._client.delete_object(Bucket=self._bucket, Key=f"{self._prefix}/{name}")
        del self.files[name]

"""Where releases are: a folder of a bucket, and whose signatures are believed there."""

from dataclasses import dataclass

from tasks.params.params import load_params
from tasks.registry.signatures import TrustedKeys, configured_trust
from tasks.s3.bucket import Bucket
from tasks.s3.client import connect


@dataclass(frozen=True)
class Store(Bucket):
    """The releases and channels below `prefix/` of bucket `name`.

    With `trust`, no manifest and no pointer is read from it or written to it that none of these keys signed.
    """

    trust: TrustedKeys | None = None


def open_bucket(name: str, prefix: str, trust: TrustedKeys | None = None) -> Store:
    """Connect and check that the bucket can be read; raises InputError like Store.check.

    Without `trust` it is RETRAIN_TRUSTED_KEY that says whose signatures are asked for, if any.
    """
    store = Store(connect(), name, prefix, trust or configured_trust())
    store.check()
    return store


def configured_bucket(name: str | None = None, prefix: str | None = None, trust: TrustedKeys | None = None) -> Store:
    """Open the bucket and prefix given, those of params.yaml's section `publish` where one is None."""
    return open_bucket(*configured_place(name, prefix), trust)


def configured_place(name: str | None = None, prefix: str | None = None) -> tuple[str, str]:
    """Return bucket and prefix, those of params.yaml's section `publish` where one is None."""
    if name is None or prefix is None:
        params = load_params().publish
        name, prefix = name or params.bucket, prefix or params.prefix
    return name, prefix

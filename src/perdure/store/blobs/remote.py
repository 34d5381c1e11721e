"""Objects at URLs of the user: looked at, fetched, and made, but never removed, and never part of the blob store.

An object is pinned by its ETag at the first look. A later fetch gets that content or a clear error, never other
content.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import sha256
from typing import Any, Final, NamedTuple, TypeVar

from obstore.exceptions import BaseError

from perdure.core.ground.ports import Blobs
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from .client import Bucket, Changed, one_line

T = TypeVar("T")

SCHEMES: Final = ("s3", "gs", "az", "file")


class Found(NamedTuple):
    """An object at the moment of the look, or of its making.

    Attributes:
        path: the name, below the requested URL.
        url: the URL of the object.
        size: the bytes.
        etag: the store's name for the content.
    """

    path: str
    url: str
    size: int
    etag: str


def look(url: str) -> Found:
    """The object at a URL.

    Raises:
        UsageError: there is no object, or the text is no URL.
        StoreUnavailableError: the bucket cannot be asked.
    """
    bucket, key = _opened(url)
    meta = _told(url, lambda: bucket.head(key))
    if meta is None:
        raise _missing(url, bucket, key)
    return _found(bucket, "", meta)


def listed(url: str) -> Iterator[Found]:
    """The objects below a URL, in no order. Errors as of `look`; also for no object at all."""
    bucket, key = _opened(url)
    some = False
    for meta in _told(url, lambda: list(bucket.list(f"{key}/" if key else ""))):
        path = meta["path"][len(key) + 1 :] if key else meta["path"]
        if path:
            some = True
            yield _found(bucket, path, meta)
    if not some:
        raise UsageError(f"there is nothing below {url}: check its name")


def is_object(found: Found) -> bool:
    """Whether there is an object of exactly that name. Some tools mark an empty directory by an object with a final
    slash, and a listing omits such objects."""
    bucket, key = _opened(found.url)
    return _told(found.url, lambda: bucket.head(key)) is not None


def fetched(found: Found, hash: str, blobs: Blobs) -> str:
    """Let the content of an object be on this machine, in the keeping of `blobs`; the hash of the content.

    Args:
        hash: the expected hash, if known.

    Raises:
        StoreError: the object is gone, or has changed.
    """

    def fetch(part: str) -> None:
        bucket, key = _opened(found.url)
        try:
            bucket.download(key, found.size, part, found.etag)
        except FileNotFoundError:
            raise StoreError(f"{found.url} is gone since it was recorded: put the same content back") from None
        except Changed:
            raise StoreError(
                f"{found.url} has changed since it was recorded (its ETag was {found.etag}): put the old content back, "
                "or begin a new run"
            ) from None

    key = sha256("\0".join((found.url, found.etag, str(found.size))).encode("utf-8", "surrogatepass")).hexdigest()
    return blobs.fetched(key, found.size, hash, fetch)


def sent(path: str, url: str) -> Found:
    """Make an object of a file, in place of any other object."""
    bucket, key = _opened(url)
    meta = _told(url, lambda: bucket.upload(path, key))
    if url.startswith("file://"):
        _sync(f"/{key}")
    return _pinned(Found("", url, os.stat(path).st_size, bucket.etag(meta)))


def check(url: str) -> None:
    """Raise `UsageError` unless the text is the URL of a possible object."""
    scheme, colon, rest = url.partition("://")
    if not colon or scheme not in SCHEMES:
        raise UsageError(f"{_shown(url)} is no URL of an object: s3://, gs://, az:// and file:// are supported")
    bucket, _, key = rest.partition("/")
    if "@" in bucket or "?" in rest:
        # Shown without possible secrets, and never recorded.
        raise UsageError(f"{_shown(url)}: credentials come from the environment, and not with a URL")
    if scheme == "file" and bucket:
        raise UsageError(f"{url}: a third slash is missing before the path")
    if scheme != "file" and not bucket:
        raise UsageError(f"{url} names no bucket: it is written as {scheme}://bucket/name")
    if not key.strip("/"):
        raise UsageError(f"{url} names no object in the bucket: it is written as {scheme}://bucket/name")


def _shown(url: str) -> str:
    scheme, colon, rest = url.partition("?")[0].partition("://")
    place, slash, key = rest.partition("/")
    return f"{scheme}{colon}{place.rpartition('@')[2]}{slash}{key}"


def _opened(url: str) -> tuple[Bucket, str]:
    check(url)
    scheme, _, rest = url.partition("://")
    where, _, key = rest.partition("/")
    return Bucket(f"{scheme}://{where}/" if scheme == "file" else f"{scheme}://{where}"), key.rstrip("/")


def _found(bucket: Bucket, path: str, meta: Any) -> Found:
    # `file://` without its slashes has no slash of its own left.
    top = "file://" if bucket.url.startswith("file:") else bucket.url
    return _pinned(Found(path, f"{top}/{meta['path']}", meta["size"], bucket.etag(meta)))


def _pinned(found: Found) -> Found:
    if not found.etag:
        raise UsageError(f"{found.url} has no ETag by which a change would be seen: copy it to a store that gives one")
    return found


def _told(url: str, work: Callable[[], T]) -> T:
    """Failures with the whole URL, and names that no object can have."""
    try:
        return work()
    except StoreUnavailableError as error:
        why = str(error).partition(": ")[2]
        raise StoreUnavailableError(f"{url}: {why}") from error
    except (ValueError, BaseError) as error:
        raise UsageError(f"{url} is no name that an object can have ({one_line(error)})") from error


def _missing(url: str, bucket: Bucket, key: str) -> UsageError:
    if bucket.lacks_bucket(key):
        return UsageError(f"{url}: there is no such bucket: make it, or check its name")
    return UsageError(f"{url} does not exist: check its name")


def _sync(path: str) -> None:
    """obstore renames a file into place, but does not wait for the disk (P1)."""
    for place in (path, os.path.dirname(path)):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)

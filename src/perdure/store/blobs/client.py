"""A bucket, or a part of a bucket, through obstore: the common base of the blob store in a bucket and of files at URLs.

Transfers are streamed both ways and take the memory of a few parts. obstore retries a failed request. A download that
broke, or whose process died, goes on at the break. An upload that died starts from the beginning: for readers of the
bucket an object is whole or missing.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from typing import Any, BinaryIO, Final

import obstore
from obstore.exceptions import (
    AlreadyExistsError,
    BaseError,
    PermissionDeniedError,
    PreconditionError,
    UnauthenticatedError,
)
from obstore.store import from_url

from perdure.errors import StoreUnavailableError, UsageError

log = logging.getLogger("perdure")

PAUSE: Final = 0.2

_PART: Final = 8 << 20
_PARTS: Final = 4
_TRIES: Final = 5
_RETRIES: Any = {"max_retries": 8, "retry_timeout": timedelta(seconds=60)}
_COPYING: Final = timedelta(minutes=10)
"""How long a bucket may take to copy an object; the answer comes after the copy."""
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")
"""The word of S3, Azure and Google for a missing bucket. The answer to a HEAD has no body and no such word."""
_CLOSED: Final = ("403 Forbidden", "401 Unauthorized")
"""The word in the answer to a listing; obstore has no error class for the case."""


class Changed(Exception):
    """The object has another ETag now."""


class Bucket:
    """Safe from any thread. Failures are `StoreUnavailableError`s with the URL, except those documented below."""

    def __init__(self, url: str) -> None:
        """Use the objects below `url`. Sends no request yet.

        Args:
            url: `s3://bucket/prefix`, `gs://bucket/prefix`, `az://container/prefix` or `file:///directory`. Credentials
            and the like come from the environment, in each provider's own variables.
        """
        self.url: Final = url.rstrip("/")
        try:
            self.store: Final[Any] = from_url(url, **_settings(url))
        except (BaseError, ValueError) as error:
            why = one_line(error)
            if "Account must be specified" in why:
                why = "the account is not known: set AZURE_STORAGE_ACCOUNT_NAME in the environment"
            raise UsageError(f"{url} is no bucket that can be used: {why}") from error

    # -- out -------------------------------------------------------------------------------------------------------

    def head(self, key: str) -> Any:
        """The metadata of an object; `None` if missing."""
        return self.do(lambda: obstore.head(self.store, key), none_if_missing=True)

    def get(self, key: str) -> bytes | None:
        """A small object; `None` if missing."""
        return self.do(lambda: bytes(obstore.get(self.store, key).bytes()), none_if_missing=True)  # type: ignore[no-any-return]

    def start(self, key: str, length: int) -> bytes | None:
        """The first bytes of an object of at least that size; `None` if missing."""
        return self.do(  # type: ignore[no-any-return]
            lambda: bytes(obstore.get_range(self.store, key, start=0, length=length)), none_if_missing=True
        )

    def etag(self, meta: Any) -> str:
        """The ETag of an object, from the answer of `head` or `list`; empty without one. In quotes, as in conditions
        (RFC 9110, 8.8.3): Azure lists ETags without quotes."""
        etag = meta["e_tag"] or ""
        return etag if not etag or etag.endswith('"') or self.url.startswith("file:") else f'"{etag}"'

    def lacks_bucket(self, key: str) -> bool:
        """Whether the whole bucket of a missing object is missing."""
        with self._asking():
            try:
                obstore.get(self.store, key)
            except FileNotFoundError as error:
                return any(part in str(error) for part in _NO_BUCKET)
        return False

    def list(self, prefix: str) -> Iterator[Any]:
        with self._asking():
            for page in obstore.list(self.store, prefix, chunk_size=1000):
                yield from page

    def download(self, key: str, size: int, part: str, etag: str = "") -> None:
        """Bring the rest of an object into a file with the beginning of the object.

        Raises:
            FileNotFoundError: there is no object.
            Changed: the object has another ETag than `etag`.
        """
        options: Any = {"if_match": etag} if etag else {}
        for attempt in range(1, _TRIES + 1):
            with open(part, "ab") as file:
                done = file.tell()
                if done > size:
                    file.truncate(done := 0)
                try:
                    if done < size:
                        options["range"] = {"offset": done}
                        got = obstore.get(self.store, key, options=options)
                        # Some servers with S3's protocol know no conditions.
                        if etag and self.etag(got.meta) != etag:
                            raise Changed
                        for chunk in got.stream(min_chunk_size=1 << 20):
                            file.write(chunk)
                    elif size == 0:
                        obstore.head(self.store, key)
                    return
                except FileNotFoundError:
                    raise
                except PreconditionError:
                    # On some servers a missing object fails a condition, too.
                    if self.head(key) is None:
                        raise FileNotFoundError(key) from None
                    raise Changed from None
                except (BaseError, OSError) as error:
                    # A file system's own failure is no reason to try again.
                    if attempt == _TRIES or (isinstance(error, OSError) and not isinstance(error, BaseError)):
                        raise self._unusable(error) from error
                    log.info("%s: a download broke and goes on: %s", self.url, one_line(error))
            time.sleep(PAUSE * attempt)

    # -- in --------------------------------------------------------------------------------------------------------

    def upload(self, path: str, key: str) -> Any:
        """Make an object of a file, in place of any other object; the store's answer (`etag`)."""
        file = Path(path)
        return self.do(lambda: obstore.put(self.store, key, file, chunk_size=_PART, max_concurrency=_PARTS))

    def send(self, path: str, key: str) -> tuple[bytes, int]:
        """The same; the SHA-256 and the size of the sent bytes, also if the file changes meanwhile."""
        digest, size = sha256(), 0

        def parts(file: BinaryIO) -> Iterator[bytes]:
            nonlocal size
            while part := file.read(_PART):
                digest.update(part)
                size += len(part)
                yield part

        with open(path, "rb") as file:
            if os.fstat(file.fileno()).st_size <= _PART and len(data := file.read(_PART + 1)) <= _PART:
                self.put(key, data)
                return sha256(data).digest(), len(data)
            file.seek(0)
            self.do(lambda: obstore.put(self.store, key, parts(file), chunk_size=_PART, max_concurrency=_PARTS))
        return digest.digest(), size

    def copy(self, key: str, to: str) -> bool:
        """Copy another object to `to` within the bucket, without a transfer to this machine. `False`: the bucket cannot
        copy, like S3 above 5 GiB. Azure may still be copying after its answer, and fail later."""
        if self.url.startswith("az:"):
            return False
        try:
            obstore.copy(self._patient, key, to)
        except (BaseError, OSError) as error:
            log.info("%s: %s is not copied there: %s", self.url, key, one_line(error))
            return False
        return True

    @cached_property
    def _patient(self) -> Any:
        settings = _settings(self.url)
        if settings:
            settings["client_options"] = {**settings.get("client_options", {}), "timeout": _COPYING}
        return from_url(self.url, **settings)

    def put(self, key: str, data: bytes, *, mode: Any = "overwrite") -> None:
        """Make a small object. `AlreadyExistsError`: the object exists, and `mode` is `"create"`."""
        self.do(lambda: obstore.put(self.store, key, data, mode=mode))

    def delete(self, key: str) -> None:
        self.do(lambda: obstore.delete(self.store, key), none_if_missing=True)

    # -- failures --------------------------------------------------------------------------------------------------

    def do(self, work: Callable[[], Any], *, none_if_missing: bool = False) -> Any:
        """Ask something of the bucket."""
        with self._asking():
            try:
                return work()
            except FileNotFoundError:
                if not none_if_missing:
                    raise
                return None

    @contextmanager
    def _asking(self) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError:
            raise
        except (BaseError, OSError) as error:
            raise self._unusable(error) from error

    def _unusable(self, error: Exception) -> Exception:
        text = str(error)
        if isinstance(error, (PermissionDeniedError, UnauthenticatedError)) or any(part in text for part in _CLOSED):
            why = "it does not let us in: check the credentials in the environment, and what they allow"
        elif isinstance(error, FileNotFoundError) or any(part in text for part in _NO_BUCKET):
            why = "there is no such bucket: make it, or check its name"
        else:
            why = f"it cannot be used ({one_line(error)}): check the network, the bucket's name and its endpoint"
        return StoreUnavailableError(f"{self.url}: {why}")


def _settings(url: str) -> dict[str, Any]:
    """Settings that obstore does not read from the environment."""
    scheme = url.partition("://")[0]
    if scheme == "file":
        return {}
    settings: dict[str, Any] = {"retry_config": _RETRIES}
    if scheme == "s3":
        endpoint = next((os.environ[name] for name in _ENDPOINTS if os.environ.get(name)), None)
        if endpoint is not None:
            settings["endpoint"] = endpoint
            if endpoint.startswith("http://"):
                settings["client_options"] = {"allow_http": True}
        region = os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
        settings["region"] = region or "us-east-1"
    return settings


def one_line(error: BaseException) -> str:
    text = " ".join(str(error).split())
    # obstore adds a picture of the whole error for debugging.
    return text.partition(" Debug source:")[0][:300]

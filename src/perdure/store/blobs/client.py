"""A bucket, or a part of one, through obstore: what the blob store in a bucket and files at URLs share.

Both ways are streamed and take a few parts' worth of memory. A request that fails is tried again by obstore; a download
that broke, or whose process died, goes on where it stopped. An upload that died begins anew: to the bucket's readers an
object is whole or not there.
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
"""How long a bucket may take to copy an object; it answers when it has."""
_ENDPOINTS: Final = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT")
_NO_BUCKET: Final = ("NoSuchBucket", "ContainerNotFound", "bucket does not exist")
"""How S3, Azure and Google say it. In the answer to a HEAD, which has no body, nobody does."""
_CLOSED: Final = ("403 Forbidden", "401 Unauthorized")
"""In the answer to a listing, for which obstore has no error of its own."""


class Changed(Exception):
    """The object is not the one with that ETag any more."""


class Bucket:
    """Safe from any thread. Failures are `StoreUnavailableError`s that name the URL, except those said below."""

    def __init__(self, url: str) -> None:
        """Use what lies below `url`. Nothing is asked of it yet.

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
        """What is known of an object; `None` if it is not there."""
        return self.do(lambda: obstore.head(self.store, key), none_if_missing=True)

    def get(self, key: str) -> bytes | None:
        """A small object; `None` if it is not there."""
        return self.do(lambda: bytes(obstore.get(self.store, key).bytes()), none_if_missing=True)  # type: ignore[no-any-return]

    def start(self, key: str, length: int) -> bytes | None:
        """The first bytes of an object that has as many; `None` if it is not there."""
        return self.do(  # type: ignore[no-any-return]
            lambda: bytes(obstore.get_range(self.store, key, start=0, length=length)), none_if_missing=True
        )

    def etag(self, meta: Any) -> str:
        """What names the content of an object, as `head` or `list` give it; empty if nothing does. In quotes, as
        conditions have it (RFC 9110, 8.8.3): Azure lists them without."""
        etag = meta["e_tag"] or ""
        return etag if not etag or etag.endswith('"') or self.url.startswith("file:") else f'"{etag}"'

    def lacks_bucket(self, key: str) -> bool:
        """Whether an object that is not there lacks the whole bucket."""
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
        """Bring the rest of an object into a file that may hold its beginning.

        Raises:
            FileNotFoundError: it is not there.
            Changed: it is, but not with that `etag`, if one is given.
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
                        # Some that speak S3's protocol do not know conditions.
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
                    # What is not there fails a condition, too, with some.
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
        """Make an object of a file, in place of whatever was there; what the store says of it (`etag`)."""
        file = Path(path)
        return self.do(lambda: obstore.put(self.store, key, file, chunk_size=_PART, max_concurrency=_PARTS))

    def send(self, path: str, key: str) -> tuple[bytes, int]:
        """The same; the SHA-256 and the size of what was sent, whatever else happens to the file meanwhile."""
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
        """Let the object `to` be what another one is, without its content coming here. `False`: the bucket does not do
        that; of one of more than 5 GiB, S3 does not. Azure may still be at it when it has answered, and fail later."""
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
        """Make a small object. `AlreadyExistsError` where it is there, and `mode` is `"create"`."""
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
    """What obstore does not take from the environment by itself."""
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

"""The blob store in a bucket, through obstore: S3 and servers with S3's protocol, Google Cloud Storage, Azure.

    <prefix>/sha256/ab/<hash>     a blob, an object like any other
    <prefix>/put/<hash>           the last put of a blob: the time of this empty object, or of the blob if later
    <prefix>/removing/<hash>      a process is about to remove the blob

The bucket is the truth. Content that a machine puts or needs is kept in a local blob store as well, the base for paths,
links and directories. The local store may be deleted while nothing runs. Content is checked against its hash on
arrival.

There are no locks. Three rules keep a `put` from relying on a blob under removal (requests to such stores take effect
one after the other):

- BK1 a writer that finds a blob writes `put/<hash>` first, and looks for `removing/<hash>` afterwards.
- BK2 a remover creates `removing/<hash>` first (only one can), and looks at both times afterwards. Of a writer and a
  remover at the same blob, one sees the other: the remover gives up, or the writer waits, looks again, and uploads.
- BK3 a remover slower than `_REMOVING` gives up before the removal. The mark of a dead remover is ignored by a process
  that has watched the mark for `_STALE` seconds on its own clock: the clock of the bucket need not agree.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, BinaryIO, Final

from obstore.exceptions import AlreadyExistsError

from perdure.core.ground.clock import US, seconds, wall
from perdure.core.ground.ports import FilePlace, blob_key
from perdure.errors import StoreError

from .client import PAUSE, Bucket
from .directory import LocalBlobs
from .user_files import each

_STALE: Final = 120.0
_REMOVING: Final = 30.0
_DEAD: Final = 3600.0
"""Seconds after which another removal ignores such a mark without having watched the mark."""
_FRESH: Final = 60.0
"""Seconds for which a blob from a put of this process counts as present without a request."""


class BucketBlobs:
    """`Blobs` in a bucket. Safe from any thread and process, also on several machines at once."""

    def __init__(self, url: str, local: LocalBlobs) -> None:
        """Use the bucket, or the part of a bucket, at `url`. Sends no request yet.

        Args:
            url: `s3://bucket/prefix`, `gs://bucket/prefix` or `az://container/prefix`, see `Bucket`.
            local: the directory for content on this machine.
        """
        self._bucket = Bucket(url)
        self._local = local
        self._put_at: dict[str, float] = {}

    @property
    def url(self) -> str:
        return self._bucket.url

    @property
    def root(self) -> str:
        return self._local.root

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, sources: Sequence[FilePlace]) -> list[tuple[str, int]]:
        found = self._local.put(sources)
        each(self._send, sorted(set(found)))
        return found

    def put_bytes(self, data: bytes) -> str:
        hash = self._local.put_bytes(data)
        self._send((hash, len(data)))
        return hash

    def _send(self, blob: tuple[str, int]) -> None:
        """Let a local blob be in the bucket."""
        hash, size = blob

        def upload() -> bool:
            self._bucket.upload(self._local.blob(hash, size), blob_key(hash))
            return True

        self._ensure(hash, size, upload)

    def take(self, hash: str, size: int, url: str) -> bool:
        within, _, key = url.partition(f"{self.url}/")
        return not within and self._ensure(hash, size, lambda: self._bucket.copy(key, blob_key(hash)))

    def _ensure(self, hash: str, size: int, make: Callable[[], bool]) -> bool:
        """Let a blob be in the bucket, made there by `make` if necessary, and count as put just now. `False`: `make`
        could not make the blob."""
        if seconds() - self._put_at.get(hash, -_FRESH) < _FRESH:
            return True
        there = self._size(hash) == size
        if there:
            self._bucket.put(_put_key(hash), b"")
        if self._wait_for_removal(hash) or not there:
            there = self._size(hash) == size
        if not there and not make():
            return False
        self._put_at[hash] = seconds()
        return True

    def _size(self, hash: str) -> int | None:
        meta = self._bucket.head(blob_key(hash))
        return None if meta is None else int(meta["size"])

    def _wait_for_removal(self, hash: str) -> bool:
        """Wait until no process is about to remove the blob; whether a removal was under way (BK1)."""
        seen, since = None, 0.0
        while (meta := self._bucket.head(_removing_key(hash))) is not None:
            if seen != meta["last_modified"]:
                seen, since = meta["last_modified"], seconds()
            elif seconds() - since > _STALE:
                self._bucket.delete(_removing_key(hash))
            time.sleep(PAUSE)
        return seen is not None

    # -- out -------------------------------------------------------------------------------------------------------

    def open(self, hash: str, size: int) -> BinaryIO:
        self._fetch(hash, size)
        return self._local.open(hash, size)

    def start(self, hash: str, size: int, length: int) -> bytes:
        if self._local.has(hash, size):
            return self._local.start(hash, size, length)
        if min(size, length) == 0:
            return b""
        found = self._bucket.start(blob_key(hash), min(size, length))
        if found is None:
            raise self._missing(hash)
        return found

    def read(self, hash: str) -> bytes:
        if not self._local.has(hash, None):
            size = self._size(hash)
            if size is None:
                raise self._missing(hash)
            self._fetch(hash, size)
        return self._local.read(hash)

    def copy(self, hash: str, size: int, to: FilePlace, *, executable: bool = False) -> None:
        self._fetch(hash, size)
        self._local.copy(hash, size, to, executable=executable)

    def link(self, hash: str, size: int, to: str, *, executable: bool = False) -> None:
        self._fetch(hash, size)
        self._local.link(hash, size, to, executable=executable)

    def path(self, hash: str, size: int, name: str) -> str:
        self._fetch(hash, size)
        return self._local.path(hash, size, name)

    def tree(self, hash: str, name: str, fill: Callable[[str], None]) -> str:
        return self._local.tree(hash, name, fill)

    def fetched(self, key: str, size: int, hash: str, fetch: Callable[[str], None]) -> str:
        return self._local.fetched(key, size, hash, fetch)

    def _fetch(self, hash: str, size: int) -> None:
        """Let a blob be on this machine."""
        if self._local.has(hash, size):
            return
        with self._local.part(hash) as part:
            if self._local.has(hash, size):
                return  # another thread or process was faster
            try:
                self._bucket.download(blob_key(hash), size, part)
            except FileNotFoundError:
                raise self._missing(hash) from None
            self._local.adopt(part, hash, size)

    def _missing(self, hash: str) -> StoreError:
        return StoreError(
            f"blob {hash} is not in {self.url}: choose the bucket that the file was recorded in (`PERDURE_BLOBS`, "
            "`perdure.init(blobs=...)`), or bring it back from a backup"
        )

    # -- removal ---------------------------------------------------------------------------------------------------

    def older(self, before: int) -> Iterator[tuple[str, int]]:
        again = {meta["path"].rpartition("/")[2]: _us(meta) for meta in self._bucket.list("put/")}
        for meta in self._bucket.list("sha256/"):
            hash = meta["path"].rpartition("/")[2]
            if max(_us(meta), again.get(hash, 0)) < before:
                yield hash, meta["size"]

    def refresh(self, hashes: Iterable[str]) -> None:
        def one(hash: str) -> None:
            if self._size(hash) is not None:
                self._bucket.put(_put_key(hash), b"")

        each(one, list(hashes))

    def remove(self, hashes: Sequence[str], before: int) -> list[bool]:
        gone = each(lambda hash: self._remove_one(hash, before), hashes)
        self._local.remove([hash for hash, removed in zip(hashes, gone, strict=True) if removed], before)
        return gone

    def _remove_one(self, hash: str, before: int) -> bool:
        mark, begun = _removing_key(hash), seconds()
        try:
            self._bucket.put(mark, b"", mode="create")
        except AlreadyExistsError:
            other = self._bucket.head(mark)
            if other is not None and wall() - _us(other) > _DEAD * US:
                self._bucket.delete(mark)  # the next collection removes the blob
            return False
        try:
            again, blob = self._bucket.head(_put_key(hash)), self._bucket.head(blob_key(hash))
            if blob is None or max(_us(meta) for meta in (again, blob) if meta is not None) >= before:
                return False
            if seconds() - begun > _REMOVING:
                return False
            self._put_at.pop(hash, None)
            self._bucket.delete(blob_key(hash))
            self._bucket.delete(_put_key(hash))
            return True
        finally:
            if seconds() - begun < _STALE:  # otherwise the mark may belong to another remover by now
                self._bucket.delete(mark)


def _put_key(hash: str) -> str:
    return f"put/{hash}"


def _removing_key(hash: str) -> str:
    return f"removing/{hash}"


def _us(meta: Any) -> int:
    return int(meta["last_modified"].timestamp() * 1_000_000)

"""`File`: one file, with Flyte's methods."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from ... import runtime
from ...core.ground.values import Form, add_forms, is_by_content, know_form
from ...errors import UsageError
from ...io import File as PerdureFile
from .._places import has_fixed_name
from ._hashing_io import AsyncHashingWriter, HashingWriter, HashMethod, as_method
from ._streams import AsyncStream, opened
from ._value import PathValue, in_blob_store, last_part, lasting_name, local, signature, staged

T = TypeVar("T")
_PIECE = 1 << 20


class File(PathValue, Generic[T]):
    """A file: a path on this machine, or a URL. The methods without `_sync` are asynchronous."""

    _reference = PerdureFile
    _is_there = staticmethod(os.path.exists)

    def __init__(
        self,
        *,
        path: str,
        name: str | None = None,
        format: str = "",
        hash: str | None = None,
        hash_method: HashMethod | None = None,
    ) -> None:
        super().__init__(path=path, name=name, format=format, hash=hash)
        self.hash_method = hash_method

    @property
    def path(self) -> str:
        """The path on this machine, or the URL. Content of the blob store is read-only."""
        if self._path is None:
            self._path = self._content.path
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path, self._content = path, None

    def _shown(self) -> dict[str, Any]:
        return {**self.model_dump(), "hash_method": self.hash_method}

    # -- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def new_remote(cls, file_name: str | None = None, hash_method: HashMethod | str | None = None) -> Self:
        """A file to write: `open("wb")`, or any program, at `path`."""
        method = as_method(hash_method)
        return cls(
            path=staged(file_name), hash=hash_method if isinstance(hash_method, str) else None, hash_method=method
        )

    @classmethod
    def named_remote(cls, name: str) -> Self:
        """A file to write under a name."""
        return cls.new_remote(name)

    @classmethod
    def from_existing_remote(cls, remote_path: str, file_cache_key: str | None = None) -> Self:
        """A file that exists at a path or URL. The content is read when it is needed."""
        return cls(path=remote_path, hash=file_cache_key)

    @classmethod
    async def from_local(
        cls,
        local_path: str | Path,
        remote_destination: str | None = None,
        hash_method: HashMethod | str | None = None,
        chunk_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Self:
        """Store a file. On return the original is free again.

        Args:
            local_path: the file.
            remote_destination: a path or URL to copy to, instead of into the blob store.
            hash_method: a digest, or how to compute the digest; becomes `hash`.
            chunk_size, max_concurrency: without an effect.
        """
        if remote_destination is not None and local(remote_destination) is None:
            content = await PerdureFile.from_local.aio(local_path, remote_destination)
            return cls._made(content, local_path, hash_method)
        return cls.from_local_sync(local_path, remote_destination, hash_method)

    @classmethod
    def from_local_sync(
        cls,
        local_path: str | Path,
        remote_destination: str | None = None,
        hash_method: HashMethod | str | None = None,
        chunk_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Self:
        """As `from_local`."""
        path = local(os.fspath(local_path)) or os.fspath(local_path)
        target = None if remote_destination is None else local(remote_destination)
        if target is not None:
            shutil.copy2(path, target)
            made = cls(path=target, name=last_part(path))
            made.hash = _digest(path, hash_method)
            return made
        content = PerdureFile.from_local(path, remote_destination)
        return cls._made(content, path, hash_method)

    @classmethod
    def _made(cls, content: PerdureFile, path: str | Path, hash_method: HashMethod | str | None) -> Self:
        if not content.url:
            content = PerdureFile(name=lasting_name(content.name), hash=content.hash, size=content.size)
        made = cls.of_content(content, last_part(os.fspath(path)), hash=_digest(os.fspath(path), hash_method))
        made.hash_method = None if isinstance(hash_method, str) else hash_method
        return made

    # -- the content -----------------------------------------------------------------------------------------------

    def _writable(self, mode: str) -> str:
        """The path to write at. Content of the blob store never changes: another path takes its place."""
        found = local(self.path)
        if found is None:
            raise UsageError(f"{self.path} cannot be written in place: write a new file, and use from_local(path, url)")
        if in_blob_store(found):
            new = staged(last_part(found))
            if "a" in mode or "+" in mode:
                shutil.copyfile(found, new)
            found = new
        self.path = found
        return found

    @asynccontextmanager
    async def open(
        self,
        mode: str = "rb",
        block_size: int | None = None,
        cache_type: str = "readahead",
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        """A stream with asynchronous methods. `block_size`, `cache_type` and `cache_options` are without an effect."""
        writes = any(letter in mode for letter in "wax+")
        path = self._writable(mode) if writes else await self._readable_aio()
        with opened(path, mode, compression, kwargs) as stream:
            if writes and self.hash_method is not None:
                writer = AsyncHashingWriter(AsyncStream(stream), self.hash_method)
                yield writer
                self.hash = writer.result()
            else:
                yield AsyncStream(stream)

    @contextmanager
    def open_sync(
        self,
        mode: str = "rb",
        block_size: int | None = None,
        cache_type: str = "readahead",
        cache_options: dict[str, Any] | None = None,
        compression: str | None = None,
        **kwargs: Any,
    ) -> Iterator[Any]:
        """A stream. `block_size`, `cache_type` and `cache_options` are without an effect."""
        writes = any(letter in mode for letter in "wax+")
        path = self._writable(mode) if writes else self._readable()
        with opened(path, mode, compression, kwargs) as stream:
            if writes and self.hash_method is not None:
                writer = HashingWriter(stream, self.hash_method)
                yield writer
                self.hash = writer.result()
            else:
                yield stream

    async def download(self, local_path: str | Path | None = None) -> str:
        """A copy on this machine; the path. By default in a new temporary directory."""
        await self._readable_aio()
        return self.download_sync(local_path)

    def download_sync(self, local_path: str | Path | None = None) -> str:
        """As `download`."""
        source = self._readable()
        name = self.name or last_part(source)
        target = staged(name) if local_path is None else os.fspath(local_path)
        if target.endswith(os.sep) or os.path.isdir(target):
            target = os.path.join(target, name)
        os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
        if os.path.abspath(target) != os.path.abspath(source):
            shutil.copyfile(source, target)
        return target


def _digest(path: str, method: HashMethod | str | None) -> str | None:
    """The digest of a file by the user's method."""
    if method is None or isinstance(method, str):
        return method
    method.reset()
    if hasattr(method, "_fn"):  # a function of the whole content
        method.update(Path(path).read_bytes())
    else:
        with open(path, "rb") as stream:
            while piece := stream.read(_PIECE):
                method.update(piece)
    return method.result()


# -- across the boundary of a task -----------------------------------------------------------------------------------


@dataclass
class StoredFile:
    """A File as the journal keeps it."""

    content: PerdureFile | None
    path: str
    name: str | None
    format: str
    hash: str | None


def content_of(file: File[Any]) -> PerdureFile | None:
    """The content of a File in the blob store, put there where need be; `None` for a URL or a missing file."""
    if file._content is not None and file._stored_from is None:
        return file._content  # type: ignore[no-any-return]
    path = local(file.path)
    if path is None or not os.path.isfile(path):
        return None
    now = signature(path)
    if file._content is None or file._stored_from != now:
        [(hash, size)] = runtime.blobs().put([path])
        file._content = PerdureFile(name=lasting_name(path), hash=hash, size=size)
        file._stored_from = now
    return file._content  # type: ignore[no-any-return]


def _put(file: File[Any]) -> StoredFile:
    content = content_of(file)
    return StoredFile(content, "" if content else file.path, file.name, file.format, file.hash)


def _get(stored: StoredFile) -> File[Any]:
    if stored.content is None:
        return File(path=stored.path, name=stored.name, format=stored.format, hash=stored.hash)
    return File.of_content(stored.content, stored.name, stored.format, stored.hash)


def identity(file: File[Any]) -> object:
    """What makes a File the same: the content, wherever the file lies. In a cache key, the user's digest instead.

    For a file in the directory of the run, the path: the content may change before the call is replayed."""
    if is_by_content() and file.hash:
        return ["hash", file.hash]
    path = local(file.path)
    if path is not None and not is_by_content() and has_fixed_name(path):
        return ["path", path]
    content = content_of(file)
    if content is None:
        return ["path", file.path]
    return ["content", content.hash or content.url, content.etag]


_FORM = Form(StoredFile, _put, _get, lambda value: isinstance(value, File), identity, "flyte.io.File")
add_forms(lambda cls: _FORM if cls is File else None)
know_form(File)

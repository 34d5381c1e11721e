"""`Dir`: a directory, with Flyte's methods."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path
from typing import Any, Generic, Self, TypeVar

from ...core.ground.values import Form, add_forms, is_by_content, know_form
from ...io import Dir as PerdureDir
from .._places import has_fixed_name
from ._file import File
from ._value import PathValue, in_blob_store, last_part, local, staged

T = TypeVar("T")
_EMPTY = "::flyte-empty-dir::"


class Dir(PathValue, Generic[T]):
    """A directory: a path on this machine, or a URL. The methods without `_sync` are asynchronous."""

    _reference = PerdureDir
    _is_there = staticmethod(os.path.isdir)

    @property
    def path(self) -> str:
        """The path on this machine, or the URL. Content of the blob store is read-only."""
        if self._path is None:
            self._path = self._content.path
        return self._path

    @path.setter
    def path(self, path: str) -> None:
        self._path, self._content = path, None

    # -- making one ------------------------------------------------------------------------------------------------

    @classmethod
    def empty(cls) -> Self:
        """A directory without files."""
        return cls(path=_EMPTY, name="")

    @property
    def is_empty(self) -> bool:
        """Whether it was made by `empty`."""
        return self._path == _EMPTY

    @classmethod
    def new_remote(cls, dir_name: str | None = None, hash: str | None = None) -> Self:
        """A directory to make and fill at `path`."""
        return cls(path=staged(dir_name), hash=hash)

    @classmethod
    def from_existing_remote(cls, remote_path: str, dir_cache_key: str | None = None) -> Self:
        """A directory that exists at a path or URL."""
        return cls(path=remote_path, hash=dir_cache_key)

    @classmethod
    async def from_local(
        cls,
        local_path: str | Path,
        remote_destination: str | None = None,
        dir_cache_key: str | None = None,
        batch_size: int | None = None,
        chunk_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Self:
        """Store a directory. On return the original is free again.

        Args:
            local_path: the directory.
            remote_destination: a path or URL to copy to, instead of into the blob store.
            dir_cache_key: becomes `hash`.
            batch_size, chunk_size, max_concurrency: without an effect.
        """
        if remote_destination is not None and local(remote_destination) is None:
            content = await PerdureDir.from_local.aio(local_path, remote_destination)
            return cls.of_content(content, last_part(os.fspath(local_path)), hash=dir_cache_key)
        return cls.from_local_sync(local_path, remote_destination, dir_cache_key)

    @classmethod
    def from_local_sync(
        cls,
        local_path: str | Path,
        remote_destination: str | None = None,
        dir_cache_key: str | None = None,
        batch_size: int | None = None,
        chunk_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Self:
        """As `from_local`."""
        path = local(os.fspath(local_path)) or os.fspath(local_path)
        target = None if remote_destination is None else local(remote_destination)
        if target is not None:
            shutil.copytree(path, target, dirs_exist_ok=True)
            return cls(path=target, name=last_part(path), hash=dir_cache_key)
        content = PerdureDir.from_local(path, remote_destination)
        return cls.of_content(content if content.url else _lasting(content), last_part(path), hash=dir_cache_key)

    # -- the content -----------------------------------------------------------------------------------------------

    async def walk(self, recursive: bool = True, max_depth: int | None = None) -> AsyncIterator[File[Any]]:
        """The files. As in Flyte, `recursive=False` goes two levels deep, and `max_depth` counts from 1."""
        await self._readable_aio()
        for file in self._walk(max_depth if recursive or max_depth is not None else 2, "*"):
            yield file

    def walk_sync(
        self, recursive: bool = True, file_pattern: str = "*", max_depth: int | None = None
    ) -> Iterator[File[Any]]:
        """The files whose names fit a pattern. As in Flyte, `recursive` is without an effect here."""
        return self._walk(max_depth, file_pattern)

    def _walk(self, max_depth: int | None, pattern: str) -> Iterator[File[Any]]:
        if self.is_empty:
            return
        top = self._readable()
        for folder, folders, names in os.walk(top):
            folders.sort()
            depth = 1 if folder == top else 2 + os.path.relpath(folder, top).count(os.sep)
            if max_depth is not None and depth > max_depth:
                folders.clear()
                continue
            for name in sorted(names):
                if fnmatch(name, pattern):
                    yield File(path=os.path.join(folder, name))

    async def list_files(self) -> list[File[Any]]:
        """The files of `walk(recursive=False)`."""
        return [file async for file in self.walk(recursive=False)]

    def list_files_sync(self) -> list[File[Any]]:
        """As `list_files`, of all levels."""
        return list(self.walk_sync(recursive=False))

    async def get_file(self, file_name: str) -> File[Any] | None:
        """The file at a path below the directory; `None` where there is none."""
        await self._readable_aio()
        return self.get_file_sync(file_name)

    def get_file_sync(self, file_name: str) -> File[Any] | None:
        """As `get_file`."""
        path = os.path.join(self._readable(), file_name)
        return File(path=path) if os.path.isfile(path) else None

    async def download(self, local_path: str | Path | None = None) -> str:
        """A copy on this machine; the path. By default in a new temporary directory."""
        if not self.is_empty:
            await self._readable_aio()
        return self.download_sync(local_path)

    def download_sync(self, local_path: str | Path | None = None) -> str:
        """As `download`."""
        target = staged(self.name or None) if local_path is None else os.fspath(local_path)
        if self.is_empty:
            os.makedirs(target, exist_ok=True)
        elif in_blob_store(source := self._readable()):
            self._content_of().download(target)
        elif os.path.abspath(source) != os.path.abspath(target):
            shutil.copytree(source, target, dirs_exist_ok=True)
        return target

    def _content_of(self) -> PerdureDir:
        content: PerdureDir = self._content or PerdureDir.from_local(self._readable())
        return content


class EmptyDir(Dir[T]):
    """A directory without files."""


# -- across the boundary of a task -----------------------------------------------------------------------------------


@dataclass
class StoredDir:
    """A Dir as the journal keeps it."""

    content: PerdureDir | None
    path: str
    name: str | None
    format: str
    hash: str | None


def content_of(folder: Dir[Any]) -> PerdureDir | None:
    """The content of a Dir in the blob store, put there where need be; `None` for a URL or a missing directory."""
    if folder._content is not None:
        return folder._content  # type: ignore[no-any-return]
    path = local(folder.path)
    return _lasting(PerdureDir.from_local(path)) if path is not None and os.path.isdir(path) else None


def _lasting(content: PerdureDir) -> PerdureDir:
    """The content under one name, because a temporary directory has a random name (see `lasting_name`)."""
    return PerdureDir(name="dir", hash=content.hash, size=content.size)


def _put(folder: Dir[Any]) -> StoredDir:
    content = content_of(folder)
    return StoredDir(content, "" if content else folder.path, folder.name, folder.format, folder.hash)


def _get(stored: StoredDir) -> Dir[Any]:
    if stored.content is None:
        return Dir(path=stored.path, name=stored.name, format=stored.format, hash=stored.hash)
    return Dir.of_content(stored.content, stored.name, stored.format, stored.hash)


def identity(folder: Dir[Any]) -> object:
    """What makes a Dir the same: the content, wherever the directory lies. In a cache key, the user's key instead.

    For a directory of the run's own, the path: the content may change before the call is replayed."""
    if is_by_content() and folder.hash:
        return ["hash", folder.hash]
    path = local(folder.path)
    if path is not None and not is_by_content() and has_fixed_name(path):
        return ["path", path]
    content = content_of(folder)
    return ["path", folder.path] if content is None else ["content", content.hash]


_FORM = Form(StoredDir, _put, _get, lambda value: isinstance(value, Dir), identity, "flyte.io.Dir")
add_forms(lambda cls: _FORM if cls in (Dir, EmptyDir) else None)
know_form(Dir)

"""Flyte's storage functions for paths on this machine. Objects at URLs go through `flyte.io.File`."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, Self

from ..errors import UsageError
from .io._streams import AsyncStream, opened
from .io._value import local, staged

__all__ = [
    "ABFS", "GCS", "S3", "Storage", "exists", "exists_sync", "get", "get_configured_fsspec_kwargs",
    "get_random_local_directory", "get_random_local_path", "get_stream", "get_underlying_filesystem", "is_remote",
    "join", "open", "put", "put_stream",
]  # fmt: skip


@dataclass
class Storage:
    """Settings for access to a bucket. perdure takes them from the environment; these are without an effect."""

    retries: int = 3
    backoff: timedelta = timedelta(seconds=5)
    enable_debug: bool = False
    attach_execution_metadata: bool = True

    @classmethod
    def auto(cls) -> Self:
        """Settings from the environment."""
        return cls()

    def get_fsspec_kwargs(self, anonymous: bool = False, **kwargs: Any) -> dict[str, Any]:
        """Settings for fsspec: only the given ones."""
        return kwargs


@dataclass
class S3(Storage):
    """Settings for S3, without an effect."""

    endpoint: str | None = None
    access_key_id: str | None = None
    secret_access_key: str | None = None
    region: str | None = None
    addressing_style: str | None = None

    @classmethod
    def auto(cls, region: str | None = None) -> Self:
        """Settings from the environment."""
        return cls(region=region)

    @classmethod
    def for_sandbox(cls) -> Self:
        """Settings of Flyte's own sandbox."""
        return cls()


@dataclass
class GCS(Storage):
    """Settings for Google Cloud Storage, without an effect."""


@dataclass
class ABFS(Storage):
    """Settings for Azure, without an effect."""

    account_name: str | None = None
    account_key: str | None = None
    tenant_id: str | None = None
    client_id: str | None = None
    client_secret: str | None = None


def is_remote(path: Path | str) -> bool:
    """Whether a path is a URL of another machine."""
    return local(str(path)) is None


def join(*paths: str) -> str:
    """Parts of a path as one."""
    return "/".join([paths[0].rstrip("/"), *(part.strip("/") for part in paths[1:])]) if paths else ""


def get_random_local_path(file_path_or_file_name: Path | str | None = None) -> Path:
    """A free path, with the given last part."""
    name = None if file_path_or_file_name is None else os.path.basename(str(file_path_or_file_name))
    return Path(staged(name))


def get_random_local_directory() -> Path:
    """A new directory."""
    return Path(tempfile.mkdtemp(prefix="perdure-"))


def _here(path: str) -> str:
    found = local(str(path))
    if found is None:
        raise UsageError(f"{path} is at a URL: use flyte.io.File.from_existing_remote(url), or from_local(path, url)")
    return found


def exists_sync(path: str, **kwargs: Any) -> bool:
    """Whether a path exists."""
    return os.path.exists(_here(path))


async def exists(path: str, **kwargs: Any) -> bool:
    """Whether a path exists."""
    return exists_sync(path)


def _copied(source: str, target: str, recursive: bool) -> str:
    os.makedirs(os.path.dirname(os.path.abspath(target)), exist_ok=True)
    if recursive or os.path.isdir(source):
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
    return target


async def get(from_path: str, to_path: str | Path | None = None, recursive: bool = False, **kwargs: Any) -> str:
    """Copy a file or a directory to a path of this machine; the path."""
    source = _here(from_path)
    target = staged(os.path.basename(source.rstrip("/"))) if to_path is None else str(to_path)
    return _copied(source, target, recursive)


async def put(
    from_path: str,
    to_path: str | None = None,
    recursive: bool = False,
    batch_size: int | None = None,
    chunk_size: int | None = None,
    max_concurrency: int | None = None,
    **kwargs: Any,
) -> str:
    """Copy a file or a directory; the new path."""
    target = staged(os.path.basename(from_path.rstrip("/"))) if to_path is None else _here(to_path)
    return _copied(_here(from_path), target, recursive)


def _new(path: str) -> Any:
    """A stream to a new file."""
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
    return opened(path, "wb", None, {})


async def put_stream(
    data_iterable: AsyncIterable[bytes] | bytes,
    *,
    name: str | None = None,
    to_path: str | None = None,
    size_hint: int | None = None,
    chunk_size: int | None = None,
    max_concurrency: int | None = None,
    **kwargs: Any,
) -> str:
    """Write bytes to a new file; the path."""
    target = staged(name) if to_path is None else _here(to_path)
    with _new(target) as file:
        if isinstance(data_iterable, bytes):
            file.write(data_iterable)
        else:
            async for piece in data_iterable:
                file.write(piece)
    return target


async def get_stream(path: str, chunk_size: int = 10 << 20, **kwargs: Any) -> AsyncGenerator[bytes, None]:
    """The bytes of a file, piece by piece."""
    with opened(_here(path), "rb", None, {}) as file:
        while piece := file.read(chunk_size):
            yield piece


async def open(path: str, mode: str = "rb", **kwargs: Any) -> AsyncStream:
    """A stream of a file, with asynchronous methods."""
    return AsyncStream(opened(_here(path), mode, None, kwargs))


def get_configured_fsspec_kwargs(protocol: str | None = None, anonymous: bool = False) -> dict[str, Any]:
    """Settings for fsspec: none."""
    return {}


def get_underlying_filesystem(
    protocol: str | None = None, anonymous: bool = False, path: str | None = None, **kwargs: Any
) -> Any:
    """The file system of fsspec, where fsspec is installed."""
    try:
        import fsspec  # type: ignore[import-not-found, unused-ignore]
    except ImportError:
        raise UsageError("a file system of fsspec needs the package fsspec: pip install fsspec") from None
    if protocol is None:
        protocol = "file" if path is None or "://" not in path else path.partition("://")[0]
    return fsspec.filesystem(protocol, **kwargs)

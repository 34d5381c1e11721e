"""Objects at URLs of the user's: looking at an object and sending a file, both durable calls."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from ...errors import UsageError
from ...store import remote_objects
from ...store.blobs.user_files import TRIES, digest, reading, settled, signature
from .._dual import Dual
from ..trace import trace
from .reference import StrPath, path_text

R = TypeVar("R")


def at_url(look: Callable[[str], R]) -> Dual[[str], R]:
    """`from_existing_remote`: a durable call. A refused URL is not recorded, as the URL may hold a secret."""
    traced = trace(look)

    @wraps(look)
    def sync(remote_path: str) -> R:
        remote_objects().check(remote_path)
        return traced(remote_path)

    async def aio(remote_path: str) -> R:
        remote_objects().check(remote_path)
        found: R = await traced.aio(remote_path)
        return found

    return Dual(sync, aio)


def destination(path: StrPath, url: str) -> str:
    """The full URL to send a path to. A refused URL is not recorded, as the URL may hold a secret."""
    if url.endswith("/"):
        url += os.path.basename(os.path.abspath(path_text(path)))
    remote_objects().check(url)
    return url


def last_part(url: str) -> str:
    """The name of the object at a URL."""
    return url.rstrip("/").rpartition("/")[2]


class Sent(NamedTuple):
    """A file that was sent to a URL."""

    found: Any
    """The object there, as `store.blobs.remote` describes objects."""
    hash: str


def sent(path: str, url: str) -> Sent:
    """Send a file to a URL, again where the file changes meanwhile.

    Raises:
        UsageError: the file does not stop changing.
    """
    remote = remote_objects()
    for _ in range(TRIES):
        with reading(path):
            before = settled(path)
            if before is None:
                continue
            with builtins.open(path, "rb") as file:
                hash, size = digest(file.fileno())
        found = remote.sent(path, url)
        with reading(path):
            if signature(os.stat(path)) == signature(before) and found.size == size:
                return Sent(found, hash)
    raise UsageError(
        f"{path} changed each of the {TRIES} times that it was sent: stop the program that writes to it, or "
        "copy it aside first"
    )

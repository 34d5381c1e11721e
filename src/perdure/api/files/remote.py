"""Objects at URLs of the user's: looking at an object and sending a file, both durable calls."""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable
from functools import wraps
from typing import Any, NamedTuple, TypeVar

from ...core.ground.ports import FilePlace
from ...core.ground.trees import held
from ...errors import UsageError
from ...store import remote_objects
from ...store.blobs.user_files import TRIES, digest, opened, reading, settled, signature
from .._dual import Dual
from ..trace import trace
from .places import name_place
from .reference import StrPath, path_text

R = TypeVar("R")


def at_url(look: Callable[[str], R]) -> Dual[[str], R]:
    """`from_existing_remote`: a durable call. A refused URL is not recorded, as the URL may hold a secret."""
    traced = trace(look)

    @wraps(look)
    def sync(remote_path: str) -> R:
        remote_objects().check(remote_path)
        name_place(remote_path)
        return traced(remote_path)

    async def aio(remote_path: str) -> R:
        remote_objects().check(remote_path)
        name_place(remote_path)
        found: R = await traced.aio(remote_path)
        return found

    return Dual(sync, aio)


def destination(path: StrPath, url: str) -> str:
    """The full URL to send a path to. A refused URL is not recorded, as the URL may hold a secret."""
    if url.endswith("/"):
        url += os.path.basename(os.path.abspath(path_text(path)))
    remote_objects().check(url)
    name_place(url)
    return url


def last_part(url: str) -> str:
    """The name of the object at a URL."""
    return url.rstrip("/").rpartition("/")[2]


class Sent(NamedTuple):
    """A file that was sent to a URL."""

    found: Any
    """The object there, as `store.blobs.remote` describes objects."""
    hash: str


def sent(source: FilePlace, url: str) -> Sent:
    """Send a file to a URL, again where the file changes meanwhile.

    Raises:
        UsageError: the file does not stop changing.
    """
    remote = remote_objects()
    for _ in range(TRIES):
        with builtins.open(opened(source), "rb") as file:
            with reading(str(source)):
                before = settled(file.fileno())
                if before is None:
                    continue
                hash, size = digest(file.fileno())
            found = remote.sent(held(file.fileno()) or str(source), url)
            if signature(os.fstat(file.fileno())) == signature(before) and found.size == size:
                return Sent(found, hash)
    raise UsageError(
        f"{source} changed each of the {TRIES} times that it was sent: stop the program that writes to it, or "
        "copy it aside first"
    )

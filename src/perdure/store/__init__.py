"""Adapters of the port `Store`: SQLite (the default) and memory, opened by URL; and of `Blobs`: a directory beside it.

An adapter imports the core's records and ports, and nothing else of perdure; only it knows its database's language.
`open_store` imports the one that is asked for.
"""

from __future__ import annotations

import os
from functools import cache
from typing import TYPE_CHECKING, Final, Literal

from perdure.errors import UsageError

if TYPE_CHECKING:
    from perdure.core.ports import Blobs, Liveness, Store

_SUPPORTED: Final = "`sqlite:///relative.db`, `sqlite:////absolute.db`, a plain path, or `memory://`"


def open_store(
    url: str | os.PathLike[str], *, durability: Literal["power", "process"] = "power"
) -> tuple[Store, Liveness]:
    """Open the store of that URL, creating it if need be, and the liveness of the workers that use it.

    `sqlite:///` is followed by a path, relative or (with a fourth slash) absolute; a path alone means the same. The
    workers' locks lie beside the database, in `<path>-workers`. `memory://` is a new store that ends with this process.
    """
    path = store_path(url)
    if path is None:
        from .memory import MemoryLiveness, MemoryStore

        return MemoryStore(), MemoryLiveness()
    from .locks import FileLiveness
    from .sqlite import SQLiteStore

    store = SQLiteStore(path, durability)
    return store, FileLiveness(f"{store.path}-workers")


def open_blobs(url: str | os.PathLike[str]) -> Blobs:
    """The blob store that belongs to the store of that URL; it is created by the first file that goes in.

    `blobs` beside a database in a directory `.perdure`, `<path>-blobs` beside any other. For `memory://` a temporary
    directory that ends with this process.
    """
    from .blobs import LocalBlobs

    path = store_path(url)
    if path is None:
        return LocalBlobs(_temporary())
    path = os.path.realpath(path)  # as the database does: what lies beside it lies beside the real file
    folder = os.path.dirname(path)
    return LocalBlobs(os.path.join(folder, "blobs") if os.path.basename(folder) == ".perdure" else f"{path}-blobs")


def store_path(url: str | os.PathLike[str]) -> str | None:
    """The path of the database that a store's URL names; `None` for `memory://`."""
    text = os.fspath(url)
    scheme, colon, rest = text.partition("://")
    if not colon:
        path = text
    elif scheme == "sqlite":
        if not rest.startswith("/"):
            raise UsageError(f"{text}: a third slash is missing before the path; supported are {_SUPPORTED}")
        path = rest[1:]
    elif scheme == "memory":
        if rest:
            raise UsageError(f"{text}: `memory://` takes no name; each one is a store of its own")
        return None
    else:
        raise UsageError(f"{text}: no store is called {scheme!r}; supported are {_SUPPORTED}")
    if not path or path.startswith(":memory:"):
        raise UsageError(
            f"{text!r} names no file, and nothing would survive: name one, or say `memory://` if that is meant"
        )
    return path


@cache
def _temporary() -> str:
    import atexit
    import shutil
    import tempfile

    place = tempfile.mkdtemp(prefix="perdure-blobs-")
    owner = os.getpid()

    @atexit.register
    def remove() -> None:
        if os.getpid() == owner:  # a forked child leaves it to its parent
            shutil.rmtree(place, ignore_errors=True)

    return place

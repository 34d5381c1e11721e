"""The directory of a user and a store among the temporary files, for what processes of one machine tell each other."""

from __future__ import annotations

import os
import stat
import tempfile
from contextlib import suppress


def place_of(store: str) -> str:
    """The directory of the store with that id. A part of the id, as the address of a socket is short."""
    return os.path.join(_ours(), store[:16])


def private_place(store: str, *below: str) -> str | None:
    """Make the directory of a store, or a directory below; `None`: another user may have prepared one of them."""
    path = _ours()
    for name in ("", store[:16], *below):
        path = os.path.join(path, name) if name else path
        try:
            with suppress(FileExistsError):
                os.mkdir(path, 0o700)
            found = os.lstat(path)
        except OSError:
            return None
        if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
            return None
    return path


def _ours() -> str:
    try:
        place = tempfile.gettempdir()
    except OSError:
        # None is usable, on a full disk for example. A store opens without hints and lock files.
        place = os.path.join(os.sep, "tmp")
    return os.path.join(place, f"perdure-{os.getuid()}")

"""The place for making directories of perdure's, and for telling whose files may be trusted.

`os.makedirs(path, mode)` gives `mode` to the last directory only; the directories on the way there stay open to all.
Nor does `os.makedirs` sync: after a power cut a new directory may be gone, and all that was synced below it.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress


def make_private(path: str, mode: int = 0o700) -> None:
    """Make a directory and its missing parents, each with the mode, and sync their names to disk. An existing directory
    stays as it is.

    Raises:
        OSError: a directory cannot be made.
    """
    missing = []
    while path and not os.path.isdir(path):
        missing.append(path)
        path = os.path.dirname(path)
    for each in reversed(missing):
        with suppress(FileExistsError):
            os.mkdir(each, mode)
        sync_folder(os.path.dirname(each) or os.curdir)


def sync_folder(path: str) -> None:
    """Sync the names in a directory to disk.

    Raises:
        OSError: the directory cannot be opened, or the disk failed.
    """
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno != errno.EINVAL:  # a file system with another way to keep directories
            raise
    finally:
        os.close(fd)


def stranger_of(path: str) -> str | None:
    """Why another user may have written a file or directory; `None` for the caller's own and root's.

    Raises:
        OSError: the path cannot be looked at.
    """
    found = os.stat(path)
    if found.st_uid not in (os.geteuid(), 0):
        return "belongs to another user"
    if found.st_mode & stat.S_IWOTH:
        # A sticky directory such as /tmp keeps others from replacing entries, yet they add entries of their own.
        return "may be written by every user"
    return None

"""Files on this machine for the blob store: create, copy, clone, sync, remove."""

from __future__ import annotations

import fcntl
import hashlib
import os
import secrets
import stat
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Final

from perdure.core.ground.clock import wall
from perdure.core.ground.private import sync_folder
from perdure.core.ground.trees import OpenTree, discard_tree, names_in

from .user_files import CHUNK, digest, each

REFRESH: Final = 60_000_000
"""Microseconds for which the recorded time of a put need not be renewed: files of a user look changed when their times
change, and blobs can be hard links to such files."""
_ZEROS: Final = bytes(CHUNK)
_FICLONE: Final[int] = getattr(fcntl, "FICLONE", 0x40049409)


def create(folder: str) -> tuple[int, str]:
    path = os.path.join(folder, secrets.token_hex(8))
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), path


def copy(
    source: int,
    out: int,
    size: int,
    from_there: Callable[[], AbstractContextManager[None]],
    to_here: Callable[[], AbstractContextManager[None]],
    *,
    hashed: bool = True,
) -> tuple[str, int]:
    """Copy an open file into an empty file; the hash and size of the copy.

    Shares the blocks where the file system can: the content of the copy is fixed from then on, and is read for the hash
    (not where `hashed` is false: then the hash is empty). Elsewhere the bytes pass through here once.
    """
    if clone(source, out):
        if not hashed:
            return "", os.fstat(out).st_size
        with to_here():
            return digest(out)
    hasher = hashlib.sha256()
    total = 0
    buffer = bytearray(min(CHUNK, max(size, 4095) + 1))
    view = memoryview(buffer)
    while True:
        with from_there():
            count = os.readv(source, [view])
        if not count:
            break
        hasher.update(view[:count])
        total += count
        with to_here():
            if count == CHUNK and buffer == _ZEROS:
                os.lseek(out, count, os.SEEK_CUR)  # holes stay holes
            else:
                write(out, view[:count])
    with to_here():
        os.ftruncate(out, total)
    return hasher.hexdigest(), total


def clone(source: int, out: int) -> bool:
    """Let an empty file share the blocks of another file, where the file system can (Btrfs, XFS and the like)."""
    if sys.platform != "linux":
        return False
    try:
        fcntl.ioctl(out, _FICLONE, source)
    except OSError:
        return False
    return True


def write(fd: int, view: memoryview) -> None:
    while view:
        view = view[os.write(fd, view) :]


def is_file(path: str, size: int) -> bool:
    try:
        found = os.lstat(path)
    except OSError:
        return False
    return stat.S_ISREG(found.st_mode) and found.st_size == size


def refreshed(path: str) -> bool:
    """Let a file count as put just now; `False`: the file belongs to another user and cannot be refreshed."""
    if wall() - os.stat(path).st_mtime_ns // 1000 in range(REFRESH):
        return True
    try:
        os.utime(path)
    except PermissionError:
        return False
    return True


def listed(path: str) -> list[str]:
    try:
        return os.listdir(path)
    except (FileNotFoundError, NotADirectoryError):
        return []


def sync(fd: int) -> None:
    if sys.platform == "darwin":
        fcntl.fcntl(fd, fcntl.F_FULLFSYNC)  # fsync there stops at the disk's own cache
    else:
        os.fsync(fd)


def sync_folders(top: str) -> None:
    """Sync the names in all directories of a tree to disk."""
    folders = []
    with OpenTree(top) as tree:
        for name, fd, below in tree.walk():
            folders.append(tree.shown(name))
            below += [child for child in names_in(fd) if stat.S_ISDIR(os.lstat(child, dir_fd=fd).st_mode)]
    each(sync_folder, folders)


def remove(place: str) -> None:
    discard_tree(place)
    with suppress(OSError):
        os.unlink(f"{place}.lock")

"""Directory trees that a stranger may have made, and may be changing: of any depth, with any names.

A stranger can exchange a directory for a symbolic link between two look-ups of one path. So no path is looked up twice:
each name is opened beside the open directory above, and no symbolic link is followed.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Final, NamedTuple

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking, should a FIFO have taken the place of a file just now.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class OpenTree:
    """An open directory for reading. Names are relative paths in the bytes of the file system, the top is empty."""

    def __init__(self, path: str) -> None:
        """Open the directory at `path`; links on the way there are followed."""
        self.path: Final = path
        self.top: Final = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def __enter__(self) -> OpenTree:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self.top)

    def shown(self, name: bytes) -> str:
        """The path for a message."""
        return os.path.join(self.path, os.fsdecode(name)) if name else self.path

    @contextmanager
    def folder(self, name: bytes) -> Iterator[int]:
        """A descriptor of a directory in the tree."""
        with folder_below(self.top, name.split(b"/") if name else ()) as fd:
            yield fd

    def state(self, name: bytes) -> os.stat_result:
        """The state of an entry, a link's own included."""
        if not name:
            return os.fstat(self.top)
        folder, _, last = name.rpartition(b"/")
        with self.folder(folder) as fd:
            return os.stat(last, dir_fd=fd, follow_symlinks=False)

    def open(self, name: bytes) -> int:
        """A descriptor of a file in the tree."""
        folder, _, last = name.rpartition(b"/")
        with self.folder(folder) as fd:
            return os.open(last, _FILE, dir_fd=fd)

    def walk(self) -> Iterator[tuple[bytes, int, list[bytes]]]:
        """Each directory from the top down: the name, a descriptor until the next step, and an empty list.

        The caller puts into the list the names of the directories in there to walk, in order.
        """
        waiting = [b""]
        here, fd = b"", self.top
        try:
            while waiting:
                name = waiting.pop()
                folder, _, last = name.rpartition(b"/")
                if not name:
                    below = os.dup(self.top)
                elif folder == here:
                    below = os.open(last, _FOLDER, dir_fd=fd)
                else:
                    with self.folder(folder) as above:
                        below = os.open(last, _FOLDER, dir_fd=above)
                if fd != self.top:
                    os.close(fd)
                here, fd = name, below
                chosen: list[bytes] = []
                yield name, fd, chosen
                waiting += (joined(name, each) for each in reversed(chosen))
        finally:
            if fd != self.top:
                os.close(fd)


def joined(folder: bytes, name: bytes) -> bytes:
    """The name of an entry of a directory, both as in a tree."""
    return b"%b/%b" % (folder, name) if folder else name


def names_in(fd: int) -> list[bytes]:
    """The names in an open directory, sorted."""
    return sorted(map(os.fsencode, os.listdir(fd)))


class InTree(NamedTuple):
    """A file in a tree."""

    tree: OpenTree
    name: bytes

    def __str__(self) -> str:
        return self.tree.shown(self.name)


@contextmanager
def folder_below(top: int, names: Sequence[str | bytes]) -> Iterator[int]:
    """A descriptor of the directory that the names lead to from an open directory, none of them a link."""
    fd = top
    try:
        for name in names:
            below = os.open(name, _FOLDER, dir_fd=fd)
            if fd != top:
                os.close(fd)
            fd = below
        yield fd
    finally:
        if fd != top:
            os.close(fd)


def held(fd: int) -> str | None:
    """A path to exactly the open file or directory; `None` where the system has no such paths."""
    path = f"/proc/self/fd/{fd}"
    return path if os.path.exists(path) else None


class _Level(NamedTuple):
    """A directory on the way down."""

    name: str
    state: os.stat_result
    below: list[str]
    """The directories in it that are still to be removed."""


def remove_tree(path: str) -> None:
    """Remove a directory with all that lies in it. A missing directory is fine.

    The walk steps down by names and up by `..`, with one descriptor at a time. So neither recursion, nor the length of
    paths, nor the number of descriptors limits the depth, and no symbolic link is followed.

    Raises:
        OSError: an entry cannot be removed; all others are.
    """
    try:
        here = os.open(path, _FOLDER)
    except FileNotFoundError:
        return
    except PermissionError:
        _open_up(path, None)
        here = os.open(path, _FOLDER)
    failures: list[OSError] = []
    levels = [_Level("", os.fstat(here), _without_files(here, failures))]
    try:
        while True:
            level = levels[-1]
            if level.below:
                name = level.below.pop()
                try:
                    below = os.open(name, _FOLDER, dir_fd=here)
                except OSError as error:
                    failures.append(error)
                    continue
                os.close(here)
                here = below
                levels.append(_Level(name, os.fstat(here), _without_files(here, failures)))
                continue
            levels.pop()
            if not levels:
                break
            above = os.open("..", _FOLDER, dir_fd=here)
            os.close(here)
            here = above
            if not os.path.samestat(os.fstat(here), levels[-1].state):
                raise OSError(f"{path}: the tree was moved while it was removed")
            try:
                os.rmdir(level.name, dir_fd=here)
            except OSError as error:
                failures.append(error)
    finally:
        os.close(here)
    if failures:
        raise failures[0]
    os.rmdir(path)


def discard_tree(path: str) -> None:
    """Remove a tree as far as that is possible, without an error for the rest."""
    with suppress(OSError):
        remove_tree(path)


def _without_files(folder: int, failures: list[OSError]) -> list[str]:
    """Remove everything but directories; the names of the directories."""
    folders = []
    for name in os.listdir(folder):
        try:
            if _is_folder(name, folder):
                folders.append(name)
            else:
                os.unlink(name, dir_fd=folder)
        except OSError as error:
            failures.append(error)
    return folders


def _is_folder(name: str, parent: int) -> bool:
    """Whether an entry is a directory; made accessible for its owner, as a closed one cannot be read."""
    found = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not stat.S_ISDIR(found.st_mode):
        return False
    if found.st_mode & 0o700 != 0o700 and found.st_uid == os.geteuid() != 0:
        _open_up(name, parent)
    return True


def _open_up(name: str, parent: int | None) -> None:
    """Make a closed directory accessible for its owner: the directory itself, not where a link in its place leads."""
    if os.chmod in os.supports_follow_symlinks:
        os.chmod(name, 0o700, dir_fd=parent, follow_symlinks=False)
        return
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        os.chmod(f"/proc/self/fd/{fd}", 0o700)
    finally:
        os.close(fd)

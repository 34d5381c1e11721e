"""Removal of directory trees that a stranger may have made: of any depth, with any names."""

from __future__ import annotations

import os
import stat
from typing import Final, NamedTuple

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


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
        os.chmod(path, 0o700)
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
        os.chmod(name, 0o700, dir_fd=parent)
    return True

"""Inputs on disk, before a container starts.

Correct files stay untouched, so that staging is idempotent: after a crash in the middle, and even under a running
container. Everything else in the directory is replaced or removed.
"""

from __future__ import annotations

import os
import posixpath
import secrets
import stat
from collections.abc import Iterable
from typing import Any, Protocol

from perdure.containers.copilot.leaves import Leaf
from perdure.containers.copilot.placing import Placed
from perdure.containers.copilot.types import Listing, Reference, Table
from perdure.containers.engine import Mount
from perdure.core.ground.trees import remove_tree


class FileSystem(Protocol):
    """Files and directories as values, put on disk and taken back.

    A value has a `name`; a directory also has a `path`, the path of a local, read-only tree with the content.
    """

    @property
    def file_type(self) -> type: ...

    @property
    def dir_type(self) -> type: ...

    def link_file(self, file: Any, to: str) -> None:
        """Make a read-only file at `to`, where there is none; the content is shared with the store where the file
        system can."""

    def link_dir(self, dir: Any, to: str) -> None:
        """Make a tree of such files at `to`, where there is none."""

    def file_from(self, path: str, name: str) -> Any:
        """Take a file into the store, under a name. `UsageError` where the file cannot be taken."""

    def dir_from(self, path: str, name: str) -> Any:
        """The same for a directory; devices, FIFOs or links that lead out are refused."""


def fill(
    directory: str,
    inputs: Iterable[Placed],
    extra: dict[str, bytes],
    container_dir: str,
    files: FileSystem,
    *,
    mounted: bool = True,
) -> list[Mount]:
    """Make `directory` hold these inputs and these extra files, and nothing else.

    Returns the mounts to add: where directories are `mounted`, an input of type `Dir` is not built here.
    """
    staging = _Staging(container_dir, files, mounted)
    staging.folder(directory, {item.path: item for item in inputs}, extra)
    return staging.mounts


class _Staging:
    def __init__(self, container_dir: str, files: FileSystem, mounted: bool) -> None:
        self.mounted = mounted
        self.container_dir = container_dir
        self.files = files
        self.mounts: list[Mount] = []

    def folder(self, path: str, entries: dict[str, Placed], extra: dict[str, bytes], nested: bool = False) -> None:
        _make_folder(path)
        for name in set(os.listdir(path)).difference(entries, extra):
            _remove(os.path.join(path, name))
        for name, item in entries.items():
            self._entry(os.path.join(path, name), item, nested)
        for name, data in extra.items():
            _put_bytes(os.path.join(path, name), data)

    def _entry(self, path: str, item: Placed, nested: bool) -> None:
        match item.form:
            case Leaf():
                _put_bytes(path, item.form.write(item.value))
            case Listing() | Table():
                self.folder(path, item.children, {}, nested=True)
            case Reference() if item.holder:
                self.folder(path, item.children, {}, nested)
            case Reference(kind="file"):
                self._put_file(path, item.value)
            case Reference() if nested or not self.mounted:
                self._put_tree(path, item.value)
            case Reference():
                _make_folder(path)
                for name in os.listdir(path):
                    _remove(os.path.join(path, name))
                self.mounts.append(Mount(item.value.path, posixpath.join(self.container_dir, item.path), True))

    def _put_file(self, path: str, file: Any) -> None:
        temp = _temp(path)
        self.files.link_file(file, temp)
        found = _state(path)
        if found is not None and os.path.samestat(found, os.lstat(temp)):
            os.unlink(temp)
            return
        if found is not None and stat.S_ISDIR(found.st_mode):
            _remove(path)
        os.replace(temp, path)

    def _put_tree(self, path: str, dir: Any) -> None:
        """Rebuilt each time: a comparison would cost as much."""
        temp = _temp(path)
        self.files.link_dir(dir, temp)
        if _state(path) is not None:
            _remove(path)
        os.rename(temp, path)


def _make_folder(path: str) -> None:
    found = _state(path)
    if found is not None and not stat.S_ISDIR(found.st_mode):
        os.unlink(path)
        found = None
    if found is None:
        os.mkdir(path)
    if found is None or stat.S_IMODE(found.st_mode) != 0o755:
        os.chmod(path, 0o755)  # under any umask: the container may run as any user


def _put_bytes(path: str, data: bytes) -> None:
    found = _state(path)
    if found is not None:
        if stat.S_ISDIR(found.st_mode):
            _remove(path)
        elif stat.S_ISREG(found.st_mode) and stat.S_IMODE(found.st_mode) == 0o644 and found.st_size == len(data):
            with open(path, "rb") as file:
                if file.read(len(data) + 1) == data:
                    return
    temp = _temp(path)
    with open(temp, "xb") as file:
        file.write(data)
        os.fchmod(file.fileno(), 0o644)
    os.replace(temp, path)


def _temp(path: str) -> str:
    # Beside the target, where the next staging removes the leftovers of a crash.
    return os.path.join(os.path.dirname(path), f".perdure-{secrets.token_hex(8)}")


def _state(path: str) -> os.stat_result | None:
    try:
        return os.lstat(path)
    except FileNotFoundError:
        return None


def _remove(path: str) -> None:
    if stat.S_ISDIR(os.lstat(path).st_mode):
        remove_tree(path)
    else:
        os.unlink(path)

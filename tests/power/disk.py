"""A disk that loses power: which files are left, of all that were written, when the machine goes out.

The model is that of POSIX, without the goodwill of one file system:

- What was written to a file is on disk once an `fsync` of that file has returned. Until then, each sector of each
  write and each change of the length is on disk or not, in any combination. A later write may be there without an
  earlier one, and a part of a write without the rest (a torn write).
- A name (of a file that was created, renamed or removed) is on disk once an `fsync` of its directory has returned.
  Until then there are two models. `Names.ANY`: each change of a name is on disk or not, in any combination.
  `Names.ORDERED`: the changes reach the disk in their order, and every `fsync` takes the earlier ones along, as in a
  journaling file system.

A whole sector is written or is not: drives promise that, and SQLite relies on it ("powersafe overwrite").
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum, auto
from pathlib import Path
from typing import NamedTuple

SECTOR = 512


class Write(NamedTuple):
    """Bytes that were written at an offset."""

    offset: int
    data: bytes


class Resize(NamedTuple):
    """A file that was cut or extended to a length."""

    length: int


@dataclass
class Inode:
    """A file, apart from its names."""

    synced: bytearray = field(default_factory=bytearray)
    """On disk for sure."""
    now: bytearray = field(default_factory=bytearray)
    """What a process reads."""
    pending: list[Write | Resize] = field(default_factory=list)

    def change(self, change: Write | Resize) -> None:
        """A system call has changed the content."""
        _apply(self.now, change)
        self.pending.append(change)

    def sync(self) -> None:
        """An `fsync` has returned."""
        self.synced = bytearray(self.now)
        self.pending.clear()

    def cut(self, keeps: Callable[[], bool]) -> bytes:
        """The content after a power cut; `keeps` is asked for each sector and each change of the length."""
        left = bytearray(self.synced)
        for change in self.pending:
            if isinstance(change, Resize):
                if keeps():
                    _apply(left, change)
                continue
            start, end = change.offset, change.offset + len(change.data)
            while start < end:
                stop = min(end, (start // SECTOR + 1) * SECTOR)
                if keeps():
                    _apply(left, Write(start, change.data[start - change.offset : stop - change.offset]))
                start = stop
        return bytes(left)


def _apply(content: bytearray, change: Write | Resize) -> None:
    length = change.length if isinstance(change, Resize) else change.offset + len(change.data)
    if len(content) < length:
        content.extend(bytes(length - len(content)))
    if isinstance(change, Resize):
        del content[length:]
    else:
        content[change.offset : length] = change.data


class Names(Enum):
    """How changes of names reach the disk."""

    ANY = auto()
    ORDERED = auto()


class _Renaming(NamedTuple):
    """A name that appears (`old` is None), goes (`new` is None) or moves."""

    old: str | None
    new: str | None
    what: Inode | None
    """`None` for a directory."""

    def touches(self, folder: str) -> bool:
        """Whether a name in that directory changes."""
        return any(name is not None and name.rpartition("/")[0] == folder for name in (self.old, self.new))

    def happen(self, names: dict[str, Inode | None]) -> None:
        """Apply the change, as far as the state of the directory allows."""
        if self.old is not None and self.new is not None and self.what is None:
            below = self.old + "/"
            for name in [name for name in names if name.startswith(below)]:
                names[self.new + name[len(self.old) :]] = names.pop(name)
        if self.old is not None and names.get(self.old, self) is self.what:
            del names[self.old]
        if self.new is not None:
            names[self.new] = self.what


class Disk:
    """The files below one directory; every name is a path relative to it."""

    def __init__(self) -> None:
        self.names: dict[str, Inode | None] = {}
        self._synced: dict[str, Inode | None] = {}
        self._pending: list[_Renaming] = []

    def load(self, folder: Path) -> None:
        """Begin with the content of a real directory, all of it on disk."""
        for path in sorted(folder.rglob("*")):
            name = str(path.relative_to(folder))
            inode = None if path.is_dir() else Inode(bytearray(path.read_bytes()), bytearray(path.read_bytes()))
            self.names[name] = self._synced[name] = inode

    def create(self, name: str) -> Inode:
        """A new, empty file."""
        inode = Inode()
        self._rename(_Renaming(None, name, inode))
        return inode

    def make_directory(self, name: str) -> None:
        """A new directory."""
        self._rename(_Renaming(None, name, None))

    def link(self, old: str, new: str) -> None:
        """A second name of a file."""
        self._rename(_Renaming(None, new, self.names[old]))

    def rename(self, old: str, new: str) -> None:
        """A file or directory moves."""
        self._rename(_Renaming(old, new, self.names[old]))

    def remove(self, name: str) -> None:
        """A file or an empty directory goes."""
        self._rename(_Renaming(name, None, self.names[name]))

    def sync_directory(self, name: str, names: Names) -> None:
        """An `fsync` of that directory has returned ("" is the top)."""
        self._sync_names(None if names is Names.ORDERED else name)

    def sync_file(self, inode: Inode, names: Names) -> None:
        """An `fsync` of that file has returned."""
        inode.sync()
        if names is Names.ORDERED:
            self._sync_names(None)

    def cut(self, names: Names, dice: random.Random, share: float) -> dict[str, bytes | None]:
        """What is left after a power cut, by name; `None` for a directory. A `share` of what was not synced is kept."""

        def keeps() -> bool:
            return dice.random() < share

        left = dict(self._synced)
        if names is Names.ORDERED:
            changes = self._pending[: round(share * len(self._pending) * 2 * dice.random())]
        else:
            changes = [change for change in self._pending if keeps()]
        for change in changes:
            change.happen(left)
        found: dict[str, bytes | None] = {}
        for name in sorted(left):
            parent = name.rpartition("/")[0]
            # A file whose directory is lost is lost.
            if not parent or (parent in found and found[parent] is None):
                inode = left[name]
                found[name] = None if inode is None else inode.cut(keeps)
        return found

    def _rename(self, change: _Renaming) -> None:
        change.happen(self.names)
        self._pending.append(change)

    def _sync_names(self, folder: str | None) -> None:
        later = []
        for change in self._pending:
            if folder is None or change.touches(folder):
                change.happen(self._synced)
            else:
                later.append(change)
        self._pending = later

"""A directory as a manifest: a blob that lists the names in it, and where the contents of its files are.

A manifest is made of a directory as it was at one moment, and of nothing that would lead out of it; one that is read is
checked again, as a blob is data, and data may come from anybody (P11).
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from perdure.errors import UsageError

from .user_files import TRIES, check_name, reading, refuse_special, settled, signature

_MAX_LINKS: Final = 40  # as many as Linux follows


class Entry(msgspec.Struct, array_like=True, frozen=True):
    """One name in a directory's manifest.

    Attributes:
        path: where it lies, relative, as the bytes that the file system has, with slashes.
        kind: "dir", "file", "exec" (a file that may be executed) or "link"; "remote" or "remote exec" for a file that
            lies at a URL.
        data: the digest of a file, the target of a link; of a file at a URL MessagePack of that, its ETag, and its
            digest, which is empty where it is not known.
        size: the bytes of a file.
    """

    path: bytes
    kind: str
    data: bytes = b""
    size: int = 0

    @property
    def text(self) -> str:
        return os.fsdecode(self.path)

    @property
    def is_file(self) -> bool:
        return self.kind in _FILE_KINDS

    @property
    def executable(self) -> bool:
        return self.kind in ("exec", "remote exec")

    @property
    def content(self) -> tuple[str, str, bytes]:
        """The URL, the ETag and the digest of a file; the first two empty where it lies in the blob store.

        Raises:
            ValueError: it is damaged.
        """
        return _read_remote(self.data) if self.kind.startswith("remote") else ("", "", self.data)


class _Manifest(msgspec.Struct, array_like=True, frozen=True):
    """What a directory's blob holds, as MessagePack. Part of the stored format: the hash of a Dir is taken over it."""

    kind: str
    version: int
    entries: list[Entry]


_KIND: Final = "perdure.Dir"
_VERSIONS: Final = (1, 2)
"""Manifests with files at URLs are of the second."""
_FILE_KINDS: Final = ("file", "exec", "remote", "remote exec")
_read_remote = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode
HEAD: Final = b"\x93" + msgspec.msgpack.encode(_KIND)
"""What every manifest begins with. The digests of its files stand in it as they do in a journal."""
_read_manifest = msgspec.msgpack.Decoder(_Manifest).decode


# -- made --------------------------------------------------------------------------------------------------------------


def encode(entries: list[Entry], *, remote: bool) -> bytes:
    """The manifest of these; `remote`: of files at URLs."""
    return msgspec.msgpack.encode(_Manifest(_KIND, _VERSIONS[remote], entries))


def remote_entry(path: bytes, executable: bool, found: Any, hash: str) -> Entry:
    data = msgspec.msgpack.encode((found.url, found.etag, bytes.fromhex(hash)))
    return Entry(path, "remote exec" if executable else "remote", data, found.size)


def taken(top: str, put: Callable[[list[Entry]], list[Entry]]) -> list[Entry]:
    """The manifest of a directory whose files `put` has stored, all as they were at one moment."""
    changed = None
    for attempt in range(TRIES):
        found = _scanned(top)
        if found is None:
            continue
        entries, states = found
        check(entries, top)
        try:
            stored = {entry.path: entry for entry in put([entry for entry in entries if entry.is_file])}
        except UsageError:
            # Gone, or replaced by something else, since it was listed?
            if attempt < TRIES - 1 and _changed(states) is not None:
                continue
            raise
        changed = _changed(states)
        if changed is None:
            return [stored.get(entry.path, entry) for entry in entries]
    raise UsageError(
        f"{changed or top} changed each of the {TRIES} times that {top} was copied: stop whatever writes to it, or "
        f"copy it aside first"
    )


States = list[tuple[bytes, tuple[int, ...]]]


def _scanned(top: str) -> tuple[list[Entry], States] | None:
    """All names below a directory, sorted, and what tells whether anything changed since; `None` while one does."""
    root = os.fsencode(top)
    entries: list[Entry] = []
    states: States = []
    folders = [b""]
    while folders:
        folder = folders.pop()
        place = os.path.join(root, folder) if folder else root
        with reading(os.fsdecode(place)):
            # Before the names are read, so that a name that comes later shows.
            state = settled(place)
            if state is None:
                return None
            states.append((place, signature(state)))
            with os.scandir(place) as names:
                children = list(names)
        for child in children:
            path = os.path.join(folder, child.name)
            with reading(os.fsdecode(child.path)):
                found = child.stat(follow_symlinks=False)
                entry = _entry_of(path, child.path, found)
            entries.append(entry)
            if entry.kind == "dir":
                folders.append(path)
            else:
                states.append((child.path, signature(found)))
    entries.sort(key=lambda entry: entry.path)
    return entries, states


def _entry_of(path: bytes, place: bytes, found: os.stat_result) -> Entry:
    if stat.S_ISDIR(found.st_mode):
        return Entry(path, "dir")
    if stat.S_ISLNK(found.st_mode):
        return Entry(path, "link", os.readlink(place))
    refuse_special(os.fsdecode(place), found)
    return Entry(path, "exec" if found.st_mode & 0o100 else "file")


def _changed(states: States) -> str | None:
    for place, state in states:
        try:
            if signature(os.lstat(place)) == state:
                continue
            if place == states[0][0] and signature(os.stat(place)) == state:
                continue  # the directory itself was named through a link
        except OSError:
            pass
        return os.fsdecode(place)
    return None


# -- read --------------------------------------------------------------------------------------------------------------


def decode(data: bytes, top: str) -> list[Entry]:
    """The entries of a manifest, checked; `top`: what to call the directory in errors.

    Raises:
        ValueError: it is none, or damaged.
        UsageError: it would lead out of its directory.
    """
    manifest = _read_manifest(data)
    if manifest.kind != _KIND:
        raise ValueError(f"it begins with {manifest.kind!r}")
    if manifest.version not in _VERSIONS:
        raise ValueError(f"its version is {manifest.version}, and this perdure knows {_VERSIONS[-1]}")
    check(manifest.entries, top)
    for entry in manifest.entries:
        if entry.kind in ("file", "exec") and len(entry.data) != 32:
            raise ValueError(f"{entry.text!r} has no content")
    return manifest.entries


def check(entries: list[Entry], top: str) -> None:
    """Refuse names and links that would lead out of the directory, and a tree that is none."""
    known = {entry.path: entry for entry in entries}
    before = b""
    for entry in entries:
        if entry.kind not in ("dir", "link", *_FILE_KINDS):
            raise UsageError(f"{entry.text!r} in {top} is of the unknown kind {entry.kind!r}: upgrade perdure")
        if entry.path <= before:
            raise UsageError(f"{entry.text!r} in {top} stands out of order: store the directory again")
        before = entry.path
        parent, _, name = entry.path.rpartition(b"/")
        check_name(os.fsdecode(name))
        if parent or entry.path.startswith(b"/"):
            holder = known.get(parent)
            if holder is None or holder.kind != "dir":
                raise UsageError(f"{entry.text!r} in {top} lies in no directory of it: store the directory again")
    for entry in entries:
        if entry.kind == "link" and _leaves(entry, known):
            raise UsageError(
                f"{os.path.join(top, entry.text)} is a symbolic link to {os.fsdecode(entry.data)!r}, which leads out "
                f"of {top} or nowhere: put what it means in its place, or make it a relative link that stays inside"
            )


def _leaves(link: Entry, known: dict[bytes, Entry]) -> bool:
    """Whether following a link could lead out of the directory, other links on its way included.

    Text alone does not tell: beside `here -> .`, the link `up -> here/../x` names a place above the top.
    """
    place = link.path.split(b"/")[:-1]
    ahead = deque(link.data.split(b"/"))
    followed = 0
    if not link.data or link.data.startswith(b"/") or b"\0" in link.data:
        return True
    while ahead:
        part = ahead.popleft()
        if part in (b"", b"."):
            continue
        if part == b"..":
            if not place:
                return True
            place.pop()
            continue
        met = known.get(b"/".join((*place, part)))
        if met is None or met.kind != "link":
            place.append(part)
            continue
        followed += 1
        if followed > _MAX_LINKS or met.data.startswith(b"/"):
            return True
        ahead.extendleft(reversed(met.data.split(b"/")))
    return False

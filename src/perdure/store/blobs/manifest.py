"""A directory as a manifest: a blob with the names in the directory, and the places of the contents of its files.

A manifest describes a directory at one moment, and holds no path that leads out of the directory. A manifest is checked
again when it is read: a blob is data, and data may come from any writer (P11).
"""

from __future__ import annotations

import os
import stat
from collections import deque
from collections.abc import Callable
from typing import Any, Final

import msgspec

from perdure.core.ground.trees import OpenTree, joined, names_in
from perdure.errors import UsageError

from .user_files import TRIES, check_name, reading, refuse_special, settled, signature

_MAX_LINKS: Final = 40  # as many as Linux follows

_LARGEST: Final = 1 << 60
"""Bytes of a file. No file system takes a larger file."""

_LONGEST: Final = 4000
"""Bytes of a path in a directory. Linux takes 4,095 with the path of the directory itself."""


class Listed(msgspec.Struct, array_like=True, frozen=True):
    """One name in the manifest of a directory.

    Attributes:
        path: the relative path, in the bytes of the file system, with slashes.
        kind: "dir", "file", "exec" (an executable file) or "link"; "remote" or "remote exec" for a file at a URL.
        data: the digest of a file, or the target of a link. For a file at a URL: MessagePack of the URL, the ETag, and
        the digest, empty if unknown.
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
        """The URL, the ETag and the digest of a file; the first two empty for a file in the blob store.

        Raises:
            ValueError: the data is damaged.
        """
        return _read_remote(self.data) if self.kind.startswith("remote") else ("", "", self.data)


class _Manifest(msgspec.Struct, array_like=True, frozen=True):
    """The content of a directory's blob, as MessagePack. Part of the stored format: the hash of a Dir is taken over
    these bytes."""

    kind: str
    version: int
    entries: list[Listed]


_KIND: Final = "perdure.Dir"
_VERSIONS: Final = (1, 2)
"""Manifests with files at URLs are of the second."""
_FILE_KINDS: Final = ("file", "exec", "remote", "remote exec")
_read_remote = msgspec.msgpack.Decoder(tuple[str, str, bytes]).decode
HEAD: Final = b"\x93" + msgspec.msgpack.encode(_KIND)
"""The first bytes of every manifest. Digests of files are encoded like digests in a journal."""
_read_manifest = msgspec.msgpack.Decoder(_Manifest).decode


# -- made --------------------------------------------------------------------------------------------------------------


def encode(entries: list[Listed], *, remote: bool) -> bytes:
    """The manifest of these entries; `remote`: of files at URLs."""
    return msgspec.msgpack.encode(_Manifest(_KIND, _VERSIONS[remote], entries))


def remote_entry(path: bytes, executable: bool, found: Any, hash: str) -> Listed:
    data = msgspec.msgpack.encode((found.url, found.etag, bytes.fromhex(hash)))
    return Listed(path, "remote exec" if executable else "remote", data, found.size)


def taken(top: str, put: Callable[[OpenTree, list[Listed]], list[Listed]]) -> list[Listed]:
    """The manifest of a directory with the files stored by `put`, all as of one moment."""
    with reading(top):
        tree = OpenTree(top)
    with tree:
        return _taken(tree, put)


def _taken(tree: OpenTree, put: Callable[[OpenTree, list[Listed]], list[Listed]]) -> list[Listed]:
    changed, top = None, tree.path
    for attempt in range(TRIES):
        found = _scanned(tree)
        if found is None:
            continue
        entries, states = found
        check(entries, top)
        try:
            stored = {entry.path: entry for entry in put(tree, [entry for entry in entries if entry.is_file])}
        except UsageError:
            # Gone, or replaced, since the listing?
            if attempt < TRIES - 1 and _changed(tree, states) is not None:
                continue
            raise
        changed = _changed(tree, states)
        if changed is None:
            return [stored.get(entry.path, entry) for entry in entries]
    raise UsageError(
        f"{changed or top} changed each of the {TRIES} times that {top} was copied: stop the programs that "
        f"write there, or copy it aside first"
    )


States = list[tuple[bytes, tuple[int, ...]]]


def _scanned(tree: OpenTree) -> tuple[list[Listed], States] | None:
    """All names in a tree, sorted, and the marks of their state; `None` while a directory changes."""
    entries: list[Listed] = []
    states: States = []
    with reading(tree.path):
        for folder, fd, below in tree.walk():
            # Before the names are read, so that a later name changes the mark.
            state = settled(fd)
            if state is None:
                return None
            states.append((folder, signature(state)))
            found = [_entry_of(tree, folder, fd, name) for name in names_in(fd)]
            entries += (entry for entry, _ in found)
            states += ((entry.path, signature(state)) for entry, state in found if entry.kind != "dir")
            below += (entry.path.rpartition(b"/")[2] for entry, _ in found if entry.kind == "dir")
    entries.sort(key=lambda entry: entry.path)
    return entries, states


def _entry_of(tree: OpenTree, folder: bytes, fd: int, name: bytes) -> tuple[Listed, os.stat_result]:
    path = joined(folder, name)
    if len(path) > _LONGEST:
        raise UsageError(
            f"{tree.shown(path[:200])}… is {len(path):,} bytes long, more than a path can have: nest less deeply"
        )
    with reading(tree.shown(path)):
        found = os.stat(name, dir_fd=fd, follow_symlinks=False)
        if stat.S_ISDIR(found.st_mode):
            return Listed(path, "dir"), found
        if stat.S_ISLNK(found.st_mode):
            return Listed(path, "link", os.readlink(name, dir_fd=fd)), found
    refuse_special(tree.shown(path), found)
    return Listed(path, "exec" if found.st_mode & 0o100 else "file"), found


def _changed(tree: OpenTree, states: States) -> str | None:
    for path, state in states:
        try:
            if signature(tree.state(path)) == state:
                continue
        except OSError:
            pass
        return tree.shown(path)
    return None


# -- read --------------------------------------------------------------------------------------------------------------


def decode(data: bytes, top: str) -> list[Listed]:
    """The checked entries of a manifest; `top`: the name of the directory in errors.

    Raises:
        ValueError: the data is no manifest, or damaged.
        UsageError: a path leads out of the directory.
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


def check(entries: list[Listed], top: str) -> None:
    """Refuse names and links that lead out of the directory, and entries that form no tree."""
    known = {entry.path: entry for entry in entries}
    before = b""
    for entry in entries:
        if entry.kind not in ("dir", "link", *_FILE_KINDS):
            raise UsageError(f"{entry.text!r} in {top} is of the unknown kind {entry.kind!r}: upgrade perdure")
        if not 0 <= entry.size <= _LARGEST:
            raise UsageError(f"{entry.text!r} in {top} has the impossible size {entry.size}: store the directory again")
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


def _leaves(link: Listed, known: dict[bytes, Listed]) -> bool:
    """Whether following a link could lead out of the directory, other links on the way included.

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

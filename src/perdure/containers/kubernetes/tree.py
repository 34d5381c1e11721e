"""Directories as objects in a bucket: inputs on their way to a pod, outputs on their way back.

    attempts/<store>/<attempt>/inputs        the manifest of `pack`: small files whole, and references to blobs
    attempts/<store>/<attempt>/outputs/<n>   the content of a large file
    attempts/<store>/<attempt>/_SUCCESS      the manifest of outputs: hashes, small files whole; written last

Without `_SUCCESS` there are no outputs. Content of a File, or of a part of a Dir, is copied to the blobs within the
bucket. Only content that the driving process reads comes to that process (`Fetched`).

A manifest is data, possibly hostile: every item stays inside the target directory (P11).
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from itertools import islice
from typing import Any, Final, NamedTuple, Protocol, TypeVar

import msgspec

from ...core.ground.ports import blob_key
from ...core.ground.trees import InTree, OpenTree, held, joined, names_in, remove_tree
from ...errors import StoreError

T = TypeVar("T")
R = TypeVar("R")
INPUTS: Final = "inputs"
SUCCESS: Final = "_SUCCESS"
_VERSION: Final = 1
_FILES: Final = ("data", "file", "exec")
_TOGETHER: Final = 8
_LARGEST: Final = 1 << 46
"""Bytes of a file at most, as the largest objects of buckets."""
_LONGEST_PATH: Final = 4096
_OUTPUT_KEY: Final = re.compile(r"outputs/[0-9]{1,18}")
_SMALL: Final = 4096
"""Bytes of a file that stands in `_SUCCESS` whole, at most."""
_ALL_SMALL: Final = 1 << 20
"""Bytes of all small files together, at most."""


class Objects(Protocol):
    """Objects in (a part of) a bucket, by keys. Raises `StoreError` where it cannot be used."""

    @property
    def url(self) -> str: ...

    def get(self, key: str) -> bytes | None:
        """A small object; `None`: there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Make an object."""

    def send(self, path: str, key: str) -> tuple[bytes, int]:
        """Make an object of a file: streamed, in parts; whole or not at all. Returns SHA-256 and size of the sent
        bytes."""

    def download(self, key: str, size: int, part: str) -> None:
        """Complete a file that may hold the beginning of an object. `FileNotFoundError`: there is no such object."""

    def list(self, prefix: str) -> Iterator[Any]:
        """Objects with a key prefix, as mappings with `path`."""

    def delete(self, key: str) -> None:
        """Fine if there is no such object."""


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One name in a directory.

    Attributes:
        path: relative, as the file system's bytes, with slashes.
        kind: "dir", "data" (a file, with content), "file", "exec" (an executable file), "link" or "other".
        data: a file's content or SHA-256, or the target of a link.
        size: the bytes of a file.
        key: the key of the content's object, below the key of the tree.
    """

    path: bytes
    kind: str
    data: bytes = b""
    size: int = 0
    key: str = ""


class _Tree(msgspec.Struct, frozen=True, array_like=True):
    version: int
    items: list[Item]


# -- inputs ------------------------------------------------------------------------------------------------------------


def pack(directory: str) -> bytes:
    """A staged directory, whose symbolic links stand for blobs (`api.container_files`)."""
    items: list[Item] = []
    with OpenTree(directory) as top:
        for path, found, target in _walk(top):
            if stat.S_ISDIR(found.st_mode):
                items.append(Item(path, "dir"))
            elif stat.S_ISLNK(found.st_mode):
                kind, _, rest = target.partition(b":")
                if kind == b"link":
                    items.append(Item(path, "link", rest))
                else:
                    hash, _, size = rest.decode().partition(":")
                    items.append(Item(path, kind.decode(), bytes.fromhex(hash), int(size), blob_key(hash)))
            else:
                with open(top.open(path), "rb") as stream:
                    items.append(Item(path, "data", stream.read()))
    return msgspec.msgpack.encode(_Tree(_VERSION, items))


def download(inputs: Objects, key: str, blobs: Objects, to: str) -> int:
    """Let the directory `to` hold the inputs and nothing else; the number of files. Idempotent.

    Raises:
        StoreError: the inputs are missing or damaged.
    """
    data = inputs.get(key)
    if data is None:
        raise StoreError(f"there are no inputs at {inputs.url}/{key}: their attempt is over")
    for name in os.listdir(to):
        _remove(os.path.join(to, name))
    items = _items(data, f"{inputs.url}/{key}", _is_blob)
    _make(items, to, lambda item, place: _bring(blobs, item.key, item, place))
    return sum(item.kind in _FILES for item in items)


# -- outputs -----------------------------------------------------------------------------------------------------------


def upload(directory: str, outputs: Objects) -> int:
    """Take a directory that may still be changing to the bucket; the number of files.

    Raises:
        StoreError: the bucket cannot be used.
        OSError: a file cannot be read.
    """

    def planned(top: OpenTree) -> Iterator[_Planned]:
        room = _ALL_SMALL
        for number, (path, state, target) in enumerate(_walk(top)):
            small = state.st_size <= min(_SMALL, room) and not state.st_mode & 0o100
            room -= state.st_size if small else 0
            yield _Planned(number, InTree(top, path), state.st_mode, target, small)

    with OpenTree(directory) as top:
        items = _each(lambda each: _sent(each, outputs), planned(top))
    outputs.put(SUCCESS, msgspec.msgpack.encode(_Tree(_VERSION, items)))
    return sum(item.kind in _FILES for item in items)


class _Planned(NamedTuple):
    """An entry to be taken to the bucket."""

    number: int
    file: InTree
    mode: int
    target: bytes
    """The target of a link."""
    small: bool
    """Whether the content goes into the manifest."""


def _sent(planned: _Planned, outputs: Objects) -> Item:
    top, path = planned.file
    if stat.S_ISDIR(planned.mode):
        return Item(path, "dir")
    if stat.S_ISLNK(planned.mode):
        return Item(path, "link", planned.target)
    if not stat.S_ISREG(planned.mode):
        return Item(path, "other")
    with open(top.open(path), "rb") as stream:
        if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
            return Item(path, "other")
        if planned.small:
            data = stream.read(_SMALL + 1)
            if len(data) <= _SMALL:
                return Item(path, "data", data)
        key = f"outputs/{planned.number}"
        hash, size = outputs.send(held(stream.fileno()) or str(planned.file), key)
    return Item(path, "exec" if planned.mode & 0o100 else "file", hash, size, key)


class Fetched:
    """Outputs in a directory of this machine. Most files only stand for content in the bucket: empty files of the
    same length, known by device and inode."""

    def __init__(self, outputs: Objects) -> None:
        self._outputs = outputs
        self._away: dict[tuple[int, int], tuple[Item, str]] = {}

    def stand_in(self, item: Item, place: str) -> None:
        """Make the stand-in for an item."""
        with open(place, "xb") as stream:
            stream.truncate(item.size)
            self._away[_which(os.fstat(stream.fileno()))] = item, place

    def bring(self, found: os.stat_result) -> None:
        """Let the file with a state hold the content.

        Raises:
            StoreError: the content is missing or damaged, or the bucket cannot be used.
        """
        which = _which(found)
        if which in self._away:
            item, place = self._away[which]
            os.truncate(place, 0)
            _bring(self._outputs, item.key, item, place)
            del self._away[which]

    def blob(self, found: os.stat_result, take: Callable[[str, int, str], bool]) -> tuple[str, int] | None:
        """Make the content of a file a blob; hash and size. `None`: the file holds the content."""
        away = self._away.get(_which(found))
        if away is None:
            return None
        item, _ = away
        hash = item.data.hex()
        if take(hash, item.size, f"{self._outputs.url}/{item.key}"):
            return hash, item.size
        self.bring(found)
        return None


def _which(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def fetch(outputs: Objects, to: str) -> Fetched | None:
    """Let an empty directory hold the uploaded outputs; `None`: there are none, or not all."""
    data = outputs.get(SUCCESS)
    if data is None:
        return None
    items = _items(data, f"{outputs.url}/{SUCCESS}", _is_output)
    fetched = Fetched(outputs)
    _make(items, to, fetched.stand_in)
    return fetched


# -- both --------------------------------------------------------------------------------------------------------------


def _walk(top: OpenTree) -> Iterator[tuple[bytes, os.stat_result, bytes]]:
    """Relative path, state and link target of all that is in a tree; directories before what they hold."""
    for folder, fd, below in top.walk():
        for name in names_in(fd):
            found = os.stat(name, dir_fd=fd, follow_symlinks=False)
            target = os.readlink(name, dir_fd=fd) if stat.S_ISLNK(found.st_mode) else b""
            yield joined(folder, name), found, target
            if stat.S_ISDIR(found.st_mode):
                below.append(name)


def _items(data: bytes, shown: str, key_of: Callable[[Item], bool]) -> list[Item]:
    """The items of a manifest that may be made in an empty directory: the check of all manifests.

    Args:
        data: the manifest.
        shown: the URL for messages.
        key_of: whether this kind of manifest may name an item's key.
    """
    try:
        tree = msgspec.msgpack.decode(data, type=_Tree)
    except (ValueError, RecursionError) as error:
        raise StoreError(f"{shown} is damaged: {error}") from None
    if tree.version != _VERSION:
        raise StoreError(f"{shown} was written by another perdure: use the same one in the copilot's image")
    folders, seen = {b""}, {b""}
    for item in tree.items:
        reason = _fault(item, folders, seen, key_of)
        if reason:
            raise StoreError(f"{shown} is damaged: {item.path[:200]!r} {reason}")
        seen.add(item.path)
        if item.kind == "dir":
            folders.add(item.path)
    return tree.items


def _fault(item: Item, folders: set[bytes], seen: set[bytes], key_of: Callable[[Item], bool]) -> str:
    """The reason why an item may not be made; empty: it may."""
    folder, slash, name = item.path.rpartition(b"/")
    if (slash and not folder) or folder not in folders or name in (b"", b".", b"..") or b"\0" in item.path:
        return "cannot be the path of a file"
    if item.path in seen:
        return "is there twice"
    if len(name) > 255 or len(item.path) > _LONGEST_PATH:
        return "is longer than a path can be"
    match item.kind:
        case "file" | "exec":
            if len(item.data) != 32 or not 0 <= item.size <= _LARGEST:
                return f"has no content of {item.size} bytes"
            return "" if key_of(item) else f"names an object that is not its own: {item.key[:200]!r}"
        case "link":
            return "" if 0 < len(item.data) < _LONGEST_PATH and b"\0" not in item.data else "is a link to no path"
        case "data" | "dir" | "other":
            return "" if not item.key and item.size == 0 else "has a content besides its own"
    return f"is of an unknown kind: {item.kind[:50]!r}"


def _is_blob(item: Item) -> bool:
    return item.key == blob_key(item.data.hex())


def _is_output(item: Item) -> bool:
    return _OUTPUT_KEY.fullmatch(item.key) is not None


def _make(items: Sequence[Item], to: str, bring: Callable[[Item, str], None]) -> None:
    """Files and directories that every user may read."""

    def place(item: Item) -> str:
        return os.path.join(to, os.fsdecode(item.path))

    def file(item: Item) -> None:
        path = place(item)
        if item.kind == "data":
            with open(path, "xb") as stream:
                stream.write(item.data)
        else:
            bring(item, path)
        os.chmod(path, 0o755 if item.kind == "exec" else 0o644)

    for item in items:
        if item.kind == "dir":
            os.mkdir(place(item))
            os.chmod(place(item), 0o755)
    _each(file, (item for item in items if item.kind in _FILES))
    for item in items:  # last, so that nothing is ever written through one
        if item.kind == "link":
            os.symlink(item.data, os.fsencode(place(item)))
        elif item.kind == "other":
            os.mkfifo(place(item))  # stands for all that is no file


def _bring(objects: Objects, key: str, item: Item, place: str) -> None:
    try:
        objects.download(key, item.size, place)
    except FileNotFoundError:
        raise StoreError(f"there is no {objects.url}/{key}: bring it back from a backup") from None
    if _digest(place) != (item.data, item.size):
        raise StoreError(f"{objects.url}/{key} is damaged: its content is not what its hash says")


def _digest(path: str) -> tuple[bytes, int]:
    digest, size = sha256(), 0
    with open(path, "rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            size += len(chunk)
    return digest.digest(), size


def _each(work: Callable[[T], R], items: Iterable[T]) -> list[R]:
    done: list[R] = []
    rest = iter(items)
    with ThreadPoolExecutor(_TOGETHER) as pool:
        while batch := list(islice(rest, 1024)):  # so that a million files do not become a million futures
            done += pool.map(work, batch)
    return done


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    else:
        os.unlink(path)

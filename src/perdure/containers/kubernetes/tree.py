"""Directories as objects in a bucket: inputs on their way to a pod, outputs on their way back.

    attempts/<store>/<attempt>/inputs        what `pack` made: small files themselves, and references to blobs
    attempts/<store>/<attempt>/outputs/<n>   the content of one file
    attempts/<store>/<attempt>/_SUCCESS      which files these are, with their hashes; written last

Without `_SUCCESS` there are no outputs. A tree is data, and data may come from anybody: nothing in it leads out of the
directory that it is put in (P11).
"""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any, Final, Protocol, TypeVar

import msgspec

from ...core.ports import blob_key
from ...errors import StoreError

T = TypeVar("T")
R = TypeVar("R")
INPUTS: Final = "inputs"
SUCCESS: Final = "_SUCCESS"
_VERSION: Final = 1
_TOGETHER: Final = 8


class Objects(Protocol):
    """Objects in (a part of) a bucket, by keys. Raises `StoreError` where it cannot be used."""

    @property
    def url(self) -> str: ...

    def get(self, key: str) -> bytes | None:
        """A small object; `None`: there is none."""

    def put(self, key: str, data: bytes) -> None:
        """Make one."""

    def upload(self, path: str, key: str) -> Any:
        """Make one of a file: streamed, in parts; whole or not at all."""

    def download(self, key: str, size: int, part: str) -> None:
        """Bring the rest of one into a file that may hold its beginning. `FileNotFoundError`: there is none."""

    def list(self, prefix: str) -> Iterator[Any]:
        """Those whose keys begin with it, as mappings with `path`."""

    def delete(self, key: str) -> None:
        """Fine if it is not there."""


class Item(msgspec.Struct, frozen=True, array_like=True):
    """One name in a directory.

    Attributes:
        path: relative, as the bytes that the file system has, with slashes.
        kind: "dir", "data" (a file, with its content), "file", "exec" (one that may be executed), "link" or "other".
        data: a file's content or SHA-256, or the target of a link.
        size: the bytes of a file.
        key: of the object with its content, below that of the tree.
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
    """A staged directory, whose symbolic links stand for what is to be in their places (`api.container_files`)."""
    items: list[Item] = []
    for path, place, found in _walk(directory):
        if stat.S_ISDIR(found.st_mode):
            items.append(Item(path, "dir"))
        elif stat.S_ISLNK(found.st_mode):
            kind, _, rest = os.readlink(place).partition(b":")
            if kind == b"link":
                items.append(Item(path, "link", rest))
            else:
                hash, _, size = rest.decode().partition(":")
                items.append(Item(path, kind.decode(), bytes.fromhex(hash), int(size), blob_key(hash)))
        else:
            with open(place, "rb") as stream:
                items.append(Item(path, "data", stream.read()))
    return msgspec.msgpack.encode(_Tree(_VERSION, items))


def download(inputs: Objects, key: str, blobs: Objects, to: str) -> int:
    """Let the directory `to` hold those inputs and nothing else; the number of files. May be repeated.

    Raises:
        StoreError: they are not there, or damaged.
    """
    data = inputs.get(key)
    if data is None:
        raise StoreError(f"there are no inputs at {inputs.url}/{key}: their attempt is over")
    for name in os.listdir(to):
        _remove(os.path.join(to, name))
    items = _items(data, f"{inputs.url}/{key}")
    _make(items, to, lambda item, place: _bring(blobs, item.key, item, place))
    return sum(item.kind in ("data", "file", "exec") for item in items)


# -- outputs -----------------------------------------------------------------------------------------------------------


def upload(directory: str, outputs: Objects) -> int:
    """Take a directory to the bucket; the number of files.

    Raises:
        StoreError: the bucket cannot be used.
        OSError: a file cannot be read.
    """

    def put(found: tuple[int, tuple[bytes, bytes, os.stat_result]]) -> Item:
        number, (path, place, state) = found
        if stat.S_ISDIR(state.st_mode):
            return Item(path, "dir")
        if stat.S_ISLNK(state.st_mode):
            return Item(path, "link", os.readlink(place))
        if not stat.S_ISREG(state.st_mode):
            return Item(path, "other")
        key = f"outputs/{number}"
        outputs.upload(os.fsdecode(place), key)
        kind = "exec" if state.st_mode & 0o100 else "file"
        hash, size = _digest(os.fsdecode(place))
        return Item(path, kind, hash, size, key)

    items = _each(put, enumerate(_walk(directory)))
    outputs.put(SUCCESS, msgspec.msgpack.encode(_Tree(_VERSION, items)))
    return sum(item.kind in ("file", "exec") for item in items)


def fetch(outputs: Objects, to: str) -> bool:
    """Let an empty directory hold what was uploaded; `False`: nothing was, or not all of it.

    Raises:
        StoreError: it is damaged, or the bucket cannot be used.
    """
    data = outputs.get(SUCCESS)
    if data is None:
        return False
    items = _items(data, f"{outputs.url}/{SUCCESS}")
    _make(items, to, lambda item, place: _bring(outputs, item.key, item, place))
    return True


# -- both --------------------------------------------------------------------------------------------------------------


def _walk(directory: str) -> Iterator[tuple[bytes, bytes, os.stat_result]]:
    """Relative path, path and state of all that is in a directory; directories before what they hold."""
    top = os.fsencode(directory)
    stack = [b""]
    while stack:
        folder = stack.pop()
        for name in sorted(os.listdir(os.path.join(top, folder))):
            path = os.path.join(folder, name)
            place = os.path.join(top, path)
            found = os.lstat(place)
            yield path, place, found
            if stat.S_ISDIR(found.st_mode):
                stack.append(path)


def _items(data: bytes, shown: str) -> list[Item]:
    try:
        tree = msgspec.msgpack.decode(data, type=_Tree)
    except msgspec.MsgspecError as error:
        raise StoreError(f"{shown} is damaged: {error}") from None
    if tree.version != _VERSION:
        raise StoreError(f"{shown} was written by another perdure: use the same one in the copilot's image")
    folders, seen = {b""}, {b""}
    for item in tree.items:
        folder, _, name = item.path.rpartition(b"/")
        if folder not in folders or name in (b"", b".", b"..") or b"\0" in item.path or item.path in seen:
            raise StoreError(f"{shown} is damaged: {item.path!r} cannot be the path of a file")
        seen.add(item.path)
        if item.kind == "dir":
            folders.add(item.path)
    return tree.items


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
    _each(file, (item for item in items if item.kind in ("data", "file", "exec")))
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
    with ThreadPoolExecutor(_TOGETHER) as pool:
        return list(pool.map(work, items))


def _remove(path: str) -> None:
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.unlink(path)

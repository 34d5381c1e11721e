"""`File` and `Dir`: data too large for a journal, as values that go through it.

`from_local` copies a file or a directory into the blob store beside the journal and gives a small object that refers
to it by the hash of its content. That object is a value like any other: an argument, a result, a field, an item of a
list. Only the reference is written to the journal; the content is on disk before the reference can be, and stays
there when the original is changed or removed.

A `Dir` is stored as a manifest, itself a blob, that lists the names in it with the hashes of their contents; the hash
of the manifest is the hash of the directory.

Either may also refer to objects at URLs of the user's, which stay where they are: `from_existing_remote`, and
`from_local` with a `remote_destination`. Such an object is pinned by its ETag. Both calls are durable, as what they see
or do is outside of the process: within a run they happen once, and replay gives the reference that was recorded.
"""

from __future__ import annotations

import asyncio
import builtins
import io
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import wraps
from types import MethodType
from typing import IO, Any, Concatenate, Final, Generic, NoReturn, ParamSpec, Protocol, TypeVar, cast, final, overload

from . import runtime
from .api._dual import Dual
from .api.trace import trace
from .core.ground.ports import Blobs
from .core.ground.values import add_file_types
from .errors import StoreError, UsageError
from .store import manifest, remote_objects
from .store.manifest import Entry
from .store.user_files import TRIES, check_name, digest, each, reading, refuse_special, settled, signature, writing

__all__ = ["Dir", "File"]

P = ParamSpec("P")
R = TypeVar("R")
S = TypeVar("S")
StrPath = str | os.PathLike[str]

_HASH: Final = re.compile(r"[0-9a-f]{64}")


def _both(fn: Callable[P, R]) -> Dual[P, R]:
    """A function in two colours; the async one works in a thread."""

    async def aio(*args: P.args, **kwargs: P.kwargs) -> R:
        return await asyncio.to_thread(fn, *args, **kwargs)

    return Dual(fn, aio)


class _BothMethod(Generic[S, P, R]):
    """A method in two colours: `value.method(...)` and `await value.method.aio(...)`."""

    def __init__(self, fn: Callable[Concatenate[S, P], R]) -> None:
        self._fn = fn
        self.__doc__ = fn.__doc__

    @overload
    def __get__(self, owner: None, cls: type[S]) -> _BothMethod[S, P, R]: ...

    @overload
    def __get__(self, owner: S, cls: type[S]) -> Dual[P, R]: ...

    def __get__(self, owner: S | None, cls: type[S]) -> _BothMethod[S, P, R] | Dual[P, R]:
        return self if owner is None else _both(cast("Callable[P, R]", MethodType(self._fn, owner)))


class _Reference:
    """What `File` and `Dir` have in common: a name, and the hash and size of a content."""

    __slots__ = ("hash", "name", "size", "url")

    name: str
    """The last part of the path that it was made from."""

    hash: str
    """The SHA-256 of its content, in hexadecimal. Empty for a file at a URL whose content perdure has not seen."""

    size: int
    """The bytes of its content."""

    url: str
    """Where its content lies; empty where that is the blob store."""

    def __init__(self, *, name: str, hash: str, size: int, url: str = "") -> None:
        check_name(name)
        if not isinstance(url, str):
            raise UsageError(f"{url!r} is no URL: use {type(self).__name__}.from_existing_remote(url)")
        if not isinstance(hash, str) or not (_HASH.fullmatch(hash) or self._may_lack_hash(url, hash)):
            raise UsageError(f"{hash!r} is no content hash: use {type(self).__name__}.from_local(path)")
        if type(size) is not int or size < 0:
            raise UsageError(f"{size!r} is no size in bytes: use {type(self).__name__}.from_local(path)")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "hash", hash)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "url", url)

    def _may_lack_hash(self, url: str, hash: str) -> bool:
        return False

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, _Reference)
        return self._identity() == other._identity()

    def _identity(self) -> tuple[str, ...]:
        return self.hash, self.name, self.url

    def __hash__(self) -> int:
        return builtins.hash((type(self), self._identity()))

    def __repr__(self) -> str:
        where = f"url={self.url!r}" if self.url else f"hash='{self.hash[:12]}…'"
        return f"{type(self).__name__}(name={self.name!r}, size={self.size}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), {"name": self.name, "hash": self.hash, "size": self.size, "url": self.url})

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)


def _rebuilt(cls: type[_Reference], fields: dict[str, Any]) -> _Reference:
    return cls(**fields)


def _at_url(look: Callable[[str], R]) -> Dual[[str], R]:
    """`from_existing_remote`: a durable call. What is refused is not recorded, as there may be a secret in it."""
    traced = trace(look)

    @wraps(look)
    def sync(remote_path: str) -> R:
        remote_objects().check(remote_path)
        return traced(remote_path)

    async def aio(remote_path: str) -> R:
        remote_objects().check(remote_path)
        found: R = await traced.aio(remote_path)
        return found

    return Dual(sync, aio)


# -- files -----------------------------------------------------------------------------------------------------------


def _send_file(path: StrPath, remote_destination: str) -> File:
    text = _given_file(path)
    found, hash = _sent(text, remote_destination)
    return File(name=_last_part(found.url), hash=hash, size=found.size, url=found.url, etag=found.etag)


# In a run it shows under the name that was called. The path is no part of what identifies it: often it lies in a
# temporary directory.
_send_file.__qualname__ = "File.from_local"
_traced_send_file: Final = trace(ignore=("path",))(_send_file)


def _file_at(remote_path: str) -> File:
    """A file that lies at a URL already, and stays there: `s3://bucket/name`, `gs://...`, `az://...`, `file:///path`.

    It is looked at but not fetched. The content that it has now is what it means from now on: should somebody
    change it, using it is an error that says so. Within a run it is looked at once, and replay gives what was
    recorded.

    Raises:
        UsageError: there is no such object, or it is no URL.
        StoreError: it cannot be looked at.
    """
    found = remote_objects().look(remote_path)
    return File(name=_last_part(found.url), hash="", size=found.size, url=found.url, etag=found.etag)


_file_at.__qualname__ = "File.from_existing_remote"


def _destination(path: StrPath, url: str) -> str:
    """The URL to send something to. What is refused is not recorded, as there may be a secret in it."""
    if url.endswith("/"):
        url += os.path.basename(os.path.abspath(_path(path)))
    remote_objects().check(url)
    return url


def _given_file(path: StrPath) -> str:
    """The path of a file that may be stored."""
    text = _path(path)
    with reading(text):
        refuse_special(text, os.stat(text))
    check_name(os.path.basename(text))
    runtime.refuse_own_files(text)
    return text


def _sent(path: str, url: str) -> tuple[Any, str]:
    """Send a file to a URL: what lies there now, and its hash. Sent again where it changes meanwhile."""
    remote = remote_objects()
    for _ in range(TRIES):
        with reading(path):
            before = settled(path)
            if before is None:
                continue
            with builtins.open(path, "rb") as file:
                hash, size = digest(file.fileno())
        found = remote.sent(path, url)
        with reading(path):
            if signature(os.stat(path)) == signature(before) and found.size == size:
                return found, hash
    raise UsageError(
        f"{path} changed each of the {TRIES} times that it was sent: stop whatever writes to it, or copy it aside first"
    )


def on_hand(file: File) -> str:
    """The hash under which a file's content is on hand, after it was fetched if need be."""
    if not file.url:
        return file.hash
    remote = remote_objects()
    name: str = remote.fetched(remote.Found("", file.url, file.size, file.etag), file.hash, runtime.blobs())
    return name


@final
class File(_Reference):
    """The content and the name of one file, in the blob store or at a URL. Equal if both are; never changes."""

    __slots__ = ("etag",)

    etag: str
    """What the store at `url` names the content by; empty where there is no URL."""

    def __init__(self, *, name: str, hash: str, size: int, url: str = "", etag: str = "") -> None:
        if not isinstance(etag, str) or bool(url) != bool(etag):
            raise UsageError("a URL and an ETag go together: use File.from_existing_remote(url)")
        super().__init__(name=name, hash=hash, size=size, url=url)
        object.__setattr__(self, "etag", etag)

    def _may_lack_hash(self, url: str, hash: str) -> bool:
        return bool(url) and not hash

    def _identity(self) -> tuple[str, ...]:
        return *super()._identity(), self.etag

    def __reduce__(self) -> tuple[Any, ...]:
        rebuilt, (cls, fields) = super().__reduce__()
        return rebuilt, (cls, {**fields, "etag": self.etag})

    @staticmethod
    def _from_local(path: StrPath, remote_destination: str | None = None) -> File:
        """Copy a file into the blob store, or to a URL. It is on disk when this returns; the original is free again.

        Args:
            path: the file.
            remote_destination: where to put it instead of into the blob store: `s3://bucket/name`, `gs://bucket/name`,
                `az://container/name` or `file:///path`. Whatever is there is replaced. With a slash at its end: under
                its own name below that. Within a run this is a durable call of its own: it happens once (at least), and
                replay gives what was recorded.

        Raises:
            UsageError: it does not exist, cannot be read, is no regular file, or does not stop changing.
            StoreError: the blob store, or what lies at that URL, cannot be written.
        """
        if remote_destination is not None:
            return _traced_send_file(path, _destination(path, remote_destination))
        text = _given_file(path)
        [(hash, size)] = runtime.blobs().put([text])
        return File(name=os.path.basename(text), hash=hash, size=size)

    _from_local.__name__, _from_local.__qualname__ = "from_local", "File.from_local"
    from_local = _both(_from_local)

    from_existing_remote = _at_url(_file_at)

    @property
    def path(self) -> str:
        """The path of a local, read-only file with this name and content, kept by the blob store: nothing is copied
        (what lies at a URL is fetched once).

        To change the content, `download` it.
        """
        return runtime.blobs().path(on_hand(self), self.size, self.name)

    @_BothMethod
    def download(self, to: StrPath | None = None) -> str:
        """Make a copy that is yours to change, and return its path.

        Args:
            to: the copy's path, whatever file is there is replaced at once; or a directory that it shall lie in under
                its own name (one that exists, or a path with a slash at its end). Missing directories are made.
                Without it: a new temporary directory, which is yours to remove.
        """
        if to is None:
            target = os.path.join(_temporary(), self.name)
        else:
            target = os.path.abspath(_path(to))
            if os.fspath(to).endswith(os.sep) or os.path.isdir(target):
                target = os.path.join(target, self.name)
            with writing(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
        runtime.blobs().copy(on_hand(self), self.size, target)
        return target

    @_BothMethod
    def open(
        self, mode: str = "rb", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Open the content to read it: `"rb"` for bytes, `"r"` for text (UTF-8 unless said otherwise)."""
        if mode not in ("rb", "br", "r", "rt", "tr"):
            raise UsageError(f"a File never changes, so it opens with 'rb' or 'r', not {mode!r}: download it to write")
        binary = runtime.blobs().open(on_hand(self), self.size)
        if "b" in mode:
            return binary
        return io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)


# -- directories -----------------------------------------------------------------------------------------------------


def _folder_at(remote_path: str) -> Dir:
    """A directory of what lies below a URL already, and stays there: `s3://bucket/prefix`, `file:///path`, ....

    The names and ETags of all objects there are taken down; as with `File.from_existing_remote`, that is what the
    `Dir` means from then on. Objects that come later are not in it.

    Raises:
        UsageError: there is nothing below it, or it is no URL.
        StoreError: it cannot be listed.
    """
    entries = _listed(remote_path)
    return _made(_last_part(remote_path), entries, remote_path.rstrip("/"))


_folder_at.__qualname__ = "Dir.from_existing_remote"


@final
class Dir(_Reference):
    """A tree of files and its name, kept in the blob store. Equal if both are; never changes.

    Kept are the files with their contents, sub-directories, empty ones too, which files may be executed, and symbolic
    links that stay inside. Owners, times and other permissions are not.
    """

    __slots__ = ()

    @staticmethod
    def _from_local(path: StrPath, remote_destination: str | None = None) -> Dir:
        """Copy a directory into the blob store, or to a URL. It is on disk when this returns; the original is free.

        Args:
            path: the directory.
            remote_destination: where to put its files instead of into the blob store, see `File.from_local`. Links,
                empty directories and which files may be executed stand in the reference only. Nothing is removed there.

        Raises:
            UsageError: it does not exist, cannot be read, does not stop changing, or holds something that cannot be
                stored: a device, a socket, a FIFO, a link that leads out of it.
            StoreError: the blob store, or what lies at that URL, cannot be written.
        """
        if remote_destination is not None:
            return _traced_send_folder(path, _destination(path, remote_destination))
        return stored_folder(path)

    _from_local.__name__, _from_local.__qualname__ = "from_local", "Dir.from_local"
    from_local = _both(_from_local)

    from_existing_remote = _at_url(_folder_at)

    @property
    def path(self) -> str:
        """The path of a local, read-only directory with this name and content, kept by the blob store.

        Its files are the blob store's own, so nothing is copied (except files that may be executed, once). To change
        the content, `download` it.
        """
        return runtime.blobs().tree(self.hash, self.name, lambda top: fill_tree(self, top))

    @_BothMethod
    def download(self, to: StrPath | None = None) -> str:
        """Make a copy that is yours to change, and return its path.

        Args:
            to: the directory that shall hold the content. Made where it is missing; where it exists, its files of the
                same names are replaced one by one and all others stay. So a download that a crash cut short can be
                made again. Without it: a directory of this name in a new temporary one, which is yours to remove.
        """
        blobs = runtime.blobs()
        entries = _entries(self, blobs)
        top = os.path.abspath(_path(to)) if to is not None else os.path.join(_temporary(), self.name)
        with writing(top):
            os.makedirs(top, exist_ok=True)
        links = []
        for entry in entries:
            place = os.path.join(top, entry.text)
            if entry.kind == "dir":
                with writing(place):
                    _real_folder(place)
            elif entry.kind == "link":
                links.append((entry.data, place))
            else:
                blobs.copy(on_hand(_file(entry)), entry.size, place, executable=entry.executable)
        for target, place in links:
            with writing(place):
                _put_link(target, place)
        return top

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """Its directories from the top down, as `os.walk` gives them: path, names of directories, names of the rest.

        Paths are relative to this directory, which itself is `""`. Nothing is made on disk.
        """
        folders: dict[str, tuple[list[str], list[str]]] = {"": ([], [])}
        for entry in _entries(self, runtime.blobs()):
            parent, name = os.path.split(entry.text)
            if entry.kind == "dir":
                folders[entry.text] = ([], [])
                folders[parent][0].append(name)
            else:
                folders[parent][1].append(name)
        stack = [""]
        while stack:
            path = stack.pop()
            names, others = folders[path]
            stack.extend(os.path.join(path, name) for name in reversed(names))
            yield path, names, others

    def files(self) -> dict[str, File]:
        """Its files by their paths relative to this directory, in order. Links are not among them."""
        return {entry.text: _file(entry) for entry in _entries(self, runtime.blobs()) if entry.is_file}


add_file_types(File, Dir)


class Fill(Protocol):
    """How `fill_tree` puts a file where there is none."""

    def __call__(self, hash: str, size: int, to: str, *, executable: bool = False) -> None: ...


def fill_tree(
    folder: Dir,
    top: str,
    link: Fill | None = None,
    symlink: Callable[[bytes, bytes], None] = os.symlink,
    keep: Callable[[File], str] = on_hand,
) -> None:
    """Make an empty directory of ours hold a Dir's content: read-only files that the blob store shares, or what `link`
    and `symlink` put there instead. `keep`: lets a file's content be where that finds it, and gives its hash."""
    blobs = runtime.blobs()
    link = link or blobs.link
    os.chmod(top, 0o755)
    links = []
    entries = _entries(folder, blobs)
    if folder.url:
        each(keep, [_file(entry) for entry in entries if entry.is_file])
    for entry in entries:
        place = os.path.join(top, entry.text)
        if entry.kind == "dir":
            os.mkdir(place)
            os.chmod(place, 0o755)
        elif entry.kind == "link":
            links.append((entry.data, place))
        else:
            link(keep(_file(entry)), entry.size, place, executable=entry.executable)
    for target, place in links:  # last, so that nothing is ever written through one
        symlink(target, os.fsencode(place))


Known = Callable[[str], tuple[str, int] | None]
"""The hash and size of the blob that the file at a path only stands for; `None`: it holds its content itself."""


def stored_folder(path: StrPath, known: Known | None = None) -> Dir:
    """`Dir.from_local` of a directory some of whose files may stand for blobs."""
    text, name = _given_folder(path)
    return _made(name, manifest.taken(text, lambda files: _put(files, text, runtime.blobs(), known)))


def _given_folder(path: StrPath) -> tuple[str, str]:
    """The path and the name of a directory that may be stored."""
    text = _path(path)
    name = os.path.basename(os.path.abspath(text))
    with reading(text):
        found = os.stat(text)
    if not stat.S_ISDIR(found.st_mode):
        refuse_special(text, found)
        raise UsageError(f"{text} is a file, not a directory: use File.from_local")
    if not name:
        raise UsageError(f"{text} has no name of its own: name a directory below it")
    check_name(name)
    runtime.refuse_own_files(text)
    return text, name


def _made(name: str, entries: list[Entry], url: str = "") -> Dir:
    hash = runtime.blobs().put_bytes(manifest.encode(entries, remote=bool(url)))
    return Dir(name=name, hash=hash, size=sum(entry.size for entry in entries), url=url)


def _put(files: list[Entry], top: str, blobs: Blobs, known: Known | None = None) -> list[Entry]:
    places = [os.path.join(top, entry.text) for entry in files]
    found = each(known, places) if known is not None else [None] * len(files)
    stored = iter(blobs.put([place for place, blob in zip(places, found, strict=True) if blob is None]))
    return [
        Entry(entry.path, entry.kind, bytes.fromhex(hash), size)
        for entry, (hash, size) in zip(files, (blob or next(stored) for blob in found), strict=True)
    ]


def _send_folder(path: StrPath, remote_destination: str) -> Dir:
    text, _ = _given_folder(path)

    def send(entry: Entry) -> Entry:
        found, hash = _sent(os.path.join(text, entry.text), f"{remote_destination}/{entry.text}")
        return manifest.remote_entry(entry.path, entry.executable, found, hash)

    entries = manifest.taken(text, lambda files: each(send, files))
    return _made(_last_part(remote_destination), entries, remote_destination)


_send_folder.__qualname__ = "Dir.from_local"
_traced_send_folder: Final = trace(ignore=("path",))(_send_folder)


def _listed(url: str) -> list[Entry]:
    """The manifest of what lies below a URL."""
    objects = {os.fsencode(found.path): found for found in remote_objects().listed(url)}
    folders = set()
    for path in objects:
        while (path := os.path.dirname(path)) and path not in folders:
            folders.add(path)
    # What some tools put in place of a directory is an empty object of its name.
    empty = [path for path, found in objects.items() if not found.size and path not in folders]
    are_files = each(lambda path: remote_objects().is_object(objects[path]), empty)
    folders.update(path for path, is_file in zip(empty, are_files, strict=True) if not is_file)
    files = {path: found for path, found in objects.items() if found.size or path not in folders}
    entries = [Entry(path, "dir") for path in folders]
    entries += (manifest.remote_entry(path, False, found, "") for path, found in files.items())
    entries.sort(key=lambda entry: entry.path)
    manifest.check(entries, url)
    return entries


def _last_part(url: str) -> str:
    return url.rstrip("/").rpartition("/")[2]


def _entries(folder: Dir, blobs: Blobs) -> list[Entry]:
    """What the manifest of a Dir lists."""
    data = blobs.read(folder.hash)
    try:
        entries = manifest.decode(data, folder.name)
        for entry in entries:
            if entry.is_file:
                _file(entry)  # refuses what makes no sense
    except (UsageError, ValueError) as error:
        raise StoreError(
            f"blob {folder.hash} of the blob store {blobs.url} is not the manifest of directory {folder.name!r} "
            f"({error}): store the directory again"
        ) from error
    return entries


def _file(entry: Entry) -> File:
    url, etag, content = entry.content
    return File(name=os.path.basename(entry.text), hash=content.hex(), size=entry.size, url=url, etag=etag)


# -- places ----------------------------------------------------------------------------------------------------------


def _path(path: StrPath) -> str:
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{text!r} is not a path: give text or a pathlib.Path")
    return text


def _temporary() -> str:
    import tempfile

    return tempfile.mkdtemp(prefix="perdure-")


def _real_folder(place: str) -> None:
    """Make a directory where there is none. A link to one will not do: what is written below would land elsewhere."""
    with suppress(FileExistsError):
        os.mkdir(place)
    if not stat.S_ISDIR(os.lstat(place).st_mode):
        raise UsageError(f"{place} is in the way of a directory: remove it, or name another place")


def _put_link(target: bytes, place: str) -> None:
    temp = os.path.join(os.path.dirname(place), f".perdure-{secrets.token_hex(8)}")
    os.symlink(target, os.fsencode(temp))
    try:
        os.replace(temp, place)
    except OSError:
        os.unlink(temp)
        raise

"""`Dir`: a tree of files, stored as a manifest of names and content hashes."""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Final, NamedTuple, Protocol, final

from ... import runtime
from ...core.ground.ports import Blobs
from ...core.ground.trees import InTree, OpenTree
from ...core.ground.values import add_file_types
from ...errors import StoreError, UsageError
from ...store import remote_objects
from ...store.blobs import manifest
from ...store.blobs.user_files import check_name, each, reading, refuse_special, writing
from .._dual import dual, dual_method
from ..trace import trace
from .file import File, on_hand
from .reference import ContentReference, StrPath, path_text, temporary_folder
from .remote import at_url, destination, last_part, sent


def _at(remote_path: str) -> Dir:
    """A directory of the objects below a URL, where the objects stay: `s3://bucket/prefix`, `file:///path`, ....

    The names and ETags of all objects are noted; as with `File.from_existing_remote`, the `Dir` means exactly these
    contents from then on. Later objects are not part of the `Dir`.

    Raises:
        UsageError: there is no object below the URL, or the URL is malformed.
        StoreError: the objects cannot be listed.
    """
    return _made(last_part(remote_path), _listed(remote_path), remote_path.rstrip("/"))


_at.__qualname__ = "Dir.from_existing_remote"


@final
class Dir(ContentReference):
    """A tree of files and its name, kept in the blob store. Equal if both are; never changes.

    Kept are the contents of files, sub-directories (empty directories included), the permission to execute a file, and
    symbolic links that stay inside the tree. Owners, times and other permissions are not kept.
    """

    __slots__ = ()

    @staticmethod
    def _from_local(path: StrPath, remote_destination: str | None = None) -> Dir:
        """Copy a directory into the blob store, or to a URL. On return the copy is on disk, and the original is free.

        Args:
            path: the directory.
            remote_destination: a URL to copy the files to, instead of into the blob store, see `File.from_local`.
                Links, empty directories and the permission to execute stand in the reference only. Existing objects
                there stay.

        Raises:
            UsageError: the directory does not exist, cannot be read, does not stop changing, or holds an entry that
                cannot be stored: a device, a socket, a FIFO, a link that leads out of the directory.
            StoreError: the blob store, or the objects at the URL, cannot be written.
        """
        if remote_destination is not None:
            return _traced_send(path, destination(path, remote_destination))
        return stored_folder(path)

    _from_local.__name__, _from_local.__qualname__ = "from_local", "Dir.from_local"
    from_local = dual(_from_local)

    from_existing_remote = at_url(_at)

    @property
    def path(self) -> str:
        """The path of a local, read-only directory with this name and content, kept by the blob store.

        The files are the blob store's own, so nothing is copied (except executable files, once). To change the content,
        `download` it.
        """
        return runtime.blobs().tree(self.hash, self.name, lambda top: fill_tree(self, top))

    @dual_method
    def download(self, to: StrPath | None = None) -> str:
        """Make a copy that belongs to the caller, and return its path.

        Args:
            to: the directory for the content. A missing directory is made. In an existing directory, files of the same
                names are replaced one after the other, and all others stay; so a download that a crash cut short can be
                repeated. Without `to`: a directory of this name in a new temporary directory, for the caller to remove.
        """
        blobs = runtime.blobs()
        entries = _entries(self, blobs)
        top = os.path.abspath(path_text(to)) if to is not None else os.path.join(temporary_folder(), self.name)
        with writing(top):
            os.makedirs(top, exist_ok=True)
            tree = OpenTree(top)
        with tree:
            for entry in entries:
                place = InTree(tree, entry.path)
                if entry.kind == "dir":
                    with writing(str(place)):
                        _real_folder(place)
                elif entry.kind != "link":
                    blobs.copy(on_hand(_file(entry)), entry.size, place, executable=entry.executable)
            for entry in entries:
                if entry.kind == "link":
                    place = InTree(tree, entry.path)
                    with writing(str(place)):
                        _put_link(entry.data, place)
        return top

    def walk(self) -> Iterator[tuple[str, list[str], list[str]]]:
        """The directories from the top down, as `os.walk` gives them: path, names of directories, names of the rest.

        Paths are relative to this directory, whose own path is `""`. Nothing is made on disk.
        """
        folders = {"": _Names()}
        for entry in _entries(self, runtime.blobs()):
            parent, name = os.path.split(entry.text)
            if entry.kind == "dir":
                folders[entry.text] = _Names()
                folders[parent].folders.append(name)
            else:
                folders[parent].others.append(name)
        stack = [""]
        while stack:
            path = stack.pop()
            names = folders[path]
            stack.extend(os.path.join(path, name) for name in reversed(names.folders))
            yield path, names.folders, names.others

    def files(self) -> dict[str, File]:
        """The files by their paths relative to this directory, in order, without links."""
        return {entry.text: _file(entry) for entry in _entries(self, runtime.blobs()) if entry.is_file}


Dir.__module__ = "perdure.io"  # the public name, which messages show
add_file_types(File, Dir)


@dataclass(slots=True)
class _Names:
    """The names in one directory."""

    folders: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)


# -- out of the blob store -------------------------------------------------------------------------------------------


class Fill(Protocol):
    """The way in which `fill_tree` puts a file at a free path."""

    def __call__(self, hash: str, size: int, to: str, *, executable: bool = False) -> None: ...


def fill_tree(
    folder: Dir,
    top: str,
    link: Fill | None = None,
    symlink: Callable[[bytes, bytes], None] = os.symlink,
    keep: Callable[[File], str] = on_hand,
) -> None:
    """Fill an empty directory of perdure's with the content of a Dir.

    Args:
        folder: the Dir.
        top: the directory to fill.
        link: puts a file there; by default a read-only file that the blob store shares.
        symlink: puts a symbolic link there.
        keep: brings the content of a file to the place where `link` looks, and returns the hash.
    """
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
    for target, place in links:  # last, so that nothing is ever written through a link
        symlink(target, os.fsencode(place))


def _entries(folder: Dir, blobs: Blobs) -> list[manifest.Listed]:
    """The entries of a Dir's manifest, checked."""
    data = blobs.read(folder.hash)
    try:
        entries = manifest.decode(data, folder.name)
        for entry in entries:
            if entry.is_file:
                _file(entry)  # refuses an entry that makes no sense
    except (UsageError, ValueError) as error:
        raise StoreError(
            f"blob {folder.hash} of the blob store {blobs.url} is not the manifest of directory {folder.name!r} "
            f"({error}): store the directory again"
        ) from error
    return entries


def _file(entry: manifest.Listed) -> File:
    url, etag, content = entry.content
    return File(name=os.path.basename(entry.text), hash=content.hex(), size=entry.size, url=url, etag=etag)


def _real_folder(place: InTree) -> None:
    """Make a missing directory. A link to a directory is refused: writing below a link would land elsewhere."""
    folder, _, name = place.name.rpartition(b"/")
    with place.tree.folder(folder) as fd:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=fd)
        if not stat.S_ISDIR(os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode):
            raise UsageError(f"{place} is in the way of a directory: remove it, or name another place")


def _put_link(target: bytes, place: InTree) -> None:
    folder, _, name = place.name.rpartition(b"/")
    temp = f".perdure-{secrets.token_hex(8)}".encode()
    with place.tree.folder(folder) as fd:
        os.symlink(target, temp, dir_fd=fd)
        try:
            os.replace(temp, name, src_dir_fd=fd, dst_dir_fd=fd)
        except OSError:
            os.unlink(temp, dir_fd=fd)
            raise


# -- into the blob store ---------------------------------------------------------------------------------------------

Known = Callable[[os.stat_result], tuple[str, int] | None]
"""The hash and size of the blob for which the file of that state stands; `None`: the file holds its own content."""


def stored_folder(path: StrPath, known: Known | None = None) -> Dir:
    """`Dir.from_local` of a directory in which files may stand for blobs."""
    given = _given(path)
    entries = manifest.taken(given.path, lambda tree, files: put_files(files, tree, runtime.blobs(), known))
    return _made(given.name, entries)


class _Given(NamedTuple):
    """A directory that may be stored."""

    path: str
    name: str


def _given(path: StrPath) -> _Given:
    text = path_text(path)
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
    return _Given(text, name)


def _made(name: str, entries: list[manifest.Listed], url: str = "") -> Dir:
    hash = runtime.blobs().put_bytes(manifest.encode(entries, remote=bool(url)))
    return Dir(name=name, hash=hash, size=sum(entry.size for entry in entries), url=url)


def put_files(
    files: list[manifest.Listed], tree: OpenTree, blobs: Blobs, known: Known | None = None
) -> list[manifest.Listed]:
    """Store the files of a directory, and return their entries with hashes and sizes."""

    def blob_of(entry: manifest.Listed) -> tuple[str, int] | None:
        with reading(tree.shown(entry.path)):
            state = tree.state(entry.path)
        return known(state) if known is not None else None

    found = each(blob_of, files) if known is not None else [None] * len(files)
    stored = iter(
        blobs.put([InTree(tree, entry.path) for entry, blob in zip(files, found, strict=True) if blob is None])
    )
    return [
        manifest.Listed(entry.path, entry.kind, bytes.fromhex(hash), size)
        for entry, (hash, size) in zip(files, (blob or next(stored) for blob in found), strict=True)
    ]


def _send(path: StrPath, remote_destination: str) -> Dir:
    top = _given(path).path

    def send(tree: OpenTree, entry: manifest.Listed) -> manifest.Listed:
        there = sent(InTree(tree, entry.path), f"{remote_destination}/{entry.text}")
        return manifest.remote_entry(entry.path, entry.executable, there.found, there.hash)

    entries = manifest.taken(top, lambda tree, files: each(partial(send, tree), files))
    return _made(last_part(remote_destination), entries, remote_destination)


_send.__qualname__ = "Dir.from_local"
_traced_send: Final = trace(ignore=("path",))(_send)


def _listed(url: str) -> list[manifest.Listed]:
    """The manifest of the objects below a URL."""
    objects = {os.fsencode(found.path): found for found in remote_objects().listed(url)}
    folders = set()
    for path in objects:
        while (path := os.path.dirname(path)) and path not in folders:
            folders.add(path)
    # Some tools mark a directory by an empty object of the directory's name.
    empty = [path for path, found in objects.items() if not found.size and path not in folders]
    are_files = each(lambda path: remote_objects().is_object(objects[path]), empty)
    folders.update(path for path, is_file in zip(empty, are_files, strict=True) if not is_file)
    files = {path: found for path, found in objects.items() if found.size or path not in folders}
    entries = [manifest.Listed(path, "dir") for path in folders]
    entries += (manifest.remote_entry(path, False, found, "") for path, found in files.items())
    entries.sort(key=lambda entry: entry.path)
    manifest.check(entries, url)
    return entries

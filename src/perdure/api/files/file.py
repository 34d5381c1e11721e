"""`File`: the content and the name of one file."""

from __future__ import annotations

import io
import os
from typing import IO, Any, Final, final

from ... import runtime
from ...errors import UsageError
from ...store import remote_objects
from ...store.blobs.user_files import check_name, reading, refuse_special, writing
from .._dual import dual, dual_method
from ..trace import trace
from .places import refuse_foreign_place
from .reference import ContentReference, StrPath, path_text, temporary_folder
from .remote import at_url, destination, last_part, sent


def _send(path: StrPath, remote_destination: str) -> File:
    found, hash = sent(_given(path), remote_destination)
    return File(name=last_part(found.url), hash=hash, size=found.size, url=found.url, etag=found.etag)


# The name under which a run shows the call. The path is not part of the call's identity: a path often lies in a
# temporary directory.
_send.__qualname__ = "File.from_local"
_traced_send: Final = trace(ignore=("path",))(_send)


def _at(remote_path: str) -> File:
    """A file that exists at a URL and stays there: `s3://bucket/name`, `gs://...`, `az://...`, `file:///path`.

    The object is looked at but not fetched. The reference means the present content; once the object has changed,
    using the reference is an error that names the change. Within a run the object is looked at once, and replay returns
    the recorded reference.

    Raises:
        UsageError: there is no such object, or the URL is malformed.
        StoreError: the object cannot be looked at.
    """
    found = remote_objects().look(remote_path)
    return File(name=last_part(found.url), hash="", size=found.size, url=found.url, etag=found.etag)


_at.__qualname__ = "File.from_existing_remote"


def _given(path: StrPath) -> str:
    """The path of a file that may be stored."""
    text = path_text(path)
    with reading(text):
        refuse_special(text, os.stat(text))
    check_name(os.path.basename(text))
    runtime.refuse_own_files(text)
    return text


def on_hand(file: File) -> str:
    """The hash under which this machine holds a file's content; a file at a URL is fetched if need be."""
    if not file.url:
        return file.hash
    refuse_foreign_place(file.url)
    remote = remote_objects()
    name: str = remote.fetched(remote.Found("", file.url, file.size, file.etag), file.hash, runtime.blobs())
    return name


@final
class File(ContentReference):
    """The content and the name of one file, in the blob store or at a URL. Equal if both are; never changes."""

    __slots__ = ("etag",)

    etag: str
    """The name that the store at `url` gives the content; empty without a URL."""

    def __init__(self, *, name: str, hash: str, size: int, url: str = "", etag: str = "") -> None:
        if not isinstance(etag, str) or bool(url) != bool(etag):
            raise UsageError("a URL and an ETag go together: use File.from_existing_remote(url)")
        super().__init__(name=name, hash=hash, size=size, url=url)
        object.__setattr__(self, "etag", etag)

    def _may_lack_hash(self, url: str, hash: str) -> bool:
        return bool(url) and not hash

    def _identity(self) -> tuple[str, ...]:
        return *super()._identity(), self.etag

    def _fields(self) -> dict[str, Any]:
        return {**super()._fields(), "etag": self.etag}

    @staticmethod
    def _from_local(path: StrPath, remote_destination: str | None = None) -> File:
        """Copy a file into the blob store, or to a URL. On return the copy is on disk, and the original is free again.

        Args:
            path: the file.
            remote_destination: a URL to copy to, instead of into the blob store: `s3://bucket/name`,
                `gs://bucket/name`, `az://container/name` or `file:///path`. An object there is replaced. A slash at
                the end means: below the URL, under the file's own name. Within a run this is a durable call: it happens
                once (at least), and replay returns the recorded reference.

        Raises:
            UsageError: the file does not exist, cannot be read, is no regular file, or does not stop changing.
            StoreError: the blob store, or the object at the URL, cannot be written.
        """
        if remote_destination is not None:
            return _traced_send(path, destination(path, remote_destination))
        text = _given(path)
        [(hash, size)] = runtime.blobs().put([text])
        return File(name=os.path.basename(text), hash=hash, size=size)

    _from_local.__name__, _from_local.__qualname__ = "from_local", "File.from_local"
    from_local = dual(_from_local)

    from_existing_remote = at_url(_at)

    @property
    def path(self) -> str:
        """The path of a local, read-only file with this name and content, kept by the blob store. Nothing is copied;
        an object at a URL is fetched once.

        To change the content, `download` it.
        """
        return runtime.blobs().path(on_hand(self), self.size, self.name)

    @dual_method
    def download(self, to: StrPath | None = None) -> str:
        """Make a copy that belongs to the caller, and return its path.

        Args:
            to: the copy's path, where an existing file is replaced atomically; or a directory for the copy to lie in
                under its own name (an existing directory, or a path with a slash at its end). Missing directories are
                made. Without `to`: a new temporary directory, for the caller to remove.
        """
        if to is None:
            target = os.path.join(temporary_folder(), self.name)
        else:
            target = os.path.abspath(path_text(to))
            if os.fspath(to).endswith(os.sep) or os.path.isdir(target):
                target = os.path.join(target, self.name)
            with writing(target):
                os.makedirs(os.path.dirname(target), exist_ok=True)
        runtime.blobs().copy(on_hand(self), self.size, target)
        return target

    @dual_method
    def open(
        self, mode: str = "rb", *, encoding: str | None = None, errors: str | None = None, newline: str | None = None
    ) -> IO[Any]:
        """Open the content for reading: `"rb"` for bytes, `"r"` for text (UTF-8 unless told otherwise)."""
        if mode not in ("rb", "br", "r", "rt", "tr"):
            raise UsageError(f"a File never changes, so it opens with 'rb' or 'r', not {mode!r}: download it to write")
        binary = runtime.blobs().open(on_hand(self), self.size)
        if "b" in mode:
            return binary
        return io.TextIOWrapper(binary, encoding or "utf-8", errors, newline)


File.__module__ = "perdure.io"  # the public name, which messages show

"""The local blob store: the content of files, each once, under the SHA-256 of its bytes.

    sha256/ab/<hash>        a blob, read-only; `<hash>.x` is an executable copy, made on first use
    files/<hash>/<name>     a blob under its own name: a hard link inside this directory
    trees/<hash>/<name>/    a directory under its own name, made of such links
    parts/<key>             the received part of content from elsewhere; the fetching process locks `<key>.lock`
    fetched/<key>           the hash of content from a URL of the user
    staging/<id>            files being written; `<id>.lock` is locked while their writer lives

A blob is written and fsynced under `staging`, and then renamed. So a file with the name of a blob is whole, at every
moment of a crash. The next writer removes leftovers of dead writers from `staging`. No foreign file is ever linked into
this directory: its owner may still write to the file.

The modification time of a blob tells the last put, to the minute: a put that finds its content there refreshes the
time. The put does so, or renames its own copy into place, under a shared lock (`flock`) on the directory `sha256/ab`.
Removal looks at the time and unlinks under the exclusive lock. So a put never relies on a blob under removal.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import re
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from typing import BinaryIO, Final

from perdure.core.ground.ports import FilePlace
from perdure.core.ground.private import make_private, sync_folder
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from .copying import copy, create, is_file, listed, refreshed, remove, sync, sync_folders, write
from .user_files import (
    TRIES,
    Translated,
    check_name,
    digest,
    each,
    opened,
    reading,
    settled,
    signature,
    writing,
)

_HASH: Final = re.compile(r"[0-9a-f]{64}")
_NO_LINK: Final = {errno.EMLINK, errno.EPERM, errno.EXDEV, errno.EOPNOTSUPP, errno.ENOSYS, errno.EACCES}


class LocalBlobs:
    """`Blobs` in a directory. Safe from any thread and process, also several at once."""

    def __init__(self, root: str | os.PathLike[str]) -> None:
        self.root: Final = os.path.abspath(root)
        self._swept = False
        # Directories whose names are on disk: synced by this process, whichever process made them.
        self._anchored: set[str] = set()

    @property
    def url(self) -> str:
        return self.root

    # -- in --------------------------------------------------------------------------------------------------------

    def put(self, sources: Sequence[FilePlace]) -> list[tuple[str, int]]:
        with self._staging() as staging:
            found = each(lambda source: self._take(source, staging), sources)
            self._anchor({self._shard(hash) for hash, _ in found})
        return found

    def put_bytes(self, data: bytes) -> str:
        hash = hashlib.sha256(data).hexdigest()
        with self._staging() as staging, self._storing():
            fd, temp = create(staging)
            try:
                write(fd, memoryview(data))
                self._publish(fd, temp, hash, len(data))
            finally:
                os.close(fd)
            self._anchor({self._shard(hash)})
        return hash

    def _take(self, source: FilePlace, staging: str) -> tuple[str, int]:
        """Copy one file in. A file that changes during the copy is copied again: the blob must equal the file at one
        moment."""
        for _ in range(TRIES):
            # Looked at through the descriptor alone: a path may lead to another file at the next look.
            fd = opened(source)
            try:
                with reading(str(source)):
                    before = settled(fd)
                if before is None:
                    continue
                with self._storing():
                    out, temp = create(staging)
                try:
                    hash, size = copy(fd, out, before.st_size, lambda: reading(str(source)), self._storing)
                    with reading(str(source)):
                        # Under /proc and /sys sizes mean nothing.
                        whole = size == before.st_size or not before.st_size
                        same = whole and signature(os.fstat(fd)) == signature(before)
                    with self._storing():
                        if same:
                            self._publish(out, temp, hash, size)
                            return hash, size
                        os.unlink(temp)
                finally:
                    os.close(out)
            finally:
                os.close(fd)
        raise UsageError(
            f"{source} changed each of the {TRIES} times that it was copied: stop the programs that write "
            f"there, or copy it aside first"
        )

    def _publish(self, fd: int, temp: str, hash: str, size: int, *, executable: bool = False) -> None:
        """Give a written file its final name, unless the content is there already. The caller syncs the directory."""
        final = self._blob(hash, executable)
        make_private(os.path.dirname(final), 0o755)
        with self._locked(hash, fcntl.LOCK_SH):
            if is_file(final, size) and refreshed(final):
                os.unlink(temp)
                return
        os.fchmod(fd, 0o555 if executable else 0o444)
        sync(fd)
        with self._locked(hash, fcntl.LOCK_SH):
            os.utime(fd)  # a large file was written some time ago
            os.rename(temp, final)

    @contextmanager
    def _locked(self, hash: str, how: int) -> Iterator[None]:
        """Hold the lock of a blob's directory; for a put shared, and optional where the file system has no locks."""
        fd = os.open(self._shard(hash), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                fcntl.flock(fd, how)
            except OSError:
                if how != fcntl.LOCK_SH:
                    raise
            yield
        finally:
            os.close(fd)

    def _anchor(self, folders: Iterable[str]) -> None:
        """Take the names in these directories to disk, and the first time those of the directories above.

        Also where nothing new was written: another process may have renamed a blob and not have synced the directory
        yet.
        """
        shards = sorted(folders)
        base = os.path.dirname(self.root)
        above = [os.path.join(self.root, "sha256"), self.root, base]
        if os.path.basename(base) == ".perdure":
            above.append(os.path.dirname(base))
        with self._storing():
            each(sync_folder, shards)
            if not self._anchored.issuperset(shards):
                for folder in above:
                    with suppress(PermissionError):  # not readable for this user, so made by another
                        sync_folder(folder)
                self._anchored.update(shards)

    def take(self, hash: str, size: int, url: str) -> bool:
        return False

    # -- out -------------------------------------------------------------------------------------------------------

    def open(self, hash: str, size: int) -> BinaryIO:
        return os.fdopen(self._open(hash, size), "rb")

    def start(self, hash: str, size: int, length: int) -> bytes:
        with self.open(hash, size) as file:
            return file.read(length)

    def read(self, hash: str) -> bytes:
        with os.fdopen(self._open(hash, None), "rb") as file, self._storing():
            data = file.read()
        if hashlib.sha256(data).hexdigest() != hash:
            raise self._damaged(hash, "its content does not have that hash")
        return data

    def copy(self, hash: str, size: int, to: FilePlace, *, executable: bool = False) -> None:
        source = self._open(hash, size)
        try:
            if isinstance(to, str):
                self._copy(source, hash, size, to, to, None, executable)
                return
            folder, _, name = to.name.rpartition(b"/")
            with writing(str(to)), to.tree.folder(folder) as fd:
                self._copy(source, hash, size, str(to), os.fsdecode(name), fd, executable)
        finally:
            os.close(source)

    def _copy(
        self, source: int, hash: str, size: int, shown: str, to: str, folder: int | None, executable: bool
    ) -> None:
        """Copy an open blob to a path, relative to `folder` where that is given."""
        with writing(shown):
            temp = os.path.join(os.path.dirname(to), f".perdure-{secrets.token_hex(8)}")
            mode = 0o777 if executable else 0o666  # less the user's umask, as for any new file
            out = os.open(temp, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode, dir_fd=folder)
        try:
            try:
                found, length = copy(source, out, size, self._storing, lambda: writing(shown), hashed=False)
            finally:
                os.close(out)
            if length != size or found not in (hash, ""):
                raise self._damaged(hash, "its content does not have that hash")
            with writing(shown):
                os.replace(temp, to, src_dir_fd=folder, dst_dir_fd=folder)
        except BaseException:
            with suppress(OSError):
                os.unlink(temp, dir_fd=folder)
            raise

    def link(self, hash: str, size: int, to: str, *, executable: bool = False) -> None:
        source = self._executable(hash, size) if executable else self._checked(hash, size)
        try:
            os.link(source, to, follow_symlinks=False)
        except OSError as error:
            # Too many links (65,000 on ext4), a file system without links, or a store of another user.
            if error.errno not in _NO_LINK:
                with self._storing():
                    raise
            self.copy(hash, size, to, executable=executable)
            with self._storing():
                os.chmod(to, 0o555 if executable else 0o444)

    def path(self, hash: str, size: int, name: str) -> str:
        target = self._named("files", hash, name)
        if not is_file(target, size):
            self._checked(hash, size)
            with self._staging() as staging, self._storing():
                temp = os.path.join(staging, secrets.token_hex(8))
                self.link(hash, size, temp)
                make_private(os.path.dirname(target), 0o755)
                os.rename(temp, target)
                # For two links to one file rename does nothing; the temporary link goes with `staging`.
        return target

    def tree(self, hash: str, name: str, fill: Callable[[str], None]) -> str:
        target = self._named("trees", hash, name)
        if not os.path.isdir(target):
            with self._staging() as staging, self._storing():
                temp = os.path.join(staging, "tree")
                os.mkdir(temp, 0o755)
                fill(temp)
                # As for a blob: a file with the final name is whole.
                sync_folders(temp)
                make_private(os.path.dirname(target), 0o755)
                try:
                    os.rename(temp, target)
                except OSError:
                    if not os.path.isdir(target):  # another thread or process was faster, and made the same
                        raise
        return target

    def _executable(self, hash: str, size: int) -> str:
        """The executable twin of the blob: links share one mode, so the twin is a file of its own."""
        target = self._blob(hash, executable=True)
        if not is_file(target, size):
            source = self._open(hash, size)
            try:
                with self._staging() as staging, self._storing():
                    out, temp = create(staging)
                    try:
                        copy(source, out, size, self._storing, self._storing, hashed=False)
                        self._publish(out, temp, hash, size, executable=True)
                    finally:
                        os.close(out)
            finally:
                os.close(source)
        return target

    def _open(self, hash: str, size: int | None) -> int:
        path = self._blob(hash)
        try:
            fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except FileNotFoundError:
            raise self._missing(hash) from None
        except OSError as error:
            raise StoreUnavailableError(
                f"blob {hash} of the blob store {self.root} cannot be read ({error.strerror}): check the permissions "
                f"of {path}"
            ) from error
        found = os.fstat(fd)
        if not stat.S_ISREG(found.st_mode) or size not in (None, found.st_size):
            os.close(fd)
            raise self._damaged(hash, f"{found.st_size} bytes where {size} were stored")
        return fd

    def _checked(self, hash: str, size: int) -> str:
        path = self._blob(hash)
        if not is_file(path, size):
            os.close(self._open(hash, size))  # reports the fault
        return path

    def _missing(self, hash: str) -> StoreError:
        return StoreError(
            f"blob {hash} is not in the blob store {self.root}: restore that directory from a backup, or choose the "
            f"store that the file was recorded in (`PERDURE_STORE`, `perdure.init(store=...)`)"
        )

    def _damaged(self, hash: str, how: str) -> StoreError:
        return StoreError(
            f"blob {hash} of the blob store {self.root} is damaged ({how}): restore {self._blob(hash)} from a backup, "
            f"or remove it and store the same file again"
        )

    # -- as the copy on this machine of what lies elsewhere ----------------------------------------------------------

    def fetched(self, key: str, size: int, hash: str, fetch: Callable[[str], None]) -> str:
        self._shard(key)
        note = os.path.join(self.root, "fetched", key)
        if found := self._kept(note, size, hash):
            return found
        with self.part(key) as part:
            if found := self._kept(note, size, hash):
                return found  # another thread or process was faster
            fetch(part)
            hash = self.adopt(part, hash, size)
        with self._staging() as staging, self._storing():
            temp = os.path.join(staging, "note")
            with open(temp, "w") as file:
                file.write(hash)
            make_private(os.path.dirname(note), 0o755)
            os.replace(temp, note)
        return hash

    def _kept(self, note: str, size: int, hash: str) -> str:
        """The hash of fetched content, if the content is still here, and stays for now; else empty."""
        if not hash:
            try:
                with open(note) as file:
                    hash = file.read(64)
            except FileNotFoundError:
                return ""
        if not _HASH.fullmatch(hash):
            return ""  # emptied by a power failure
        self.refresh([hash])
        return hash if self.has(hash, size) else ""

    def has(self, hash: str, size: int | None) -> bool:
        """Whether a blob (of that size) is here."""
        try:
            found = os.lstat(self._blob(hash))
        except OSError:
            return False
        return stat.S_ISREG(found.st_mode) and size in (None, found.st_size)

    def blob(self, hash: str, size: int) -> str:
        """The path of the blob, for reading."""
        return self._checked(hash, size)

    @contextmanager
    def part(self, hash: str) -> Iterator[str]:
        """A file for the received part of a blob, kept until `adopt`; held by one thread of one process."""
        self._shard(hash)
        folder = os.path.join(self.root, "parts")
        with self._storing():
            make_private(folder)
            lock = os.open(os.path.join(folder, f"{hash}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            with suppress(OSError):  # without locks two may fetch one blob, and the slower is refused
                fcntl.flock(lock, fcntl.LOCK_EX)
            yield os.path.join(folder, hash)
        finally:
            os.close(lock)

    def adopt(self, part: str, hash: str, size: int) -> str:
        """Make a blob of the content of `part`, if whole; the hash of the content, computed where `hash` is empty.

        Raises:
            StoreError: the content differs from `hash`. The file is removed then, and its source is at fault.
        """
        with self._storing():
            fd = os.open(part, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
        try:
            with self._storing():
                found, length = digest(fd)
            if (found, length) != (hash or found, size):
                with suppress(OSError):
                    os.unlink(part)
                what = f"as blob {hash}" if hash else "from a URL"
                raise StoreError(
                    f"what was fetched {what} has {length} bytes with the hash {found}, not {size}: it is damaged "
                    "where it lies; store the same file again"
                )
            with self._storing():
                self._publish(fd, part, found, size)
                self._anchor({self._shard(found)})
        finally:
            os.close(fd)
        return found

    # -- removal ---------------------------------------------------------------------------------------------------

    def older(self, before: int) -> Iterator[tuple[str, int]]:
        top = os.path.join(self.root, "sha256")
        for shard in sorted(listed(top)):
            for name in listed(os.path.join(top, shard)):
                if _HASH.fullmatch(name):
                    try:
                        found = os.lstat(os.path.join(top, shard, name))
                    except FileNotFoundError:
                        continue
                    if stat.S_ISREG(found.st_mode) and found.st_mtime_ns < before * 1000:
                        yield name, found.st_size

    def refresh(self, hashes: Iterable[str]) -> None:
        for hash in hashes:
            with self._storing(), suppress(FileNotFoundError), self._locked(hash, fcntl.LOCK_SH):
                refreshed(self._blob(hash))

    def remove(self, hashes: Sequence[str], before: int) -> list[bool]:
        # Slow removals are renamed aside, and done without the lock.
        with self._staging() as staging:
            gone = [self._remove_one(hash, before, staging) for hash in hashes]
        self._forget()
        return gone

    def _forget(self) -> None:
        """Remove the notes on fetched content without its blob."""
        for key in listed(folder := os.path.join(self.root, "fetched")):
            note = os.path.join(folder, key)
            with self._storing(), suppress(FileNotFoundError):
                with open(note) as file:
                    hash = file.read(64)
                if not _HASH.fullmatch(hash) or not self.has(hash, None):
                    os.unlink(note)

    def _remove_one(self, hash: str, before: int, staging: str) -> bool:
        blob = self._blob(hash)
        with self._storing(), suppress(FileNotFoundError), self._locked(hash, fcntl.LOCK_EX):
            if os.lstat(blob).st_mtime_ns >= before * 1000:
                return False
            # The blob last: while the blob is there, removal will be tried again.
            for kind in ("trees", "files"):
                with suppress(FileNotFoundError):
                    os.rename(os.path.join(self.root, kind, hash), os.path.join(staging, f"{kind}-{hash}"))
            with suppress(FileNotFoundError):
                os.unlink(self._blob(hash, executable=True))
            os.unlink(blob)
            return True
        return False

    # -- places ----------------------------------------------------------------------------------------------------

    def _shard(self, hash: str) -> str:
        # Hashes and names come from data too: no path may lead out of this directory (P11).
        if not _HASH.fullmatch(hash):
            raise UsageError(f"{hash!r} is not the hash of a blob: 64 hexadecimal digits are")
        return os.path.join(self.root, "sha256", hash[:2])

    def _blob(self, hash: str, executable: bool = False) -> str:
        return os.path.join(self._shard(hash), hash + ".x" * executable)

    def _named(self, kind: str, hash: str, name: str) -> str:
        self._shard(hash)
        check_name(name)
        return os.path.join(self.root, kind, hash, name)

    @contextmanager
    def _staging(self) -> Iterator[str]:
        """A directory for one operation, removed at the end; by the next operation, should this process die before."""
        with self._storing():
            folder = os.path.join(self.root, "staging")
            if not os.path.isdir(folder):
                base = os.path.dirname(self.root)
                if os.path.basename(base) != ".perdure" and not os.path.isdir(base):
                    raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), base)
                make_private(folder)
            if not self._swept:
                self._swept = True
                self._sweep(folder)
            while True:
                place = os.path.join(folder, secrets.token_hex(8))
                lock = os.open(f"{place}.lock", os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with suppress(OSError):  # a file system without locks: then nothing is swept either
                    fcntl.flock(lock, fcntl.LOCK_EX)
                if os.fstat(lock).st_nlink:
                    break
                os.close(lock)  # a sweeper came between the two
        try:
            with self._storing():
                os.mkdir(place, 0o700)
            yield place
        finally:
            remove(place)
            os.close(lock)

    def _sweep(self, folder: str) -> None:
        for name in os.listdir(folder):
            place, dot, _ = name.rpartition(".lock")
            if not dot:
                continue
            with suppress(OSError):
                lock = os.open(os.path.join(folder, name), os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    remove(os.path.join(folder, place))
                finally:
                    os.close(lock)

    def _storing(self) -> AbstractContextManager[None]:
        return Translated(self._unusable)

    def _unusable(self, error: OSError) -> Exception:
        match error.errno:
            case errno.ENOSPC | errno.EDQUOT:
                text = f"the disk of the blob store {self.root} is full: free some space, then carry on"
            case errno.EACCES | errno.EPERM | errno.EROFS:
                text = f"the blob store {self.root} cannot be written: change its permissions, or choose another store"
            case errno.ENOENT | errno.ENOTDIR:
                text = (
                    f"{error.filename or self.root} went away or is not a directory: create the directory of the blob "
                    f"store {self.root}, or choose another store"
                )
            case errno.EMFILE | errno.ENFILE:
                text = (
                    f"the blob store {self.root} cannot be used, too many files are open: raise the limit (`ulimit -n`)"
                )
            case _:
                text = f"the blob store {self.root} cannot be used ({error.strerror}): check its disk"
        return StoreUnavailableError(text)

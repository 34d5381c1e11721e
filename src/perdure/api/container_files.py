"""`File` and `Dir` for the copilot: put on disk before a container, and taken back after the container."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from .. import runtime
from .files.file import File, on_hand
from .files.folder import Dir, fill_tree, stored_folder

if TYPE_CHECKING:
    from ..containers.copilot import Away


class ContainerFiles:
    """The copilot's `FileSystem`, over the blob store in use."""

    file_type = File
    dir_type = Dir

    def link_file(self, file: File, to: str) -> None:
        runtime.blobs().link(on_hand(file), file.size, to)

    def link_dir(self, dir: Dir, to: str) -> None:
        os.mkdir(to)
        fill_tree(dir, to)

    def file_from(self, path: str, name: str) -> File:
        taken = File.from_local(path)
        return File(name=name, hash=taken.hash, size=taken.size)

    def dir_from(self, path: str, name: str) -> Dir:
        taken = Dir.from_local(path)
        return Dir(name=name, hash=taken.hash, size=taken.size)


class ReferenceFiles(ContainerFiles):
    """Puts symbolic links in place of files, whose targets name the content (`containers.kubernetes.tree`), and
    takes content that is `away` by reference. Only names and hashes come to this machine."""

    def __init__(self, away: Away | None = None) -> None:
        self._away = away

    def link_file(self, file: File, to: str) -> None:
        _refer(_in_bucket(file), file.size, to)

    def link_dir(self, dir: Dir, to: str) -> None:
        os.mkdir(to)
        fill_tree(dir, to, _refer, _refer_to_link, _in_bucket)

    def file_from(self, path: str, name: str) -> File:
        known = self._known(os.stat(path))
        if known is None:
            return super().file_from(path, name)
        hash, size = known
        return File(name=name, hash=hash, size=size)

    def dir_from(self, path: str, name: str) -> Dir:
        taken = stored_folder(path, self._known)
        return Dir(name=name, hash=taken.hash, size=taken.size)

    def _known(self, state: os.stat_result) -> tuple[str, int] | None:
        return self._away.blob(state, runtime.blobs().take) if self._away is not None else None


def _in_bucket(file: File) -> str:
    """Bring a file's content to the blobs, fetched from a URL where need be; the hash."""
    hash = on_hand(file)
    if file.url:
        runtime.blobs().put([runtime.blobs().path(hash, file.size, file.name)])
    return hash


def _refer(hash: str, size: int, to: str, *, executable: bool = False) -> None:
    os.symlink(f"{'exec' if executable else 'file'}:{hash}:{size}", to)


def _refer_to_link(target: bytes, place: bytes) -> None:
    os.symlink(b"link:" + target, place)

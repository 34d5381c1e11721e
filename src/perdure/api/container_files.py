"""`File` and `Dir` as the copilot sees them: how they come to disk in front of a container, and back behind it."""

from __future__ import annotations

import os

from .. import runtime
from ..io import Dir, File, fill_tree, on_hand


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

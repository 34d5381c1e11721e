"""A tar of a container's directory as a tree of this user on this machine."""

from __future__ import annotations

import os
import shutil
import tarfile
from typing import IO

from perdure.errors import StoreError


def unpack(stream: IO[bytes], top: str, to: str) -> None:
    """Put a tar of the directory `top` into `to`, an empty directory without other writers.

    Docker's tar begins with the directory itself, Podman's (4) with the directory's content.

    Files and directories become this user's. Links are made last, so that nothing is written through a link. Devices,
    sockets and pipes become symbolic links to nowhere, unlike any file.

    Raises:
        StoreError: a name leads out of the tree, or something cannot be written.
    """
    links: list[tuple[str, str]] = []
    strip: int | None = None
    try:
        with tarfile.open(fileobj=stream, mode="r|") as tar:
            for member in tar:
                if strip is None:
                    strip = int(member.isdir() and member.name.strip("./") == top)
                place = _place(member.name, strip, to)
                if place == to:
                    continue
                if member.isdir():
                    os.mkdir(place, 0o700)
                elif member.isreg():
                    source = tar.extractfile(member)
                    assert source is not None
                    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
                    with source, open(os.open(place, flags, 0o600 | (member.mode & 0o100)), "wb") as target:
                        shutil.copyfileobj(source, target, 1 << 20)
                elif member.islnk():
                    os.link(_place(member.linkname, strip, to), place, follow_symlinks=False)
                else:
                    links.append((member.linkname if member.issym() else "/dev/null/no-file", place))
        for target_path, place in links:
            os.symlink(target_path, place)
    except (OSError, tarfile.TarError) as error:
        raise StoreError(f"outputs of a container cannot be copied to {to}: {error}") from error


def _place(name: str, strip: int, to: str) -> str:
    parts = [part for part in name.split("/") if part not in ("", ".")][strip:]
    if ".." in parts:
        raise StoreError(f"outputs of a container cannot be copied to {to}: {name!r} leads out of the directory")
    return os.path.join(to, *parts)

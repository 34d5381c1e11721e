"""The files of one attempt on this machine, and the leftovers that the next process finds after a crash.

The directory of an attempt is made before the container and removed after the container. So the directories under
the root list all containers that may exist, without a question to any engine.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import struct
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..core.ground.digest import blake2b
from ..core.ground.private import make_private
from ..core.ground.trees import OpenTree, names_in, remove_tree
from ..errors import StoreError

LABEL = "perdure.attempt"
"""The label of a container that holds the key of an attempt."""
RUN_LABEL = "perdure.run"
"""The label that holds the id of the run."""
_ABOUT = "about.json"
_LATE = "late"


class About(msgspec.Struct, frozen=True):
    """The attempt that a directory belongs to.

    Attributes:
        run: the run's number in its store.
        uid: the run's own id, in hexadecimal.
        name: the run's name.
        action: the number of the action within the run.
        attempt: the number of the attempt, from 1.
        engine: the engine's own id.
        url: the engine's address.
    """

    run: int
    uid: str
    name: str
    action: int
    attempt: int
    engine: str
    url: str


class Place(NamedTuple):
    """The directory of one attempt."""

    key: str
    """Names the attempt among the attempts of all stores: 24 hexadecimal digits."""
    path: str

    @property
    def inputs(self) -> str:
        """The container's input directory."""
        return os.path.join(self.path, "inputs")

    @property
    def outputs(self) -> str:
        """The container's output directory."""
        return os.path.join(self.path, "outputs")

    @property
    def copied(self) -> str:
        """A copy of the outputs, for a process that may not read the originals."""
        return os.path.join(self.path, "copied")

    @property
    def secrets(self) -> str:
        """Files that hold secrets; in memory where the system has a file system for that, and gone with the attempt."""
        shm = "/dev/shm"
        return os.path.join(shm if os.path.isdir(shm) else self.path, f"perdure-{self.key}")

    def make(self, about: About) -> None:
        """Make the directory, or empty the directory of an earlier process.

        Raises:
            StoreError: the directory cannot be made.
        """
        try:
            self.clear()
            make_private(self.path)
            # Written whole before anything else: without this file, nothing was created for the attempt.
            with open(os.path.join(self.path, _ABOUT), "wb") as stream:
                stream.write(msgspec.json.encode(about))
            os.mkdir(self.inputs)
            os.chmod(self.inputs, 0o755)
            os.mkdir(self.outputs)
            # The container may run as any user.
            os.chmod(self.outputs, 0o777)
            if os.geteuid() != 0:
                _share_with_us(self.outputs)
        except OSError as error:
            raise StoreError(f"{self.path}: the files of a container cannot be put there: {error}") from error

    def about(self) -> About | None:
        """The note of `make`; `None`: `make` did not get that far."""
        try:
            with open(os.path.join(self.path, _ABOUT), "rb") as stream:
                return msgspec.json.decode(stream.read(), type=About)
        except (OSError, ValueError, RecursionError):
            return None

    def clear(self) -> None:
        """Remove the directory and the secrets. `OSError`: some files may not be removed; all others are."""
        with contextlib.suppress(OSError):
            remove_tree(self.secrets)
        try:
            remove_tree(self.path)
        except PermissionError:
            # The files of rootless Podman's users belong to a user namespace that Podman can enter.
            podman = shutil.which("podman")
            if podman is not None:
                subprocess.run([podman, "unshare", "rm", "-rf", self.path], capture_output=True, check=False)
            remove_tree(self.path)

    def mark_late(self) -> None:
        """Note that the container is told to end at the timeout, before the outcome is on disk."""
        with contextlib.suppress(OSError), open(os.path.join(self.path, _LATE), "wb"):
            pass

    @property
    def is_late(self) -> bool:
        """Whether the container was told to end at the timeout."""
        return os.path.exists(os.path.join(self.path, _LATE))

    def is_readable(self) -> bool:
        """Whether this process may read all of the outputs."""
        if os.geteuid() == 0:
            return True
        try:
            with OpenTree(self.outputs) as tree:
                for _, fd, below in tree.walk():
                    for name in names_in(fd):
                        mode = os.stat(name, dir_fd=fd, follow_symlinks=False).st_mode
                        if stat.S_ISDIR(mode):
                            below.append(name)
                        elif stat.S_ISREG(mode) and not os.access(name, os.R_OK, dir_fd=fd):
                            return False
        except OSError:
            return False
        return True


def _share_with_us(folder: str) -> None:
    """Give this user access to all files that other users will create there, by an inherited access control list.

    The extended attribute's format is Linux's `posix_acl_xattr.h`: version 2, then tag, permissions and id of each
    entry. Where the file system has no such lists, the engine copies files that this user may not read.
    """
    user_obj, user, group_obj, mask, other, unnamed = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF
    entries = ((user_obj, unnamed), (user, os.geteuid()), (group_obj, unnamed), (mask, unnamed), (other, unnamed))
    data = struct.pack("<I", 2) + b"".join(struct.pack("<HHI", tag, 7, id) for tag, id in entries)
    with contextlib.suppress(OSError, AttributeError):
        os.setxattr(folder, "system.posix_acl_default", data)


def key_of(uid: bytes, action: int, attempt: int) -> str:
    """The key of an attempt."""
    return blake2b(b"%b %d %d" % (uid, action, attempt), digest_size=12).hexdigest()


def places(root: str) -> Iterator[Place]:
    """The attempts that have a directory under `root`."""
    try:
        names = os.listdir(root)
    except OSError:
        return
    for name in names:
        yield Place(name, os.path.join(root, name))

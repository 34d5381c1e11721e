"""Where the files of one attempt lie on this machine, and what is left there for whoever comes after a crash.

The directory of an attempt is made before its container and removed after it. So what lies under the root tells which
containers there may be: nobody has to ask an engine, or even to have one, to know that nothing is left behind.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from typing import NamedTuple

import msgspec

from ..core.ground.digest import blake2b
from ..core.ground.trees import remove_tree
from ..errors import StoreError

LABEL = "perdure.attempt"
"""The label of a container that holds the key of an attempt."""
RUN_LABEL = "perdure.run"
"""The label that holds the id of the run."""
_ABOUT = "about.json"
_LATE = "late"


class About(msgspec.Struct, frozen=True):
    """Whose attempt it is.

    Attributes:
        run: the run's number in its store.
        uid: the run's own id, in hexadecimal.
        name: the run's name.
        action: the number of the action within the run.
        attempt: the number of the attempt, from 1.
        engine: the engine's own id.
        url: how it was reached.
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
    """Names the attempt among those of all stores: 24 hexadecimal digits."""
    path: str

    @property
    def inputs(self) -> str:
        """What the container finds under its input directory."""
        return os.path.join(self.path, "inputs")

    @property
    def outputs(self) -> str:
        """What it writes under its output directory."""
        return os.path.join(self.path, "outputs")

    @property
    def copied(self) -> str:
        """The same, copied for a process that may not read it there."""
        return os.path.join(self.path, "copied")

    @property
    def secrets(self) -> str:
        """Files that hold secrets; in memory where the system has a file system there, and gone with the attempt."""
        shm = "/dev/shm"
        return os.path.join(shm if os.path.isdir(shm) else self.path, f"perdure-{self.key}")

    def make(self, about: About) -> None:
        """Make the directory, or empty it of what an earlier process began.

        Raises:
            StoreError: it cannot be made.
        """
        try:
            self.clear()
            os.makedirs(self.path, mode=0o700, exist_ok=True)
            # Written whole before anything else is there: what has no such file, nothing was created for.
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
        """What `make` noted; `None` where it did not get that far."""
        try:
            with open(os.path.join(self.path, _ABOUT), "rb") as stream:
                return msgspec.json.decode(stream.read(), type=About)
        except (OSError, msgspec.DecodeError, msgspec.ValidationError):
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
        """Note that the container is told to end at its timeout, before the outcome is on disk."""
        with contextlib.suppress(OSError), open(os.path.join(self.path, _LATE), "wb"):
            pass

    @property
    def is_late(self) -> bool:
        """Whether the container was told to end at its timeout."""
        return os.path.exists(os.path.join(self.path, _LATE))

    def is_readable(self) -> bool:
        """Whether this process may read all of the outputs."""
        if os.geteuid() == 0:
            return True
        waiting = [self.outputs]
        try:
            while waiting:
                with os.scandir(waiting.pop()) as found:
                    for entry in found:
                        if entry.is_dir(follow_symlinks=False):
                            waiting.append(entry.path)
                        elif entry.is_file(follow_symlinks=False) and not os.access(entry.path, os.R_OK):
                            return False
        except OSError:
            return False
        return True


def _share_with_us(folder: str) -> None:
    """Let what other users create in there be ours too: an access control list that all of it inherits.

    The extended attribute's format is Linux's `posix_acl_xattr.h`: version 2, then tag, permissions and id of each
    entry. Where the file system knows none, what we may not read is copied by the engine instead.
    """
    user_obj, user, group_obj, mask, other, nobody = 0x01, 0x02, 0x04, 0x10, 0x20, 0xFFFFFFFF
    entries = ((user_obj, nobody), (user, os.geteuid()), (group_obj, nobody), (mask, nobody), (other, nobody))
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

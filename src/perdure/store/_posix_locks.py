"""The holder of a POSIX record lock, asked for without taking the lock, and whether the holder is stopped."""

from __future__ import annotations

import fcntl
import struct
import subprocess
import sys
from typing import Final

# struct flock, as Python's fcntl module passes it: Linux with 64-bit offsets, and the BSD order of macOS.
if sys.platform == "darwin":
    _FLOCK: Final = struct.Struct("@qqihh")
else:
    _FLOCK: Final = struct.Struct("@hhqqi0q")

UNSEEN: Final = 0
"""The holder's number where it has none here: it lives in another pid namespace."""


def holder(fd: int, start: int = 0, length: int = 0) -> int | None:
    """The pid of another process that holds a lock in that range, `UNSEEN` if it has none here, `None` if it is free.

    Locks of this very process never show. The descriptor stays open: closing any descriptor of a file drops every
    record lock that this process holds on it.
    """
    if sys.platform == "darwin":
        query = _FLOCK.pack(start, length, 0, fcntl.F_WRLCK, 0)
        _, _, pid, kind, _ = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    else:
        query = _FLOCK.pack(fcntl.F_WRLCK, 0, start, length, 0)
        kind, _, _, _, pid = _FLOCK.unpack(fcntl.fcntl(fd, fcntl.F_GETLK, query))
    if kind == fcntl.F_UNLCK:
        return None
    return max(int(pid), UNSEEN)


def is_stopped(pid: int) -> bool:
    """Whether a signal (SIGSTOP, SIGTSTP) has stopped that process. `False` for a process that cannot be seen from
    here, and for a process under a debugger, because a person is at work there."""
    if pid == UNSEEN:
        return False
    try:
        if sys.platform == "darwin":
            command = ["/bin/ps", "-o", "state=", "-p", str(pid)]
            return subprocess.run(command, capture_output=True, text=True, check=False).stdout.startswith("T")
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "T"
    except (OSError, IndexError):
        return False

"""Identity of the engine behind a socket, as lasting as the engine's containers, and the start of the daemon."""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import socket
import struct
import sys
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from perdure.core.ground import clock

SYSTEMD_PIDFILES: Final = {"/run/docker.sock": "/run/docker.pid", "/var/run/docker.sock": "/run/docker.pid"}


def is_local(url: str, name: str, kernel: str) -> bool:
    """Whether an engine with this machine name and kernel runs here. A Unix socket alone may lead into a virtual
    machine (Docker Desktop) or out of a container, whose host may share the name but not the processes."""
    if not url.startswith("unix://") or name != platform.node() or kernel != platform.release():
        return False
    return not sys.platform.startswith("linux") or _listener(url.removeprefix("unix://")) != 0


def _listener(path: str) -> int | None:
    """The process that listens on a Unix socket; 0: in another process namespace; `None`: no process listens."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(5)
            connection.connect(path)
            credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    except (OSError, AttributeError):
        return None
    return int(struct.unpack("3i", credentials)[0])


def docker_id(info: dict[str, Any], none_network: str) -> str:
    """From the daemon's own id, the daemon's directory, and the id of the network `none`.

    The daemon's id alone does not do: Docker up to 22 keeps the id in /etc/docker, so that the id survives the loss
    of all containers, and several daemons on one machine share the id. The network's id is made at random when the
    directory is first used, and kept there.
    """
    return _hash("docker", info.get("ID"), info.get("DockerRootDir"), none_network)


def podman_id(hostname: str, graph: str, *, local: bool) -> str:
    """Podman has no id (the compatible API makes up a new id in every answer), but the storage has: the state's
    database is one file for as long as the containers exist, named by inode and time of creation. Without a view of
    that file, the machine's name and the storage's path have to do."""
    for name in ("libpod/bolt_state.db", "db.sql", "libpod"):
        marker = _birth(f"{graph}/{name}") if local else None
        if marker is not None:
            return _hash("podman", graph, *marker)
    return _hash("podman", graph, hostname)


def stamp(path: str) -> tuple[int, int] | None:
    """Changes where a file is replaced."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return found.st_ino, found.st_ctime_ns


def _hash(kind: str, *parts: object) -> str:
    return f"{kind}-{hashlib.sha256(repr(parts).encode()).hexdigest()[:24]}"


def _birth(path: str) -> tuple[int, int, int] | None:
    """Inode and creation time (seconds, nanoseconds); `None`: not to be seen. Python's `stat` has no creation time on
    Linux, hence the C library's statx. (An inode number alone is given again to the next file.)"""
    if not sys.platform.startswith("linux"):
        return None
    buffer = ctypes.create_string_buffer(256)
    at_fdcwd, inode_and_birth = -100, 0x100 | 0x800
    try:
        if ctypes.CDLL(None).statx(at_fdcwd, os.fsencode(path), 0, inode_and_birth, buffer):
            return None
    except AttributeError:
        return None
    # struct statx: stx_mask at 0, stx_ino at 32, stx_btime (seconds, nanoseconds) at 80.
    (mask,) = struct.unpack_from("=I", buffer, 0)
    (inode,) = struct.unpack_from("=Q", buffer, 32)
    seconds, nanoseconds = struct.unpack_from("=qI", buffer, 80)
    return (inode, seconds, nanoseconds) if mask & 0x800 else (inode, 0, 0)


class DaemonStart(NamedTuple):
    """When the process behind a socket was started."""

    at: int
    """Microseconds of the wall clock."""
    instance: str
    """Names the process among all processes of this boot."""


def daemon_start(url: str) -> DaemonStart | None:
    """Start of the process that listens on a Unix socket."""
    path = url.removeprefix("unix://")
    try:
        pid = _listener(path)
        if pid == 1:
            # systemd opened the socket and handed the socket on.
            pid = int(Path(SYSTEMD_PIDFILES[path]).read_text())
        return _process_start(pid) if pid else None
    except (OSError, KeyError, ValueError, IndexError):
        return None


def _process_start(pid: int) -> DaemonStart:
    with open(f"/proc/{pid}/stat", "rb") as file:
        ticks = int(file.read().rsplit(b")", 1)[1].split()[19])
    return DaemonStart(_wall(pid, ticks), f"{pid}.{ticks}")


@lru_cache(maxsize=8)
def _wall(pid: int, ticks: int) -> int:
    """The wall clock's time at a number of ticks after boot; the same answer each time for a process."""
    since_boot = ticks * 1_000_000 // os.sysconf("SC_CLK_TCK")
    # Not /proc/stat's btime, which has whole seconds.
    return clock.wall() - clock.SystemClock().boot() + since_boot

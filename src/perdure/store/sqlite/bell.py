"""Tells the processes of one machine that share a database file of a commit, as SQLite itself does not.

A process that wants to hear binds a Unix datagram socket in the directory `<database>-bells`. A process that has
committed something of interest to others sends one byte to each socket there. A bell is a hint and no more: a byte may
be lost (a full socket, a directory that cannot be used), so a listener polls now and then all the same. The socket of a
dead process refuses the byte, and the sender removes the socket.

Two kinds of bells keep workers from hearing of each end of a run: the prefix of a socket's name says what its process
waits for.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

QUEUED: Final = "queued-"
"""Prefix for processes that wait for runs to drive."""
ENDED: Final = "ended-"
"""Prefix for processes that wait for runs to end."""
SHORT: Final = 100
"""Bytes of a path that every system takes for the address of a socket."""
_PAUSE: Final = 0.001
"""Seconds between two rings of a listener at least: what comes meanwhile is one ring."""


class Bells:
    """The bells beside one database file, for one process. From any thread."""

    def __init__(self, database: str) -> None:
        self._place = f"{database}-bells"
        self._lock = threading.Lock()
        self._listening: dict[str, list[Callable[[], None]]] = {}
        self._sockets: list[tuple[socket.socket, str]] = []
        self._sender: socket.socket | None = None
        self._directory: int | None = None
        """A descriptor of the directory, where its path is too long for the address of a socket."""
        self._seen: tuple[int, dict[str, list[str]]] = (-1, {})
        self._closed = False

    def listen(self, kind: str, bell: Callable[[], None]) -> bool:
        """Call `bell`, from a thread of its own, whenever that kind of bell rings. `False`: no bell can ring here."""
        with self._lock:
            if kind in self._listening:
                self._listening[kind].append(bell)
                return True
            name = os.path.join(self._place, f"{kind}{os.getpid()}-{secrets.token_hex(4)}")
            try:
                os.makedirs(self._place, mode=0o700, exist_ok=True)
                hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                hears.bind(self._address(name))
            except (OSError, AttributeError):
                return False
            self._listening[kind] = [bell]
            self._sockets.append((hears, name))
        threading.Thread(target=self._hear, args=(kind, hears), name="perdure-bell", daemon=True).start()
        return True

    def _address(self, name: str) -> str:
        """The address of a socket in the directory. Linux allows 107 bytes, which the paths of many databases exceed:
        there, the way leads through the descriptor of the directory."""
        if len(os.fsencode(name)) <= SHORT or sys.platform != "linux":
            return name
        if self._directory is None:
            self._directory = os.open(self._place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        return f"/proc/self/fd/{self._directory}/{os.path.basename(name)}"

    def _hear(self, kind: str, hears: socket.socket) -> None:
        while not self._closed:
            try:
                hears.recv(16)
                for bell in self._listening[kind]:
                    bell()
                time.sleep(_PAUSE)
                if self._drained(hears):
                    for bell in self._listening[kind]:
                        bell()
            except OSError:
                return

    @staticmethod
    def _drained(hears: socket.socket) -> bool:
        """Take all bytes that are there; whether there were any."""
        found = False
        with contextlib.suppress(BlockingIOError):
            while True:
                hears.recv(16, socket.MSG_DONTWAIT)
                found = True
        return found

    def ring(self, kind: str) -> None:
        """Something of that kind has been committed. Never waits, and never fails."""
        try:
            changed = os.stat(self._place).st_mtime_ns
        except OSError:
            return
        seen, names = self._seen
        if changed != seen:
            names = {QUEUED: [], ENDED: []}
            with contextlib.suppress(OSError):
                for name in os.listdir(self._place):
                    names.setdefault(name[: name.find("-") + 1], []).append(os.path.join(self._place, name))
            self._seen = (changed, names)
        for name in names[kind]:
            self._send(name)

    def _send(self, name: str) -> None:
        try:
            sender = self._sender
            if sender is None:
                sender = self._sender = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                sender.setblocking(False)
            sender.sendto(b"!", self._address(name))
        except BlockingIOError:
            pass  # Full: the listener has yet to hear of the bytes before.
        except ConnectionRefusedError:
            with contextlib.suppress(OSError):
                os.unlink(name)
        except OSError:
            pass

    def close(self) -> None:
        """Stop listening, and remove the sockets. Idempotent."""
        with self._lock:
            self._closed = True
            sockets, self._sockets = self._sockets, []
            sender, self._sender = self._sender, None
        for hears, name in sockets:
            with contextlib.suppress(OSError):
                # The thread that listens wakes and ends.
                hears.sendto(b"!", self._address(name))
            with contextlib.suppress(OSError):
                os.unlink(name)
            hears.close()
        if sender is not None:
            sender.close()
        if self._directory is not None:
            os.close(self._directory)
            self._directory = None

"""Tells the processes of one machine that share a database file of a commit, as SQLite itself does not.

A process that listens binds a Unix datagram socket in a directory of the user and the store among the temporary files.
Beside the database, sockets would be in the way of a copy of the directory, and the address of a socket has about 100
bytes at most. A process that has committed something of interest to others sends one byte to each socket. A bell is a
hint and no more: a byte may be lost (a full socket, another user, another directory for temporary files), so a listener
polls now and then all the same. A socket whose process has died refuses the byte, and the sender removes the socket.

There are three kinds of bells, so that the end of a run does not wake every worker: the prefix of a socket's name says
which kind its process listens to.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable
from typing import Final

from .._private_place import place_of, private_place

QUEUED: Final = "q-"
"""Prefix for processes that wait for runs to drive."""
ENDED: Final = "e-"
"""Prefix for processes that wait for runs to end."""
MESSAGES: Final = "m-"
"""Prefix for processes that drive runs which wait for messages, or that read streams or published values."""
_PAUSE: Final = 0.001
"""Seconds between two rings of a listener at least: what comes meanwhile is one ring."""


class Bells:
    """The bells of one store, for one process. From any thread."""

    def __init__(self, store: str) -> None:
        """`store` is the id of the store."""
        self._store = store
        self._place = place_of(store)
        self._lock = threading.Lock()
        self._listening: dict[str, list[Callable[[], None]]] = {}
        self._sockets: list[tuple[socket.socket, str]] = []
        self._sender: socket.socket | None = None
        self._seen: tuple[int, dict[str, list[str]]] = (-1, {})
        self._closed = False

    def listen(self, kind: str, bell: Callable[[], None]) -> bool:
        """Call `bell`, from a thread of its own, whenever that kind of bell rings. `False`: no bell can ring here."""
        with self._lock:
            if kind in self._listening:
                self._listening[kind].append(bell)
                return True
            name = os.path.join(self._place, f"{kind}{os.getpid()}-{secrets.token_hex(3)}")
            try:
                if private_place(self._store) is None:
                    return False
                hears = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
                hears.bind(name)
            except (OSError, AttributeError):
                return False
            self._listening[kind] = [bell]
            self._sockets.append((hears, name))
        threading.Thread(target=self._hear, args=(kind, hears), name="perdure-bell", daemon=True).start()
        return True

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
            names = {QUEUED: [], ENDED: [], MESSAGES: []}
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
            sender.sendto(b"!", name)
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
                hears.sendto(b"!", name)
            with contextlib.suppress(OSError):
                os.unlink(name)
            hears.close()
        if sender is not None:
            sender.close()
        for directory in (self._place, os.path.dirname(self._place)):
            with contextlib.suppress(OSError):
                # Empty, if no other process listens.
                os.rmdir(directory)

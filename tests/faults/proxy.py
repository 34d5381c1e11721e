"""A proxy in front of a Postgres server, on a Unix socket, that counts protocol messages and cuts a connection at one.

Messages of both directions are counted together, over all connections, in the order in which they pass. At the chosen
message the connection ends: before the message has passed, or after. Where a client's message was the last, the server
answers it first, and the answer is lost: the server may have committed, and the client does not know.
"""

from __future__ import annotations

import os
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import suppress

_READY = b"Z"
_ANSWER_SECONDS = 2.0


class _Line:
    """One connection, and its lost answer: the server's messages are read and dropped until the server is ready
    again."""

    def __init__(self) -> None:
        self.answered = True
        """Whether the last message of the connection was the server's."""
        self.begun = False
        self.done = threading.Event()


class Proxy:
    """See the module text. `close` ends it."""

    def __init__(self, server: str) -> None:
        """Listen; `server` is the directory of the server's socket."""
        self.directory = tempfile.mkdtemp(prefix="perdure-cut-", dir="/tmp")  # the address has 107 bytes at most
        os.chmod(self.directory, 0o700)
        self._server = os.path.join(server, ".s.PGSQL.5432")
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(self.directory, ".s.PGSQL.5432"))
        self._listener.listen(50)
        self._lock = threading.Lock()
        self.count = 0
        """Messages that have passed or were cut."""
        self.trips = 0
        """How often a client has sent something after an answer of its server, or to begin with."""
        self.cut_at = -1
        """The message at which a connection is cut; -1: none is."""
        self.after = False
        """Whether the chosen message passes before the cut."""
        self.was_cut = False
        threading.Thread(target=self._accept, daemon=True).start()

    def arm(self, number: int, after: bool) -> None:
        """Cut at that message, counted from now."""
        with self._lock:
            self.count, self.cut_at, self.after, self.was_cut = 0, number, after, False

    def disarm(self) -> None:
        """Cut nothing from now on."""
        with self._lock:
            self.cut_at = -1

    def close(self) -> None:
        """Refuse new connections."""
        self._listener.close()
        shutil.rmtree(self.directory, ignore_errors=True)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.socket(socket.AF_UNIX)
            try:
                server.connect(self._server)
            except OSError:
                client.close()
                continue
            line = _Line()
            for source, target, is_client in ((client, server, True), (server, client, False)):
                threading.Thread(target=self._pump, args=(source, target, is_client, line), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_client: bool, line: _Line) -> None:
        try:
            for message in _messages(source, is_client):
                if line.begun and not is_client:
                    if message[:1] == _READY:
                        break
                    continue
                with self._lock:
                    here = self.count == self.cut_at
                    self.count += 1
                    self.trips += is_client and line.answered
                    line.answered = not is_client
                    self.was_cut |= here
                if here:
                    line.begun = self.after and is_client
                    if self.after:
                        target.sendall(message)
                    if line.begun:
                        line.done.wait(_ANSWER_SECONDS)
                    break
                target.sendall(message)
        except OSError:
            pass
        line.done.set()
        for end in (source, target):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def _messages(source: socket.socket, is_client: bool) -> Iterator[bytes]:
    """The messages that come in. The first one of a client has no type byte."""
    begun = not is_client
    data = b""
    while True:
        head = 1 if begun else 0
        while len(data) >= head + 4:
            length = head + int.from_bytes(data[head : head + 4], "big")
            if len(data) < length:
                break
            message, data = data[:length], data[length:]
            # A request for encryption is answered with one byte; these clients send none over a Unix socket.
            begun, head = True, 1
            yield message
        more = source.recv(1 << 16)
        if not more:
            return
        data += more

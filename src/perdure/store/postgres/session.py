"""The standing session of a worker process: hears of the commits of other processes, and holds the locks that report
its death.

A session-level advisory lock is released with its session: at once when the process dies (the socket is closed), after
the server's keepalives when the host vanishes. A living process can lose its session; then the thread here takes the
locks again within moments, so a lock counts as free only after `GRACE` seconds. The claim's token fences a worker that
was taken for dead by mistake (P3).

Behind a pooler that gives each transaction another connection neither works: notifications do not arrive, and a lock
would stay with a connection of another client. So the session first has a notification sent to itself, over another
connection, since the pooler might give sender and listener the same connection. If the notification does not arrive, no
lock is taken (the row of the worker says so, and only the lease counts), and changes are polled for.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import threading
from collections.abc import Callable
from hashlib import blake2b
from typing import Final

import psycopg

from perdure.core.ground.clock import seconds
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from .errors import is_away, translate
from .link import BACKEND, END, Address, Connection, PostgresLink, Row

log = logging.getLogger("perdure")

GRACE: Final = 1.0
"""Seconds for which a lock must be free before its worker counts as dead."""
_ECHO_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.25


class Session:
    """See the module text. Safe from any thread."""

    def __init__(self, address: Address, store_id: str, say: Callable[[str], None]) -> None:
        """Nothing is opened yet. `say` runs a statement on another connection."""
        self._address = address
        self._say = say
        self._channel: Final = f"perdure_{store_id[:16]}"
        self._store_id = store_id
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hears = False
        self._echo: str | None = None
        self._held: set[str] = set()
        self._locked: set[str] = set()
        """The held workers whose locks this very session has."""
        self._backend: Row | None = None
        """The last session with these locks."""
        self._bells: list[Callable[[], None]] = []
        self._wake, self._waker = socket.socketpair()
        self.count = 0
        """The number of notifications."""
        self.tell: Final = f"SET LOCAL synchronous_commit = off; NOTIFY {self._channel}"
        """Notifies of a change; never inside a writing transaction, as commits would then queue."""

    @property
    def hears(self) -> bool:
        """Whether changes of others are heard of here."""
        return self._hears

    def start(self) -> None:
        """Begin to listen; returns when success or failure is known."""
        with self._mutex:
            if self._thread is not None or self._closed or self._pid != os.getpid():
                return
            try:
                self._connect()
            except (psycopg.Error, StoreError) as error:
                log.debug("no notifications for now: %s", error)
            self._thread = threading.Thread(target=self._listen, name="perdure-postgres", daemon=True)
            self._thread.start()

    def ring(self, bell: Callable[[], None]) -> None:
        """Call `bell` whenever a change was heard of, from any thread."""
        self._bells.append(bell)

    def changed(self) -> None:
        """Something has changed."""
        self.count += 1
        for bell in self._bells:
            bell()

    # -- locks -----------------------------------------------------------------------------------------------------

    def key(self, worker: str) -> tuple[int, int]:
        """Both halves of the number of a worker's advisory lock, as `pg_locks` shows them."""
        digest = blake2b(f"{self._store_id}:{worker}".encode("utf-8", "surrogatepass"), digest_size=8).digest()
        return int.from_bytes(digest[:4], "big"), int.from_bytes(digest[4:], "big")

    def holds(self, worker: str) -> bool:
        """Whether this session holds the worker's lock, and locks work here."""
        return self._hears and worker in self._locked

    def held(self, worker: str) -> bool:
        """Whether this process holds the worker."""
        return worker in self._held

    def hold(self, worker: str) -> None:
        if worker in self._held:
            raise UsageError(f"worker {worker} is already held by this process")
        self.start()
        with self._mutex:
            if self._closed:
                raise StoreUnavailableError(f"the store {self._address.url} is closed")
            connection = self._connection
            if connection is not None and self._hears:
                try:
                    if not self._lock(connection, worker):
                        raise UsageError(f"worker {worker} is already held by another process")
                except psycopg.Error as error:
                    # Unreachable for a moment: the thread takes the lock with the next session.
                    if not is_away(error):
                        raise translate(error, self._address.url) from error
            self._held.add(worker)

    def drop(self, worker: str) -> None:
        with self._mutex:
            if worker not in self._held:
                return
            self._held.discard(worker)
            self._locked.discard(worker)
            if self._connection is not None and self._hears:
                try:
                    self._connection.execute("SELECT pg_advisory_unlock(%s)", (_signed(self.key(worker)),))
                except psycopg.Error:
                    pass  # released with its session

    def _lock(self, connection: Connection, worker: str) -> bool:
        row = connection.execute("SELECT pg_try_advisory_lock(%s)", (_signed(self.key(worker)),)).fetchone()
        if row is None or not row[0]:
            return False
        self._locked.add(worker)
        return True

    # -- the thread ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        connection = self._address.connect()
        try:
            connection.prepare_threshold = None
            nonce = secrets.token_hex(8)
            connection.add_notify_handler(self._notified)
            connection.execute(f"LISTEN {self._channel}")
            self._echo = nonce
            self._say(f"{self.tell}, '{nonce}'")
            end = seconds() + _ECHO_SECONDS
            while self._echo is not None and (left := end - seconds()) > 0:
                if select.select([connection.fileno()], [], [], left)[0]:
                    self._read(connection)
            heard = self._echo is None
            self._locked.clear()
            if heard:
                if self._backend is not None:
                    # The server may not know of the loss yet, and still keep the locks.
                    connection.execute(END, self._backend)
                self._backend = connection.execute(BACKEND).fetchone()
                self._lock_all(connection)
            else:
                log.info("notifications do not arrive from %s (a pooler?): changes are polled for", self._address.url)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._hears = heard

    def _lock_all(self, connection: Connection) -> None:
        """Take the missing locks, as far as they are free."""
        for worker in self._held - self._locked:
            self._lock(connection, worker)

    def _notified(self, notification: psycopg.Notify) -> None:
        if notification.payload and notification.payload == self._echo:
            self._echo = None
        self.changed()

    def _read(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (notification := connection.pgconn.notifies()) is not None:
            self._notified(
                psycopg.Notify(notification.relname.decode(), notification.extra.decode(), notification.be_pid)
            )

    def _listen(self) -> None:
        while not self._closed:
            connection = self._connection
            if connection is None:
                select.select([self._wake], [], [], _RETRY_SECONDS)
                with self._mutex:
                    try:
                        if not self._closed:
                            self._connect()
                            self.changed()  # notifications were missed meanwhile
                    except (psycopg.Error, StoreError, OSError) as error:
                        log.debug("no notifications for now: %s", error)
                continue
            pause = _RETRY_SECONDS if self._hears and self._held - self._locked else None
            try:
                if not select.select([connection.fileno(), self._wake.fileno()], [], [], pause)[0]:
                    with self._mutex:
                        self._lock_all(connection)
                elif not self._is_closed():
                    with self._mutex:
                        self._read(connection)
            except (psycopg.Error, OSError, ValueError):
                with self._mutex:
                    self._hears = False
                    self._locked.clear()
                    self._connection = None
                    connection.close()
                self.changed()

    def _is_closed(self) -> bool:
        return self._closed

    def close(self) -> None:
        """End the session. Idempotent."""
        if self._closed or self._pid != os.getpid():
            self._closed = True
            return
        self._closed = True
        self._waker.send(b"x")
        thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(5)
        with self._mutex:
            self._hears = False
            if self._connection is not None:
                self._connection.close()
                self._connection = None
            self._wake.close()
            self._waker.close()


class PostgresLiveness:
    """A `Liveness` through advisory locks of the sessions of workers."""

    def __init__(self, session: Session, link: PostgresLink, is_unlocked: str, *, grace: float = GRACE) -> None:
        self._session = session
        self._link = link
        self._is_unlocked = is_unlocked
        self._grace = grace
        self._free_since: dict[str, float] = {}

    def hold(self, worker: str) -> None:
        self._session.hold(worker)

    def drop(self, worker: str) -> None:
        self._session.drop(worker)

    def is_dead(self, worker: str) -> bool:
        return (free := self._free_for(worker)) is not None and free >= self._grace

    def doubts(self, worker: str) -> bool:
        return (free := self._free_for(worker)) is not None and free < self._grace

    def _free_for(self, worker: str) -> float | None:
        """How long the worker's lock has been free; `None`: held, or not known."""
        if self._session.held(worker):
            return None
        try:
            [[free]] = self._link.rows(self._is_unlocked, (*self._session.key(worker), worker), patience=0)
        except StoreError:
            free = False
        if not free:
            self._free_since.pop(worker, None)
            return None
        now = seconds()
        if len(self._free_since) > 10_000:
            self._free_since.clear()
        return now - self._free_since.setdefault(worker, now)


def _signed(key: tuple[int, int]) -> int:
    number = key[0] << 32 | key[1]
    return number - (1 << 64) if number >= 1 << 63 else number

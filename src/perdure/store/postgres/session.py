"""The standing session of a worker process: hears of the commits of other processes, and holds the locks that report
its death.

A session-level advisory lock is released with its session: at once when the process dies (the socket is closed), after
the server's keepalives when the host vanishes. A living process can lose its session, and all sessions end with the
server; then the thread here takes the locks again within moments, so a lock counts as free only after `GRACE` seconds.
The claim's token fences a worker that was taken for dead by mistake (P3).

Behind a pooler that gives each transaction another connection neither works: notifications do not arrive, and a lock
would stay with a connection of another client. So the session first has a notification sent to itself, over another
connection, since the pooler might give sender and listener the same connection. Until the notification arrives, no
lock is taken (the row of the worker says so, and only the lease counts), and changes are polled for. After one such
notification, later sessions of this process take the locks at once: a busy server, just started again, answers late,
and a worker without its lock looks dead. As soon as a lock is taken, the row of the worker says so, not only after the
next renewal: a worker that dies between the two is known to be dead.

A worker that computes in C code without a pause misses its heartbeats. So that other workers of the machine see such a
worker at work, the session also holds a lock file of the operating system. A worker that is cut off from the server
runs, too, but its claims have to end with the lease. So the thread here removes the lock file once the lease is over,
after `OVERDUE_LOOKS` looks: a process that has just been computing gets that time for the renewal.
"""

from __future__ import annotations

import logging
import os
import secrets
import select
import socket
import threading
from collections.abc import Callable, Sequence
from hashlib import blake2b
from typing import Any, Final

import psycopg

from perdure.core.ground.clock import seconds
from perdure.core.ground.ports import Hold
from perdure.errors import StoreError, StoreUnavailableError, UsageError

from .._private_place import private_place
from ..locks import FileLiveness
from .errors import is_away, translate
from .link import BACKEND, END, Address, Connection, PostgresLink, Row

log = logging.getLogger("perdure")

GRACE: Final = 1.0
"""Seconds for which a lock must be free before its worker counts as dead."""
_ECHO_SECONDS: Final = 1.0
_RETRY_SECONDS: Final = 0.25
_RECONNECT_SECONDS: Final = 0.1
"""Between two attempts at a new session: well below `GRACE`."""
_FIRST_RENEWAL: Final = 60.0
_LOOK_SECONDS: Final = 1.0
OVERDUE_LOOKS: Final = 4
"""Looks, `_RETRY_SECONDS` apart, at a lease that is over before the lock file is removed."""


def channel_of(store_id: str) -> str:
    """The channel on which the processes of a store notify each other of changes."""
    return f"perdure_{store_id[:16]}"


def _notify(channel: str, payload: str = "") -> str:
    """A statement that notifies, and whose commit waits for no disk."""
    return f"SELECT set_config('synchronous_commit', 'off', true), pg_notify('{channel}', '{payload}')"


class Session:
    """See the module text. Safe from any thread."""

    def __init__(self, address: Address, store_id: str, say: Callable[[str], None], mark: str) -> None:
        """Nothing is opened yet.

        Args:
            say: runs a statement on another connection.
            mark: the statement that makes the row of a worker say that the worker holds its lock.
        """
        self._address = address
        self._say = say
        self._mark: Final = mark
        self._channel: Final = channel_of(store_id)
        self._store_id = store_id
        self._pid = os.getpid()
        self._mutex = threading.RLock()
        self._connection: Connection | None = None
        self._thread: threading.Thread | None = None
        self._closed = False
        self._hears = False
        self._proven = False
        """A notification has arrived in a session of this process: there is no pooler that gives sessions away."""
        self._echo: str | None = None
        self._held: set[str] = set()
        self._locked: set[str] = set()
        """The held workers whose locks this very session has."""
        self._backend: Row | None = None
        """The last session with these locks."""
        self._files = _MachineLocks(store_id)
        self._bells: list[Callable[[], None]] = []
        self._wake, self._waker = socket.socketpair()
        self.count = 0
        """The number of notifications."""
        self.tell: Final = _notify(self._channel)
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

    def takes(self, worker: str) -> bool:
        """Whether the worker's lock is held by a session of this process, or will be as soon as there is a session."""
        return self._proven and worker in self._held

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
        self._files.hold(worker)
        # The thread may have gone to sleep while there was no lease to look at.
        self._waker.send(b"x")

    def renewed(self, worker: str, until: float) -> None:
        """The worker's lease has been renewed, and now ends at `until`."""
        if worker in self._held:
            self._files.renewed(worker, until)

    def on_this_machine(self, worker: str) -> Hold:
        """The state of the worker's lock file."""
        return self._files.hold_of(worker)

    def drop(self, worker: str) -> None:
        with self._mutex:
            if worker not in self._held:
                return
            self._held.discard(worker)
            self._locked.discard(worker)
            self._files.drop(worker)
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
        connection.execute(self._mark.encode(), (worker,))
        return True

    # -- the thread ------------------------------------------------------------------------------------------------

    def _connect(self) -> None:
        connection = self._address.connect()
        try:
            connection.prepare_threshold = None
            self._locked.clear()
            connection.add_notify_handler(self._notified)
            connection.execute(f"LISTEN {self._channel}")
            if not self._proven:
                self._prove(connection)
            if self._proven:
                self._lock_first(connection)
            else:
                log.info("notifications do not arrive from %s (a pooler?): changes are polled for", self._address.url)
        except BaseException:
            connection.close()
            raise
        self._connection = connection
        self._hears = self._proven

    def _prove(self, connection: Connection) -> None:
        """Find out whether notifications arrive; a late one counts as well (`_read`)."""
        self._echo = secrets.token_hex(8)
        self._say(_notify(self._channel, self._echo))
        end = seconds() + _ECHO_SECONDS
        while not self._proven and (left := end - seconds()) > 0:
            if select.select([connection.fileno()], [], [], left)[0]:
                self._read(connection)

    def _lock_first(self, connection: Connection) -> None:
        """Take the locks in a new session."""
        if self._backend is not None:
            # The server may not know of the loss yet, and still keep the locks.
            connection.execute(END, self._backend)
        self._backend = connection.execute(BACKEND).fetchone()
        self._lock_all(connection)

    def _lock_all(self, connection: Connection) -> None:
        """Take the missing locks, as far as they are free."""
        for worker in self._held - self._locked:
            self._lock(connection, worker)

    def _notified(self, notification: psycopg.Notify) -> None:
        if notification.payload and notification.payload == self._echo:
            self._proven = True
        self.changed()

    def _read(self, connection: Connection) -> None:
        connection.pgconn.consume_input()
        while (notification := connection.pgconn.notifies()) is not None:
            self._notified(
                psycopg.Notify(notification.relname.decode(), notification.extra.decode(), notification.be_pid)
            )

    def _listen(self) -> None:
        while not self._closed:
            self._files.drop_overdue()
            connection = self._connection
            if connection is None:
                self._ready([self._wake], _RECONNECT_SECONDS)
                with self._mutex:
                    try:
                        if not self._closed:
                            self._connect()
                            self.changed()  # notifications were missed meanwhile
                    except (psycopg.Error, StoreError, OSError) as error:
                        log.debug("no notifications for now: %s", error)
                continue
            pause = _RETRY_SECONDS if self._hears and self._held - self._locked else self._files.pause()
            try:
                if not self._ready([connection, self._wake], pause):
                    with self._mutex:
                        if self._hears:
                            self._lock_all(connection)
                elif not self._is_closed():
                    with self._mutex:
                        self._read(connection)
                        if self._proven and not self._hears:
                            self._lock_first(connection)
                            self._hears = True
            except (psycopg.Error, OSError, ValueError):
                with self._mutex:
                    self._hears = False
                    self._locked.clear()
                    self._connection = None
                    connection.close()
                self.changed()

    def _ready(self, sources: Sequence[Any], pause: float | None) -> bool:
        """Whether one of the sources has something to read before the pause is over."""
        ready = select.select(sources, [], [], pause)[0]
        if self._wake in ready and not self._closed:
            self._wake.recv(4096)
        return bool(ready)

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
            for worker in self._held:
                self._files.drop(worker)


class _MachineLocks:
    """The lock files of this process's workers, for the other workers of this user on this machine. From any thread.

    Without a directory of the user's own among the temporary files there are none, and the lease decides.
    """

    def __init__(self, store_id: str) -> None:
        self._store_id = store_id
        self._lock = threading.Lock()
        self._opened = False
        self._locks: FileLiveness | None = None
        self._until: dict[str, float] = {}
        """The end of each worker's lease."""
        self._overdue: dict[str, int] = {}
        """Looks at a worker since the end of the lease."""
        self._look_at = 0.0

    def _files(self) -> FileLiveness | None:
        if not self._opened:
            self._opened = True
            place = private_place(self._store_id, "workers")
            self._locks = None if place is None else FileLiveness(place)
        return self._locks

    def hold(self, worker: str) -> None:
        """Lock the worker's file; the first renewal of the lease follows."""
        self.renewed(worker, seconds() + _FIRST_RENEWAL)

    def renewed(self, worker: str, until: float) -> None:
        """Keep the file locked, or lock it again, until the lease ends."""
        with self._lock:
            files = self._files()
            self._overdue.pop(worker, None)
            if files is not None and worker not in self._until:
                try:
                    files.hold(worker)
                except (StoreError, UsageError) as error:
                    log.debug("no lock file for worker %s: %s", worker, error)
                    return
            if files is not None:
                self._until[worker] = until

    def drop(self, worker: str) -> None:
        with self._lock:
            self._drop(worker)

    def _drop(self, worker: str) -> None:
        if self._until.pop(worker, None) is not None and self._locks is not None:
            self._locks.drop(worker)
        self._overdue.pop(worker, None)

    def pause(self) -> float | None:
        """Seconds until the next look at the leases; `None`: no file is locked."""
        with self._lock:
            ends = list(self._until.values())
        if not ends:
            return None
        return min(max(min(ends) - seconds(), _RETRY_SECONDS), _LOOK_SECONDS)

    def drop_overdue(self) -> None:
        """Unlock the files of workers whose lease is over and is not renewed."""
        now = seconds()
        with self._lock:
            if now < self._look_at:
                return
            self._look_at = now + _RETRY_SECONDS / 2
            for worker, until in list(self._until.items()):
                if now > until:
                    self._overdue[worker] = self._overdue.get(worker, 0) + 1
                    if self._overdue[worker] >= OVERDUE_LOOKS:
                        self._drop(worker)

    def hold_of(self, worker: str) -> Hold:
        with self._lock:
            files = self._files()
        found = Hold.UNKNOWN if files is None else files.hold_of(worker)
        # A missing file means another user, another directory, or a worker that is cut off.
        return Hold.UNKNOWN if found is Hold.FREE else found


class PostgresLiveness:
    """A `Liveness` through advisory locks of the sessions of workers, and lock files on this machine."""

    def __init__(self, session: Session, link: PostgresLink, lock_of: str, *, grace: float = GRACE) -> None:
        self._session = session
        self._link = link
        self._lock_of = lock_of
        self._grace = grace
        self._free_since: dict[str, float] = {}

    def hold(self, worker: str) -> None:
        self._session.hold(worker)

    def drop(self, worker: str) -> None:
        self._session.drop(worker)

    def is_dead(self, worker: str) -> bool:
        return self.hold_of(worker) is Hold.FREE

    def doubts(self, worker: str) -> bool:
        return self.hold_of(worker) is Hold.UNKNOWN and worker in self._free_since

    def hold_of(self, worker: str) -> Hold:
        if self._session.held(worker):
            return Hold.AT_WORK
        here = self._session.on_this_machine(worker)
        if here is not Hold.UNKNOWN:
            # The server may have ended the session of a process that lives.
            return here
        try:
            [[locked, locks]] = self._link.rows(self._lock_of, (*self._session.key(worker), worker), patience=0)
        except StoreError:
            locked, locks = False, False
        if locked or not locks:
            self._free_since.pop(worker, None)
            return Hold.KEPT if locked else Hold.UNKNOWN
        now = seconds()
        if len(self._free_since) > 10_000:
            self._free_since.clear()
        free = now - self._free_since.setdefault(worker, now)
        return Hold.FREE if free >= self._grace else Hold.UNKNOWN


def _signed(key: tuple[int, int]) -> int:
    number = key[0] << 32 | key[1]
    return number - (1 << 64) if number >= 1 << 63 else number

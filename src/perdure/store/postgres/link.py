"""A Postgres store's address, and the connections to it: opened at need and again when they break; errors, forks."""

from __future__ import annotations

import logging
import os
import re
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from secrets import randbits
from typing import Any, Final, TypeVar
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.types.numeric import Int8BinaryDumper
from psycopg.types.string import StrBinaryDumper, TextBinaryLoader, TextLoader

from perdure.core.ground.clock import US, SystemClock, seconds
from perdure.errors import StoreUnavailableError, StoreVersionError, UsageError

from .direct import Statement
from .errors import is_again, is_away, is_unprepared, translate

T = TypeVar("T")
Row = tuple[Any, ...]
Cursor = psycopg.Cursor[Row]
Connection = psycopg.Connection[Row]

log = logging.getLogger("perdure")

PATIENCE: Final = 60.0
"""Seconds to wait for a server that has answered before."""
OLDEST: Final = 150_000
SCHEMA: Final = "perdure"

_PIPELINES: Final = psycopg.Pipeline.is_supported()
_FIRST_PAUSE: Final = 0.02
_LONGEST_PAUSE: Final = 1.0
_CLOCK_AGE: Final = 30 * US
BACKEND: Final = (
    "SELECT pg_backend_pid(), (SELECT backend_start::text FROM pg_stat_activity WHERE pid = pg_backend_pid())"
)
"""The identity of a session, for `END`."""
_FACTS: Final = f"""
{BACKEND},
       current_setting('server_version_num')::int, current_setting('server_encoding'),
       current_setting('synchronous_commit'), current_setting('server_version')
"""
_BARRIER: Final = "SELECT pg_logical_emit_message(true, 'perdure', '')"
"""A commit that waits for the whole backlog of a synchronous standby. A session that was ended waits no longer for its
own commit, which becomes visible at once. (Only a transaction that writes to the log waits.)"""
END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = %s AND backend_start::text = %s"


class Address:
    """Where a Postgres store is: the server, the database, the schema."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True))
        self.schema: Final = options.pop("schema", SCHEMA)
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", self.schema):
            raise UsageError(f"a schema's name is made of small letters, digits and _, not {self.schema!r}")
        plain = urlunsplit(parts._replace(query=urlencode(options, quote_via=quote), fragment=""))
        try:
            known = {key: value for key, value in conninfo_to_dict(plain).items() if value is not None}
        except psycopg.Error:
            # libpq's message may show the password.
            raise UsageError(
                "the store's URL is not understood: it is written postgresql://user:password@host:port/database, with "
                "%XX for characters of the user or password such as @, : and /"
            ) from None
        host, port = known.get("host"), known.get("port")
        user, name = known.get("user"), str(known.get("dbname", ""))
        shown = f"postgresql://{quote(str(user)) + '@' if user else ''}"
        more = {"schema": self.schema} if self.schema != SCHEMA else {}
        if host is not None and str(host).startswith("/"):
            more["host"] = str(host)
            if port is not None:
                more["port"] = str(port)
        else:
            shown += f"{host or ''}{f':{port}' if port else ''}"
        shown += f"/{quote(name)}"
        self.url: Final = shown + (f"?{urlencode(more, safe='/')}" if more else "")
        """Without secrets."""
        defaults: dict[str, Any] = {
            "application_name": "perdure",
            "connect_timeout": 10,
            # Of several hosts the primary: a standby shows the past, and no locks.
            "target_session_attrs": "primary",
            # Keepalives notice a server that vanished silently while an answer is awaited.
            "keepalives_idle": 10,
            "keepalives_interval": 5,
            "keepalives_count": 3,
            "tcp_user_timeout": 30_000,
        }
        self.reached = False
        """The server has answered before: from then on an unreachable server is waited for."""
        self.conninfo: Final = make_conninfo(**{**defaults, **known, "client_encoding": "UTF8"})

    def sql(self, text: str) -> str:
        """The statement, in the schema of this store."""
        return text if self.schema == SCHEMA else text.replace("perdure.", f"{self.schema}.")

    def connect(self) -> Connection:
        connection = psycopg.connect(self.conninfo, autocommit=True)
        connection.prepare_threshold = 1
        # psycopg counts the names of statements from 0. Behind a pooler, connections of other clients arrive here,
        # whose statements of the same name would run in place of the intended ones.
        connection._prepared._prepared_idx = randbits(62)
        adapters = connection.adapters
        # One type for every int: statements are prepared for the types of their parameters.
        adapters.register_dumper(int, Int8BinaryDumper)
        adapters.register_dumper(str, _Text)
        adapters.register_loader("text", _FromText)
        adapters.register_loader("text", _FromBinaryText)
        return connection


# Postgres text cannot hold NUL. NUL is written as two characters, the first of which is practically unused.
_MARK: Final = "\x01"


class _Text(StrBinaryDumper):
    def dump(self, obj: str) -> Any:
        return super().dump(_to_text(obj))


def _to_text(text: str) -> str:
    return (
        text if "\0" not in text and _MARK not in text else text.replace(_MARK, _MARK + "1").replace("\0", _MARK + "0")
    )


def text_bytes(text: str) -> bytes:
    """Text as a parameter in binary form."""
    return _to_text(text).encode()


def _from_text(text: Any) -> Any:
    return text if _MARK not in text else text.replace(_MARK + "0", "\0").replace(_MARK + "1", _MARK)


class _FromText(TextLoader):
    def load(self, data: Any) -> Any:
        return _from_text(super().load(data))


class _FromBinaryText(TextBinaryLoader):
    def load(self, data: Any) -> Any:
        return _from_text(super().load(data))


def _plain(error: BaseException) -> Exception:
    return error if isinstance(error, Exception) else RuntimeError(str(error))


class ServerClock:
    """The server's wall clock, read from here; the boot clock is this machine's.

    Deadlines recorded on one machine and reached on another are wall times, and the clocks of the machines need not
    agree. Between two readings of the server's clock the boot clock of this machine carries on, so this clock never
    steps by itself.
    """

    def __init__(self) -> None:
        self._here = SystemClock()
        self.boot_id = self._here.boot_id
        self._ahead = self._here.wall() - self._here.boot()
        self._error: int | None = None
        self._read_at = 0

    def wall(self) -> int:
        return self._here.boot() + self._ahead

    def boot(self) -> int:
        return self._here.boot()

    @property
    def is_old(self) -> bool:
        """Whether the server's clock should be read again."""
        return self._error is None or self._here.boot() - self._read_at > _CLOCK_AGE

    def read(self, ask: Callable[[], int]) -> None:
        """Take over the server's time, unless the known time may be as right."""
        for _ in range(3):
            before = self._here.boot()
            server = ask()
            after = self._here.boot()
            error = (after - before) // 2
            ahead = server - (before + after) // 2
            if self._error is None or abs(ahead - self._ahead) > error or error < self._error:
                self._ahead, self._error = ahead, error
        self._read_at = self._here.boot()


class PostgresLink:
    """One connection, opened at first use, for one thread at a time.

    A broken connection is replaced and the work is repeated, unless the work proves done: before the look for traces,
    the lost session is ended, so that nothing of it can appear later. A server that has answered before is waited for.
    """

    def __init__(self, address: Address) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._pid = os.getpid()
        self._closed = False
        self._prepare = True
        self._session: tuple[int, str | None] | None = None
        self._since = 0.0
        self._known: set[Statement] = set()
        self.connection: Connection | None = None

    # -- what callers do -----------------------------------------------------------------------------------------

    def rows(self, sql: str, row: Sequence[Any] = (), *, patience: float = PATIENCE) -> list[Row]:
        """All rows of a query."""
        return self.run(lambda cursor: cursor.execute(sql, row).fetchall(), patience=patience)

    def change(
        self, sql: str, row: Sequence[Any], is_done: tuple[str, Sequence[Any]] | None = None, *,
        patience: float = PATIENCE,
    ) -> bool:  # fmt: skip
        """Run one statement as a transaction; whether a row changed. `is_done` finds a row if the work was done;
        without `is_done`, the statement must be idempotent."""

        def look(cursor: Cursor) -> list[bool]:
            return [True] if is_done is not None and cursor.execute(*is_done).fetchone() is not None else []

        return self.run(lambda cursor: cursor.execute(sql, row).rowcount == 1, look, patience=patience)

    def change_directly(
        self, statement: Statement, row: Sequence[Any], is_done: Callable[[], tuple[str, Sequence[Any]]]
    ) -> bool:
        """The same, by a shorter way through the driver. `is_done` finds a true value if the work was done."""

        def change(connection: Connection) -> bool:
            if not self._prepare:
                return connection.cursor(binary=True).execute(statement.sql, row).rowcount == 1
            self._make_known(connection, statement)
            return statement.change(connection, row) == 1

        def look(cursor: Cursor) -> list[bool]:
            found = cursor.execute(*is_done()).fetchone()
            return [True] if found is not None and found[0] else []

        return self._run(change, look, PATIENCE)

    def number_directly(
        self, statement: Statement, row: Sequence[Any], behind: bytes, is_done: tuple[str, Sequence[Any]]
    ) -> int | None:
        """Run one statement as a transaction, and `behind` as another one, in one round trip. The number that the
        statement returns; `None`: nothing was done, or statements cannot be prepared here. `is_done` finds the number
        if the work was done."""

        def work(connection: Connection) -> int | None:
            if not self._prepare:
                return None
            self._make_known(connection, statement)
            return statement.number(connection, row, behind)

        def look(cursor: Cursor) -> list[int | None]:
            return [number for (number,) in cursor.execute(*is_done)]

        return self._run(work, look, PATIENCE)

    def _make_known(self, connection: Connection, statement: Statement) -> None:
        if statement not in self._known:
            statement.prepare(connection)
            self._known.add(statement)

    def transaction(
        self, work: Callable[[Cursor], T], is_done: Callable[[Cursor, T], bool] | None = None, *,
        patience: float = PATIENCE, pipelined: bool = False,
    ) -> T:  # fmt: skip
        """Do the work in one transaction, perhaps more than once. If the answer to COMMIT was lost, `is_done` looks
        whether the work with this answer was done; without `is_done`, the work must be idempotent. `pipelined`:
        statements are sent without waiting for earlier answers, unless the work asks for an answer; the work must not
        look at the number of changed rows."""
        sent: list[T] = []

        def whole(cursor: Cursor) -> T:
            sent.clear()
            with cursor.connection.pipeline() if pipelined and _PIPELINES else nullcontext():
                cursor.execute("BEGIN")
                answer = work(cursor)
                sent.append(answer)
                cursor.execute("COMMIT")
            return answer

        def look(cursor: Cursor) -> list[T]:
            return sent[:] if sent and is_done is not None and is_done(cursor, sent[0]) else []

        return self.run(whole, look, patience=patience)

    def run(
        self,
        work: Callable[[Cursor], T],
        look: Callable[[Cursor], list[T]] | None = None,
        *,
        patience: float = PATIENCE,
    ) -> T:
        """Do the work, perhaps more than once; `look` finds the answer of a session that broke after the work."""
        return self._run(lambda connection: work(connection.cursor(binary=True)), look, patience)

    def _run(self, work: Callable[[Connection], T], look: Callable[[Cursor], list[T]] | None, patience: float) -> T:
        if self._pid != os.getpid():
            # Before the lock: in this forked copy a thread of the parent may hold the lock for ever.
            raise StoreUnavailableError(
                f"the store {self._address.url} was opened by process {self._pid} and cannot be used in its forked "
                f"child {os.getpid()}: start processes by spawn, or open the store after the fork only"
            )
        with self._lock:
            self._since = seconds()
            try:
                if (connection := self.connection) is not None:
                    return work(connection)
            except BaseException as error:
                if not self._may_go_on(error):
                    self._raise(error)
            return self._run_when_back(work, look, patience)

    def busy_for(self, now: float) -> float:
        """Seconds since the present work began; 0 without work. Safe from any thread."""
        return now - self._since if self._lock.locked() else 0.0

    def _run_when_back(
        self, work: Callable[[Connection], T], look: Callable[[Cursor], list[T]] | None, patience: float
    ) -> T:
        since = seconds()
        pause = _FIRST_PAUSE
        lost: list[tuple[int, str | None]] = []
        missed: list[tuple[int, str | None]] = []
        said = False
        while True:
            try:
                connection = self.connection
                if connection is None:
                    if self._session is not None and self._session not in lost:
                        lost.append(self._session)
                    connection = self._open()
                if lost:
                    for session in lost:
                        self._end(connection, session)
                    if look is not None and (found := look(connection.cursor(binary=True))):
                        connection.execute(_BARRIER)
                        return found[0]
                    missed, lost = lost, []
                return work(connection)
            except BaseException as error:
                if missed and isinstance(error, psycopg.errors.UniqueViolation):
                    # Behind a pooler, with another session, the work was done after the look.
                    self._may_go_on(error)
                    lost, missed = missed, []
                    continue
                waited = seconds() - since
                # The first request reports a fault at once.
                if not self._may_go_on(error) or not self._address.reached or waited > patience:
                    self._raise(error)
                if not said and self.connection is None and waited > 1.0:
                    said = True
                    log.warning("waiting for the store: %s", translate(_plain(error), self._address.url))
            self._rest(pause)
            pause = min(pause * 1.5, _LONGEST_PAUSE)

    def _rest(self, pause: float) -> None:
        end = seconds() + pause
        while (left := end - seconds()) > 0 and not self._closed:
            time.sleep(min(left, 0.05))

    # -- sessions --------------------------------------------------------------------------------------------------

    def _open(self) -> Connection:
        if self._closed:
            raise StoreUnavailableError(f"the store {self._address.url} is closed")
        connection = self._address.connect()
        try:
            pid, since, number, encoding, synchronous, version = connection.execute(_FACTS).fetchone()  # type: ignore[misc]
            if number < OLDEST:
                raise StoreVersionError(
                    f"{self._address.url} is PostgreSQL {version}: perdure needs 15 or later; upgrade the server"
                )
            if encoding != "UTF8":
                raise StoreVersionError(
                    f"the database of {self._address.url} is encoded in {encoding}: make one with UTF8"
                )
            if synchronous == "off":
                # Against all settings of the role or the database: recorded data is on disk (P1).
                connection.execute("SET synchronous_commit = on")
            if not self._prepare:
                connection.prepare_threshold = None
        except BaseException:
            connection.close()
            raise
        # This session is the one that may have been lost, whichever is opened next.
        self._session = (pid, since)
        self._address.reached = True
        self._known.clear()
        self.connection = connection
        return connection

    def _end(self, connection: Connection, session: tuple[int, str | None]) -> None:
        """End a lost session: the session may be in the middle of a COMMIT, or hold locks."""
        end = seconds() + PATIENCE
        while connection.execute(END, session).fetchone() is not None:
            if seconds() > end:
                raise StoreUnavailableError(f"{self._address.url}: the lost session {session[0]} does not end")
            time.sleep(_FIRST_PAUSE)

    def _may_go_on(self, error: BaseException) -> bool:
        """Roll back, or give the connection up; whether trying again may help."""
        connection = self.connection
        unprepared = is_unprepared(error)
        if unprepared and self._prepare:
            self._prepare = False
        elif unprepared:
            unprepared = False
        if connection is not None:
            broken = connection.broken or connection.closed or is_away(error)
            if not broken and connection.info.transaction_status != psycopg.pq.TransactionStatus.IDLE:
                try:
                    connection.rollback()
                except psycopg.Error:
                    broken = True
            if broken or unprepared or not isinstance(error, Exception):
                self._drop()
            if broken and isinstance(error, psycopg.Error):
                return not self._closed
        return not self._closed and (unprepared or is_again(error) or is_away(error))

    def _drop(self) -> None:
        connection, self.connection = self.connection, None
        if connection is not None:
            try:
                connection.close()
            except psycopg.Error:
                pass

    def _raise(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            if self._closed and isinstance(error, psycopg.Error):
                raise StoreUnavailableError(f"the store {self._address.url} is closed") from error
            other = translate(error, self._address.url)
            if other is not error:
                raise other from error
        raise error

    def close(self) -> None:
        """Close the connection, after the present call. Idempotent."""
        self._closed = True
        if self._pid == os.getpid():
            with self._lock:
                self._drop()

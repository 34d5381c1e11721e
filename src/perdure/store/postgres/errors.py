"""Postgres's failures in one sentence each: the server, the event, the remedy; and the failures that pass."""

from __future__ import annotations

import re
from typing import Final

import psycopg

from perdure.errors import ForeignStoreError, StoreError, StoreUnavailableError, UsageError

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_AGAIN: Final = frozenset({"40001", "40P01", "55P03"})
"""Serialization failure, deadlock, lock not available: the transaction was rolled back and may be tried at once."""
_PASSING: Final = frozenset({"53300", "57P01", "57P02", "57P03", "57P05", "25006"})
"""Too many connections; the server is shutting down, has crashed, is starting; idle session ended; read-only: a
standby before it is promoted."""
_UNPREPARED: Final = frozenset({"26000", "42P05", "08P01"})
"""A pooler has given the session another connection, with other prepared statements or none."""


def is_again(error: BaseException) -> bool:
    """The transaction may be tried again at once."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _AGAIN


def is_unprepared(error: BaseException) -> bool:
    """Prepared statements do not work here."""
    return isinstance(error, psycopg.Error) and error.sqlstate in _UNPREPARED


def is_fenced(error: BaseException | None) -> bool:
    """The statement `hold` has found a run with another token."""
    return isinstance(error, psycopg.errors.DivisionByZero)


def is_away(error: BaseException) -> bool:
    """The server cannot be used just now; a new connection may help, soon or later."""
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return False
    state = error.sqlstate
    if state is not None:
        return state in _PASSING or state.startswith("08")
    # An error without a code comes from libpq: a connection that broke, or could not be made.
    return not _is_final(str(error))


def _is_final(text: str) -> bool:
    return any(
        word in text
        for word in (
            "password authentication failed", "no password supplied", "does not exist", "pg_hba.conf", "certificate",
            "not permitted to log in", "authentication failed", "invalid", "could not translate host name",
            "permission denied",
        )
    )  # fmt: skip


def translate(error: Exception, where: str) -> Exception:
    """The error to raise in place of `error`, or `error` itself if not a failure of the database."""
    if isinstance(error, UnicodeEncodeError):
        return UsageError(f"text that is not valid Unicode cannot be stored: {error.object!r}")
    if not isinstance(error, psycopg.Error):
        return error
    text = _one_line(error)
    found = StoreUnavailableError
    match error.sqlstate:
        case "28P01" | "28000":
            return found(_refused(where, text))
        case "3D000":
            return found(f"{where}: there is no such database ({text}): create it with `createdb`, or name another")
        case "42501":
            return found(
                f"{where}: this role may not do that ({text}): let the owner of the database run perdure once, or "
                "GRANT CREATE ON DATABASE, and own the schema"
            )
        case "53300":
            return found(f"{where} has no free connection ({text}): raise max_connections, or use a pooler")
        case "53100":
            return found(f"the disk of {where} is full: free some space, then start the run again")
        case "57P03":
            return found(f"{where} is starting or shutting down ({text}): try again soon")
        case "25006":
            return found(f"{where} is read-only ({text}): name the primary server")
        case "42P01" | "42703" | "42883" | "3F000":
            return ForeignStoreError(
                f"{where} is not a perdure store, or not a whole one ({text}): name another schema"
            )
        case None:
            return _from_libpq(error, where, text)
        case state:
            return StoreError(f"{where}: {text} ({state})")


def _from_libpq(error: psycopg.Error, where: str, text: str) -> StoreError:
    if not isinstance(error, (psycopg.OperationalError, psycopg.InterfaceError)):
        return StoreError(f"{where}: {text}")
    lower = text.lower()
    if "password" in lower or "pg_hba.conf" in lower or "authentication" in lower or "role " in lower:
        return StoreUnavailableError(_refused(where, text))
    if "database" in lower and "does not exist" in lower:
        return StoreUnavailableError(
            f"{where}: there is no such database ({text}): create it with `createdb`, or name another"
        )
    if "too many clients" in lower or "remaining connection slots" in lower or "too many connections" in lower:
        return StoreUnavailableError(f"{where} has no free connection ({text}): raise max_connections, or use a pooler")
    if "hot standby mode" in lower:
        return StoreUnavailableError(f"{where} is a standby, which cannot be written: name the primary server")
    if "translate host name" in lower or "name or service" in lower:
        return StoreUnavailableError(f"{where}: the host is not known ({text}): check its name in the store's URL")
    return StoreUnavailableError(
        f"{where} cannot be reached ({text}): check that the server runs, and its host and port in the store's URL"
    )


def _refused(where: str, text: str) -> str:
    return (
        f"{where} does not let this role in ({text}): check user and password (PGPASSWORD, ~/.pgpass) and pg_hba.conf"
    )


def _one_line(error: psycopg.Error) -> str:
    primary = error.diag.message_primary
    text = primary or str(error) or type(error).__name__
    # libpq's message may contain a URL.
    return re.sub(r"(://[^:/@\s]*):[^@\s]*@", r"\1:***@", " ".join(text.split()))

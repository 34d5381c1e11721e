"""The table `perdure_outcomes` in the user's database: the outcomes of steps, each committed with the step's effect."""

from __future__ import annotations

from typing import Final, NamedTuple

from ..core.ground.steps import Steps
from ..errors import UsageError
from ._failures import is_again, is_lost, is_made
from ._units import Database, Row, Unit

TABLE: Final = "perdure_outcomes"

CREATE: Final = {
    "postgresql": (
        f"CREATE TABLE IF NOT EXISTS {TABLE} (run text NOT NULL, step text NOT NULL, store text NOT NULL, "
        "name text NOT NULL, outcome bytea NOT NULL, recorded_at bigint NOT NULL, PRIMARY KEY (run, step))"
    ),
    "mysql": (
        f"CREATE TABLE IF NOT EXISTS {TABLE} (run varchar(32) NOT NULL, step varchar(32) NOT NULL, "
        "store varchar(32) NOT NULL, name varchar(500) NOT NULL, outcome longblob NOT NULL, "
        "recorded_at bigint NOT NULL, PRIMARY KEY (run, step)) ENGINE=InnoDB CHARACTER SET utf8mb4"
    ),
    "sqlite": (
        f"CREATE TABLE IF NOT EXISTS {TABLE} (run TEXT NOT NULL, step TEXT NOT NULL, store TEXT NOT NULL, "
        "name TEXT NOT NULL, outcome BLOB NOT NULL, recorded_at INTEGER NOT NULL, PRIMARY KEY (run, step))"
    ),
}
"""By dialect. `run` is the `uid` of the run, `step` the path of the call, `store` the id of the store: all in
hexadecimal digits. `recorded_at` is wall time in microseconds."""

LOOK: Final = f"SELECT outcome FROM {TABLE} WHERE run = :run AND step = :step"
INSERT: Final = (
    f"INSERT INTO {TABLE} (run, step, store, name, outcome, recorded_at) "
    "VALUES (:run, :step, :store, :name, :outcome, :recorded_at)"
)
OLD: Final = f"SELECT DISTINCT run FROM {TABLE} WHERE store = :store AND recorded_at < :before"
DELETE: Final = f"DELETE FROM {TABLE} WHERE run = :run AND store = :store AND recorded_at < :before"
BEGIN: Final = "SAVEPOINT perdure_step"
END: Final = "RELEASE SAVEPOINT perdure_step"
"""Refused by every database if the transaction is no longer the transaction of `BEGIN`."""
_TRIES: Final = 5


class OutcomeRow(NamedTuple):
    """A row of the table."""

    run: str
    step: str
    store: str
    name: str
    outcome: bytes
    recorded_at: int

    def row(self) -> Row:
        """The row as parameters of `INSERT`."""
        return self._asdict()


def look(unit: Unit, key: Row) -> Steps[bytes | None]:
    """The outcome of a step, if the step was committed."""
    rows = yield from unit.execute(LOOK, key)
    return bytes(rows[0][0]) if rows else None


def make_table(database: Database) -> Steps[None]:
    """Make the table unless it exists. Safe for any number of processes at once."""
    for left in reversed(range(_TRIES)):
        if (yield from _exists(database)):
            return
        unit = yield from database.open()
        try:
            yield from unit.begin()
            yield from unit.execute(_creation(unit.dialect), {})
            yield from unit.commit()
            return
        except Exception as error:
            # `IF NOT EXISTS` does not look and create at once: Postgres refuses the slower of two processes, with the
            # error of a unique key, of a type or of a table that exists.
            if not left or not (is_again(error) or is_made(error)):
                raise
        finally:
            yield from unit.close()


def _creation(dialect: str) -> str:
    if dialect not in CREATE:
        raise UsageError(
            f"@perdure.transaction works with Postgres, MariaDB, MySQL and SQLite, and this engine is of {dialect}"
        )
    return CREATE[dialect]


def _exists(database: Database) -> Steps[bool]:
    """Whether the table is there. Asked first: the right to create tables may be missing where the table exists."""
    unit = yield from database.open()
    try:
        yield from unit.begin()
        yield from unit.execute(LOOK, {"run": "", "step": ""})
        return True
    except UsageError:
        raise
    except Exception as error:
        if is_lost(error):
            raise
        return False
    finally:
        yield from unit.close()

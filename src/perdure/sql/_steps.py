"""One execution of a step: the function's effect and its outcome in one commit of the user's database (P13).

Invariants:
- TX1 the outcome of a step is inserted in the transaction of the step's effect, under a key that is the same in every
  life of the run. So of all executions of a call, at most one commits.
- TX2 an execution begins by looking for the outcome, in the same transaction. An outcome that exists is returned, and
  the function is not called.
- TX3 the effect of a function that raises is rolled back, and nothing is recorded in the user's database.
- TX4 no failure is recorded while an earlier execution may have committed: the execution looks again, and where the
  database cannot be asked, the run is interrupted.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable
from typing import Any, Final

from ..core.body.branch import Call, path_below
from ..core.ground.spec import Function
from ..core.ground.steps import Steps
from ..core.run import calls
from ..errors import RunStopped, StoreUnavailableError, UsageError
from ._failures import is_again, is_duplicate, is_lost
from ._outcomes import BEGIN, END, INSERT, TABLE, OutcomeRow, look, make_table
from ._units import Database, Row, Unit

TRIES: Final = 10
"""Executions of the function for one call, while the database refuses for the sake of others."""
_FIRST_PAUSE: Final = 0.01
_LONGEST_PAUSE: Final = 1.0


class StepTarget:
    """A database of the user's, and what this process knows of the database."""

    def __init__(self, database: Database, *, is_async: bool) -> None:
        self.database = database
        self.is_async = is_async
        self.ready = False
        """The table exists, so the database has answered before."""

    def pause(self, seconds: float) -> Any:
        """Wait; for an async target something to await."""
        return asyncio.sleep(seconds) if self.is_async else time.sleep(seconds)


class _Taken(Exception):
    """Another execution of the same call has committed."""


class Execution:
    """See the module text."""

    def __init__(self, target: StepTarget, call: Call, function: Function, run: Callable[[Any], Any]) -> None:
        """`run` calls the user's function with a connection."""
        self._target = target
        self._call = call
        self._codec = function.signature.returns
        self._run = run
        driver, body = call.body.driver, call.body
        step = path_below(body.path, call.branch.id, call.fp, call.occ)
        self._key: Row = {"run": driver.run.uid.hex(), "step": step.hex()}
        self._lonely = bool(driver.fresh) and body.attempt == 1
        """No earlier execution of the call can exist."""
        self._committing = False
        self._in_doubt = False
        """The answer to a COMMIT of this execution was lost."""

    def whole(self) -> Steps[Any]:
        """The value of the step."""
        pause = _FIRST_PAUSE
        for left in reversed(range(TRIES)):
            try:
                return (yield from self._attempt())
            except _Taken:
                error: Exception | None = None
            except Exception as failure:
                error = failure
            if error is not None:
                lost = is_lost(error)
                self._in_doubt = self._in_doubt or (lost and self._committing)
                passing = is_again(error) or (lost and self._target.ready)
                if not passing or not left:
                    return (yield from self._failed(error))
            self._committing = False
            yield self._target.pause(pause * random.uniform(0.5, 1))
            pause = min(2 * pause, _LONGEST_PAUSE)
        raise AssertionError("the last try returns or raises")

    def _attempt(self) -> Steps[Any]:
        """One transaction."""
        if not self._target.ready:
            yield from make_table(self._target.database)
            self._target.ready = True
        unit = yield from self._target.database.open()
        try:
            value = yield from self._inside(unit)
        except GeneratorExit:
            raise  # the garbage collector ends the run's tasks, and nothing can be awaited any more
        except BaseException:
            yield from _abandon(unit)
            raise
        yield from unit.close()
        return value

    def _inside(self, unit: Unit) -> Steps[Any]:
        yield from unit.begin()
        found = yield from look(unit, self._key)
        if found is not None:
            return self._codec.decode(found)
        yield from unit.execute(BEGIN, {})
        value = yield self._run(unit.given)
        yield from unit.flush()
        data, copy = calls.stored(self._call, self._codec, value)
        yield from self._insert(unit, data)
        if self._call.body.stopped:
            raise self._call.body.driver.stopped_error()
        self._committing = True
        yield from unit.commit()
        return copy

    def _insert(self, unit: Unit, data: bytes) -> Steps[None]:
        """Insert the outcome into the transaction that `BEGIN` belongs to."""
        try:
            yield from unit.execute(END, {})
        except Exception as error:
            if is_again(error) or is_lost(error):
                raise
            raise UsageError(
                f"{self._call.name} has ended its transaction, which perdure commits together with the outcome. Leave "
                "out commit() and rollback(), statements that commit by themselves (in MariaDB CREATE, ALTER and the "
                "like), and do not catch the error of a failed statement, unless a savepoint surrounds the statement"
            ) from error
        driver = self._call.body.driver
        now = driver.worker.clock.wall()
        row = OutcomeRow(**self._key, store=driver.worker.store.id, name=self._call.name, outcome=data, recorded_at=now)
        try:
            yield from unit.execute(INSERT, row.row())
        except Exception as error:
            if is_duplicate(error):
                raise _Taken from error
            raise

    # -- failures ----------------------------------------------------------------------------------------------

    def _failed(self, error: Exception) -> Steps[Any]:
        """The function has failed for good: the outcome of an earlier execution, if there is one; otherwise the error
        is raised."""
        if self._lonely and not self._in_doubt:
            raise error
        try:
            found = yield from self._probe()
        except Exception as away:
            raise self._unknown(away) from away
        if found is None:
            raise error
        return self._codec.decode(found)

    def _probe(self) -> Steps[bytes | None]:
        """The outcome of another execution. The insertion waits for a transaction under way with the same key."""
        for left in reversed(range(TRIES)):
            unit = yield from self._target.database.open()
            try:
                yield from unit.begin()
                row = OutcomeRow(**self._key, store="", name="", outcome=b"", recorded_at=0)
                yield from unit.execute(INSERT, row.row())
                return None
            except Exception as error:
                if is_duplicate(error):
                    break
                if not left or not (is_again(error) or is_lost(error)):
                    raise
            finally:
                yield from _abandon(unit)
            yield self._target.pause(_LONGEST_PAUSE / 4)
        unit = yield from self._target.database.open()
        try:
            yield from unit.begin()
            return (yield from look(unit, self._key))
        finally:
            yield from _abandon(unit)

    def _unknown(self, error: Exception) -> RunStopped:
        driver = self._call.body.driver
        driver.stop(
            StoreUnavailableError(
                f"whether {self._call.name} has committed is not known, because the database of the step cannot be "
                f"asked ({type(error).__name__}: {error}). The run {driver.run.name!r} is interrupted. Continued, the "
                f"run looks into {TABLE} before anything is executed."
            )
        )
        stopped: RunStopped = driver.stopped_error()
        return stopped


def _abandon(unit: Unit) -> Steps[None]:
    """Roll back, whether or not the connection still works: a connection that is gone has rolled back already."""
    try:
        yield from unit.close()
    except Exception:
        pass

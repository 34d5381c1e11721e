"""Removing outcomes that no run can ask for any more."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any, Final

from .. import runtime
from ..api._dual import Dual
from ..core.ground.clock import US
from ..core.ground.model import STORED_STATUSES, Status
from ..core.ground.ports import Store
from ..core.ground.steps import Steps, run_now, run_soon
from ..errors import UsageError
from ._outcomes import DELETE, OLD, make_table
from ._units import Database, database_of

_PAGE: Final = 500
_OVER: Final = frozenset({Status.SUCCEEDED, Status.ABORTED})
"""No process continues a run of these statuses. A FAILED run can be resumed, and a MOVED run goes on elsewhere."""


def prune_now(database: Any, *, older_than: timedelta) -> int:
    """Remove the outcomes of runs that have succeeded, were aborted, or are gone from this store.

    Call it now and then, such as from a scheduled task. Rows of other stores, and of runs that can still be continued,
    stay.

    Args:
        database: an engine, or anything else that `transaction` takes.
        older_than: younger rows stay. Choose more than the longest time for which a frozen process may come back.

    Returns:
        The number of removed rows.

    Raises:
        UsageError: `database` or `older_than` cannot be used.
    """
    return run_now(_pruned(database_of(database, is_async=False, what="perdure.sql.prune"), older_than))


def _prune_soon(database: Any, *, older_than: timedelta) -> Coroutine[Any, Any, int]:
    try:
        place = database_of(database, is_async=True, what="perdure.sql.prune.aio")
    except UsageError:
        return asyncio.to_thread(prune_now, database, older_than=older_than)
    return run_soon(_pruned(place, older_than))


prune_now.__name__ = prune_now.__qualname__ = "prune"
prune: Dual[..., int] = Dual(prune_now, _prune_soon)


def _pruned(database: Database, older_than: timedelta) -> Steps[int]:
    if not isinstance(older_than, timedelta) or older_than < timedelta(0):
        raise UsageError(f"older_than must be a timedelta from 0 up, not {older_than!r}")
    store = runtime.worker().store
    before = runtime.worker().clock.wall() - int(older_than.total_seconds() * US)
    yield from make_table(database)
    unit = yield from database.open()
    try:
        yield from unit.begin()
        # Before the store is asked: a run that begins meanwhile has no row of that age.
        rows = yield from unit.execute(OLD, {"store": store.id, "before": before})
    finally:
        yield from unit.close()
    asking = _may_ask(store)
    over = [run for run, *_ in rows if run not in asking]
    removed = 0
    for at in range(0, len(over), _PAGE):
        unit = yield from database.open()
        try:
            yield from unit.begin()
            for run in over[at : at + _PAGE]:
                gone = yield from unit.change(DELETE, {"run": run, "store": store.id, "before": before})
                removed += gone
            yield from unit.commit()
        finally:
            yield from unit.close()
    return removed


def _may_ask(store: Store) -> set[str]:
    """The runs of the store that can still be continued."""
    statuses = set(STORED_STATUSES) - _OVER
    found: set[str] = set()
    below: int | None = None
    while page := store.runs(limit=_PAGE, statuses=statuses, below=below):
        found.update(run.uid.hex() for run in page)
        below = page[-1].id
    return found

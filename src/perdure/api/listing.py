"""Runs by status, task, name, inputs and time: `perdure.runs`."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from itertools import islice
from typing import Any, overload

from .. import runtime
from ..core.ground.clock import US
from ..core.ground.model import Status
from ..errors import UsageError
from ._dual import Dual, dual
from .local_time import local_moment
from .looking import RunFilter, selected
from .run import Run
from .tags import check_tags
from .task import Task

StatusRequest = Status | str | Collection[Status | str]
"""A status, or several."""
CreatedRequest = datetime | timedelta | tuple[datetime | None, datetime | None]
"""A beginning, a time back from now, or a beginning and an end."""


class RunPage(Sequence[Run]):
    """Runs, newest first. `after` is the place of the next page, for `perdure.runs(after=...)`; `None`: there are no
    further runs."""

    def __init__(self, found: Iterable[Run], after: int | None) -> None:
        self._runs = list(found)
        self.after = after

    @overload
    def __getitem__(self, index: int) -> Run: ...

    @overload
    def __getitem__(self, index: slice) -> list[Run]: ...

    def __getitem__(self, index: int | slice) -> Run | list[Run]:
        return self._runs[index]

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    def __repr__(self) -> str:
        return f"<perdure.RunPage of {len(self._runs)} runs{', and more' if self.after is not None else ''}>"


def _runs(
    *,
    status: StatusRequest | None = None,
    task: str | Task[..., Any] | None = None,
    name: str | None = None,
    inputs: Mapping[str, Any] | None = None,
    created: CreatedRequest | None = None,
    tags: Mapping[str, str] | None = None,
    limit: int = 100,
    after: int | None = None,
) -> RunPage:
    """The runs in the store, newest first, a page at a time; `.aio` as a coroutine.

    Args:
        status: only runs of this status, or of one of these.
        task: only runs of this task: a task, or its full name.
        name: only the run of this name; `*` and `?` stand for any characters and for one.
        inputs: only runs with these inputs, compared by value; a run may have further inputs.
        created: only runs created since a time, within a `timedelta` back from now, or in between two times, the end
            excluded; `None` in place of a time leaves that side open. A time without a zone is local.
        tags: only runs with these tags; a run may have further tags.
        limit: the size of a page.
        after: `RunPage.after` of the page before.

    Raises:
        UsageError: an argument means nothing.
        StoreError: the store cannot be used.
    """
    if isinstance(limit, bool) or not isinstance(limit, int) or limit < 1:
        raise UsageError(f"limit must be a number of runs from 1 up, not {limit!r}")
    if after is not None and (isinstance(after, bool) or not isinstance(after, int)):
        raise UsageError(f"after must be the `after` of the page before, not {after!r}")
    if inputs is not None and not isinstance(inputs, Mapping):
        raise UsageError(f"inputs must map names of inputs to values, not {inputs!r}")
    if not isinstance(name, (str, type(None))):
        raise UsageError(f"name must be the name of a run or a pattern, not {name!r}")
    if tags is not None:
        check_tags(tags)
    since, until = times(created)
    wanted = RunFilter(statuses_of(status), task_name(task), name, inputs, since, until, tags)
    found = list(islice(selected(wanted, after), limit + 1))
    page = [Run(row) for row in found[:limit]]
    return RunPage(page, found[limit - 1].id if len(found) > limit else None)


def statuses_of(asked: StatusRequest | None) -> frozenset[Status] | None:
    """Statuses from what a caller gives; `None` for every status.

    Raises:
        UsageError: there is no such status.
    """
    if asked is None:
        return None
    each = (asked,) if isinstance(asked, str) else asked
    try:
        return frozenset(Status(one.upper()) for one in each)
    except (TypeError, ValueError, AttributeError):
        known = ", ".join(Status)
        raise UsageError(f"status must be one or several of {known}, not {asked!r}") from None


def task_name(asked: str | Task[..., Any] | None) -> str | None:
    """The full name of a task that a caller gives.

    Raises:
        UsageError: what is given is no task.
    """
    if asked is None or isinstance(asked, str):
        return asked
    if not isinstance(asked, Task):
        raise UsageError(f"task must be a task or its full name, not {asked!r}")
    return asked.name


def times(created: CreatedRequest | None) -> tuple[int | None, int | None]:
    """A beginning and an end (wall, microseconds) from what a caller gives; `None`: open.

    Raises:
        UsageError: what is given is no time.
    """
    if created is None:
        return None, None
    if isinstance(created, timedelta):
        return back_from_now(created), None
    pair = (created, None) if isinstance(created, datetime) else created
    if not isinstance(pair, tuple) or len(pair) != 2 or not all(isinstance(at, (datetime, type(None))) for at in pair):
        raise UsageError(f"created must be a datetime, a timedelta, or a pair of datetimes, not {created!r}")
    since, until = (None if at is None else int(local_moment(at).timestamp() * US) for at in pair)
    return since, until


def back_from_now(length: timedelta) -> int:
    """The time so long ago (wall, microseconds)."""
    return runtime.worker().clock.wall() - int(length.total_seconds() * US)


_runs.__name__ = _runs.__qualname__ = "runs"
runs: Dual[..., RunPage] = dual(_runs)

"""Forks: new runs that share the journal of a finished run up to an entry."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from .. import runtime
from ..core.ground.model import FINISHED, Entry, Kind, Message, Result, RunRow, Status, Wake, WholeRun
from ..core.ground.spec import Function, moved_target, parsed
from ..core.ground.values import Codec
from ..core.journal.forking import Cut, Past, entry_of, past_of
from ..core.journal.segment import Journal, journal_of
from ..core.journal.source import code_root
from ..core.process.worker import Worker
from ..errors import RunConflictError, RunNotFoundError, UsageError
from ._names import check_name, random_run_name
from .ending import refuse_in_body
from .looking import find
from .requests import code_of
from .status import derived_status, refuse_moved
from .task import Task
from .trace import Trace

NOTHING: Any = object()
"""No outcome is given."""


def fork(
    name: str,
    before: int | None = None,
    after: int | None = None,
    outcome: Any = NOTHING,
    *,
    new_name: str | None = None,
    file: str | None = None,
    read: Callable[[Codec[Any]], Any] | None = None,
    paused: bool = False,
) -> RunRow:
    """Store a fork of a finished run, in one transaction, due at once.

    Args:
        before: the entry whose call the fork executes first.
        after: the last shared entry, whose outcome is replaced.
        outcome: the value in place of the outcome of entry `after`.
        new_name: the fork's name; a readable random name by default.
        file: the present place of the code, if the code was moved.
        read: in place of `outcome`, gives the value by the declared type.
        paused: the fork is PAUSED.

    Raises:
        RunNotFoundError: no such run.
        RunConflictError: the new name is taken.
        UsageError: the run has not ended, or cannot be forked there; or the value does not fit the declared type.
    """
    refuse_in_body("Run.fork")
    number = _number(before, after, given=outcome is not NOTHING or read is not None)
    if new_name is not None:
        check_name(new_name)
    old = _finished(name)
    worker = runtime.worker()
    value: bytes | None = None
    if after is not None:
        codec = _codec_of(old, entry_of(name, journal_of(worker.store, old), number), file)
        value = codec.encode(read(codec) if read is not None else outcome)
    past = past_of(name, journal_of(worker.store, old), worker.store.actions(old.id), Cut(number, value))
    target = old.target if file is None else moved_target(old.target, code_of(old, file).target())
    new = _row(worker, old, new_name or random_run_name(), target, past, paused=paused)
    return _stored(worker, old, new, past)


def _number(before: int | None, after: int | None, *, given: bool) -> int:
    if (before is None) == (after is None):
        raise UsageError(
            "name one entry: before=N, to execute its call again, or after=N with an outcome=... in its place"
        )
    if (after is None) == given:
        raise UsageError("an outcome takes the place of that of entry `after`: give both, or `before` alone")
    number = before if before is not None else after
    if isinstance(number, bool) or not isinstance(number, int):
        raise UsageError(f"an entry is named by its number, as `perdure show` has it, not by {number!r}")
    return number


def _finished(name: str) -> RunRow:
    row = find(name)
    refuse_moved(row)
    if row.status not in FINISHED:
        raise UsageError(
            f"run {name!r} has not ended, it is {derived_status(row)}; only a run that has ended is forked"
        )
    return row


def _row(worker: Worker, old: RunRow, name: str, target: str, past: Past, *, paused: bool) -> RunRow:
    now = worker.clock.wall()
    return old._replace(
        uid=secrets.token_bytes(16), name=name, target=target, created_at=now, reuse=None, status=Status.SLEEPING,
        token=None, worker=None, started_at=now, ended_at=None, result=None, value=None, crashes=0,
        mark=len(past.entries), cancel=None, cancel_until=None, paused=now if paused else None,
    )  # fmt: skip


def _stored(worker: Worker, old: RunRow, new: RunRow, past: Past) -> RunRow:
    store = worker.store
    segments = Journal(new.name, new.uid, new.uid).append(past.entries)[0] if past.entries else ()
    messages = _messages(store.all_messages(old.id), past)
    due = Wake(worker.clock.wall(), worker.clock.boot())
    whole = WholeRun(new, segments, past.actions, due, past.ended, past.sources, messages)
    [answer] = store.adopt([whole])
    if not answer.fresh:
        raise RunConflictError(f"a run is called {new.name!r} already: choose another name for the fork")
    if store.run_by_id(old.id) is None:
        # Its files may have been removed before the fork referred to them.
        store.abort(answer.run.id, worker.clock.wall())
        raise RunNotFoundError(f"run {old.name!r} was removed while it was forked")
    return answer.run


def _messages(all: Iterable[Message], past: Past) -> list[Message]:
    """The messages that the shared journal has received. What a child had received that the fork executes from its
    beginning is there to be received again."""
    binding = {entry.n for entry in past.entries if entry.result != Result.NOTE}
    shared = [one for one in all if one.taken is not None and one.taken <= len(past.entries)]
    return [
        one._replace(number=place, taken=one.taken if one.taken in binding else None)
        for place, one in enumerate(shared, 1)
    ]


def _codec_of(run: RunRow, entry: Entry, file: str | None) -> Codec[Any]:
    """The codec of the outcome of a call, by the declaration of the called function.

    Raises:
        UsageError: no outcome can take the place of the entry's, or the declaration is not found.
    """
    where = f"entry {entry.n} of run {run.name!r}, {entry.name}"
    if entry.kind not in (Kind.TASK, Kind.TRACE) or entry.result not in (Result.VALUE, Result.ERROR):
        raise UsageError(f"{where}, is no outcome of a trace or task: fork before it")
    code_of(run, file)
    found = {
        repr(one.signature.returns.annotation): one.signature.returns
        for one in _functions(file or parsed(run.target).file)
        if one.kind == entry.kind and one.name == entry.name
    }
    if len(found) != 1:
        problem = "is not declared in the code" if not found else "is declared with several result types"
        raise UsageError(f"{where}, {problem} below {code_root(file or parsed(run.target).file)}: fork before it")
    [codec] = found.values()
    return codec


def _functions(file: str) -> Iterator[Function | Any]:
    """The functions of traces and tasks in the loaded modules below the code root of a file."""
    root = os.path.join(code_root(file), "") if file else ""
    for module in list(sys.modules.values()):
        if not (getattr(module, "__file__", None) or "").startswith(root):
            continue
        for one in list(vars(module).values()):
            if isinstance(one, Trace):
                yield one.function
            elif isinstance(one, Task):
                yield one.spec

"""What a later life takes over: the work that a new run copies from another run (`NewRun.reuse`), the recorded failures
that a resumed run meets again, and whether the code has heard of a request to cancel the run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from msgspec.structs import replace

from ...errors import RunCancelledError
from ..ground.model import NO_PARENT, ROOT, Action, Entry, Kind, Result, RunRow
from ..ground.values import describe_error
from .replay import CallKey, Replay, call_of, mark_row


def work_of(journal: Iterable[Entry], started: Sequence[Action], new: RunRow) -> tuple[list[Entry], list[Action]]:
    """The successful work of a run, as entries and actions of a new run. The copied entries are loose.

    A finished child is copied as an outcome alone, because the child's body is never entered again. A child that failed
    or was under way is copied as an action with the entries of the child's body, under the same numbers: the call of
    the child finds an open action and continues the child. Failures, cancellations and unfinished sleeps are not
    copied.
    """
    run = new.id
    bodies: dict[int, list[Entry]] = {}
    for entry in journal:
        bodies.setdefault(entry.action, []).append(entry)
    children = {action.action: action for action in started}
    by_parent: dict[int, list[Action]] = {}
    for action in started:
        by_parent.setdefault(action.parent, []).append(action)
    first = Action(
        run, NO_PARENT, ROOT, 0, 0, 0, Kind.TASK, bytes(16), new.task, None, None, 0, new.created_at, 0, 0, None, None,
        None,
    )  # fmt: skip
    entries: list[Entry] = []
    actions = [first]
    todo = [ROOT]
    entered = {ROOT}
    while todo:
        body = todo.pop()
        kept = _succeeded(bodies.get(body, ()))
        ended = {entry.child for entry in kept if entry.child is not None}
        open_tasks: dict[tuple[int, bytes, int], Action] = {}
        for action in by_parent.get(body, ()):
            if action.action in entered:
                continue  # a damaged row: an action below itself
            if action.action in ended:
                entered.add(action.action)
                actions.append(action._replace(run=run))
            elif action.kind == Kind.TASK:
                # Of several actions of one call the last action got farthest.
                open_tasks[action.branch, action.fp, action.occ] = action
        for action in open_tasks.values():
            entered.add(action.action)
            # Attempts are counted from the beginning: the driver makes the next attempt number 1.
            actions.append(
                action._replace(
                    run=run,
                    at=new.created_at,
                    attempt=0,
                    failures=0,
                    wake_at=None,
                    wake_boot=None,
                    boot=None,
                    state=None,
                )
            )
            todo.append(action.action)
        for entry in kept:
            child = entry.child if entry.child in children else None
            entries.append(replace(entry, n=len(entries) + 1, child=child, after=None))
        if kept:
            entries.append(mark_row(body, len(entries) + 1, 0, Result.LOOSEN, kept[-1].source))
    return entries, actions


def _succeeded(body: Iterable[Entry]) -> list[Entry]:
    """The successful entries of one body, the last entry of each call.

    A generator counts once it has ended: a second execution of an unfinished generator may give other items (GI1).
    """
    over: set[CallKey] = set()
    kept: dict[int, Entry] = {}
    by_key: dict[tuple[int, bytes, int, int], int] = {}
    alias: dict[int, int] = {}
    for entry in body:
        key = (entry.branch, entry.fp, entry.occ, entry.item)
        if entry.result == Result.END:
            over.add(call_of(entry))
        if entry.result in (Result.VALUE, Result.ITEM, Result.END, Result.ERROR, Result.CANCELLED):
            # A call that was recorded and then cancelled before delivery has two entries; the later entry counts.
            kept.pop(by_key.pop(key, 0), None)
            if entry.result not in (Result.ERROR, Result.CANCELLED):
                kept[entry.n] = entry
                by_key[key] = entry.n
        elif entry.result == Result.PATCH:
            kept[entry.n] = entry
        elif entry.result == Result.REUSE:
            alias[entry.n] = entry.seq
        elif entry.result == Result.DISCARD:
            kept.pop(alias.get(entry.seq, entry.seq), None)
    return [entry for entry in kept.values() if entry.result != Result.ITEM or call_of(entry) in over]


class CaughtFailure(NamedTuple):
    """A recorded failure that the code of a body has caught."""

    entry: Entry
    discards: list[int]
    """The entries to be discarded before the call is tried again: the failure, and the items of a generator before."""


def caught_failures(
    entries_of: Callable[[int], list[Entry]], actions_of: Callable[[int], Sequence[Action]]
) -> list[CaughtFailure]:
    """The recorded failures that a resumed run is answered with again, because its code has caught them.

    Failures that have ended an attempt are discarded already. The bodies looked into are those that a resumed run
    enters: the root task, and each child without a successful outcome.
    """
    found: list[CaughtFailure] = []
    todo = [ROOT]
    entered = {ROOT}
    while todo:
        body = todo.pop()
        left = Replay(entries_of(body), lambda _: False).outcomes()
        ended = {entry.child for entry in left if entry.result not in (Result.ERROR, Result.CANCELLED)}
        for one in actions_of(body):
            if one.kind == Kind.TASK and one.action not in ended and one.action not in entered:
                entered.add(one.action)
                todo.append(one.action)
        calls: dict[CallKey, list[int]] = {}
        for entry in sorted(left, key=lambda entry: entry.item):
            numbers = calls.setdefault(call_of(entry), [])
            numbers.append(entry.n)
            if entry.result == Result.ERROR:
                found.append(CaughtFailure(entry, numbers))
    return sorted(found, key=lambda failure: failure.entry.n)


def is_cancellation(entry: Entry) -> bool:
    """Whether the entry is a request to cancel the run, as a sync body hears of the request (B12)."""
    if entry.result != Result.ERROR or entry.value is None:
        return False
    return describe_error(entry.value)[0].rpartition(".")[2] == RunCancelledError.__name__

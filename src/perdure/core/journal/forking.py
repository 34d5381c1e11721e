"""The past that a fork shares with its original: the journal up to an entry, as a pure function.

- FK1 the entries of the root task, and of children that had ended, keep their numbers and their order, so that the fork
  replays to the very moment of the cut. Nothing behind the cut is taken along.
- FK2 what was under way at the cut is executed by the fork from its beginning: of a child, a sleep or a wait without an
  outcome neither the action nor an entry is taken along.

The numbers of left out entries are filled with rows (`NOTE`) that mean nothing to a replay, because numbers have no
gaps (SG2) and entries refer to each other by number.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import takewhile
from typing import NamedTuple

from msgspec.structs import replace

from ...errors import UsageError
from ..ground.model import ROOT, Action, Ended, Entry, Kind, Result
from .recovering import is_cancellation
from .replay import EventKind, decode_notes, mark_row

_OUTCOMES = (Result.VALUE, Result.ERROR, Result.CANCELLED, Result.ITEM, Result.END, Result.FIRED)
"""The results of entries that hold the outcome of a call."""


class Cut(NamedTuple):
    """Where a fork leaves its original."""

    entry: int
    """The number of an entry of the root task."""
    outcome: bytes | None
    """The encoded value that the call of the entry gives in the fork; `None`: the fork executes the call."""


class Past(NamedTuple):
    """What a fork begins with."""

    entries: list[Entry]
    actions: list[Action]
    ended: list[Ended]
    sources: frozenset[int]


def past_of(run: str, journal: Iterable[Entry], started: Sequence[Action], cut: Cut) -> Past:
    """The shared past of a fork of a finished run.

    Raises:
        UsageError: the run cannot be forked at that entry.
    """
    shared = list(takewhile(lambda entry: entry.n <= cut.entry, journal))
    _check(run, shared, cut.entry)
    last = shared.pop()
    if cut.outcome is not None:
        shared.append(replace(last, result=int(Result.VALUE), value=cut.outcome))
    _refuse_cancelled(run, shared)
    open_again = _ended_by(shared)
    ended = {child for child, parent in open_again.items() if _is_kept(parent, open_again)}
    kept = [action._replace(state=None) for action in started if action.action in ended and action.action != ROOT]
    entries = [entry if entry.action == ROOT or entry.action in ended else _filler(entry) for entry in shared]
    sources = frozenset({entry.source for entry in entries} | {action.source for action in kept})
    return Past(entries, kept, [Ended(one.parent, one.action, True) for one in kept], sources)


def entry_of(run: str, journal: Iterable[Entry], number: int) -> Entry:
    """The entry at which a run may be forked.

    Raises:
        UsageError: see `past_of`.
    """
    shared = list(takewhile(lambda entry: entry.n <= number, journal))
    _check(run, shared, number)
    return shared[-1]


def _check(run: str, shared: Sequence[Entry], number: int) -> None:
    see = f"see the numbers with: perdure show {run}"
    if not shared or shared[-1].n != number:
        raise UsageError(f"run {run!r} has no entry {number}; {see}")
    found = shared[-1]
    if found.result not in _OUTCOMES:
        raise UsageError(f"entry {number} of run {run!r} holds no outcome of a call; {see}")
    if found.action != ROOT:
        raise UsageError(
            f"entry {number} of run {run!r}, {found.name}, belongs to a child. A fork begins in the body of the root "
            f"task: name the entry of the child itself; {see}"
        )


def _ended_by(shared: Iterable[Entry]) -> dict[int, int]:
    """The actions with an outcome that counts, and their parents."""
    ended: dict[int, int] = {}
    failures: dict[int, int] = {}
    for entry in shared:
        if entry.child is not None:
            ended[entry.child] = entry.action
            failures[entry.n] = entry.child
        elif entry.result == Result.DISCARD and entry.seq in failures:
            ended.pop(failures[entry.seq], None)
    return ended


def _is_kept(body: int, ended: dict[int, int]) -> bool:
    """Whether a body, and each body above, is the root task or has ended."""
    seen: set[int] = set()
    while body != ROOT:
        if body not in ended or body in seen:
            return False
        seen.add(body)
        body = ended[body]
    return True


def _filler(entry: Entry) -> Entry:
    return replace(mark_row(ROOT, entry.n, 0, Result.NOTE, entry.source), at=entry.at)


def _refuse_cancelled(run: str, shared: Iterable[Entry]) -> None:
    """Nothing cancels the fork, so its code could not go the way of the cleanup once more."""
    for entry in shared:
        if entry.action == ROOT and (_notes_request(entry) or _is_request(entry)):
            raise UsageError(f"run {run!r} was cancelled, and its code knew by entry {entry.n}: fork before that entry")


def _notes_request(entry: Entry) -> bool:
    return entry.notes is not None and any(event.kind == EventKind.CALLER for event in decode_notes(entry.notes))


def _is_request(entry: Entry) -> bool:
    # A trace may raise the error of another run.
    return entry.kind != Kind.TRACE and is_cancellation(entry)

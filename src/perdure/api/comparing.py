"""Two runs side by side: inputs, outcome, time by name, and where their journals part.

Journals are compared call by call. A call is known by its place: the place of the body, the branch in the body, and the
position in the branch. Commit order depends on time and is no difference. Of several attempts the last outcome of a
place counts, and a failure counts by its type and message. What one run has not reached yet is no difference.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final, NamedTuple

from .. import runtime
from ..core.ground.model import FINISHED, NO_PARENT, ROOT, Action, Entry, Result
from ..core.ground.values import describe_error
from ..core.journal.segment import journal_of
from ..errors import UsageError
from .looking import Picture, Summed, picture, summed

ENTRIES: Final = 200_000
"""Entries of each journal that are compared."""

_Place = tuple[int, ...]
"""Branch and position of each call from the root body down to a call, and the number of a generator's item."""


class RunDifference(NamedTuple):
    """A call in which two runs differ."""

    what: str
    """`call`: the runs have different calls at this place. `outcome`: the same call has different outcomes. `missing`:
    only one run has the call."""
    a: Entry | None
    b: Entry | None


class NamedTimes(NamedTuple):
    """The actions of one name in both runs; `None`: a run has none."""

    name: str
    a: Summed | None
    b: Summed | None


class RunComparison(NamedTuple):
    """Two runs side by side."""

    a: Picture
    b: Picture
    times: list[NamedTimes]
    """The names with the largest difference in time first."""
    differences: list[RunDifference]
    """In the order in which the runs came to them."""
    compared: int
    """Calls that both runs have."""
    cut: bool
    """Whether a journal is longer than what was compared."""


def compared(a: str, b: str) -> RunComparison:
    """Compare two runs of any status.

    Raises:
        RunNotFoundError: no such run.
        JournalDamagedError: a journal is damaged.
    """
    left, right = picture(a), picture(b)
    calls_a, cut_a = _calls(left)
    calls_b, cut_b = _calls(right)
    found = [_difference(calls_a[place], calls_b[place]) for place in calls_a.keys() & calls_b]
    # What a run lacks that may come there still is no difference.
    if right.run.status in FINISHED and not cut_b:
        found += [RunDifference("missing", calls_a[place], None) for place in calls_a.keys() - calls_b]
    if left.run.status in FINISHED and not cut_a:
        found += [RunDifference("missing", None, calls_b[place]) for place in calls_b.keys() - calls_a]
    begins = _begin(left), _begin(right)
    ordered = sorted((one for one in found if one is not None), key=lambda one: _when(one, begins))
    both = len(calls_a.keys() & calls_b)
    return RunComparison(left, right, _times(left, right), ordered, both, cut_a or cut_b)


def _begin(found: Picture) -> int:
    return found.row.created_at if found.row.started_at is None else found.row.started_at


def _when(one: RunDifference, begins: tuple[int, int]) -> tuple[int, int]:
    """How long after the beginning of a run the difference arose: a call with its beginning, before the calls within,
    an outcome with its end."""
    entries = [(entry, begin) for entry, begin in zip((one.a, one.b), begins, strict=True) if entry is not None]
    return min((entry.at - begin + (entry.took if one.what == "outcome" else 0), entry.n) for entry, begin in entries)


def _times(a: Picture, b: Picture) -> list[NamedTimes]:
    one, two = ({each.name: each for each in summed(found)} for found in (a, b))

    def apart(times: NamedTimes) -> int:
        return abs((times.a.time if times.a else 0) - (times.b.time if times.b else 0))

    found = [NamedTimes(name, one.get(name), two.get(name)) for name in dict.fromkeys((*one, *two))]
    return sorted(found, key=apart, reverse=True)


def _calls(found: Picture) -> tuple[dict[_Place, Entry], bool]:
    """The recorded calls of a run by place, and whether there are more."""
    store = runtime.worker().store
    actions = {action.action: action for action in store.actions(found.row.id)}
    bodies: dict[int, _Place] = {ROOT: ()}
    calls: dict[_Place, Entry] = {}
    journal = journal_of(store, found.row)
    for entry in islice(journal, ENTRIES):
        if entry.result < Result.LOOSEN or entry.result == Result.PATCH:
            calls[(*_body(entry.action, actions, bodies), entry.branch, entry.seq, entry.item)] = entry
    return calls, next(journal, None) is not None


def _body(action: int, actions: dict[int, Action], bodies: dict[int, _Place]) -> _Place:
    """The place of the call that began a body."""
    chain: list[Action] = []
    while action not in bodies:
        row = actions.get(action)
        if row is None or row.parent == NO_PARENT or len(chain) > len(actions):
            bodies[action] = (action,)  # a damaged store
            break
        chain.append(row)
        action = row.parent
    for row in reversed(chain):
        bodies[row.action] = (*bodies[row.parent], row.branch, row.seq)
    return bodies[chain[0].action] if chain else bodies[action]


def _difference(a: Entry, b: Entry) -> RunDifference | None:
    if (a.kind, a.name, a.fp) != (b.kind, b.name, b.fp):
        return RunDifference("call", a, b)
    return None if _outcome(a) == _outcome(b) else RunDifference("outcome", a, b)


def _outcome(entry: Entry) -> tuple[object, ...]:
    if entry.result != Result.ERROR or entry.value is None:
        return entry.result, entry.value
    try:
        return entry.result, *describe_error(entry.value)[:2]
    except UsageError:
        return entry.result, entry.value


def parted(differences: Iterable[RunDifference]) -> RunDifference | None:
    """The first place where the calls themselves part, and not only an outcome."""
    return next((one for one in differences if one.what != "outcome"), None)

"""Looking at runs from outside: find, list, and the tree of a run's actions. Data only; the command line prints.

Times are in microseconds, as in `core.ground.model`.
"""

from __future__ import annotations

import builtins
import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec import Struct

from .. import errors, runtime
from ..core.ground import model
from ..core.ground.model import (
    FINISHED,
    NEVER,
    NO_PARENT,
    PARKED,
    ROOT,
    STORED_STATUSES,
    UNFINISHED,
    WAITS,
    Action,
    Entry,
    Kind,
    Result,
    Status,
)
from ..core.ground.values import describe_error, plain_inputs
from ..core.journal.segment import journal_of
from ..core.process.worker import Worker
from ..errors import RunNotFoundError, UsageError
from ..runtime.task_logs import OLDER, SUFFIX, TaskRecord, records_of
from ..store import is_postgres
from ..store import store_path as path_of
from .loading import spec_of_loaded
from .standing import standing, ways_out
from .status import derived_status
from .tags import decode_tags

PAGE = 500
"""Runs that are read from the store in one go."""
LOOK = 3_000
"""Runs that a search for a page looks at."""
KNOWN = 50
"""Actions whose names an error message may list."""


def store_exists() -> bool:
    """Whether there is a store to look at: looking creates none."""
    return runtime.is_open() or store_path() is None or runtime.exists(runtime.store_url())


def store_path() -> str | None:
    """The store's file, absolute; `None` for a store without a file."""
    url = runtime.store_url()
    path = None if is_postgres(url) else path_of(url)
    return None if path is None else os.path.abspath(path)


def find(name: str) -> model.RunRow:
    """The stored record of a run.

    Raises:
        RunNotFoundError: no such run; the message names the place of the search.
    """
    where = store_path() or runtime.store_name()
    if not store_exists():
        raise RunNotFoundError(
            f"no run is called {name!r}: there is no store at {where}. Go to the directory where it was started, or "
            "name the store with --store or PERDURE_STORE."
        )
    row = runtime.worker().store.run(name)
    if row is None:
        raise RunNotFoundError(f"no run is called {name!r} in {where}; see them with: perdure ls")
    return row


class RunInfo(NamedTuple):
    """A run as a list shows it."""

    name: str
    task: str
    status: Status
    created_at: int
    started_at: int | None
    ended_at: int | None
    inputs: bytes
    reuse: str | None
    holder: model.WorkerRow | None
    """The worker that drives the run right now."""
    wake_at: int | None = None
    """The earliest time to drive the run (again), for a run that is QUEUED or parked; `None` too where a message alone
    can wake the run."""
    tags: Mapping[str, str] = MappingProxyType({})
    """See `api.tags`."""
    why: str = ""
    """Why the run does not move, or how the run ended; see `api.standing`."""
    refusal: model.Refusal | None = None
    """Why the last process that tried could not drive the run; `None` unless the run is INTERRUPTED for that."""
    ways_out: Sequence[str] = ()
    """What a person can do about the refusal, a sentence with a command each."""


class RunList(NamedTuple):
    """Runs, newest first."""

    runs: list[RunInfo]
    more: bool
    """Whether there are more runs than the limit."""


class RunFilter(Struct, frozen=True):
    """Which runs are wanted. `None`: every run in this respect."""

    statuses: Collection[Status] | None = None
    """As shown to people."""
    task: str | None = None
    """The task's full name, or a pattern with `*` and `?`."""
    name: str | None = None
    """The run's name, or a pattern with `*` and `?`."""
    inputs: Mapping[str, Any] | None = None
    """Inputs with their values; a run may have further inputs."""
    since: int | None = None
    """Created at this time or later (wall, microseconds)."""
    until: int | None = None
    """Created before this time."""
    tags: Mapping[str, str] | None = None
    """Tags with their values; a run may have further tags."""
    error: str | None = None
    """The class of the exception with which the run failed, or a base class of it, with or without the module. Base
    classes are known of Python's built-in exceptions and of perdure's."""
    also: Callable[[model.RunRow], bool] | None = None
    """A further condition on the stored record."""

    def takes(self, row: model.RunRow) -> bool:
        """Whether the run is wanted, apart from the status."""
        return (
            (self.task is None or row.task == self.task or fnmatchcase(row.task, self.task))
            and (self.since is None or row.created_at >= self.since)
            and (self.until is None or row.created_at < self.until)
            and (self.name is None or row.name == self.name or fnmatchcase(row.name, self.name))
            and (self.tags is None or self.tags.items() <= decode_tags(row.tags).items())
            and (self.inputs is None or _has_inputs(row, self.inputs))
            and (self.error is None or _failed_with(row, self.error))
            and (self.also is None or self.also(row))
        )

    def stored(self) -> Collection[Status] | None:
        """The stored statuses of the runs that may be wanted."""
        if self.statuses is None:
            return None if self.error is None else {Status.FAILED}
        # These are derived from a stored RUNNING, or from the column `paused`, so each such run is looked at.
        derived = {Status.INTERRUPTED, *PARKED}.intersection(self.statuses)
        more = UNFINISHED if Status.PAUSED in self.statuses else (Status.RUNNING,) if derived else ()
        return {*self.statuses, *more}.intersection(STORED_STATUSES)


def _failed_with(row: model.RunRow, error: str) -> bool:
    if row.status != Status.FAILED or row.result != Result.ERROR or row.value is None:
        return False
    try:
        kind, _, _ = describe_error(row.value)
    except UsageError:
        return False
    return any(one == error or one.endswith(f".{error}") for one in (kind, *_bases(kind)))


def _bases(kind: str) -> list[str]:
    """The full names of the base classes of a recorded exception, as far as they are known without loading code."""
    module, _, name = kind.rpartition(".")
    known = builtins if module in ("", "builtins") else errors if module == errors.__name__ else None
    found = getattr(known, name, None)
    if not (isinstance(found, type) and issubclass(found, BaseException)):
        return []
    return [f"{one.__module__}.{one.__qualname__}" for one in found.__mro__[1:-1]]


def _has_inputs(row: model.RunRow, wanted: Mapping[str, Any]) -> bool:
    spec = spec_of_loaded(row.target)
    try:
        found = plain_inputs(row.inputs)
        if spec is not None:
            # By the declared types where these are loaded. No code is loaded only to compare values.
            args, more = spec.signature.decode_inputs(row.inputs)
            found.update(zip(spec.signature.parameters, args, strict=False))
            found.update(more)
    except UsageError:
        return False
    return all(name in found and found[name] == value for name, value in wanted.items())


def selected(wanted: RunFilter, below: int | None = None) -> Iterator[model.RunRow]:
    """The wanted runs, newest first, read from the store page by page.

    Args:
        below: only runs of a smaller number.
    """
    for page in pages_of(wanted, below, PAGE):
        yield from page.wanted


class _RunPart(NamedTuple):
    """A part of the store's runs, newest first."""

    wanted: list[model.RunRow]
    looked: int
    """How many runs were looked at."""
    first: int
    """The number of the first run that was looked at."""
    last: int
    """The number of the last run that was looked at."""


def pages_of(wanted: RunFilter, below: int | None, first: int) -> Iterator[_RunPart]:
    """The runs that may be wanted, page by page. `first`: the size of the first page."""
    if not store_exists():
        return
    worker = runtime.worker()
    stored = wanted.stored()
    size = first
    while rows := _read(worker, wanted, stored, below, size):
        below = rows[-1].id
        taken = [row for row in rows if wanted.takes(row)]
        worker.doubt_holders(taken)
        kept = [row for row in taken if wanted.statuses is None or derived_status(row) in wanted.statuses]
        yield _RunPart(kept, len(rows), rows[0].id, below)
        if len(rows) < size:
            return
        size = PAGE


def _read(
    worker: Worker, wanted: RunFilter, stored: Collection[Status] | None, below: int | None, size: int
) -> list[model.RunRow]:
    name = wanted.name
    if name is None or _is_pattern(name):
        task = None if wanted.task is None or _is_pattern(wanted.task) else wanted.task
        return worker.store.runs(limit=size, statuses=stored, below=below, task=task)
    row = worker.store.run(name)
    if row is None or (below is not None and row.id >= below) or (stored is not None and row.status not in stored):
        return []
    return [row]


def _is_pattern(text: str) -> bool:
    return any(character in text for character in "*?[")


class RunSearch(NamedTuple):
    """Some wanted runs, newest first."""

    rows: list[model.RunRow]
    after: int | None
    """Where the search goes on, as the number of a run; `None`: there are no further runs."""
    reached: int | None
    """When the last run was created that was looked at, where the search ended before the page was full."""


def search(wanted: RunFilter, below: int | None, limit: int) -> RunSearch:
    """A page of the wanted runs. The search ends after `LOOK` runs, so that a page never takes long."""
    found: list[model.RunRow] = []
    looked = 0
    for part in pages_of(wanted, below, limit + 1):
        found += part.wanted
        looked += part.looked
        if len(found) > limit:
            return RunSearch(found[:limit], found[limit - 1].id, None)
        if looked >= LOOK:
            last = runtime.worker().store.run_by_id(part.last)
            return RunSearch(found, part.last, None if last is None else last.created_at)
    return RunSearch(found, None, None)


def runs(*, limit: int | None = None, status: Status | None = None, wanted: RunFilter | None = None) -> RunList:
    """The newest runs, at most `limit` of them."""
    if wanted is None:
        wanted = RunFilter(None if status is None else {status})
    found: list[RunInfo] = []
    worker = runtime.worker() if store_exists() else None
    for row in selected(wanted):
        assert worker is not None
        if limit is not None and len(found) == limit:
            return RunList(found, True)
        found.append(_info(worker, row))
    return RunList(found, False)


def status(name: str) -> Status:
    """The status of a run.

    Raises:
        RunNotFoundError: no such run.
    """
    return derived_status(find(name))


def names(statuses: Collection[Status] | None = None, limit: int = 500) -> list[str]:
    """Names of runs by stored status, newest first; for completion."""
    if not store_exists():
        return []
    return [row.name for row in runtime.worker().store.runs(limit=limit, statuses=statuses)]


def info_of(row: model.RunRow) -> RunInfo:
    """A run as a list shows it, from the stored record."""
    return _info(runtime.worker(), row)


def _info(worker: Worker, row: model.RunRow) -> RunInfo:
    status = derived_status(row)
    refusal = worker.store.refusal(row.id) if status == Status.INTERRUPTED else None
    return RunInfo(
        row.name, row.task, status, row.created_at, row.started_at, row.ended_at, row.inputs, row.reuse,
        worker.holder(row) if row.status == Status.RUNNING else None,
        row.wake_at if row.wake_at is not None and row.wake_at < NEVER else None, decode_tags(row.tags),
        standing(row, status), refusal, () if refusal is None else ways_out(row, refusal),
    )  # fmt: skip


class LogFile(NamedTuple):
    """The output of a container or a task in one attempt, so far."""

    name: str
    """The task's."""
    action: int
    attempt: int
    path: str
    """The file, which may not exist yet."""
    records: bool
    """Whether the file has records, as `runtime.task_logs` keeps them, and not the text of a container."""


def log_files(name: str, action: str | None = None) -> list[LogFile]:
    """The logs of a run's tasks and containers, in the order in which these were started.

    Args:
        name: the run.
        action: a task's name, such as `greet`, or the number in `perdure show --json`; all without it.

    Raises:
        RunNotFoundError: no such run.
        UsageError: the run has no such task or container.
    """
    row = find(name)
    started = runtime.worker().store.actions(row.id)
    names = {ROOT: row.task} | {one.action: one.name for one in started}
    folder = os.path.join(runtime.container_logs(), row.uid.hex())
    present: set[tuple[int, int, str]] = set()
    for file in os.listdir(folder) if os.path.isdir(folder) else ():
        number, _, rest = file.partition(".")
        attempt, dot, kind = rest.partition(".")
        if number.isdecimal() and attempt.isdecimal() and dot + kind in (_CONTAINERS, SUFFIX):
            present.add((int(number), int(attempt), dot + kind))
    if row.status not in FINISHED:
        present.update((one.action, one.attempt, _CONTAINERS) for one in started if one.kind == Kind.CONTAINER)
    found = [
        LogFile(
            names.get(number, row.task), number, attempt, os.path.join(folder, f"{number}.{attempt}{kind}"),
            kind == SUFFIX,
        )
        for number, attempt, kind in sorted(present)
    ]  # fmt: skip
    if action is None:
        return found
    chosen = [log for log in found if action in (str(log.action), log.name, log.name.rpartition(".")[2])]
    if not chosen and action not in {one for number, name in names.items() for one in _called(number, name)}:
        known = ", ".join(dict.fromkeys(f"{log.name} ({log.action})" for log in found)) or "none"
        raise UsageError(f"run {name!r} has no task or container {action!r}; logs are there of: {known}")
    return chosen


_CONTAINERS = ".log"


def _called(number: int, name: str) -> tuple[str, str, str]:
    return str(number), name, name.rpartition(".")[2]


def last_records(log: LogFile, most: int) -> list[TaskRecord]:
    """The last records of a task's log, or the last lines of a container's."""
    found: list[TaskRecord] = []
    for path in (f"{log.path}{OLDER}", log.path):
        try:
            with open(path, "rb") as stream:
                stream.seek(max(0, os.fstat(stream.fileno()).st_size - _TAIL_BYTES))
                data = stream.read()
        except FileNotFoundError:
            continue
        if log.records:
            found += records_of(data)
        else:
            found += [TaskRecord(0, line.decode("utf-8", "replace"), "container") for line in data.splitlines()]
    return found[-most:]


_TAIL_BYTES = 256 << 10


class AttemptFailure(NamedTuple):
    """How an attempt of a task failed that was tried again."""

    at: int
    """When (wall, microseconds)."""
    error: bytes
    """Encoded."""


@dataclass(slots=True)
class ActionNode:
    """One action of a run's tree. `inputs`, `value` and `error` are encoded."""

    kind: str
    name: str
    status: str
    """A run's `Status`, or CANCELLED, UNFINISHED (its parent ended first), FIRED and NOT_FIRED (timeouts), CLOSED (a
    generator that was closed early)."""
    action: int | None = None
    attempts: int | None = None
    at: int | None = None
    took: int | None = None
    """Microseconds; `None` while the action is under way."""
    until: int | None = None
    """A recorded deadline."""
    label: str | None = None
    items: int | None = None
    """Of a generator: how many were recorded."""
    discarded: bool = False
    """A failure that a retry or a resume has taken back."""
    earlier: bool = False
    """Recorded by an attempt that failed, or before the source changed, and not asked for since."""
    reused: bool = False
    """Recorded before an attempt failed or the source changed, or in a recovered run; handed out again."""
    inputs: bytes | None = None
    value: bytes | None = None
    error: bytes | None = None
    depth: int = 0
    parent: int = -1
    """The parent's position in the tree."""
    entry: int | None = None
    """The number of the entry in the run's journal that holds the outcome, in commit order; of a generator, the first
    entry."""
    failures: tuple[AttemptFailure, ...] = ()
    """The failed attempts of a task that were tried again, oldest first."""


class Tree(NamedTuple):
    """A run's actions, parents first."""

    run: RunInfo
    nodes: dict[int, ActionNode]
    """By position in the whole tree; the root is 0. Nodes beyond the limit are absent."""
    total: int


class Picture:
    """All actions of a run, parents first. A node is made when asked for, as a run may have very many actions."""

    def __init__(self, row: model.RunRow, run: RunInfo, grown: _Grown) -> None:
        self.row = row
        self.run = run
        self._grown = grown
        self._nodes: dict[int, ActionNode] = {}

    @property
    def total(self) -> int:
        """The number of nodes; the root is node 0."""
        return len(self._grown.flat)

    def node(self, position: int) -> ActionNode:
        """The node at a position from 0 to `total - 1`."""
        return self._grown.node(position, self._nodes)

    def nodes(self, positions: Iterable[int]) -> dict[int, ActionNode]:
        """The nodes at these positions and their ancestors, by position."""
        found: dict[int, ActionNode] = {}
        for position in positions:
            while position >= 0 and position not in found:
                found[position] = self.node(position)
                position = found[position].parent
        return dict(sorted(found.items()))


def picture(name: str) -> Picture:
    """The actions of a run, each below its caller, in the order of their beginnings.

    Raises:
        RunNotFoundError: no such run.
    """
    row = find(name)
    worker = runtime.worker()
    info = _info(worker, row)
    grown = _Grown(row, info.status, worker.store.actions(row.id), worker.clock.wall())
    grown.read(journal_of(worker.store, row))
    grown.arrange()
    return Picture(row, info, grown)


def tree(name: str, limit: int | None = None) -> Tree:
    """The actions of a run, each below its caller, in the order of their beginnings.

    Args:
        limit: at most so many nodes: the first and the last, with their ancestors.

    Raises:
        RunNotFoundError: no such run.
    """
    return part(picture(name), limit)


def part(found: Picture, limit: int | None = None, *, failed: bool = False) -> Tree:
    """Some actions of a run as a tree, with their ancestors.

    Args:
        limit: at most so many nodes: the first and the last.
        failed: only failed actions.
    """
    wanted: Sequence[int] = range(found.total)
    if failed:
        wanted = [position for position in wanted if found.node(position).status == "FAILED"]
    if limit is not None and len(wanted) > limit:
        tail = limit // 2
        wanted = (*wanted[: limit - tail], *wanted[len(wanted) - tail :])
    return Tree(found.run, found.nodes(wanted), found.total)


def slowest(found: Picture, limit: int | None) -> Tree:
    """The slowest actions of a run with the root in front, the slowest first, by their rank and not by position."""
    ranked = sorted(range(1, found.total), key=lambda position: -(found.node(position).took or 0))[:limit]
    nodes = {0: found.node(0)}
    for rank, position in enumerate(ranked, 1):
        nodes[rank] = replace(found.node(position), depth=1, parent=0)
    return Tree(found.run, nodes, len(nodes))


def named_action(found: Picture, action: str) -> ActionNode:
    """The action of a number or a name; of several actions of a name, the last that failed, else the last.

    Raises:
        UsageError: the run has no such action.
    """
    nodes = [found.node(position) for position in range(found.total)]
    chosen = [
        node for node in nodes
        if action in (node.name, node.name.rpartition(".")[2], "" if node.action is None else str(node.action))
    ]  # fmt: skip
    if not chosen:
        known = ", ".join(dict.fromkeys(node.name for node in nodes[:KNOWN]))
        raise UsageError(f"run {found.run.name!r} has no action {action!r}; its actions are: {known}")
    return next((node for node in reversed(chosen) if node.status == "FAILED"), chosen[-1])


@dataclass(slots=True)
class _Generator:
    """The rows of one generator, summed up."""

    items: int = 0
    took: int = 0
    result: int = Result.ITEM
    error: bytes | None = None

    def add(self, entry: Entry) -> None:
        self.items += entry.result == Result.ITEM
        self.took += entry.took
        self.result = entry.result
        self.error = entry.value if entry.result == Result.ERROR else None


class Summed(NamedTuple):
    """All actions of one name in a run."""

    name: str
    actions: int
    failed: int
    open: int
    """How many are under way."""
    time: int
    """The sum of their durations."""
    most: int
    """The longest duration."""


def summed(found: Picture) -> list[Summed]:
    """The actions of a run by name, the names with the most time first."""
    by_name: dict[str, Summed] = {}
    for position in range(1, found.total):
        node = found.node(position)
        one = by_name.get(node.name) or Summed(node.name, 0, 0, 0, 0, 0)
        took = node.took or 0
        by_name[node.name] = Summed(
            node.name, one.actions + 1, one.failed + (node.status == "FAILED"), one.open + (node.took is None),
            one.time + took, max(one.most, took),
        )  # fmt: skip
    return sorted(by_name.values(), key=lambda one: -one.time)


class _Grown:
    """A journal as a tree. Rows become nodes only on demand, as a journal may hold very many rows."""

    def __init__(self, run: model.RunRow, status: Status, started: Sequence[Action], now: int) -> None:
        self._run = run
        self._status = status
        self._actions = {action.action: action for action in started}
        self._now = now
        self._rows: dict[int, list[Entry | Action]] = {}
        """By body: the entries that stand for a call, and the actions without an entry."""
        self._generators: dict[tuple[int, int, bytes, int], tuple[int, _Generator]] = {}
        self._generator_at: dict[int, _Generator] = {}
        self._same: dict[int, int] = {}
        self._failures: dict[int, list[AttemptFailure]] = {}
        """Entry numbers that stand for the call of another entry: items of a generator, reused outcomes."""
        self._discarded: dict[int, int] = {}
        """Numbers of entries that were taken back, and of the tombstones that say so."""
        self._newest: dict[int, int] = {}
        """By body: the newest entry that stands for a call."""
        self._earlier: set[int] = set()
        self._reused: set[int] = set()
        self._cancelled: set[int] = set()
        self._last_of: dict[int, int] = {}
        """By action: the entry with the last outcome. A failure that was taken back is not the last outcome; the nodes
        of the action's body stand below the entry given here."""
        self.flat: list[Entry | Action | None] = []
        """Parents first; the root is `None`."""
        self._parents: list[int] = []

    def read(self, journal: Iterable[Entry]) -> None:
        """Take in the journal, in commit order."""
        rows, plain = self._rows, (Result.VALUE, Result.ERROR, Result.FIRED, Result.PATCH)
        for entry in journal:
            result = entry.result
            if result < Result.LOOSEN:
                self._newest[entry.action] = entry.n
            if result in plain and not entry.item:
                rows.setdefault(entry.action, []).append(entry)
            elif result >= Result.LOOSEN:
                self._mark(entry)
            elif result == Result.CANCELLED:
                self._cancel(entry)
            else:
                self._generate(entry)
            if entry.child is not None:
                self._last_of[entry.child] = entry.n
        for action in self._actions.values():
            last = self._last_of.get(action.action)
            if last in self._discarded and self._status not in FINISHED:
                # The action failed, the failure was taken back, and the next attempt has no outcome yet.
                del self._last_of[action.action]
                last = None
            if last is None and action.parent != NO_PARENT:
                rows.setdefault(action.parent, []).append(action)

    def _mark(self, entry: Entry) -> None:
        if entry.result == Result.NOTE:
            return
        if entry.result == Result.FAILED and entry.value is not None:
            self._failures.setdefault(entry.action, []).append(AttemptFailure(entry.at, entry.value))
        if entry.result in (Result.LOOSEN, Result.FAILED):
            loose = {row.n for row in self._rows.get(entry.action, ()) if isinstance(row, Entry) and row.n >= entry.seq}
            self._earlier |= loose - self._discarded.keys()
            self._reused -= loose
            return
        n = self._same.get(entry.seq, entry.seq)
        self._earlier.discard(n)
        if entry.result == Result.DISCARD:
            self._discarded[n] = entry.n
        else:
            self._reused.add(n)
            self._same[entry.n] = n

    def _cancel(self, entry: Entry) -> None:
        # Usually the only row of the call. Otherwise the outcome was recorded, and cancelled before its delivery.
        rows = self._rows.setdefault(entry.action, [])
        for position in range(len(rows) - 1, -1, -1):
            row = rows[position]
            if isinstance(row, Entry) and (row.branch, row.fp, row.occ) == (entry.branch, entry.fp, entry.occ):
                if row.n not in self._earlier:
                    self._cancelled.add(row.n)
                    return
                break
        rows.append(entry)

    def _generate(self, entry: Entry) -> None:
        key = (entry.action, entry.branch, entry.fp, entry.occ)
        first, generator = self._generators.get(key, (0, None))
        if generator is None or first in self._discarded:
            generator = _Generator()
            self._generators[key] = (entry.n, generator)
            self._generator_at[entry.n] = generator
            self._rows.setdefault(entry.action, []).append(entry)
        else:
            self._same[entry.n] = first
        generator.add(entry)

    def arrange(self) -> None:
        """Order all rows as a tree."""
        flat, parents, rows = self.flat, self._parents, self._rows
        for body in rows.values():
            body.sort(key=_begin)
        flat.append(None)
        parents.append(-1)
        stack = [(iter(rows.get(ROOT, ())), 0)]
        opened = {ROOT}  # in a damaged journal an action may stand below itself
        while stack:
            body_rows, parent = stack[-1]
            for row in body_rows:
                flat.append(row)
                parents.append(parent)
                child = self._child(row)
                if child is not None and child in rows and child not in opened:
                    opened.add(child)
                    stack.append((iter(rows[child]), len(flat) - 1))
                    break
            else:
                stack.pop()

    def _child(self, row: Entry | Action) -> int | None:
        """The action with its body below the row."""
        if not isinstance(row, Entry):
            return row.action
        return row.child if row.child is not None and self._last_of.get(row.child) == row.n else None

    def node(self, position: int, nodes: dict[int, ActionNode]) -> ActionNode:
        """The node at a position, made together with its ancestors."""
        known = nodes.get(position)
        if known is not None:
            return known
        row, parent = self.flat[position], self._parents[position]
        if row is None:
            made = self._root()
        else:
            above = self.node(parent, nodes)
            made = self._ended(row) if isinstance(row, Entry) else self._open(row)
            made.depth, made.parent = above.depth + 1, parent
            # The attempt that ended the parent is the last attempt, not an earlier one.
            made.earlier = made.earlier and above.status != "FAILED"
            if made.discarded and above.status == "FAILED" and isinstance(row, Entry):
                # Taken back for a resume only. No attempt has followed, so the failure is the parent's end.
                made.discarded = self._discarded[row.n] < self._newest.get(row.action, 0)
            if made.status in _UNDER_WAY and above.status not in _UNDER_WAY:
                # The parent ended, or went on without this action.
                made.status = "ABORTED" if above.status == "ABORTED" else "UNFINISHED"
            elif made.status == "RUNNING" and self._status in (Status.INTERRUPTED, Status.PAUSED):
                made.status = str(self._status)
        made.failures = tuple(self._failures.get(-1 if made.action is None else made.action, ()))
        nodes[position] = made
        return made

    def _root(self) -> ActionNode:
        run, row = self._run, self._actions.get(ROOT)
        attempts = max(1, row.attempt) if row is not None else int(run.started_at is not None)
        took = None
        if run.started_at is not None and run.ended_at is not None:
            took = max(0, run.ended_at - run.started_at)
        return ActionNode(
            "task", run.task, str(self._status), ROOT, attempts, run.started_at, took,
            row.wake_at if row is not None and row.state is None and self._status in _UNDER_WAY else None,
            inputs=run.inputs,
            value=run.value if run.result == Result.VALUE else None,
            error=run.value if run.result == Result.ERROR else None,
        )  # fmt: skip

    def _ended(self, entry: Entry) -> ActionNode:
        n = entry.n
        generator = self._generator_at.get(n)
        result = entry.result if generator is None else generator.result
        if n in self._cancelled:
            result = Result.CANCELLED
        node = ActionNode(
            _KINDS[entry.kind], entry.name, _OUTCOMES[result], entry.child, None, entry.at, entry.took,
            label=entry.label, inputs=entry.inputs, discarded=n in self._discarded, earlier=n in self._earlier,
            reused=n in self._reused, entry=n,
        )  # fmt: skip
        if generator is not None:
            node.items, node.took, node.error = generator.items, generator.took, generator.error
        elif result == Result.ERROR:
            node.error = entry.value
        elif result in (Result.VALUE, Result.PATCH):
            node.value = entry.value
        started = self._actions.get(entry.child) if entry.child is not None else None
        if started is not None and started.kind in (Kind.TASK, Kind.CONTAINER):
            if self._child(entry) is not None:
                node.attempts = max(1, started.attempt)
            node.inputs = started.inputs
        elif started is not None and started.kind == Kind.TRACE:
            node.attempts = started.attempt
        elif started is not None:
            node.until = started.wake_at
        elif entry.kind in (Kind.TASK, Kind.CONTAINER) and result != Result.CANCELLED:
            node.attempts = 0  # from the cache
        return node

    def _open(self, action: Action) -> ActionNode:
        waits = action.wake_at is not None and action.state is None and action.wake_at > self._now
        status = str(self._status)
        if action.kind == Kind.TIMEOUT:
            status = "NOT_FIRED"
        elif self._status in (Status.RUNNING, *PARKED):
            status = "WAITING" if action.kind in WAITS else "SLEEPING" if waits else "RUNNING"
        elif self._status in (Status.SUCCEEDED, Status.FAILED, Status.CANCELLED):
            status = "UNFINISHED"
        return ActionNode(
            _KINDS[action.kind], action.name, status, action.action,
            max(1, action.attempt) if action.kind in (Kind.TASK, Kind.CONTAINER, Kind.TRACE) else None, action.at, None,
            action.wake_at if action.state is None else None, action.label,
            inputs=None if action.kind in WAITS else action.inputs,
        )  # fmt: skip


_KINDS = {int(kind): kind.name.lower() for kind in Kind}
_OUTCOMES: dict[int, str] = {
    Result.VALUE: "SUCCEEDED", Result.ERROR: "FAILED", Result.CANCELLED: "CANCELLED", Result.ITEM: "RUNNING",
    Result.END: "SUCCEEDED", Result.CLOSED: "CLOSED", Result.FIRED: "FIRED", Result.PATCH: "SUCCEEDED",
}  # fmt: skip
_UNDER_WAY = ("RUNNING", "SLEEPING", "WAITING", "INTERRUPTED", "PAUSED")


def _begin(row: Entry | Action) -> tuple[int, int]:
    return (row.at, row.n) if isinstance(row, Entry) else (row.at, 0)


class NodeError(NamedTuple):
    """A node's failure as text."""

    type: str
    message: str


def error_of(node: ActionNode | AttemptFailure) -> NodeError | None:
    """The failure of a node, or of an attempt; `None` for a node without one."""
    if node.error is None:
        return None
    try:
        kind, message, _ = describe_error(node.error)
    except UsageError as error:
        return NodeError("unreadable", str(error))
    return NodeError(kind, message)

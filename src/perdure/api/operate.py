"""Operating runs from outside: start, continue, end, repeat, list and look at them.

Plain functions that give data; what prints (the command line) calls them. Nothing here blocks for long: starting and
continuing give a `Handle`, and the run is driven meanwhile. Times are those of `core.model` (microseconds).
"""

from __future__ import annotations

import os
import secrets
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import runtime
from ..core import model
from ..core.driver import Driver
from ..core.model import (
    FINISHED,
    NO_PARENT,
    ROOT,
    Action,
    Claim,
    Created,
    CreateRun,
    Entry,
    Kind,
    NewRun,
    Result,
    RunWrites,
    Status,
)
from ..core.spec import TaskSpec
from ..core.values import ANY, describe_error
from ..core.worker import Worker
from ..errors import (
    PerdureError,
    RunAbortedError,
    RunAlreadyActive,
    RunNotFoundError,
    UsageError,
)
from ._names import random_run_name
from .loading import load_file, load_target, spec_of_loaded, task_at
from .run import (
    CLAIMABLE,
    Request,
    Run,
    check_name,
    continue_run,
    derived_status,
    describe_holder,
    mention_similar,
    request_for,
    settle,
)
from .task import Task

RESUMABLE = (*CLAIMABLE, Status.FAILED)
"""What a run may be, stored, for `resume` to continue it by its name."""


# -- a run in hand ---------------------------------------------------------------------------------------------


class Failure(NamedTuple):
    """A recorded exception as text; nothing is rebuilt for it."""

    type: str
    message: str
    traceback: str


class Ended(NamedTuple):
    """How a run has ended."""

    name: str
    task: str
    status: Status
    result: Any
    error: Failure | None
    replayed: int
    executed: int
    driven: bool
    """Whether it was driven here, rather than having ended before."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A run that this process drives, or (without a driver) one that had ended before."""

    run: Run
    driver: Driver | None
    continued: bool
    """Whether an earlier driver had begun it."""

    @property
    def name(self) -> str:
        return self.run.name

    @property
    def task(self) -> str:
        return self.run.task

    @property
    def done(self) -> Future[Any] | None:
        """Resolved when driving is over; `None` if there was nothing to drive."""
        return None if self.driver is None else self.driver.done


def outcome(handle: Handle) -> Ended:
    """How the run ended. To be asked once driving is over.

    Raises:
        PerdureError: driving ended before the run did (lost lease, abort, mismatch, broken store).
    """
    driver = handle.driver
    if driver is None:
        return _recorded(handle.run.row)
    result, data, live = driver.done.result()
    counts = (driver.replayed, driver.executed, True)
    if result == Result.VALUE:
        return Ended(handle.name, handle.task, Status.SUCCEEDED, live, None, *counts)
    return Ended(handle.name, handle.task, Status.FAILED, None, Failure(*describe_error(data)), *counts)


def _recorded(row: model.Run) -> Ended:
    if row.status == Status.ABORTED:
        raise RunAbortedError(_aborted(row.name))
    if row.value is None:
        raise PerdureError(f"run {row.name!r} has not ended; it is {derived_status(row)}")
    if row.result == Result.ERROR:
        error = Failure(*describe_error(row.value))
        return Ended(row.name, row.task, Status.FAILED, None, error, 0, 0, False)
    # By its declared type where that is at hand. No code is loaded only to show a value.
    spec = spec_of_loaded(row.target)
    value = ANY.decode(row.value) if spec is None else spec.signature.returns.decode(row.value)
    return Ended(row.name, row.task, Status.SUCCEEDED, value, None, 0, 0, False)


def _aborted(name: str) -> str:
    return f"run {name!r} was aborted; a new run that reuses its work: perdure rerun {name} --recover"


def stop(handles: Iterable[Handle], why: str) -> None:
    """Drive these no further. They stay as they are and can be resumed; `done` is resolved soon."""
    for handle in handles:
        if handle.driver is not None:
            handle.driver.stop(PerdureError(why))


class Progress(NamedTuple):
    """What a driven run is at."""

    replayed: int
    executed: int
    running: dict[str, int]
    """Names of the child tasks that are under way, and how many of each."""
    sleeping_until: int | None
    """The nearest recorded deadline (wall, microseconds), where the run waits for nothing but time."""


def progress(handle: Handle) -> Progress:
    """Counts and whereabouts of a driven run. Asks the store: not for tight loops."""
    driver = handle.driver
    if driver is None:
        return Progress(0, 0, {}, None)
    names = Counter(body.name for body in list(driver.bodies.values()) if body.action != ROOT)
    until = None
    if derived_status(driver.run) == Status.SLEEPING:
        clock = driver.worker.clock
        waits = [
            action.wake_at
            for action in driver.worker.store.open_actions(driver.run_id)
            if action.wake_at is not None and action.kind != Kind.TIMEOUT and action.wake_at > clock.wall()
        ]
        until = min(waits, default=None)
    return Progress(driver.replayed, driver.executed, dict(names), until)


# -- starting and continuing -----------------------------------------------------------------------------------


def request(task: Task[..., Any], args: tuple[Any, ...], inputs: dict[str, Any], name: str | None) -> Request:
    """A run as it is asked for, checked and named; nothing is stored yet.

    Raises:
        UsageError: the inputs or the name cannot be used.
    """
    return request_for(task, args, inputs, name, None)


def submit(asked: Request) -> Handle:
    """Start the run, or continue the one of that name, or find that it has ended.

    Raises:
        RunConflictError: the name belongs to another task or other inputs.
        RunAlreadyActive: somebody drives it.
        StoreError: the store cannot be used.
    """
    worker = runtime.worker()
    if not asked.named:
        mention_similar(worker, asked)
    found = worker.submit(asked.new, asked.spec)
    if not isinstance(found, Driver):
        _ensure_recovered(worker, found)
    driver, run = settle(worker, asked, found)
    return Handle(run, driver, not isinstance(found, Driver))


def resume(name: str, file: str | None = None) -> Handle:
    """Continue an interrupted or failed run; one that has succeeded is only looked up.

    Args:
        file: where its code is, if not where it was.

    Raises:
        RunNotFoundError: no such run.
        RunAbortedError: it was aborted.
        RunAlreadyActive: somebody drives it.
        UsageError: its code may not be loaded, or cannot be.
    """
    row = find(name)
    worker = runtime.worker()
    if row.status == Status.SUCCEEDED:
        return Handle(Run(row), None, True)
    if row.status == Status.ABORTED:
        raise RunAbortedError(_aborted(name))
    _refuse_active(worker, row)
    spec = _code_of(row, file)
    _ensure_recovered(worker, row)
    driver, run = continue_run(worker, find(name), spec, RESUMABLE)
    return Handle(run, driver, True)


def interrupted() -> list[str]:
    """The names of the runs that nobody drives any more, oldest first."""
    if not store_exists():
        return []
    worker = runtime.worker()
    rows = worker.store.runs(statuses={Status.RUNNING})
    return [row.name for row in reversed(rows) if worker.holder(row) is None]


def request_rerun(name: str, *, recover: bool, new_name: str | None = None, file: str | None = None) -> Request:
    """A new run of the same task with the same inputs, as `submit_rerun` takes it; nothing is stored yet.

    Args:
        name: the run to repeat.
        recover: reuse what succeeded in it.
        new_name: the new run's name; a readable random one by default.
        file: where the code is, if not where it was.

    Raises:
        RunNotFoundError: no such run.
        RunAlreadyActive: `recover`, and the run is still being driven.
        UsageError: the code may not be loaded, or cannot be; or the new name cannot be used.
    """
    if new_name is not None:
        check_name(new_name)
        if new_name == name:
            raise UsageError(f"the new run needs a name of its own; {name!r} is the old one's")
    old = find(name)
    worker = runtime.worker()
    if recover:
        _refuse_active(worker, old)
    spec = _code_of(old, file)
    new = NewRun(
        uid=secrets.token_bytes(16),
        name=new_name or random_run_name(),
        task=old.task,
        target=spec.target(),
        inputs=old.inputs,
        inputs_hash=old.inputs_hash,
        created_at=worker.clock.wall(),
        reuse=old.name if recover else None,
    )
    return Request(spec, new, True)


def submit_rerun(asked: Request) -> Handle:
    """Start what `request_rerun` asks for. Raises what `submit` raises."""
    if asked.new.reuse is None:
        return submit(asked)
    # Without a claim, and so not driven, until it holds what it reuses.
    worker = runtime.worker()
    created = worker.store.commit([CreateRun(asked.new, None)])[0]
    assert isinstance(created, Created)
    _ensure_recovered(worker, created.run)
    row = worker.store.run_by_id(created.run.id)
    driver, run = settle(worker, asked, created.run if row is None else row)
    return Handle(run, driver, not created.fresh)


def _code_of(row: model.Run, file: str | None) -> TaskSpec:
    if file is None:
        return load_target(row.target, row.name, runtime.project_root())
    return task_at(load_file(file), row.target.split("::")[2], file)


def _refuse_active(worker: Worker, row: model.Run) -> None:
    holder = worker.holder(row)
    if holder is not None:
        raise RunAlreadyActive(describe_holder(worker, row, holder))


# -- recovering: a new run that begins with another's work -----------------------------------------------------


def _ensure_recovered(worker: Worker, row: model.Run) -> None:
    """Give a run that was submitted with `reuse` the work that it reuses, unless it has begun already.

    One transaction writes all of it, so a crash leaves the run with everything or with nothing, and in the latter case
    whoever continues it comes by here again. The claim under which it is written is let go at once.
    """
    if row.reuse is None or row.status not in CLAIMABLE or worker.holder(row) is not None:
        return
    store = worker.store
    if store.journal_length(row.id) or store.actions(row.id, NO_PARENT):
        return
    old = store.run(row.reuse)
    if old is None:
        raise RunNotFoundError(f"run {row.name!r} was to reuse what run {row.reuse!r} did, which is gone")
    claim = Claim(secrets.token_bytes(16), worker.id)
    if store.claim(row.id, claim, expect=row.token, entries=0, statuses=CLAIMABLE) is None:
        return
    entries, actions = _work_of(store.entries(old.id), store.actions(old.id), row)
    try:
        store.commit([RunWrites(row.id, claim.token, entries, actions)])
    finally:
        store.release(row.id, claim.token)


def _work_of(journal: Iterable[Entry], started: Sequence[Action], new: model.Run) -> tuple[list[Entry], list[Action]]:
    """What succeeded in a run, as rows of a new one: its outcomes, none of which have to be asked for again.

    A finished child is its outcome alone; its body is never entered again. One that failed, or was under way, leaves
    no outcome, but its action and what its body has recorded, under the same numbers: the call that asks for it finds
    it open and continues it. Failures, cancellations and sleeps that had not ended leave nothing.
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
    while todo:
        body = todo.pop()
        kept = _succeeded(bodies.get(body, ()))
        ended = {entry.child for entry in kept if entry.child is not None}
        open_tasks: dict[tuple[int, bytes, int], Action] = {}
        for action in by_parent.get(body, ()):
            if action.action in ended:
                actions.append(action._replace(run=run))
            elif action.kind == Kind.TASK:
                # Of several that one call has started, the last one got farthest.
                open_tasks[action.branch, action.fp, action.occ] = action
        for action in open_tasks.values():
            # It begins anew: driving makes this attempt number 1.
            actions.append(
                action._replace(
                    run=run, at=new.created_at, attempt=0, failures=0, wake_at=None, wake_boot=None, boot=None
                )
            )
            todo.append(action.action)
        for entry in kept:
            child = entry.child if entry.child in children else None
            entries.append(entry._replace(run=run, n=len(entries) + 1, child=child, after=None))
        if kept:
            entries.append(
                Entry(run, body, len(entries) + 1, 0, 0, 0, 0, 0, Result.LOOSEN, bytes(16), "", None, None, None,
                      kept[-1].source, None, None, 0, 0)
            )  # fmt: skip
    return entries, actions


def _succeeded(body: Iterable[Entry]) -> list[Entry]:
    """The entries of one body that hold a success, the last one of each call."""
    kept: dict[int, Entry] = {}
    by_key: dict[tuple[int, bytes, int, int], int] = {}
    alias: dict[int, int] = {}
    for entry in body:
        key = (entry.branch, entry.fp, entry.occ, entry.item)
        if entry.result in (Result.VALUE, Result.ITEM, Result.END, Result.ERROR, Result.CANCELLED):
            # A call's later row stands in place of its earlier one: recorded, then cancelled before it was delivered.
            kept.pop(by_key.pop(key, 0), None)
            if entry.result not in (Result.ERROR, Result.CANCELLED):
                kept[entry.n] = entry
                by_key[key] = entry.n
        elif entry.result == Result.REUSE:
            alias[entry.n] = entry.seq
        elif entry.result == Result.DISCARD:
            kept.pop(alias.get(entry.seq, entry.seq), None)
    return list(kept.values())


# -- ending ----------------------------------------------------------------------------------------------------


def abort(name: str) -> bool:
    """End a run for good, wherever it is driven. `False` if it was aborted already.

    Raises:
        RunNotFoundError: no such run.
        UsageError: it has ended by itself.
    """
    row = find(name)
    worker = runtime.worker()
    if worker.store.abort(row.id, worker.clock.wall()):
        return True
    row = find(name)
    if row.status == Status.ABORTED:
        return False
    raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to abort")


# -- looking ---------------------------------------------------------------------------------------------------


def store_exists() -> bool:
    """Whether there is a store to look at: looking creates none."""
    path = store_path()
    return path is None or os.path.exists(path)


def store_path() -> str | None:
    """The store's file, absolute; `None` for a store that is no file."""
    url = runtime.store_url()
    scheme, colon, rest = url.partition("://")
    if not colon:
        return os.path.abspath(url)
    return os.path.abspath(rest[1:]) if scheme == "sqlite" and rest.startswith("/") else None


def find(name: str) -> model.Run:
    """The stored record of a run.

    Raises:
        RunNotFoundError: no such run; the message says where it was looked for.
    """
    where = store_path() or runtime.store_url()
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
    holder: model.Worker | None
    """Who drives it right now."""


def runs(*, limit: int | None = None, status: Status | None = None) -> tuple[list[RunInfo], bool]:
    """Runs, newest first, and whether there are more than `limit` of them."""
    if not store_exists():
        return [], False
    worker = runtime.worker()
    stored: Collection[Status] | None = None
    if status is not None:
        stored = {Status.RUNNING if status in (Status.SLEEPING, Status.INTERRUPTED) else status}
    # A derived status is found by looking at each run that could have it.
    derived = stored == {Status.RUNNING}
    rows = worker.store.runs(limit=None if derived or limit is None else limit + 1, statuses=stored)
    found: list[RunInfo] = []
    for row in rows:
        info = _info(worker, row)
        if status is None or info.status == status:
            found.append(info)
            if limit is not None and len(found) > limit:
                return found[:limit], True
    return found, False


def names(statuses: Collection[Status] | None = None, limit: int = 500) -> list[str]:
    """Names of runs by stored status, newest first; for completion."""
    if not store_exists():
        return []
    return [row.name for row in runtime.worker().store.runs(limit=limit, statuses=statuses)]


def _info(worker: Worker, row: model.Run) -> RunInfo:
    return RunInfo(
        row.name, row.task, derived_status(row), row.created_at, row.started_at, row.ended_at, row.inputs, row.reuse,
        worker.holder(row) if row.status == Status.RUNNING else None,
    )  # fmt: skip


@dataclass(slots=True)
class Node:
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
    """Microseconds; `None` while it is under way."""
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
    """Recorded before an attempt failed, the source changed, or in the run that this one recovers; handed out again."""
    inputs: bytes | None = None
    value: bytes | None = None
    error: bytes | None = None
    depth: int = 0
    parent: int = -1
    """The parent's position in the tree."""


class Tree(NamedTuple):
    """A run's actions, parents first."""

    run: RunInfo
    nodes: dict[int, Node]
    """By position in the whole tree; the root is 0. What a limit leaves out is absent."""
    total: int


def tree(name: str, limit: int | None = None) -> Tree:
    """The actions of a run, each below the one that called it, in the order in which they began.

    Args:
        limit: at most so many: the first and the last ones, with those that they stand below.

    Raises:
        RunNotFoundError: no such run.
    """
    row = find(name)
    worker = runtime.worker()
    info = _info(worker, row)
    grown = _Grown(row, info.status, worker.store.actions(row.id), worker.clock.wall())
    grown.read(worker.store.entries(row.id))
    grown.arrange()
    total = len(grown.flat)
    wanted: Iterable[int] = range(total)
    if limit is not None and total > limit:
        tail = limit // 2
        wanted = (*range(limit - tail), *range(total - tail, total))
    nodes: dict[int, Node] = {}
    for position in wanted:
        grown.node(position, nodes)
    return Tree(info, dict(sorted(nodes.items())), total)


@dataclass(slots=True)
class _Generator:
    """What the rows of one generator come to."""

    items: int = 0
    took: int = 0
    result: int = Result.ITEM
    error: bytes | None = None

    def add(self, entry: Entry) -> None:
        self.items += entry.result == Result.ITEM
        self.took += entry.took
        self.result = entry.result
        self.error = entry.value if entry.result == Result.ERROR else None


class _Grown:
    """A journal as a tree. Rows stay rows until somebody wants to see them: a journal may hold very many."""

    def __init__(self, run: model.Run, status: Status, started: Sequence[Action], now: int) -> None:
        self._run = run
        self._status = status
        self._actions = {action.action: action for action in started}
        self._now = now
        self._rows: dict[int, list[Entry | Action]] = {}
        """By body: the entries that stand for a call, and the actions that have none."""
        self._generators: dict[tuple[int, int, bytes, int], tuple[int, _Generator]] = {}
        self._generator_at: dict[int, _Generator] = {}
        self._same: dict[int, int] = {}
        """Entry numbers that mean another entry's call: items of a generator, and what was handed out again."""
        self._discarded: set[int] = set()
        self._earlier: set[int] = set()
        self._reused: set[int] = set()
        self._cancelled: set[int] = set()
        self._last_of: dict[int, int] = {}
        """By action: the entry that holds its last outcome. A failure that is taken back is not the last one, and what
        the action did is shown below that."""
        self.flat: list[Entry | Action | None] = []
        """Parents first; the root is `None`."""
        self._parents: list[int] = []

    def read(self, journal: Iterable[Entry]) -> None:
        """Take in the journal, in commit order."""
        rows, plain = self._rows, (Result.VALUE, Result.ERROR, Result.FIRED)
        for entry in journal:
            result = entry.result
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
                # It failed, that was taken back, and the next attempt has no outcome yet.
                del self._last_of[action.action]
                last = None
            if last is None and action.parent != NO_PARENT:
                rows.setdefault(action.parent, []).append(action)

    def _mark(self, entry: Entry) -> None:
        if entry.result == Result.LOOSEN:
            loose = {row.n for row in self._rows.get(entry.action, ()) if isinstance(row, Entry) and row.n >= entry.seq}
            self._earlier |= loose - self._discarded
            self._reused -= loose
            return
        n = self._same.get(entry.seq, entry.seq)
        self._earlier.discard(n)
        if entry.result == Result.DISCARD:
            self._discarded.add(n)
        else:
            self._reused.add(n)
            self._same[entry.n] = n

    def _cancel(self, entry: Entry) -> None:
        # Usually the call's only row; else it was recorded, then cancelled before it was delivered.
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
        while stack:
            body_rows, parent = stack[-1]
            for row in body_rows:
                flat.append(row)
                parents.append(parent)
                child = self._child(row)
                if child is not None and child in rows:
                    stack.append((iter(rows[child]), len(flat) - 1))
                    break
            else:
                stack.pop()

    def _child(self, row: Entry | Action) -> int | None:
        """The action whose body stands below that row."""
        if not isinstance(row, Entry):
            return row.action
        return row.child if row.child is not None and self._last_of.get(row.child) == row.n else None

    def node(self, position: int, nodes: dict[int, Node]) -> Node:
        """The node at that position, with all that it stands below."""
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
            # The attempt that ended its parent is the last one, not an earlier one.
            made.earlier = made.earlier and above.status != "FAILED"
            if made.status in _UNDER_WAY and above.status not in _UNDER_WAY:
                # Its parent ended, or went on without it.
                made.status = "ABORTED" if above.status == "ABORTED" else "UNFINISHED"
            elif made.status == "RUNNING" and self._status == Status.INTERRUPTED:
                made.status = "INTERRUPTED"
        nodes[position] = made
        return made

    def _root(self) -> Node:
        run, row = self._run, self._actions.get(ROOT)
        failed = run.status == Status.FAILED
        if row is not None:
            # The row of an attempt that failed for good already speaks of the next one.
            attempts = max(1, row.attempt - failed)
        else:
            attempts = int(run.started_at is not None)
        took = None
        if run.started_at is not None and run.ended_at is not None:
            took = max(0, run.ended_at - run.started_at)
        return Node(
            "task", run.task, str(self._status), ROOT, attempts, run.started_at, took,
            row.wake_at if row is not None and self._status in _UNDER_WAY else None,
            inputs=run.inputs,
            value=run.value if run.result == Result.VALUE else None,
            error=run.value if run.result == Result.ERROR else None,
        )  # fmt: skip

    def _ended(self, entry: Entry) -> Node:
        n = entry.n
        generator = self._generator_at.get(n)
        result = entry.result if generator is None else generator.result
        if n in self._cancelled:
            result = Result.CANCELLED
        node = Node(
            _KINDS[entry.kind], entry.name, _OUTCOMES[result], entry.child, None, entry.at, entry.took,
            label=entry.label, inputs=entry.inputs, discarded=n in self._discarded, earlier=n in self._earlier,
            reused=n in self._reused,
        )  # fmt: skip
        if generator is not None:
            node.items, node.took, node.error = generator.items, generator.took, generator.error
        elif result == Result.ERROR:
            node.error = entry.value
        elif result == Result.VALUE:
            node.value = entry.value
        started = self._actions.get(entry.child) if entry.child is not None else None
        if started is not None and started.kind == Kind.TASK:
            if self._child(entry) is not None:
                node.attempts = max(1, started.attempt - (result == Result.ERROR))
            node.inputs = started.inputs
        elif started is not None:
            node.until = started.wake_at
        elif entry.kind == Kind.TASK and result != Result.CANCELLED:
            node.attempts = 0  # from the cache
        return node

    def _open(self, action: Action) -> Node:
        waits = action.wake_at is not None and action.wake_at > self._now
        status = str(self._status)
        if action.kind == Kind.TIMEOUT:
            status = "NOT_FIRED"
        elif self._status in (Status.RUNNING, Status.SLEEPING):
            status = "SLEEPING" if waits else "RUNNING"
        elif self._status in (Status.SUCCEEDED, Status.FAILED):
            status = "UNFINISHED"
        return Node(
            _KINDS[action.kind], action.name, status, action.action,
            max(1, action.attempt) if action.kind == Kind.TASK else None, action.at, None, action.wake_at, action.label,
            inputs=action.inputs,
        )  # fmt: skip


_KINDS = {int(kind): kind.name.lower() for kind in Kind}
_OUTCOMES: dict[int, str] = {
    Result.VALUE: "SUCCEEDED", Result.ERROR: "FAILED", Result.CANCELLED: "CANCELLED", Result.ITEM: "RUNNING",
    Result.END: "SUCCEEDED", Result.CLOSED: "CLOSED", Result.FIRED: "FIRED",
}  # fmt: skip
_UNDER_WAY = ("RUNNING", "SLEEPING", "INTERRUPTED")


def _begin(row: Entry | Action) -> tuple[int, int]:
    return (row.at, row.n) if isinstance(row, Entry) else (row.at, 0)


def error_of(node: Node) -> tuple[str, str] | None:
    """Type name and message of a node's failure."""
    if node.error is None:
        return None
    try:
        kind, message, _ = describe_error(node.error)
    except UsageError as error:
        return "unreadable", str(error)
    return kind, message

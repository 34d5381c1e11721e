"""Operating runs from outside: start, continue, end and repeat them (`looking` lists and shows them).

Plain functions that give data; what prints (the command line) calls them. Nothing here blocks for long: starting and
continuing give a `Handle`, and the run is driven meanwhile. Times are those of `core.model` (microseconds).
"""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import runtime
from ..core import model
from ..core.driver import Driver
from ..core.model import (
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
from .looking import find, store_exists
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
            if action.wake_at is not None
            and action.state is None
            and action.kind != Kind.TIMEOUT
            and action.wake_at > clock.wall()
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
        runtime.drop_containers(row)
        return True
    row = find(name)
    if row.status == Status.ABORTED:
        return False
    raise UsageError(f"run {name!r} has ended already, it is {row.status}; there is nothing to abort")

"""Operating runs from outside: start, continue, end and repeat them (`looking` lists and shows them).

Plain functions that return data; the command line prints. Nothing here blocks for long: starting and continuing return
a `Handle`, and the run is driven meanwhile. Times are in microseconds, as in `core.ground.model`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, NamedTuple

from .. import runtime
from ..core.ground import model
from ..core.ground.model import (
    PARKED,
    ROOT,
    Kind,
    Result,
    Status,
)
from ..core.ground.values import ANY, describe_error
from ..core.ground.values._preview import preview_inputs
from ..core.journal.recovering import caught_failures
from ..core.journal.segment import journal_of
from ..core.run.driver import Driver
from ..errors import (
    PerdureError,
    RunAbortedError,
    RunCancelledError,
    cancelled_text,
)
from .ending import aborted
from .loading import spec_of_loaded
from .looking import find, store_exists
from .requests import RunRequest, request_for
from .run import Run, mention_similar, resumed, settle
from .status import derived_status
from .task import Task

# -- a run in hand ---------------------------------------------------------------------------------------------


class RecordedFailure(NamedTuple):
    """A recorded exception as text; the exception itself is not rebuilt."""

    type: str
    message: str
    traceback: str


class RunEnd(NamedTuple):
    """How a run has ended."""

    name: str
    task: str
    status: Status
    result: Any
    error: RecordedFailure | None
    replayed: int
    executed: int
    driven: bool
    """Whether this process drove the run; otherwise the run had ended before."""


@dataclass(frozen=True, slots=True)
class Handle:
    """A run that this process drives, or (without a driver) a run that had ended before."""

    run: Run
    driver: Driver | None
    continued: bool
    """Whether an earlier driver had begun the run."""

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


def outcome(handle: Handle) -> RunEnd:
    """How the run ended. To be asked once driving is over.

    Raises:
        PerdureError: driving ended before the run did (lost lease, abort, mismatch, broken store).
    """
    driver = handle.driver
    if driver is None:
        return _recorded(handle.run.row)
    result, data, live = driver.done.result()
    counts = (driver.replayed, driver.executed, True)
    if result == Result.CANCELLED:
        raise RunCancelledError(cancelled_text(driver.run.name, driver.cancel))
    if result == Result.VALUE:
        return RunEnd(handle.name, handle.task, Status.SUCCEEDED, live, None, *counts)
    return RunEnd(handle.name, handle.task, Status.FAILED, None, RecordedFailure(*describe_error(data)), *counts)


def _recorded(row: model.RunRow) -> RunEnd:
    if row.status == Status.CANCELLED:
        raise RunCancelledError(cancelled_text(row.name, row.cancel))
    if row.status == Status.ABORTED:
        raise RunAbortedError(aborted(row.name))
    if row.value is None:
        raise PerdureError(f"run {row.name!r} has not ended; it is {derived_status(row)}")
    if row.result == Result.ERROR:
        error = RecordedFailure(*describe_error(row.value))
        return RunEnd(row.name, row.task, Status.FAILED, None, error, 0, 0, False)
    # By the declared type where the type is loaded. No code is loaded only to show a value.
    spec = spec_of_loaded(row.target)
    value = ANY.decode(row.value) if spec is None else spec.signature.returns.decode(row.value)
    return RunEnd(row.name, row.task, Status.SUCCEEDED, value, None, 0, 0, False)


def stop(handles: Iterable[Handle], why: str) -> None:
    """Drive these runs no further. Each stays in its state and can be resumed; `done` is resolved soon."""
    for handle in handles:
        if handle.driver is not None:
            handle.driver.stop(PerdureError(why))


class Progress(NamedTuple):
    """The whereabouts of a driven run."""

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
    if derived_status(driver.run) in PARKED:
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


def request(
    task: Task[..., Any],
    args: tuple[Any, ...],
    inputs: dict[str, Any],
    name: str | None,
    tags: Mapping[str, str] | None = None,
) -> RunRequest:
    """A requested run, checked and named; nothing is stored yet.

    Raises:
        UsageError: the inputs or the name cannot be used.
    """
    return request_for(task, args, inputs, name, None, tags=tags)


def submit(asked: RunRequest) -> Handle:
    """Start the run, or continue the run of the same name, or find that it has ended.

    Raises:
        RunConflictError: the name belongs to another task or other inputs.
        RunAlreadyActive: another process drives the run.
        StoreError: the store cannot be used.
    """
    worker = runtime.worker()
    if not asked.named:
        mention_similar(worker, asked)
    found = worker.submit(asked.new, asked.spec)
    driver, run = settle(worker, asked, found)
    return Handle(run, driver, not isinstance(found, Driver))


def resume(name: str, file: str | None = None, *, accept: bool = False, retry_failed: bool = False) -> Handle:
    """As `api.run.resumed`, with a handle."""
    driver, run = resumed(name, file, accept=accept, retry_failed=retry_failed)
    return Handle(run, driver, True)


class Caught(NamedTuple):
    """A recorded failure that the run's code has caught, so that a plain `resume` does not try the call again."""

    call: str
    error: RecordedFailure


def caught(name: str) -> list[Caught]:
    """The recorded failures that `resume` answers with again."""
    row = find(name)
    store = runtime.worker().store
    bodies: dict[int, list[model.Entry]] = {}
    for entry in journal_of(store, row):
        bodies.setdefault(entry.action, []).append(entry)
    actions = store.actions(row.id)
    inputs = {action.action: action.inputs for action in actions}
    found = caught_failures(
        lambda body: bodies.get(body, []), lambda body: [action for action in actions if action.parent == body]
    )
    return [
        Caught(
            f"{entry.name}({_shown(entry.inputs if entry.child is None else inputs.get(entry.child))})",
            RecordedFailure(*describe_error(entry.value or b"")),
        )
        for entry, _ in found
    ]


def _shown(inputs: bytes | None) -> str:
    return "" if inputs is None else preview_inputs(inputs, 60)


def interrupted() -> list[str]:
    """The names of the runs without a driver, oldest first."""
    if not store_exists():
        return []
    worker = runtime.worker()
    rows = worker.store.runs(statuses={Status.RUNNING})
    worker.doubt_holders(rows)
    paused = worker.store.paused_tasks()
    return [
        row.name
        for row in reversed(rows)
        if row.paused is None and row.task not in paused and worker.sure_holder(row) is None
    ]

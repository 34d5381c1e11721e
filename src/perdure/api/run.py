"""Runs: start, continue, and look at a run."""

from __future__ import annotations

import asyncio
import logging
import math
import threading
from collections.abc import Callable, Collection, Coroutine, Iterator, Mapping
from concurrent.futures import Future
from contextlib import suppress
from contextvars import copy_context
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, ParamSpec, Protocol, TypeVar, cast, overload

from .. import runtime
from ..core.ground import model
from ..core.ground.clock import US, machine_seconds, moment
from ..core.ground.model import ENDS, FINISHED, PARKED, Kind, Result, Status
from ..core.ground.spec import TaskSpec, parsed
from ..core.ground.values import ANY, decode_error
from ..core.process.worker import Worker
from ..core.run.driver import Driver
from ..errors import (
    PerdureError,
    RunAbortedError,
    RunAlreadyActive,
    RunCancelledError,
    RunConflictError,
    RunNotFoundError,
    RunPausedError,
    UsageError,
    cancelled_text,
    paused_text,
    task_paused_text,
)
from . import ends, forking, messages, pausing, publishing, streaming
from ._dual import Dual, dual_method
from .arrivals import arrival, waiting
from .ending import abort, aborted, cancel, refuse_in_body, wake
from .loading import spec_of_loaded
from .looking import LogFile, Tree, find, log_files, tree
from .requests import RunRequest, code_of, refuse_active, request_for, request_rerun
from .status import derived_status, describe_holder, refuse_moved, unchanged
from .tags import decode_tags
from .task import Task

log = logging.getLogger("perdure")

P = ParamSpec("P")
T = TypeVar("T")
if TYPE_CHECKING:
    # `Run` without a type of its result stays `Run[Any]`: Python has such defaults from 3.13 on.
    from typing_extensions import TypeVar as WithDefault

    Out = WithDefault("Out", covariant=True, default=Any)
else:
    Out = TypeVar("Out", covariant=True)

CLAIMABLE = (Status.QUEUED, Status.RUNNING, *PARKED)
"""The stored statuses in which a request by name may claim the run, unless another worker drives it."""

RESUMABLE = (*CLAIMABLE, Status.FAILED)
"""The stored statuses in which `resume` continues a run."""

FIRST_PAUSE = 0.005
LAST_PAUSE = 0.25
"""Seconds between two looks at an awaited run: at first, and at most."""
LET_GO_SECONDS = 2.0
"""Timeout for releasing the claim of a stopped run."""
SIGNALS_SECONDS = 0.5
"""The longest time after which a wait notices a signal that another thread has received."""
HINT_SECONDS = 5.0
"""The time without a driver after which a hint about an awaited run is logged."""


class Run(Generic[Out]):
    """A run in the store. Attributes are read from the store each time until the run has ended."""

    def __init__(self, row: model.RunRow, spec: TaskSpec | None = None) -> None:
        self._row = row
        self._spec = spec

    @classmethod
    def get(cls, name: str) -> Run:
        """The run of the given name.

        Raises:
            RunNotFoundError: this store has no such run.
        """
        return cls(find(name))

    def __repr__(self) -> str:
        return f"<perdure.Run {self.name} {self.status}>"

    @property
    def name(self) -> str:
        """The run's name."""
        return self._row.name

    @property
    def task(self) -> str:
        """The full name of the task."""
        return self._row.task

    @property
    def tags(self) -> dict[str, str]:
        """The run's tags, as given to `with_runcontext`."""
        return decode_tags(self._row.tags)

    @property
    def created_at(self) -> datetime:
        """When the run was submitted."""
        return moment(self._row.created_at)

    @property
    def started_at(self) -> datetime | None:
        """When the run was first driven; `None` before."""
        at = self.row.started_at
        return None if at is None else moment(at)

    @property
    def ended_at(self) -> datetime | None:
        """When the run ended; `None` before."""
        at = self.row.ended_at
        return None if at is None else moment(at)

    @property
    def url(self) -> str:
        """The address of the run, for `perdure show`: the URL of the store, and the run's name behind `#`."""
        return runtime.run_url(self.name)

    @property
    def row(self) -> model.RunRow:
        """The stored record, as of now."""
        # A failed run may be resumed, here or by another process; every other end is final.
        if self._row.status not in FINISHED or self._row.status == Status.FAILED:
            found = runtime.worker().store.run_by_id(self._row.id)
            if found is not None:
                self._row = found
        return self._row

    @property
    def status(self) -> Status:
        """`QUEUED RUNNING SLEEPING WAITING INTERRUPTED PAUSED SUCCEEDED FAILED ABORTED CANCELLED MOVED`, as of now."""
        return derived_status(self.row)

    @property
    def result(self) -> Out:
        """The return value of the task; a failed run raises its error, with the run as `.run`.

        Raises:
            RunAbortedError: the run was aborted.
            RunCancelledError: the run was cancelled.
            RunMovedError: another store has the run now.
            PerdureError: the run has not ended yet.
        """
        row = self.row
        if row.status == Status.CANCELLED:
            raise attach(RunCancelledError(cancelled_text(row.name, row.cancel)), self)
        if row.status == Status.ABORTED:
            raise attach(RunAbortedError(aborted(row.name)), self)
        refuse_moved(row)
        if row.status not in FINISHED or row.value is None:
            raise PerdureError(f"run {row.name!r} has not ended; it is {self.status}")
        if row.result == Result.ERROR:
            raise attach(decode_error(row.value), self)
        spec = self._spec if self._spec is not None else spec_of_loaded(row.target)
        result: Any = spec.signature.returns.decode(row.value) if spec is not None else ANY.decode(row.value)
        return result  # type: ignore[no-any-return]

    @property
    def wait(self) -> Dual[..., Run[Out]]:
        """Wait until the run has ended, wherever it is driven, and return the run: `run.wait().result`; `.wait.aio()`
        as a coroutine. A failed run raises nothing here; `result` raises.

        Args:
            timeout: the longest wait in seconds; for ever by default.

        Raises:
            TimeoutError: the run has not ended by then; the run itself is left alone.
            RunMovedError: another store has the run now.
        """
        return Dual(self._wait, self._wait_aio)

    def _wait(self, timeout: float | None = None) -> Run:
        with ends.heard(threading.Event()) as heard, waiting():
            for pause in self._pauses(timeout):
                heard.wait(pause)
                heard.clear()
        return self

    async def _wait_aio(self, timeout: float | None = None) -> Run:
        with ends.heard(ends.LoopEvent()) as heard, waiting():
            for pause in self._pauses(timeout):
                await heard.wait_for(pause)
                heard.clear()
        return self

    def _pauses(self, timeout: float | None) -> Iterator[float]:
        """How long to wait before the next look, until the run has ended."""
        store = runtime.worker().store
        begun = machine_seconds()
        pause, version, hint = FIRST_PAUSE, None, begun + HINT_SECONDS
        while True:
            # Read before the run, so that a change in between is seen by the next look.
            now = store.version()
            if now != version:
                version, pause = now, FIRST_PAUSE
                row = self.row
                refuse_moved(row)
                if row.status in FINISHED:
                    return
            left = math.inf if timeout is None else begun + timeout - machine_seconds()
            if left <= 0:
                raise TimeoutError(f"run {self.name!r} has not ended within {timeout:g} s; it is {self.status}")
            if machine_seconds() > hint:
                hint = math.inf
                _hint(self)
            yield min(pause, left)
            pause = min(1.5 * pause, LAST_PAUSE)

    @dual_method
    def abort(self) -> bool:
        """End the run at once and for good, as ABORTED, wherever the run is driven. No code of the run's gets to clean
        up. `False`: the run was aborted before.

        Raises:
            UsageError: the run has ended by itself.
        """
        return abort(self.name)

    @dual_method
    def cancel(self, reason: str = "", grace: float | timedelta | None = None) -> bool:
        """Ask the run to end, wherever the run is driven, and return at once; `wait` waits for the end. The run's async
        code gets `asyncio.CancelledError`, its sync code `RunCancelledError` at a durable call, and may clean up with
        durable calls. Then the run is CANCELLED. A run that has not begun is CANCELLED at once. `False`: the run was
        asked to cancel before, and of several requests the first gives the reason, and the shortest `grace` counts.

        Args:
            reason: for people, and the text of `RunCancelledError`.
            grace: how long the code may clean up, in seconds or as a `timedelta`; then the run is ended as it is. For
                ever by default.

        Raises:
            UsageError: the run has ended by itself, or an argument means nothing.
        """
        return cancel(self.name, reason, grace)

    @dual_method
    def pause(self) -> bool:
        """Let the run stand still, wherever the run is driven, and return at once: nothing new starts, what executes is
        recorded, then the run is PAUSED until `resume`. Sleeps and time limits go on meanwhile, and messages are kept.
        The pause holds over the death of any process. `False`: the run was paused before.

        Raises:
            UsageError: the run has ended, or is being cancelled.
        """
        return pausing.pause(self.name)

    @dual_method
    def wake(self) -> bool:
        """Let a submitted run begin now that waits for its time. `False`: the run waits for no time, as it is driven
        or left behind.

        Raises:
            UsageError: the run has ended, the run or its task is paused, or waking would change nothing: the run is due
                already, sleeps, pauses before the next attempt of a task, or waits for a message. Recorded deadlines
                stay.
        """
        return wake(self.name)

    @dual_method
    def tree(self, limit: int | None = None) -> Tree:
        """The actions of the run, each below its caller, as `perdure show` has them.

        Args:
            limit: at most so many actions: the first and the last.
        """
        return tree(self.name, limit)

    @dual_method
    def logs(self, action: str | None = None) -> list[LogFile]:
        """The logs of the run's tasks and containers, in the order in which these were started.

        Args:
            action: the name of a task, or the number of an action; all by default.
        """
        return log_files(self.name, action)

    @property
    def resume(self) -> Dual[..., Run[Out]]:
        """Drive a paused, interrupted or failed run in this process until the run has ended: `run.resume()`, or
        `.resume.aio()` as a coroutine. A run that has succeeded is left as it is.

        Args:
            file: the present place of the code, if the code was moved.
            accept: where the code asks for something else than is recorded, follow the code from there on.
            retry_failed: try recorded failures again that the code has caught.
            drive: `False`: only end the pause of a paused run, and return at once; a worker that serves the task goes
                on with the run.

        Raises:
            Exception: the task's own error, with the failed run as its `.run`.
            RunAbortedError: the run was aborted.
            RunMovedError: another store has the run now.
            RunAlreadyActive: another process drives the run.
            RunPausedError: the task of the run is paused.
            UsageError: `drive=False`, and the run is not paused.
        """
        return Dual(self._resume, self._resume_aio)

    def _resume(
        self, file: str | None = None, *, accept: bool = False, retry_failed: bool = False, drive: bool = True
    ) -> Run:
        refuse_in_body("Run.resume")
        if not drive:
            pausing.unpause(self.name)
            return self
        return _driven(resumed(self.name, file, accept=accept, retry_failed=retry_failed))

    async def _resume_aio(
        self, file: str | None = None, *, accept: bool = False, retry_failed: bool = False, drive: bool = True
    ) -> Run:
        refuse_in_body("Run.resume")
        if not drive:
            await arrival(_in_thread(partial(pausing.unpause, self.name)))
            return self
        existing = partial(resumed, self.name, file, accept=accept, retry_failed=retry_failed)
        return await _driven_aio(await _uncancelled(_in_thread(existing)))

    @dual_method
    def fork(
        self,
        *,
        before: int | None = None,
        after: int | None = None,
        outcome: Any = forking.NOTHING,
        name: str | None = None,
        file: str | None = None,
    ) -> Run:
        """Store a new run that shares the journal of this run, which has ended, up to an entry: `run.fork(before=7)` or
        `run.fork(after=7, outcome=0.5)`. This run stays as it is. The fork is due at once: a worker that serves the
        task goes on with the fork, or `resume` does in this process.

        Args:
            before: the number of an entry of the root task (`perdure show`). The call of the entry is executed again,
                and so is all that follows.
            after: the same, but the call is not executed: `outcome` takes the place of its outcome.
            outcome: a value of the declared result type of the trace or task.
            name: the fork's name; a readable random name by default.
            file: the present place of the code, if the code was moved.

        Raises:
            RunConflictError: a run has the name already.
            UsageError: this run has not ended, or cannot be forked there.
            ValueMismatchError: the outcome has another type.
        """
        return Run(forking.fork(self.name, before, after, outcome, new_name=name, file=file))

    @property
    def rerun(self) -> Dual[..., Run[Out]]:
        """Drive a new run of the same task with the same inputs, and return the new run: `run.rerun()`, or
        `.rerun.aio()` as a coroutine.

        Args:
            recover: reuse the successful outcomes of this run.
            from_: the number of an entry: drive a fork of this run before that entry (`fork`).
            name: the new run's name; a readable random name by default.
            file: the present place of the code, if the code was moved.

        Raises:
            Exception: the task's own error, with the failed run as its `.run`.
            RunAlreadyActive: `recover`, and this run is still being driven.
        """
        return Dual(self._rerun, self._rerun_aio)

    def _rerun(
        self, *, recover: bool = False, from_: int | None = None, name: str | None = None, file: str | None = None
    ) -> Run:
        refuse_in_body("Run.rerun")
        if from_ is not None:
            return _driven(self._forked(recover, from_, name, file))
        return run_requested(request_rerun(self.name, recover=recover, new_name=name, file=file))

    def _forked(self, recover: bool, before: int, name: str | None, file: str | None) -> Existing:
        if recover:
            raise UsageError("from_ shares all outcomes before an entry, recover the successful ones: give one of both")
        # Paused, so that no worker is faster.
        forked = forking.fork(self.name, before, new_name=name, file=file, paused=True)
        return resumed(forked.name, file)

    async def _rerun_aio(
        self, *, recover: bool = False, from_: int | None = None, name: str | None = None, file: str | None = None
    ) -> Run:
        refuse_in_body("Run.rerun")
        if from_ is not None:
            forked = partial(self._forked, recover, from_, name, file)
            return await _driven_aio(await _uncancelled(_in_thread(forked)))
        request = partial(request_rerun, self.name, recover=recover, new_name=name, file=file)
        return await run_requested_aio(await arrival(_in_thread(request)))

    @property
    def signal(self) -> Dual[..., None]:
        """Set a condition of the run: `run.signal("approve", True)`; `.signal.aio(...)` as a coroutine. The message is
        on disk when the call returns. In the body of another run, a durable call.

        Args:
            name: the name of the condition.
            value: the value.
            data_type: the type under which the value is encoded; the type of the value by default.

        Raises:
            AlreadySignalledError: the condition has another value. An equal value is accepted.
            RunEndedError, RunMovedError, RunNotFoundError: the run takes no messages.
            ValueMismatchError: the run waits for a value of another type.
            ValueTooLargeError: the value is over the limit.
        """
        return Dual(self._signal, self._signal_aio)

    def _signal(self, name: str, value: Any, *, data_type: Any = None) -> None:
        messages.send(messages.outgoing(self._row, Kind.CONDITION, name, value, data_type, None))

    def _signal_aio(self, name: str, value: Any, *, data_type: Any = None) -> Coroutine[Any, Any, None]:
        return messages.send_aio(messages.outgoing(self._row, Kind.CONDITION, name, value, data_type, None))

    @property
    def send(self) -> Dual[..., None]:
        """Send a message to a mailbox of the run: `run.send("orders", order)`; `.send.aio(...)` as a coroutine. The
        message is on disk when the call returns. In the body of another run, a durable call.

        Args:
            name: the name of the mailbox.
            value: the message.
            key: two messages of one run and mailbox with one key are one message, so that a sender may repeat a send.
            data_type: the type under which the value is encoded; the type of the value by default.

        Raises:
            AlreadySignalledError: the key has another value.
            RunEndedError, RunMovedError, RunNotFoundError: the run takes no messages.
            ValueMismatchError: the run waits for messages of another type.
            ValueTooLargeError: the value is over the limit.
        """
        return Dual(self._send, self._send_aio)

    def _send(self, name: str, value: Any, *, key: str | None = None, data_type: Any = None) -> None:
        messages.send(messages.outgoing(self._row, Kind.RECEIVE, name, value, data_type, key))

    def _send_aio(
        self, name: str, value: Any, *, key: str | None = None, data_type: Any = None
    ) -> Coroutine[Any, Any, None]:
        return messages.send_aio(messages.outgoing(self._row, Kind.RECEIVE, name, value, data_type, key))

    @dual_method
    def published(self, name: str | None = None, data_type: Any = None) -> Any:
        """The latest value that the run has published under the name (`perdure.publish`); `None`: no value yet.

        Without a name: all values, as a dict from names to values. A value stays after the end of the run.

        Args:
            name: the name of the value.
            data_type: the type of the value; needed for a class of yours, which else is read as a dict.

        Raises:
            ValueMismatchError: the value has another type.
            RunMovedError: another store has the run now.
        """
        return publishing.published(self.row, name, data_type)

    @property
    def stream(self) -> streaming.Following:
        """Follow a stream that the run writes (`perdure.stream`): `for item in run.stream("answer")`, or
        `async for item in run.stream.aio("answer", str, after=offset)`. Each item is a `perdure.StreamItem`.

        The iteration waits for further items. The iteration ends when the writer has closed the stream, or the run has
        ended.

        Args:
            name: the name of the stream.
            data_type: the type of the items; needed for a class of yours, which else is read as a dict.
            after: the offset of the last item that the reader knows; 0 for the whole stream.

        Raises:
            ValueMismatchError: an item has another type.
            RunMovedError: another store has the run now.
        """
        return streaming.Following(self.row)

    def outputs(self) -> tuple[Any, ...]:
        """The result as a tuple with the names `o0`, `o1`, ...: an element for each element of a declared tuple, else a
        single element, also for `None`. A named tuple, such as the outputs of a container, keeps its names. Raises the
        same errors as `result`."""
        from collections import namedtuple

        value = self.result
        spec = self._spec if self._spec is not None else spec_of_loaded(self._row.target)
        declared = getattr(getattr(spec, "fn", None), "__annotations__", {}).get("return")
        values = value if isinstance(value, tuple) and declared not in (tuple, "tuple") else (value,)
        names = getattr(values, "_fields", [f"o{number}" for number in range(len(values))])
        return namedtuple("Outputs", names)(*values)


def _hint(run: Run) -> None:
    row = run.row
    status = derived_status(row)
    late = status == Status.QUEUED and (row.wake_at or 0) < runtime.worker().clock.wall() - HINT_SECONDS * US
    if status == Status.PAUSED:
        log.warning("%s", paused_text(row.name))
    elif late or status == Status.INTERRUPTED:
        file = parsed(row.target).file or "FILE"
        log.warning(
            "run %s is %s and no process drives the run: start a worker with `perdure serve %s`, or drive it with "
            "`perdure resume %s`", row.name, status, file, row.name,
        )  # fmt: skip


def attach(error: BaseException, run: Run) -> BaseException:
    """Give an exception its run, as `.run`."""
    # Past the `__setattr__` of the class, which may refuse (a frozen dataclass does).
    error.__dict__["run"] = run
    return error


# -- starting --------------------------------------------------------------------------------------------------


def mention_similar(worker: Worker, request: RunRequest) -> None:
    for row in worker.store.similar(request.new.task, request.new.inputs_hash)[:1]:
        if row.paused is None and worker.holder(row) is None and unchanged(worker, row):
            log.warning(
                "an interrupted run of %s with these inputs lies here; this is a new one, %s. "
                "To continue the other: perdure resume %s",
                row.task, request.new.name, row.name,
            )  # fmt: skip


Existing = tuple[Driver | None, Run]
"""A driver to wait for, or an ended run."""


def settle(worker: Worker, request: RunRequest, found: Driver | model.RunRow) -> Existing:
    """The effect of a submission: a run of this process's, or an earlier run of the same name (the name is the key)."""
    if isinstance(found, Driver):
        return found, Run(found.run, request.spec)
    refuse_conflict(request, found)
    refuse_moved(found)
    if found.status in FINISHED:
        return None, Run(found, request.spec)
    return continue_run(worker, found, request.spec, CLAIMABLE)


def refuse_conflict(request: RunRequest, found: model.RunRow) -> None:
    """Raise `RunConflictError` where the existing run of the name differs from the request."""
    new = request.new
    if found.task not in request.spec.names or found.inputs_hash != new.inputs_hash:
        raise attach(
            RunConflictError(
                f"run {new.name!r} exists with another task or other inputs:\n"
                f"  it is:     {found.task}({show_inputs(found.inputs)})\n"
                f"  asked for: {new.task}({show_inputs(new.inputs)})\n"
                "Choose another name, or ask for the same."
            ),
            Run(found, request.spec),
        )


def continue_run(
    worker: Worker,
    row: model.RunRow,
    spec: TaskSpec,
    statuses: Collection[Status],
    *,
    accept: bool = False,
    retry_failed: bool = False,
    resumes: bool = False,
    moves: bool = False,
) -> Existing:
    """Claim a stored run and drive it. `accept`: where the code differs from the journal, the code holds.
    `retry_failed`: recorded failures that the code has caught are tried again. `resumes`: a pause ends. `moves`: the
    code of `spec` is the code of the run from now on.

    Raises:
        RunAlreadyActive: another process drives the run.
        RunPausedError: the run is paused, or its task.
    """
    for _ in range(10):
        if row.status in statuses:
            if row.task in worker.store.paused_tasks():
                raise attach(RunPausedError(task_paused_text(row.name, row.task)), Run(row, spec))
            if row.paused is not None and not resumes:
                raise attach(RunPausedError(paused_text(row.name)), Run(row, spec))
        holder = worker.sure_holder(row)
        if holder is not None:
            raise attach(RunAlreadyActive(describe_holder(worker, row, holder)), Run(row, spec))
        driver = worker.take(
            row, spec, statuses, accepts=accept, retries_failures=retry_failed, resumes=resumes, moves=moves
        )
        if driver is not None:
            return driver, Run(driver.run, spec)
        again = worker.store.run_by_id(row.id)
        if again is None:
            raise RunNotFoundError(f"run {row.name!r} is gone from {runtime.store_name()}")
        row = again
        refuse_moved(row)
        if row.status not in statuses:
            return None, Run(row, spec)
        if row.queue is not None and row.token is None:
            raise attach(
                RunAlreadyActive(
                    f"run {row.name!r} waits for a slot of queue {row.queue!r}, which is full or paused (see perdure "
                    "queues); a worker goes on with the run as soon as there is a slot"
                ),
                Run(row, spec),
            )
    raise attach(RunAlreadyActive(f"run {row.name!r} is claimed by other processes again and again"), Run(row, spec))


def show_inputs(data: bytes) -> str:
    """A run's inputs for people."""
    from ..core.ground.values._preview import preview_inputs

    return preview_inputs(data, 300)


def _finish(run: Run, outcome: tuple[int, bytes, Any]) -> Run:
    """The run has ended while this process drove it."""
    result, value, live = outcome
    status = ENDS[result]
    ended = run._row._replace(status=status, token=None, worker=None, result=result, value=value)
    run._row = ended
    if result == Result.VALUE:
        return run
    if result == Result.CANCELLED:
        # The reason is in the store.
        run._row = runtime.worker().store.run_by_id(ended.id) or ended
        run.result  # noqa: B018 - raises that the run was cancelled
    error = decode_error(value)
    attach(error, run)
    raise error.with_traceback(live.__traceback__)


def _ended(run: Run) -> Run:
    """The run had ended before."""
    if run._row.status == Status.SUCCEEDED:
        return run
    run.result  # noqa: B018 - raises the run's own error
    return run


def wait_for(driver: Driver, run: Run) -> Run:
    """Block until the run has ended, which this process drives. Ctrl-C stops driving; the run stays resumable."""
    done = driver.done
    try:
        with waiting():
            while True:
                # The system may hand a signal to any thread. Python runs the handler in the main thread, once awake.
                with suppress(TimeoutError):
                    done.exception(SIGNALS_SECONDS)
                    break
        outcome = done.result()
    except KeyboardInterrupt:
        _interrupt(driver, "interrupted")
        log.warning("run %s is interrupted and can be continued: perdure resume %s", run.name, run.name)
        raise
    except PerdureError as error:
        raise attach(error, run) from None
    return _finish(run, outcome)


def _interrupt(driver: Driver, why: str) -> None:
    driver.stop(PerdureError(why))
    try:
        driver.done.exception(LET_GO_SECONDS)
    except (TimeoutError, KeyboardInterrupt):
        pass


def resumed(name: str, file: str | None = None, *, accept: bool = False, retry_failed: bool = False) -> Existing:
    """Continue a paused, interrupted or failed run; a run that has succeeded is only looked up.

    Args:
        file: the present place of the code, if the code was moved; kept for the rest of the life of the run.
        accept: where the code asks for something else than is recorded, follow the code from there on: recorded
            outcomes are reused where they are asked for, and every other call is executed. By default that is a
            `NonDeterminismError`.
        retry_failed: try recorded failures again that the code has caught.

    Raises:
        RunNotFoundError: no such run.
        RunAbortedError: the run was aborted.
        RunMovedError: another store has the run now.
        RunAlreadyActive: another process drives the run.
        RunPausedError: the task of the run is paused.
        UsageError: the code may not be loaded, or cannot be.
    """
    row = find(name)
    worker = runtime.worker()
    if row.status == Status.SUCCEEDED:
        return None, Run(row)
    if row.status == Status.ABORTED:
        raise RunAbortedError(aborted(name))
    if row.status == Status.CANCELLED:
        raise RunCancelledError(cancelled_text(name, row.cancel))
    refuse_moved(row)
    if row.task in worker.store.paused_tasks():
        raise attach(RunPausedError(task_paused_text(name, row.task)), Run(row))
    if row.paused is not None and worker.sure_holder(row) is not None:
        # The run does not stand still yet, and its driver goes on.
        pausing.unpause(name)
    refuse_active(worker, row)
    spec = code_of(row, file)
    return continue_run(
        worker, find(name), spec, RESUMABLE, accept=accept, retry_failed=retry_failed, resumes=True,
        moves=file is not None,
    )  # fmt: skip


def run_named(
    name: str | None,
    task: Task[..., Any],
    args: tuple[Any, ...],
    inputs: dict[str, Any],
    tags: Mapping[str, str] | None = None,
) -> Run:
    return run_requested(request_for(task, args, inputs, name, None, tags=tags))


def run_requested(request: RunRequest) -> Run:
    """Drive the run until it has ended; see `run`."""
    worker = runtime.worker()
    if not request.named:
        mention_similar(worker, request)
    return _driven(settle(worker, request, worker.submit(request.new, request.spec)))


def _driven(existing: Existing) -> Run:
    driver, run = existing
    return wait_for(driver, run) if driver is not None else _ended(run)


async def run_named_aio(
    name: str | None,
    task: Task[..., Any],
    args: tuple[Any, ...],
    inputs: dict[str, Any],
    tags: Mapping[str, str] | None = None,
) -> Run:
    return await run_requested_aio(request_for(task, args, inputs, name, None, tags=tags))


async def run_requested_aio(request: RunRequest) -> Run:
    """As `run_requested`, without blocking."""
    worker = runtime.worker()
    if not request.named:
        mention_similar(worker, request)
    found = await _uncancelled(worker.submit_soon(request.new, request.spec))
    if isinstance(found, Driver):
        return await _driven_aio(settle(worker, request, found))
    return await _driven_aio(await _uncancelled(_in_thread(partial(settle, worker, request, found))))


def _in_thread(work: Callable[[], T]) -> Future[T]:
    """Work that blocks, in a thread of perdure's."""
    begun: Future[T] = runtime.worker().threads.submit(copy_context().run, work)
    return begun


async def _driven_aio(existing: Existing) -> Run:
    driver, run = existing
    if driver is None:
        return _ended(run)
    try:
        with waiting():
            outcome = await arrival(driver.done)
    except asyncio.CancelledError:
        driver.stop(PerdureError("cancelled by the caller"))
        await _in_time(arrival(driver.done))
        raise
    except PerdureError as error:
        raise attach(error, run) from None
    return _finish(run, outcome)


async def _uncancelled(pending: Future[Any]) -> Any:
    """Wait for a result whose making must not be cancelled half-way. If the caller is cancelled, let the result go."""
    try:
        return await arrival(pending)
    except asyncio.CancelledError:
        pending.add_done_callback(_let_go)
        await _in_time(_gone(pending))
        raise


def _driver_of(found: Any) -> Driver | None:
    driver = found[0] if isinstance(found, tuple) else found
    return driver if isinstance(driver, Driver) else None


def _let_go(pending: Future[Any]) -> None:
    driver = _driver_of(pending.result()) if pending.exception() is None else None
    if driver is not None:
        driver.stop(PerdureError("cancelled by the caller"))


async def _gone(pending: Future[Any]) -> None:
    driver = _driver_of(await arrival(pending))
    if driver is not None:
        await arrival(driver.done)


async def _in_time(end: Coroutine[Any, Any, Any]) -> None:
    """Wait shortly, so that the next request for a cancelled run by name finds the run without a driver."""
    with suppress(Exception):
        async with asyncio.timeout(LET_GO_SECONDS):
            await end


class StartsRuns(Protocol):
    """A call that takes a task with its arguments, and gives the run with the type of its result."""

    @overload
    def __call__(self, task: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    def __call__(self, task: Task[P, T], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    async def aio(self, task: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    async def aio(self, task: Task[P, T], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...


def _sync(task: Task[..., Any], *args: Any, **inputs: Any) -> Run:
    """Drive a new run of `task` in this process until it has ended.

    Args:
        task: a task.
        args, inputs: its arguments.

    Returns:
        The run; `run.result` is the return value of the task.

    Raises:
        Exception: the task's own error, with the failed run as its `.run`.
        UsageError: the call is wrong (no task, wrong inputs, inside a task).
        StoreError: the store cannot be used.
        NonDeterminismError: on replay the code asked for something else than recorded.
        LeaseLostError: another process took the run over.
    """
    return run_named(None, task, args, inputs)


def _aio(task: Task[..., Any], *args: Any, **inputs: Any) -> Coroutine[Any, Any, Run]:
    return run_named_aio(None, task, args, inputs)


_sync.__name__ = _sync.__qualname__ = "run"
run: StartsRuns = cast("StartsRuns", Dual(_sync, _aio))

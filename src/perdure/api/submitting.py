"""Settings for runs, and runs for workers: `with_runcontext` and `submit`."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, Protocol, TypeVar, cast, overload

from .. import runtime
from ..core.ground.clock import US
from ..core.ground.model import Created, Policy, Wake
from ..core.ground.spec import parsed
from ..core.ground.steps import run_now, run_soon
from ..errors import UsageError
from ._dual import Dual
from ._names import check_name
from .arrivals import arrival
from .local_time import local_moment
from .policies import SubmitPolicy, WhenFull
from .requests import RunRequest, request_for
from .run import Run, StartsRuns, refuse_conflict, run, run_named, run_named_aio
from .tags import encode_tags
from .task import Task

if TYPE_CHECKING:
    from .queueing import Queue

P = ParamSpec("P")
T = TypeVar("T")


NO_POLICY = SubmitPolicy()


def request_submission(
    task: Any,
    args: tuple[Any, ...],
    inputs: dict[str, Any],
    name: str | None,
    tags: Mapping[str, str] | None = None,
    queue: Queue | None = None,
    priority: int = 0,
) -> RunRequest:
    """A request for a run that a worker is to drive, checked and named; nothing is stored yet.

    Args:
        queue: the queue of the run; the task's by default.

    Raises:
        UsageError: the inputs or the name cannot be used, or no worker could load the task.
    """
    spec = queue.spec if queue is not None else task.spec.queue if isinstance(task, Task) else None
    if priority:
        from .queueing import check_priority  # a late import, as for tasks

        check_priority(priority, spec)
    request = request_for(
        task, args, inputs, name, None, what="submit", tags=tags, queue=spec, priority=priority
    )  # fmt: skip
    if not parsed(request.new.target).file:
        raise UsageError(
            f"task {request.new.task} is defined in a notebook or an interactive session, where no worker can load it: "
            "put it into a file, or use perdure.run"
        )
    return request


def due_at(at: datetime | None, delay: float | timedelta | None) -> Wake | None:
    """The earliest beginning of a submitted run; `None`: at once.

    Raises:
        UsageError: both are given, or a time makes no sense.
    """
    if at is not None and delay is not None:
        raise UsageError("a run begins either at a time or after a delay; give one of them")
    clock = runtime.worker().clock
    now = clock.wall()
    if at is not None:
        if not isinstance(at, datetime):
            raise UsageError(f"at must be a datetime, not {at!r}")
        left = int(local_moment(at).timestamp() * US) - now
    elif delay is not None:
        wait = delay.total_seconds() if isinstance(delay, timedelta) else delay
        if isinstance(wait, bool) or not isinstance(wait, (int, float)) or not 0 <= wait < 1e10:
            raise UsageError(f"delay must be seconds from 0 up, or a timedelta, not {delay!r}")
        left = int(wait * US)
    else:
        return None
    return Wake(now + left, clock.boot() + left)


def enqueue(request: RunRequest, due: Wake | None, policy: Policy | None = None) -> Run:
    """Store the run for a worker, or find the existing run of the same name. By default the policy of the queue."""
    if request.queue is not None:
        runtime.worker().declare(request.queue)
        if policy is None and request.queue.settings.when_full != "wait":
            policy = Policy()
    return _enqueued(request, runtime.worker().enqueue(request.new, due, policy))


def _enqueued(request: RunRequest, created: Created) -> Run:
    # A run of another name holds the key of the submission, with inputs of its own.
    if not created.fresh and created.run.name == request.new.name:
        refuse_conflict(request, created.run)
    return Run(created.run, request.spec)


def _submit(context: RunContext, task: Task[..., Any], args: tuple[Any, ...], inputs: dict[str, Any]) -> Run:
    connection = _connection_of(context, task, inputs)
    request = context.request(task, args, inputs)
    due = due_at(context.at, context.delay)
    policy = context.policy.resolved(request.queue, later=due is not None, connected=connection is not None)
    if connection is not None:
        _refuse_unknown_queue(context)
        return _enqueued(request, run_now(runtime.enqueue_within(connection, request.new, due)))
    return enqueue(request, due, policy)


async def _submit_aio(context: RunContext, task: Task[..., Any], args: tuple[Any, ...], inputs: dict[str, Any]) -> Run:
    connection = _connection_of(context, task, inputs)
    request = context.request(task, args, inputs)
    due = due_at(context.at, context.delay)
    policy = context.policy.resolved(request.queue, later=due is not None, connected=connection is not None)
    if policy is not None:
        return await asyncio.to_thread(enqueue, request, due, policy)
    if connection is not None:
        await asyncio.to_thread(_refuse_unknown_queue, context)
        return _enqueued(request, await run_soon(runtime.enqueue_within(connection, request.new, due)))
    if request.queue is not None and not runtime.worker().declares(request.queue):
        await asyncio.to_thread(runtime.worker().declare, request.queue)
    pending = runtime.worker().enqueue_soon(request.new, due)
    return _enqueued(request, await arrival(pending))


def _refuse_unknown_queue(context: RunContext) -> None:
    """Raise `UsageError` for a queue that the store does not know: the transaction of the caller may keep the store
    from learning the settings. The queue of a task is known to the workers of the task."""
    queue = context.queue
    if queue is not None and runtime.worker().store.queue(queue.name) is None:
        raise UsageError(
            f"the store does not know the queue {queue.name!r} yet, and a submission with connection= cannot declare "
            "it: submit a run to the queue without connection= first, or declare the queue on a task that is served"
        )


def _connection_of(context: RunContext, task: Any, inputs: dict[str, Any]) -> Any:
    """The connection in whose transaction the run is to be submitted; taken out of the inputs."""
    if "connection" in inputs and isinstance(task, Task) and "connection" not in task.spec.signature.parameters:
        return inputs.pop("connection")
    return context.connection


class SubmitsRuns(StartsRuns, Protocol):
    """The same for runs that are left to a worker, perhaps in the transaction of a connection."""

    @overload
    def __call__(self, task: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    def __call__(self, task: Task[P, T], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    def __call__(self, task: Task[..., Any], /, *args: Any, connection: Any, **inputs: Any) -> Run[Any]: ...
    @overload
    async def aio(self, task: Task[P, Coroutine[Any, Any, T]], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    async def aio(self, task: Task[P, T], /, *args: P.args, **inputs: P.kwargs) -> Run[T]: ...
    @overload
    async def aio(self, task: Task[..., Any], /, *args: Any, connection: Any, **inputs: Any) -> Run[Any]: ...


def _submit_sync(task: Task[..., Any], *args: Any, **inputs: Any) -> Run:
    """Store a new run of `task` for a worker (`perdure serve`) and return at once. On return the run is on disk.

    Args:
        task: a task, defined in a file.
        args, inputs: its arguments.
        connection: submit the run in the transaction of this connection: the run exists if and only if that transaction
            commits. A connection of psycopg, sqlite3 or aiosqlite to the database of the store, or a `Connection` or
            `Session` of SQLAlchemy. A task with a parameter of that name takes
            `with_runcontext(connection=...).submit(...)`.

    Returns:
        The run; `run.wait()` waits for its end, `run.status` looks.

    Raises:
        UsageError: the call is wrong (no task, wrong inputs, in the body of a task instead of in a trace).
        RunConflictError: the name belongs to another task or other inputs.
        StoreError: the store cannot be used.
    """
    return _submit(RunContext(None), task, args, inputs)


def _submit_async(task: Task[..., Any], *args: Any, **inputs: Any) -> Coroutine[Any, Any, Run]:
    return _submit_aio(RunContext(None), task, args, inputs)


_submit_sync.__name__ = _submit_sync.__qualname__ = "submit"


class RunContext:
    """Settings for the next run: `perdure.with_runcontext(name="daily").run(main, n=3)`."""

    def __init__(
        self,
        name: str | None,
        at: datetime | None = None,
        delay: float | timedelta | None = None,
        connection: Any = None,
        tags: Mapping[str, str] | None = None,
        queue: Queue | None = None,
        priority: int = 0,
        policy: SubmitPolicy = NO_POLICY,
    ) -> None:
        self.name = name
        self.policy = policy
        self.queue = queue
        self.priority = priority
        self.connection = connection
        self.tags = tags
        self.at = at
        self.delay = delay

        def sync(task: Task[..., Any], *args: Any, **inputs: Any) -> Run:
            self._refuse_times()
            return run_named(name, task, args, inputs, tags)

        def aio(task: Task[..., Any], *args: Any, **inputs: Any) -> Coroutine[Any, Any, Run]:
            self._refuse_times()
            return run_named_aio(name, task, args, inputs, tags)

        def submit_sync(task: Task[..., Any], *args: Any, **inputs: Any) -> Run:
            return _submit(self, task, args, inputs)

        def submit_aio(task: Task[..., Any], *args: Any, **inputs: Any) -> Coroutine[Any, Any, Run]:
            return _submit_aio(self, task, args, inputs)

        sync.__doc__ = run.__doc__
        submit_sync.__doc__ = _submit_sync.__doc__
        self.run: StartsRuns = cast("StartsRuns", Dual(sync, aio))
        self.submit: SubmitsRuns = cast("SubmitsRuns", Dual(submit_sync, submit_aio))

    def request(self, task: Any, args: tuple[Any, ...], inputs: dict[str, Any]) -> RunRequest:
        """The request for a submitted run."""
        return request_submission(task, args, inputs, self.name, self.tags, self.queue, self.priority)

    def _refuse_times(self) -> None:
        later = self.at is not None or self.delay is not None or self.connection is not None
        if later or self.queue is not None or self.priority or self.policy.given:
            raise UsageError(
                "perdure.run drives a run at once; at=, delay=, connection=, queue=, priority=, dedup=, start_by= and "
                "when_full= are for .submit(...)"
            )


submit: SubmitsRuns = cast("SubmitsRuns", Dual(_submit_sync, _submit_async))


def with_runcontext(
    *,
    name: str | None = None,
    at: datetime | None = None,
    delay: float | timedelta | None = None,
    connection: Any = None,
    tags: Mapping[str, str] | None = None,
    queue: Queue | None = None,
    priority: int = 0,
    dedup: str | None = None,
    dedup_for: float | timedelta | None = None,
    debounce: float | timedelta | None = None,
    throttle: float | timedelta | None = None,
    start_by: datetime | float | timedelta | None = None,
    when_full: WhenFull | None = None,
) -> RunContext:
    """Settings for a run.

    Args:
        name: the run's name, and its idempotency key: a second run of the same name gives the recorded result, or
            continues an interrupted run. A readable random name by default.
        at: for `submit`: no worker begins the run before this time; a time without a zone is local.
        delay: for `submit`: the same as seconds (or a `timedelta`) from now.
        connection: for `submit`: the run exists if and only if the connection's transaction commits; see `submit`.
        tags: names with values, both text, kept with the run for `perdure.runs(tags=...)` and `perdure ls --tag`. The
            tags of a run that exists already stay.
        queue: for `submit`: the queue of the run, in place of the task's.
        priority: for `submit`: a higher number leaves a queue with `order="priority"` earlier; 0 by default.
        dedup: for `submit`: a key, for the runs of the task. While a run of the key has not ended, a submission gives
            that run, also under another name or with other inputs; a cancelled run frees the key at once.
        dedup_for: the run holds its key for so long after its submission, also where it has ended (seconds or a
            `timedelta`).
        debounce: the run begins so long after the last submission of its key: a submission takes the place of the run
            of the key that has not begun.
        throttle: runs of the key begin at least so far apart: a submission takes the place of the run of the key that
            has not begun.
        start_by: for `submit`: the run begins before that time, or is cancelled: a time, or seconds (or a `timedelta`)
            from now.
        when_full: for `submit`: what becomes of the run if its queue is full, in place of the queue's `when_full`.

    Raises:
        UsageError: the name, the tags, the queue, the priority, the policy or the times cannot be used.
    """
    if name is not None:
        check_name(name)
    encode_tags(tags)
    if queue is not None:
        from .queueing import queue_of  # a late import, as for tasks

        queue_of(queue, "with_runcontext")
    policy = SubmitPolicy(dedup, dedup_for, debounce, throttle, start_by, when_full)
    return RunContext(name, at, delay, connection, tags, queue, priority, policy)

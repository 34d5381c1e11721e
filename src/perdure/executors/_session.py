"""The outer end of a body in a pool child: an effect of the driving process, and the conversation with the child.

One thread handles all frames of the child, in the order of sending. Rows from the child are on disk before the thread
takes the next frame. `core.run.remote_body` states the invariants of the two ends.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable, Generator
from concurrent.futures import Future
from signal import Signals
from types import SimpleNamespace
from typing import Any, Protocol

from ..core.body.scope import THREAD
from ..core.commit.records import Foreign, Mark
from ..core.ground.clock import seconds
from ..core.ground.model import Action, ActionState, CachePut, Kind, Result
from ..core.ground.spec import AttemptLost, Backoff, RetryStrategy, TaskSpec
from ..core.ground.values import decode_error, encode_error
from ..core.run.attempts import Final, attempts
from ..core.run.driver import Driver, driver_of
from ..core.run.effects import run_async
from ..core.run.interfaces import Failure, Report, failed_elsewhere
from ..core.run.remote_body import Between, StandIn
from ..errors import BodyDiedError, PerdureError, RunStopped, StoreError, TaskTimeoutError, UsageError
from . import _frames as frames
from ._session_messages import WaitsElsewhere
from ._tracebacks import frames_of, with_frames


class Seats(Protocol):
    """Gives seats to sessions: the pool or the cluster that has the processes."""

    find: Callable[[str, str, str], TaskSpec]
    """Gives a task by target, module name and variable name."""

    def refuse_call(self, caller: TaskSpec, call: frames.Delegate) -> None:
        """Raise `UsageError` where the process for the body of `caller` may not name the code of the call."""

    def submit(self, session: BodySession) -> None:
        """Queue the session for a seat."""

    def left(self, session: BodySession) -> None:
        """The session is over, or gave up waiting in the queue."""

    def waits(self, session: BodySession, waits: bool) -> None:
        """The process of the session begins to wait, or goes on."""


class Seat(Protocol):
    """The process for the body of a session."""

    channel: frames.Channel

    def kill(self) -> None:
        """End the process at once; from any thread."""

    def keep(self) -> None:
        """The body has ended well, and the process may be given another body."""


log = logging.getLogger("perdure")


class BodySession:
    """See the module text."""

    def __init__(
        self,
        pool: Seats,
        body: StandIn,
        spec: TaskSpec,
        action: Action,
        inputs: bytes,
        attempt: int,
        floor: int,
        recorded: bool,
    ) -> None:
        self.body = body
        self.spec = spec
        self.place = False
        """The session counts among the bodies at work; kept by the pool."""
        self.over = False
        self._pool = pool
        self._driver: Driver = driver_of(body)
        self._action = action
        self._inputs = inputs
        self._attempt = attempt
        self._floor = floor
        self._recorded = recorded
        self._future: Future[tuple[int, Any]] = Future()
        self._future.set_running_or_notify_cancel()
        self._lock = threading.Lock()
        self._child: Seat | None = None
        self._sent = 0
        self._report = 0
        self._undrained = set(body.undrained)
        self._until: float | None = None
        self._calls: dict[int, _Carried] = {}
        mailbox: Any = self._driver.mailbox
        self._waits = WaitsElsewhere(mailbox, self._answer)
        body.attempt = attempt
        body.give_up = self._give_up

    # -- as an effect ------------------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, Any, tuple[int, Any]]:
        return self._wait().__await__()

    async def _wait(self) -> tuple[int, Any]:
        self.body.addressed = self.body.parent is None
        self._begin()
        try:
            return await asyncio.wrap_future(self._future)
        except asyncio.CancelledError:
            if self._driver.stopping:
                raise RunStopped(self._driver.why_stopped()) from None
            self.body.close()
            raise

    def block(self) -> tuple[int, Any]:
        """See `__await__`; the calling thread blocks."""
        parent = self.body.parent
        # As in a thread: what a sync body calls to clean up goes on.
        self.body.addressed = parent is None or not parent.cancel_delivered
        self._begin()
        slot = THREAD.slot if asyncio._get_running_loop() is None else None
        outcome: tuple[int, Any] = self._driver.worker.join(self._future, slot)
        return outcome

    def _begin(self) -> None:
        self.body.sleeper(self, True)
        self.body.check_open()
        self._pool.submit(self)

    def interrupt(self) -> None:
        """The stand-in is closed: from now on, nothing is written, and the child is killed (E3)."""
        if self._leave():
            self._future.set_exception(self._driver.stopped_error())

    def cancel(self) -> None:
        """The run is being cancelled, and the body in the child hears of that (E7). From any thread."""
        reason = self._driver.cancel
        # Before the body is assigned, `assigned` tells the child.
        if self._sent and reason is not None:
            self._send(frames.CancelBody(reason))

    # -- its child ---------------------------------------------------------------------------------------------

    def assigned(self, child: Seat) -> bool:
        """A child has been found; on the thread that will receive the child's frames. Whether the session still wants a
        child."""
        body, driver = self.body, self._driver
        with self._lock:
            if self.over:
                return False
            self._child = child
        module = self.spec.module
        child.channel.send(
            frames.Assign(
                run=driver.run._replace(inputs=b"", token=b"", value=None),
                fresh=driver.fresh,
                target=self.spec.target(),
                module="" if module == "__main__" else module,
                action=body.action,
                path=body.path,
                name=body.name,
                label=body.root.label,
                inputs=self._inputs,
                attempt=self._attempt,
                floor=self._floor,
                recorded=self._recorded,
                undrained=sorted(self._undrained),
                accepts=driver.accepts,
                cancel=driver.cancel if body.addressed else None,
            )
        )
        self._sent = 1
        if body.addressed and driver.cancel is not None:
            # The request may have come between the two lines.
            self.cancel()
        driver.gate.change((), (), self._listen)
        return True

    def _listen(self) -> None:
        if not self.over and self._tell not in self._driver.gate.listeners:
            self._driver.gate.listeners.append(self._tell)
        self._tell()

    def _tell(self) -> None:
        # Under the driver's lock, so that no later word of the driver overtakes an earlier word.
        self._send(frames.Free(self._report, self._driver.gate.free))

    def _send(self, frame: Any) -> None:
        child = self._sending()
        if child is not None:
            child.channel.send(frame)

    def _answer(self, ticket: int, value: Any) -> None:
        self._send(frames.Answer(ticket, frames.raw(value)))

    def _sending(self) -> Seat | None:
        """Count one more frame to the child (E5); `None`: the session is over, send nothing."""
        with self._lock:
            if self.over:
                return None
            self._sent += 1
            self.body.report = None
            return self._child

    def seconds_left(self) -> float | None:
        """Until the attempt's timeout."""
        return None if self._until is None else max(0.0, self._until - seconds())

    def _leave(self, *, kill: bool = True, keep: bool = False) -> bool:
        """The session ends; `False` if the session had ended already. `keep`: the child may be given another body."""
        with self._lock:
            if self.over:
                return False
            self.over = True
            child = self._child
        if child is not None and kill:
            child.kill()
        elif child is not None and keep:
            # Before the place is free: otherwise the next session would start another child.
            child.keep()
        self._waits.close()
        self._pool.left(self)
        self.body.sleeper(self, False)
        self.body.report = None
        self._driver.gate.change((), self._undrained, self._forget)
        return True

    def _forget(self) -> None:
        if self._tell in self._driver.gate.listeners:
            self._driver.gate.listeners.remove(self._tell)

    # -- how it ends -------------------------------------------------------------------------------------------

    def timed_out(self) -> None:
        """The `timeout` of the attempt has passed."""
        if self._leave():
            body = self.body
            body.timed_out = body.abandoned = self._driver.abandoning = True
            body.close()
            limit = f"{self.spec.timeout:g} s"
            error = TaskTimeoutError(f"task {self.spec.name} took longer than its timeout of {limit}")
            self._future.set_result((Result.ERROR, error))

    def died(self, code: int) -> None:
        """The child has ended before the body."""
        if self._leave(kill=False):
            # The code has not had its end, even if it has heard of the cancellation of the run.
            self.body.cancel_delivered = False
            self.body.close()
            self._future.set_result((Result.ERROR, self._death(code)))

    def lost(self, why: str) -> None:
        """The machine under the child is lost, through no fault of the body."""
        if self._leave(kill=False):
            self.body.cancel_delivered = False
            self.body.close()
            self._future.set_result((Result.ERROR, AttemptLost(why)))

    def suspend(self, why: PerdureError) -> None:
        """No cluster can execute the body: the run stays interrupted."""
        if not self.over:
            self._driver.stop(why)

    def failed(self, error: Exception) -> None:
        """No child could be started."""
        if self._leave():
            self._future.set_result((Result.ERROR, error))

    def _death(self, code: int) -> BodyDiedError:
        signal = None
        how = f"with exit code {code}"
        if code < 0:
            try:
                signal = Signals(-code).name
            except ValueError:
                signal = f"signal {-code}"
            how = f"by {signal}"
        hint = " (the kernel kills so when memory runs out)" if signal == "SIGKILL" else ""
        return BodyDiedError(
            f"the process of task {self.spec.name} ended {how}{hint} in attempt {self._attempt}",
            task=self.spec.name,
            attempt=self._attempt,
            exit_code=code if code >= 0 else None,
            signal=signal,
        )

    # -- what the child says -----------------------------------------------------------------------------------

    def handle(self, frame: Any) -> bool:
        """Handle a frame. Whether the frame was the last of the body."""
        self.body.report = None
        if self.over:
            return False
        kind = frame.__class__
        if kind is frames.BodyEnded:
            return self._ended(frame)
        try:
            _HANDLERS[kind](self, frame)
        except RunStopped:
            pass
        except StoreError as error:
            self._driver.stop(error)
        return False

    def _ended(self, frame: frames.BodyEnded) -> bool:
        if not self._leave(kill=False, keep=frame.reusable):
            return True
        self._driver.replayed += frame.replayed
        self._driver.executed += frame.executed
        self.body.cancel_delivered = frame.cancelled
        if frame.result == Result.VALUE:
            self._future.set_result((Result.VALUE, frame.data))
            return True
        error = with_frames(decode_error(frame.data), frame.frames)
        failed_elsewhere(error, Failure(frame.data, frame.final, frame.discards, frame.pause))
        self._future.set_result((Result.ERROR, error))
        return True

    def _begun(self, frame: frames.Begun) -> None:
        if self.spec.timeout is not None:
            self._until = seconds() + self.spec.timeout

    def _entries(self, frame: frames.Entries) -> None:
        self._answer(frame.ticket, self._driver.entries_of(frame.action))

    def _actions(self, frame: frames.Actions) -> None:
        self._answer(frame.ticket, self._driver.worker.store.actions(self._driver.run_id, frame.parent))

    def _cache_get(self, frame: frames.CacheGet) -> None:
        self._answer(frame.ticket, self._driver.worker.store.cache_get(frame.key))

    def _next_action(self, frame: frames.NextAction) -> None:
        self._answer(frame.ticket, self._driver.next_action())

    def _source_id(self, frame: frames.SourceId) -> None:
        self._answer(frame.ticket, self._driver.worker.store.source_id(frame.source))

    def _source_of(self, frame: frames.SourceOf) -> None:
        self._answer(frame.ticket, self._driver.worker.store.source(frame.id))

    def _commit(self, frame: frames.Commit) -> None:
        driver = self._driver
        children = [row.child for row in frame.entries if row.child is not None]
        rows = Foreign(
            self.body, frame.entries, frame.actions, frame.states, frame.cache, frame.takes, frame.published,
            frame.streamed,
        )  # fmt: skip
        ended = [row for child in children for row in driver.attached.ended(child)]
        with self._lock:
            if self.over:
                return
            driver.outbox.append((*ended, rows) if ended else rows)
        with self._waits.writing(frame.takes):
            driver.worker.writer.through(driver, rows)
        for child in children:
            driver.settled(child)
        self._answer(frame.ticket, rows.n)

    def _find_run(self, frame: frames.FindRun) -> None:
        row = self._driver.worker.store.run(frame.name)
        self._answer(frame.ticket, None if row is None else row._replace(inputs=b"", token=None))

    def _find_addressee(self, frame: frames.FindAddressee) -> None:
        self._answer(frame.ticket, self._driver.worker.store.addressee(frame.name, frame.box))

    def _send_message(self, frame: frames.Send) -> None:
        sent = self._driver.worker.store.send(frame.run, frame.message)
        row = sent.run
        self._answer(
            frame.ticket, sent if row is None else sent._replace(run=row._replace(inputs=b"", token=None, value=None))
        )

    def _publish(self, frame: frames.Publish) -> None:
        driver = self._driver
        store = driver.worker.store
        self._answer(frame.ticket, store.publish(driver.run_id, driver.token, frame.published, frame.streamed))

    def _last_streamed(self, frame: frames.LastStreamed) -> None:
        driver = self._driver
        self._answer(frame.ticket, driver.worker.store.last_streamed(driver.run_id, frame.name))

    def _await(self, frame: frames.Await) -> None:
        self._waits.begin(frame)

    def _left(self, frame: frames.Left) -> None:
        self._waits.left(frame)

    def _put_back(self, frame: frames.PutBack) -> None:
        self._waits.put_back(frame)

    def _undrained_now(self, frame: frames.Undrained) -> None:
        self._undrained.update(frame.added)
        self._undrained.difference_update(frame.removed)
        self._report = frame.report
        self._driver.gate.change(frame.added, frame.removed, self._tell)
        if self.over:
            # The session ended a moment ago, and took its reports back without the present report.
            self._driver.gate.change((), frame.added, self._tell)

    def _waiting(self, frame: frames.Idle) -> None:
        self._pool.waits(self, frame.waits)

    def _quiet(self, frame: frames.Quiet) -> None:
        if frame.received == self._sent:
            self.body.report = Report(frame.open, frame.replaying, frame.awaiting, frame.uncalled, frame.still)
            self._driver.check_stuck()

    def _give_up(self) -> None:
        report = self.body.report
        if report is not None and report.awaiting:
            self._send(frames.GiveUp(min(report.awaiting)))

    def _stop(self, frame: frames.Stop) -> None:
        reason = decode_error(frame.error)
        if not isinstance(reason, PerdureError):
            reason = PerdureError(f"a pool process could not go on: {reason}")
        self._driver.stop(reason)

    # -- what is carried out here for the child ----------------------------------------------------------------

    def _call(self, frame: frames.Delegate) -> None:
        # The action was reported as not called yet; now it is called, and from here on its own stand-in reports (E4).
        self._undrained.discard(frame.action.action)
        try:
            self._pool.refuse_call(self.spec, frame)
            spec = self._pool.find(frame.target, frame.module, frame.variable) if frame.variable else _spec_of(frame)
        except UsageError as error:
            self._carried(frame.ticket, (Result.ERROR, encode_error(error), error, ()))
            return
        parent: Any = self.body
        for action, path in reversed(frame.within):
            parent = Between(action, path, parent)
        protocol = attempts(
            self._driver, spec, frame.action, frame.inputs, parent=parent, floor=frame.floor, recorded=frame.recorded
        )
        carried = self._calls[frame.ticket] = _Carried(self._driver, frame.action.action)
        carried.begin(protocol, lambda outcome: self._carried(frame.ticket, outcome))

    def _carried(self, ticket: int, outcome: Final) -> None:
        self._calls.pop(ticket, None)
        result, data, live, extra = outcome
        trace = frames_of(live) if isinstance(live, BaseException) and result == Result.ERROR else []
        answer = frames.Final(
            result,
            data,
            trace,
            [(row.action, int(row.result), row.seq) for row in extra if isinstance(row, Mark)],
            [row for row in extra if isinstance(row, Action)],
            [row for row in extra if isinstance(row, ActionState)],
            [row for row in extra if isinstance(row, CachePut)],
        )
        self._answer(ticket, answer)

    def _cancel(self, frame: frames.Cancel) -> None:
        carried = self._calls.pop(frame.ticket, None)
        if carried is not None:
            carried.cancel()


_HANDLERS: dict[type, Callable[[BodySession, Any], None]] = {
    frames.Begun: BodySession._begun,
    frames.Entries: BodySession._entries,
    frames.Actions: BodySession._actions,
    frames.CacheGet: BodySession._cache_get,
    frames.NextAction: BodySession._next_action,
    frames.SourceId: BodySession._source_id,
    frames.SourceOf: BodySession._source_of,
    frames.Commit: BodySession._commit,
    frames.Undrained: BodySession._undrained_now,
    frames.Idle: BodySession._waiting,
    frames.Quiet: BodySession._quiet,
    frames.Stop: BodySession._stop,
    frames.Delegate: BodySession._call,
    frames.Cancel: BodySession._cancel,
    frames.Await: BodySession._await,
    frames.FindRun: BodySession._find_run,
    frames.FindAddressee: BodySession._find_addressee,
    frames.Send: BodySession._send_message,
    frames.Publish: BodySession._publish,
    frames.LastStreamed: BodySession._last_streamed,
    frames.Left: BodySession._left,
    frames.PutBack: BodySession._put_back,
}


class _Carried:
    """A call of the child for the outer process to carry out."""

    def __init__(self, driver: Any, action: int) -> None:
        self._driver = driver
        self._action = action
        self._loop = driver.worker.loop_for(driver)
        self._task: asyncio.Task[Any] | None = None

    def begin(self, protocol: Any, tell: Callable[[Final], None]) -> None:
        def done(task: asyncio.Task[Any]) -> None:
            if task.cancelled():
                return
            error = task.exception()
            if error is None:
                tell(task.result())
            elif not isinstance(error, RunStopped):
                self._driver.stop(error)

        def start() -> None:
            self._task = self._loop.loop.create_task(run_async(protocol), context=self._loop.loop.empty.copy())
            self._task.add_done_callback(done, context=self._loop.loop.empty)

        self._loop.soon(start)

    def cancel(self) -> None:
        """At once: the next row of the child is the cancellation, and no row of the called body may follow."""
        body = self._driver.bodies.get(self._action)
        if body is not None:
            body.close()
        self._loop.soon(self._cancel_task)

    def _cancel_task(self) -> None:
        assert self._task is not None
        self._task.cancel()


class _AsItIs:
    """Stands for a signature: this process only passes the encoded values on."""

    def decode(self, data: bytes) -> None:
        """Nothing: only the bytes go on."""


def _spec_of(call: frames.Delegate) -> TaskSpec:
    retries = call.retries
    return TaskSpec(
        kind=Kind.TASK,
        fn=SimpleNamespace(),  # type: ignore[arg-type]
        name=call.name,
        is_async=False,
        signature=SimpleNamespace(returns=_AsItIs()),  # type: ignore[arg-type]
        qualified=lambda: "",
        retries=RetryStrategy(retries.count, Backoff(*retries.backoff) if retries.backoff is not None else None),
        timeout=call.timeout,
        target=lambda: call.target,
        env_vars=call.env_vars,
        executor=call.executor,
        resources=call.resources,
    )

"""The inner end of one body in a pool child: the driver, and the writer and store that forward to the outer process.

The deciding code (bodies, replay, protocols, attempts) is the same as in every process. Only the parts that concern the
whole run are replaced. `core.run.remote_body` states E1 to E6; this module keeps them for the inner end.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import os
import sys
import threading
from collections.abc import Callable, Collection, Generator
from concurrent.futures import Future
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import msgspec

from ..core.body.body import Body
from ..core.body.interfaces import BodyPort
from ..core.body.scope import THREAD, driving
from ..core.commit.interfaces import Sink
from ..core.commit.records import Item, Mark, Record, cut, records_in, rows, without_abandoned
from ..core.commit.writer import Leaders, announce, pump
from ..core.ground.clock import perf
from ..core.ground.model import Action, ActionState, CachePut, Entry, Result, Source
from ..core.ground.spec import TaskSpec
from ..core.ground.values import decode_error, encode_error
from ..core.process.worker import Worker
from ..core.run.attempts import Final, escaped, is_final, unreadable
from ..core.run.driver import Driver
from ..core.run.effects import Durable
from ..core.run.execute import Execute
from ..core.run.gate import Gate
from ..errors import RunStopped, UsageError
from . import _frames as frames
from ._tracebacks import frames_of, with_frames
from .local import DaemonThreads

if TYPE_CHECKING:
    from ..core.body.loop import LoopThread

log = logging.getLogger("perdure")
T = TypeVar("T")

WATCH_SECONDS = 0.02
"""How often a child looks whether the child only waits."""
REPEAT_SECONDS = 0.25
"""How often a child that is held back reports that the child is quiet."""


class PathMap(NamedTuple):
    """The place of the driving process's files on this machine."""

    root: str
    here: str

    def inward(self, path: str) -> str:
        """A path, or a target, of the driving process, as a path here."""
        return self.here + path[len(self.root) :] if _is_under(path, self.root) else path

    def outward(self, path: str) -> str:
        """A path here, as a path of the driving process."""
        return self.root + path[len(self.here) :] if _is_under(path, self.here) else path


def _is_under(path: str, folder: str) -> bool:
    return bool(folder) and (path == folder or path.startswith(os.path.join(folder, "")))


SAME_PLACE = PathMap("", "")


class Connection:
    """The child's end of the socket: questions and their answers. From any thread.

    A frame counts for the body that is being executed. So a thread that an earlier body has left behind must not send
    in the time of the next body (`turn`).
    """

    def __init__(self, channel: frames.Channel, moved: PathMap = SAME_PLACE) -> None:
        self._channel = channel
        self.moved = moved
        self._tickets = itertools.count(1)
        self._asked: dict[int, Future[msgspec.Raw]] = {}
        self._turns = threading.Lock()
        self.turn = 0
        """How many bodies have begun or ended here."""
        self.received = 0
        """Frames acted on since the present body was assigned, the assignment included."""

    def next_turn(self, last: Any = None) -> int:
        """A body begins, or ends with `last`: from now on no frame is sent for the body before."""
        with self._turns:
            self.turn += 1
            if last is not None:
                self._channel.send(last)
            return self.turn

    def ask(self, make: Callable[[int], Any], kind: type[T] | Any, turn: int | None = None) -> T:
        """Ask, and wait for the answer. No answer comes if the run is driven no longer: the process ends.

        Raises:
            RunStopped: the turn is over.
        """
        _, future = self.ask_soon(make, turn)
        answer: T = msgspec.msgpack.decode(future.result(), type=kind)
        return answer

    def ask_soon(self, make: Callable[[int], Any], turn: int | None = None) -> tuple[int, Future[msgspec.Raw]]:
        """Ask without waiting: the ticket, and the future answer. Raises the same errors as `ask`."""
        ticket = next(self._tickets)
        future: Future[msgspec.Raw] = Future()
        future.set_running_or_notify_cancel()
        self._asked[ticket] = future
        if not self.tell(make(ticket), turn):
            raise RunStopped("the body that this belongs to is over")
        return ticket, future

    def tell(self, frame: Any, turn: int | None = None) -> bool:
        """Send a frame without an answer; `False`, and nothing is sent, if the turn is over."""
        with self._turns:
            if turn is not None and turn != self.turn:
                return False
            self._channel.send(frame)
            return True

    def answered(self, answer: frames.Answer) -> None:
        """An answer has come."""
        future = self._asked.pop(answer.ticket, None)
        if future is not None:
            future.set_result(answer.value)

    def awaits(self, ticket: int) -> bool:
        """Whether the answer to that ticket is still to come."""
        return ticket in self._asked

    def forget(self, ticket: int) -> Future[msgspec.Raw] | None:
        """Drop the question with that ticket."""
        return self._asked.pop(ticket, None)


class InnerStore:
    """The part of a store that bodies need, by questions to the outer process."""

    def __init__(self, connection: Connection, id: str, url: str) -> None:
        self.id = id
        self.url = url
        self._connection = connection

    def entries(self, run: int, action: int) -> list[Entry]:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.Entries(ticket, action), list[Entry])

    def actions(self, run: int, parent: int) -> list[Action]:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.Actions(ticket, parent), list[Action])

    def cache_get(self, key: bytes) -> bytes | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.CacheGet(ticket, key), bytes | None)

    def source_id(self, source: Source) -> int:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.SourceId(ticket, source), int)

    def source(self, id: int) -> Source | None:
        """See `Store`."""
        return self._connection.ask(lambda ticket: frames.SourceOf(ticket, id), Source | None)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        raise UsageError(
            "the store cannot be used in the body of a task that executes in another process (executor=...): only the "
            "process that drives the run has it open. Look at runs from outside of it."
        )


class InnerWriter(Leaders):
    """The same leaders and queues; the outer process writes the rows of a leader."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def commit_alone(self, driver: Sink) -> bool:
        """Nothing here is quicker than the general case."""
        return False

    def drain(self) -> None:
        """See `Leaders`."""
        for driver in self.cut_ready():
            outbox = cut(driver.outbox)
            if driver.abandoning:
                outbox = without_abandoned(outbox)
            if outbox:
                assert isinstance(driver, InnerDriver)
                self._write(driver, outbox)

    def _write(self, driver: InnerDriver, outbox: list[Item]) -> None:
        if driver.stopping or driver.turn != self._connection.turn:
            for record in records_in(outbox):
                record.done = True
                record.error = driver.stopped_error()
            return
        # Counted from zero; the numbers proper come with the answer (E1).
        driver.n = 0
        writes = rows(driver, outbox)
        if writes.entries or writes.actions or writes.states or writes.cache:
            began = perf()
            before: int = self._connection.ask(
                lambda ticket: frames.Commit(ticket, writes.entries, writes.actions, writes.states, writes.cache),
                int,
                driver.turn,
            )
            self.measure(perf() - began)
            for record in records_in(outbox):
                if isinstance(record, Record):
                    record.n += before
        bodies: dict[BodyPort, None] = {}
        announce(driver, outbox, bodies)
        for body in bodies:
            pump(body)


class CountingThreads(DaemonThreads):
    """Threads with a count of the jobs at work or waiting."""

    def __init__(self) -> None:
        super().__init__()
        self._count_lock = threading.Lock()
        self.jobs = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        # Counted here, not when a thread takes the job: a body may end in between.
        with self._count_lock:
            self.jobs += 1
        future = super().submit(self._counted, fn, args, kwargs)
        future.add_done_callback(self._uncount_cancelled)
        return future

    def _counted(self, fn: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        try:
            return fn(*args, **kwargs)
        finally:
            with self._count_lock:
                self.jobs -= 1

    def _uncount_cancelled(self, future: Future[Any]) -> None:
        """No thread takes a job after the job was cancelled in the queue."""
        if future.cancelled():
            with self._count_lock:
                self.jobs -= 1


class InnerGate(Gate):
    """Whether anything new may start here: the outer process decides, with the latest report in mind (E4)."""

    def __init__(self, opened: Callable[[], None], tell: Callable[[Any], None], undrained: Collection[int]) -> None:
        super().__init__(opened)
        self.free = False
        self._tell = tell
        self._reports = 0
        # What the outer process says counts until the body's journal is loaded: a word from there may come first.
        self.undrained = set(undrained)
        self._reported = set(undrained)
        self._heard: tuple[int, bool] = (-1, False)

    def refresh(self) -> bool:
        """See `Gate`; reports what has changed."""
        added, removed = self.undrained - self._reported, self._reported - self.undrained
        if added or removed:
            self._reported = set(self.undrained)
            self._reports += 1
            self._tell(frames.Undrained(self._reports, sorted(added), sorted(removed)))
        return super().refresh()

    def is_free(self) -> bool:
        """See `Gate`."""
        return self._heard == (self._reports, True) and not self.closed

    def heard(self, report: int, free: bool) -> None:
        """The outer process has answered a report."""
        with self.lock:
            self._heard = (report, free)
        self.change()

    def forget(self, action: int) -> None:
        """The outer process carries that action out, and speaks for it."""
        with self.lock:
            self.undrained.discard(action)
            self._reported.discard(action)


class InnerDriver(Driver):
    """Drives one body, and all calls of the body in this process, for the outer driver."""

    def __init__(
        self, worker: Worker, connection: Connection, work: frames.Assign, spec: TaskSpec, loop: LoopThread
    ) -> None:
        self.turn = connection.next_turn()
        self._connection = connection
        self._work = work
        self._process = worker
        super().__init__(worker, work.run, spec, loop, fresh=work.fresh)
        self.outer = Delegating(self, connection)
        self._watch = threading.Event()
        self.delegated: set[_Delegated] = set()
        """Calls that the outer process carries out, until their caller has gone on."""

    # -- the body ----------------------------------------------------------------------------------------------

    def make_gate(self) -> InnerGate:
        """See `Driver`."""
        return InnerGate(self._pump_all, self._tell, self._work.undrained)

    def entries_of(self, action: int) -> list[Entry]:
        """The entries of an action's body, as the outer process knows them."""
        store: InnerStore = self.worker.store  # type: ignore[assignment]
        return store.entries(self.run_id, action)

    def start(self) -> None:
        """Execute the body, on the loop's thread."""
        driving(1)
        self._process.drivers[self.run_id] = self
        self.loop.loop.create_task(self._execute(), context=self.loop.loop.empty.copy())
        threading.Thread(target=self._watch_bodies, name="perdure-watch", daemon=True).start()

    async def _execute(self) -> None:
        try:
            self.source_id = self.worker.source_id(self.run.target)
            ended = await self._attempt()
        except RunStopped:
            return
        except BaseException as error:
            log.exception("executing the body of %s failed", self.spec.name)
            self.stop(error)
            return
        if ended is not None and self.leave():
            self._watch.set()
            flush()
            self._connection.next_turn(ended)

    async def _attempt(self) -> frames.BodyEnded | None:
        work, returns = self._work, self.spec.signature.returns
        body = self.open_body(
            None, work.action, work.name, self.loop, floor=work.floor, label=work.label, recorded=work.recorded
        )
        try:
            try:
                args, kwargs = self.spec.signature.decode_inputs(work.inputs)
            except UsageError as misfit:
                unreadable(self, self.spec.name, work.inputs, misfit)
                return None
            self._tell(frames.Begun())
            outcome, value = await Execute(body, self.spec, args, kwargs, work.attempt, None)
            if self.stopping:
                return None
            if outcome == Result.VALUE:
                try:
                    value, _ = returns.roundtrip(value)
                except UsageError as misfit:
                    outcome, value = Result.ERROR, misfit
            if (outcome == Result.VALUE or body.idle_replaying) and self.ended_unasked(body):
                return None
            if self.outbox:
                # Rows without a waiting caller, such as a generator that was closed early.
                await Durable(body)
            return self._ended(outcome, value)
        finally:
            self.close_body(body)

    def _ended(self, outcome: int, value: Any) -> frames.BodyEnded:
        counts = (self.replayed, self.executed, self.worker.threads.jobs == 0)
        if outcome == Result.VALUE:
            return frames.BodyEnded(int(outcome), value, False, [], [], *counts)
        discards = escaped(value, self.run.uid, self._work.action)
        return frames.BodyEnded(int(outcome), encode_error(value), is_final(value), discards, frames_of(value), *counts)

    def _tell(self, frame: Any) -> None:
        self._connection.tell(frame, self.turn)

    # -- what concerns the whole run ---------------------------------------------------------------------------

    def stop(self, reason: BaseException) -> None:
        """The run cannot go on: tell the outer process, which will end this process."""
        if not self.begin_to_stop(reason):
            return
        self._tell(frames.Stop(encode_error(reason)))
        for body in list(self.bodies.values()):
            body.close()

    def next_action(self) -> int:
        return self._connection.ask(frames.NextAction, int)

    def heard(self, frame: frames.Free) -> None:
        """The outer process says whether new calls may start (E4)."""
        self._inner_gate.heard(frame.report, frame.free)

    def speaks_for(self, action: int) -> None:
        """Stop reporting the action: from now on the outer process carries out its call."""
        self._inner_gate.forget(action)

    @property
    def _inner_gate(self) -> InnerGate:
        assert isinstance(self.gate, InnerGate)
        return self.gate

    def give_up(self, action: int) -> None:
        """The cancellation that the body of the action waits for will not come."""
        body = self.bodies.get(action)
        if body is not None:
            body.loop.soon(body.give_up_cancellation)

    # -- whether it waits --------------------------------------------------------------------------------------

    def check_stuck(self) -> None:
        """Look at once whether anything moves here. Whether anything does in the whole run, the outer process finds
        out."""
        self._watch.set()

    def _watch_bodies(self) -> None:
        waits = False
        reported: Any = None
        repeat = 0
        while not self.has_left and not self.stopping:
            self._watch.wait(WATCH_SECONDS)
            self._watch.clear()
            bodies = list(self.bodies.values())
            quiet = bool(bodies) and all(body.quiet() and not body.delivery.in_flight for body in bodies)
            quiet = quiet and all(call.waits() for call in list(self.delegated))
            now = quiet and any(body.waits() for body in bodies)
            if now != waits:
                waits = now
                self._tell(frames.Idle(waits))
            if not quiet or self.free:
                reported = None
                continue
            report = self._report(bodies)
            repeat += 1
            if report != reported or repeat * WATCH_SECONDS > REPEAT_SECONDS:
                reported, repeat = report, 0
                self._tell(report)

    def _report(self, bodies: list[Body]) -> frames.Quiet:
        # Counted first: a frame that arrives during the look makes the report void.
        received = self._connection.received
        opened = {body.action for body in bodies}
        return frames.Quiet(
            received,
            sorted(opened),
            sum(body.idle_replaying for body in bodies),
            [body.action for body in bodies if body.idle_replaying and body.awaits_cancellation()],
            [action for body in bodies for action in body.uncalled() if action.action not in opened],
        )


class Delegating:
    """Tasks for the outer process. Implements `core.run.interfaces.Outer`."""

    def __init__(self, driver: InnerDriver, connection: Connection) -> None:
        self._driver = driver
        self._connection = connection

    def takes(self, spec: TaskSpec) -> bool:
        """See `Outer`."""
        return spec.process or spec.dispose is not None

    def attempts(
        self, spec: TaskSpec, action: Action, inputs: bytes, *, parent: Any, floor: int, recorded: bool
    ) -> Generator[Any, Any, Final]:
        """See `Outer`."""
        make = _call(spec, action, inputs, floor, recorded, _within(parent), self._connection.moved)
        if not recorded:
            # The row of the action goes before the rows that the outer process writes for the action.
            yield Durable(parent)
        self._driver.speaks_for(action.action)
        answer: frames.Final = yield _Delegated(self._driver, self._connection, parent, make)
        live: Any
        if answer.result == Result.VALUE:
            live = spec.signature.returns.decode(answer.data)
        else:
            live = with_frames(decode_error(answer.data), answer.frames)
        marks = [Mark(number, Result(result), seq) for number, result, seq in answer.marks]
        extra: list[Mark | Action | ActionState | CachePut] = [*marks, *answer.actions, *answer.states, *answer.cache]
        return answer.result, answer.data, live, tuple(extra)


class _Delegated:
    """An effect: the outer process's answer to a `Call`."""

    def __init__(
        self, driver: InnerDriver, connection: Connection, body: Body, make: Callable[[int], frames.Delegate]
    ) -> None:
        self._driver = driver
        self._connection = connection
        self._body = body
        self._make = make
        self._ticket = 0

    def __await__(self) -> Generator[Any, Any, frames.Final]:
        return self._wait().__await__()

    async def _wait(self) -> frames.Final:
        future = self._ask()
        try:
            return _final(await asyncio.wrap_future(future))
        except asyncio.CancelledError:
            self._give_up()
            if self._driver.stopping:
                raise RunStopped(self._driver.why_stopped()) from None
            raise
        finally:
            self._over()

    def block(self) -> frames.Final:
        """See `__await__`; the calling thread blocks."""
        future = self._ask()
        slot = THREAD.slot if asyncio._get_running_loop() is None else None
        try:
            return _final(self._driver.worker.join(future, slot))
        finally:
            self._over()

    def waits(self) -> bool:
        """Whether the answer is still to come. Afterwards the caller is about to go on."""
        return self._connection.awaits(self._ticket)

    def _over(self) -> None:
        self._driver.delegated.discard(self)
        self._body.sleeper(self, False)

    def _ask(self) -> Future[msgspec.Raw]:
        self._body.sleeper(self, True)
        self._body.check_open()
        self._driver.delegated.add(self)
        self._ticket, future = self._connection.ask_soon(self._make, self._driver.turn)
        self._driver.check_stuck()
        if self._body.stopped:
            self.interrupt()
        return future

    def _give_up(self) -> Future[msgspec.Raw] | None:
        future = self._connection.forget(self._ticket)
        if future is not None:
            self._connection.tell(frames.Cancel(self._ticket), self._driver.turn)
        return future

    def interrupt(self) -> None:
        """The calling body is closed."""
        future = self._give_up()
        if future is not None:
            future.set_exception(self._driver.stopped_error())


def _final(data: msgspec.Raw) -> frames.Final:
    return msgspec.msgpack.decode(data, type=frames.Final)


def _within(body: Any) -> list[int]:
    found: list[int] = []
    while body.parent is not None:
        found.append(body.action)
        body = body.parent
    return found


def _call(
    spec: TaskSpec, action: Action, inputs: bytes, floor: int, recorded: bool, within: list[int], moved: PathMap
) -> Callable[[int], frames.Delegate]:
    target, module, variable = spec.target(), spec.module, ""
    if not spec.process:
        # The outer process needs the task object: the program and its settings.
        target, module, variable = _whereabouts(spec)
    backoff = spec.retries.backoff
    pauses = (backoff.initial, backoff.factor, backoff.maximum, backoff.jitter) if backoff is not None else None
    return partial(
        frames.Delegate,
        action=action,
        inputs=inputs,
        floor=floor,
        recorded=recorded,
        within=within,
        name=spec.name,
        target=moved.outward(target),
        module=module,
        variable=variable,
        retries=frames.Retries(spec.retries.count, pauses),
        timeout=spec.timeout,
        env_vars=spec.env_vars,
        executor=spec.executor,
        resources=spec.resources,
    )


def _whereabouts(spec: TaskSpec) -> tuple[str, str, str]:
    """The file, module and variable of a container task, for another process."""
    own = sys.modules.get(spec.fn.__module__)
    for module in (own, *list(sys.modules.values())):
        file = getattr(module, "__file__", None)
        if file is None:
            continue
        for name, value in list(vars(module).items()):
            if type(value).__module__ == "perdure.api.container" and value.spec is spec:
                return f"{os.path.abspath(file)}::", str(getattr(module, "__name__", "")), name
    raise UsageError(
        f"container task {spec.name} is no variable of a module: made, or overridden, inside a function, it cannot be "
        "found by the process that runs containers for a body in another one. Give it a name at module level."
    )


def failed_to_load(error: BaseException) -> frames.BodyEnded:
    """The body could not even begin."""
    return frames.BodyEnded(
        int(Result.ERROR), encode_error(error), is_final(error), [], frames_of(error), 0, 0, False
    )  # fmt: skip


def flush() -> None:
    """Flush the output of a body before its caller goes on."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the user's own stream, or a reader that is gone

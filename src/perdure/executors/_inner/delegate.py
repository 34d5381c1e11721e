"""Tasks of a body in a pool child that the outer process carries out (E6)."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Callable, Generator
from concurrent.futures import Future
from functools import partial
from typing import Any

import msgspec

from ...core.body.body import Body
from ...core.body.scope import THREAD
from ...core.commit.records import Mark
from ...core.ground.model import Action, ActionState, CachePut, Result
from ...core.ground.spec import TaskSpec
from ...core.ground.values import decode_error, encode_error
from ...core.run.attempts import Final
from ...core.run.driver import Driver
from ...core.run.effects import Durable
from ...errors import RunStopped, UsageError
from .. import _frames as frames
from .._tracebacks import with_frames
from .gate import InnerGate
from .store import Connection, PathMap


class Delegating:
    """Tasks for the outer process. Implements `core.run.interfaces.Outer`."""

    def __init__(self, driver: Driver, gate: InnerGate, connection: Connection, turn: int) -> None:
        self._driver = driver
        self._gate = gate
        self._connection = connection
        self._turn = turn
        self._open: set[_Delegated] = set()
        """Calls that the outer process carries out, until their caller has gone on."""

    def waits(self) -> bool:
        """Whether the answers to all open calls are still to come."""
        return all(call.waits() for call in list(self._open))

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
        # From now on the outer process carries out the call, and speaks for the action.
        self._gate.forget(action.action)
        asking = _Delegated(self._driver, self._connection, self._turn, parent, make)
        self._open.add(asking)
        try:
            answer: frames.Final = yield asking
        finally:
            self._open.discard(asking)
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
        self, driver: Driver, connection: Connection, turn: int, body: Body, make: Callable[[int], frames.Delegate]
    ) -> None:
        self._driver = driver
        self._connection = connection
        self._turn = turn
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
            self._body.sleeper(self, False)

    def block(self) -> frames.Final:
        """See `__await__`; the calling thread blocks."""
        future = self._ask()
        slot = THREAD.slot if asyncio._get_running_loop() is None else None
        try:
            return _final(self._driver.worker.join(future, slot))
        finally:
            self._body.sleeper(self, False)

    def waits(self) -> bool:
        """Whether the answer is still to come. Afterwards the caller is about to go on."""
        return self._connection.awaits(self._ticket)

    def _ask(self) -> Future[msgspec.Raw]:
        self._body.sleeper(self, True)
        self._body.check_open()
        self._ticket, future = self._connection.ask_soon(self._make, self._turn)
        self._driver.check_stuck()
        if self._body.stopped:
            self.interrupt()
        return future

    def _give_up(self) -> Future[msgspec.Raw] | None:
        future = self._connection.forget(self._ticket)
        if future is not None:
            self._connection.tell(frames.Cancel(self._ticket), self._turn)
        return future

    def cancel(self) -> None:
        """The run is being cancelled: the calling sync body hears of that as the outcome of this call (E7)."""
        future = self._give_up()
        if future is not None:
            error = encode_error(self._driver.cancelled_error())
            future.set_result(frames.raw(frames.Final(int(Result.ERROR), error, [], [], [], [], [])))

    def interrupt(self) -> None:
        """The calling body is closed."""
        future = self._give_up()
        if future is not None:
            future.set_exception(self._driver.stopped_error())


def _final(data: msgspec.Raw) -> frames.Final:
    return msgspec.msgpack.decode(data, type=frames.Final)


def _within(body: Any) -> list[frames.Within]:
    found: list[frames.Within] = []
    while body.parent is not None:
        found.append(frames.Within(body.action, body.path))
        body = body.parent
    return found


def _call(
    spec: TaskSpec,
    action: Action,
    inputs: bytes,
    floor: int,
    recorded: bool,
    within: list[frames.Within],
    moved: PathMap,
) -> Callable[[int], frames.Delegate]:
    target, module, variable = spec.target(), spec.module, ""
    if not spec.process:
        # The outer process needs the task object: the program and its settings.
        target, module, variable = _whereabouts(spec)
    if spec.retries.retry_on is not None or spec.retries.retry_if is not None:
        raise UsageError(
            f"task {spec.name} is called by a body in another process (executor=...), which cannot send the retry_on= "
            "or retry_if= of its retries to the driving process. Raise NonRecoverableError in the task for failures "
            "that are not to be tried again."
        )
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

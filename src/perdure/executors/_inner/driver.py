"""The driver of a pool child: executes one body, and reports to the outer process whether the body waits."""

from __future__ import annotations

import asyncio
import logging
import sys
import threading
from typing import TYPE_CHECKING, Any

from ...core.body.body import Body
from ...core.body.scope import driving
from ...core.ground import carrying
from ...core.ground.model import Entry, Result
from ...core.ground.spec import TaskSpec
from ...core.ground.values import encode_error
from ...core.process.worker import Worker
from ...core.run.attempts import escaped, unreadable
from ...core.run.driver import Driver
from ...core.run.effects import Durable
from ...core.run.execute import Execute
from ...core.run.retrying import asked_pause, is_final
from ...errors import RunStopped, UsageError
from .. import _frames as frames
from .._tracebacks import frames_of
from .delegate import Delegating
from .gate import InnerGate
from .mailbox import RemoteMailbox
from .store import Connection, InnerStore

if TYPE_CHECKING:
    from ...core.body.loop import LoopThread

log = logging.getLogger("perdure")

WATCH_SECONDS = 0.02
"""How often a child looks whether the child only waits."""
REPEAT_SECONDS = 0.25
"""How often a child that is held back reports that the child is quiet."""


class InnerDriver(Driver):
    """Drives one body, and all calls of the body in this process, for the outer driver."""

    gate: InnerGate

    def __init__(
        self, worker: Worker, connection: Connection, work: frames.Assign, spec: TaskSpec, loop: LoopThread
    ) -> None:
        self.turn = connection.next_turn()
        self._connection = connection
        self._work = work
        self._process = worker
        super().__init__(worker, work.run, spec, loop, fresh=work.fresh)
        # Where the body is not told itself, the outer process ends this one.
        self.cancel = work.cancel
        self.cancel_told = work.cancel is not None
        self.accepts = work.accepts
        self._delegating = Delegating(self, self.gate, connection, self.turn)
        self.outer = self._delegating
        self._watch = threading.Event()

    # -- the body ----------------------------------------------------------------------------------------------

    def make_mailbox(self) -> RemoteMailbox:
        """See `Driver`."""
        return RemoteMailbox(self._connection, self.turn)

    def make_gate(self) -> InnerGate:
        """See `Driver`."""
        return InnerGate(self.pump_all, self._tell, self._work.undrained)

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
        body.path = work.path
        try:
            try:
                args, kwargs = self.spec.signature.decode_inputs(work.inputs)
            except UsageError as misfit:
                unreadable(self, self.spec.name, work.inputs, misfit)
                return None
            carrying.write(self.run.carried, self.run.name)
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
            body.give_back()
            if self.outbox:
                # Rows without a waiting caller, such as a generator that was closed early.
                await Durable(body)
            if isinstance(value, asyncio.CancelledError) and body.cancel_delivered:
                value = self.cancelled_error().with_traceback(value.__traceback__)
            return self._ended(outcome, value, cancelled=self.cancel is not None and body.cancel_delivered)
        finally:
            self.close_body(body)

    def _ended(self, outcome: int, value: Any, *, cancelled: bool) -> frames.BodyEnded:
        counts = (self.replayed, self.executed, self.worker.threads.jobs == 0, cancelled)
        if outcome == Result.VALUE:
            return frames.BodyEnded(int(outcome), value, False, 0.0, [], [], *counts)
        discards = escaped(value, self.run.uid, self._work.action)
        pause = asked_pause(value, self.worker.clock.wall())
        return frames.BodyEnded(
            int(outcome), encode_error(value), is_final(value), pause, discards, frames_of(value), *counts
        )

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
        self.gate.heard(frame.report, frame.free)

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
            quiet = quiet and self._delegating.waits()
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
            all(body.between_calls() for body in bodies),
        )


def failed_to_load(error: BaseException) -> frames.BodyEnded:
    """The body could not even begin."""
    return frames.BodyEnded(
        int(Result.ERROR), encode_error(error), is_final(error), 0.0, [], frames_of(error), 0, 0, False, False
    )  # fmt: skip


def flush() -> None:
    """Flush the output of a body before its caller goes on."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, OSError, ValueError):
            pass  # the user's own stream, or a reader that is gone

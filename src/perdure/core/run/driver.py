"""Driving one run: its claim, its open bodies, what stands between replay and new effects, and its end.

- D1 nothing is written for the run but through `outbox`, under `token` (P3).
- D5 a run is parked only while nothing in it can move but by a recorded deadline or a message (`rest`), and its wake
  time is not later than the earliest deadline. Its tasks are unwound first: what they do meanwhile is not recorded
  (D3).
"""

from __future__ import annotations

import asyncio
import logging
from contextvars import Context
from functools import cached_property
from typing import Any

from ...errors import (
    CrashLoopError,
    Parked,
    RunCancelledError,
    RunNotFoundError,
    RunStopped,
    StoreError,
    cancelled_text,
)
from ..body.body import Body, Stillness
from ..body.branch import Call
from ..body.delivery import Outcome
from ..body.interfaces import BodyPort, ParentPort
from ..body.loop import LoopThread
from ..body.scope import SCOPE, THREAD, driving
from ..body.waits import BLOCKING, LoopWaiter, Waiter
from ..body.wording import describe, mismatch
from ..commit.records import Mark, Noted, Record, Reuse, Taking, Unheard, rows
from ..ground import carrying
from ..ground.clock import US
from ..ground.model import (
    ENDS,
    NO_PARENT,
    ROOT,
    WAITS,
    Action,
    Entry,
    Finish,
    Kind,
    Result,
    RunRow,
    RunWrites,
    Taken,
)
from ..ground.spec import TaskSpec, moved_target, parsed
from ..ground.values import encode_error
from ..journal.moved import Moves
from ..journal.recovering import caught_failures, is_cancellation, work_of
from ..journal.replay import Replay
from ..journal.segment import Journal, again, journal_of
from .attached import Attachments
from .ending import Ending
from .gate import Gate
from .interfaces import MailboxLike, Outer, WorkerPort
from .mailbox import Mailbox
from .pausing import Pausing

log = logging.getLogger("perdure")

MARGIN = 20_000
"""Microseconds: a run with a nearer deadline is never parked, since the run could move meanwhile."""
UNWIND_SECONDS = 1.0
"""How long a stopped run's tasks may take to unwind before the caller is told."""


class Driver(Ending):
    """One run, driven by this process under one claim. See the module text."""

    rehearses = False
    """The run is replayed without effects, so that all bodies execute in this process."""
    outer: Outer | None = None
    """Set in an inner process: this process executes one body for the process that holds the claim."""

    def __init__(
        self,
        worker: WorkerPort,
        run: RunRow,
        spec: TaskSpec,
        loop: LoopThread,
        *,
        fresh: bool,
        taken: Taken | None = None,
    ) -> None:
        super().__init__()
        assert run.token is not None
        self.worker = worker
        # Where the caller names another file, or the task has moved, the code is there now.
        today = run.target if fresh else moved_target(run.target, spec.target() or run.target)
        self.run = run if today == run.target else run._replace(target=today)
        self.run_id = run.id
        self.token = run.token
        self.spec = spec
        self.loop = loop
        self.fresh = fresh
        self.park_after: float | None = None
        """Park the run if idle for longer than this (seconds); `None`: never."""
        self.busy = 0
        """Tasks that are at work outside of their bodies: between two attempts, say."""
        self._woken = taken is not None and taken.woken
        self._known = taken.known if taken is not None else None
        self._entered: set[int] = set()
        self._considering = False
        self.n = 0
        """Entries written so far; kept by the writer's leader."""
        self.journal = Journal(run.name, run.uid, run.token)
        self.source_id = 0
        self.outbox: list[Any] = []
        self.gate = self.make_gate()
        self.bodies: dict[int, Body] = {}
        self.replayed = 0
        self.executed = 0
        self.attached = Attachments()
        self.abandoning = False
        """A body was abandoned, so records are checked before they are written."""
        self.broken = False
        """See `Sink`."""
        self._next_action = 1
        self.mailbox = self.make_mailbox()
        self.context: Context | None = None
        """The caller's context variables, for the root body; `None` for a run without a caller in this process."""
        self._changed: dict[int, bool] = {}
        self.accepts = False
        """Where the code differs from the journal, the journal becomes loose, as if the source had changed (P6)."""
        self.retries_failures = False
        """Recorded failures that the code has caught are tried again."""
        self.cancel = run.cancel
        """The reason of the request to cancel the run; `None`: there is no such request."""
        self.cancel_told = run.cancel is not None
        self.pausing = Pausing(self)

    def make_mailbox(self) -> MailboxLike:
        """The messages of the run, for the calls of its bodies."""
        return Mailbox(self.run_id, self.worker.store, self.worker.post, self.loop, self.bodies)

    def make_gate(self) -> Gate:
        """Whether anything new may start here is decided by this."""
        return Gate(self.pump_all)

    @property
    def free(self) -> bool:
        """See `Gate`."""
        return self.gate.free

    # -- beginning ---------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to drive, on the loop's thread."""
        driving(1)
        try:
            self._prepare()
            context = self.loop.loop.empty.copy() if self.context is None else self.context
            # Where the caller is itself a body, this run is no part of that body.
            context.run(SCOPE.set, None)
            context.run(carrying.write, self.run.carried, self.run.name)
        except BaseException as error:
            # For every kind of error: no caller may wait for ever, and no other worker be kept from the run (D4).
            self._stopping = error
            self._give_up()
            return
        if self._stopping is None:
            self._main = self.loop.loop.create_task(self._drive(), context=context)

    def _prepare(self) -> None:
        store = self.worker.store
        self.source_id = self.worker.source_id(self.run.target)
        if self.run.reuse is not None:
            self._recover(self.run.reuse)
        if self.fresh:
            return
        if self._known is not None:
            segments, _ = self._known
            self.n = self.journal.read(segments)
        else:
            open_ones = {ROOT, *(action.action for action in store.open_actions(self.run_id))}
            self.n = self.journal.read(store.segments(self.run_id), keep=open_ones)
        self._next_action = 0
        if self.retries_failures:
            self._discard_failures()

    def _discard_failures(self) -> None:
        """Discard the recorded failures that the code has caught, so that these calls are tried again."""
        store, journal = self.worker.store, self.journal
        failures = caught_failures(
            lambda body: again(store.segments(self.run_id, journal.places(body)), body),
            lambda body: store.actions(self.run_id, body),
        )
        first: dict[int, int] = {}
        marks = []
        for failure in failures:
            action = failure.entry.action
            first[action] = min(first.get(action, failure.discards[0]), *failure.discards)
            marks += [Mark(action, Result.DISCARD, n) for n in failure.discards]
        marks += [Mark(action, Result.FAILED, low) for action, low in first.items()]
        if marks:
            [written] = store.commit([rows(self, marks).sealed(self)])
            if not written:
                self.fenced()

    def _recover(self, name: str) -> None:
        """Begin with the work of the named run, unless done already. One transaction writes all of the work, so a crash
        leaves the run with everything or with nothing, and every later driver of the run passes here again."""
        store = self.worker.store
        if not self.fresh and (store.journal_length(self.run_id) or store.actions(self.run_id, NO_PARENT)):
            return
        old = store.run(name)
        if old is None:
            raise RunNotFoundError(f"run {self.run.name!r} was to reuse what run {name!r} did, which is gone")
        entries, actions = work_of(journal_of(store, old), store.actions(old.id), self.run)
        segments, ends, sources = Journal(self.run.name, self.run.uid, self.token).append(entries)
        [written] = store.commit([RunWrites(self.run_id, self.token, segments, actions, ends=ends, sources=sources)])
        if not written:
            self.fenced()
        self.fresh = False

    def continues(self, action: int) -> bool:
        """Whether the action's attempt goes on: the attempt has slept, and is entered for the first time since."""
        if not self._woken or action in self._entered:
            return False
        self._entered.add(action)
        return True

    async def _drive(self) -> None:
        try:
            if self.run.crashes > CRASH_LIMIT and not self._was_waiting():
                result, value, live, extra = self._crash_loop()
            else:
                result, value, live, extra = await self.worker.root(self)
        except RunStopped:
            return
        except asyncio.CancelledError:
            return
        except StoreError as error:
            self.stop(error)
            return
        except BaseException as error:
            log.exception("driving run %s failed", self.run.name)
            self.stop(error)
            return
        if self._stopping is not None:
            return
        if self.cancel is not None and isinstance(live, RunCancelledError):
            result = Result.CANCELLED
        self._outcome = (result, value, live)
        self.outbox.append((*extra, Finish(ENDS[result], result, value, self.worker.clock.wall())))
        self.worker.writer.mark_ready(self)
        self.loop.flush_soon(self.worker.writer)

    def _was_waiting(self) -> bool:
        """Whether the run was in a sleep, a backoff or a wait for a message, in which any number of processes may
        rightly end."""
        return any(
            action.kind in WAITS or (action.wake_at is not None and not action.state and action.kind != Kind.TIMEOUT)
            for action in self.worker.store.open_actions(self.run_id)
        )

    def _crash_loop(self) -> tuple[int, bytes, Any, tuple[Any, ...]]:
        error = CrashLoopError(
            f"run {self.run.name!r} died {CRASH_LIMIT} times in a row without recording anything new. The process is "
            "killed, or kills itself, at the same place each time: look for a crash in native code or for memory "
            f"running out. Continue it with: perdure resume {self.run.name}"
        )
        return Result.ERROR, encode_error(error), error, ()

    # -- cancelling --------------------------------------------------------------------------------------------

    def cancel_run(self, reason: str) -> None:
        """Let the run's bodies hear of a request to cancel the run, which is on disk. From any thread; idempotent."""
        with self._lock:
            if self.cancel is not None:
                return
            self.cancel = reason
        self.loop.soon(self._cancel_bodies)

    def _cancel_bodies(self) -> None:
        if self._stopping is not None or self._outcome is not None:
            return
        for body in list(self.bodies.values()):
            if body.addressed or body.parent is None:
                body.cancel_by_run()
        self.cancel_told = True

    def cancelled_error(self) -> RunCancelledError:
        """The error of the cancelled run."""
        return RunCancelledError(cancelled_text(self.run.name, self.cancel))

    def cancelled_call(self, call: Call, item: int, at: int = 0, child: int | None = None) -> Outcome:
        """Record the cancellation of the run as the outcome of a call of a thread (B12), perhaps with a started sleep
        `child`."""
        now = self.worker.clock.wall()
        call.body.cancel_delivered = True
        record = Record(
            call, Result.ERROR, encode_error(self.cancelled_error()), at or now, now - at if at else 0, item, child
        )
        record.slot = THREAD.slot
        self.executed += 1
        self.outbox.append(record)
        return record.block()

    # -- parking and handing over ------------------------------------------------------------------------------

    def slept(self, seconds: float) -> None:
        """Something in the run begins to wait for a recorded deadline. From any thread."""
        if self.park_after is not None and seconds > self.park_after and not self._considering:
            self._considering = True
            self.loop.soon(self.consider)

    def consider(self, park_after: float | None = None) -> None:
        """Park the run if it has nothing to do for longer than `park_after` seconds (by default its own). On the loop's
        thread."""
        self._considering = False
        least = self.park_after if park_after is None else park_after
        if least is None:
            return
        clock = self.worker.clock
        wall, boot = clock.wall(), clock.boot()  # first, so that the run is never woken later than it asked for
        left = self.rest(least)
        if left is None:
            if self.gate.undrained and not self.busy and self.bodies:
                # No other event may trigger the look whether missing calls can still come, and the run would be held
                # here.
                self._check_stuck()
            return
        if left <= max(least * US, MARGIN):
            return
        wake = (wall + left, boot + left)
        # No entry may come to carry these along, and the next driver has to know.
        self.outbox.extend(Noted(body) for body in list(self.bodies.values()))
        waits = any(body.waits_for_message() for body in list(self.bodies.values()))
        tickets = tuple(ticket for body in list(self.bodies.values()) for ticket in body.tickets())
        why = f"it sleeps for {left / US:.3g} s"
        if waits:
            why = f"it waits for limit {tickets[0][0]}" if tickets else "it waits for a message"
        self.stop(Parked(f"run {self.run.name!r} is parked: {why}", wake, waits=waits, tickets=tickets))

    def rest(self, patience: float = 0.0) -> int | None:
        """Microseconds until the earliest recorded deadline, if nothing but a message can move the run before; else
        `None`. `patience`: see `Body.rest`."""
        if self._stopping is not None or self._outcome is not None or self.busy or self.attached:
            return None
        if self.gate.undrained or (self.cancel is not None and not self.cancel_told):
            return None
        lefts: list[int] = []
        for body in list(self.bodies.values()):
            left = body.rest(patience)
            if left is None:
                return None
            lefts += left
        return min(lefts, default=None)

    def still(self) -> list[Stillness] | None:
        """What each open body waits for, if nothing but time or a message can move the run; else `None`. On any thread;
        the timers of the loops are the loops' to tell."""
        if self._stopping is not None or self._outcome is not None or self.busy or self.attached or self.outbox:
            return None
        if self._main is None or (self.cancel is not None and not self.cancel_told):
            return None
        bodies = list(self.bodies.values())
        found = [still for body in bodies if (still := body.still()) is not None]
        return found if found and len(found) == len(bodies) else None

    def works(self, change: int) -> None:
        """A task begins (1) or ends (-1) to be at work outside of its body. From any thread."""
        with self._lock:
            self.busy += change

    def drain(self) -> None:
        """Begin nothing new; what is under way may end and be recorded. From any thread."""
        self.gate.drain()

    def hand_over(self, reason: BaseException) -> bool:
        """Stop a run that is being drained, if nothing of it is under way. On the loop's thread."""
        if self._stopping is not None or self._outcome is not None or not self.between_calls():
            return False
        self.stop(reason)
        return True

    def between_calls(self) -> bool:
        """Whether nothing of the run is under way: no call executes, and no outcome is on its way to disk."""
        if self.busy or self.attached:
            return False
        return all(body.between_calls() for body in list(self.bodies.values()))

    # -- bodies ------------------------------------------------------------------------------------------------

    def open_body(
        self,
        parent: ParentPort | None,
        action: int,
        name: str,
        loop: LoopThread,
        *,
        floor: int,
        label: str | None,
        recorded: bool,
        kind: type[Body] = Body,
    ) -> Body:
        """A body about to execute; with `recorded` its journal is loaded."""
        body = kind(self, action, name, loop, floor=floor, label=label)
        if recorded:
            self._load(body)
            body.hand_over()
        with self._lock:
            earlier = self.bodies.get(action)
            self.bodies[action] = body
        if earlier is not None:
            # A thread of an attempt that is over still works on this action.
            earlier.abandoned = self.abandoning = True
            earlier.close()
        body.parent = parent
        if parent is not None:
            parent.children.add(body)
            if parent.stopped:
                body.close()
                raise self.stopped_error()
        if self._stopping is not None:
            body.close()
            raise self.stopped_error()
        return body

    def root_action(self) -> Action | None:
        """The row of the root task, if it has one."""
        if self._known is not None:
            _, actions = self._known
            found = [action for action in actions if action.parent == NO_PARENT]
        else:
            found = self.worker.store.actions(self.run_id, NO_PARENT) if not self.fresh else []
        return found[0] if found else None

    def entries_of(self, action: int) -> list[Entry]:
        """What a body has recorded so far. From any thread."""
        found = self.journal.take(action)
        if found is None:
            found = again(self.worker.store.segments(self.run_id, self.journal.places(action)), action)
        return found

    def actions_of(self, action: int) -> list[Action]:
        """The actions that a body has started so far. From any thread."""
        if action == ROOT and self._known is not None:
            (_, actions), self._known = self._known, None
            return [one for one in actions if one.parent == ROOT]
        return self.worker.store.actions(self.run_id, action)

    def _load(self, body: Body) -> None:
        rows, actions = self.entries_of(body.action), self.actions_of(body.action)
        replay = Replay(rows, self.is_changed)
        if self.cancel is not None:
            # Of the entries that count: a cleanup that failed is tried again, from the cancellation on.
            body.cancel_delivered = any(map(is_cancellation, replay.outcomes()))
        body.load(
            replay,
            {
                (action.branch, action.fp, action.occ): action
                for action in actions
                if action.action not in replay.children
            },
        )
        if self.fresh:
            return
        waited_for = set() if replay.drained else {body.action}
        if not replay.loosened:
            # After a failed attempt the code may rightly not call these actions again.
            waited_for.update(a.action for a in body.delivery.open_actions.values() if a.kind == Kind.TASK)
        # If this body was the last to be opened, and has nothing to replay, the others go on now.
        self.gate.change(waited_for, {body.action} - waited_for)

    def close_body(self, body: Body) -> None:
        """That attempt is over."""
        body.close()
        if body.parent is not None:
            body.parent.children.discard(body)
        with self._lock:
            if self.bodies.get(body.action) is body:
                del self.bodies[body.action]
        self.drained(body.action)

    def drained(self, action: int) -> None:
        """That body has been handed all it had recorded."""
        self.gate.drained(action)

    def pump_all(self) -> None:
        """New calls may start: look at every body that waits for that. From any thread."""
        for body in list(self.bodies.values()):
            if body.stirred:
                body.loop.soon(body.pump)

    def loop_blocked(self, body: Body, blocked: bool) -> None:
        """A synchronous call blocks the body's loop. Recorded outcomes cannot be delivered to the body meanwhile, so
        the work of the call must not wait for them."""
        if blocked:
            self.gate.drained(body.action)
        elif body.idle_replaying and not body.stopped:
            self.gate.change((body.action,))

    def check_stuck(self) -> None:
        """A body holds back new calls: make sure that what it waits for can still come."""
        self.worker.loop_for(self).soon(self._check_stuck)

    def _check_stuck(self) -> None:
        bodies = list(self.bodies.values())
        if self.gate.free or not all(body.quiet() for body in bodies):
            return
        replaying = [body for body in bodies if body.idle_replaying]
        if replaying:
            # An outer body first: what it does then may cancel the inner one after all.
            if all(body.awaits_cancellation() for body in replaying):
                min(replaying, key=lambda body: body.action).give_up_cancellation()
            return
        with self.gate.lock:
            missing = self.gate.undrained.difference(*(body.stands_for() for body in bodies))
        if not missing:
            return
        for body in bodies:
            for action in body.uncalled():
                if action.action in missing:
                    if not self.is_changed(action.source):
                        expected = (
                            f"{Kind(action.kind).name.lower()} {action.name}, which was under way when driving ended"
                        )
                        gone = "nothing more: it is not called again"
                        self.stop(mismatch(self.run.name, expected, gone, strict=self.strict))
                        return
                    log.warning("run %s: %s; %s is no longer called", self.run.name, self.difference, action.name)
        for number in missing:
            self.drained(number)

    @property
    def strict(self) -> bool:
        """See `DriverPort`."""
        return self.spec.strict

    @property
    def difference(self) -> str:
        """Why the journal may become loose, for people."""
        return "differences are accepted" if self.accepts else "the source has changed"

    @cached_property
    def moves(self) -> Moves:
        """See `DriverPort`."""
        target = parsed(self.run.target)
        return Moves(target.file, frozenset(target.former.split(",")), self.worker.store.source)

    def is_changed(self, source_id: int) -> bool:
        """Whether what that snapshot recorded need not be asked for again: the snapshot differs from today's code, or
        the caller of `resume` accepts differences."""
        if self.accepts:
            return True
        if self.strict:
            return False
        return self.is_of_other_code(source_id)

    def is_of_other_code(self, source_id: int) -> bool:
        """Whether that snapshot differs from today's code."""
        if source_id == self.source_id:
            return False
        known = self._changed.get(source_id)
        if known is None:
            known = self._changed[source_id] = self.worker.source_changed(source_id, self.run.target)
        return known

    # -- what runs outside of this process ----------------------------------------------------------------------

    def settled(self, action: int) -> None:
        """See `Sink`."""
        self.attached.settled(action)

    def dispose_all(self) -> None:
        """See `Ending`."""
        self.attached.dispose_all()
        if self.worker.on_end is not None:
            self.worker.on_end(self.run, self.fresh)

    # -- what bodies record ------------------------------------------------------------------------------------

    def next_action(self) -> int:
        """A number for an action about to start."""
        with self._lock:
            if not self._next_action:
                self._next_action = self._last_action() + 1
            number = self._next_action
            self._next_action += 1
        return number

    def _last_action(self) -> int:
        # Asked for when it is needed: most runs that go on after a sleep start nothing more.
        try:
            return self.worker.store.last_action(self.run_id)
        except StoreError as error:
            reason = error
        self.loop.soon(self.stop, reason)
        raise RunStopped(f"run {self.run.name!r} is no longer driven here: {reason}")

    def started(self, body: Body, action: Action) -> None:
        """A child task of `body` begins. No code acts on the row, so the row goes along with the next commit."""
        self.outbox.append((Noted(body), action))
        self.worker.flush_lazily(self)

    def note(self, body: Body) -> None:
        """Many events have been noted and no entry has come to carry them along."""
        self.outbox.append(Noted(body))
        self.worker.flush_lazily(self)

    def reuse(self, call: Call, item: int, entry: Entry) -> Outcome | LoopWaiter:
        """A loose entry is this call's: hand it out in live order."""
        running = asyncio._get_running_loop()
        if running is None or BLOCKING.depth:
            record = Reuse.of(call, entry, item, None)
            if running is None:
                record.slot = THREAD.slot
            self.outbox.append(record)
            return record.block()
        waiter = LoopWaiter(call, item, running)
        self._send_reuse(waiter, entry)
        return waiter

    def reuse_for(self, waiter: Waiter, entry: Entry) -> None:
        """The same for a call that already waits for that entry."""
        if isinstance(waiter, LoopWaiter):
            self._send_reuse(waiter, entry)
        else:
            # It commits that itself once it is awake.
            waiter.reuse = entry
            waiter.call.body.wake_thread(waiter)

    def _send_reuse(self, waiter: LoopWaiter, entry: Entry) -> None:
        body = waiter.call.body
        body.delivery.in_flight += 1
        body.delivery.reused.add(waiter)
        self.outbox.append(Reuse.of(waiter.call, entry, waiter.item, waiter))
        self.worker.writer.mark_ready(self)
        if body.loop.here():
            body.loop.flush_soon(self.worker.writer)
        else:
            body.loop.soon(self.worker.writer.flush)

    def loosened(self, body: Body, low: int, why: str) -> None:
        """The journal no longer fits the source from entry `low` on."""
        log.warning("run %s: %s; from there on, what is recorded is reused where it is asked for", self.run.name, why)
        self.outbox.append(Mark(body.action, Result.LOOSEN, low))
        self.worker.writer.mark_ready(self)
        self.loop.soon(self.worker.writer.flush)

    def record_cancellation(self, waiter: LoopWaiter) -> None:
        """User code has asked to cancel a call that waits: recorded, and the call hears of it in its turn (B11)."""
        now = self.worker.clock.wall()
        self._cancel(Record(waiter.call, Result.CANCELLED, None, now, 0, waiter.item, waiter.child, None, waiter))

    def cancelled(self, call: Call, item: int, at: int, took: int, child: int | None) -> Any:
        """User code has cancelled `call` while its work was going on, in action `child` maybe. An effect: that is on
        disk, and its turn has come (B11)."""
        loop = asyncio._get_running_loop()
        if loop is None or BLOCKING.depth:
            record = Record(call, Result.CANCELLED, None, at, took, item, child)
            self._cancel(record)
            return record
        waiter = LoopWaiter(call, item, loop)
        waiter.cancelling = waiter.arrives = True
        self._cancel(Record(call, Result.CANCELLED, None, at, took, item, child, None, waiter))
        return waiter

    def give_back(self, body: Body, unheard: list[Taking]) -> None:
        """A body was closed before its code heard of messages that are recorded, or on their way: other calls may have
        them (MS3). Nothing that the code did depends on those entries. From any thread."""
        if self._stopping is not None:
            return  # the next driver replays the body, and the code will hear of them
        for taking in unheard:
            taking.over = True
        self.abandoning = True
        self.outbox.extend((Unheard(body.action, taking),) for taking in unheard)
        self.worker.writer.mark_ready(self)
        self.loop.soon(self.worker.writer.flush)

    def _cancel(self, row: Record) -> None:
        child, body = row.child, row.call.body
        extra: list[Any] = self.attached.ended(child) if child is not None else []
        if row.waiter is not None:
            body.delivery.in_flight += 1
            if isinstance(row.waiter, LoopWaiter) and (taking := row.waiter.taking) is not None and body.heard(taking):
                # Recorded, then cancelled before the delivery: another call may have the message.
                extra = [*extra, taking.back()]
        # A cancelled child has ended an attempt: should it be called again (its parent's next attempt may), what it
        # recorded is there to be reused, but what was cancelled in it is not waited for.
        if child is not None and row.call.kind is Kind.TASK:
            extra = [*extra, Mark(child, Result.FAILED, 0)]
        self.outbox.append((*extra, row) if extra else row)
        self.worker.writer.mark_ready(self)
        if body.loop.here():
            body.loop.flush_soon(self.worker.writer)
        else:
            body.loop.soon(self.worker.writer.flush)

    def ended_unasked(self, body: Body) -> bool:
        """At a body's end: an entry that it never asked for. Whether driving has been stopped for it (P5)."""
        entry = body.unasked()
        if entry is None:
            return False
        received = "the end of the body: it returned without asking for this"
        self.stop(mismatch(self.run.name, describe(entry), received, strict=self.strict))
        return True


CRASH_LIMIT = 10
"""Attempts in a row that die without a new entry before the run is given up."""


def driver_of(body: BodyPort) -> Driver:
    """The driver of a body, with this room's type."""
    driver: Driver = body.driver
    return driver

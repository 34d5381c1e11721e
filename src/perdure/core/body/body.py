"""A body as it executes or replays: the shell around `Delivery`, which decides what the body may be handed next.

`Body` supplies the facts (what is at work in the body, which calls were made, what has come), carries out the steps,
and speaks with the run that the body belongs to. The invariants B1 to B12 stand in `delivery`.

Owners: what `Activity` says of its counters holds here. `Delivery`, `_sleepers` and the transition to `stopped` are
guarded by `_lock`. `refused` and the fields that only say how to go on are written by any thread and read as hints.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from operator import attrgetter
from typing import Any, NamedTuple

from ...errors import BranchError, StoreError
from ..ground.clock import US, seconds
from ..ground.model import CANCELLED, WAITS, Action, Entry, Kind
from ..journal.replay import (
    CHANGED,
    MISMATCH,
    REPLAY,
    REUSE,
    Decision,
    EventKey,
    EventKind,
    Replay,
    Verdict,
    encode_notes,
)
from .activity import Activity
from .branch import Branch, Call
from .delivery import HAND, HAPPEN, NOTHING, CancelVerdict, Delivery, Entrance, Move, Outcome, Step
from .interfaces import DriverPort, LoopPort, OutputPort, ParentPort
from .scope import THREAD
from .waits import (
    BLOCKING,
    FOREVER,
    HeldSlot,
    Interruptible,
    LoopWaiter,
    MessageWait,
    Sleeper,
    SlotWait,
    ThreadWaiter,
    Waiter,
)
from .watch import BodyWatch
from .wording import describe, mismatch

REFUSALS = 1000
"""How often a stopped body's calls are refused before they are left hanging."""

CANCEL_STEP = 0.02
"""How often a body looks whether the cancellation that it waits for can still come."""

NOTES_AT_ONCE = 500
"""Noted events before a row of their own takes them to the journal, without an entry to carry them."""


_GOES_ON = (Kind.SLEEP, Kind.CONTAINER, *WAITS)
"""The kinds of calls that go on where they were under way, before new calls may start."""


class Stillness(NamedTuple):
    """What a body waits for; see `Body.still`."""

    lefts: list[int]
    """Microseconds left of each deadline and time limit."""
    traces: int
    """Traces of the body that are under way on the loop, each of which has to wait for a timer of its own."""


class CallerCancels:
    """A cancellation by the code that called this body, and the source of an event: it reaches the body's own task when
    its turn comes (B7), and what the body does then is recorded like all else."""

    __slots__ = ("_happened", "key", "over", "ripe", "task", "yields")

    def __init__(self, number: int, task: asyncio.Task[Any], happened: Callable[[], None] | None = None) -> None:
        self.key: EventKey = (EventKind.CALLER, 0, number)
        self.task = task
        self.ripe = True
        self.over = False
        self._happened = happened
        self.yields = happened is not None

    def happen(self) -> None:
        """Cancel the body's own task; on the loop's thread."""
        if self._happened is not None:
            self._happened()
        self.task.cancel()


class Body(Activity):
    """See the module text."""

    def __init__(
        self, driver: DriverPort, action: int, name: str, loop: LoopPort, *, floor: int, label: str | None
    ) -> None:
        super().__init__()
        self.driver = driver
        self.gate = driver.gate
        self.action = action
        self.name = name
        self.loop = loop
        self.stopped = False
        self.abandoned = False
        """Stopped early, by a timeout or by the end of the calling body: unrecorded outcomes no longer count."""
        self.parent: ParentPort | None = None
        self.path = b""
        """See `branch.path_below`."""
        self.children: set[Body] = set()
        """The open bodies of calls of this body."""
        self.refused = 0
        self.timed_out = False
        self.returned = False
        """The code has returned or raised and will ask for nothing more."""
        self.leaving = False
        """The code has ended; cancelled leftover tasks record nothing."""
        self.attempt = 1
        self.starting = True
        """Its code has not begun yet."""
        self.pausing = False
        """The code has not begun: the pause before the attempt is not over."""
        self.limit: float | None = None
        """When the attempt runs out of time (`seconds()`), counted in memory only; `None`: never."""
        self.slot: HeldSlot | None = None
        """The slot of a limit that the attempt holds."""
        self.executing = 0
        """Traces at work until the writer has the outcomes, and deadlines on their way to disk; counted
        on the loop's thread. A trace in a thread shows by its thread alone."""
        self._cancelled_by_caller = 0
        self.is_sync = False
        """The code is a plain function in a thread."""
        self.addressed = False
        """No asyncio task awaits this body, so a cancellation of the run is told to the body itself (B12)."""
        self.cancel_delivered = False
        """The code has heard of the cancellation of the run."""
        self.patches: dict[str, bool] = {}
        """The answers to `perdure.patched`, by name."""
        self.main: asyncio.Task[Any] | None = None
        """The task that executes an async body."""
        self.output: OutputPort | None = None
        """Takes what the body prints, once the body has printed something."""
        self.delivery = Delivery()
        self.root = Branch(self, 0, name, parent=None, floor=floor)
        self.root.label = label
        self.watch = BodyWatch(self)
        self._sleepers: dict[Interruptible, None] = {}
        """In the order in which they fell asleep: that of a set would differ between two processes."""
        self._unheard: dict[Any, None] = {}
        """The messages (`commit.records.Taking`) that calls have taken, and of which the code has not heard yet."""

    # -- facts for `Delivery` ----------------------------------------------------------------------------------------

    @property
    def here(self) -> bool:
        """See `Facts`."""
        return self.loop.here()

    @property
    def may_start(self) -> bool:
        """See `Facts`."""
        return self.gate.free

    @property
    def is_child(self) -> bool:
        """See `Facts`."""
        return self.parent is not None

    @property
    def child_retraces(self) -> bool:
        """See `Facts`."""
        return any(child.on_its_way for child in tuple(self.children))

    @property
    def on_its_way(self) -> bool:
        """Whether the body goes, without a wait for anything new, to where an earlier attempt was cancelled (B12)."""
        delivery = self.delivery
        if not delivery.retraces or self.stopped or self.pausing:
            return False
        if self.starting or delivery.reused or self.computes or self.child_retraces:
            return True
        replay = delivery.replay
        moves = self.active > 0 or self.timers > 0 or bool(delivery.due)
        return moves and replay is not None and replay.is_before_cancellation

    # -- what a call may do ------------------------------------------------------------------------------------------

    @property
    def over(self) -> bool:
        """Whether nothing more may be recorded: the body is closed, or its driver has been told to end. Code may see
        `RunStopped` from the second moment on, and what follows from that must not be recorded (W5)."""
        return self.stopped or self.driver.stopping

    def check_open(self) -> None:
        """Raise if this body is no longer driven."""
        if self.over:
            raise self.driver.stopped_error()

    def begin(self, call: Call, item: int = 0) -> Outcome | Waiter | None:
        """What `call` may do: an outcome (replayed at once), a waiter for it, or `None`: execute now.

        A waiter that is answered with `None` tells the call to execute then.

        Raises:
            RunStopped: the run is no longer driven here.
        """
        running = asyncio._get_running_loop()
        if running is not None and running is not self.loop.loop:
            raise BranchError(
                f"{call.describe()} is awaited on another event loop than the body's own, where its outcome cannot be "
                "delivered. Await it in the task itself, or in one started with asyncio.create_task()."
            )
        if self.over:
            return self._refuse(call, item)
        call.begun = self.delivery.last
        if call.kind is Kind.TASK and call.function is not None:
            self._know_again(call)
        if self.delivery.replay is None and self.gate.free:
            return None if self.driver.cancel is None else self.may_execute(call, item)
        try:
            with self._lock:
                answer = self._begin(call, item)
        except StoreError as error:
            self.driver.stop(error)
            raise self.driver.stopped_error() from error
        if isinstance(answer, Entry):
            # Outside the lock: a thread commits here, and the leader of a commit may be waiting for this body.
            again: Outcome | Waiter = self.driver.reuse(call, item, answer)
            return again
        return self.may_execute(call, item) if answer is None else answer

    def _refuse(self, call: Call, item: int) -> Waiter:
        """The body is over. Code that retries even on `RunStopped` must not spin for ever: after a while its calls
        hang."""
        self.refused += 1
        if self.refused < REFUSALS:
            raise self.driver.stopped_error()
        waiter = self._waiter(call, item)
        if isinstance(waiter, ThreadWaiter):
            # Others get its place.
            self.driver.worker.threads.parked()
            waiter.lock.acquire()
        return waiter

    def _begin(self, call: Call, item: int) -> Outcome | Waiter | Entry | None:
        """As `begin`; a loose entry to deliver again is returned as an `Entry`."""
        on_loop = asyncio._get_running_loop() is not None
        # Out of turn (B5): the call that blocks the loop, and those of threads that it waits for.
        blocking = BLOCKING.depth > 0 if on_loop else self.blocked > 0
        if self.over:
            raise self.driver.stopped_error()
        delivery = self.delivery
        hold = False
        if delivery.unasked_actions:
            delivery.unasked_actions.pop((call.branch.id, call.fp, call.occ), None)
        replay = delivery.replay
        if replay is not None:
            decision = self._ask(replay, call, item)
            if decision.verdict is CHANGED:
                entry = decision.entry
                assert entry is not None
                self._loosen(f"{self.driver.difference} and {self._named(entry)} was asked for as {call.describe()}")
                decision = replay.ask(call.branch.id, call.seq, call.fp, call.occ, item)
            verdict, entry = decision.verdict, decision.entry
            if verdict is REPLAY:
                assert entry is not None
                return self._replayed(call, item, entry, on_loop, blocking)
            if verdict is REUSE:
                assert entry is not None
                if replay.done:
                    delivery.replay = None
                return entry
            if verdict is MISMATCH:
                assert entry is not None
                self.driver.stop(
                    mismatch(self.driver.run.name, self._named(entry), call.describe(), strict=self.driver.strict)
                )
                raise self.driver.stopped_error()
            hold = verdict is Verdict.HOLD
        if (hold or not self.gate.free) and not blocking and not self._was_started(call, hold):
            waiter = self._waiter(call, item)
            delivery.held.append(waiter)
            self.stirred = True
            return waiter
        return None

    def _ask(self, replay: Replay, call: Call, item: int) -> Decision:
        """What a call may do, also as the call of a function that has moved to another module since."""
        decision = replay.ask(call.branch.id, call.seq, call.fp, call.occ, item)
        if call.function is None or decision.verdict in (REPLAY, REUSE):
            return decision
        for fp in self.driver.moves.fingerprints(call.function, call.identity, replay.sources()):
            former = replay.ask(call.branch.id, call.seq, fp, call.occ, item)
            if former.verdict in (REPLAY, REUSE):
                call.fp = fp
                return former
        return decision

    def _know_again(self, call: Call) -> None:
        """Give the call of a task that was under way under a former name the identity of that time."""
        actions = self.delivery.open_actions
        if not actions or (call.branch.id, call.fp, call.occ) in actions:
            return
        assert call.function is not None
        for fp in self.driver.moves.fingerprints(call.function, call.identity, ()):
            if (call.branch.id, fp, call.occ) in actions:
                call.fp = fp

    def _named(self, entry: Entry) -> str:
        module = self.driver.moves.module_of(entry)
        return describe(entry) + (f" of module {module}" if module is not None else "")

    def _replayed(self, call: Call, item: int, entry: Entry, on_loop: bool, blocking: bool) -> Outcome | Waiter | None:
        delivery = self.delivery
        if entry.result == CANCELLED and blocking:
            # Recorded by an async call, asked for by a sync call, which nothing can cancel: execute the call.
            delivery.take(entry)
            return None
        quiet = not on_loop or self.active <= 1
        if entry.result != CANCELLED and (blocking or delivery.may_return_at_once(entry, quiet=quiet)):
            outcome = delivery.take(entry)
            self.watch.patience = 0
            if delivery.drains():
                self._drained()
            # The body may now wait for something that never comes, and a later look has to notice.
            self.stirred = True
            return outcome
        waiter = self._waiter(call, item)
        delivery.wait(waiter, entry)
        self.stirred = True
        return waiter

    def _was_started(self, call: Call, hold: bool) -> bool:
        """Whether the call was under way when the last driver died, and may go on at once: a child task, since replay
        of its body has no effect; a sleep, a container or a wait for a message, once the outcomes of this body have
        been delivered."""
        if (call.branch.id, call.fp, call.occ) not in self.delivery.open_actions:
            return False
        return call.kind is Kind.TASK or (call.kind in _GOES_ON and not hold)

    def _waiter(self, call: Call, item: int) -> Waiter:
        running = asyncio._get_running_loop()
        if running is not None:
            return LoopWaiter(call, item, running)
        slot = THREAD.slot
        assert slot is not None
        return ThreadWaiter(call, item, slot)

    def asked_action(self, call: Call) -> bool:
        """Whether the last driver left an action of `call` under way; it has now been called again."""
        key = (call.branch.id, call.fp, call.occ)
        self.delivery.unasked_actions.pop(key, None)
        return key in self.delivery.open_actions

    def take_notes(self) -> bytes | None:
        """The events since the last record, for the next one to carry along (B7)."""
        # Any thread commits, while the loop may note more.
        with self._lock:
            return encode_notes(self.delivery.take_notes())

    # -- patches -----------------------------------------------------------------------------------------------------

    def patch(self, name: str, note: Callable[[bool], None]) -> bool:
        """Whether the body has the patch of that name (PT1). `note` puts the first answer into the outbox: under the
        lock, so that no call that follows from the answer gets there before."""
        self.check_open()
        try:
            with self._lock:
                answer = self.patches.get(name)
                if answer is None:
                    answer = not self.has_passed()
                    note(answer)
                    self.patches[name] = answer
                return answer
        except StoreError as error:
            self.driver.stop(error)
            raise self.driver.stopped_error() from error

    def has_passed(self) -> bool:
        """Whether the journal leads on from here, and was written by other source: what is recorded came after the code
        of that time had passed this place (PT2). Under the lock."""
        replay = self.delivery.replay
        left = {entry.source for entry in replay.outcomes()} if replay is not None else set()
        left.update(action.source for action in self.not_called_again())
        return any(self.driver.is_of_other_code(source) for source in left)

    # -- outcomes ----------------------------------------------------------------------------------------------------

    def enter(self, future: asyncio.Future[None]) -> Entrance:
        """A block asks to be entered: `future` is resolved when its turn has come, once it is `open` (B10)."""
        entrance = Entrance(future)
        with self._lock:
            self.delivery.entrances.append(entrance)
        self.stirred = True
        return entrance

    def committed(self, waiter: Waiter, outcome: Outcome) -> None:
        """A live outcome is on disk. `pump` must follow."""
        with self._lock:
            self.delivery.committed(waiter, outcome)
        self.stirred = True

    def thread_committed(self, n: int) -> bool:
        """An outcome that a thread has recorded is on disk. `True`: nothing has come before, the thread may have it at
        once. `False`: the outcome has to take its turn (`committed`)."""
        # No `with`, which takes twice as long as the lock itself.
        self._lock.acquire()
        try:
            return self.delivery.goes_at_once(n, self.blocked > 0)
        finally:
            self._lock.release()

    def passed(self, n: int, after: int | None) -> None:
        """The code that recorded entry `n` goes on with it at once (see `alone`, and B5 for `after`)."""
        self.delivery.passed(n, after)

    def alone(self, loop: Any) -> bool:
        """Whether an outcome recorded now by the running task could be handed to it at once: nothing else of this body
        is under way on its loop (B1, B2), nothing else is ready there, and the loop has looked at its timers lately."""
        delivery = self.delivery
        return (
            self.active == 1
            and not delivery.in_flight
            and not self.stirred
            and not delivery.settling
            and not delivery.due
            and not loop._ready
            and loop.may_go_on()
        )

    # -- events ------------------------------------------------------------------------------------------------------

    def source_begins(self, source: Any) -> None:
        """See `Activity`."""
        with self._lock:
            self.delivery.began(source)

    def source_gone(self, source: Any) -> None:
        """See `Activity`."""
        with self._lock:
            self.delivery.gone(source)

    def source_arrives(self, source: Any) -> None:
        """See `Activity`."""
        with self._lock:
            self.delivery.arrived(source)
            self.stirred = True
        self.pump()
        if not source.over:
            self.watch.watch_starving()

    def cancel_by_caller(self, task: asyncio.Task[Any]) -> None:
        """The calling code cancels this body; on the loop's thread. `task` is the body's own."""
        source = CallerCancels(self._cancelled_by_caller, task)
        self._cancelled_by_caller += 1
        self.source_begins(source)
        self.source_arrives(source)

    def cancel_by_run(self) -> None:
        """The run is being cancelled; from any thread. An async body hears of that as an event, in its turn (B7); a
        sync body hears of that at a durable call (B12)."""
        with self._lock:
            sleepers = list(self._sleepers) if self.cancel_due else []
        for sleeper in sleepers:
            sleeper.cancel()
        if self.main is not None:
            self.loop.soon(self.cancel_main)

    def cancel_main(self) -> None:
        """Cancel the body's own task, because the run is being cancelled; on the loop's thread. Once only."""
        main = self.main
        if main is None or main.done() or self._cancelled_by_caller or self.stopped:
            return
        source = CallerCancels(0, main, self._hear_of_cancellation)
        self._cancelled_by_caller = 1
        self.source_begins(source)
        self.source_arrives(source)

    def _hear_of_cancellation(self) -> None:
        self.cancel_delivered = True

    @property
    def cancel_due(self) -> bool:
        """The run is being cancelled, and a sync body has not heard of that yet, or the root task pauses between two
        attempts."""
        if self.driver.cancel is None:
            return False
        if self.pausing:
            return self.parent is None
        return self.is_sync and self.addressed and not self.cancel_delivered

    def _cancel_pending(self) -> bool:
        """Whether the code is about to hear of the cancellation of the run."""
        if self.driver.cancel is None or not self.addressed:
            return False
        return self.cancel_due or (self.main is not None and not self._cancelled_by_caller and not self.main.done())

    def _cancels(self, call: Call) -> bool:
        """Whether a call without an entry is refused, because the run is being cancelled (B12). A call that was under
        way when the last driver ended goes on: its own body or sleep hears of the cancellation."""
        if not self.cancel_due or call.kind is Kind.TIMEOUT or asyncio._get_running_loop() is not None:
            return False
        return (call.branch.id, call.fp, call.occ) not in self.delivery.open_actions

    def may_execute(self, call: Call, item: int) -> Outcome | None:
        """`None`: `call` may be executed now. Otherwise its outcome: the cancellation of the run."""
        if self.driver.cancel is None or not self._cancels(call):
            return None
        outcome: Outcome = self.driver.cancelled_call(call, item)
        return outcome

    def is_late(self, key: EventKey, now: bool) -> bool:
        """See `Activity`."""
        with self._lock:
            late = self.delivery.is_late(key)
            if late is None:
                late = now
                if late:
                    self.delivery.note(EventKind.LATE, key)
            return late

    def has_begun(self, branch: Branch) -> bool:
        """See `Activity`."""
        with self._lock:
            return self.delivery.knows(branch.id)

    def may_starve(self) -> bool:
        """See `Watched`."""
        with self._lock:
            return self.delivery.may_starve

    def force_next(self) -> None:
        """See `Watched`; on the loop's thread."""
        with self._lock:
            step = self.delivery.force(self)
            if step.move is Move.CANCEL:
                self._carry_out(step)
        if step.move is Move.HAPPEN:
            self._happen(step.subject)

    def _happen(self, source: Any) -> None:
        source.happen()
        if len(self.delivery.notes) >= NOTES_AT_ONCE:
            self.driver.note(self)

    # -- handing over ------------------------------------------------------------------------------------------------

    def pump(self, *, leading: bool = False) -> None:
        """Hand over what may be handed over now. From any thread; does nothing unless the body is quiet (B1).
        `leading`: the caller leads a commit, and must not run code of the body's."""
        while not self.stopped:
            with self._lock:
                # The step that blocks the loop is not at work: it waits, like a thread.
                if self.active > (1 if self.blocked else 0) or not self.stirred or self.stopped:
                    return
                step = self.delivery.next(self)
                move = step.move
                if step is NOTHING:
                    return
                # At once, and not when the body is quiet again: what is handed over now may wait for others.
                if self.delivery.drains():
                    self._drained()
                if move is not HAPPEN:
                    if not self._carry_out(step):
                        return
                    continue
                if leading:
                    # The body is at work until the event has happened, so nothing overtakes the event.
                    self.active += 1
                    self.loop.soon(self._happen_soon, step.subject)
                    return
            # Outside the lock: this is code of the body's.
            self._happen(step.subject)

    def _happen_soon(self, source: Any) -> None:
        self.active -= 1
        self._happen(source)
        self.pump()

    def _carry_out(self, step: Step) -> bool:
        """One step, under the lock; whether to go on."""
        move, subject = step.move, step.subject
        if move is HAND:
            self._hand(subject, step.outcome)
        elif move is Move.START:
            for waiter in subject:
                self._hand(waiter, None)
        elif move is Move.CANCEL:
            if not subject.arrives:
                subject.cancel_now()
            elif not subject.done():  # a task that a body leaves behind is cancelled at once
                subject.set_result(step.outcome)
        elif move is Move.ENTER:
            if subject is not None:
                subject.future.set_result(None)
        elif move is Move.SETTLED:
            self.stirred = False
            return False
        elif move is Move.DRAINED:
            self._drained()
        elif move is Move.TO_LOOP:
            self.loop.soon(self.pump)
            return False
        else:
            return self._carry_on(move, subject)
        return True

    def _carry_on(self, move: Move, head: Any) -> bool:
        """A step without a delivery; whether to go on."""
        if move is Move.HELD_BACK:
            # Another body is still replaying: `Driver` pumps then, or finds that nothing moves any more.
            self.driver.check_stuck()
        elif move is Move.AWAIT_CANCELLATION:
            self.loop.later(CANCEL_STEP, self.pump)
            self.driver.check_stuck()
        elif move is Move.AWAIT or self.watch.be_patient():
            self.watch.mention(head)
        elif move is Move.LOOSEN:
            self._loosen(f"{self.driver.difference} and {describe(head)} is no longer asked for")
            return True
        else:
            assert move is Move.MISMATCH
            waits = head.n in self.delivery.waiting
            received = "the call still waits, and nothing cancels it" if waits else self.watch.asked_instead()
            self.driver.stop(mismatch(self.driver.run.name, describe(head), received, strict=self.driver.strict))
        return False

    def _hand(self, waiter: Waiter, outcome: Outcome | None) -> None:
        self.watch.patience = 0
        if isinstance(waiter, LoopWaiter):
            if not waiter.done():
                waiter.set_result(outcome)
        else:
            waiter.outcome = outcome
            self.wake_thread(waiter)

    def wake_thread(self, waiter: ThreadWaiter) -> None:
        waiter.handed = True
        self.running.add(waiter.slot)
        waiter.lock.release()

    def _drained(self) -> None:
        self.stirred = True
        self.driver.drained(self.action)

    # -- threads that wait -------------------------------------------------------------------------------------------

    def thread_waits_for(self, waiter: ThreadWaiter) -> None:
        """A thread is about to wait for an outcome."""
        with self._lock:
            if waiter.handed:
                return
            self.running.discard(waiter.slot)
        if self.stirred:
            self.pump()

    def overtake(self, waiter: ThreadWaiter) -> None:
        """A thread has waited long while one step of the loop's code goes on, which may wait for the thread (at a lock,
        say): the thread takes an outcome that is there out of turn, or starts its call."""
        with self._lock:
            if waiter.handed or self.stopped or not self.active:
                return
            if waiter in self.delivery.held:
                if self.gate.free and not self.delivery.replaying:
                    self.delivery.held.remove(waiter)
                    self._hand(waiter, None)
                return
            outcome = self.delivery.take_out_of_turn(waiter)
            if outcome is not None:
                self._hand(waiter, outcome)
                if self.delivery.drains():
                    self._drained()

    def block_loop(self) -> None:
        """A synchronous call on the loop's thread begins: nothing can be handed to this body's tasks until it ends."""
        with self._lock:
            self.blocked += 1
            first = self.blocked == 1
            if first:
                self._answer_threads()
        if first and not self.gate.free:
            self.driver.loop_blocked(self, True)

    def _answer_threads(self) -> None:
        """Threads that asked before the loop was blocked are answered out of turn, like those that ask from now on."""
        delivery = self.delivery
        for waiter in [*delivery.waiting.values(), *(item[0] for item in delivery.due if item.__class__ is tuple)]:
            if isinstance(waiter, ThreadWaiter) and not waiter.handed:
                outcome = delivery.take_out_of_turn(waiter)
                if outcome is not None:
                    self._hand(waiter, outcome)
        for waiter in [waiter for waiter in delivery.held if isinstance(waiter, ThreadWaiter)]:
            delivery.held.remove(waiter)
            self._hand(waiter, None)

    def unblock_loop(self) -> None:
        """That call has ended."""
        with self._lock:
            self.blocked -= 1
            # Under the lock: another thread that hands over the last recorded outcome meanwhile would say that the body
            # has all it had recorded, before the body says that it waits for outcomes again, and never after.
            if self.blocked == 0 and self.delivery.replay is not None:
                self.driver.loop_blocked(self, False)

    # -- replay ------------------------------------------------------------------------------------------------------

    def load(self, replay: Replay, actions: dict[tuple[int, bytes, int], Action]) -> None:
        """The body continues that journal; `actions` were under way when the last driver ended."""
        self.patches.update(replay.patches)
        self.delivery.load(replay, actions, same_source=self._same_source(actions))

    def resume(self) -> None:
        """The body had been parked."""
        delivery = self.delivery
        delivery.woken = delivery.settling = self._same_source(delivery.open_actions)

    def _same_source(self, actions: dict[tuple[int, bytes, int], Action]) -> bool:
        return not any(self.driver.is_changed(action.source) for action in actions.values())

    def hand_over(self) -> None:
        """Its journal has been loaded; `remote_body.StandIn` gives it away."""

    @property
    def idle_replaying(self) -> bool:
        """Recorded outcomes are left."""
        return self.delivery.replaying

    def _loosen(self, why: str) -> None:
        """The journal no longer binds from here on (the source has changed, P6): reuse what is still asked for."""
        low, asked = self.delivery.loosen()
        self.driver.loosened(self, low, why)
        for waiter, entry in asked:
            if waiter.cancelling:
                self.driver.record_cancellation(waiter)
            else:
                self.driver.reuse_for(waiter, entry)
        self.delivery.drains()
        self._drained()

    def awaits_cancellation(self) -> bool:
        """Whether replay stands at a call that user code of another body once cancelled."""
        return self.parent is not None and self.delivery.awaits_cancellation()

    def give_up_cancellation(self) -> None:
        """Nothing in the run moves any more, so nothing will cancel the call: the call is executed again."""
        with self._lock:
            if self.delivery.replay is not None and self.awaits_cancellation():
                self._loosen("a cancelled call is not cancelled again")
        self.pump()

    def unasked(self) -> Entry | None:
        """At the end of the body: a recorded entry that it never asked for, although the source is the same.

        Leftover tasks and threads are cut off sooner in one life than in another: then calls of the body's own line
        alone count."""
        with self._lock:
            replay = self.delivery.replay
            if replay is None:
                return None
            entry = replay.unasked(self.root.id if self.leaving or self.inside else None)
            if entry is not None and replay.is_changed(entry):
                return None
            return entry

    # -- cancellation ------------------------------------------------------------------------------------------------

    def cancel_asked(self, waiter: LoopWaiter) -> bool:
        """User code asks to cancel a call that waits. Whether that takes its turn (B11); otherwise it is so at once."""
        if self.over or self.leaving or waiter.call.kind is Kind.TIMEOUT:
            return False
        with self._lock:
            verdict = self.delivery.cancel(waiter)
        if self.loop.here():
            self.watch.watch_starving()
        if verdict is CancelVerdict.RECORD:
            self.driver.record_cancellation(waiter)
        elif verdict is CancelVerdict.WAIT:
            self.stirred = True
            if not self.active:
                self.loop.soon(self.pump)
        return True

    def forget(self, waiter: Any) -> None:
        """A waiting call was cancelled without a listener: the cancellation has no part in the order."""
        with self._lock:
            delivery = self.delivery
            if waiter in delivery.held:
                delivery.held.remove(waiter)
            entry = waiter.entry
            if entry is not None and delivery.waiting.pop(entry.n, None) is not None and delivery.replay is not None:
                delivery.replay.consume(entry)
                if delivery.drains():
                    self._drained()

    def sleeper(self, sleeper: Interruptible, begins: bool) -> None:
        """Keep book of who must be woken when the body is closed."""
        with self._lock:
            if begins:
                self._sleepers[sleeper] = None
            else:
                self._sleepers.pop(sleeper, None)

    def takes(self, taking: Any) -> None:
        """A call of the body is about to record that it takes a message.

        Raises:
            RunStopped: the body is closed.
        """
        with self._lock:
            self.check_open()
            self._unheard[taking] = None

    def heard(self, taking: Any) -> bool:
        """The code is told of a message now, or of a cancellation instead. `False`: the body was closed before, and the
        message is given back."""
        with self._lock:
            return self._unheard.pop(taking, self) is None

    def give_back(self) -> None:
        """Give back the messages of which the code will not hear. From any thread."""
        with self._lock:
            unheard = list(self._unheard)
            self._unheard.clear()
        if unheard:
            self.driver.give_back(self, unheard)

    # -- whether it moves --------------------------------------------------------------------------------------------

    def _moves(self) -> bool:
        """Whether the body begins or ends, or something has come that is yet to be handed over. Under the lock."""
        delivery = self.delivery
        return bool(
            (self.starting and not self.pausing)
            or self.stopped
            or self.returned
            or delivery.in_flight
            or delivery.due
            or delivery.entrances
            or self._cancel_pending()
        )

    def rest(self, patience: float) -> list[int] | None:
        """Microseconds left of each recorded deadline with a waiting call in this body; `None`: something else could
        move the body, apart from bodies that it called. A call that waits for a message counts after `patience`
        seconds, because most messages come soon."""
        # In one go: otherwise a deadline that passed in between would be missing, and the body would seem to rest.
        with self._lock:
            delivery = self.delivery
            if (
                self.active
                or self._moves()
                or self.limit is not None
                or self.executing
                or self.joining
                or delivery.held
                or delivery.waiting
                or (self.idle_replaying and not self.pausing)
                or self.outside_pending()
            ):
                return None
            waits = [sleeper for sleeper in self._sleepers if isinstance(sleeper, MessageWait)]
            if not all(wait.rests(patience) for wait in waits):
                return None
            return [sleeper.left() for sleeper in self._sleepers if isinstance(sleeper, Sleeper)]

    def still(self) -> Stillness | None:
        """What the body waits for, if nothing but time or a message can move the body, apart from the timers of its
        loop and from bodies that it called; `None` while something else is under way. For a virtual clock."""
        with self._lock:
            if (self.active and not self.blocked) or self._moves() or self.unrecorded:
                return None
            if any(isinstance(sleeper, MessageWait) and not sleeper.settled for sleeper in self._sleepers):
                return None
            lefts = [sleeper.moves_in() for sleeper in self._sleepers if isinstance(sleeper, Sleeper)]
            if self.limit is not None:
                lefts.append(int((self.limit - seconds()) * US))
            return Stillness([left for left in lefts if left < FOREVER], self.executing)

    def look_at_clock(self) -> None:
        """The clock has jumped: threads that sleep look again. From any thread."""
        with self._lock:
            sleepers = list(self._sleepers)
        for sleeper in sleepers:
            sleeper.interrupt()

    def waits_for_message(self) -> bool:
        """Whether some call of the body waits for a message, or for a slot of a limit."""
        with self._lock:
            return any(isinstance(sleeper, MessageWait) for sleeper in self._sleepers)

    def tickets(self) -> list[tuple[str, int]]:
        """The limits for which calls of the body wait, with the numbers of the tickets."""
        with self._lock:
            return [(one.ask.name, one.number) for one in self._sleepers if isinstance(one, SlotWait)]

    def between_calls(self) -> bool:
        """Whether nothing that this body has begun is on its way into the journal, and its code waits."""
        with self._lock:
            delivery = self.delivery
            return not (
                self.active or self.executing or delivery.in_flight or delivery.due or self.running or self.returned
            )

    def stands_for(self) -> set[int]:
        """The actions whose bodies are open through this one."""
        return {self.action}

    def uncalled(self) -> list[Action]:
        """What was under way when the last driver ended and has no outcome yet."""
        return list(self.delivery.open_actions.values())

    def not_called_again(self) -> list[Action]:
        """What was under way when the last driver ended, and was not called again so far."""
        delivery = self.delivery
        return [delivery.open_actions[key] for key in list(delivery.unasked_actions) if key in delivery.open_actions]

    def waits(self) -> bool:
        """Whether some call of it waits for something durable."""
        return bool(self._sleepers or self.delivery.waiting or self.delivery.held)

    def quiet(self) -> bool:
        """Whether no part of this body can move by itself."""
        delivery = self.delivery
        return not (self.active or self.starting or self.outside_pending() or delivery.due or delivery.entrances)

    # -- the end -----------------------------------------------------------------------------------------------------

    def abandon_children(self) -> None:
        """Close the bodies of calls of this body, and theirs: this body has ended before them.

        In the order of the calls: the order of a set of objects differs between two processes."""
        for child in sorted(self.children, key=attrgetter("action")):
            child.abandoned = True
            self.driver.abandoning = True
            child.close()

    def close(self) -> None:
        """No more durable calls: the attempt has ended, or the run is no longer driven here. Loop tasks are
        cancelled, waiting threads are woken with `RunStopped`. From any thread; idempotent."""
        with self._lock:
            if self.stopped:
                return
            self.stopped = True
            delivery = self.delivery
            children = bool(self.children)
            waiters = [
                *delivery.waiting.values(),
                *delivery.held,
                *(item[0] for item in delivery.due if item.__class__ is tuple),
            ]
            jobs = [item for item in delivery.due if item.__class__ is not tuple]
            delivery.waiting.clear()
            delivery.held.clear()
            delivery.due.clear()
            sleepers = list(self._sleepers)
        self.give_back()
        if children:
            self.abandon_children()
        for sleeper in sleepers:
            sleeper.interrupt()
        for waiter in waiters:
            if isinstance(waiter, ThreadWaiter) and not waiter.handed:
                waiter.handed = True
                waiter.lock.release()
        if self.tasks or jobs:
            self.loop.soon(self._end_tasks, jobs)

    def _end_tasks(self, sources: list[Any]) -> None:
        for source in sources:
            # Waiting outcomes have lost their turn.
            if not source.over:
                self.source_gone(source)
                source.happen()
        for task in list(self.tasks):
            if not task.done():
                task.cancel()

"""A body as it executes or replays: what it waits for, and when its next outcome may be delivered.

A body is a reactive program: it runs until nothing in it is ready any more, and is then handed the next outcome. What
it does is therefore a function of the order of outcomes alone, which is the order in which they were committed. This
module keeps that rule, live and on replay, for event-loop tasks and threads alike:

- B1 an outcome is handed to an event-loop task only when the body is *quiet*: no callback of it is ready or running.
- B2 outcomes are handed over one by one, in the order of their entry numbers, the body becoming quiet in between.
- B3 on replay, the next recorded outcome waits for the call that it belongs to; if the body is quiet, nothing outside
  is pending that could lead to that call, and it has not been made, the code no longer fits its journal.
- B4 a call without an entry starts only when all recorded entries of the body, and of every other body that the
  recovered run had open, have been delivered; and only when every cancellation it may depend on is on disk.
- B5 a synchronous call on the loop's own thread blocks that loop, so nothing else can be delivered meanwhile: it is
  answered out of turn, and its entry says after which one (`Entry.after`).
- B6 what is not recorded (a plain timer, a socket) may win a race against an outcome, and lead to a call before that
  outcome is delivered. Each entry says what had been delivered when its call was made (`Entry.begun`); on replay an
  outcome waits for the calls that came before it, as long as something unrecorded is pending that may lead to them.
- B7 the same where a timeout of asyncio's led to no call, but only to other values: how many had run out when an
  outcome was delivered is noted in the entry that is recorded next (`Entry.races`).
- B8 conversely, a recorded outcome whose turn it is goes before any plain timer: replay may be slower than life was.
- B9 what was under way when the body was left (a sleep whose time has come since) is not delivered before all else that
  was under way has been called again, as long as a timer is pending that may lead there; nor, in a body that was
  parked, before nothing unrecorded is pending any more, as nothing was when it was parked.
- B10 a block of `durable.timeout` is entered as an outcome is handed over: in a quiet body, one by one, in the order in
  which they were asked for; live when its deadline is on disk, on replay at once. Until then nothing else is handed to
  the body's tasks, and its plain timers wait, so that nothing comes before it that replay would put behind it.

The body's threads are `slots`.
"""

from __future__ import annotations

import asyncio
import logging
import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from ...errors import BranchError, NonDeterminismError, StoreError
from ..ground.model import Action, Entry, Kind, Result
from ..journal.replay import Replay, Verdict, encode_races
from .branch import Branch, Call
from .scope import THREAD, unknown_threads
from .slots import LIVE_GRACE, REPLAY_GRACE, Slots
from .waits import BLOCKING, Interruptible, LoopWaiter, Outcome, Sleeper, ThreadWaiter, Waiter

if TYPE_CHECKING:
    from ..run.driver import Driver
    from .loop import LoopThread

log = logging.getLogger("perdure")

REFUSALS = 1000
"""How often a stopped body's calls are refused before they are left hanging."""

PATIENCE = 5.0
"""Seconds for which replay waits for threads that it does not know, before it calls a missing call a mismatch."""
PATIENCE_STEP = 0.1

RESTLESS_SECONDS = 5.0
"""How long an outcome waits for a body that is never quiet before that is said."""

CANCEL_STEP = 0.02
"""How often a body looks whether the cancellation that it waits for can still come."""

MENTION_SECONDS = 15.0
"""How often replay says what it waits for."""


class Entrance:
    """A block of `durable.timeout` that waits to be entered (B10)."""

    __slots__ = ("future", "open")

    def __init__(self, future: asyncio.Future[None]) -> None:
        self.future = future
        self.open = False


class Body:
    """See the module text. `active`, `timers`, `descriptors` are kept by the event loop, on its thread."""

    def __init__(
        self, driver: Driver, action: int, name: str, loop: LoopThread, *, floor: int, label: str | None
    ) -> None:
        self.driver = driver
        self.action = action
        self.name = name
        self.loop = loop
        self.stopped = False
        self.abandoned = False
        """Stopped before its time, by a timeout or by the end of the body that called it: what it was about to record
        no longer counts."""
        self.parent: Body | None = None
        self.children: set[Body] = set()
        """The open bodies that calls of this one execute."""
        self.refused = 0
        self.timed_out = False
        self.returned = False
        """Its code has returned or raised; what it has not asked for by now, it never will."""
        self.leaving = False
        """Its code has ended; what its remaining tasks do while they are cancelled is not recorded."""
        self.attempt = 1
        self.starting = True
        """Its code has not begun yet."""
        self.pausing = False
        """It has not begun because the pause before its attempt is not over."""
        self.limited = False
        """Its attempt has a timeout, which counts on in memory only."""
        self.executing: list[None] = []
        """As long as the number of traces that are being executed, and of deadlines on their way to disk. A list, since
        threads may append to one at once."""
        self.active = 0
        self.timers = 0
        self.descriptors = 0
        self.subprocesses: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        """The asyncio tasks of this body; finished ones are swept out now and then."""
        self._sweep_at = 64
        self.blocked = 0
        """How many synchronous calls of this body block its loop right now (nested)."""
        self.stirred = False
        """Something may be handed over once the body is quiet."""
        self.in_flight = 0
        """Outcomes on their way to event-loop tasks: handed to the writer, not yet delivered."""
        self.replay: Replay | None = None
        self.open_actions: dict[tuple[int, bytes, int], Action] = {}
        """Actions that calls of this body started earlier and whose outcome is not recorded."""
        self._unasked_actions: dict[tuple[int, bytes, int], int] = {}
        """Those of them that have not been called again yet, with their `begun`."""
        self.last = 0
        """The number of the entry delivered last."""
        self.root = Branch(self, 0, name, parent=None, floor=floor)
        self.root.label = label
        self._strays: Branch | None = None
        self._lock = threading.RLock()
        self.slots = Slots(self, self._lock)
        self._waiting: dict[int, Waiter] = {}
        self._due: deque[tuple[LoopWaiter, Outcome]] = deque()
        self._held: list[Waiter] = []
        self._entrances: deque[Entrance] = deque()
        self._patience = 0
        self._mentioned = 0
        self._restless: tuple[int, float] | None = (-1, 0.0)
        """What had been delivered when an outcome was last seen to wait, and since when; `None`: that has been said."""
        self.settling = False
        """It was left with something under way, and may not have come to that point again yet."""
        self._woken = False
        self.fires = 0
        """How many of asyncio's timeouts have run out in this body so far; kept by the event loop."""
        self._noted_fires = 0
        self._known_fires = 0
        """How many the journal knows of."""
        self._notes: list[tuple[int, int]] = []
        self._sleepers: set[Interruptible] = set()

    # -- what a call may do ------------------------------------------------------------------------------------

    @property
    def strays(self) -> Branch:
        """The branch from which tasks fork that were spawned from plain callbacks."""
        if self._strays is None:
            self._strays = self.root.fork("callbacks")
        return self._strays

    def check_open(self) -> None:
        """Raise if this body is no longer driven."""
        if self.stopped:
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
        if self.stopped:
            return self._refuse(call, item)
        call.begun = self.last
        if self.replay is None and self.driver.free:
            return None
        try:
            with self._lock:
                answer = self._begin(call, item)
        except StoreError as error:
            self.driver.stop(error)
            raise self.driver.stopped_error() from error
        if isinstance(answer, Entry):
            # Outside the lock: a thread commits here, and the leader of a commit may be waiting for this body.
            return self.driver.reuse(call, item, answer)
        return answer

    def _refuse(self, call: Call, item: int) -> Waiter:
        """The body is over. Code that takes even `RunStopped` for an error to try again must not spin for ever: after
        a while it simply never hears again."""
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
        """As `begin`; a loose entry that is to be handed out again comes back as itself."""
        on_loop = asyncio._get_running_loop() is not None
        # Out of turn (B5): the call that blocks the loop, and those of threads that it waits for.
        blocking = BLOCKING.depth > 0 if on_loop else self.blocked > 0
        if self.stopped:
            raise self.driver.stopped_error()
        hold = False
        replay = self.replay
        if self._unasked_actions:
            self._unasked_actions.pop((call.branch.id, call.fp, call.occ), None)
        if replay is not None:
            decision = replay.ask(call.branch.id, call.seq, call.fp, call.occ, item)
            verdict, entry = decision
            if verdict is Verdict.CHANGED:
                assert entry is not None
                self._loosen(f"the source has changed and {describe(entry)} was asked for as {call.describe()}")
                decision = replay.ask(call.branch.id, call.seq, call.fp, call.occ, item)
                verdict, entry = decision
            if verdict is Verdict.REPLAY:
                assert entry is not None
                return self._replayed(call, item, entry, on_loop, blocking)
            if verdict is Verdict.REUSE:
                assert entry is not None
                if replay.done:
                    self.replay = None
                return entry
            if verdict is Verdict.MISMATCH:
                assert entry is not None
                self.driver.stop(mismatch(describe(entry), call.describe()))
                raise self.driver.stopped_error()
            hold = verdict is Verdict.HOLD
        if (hold or not self.driver.free) and not blocking and not self._was_started(call, hold):
            waiter = self._waiter(call, item)
            self._held.append(waiter)
            self.stirred = True
            return waiter
        return None

    def _replayed(self, call: Call, item: int, entry: Entry, on_loop: bool, blocking: bool) -> Outcome | Waiter | None:
        replay = self.replay
        assert replay is not None
        if blocking and entry.result == Result.CANCELLED:
            # Recorded by an async call, asked for by a sync one, which nothing can cancel: run it.
            replay.consume(entry)
            return None
        if entry.result != Result.CANCELLED and (
            blocking
            or (
                replay.head() is entry
                and self._quiet_but_me(on_loop)
                and not self._entrances
                and not self._behind(replay, entry)
            )
        ):
            replay.consume(entry)
            self.last = entry.n
            if replay.drained:
                self._drained()
            else:
                # Should the body now wait for something that never comes, somebody has to notice.
                self.stirred = True
            return self.handing(Outcome(entry.n, entry.result, entry.value))
        waiter = self._waiter(call, item)
        waiter.entry = entry
        self._waiting[entry.n] = waiter
        self.stirred = True
        return waiter

    def _was_started(self, call: Call, hold: bool) -> bool:
        """Something that was under way when the last driver died and may go on at once: a child task, whose body
        replays, which has no effect; a sleep or a container, once this body's own outcomes have been delivered."""
        if (call.branch.id, call.fp, call.occ) not in self.open_actions:
            return False
        return call.kind is Kind.TASK or (call.kind in (Kind.SLEEP, Kind.CONTAINER) and not hold)

    def _waiter(self, call: Call, item: int) -> Waiter:
        running = asyncio._get_running_loop()
        if running is not None:
            return LoopWaiter(call, item, running)
        slot = THREAD.slot
        assert slot is not None
        return ThreadWaiter(call, item, slot)

    def _quiet_but_me(self, on_loop: bool) -> bool:
        if on_loop:
            return self.active <= 1 and not self.slots.hot(live=False)
        return self.active == 0 and len(self.slots.running) <= 1

    def _awaits_outside(self, replay: Replay, entry: Entry) -> bool:
        """Whether something unrecorded is pending that, in the recorded run, came before `entry` did (B6, B7)."""
        return self.outside_pending() and self._behind(replay, entry)

    def _behind(self, replay: Replay, entry: Entry) -> bool:
        n = entry.n
        return (
            replay.late(n)
            or (replay.races and replay.fires_before(n) > self.fires)
            or any(begun < n for begun in self._unasked_actions.values())
        )

    def timer_stands_back(self, *, among_ready: bool = False) -> bool:
        """Whether a plain timer that is due has to wait, because a block is about to be entered (B10), or a recorded
        outcome to be handed over (B8). `among_ready`: it is one of the body's ready callbacks, and need not wait for
        the others."""
        if self._entrances:
            return True
        if not self.idle_replaying:
            return False
        with self._lock:
            replay = self.replay
            head = replay.head() if replay is not None else None
            if replay is None or head is None:
                return False
            if (self.active and not among_ready) or self.slots.hot(live=False):
                return True
            return head.result != Result.CANCELLED and head.n in self._waiting and not self._behind(replay, head)

    def handing(self, outcome: Outcome) -> Outcome:
        """Book that `outcome` is being handed to user code: which races a plain timer has won until now (B7)."""
        self.last = outcome.n
        if self.fires != self._noted_fires:
            self._noted_fires = self.fires
            if self.fires > self._known_fires:
                self._notes.append((outcome.n, self.fires))
        return outcome

    def take_notes(self) -> bytes | None:
        """What `handing` has booked since the last record, for the next one to carry along."""
        if not self._notes:
            return None
        notes, self._notes = self._notes, []
        return encode_races(notes)

    # -- handing over ------------------------------------------------------------------------------------------

    def enter(self, future: asyncio.Future[None]) -> Entrance:
        """A block asks to be entered: `future` is resolved when its turn has come, once it is `open` (B10)."""
        entrance = Entrance(future)
        with self._lock:
            self._entrances.append(entrance)
        self.stirred = True
        return entrance

    def committed(self, waiter: LoopWaiter, outcome: Outcome) -> None:
        """A live outcome is on disk. `pump` must follow."""
        self._due.append((waiter, outcome))
        self.stirred = True

    def pump(self) -> None:
        """Hand over what may be handed over now. From any thread; does nothing unless the body is quiet."""
        while not self.stopped:
            with self._lock:
                # The step that blocks the loop is not at work: it waits, like a thread.
                if self.active > (1 if self.blocked else 0) or not self.stirred:
                    return
                if not self._step():
                    return

    def look_for_rest(self, now: float) -> None:
        """Say it if an outcome has waited long because the body is never quiet (B1). Now and then, by any thread."""
        if self._restless is None or self.stopped:
            return
        last, since = self._restless
        if not (self._due and self.active) or self.last != last:
            self._restless = self.last, now
        elif now - since > RESTLESS_SECONDS:
            self._restless = None
            log.warning(
                "run %s: an outcome waits for task %s, whose code never pauses: it blocks the event loop, or is always "
                "ready to go on (a loop around asyncio.sleep(0), say). Wait for what is to come, sleep for longer, or "
                "make blocking calls in asyncio.to_thread()",
                self.driver.run.name,
                self.name,
            )

    def _step(self) -> bool:
        """One step of `pump`; whether to go on."""
        if self._entrances:
            return self._step_in()
        replay = self.replay
        if replay is not None and not replay.drained:
            head = replay.head()
            if head is not None:
                return self._step_replay(replay, head)
            self._drained()
            return True
        if self._due and self.blocked:
            return False
        if self._due and self.settling and self._settles():
            return False
        if self._due:
            if self.slots.hot(live=True):
                self.slots.arm_grace(LIVE_GRACE)
                return False
            if not self.loop.here():
                self.loop.soon(self.pump)
                return False
            waiter, outcome = self._due.popleft()
            self.in_flight -= 1
            if not (self._due or self._held):
                self.stirred = False
            if not waiter.future.done():
                waiter.future.set_result(self.handing(outcome))
            return True
        if self._held:
            if not self.driver.free:
                # Another body is still replaying, or a cancellation is on its way to disk: `Driver` pumps then, or
                # finds that nothing moves any more.
                self.driver.check_stuck()
                return False
            held = [waiter for waiter in self._held if not (self.blocked and isinstance(waiter, LoopWaiter))]
            if not held:
                return False
            if not self.loop.here() and any(isinstance(waiter, LoopWaiter) for waiter in held):
                self.loop.soon(self.pump)
                return False
            self._held = [waiter for waiter in self._held if waiter not in held]
            for held_waiter in held:
                self._hand(held_waiter, None)
            return True
        self.stirred = False
        return False

    def _step_in(self) -> bool:
        entrance = self._entrances[0]
        if not entrance.future.done():  # else whoever would have entered was cancelled
            if not entrance.open or self.blocked:
                return False
            if not self.loop.here():
                self.loop.soon(self.pump)
                return False
            entrance.future.set_result(None)
        self._entrances.popleft()
        return True

    def _step_replay(self, replay: Replay, head: Entry) -> bool:
        if self.slots.hot(live=False):
            self.slots.arm_grace(REPLAY_GRACE)
            return False
        if self.blocked or self.returned:
            # The loop's own outcomes have to wait, and threads have been answered out of turn.
            return False
        waiter = self._waiting.get(head.n)
        if waiter is not None and head.result != Result.CANCELLED:
            if self._awaits_outside(replay, head):
                return False
            if isinstance(waiter, LoopWaiter) and not self.loop.here():
                self.loop.soon(self.pump)
                return False
            del self._waiting[head.n]
            replay.consume(head)
            self._hand(waiter, Outcome(head.n, head.result, head.value))
            if replay.drained:
                self._drained()
            return True
        if waiter is not None and self.parent is not None:
            # What cancelled it came from the body that called this one, which may still be on its way there.
            self.loop.later(CANCEL_STEP, self.pump)
            self.driver.check_stuck()
            return False
        changed = replay.is_changed(head)
        if not (changed and waiter is None) and (self.outside_pending() or self._be_patient()):
            self._mention(head)
            return False
        if not changed:
            received = self._asked_instead()
            if waiter is not None:
                received = "the call still waits, and nothing cancels it"
            self.driver.stop(mismatch(describe(head), received))
            return False
        self._loosen(f"the source has changed and {describe(head)} is no longer asked for")
        return True

    def _mention(self, head: Entry) -> None:
        """Say after a while what replay waits for, as nothing else would show it."""
        if self._mentioned != head.n:
            self._mentioned = head.n
            self.loop.later(MENTION_SECONDS, self._still_waiting, head)

    def _still_waiting(self, head: Entry) -> None:
        replay = self.replay
        if not self.stopped and replay is not None and replay.head() is head and not self.active:
            log.warning(
                "run %s: replay waits for the code to ask for %s; a timer, socket, thread or subprocess of the task is "
                "pending and may yet lead to it",
                self.driver.run.name,
                describe(head),
            )
            self._mentioned = 0
            self._mention(head)

    def awaits_cancellation(self) -> bool:
        """Whether replay stands at a call that user code of another body once cancelled."""
        replay = self.replay
        head = replay.head() if replay is not None else None
        if self.parent is None or head is None:
            return False
        return head.result == Result.CANCELLED and head.n in self._waiting

    def give_up_cancellation(self) -> None:
        """Nothing in the run moves any more, so nothing will cancel it: its call is made anew."""
        with self._lock:
            if self.replay is not None and self.awaits_cancellation():
                self._loosen("a cancelled call is not cancelled again")
        self.pump()

    def _be_patient(self) -> bool:
        """Before judging: threads that perdure does not know may be about to set an event that the body waits for."""
        if not unknown_threads():
            return False
        self._patience += 1
        if self._patience > PATIENCE / PATIENCE_STEP:
            return False
        self.loop.later(PATIENCE_STEP, self.pump)
        return True

    def _asked_instead(self) -> str:
        calls = [waiter.call for waiter in (*self._held, *self._waiting.values())]
        if not calls:
            return "nothing more: the code waits for something that is not recorded, or has gone another way"
        shown = ", ".join(call.describe() for call in calls[:3])
        return shown + (f" and {len(calls) - 3} more" if len(calls) > 3 else "")

    def _hand(self, waiter: Waiter, outcome: Outcome | None) -> None:
        if outcome is not None:
            self.handing(outcome)
            self._patience = 0
        if isinstance(waiter, LoopWaiter):
            if not waiter.future.done():
                waiter.future.set_result(outcome)
        else:
            waiter.outcome = outcome
            self.slots.wake(waiter)

    def add_task(self, task: asyncio.Task[Any]) -> None:
        """A task of this body begins. A plain list, because a weak set costs more than the task's first step."""
        self.tasks.append(task)
        if len(self.tasks) >= self._sweep_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._sweep_at = max(64, 2 * len(self.tasks))

    def expect(self, actions: dict[tuple[int, bytes, int], Action], replay: Replay) -> None:
        """These were under way when the last driver ended. They will be called again, unless an attempt has failed
        since, after which the code may rightly go another way."""
        self.open_actions = actions
        self._known_fires = max((count for _, count in replay.races), default=0)
        if not replay.loosened:
            self._unasked_actions = {key: action.begun for key, action in actions.items()}
            self.settling = bool(actions) and self._same_source()

    def resume(self) -> None:
        """It had been parked."""
        self._woken = self.settling = self._same_source()

    def _same_source(self) -> bool:
        return not any(self.driver.is_changed(action.source) for action in self.open_actions.values())

    def _settles(self) -> bool:
        """Whether the body may still be on its way to where it was left (B9)."""
        if self._woken and not (self.timers > 0 or self.slots.jobs > 0 or self.slots.running):
            self._woken = False
        if self._woken or not self._unasked_actions.keys().isdisjoint(self.open_actions):
            return self.timers > 0 or self._woken
        self.settling = False
        return False

    def alone(self, loop: Any) -> bool:
        """Whether an outcome recorded now by the running task could be handed to it at once: nothing else of this body
        is under way (B1, B2), nothing else is ready on the loop, and the loop has looked at its timers lately."""
        return (
            self.active == 1
            and not self.in_flight
            and not self.stirred
            and not self.settling
            and not self.slots.running
            and not loop._ready
            and loop.may_go_on()
        )

    def block_loop(self) -> None:
        """A synchronous call on the loop's thread begins: nothing can be handed to this body's tasks until it ends."""
        with self._lock:
            self.blocked += 1
            first = self.blocked == 1
            if first:
                self._answer_threads()
        if first and not self.driver.free:
            self.driver.loop_blocked(self, True)

    def _answer_threads(self) -> None:
        """Threads that asked before the loop was blocked are answered out of turn, like those that ask from now on."""
        for n, waiter in list(self._waiting.items()):
            entry = waiter.entry
            if isinstance(waiter, ThreadWaiter) and entry is not None and self.replay is not None:
                del self._waiting[n]
                self.replay.consume(entry)
                self._hand(waiter, Outcome(entry.n, entry.result, entry.value))
        for waiter in [waiter for waiter in self._held if isinstance(waiter, ThreadWaiter)]:
            self._held.remove(waiter)
            self._hand(waiter, None)

    def unblock_loop(self) -> None:
        """That call has ended."""
        with self._lock:
            self.blocked -= 1
            last = self.blocked == 0
        if last and self.replay is not None:
            self.driver.loop_blocked(self, False)

    def asked_action(self, call: Call) -> bool:
        """Whether the last driver left an action of `call` under way; it has now been called again."""
        key = (call.branch.id, call.fp, call.occ)
        self._unasked_actions.pop(key, None)
        return key in self.open_actions

    def outside_pending(self) -> bool:
        """Something that perdure does not record is pending and may yet lead to a call."""
        return (
            self.timers > 0
            or self.descriptors > 0
            or self.slots.jobs > 0
            or bool(self.slots.running)
            or (bool(self.subprocesses) and self._subprocess_runs())
        )

    def rest(self) -> list[int] | None:
        """Microseconds that are left of each recorded deadline that something in this body waits for; `None` if
        something in it can move by anything else, but for a body that it called."""
        # In one go: a deadline that passed in between would be missing from a body that seemed to rest.
        with self._lock:
            if (
                self.active
                or (self.starting and not self.pausing)
                or self.stopped
                or self.returned
                or self.limited
                or self.executing
                or self.in_flight
                or self._due
                or self._held
                or self._waiting
                or self._entrances
                or (self.idle_replaying and not self.pausing)
                or self.outside_pending()
            ):
                return None
            return [sleeper.left() for sleeper in self._sleepers if isinstance(sleeper, Sleeper)]

    def between_calls(self) -> bool:
        """Whether nothing that this body has begun is on its way into the journal, and its code waits."""
        with self._lock:
            return not (
                self.active or self.executing or self.in_flight or self._due or self.slots.running or self.returned
            )

    def unwound(self) -> bool:
        """Whether no code of this body is left."""
        return not self.slots.inside and all(task.done() for task in self.tasks)

    def _subprocess_runs(self) -> bool:
        self.subprocesses = [transport for transport in self.subprocesses if transport.get_returncode() is None]
        return bool(self.subprocesses)

    def hand_over(self) -> None:
        """Its journal has been loaded; `elsewhere.StandIn` gives it away."""

    def stands_for(self) -> set[int]:
        """The actions whose bodies are open through this one."""
        return {self.action}

    def uncalled(self) -> list[Action]:
        """What was under way when the last driver ended and has no outcome yet."""
        return list(self.open_actions.values())

    def waits(self) -> bool:
        """Whether some call of it waits for something durable."""
        return bool(self._sleepers or self._waiting or self._held)

    def quiet(self) -> bool:
        """Nothing in this body can move by itself."""
        return not (self.active or self.starting or self.outside_pending() or self._due or self._entrances)

    @property
    def idle_replaying(self) -> bool:
        """Strict entries are left."""
        return self.replay is not None and not self.replay.drained

    def _drained(self) -> None:
        replay = self.replay
        if replay is not None and replay.done:
            self.replay = None
        self.stirred = True
        self.driver.drained(self.action)

    def _loosen(self, why: str) -> None:
        """The journal no longer binds from here on (the source has changed, P6): reuse what is still asked for."""
        replay = self.replay
        assert replay is not None
        low, asked = replay.loosen()
        self.driver.loosened(self, low, why)
        for entry in asked:
            waiter = self._waiting.pop(entry.n, None)
            if waiter is not None:
                waiter.entry = None
                if entry.result == Result.CANCELLED:
                    self._held.append(waiter)
                else:
                    self.driver.reuse_for(waiter, entry)
        self._drained()

    # -- cancellation ------------------------------------------------------------------------------------------

    def abandon(self, call: Call, waiter: Waiter | None, item: int = 0) -> bool:
        """User code cancelled `call`, which may have been waiting with `waiter`. Whether that must be recorded."""
        if self.stopped or self.leaving:
            return False
        if waiter is None:
            return True
        with self._lock:
            if waiter in self._held:
                self._held.remove(waiter)
                return True
            entry = waiter.entry
            if entry is None:
                return True
            self._waiting.pop(entry.n, None)
            replay = self.replay
            if replay is None:
                return True
            replay.consume(entry)
            if entry.result == Result.CANCELLED:
                self.last = entry.n
                if replay.drained:
                    self._drained()
                return False
            if replay.drained:
                self._drained()
            return True

    def sleeper(self, sleeper: Interruptible, begins: bool) -> None:
        """Keep book of who must be woken when the body is closed."""
        with self._lock:
            if begins:
                self._sleepers.add(sleeper)
            else:
                self._sleepers.discard(sleeper)

    # -- the end -----------------------------------------------------------------------------------------------

    def unasked(self) -> Entry | None:
        """At the end of the body: a recorded entry that it never asked for, although the source is the same."""
        with self._lock:
            if self.replay is None:
                return None
            entry = self.replay.unasked()
            if entry is not None and self.replay.is_changed(entry):
                return None
            return entry

    def abandon_children(self) -> None:
        """Close the bodies that calls of this one execute, and theirs: it has ended before them."""
        for child in list(self.children):
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
            children = bool(self.children)
            waiters = [*self._waiting.values(), *self._held]
            self._waiting.clear()
            self._held.clear()
            self._due.clear()
            sleepers = list(self._sleepers)
        if children:
            self.abandon_children()
        for sleeper in sleepers:
            sleeper.interrupt()
        for waiter in waiters:
            if isinstance(waiter, ThreadWaiter):
                waiter.lock.release()
        if self.tasks:
            self.loop.soon(self._cancel_tasks)

    def _cancel_tasks(self) -> None:
        for task in list(self.tasks):
            if not task.done():
                task.cancel()


def describe(entry: Entry) -> str:
    """A recorded entry for people."""
    from ..ground.values import preview

    shown = preview(entry.inputs, 120) if entry.inputs else ""
    return f"{Kind(entry.kind).name.lower()} {entry.name}({shown}) [entry {entry.n}, call {entry.seq} of its branch]"


def mismatch(expected: str, received: str) -> NonDeterminismError:
    """The error of P5."""
    return NonDeterminismError(
        "The code asks for something else than what this run has recorded, although its source has not changed.\n"
        f"  expected: {expected}\n"
        f"  received: {received}\n"
        "Something in the body depends on more than recorded outcomes: a clock, a random number, a set's order, the "
        "environment. Put it under @perdure.trace or use perdure.durable. The run is unharmed: it stays interrupted "
        "and continues as soon as the code fits.",
        expected=expected,
        received=received,
    )

"""What a body may be handed next, as a pure state machine: facts in, one step out.

A body is a reactive program: the body runs until nothing in it is ready any more, and is then handed the next thing: an
outcome, a cancellation, or an *event* (a plain timer that has run out, a job in a thread that has ended). So what a
body does is a function of the order of these things alone. `Delivery` keeps that order, live and on replay. `Body` is
its shell: `Body` supplies the facts and carries out the steps. This module does no I/O and knows no event loop, no
lock and no clock.

- B1 an outcome is handed to an asyncio task only while the body is *quiet*: none of its callbacks is ready or running.
- B2 outcomes are handed over one by one, in the order of their entry numbers, the body becoming quiet in between. An
  outcome that a thread has recorded takes its turn like any other.
- B3 on replay, the next recorded outcome waits for the call that asks for it. The code no longer fits its journal if
  the body is quiet, nothing unrecorded is pending that could lead to that call, and the call has not been made.
- B4 a call without an entry starts only when all recorded entries of its body, and of every other body that the
  recovered run had open, have been handed over.
- B5 a synchronous call on the loop's own thread blocks that loop, so nothing else can be handed over meanwhile. Such a
  call is answered out of turn, and its entry says after which entry (`Entry.after`). Threads are answered out of turn
  meanwhile; where a recorded end of a job needs that, replay answers the thread out of turn as well.
- B6 a socket or a subprocess, which leave no trace, may lead to a call. `Entry.begun` says what had been handed over
  when the call was made. On replay an outcome waits for the calls that came before, as long as something unrecorded
  is pending that may lead to them.
- B7 an event is handed over like an outcome: in a quiet body, one at a time. The order of events among outcomes is
  noted in the entry that is recorded next (`Entry.notes`), and replay follows the noted order. All notes are taken as
  the rows are numbered, so no later note gets into an earlier row. The code of a thread and the code of the loop
  therefore never have to wait for each other: what one sees of the other is an event.
- B8 on replay, an event that is not noted waits until all recorded outcomes have been handed over. A timer that is
  noted goes off when its turn comes, without waiting for its time again.
- B9 what was under way when the body was left (a sleep whose time has come since) is not handed over before all else
  that was under way has been called again, as long as a timer is pending that may lead there; nor, in a body that was
  parked, before nothing unrecorded is pending any more, as nothing was when the body was parked.
- B10 a block of `durable.timeout` is entered as an outcome is handed over: in a quiet body, one by one, in the order in
  which the blocks asked; live when the deadline is on disk, on replay at once. Until then nothing else is handed over.
- B11 a cancellation reaches its call as an outcome does: when its CANCELLED entry is on disk, in the order of entry
  numbers. On replay the recorded outcome decides: a call that was given a value is given that value although the code
  has asked to cancel the call (the cancelled trace returned a value nevertheless). Where an outcome of the call is on
  disk already, nothing behind that outcome is handed over before the CANCELLED entry is on disk, too. A task that was
  asked to cancel itself before it makes a call hears of that instead of making the call, and nothing is recorded.
- B12 a request to cancel the run is a row on disk first, and then part of the journal of each body that hears of it. An
  async body without an asyncio task as caller gets the request as an event of its own task (B7). A sync body gets the
  request once, as the recorded outcome of its next durable call, or of the sleep or child that it waits for. Calls that
  a body makes after that go on undisturbed. Behind a failed attempt or edited source, the body first goes through what
  is reused: the code hears of the request where the request stopped it before, and can undo all that had been done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from enum import Enum, auto
from typing import Any, Protocol

from msgspec import Struct

from ..ground.model import CANCELLED, Action, Entry
from ..journal.replay import Event, EventKey, EventKind, Replay, delivery_order


class Outcome(Struct, frozen=True):
    """The answer to a call: the entry's number, its `Result` and its encoded value.

    An outcome that is known at once is an effect (see `run.effects`) that ends at once: a protocol yields the answer to
    a call without a look at whether the answer has to be waited for.
    """

    n: int
    result: int
    value: bytes | None

    def block(self) -> Outcome:
        """The outcome, for a thread."""
        return self

    def __await__(self) -> Generator[Any, Any, Outcome]:
        yield from ()
        return self


class Waiting(Protocol):
    """A call that waits: for its recorded entry, for its live outcome, or for permission to start."""

    entry: Entry | None
    """The recorded entry that the call waits for."""
    on_loop: bool
    """An asyncio task waits, not a thread."""
    cancelling: bool
    """A cancellation of the call is on its way (B11)."""
    handed: bool
    """A thread that has taken its outcome by itself."""


class EventSource(Protocol):
    """An origin of an event: a plain timer that is armed, or a job that an executor carries out."""

    key: EventKey
    ripe: bool
    """The event may be handed over when its recorded turn comes: always for a timer, once it has ended for a job."""
    over: bool
    """The event has been handed over, or was cancelled."""
    yields: bool
    """The event lets outcomes that are reused go first (B12)."""


class Facts(Protocol):
    """What the shell knows about the body at this moment."""

    @property
    def here(self) -> bool:
        """The calling thread is the one of the body's event loop."""

    @property
    def blocked(self) -> int:
        """Synchronous calls that block the body's loop."""

    @property
    def returned(self) -> bool:
        """The body's code has ended."""

    @property
    def may_start(self) -> bool:
        """Calls without an entry may start in the run (D2)."""

    @property
    def unrecorded(self) -> bool:
        """A thread, job, socket or subprocess of the body is at work and may lead to a call."""

    @property
    def timers(self) -> int:
        """Plain timers of the body that are pending."""

    @property
    def computes(self) -> bool:
        """A thread or job of the body is at work."""

    @property
    def child_retraces(self) -> bool:
        """A child of the body is on its way to where an earlier attempt was cancelled (B12)."""

    @property
    def is_child(self) -> bool:
        """Another body has called this one."""


class Move(Enum):
    """The kinds of steps."""

    NOTHING = auto()
    """Nothing may be handed over now. A later fact changes that."""
    SETTLED = auto()
    """Nothing waits to be handed over."""
    TO_LOOP = auto()
    """The next step belongs on the thread of the body's event loop."""
    HAND = auto()
    """Give `outcome` to `subject`, a call that waits."""
    CANCEL = auto()
    """Let the cancellation reach `subject`, a call that waits."""
    HAPPEN = auto()
    """Let the event of `subject`, a source, happen."""
    ENTER = auto()
    """Let `subject`, a block of `durable.timeout`, be entered."""
    START = auto()
    """Let `subject`, a list of calls that wait, execute."""
    DRAINED = auto()
    """All that was recorded has been handed over."""
    HELD_BACK = auto()
    """Calls wait to start, and something else in the run holds them back."""
    AWAIT = auto()
    """Replay waits for the call of `subject`, the entry whose turn it is; something unrecorded may lead to it."""
    AWAIT_CANCELLATION = auto()
    """Replay waits for a cancellation that another body of the run must bring about."""
    LOOSEN = auto()
    """`subject`, the entry whose turn it is, is not asked for, and the source has changed (P6)."""
    MISMATCH = auto()
    """`subject`, the entry whose turn it is, is not asked for, or not cancelled, by unchanged source (P5)."""


class Step(Struct, frozen=True):
    move: Move
    subject: Any = None
    outcome: Outcome | None = None


class CancelVerdict(Enum):
    """What a request to cancel a waiting call leads to (B11)."""

    RECORD = auto()
    """The shell records CANCELLED; the cancellation arrives in its turn."""
    WAIT = auto()
    """CANCELLED is recorded already; the cancellation arrives in its turn."""
    IGNORE = auto()
    """The recorded outcome is a value, or the call is being cancelled already."""


class Entrance:
    """A block of `durable.timeout` that waits to be entered (B10)."""

    __slots__ = ("future", "open")

    def __init__(self, future: Any) -> None:
        self.future = future
        self.open = False


# As constants of the module for hot paths, as in `ground.model`.
HAND = Move.HAND
HAPPEN = Move.HAPPEN

NOTHING = Step(Move.NOTHING)
SETTLED = Step(Move.SETTLED)
TO_LOOP = Step(Move.TO_LOOP)

ActionKey = tuple[int, bytes, int]
"""(branch, fingerprint, occurrence): what a call finds its started action by."""


class Delivery:
    """See the module text. One per body; every method is called under the body's lock."""

    def __init__(self) -> None:
        self.replay: Replay | None = None
        self.last = 0
        """The number of the entry handed over last."""
        self.place = (0, 0)
        """How far the recorded order has been followed: the last place among the entries handed over. Not always the
        place of `last`, as some entries are handed over out of turn (B5)."""
        self.waiting: dict[int, Any] = {}
        """Calls that wait for a recorded entry, by its number."""
        self.held: list[Any] = []
        """Calls that wait to start (B4)."""
        self.due: deque[Any] = deque()
        """What has come and waits for its turn: `(waiting call, Outcome)`, or a `EventSource`."""
        self.entrances: deque[Entrance] = deque()
        self.sources: dict[EventKey, Any] = {}
        """Armed timers and running jobs, by key."""
        self.in_flight = 0
        """Outcomes on their way to a waiting call: given to the writer, not yet handed over."""
        self.reused: set[Any] = set()
        """Calls whose reused outcome is on its way."""
        self.retraces = False
        """An earlier attempt has recorded outcomes that may be reused (B12)."""
        self.settling = False
        """The body was left with something under way, and may not have come to that point again yet (B9)."""
        self.woken = False
        """The body was parked, and has not come to rest since (B9)."""
        self.open_actions: dict[ActionKey, Action] = {}
        """Actions that calls of this body started earlier and whose outcome is not recorded."""
        self.unasked_actions: dict[ActionKey, int] = {}
        """`begun` of those open actions whose call has not been made again yet."""
        self.notes: list[Event] = []
        """Events that wait for a record to carry them along (B7)."""
        self._drained = True

    # -- facts: the journal ------------------------------------------------------------------------------------------

    def load(self, replay: Replay, actions: dict[ActionKey, Action], *, same_source: bool) -> None:
        """The body continues a journal; `actions` were under way when the last process ended."""
        self.open_actions = actions
        if not replay.loosened:
            # After a failed attempt the code may rightly go another way.
            self.unasked_actions = {key: action.begun for key, action in actions.items()}
            self.settling = bool(actions) and same_source
        if not replay.done or replay.closed:
            self.replay = replay
        self._drained = replay.drained
        self.retraces = replay.loosened

    @property
    def replaying(self) -> bool:
        """Recorded outcomes or events are left that have to be handed over in their order."""
        return self.replay is not None and not self.replay.drained

    def drains(self) -> bool:
        """Whether everything recorded has been handed over since this was asked last. `True` at most once."""
        replay = self.replay
        if self._drained or replay is None or not replay.drained:
            return False
        self._drained = True
        if replay.done:
            self.replay = None
        return True

    # -- facts: calls ------------------------------------------------------------------------------------------------

    def wait(self, waiter: Any, entry: Entry) -> None:
        """A call waits for its recorded entry."""
        waiter.entry = entry
        self.waiting[entry.n] = waiter

    def may_return_at_once(self, entry: Entry, *, quiet: bool) -> bool:
        """Whether a call may be given its recorded outcome without waiting: its turn has come. `quiet`: nothing of the
        body is at work but the caller."""
        replay = self.replay
        assert replay is not None
        return quiet and replay.head() is entry and not self.entrances and not self._comes_after_others(entry)

    def take(self, entry: Entry) -> Outcome:
        """Hand over a recorded outcome, in its turn or out of turn (B5)."""
        assert self.replay is not None
        self.replay.consume(entry)
        self.waiting.pop(entry.n, None)
        self.passed(entry.n, entry.after)
        return Outcome(entry.n, entry.result, entry.value)

    def passed(self, n: int, after: int | None = None) -> None:
        """That entry has been handed over."""
        self.last = n
        place = (n, n) if after is None else delivery_order(n, after)
        if place > self.place:
            self.place = place

    def goes_at_once(self, n: int, blocked: bool) -> bool:
        """Whether a thread may have the live outcome of entry `n`, which is on disk now, at once. The outcome then
        counts as handed over."""
        replay = self.replay
        if not self.due and not self.entrances and (replay is None or replay.drained):
            self.passed(n)
        elif blocked:
            # Ahead of earlier entries, which the loop's code does not see.
            self.last = n
        else:
            return False
        return True

    def committed(self, waiter: Any, outcome: Outcome) -> None:
        """A live outcome is on disk."""
        self.due.append((waiter, outcome))

    def take_out_of_turn(self, waiter: Any) -> Outcome | None:
        """The outcome for a waiting thread, if there, ahead of all earlier outcomes."""
        if waiter.entry is not None:
            return self.take(waiter.entry)
        for item in self.due:
            if item.__class__ is tuple and item[0] is waiter:
                found: Outcome = item[1]
                return found
        return None

    def cancel(self, waiter: Any) -> CancelVerdict:
        """User code asks to cancel a call that waits."""
        if waiter.cancelling:
            return CancelVerdict.IGNORE
        if waiter in self.held:
            self.held.remove(waiter)
        entry = waiter.entry
        if entry is not None and entry.result != CANCELLED:
            return CancelVerdict.IGNORE
        waiter.cancelling = True
        return CancelVerdict.RECORD if entry is None else CancelVerdict.WAIT

    # -- facts: events -----------------------------------------------------------------------------------------------

    def began(self, source: Any) -> None:
        """A timer is armed, or a job is given to an executor."""
        self.sources[source.key] = source

    def arrived(self, source: Any) -> None:
        """A timer has run out, or a job has ended."""
        self.due.append(source)

    def gone(self, source: Any) -> None:
        """The source will cause no event: the event has happened, or was cancelled."""
        source.over = True
        self.sources.pop(source.key, None)

    def is_late(self, key: EventKey) -> bool | None:
        """Whether a timeout that is armed now had run out by then when it was armed first; `None`: that is not
        recorded, and the clock decides."""
        replay = self.replay
        if replay is None or replay.drained:
            return None
        return key in replay.late_timers

    def knows(self, branch: int) -> bool:
        """Whether a call of that branch is recorded, or was under way, and has not been made again yet."""
        recorded = self.replay is not None and self.replay.expects(branch)
        return recorded or any(key[0] == branch for key in self.unasked_actions)

    def note(self, kind: EventKind, key: EventKey) -> None:
        """Remember that an event has happened here, for the next record to carry along (B7)."""
        self.notes.append(Event(self.place[1], int(kind), key[1], key[2]))

    def take_notes(self) -> list[Event]:
        """What has been noted since the last record."""
        notes, self.notes = self.notes, []
        return notes

    # -- the next step -----------------------------------------------------------------------------------------------

    def next(self, facts: Facts) -> Step:
        """The one thing to be done now. The caller has made sure that the body is quiet (B1)."""
        if self.entrances:
            return self._enter(facts)
        replay = self.replay
        if replay is not None:
            while not replay.drained:
                head = replay.head()
                if head is None:
                    break
                if not isinstance(head, Event):
                    return self._replay_entry(replay, head, facts)
                step = self._replay_event(replay, head, facts)
                if step is not None:
                    return step
            if self.drains():
                return Step(Move.DRAINED)
        return self._live(facts)

    def _enter(self, facts: Facts) -> Step:
        entrance = self.entrances[0]
        if entrance.future.done():
            # The task that would have entered was cancelled.
            self.entrances.popleft()
            return Step(Move.ENTER, None)
        if not entrance.open or facts.blocked:
            return NOTHING
        if not facts.here:
            return TO_LOOP
        self.entrances.popleft()
        return Step(Move.ENTER, entrance)

    def _replay_entry(self, replay: Replay, head: Entry, facts: Facts) -> Step:
        if facts.blocked:
            # The loop's own outcomes have to wait, and threads have been answered out of turn.
            return NOTHING
        waiter = self.waiting.get(head.n)
        if waiter is not None and (waiter.cancelling or head.result != CANCELLED):
            if facts.unrecorded and self._comes_after_others(head):
                return NOTHING
            if waiter.on_loop and not facts.here:
                return TO_LOOP
            outcome = self.take(head)
            return Step(Move.CANCEL if waiter.cancelling else HAND, waiter, outcome)
        if facts.returned:
            return self._leave(facts)
        if waiter is not None and facts.is_child:
            # The cancellation came from the body that called this one, which may still be on its way there.
            return Step(Move.AWAIT_CANCELLATION, head)
        changed = replay.is_changed(head)
        if not changed or waiter is not None:
            if facts.unrecorded:
                return Step(Move.AWAIT, head)
            # The recorded order cannot be followed. Before that is called a mismatch, what has come by itself goes on.
            source = self._first_source()
            if source is not None:
                return self._happen(source, facts)
            if facts.timers:
                return Step(Move.AWAIT, head)
        return Step(Move.LOOSEN if changed else Move.MISMATCH, head)

    def _replay_event(self, replay: Replay, event: Event, facts: Facts) -> Step | None:
        """The step for an event whose recorded turn has come; `None`: the event is passed over."""
        if facts.blocked:
            return NOTHING
        source = self.sources.get(event.key)
        if source is None:
            if facts.unrecorded and not facts.returned:
                return NOTHING
            if event.kind == EventKind.CALLER and not facts.returned:
                return Step(Move.AWAIT_CANCELLATION, event)
            # Nothing that is left can bring it about. Whether the code fits is for the entries to say.
            replay.consume_event(event)
            return None
        if not source.ripe:
            step = self._help_thread()
            return self._leave(facts) if step is NOTHING and facts.returned else step
        if not facts.here:
            return TO_LOOP
        replay.consume_event(event)
        self.gone(source)
        return Step(HAPPEN, source)

    def _leave(self, facts: Facts) -> Step:
        """The code has ended amid its journal. Leftover tasks and threads may end sooner than they did, so no call is
        waited for; timers go on, as does the timer that limits the time for leaving."""
        source = self._first_source()
        return NOTHING if source is None else self._happen(source, facts)

    def _help_thread(self) -> Step:
        """The job whose turn it is has not ended: a thread that was once answered out of turn is so again (B5)."""
        for _, waiter in sorted(self.waiting.items()):
            if not waiter.on_loop and waiter.entry.result != CANCELLED:
                return Step(HAND, waiter, self.take(waiter.entry))
        return NOTHING

    def _live(self, facts: Facts) -> Step:
        due = self.due
        while due:
            first = due[0]
            if first.__class__ is not tuple:
                if not first.over:
                    if not first.yields or not self._goes_first(facts):
                        break
                    if len(due) == 1:
                        return self._start(facts) if self.held else NOTHING
                    due.rotate(-1)
                    continue
            elif not first[0].handed:
                if not first[0].cancelling or first[1].result == CANCELLED:
                    break
                if not self._is_cancelled(first[0]):
                    # A crash now would leave this outcome for the replay to hand over, ahead of all that follows.
                    return NOTHING
                # Recorded, then cancelled before its turn: the CANCELLED entry comes later in the queue.
                self.in_flight -= 1
                self.reused.discard(first[0])
            else:
                # The thread has helped itself (`Body.overtake`). In the order of things, the outcome comes here.
                self.in_flight -= 1
                self.passed(first[1].n)
            due.popleft()
        if due:
            if facts.blocked:
                return NOTHING
            if self.settling and self._settles(facts):
                # Timers go on: one of them may lead to where the body was left.
                source = self._first_source()
                return NOTHING if source is None else self._happen(source, facts)
            return self._hand_first(facts)
        if self.held:
            return self._start(facts)
        return SETTLED

    def _is_cancelled(self, waiter: Any) -> bool:
        """Whether the CANCELLED entry of a call that is being cancelled is on disk (B11)."""
        return any(item.__class__ is tuple and item[0] is waiter and item[1].result == CANCELLED for item in self.due)

    def _hand_first(self, facts: Facts) -> Step:
        first = self.due[0]
        if first.__class__ is not tuple:
            return self._happen(first, facts)
        waiter, outcome = first
        if waiter.on_loop and not facts.here:
            return TO_LOOP
        self.due.popleft()
        self.in_flight -= 1
        self.reused.discard(waiter)
        self.passed(outcome.n)
        return Step(Move.CANCEL if waiter.cancelling else HAND, waiter, outcome)

    def _happen(self, source: Any, facts: Facts) -> Step:
        if not facts.here:
            return TO_LOOP
        self.due.remove(source)
        self.gone(source)
        self.note(EventKind(source.key[0]), source.key)
        return Step(HAPPEN, source)

    def _start(self, facts: Facts) -> Step:
        if not facts.may_start:
            return Step(Move.HELD_BACK)
        ready = [waiter for waiter in self.held if not (facts.blocked and waiter.on_loop)]
        if not ready:
            return NOTHING
        if not facts.here and any(waiter.on_loop for waiter in ready):
            return TO_LOOP
        self.held = [waiter for waiter in self.held if waiter not in ready]
        return Step(Move.START, ready)

    def force(self, facts: Facts) -> Step:
        """The step for an event or a cancellation that has waited long in a body that is never quiet: the body polls,
        or a library repeats its cancellation until the task has ended (anyio does)."""
        if self.entrances or not facts.here:
            return NOTHING
        replay = self.replay
        if replay is not None and not replay.drained:
            return self._force_replay(replay)
        for item in self.due:
            if item.__class__ is not tuple:
                if not item.over:
                    return self._happen(item, facts)
            elif item[1].result == CANCELLED:
                # With an earlier outcome of the call, which would wait for this entry for ever.
                others = [one for one in self.due if one.__class__ is not tuple or one[0] is not item[0]]
                self.in_flight -= len(self.due) - len(others)
                self.due = deque(others)
                self.reused.discard(item[0])
                self.passed(item[1].n)
                return Step(Move.CANCEL, item[0], item[1])
        return NOTHING

    def _force_replay(self, replay: Replay) -> Step:
        head = replay.head()
        if isinstance(head, Event):
            source = self.sources.get(head.key)
            if source is None or not source.ripe:
                return NOTHING
            replay.consume_event(head)
            self.gone(source)
            return Step(HAPPEN, source)
        waiter = self.waiting.get(head.n)
        if waiter is None or not waiter.cancelling:
            return NOTHING
        return Step(Move.CANCEL, waiter, self.take(head))

    @property
    def may_starve(self) -> bool:
        """An event or a cancellation waits for its turn."""
        if any(item.__class__ is not tuple or item[1].result == CANCELLED for item in self.due):
            return True
        return any(waiter.cancelling for waiter in self.waiting.values())

    # -- what a step depends on --------------------------------------------------------------------------------------

    def _first_source(self) -> Any:
        return next((item for item in self.due if item.__class__ is not tuple and not item.over), None)

    def _comes_after_others(self, entry: Entry) -> bool:
        """Whether, in the recorded run, calls came before that entry which have not been made yet (B6)."""
        n = entry.n
        assert self.replay is not None
        return self.replay.late(n) or any(begun < n for begun in self.unasked_actions.values())

    def _goes_first(self, facts: Facts) -> bool:
        """Whether something goes before a cancellation of the run, because the body is still on its way to where the
        cancellation reached an earlier attempt (B12)."""
        if not self.retraces:
            return False
        if self.reused or self.held or len(self.due) > 1 or facts.computes or facts.child_retraces:
            return True
        replay = self.replay
        return facts.timers > 0 and replay is not None and replay.is_before_cancellation

    def _settles(self, facts: Facts) -> bool:
        """Whether the body may still be on its way to where it was left (B9)."""
        if self.woken and not (facts.timers > 0 or facts.unrecorded):
            self.woken = False
        if self.woken or not self.unasked_actions.keys().isdisjoint(self.open_actions):
            return facts.timers > 0 or self.woken
        self.settling = False
        return False

    # -- the code no longer fits -------------------------------------------------------------------------------------

    def loosen(self) -> tuple[int, list[tuple[Any, Entry]]]:
        """From here on the journal is reused where it is asked for, and binds no more (P6).

        Returns the entry number from which on that holds, and the calls that waited, each with its entry. A call whose
        entry was CANCELLED is held like a call without an entry; but if it is being cancelled again, it is in the list,
        for the cancellation to be recorded.
        """
        replay = self.replay
        assert replay is not None
        low, asked = replay.loosen()
        self.retraces = True
        waiting = []
        for entry in asked:
            waiter = self.waiting.pop(entry.n, None)
            if waiter is None:
                continue
            waiter.entry = None
            if entry.result == CANCELLED and not waiter.cancelling:
                self.held.append(waiter)
            else:
                waiting.append((waiter, entry))
        return low, waiting

    def awaits_cancellation(self) -> bool:
        """Whether replay stands at a cancellation that user code has not asked for again."""
        head = self.replay.head() if self.replay is not None else None
        if isinstance(head, Event):
            return head.kind == EventKind.CALLER and head.key not in self.sources
        if not isinstance(head, Entry) or head.result != CANCELLED:
            return False
        waiter = self.waiting.get(head.n)
        return waiter is not None and not waiter.cancelling

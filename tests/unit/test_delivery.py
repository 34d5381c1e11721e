"""What a body is handed next, decided without I/O: B1 to B11 as tables, and as laws over random histories.

`Delivery` has no event loop and no thread. A history is a list of facts; the answer to each fact is a list of steps.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.unit.test_replay import entry, fp, mark, same

from perdure.core.body.delivery import CancelVerdict, Delivery, Entrance, Move, Outcome
from perdure.core.ground.model import Entry, Result
from perdure.core.journal.replay import REUSE, Event, EventKind, Replay, encode_notes

TIMER, JOB, CALLER = EventKind.TIMER, EventKind.JOB, EventKind.CALLER


@dataclass
class Facts:
    """A quiet body on its loop's thread, unless a test says otherwise."""

    here: bool = True
    blocked: int = 0
    returned: bool = False
    may_start: bool = True
    unrecorded: bool = False
    timers: int = 0
    computes: bool = False
    child_retraces: bool = False
    is_child: bool = False


@dataclass(eq=False)
class Waiter:
    """A call that waits."""

    name: str = ""
    on_loop: bool = True
    entry: Entry | None = None
    cancelling: bool = False
    handed: bool = False


@dataclass(eq=False)
class Source:
    """A timer (ripe from the start) or a job (ripe when it has ended)."""

    kind: EventKind
    branch: int
    number: int = 0
    ripe: bool = True
    over: bool = False
    yields: bool = False
    key: Any = field(init=False)

    def __post_init__(self) -> None:
        self.key = (self.kind, self.branch, self.number)


def live(n: int, result: Result = Result.VALUE) -> Outcome:
    return Outcome(n, result, b"")


def loaded(*rows: Entry, changed: Any = same) -> Delivery:
    delivery = Delivery()
    delivery.load(Replay(list(rows), changed), {}, same_source=True)
    return delivery


def ask(delivery: Delivery, name: str, seq: int, branch: int = 0) -> Waiter:
    """A call that waits for its recorded entry."""
    assert delivery.replay is not None
    found = delivery.replay.ask(branch, seq, fp(name), 0).entry
    assert found is not None
    waiter = Waiter(name)
    delivery.wait(waiter, found)
    return waiter


def steps(delivery: Delivery, facts: Any) -> list[tuple[Move, Any]]:
    """All steps until nothing more is handed over."""
    found: list[tuple[Move, Any]] = []
    while True:
        step = delivery.next(facts)
        if step.move in (Move.NOTHING, Move.SETTLED):
            return found
        found.append((step.move, step.subject))
        if step.move not in (Move.HAND, Move.CANCEL, Move.HAPPEN, Move.ENTER, Move.START, Move.DRAINED):
            return found


def moves(delivery: Delivery, **facts: Any) -> list[Move]:
    return [move for move, _ in steps(delivery, Facts(**facts))]


def test_b2_live_outcomes_are_handed_over_one_by_one_in_commit_order() -> None:
    """B2."""
    delivery, one, thread = Delivery(), Waiter(), Waiter(on_loop=False)
    delivery.in_flight = 2
    delivery.committed(one, live(1))
    assert not delivery.goes_at_once(3, blocked=False)
    delivery.committed(thread, live(2))
    assert steps(delivery, Facts()) == [(Move.HAND, one), (Move.HAND, thread)]
    assert (delivery.last, delivery.in_flight) == (2, 0)
    assert delivery.goes_at_once(3, blocked=False)
    assert delivery.last == 3


def test_b2_a_thread_that_took_its_outcome_out_of_turn_keeps_its_place_in_the_order() -> None:
    """B7, B2: what happens behind the outcome is noted as behind it."""
    delivery, one, thread, job = Delivery(), Waiter(), Waiter(on_loop=False), Source(JOB, 7)
    delivery.in_flight = 2
    delivery.committed(one, live(1))
    delivery.committed(thread, live(2))
    assert delivery.take_out_of_turn(thread) == live(2)
    thread.handed = True
    delivery.began(job)
    delivery.arrived(job)
    assert steps(delivery, Facts()) == [(Move.HAND, one), (Move.HAPPEN, job)]
    assert delivery.take_notes() == [Event(2, JOB, 7, 0)]


def test_b3_an_outcome_waits_for_its_call_and_a_missing_call_is_a_mismatch() -> None:
    """B3."""
    delivery = loaded(entry(1, "a"), replace(entry(2, "b"), begun=1))
    assert moves(delivery, unrecorded=True) == [Move.AWAIT]
    assert moves(delivery, timers=1) == [Move.AWAIT]
    assert moves(delivery) == [Move.MISMATCH]
    waiter = ask(delivery, "a", 0)
    assert steps(delivery, Facts(unrecorded=True))[0] == (Move.HAND, waiter)
    assert moves(loaded(entry(1, "a"), changed=lambda _: True)) == [Move.LOOSEN]


def test_b4_calls_without_an_entry_start_when_all_is_handed_over_and_the_run_allows_it() -> None:
    """B4."""
    delivery, fresh = loaded(entry(1, "a")), Waiter()
    delivery.held.append(fresh)
    assert moves(delivery, unrecorded=True) == [Move.AWAIT]
    ask(delivery, "a", 0)
    assert moves(delivery, may_start=False) == [Move.HAND, Move.DRAINED, Move.HELD_BACK]
    assert steps(delivery, Facts()) == [(Move.START, [fresh])]


def test_b5_nothing_is_handed_to_a_blocked_loop() -> None:
    """B5."""
    delivery, thread = Delivery(), Waiter(on_loop=False)
    delivery.committed(Waiter(), live(1))
    delivery.held += [thread, Waiter()]
    assert moves(delivery, blocked=1) == []
    delivery.due.clear()
    assert steps(delivery, Facts(blocked=1)) == [(Move.START, [thread])]
    assert moves(loaded(entry(1, "a")), blocked=1) == []


def test_b6_an_outcome_waits_for_calls_that_came_before_while_something_unrecorded_may_lead_to_them() -> None:
    """B6."""
    delivery = loaded(entry(1, "a", branch=1, seq=0), replace(entry(2, "b", branch=2, seq=0), begun=0))
    waiter = ask(delivery, "a", 0, branch=1)
    assert moves(delivery, unrecorded=True) == []
    assert steps(delivery, Facts())[0] == (Move.HAND, waiter)


def test_b7_events_are_handed_over_like_outcomes_and_noted_with_the_entry_before() -> None:
    """B7."""
    delivery, one, timer, job = Delivery(), Waiter(), Source(TIMER, 3), Source(JOB, 4)
    for source in (timer, job):
        delivery.began(source)
    delivery.arrived(timer)
    delivery.committed(one, live(1))
    delivery.arrived(job)
    assert steps(delivery, Facts()) == [(Move.HAPPEN, timer), (Move.HAND, one), (Move.HAPPEN, job)]
    assert delivery.take_notes() == [Event(0, TIMER, 3, 0), Event(1, JOB, 4, 0)]
    assert delivery.sources == {}


def noted(row: Entry, *events: Event) -> Entry:
    return replace(row, notes=encode_notes(list(events)))


def test_b7_replay_waits_for_a_job_whose_recorded_turn_has_come() -> None:
    delivery, job = loaded(entry(1, "a"), noted(entry(2, "b"), Event(1, JOB, 4, 0))), Source(JOB, 4, ripe=False)
    a, b = ask(delivery, "a", 0), ask(delivery, "b", 1)
    delivery.began(job)
    assert steps(delivery, Facts(unrecorded=True)) == [(Move.HAND, a)]
    job.ripe = True
    delivery.arrived(job)
    assert steps(delivery, Facts()) == [(Move.HAPPEN, job), (Move.HAND, b), (Move.DRAINED, None)]
    assert delivery.take_notes() == []


def test_b7_an_event_that_nothing_can_bring_about_is_passed_over() -> None:
    delivery = loaded(entry(1, "a"), noted(entry(2, "b"), Event(1, TIMER, 9, 0)))
    ask(delivery, "a", 0), ask(delivery, "b", 1)
    assert moves(delivery) == [Move.HAND, Move.HAND, Move.DRAINED]


def test_b8_a_noted_timer_goes_off_at_once_and_one_that_is_not_noted_stands_back() -> None:
    """B8."""
    delivery = loaded(entry(1, "a"), noted(entry(2, "b"), Event(1, TIMER, 3, 0)))
    noted_one, other = Source(TIMER, 3), Source(TIMER, 3, 1)
    a, b = ask(delivery, "a", 0), ask(delivery, "b", 1)
    for source in (noted_one, other):
        delivery.began(source)
    delivery.arrived(other)
    assert steps(delivery, Facts(timers=2)) == [
        (Move.HAND, a), (Move.HAPPEN, noted_one), (Move.HAND, b), (Move.DRAINED, None), (Move.HAPPEN, other),
    ]  # fmt: skip


def test_b8_before_a_mismatch_is_declared_an_event_that_has_come_goes_first() -> None:
    """B8."""
    delivery, timer = loaded(entry(1, "a")), Source(TIMER, 3)
    delivery.began(timer)
    delivery.arrived(timer)
    assert steps(delivery, Facts()) == [(Move.HAPPEN, timer), (Move.MISMATCH, delivery.replay.head())]  # type: ignore[union-attr]


def test_a_timeout_counts_as_late_when_it_was_late_first() -> None:
    delivery = loaded(noted(entry(1, "a"), Event(0, EventKind.LATE, 5, 2)))
    assert delivery.is_late((TIMER, 5, 2)) is True
    assert delivery.is_late((TIMER, 5, 3)) is False
    assert Delivery().is_late((TIMER, 5, 2)) is None


def test_b9_a_live_outcome_waits_while_what_was_under_way_has_not_been_called_again() -> None:
    """B9."""
    delivery = Delivery()
    action: Any = SimpleNamespace(begun=0)
    delivery.load(Replay([], same), {(0, b"x", 0): action}, same_source=True)
    waiter, timer = Waiter(), Source(TIMER, 1)
    delivery.committed(waiter, live(1))
    assert moves(delivery, timers=1) == []
    delivery.arrived(timer)
    assert steps(delivery, Facts(timers=1)) == [(Move.HAPPEN, timer)]
    delivery.unasked_actions.clear()
    assert steps(delivery, Facts(timers=1)) == [(Move.HAND, waiter)]


def test_b10_a_block_is_entered_before_all_else_and_when_it_is_open() -> None:
    """B10."""
    delivery, waiter = Delivery(), Waiter()
    future: Any = SimpleNamespace(done=lambda: False)
    entrance = Entrance(future)
    delivery.entrances.append(entrance)
    delivery.committed(waiter, live(1))
    assert moves(delivery) == []
    entrance.open = True
    assert steps(delivery, Facts()) == [(Move.ENTER, entrance), (Move.HAND, waiter)]


def test_b11_a_cancellation_takes_its_turn() -> None:
    """B11."""
    delivery, slow, other = Delivery(), Waiter("slow"), Waiter("other")
    assert delivery.cancel(slow) is CancelVerdict.RECORD
    assert delivery.cancel(slow) is CancelVerdict.IGNORE
    delivery.in_flight = 3
    delivery.committed(slow, live(1))
    delivery.committed(other, live(2))
    delivery.committed(slow, live(3, Result.CANCELLED))
    assert steps(delivery, Facts()) == [(Move.HAND, other), (Move.CANCEL, slow)]
    assert delivery.in_flight == 0


def test_b11_nothing_overtakes_a_recorded_outcome_until_its_cancellation_is_on_disk() -> None:
    """B11, P4. The family: an outcome is on disk, and its call was cancelled before its turn. A crash before the
    CANCELLED row leaves the outcome for the replay to hand over, so nothing behind the outcome may be seen earlier: an
    outcome for a task, an outcome for a thread, an event, or a call that starts."""
    for behind in ("outcome", "thread", "event", "start"):
        delivery, slow = Delivery(), Waiter("slow")
        other = Waiter("other", on_loop=behind != "thread")
        delivery.in_flight = 3
        delivery.cancel(slow)
        delivery.committed(slow, live(1))
        if behind == "event":
            delivery.arrived(Source(TIMER, 3))
        elif behind == "start":
            delivery.held.append(other)
        else:
            delivery.committed(other, live(2))
        assert moves(delivery) == [], behind
        assert not delivery.goes_at_once(9, blocked=False), behind
        delivery.committed(slow, live(3, Result.CANCELLED))
        first = Move.HAPPEN if behind == "event" else Move.HAND
        expected = [Move.CANCEL, Move.START] if behind == "start" else [first, Move.CANCEL]
        assert moves(delivery) == expected, behind


def test_b11_on_replay_the_entry_decides_whether_a_call_is_cancelled() -> None:
    """B11."""
    delivery = loaded(entry(1, "a"), replace(entry(2, "b"), result=Result.CANCELLED), entry(3, "c"))
    a, b, c = ask(delivery, "a", 0), ask(delivery, "b", 1), ask(delivery, "c", 2)
    assert delivery.cancel(a) is CancelVerdict.IGNORE
    assert steps(delivery, Facts()) == [(Move.HAND, a), (Move.MISMATCH, b.entry)]
    assert delivery.cancel(b) is CancelVerdict.WAIT
    assert steps(delivery, Facts()) == [(Move.CANCEL, b), (Move.HAND, c), (Move.DRAINED, None)]


def test_b11_a_caller_s_cancellation_is_awaited_and_happens_in_its_turn() -> None:
    delivery, cancels = loaded(entry(1, "a"), noted(entry(2, "b"), Event(1, CALLER, 0, 0))), Source(CALLER, 0)
    a, b = ask(delivery, "a", 0), ask(delivery, "b", 1)
    assert moves(delivery, is_child=True) == [Move.HAND, Move.AWAIT_CANCELLATION]
    assert delivery.awaits_cancellation()
    delivery.began(cancels)
    assert steps(delivery, Facts(is_child=True)) == [(Move.HAPPEN, cancels), (Move.HAND, b), (Move.DRAINED, None)]
    assert a.entry is not None


def failed_once(*rows: Entry) -> Delivery:
    """A body whose first attempt recorded `rows` and failed."""
    return loaded(*rows, mark(len(rows) + 1, Result.FAILED, 0))


def reuse(delivery: Delivery, name: str, seq: int) -> Waiter:
    """A call that is given a loose entry."""
    assert delivery.replay is not None
    assert delivery.replay.ask(0, seq, fp(name), 0).verdict is REUSE
    waiter = Waiter(name)
    delivery.in_flight += 1
    delivery.reused.add(waiter)
    return waiter


def test_b12_a_new_attempt_hears_of_the_cancellation_behind_what_is_reused() -> None:
    """B12: the body failed in its cleanup, whose own entry ("undo") keeps nothing waiting."""
    undo = noted(entry(3, "undo", seq=2), Event(2, CALLER, 0, 0))
    delivery, cancels = failed_once(entry(1, "a"), entry(2, "b", seq=1), undo), Source(CALLER, 0, yields=True)
    delivery.began(cancels)
    delivery.arrived(cancels)
    a = reuse(delivery, "a", 0)
    assert moves(delivery) == []
    delivery.committed(a, live(5))
    assert steps(delivery, Facts(timers=1)) == [(Move.HAND, a)], "a timer may lead to b"
    job = Source(JOB, 4)
    delivery.began(job)
    assert moves(delivery, computes=True) == []
    delivery.arrived(job)
    assert steps(delivery, Facts(timers=1)) == [(Move.HAPPEN, job)]
    b = reuse(delivery, "b", 1)
    delivery.committed(b, live(6))
    assert steps(delivery, Facts(timers=1)) == [(Move.HAND, b), (Move.HAPPEN, cancels)]


def test_b12_a_first_attempt_hears_of_the_cancellation_at_once() -> None:
    delivery, cancels = Delivery(), Source(CALLER, 0, yields=True)
    delivery.began(cancels)
    delivery.arrived(cancels)
    delivery.committed(Waiter(), live(1))
    assert moves(delivery, timers=1, computes=True)[0] is Move.HAPPEN


def test_steps_for_the_loop_are_left_to_the_loop_s_thread() -> None:
    delivery = Delivery()
    delivery.committed(Waiter(), live(1))
    assert moves(delivery, here=False) == [Move.TO_LOOP]
    delivery = Delivery()
    thread = Waiter(on_loop=False)
    delivery.committed(thread, live(1))
    assert steps(delivery, Facts(here=False)) == [(Move.HAND, thread)]


def test_b11_a_forced_cancellation_takes_an_earlier_outcome_of_its_call_along() -> None:
    """B11. The outcome waited for the entry that was forced ahead, and nothing behind it was ever handed over."""
    delivery, slow, other = Delivery(), Waiter("slow"), Waiter("other")
    assert delivery.cancel(slow) is CancelVerdict.RECORD
    delivery.in_flight = 3
    delivery.committed(slow, live(1))
    delivery.committed(other, live(2))
    assert moves(delivery) == []
    delivery.committed(slow, live(3, Result.CANCELLED))
    assert delivery.force(Facts()).subject is slow
    assert steps(delivery, Facts()) == [(Move.HAND, other)]
    assert delivery.in_flight == 0


def test_a_starved_event_is_forced_only_where_its_turn_allows_it() -> None:
    delivery, timer = loaded(entry(1, "a")), Source(TIMER, 1)
    delivery.began(timer)
    delivery.arrived(timer)
    assert delivery.force(Facts()).move is Move.NOTHING
    fresh = Delivery()
    fresh.began(timer)
    fresh.arrived(timer)
    assert fresh.may_starve
    assert fresh.force(Facts()).subject is timer


def test_b7_an_event_beside_an_answer_out_of_turn_is_noted_behind_what_the_loop_has_been_handed() -> None:
    """B5, B7. The family: an entry number is no place in the order. 9 was handed over behind 3, ahead of 5."""
    for handed, expected in (((3,), 3), ((3, (9, 3)), 9), ((3, (9, 3), 5), 5), ((3, 5, (9, 3)), 5)):
        delivery = Delivery()
        for entry_number in handed:
            delivery.passed(*(entry_number if isinstance(entry_number, tuple) else (entry_number,)))
        delivery.committed(Waiter(), live(11))
        assert delivery.goes_at_once(12, blocked=True)
        delivery.note(TIMER, (TIMER, 7, 0))
        assert [event.after for event in delivery.take_notes()] == [expected]


def test_b5_a_thread_is_answered_out_of_turn_where_the_recorded_end_of_its_job_needs_that() -> None:
    """B5, B7."""
    rows = [entry(1, "a", branch=1, seq=0), entry(2, "t", branch=2, seq=0)]
    rows[1] = replace(rows[1], notes=encode_notes([Event(0, JOB, 2, 0)]))
    delivery = loaded(*rows)
    job = Source(JOB, 2, ripe=False)
    delivery.began(job)
    ask(delivery, "a", 0, branch=1)
    thread = ask(delivery, "t", 0, branch=2)
    thread.on_loop = False
    assert steps(delivery, Facts(unrecorded=True)) == [(Move.HAND, thread)]
    job.ripe = True
    delivery.arrived(job)
    assert [move for move, _ in steps(delivery, Facts())] == [Move.HAPPEN, Move.HAND, Move.DRAINED]


def test_a_body_that_has_ended_amid_its_journal_has_its_timers() -> None:
    """B8. The timer that limits the time for leaving is one of them."""
    for notes in (None, encode_notes([Event(0, TIMER, 5, 0)])):
        delivery = loaded(replace(entry(1, "a", seq=0), notes=notes))
        timer = Source(TIMER, 7)
        delivery.began(timer)
        delivery.arrived(timer)
        assert moves(delivery, returned=True) == [Move.HAPPEN]


def test_a_starved_cancellation_is_forced_and_plain_outcomes_are_not() -> None:
    delivery, slow, other = Delivery(), Waiter("slow"), Waiter("other")
    delivery.cancel(slow)
    delivery.in_flight = 2
    delivery.committed(other, live(1))
    assert not delivery.may_starve
    delivery.committed(slow, live(2, Result.CANCELLED))
    assert delivery.may_starve
    assert delivery.force(Facts()).subject is slow
    assert delivery.force(Facts()).move is Move.NOTHING
    replayed = loaded(replace(entry(1, "a"), result=Result.CANCELLED))
    a = ask(replayed, "a", 0)
    assert replayed.force(Facts()).move is Move.NOTHING
    replayed.cancel(a)
    step = replayed.force(Facts())
    assert (step.move, step.subject) == (Move.CANCEL, a)


# -- laws ------------------------------------------------------------------------------------------------------


def first_life(history: list[tuple[str, int]]) -> tuple[list[tuple[str, int]], list[Entry]]:
    """Live facts in that order; what was handed over, in order, and the journal."""
    delivery = Delivery()
    rows: list[Entry] = []
    order: list[tuple[str, int]] = []
    for kind, which in history:
        if kind == "outcome":
            n = len(rows) + 1
            row = entry(n, f"c{which}", branch=which, seq=0)
            rows.append(replace(row, notes=encode_notes(delivery.take_notes())))
            delivery.in_flight += 1
            delivery.committed(Waiter(f"c{which}"), live(n))
        else:
            source = Source(TIMER if kind == "timer" else JOB, 100 + which)
            delivery.began(source)
            delivery.arrived(source)
        order += told(steps(delivery, Facts()))
    return order, rows


def told(found: list[tuple[Move, Any]]) -> list[tuple[str, int]]:
    order = []
    for move, subject in found:
        if move is Move.HAND:
            order.append(("outcome", int(subject.name[1:])))
        elif move is Move.HAPPEN:
            order.append(("timer" if subject.key[0] == TIMER else "job", subject.key[1] - 100))
    return order


HISTORIES = st.lists(
    st.one_of(st.tuples(st.sampled_from(["outcome", "timer", "job"]), st.integers(0, 5))), unique=True, max_size=14
)


@settings(deadline=None)
@given(history=HISTORIES, shuffle=st.randoms(use_true_random=False), data=st.data())
def test_replay_hands_over_in_the_order_of_the_first_life_for_every_order_of_arrival(
    history: list[tuple[str, int]], shuffle: Any, data: st.DataObject
) -> None:
    """B2, B7, B8: killed behind any entry, replay gives the same order as far as the journal reaches."""
    order, rows = first_life(history)
    kept = data.draw(st.integers(0, len(rows)))
    delivery = loaded(*rows[:kept])
    facts: list[tuple[str, int]] = list(dict.fromkeys(history))
    shuffle.shuffle(facts)
    recorded = {int(row.name[1:]) for row in rows[:kept]}
    again: list[tuple[str, int]] = []
    for kind, which in facts:
        if kind == "outcome":
            if which in recorded:
                ask(delivery, f"c{which}", 0, branch=which)
        else:
            source = Source(TIMER if kind == "timer" else JOB, 100 + which)
            delivery.began(source)
            delivery.arrived(source)
        again += told(steps(delivery, Facts(unrecorded=True)))
    again += told(steps(delivery, Facts()))
    last = max((place for place, one in enumerate(order) if one[0] == "outcome" and one[1] in recorded), default=-1)
    assert again[: last + 1] == order[: last + 1]
    assert sorted(again) == sorted([one for one in order if one[0] != "outcome" or one[1] in recorded])
    assert not delivery.replaying

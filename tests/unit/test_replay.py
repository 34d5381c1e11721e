"""The replay state machine without I/O (docs/development/replay.md): R1 to R4, and rows about earlier rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from perdure.core.ground.model import Entry, Result
from perdure.core.journal.replay import Decision, Replay, Verdict

OLD, NEW = 1, 2


def fp(name: str) -> bytes:
    return name.encode().ljust(16, b".")


def entry(
    n: int, name: str, *, branch: int = 0, seq: int | None = None, occ: int = 0, item: int = 0, **more: Any
) -> Entry:
    fields: dict[str, Any] = {
        "action": 0, "n": n, "branch": branch, "seq": n - 1 if seq is None else seq, "occ": occ, "item": item,
        "kind": 2, "result": Result.VALUE, "fp": fp(name), "name": name, "label": None, "value": b"", "inputs": None,
        "source": NEW, "child": None, "after": None, "at": 0, "took": 0,
    }  # fmt: skip
    return Entry(**(fields | more))


def mark(n: int, result: Result, seq: int) -> Entry:
    return entry(n, "", seq=seq, result=result)


def same(_: int) -> bool:
    return False


def replay(*rows: Entry, changed: Callable[[int], bool] = same) -> Replay:
    return Replay(list(rows), changed)


def ask(machine: Replay, name: str, seq: int, *, branch: int = 0, occ: int = 0, item: int = 0) -> Any:
    return machine.ask(branch, seq, fp(name), occ, item)


def test_entries_are_handed_out_in_commit_order_not_in_that_of_the_calls() -> None:
    a, b = entry(1, "a", branch=1, seq=0), entry(2, "b", branch=2, seq=0)
    machine = replay(a, b)
    assert ask(machine, "b", 0, branch=2) == Decision(Verdict.REPLAY, b)
    assert machine.head() is a
    assert ask(machine, "a", 0, branch=1) == Decision(Verdict.REPLAY, a)
    machine.consume(a)
    assert machine.head() is b
    machine.consume(b)
    assert machine.drained
    assert machine.done


def test_the_sources_of_a_journal_are_found_once_however_many_calls_ask() -> None:
    """Each call of a function that has moved asks: a journal of n entries must not cost n times n steps."""
    machine = replay(entry(1, "a", seq=0), replace(entry(2, "b", seq=1), source=7))
    first = machine.sources()
    assert 7 in first
    machine.consume(ask(machine, "a", 0).entry)
    machine.consume(ask(machine, "b", 1).entry)
    assert machine.sources() is first


def test_an_entry_is_handed_out_at_most_once() -> None:
    """R1: a second call of the same identity gets nothing, be the entry strict or loose."""
    a, b = entry(1, "a"), entry(2, "b")
    strict = replay(a, b)
    assert ask(strict, "a", 0) == Decision(Verdict.REPLAY, a)
    assert ask(strict, "a", 0).verdict is Verdict.HOLD
    loose = replay(a, mark(2, Result.LOOSEN, 0))
    assert ask(loose, "a", 0) == Decision(Verdict.REUSE, a)
    assert ask(loose, "a", 0).verdict is Verdict.EXECUTE


def test_a_call_without_an_entry_is_held_until_every_entry_has_been_delivered() -> None:
    a = entry(1, "a", seq=0)
    machine = replay(a)
    assert ask(machine, "new", 5).verdict is Verdict.HOLD
    ask(machine, "a", 0)
    assert ask(machine, "other", 6).verdict is Verdict.HOLD
    machine.consume(a)
    assert ask(machine, "third", 7).verdict is Verdict.EXECUTE


def test_another_call_at_the_same_position_is_a_mismatch_under_the_same_source() -> None:
    """R4."""
    recorded = entry(1, "a", seq=0)
    decision = ask(replay(recorded), "b", 0)
    assert decision == Decision(Verdict.MISMATCH, recorded)


def test_another_call_at_the_same_position_executes_under_changed_source() -> None:
    """R4."""
    recorded = entry(1, "a", seq=0, source=OLD)
    machine = replay(recorded, changed=lambda source: source == OLD)
    assert ask(machine, "b", 0) == Decision(Verdict.CHANGED, recorded)
    assert machine.loosen() == (1, [])
    assert ask(machine, "b", 0).verdict is Verdict.EXECUTE
    assert ask(machine, "a", 1) == Decision(Verdict.REUSE, recorded)
    assert machine.done


def test_loosening_gives_back_those_that_wait() -> None:
    a, b = entry(1, "a", branch=1, seq=0), entry(2, "b", branch=2, seq=0)
    machine = replay(a, b)
    ask(machine, "b", 0, branch=2)
    assert machine.loosen() == (1, [b])
    assert set(machine.loose.values()) == {a}


def test_a_discarded_entry_no_longer_counts_and_what_followed_is_loose() -> None:
    rows = [
        entry(1, "a", seq=0),
        entry(2, "b", seq=1),
        entry(3, "c", seq=2),
        mark(4, Result.DISCARD, 2),
        mark(5, Result.LOOSEN, 2),
    ]
    machine = replay(*rows)
    assert ask(machine, "a", 0).verdict is Verdict.REPLAY
    machine.consume(rows[0])
    assert ask(machine, "b", 1).verdict is Verdict.EXECUTE
    assert ask(machine, "c", 2) == Decision(Verdict.REUSE, rows[2])


def test_a_reused_entry_is_strict_again_at_its_new_place() -> None:
    rows = [
        entry(1, "a", seq=0), entry(2, "b", seq=1), mark(3, Result.LOOSEN, 0),
        entry(4, "new", seq=0), mark(5, Result.REUSE, 1),
    ]  # fmt: skip
    machine = replay(*rows)
    assert machine.head() == rows[3]
    assert ask(machine, "a", 1).entry == replace(rows[0], n=5)
    assert set(machine.loose.values()) == {rows[1]}


def test_a_reused_failure_can_be_discarded_by_its_new_number() -> None:
    rows = [entry(1, "a", seq=0), mark(2, Result.LOOSEN, 0), mark(3, Result.REUSE, 1), mark(4, Result.DISCARD, 3)]
    assert replay(*rows).done


def test_a_cancellation_replaces_an_outcome_that_was_never_delivered_and_keeps_its_own_place() -> None:
    rows = [
        entry(1, "a", branch=1, seq=0),
        entry(2, "b", branch=2, seq=0),
        entry(3, "c", branch=3, seq=0),
        entry(4, "b", branch=2, seq=0, result=Result.CANCELLED, after=1),
    ]
    machine = replay(*rows)
    order = []
    while (head := machine.head()) is not None:
        order.append((head.name, head.result))
        machine.consume(head)
    assert order == [("a", Result.VALUE), ("b", Result.CANCELLED), ("c", Result.VALUE)]


def items(count: int, first: int = 1) -> list[Entry]:
    return [replace(entry(first + item, "g", seq=0, result=Result.ITEM), item=item) for item in range(count)]


@pytest.mark.parametrize("last", [Result.CANCELLED, None])
def test_items_of_a_generator_that_had_not_ended_are_given_up_with_the_attempt(last: Result | None) -> None:
    """GI3: also where the failure discards only what came later, and whether or not the next life is the one that
    executes the generator again."""
    before = entry(1, "a", seq=0)
    rows = [before, *(replace(row, seq=1) for row in items(2, 2))]
    if last is not None:
        rows.append(replace(entry(4, "g", seq=1, result=last), item=2))
    rows += [entry(5, "b", seq=2), mark(6, Result.DISCARD, 5), mark(7, Result.FAILED, 5)]
    machine = replay(*rows)
    assert ask(machine, "a", 0) == Decision(Verdict.REPLAY, before)
    machine.consume(before)
    machine.execute_again((0, fp("g"), 0))
    assert ask(machine, "g", 1).verdict is Verdict.EXECUTE
    again = replay(*rows, replace(entry(8, "g", seq=1, result=Result.ITEM), item=0))
    assert [row.n for row in again.outcomes()] == [1, 8]


def test_items_of_a_generator_that_continues_by_itself_stay() -> None:
    """GI3."""
    machine = replay(*items(2), mark(3, Result.FAILED, 0))
    assert ask(machine, "g", 0).verdict is Verdict.REUSE
    assert ask(machine, "g", 1, item=1).verdict is Verdict.REUSE


@pytest.mark.parametrize("end", [Result.END, Result.ERROR, Result.CLOSED])
def test_items_of_a_generator_that_had_ended_stay(end: Result) -> None:
    """GI2."""
    rows = [*items(2), replace(entry(3, "g", seq=0, result=end), item=2), mark(4, Result.FAILED, 0)]
    machine = replay(*rows)
    machine.execute_again((0, fp("g"), 0))
    assert ask(machine, "g", 0).verdict is Verdict.REUSE


def test_a_cancelled_call_is_not_reused_on_a_new_path() -> None:
    machine = replay(entry(1, "a", seq=0, result=Result.CANCELLED), mark(2, Result.LOOSEN, 0))
    assert machine.done


def test_an_entry_that_was_never_asked_for_is_found() -> None:
    a, b = entry(1, "a", seq=0), entry(2, "b", seq=1)
    machine = replay(a, b)
    ask(machine, "a", 0)
    machine.consume(a)
    assert machine.unasked() == b


def test_closed_generators_are_remembered_but_hand_out_nothing() -> None:
    rows = [entry(1, "g", item=0, result=Result.ITEM), entry(2, "g", item=1, result=Result.CLOSED)]
    machine = replay(*rows)
    assert machine.closed == {(0, fp("g"), 0, 1)}
    ask(machine, "g", 0)
    machine.consume(rows[0])
    assert machine.done


@given(st.permutations(range(6)), st.permutations(range(6)))
def test_entries_are_handed_out_in_journal_order_for_every_order_of_asking(
    committed: list[int], asked: list[int]
) -> None:
    """R2."""
    rows = [entry(n + 1, f"call{call}", branch=call, seq=0) for n, call in enumerate(committed)]
    machine = replay(*rows)
    seen = []
    for call in asked:
        decision = ask(machine, f"call{call}", 0, branch=call)
        assert decision.verdict is Verdict.REPLAY
        seen.append(decision.entry)
    assert len(set(seen)) == len(rows)
    handed = []
    while (head := machine.head()) is not None:
        machine.consume(head)
        handed.append(head.n)
    assert handed == sorted(handed)


@given(st.data())
def test_no_call_executes_while_strict_entries_remain(data: st.DataObject) -> None:
    """R3."""
    count = data.draw(st.integers(1, 8))
    rows = [entry(n + 1, f"c{n}", seq=n) for n in range(count)]
    machine = replay(*rows)
    for n in range(count):
        assert ask(machine, "unknown", 100 + n).verdict is Verdict.HOLD
        assert ask(machine, f"c{n}", n).verdict is Verdict.REPLAY
        machine.consume(rows[n])
    assert ask(machine, "unknown", 200).verdict is Verdict.EXECUTE


def test_consuming_out_of_turn_skips_that_entry_later() -> None:
    a, b, c = entry(1, "a", seq=0), entry(2, "b", seq=1), entry(3, "c", seq=2)
    machine = replay(a, b, c)
    for name, seq in (("a", 0), ("b", 1), ("c", 2)):
        ask(machine, name, seq)
    machine.consume(b)
    machine.consume(a)
    assert machine.head() is c
    machine.consume(c)
    assert machine.drained

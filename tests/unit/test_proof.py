"""The models of the protocol hold, and each planted fault is found (P1, P2, P3, P7, P12, P14, MS1 to MS4, M1 to M3,
LM1, LM2, LM5).
"""

from __future__ import annotations

import pytest
from proof import claims, limits, moves, signals, submits
from proof.checker import Broken, Model, Step, explore


def test_the_protocol_of_claims_holds_in_every_state() -> None:
    found = explore(claims.model())
    assert found.states > 10_000


def test_the_protocol_of_moves_holds_in_every_state() -> None:
    found = explore(moves.model())
    assert found.states > 200


@pytest.mark.parametrize("parkable", [True, False])
@pytest.mark.parametrize("bounds", [signals.FREEZES, signals.CANCELS])
def test_no_message_is_lost_or_doubled_in_any_state(bounds: signals.MailBounds, parkable: bool) -> None:
    """P12, MS1 to MS4, for runs that are parked while they wait, and for runs that are not."""
    found = explore(signals.model(parkable=parkable, bounds=bounds))
    assert found.states > 4_000


@pytest.mark.parametrize(("fault", "expected"), signals.FAULTS.items(), ids=str)
def test_a_fault_in_the_delivery_of_messages_is_found(fault: str, expected: str) -> None:
    """P12: a message lost, doubled, out of order, or never delivered."""
    with pytest.raises(Broken) as broken:
        explore(signals.faulty(fault))
    assert broken.value.name == expected


@pytest.mark.parametrize("bounds", [limits.LimitBounds(aborts=0), limits.LimitBounds(freezes=0)])
def test_no_slot_is_lost_or_given_twice_in_any_state(bounds: limits.LimitBounds) -> None:
    """P14, LM1, LM2, LM5: over deaths, freezes, parking and aborted runs; every run comes to its end."""
    assert explore(limits.model(bounds=bounds)).states > 4_000


@pytest.mark.parametrize(("fault", "expected"), limits.FAULTS.items(), ids=str)
def test_a_fault_in_giving_slots_is_found(fault: str, expected: str) -> None:
    """P14: a slot given twice, leaked, or never given."""
    with pytest.raises(Broken) as broken:
        explore(limits.model(fault))
    assert broken.value.name == expected


@pytest.mark.parametrize("polls", [True, False])
@pytest.mark.parametrize("cuts", [submits.DEATHS, submits.READS, submits.CUTS])
def test_a_submission_is_driven_once_in_every_state(cuts: submits.Limits, polls: bool) -> None:
    """P2, P3: over deaths, failed reads and power cuts; for workers that poll, and for workers with a bell alone."""
    found = explore(submits.model(polls=polls, limits=cuts))
    assert found.states > 10_000


@pytest.mark.parametrize(("fault", "expected"), submits.FAULTS.items(), ids=str)
def test_a_fault_in_submitting_is_found(fault: str, expected: str) -> None:
    """P2, P3: a run lost, doubled, driven twice, or never driven."""
    with pytest.raises(Broken) as broken:
        explore(submits.faulty(fault))
    assert broken.value.name == expected


@pytest.mark.parametrize(("fault", "expected"), claims.FAULTS.items(), ids=str)
def test_a_fault_in_claiming_is_found(fault: str, expected: str) -> None:
    with pytest.raises(Broken) as broken:
        explore(claims.model(fault))
    assert broken.value.name == expected


@pytest.mark.parametrize(("fault", "expected"), moves.FAULTS.items(), ids=str)
def test_a_fault_in_moving_is_found(fault: str, expected: str) -> None:
    with pytest.raises(Broken) as broken:
        explore(moves.model(fault))
    assert broken.value.name == expected


def test_the_checker_finds_the_shortest_way_and_every_trap() -> None:
    """A counter to 5 that must not reach 3; a counter that gets stuck at 4; progress that only a fault would bring."""

    def counts(end: int, *, is_fault: bool = False) -> Model[int]:
        steps = lambda n: [Step("one more", n + 1, is_fault and n == 3)] if n < end else []  # noqa: E731
        return Model(0, steps, {"below 9": lambda n: n < 9}, lambda n: n == 5)

    assert explore(counts(5)).states == 6
    for model in (counts(4), counts(5, is_fault=True)):
        with pytest.raises(Broken, match="progress"):
            explore(model)
    with pytest.raises(Broken) as broken:
        explore(Model(0, counts(5).steps, {"below 3": lambda n: n < 3}, lambda n: n == 5))
    assert (broken.value.name, broken.value.way) == ("below 3", ["one more"] * 3)

"""The format of the journal (SG1 to SG4): what a reader finds, and every way in which stored segments can be wrong."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.contract._records import TOKEN, entry, new_run

from perdure.core.ground.model import Ended, Entry, Result, Segment
from perdure.core.journal import segment as format
from perdure.core.journal.segment import Chain, Journal, again, entries_of, mark_of, rewritten
from perdure.errors import JournalDamagedError, StoreVersionError, UsageError
from perdure.store._rows import submitted

UID = b"u" * 16


def journal(count: int = 6, uid: bytes = UID, size: int = 1, token: bytes = TOKEN) -> list[Segment]:
    chain = Chain("run", uid)
    rows = [entry(n) for n in range(1, count * size + 1)]
    return [chain.add(rows[first : first + size], mark_of(token)) for first in range(0, count * size, size)]


def read(segments: list[Segment]) -> list[Entry]:
    return list(entries_of("run", UID, segments))


@given(st.lists(st.integers(1, 40), max_size=8), st.integers(1, 5))
def test_entries_come_back_for_all_sizes_of_segments_and_pages(sizes: list[int], page: int) -> None:
    chain, rows, segments = Chain("run", UID), [entry(n) for n in range(1, sum(sizes) + 1)], []
    left = list(rows)
    for size in sizes:
        segments.append(chain.add(left[:size], mark_of(TOKEN)))
        del left[:size]
    reader, found = Chain("run", UID), []
    for first in range(0, len(segments), page):
        found += reader.read(segments[first : first + page])
    assert found == rows
    assert reader.n == chain.n == len(rows)


@pytest.mark.parametrize("size", [1, 15, 16, 70_000])
def test_every_form_of_the_array_header_is_read(size: int) -> None:
    """MessagePack writes the length of an array in three forms."""
    assert [row.n for row in read(journal(2, size=size))] == list(range(1, 2 * size + 1))


def _edit(segments: list[Segment]) -> None:
    segments[2] = Segment(segments[2].number, segments[2].data.replace(b"etl.fetch", b"etl.fetcH"))


def _from(uid: bytes) -> Callable[[list[Segment]], None]:
    def copy(segments: list[Segment]) -> None:
        segments[2] = journal(uid=uid)[2]

    return copy


def _swap(segments: list[Segment]) -> None:
    first, second = segments[2], segments[3]
    segments[2:4] = [Segment(first.number, second.data), Segment(second.number, first.data)]


def _forge(segments: list[Segment]) -> None:
    """A segment with a checksum of its own, as if nothing came before."""
    segments[2] = Segment(3, Chain("run", UID).add([entry(3)], mark_of(TOKEN)).data)


def _renumber(segments: list[Segment]) -> None:
    segments[2] = Segment(33, segments[2].data)


DAMAGE: dict[str, Callable[[list[Segment]], None]] = {
    "edited": _edit,
    "missing": lambda segments: segments.__delitem__(2),
    "swapped": _swap,
    "of another run": _from(b"v" * 16),
    "forged": _forge,
    "renumbered": _renumber,
    "cut short": lambda segments: segments.__setitem__(2, Segment(3, segments[2].data[:-3])),
    "longer": lambda segments: segments.__setitem__(2, Segment(3, segments[2].data + b"\0")),
    "empty": lambda segments: segments.__setitem__(2, Segment(3, b"")),
    "only a version": lambda segments: segments.__setitem__(2, Segment(3, b"\x01")),
    "zeros": lambda segments: segments.__setitem__(2, Segment(3, bytes(80))),
    "claim changed": lambda segments: segments.__setitem__(
        2, Segment(3, segments[2].data[:9] + b"o" + segments[2].data[10:])
    ),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_found_at_its_entry_and_names_the_run(damage: str) -> None:
    """SG1, SG2: after any change to one segment, the reader stops there."""
    segments = journal()
    DAMAGE[damage](segments)
    with pytest.raises(
        JournalDamagedError, match=r"run 'run': its journal is damaged (at|between) entr(y 3|ies 3 and)"
    ):
        read(segments)


@given(st.integers(0, 5), st.data())
def test_any_byte_that_changes_is_noticed(place: int, data: st.DataObject) -> None:
    """SG1."""
    segments = journal()
    number, kept = segments[place].number, segments[place].data
    at = data.draw(st.integers(1, len(kept) - 1))
    changed = bytearray(kept)
    changed[at] ^= data.draw(st.integers(1, 255))
    segments[place] = Segment(number, bytes(changed))
    with pytest.raises(JournalDamagedError):
        read(segments)


@pytest.mark.parametrize("numbers", [(1, 3), (2, 1, 3), (1, 1, 3), (0, 2), (3, 2)])
def test_a_gap_that_the_checksum_covers_is_damage_too(numbers: tuple[int, ...]) -> None:
    """SG2: a fault of the writer, not of the disk: the checksum fits. The family: entry numbers that leave one out,
    change places, come twice, or begin too early, also where the length and the last number are right."""
    chain = Chain("run", UID)
    with pytest.raises(JournalDamagedError):
        read([chain.add([entry(number) for number in numbers], mark_of(TOKEN))])


@pytest.mark.parametrize("version", [2, 9, 255])
def test_an_unknown_version_says_which_perdure_is_needed(version: int) -> None:
    """SG3."""
    segments = journal()
    segments[3] = Segment(4, bytes((version,)) + segments[3].data[1:])
    with pytest.raises(
        StoreVersionError, match=f"run 'run': entry 4 .* format {version}, and this perdure reads format 1"
    ):
        read(segments)


def test_two_claims_never_write_the_same_bytes() -> None:
    """SG4: tombstones hold no time, so two drivers write equal entries."""
    assert journal()[0] != journal(token=b"o" * 16)[0]
    assert journal() == journal()


# -- the driver's view ---------------------------------------------------------------------------------------------


def driving(*rows: Entry) -> tuple[Journal, list[Segment]]:
    made = Journal("run", UID, TOKEN)
    return made, list(made.append(rows)[0]) if rows else []


def test_a_journal_is_read_once_and_given_out_by_body() -> None:
    rows = [entry(1), entry(2, action=4), entry(3, action=4), entry(4)]
    _, segments = driving(*rows)
    made = Journal("run", UID, TOKEN)
    assert made.read(segments) == 4
    assert made.take(0) == [rows[0], rows[3]]
    assert made.take(9) == []
    assert made.take(0) is None
    assert made.places(0) == [4]
    assert again(segments, 0) == [rows[0], rows[3]]


def test_what_is_appended_to_a_body_that_was_not_taken_yet_makes_the_store_the_only_source() -> None:
    made = Journal("run", UID, TOKEN)
    made.read(driving(entry(1, action=4), entry(2))[1])
    (added,), _, _ = made.append([entry(3, action=4)])
    assert added.number == 3
    assert made.take(4) is None
    assert made.places(4) == [2, 3]
    assert made.take(0) == [entry(2)]


def test_the_chain_goes_on_where_reading_has_stopped() -> None:
    segments = journal(3)
    made = Journal("run", UID, TOKEN)
    made.read(segments)
    segments += made.append([entry(4)])[0]
    assert [row.n for row in read(segments)] == [1, 2, 3, 4]


def test_bodies_that_are_not_to_be_kept_stay_in_the_store() -> None:
    made = Journal("run", UID, TOKEN)
    segments = driving(entry(1), entry(2, action=4))[1]
    made.read(segments, keep={0})
    assert made.take(0) == [entry(1)]
    assert made.take(4) is None
    assert again(segments, 4) == [entry(2, action=4)]


def test_an_outcome_ends_its_action_and_a_tombstone_opens_it_again() -> None:
    made = Journal("run", UID, TOKEN)
    failed, lost = entry(1, child=7, result=Result.ERROR), entry(2, child=8, result=Result.ERROR)
    assert made.append([failed, lost])[1] == (Ended(0, 7, True), Ended(0, 8, True))
    assert made.append([entry(3, result=Result.DISCARD, seq=1)])[1] == (Ended(0, 7, False),)
    later = Journal("run", UID, TOKEN)
    first = driving(failed, lost)[1]
    later.read(first)
    assert later.append([entry(3, result=Result.DISCARD, seq=2)])[1] == (Ended(0, 8, False),)
    assert later.append([entry(4, result=Result.DISCARD, seq=2)])[1] == ()


def test_a_source_is_noted_once() -> None:
    made = Journal("run", UID, TOKEN)
    assert made.append([entry(1, source=3)])[2] == (3,)
    assert made.append([entry(2, source=3)])[2] == ()
    assert sorted(made.append([entry(3, source=4), entry(4, source=5), entry(5, source=3)])[2]) == [4, 5]


def test_a_commit_that_is_too_large_for_a_row_becomes_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(format, "LARGE", 100)
    rows = [entry(n, value=bytes(60)) for n in range(1, 6)]
    segments, _, _ = Journal("run", UID, TOKEN).append(rows)
    assert [kept.number for kept in segments] == [1, 2, 3, 4, 5]
    assert read(list(segments)) == rows


def test_text_that_is_no_unicode_is_refused_and_the_chain_stays_where_it_was() -> None:
    chain = Chain("run", UID)
    with pytest.raises(UsageError, match="not valid Unicode"):
        chain.add([entry(1, name="\udc80")], mark_of(TOKEN))
    assert read([chain.add([entry(1)], mark_of(TOKEN))]) == [entry(1)]


def test_a_journal_moves_to_other_source_numbers() -> None:
    run = submitted(1, new_run("run")._replace(uid=UID), None, 5)
    moved = list(rewritten(run, journal(size=2), lambda number: number + 10))
    assert read(moved) == [replace(row, source=11) for row in read(journal(size=2))]
    assert [kept.number for kept in moved] == [kept.number for kept in journal(size=2)]

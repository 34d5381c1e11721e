"""Segments of any bytes, and journals of any entries: what is read is what was written, or a typed error.

Family: damage between the writer and the reader, and rows that no perdure has written. The readers are the chain of
segments, the replay, the tree of `perdure show`, the work that a recovering run copies, and the failures that a resume
tries again.
"""

from __future__ import annotations

import contextlib
from hashlib import blake2b
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fuzz.budget import bounded, damaged, examples, kept
from tests.fuzz.test_values import BYTES

from perdure.api.looking import ActionNode, _Grown
from perdure.core.ground.model import Action, Entry, Kind, NewRun, Result, Segment, Status
from perdure.core.journal.recovering import caught_failures, work_of
from perdure.core.journal.replay import Replay
from perdure.core.journal.segment import Chain, Journal, entries_of
from perdure.errors import JournalDamagedError, StoreVersionError
from perdure.store._rows import submitted

UID = b"u" * 16
TOKEN = b"t" * 16
SMALL = st.integers(0, 4)
BIG = st.integers(-(2**63), 2**63 - 1)
FPS = st.sampled_from([b"a" * 16, b"b" * 16])
NOTES = st.none() | st.binary(max_size=10)
ENTRIES = st.builds(
    Entry,
    action=SMALL, n=st.just(0), branch=st.integers(0, 1), seq=SMALL | BIG, occ=st.integers(0, 1),
    item=st.integers(0, 3), kind=st.sampled_from([int(kind) for kind in Kind]),
    result=st.sampled_from([int(result) for result in Result]), fp=FPS, name=st.sampled_from(["f", "w.child"]),
    label=st.none() | st.just("g"), value=st.none() | st.sampled_from([b"\xc0", b"\x01", b"\x91\x80"]) | BYTES,
    inputs=st.none() | BYTES, source=SMALL, child=st.none() | SMALL, after=st.none() | SMALL, at=SMALL, took=SMALL,
    begun=SMALL, notes=NOTES,
)  # fmt: skip


def numbered(entries: list[Entry]) -> list[Entry]:
    return [replace(entry, n=n) for n, entry in enumerate(entries, 1)]


JOURNALS = st.lists(ENTRIES, max_size=14).map(numbered)


def written(entries: list[Entry], sizes: list[int]) -> list[Segment]:
    journal = Journal("r", UID, TOKEN)
    segments: list[Segment] = []
    rest = entries
    for size in sizes:
        if rest:
            segments += journal.append(rest[:size])[0]
            rest = rest[size:]
    return segments + list(journal.append(rest)[0] if rest else ())


SEGMENTED = st.tuples(JOURNALS, st.lists(st.integers(1, 4), max_size=4))


@given(made=SEGMENTED)
@examples(200)
def test_what_is_written_is_read(made: tuple[list[Entry], list[int]]) -> None:
    assert list(entries_of("r", UID, written(*made))) == made[0]


@given(made=SEGMENTED, data=st.data())
@examples(400)
def test_a_changed_segment_is_damage(made: tuple[list[Entry], list[int]], data: st.DataObject) -> None:
    """SG1, SG2: after any change, nothing but a beginning of the entries is read."""
    entries, sizes = made
    segments = written(entries, sizes)
    if not segments:
        return
    place = data.draw(st.integers(0, len(segments) - 1))
    other = data.draw(damaged(st.just(segments[place].data)))
    number = data.draw(st.just(segments[place].number) | BIG)
    moved = [*segments[:place], Segment(number, other), *segments[place + 1 :]]
    order = data.draw(st.just(moved) | st.permutations(moved))
    found: list[Entry] = []
    said = "run 'r'"
    chain = Chain("r", UID)
    with bounded():
        try:
            for segment in order:
                found += chain.read((segment,))
        except (JournalDamagedError, StoreVersionError) as error:
            said = str(error)
    assert said.startswith("run 'r'")
    assert found == entries[: len(found)]


@kept("segments")
@given(data=st.one_of(BYTES, damaged(JOURNALS.map(msgspec.msgpack.encode))))
@examples(300)
def test_any_bytes_under_a_right_checksum_are_entries_or_damage(data: bytes) -> None:
    """The checksum proves that a segment follows another, not who has written it."""
    first = blake2b(UID, digest_size=8).digest()
    tail = TOKEN[:4] + data
    segment = b"\x01" + blake2b(first + tail, digest_size=8).digest() + tail
    with bounded():
        for number in (1, 2):
            with contextlib.suppress(JournalDamagedError):
                Chain("r", UID).read((Segment(number, segment),))


@given(pages=st.lists(st.tuples(BIG, BYTES), max_size=4))
@examples(200)
def test_any_segments_are_damage(pages: list[tuple[int, bytes]]) -> None:
    with bounded():
        try:
            Journal("r", UID, TOKEN).read([Segment(number, b"\x01" + data) for number, data in pages])
        except (JournalDamagedError, StoreVersionError):
            return
    assert not pages


def _never(_: int) -> bool:
    return False


@given(journal=JOURNALS, data=st.data())
@examples(400)
def test_any_journal_can_be_replayed(journal: list[Entry], data: st.DataObject) -> None:
    """R1: every outcome is handed out at most once, and the end is reached."""
    with bounded():
        bodies: dict[int, list[Entry]] = {}
        for entry in journal:
            bodies.setdefault(entry.action, []).append(entry)
        for rows in bodies.values():
            replay = Replay(rows, _never)
            asked: list[Entry] = []
            for entry in data.draw(st.permutations(rows)):
                found = replay.ask(entry.branch, entry.seq, entry.fp, entry.occ, entry.item).entry
                if found is not None:
                    asked.append(found)
            for _ in range(3 * len(rows) + 3):
                head = replay.head()
                if head is None:
                    break
                if isinstance(head, Entry):
                    replay.consume(head)
                else:
                    replay.consume_event(head)
            assert replay.drained
            replay.loosen()


def action(number: int, parent: int, entry: Entry) -> Action:
    return Action(
        1, parent, number, entry.branch, entry.seq, entry.occ, entry.kind, entry.fp, entry.name, None, entry.inputs,
        1, 0, 1, 0, None, None, None,
    )  # fmt: skip


ACTIONS = st.lists(st.tuples(st.integers(1, 4), SMALL, ENTRIES), max_size=5, unique_by=lambda each: each[0])


@given(journal=JOURNALS, actions=ACTIONS, status=st.sampled_from([Status.RUNNING, Status.FAILED, Status.SUCCEEDED]))
@examples(400)
def test_any_journal_can_be_shown_and_recovered(
    journal: list[Entry], actions: list[tuple[int, int, Entry]], status: Status
) -> None:
    run = submitted(1, NewRun(UID, "x", "t", "f::m::q", b"\x80", b"", 0), None, 0)
    started = [action(*each) for each in actions]
    with bounded():
        grown = _Grown(run, status, started, 0)
        grown.read(journal)
        grown.arrange()
        nodes: dict[int, ActionNode] = {}
        for position in range(len(grown.flat)):
            grown.node(position, nodes)
        entries, copied = work_of(journal, started, run)
        assert [entry.n for entry in entries] == list(range(1, len(entries) + 1))
        assert len({each.action for each in copied}) == len(copied)
        bodies: dict[int, list[Entry]] = {}
        for entry in journal:
            bodies.setdefault(entry.action, []).append(entry)
        failures: list[Any] = caught_failures(
            lambda body: bodies.get(body, []), lambda body: [each for each in started if each.parent == body]
        )
        assert all(failure.entry.result == Result.ERROR for failure in failures)

"""Random journals of several runs, claims and versions, and damage of every kind to their segments.

The damage is made of whole segments: dropped, repeated, swapped, taken from another run or from another place, stored
under another number, of another version, and sealed again with a gap inside. What is read is a beginning of what was
written, and an error tells of the rest. Two claims never write equal bytes. The ends of actions follow from the rows.
"""

from __future__ import annotations

import random

from msgspec.structs import replace

from perdure.core.ground.model import Ended, Entry, Result, Segment
from perdure.core.journal.segment import Chain, Journal, entries_of, mark_of
from perdure.errors import JournalDamagedError, StoreVersionError

from . import Violation
from .replays import row

UIDS = (b"u" * 16, b"v" * 16)


def history(seed: int) -> None:
    """One journal, damaged once; one claim beside another; the ends of the actions of one journal.

    Raises:
        Violation: SG1 to SG4 or P6 is not kept.
    """
    dice = random.Random(seed)
    entries = [row(n, 0, n - 1, "a", 0, Result.VALUE, value=dice.randbytes(2)) for n in range(1, dice.randrange(2, 9))]
    sizes = [dice.randrange(1, 4) for _ in entries]
    written = sealed(UIDS[0], entries, sizes, dice.randbytes(16))
    _check_read(entries, written)
    _check_damage(dice, entries, written, sizes)
    _check_claims(dice, entries, sizes)
    _check_ends(dice)


def sealed(uid: bytes, entries: list[Entry], sizes: list[int], token: bytes) -> list[Segment]:
    """The segments of a run, of the given sizes."""
    chain, segments, left = Chain("run", uid), [], list(entries)
    for size in sizes:
        if left:
            segments.append(chain.add(left[:size], mark_of(token)))
            del left[:size]
    return segments


def read(uid: bytes, segments: list[Segment]) -> tuple[list[Entry], Exception | None]:
    """The entries up to the first damage, and the error."""
    found: list[Entry] = []
    try:
        found.extend(entries_of("run", uid, segments))
    except (JournalDamagedError, StoreVersionError) as error:
        return found, error
    return found, None


def _check_read(entries: list[Entry], segments: list[Segment]) -> None:
    if read(UIDS[0], segments) != (entries, None):
        raise Violation("SG1 a journal is not read as it was written")


def _check_damage(dice: random.Random, entries: list[Entry], segments: list[Segment], sizes: list[int]) -> None:
    place = dice.randrange(len(segments))
    broken, kind = list(segments), dice.choice(("drop", "swap", "foreign", "number", "version", "gap", "byte"))
    chosen = segments[place]
    if kind == "drop" and place < len(segments) - 1:
        del broken[place]
    elif kind == "swap" and place:
        broken[place - 1], broken[place] = chosen, segments[place - 1]
    elif kind == "foreign":
        # Of a run with the same rows, also from its beginning on.
        other = sealed(UIDS[1], entries, sizes, dice.randbytes(16))
        broken = other if dice.random() < 0.5 else [*broken[:place], other[place], *broken[place + 1 :]]
    elif kind == "number":
        broken[place] = Segment(chosen.number + dice.choice((-1, 1)), chosen.data)
    elif kind == "version":
        version = dice.choice([each for each in range(256) if each != chosen.data[0]])
        broken[place] = Segment(chosen.number, bytes((version,)) + chosen.data[1:])
    elif kind == "gap":
        _check_gap(dice, entries)
        return
    else:
        at = dice.randrange(len(chosen.data))
        data = bytearray(chosen.data)
        data[at] ^= 1 << dice.randrange(8)
        broken[place] = Segment(chosen.number, bytes(data))
        kind = "byte"
    found, error = read(UIDS[0], broken)
    if error is None or found != entries[: len(found)]:
        name = {"version": "SG3", "number": "SG2"}.get(kind, "SG1")
        raise Violation(f"{name} {kind} at segment {place} of {len(segments)} is read: {error}")
    if kind == "version" and broken[place].data[0] > 1 and not isinstance(error, StoreVersionError):
        raise Violation(f"SG3 a segment of version {broken[place].data[0]} is called {error}")


def _check_gap(dice: random.Random, entries: list[Entry]) -> None:
    """Entries whose numbers do not follow each other, under a right checksum."""
    chain = Chain("run", UIDS[0])
    moved = list(entries)
    at = dice.randrange(len(moved))
    moved[at] = replace(moved[at], n=moved[at].n + dice.choice((-1, 1, 5)))
    count = len(moved)
    segment = Segment(count, chain.add(moved, mark_of(b"t" * 16)).data)
    _, error = read(UIDS[0], [segment])
    if error is None:
        raise Violation(f"SG2 entries {[each.n for each in moved]} are read")


def _check_claims(dice: random.Random, entries: list[Entry], sizes: list[int]) -> None:
    first, second = (sealed(UIDS[0], entries, sizes, dice.randbytes(16)) for _ in range(2))
    if any(one.data == other.data for one, other in zip(first, second, strict=True)):
        raise Violation("SG4 two claims have written the same bytes")


def _check_ends(dice: random.Random) -> None:
    """Outcomes of children and tombstones in any order, in segments of any size: which actions have ended."""
    journal = Journal("run", UIDS[0], b"t" * 16)
    ended: dict[int, bool] = {}
    children: dict[int, int] = {}
    """By entry number of an outcome, the action."""
    batch: list[Entry] = []
    said: dict[int, bool] = {}
    for n in range(1, dice.randrange(2, 9)):
        alive = [number for number in children if ended[children[number]]]
        if alive and dice.random() < 0.4:
            gone = dice.choice(alive)
            batch.append(row(n, 0, gone, "", 0, Result.DISCARD))
            ended[children[gone]] = False
        else:
            children[n] = 100 + n
            batch.append(row(n, 0, n, "child", 0, Result.ERROR, child=100 + n))
            ended[100 + n] = True
        if dice.random() < 0.5:
            _append(journal, batch, said)
            batch = []
    if batch:
        _append(journal, batch, said)
    if said != ended:
        raise Violation(f"P6 ended actions are {ended}, the store is told {said}")


def _append(journal: Journal, batch: list[Entry], said: dict[int, bool]) -> None:
    _, ends, _ = journal.append(tuple(batch))
    for end in ends:
        assert isinstance(end, Ended)
        said[end.action] = end.ended

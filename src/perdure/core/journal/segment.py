"""The format of the journal: no other module writes or reads segments.

A run's journal is a sequence of segments. Every commit of the run adds a segment with the entries of the commit. The
bytes of a segment are, in this order:

| bytes | content |
| --- | --- |
| 1 | version of the format, 1 |
| 8 | checksum: BLAKE2b, 8 bytes long, over the checksum of the segment before and all bytes after the checksum |
| 4 | mark of the claim: the first bytes of the token under which the segment was written |
| rest | the entries: a MessagePack array; each entry is an array of fields in the order of `Entry` |

Invariants:
- SG1 the checksums form a chain, beginning with a checksum of the run's `uid`: a changed, removed, moved or copied
  segment breaks the chain at its place. Removal of the last segments breaks no chain; the run's `mark`, the length at
  the last claim, park or end, shows the removal.
- SG2 entry numbers have no gaps (W1), and a segment is stored under the number of the last entry.
- SG3 a segment of an unknown version is never read. The error says so, and no other run is affected.
- SG4 the mark of the claim makes the segments of two claims differ even where the entries are equal. So a driver
  without an answer to a commit can tell from the stored bytes whether the commit was done.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import islice
from typing import Final

from msgspec.msgpack import Decoder, Encoder
from msgspec.structs import replace

from ...errors import JournalDamagedError, StoreVersionError, UsageError
from ..ground.model import Ended, Entry, Result, RunRow, Segment
from ..ground.ports import Store

VERSION: Final = 1
LARGE: Final = 64 << 20
"""Bytes from which on a commit's entries are spread over several segments: a database has a limit for each value."""
PAGE: Final = 2_000
"""Segments that are decoded at once."""

_VERSION: Final = bytes((VERSION,))
_CHECKSUM: Final = 8
_MARK: Final = 4
_TAIL: Final = 1 + _CHECKSUM
"""Where the bytes under the checksum begin."""
_DIGEST: Final = blake2b(digest_size=_CHECKSUM)
"""The empty digest. A copy takes a quarter of the time of a new object with that option."""
_encode: Final = Encoder().encode
_decode: Final = Decoder(list[Entry]).decode
_LOOSEN: Final = int(Result.LOOSEN)


class Chain:
    """A place in a run's sequence of segments: the checksum and the entry number up to which it was read or written."""

    __slots__ = ("_checksum", "n", "name")

    def __init__(self, name: str, uid: bytes) -> None:
        """The beginning of a run's journal."""
        self.name: Final = name
        self.n = 0
        """Number of the last entry so far."""
        self._checksum = blake2b(uid, digest_size=_CHECKSUM).digest()

    def add(self, entries: Sequence[Entry], mark: bytes) -> Segment:
        """The next segment, written under the claim with the mark `mark` (`mark_of`).

        Raises:
            UsageError: an entry holds text that is not valid Unicode.
        """
        try:
            tail = mark + _encode(entries)
        except UnicodeEncodeError as error:
            raise UsageError(f"text that is not valid Unicode cannot be stored: {error.object!r}") from error
        digest = _DIGEST.copy()
        digest.update(self._checksum + tail)
        self._checksum = checksum = digest.digest()
        self.n = number = entries[-1].n
        return Segment(number, _VERSION + checksum + tail)

    def read(self, page: Sequence[Segment]) -> list[Entry]:
        """The entries of the next segments.

        Raises:
            JournalDamagedError: a segment does not follow the segment before (SG1, SG2).
            StoreVersionError: a newer perdure has written a segment (SG3).
        """
        if not page:
            return []
        # All entries are decoded as one array, because a call of the decoder takes longer than a small segment.
        first = self.n
        parts = [b""]
        for segment in page:
            number, data = segment.number, segment.data
            if data[:1] != _VERSION:
                raise self._unreadable(data)
            tail = data[_TAIL:]
            digest = _DIGEST.copy()
            digest.update(self._checksum + tail)
            checksum = digest.digest()
            count, head = _array(tail)
            if checksum != data[1:_TAIL] or number != self.n + count:
                raise self._damaged(number)
            self._checksum, self.n = checksum, number
            parts.append(tail[head:])
        parts[0] = b"\xdd" + (self.n - first).to_bytes(4, "big")
        try:
            entries = _decode(b"".join(parts))
        except (ValueError, RecursionError) as error:
            self.n = first
            raise self._damaged(page[-1].number) from error
        if [entry.n for entry in entries] != list(range(first + 1, self.n + 1)):
            self.n = first
            raise self._damaged(page[-1].number)
        return entries

    def _unreadable(self, data: bytes) -> JournalDamagedError | StoreVersionError:
        if not data or data[0] == 0:
            return self._damaged(self.n + 1)
        return StoreVersionError(
            f"run {self.name!r}: entry {self.n + 1} of its journal is written in format {data[0]}, and this perdure "
            f"reads format {VERSION}: upgrade perdure to the version that wrote it"
        )

    def _damaged(self, number: int) -> JournalDamagedError:
        where = f"at entry {self.n + 1}" if number <= self.n + 1 else f"between entries {self.n + 1} and {number}"
        return JournalDamagedError(
            f"run {self.name!r}: its journal is damaged {where}: what is stored there does not follow what comes "
            "before. Restore the store from a backup, or give the run up: perdure abort " + self.name
        )


def mark_of(token: bytes) -> bytes:
    """The mark of a claim in segments (SG4)."""
    return token[:_MARK].ljust(_MARK, b"\0")


def _array(tail: bytes) -> tuple[int, int]:
    """How many entries a segment holds, and where the first entry begins within `tail`."""
    head = tail[_MARK] if len(tail) > _MARK else 0
    if 0x90 <= head <= 0x9F:
        return head & 0x0F, _MARK + 1
    size = {0xDC: 2, 0xDD: 4}.get(head, 0)
    return int.from_bytes(tail[_MARK + 1 : _MARK + 1 + size], "big"), _MARK + 1 + size


def entries_of(name: str, uid: bytes, segments: Iterable[Segment]) -> Iterator[Entry]:
    """All entries of a journal in commit order, verified page by page.

    Raises:
        JournalDamagedError, StoreVersionError: as `Chain.read`.
    """
    chain = Chain(name, uid)
    for page in _pages(segments):
        yield from chain.read(page)


def journal_of(store: Store, run: RunRow) -> Iterator[Entry]:
    """All entries of a stored run in commit order, verified.

    Raises:
        JournalDamagedError, StoreVersionError: as `Chain.read`.
    """
    return entries_of(run.name, run.uid, store.segments(run.id))


def rewritten(run: RunRow, segments: Iterable[Segment], source: Callable[[int], int]) -> Iterator[Segment]:
    """The same journal with other numbers of source snapshots, for another store.

    Raises:
        JournalDamagedError, StoreVersionError: as `Chain.read`.
    """
    old, new = Chain(run.name, run.uid), Chain(run.name, run.uid)
    for segment in segments:
        entries = [replace(entry, source=source(entry.source)) for entry in old.read((segment,))]
        yield new.add(entries, segment.data[_TAIL : _TAIL + _MARK])


def _pages(segments: Iterable[Segment]) -> Iterator[list[Segment]]:
    rest = iter(segments)
    while page := list(islice(rest, PAGE)):
        yield page


class Journal:
    """A run's journal for the driver of the run: what was recorded before, by body, and the next segments.

    `read` belongs to the driver's loop and comes first. `append` belongs to the writer's leader. `take` and `places`
    may be called from any thread.
    """

    __slots__ = ("_bodies", "_chain", "_ended", "_mark", "_places", "_sources")

    def __init__(self, name: str, uid: bytes, token: bytes) -> None:
        self._chain = Chain(name, uid)
        self._mark = mark_of(token)
        self._bodies: dict[int, list[Entry]] = {}
        """By action: entries from before the drive that no body has taken yet."""
        self._places: dict[int, array[int]] = {}
        """By action: numbers of the segments with entries of the action, for a body that is entered again."""
        self._ended: dict[int, tuple[int, int]] = {}
        """By entry number of a failure: parent and number of the failed action."""
        self._sources: set[int] = set()
        """Source snapshots that the store has noted for the run."""

    def read(self, segments: Iterable[Segment], keep: Collection[int] | None = None) -> int:
        """Take in the whole journal; the number of its last entry.

        Args:
            keep: the actions with entries to keep in memory; all by default. Entries of another action are read again
                if the body is entered after all.

        Raises:
            JournalDamagedError, StoreVersionError: as `Chain.read`.
        """
        for page in _pages(segments):
            entries = iter(self._chain.read(page))
            for segment in page:
                number = segment.number
                for entry in entries:
                    action = entry.action
                    self._place(action, number)
                    if keep is None or action in keep:
                        self._bodies.setdefault(action, []).append(entry)
                    if entry.child is not None and entry.result == Result.ERROR:
                        self._ended[entry.n] = (action, entry.child)
                    if entry.n == number:
                        break
        return self._chain.n

    def take(self, action: int) -> list[Entry] | None:
        """The entries of a body from before the drive. `None` if the store alone has all entries: see `places`."""
        entries = self._bodies.pop(action, None)
        return [] if entries is None and action not in self._places else entries

    def places(self, action: int) -> list[int]:
        """The numbers of the segments with entries of the body."""
        places = self._places.get(action)
        return [] if places is None else places.tolist()

    def append_plain(self, entry: Entry) -> Segment | None:
        """The next segment, of a plain outcome alone, which the caller stores; `None`, and nothing is done, if anything
        but the segment would have to be stored, or is not known yet: then see `append`."""
        places = self._places.get(entry.action)
        if (
            places is None or entry.child is not None or entry.result >= _LOOSEN
            or entry.source not in self._sources or self._bodies
        ):  # fmt: skip
            return None
        segment = self._chain.add((entry,), self._mark)
        places.append(segment.number)
        return segment

    def append(self, entries: Sequence[Entry]) -> tuple[tuple[Segment, ...], tuple[Ended, ...], tuple[int, ...]]:
        """The next segments, the actions that end or open again with the entries, and the source snapshots that are new
        for the run. The caller stores all in one transaction."""
        ends: list[Ended] = []
        for entry in entries:
            if entry.child is not None:
                ends.append(Ended(entry.action, entry.child, True))
                if entry.result == Result.ERROR:
                    self._ended[entry.n] = (entry.action, entry.child)
            elif entry.result == Result.DISCARD and (again := self._ended.pop(entry.seq, None)) is not None:
                ends.append(Ended(*again, False))
        sources = {entry.source for entry in entries}.difference(self._sources)
        self._sources |= sources
        return tuple(self._split(entries)), tuple(ends), tuple(sources)

    def _split(self, entries: Sequence[Entry]) -> Iterator[Segment]:
        if len(entries) > 1 and sum(len(entry.value or b"") + len(entry.inputs or b"") for entry in entries) > LARGE:
            half = len(entries) // 2
            yield from self._split(entries[:half])
            yield from self._split(entries[half:])
        elif entries:
            yield self._add(entries)

    def _add(self, entries: Sequence[Entry]) -> Segment:
        segment = self._chain.add(entries, self._mark)
        for entry in entries:
            self._place(entry.action, segment.number)
            if self._bodies:
                # The entries in memory are no longer all entries of the body.
                self._bodies.pop(entry.action, None)
        return segment

    def _place(self, action: int, number: int) -> None:
        places = self._places.get(action)
        if places is None:
            self._places[action] = array("q", (number,))
        elif places[-1] != number:
            places.append(number)


def again(segments: Iterable[Segment], action: int | None) -> list[Entry]:
    """The entries of one body in segments that the process has read or written before. The chain is not verified a
    second time."""
    found = (entry for segment in segments for entry in _decode(segment.data[_TAIL + _MARK :]))
    return [entry for entry in found if action is None or entry.action == action]

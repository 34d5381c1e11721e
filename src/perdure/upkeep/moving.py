"""Moving of runs to another store: from a file on a laptop to a database on a server, or back.

No run may be driven in two stores, and no run may get lost, even if the move is killed at any moment:

- M1 a run is released at the source, on disk, before the target has any of the run. So at no moment can both stores
  drive the run.
- M2 releasing removes nothing. So a killed move is repeated from the same rows.
- M3 a run is known by its `uid`, the source notes the store that has the run, and the target keeps in mind which runs
  have come. So a run that the target has, or had before removing the run there, is not stored a second time.
- M4 files go before the rows that refer to the files.
- M5 a run with a driver, or left by its driver, stays. Deadlines keep their remaining time, independent of the clocks
  of the two stores.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

from .. import runtime
from ..core.ground.clock import US, Clock, Deadline
from ..core.ground.model import UNDRIVEN, Action, Ended, RunRow, Segment, Status, Wake, WholeRun
from ..core.ground.ports import Blobs, Store
from ..core.journal.segment import entries_of, rewritten
from ..core.run.attached import deadline_of
from ..errors import JournalDamagedError, StoreError, StoreUnavailableError, StoreVersionError, UsageError
from .collecting import FOREVER, reachable

RUNS: Final = 50
"""Runs per transaction."""
ROWS: Final = 20_000
"""Journal rows before an early commit."""
PAGE: Final = 1_000


@dataclass(slots=True)
class Moved:
    """The moved runs; with `dry_run`, the runs to be moved."""

    runs: int = 0
    """Runs in the target now, by this move and by earlier tries."""
    waiting: int = 0
    """The unfinished of these runs: queued or asleep."""
    files: int = 0
    size: int = 0
    """Bytes of the files that were new to the target."""
    schedules: int = 0
    staying: dict[str, str] = field(default_factory=dict)
    """Runs that stay at the source, by name, and why."""


def move(
    source_url: str,
    target_url: str,
    *,
    source_blobs: str | None = None,
    target_blobs: str | None = None,
    dry_run: bool = False,
    tell: Callable[[int, int], None] | None = None,
) -> Moved:
    """Move the finished, queued and sleeping runs of one store into another, with the files that the runs refer to.

    At the source the runs are MOVED from then on, and their names lead to the target. May be killed at any moment, and
    called again. Cached outcomes and the logs of containers stay behind.

    Args:
        source_url: the store to leave.
        target_url: the store to go to; made if missing.
        source_blobs: the place of the source's files; by default from the settings of the process or from the store.
        target_blobs: the same for the target.
        dry_run: only count.
        tell: called now and then with the number of runs looked at, and of all runs.

    Raises:
        UsageError: there is no such source, or both are the same store.
        StoreError: a store or its files cannot be used. The runs moved until then are whole.
    """
    if not runtime.exists(source_url):
        raise UsageError(f"there is no store {runtime.store_name(source_url)}")
    if dry_run:
        with runtime.opened(source_url, create=False) as (source, _):
            return _count(source)
    with (
        runtime.opened(source_url, source_blobs, create=False) as (source, files),
        runtime.opened(target_url, target_blobs) as (target, target_files),
    ):
        if source.id == target.id:
            raise UsageError(f"{source.url} and {target.url} are the same store")
        return _Move(source, files, target, target_files).all(tell)


def _count(source: Store) -> Moved:
    found = Moved()
    for row in _rows(source):
        if row.status is Status.RUNNING:
            found.staying[row.name] = "it is being driven, or was interrupted"
        elif row.status is not Status.MOVED:
            found.runs += 1
            found.waiting += row.status in UNDRIVEN
    found.schedules = len(source.schedules())
    return found


def _rows(store: Store) -> Iterator[RunRow]:
    """All runs, newest first."""
    below: int | None = None
    while page := store.runs(limit=PAGE, below=below):
        yield from page
        below = page[-1].id


class _Move:
    """One move, see the module text."""

    def __init__(self, source: Store, source_files: Blobs, target: Store, target_files: Blobs) -> None:
        self.source = source
        self.source_files = source_files
        self.target = target
        self.target_files = target_files
        self.done = Moved()
        self._source_ids: dict[int, int] = {}
        same = source_files.url == target_files.url
        self._sizes = {} if same else dict(source_files.older(FOREVER))
        self._there: set[str] = {hash for hash, _ in target_files.older(FOREVER)} if self._sizes else set()
        """Files of the target from before; only counted by, since `gc` of the target may remove files without a
        reference."""
        self._put: set[str] = set()

    def all(self, tell: Callable[[int, int], None] | None) -> Moved:
        # Schedules first: otherwise the target would take the schedules in the code of moved runs for new schedules.
        for row in self.source.schedules():
            self.done.schedules += self.target.adopt_schedule(row)
        # Oldest first, so that the target lists the runs in the same order.
        numbers = [row.id for row in _rows(self.source)][::-1]
        for first in range(0, len(numbers), RUNS):
            self._some(numbers[first : first + RUNS])
            if tell is not None:
                tell(min(first + RUNS, len(numbers)), len(numbers))
        return self.done

    def _some(self, numbers: list[int]) -> None:
        wanted = [number for number in numbers if self._may_go(number)]
        batch: list[WholeRun] = []
        rows = 0
        for row in self.source.move(wanted, self.target.url):
            if row is None:
                continue  # claimed or removed just now
            try:
                whole = self._whole(row)
            except (JournalDamagedError, StoreVersionError) as error:
                self.source.take_back(row.id)
                self.done.staying[row.name] = str(error)
                continue
            batch.append(whole)
            rows += len(whole.segments) + len(whole.actions)
            if rows > ROWS:
                self._adopt(batch)
                batch, rows = [], 0
        self._adopt(batch)

    def _may_go(self, number: int) -> bool:
        row = self.source.run_by_id(number)
        if row is None:
            return False
        if row.status is Status.RUNNING:
            self.done.staying[row.name] = "it is being driven, or was interrupted"
            return False
        if row.status is Status.MOVED and row.token == self.target.id.encode():
            self.done.runs += 1  # by an earlier try
            return False
        if row.status is Status.MOVED and (row.worker != self.target.url or row.token is not None):
            other = "" if row.worker != self.target.url else ", where another store is now"
            self.done.staying[row.name] = f"it was moved to {row.worker}{other}"
            return False
        there = self.target.run(row.name)
        if there is None:
            return True
        if there.uid != row.uid:
            self.done.staying[row.name] = f"{self.target.url} has another run of that name"
            return False
        if row.status is Status.MOVED and there.status is not Status.MOVED:
            self.source.arrived([row.id], self.target.id)
            self.done.runs += 1  # by an earlier try
            return False
        return True

    def _adopt(self, batch: list[WholeRun]) -> None:
        arrived = []
        for whole, created in zip(batch, self.target.adopt(batch) if batch else (), strict=True):
            row = whole.run
            if created.run.uid != row.uid:
                # Another process took the name just now. The target has nothing of the run, so the run may go on here.
                self.source.take_back(row.id)
                self.done.staying[row.name] = f"{self.target.url} has another run of that name"
                continue
            arrived.append(row.id)
            self.done.runs += 1
            self.done.waiting += row.status in UNDRIVEN
        if arrived:
            self.source.arrived(arrived, self.target.id)

    # -- one run -----------------------------------------------------------------------------------------------

    def _whole(self, row: RunRow) -> WholeRun:
        sources: set[int] = set()
        segments = list(rewritten(row, self.source.segments(row.id), lambda number: self._noted(number, sources)))
        actions = [self._action(action) for action in self.source.actions(row.id)]
        messages = list(self.source.all_messages(row.id))
        published = self.source.published(row.id)
        streamed = list(self.source.all_streamed(row.id))
        texts = [*(message.value for message in messages), *(one.value for one in published)]
        texts += [one.value for one in streamed if one.value is not None]
        self._copy_files(row, segments, actions, texts)
        open_ones = {action.action for action in self.source.open_actions(row.id)}
        ended = [Ended(one.parent, one.action, True) for one in actions if one.action not in open_ones]
        if row.status not in UNDRIVEN:
            return WholeRun(row, segments, actions, None, ended, sources, messages, published, streamed)
        assert row.wake_at is not None
        left = row.wake_at - self.source.clock.wall()
        for place, action in enumerate(actions):
            deadline = deadline_of(action)
            if deadline is not None and action.action in open_ones:
                remaining = deadline.remaining(self.source.clock)
                # The wall clock may have been set since; a run that wakes too early is only parked again.
                left = min(left, remaining)
                moved = _after(remaining, self.target.clock)
                actions[place] = action._replace(wake_at=moved.wall, wake_boot=moved.boot, boot=moved.boot_id)
        due = _after(left, self.target.clock)
        assert due.boot is not None
        return WholeRun(row, segments, actions, Wake(due.wall, due.boot), ended, sources, messages, published, streamed)

    def _noted(self, number: int, sources: set[int]) -> int:
        known = self._code(number)
        sources.add(known)
        return known

    def _action(self, action: Action) -> Action:
        return action._replace(source=self._code(action.source))

    def _code(self, number: int) -> int:
        """The number of the source snapshot in the target."""
        known = self._source_ids.get(number)
        if known is None:
            snapshot = self.source.source(number)
            if snapshot is None:
                raise StoreError(f"{self.source.url} has lost the source snapshot {number}: restore it from a backup")
            known = self._source_ids[number] = self.target.source_id(snapshot)
        return known

    # -- files -------------------------------------------------------------------------------------------------

    def _copy_files(self, row: RunRow, segments: list[Segment], actions: list[Action], more: list[bytes]) -> None:
        if not self._sizes:
            return
        values = [row.inputs, row.value, *(part.data for part in segments), *more]
        for action in actions:
            values += (action.inputs, action.state)
        wanted = reachable(self.source_files, self._sizes, filter(None, values))
        for hash in sorted(wanted - self._put):
            size = self._sizes[hash]
            self._copy_file(hash, size)
            self._put.add(hash)
            if hash not in self._there:
                self.done.files += 1
                self.done.size += size

    def _copy_file(self, hash: str, size: int) -> None:
        try:
            with tempfile.TemporaryDirectory(prefix="perdure-move-") as folder:
                path = os.path.join(folder, "content")
                self.source_files.copy(hash, size, path)
                self.target_files.put([path])
        except OSError as error:
            raise StoreUnavailableError(
                f"file {hash} cannot pass through a directory for temporary files: {error.strerror}; free some space, "
                "or name another directory with TMPDIR, then call this again"
            ) from error


def _after(left: int, clock: Clock) -> Deadline:
    return Deadline.after(left / US, clock)


# -- looking at a store ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Look:
    """A description of a store."""

    url: str
    id: str
    facts: dict[str, str]
    counts: dict[Status, int]
    """Runs by stored status."""
    problems: list[str]


def checked(url: str) -> Look:
    """Look at a store as a whole. Makes no store.

    Raises:
        UsageError: there is no store.
        StoreError: the store cannot be opened.
    """
    if not runtime.exists(url):
        raise UsageError(f"there is no store {runtime.store_name(url)}; `perdure store migrate` makes one")
    with runtime.opened(url, create=False) as (store, files):
        facts, problems = store.check()
        for row in _rows(store):
            problems += _damage(store, row)
        return Look(store.url, store.id, {**facts, "files": files.url}, store.counts(), problems)


def _damage(store: Store, row: RunRow) -> list[str]:
    """Damage in the journal of a run."""
    length = 0
    try:
        for entry in entries_of(row.name, row.uid, store.segments(row.id)):
            length = entry.n
    except StoreError as error:
        return [str(error)]
    if length < row.mark:
        return [
            f"run {row.name!r}: its journal ends with entry {length} and had {row.mark} entries before: restore the "
            f"store from a backup, or give the run up: perdure abort {row.name}"
        ]
    return []


def migrated(url: str) -> tuple[str, str]:
    """Make a store or bring a store up to date; the URL of the store, and the version of its schema.

    Raises:
        StoreError: the store cannot be opened, or is of a newer perdure.
    """
    with runtime.opened(url) as (store, _):
        return store.url, store.check().facts.get("schema", "1")

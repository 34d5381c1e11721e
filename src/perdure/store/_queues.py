"""Queues with limits: which waiting runs leave a queue now. The same steps in every store.

- FC1 a run holds a slot of its queue exactly while the run has a claim with a fencing token. No counter is kept: the
  slots in use are the claimed runs of the queue, so the end of a claim, by a crash too, frees the slot.
- FC2 the runs of a queue are claimed under the lock of the queue's row, by a transaction that counts the claims
  first.
- FC3 a start is recorded in the store, on the store's clock, by the transaction that claims a run for the first time.
  No window of the rate's length holds more starts than the rate.
- FC4 a waiting run is a row, and costs no memory of a worker. The next run is found by indexes, however many runs wait.
- FC5 a run leaves the queue at the next look of a worker as soon as a slot is free: no full key, no other task, and no
  cancelled run stands in front.

A *lane* holds the waiting runs of one queue, task, key and level, in the order in which they were due. The level is the
priority, or `BEGUN` for runs that have begun before and were parked. The lane's row has a *turn*; the lane with the
lowest turn comes first. The turn follows from the first run of the lane; where keys take turns (`fair`), the lane that
gave a run moves behind all others. A lane's turn may be too early, after a cancellation, and is never too late.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

import msgspec

from perdure.core.ground.model import QueueRow, QueueSettings, RunRow, Status

BEGUN: Final = 1 << 20
"""The level of runs that have begun before: they leave the queue before runs that have not."""
FAR: Final = 1 << 61
"""The wake time, since boot, of a run in a lane: the run is not found among the due runs again."""
ENTERING: Final = 1000
"""How many due runs go into their lanes in one transaction."""
_FIRST: Final = -(1 << 61)
_FIRST_PAGE: Final = 4
"""Most claims need the first lanes only."""
_PAGE: Final = 64

Row = tuple[Any, ...]
Execute = Callable[[str, Sequence[Any]], list[Row]]
"""Executes the named statement of a dialect, and gives the rows."""


class Lane(NamedTuple):
    """See the module text."""

    turn: int
    level: int
    key: str
    task: str


class Entering(NamedTuple):
    """A due run, as far as its lane depends on it."""

    id: int
    task: str
    key: str
    priority: int
    wake_at: int
    begun: bool


class Holder(NamedTuple):
    """A run that holds a slot."""

    key: str
    worker: str


class LaneHead(NamedTuple):
    """A waiting run at the beginning of a lane."""

    run: int
    wake_at: int


class Window(NamedTuple):
    """The starts of a queue since a time, on the store's clock."""

    total: int
    first: int
    """The time of the first."""


class QueueRows(Protocol):
    """The rows of one queue, in a transaction that holds the lock of the queue's row, or for a look."""

    def held(self) -> list[Holder]:
        """The runs that hold a slot."""

    def lanes(self, task: str) -> Iterator[Lane]:
        """The lanes of a task in order of turn."""

    def heads(self, lane: Lane, count: int) -> list[LaneHead]:
        """The first runs of a lane."""

    def set_turn(self, lane: Lane, turn: int) -> None:
        """Change the turn of a lane."""

    def drop(self, lane: Lane) -> None:
        """Remove a lane, if no run waits there."""

    def starts(self, since: int) -> Window:
        """The starts at that time and later."""

    def enter(self, runs: Sequence[tuple[int, Lane]]) -> None:
        """Put due runs into lanes. A lane that is there keeps its turn; a new lane has the turn of its first run."""

    def record(self, count: int, since: int) -> None:
        """Record starts at this moment, and remove the starts before `since`."""


def settings_of(row: QueueRow) -> QueueSettings:
    """The settings in force: those of the code, and an operator's in their place."""
    values = msgspec.json.decode(row.declared)
    if row.override is not None:
        values |= msgspec.json.decode(row.override)
    return msgspec.convert(values, QueueSettings)


def entering(run: RunRow) -> Entering:
    """A due run of a queue."""
    assert run.wake_at is not None
    return Entering(run.id, run.task, run.key, run.priority, run.wake_at, run.status is not Status.QUEUED)


def level_of(settings: QueueSettings, run: Entering) -> int:
    """The level of a run that enters the queue."""
    if run.begun:
        return BEGUN
    return run.priority if settings.order == "priority" else 0


def turn_of(settings: QueueSettings, level: int, wake_at: int) -> int:
    """The turn of a lane by its first run. A priority counts as waiting for longer, so no run waits for ever."""
    if level == BEGUN:
        return _FIRST + wake_at
    return wake_at - level * settings.aging if settings.order == "priority" else wake_at


def enter(queue: QueueRow, rows: QueueRows, runs: Iterable[Entering], wall: int) -> int:
    """Put runs that are due into their lanes, and give the newest turn."""
    settings, turn = settings_of(queue), queue.turn
    lanes: list[tuple[int, Lane]] = []
    for run in runs:
        level = level_of(settings, run)
        at = turn_of(settings, level, run.wake_at)
        if settings.order == "fair" and level != BEGUN:
            # Every turn is later than all turns before, so no lane is passed twice.
            at = turn = max(turn + 1, wall)
        lanes.append((run.id, Lane(at, level, run.key, run.task)))
    rows.enter(lanes)
    return turn


class Room:
    """How many runs may leave a queue at this moment for one worker."""

    def __init__(self, queue: QueueRow, rows: QueueRows, worker: str, now: int) -> None:
        settings = self.settings = settings_of(queue)
        held = rows.held()
        mine = sum(holder.worker == worker for holder in held)
        total = 0 if queue.paused is not None else 1 << 31
        if settings.concurrency is not None:
            total = min(total, settings.concurrency - len(held))
        if settings.per_worker is not None:
            total = min(total, settings.per_worker - mine)
        self.total = total
        self._by_key = Counter(holder.key for holder in held)
        self.starts = 1 << 31
        """How many runs may start that have not begun before."""
        self.next_start = now
        """When the next run may start, on the store's clock."""
        self.since = now - settings.per
        if settings.starts is not None and total > 0:
            window = rows.starts(self.since)
            self.starts = settings.starts - window.total
            if self.starts <= 0:
                # The moment itself still belongs to the window.
                self.next_start = window.first + settings.per + 1

    def of(self, key: str, level: int) -> int:
        """How many runs of a key and level may leave."""
        room = self.total
        if self.settings.per_key is not None:
            room = min(room, self.settings.per_key - self._by_key[key])
        return room if level == BEGUN else min(room, self.starts)

    def take(self, key: str, level: int, count: int) -> None:
        """Runs of a key have left."""
        self.total -= count
        self._by_key[key] += count
        if level != BEGUN:
            self.starts -= count


def delay(queue: QueueRow, rows: QueueRows, tasks: Collection[str], worker: str, now: int) -> int | None:
    """In how many microseconds a run of these tasks may leave the queue for the worker; `None`: only after a change of
    the store."""
    room = Room(queue, rows, worker, now)
    if room.total <= 0:
        return None
    later = None
    for lane in heapq.merge(*(rows.lanes(task) for task in set(tasks))):
        if room.of(lane.key, lane.level) > 0:
            return 0
        if room.starts <= 0 and room.of(lane.key, BEGUN) > 0:
            later = max(0, room.next_start - now)
            break  # the lanes of runs that have begun come first
    return later


def leave(
    queue: QueueRow, rows: QueueRows, tasks: Collection[str], worker: str, most: int, now: int, wall: int,
    claim: Callable[[list[int]], int],
) -> int:  # fmt: skip
    """Let runs of these tasks leave the queue, at most `most`, and give the newest turn. `claim` claims runs and gives
    the number of those that were there."""
    room = Room(queue, rows, worker, now)
    room.total = min(room.total, most)
    fair = room.settings.order == "fair"
    waiting: list[Lane] = []
    turn, started = queue.turn, 0
    lanes = heapq.merge(*(rows.lanes(task) for task in set(tasks)))
    following = next(lanes, None)
    while room.total > 0:
        if following is not None and (not waiting or following <= waiting[0]):
            lane, following = following, next(lanes, None)
        elif waiting:
            lane = heapq.heappop(waiting)
        else:
            break
        free = room.of(lane.key, lane.level)
        if free <= 0:
            if room.starts <= 0 and lane.level != BEGUN and room.settings.per_key is None:
                break
            continue
        alone = following is None and not waiting
        in_turn = fair and lane.level != BEGUN
        # Where other lanes wait, the next run of this lane may come after a run of theirs.
        count = free if alone and not in_turn else 1
        heads = rows.heads(lane, count + 1)
        claimed = claim([head.run for head in heads[:count]])
        room.take(lane.key, lane.level, claimed)
        started += claimed if lane.level != BEGUN else 0
        if len(heads) <= count:
            rows.drop(lane)
            continue
        turn = max(turn + 1, wall) if in_turn else turn
        after = turn if in_turn else turn_of(room.settings, lane.level, heads[count].wake_at)
        rows.set_turn(lane, after)
        heapq.heappush(waiting, lane._replace(turn=after))
    if started:
        # At the time after the claims: no start is counted earlier than it was.
        rows.record(started, room.since)
    return turn


def admit(queue: QueueRow, rows: QueueRows, run: RunRow, worker: str, now: int) -> bool:
    """Whether the worker may claim this very run of the queue now. The claim of a run that holds a slot takes the slot
    over. A run that begins is recorded as a start."""
    room = Room(queue, rows, worker, now)
    if run.token is not None:
        # Only the limit of the worker may be in the way.
        per_worker = room.settings.per_worker
        mine = sum(holder.worker == worker for holder in rows.held())
        return run.worker == worker or per_worker is None or mine < per_worker
    begun = run.status is not Status.QUEUED
    if room.of(run.key, BEGUN if begun else 0) <= 0:
        return False
    if not begun:
        rows.record(1, room.since)
    return True


def _json(value: Any) -> str:
    return msgspec.json.encode(value).decode()


class SqlQueueRows:
    """The rows of one queue in a SQL store."""

    def __init__(self, execute: Execute, queue: str, start: Callable[[], Row]) -> None:
        """`start` gives the parameters of `insert_start` for this moment."""
        self._execute = execute
        self._queue = queue
        self._start = start

    def held(self) -> list[Holder]:
        return list(map(Holder._make, self._execute("held_slots", (self._queue,))))

    def lanes(self, task: str) -> Iterator[Lane]:
        key: Row = (-(1 << 62), 0, "")
        size = _FIRST_PAGE
        while page := self._execute("lanes", (self._queue, task, *key, size)):
            for turn, level, of_key in page:
                yield Lane(turn, level, of_key, task)
            key = page[-1]
            if len(page) < size:
                return
            size = min(4 * size, _PAGE)

    def heads(self, lane: Lane, count: int) -> list[LaneHead]:
        return list(map(LaneHead._make, self._execute("heads", (*self._name(lane), count))))

    def set_turn(self, lane: Lane, turn: int) -> None:
        self._execute("set_lane_turn", (turn, *self._name(lane)))

    def drop(self, lane: Lane) -> None:
        self._execute("drop_lane", self._name(lane))

    def _name(self, lane: Lane) -> Row:
        return (self._queue, lane.task, lane.key, lane.level)

    def starts(self, since: int) -> Window:
        first = self._execute("first_start", (self._queue, since))
        if not first:
            return Window(0, since)
        [(number, at)] = first
        [(last,)] = self._execute("last_start", (self._queue,))
        return Window(last - number + 1, at)

    def record(self, count: int, since: int) -> None:
        self._execute("prune_starts", (self._queue, since))
        start = self._start()
        for _ in range(count):
            self._execute("insert_start", start)

    def enter(self, runs: Sequence[tuple[int, Lane]]) -> None:
        # A few statements for many runs: one for each run would make the first look after many submissions slow.
        levels: dict[int, list[int]] = {}
        firsts: dict[Row, tuple[int, int]] = {}
        for run, lane in runs:
            levels.setdefault(lane.level, []).append(run)
            firsts.setdefault((lane.task, lane.key, lane.level), (run, lane.turn))
        for level, ids in levels.items():
            self._execute("enter_lane", (level, FAR, _json(ids)))
        self._execute("add_lanes", (_json(list(firsts.values())),))

    def note_turn(self, turn: int) -> None:
        """Store the newest turn of the queue."""
        self._execute("set_queue_turn", (turn, self._queue))

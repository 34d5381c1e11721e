"""Submissions with a policy: what becomes of a new run beside earlier runs of its key or its queue. The same steps in
every store.

- SP1 the look at the earlier runs, their cancellation and the new run are one transaction, under the locks of the key
  and of the queue: a crash leaves all or nothing, and of two submissions at one moment the second sees the first.
- SP2 of the runs of a key without `debounce` and `throttle`, one holds the key: a submission meanwhile gives that run.
- SP3 with `debounce` or `throttle` at most one run of a key waits: the newest. With `throttle` two runs of a key begin
  at least so far apart.
- SP4 a run that has not begun at its `start_by` never begins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

from perdure.core.ground.clock import Clock, moment
from perdure.core.ground.model import UNFINISHED, Created, CreateRun, Policy, QueueRow, RunRow, Status, Wake

from ._queues import Execute, settings_of

EXPIRING = 200
"""How many runs end in one transaction because their time to begin is over."""


class KeyHolder(NamedTuple):
    """The run that may hold a key."""

    name: str
    status: str
    until: int | None
    """When the key is free after the end of the run (wall)."""


class Unbegun(NamedTuple):
    """A run whose time to begin is over."""

    run: int
    start_by: int
    status: str


class SubmissionRows(Protocol):
    """The rows that a submission looks at, in its transaction."""

    clock: Clock

    def run(self, name: str) -> RunRow | None:
        """The run of a name."""

    def lock_key(self, task: str, key: str) -> None:
        """Keep other submissions of the key out, until the transaction ends."""

    def lock_queue(self, name: str) -> QueueRow:
        """The queue; other submissions that look at the queue, and claims, stay out."""

    def holder(self, task: str, key: str) -> KeyHolder | None:
        """The newest run of the key that was not cancelled or aborted."""

    def queued(self, task: str, key: str) -> list[int]:
        """The runs of the key that have not begun."""

    def last_start(self, task: str, key: str) -> int | None:
        """When a run of the key has begun last (wall)."""

    def unfinished(self, queue: str, key: str | None) -> list[tuple[int, str, str | None]]:
        """The unfinished runs of the queue, or of one key of the queue, oldest first: number, status, and the reason
        of a request to cancel."""

    def cancel(self, run: int, reason: str) -> None:
        """Ask to cancel an unfinished run; a run that has not begun is over at once."""

    def create(self, write: CreateRun) -> Created:
        """Create the run, unless the name is taken."""

    def note(self, run: int, task: str, policy: Policy, until: int | None) -> None:
        """Keep the key and the time to begin of a run."""

    def unbegun(self, now: int, most: int) -> list[Unbegun]:
        """The runs whose time to begin is over, begun or not."""

    def forget_start_by(self, run: int) -> None:
        """The time to begin of the run needs no further look."""


def submit(rows: SubmissionRows, write: CreateRun, policy: Policy) -> Created:
    """Create a run as its policy says, or give the run that holds its key."""
    new = write.new
    if policy.key is not None:
        rows.lock_key(new.task, policy.key)
    queue = None if new.queue is None or policy.when_full == "wait" else rows.lock_queue(new.queue)
    # Under the locks: a submission that is repeated after a crash must change nothing.
    found = rows.run(new.name)
    if found is not None:
        return Created(found, False)
    now = rows.clock.wall()
    until: int | None = None
    if policy.key is not None and not policy.debounce and not policy.throttle:
        until = None if policy.keep is None else now + policy.keep
        held = rows.holder(new.task, policy.key)
        if held is not None and (held.status in UNFINISHED or (held.until is not None and now < held.until)):
            found = rows.run(held.name)
            assert found is not None
            return Created(found, False)
    elif policy.key is not None:
        write = write._replace(due=_in_turn(rows, write, policy, policy.key, now))
    reason = None if queue is None else _make_room(rows, write, policy, queue)
    created = rows.create(write)
    if created.fresh and (policy.key is not None or policy.start_by is not None):
        rows.note(created.run.id, new.task, policy, until)
    if created.fresh and reason is not None:
        rows.cancel(created.run.id, reason)
        found = rows.run(new.name)
        assert found is not None
        return Created(found, True)
    return created


def _in_turn(rows: SubmissionRows, write: CreateRun, policy: Policy, key: str, now: int) -> Wake:
    """Let the new run take the place of the waiting run of its key, and give the time from which on it may begin."""
    task = write.new.task
    for run in rows.queued(task, key):
        rows.cancel(run, f"replaced by run {write.new.name}, the newest of {key!r}")
    # After the cancellations: a run that a worker has just begun counts as begun.
    at = now + policy.debounce
    last = rows.last_start(task, key) if policy.throttle else None
    if last is not None:
        at = max(at, last + policy.throttle)
    return Wake(at, rows.clock.boot() + at - now)


def _make_room(rows: SubmissionRows, write: CreateRun, policy: Policy, queue: QueueRow) -> str | None:
    """Apply the policy of a full queue. Gives the reason for which the new run is cancelled itself, if it is."""
    settings, new = settings_of(queue), write.new
    mode = policy.when_full or settings.when_full
    limit, key = (settings.concurrency, None) if settings.per_key is None else (settings.per_key, new.key)
    if mode == "wait" or limit is None:
        return None
    there = rows.unfinished(queue.name, key)
    if len(there) < limit:
        return None
    which = f"queue {queue.name}" if key is None else f"queue {queue.name} for key {key!r}"
    if mode == "skip":
        return f"skipped, because {which} was full"
    if mode == "replace":
        staying = [run for run, _, cancel in there if cancel is None]
        leaving = staying[: max(0, len(staying) + 1 - limit)]
        reason = f"replaced by run {new.name}, because {which} was full"
    else:
        waiting = [run for run, status, _ in there if status == Status.QUEUED]
        # So many of the waiting runs have no free slot. The newest of them go: the others are about to begin.
        leaving = waiting[len(waiting) - min(len(waiting), len(there) - limit) :]
        reason = f"replaced by run {new.name}, the newest that waits in {which}"
    for run in leaving:
        rows.cancel(run, reason)
    return None


def expire(rows: SubmissionRows) -> int:
    """End the runs whose time to begin is over (SP4), and give the number of those that were looked at."""
    found = rows.unbegun(rows.clock.wall(), EXPIRING)
    for one in found:
        if one.status == Status.QUEUED:
            rows.cancel(one.run, f"not begun by {moment(one.start_by).isoformat(sep=' ', timespec='seconds')}")
        rows.forget_start_by(one.run)
    return len(found)


class SqlSubmissionRows:
    """The rows of a SQL store. Each dialect brings the functions that differ."""

    def __init__(
        self,
        execute: Execute,
        clock: Clock,
        *,
        run: Callable[[Sequence[Any]], RunRow],
        lock_key: Callable[[str], None],
        lock_queue: Callable[[str], QueueRow],
        cancel: Callable[[int, str], None],
        create: Callable[[CreateRun], Created],
    ) -> None:
        self.clock = clock
        self._execute = execute
        self._run = run
        self._lock_key = lock_key
        self.lock_queue = lock_queue
        self.cancel = cancel
        self.create = create

    def run(self, name: str) -> RunRow | None:
        found = self._execute("run_by_name", (name,))
        return self._run(found[0]) if found else None

    def lock_key(self, task: str, key: str) -> None:
        self._lock_key(f"{task} {key}")

    def holder(self, task: str, key: str) -> KeyHolder | None:
        found = self._execute("holder_of_key", (task, key))
        return KeyHolder._make(found[0]) if found else None

    def queued(self, task: str, key: str) -> list[int]:
        return [run for (run,) in self._execute("queued_of_key", (task, key))]

    def last_start(self, task: str, key: str) -> int | None:
        [(at,)] = self._execute("last_start_of_key", (task, key))
        return at  # type: ignore[no-any-return]

    def unfinished(self, queue: str, key: str | None) -> list[tuple[int, str, str | None]]:
        found = self._execute("unfinished_of_queue", (queue, key, key))
        return [(run, status, cancel) for run, status, cancel in found]

    def note(self, run: int, task: str, policy: Policy, until: int | None) -> None:
        self._execute("note_submission", (run, task, policy.key, until, policy.start_by))

    def unbegun(self, now: int, most: int) -> list[Unbegun]:
        return list(map(Unbegun._make, self._execute("unbegun", (now, most))))

    def forget_start_by(self, run: int) -> None:
        self._execute("forget_start_by", (run,))

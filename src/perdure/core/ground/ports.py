"""What the core asks of the world: a `Store`, and `Liveness` of other workers. Each verb states what is atomic.

Both are held to one contract suite (`tests/contract`) that every implementation passes, the in-memory twin included.
Implementations are safe to call from any thread.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from typing import BinaryIO, Protocol

from .clock import Clock
from .model import (
    Action,
    CachePut,
    Checked,
    Claim,
    Created,
    CreateRun,
    EndedRun,
    NewRun,
    Run,
    RunWrites,
    Segment,
    Source,
    Status,
    Taken,
    WholeRun,
    Worker,
)


class Store(Protocol):
    """Where runs and journals live.

    Every method raises `perdure.errors.StoreError` (a subclass that says what to do) when the database cannot be
    used; no driver's own exception crosses this border, `database is locked` included.
    """

    @property
    def id(self) -> str:
        """Random, fixed when the store was created."""

    @property
    def url(self) -> str:
        """As a person would name it, without secrets."""

    @property
    def clock(self) -> Clock:
        """What deadlines are to be counted on by whoever uses this store: wall times that are recorded in one process
        mean the same in every other, also on other machines."""

    def close(self) -> None:
        """Release every connection. Further calls raise `StoreUnavailableError`. Idempotent."""

    # -- writing -----------------------------------------------------------------------------------------------

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        """Write all of it in ONE transaction, on disk (fsynced) when this returns. One answer for each write.

        `RunWrites`: `True` written whole; `False` fenced: the run's token is another, or the run has ended, and
        nothing of this element was written (the others are not affected). Within an element: actions first, then
        states, segments, ends, sources, cache puts, finish, park. `finish` and `park` also clear the claim; `finish`
        sets `crashes` to 0 and `mark` to the journal's length. The store keeps the bytes of segments as given.
        `CreateRun`: `Created(run, True)`, or, when the name is taken, `Created(existing, False)` and nothing
        written for this element. Two creations of one name within one batch: the first wins. A batch of nothing
        but creations with a claim needs only to be visible: whoever holds the claim drives the run at once, and
        its first entry, or its end, takes the creation to disk. Should power fail before, nothing of the run
        was recorded, and asking for it again begins it again.
        """

    def claim(
        self, run: int, claim: Claim, *, expect: bytes | None, entries: int, statuses: Collection[Status]
    ) -> Run | None:
        """Compare-and-set: take the run if its token is still `expect` and its stored status in `statuses`.

        Sets token, worker and status RUNNING, clears result, value, ended_at and wake_at, sets started_at if unset. If
        `entries` (the journal's length that the claimer saw) is greater than `mark`, `crashes` becomes 1, else it
        grows by 1; `mark` becomes `entries`. Returns the run as it is afterwards, `None` if somebody was faster.
        Only needs to be visible to others, not fsynced.
        """

    def take_due(self, tasks: Collection[str], claims: Sequence[Claim]) -> list[Taken]:
        """Claim QUEUED and SLEEPING runs of these tasks whose time has come by the store's clock: at most one for each
        claim given, those that are due longest, and each as `claim` does it. Visible is enough. What a run needs first
        when it goes on comes along (`Taken.known`), as many are cheaper to read at once than one by one."""

    def release(self, run: int, token: bytes) -> bool:
        """Give a claim back (token and worker become NULL, status stays RUNNING, crashes 0) if `token` still holds."""

    def abort(self, run: int, ended_at: int) -> bool:
        """Status ABORTED, claim and wake time cleared, whoever holds it, if the run has not ended. Fsynced."""

    # -- reading -----------------------------------------------------------------------------------------------

    def run(self, name: str) -> Run | None:
        """The run of that name."""

    def run_by_id(self, run: int) -> Run | None:
        """The run of that number."""

    def runs(
        self, *, limit: int | None = None, statuses: Collection[Status] | None = None, below: int | None = None
    ) -> list[Run]:
        """Runs by stored status, newest first, those with a number below `below`."""

    def counts(self) -> dict[Status, int]:
        """How many runs there are of each stored status."""

    def similar(self, task: str, inputs_hash: bytes) -> list[Run]:
        """Runs of this task and these inputs whose stored status is RUNNING, newest first. Must use an index."""

    def next_due(self, tasks: Collection[str]) -> float | None:
        """Seconds, by the store's clock, until the first QUEUED or SLEEPING run of these tasks is due; zero or less if
        one is, `None` if there is none. Must use an index."""

    def abandoned(self, tasks: Collection[str], workers: Collection[str], *, limit: int) -> list[Run]:
        """RUNNING runs of these tasks that none of these workers has claimed, in order of their number."""

    def version(self) -> int:
        """A number that changes whenever another process, or this one, has committed something that matters to others
        (a store across a network may take half a second). Cheap: for polling."""

    def listen(self, bell: Callable[[], None]) -> bool:
        """Call `bell`, from any thread, as soon as `version` may have changed, until the store is closed. Whether that
        works here; where it does not, `version` is to be polled."""

    def journal_length(self, run: int) -> int:
        """The number of the last entry in the run's journal, 0 if it is empty. One seek in an index."""

    def last_action(self, run: int) -> int:
        """The highest action number that the run has used, 0 if none but the root."""

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        """The segments of the run in order of their number: all, or those of these numbers. Read page by page; no
        transaction stays open between two pages, and what is appended meanwhile may show or not."""

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        """The started actions under one parent (or of the whole run), in order of their number."""

    def open_actions(self, run: int) -> list[Action]:
        """The actions of that run that have no outcome, or whose outcome was discarded. Must use an index."""

    # -- sources, cache, workers -------------------------------------------------------------------------------

    def source_id(self, source: Source) -> int:
        """A small number for this snapshot, the same for the same digest. Visible is enough."""

    def source(self, id: int) -> Source | None:
        """The snapshot of that number."""

    def cache_get(self, key: bytes) -> bytes | None:
        """A cached outcome."""

    def renew(self, worker: Worker) -> None:
        """Insert or update the worker's row; its claims hold for `worker.lease` from now on, by the store's clock.
        Visible is enough. On a connection of its own: never waits for commit() calls of this process to return, only
        for the database's own lock."""

    def worker(self, id: str) -> Worker | None:
        """That worker's row."""

    def workers(self) -> list[Worker]:
        """All workers' rows, those of the dead included."""

    def forget(self, id: str) -> None:
        """Remove the worker's row."""

    # -- removing what is over ---------------------------------------------------------------------------------

    def ended(self, before: int, statuses: Collection[Status], *, above: int = 0, limit: int) -> list[EndedRun]:
        """Runs of these statuses that ended before `before` and that `remove` would take, by rising number, from the
        first above `above` on."""

    def remove(self, runs: Sequence[int], before: int, statuses: Collection[Status]) -> list[bool]:
        """In ONE transaction, on disk when this returns: take these runs away for good. One answer for each.

        Looked at again inside the transaction: `False`, and nothing happens to the run, unless its status is one of
        `statuses` (finished ones), it ended before `before`, and no unfinished run is to `reuse` it. Afterwards
        nobody finds the run by name or number, claims or lists it, and its name is free. Its rows go with `purge`,
        and until then its number is not given to another run.
        """

    def purge(self, limit: int) -> bool:
        """Delete rows of removed runs in one short transaction, about `limit` at most. Whether some may be left,
        those of removals that a crash cut short included."""

    def uids(self) -> set[bytes]:
        """The `uid` of every run."""

    def claimed_since(self) -> dict[str, int]:
        """The workers that hold claims of unfinished runs, and when the first of each one's runs was started."""

    def stored(self, skip: Collection[int] = ()) -> Iterator[bytes]:
        """All stored bytes that may hold a value: of runs (but those in `skip`), segments, actions, and the cache, the
        cache last. Those of less than 32 bytes may be left out. No snapshot: what is written meanwhile may show or not.
        """

    def cached(self, before: int, *, limit: int) -> list[CachePut]:
        """Cached outcomes that were put before `before`."""

    def uncache(self, keys: Sequence[bytes], before: int) -> int:
        """Remove these cached outcomes, but those that were put again since `before`; how many went."""

    def drop_sources(self, is_dead: Callable[[str], bool]) -> int:
        """Remove the snapshots that no journal and no action refers to, unless a worker is there that is not dead: it
        may hold the number of any of them. How many went. A number may then stand for another snapshot."""

    # -- moving runs to another store --------------------------------------------------------------------------

    def move(self, runs: Sequence[int], to: str) -> list[Run | None]:
        """In ONE transaction, on disk when this returns: let go of these runs for good, as the store `to` takes them.

        Those that are QUEUED, SLEEPING or finished become MOVED, with `to` as their worker: nobody claims, ends or
        removes them here any more; all their rows stay. The answer is each run as it was before, also where it has
        been MOVED to `to` already and is not known to have arrived, so that whoever was killed in between can go on.
        `None`, and nothing happens, for every other.
        """

    def arrived(self, runs: Sequence[int], store: str) -> None:
        """Fsynced: those of these runs that are MOVED are in the store of that id. It stands in their `token`; from now
        on they never go anywhere again, whatever that store has removed since."""

    def take_back(self, run: int) -> bool:
        """Undo `move`, for a run that the other store has not taken; whether it was MOVED. Fsynced."""

    def adopt(self, runs: Sequence[WholeRun]) -> list[Created]:
        """In ONE transaction, on disk when this returns: store runs that come from elsewhere, under new numbers.

        They keep status, name and `uid`; their actions and segments refer to this store's sources. Where a name is
        taken, that run is the answer and nothing is stored; but a run of the same `uid` that was MOVED away from here
        comes back: it takes the place of what it has left.
        """

    def check(self) -> Checked:
        """Look at the whole store: what it is, and what is wrong with it. May take its time. Changes nothing."""

    # -- schedules ---------------------------------------------------------------------------------------------

    def schedules(self) -> dict[str, int]:
        """How far every schedule has been considered."""

    def schedule(self, key: str) -> int | None:
        """How far that schedule has been considered (wall, microseconds); `None` if it was never seen."""

    def advance(self, key: str, at: int, *, expect: int | None, runs: Sequence[NewRun] = ()) -> list[Created] | None:
        """Compare-and-set, in ONE transaction, on disk (fsynced) when this returns: move a schedule on, and submit the
        runs of the firings that it passes, QUEUED.

        If `schedule(key)` is still `expect` and `at` is later, it becomes `at`, and each run is created as by
        `CreateRun` without a claim: one answer for each, that of a taken name included. Otherwise `None`, and nothing
        is written: somebody else has moved it. So of any number of processes that consider the same stretch of time
        one creates its runs, whatever became of runs of that name since, and a crash leaves both or neither.
        """


class Liveness(Protocol):
    """A lock of each worker, released when the process of the worker dies. The operating system or a session holds the
    lock. See docs/development/recovery.md#leases."""

    def hold(self, worker: str) -> None:
        """Take this process's lock; held until `drop` or the process's death, however it dies."""

    def drop(self, worker: str) -> None:
        """Let go and remove the lock's file."""

    def is_dead(self, worker: str) -> bool:
        """`True` only if that worker's process is gone, or has lost what tells that it lives and does not get it back;
        `False` if it lives or this cannot be told. A claim's token fences whoever is taken for dead by mistake."""

    def doubts(self, worker: str) -> bool:
        """Whether it looks dead, and a moment later it will be known whether it is."""


def blob_key(hash: str) -> str:
    """The key of a blob in a bucket. Pods take them from there by themselves."""
    return f"sha256/{hash[:2]}/{hash}"


class Blobs(Protocol):
    """Where the content of files lies: each content once, never changed, named by its SHA-256 in hexadecimal.

    Every method raises `UsageError` for what is wrong with a file or path of the user's, and `StoreError` when a blob
    is missing or damaged (which one, in which store) or the blob store cannot be used. No hash or name leads outside.
    """

    @property
    def url(self) -> str:
        """As a person would name it, without secrets."""

    @property
    def root(self) -> str:
        """The directory in which it keeps what it keeps on this machine."""

    def put(self, sources: Sequence[str]) -> list[tuple[str, int]]:
        """Copy these files in, links followed; the hash and size of each. On disk (fsynced) when this returns.

        Streamed, and a copy of its own: what happens to a source afterwards changes nothing. A source that changes
        while it is copied is copied again, or refused. A crash leaves no half blob under a hash.
        """

    def put_bytes(self, data: bytes) -> str:
        """The same for bytes in memory; their hash."""

    def take(self, hash: str, size: int, url: str) -> bool:
        """Put the object at `url`, which has that content, without its content coming here. `False`: there is no way,
        and nothing was done."""

    def open(self, hash: str, size: int) -> BinaryIO:
        """A stream of the content."""

    def begins(self, hash: str, size: int, with_: bytes) -> bool:
        """Whether the content begins with these bytes. Does not bring the rest of it to this machine."""

    def read(self, hash: str) -> bytes:
        """The whole of a small blob, checked against its hash."""

    def copy(self, hash: str, size: int, to: str, *, executable: bool = False) -> None:
        """A file of the user's own with that content at `to`, in place of whatever file was there: whole or not at all.
        Its directory must exist."""

    def link(self, hash: str, size: int, to: str, *, executable: bool = False) -> None:
        """A read-only file with that content at `to`, where there is none; shares the store's own copy if it can."""

    def path(self, hash: str, size: int, name: str) -> str:
        """The path of a local, read-only file of that name and content, kept by the store. Copies nothing if it can."""

    def tree(self, hash: str, name: str, fill: Callable[[str], None]) -> str:
        """The path of a local directory of that name, kept by the store; where there is none yet, `fill` puts its
        content into an empty directory that then takes its place, whole or not at all."""

    def fetched(self, key: str, size: int, hash: str, fetch: Callable[[str], None]) -> str:
        """Let content from a URL of the user's be on this machine, where the methods above find it; its hash.

        It counts as put just now, and goes no further than this machine.

        Args:
            key: what tells it from all others, as 64 hexadecimal digits.
            hash: what it must have; empty where that is not known.
            fetch: brings the rest of it into a file that may hold its beginning. Not called where it is there already.
        """

    def older(self, before: int) -> Iterator[tuple[str, int]]:
        """Hash and size of the blobs that were last put, or refreshed, before `before` (wall, microseconds).

        A put counts also where the content is there already, to the minute.
        """

    def refresh(self, hashes: Iterable[str]) -> None:
        """Let these count as put just now; those that are not there are passed over."""

    def remove(self, hashes: Sequence[str], before: int) -> list[bool]:
        """Remove these blobs and all that was made of them, but those that were put since `before`; whether it went.

        Never between a `put` that finds the content there and the refreshing that goes with it. Whenever this is
        killed, a blob is there whole or not at all, and removing it again finishes the work.
        """

"""Ports: what the core asks of a store and of the operating system. Each verb states what is atomic.

Every implementation passes one contract suite (`tests/contract`), the store in memory included. Implementations are
safe to call from any thread.

*On disk* means fsynced when the call returns. *Visible* means that other processes see the change; a power cut may take
it back.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Generator, Iterable, Iterator, Sequence
from enum import Enum
from typing import Any, BinaryIO, NamedTuple, Protocol

from .clock import Clock
from .model import (
    Action,
    Addressee,
    Ask,
    Awaited,
    CachePut,
    Checked,
    Claim,
    Created,
    CreateRun,
    EndedRun,
    FreedSlot,
    LimitLoad,
    LimitRow,
    Message,
    NewMessage,
    NewRefusal,
    NewRun,
    Notice,
    NoticeCount,
    NoticeState,
    OpenWait,
    Policy,
    Publication,
    Queued,
    QueueLoad,
    QueueRow,
    Refusal,
    RunRow,
    RunWrites,
    ScheduleRow,
    Segment,
    SendAnswer,
    Source,
    Status,
    Streamed,
    Subscription,
    Taken,
    Ticket,
    Turn,
    Unread,
    WholeRun,
    WorkerRow,
)
from .trees import InTree


class SqlStatement(NamedTuple):
    """A statement in the words of a store's database, for a connection of the caller's."""

    sql: str
    row: Sequence[Any] = ()


class RunQueue(Protocol):
    """Runs that wait, are claimed, driven and ended, and the workers that drive runs."""

    def claim(
        self,
        run: int,
        claim: Claim,
        *,
        expect: bytes | None,
        entries: int,
        statuses: Collection[Status],
        crashed: bool = True,
        resumes: bool = False,
    ) -> RunRow | None:
        """Compare-and-set: take the run if the stored token is still `expect` and the stored status in `statuses`. A
        paused run is taken only with `resumes`, and its pause ends. No run of a paused task is taken.

        Sets token, worker and status RUNNING, clears result, value, ended_at and wake_at, sets started_at if unset. If
        `entries` (the length of the journal that the claimer saw) is greater than `mark`, `crashes` becomes 1, else
        `crashes` grows by 1 if `crashed`; `mark` becomes `entries`. `crashed=False`: the claim before was lost by a
        living worker, which is no crash. Returns the run after the change, or `None` if another claim was faster,
        or if the queue of the run has no slot. Visible is enough.
        """

    def submit(self, write: CreateRun, policy: Policy) -> Created:
        """Create a run without a claim as a policy says, in ONE transaction with the cancellations that the policy asks
        for (SP1). On disk.

        Gives the run of the name if there is one already, and changes nothing then. Gives another run if that run holds
        the key of the policy. A run that a full queue refuses is created and is CANCELLED at once.
        """

    def start_by(self, run: int) -> int | None:
        """The time (wall) by which a run that has not begun has to begin, as `Policy.start_by`; `None`: there is none,
        or a worker has looked after that time."""

    def creation(self, write: CreateRun) -> Generator[SqlStatement, list[Any], Created]:
        """The submission of a run without a claim, as statements for a transaction of the caller's. Yields statements,
        and is sent the rows of each.

        Raises:
            UsageError: the caller's connection does not lead to the database of this store.
        """

    def take_due(self, tasks: Collection[str], claims: Sequence[Claim]) -> list[Taken]:
        """Claim runs of the given tasks that are QUEUED or parked, due by the store's clock, and not paused, unless the
        task is paused.

        At most one run for each claim, the runs that are due longest first, each claimed as by `claim`. Visible is
        enough. `Taken.known` brings the data that a run needs first, because one read for many runs is cheaper.

        A run of a queue is claimed only if the queue has a slot for the worker of the claims (see `Queues`). A run that
        was parked while calls of the run wait for limits (`Park.tickets`) is due as soon as such a call may take a
        slot. First, runs whose time to begin is over are ended
        (SP4).
        """

    def release(self, run: int, token: bytes, refusal: NewRefusal | None = None) -> bool:
        """Give a claim back if `token` still holds: token and worker become NULL, status stays RUNNING, crashes 0.

        In the same transaction `refusal` replaces the run's earlier refusal, which counts on if the journal has not
        grown since. Without `refusal` the earlier one is removed: the run could be driven.
        """

    def refusal(self, run: int) -> Refusal | None:
        """Why the last process that tried could not drive the run; `None` while the run has a claim, after any other
        end of driving, and as soon as the journal has grown. Must use an index."""

    def move_code(self, run: int, token: bytes, target: str) -> bool:
        """Change the address of the code of a run (`RunRow.target`) if `token` still holds. On disk."""

    def abort(self, run: int, ended_at: int) -> bool:
        """End a run that has not ended: status ABORTED; claim, wake time and pause cleared. Any claim is overruled. On
        disk."""

    def cancel(self, run: int, reason: str, until: int | None, at: int) -> RunRow | None:
        """Ask to cancel a run that has not ended. On disk.

        A QUEUED run is CANCELLED at once, ended at `at`. A SLEEPING run is due now. A pause ends, so that the code can
        clean up. Of several requests the first gives the reason, and the earliest limit counts. Returns the run after
        the change; `None`: the run has ended.
        """

    def end_cancelled(self, run: int, ended_at: int) -> bool:
        """End a run that has not ended and was asked to cancel: status CANCELLED, claim and wake time cleared. Any
        claim is overruled. On disk."""

    def pause(self, run: int, at: int) -> bool:
        """Pause a run that has not ended and was not asked to cancel: `paused` becomes `at`, unless set before. `False`
        for every other run. On disk.

        From the return on no worker claims the run. A claim that exists stays: its holder sees `paused` in the row, and
        gives the claim back. Status and wake time stay as they are. The end of the run clears the pause.
        """

    def pause_task(self, task: str, at: int) -> bool:
        """Pause a task on all runs, present and future. `False`: the task is paused already. On disk; a bell rings.

        From the return on no worker claims a run of the task, also not with `resumes`, and a `CreateRun` with a claim
        is stored as QUEUED, without the claim. Claims that exist stay: their holders find the task in `paused_tasks`,
        and give the claims back. Nothing in the rows of the runs changes.
        """

    def resume_task(self, task: str) -> bool:
        """End the pause of a task. `False`: the task is not paused. Runs that have become due meanwhile are due now. On
        disk; a bell rings."""

    def paused_tasks(self) -> dict[str, int]:
        """The paused tasks, and since when (wall). Cheap, because callers look often."""

    def unpause(self, run: int) -> bool:
        """End the pause of a run; whether the run was paused. A run that has become due meanwhile is due now. On disk;
        a bell rings."""

    def wake(self, run: int) -> bool:
        """Make a QUEUED or parked run due now. `False` for every other run. Visible is enough; a bell rings."""

    def run(self, name: str) -> RunRow | None:
        """The run of that name."""

    def run_by_id(self, run: int) -> RunRow | None:
        """The run of that number."""

    def runs(
        self,
        *,
        limit: int | None = None,
        statuses: Collection[Status] | None = None,
        below: int | None = None,
        task: str | None = None,
    ) -> list[RunRow]:
        """Runs by stored status and task, newest first; with `below` only runs of a smaller number. Must use an index
        for a task and for each status but SUCCEEDED, as most runs are SUCCEEDED."""

    def counts(self) -> dict[Status, int]:
        """The number of runs of each stored status."""

    def similar(self, task: str, inputs_hash: bytes) -> list[RunRow]:
        """Runs of the task and inputs with stored status RUNNING, newest first. Must use an index."""

    def next_due(self, tasks: Collection[str], worker: str = "") -> float | None:
        """Seconds, by the store's clock, until the worker can take the first QUEUED or parked run of these tasks.
        Paused runs and runs of paused tasks do not count.

        Zero or less if a run is due, `None` if no run waits. A run that waits for a slot counts from the moment at
        which the rate of the queue lets the run start, and not at all while another limit is in the way. Must use an
        index.
        """

    def abandoned(self, tasks: Collection[str], workers: Collection[str], *, limit: int) -> list[RunRow]:
        """RUNNING runs of the given tasks that none of the given workers has claimed, in order of their number. A
        paused run, or a run of a paused task, is among them only while a claim is stored, which the caller then
        releases."""

    def version(self) -> int:
        """A number that changes with each commit that matters to other processes, own commits included.

        A store across a network may take half a second. Cheap, because callers poll.
        """

    def listen(self, bell: Callable[[], None], *, ends: bool = False) -> bool:
        """Call `bell`, from any thread, as soon as runs may have been queued (with `ends`: as soon as runs may have
        ended), until the store is closed. The bell may ring for no reason.

        The bell is a hint: the caller polls `version` now and then all the same. `False` where no bell rings at all.
        """

    def renew(self, worker: WorkerRow) -> None:
        """Insert or update the worker's row: the worker's claims hold for `worker.lease` from now on, by the store's
        clock. Visible is enough. Has a connection of its own, so a `commit` of the same process never delays a
        renewal."""

    def worker(self, id: str) -> WorkerRow | None:
        """The worker's row."""

    def workers(self) -> list[WorkerRow]:
        """The rows of all workers, dead workers included."""

    def forget(self, id: str) -> None:
        """Remove the worker's row."""


class Queues(Protocol):
    """Queues with limits. A run of a queue holds a slot while the run has a claim.

    The settings in force are those of the code, as declared last, with the settings of an operator in their place.
    """

    def declare_queue(self, name: str, declared: str) -> None:
        """Store the settings of a queue in the code, as JSON. Writes nothing where the settings are known. On disk."""

    def override_queue(self, name: str, override: str | None) -> bool:
        """Set (`None`: remove) the settings of an operator. `False`: there is no such queue. On disk; a bell rings."""

    def pause_queue(self, name: str, now: int) -> bool:
        """Let no run leave the queue. `False`: there is no such queue, or it is paused. On disk."""

    def resume_queue(self, name: str) -> bool:
        """End the pause of a queue. `False`: there is no such queue, or it is not paused. On disk; a bell rings."""

    def queues(self) -> list[QueueRow]:
        """All queues, in order of the names."""

    def queue(self, name: str) -> QueueRow | None:
        """A queue."""

    def queue_load(self, name: str) -> QueueLoad:
        """The number of runs that hold a slot of a queue, and of those that wait for one. Must use an index."""

    def slots_of_others(self, workers: Collection[str]) -> list[RunRow]:
        """The runs that hold a slot, of a queue or by a call of a limit, under a claim of another worker than these.
        Must use an index."""

    def end_claim(self, run: int, token: bytes, *, crashed: bool) -> bool:
        """End the claim of a worker that is gone, if `token` still holds: token and worker become NULL, the status
        stays RUNNING. The slot is free, and the old worker is fenced. `crashed=False`: the claim counts as no crash."""


class Limits(Protocol):
    """Limits of calls. A call with a ticket holds a slot from the change that gives the slot until the call gives the
    slot back or the claim of the run ends.

    The settings in force are those of the code, as declared last, with the settings of an operator in their place.
    """

    def declare_limit(self, name: str, declared: str) -> None:
        """Store the settings of a limit in the code, as JSON. Writes nothing where the settings are known. On disk."""

    def override_limit(self, name: str, override: str | None) -> bool:
        """Set (`None`: remove) the settings of an operator. `False`: there is no such limit. On disk; the bells
        ring."""

    def limits(self) -> list[LimitRow]:
        """All limits, in order of the names."""

    def limit(self, name: str) -> LimitRow | None:
        """A limit."""

    def limit_load(self, name: str) -> LimitLoad:
        """The number of calls that hold a slot of a limit, and of those that wait for one. Must use an index."""

    def ask(self, asks: Sequence[Ask]) -> list[Ticket]:
        """Give each call a ticket, and slots to the calls whose turn it is. Visible is enough.

        A call that has asked before, also in an earlier life of its run, keeps its number and waits again.
        """

    def turn(self, names: Collection[str]) -> Turn:
        """Give slots of these limits to the calls whose turn it is, in order of their numbers, and tell which tickets
        hold a slot. Visible is enough.

        A call whose run has no claim under the token of the ticket gets no slot, and holds up no other call.
        """

    def give_back(self, run: int, token: bytes, frees: Sequence[FreedSlot]) -> None:
        """Remove tickets of a run that were given under the token. Visible is enough. A commit does so, too
        (`RunWrites.frees`). The bells ring where other calls wait."""

    def queued(self, run: int) -> list[Queued]:
        """The calls of a run that wait for a slot. Must use an index."""


class Journals(Protocol):
    """What runs record: segments, actions, cached outcomes, source snapshots."""

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        """Write all of the batch in ONE transaction, on disk. One answer for each element.

        `RunWrites`: `True` if written whole. `False` if fenced: the run has another token or has ended; nothing of this
        element is written, and other elements are not affected. Order within an element: actions, states, segments,
        ends, sources, cache puts, takes, finish, park. `finish` and `park` also clear the claim; `finish` sets
        `crashes` to 0 and `mark` to the length of the journal. The store keeps the bytes of a segment as given. A
        `park` with `waits` makes the run due at once where an open wait of the run has an untaken message.

        `CreateRun`: `Created(run, True)`, or, when the name is taken, `Created(existing, False)` and nothing is written
        for the element. Of two creations of one name within a batch the first wins. A batch that only creates runs with
        a claim needs only to be visible: the claimer drives the run at once, and the first segment, or the end of the
        run, takes the creation to disk. Should power fail earlier, nothing of the run was recorded, and the same
        request begins the run again.
        """

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        """The same as `commit` of one `RunWrites` with that segment and nothing else: the usual write of a run that
        makes one call after the other."""

    def journal_length(self, run: int) -> int:
        """The number of the last entry in the run's journal, 0 if the journal is empty. One seek in an index."""

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        """The segments of the run in order of their number: all, or only those with the given numbers.

        Read page by page. No transaction stays open between two pages; a segment that is appended meanwhile may show or
        not.
        """

    def last_action(self, run: int) -> int:
        """The highest action number of the run, 0 if there is no action but the root."""

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        """The started actions under one parent, or of the whole run, in order of their number."""

    def open_actions(self, run: int) -> list[Action]:
        """The actions of the run without an outcome, or with a discarded outcome. Must use an index."""

    def source_id(self, source: Source) -> int:
        """A small number for this snapshot, the same for the same digest. Visible is enough."""

    def source(self, id: int) -> Source | None:
        """The snapshot of that number."""

    def cache_get(self, key: bytes) -> bytes | None:
        """A cached outcome."""


class Upkeep(Protocol):
    """Removal of finished runs and of unused data, and a look at the whole store."""

    def ended(self, before: int, statuses: Collection[Status], *, above: int = 0, limit: int) -> list[EndedRun]:
        """Runs of the given statuses that ended before `before` and could be removed, by rising number, beginning
        above number `above`."""

    def remove(self, runs: Sequence[int], before: int, statuses: Collection[Status]) -> list[bool]:
        """In ONE transaction, on disk: remove the runs for good. One answer for each.

        Each run is checked again inside the transaction. `False`, and the run stays, unless the run's status is in
        `statuses` and means an end, the run ended before `before`, and no unfinished run is to `reuse` the run. After
        removal the run cannot be found by name or number, claimed or listed, and the name is free. `purge` deletes the
        rows; until then the number is not given to another run.
        """

    def purge(self, limit: int) -> bool:
        """Delete rows of removed runs in one short transaction, about `limit` at most.

        Whether rows may be left, those of a removal that a crash cut short included.
        """

    def uids(self) -> set[bytes]:
        """The `uid` of every run."""

    def claimed_since(self) -> dict[str, int]:
        """For each worker that holds a claim of an unfinished run: when the first of the worker's runs was started."""

    def stored(self, skip: Collection[int] = ()) -> Iterator[bytes]:
        """All stored bytes that may hold a value: of runs (except the runs in `skip`), segments, actions, and the
        cache, the cache last. Bytes shorter than 32 may be left out. No snapshot: concurrent writes may show or not."""

    def cached(self, before: int, *, limit: int) -> list[CachePut]:
        """Cached outcomes that were put before `before`."""

    def uncache(self, keys: Sequence[bytes], before: int) -> int:
        """Remove the cached outcomes, except outcomes that were put again since `before`. The number of removals."""

    def drop_sources(self, is_dead: Callable[[str], bool]) -> int:
        """Remove the snapshots that no journal and no action refers to. The number of removals.

        Nothing is removed while a worker is registered that is not dead, because the worker may hold the number of any
        snapshot. A removed number may later stand for another snapshot.
        """

    def check(self) -> Checked:
        """Look at the whole store: facts and problems. May take long. Changes nothing."""


class Moving(Protocol):
    """Runs that leave for another store or come from another store."""

    def move(self, runs: Sequence[int], to: str) -> list[RunRow | None]:
        """In ONE transaction, on disk: let go of the runs for good, because the store `to` takes the runs.

        QUEUED, parked and finished runs become MOVED, with `to` as worker: here no claim, end or removal of a MOVED
        run is possible, and all rows stay. The answer is each run before the change. A run that has been MOVED to `to`
        already, and is not known to have arrived, is answered in the same way, so that a killed mover can go on.
        `None`, and no change, for every other run.
        """

    def arrived(self, runs: Sequence[int], store: str) -> None:
        """On disk: note that the MOVED runs among the given runs are in the store with the given id, as `token`. From
        now on the runs never move again, also after a removal there."""

    def take_back(self, run: int) -> bool:
        """Undo `move` for a run that the other store has not taken. Whether the run was MOVED. On disk."""

    def adopt(self, runs: Sequence[WholeRun]) -> list[Created]:
        """In ONE transaction, on disk: store runs of another store under new numbers.

        A run keeps status, name and `uid`; actions and segments refer to this store's sources. Where the name is taken,
        the answer is the existing run and nothing is stored, with one exception: a run of the same `uid` that was MOVED
        away from here is replaced by the returning run. A run that has come here before and was removed since is not
        stored a second time: the answer is the run itself, as one that is not fresh.
        """


class Schedules(Protocol):
    """How far each schedule has been considered, and which schedules are paused."""

    def schedules(self) -> list[ScheduleRow]:
        """All schedules, sorted by key."""

    def schedule(self, key: str) -> ScheduleRow | None:
        """A schedule; `None` for an unknown schedule."""

    def advance(
        self, key: str, at: int, *, expect: int | None, runs: Sequence[NewRun] = (), fired: int | None = None
    ) -> list[Created] | None:
        """Compare-and-set, in ONE transaction, on disk: move a schedule on, and submit the runs of the firings in
        between, QUEUED.

        If the schedule is not paused and still stands at `expect`, and `at` is later, the schedule moves to `at`, and
        each run is created without a claim, as its queue says (`submit`): one answer for each, also for a taken name.
        `fired` is the newest firing with a run. Otherwise `None`, and nothing is written, because another process has
        moved or paused the schedule. So of all processes that consider a stretch of time one process creates the runs,
        also where a run of the same name was removed since; a crash leaves both changes or neither.

        With `expect=None` an unknown schedule begins at `at`: paused if a schedule of the same name is paused.
        """

    def pause_schedules(self, name: str, now: int) -> int:
        """On disk: pause the schedules of a name, and give the number of those that were not paused. From the return
        on, `advance` moves none of them."""

    def resume_schedules(self, name: str, now: int) -> int:
        """On disk: end the pause of the schedules of a name, and give the number of those that were paused. In the same
        transaction each moves to `now`, unless it stands at a later time."""

    def adopt_schedule(self, row: ScheduleRow) -> bool:
        """Store a schedule that another store had. `False`, and nothing is written, for a known schedule."""


class Messages(Protocol):
    """Messages to runs: sent by any process, taken by the process that drives the run (`RunWrites.takes`).

    An *open wait* is an action of a kind in `WAITS` without an outcome; the name of the action is the box.
    """

    def send(self, run: int, message: NewMessage) -> SendAnswer:
        """In ONE transaction, on disk: add a message to an unfinished run, under the next number of the run.

        With a key that an earlier message of the run and box has, nothing is written, and the answer is the earlier
        message, also after the end of the run. A run that has ended, was MOVED or was removed takes no message. A
        parked run with an open wait for the box is due at once. Sends to a run and commits of the run exclude each
        other, so a message comes before a park, which then sees the message, or after the park, which the send ends.
        """

    def message(self, run: int, box: str, key: str) -> Message | None:
        """The message with the key, taken or not. Must use an index."""

    def messages(self, run: int, box: str, *, above: int = 0, limit: int | None = None) -> list[Message]:
        """The untaken messages of a box with numbers above `above`, in order of number. Must use an index."""

    def all_messages(self, run: int) -> Iterator[Message]:
        """All messages of a run, in order of number. Read page by page."""

    def addressee(self, name: str, box: str) -> Addressee | None:
        """What the sender of a message has to know first; `None`: no run has the name. One round trip, as two processes
        wait for the message."""

    def news(self, wanted: Collection[Awaited]) -> dict[tuple[int, str], Message]:
        """By run and box: the first untaken message above the given number, where there is one. One seek in an index
        for each, in one round trip."""

    def hear(self, bell: Callable[[], None]) -> bool:
        """As `RunQueue.listen`, for messages: call `bell` as soon as messages may have been sent."""

    def open_waits(self) -> list[OpenWait]:
        """The open waits of unfinished runs, in order of run and action."""

    def unread(self) -> list[Unread]:
        """The untaken messages of unfinished runs, in order of run and box."""

    def publish(
        self, run: int, token: bytes, published: Sequence[Publication], streamed: Sequence[Streamed] = ()
    ) -> bool:
        """Let values replace the earlier values of their names, and add items to streams, if `token` still holds.
        Visible is enough. A commit publishes, too (`RunWrites.published`, `RunWrites.streamed`), with the other writes
        of the commit. The bell for messages rings."""

    def published(self, run: int) -> list[Publication]:
        """The latest values of a run, in order of the names."""

    def streamed(
        self, run: int, name: str, *, above: int = 0, limit: int | None = None, size: int | None = None
    ) -> list[Streamed]:
        """The items of a stream with numbers above `above`, in order of number. No item follows where the values have
        `size` bytes or more, so at least one item is there. Must use an index."""

    def last_streamed(self, run: int, name: str) -> Streamed | None:
        """The last item of a stream. Must use an index."""

    def all_streamed(self, run: int) -> Iterator[Streamed]:
        """The items of all streams of a run, in order of name and number. Read page by page."""


class Outbox(Protocol):
    """Events about runs for receivers outside of the store. Without a receiver no event is written.

    The end of a run as FAILED or ABORTED writes one event for each receiver of failures, in the transaction of the end,
    by whichever verb the run ends. An event leaves with its run (`Upkeep.remove`) or with its receiver.
    """

    def subscribe(self, subscription: Subscription) -> None:
        """Keep a receiver, or change its settings; `created_at` stays. Writes nothing where the settings are known. On
        disk."""

    def unsubscribe(self, name: str) -> bool:
        """Forget a receiver and the events for the receiver. `False`: there is no such receiver. On disk."""

    def subscriptions(self) -> list[Subscription]:
        """The receivers, in order of the names."""

    def note_event(self, run: int, kind: str, cause: str, at: int, detail: bytes | None) -> int:
        """Write an event for each receiver of its kind. A receiver that has the event of that run, kind and cause gets
        no second event. The number of new events. Visible is enough, because the caller finds the same event again."""

    def take_notice(self, subscription: str, token: bytes, now: int, until: int) -> Notice | None:
        """Lease the event of a receiver that is due longest: no other process gets the event before `until`. Visible is
        enough."""

    def next_notice(self, subscription: str) -> int | None:
        """When the first event of a receiver is due, or a lease ends (wall); `None`: no event is pending."""

    def settle_notice(
        self, id: int, token: bytes, state: NoticeState, due: int, error: str | None, *, failed: bool
    ) -> bool:
        """Write what became of an attempt; `failed` counts an attempt. `False`: the lease is over, and another process
        has leased or settled the event. Visible is enough."""

    def revive_notices(self, subscription: str, now: int) -> int:
        """Make the dead events of a receiver pending again; how many there were."""

    def notices(self, limit: int) -> list[Notice]:
        """Events for all receivers, the newest first."""

    def notice_counts(self) -> list[NoticeCount]:
        """The number of events of each receiver and state."""

    def noted_of_task(self, task: str, kind: str, cause: str) -> int | None:
        """When an event of that kind and cause was noted last for a run of the task (wall)."""


class Store(RunQueue, Queues, Limits, Journals, Messages, Upkeep, Moving, Schedules, Outbox, Protocol):
    """Where runs and journals live, in one database.

    Every method raises `perdure.errors.StoreError` (a subclass that says what to do) when the database cannot be used.
    No exception of a database driver crosses this border, `database is locked` included.
    """

    @property
    def id(self) -> str:
        """Random, fixed when the store was created."""

    @property
    def url(self) -> str:
        """The store's URL for people, without secrets."""

    @property
    def clock(self) -> Clock:
        """The clock for deadlines: a wall time that one process records means the same in every process that uses this
        store, also on another machine."""

    def close(self) -> None:
        """Release every connection. Further calls raise `StoreUnavailableError`. Idempotent."""


class Hold(Enum):
    """State of a worker's lock, as far as the asking process can tell."""

    FREE = "free"
    """The worker's process is gone, or has lost the lock and cannot get the lock back."""
    AT_WORK = "at work"
    """Held by a process of this machine that is not stopped: the worker's claims hold, even after the lease."""
    KEPT = "kept"
    """Held by a stopped process, or by a process of another machine: the worker's claims end with the lease."""
    UNKNOWN = "unknown"
    """No lock can be seen: the worker's claims end with the lease."""


class Liveness(Protocol):
    """A lock per worker that goes when the worker's process dies: of the operating system, or of a session."""

    def hold(self, worker: str) -> None:
        """Take this process's lock; held until `drop` or until the process dies, however it dies."""

    def drop(self, worker: str) -> None:
        """Release the lock and remove the lock's file."""

    def is_dead(self, worker: str) -> bool:
        """`True` only if the lock is `Hold.FREE`; `False` if the worker lives or the state is unknown. A fencing token
        protects a run if a live worker is taken for dead."""

    def hold_of(self, worker: str) -> Hold:
        """The state of the worker's lock. A process that computes in C code and lets no other thread run misses its
        heartbeats and keeps its lock."""

    def doubts(self, worker: str) -> bool:
        """Whether the worker looks dead and a moment later the answer will be certain."""


def blob_key(hash: str) -> str:
    """The key of a blob in a bucket. Pods read blobs under the key without perdure."""
    return f"sha256/{hash[:2]}/{hash}"


FilePlace = str | InTree
"""A file to be read or made: by path, or in an open tree that may be changing."""


class Blobs(Protocol):
    """Where the content of files lies: each content once, never changed, named by its SHA-256 in hexadecimal.

    Every method raises `UsageError` for a fault in a file or path of the user, and `StoreError` when a blob is missing
    or damaged (with blob and store) or the blob store cannot be used. No hash or name leads outside.
    """

    @property
    def url(self) -> str:
        """The URL for people, without secrets."""

    @property
    def root(self) -> str:
        """The directory for the data on this machine."""

    def put(self, sources: Sequence[FilePlace]) -> list[tuple[str, int]]:
        """Copy the files in; the hash and size of each. On disk. Links on the way to a path are followed.

        Streamed, and an independent copy: a later change of a source changes no blob. A source that changes during the
        copy is copied again, or refused. A crash leaves no partial blob under a hash.
        """

    def put_bytes(self, data: bytes) -> str:
        """Keep bytes from memory; the hash."""

    def take(self, hash: str, size: int, url: str) -> bool:
        """Keep the object at `url` with that content, without a transfer to this machine. `False` if that is not
        possible; then nothing was done."""

    def open(self, hash: str, size: int) -> BinaryIO:
        """A stream of the content."""

    def start(self, hash: str, size: int, length: int) -> bytes:
        """The first bytes of the content, at most `length`. The rest of the content is not transferred."""

    def read(self, hash: str) -> bytes:
        """The whole of a small blob, checked against its hash."""

    def copy(self, hash: str, size: int, to: FilePlace, *, executable: bool = False) -> None:
        """Write the content to `to` as a file of the user, in place of any file there: whole or not at all. The
        directory of `to` must exist."""

    def link(self, hash: str, size: int, to: str, *, executable: bool = False) -> None:
        """Make a read-only file with the content at `to`, where no file is yet. Shares the store's copy if possible."""

    def path(self, hash: str, size: int, name: str) -> str:
        """The path of a local, read-only file of that name and content, kept by the store. Copies nothing if
        possible."""

    def tree(self, hash: str, name: str, fill: Callable[[str], None]) -> str:
        """The path of a local directory of that name, kept by the store. A missing directory is made: `fill` puts the
        content into an empty directory, which is then moved into place, whole or not at all."""

    def fetched(self, key: str, size: int, hash: str, fetch: Callable[[str], None]) -> str:
        """Keep content from a URL of the user on this machine, where the methods above find the content; the hash.

        Counts as a put of this moment. The content stays on this machine.

        Args:
            key: identifies the object, as 64 hexadecimal digits.
            hash: the expected hash; empty if unknown.
            fetch: completes a file that may hold the beginning of the content. Not called if the content is there.
        """

    def older(self, before: int) -> Iterator[tuple[str, int]]:
        """Hash and size of the blobs that were last put, or refreshed, before `before` (wall, microseconds).

        A put of present content counts too, to the minute.
        """

    def refresh(self, hashes: Iterable[str]) -> None:
        """Count the blobs as put now; missing blobs are ignored."""

    def remove(self, hashes: Sequence[str], before: int) -> list[bool]:
        """Remove the blobs and all data made of them, except blobs that were put since `before`; whether each went.

        Never between a `put` that finds the content and the refresh that belongs to the put. A kill at any moment
        leaves a blob whole or removed, and a second removal finishes the work.
        """

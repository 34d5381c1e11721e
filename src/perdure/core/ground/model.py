"""The records that are stored, their legal values and their units; frozen, free of I/O.

Everything durable about a run is one `RunRow`, its `Entry` records (the journal, stored as segments) and one `Action`
row for each task, container, sleep or timeout that was *started*. An entry is written once, when its outcome is known.
`Entry.n` counts a run's entries in commit order, and replay follows this order.

Times: `..._at` are microseconds since the Unix epoch (wall clock), `..._boot` microseconds since boot, `took` is
microseconds of duration. An entry of a run is found by (action, branch, fp, occ); (branch, seq) is the position of the
call. See docs/development/replay.md#identity.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum, StrEnum
from typing import Final, NamedTuple

from msgspec import Struct

ROOT = 0
"""The action number of a run's root task. The parent of the root task is `NO_PARENT`."""
NO_PARENT = -1


class Status(StrEnum):
    """A run's status as shown to people.

    The database stores the values in `STORED_STATUSES`. A stored SLEEPING or WAITING means parked: no process holds the
    run. A SLEEPING run waits for a recorded deadline, a WAITING run for a message too. A stored RUNNING is shown as
    SLEEPING or WAITING while the driving process only waits in the same way, and as INTERRUPTED (never stored) while no
    process drives the run. An unfinished run that is paused (`RunRow.paused`) and has no driver is shown as PAUSED
    (never stored).
    """

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SLEEPING = "SLEEPING"
    WAITING = "WAITING"
    INTERRUPTED = "INTERRUPTED"
    PAUSED = "PAUSED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    CANCELLED = "CANCELLED"
    MOVED = "MOVED"


STORED_STATUSES = tuple(status for status in Status if status not in (Status.INTERRUPTED, Status.PAUSED))
FINISHED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.ABORTED, Status.CANCELLED})
"""The run has ended. A MOVED run is over for this store too, but another store continues the run."""
PARKED = (Status.SLEEPING, Status.WAITING)
"""The run has left memory, with the claim given back, until its wake time or until a message for the run comes."""
UNDRIVEN = (Status.QUEUED, *PARKED)
"""No worker drives the run yet. The run has a wake time, from which on a worker may claim the run."""
UNFINISHED = (Status.RUNNING, *UNDRIVEN)
"""The stored statuses of a run that has not ended and was not moved."""


class Kind(IntEnum):
    """What a durable call is."""

    TASK = 1
    TRACE = 2
    SLEEP = 3
    TIME = 4
    NOW = 5
    UUID = 6
    RANDOM = 7
    TIMEOUT = 8
    CONTAINER = 9
    CONDITION = 10
    RECEIVE = 11
    PATCH = 12


WAITS = (Kind.CONDITION, Kind.RECEIVE)
"""The kinds of calls that wait for a message. The name of the call, and of its action, is the box of the message."""


class Result(IntEnum):
    """The kind of an entry.

    `VALUE`, `ERROR`, `ITEM` (one item of a generator) and `END` (the generator is exhausted) are delivered to user
    code. `CANCELLED`: user code cancelled the call; on replay the call stays pending until cancelled again. `CLOSED`:
    the consumer closed a generator early; nothing to deliver. `FIRED`: a `durable.timeout` ran out. Four results are
    about other entries. `LOOSEN`: entries from number `seq` up to here are reused where a call asks for them, in any
    order, and no call has to ask. `FAILED`: an attempt has failed or was cancelled; like `LOOSEN`, and a generator
    that had not ended is executed from its beginning by the next attempt. `DISCARD`: a tombstone, entry number `seq`
    no longer counts. `REUSE`: entry number `seq` was delivered again here. `NOTE` carries `notes` where no other entry
    is about to be written. `PATCH` holds the answer of a body to `perdure.patched` of that name: a fact about the body,
    which is delivered to no call and outlives failed attempts.
    """

    VALUE = 0
    ERROR = 1
    CANCELLED = 2
    ITEM = 3
    END = 4
    CLOSED = 5
    FIRED = 6
    LOOSEN = 7
    DISCARD = 8
    REUSE = 9
    NOTE = 10
    FAILED = 11
    PATCH = 12


# As constants of the module for hot paths: Python 3.11 finds a member of an enum through a hook of the enum's class,
# which takes longer than a call.
VALUE: Final = Result.VALUE
ERROR: Final = Result.ERROR
CANCELLED: Final = Result.CANCELLED


ENDS: Final[dict[int, Status]] = {
    Result.VALUE: Status.SUCCEEDED,
    Result.ERROR: Status.FAILED,
    Result.CANCELLED: Status.CANCELLED,
}
"""The statuses of ended runs by their results."""


class Entry(Struct, array_like=True, frozen=True, gc=False):
    """One entry of a run's journal."""

    action: int
    """The action in whose body the call was made."""
    n: int
    """Position in the run's commit order, from 1; unique within the run."""
    branch: int
    """Signed 64-bit hash of the branch's path in the body; 0 is the body's root branch."""
    seq: int
    """Position of the call in the branch, from 0; for LOOSEN, FAILED, DISCARD and REUSE another entry's number."""
    occ: int
    """How many calls of the same fingerprint came before in this branch."""
    item: int
    """The index of a generator's item, otherwise 0."""
    kind: int
    result: int
    fp: bytes
    """Fingerprint: 16 bytes over kind, qualified name and canonical arguments."""
    name: str
    """Qualified name for people, such as `etl.fetch`."""
    label: str | None
    """The innermost `perdure.group` around the call."""
    value: bytes | None
    """The encoded outcome. Of `FAILED`: the error of an attempt that is tried again, which no replay reads."""
    inputs: bytes | None
    """The encoded arguments, for people; `None` for no arguments or long arguments."""
    source: int
    """Number of the source snapshot of the writing process."""
    child: int | None
    """The number of the action that the call started, if any."""
    after: int | None
    """Set for an outcome that was answered out of turn: the outcome came right after entry `after`."""
    at: int
    """When execution began (wall, microseconds)."""
    took: int
    """Duration (microseconds)."""
    begun: int = 0
    """The number of the last entry that had been delivered to the body at the time of the call."""
    notes: bytes | None = None
    """What has moved the body since its last entry and has no entry of its own: `journal.replay.Event`s, encoded."""


class Segment(Struct, frozen=True):
    """The entries of one commit of a run, encoded (`core.journal.segment`)."""

    number: int
    """The number of the last entry."""
    data: bytes


class Ended(NamedTuple):
    """Whether an action has an outcome that counts."""

    parent: int
    action: int
    ended: bool
    """`False`: the outcome was discarded, so the action is open again."""


class Action(NamedTuple):
    """A started task, container, sleep, timeout or wait for a message. The outcome is the entry with this action as
    `child`."""

    run: int
    parent: int
    action: int
    """Numbered from 0 (the root task) within the run."""
    branch: int
    seq: int
    occ: int
    kind: int
    fp: bytes
    name: str
    label: str | None
    inputs: bytes | None
    source: int
    at: int
    attempt: int
    """The number of the current attempt, from 1. A crash counts if the row was on disk by then."""
    failures: int
    """Attempts that failed and were charged to the user's `retries`."""
    wake_at: int | None
    """Deadline of a sleep, a backoff or a timeout (wall, microseconds)."""
    wake_boot: int | None
    """The same deadline since boot `boot` (microseconds); valid within the same boot only."""
    boot: str | None
    begun: int = 0
    """As `Entry.begun`."""
    state: bytes | None = None
    """State of a detached attempt: the data that a process needs to join the attempt. `wake_at` is then the deadline of
    the attempt's timeout."""


class ActionState(NamedTuple):
    """New values for the changing fields of an `Action`."""

    run: int
    parent: int
    action: int
    attempt: int
    failures: int
    wake_at: int | None
    wake_boot: int | None
    boot: str | None
    state: bytes | None = None


class Claim(NamedTuple):
    """The right to drive a run: the worker, and the fencing token that every write must carry (P3)."""

    token: bytes
    worker: str


class NewRun(NamedTuple):
    """A run as it is submitted."""

    uid: bytes
    """16 random bytes; unique over all stores."""
    name: str
    task: str
    """The task's full name for people, such as `etl.main`."""
    target: str
    """Where the code is: `file::logical.module::QualName`; `file` is empty for code without a file (a
    notebook). A run whose module had other names has those behind a further `::` (`spec.Target`)."""
    inputs: bytes
    inputs_hash: bytes
    """16 bytes over the canonical inputs; equal inputs, equal hash."""
    created_at: int
    reuse: str | None = None
    """For `rerun --recover`: the name of the run whose outcomes may be reused."""
    tags: str | None = None
    """The run's tags as a JSON object of strings with sorted keys; `None`: the run has none."""
    queue: str | None = None
    """The name of the queue that a worker takes the run from; `None`: the run waits for no slot."""
    key: str = ""
    """The key in the queue."""
    priority: int = 0
    """Runs of a higher priority leave a queue with priorities earlier."""
    carried: bytes | None = None
    """The submitter's context that goes with the run (`ground.carrying`); `None`: nothing was set."""


class RunRow(NamedTuple):
    """A run as it is stored. `status` is one of `STORED_STATUSES`."""

    id: int
    uid: bytes
    name: str
    task: str
    target: str
    inputs: bytes
    inputs_hash: bytes
    created_at: int
    reuse: str | None
    status: Status
    token: bytes | None
    worker: str | None
    """The worker with the claim; for a MOVED run the URL of the new store."""
    started_at: int | None
    ended_at: int | None
    result: int | None
    """`Result.VALUE`, `Result.ERROR` or `Result.CANCELLED` after an end without an abort."""
    value: bytes | None
    crashes: int
    """Claims in a row without a new entry."""
    mark: int
    """The journal's length when the run was last claimed, parked or finished."""
    wake_at: int | None
    """The wake time of a run in `UNDRIVEN`; otherwise `None`."""
    cancel: str | None = None
    """The reason of the request to cancel the run; `None`: there is no such request."""
    cancel_until: int | None = None
    """When the time for cleaning up is over after such a request (wall); `None`: there is no limit."""
    tags: str | None = None
    """As `NewRun.tags`."""
    paused: int | None = None
    """Since when the run is paused (wall); `None`: the run is not paused."""
    queue: str | None = None
    key: str = ""
    priority: int = 0
    carried: bytes | None = None
    """As in `NewRun`."""


class Wake(NamedTuple):
    """The moment from which on a run may be driven, on both clocks of the writing process."""

    at: int
    """Wall."""
    boot: int
    """Since the current boot; may be negative."""


NEVER = 1 << 59
"""Wake times from here on (wall) belong to runs that a message alone can wake."""


class Park(NamedTuple):
    """A run leaves memory until the wake time, the claim given back: SLEEPING, or WAITING if a message may come
    first."""

    wake: Wake
    mark: int
    """The journal's length."""
    waits: bool = False
    """Whether the run waits for a message."""
    aware: bool = False
    """The run's code has been told of a request to cancel the run, if there is one. Otherwise the run is due now."""
    tickets: tuple[tuple[str, int], ...] = ()
    """The limits that the run waits for, with the numbers of the tickets."""


class Taken(NamedTuple):
    """A run that was due and has been claimed."""

    run: RunRow
    woken: bool
    """Whether the run was parked rather than QUEUED."""
    known: tuple[list[Segment], list[Action]] | None = None
    """For a parked run with a short journal: the journal, the action of the root task, and the actions under the root
    task."""


class Finish(NamedTuple):
    """The end of a run."""

    status: Status
    result: int
    value: bytes
    ended_at: int


class CachePut(NamedTuple):
    """A cached task outcome, shared by all runs of a store."""

    key: bytes
    value: bytes
    at: int


class NewMessage(NamedTuple):
    """A message as it is sent to a run."""

    box: str
    """`condition:NAME` or `mailbox:NAME`."""
    key: str | None
    """Two messages of one run and box with the same key are one message. A condition has the empty key."""
    value: bytes
    """The encoded value."""
    at: int
    """When the message was sent (wall, microseconds)."""


class Message(NamedTuple):
    """A message of a run as it is stored."""

    number: int
    """Position in the commit order of the messages of the run, from 1."""
    box: str
    key: str | None
    value: bytes
    at: int
    taken: int | None
    """The number of the entry that holds the message as an outcome; for a condition, the first such entry."""


class Addressee(NamedTuple):
    """The run that a message goes to, as a sender needs it."""

    run: int
    """The number of the run."""
    waits: bool
    """Whether an open wait of the run waits for the box."""
    asked: bytes | None
    """The inputs of the first such wait, which say the type of the message."""


class Awaited(NamedTuple):
    """What calls of a run wait for."""

    run: int
    box: str
    above: int
    """The calls want a message with a higher number."""


class SendAnswer(NamedTuple):
    """The answer to `Store.send`."""

    message: Message | None
    """The message as stored: the sent message, or an earlier message with the key. `None`: the run accepts none."""
    fresh: bool
    """Whether the sent message is stored now."""
    run: RunRow | None
    """The run that takes no message; `None`: there is no such run, or the message is stored."""
    woken: bool = False
    """Whether a parked run is due now because of the message."""


class Publication(NamedTuple):
    """The latest value of a name of a run, published by the run."""

    name: str
    value: bytes
    at: int
    """When the value was published (wall, microseconds)."""


class Streamed(NamedTuple):
    """An item of a stream that a run writes, or the end of the stream."""

    name: str
    number: int
    """The position in the stream, from 1. The store gives the number; 0 on the way there."""
    attempt: int
    """How often the writer had begun the stream, from 1."""
    value: bytes | None
    """`None`: the writer has closed the stream."""
    at: int
    """When the item was written (wall, microseconds)."""


class Take(NamedTuple):
    """A message is taken by an entry of the same commit, or given back by a cancellation in the same commit."""

    number: int
    """The number of the message."""
    entry: int | None = 0
    """The number of the entry, filled in by the writer; `None`: the message is given back."""


class OpenWait(NamedTuple):
    """A call of an unfinished run that waits for a message."""

    run: str
    """The name of the run."""
    action: Action


class ScheduleRow(NamedTuple):
    """A schedule as it is stored."""

    key: str
    """The name of the schedule, a space, and the definition of the times."""
    at: int
    """The time up to which firings have been considered (wall, microseconds)."""
    paused: int | None = None
    """Since when the schedule is paused (wall, microseconds)."""
    fired: int | None = None
    """The newest firing that has, or had, a run (wall, microseconds)."""


def schedule_name(key: str) -> str:
    """The name in the key of a schedule. Schedules of one name are paused together."""
    return key.partition(" ")[0]


class QueueSettings(Struct, frozen=True, omit_defaults=True):
    """The limits and the order of a queue; as JSON in the store."""

    concurrency: int | None = None
    """How many runs hold a slot at once; `None`: any number."""
    per_worker: int | None = None
    """How many runs one worker holds at once."""
    per_key: int | None = None
    """How many runs of one key hold a slot at once."""
    starts: int | None = None
    """How many runs start within `per` microseconds."""
    per: int = 0
    order: str = "fifo"
    """`fifo`, `priority` or `fair`."""
    aging: int = 0
    """A priority counts as waiting for so long (microseconds)."""
    when_full: str = "wait"
    """What becomes of a run that is submitted while the queue is full: `wait`, `skip`, `replace` or `latest`."""


class QueueRow(NamedTuple):
    """A queue as it is stored."""

    name: str
    declared: str
    """The `QueueSettings` of the code, as JSON."""
    override: str | None
    """Settings of an operator in place of those of the code, as a JSON object; `None`: there are none."""
    paused: int | None
    """Since when no run leaves the queue (wall, microseconds)."""
    turn: int
    """The newest turn that was given to a lane (see `store._queues`)."""


class QueueLoad(NamedTuple):
    """How many runs hold a slot of a queue, and how many wait for a slot."""

    held: int
    waiting: int


class LimitSettings(Struct, frozen=True, omit_defaults=True):
    """What a limit of calls allows; as JSON in the store."""

    concurrency: int | None = None
    """How many calls hold a slot at once; `None`: any number."""
    starts: int | None = None
    """How many calls take a slot within `per` microseconds."""
    per: int = 0
    cost: int | None = None
    """The largest sum of the costs of the calls that take a slot within `cost_per` microseconds."""
    cost_per: int = 0


class LimitRow(NamedTuple):
    """A limit of calls as it is stored."""

    name: str
    declared: str
    """The `LimitSettings` of the code, as JSON."""
    override: str | None
    """Settings of an operator in place of those of the code, as a JSON object; `None`: there are none."""
    ticket: int
    """The number of the newest ticket."""
    uses: int
    """The number of the newest use that the rates count."""


class LimitLoad(NamedTuple):
    """How many calls hold a slot of a limit, and how many wait for a slot."""

    held: int
    waiting: int


class Ask(NamedTuple):
    """A call asks for a slot of a limit."""

    name: str
    """The name of the limit."""
    run: int
    token: bytes
    """The claim under which the call is driven: a slot is held only while the run has this claim."""
    place: bytes
    """Identifies the call within the run, in every life of the run."""
    task: str
    """The name of the run's task."""
    cost: int
    since: int
    """When the call began to wait (wall, microseconds)."""


class Ticket(NamedTuple):
    """The answer to `Ask`."""

    number: int
    """The place among the calls that wait for the limit: lower numbers come first."""
    held: bool
    """Whether the call holds a slot."""


class Turn(NamedTuple):
    """What has become of tickets."""

    held: set[tuple[str, int, bytes]]
    """The tickets that hold a slot: limit, number, and the token of the claim."""
    delays: dict[str, int]
    """In how many microseconds the rates of a limit let the next call take a slot."""


class FreedSlot(NamedTuple):
    """A slot, or a place among the calls that wait, is given back."""

    name: str
    number: int
    used: int | None = None
    """What the call has really cost; `None`: what was asked for."""


class Queued(NamedTuple):
    """A call of a run that waits for a slot."""

    name: str
    since: int
    """When the call began to wait (wall, microseconds)."""
    ahead: int
    """How many calls wait in front."""


class Unread(NamedTuple):
    """Messages of an unfinished run that no call has taken."""

    run: str
    box: str
    total: int
    since: int
    """When the oldest of the messages was sent."""


class RunWrites(Struct, frozen=True):
    """The writes of one driver for one run. All are written, or none if the run has another token. A struct, because
    one is made for each commit of a run."""

    run: int
    token: bytes
    segments: Sequence[Segment] = ()
    actions: Sequence[Action] = ()
    states: Sequence[ActionState] = ()
    cache: Sequence[CachePut] = ()
    finish: Finish | None = None
    park: Park | None = None
    ends: Sequence[Ended] = ()
    """Actions that get or lose an outcome with the segments."""
    sources: Sequence[int] = ()
    """Source snapshots that the journal refers to from now on."""
    takes: Sequence[Take] = ()
    """Messages that the entries of the segments take."""
    published: Sequence[Publication] = ()
    """Values that replace the earlier values of their names."""
    streamed: Sequence[Streamed] = ()
    """Items behind the earlier items of their streams."""
    frees: Sequence[FreedSlot] = ()
    """Slots that are given back with the outcomes in the segments."""

    @property
    def tells(self) -> bool:
        """Whether a reader of streams or published values waits for the write."""
        return bool(self.published or self.streamed)

    def only(self) -> Segment | Finish | None:
        """The segment, or the end of the run, if there is nothing else to write: a single statement is enough then."""
        if self.actions or self.states or self.ends or self.sources or self.cache or self.takes:
            return None
        if self.published or self.streamed or self.frees or self.park is not None:
            return None
        if self.finish is None:
            return self.segments[0] if len(self.segments) == 1 else None
        return None if self.segments else self.finish


class CreateRun(NamedTuple):
    """Submit a run: RUNNING at once with a claim, otherwise QUEUED."""

    new: NewRun
    claim: Claim | None
    due: Wake | None = None
    """The wake time of a QUEUED run; at once by default."""


class Policy(NamedTuple):
    """What a submission looks at beside the name of the run (`store._submitting`). All times in microseconds."""

    key: str | None = None
    """Runs of one task and key are one series."""
    keep: int | None = None
    """For so long after its submission the run holds the key, also where the run has ended."""
    debounce: int = 0
    """The run waits for so long, and for the next submission of the key to take its place."""
    throttle: int = 0
    """Runs of the key begin so far apart."""
    when_full: str | None = None
    """As `QueueSettings.when_full`; `None`: as the queue is set."""
    start_by: int | None = None
    """The run begins before that time (wall), or never."""


class Created(NamedTuple):
    """The answer to `CreateRun`: the run of the name, and whether the run is the submitted run."""

    run: RunRow
    fresh: bool


class WholeRun(NamedTuple):
    """A run with all rows, on the way into another store."""

    run: RunRow
    """Number, claim and worker are ignored by the other store."""
    segments: Sequence[Segment]
    actions: Sequence[Action]
    due: Wake | None
    """When a run in `UNDRIVEN` is to be driven."""
    ended: Sequence[Ended] = ()
    """The actions that have an outcome."""
    sources: Collection[int] = ()
    """The source snapshots that the segments refer to, by their numbers in the store that takes the run."""
    messages: Sequence[Message] = ()
    published: Sequence[Publication] = ()
    streamed: Sequence[Streamed] = ()


class Checked(NamedTuple):
    """The result of `Store.check`."""

    facts: dict[str, str]
    """For people: name and value."""
    problems: list[str]
    """One sentence for each problem, with the remedy; empty for a healthy store."""


class EndedRun(NamedTuple):
    """The fields of a finished run that a removal needs."""

    id: int
    uid: bytes
    name: str
    status: Status
    ended_at: int


class Source(NamedTuple):
    """A snapshot of the code under a run's code root (docs/development/replay.md#look-up)."""

    digest: bytes
    python: str
    """Major and minor version."""
    modules: dict[str, bytes]
    """Logical module name to the hash of the code."""


class NewRefusal(NamedTuple):
    """Why a process could not drive a run: told with the release of the run."""

    worker: str
    """The worker that could not drive the run."""
    error: str
    """The class of the error, with its module unless the class is perdure's own."""
    message: str
    """The whole message."""
    place: str
    """File, line and function of the user's code that met the error; empty if unknown."""
    at: int
    """Wall clock, microseconds."""
    again: int | None
    """When the worker tries again (wall clock, microseconds); `None`: the worker does not."""


class Refusal(NamedTuple):
    """Why the last process that tried could not drive a run."""

    worker: str
    error: str
    message: str
    place: str
    at: int
    again: int | None
    tries: int
    """Attempts in a row that were refused without a new entry in between."""
    entries: int
    """The length of the journal at the refusal."""


class WorkerRow(NamedTuple):
    """A process that drives runs."""

    id: str
    pid: int
    host: str
    boot: str
    lease: int
    """For how long the worker's claims hold (microseconds), by the store's clock; zero or less after the end."""
    started_at: int
    serves: str = ""
    """The tasks that the worker serves and its places for runs, as the JSON of a `Serving`; empty: the process drives
    only what the process itself begins or resumes."""


class NoticeKind(StrEnum):
    """What an event in the outbox is about."""

    FAILURE = "failure"
    """The run has ended as FAILED or ABORTED."""
    STUCK = "stuck"
    """The run does not move, and no recorded deadline or message changes that."""
    WAITING = "waiting"
    """The run waits for a condition that a person or another program signals."""


class NoticeState(IntEnum):
    """What became of an event for a receiver."""

    PENDING = 0
    DELIVERED = 1
    DEAD = 2
    """Given up after too many attempts."""


class Subscription(NamedTuple):
    """A receiver of events."""

    name: str
    kinds: str
    """Names of `NoticeKind`, with commas in between."""
    task: str | None
    """The receiver hears of runs of this task alone; `None`: of all runs."""
    hook: str | None
    """The task that is submitted for each event; `None`: a program delivers the events."""
    filter: str
    """What the program that delivers looks at, as JSON."""
    created_at: int


class Notice(NamedTuple):
    """An event for a receiver, as it is stored."""

    id: int
    subscription: str
    run: int
    kind: str
    cause: str
    """Tells two events of a kind and a run apart; equal for one event that several processes see."""
    at: int
    status: str
    """The stored status of the run at that moment."""
    detail: bytes | None
    """The encoded error of a failure; otherwise JSON."""
    state: int
    due: int
    """The time of the next attempt, or the end of a lease (wall)."""
    attempts: int
    """How many attempts have failed."""
    error: str | None
    """Why the last attempt failed."""


class NoticeCount(NamedTuple):
    """How many events a receiver has in a state."""

    subscription: str
    state: int
    number: int
    oldest: int
    """The time of the oldest of these events (wall)."""


class Serving(Struct):
    """What a worker serves."""

    tasks: list[str]
    """Full names, former names included."""
    places: int
    """Runs in memory at most."""

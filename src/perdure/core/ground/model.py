"""The records that are stored, their legal values and their units; frozen, free of I/O.

Everything durable about a run is one `Run`, its `Entry` records (the journal, stored as segments) and one `Action` row
for each task, container, sleep or timeout that was *started*. An entry is written once, when its outcome is known.
`Entry.n` counts a run's entries in commit order; that order is the truth that replay follows.

Times: `..._at` are microseconds since the Unix epoch (wall clock), `..._boot` microseconds since boot, `took` is
microseconds of duration. An entry of a run is found by (action, branch, fp, occ); (branch, seq) is the position of the
call. See docs/development/replay.md#identity.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from enum import IntEnum, StrEnum
from typing import NamedTuple

from msgspec import Struct

ROOT = 0
"""The action number of a run's root task; its parent is `NO_PARENT`."""
NO_PARENT = -1


class Status(StrEnum):
    """A run's status as people see it. Stored is what `STORED_STATUSES` lists: `SLEEPING` a run that is parked, so that
    no process holds it. A RUNNING one is seen as SLEEPING where its process has nothing to do but wait for a recorded
    deadline, and as INTERRUPTED (which is never stored) where no process drives it."""

    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    SLEEPING = "SLEEPING"
    INTERRUPTED = "INTERRUPTED"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    ABORTED = "ABORTED"
    MOVED = "MOVED"


STORED_STATUSES = tuple(status for status in Status if status is not Status.INTERRUPTED)
FINISHED = frozenset({Status.SUCCEEDED, Status.FAILED, Status.ABORTED})
"""The run has ended here. A MOVED one is over for this store as well, but is carried on in another."""
WAITING = (Status.QUEUED, Status.SLEEPING)
"""Nobody drives such a run, and it has a time from which on somebody should."""


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


class Result(IntEnum):
    """What an entry holds.

    `VALUE`, `ERROR`, `ITEM` (one item of a generator) and `END` (the generator is exhausted) are delivered to user
    code. `CANCELLED`: user code cancelled the call; on replay it stays pending until it is cancelled again. `CLOSED`:
    a generator that its consumer closed early; nothing to deliver. `FIRED`: a `durable.timeout` ran out. The next
    three are about other entries: `LOOSEN` (from entry number `seq` on, what was recorded before this row is reused
    where it is asked for, but no longer has to be asked for in that order), `DISCARD` (a tombstone: entry number
    `seq` no longer counts) and `REUSE` (entry number `seq` was handed out again here). `NOTE` says nothing but its
    `notes`, where no other entry is about to be written that could carry them along.
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


class Entry(Struct, array_like=True, frozen=True, gc=False):
    """One entry of a run's journal."""

    action: int
    """The action in whose body the call was made."""
    n: int
    """Position in the run's commit order, from 1; unique within the run."""
    branch: int
    """Signed 64-bit hash of the branch's path in the body; 0 is the body's root branch."""
    seq: int
    """Position of the call in its branch, from 0; for LOOSEN, DISCARD and REUSE the entry number they speak of."""
    occ: int
    """How many calls of the same fingerprint came before in this branch."""
    item: int
    """The index of a generator's item; 0 for everything else."""
    kind: int
    result: int
    fp: bytes
    """Fingerprint: 16 bytes over kind, qualified name and canonical arguments."""
    name: str
    """Qualified name for people, such as `etl.fetch`."""
    label: str | None
    """The innermost `perdure.group` around the call."""
    value: bytes | None
    """The encoded outcome."""
    inputs: bytes | None
    """The encoded arguments, for people; `None` where there are none or they are long."""
    source: int
    """Id of the source snapshot under which this was written."""
    child: int | None
    """The number of the action that this call started, if it started one."""
    after: int | None
    """Set where the caller saw this outcome out of turn: right after entry `after` had been delivered."""
    at: int
    """When execution began (wall, microseconds)."""
    took: int
    """How long it took (microseconds)."""
    begun: int = 0
    """The number of the entry that had been delivered to the body last when this call was made."""
    notes: bytes | None = None
    """What has moved the body since its last entry and has no entry of its own: `journal.replay.Event`s, encoded."""


class Segment(NamedTuple):
    """The entries of one commit of a run, encoded (`core.journal.segment`)."""

    number: int
    """The number of its last entry."""
    data: bytes


class Ended(NamedTuple):
    """Whether an action has an outcome that counts."""

    parent: int
    action: int
    ended: bool
    """`False`: its outcome was discarded, so the action is open again."""


class Action(NamedTuple):
    """A started task, container, sleep or timeout. Its outcome is the entry whose `child` is this action."""

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
    """The number of the current attempt, from 1 (crashes included)."""
    failures: int
    """Attempts that failed and were charged to the user's `retries`."""
    wake_at: int | None
    """Deadline of a sleep, a backoff or a timeout (wall, microseconds)."""
    wake_boot: int | None
    """The same deadline since boot `boot` (microseconds); valid within that boot only."""
    boot: str | None
    begun: int = 0
    """As `Entry.begun`."""
    state: bytes | None = None
    """What it takes to join the current attempt where it runs outside of the process that started it; `wake_at` is
    then the deadline of its timeout."""


class ActionState(NamedTuple):
    """An update of an `Action`'s changing half."""

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
    """The right to drive a run: who, and the random token that every write must carry (P3)."""

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
    """Where the code is: `file::logical.module::QualName`; `file` is empty for code without a file (a notebook)."""
    inputs: bytes
    inputs_hash: bytes
    """16 bytes over the canonical inputs; equal inputs, equal hash."""
    created_at: int
    reuse: str | None = None
    """For `rerun --recover`: the name of the run whose outcomes may be reused."""


class Run(NamedTuple):
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
    """Who has claimed it; of a MOVED run the URL of the store that has it now."""
    started_at: int | None
    ended_at: int | None
    result: int | None
    """`Result.VALUE` or `Result.ERROR` once the run has ended by itself."""
    value: bytes | None
    crashes: int
    """Claims in a row that brought no new entry."""
    mark: int
    """The journal's length when the run was last claimed, parked or finished."""
    wake_at: int | None
    """From when on a QUEUED or SLEEPING run is to be driven; `None` for every other."""


class Wake(NamedTuple):
    """A moment at which a run is to be driven (again), on both clocks of the process that names it."""

    at: int
    """Wall."""
    boot: int
    """Since this boot; may lie before it."""


class Park(NamedTuple):
    """A run leaves memory: SLEEPING, its claim given back, until its wake time."""

    wake: Wake
    mark: int
    """The journal's length."""


class Taken(NamedTuple):
    """A run that was due and has been claimed."""

    run: Run
    woken: bool
    """Whether it was SLEEPING, rather than QUEUED."""
    known: tuple[list[Segment], list[Action]] | None = None
    """Of a SLEEPING run with a short journal: all of the journal, and the actions of the root task and those that its
    body has started."""


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


class RunWrites(NamedTuple):
    """What one driver commits for one run: all of it or, if the token is no longer the run's, nothing of it."""

    run: int
    token: bytes
    segments: Sequence[Segment] = ()
    actions: Sequence[Action] = ()
    states: Sequence[ActionState] = ()
    cache: Sequence[CachePut] = ()
    finish: Finish | None = None
    park: Park | None = None
    ends: Sequence[Ended] = ()
    """Actions that get, or lose, their outcome with these segments."""
    sources: Sequence[int] = ()
    """Source snapshots that the journal refers to from now on."""


class CreateRun(NamedTuple):
    """Submit a run; with a claim it is RUNNING under that claim at once, else QUEUED."""

    new: NewRun
    claim: Claim | None
    due: Wake | None = None
    """From when on a QUEUED run may be claimed by `take_due`; at once by default."""


class Created(NamedTuple):
    """The answer to `CreateRun`: the run under that name, and whether it is the one just submitted."""

    run: Run
    fresh: bool


class WholeRun(NamedTuple):
    """A run with all that is stored of it, on its way into another store."""

    run: Run
    """Its number, claim and worker count for nothing there."""
    segments: Sequence[Segment]
    actions: Sequence[Action]
    due: Wake | None
    """When a QUEUED or SLEEPING run is to be driven."""
    ended: Sequence[Ended] = ()
    """The actions that have an outcome."""
    sources: Collection[int] = ()
    """The source snapshots that the segments refer to, by their numbers in the store that takes the run."""


class Checked(NamedTuple):
    """What a look at a store has found."""

    facts: dict[str, str]
    """For people: what, and what of it."""
    problems: list[str]
    """A sentence each, with the remedy; empty in a healthy store."""


class EndedRun(NamedTuple):
    """What is to be known of a finished run in order to remove it."""

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
    """Logical module name to the hash of its code."""


class Worker(NamedTuple):
    """A process that drives runs."""

    id: str
    pid: int
    host: str
    boot: str
    lease: int
    """How long its claims hold from now on (microseconds); as it is read, by the store's clock: zero or less, they have
    run out."""
    started_at: int

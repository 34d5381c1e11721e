"""The activity of a body: counters of the event loop, the threads that execute the body's code, and the sources of
events (plain timers, jobs in executors).

Futures alone cannot tell whether a body is quiet: a plain timer, a socket and a durable wait all look like a pending
future. So the event loop counts for each body. The loop knows a body through this module alone.

Owners: `active`, `timers`, `descriptors`, `subprocesses` and `tasks` belong to the thread of the body's loop. `_lock`
guards the sets of threads; any thread holds the lock briefly.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from ..journal.replay import EventKey, EventKind
from .branch import Branch
from .interfaces import LoopPort
from .scope import Slot

ErrorHandler = Callable[[asyncio.AbstractEventLoop, dict[str, Any]], object]


class Activity:
    """See the module text. `Body` adds what may be handed over, and when."""

    loop: LoopPort
    root: Branch
    stopped: bool

    def __init__(self) -> None:
        self.active = 0
        """Callbacks of this body that are ready or running."""
        self.timers = 0
        """Plain timers that are pending."""
        self.descriptors = 0
        """File descriptors that the loop watches for this body."""
        self.subprocesses: list[Any] = []
        self.tasks: list[asyncio.Task[Any]] = []
        """The asyncio tasks of this body; finished ones are swept out now and then."""
        self.error_handler: ErrorHandler | None = None
        """The handler that the body has given to the loop's `set_exception_handler`."""
        self.stirred = False
        """Something may be handed over once the body is quiet."""
        self.blocked = 0
        """Synchronous calls of this body that block its loop right now (nested)."""
        self.inside: set[Slot] = set()
        """The threads that execute code of the body, or will."""
        self.running: set[Slot] = set()
        """The threads of `inside` that compute."""
        self.jobs = 0
        """Jobs in executors that perdure cannot look into."""
        self.joining = 0
        """Threads that wait for something that the body does elsewhere and that nothing else shows."""
        self._joins: dict[Future[Any], Slot] = {}
        """Threads that wait for a future of the body's own."""
        self._lock = threading.RLock()
        self._sweep_at = 64
        self._tasks_made = 0
        self._strays: Branch | None = None

    # -- for the event loop ------------------------------------------------------------------------------------------

    def pump(self, *, leading: bool = False) -> None:
        """Hand over what may be handed over now. From any thread; does nothing unless the body is quiet. `leading`: the
        caller leads a commit, and must not run code of the body's."""
        raise NotImplementedError

    def check_open(self) -> None:
        """Raise if this body is no longer driven."""
        raise NotImplementedError

    def source_begins(self, source: Any) -> None:
        """A timer is armed, or a job is given to an executor."""
        raise NotImplementedError

    def source_gone(self, source: Any) -> None:
        """The source was cancelled before its event."""
        raise NotImplementedError

    def source_arrives(self, source: Any) -> None:
        """The event of that source waits for its turn; on the loop's thread."""
        raise NotImplementedError

    def is_late(self, key: EventKey, now: bool) -> bool:
        """Whether a timeout of asyncio's counts as run out when it is armed; `now`: by the clock it has."""
        raise NotImplementedError

    def has_begun(self, branch: Branch) -> bool:
        """Whether the journal shows that the job of that branch had begun in an earlier life."""
        raise NotImplementedError

    @property
    def strays(self) -> Branch:
        """The branch for tasks spawned by plain callbacks."""
        if self._strays is None:
            self._strays = self.root.fork("callbacks")
        return self._strays

    def branch_of(self, task: Any) -> Branch:
        """The branch on which `task`, the running asyncio task, acts in this body."""
        branch: Branch | None = getattr(task, "branch", None)
        owner: Any = self
        return branch if branch is not None and branch.body is owner else self.strays

    def timer_key(self) -> EventKey:
        """The name of a timer that is armed now; on the loop's thread."""
        branch = self.branch_of(asyncio.current_task(self.loop.loop))
        count = branch.timers
        branch.timers = count + 1
        return (EventKind.TIMER, branch.id, count)

    def next_task(self) -> int:
        """The number of the asyncio task that begins now."""
        self._tasks_made += 1
        return self._tasks_made

    def add_task(self, task: asyncio.Task[Any]) -> None:
        """A task of this body begins. A plain list, because a weak set costs more than the task's first step."""
        self.tasks.append(task)
        if len(self.tasks) >= self._sweep_at:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._sweep_at = max(64, 2 * len(self.tasks))

    # -- threads -----------------------------------------------------------------------------------------------------

    def thread_begins(self, slot: Slot) -> None:
        """One of perdure's threads is going to execute code of this body."""
        with self._lock:
            self.inside.add(slot)
            self.running.add(slot)

    def thread_ends(self, slot: Slot) -> None:
        """That thread has left the body, and the code that awaits it has been made ready."""
        with self._lock:
            self.inside.discard(slot)
            self.running.discard(slot)
        if self.stirred:
            self.loop.soon(self.pump)

    def thread_waits(self, slot: Slot) -> None:
        """That thread is about to wait for something durable."""
        with self._lock:
            self.running.discard(slot)
        if self.stirred:
            self.pump()

    def thread_runs(self, slot: Slot, joined: Future[Any] | None = None) -> None:
        """That thread goes on by itself; it no longer waits for `joined`."""
        with self._lock:
            if joined is not None:
                self._joins.pop(joined, None)
            self.running.add(slot)

    def joins_unseen(self, change: int) -> None:
        """A thread begins (1) or ends (-1) to wait for something that nothing else shows."""
        with self._lock:
            self.joining += change

    def thread_joins(self, future: Future[Any], slot: Slot) -> None:
        """That thread is about to wait for `future`, something that the body itself does."""
        with self._lock:
            if future.done():
                return
            self.running.discard(slot)
            self._joins[future] = slot
        future.add_done_callback(self.thread_joined)
        if self.stirred:
            self.pump()

    def thread_joined(self, future: Future[Any], ended: Slot | None = None) -> None:
        """`future` is done: the thread that waits for it runs again, and only then has the thread of `ended` left."""
        with self._lock:
            waiting = self._joins.pop(future, None)
            if waiting is not None:
                self.running.add(waiting)
            if ended is not None:
                self.inside.discard(ended)
                self.running.discard(ended)
        if ended is not None and self.stirred:
            self.loop.soon(self.pump)

    # -- what is pending ---------------------------------------------------------------------------------------------

    @property
    def computes(self) -> bool:
        """A thread or job of the body is at work."""
        return self.jobs > 0 or bool(self.running)

    @property
    def unrecorded(self) -> bool:
        """A thread, job, socket or subprocess is at work that may lead to a call."""
        return self.descriptors > 0 or self.computes or (bool(self.subprocesses) and self._subprocess_runs())

    def outside_pending(self) -> bool:
        """Something is pending that has no entry: `unrecorded`, or a plain timer."""
        return self.timers > 0 or self.unrecorded

    def _subprocess_runs(self) -> bool:
        self.subprocesses = [transport for transport in self.subprocesses if transport.get_returncode() is None]
        return bool(self.subprocesses)

    def unwound(self) -> bool:
        """Whether no code of this body is left."""
        return not self.inside and all(task.done() for task in self.tasks)

"""Where a call comes from: outside any run, inside a trace, or a branch of a body.

`SCOPE` says whether this context belongs to a body or to a trace; it says nothing about the branch, which belongs to
the asyncio task (or to the thread that perdure started) and is found through it: contexts are copied into callbacks
and tasks of all kinds, and a branch must never be in two places at once.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import Context, ContextVar
from typing import Any
from weakref import WeakSet

from msgspec import Struct

from ...errors import BranchError
from .branch import Branch
from .interfaces import BodyPort


class TraceScope(Struct, eq=False):
    """Inside a trace of `body`: the trace is the unit, nothing in it is durable by itself."""

    body: BodyPort
    name: str
    slot: Any = None
    """The `waits.Slot` of a limit that the trace, or the innermost block in the trace, holds."""


class Slot:
    """A thread's presence in a body: the branch that the thread carries."""

    __slots__ = ("branch",)

    def __init__(self, branch: Branch) -> None:
        self.branch = branch


SCOPE: ContextVar[Any] = ContextVar("perdure_scope", default=None)
"""`None`, a `Body` or a `TraceScope`."""
current_scope = SCOPE.get
set_scope = SCOPE.set
"""As functions of the module for hot paths, because each look-up of the method makes an object."""


_UNSCOPED = Context()
_UNSCOPED.run(SCOPE.set, None)
unscoped = _UNSCOPED.copy
"""A new context for callbacks of perdure's own. It says that it has no scope: a context that says nothing was made by
user code, and what user code starts in it belongs to the body of that code."""


def is_body(scope: Any) -> bool:
    """Whether a context with this `SCOPE` belongs to a body's own code."""
    return scope is not None and scope.__class__ is not TraceScope


class _Thread(threading.local):
    slot: Slot | None = None


THREAD = _Thread()
"""`slot`: what this thread, started by perdure, works in now. Not a ContextVar, because contexts are copied."""

# Threads themselves beside their numbers, as the system reuses the number of an ended thread.
_known_threads: dict[int, threading.Thread] = {}
_started_by_bodies: WeakSet[threading.Thread] = WeakSet()
"""Threads that the code of a body started behind perdure's back, and threads that such threads started."""
_drives = 0
_lock = threading.Lock()
_start: Callable[[threading.Thread], None] | None = None
"""The `Thread.start` that perdure has found, once a run was driven."""


def _noted_start(self: threading.Thread) -> None:
    """`Thread.start`, which notes a thread that a body starts. Threads of the application's own are not noted.

    Python tells nowhere which thread has started another thread, and has no audit event for threads before 3.12.
    """
    assert _start is not None
    own = SCOPE.get() is not None or THREAD.slot is not None or threading.current_thread() in _started_by_bodies
    if own and not self.name.startswith("perdure-"):
        _started_by_bodies.add(self)
    _start(self)


def driving(count: int) -> None:
    """Count a run that begins (1) or ends (-1) to be driven in this process."""
    global _drives, _start
    with _lock:
        _drives += count
        if _start is None:
            _start = threading.Thread.start
            threading.Thread.start = _noted_start  # type: ignore[method-assign]
        if count > 0 and _drives == 1:
            # Threads that were there before have nothing to do with the run: tasks stay plain functions for them.
            # The module's own table, because `threading.enumerate()` costs a tenth of an empty run.
            _known_threads.clear()
            _known_threads.update(threading._active)  # type: ignore[attr-defined]
            # Except a thread of a pool that an earlier run's body started, and that outlives the run.
            for thread in list(_started_by_bodies):
                if _known_threads.get(thread.ident or 0) is thread:
                    del _known_threads[thread.ident or 0]


def unknown_threads() -> bool:
    """Whether there are threads that neither perdure started nor were there before the runs of this process."""
    return any(
        _known_threads.get(ident) is not thread and not thread.name.startswith("perdure-")
        for ident, thread in list(threading._active.items())  # type: ignore[attr-defined]
    )


def know_this_thread() -> None:
    """This thread starts runs or serves perdure; it is no stray thread of a body."""
    if _drives:
        _known_threads[threading.get_ident()] = threading.current_thread()


def find_branch(scope: BodyPort, what: Callable[[], str]) -> Branch:
    """The branch of a durable call made under `scope`.

    Raises:
        BranchError: the caller has no branch of its own in that body.
    """
    loop = asyncio._get_running_loop()
    if loop is not None:
        task = asyncio.current_task(loop)
        branch: Branch | None = getattr(task, "branch", None)
        if branch is not None and branch.body is scope:
            return branch
        if task is None:
            raise BranchError(
                f"{what()} was called from an event-loop callback, which has no place in the run's sequence. "
                "Call it from the task's own code, or from a task started there with asyncio.create_task()."
            )
        raise BranchError(
            f"{what()} was called on an event loop or in an asyncio task that this run does not know. Call it from "
            "the body itself, or from tasks that the body starts with asyncio.create_task() or gather()."
        )
    slot = THREAD.slot
    if slot is not None and slot.branch.body is scope:
        return slot.branch
    raise BranchError(
        f"{what()} was called from a thread that shares another thread's place in the run. "
        "Start threads for durable work with asyncio.to_thread() or perdure.map(), which give each its own."
    )


def refuse_stray_thread(what: Callable[[], str]) -> None:
    """Outside any scope: raise in a thread that a body started behind perdure's back."""
    if not _drives:
        return
    thread = threading.current_thread()
    if thread in _started_by_bodies:
        raise BranchError(
            f"{what()} was called from thread {thread.name!r}, which perdure did not start, while a run is driven in "
            "this process. Its outcome could not be recorded. In a body, use asyncio.to_thread() or perdure.map() "
            "instead of threading.Thread or an executor of your own."
        )

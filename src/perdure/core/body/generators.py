"""Async generators that code leaves before their end (`break` out of `async for`), closed for the code that began them.

asyncio closes such a generator when its last reference goes, in a task that it makes wherever that happens to be. The
`finally` of the generator may call steps and cancel tasks, so the task has to belong to the body that began the
generator, and the body is not quiet until the task has run.

- AG1 what is left by code of its body is closed in that body, on a branch whose name is the same in each life: the name
  was taken when the generator began.
- AG2 what the garbage collector finds, or another thread lets go of, is closed in its body without durable calls: no
  replay can repeat the moment.
- AG3 nothing is closed in a body, or in a run, that did not begin the generator.
"""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from contextvars import Context, copy_context
from functools import partial
from typing import Any

from msgspec import Struct

from ..ground.clock import seconds
from .branch import Branch
from .scope import SCOPE, is_body

KEPT = 64
"""So many generators that have gone are kept at least."""
KEPT_SECONDS = 1.0
"""For so long: a generator's last word comes right behind the end of the references to it."""


class Began(Struct, eq=False):
    """How a generator began."""

    context: Context
    branch: Branch
    title: str
    occurrence: int

    def branch_of_close(self) -> Branch:
        """The branch of the task that closes the generator."""
        return self.branch.fork_at(self.title, self.occurrence)


class _Collecting(threading.local):
    now = False


_collecting = _Collecting()


def _note_collection(phase: str, info: dict[str, int]) -> None:
    _collecting.now = phase == "start"


gc.callbacks.append(_note_collection)


class LeftGenerators:
    """The generators that bodies have begun on one event loop. Python calls from any thread."""

    def __init__(self) -> None:
        self._begun: dict[int, tuple[weakref.ref[Any], Began]] = {}
        self._gone: dict[int, tuple[float, Began]] = {}
        """References die before the generator is told to close; who began it is known here meanwhile."""

    def begins(self, generator: Any, loop: asyncio.AbstractEventLoop) -> None:
        """The generator is asked for its first item."""
        self._gone.pop(id(generator), None)
        scope = SCOPE.get()
        if not is_body(scope):
            return
        branch = scope.branch_of(asyncio.current_task(loop))
        title = f"{generator.__qualname__}.aclose"
        began = Began(copy_context(), branch, title, branch.reserve(title))
        self._begun[id(generator)] = weakref.ref(generator, partial(self._goes, id(generator))), began

    def _goes(self, number: int, reference: Any) -> None:
        found = self._begun.pop(number, None)
        if found is None:
            return
        now = seconds()
        if len(self._gone) >= KEPT:
            for old, (at, _) in list(self._gone.items()):
                if now - at > KEPT_SECONDS:
                    self._gone.pop(old, None)
        self._gone[number] = now, found[1]

    def take(self, generator: Any) -> Began | None:
        """How the generator began, once: it is about to be closed. `None`: outside of bodies."""
        gone = self._gone.pop(id(generator), None)
        if gone is not None:
            return gone[1]
        begun = self._begun.pop(id(generator), None)
        return None if begun is None else begun[1]


def in_a_collection() -> bool:
    """Whether this thread is inside a run of the garbage collector."""
    return _collecting.now

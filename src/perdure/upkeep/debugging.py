"""A recorded run under pdb: the body is executed against its journal, without effects."""

from __future__ import annotations

import pdb
from types import FrameType

from ..core.ground.spec import TaskSpec
from .rehearsing import Recorded, Rehearsal, Rehearsed


class _Debugger(pdb.Pdb):
    """pdb that stops at the next line of the given frame, which is the user's code, and not within perdure."""

    _first: FrameType | None = None

    def set_trace(self, frame: FrameType | None = None) -> None:
        self._first = frame
        super().set_trace(frame)

    def set_step(self) -> None:
        first, self._first = self._first, None
        if first is None:
            super().set_step()
        else:
            self.set_next(first)


def debug(recorded: Recorded, spec: TaskSpec, at: int | None = None) -> Rehearsed:
    """Execute a run's body under pdb, up to where the run stood.

    Args:
        recorded: the run.
        spec: its task.
        at: stop behind the call with that entry; behind the first durable call by default.
    """
    stopped = False

    def stops(number: int | None, frame: FrameType | None) -> None:
        nonlocal stopped
        if stopped or frame is None or (at is not None and number is not None and number < at):
            return
        stopped = True
        _Debugger(nosigint=True).set_trace(frame)

    rehearsal = Rehearsal(stops=stops, patience=None)
    try:
        [found] = rehearsal.rehearse([recorded], lambda row: spec)
    finally:
        rehearsal.close()
    return found

"""The gate of a pool child (E4)."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from ...core.run.gate import Gate
from .. import _frames as frames


class InnerGate(Gate):
    """Whether anything new may start here: the outer process decides, with the latest report in mind (E4)."""

    def __init__(self, opened: Callable[[], None], tell: Callable[[Any], None], undrained: Collection[int]) -> None:
        super().__init__(opened)
        self.free = False
        self._tell = tell
        self._reports = 0
        # What the outer process says counts until the body's journal is loaded: a word from there may come first.
        self.undrained = set(undrained)
        self._reported = set(undrained)
        self._heard: tuple[int, bool] = (-1, False)

    def refresh(self) -> bool:
        """See `Gate`; reports what has changed."""
        added, removed = self.undrained - self._reported, self._reported - self.undrained
        if added or removed:
            self._reported = set(self.undrained)
            self._reports += 1
            self._tell(frames.Undrained(self._reports, sorted(added), sorted(removed)))
        return super().refresh()

    def is_free(self) -> bool:
        """See `Gate`."""
        return self._heard == (self._reports, True) and not self.closed

    def heard(self, report: int, free: bool) -> None:
        """The outer process has answered a report."""
        with self.lock:
            self._heard = (report, free)
        self.change()

    def forget(self, action: int) -> None:
        """The outer process carries that action out, and speaks for it."""
        with self.lock:
            self.undrained.discard(action)
            self._reported.discard(action)

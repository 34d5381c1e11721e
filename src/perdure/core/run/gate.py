"""Whether anything new may start in a run (D2).

- D2 `free` is false while some body that the last driver had open still replays, and does not become true once driving
  ends. Nothing new starts meanwhile.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection


class Gate:
    """See the module text. From any thread; `lock` guards the sets."""

    def __init__(self, opened: Callable[[], None]) -> None:
        """`opened` is called, outside the lock, whenever `free` has become true."""
        self.free = True
        self.listeners: list[Callable[[], None]] = []
        """Told whenever `free` has changed, under the lock: a listener may not block."""
        self.undrained: set[int] = set()
        """Actions with recorded outcomes still to be delivered, or still to be called again."""
        self.lock = threading.Lock()
        self._opened = opened
        self._draining = False
        self._held = False
        self.closed = False
        """Driving ends."""

    def change(
        self, added: Collection[int] = (), removed: Collection[int] = (), tell: Callable[[], None] | None = None
    ) -> None:
        """Bodies have something to be handed, or have been handed all. `tell` is called under the lock once that
        counts."""
        with self.lock:
            self.undrained.update(added)
            self.undrained.difference_update(removed)
            opened = self.refresh()
            if tell is not None:
                tell()
        if opened:
            self._opened()

    def drained(self, action: int) -> None:
        """The body has been given everything recorded."""
        if action in self.undrained:
            self.change(removed=(action,))

    def drain(self) -> None:
        """Begin nothing new from now on; what is under way may end and be recorded."""
        with self.lock:
            self._draining = True
            self.refresh()

    def hold(self, held: bool) -> None:
        """Begin nothing new until told otherwise: the run is paused, or its pause has ended."""
        with self.lock:
            self._held = held
            opened = self.refresh()
        if opened:
            self._opened()

    def close(self) -> None:
        """Driving ends. One body after the other is closed then: undelivered outcomes of a closed body must not set the
        others going."""
        self.closed = True

    def is_free(self) -> bool:
        """The value that `free` has to have."""
        return not (self.undrained or self._draining or self._held or self.closed)

    def refresh(self) -> bool:
        """Bring `free` up to date and tell the listeners; whether it has become true. Under the lock."""
        was = self.free
        self.free = self.is_free()
        if self.free is not was:
            for tell in self.listeners:
                tell()
        return self.free and not was

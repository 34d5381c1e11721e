"""Ends the sessions of processes that stand still in the middle of a transaction.

A process may be frozen (SIGSTOP, a paused machine) or vanish with its host between any two bytes that it sends, and
what its transaction has locked stays locked: others wait for it, or skip it, for as long as its session lives. No
timeout of the server's covers that: `idle_in_transaction_session_timeout` does not run in the middle of a pipeline or
of a message. So whoever uses the store looks for such sessions now and then, and soon when it is kept waiting itself.
The process, awake again, finds its connection lost and is fenced like anybody else who was away (P3).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from perdure.core.ground.clock import seconds
from perdure.errors import StoreError

from .link import Link, Row

log = logging.getLogger("perdure")

SILENCE: Final = 5.0
"""For how long (seconds) the server has waited for the client when its session is ended, where somebody waits for what
it has locked."""
LONG_SILENCE: Final = 30.0
"""The same where nobody does: what it has locked may be passed over (`take_due`), or of no interest to anybody while a
large value is on its way over a slow line."""
_TICK: Final = 1.0
_ROUND: Final = 10.0
"""How often (seconds) to look when nothing keeps this process waiting."""


class Watch:
    """A thread that looks, from now until it is closed."""

    def __init__(self, links: Sequence[Link], end_silent: Callable[[], list[Row]]) -> None:
        """Begin.

        Args:
            links: through which this process uses the store.
            end_silent: ends the sessions in question, and answers the process id and client of each.
        """
        self._links = links
        self._end_silent = end_silent
        self._closed = threading.Event()
        threading.Thread(target=self._look, name="perdure-postgres-watch", daemon=True).start()

    def close(self) -> None:
        """Stop looking. Idempotent."""
        self._closed.set()

    def _look(self) -> None:
        last = seconds()
        while not self._closed.wait(_TICK):
            now = seconds()
            if now - last < _ROUND and all(link.busy_for(now) < _TICK for link in self._links):
                continue
            last = now
            try:
                ended = self._end_silent()
            except StoreError as error:
                log.debug("cannot look for silent sessions: %s", error)
                continue
            for pid, client in ended:
                log.warning(
                    "a process%s was silent in the middle of a transaction: its session (%d) was ended",
                    f" at {client}" if client else "",
                    pid,
                )

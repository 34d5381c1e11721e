"""Ends the sessions of processes that stand still in the middle of a transaction.

A process may be frozen (SIGSTOP, a paused machine), or vanish with its host, between any two bytes of a message. Locks
of its transaction stay: other sessions wait for them, or skip the rows, for the life of the session. No timeout of the
server covers the case: `idle_in_transaction_session_timeout` does not run in the middle of a pipeline or of a message.
So every process looks for such sessions now and then, and soon when it has to wait. The frozen process, awake again,
finds its connection lost and is fenced like any late worker (P3).
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from typing import Final

from perdure.core.ground.clock import seconds
from perdure.errors import StoreError

from .link import PostgresLink, Row

log = logging.getLogger("perdure")

SILENCE: Final = 5.0
"""Seconds of the server's waiting for a client before the session is ended, if another session waits for its locks."""
LONG_SILENCE: Final = 30.0
"""The same without a waiting session: the locked rows may be skipped (`take_due`), or of no interest while a large
value is on its way over a slow line."""
_TICK: Final = 1.0
_ROUND: Final = 10.0
"""Seconds between looks while this process waits for nothing."""


class Watch:
    """A thread that looks until closed."""

    def __init__(self, links: Sequence[PostgresLink], end_silent: Callable[[], list[Row]]) -> None:
        """Begin.

        Args:
            links: the connections of this process.
            end_silent: ends the sessions in question, and gives the process id and client of each.
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

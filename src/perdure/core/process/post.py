"""Hears of messages for the runs that this process drives: the bell of the store, and a look now and then.

One thread of the process serves all runs. The thread sleeps while no call waits for a message.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any

from ...errors import StoreError

if TYPE_CHECKING:
    from ..ground.ports import Store
    from ..run.mailbox import Mailbox

log = logging.getLogger("perdure")

HEARING_SECONDS = 1.0
"""Seconds between two looks where the bell rings: a ring may be lost."""
DEAF_SECONDS = 0.1
"""The same where no bell rings."""


class Post:
    """See the module text. From any thread."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._attended: dict[Mailbox, None] = {}
        self._rung = threading.Event()
        self._begun = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False

    def attend(self, mailbox: Any) -> None:
        """See `PostPort`. When the method returns, the bell is heard."""
        with self._lock:
            if not self._attended:
                # The thread may sleep without end.
                self._rung.set()
            self._attended[mailbox] = None
            if self._thread is None:
                self._thread = threading.Thread(target=self._listen, name="perdure-post", daemon=True)
                self._thread.start()
        self._begun.wait()

    def forget(self, mailbox: Any) -> None:
        """See `PostPort`."""
        with self._lock:
            self._attended.pop(mailbox, None)

    def close(self) -> None:
        """End the thread."""
        self._closed = True
        self._rung.set()

    def _listen(self) -> None:
        try:
            pause = HEARING_SECONDS if self._store.hear(self._rung.set) else DEAF_SECONDS
        except StoreError as error:
            log.debug("no bell rings for messages: %s", error)
            pause = DEAF_SECONDS
        self._begun.set()
        while not self._closed:
            self._rung.wait(pause if self._attended else None)
            self._rung.clear()
            try:
                self.look()
            except Exception as error:
                # The drivers of the runs notice by themselves, with their next write.
                log.debug("messages cannot be looked for now: %s", error)

    def look(self) -> None:
        """Give the messages that have come to the calls that wait for them. From any thread."""
        with self._lock:
            attended = list(self._attended)
        asked = {mailbox.run_id: (mailbox, *mailbox.wanted()) for mailbox in attended}
        wanted = [one for _, _, boxes in asked.values() for one in boxes]
        if not wanted:
            return
        for (run, _), message in self._store.news(wanted).items():
            mailbox, moves, _ = asked[run]
            mailbox.arrived(message, moves)

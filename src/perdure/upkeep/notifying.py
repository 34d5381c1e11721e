"""Delivery of the events in the outbox of a store to a webhook or a command (`perdure notify`).

- NT1 the failure of a run and its events are one transaction: no crash leaves one without the other.
- NT2 an event has one id, in every attempt, from every process, for every receiver.
- NT3 an event is marked as delivered only after the receiver has accepted the event. A process that dies in between
  leaves the event leased, and the event is delivered again when the lease is over.
- NT4 no address of a receiver is in a store, a log line or an error.

So an event arrives at least once, and a receiver that keeps the ids acts exactly once.
"""

from __future__ import annotations

import json
import logging
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping
from fnmatch import fnmatchcase
from http.client import HTTPException
from typing import Any, Final, NamedTuple
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

from ..api import operate
from ..api.messages import asked_by, shown_box
from ..api.standing import standing
from ..core.ground.clock import US, moment
from ..core.ground.model import UNDRIVEN, Kind, Notice, NoticeKind, NoticeState, RunRow, Status, Subscription
from ..core.ground.ports import Store
from ..core.ground.values import describe_error
from ..errors import UsageError

log = logging.getLogger("perdure")

SEND_SECONDS: Final = 30.0
"""How long a receiver may take."""
LEASE_SECONDS: Final = 60.0
"""How long a process keeps an event from others; longer than `SEND_SECONDS`."""
FIRST_PAUSE: Final = 2.0
LAST_PAUSE: Final = 3600.0
"""Seconds before the next attempt: at first, doubled each time, and at most."""
LOOK_SECONDS: Final = 1.0
"""How often to look for events that are due."""
OBSERVE_SECONDS: Final = 5.0
"""How often to look for runs that are stuck or wait."""
UNSERVED_SECONDS: Final = 3600
"""At most one event in this time says that no worker takes the runs of a task."""

Send = Callable[[str, bytes], None]
"""Delivers the body of the event with an id; raises `RefusedError` for a failed attempt."""


class RefusedError(Exception):
    """A receiver has not accepted an event. The text names no address."""


class EventFilter(NamedTuple):
    """The events that a receiver wants. Patterns take `*` and `?`."""

    task: str | None = None
    name: str | None = None
    tags: Mapping[str, str] = {}

    def fits(self, run: RunRow) -> bool:
        """Whether an event of the run is wanted."""
        tags = json.loads(run.tags) if run.tags else {}
        return (
            (self.task is None or fnmatchcase(run.task, self.task))
            and (self.name is None or fnmatchcase(run.name, self.name))
            and all(tags.get(key) == value for key, value in self.tags.items())
        )


class ReceiverSettings(NamedTuple):
    """What a receiver hears of."""

    kinds: tuple[NoticeKind, ...]
    filter: EventFilter = EventFilter()
    stuck_after: float = 300.0
    """After how many seconds a run without a driver is stuck."""


class Notifier:
    """Delivers the events for one receiver, until stopped. Any number of processes may deliver for one receiver."""

    def __init__(
        self,
        store: Store,
        name: str,
        watched: ReceiverSettings,
        send: Send,
        *,
        attempts: int = 12,
        base: str | None = None,
    ) -> None:
        """
        Args:
            store: the store with the outbox.
            name: the receiver's name.
            watched: what the receiver hears of; kept in the store from `begin` on.
            send: delivers an event.
            attempts: after so many failed attempts an event is dead.
            base: the address of the web page of the store, for links.
        """
        self.delivered = 0
        self.failed = 0
        self._store = store
        self._name = name
        self._watched = watched
        self._send = send
        self._attempts = attempts
        self._base = base
        self._seen: dict[tuple[int, int], int] = {}
        """When runs without a driver were seen first (wall), by run and length of the journal."""
        self._bell = threading.Event()

    def begin(self) -> None:
        """Make the receiver known: from here on the store keeps events."""
        kinds, of = ",".join(self._watched.kinds), self._watched.filter._asdict()
        now = self._store.clock.wall()
        self._store.subscribe(Subscription(self._name, kinds, None, None, json.dumps(of), now))

    def serve(self) -> None:
        """Deliver events for ever.

        Raises:
            StoreError: the store cannot be used.
        """
        self._store.listen(self._bell.set, ends=True)
        observe_at = 0
        while True:
            self._bell.clear()
            if self._store.clock.wall() >= observe_at:
                self.observe()
                observe_at = self._store.clock.wall() + int(OBSERVE_SECONDS * US)
            while self.deliver():
                pass
            self._bell.wait(LOOK_SECONDS)

    def deliver(self) -> bool:
        """Make one attempt to deliver the event that is due longest; `False`: no event is due.

        Raises:
            StoreError: the store cannot be used.
        """
        now, token = self._store.clock.wall(), os.urandom(16)
        notice = self._store.take_notice(self._name, token, now, now + int(LEASE_SECONDS * US))
        if notice is None:
            return False
        run = self._store.run_by_id(notice.run)
        state, due, why = NoticeState.DELIVERED, now, None
        if run is None or not self._watched.filter.fits(run):
            why = "left out by the filter"
        else:
            id = event_id(run, notice)
            try:
                self._send(id, json.dumps(event_body(run, notice, self._base)).encode())
                self.delivered += 1
            except RefusedError as error:
                self.failed += 1
                why = str(error)
                tries = notice.attempts + 1
                state = NoticeState.DEAD if tries >= self._attempts else NoticeState.PENDING
                due = self._store.clock.wall() + int(min(FIRST_PAUSE * 2 ** min(tries - 1, 30), LAST_PAUSE) * US)
                end = "and is given up" if state == NoticeState.DEAD else f"attempt {tries}"
                log.warning("event %s was not delivered to %s (%s): %s", id, self._name, end, why)
        failed = why is not None and run is not None and state != NoticeState.DELIVERED
        self._store.settle_notice(notice.id, token, state, due, why, failed=failed)
        return True

    def observe(self) -> None:
        """Note the events that no end of a run writes.

        Raises:
            StoreError: the store cannot be used.
        """
        if NoticeKind.WAITING in self._watched.kinds:
            self._note_waiting()
        if NoticeKind.STUCK in self._watched.kinds:
            self._note_interrupted()
            self._note_unserved()

    def _note_waiting(self) -> None:
        for name, action in self._store.open_waits():
            if action.kind == Kind.CONDITION:
                prompt = asked_by(action.inputs).prompt
                detail = {"condition": shown_box(action.name), "prompt": prompt, "run": name}
                self._note(action.run, NoticeKind.WAITING, f"{action.parent}.{action.action}", action.at, detail)

    def _note_interrupted(self) -> None:
        now = self._store.clock.wall()
        found = {(row.id, row.mark): row for row in interrupted_rows(self._store)}
        self._seen = {key: self._seen.get(key, now) for key in found}
        for (run, mark), row in found.items():
            if now - self._seen[run, mark] >= self._watched.stuck_after * US:
                why = {"why": standing(row, Status.INTERRUPTED)}
                self._note(run, NoticeKind.STUCK, f"interrupted-{mark}", now, why)

    def _note_unserved(self) -> None:
        """For each task the run that is due longest, because a long queue of one task is one trouble."""
        now = self._store.clock.wall()
        oldest: dict[str, RunRow] = {}
        paused = self._store.paused_tasks()
        for row in self._store.runs(statuses=UNDRIVEN):
            late = row.wake_at is not None and row.wake_at <= now - self._watched.stuck_after * US
            if late and row.paused is None and row.queue is None and row.task not in paused:
                oldest[row.task] = row
        for task, row in oldest.items():
            last = self._store.noted_of_task(task, NoticeKind.STUCK, "unserved")
            if last is None or last < now - UNSERVED_SECONDS * US:
                self._note(row.id, NoticeKind.STUCK, "unserved", now, {"why": standing(row, row.status)})

    def _note(self, run: int, kind: NoticeKind, cause: str, at: int, detail: Mapping[str, Any]) -> None:
        self._store.note_event(run, kind, cause, at, json.dumps(detail).encode())


def interrupted_rows(store: Store) -> Iterator[RunRow]:
    """The RUNNING runs that no process drives."""
    for name in operate.interrupted():
        row = store.run(name)
        if row is not None and row.status == Status.RUNNING:
            yield row


def event_id(run: RunRow, notice: Notice) -> str:
    """The id of an event, the same in every process and after the restoration of a backup (NT2)."""
    return f"{run.uid.hex()}-{notice.kind}-{notice.cause}"


def event_body(run: RunRow, notice: Notice, base: str | None) -> dict[str, Any]:
    """An event as receivers get the event. Inputs and results are not in it, because they may hold secrets."""
    body: dict[str, Any] = {
        "id": event_id(run, notice),
        "event": notice.kind,
        "at": moment(notice.at).isoformat(),
        "run": run.name,
        "task": run.task,
        "status": notice.status,
        "tags": json.loads(run.tags) if run.tags else {},
    }
    if notice.kind == NoticeKind.FAILURE and notice.detail is not None:
        try:
            type_, message, _ = describe_error(notice.detail)
        except UsageError:
            type_, message = "unknown", "the recorded error cannot be read"
        body["error"] = {"type": type_, "message": message}
    elif notice.kind != NoticeKind.FAILURE and notice.detail is not None:
        body |= json.loads(notice.detail)
    if base is not None:
        body["url"] = f"{base.rstrip('/')}/run/{quote(run.name)}"
    return body


class _NoRedirect(HTTPRedirectHandler):
    """Follows no redirect: the body would be dropped, or go to an unknown place."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def to_webhook(url: str) -> Send:
    """Deliver by POST, as JSON, with the id as `Idempotency-Key`. A status from 200 to 299 accepts the event.

    Raises:
        UsageError: the address is no address of HTTP. The text does not hold the address (NT4).
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and url.isascii() and " " not in url
    except ValueError:
        usable = False
    if not usable:
        raise UsageError("the address for notices must begin with http:// or https:// and name a host")
    opener = build_opener(_NoRedirect)

    def send(id: str, body: bytes) -> None:
        headers = {"Content-Type": "application/json", "Idempotency-Key": id, "User-Agent": "perdure"}
        try:
            with opener.open(Request(url, body, headers, method="POST"), timeout=SEND_SECONDS):
                pass
        except HTTPError as error:
            error.close()
            raise RefusedError(f"the receiver answered with status {error.code}") from None
        except (URLError, HTTPException, OSError) as error:
            reason = error.reason if isinstance(error, URLError) else error
            kind = type(reason).__name__ if isinstance(reason, Exception) else "URLError"
            raise RefusedError(f"the receiver cannot be reached: {kind}") from None

    return send


def to_command(command: str) -> Send:
    """Deliver to a program: the event on its stdin, the id in `PERDURE_EVENT_ID`. Exit code 0 accepts the event.

    Raises:
        UsageError: the command cannot be split into words.
    """
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command for notices cannot be split into words: {error}") from None
    if not words:
        raise UsageError("the command for notices is empty")

    def send(id: str, body: bytes) -> None:
        try:
            done = subprocess.run(
                words, input=body, stdout=subprocess.DEVNULL, timeout=SEND_SECONDS, check=False,
                env=os.environ | {"PERDURE_EVENT_ID": id},
            )  # fmt: skip
        except subprocess.TimeoutExpired:
            raise RefusedError(f"the command has not ended within {SEND_SECONDS:g} s") from None
        except OSError as error:
            raise RefusedError(f"the command cannot be started: {error.strerror}") from None
        if done.returncode != 0:
            raise RefusedError(f"the command ended with exit code {done.returncode}")

    return send

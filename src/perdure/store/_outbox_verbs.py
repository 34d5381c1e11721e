"""The verbs of the port `Outbox`, the same in every SQL dialect. A trigger of the table of runs notes failures."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from perdure.core.ground.model import Notice, NoticeCount, NoticeState, Subscription

from ._queues import Execute, Row

T = TypeVar("T")


class OutboxVerbs:
    """See the module text."""

    def _rows(self, name: str, row: Sequence[Any] = ()) -> list[Row]:
        """All rows of the named statement, on the connection for reading."""
        raise NotImplementedError

    def _giving(self, work: Callable[[Execute], T]) -> T:
        """Do the work in a transaction that need only be visible; its argument executes named statements."""
        raise NotImplementedError

    def _keeping(self, work: Callable[[Execute], T]) -> T:
        """The same, and on disk when the call returns."""
        raise NotImplementedError

    def subscribe(self, subscription: Subscription) -> None:
        known = [one for one in self.subscriptions() if one.name == subscription.name]
        if not known or known[0] != subscription._replace(created_at=known[0].created_at):
            self._keeping(lambda execute: execute("put_subscription", subscription))

    def unsubscribe(self, name: str) -> bool:
        gone: list[bool] = []

        def drop(execute: Execute) -> bool:
            # Work that is repeated after a lost answer finds nothing: the first answer counts.
            gone.append(bool(execute("drop_subscription", (name,))))
            execute("drop_notices_of", (name,))
            return any(gone)

        return self._keeping(drop)

    def subscriptions(self) -> list[Subscription]:
        return list(map(Subscription._make, self._rows("subscriptions")))

    def note_event(self, run: int, kind: str, cause: str, at: int, detail: bytes | None) -> int:
        row = (kind, cause, at, detail, at, run, kind)
        return self._giving(lambda execute: len(execute("note_event", row)))

    def take_notice(self, subscription: str, token: bytes, now: int, until: int) -> Notice | None:
        def take(execute: Execute) -> Notice | None:
            found = execute("due_notice", (subscription, now))
            if not found:
                return None
            [(id,)] = found
            execute("lease_notice", (token, until, id))
            [row] = execute("notice", (id,))
            return Notice._make(row)

        # Without the lock for writing where nothing is due, because receivers ask often.
        first = self.next_notice(subscription)
        return None if first is None or first > now else self._giving(take)

    def next_notice(self, subscription: str) -> int | None:
        [(due,)] = self._rows("first_due_notice", (subscription,))
        return due  # type: ignore[no-any-return]

    def settle_notice(
        self, id: int, token: bytes, state: NoticeState, due: int, error: str | None, *, failed: bool
    ) -> bool:
        row = (int(state), due, int(failed), error, id, token)
        return self._giving(lambda execute: bool(execute("settle_notice", row)))

    def revive_notices(self, subscription: str, now: int) -> int:
        return self._giving(lambda execute: len(execute("revive_notices", (now, subscription))))

    def notices(self, limit: int) -> list[Notice]:
        return list(map(Notice._make, self._rows("notices", (limit,))))

    def notice_counts(self) -> list[NoticeCount]:
        return list(map(NoticeCount._make, self._rows("notice_counts")))

    def noted_of_task(self, task: str, kind: str, cause: str) -> int | None:
        [(at,)] = self._rows("noted_of_task", (kind, cause, task))
        return at  # type: ignore[no-any-return]

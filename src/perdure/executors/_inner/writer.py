"""The commit path of a pool child: the same leaders and queues, and rows that the outer process writes."""

from __future__ import annotations

from ...core.body.interfaces import BodyPort
from ...core.commit.interfaces import Sink
from ...core.commit.records import Item, Record, cut, records_in, rows, takings_in, without_abandoned
from ...core.commit.writer import Leaders, announce, pump
from ...core.ground.clock import perf
from .. import _frames as frames
from .driver import InnerDriver
from .store import Connection


class InnerWriter(Leaders):
    """The same leaders and queues; the outer process writes the rows of a leader."""

    def __init__(self, connection: Connection) -> None:
        super().__init__()
        self._connection = connection

    def commit_alone(self, driver: Sink) -> bool:
        """Nothing here is quicker than the general case."""
        return False

    def drain(self) -> None:
        """See `Leaders`."""
        for driver in self.cut_ready():
            outbox = cut(driver.outbox)
            if driver.abandoning:
                outbox = without_abandoned(outbox)
            if outbox:
                assert isinstance(driver, InnerDriver)
                self._write(driver, outbox)

    def _write(self, driver: InnerDriver, outbox: list[Item]) -> None:
        if driver.stopping or driver.turn != self._connection.turn:
            for record in records_in(outbox):
                record.done = True
                record.error = driver.stopped_error()
            return
        # Counted from zero; the numbers proper come with the answer (E1).
        driver.n = 0
        writes = rows(driver, outbox)
        kinds = (writes.entries, writes.actions, writes.states, writes.cache, writes.takes)
        if any((*kinds, writes.published, writes.streamed)):
            began = perf()
            before: int = self._connection.ask(
                lambda ticket: frames.Commit(ticket, *kinds, writes.published, writes.streamed),
                int,
                driver.turn,
            )
            self.measure(perf() - began)
            for record in records_in(outbox):
                if isinstance(record, Record):
                    record.n += before
            for taking in takings_in(outbox):
                if taking.entry is not None:
                    taking.entry += before
        bodies: dict[BodyPort, None] = {}
        announce(driver, outbox, bodies)
        for body in bodies:
            pump(body)

"""Records on their way into the journal: what the rows of one transaction hold."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from perdure.core.body.branch import Branch
from perdure.core.body.delivery import Delivery
from perdure.core.commit.records import Noted, Record, rows
from perdure.core.ground.model import Kind, Result
from perdure.core.journal.replay import EventKind, decode_notes, encode_notes


def test_notes_keep_their_order_whichever_row_takes_them_along() -> None:
    """B7. The family: rows wait while more events happen. A record, a row for notes alone (as beside the deadline of a
    sleep), more of both: read in the order of the rows, the events are in the order of their time."""
    delivery = Delivery()
    body: Any = SimpleNamespace(action=0, delivery=delivery)
    body.take_notes = lambda: encode_notes(delivery.take_notes())
    call = Branch(body, 0, "root", parent=None, floor=0).call(Kind.TRACE, "step", bytes(16))
    for made in (["record", "noted"], ["noted", "record"], ["record", "noted", "noted", "record"], ["noted", "noted"]):
        outbox: list[Any] = []
        for number, kind in enumerate(made):
            delivery.note(EventKind.TIMER, (EventKind.TIMER, 7, number))
            outbox.append(Noted(body) if kind == "noted" else Record(call, Result.VALUE, None, 0, 0))
        delivery.note(EventKind.TIMER, (EventKind.TIMER, 7, len(made)))
        sink: Any = SimpleNamespace(n=0, source_id=1)
        found = [event.number for row in rows(sink, outbox).entries for event in decode_notes(row.notes or b"")]
        assert found == list(range(len(made) + 1))

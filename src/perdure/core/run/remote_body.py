"""Bodies that execute in another process: their stand-ins here.

The *outer* process holds the claim and drives the run. An *inner* process executes the body of one action, with the
same `Body`, `Replay` and protocols as everywhere, and with a driver of its own for the body and its calls. The inner
process has no store: all reads and records go through the outer process. So identity, replay and quietness are decided
in the process of the code, and everything about the whole run in the process of the claim:

- E1 the outer process gives entry numbers and action numbers, in the order of its writes.
- E2 an inner process hears of a written row when the row is on disk, and waits for that word before the next write.
- E3 no row of a body is written once the stand-in of the body is closed, including rows on their way.
- E4 only the outer process knows all recorded outcomes of the run that are still to be delivered (`Gate`). An inner
  process reports its own, with a number, and holds new calls back until the answer to its latest report. So between two
  processes there is no moment at which neither holds new calls back.
- E5 a stand-in is quiet only while the inner process has said so and no message has passed since, in either direction:
  the inner process reports how many messages it had acted on, and the outer process counts its messages.
- E6 tasks that cannot execute in the inner process (`Outer.takes`) are carried out by the outer process, as calls of
  the stand-in; the calling inner body records their outcomes.
- E7 a body that no asyncio task awaits hears of the cancellation of its run in the inner process, and cleans up there
  with working durable calls; the inner process says at the end whether the code has heard. Every other body ends with
  its process when its caller is cancelled.

A cancellation still to be written in one process does not hold back the other process: two bodies in different
processes share no memory, and every message between them passes through the journal, after the cancellation.
"""

from __future__ import annotations

from collections.abc import Callable

from ..body.body import Body, Stillness
from ..body.delivery import Delivery
from ..body.interfaces import ParentPort
from ..ground.model import Action, Kind
from .driver import driver_of
from .interfaces import Report


class StandIn(Body):
    """Stands for a body in an inner process, with all bodies that it calls there. Has no journal of its own."""

    report: Report | None = None
    """Set while all those bodies are quiet (E5)."""
    undrained: frozenset[int] = frozenset()
    """The undelivered outcomes of these bodies, and actions to be called again, when this stand-in was opened."""
    give_up: Callable[[], None] = staticmethod(lambda: None)
    """Tells the inner process that the awaited cancellation will not come."""

    def cancel_by_run(self) -> None:
        with self._lock:
            sleepers = list(self._sleepers)
        for sleeper in sleepers:
            # A pause between two attempts, or the conversation with the inner process.
            sleeper.cancel()

    def hand_over(self) -> None:
        """The loaded journal is replayed in the inner process."""
        delivery = self.delivery
        replay = delivery.replay
        # As `Driver._load` has it.
        if not driver_of(self).fresh and replay is not None and not replay.drained:
            self.undrained = frozenset({self.action})
        if not driver_of(self).fresh and delivery.unasked_actions:
            self.undrained |= {action.action for action in delivery.open_actions.values() if action.kind == Kind.TASK}
        self.delivery = Delivery()

    def quiet(self) -> bool:
        return self.report is not None

    def rest(self, patience: float) -> list[int] | None:
        # The body keeps its process during every wait.
        return None

    def still(self) -> Stillness | None:
        # The clock of another process does not jump.
        return None

    def between_calls(self) -> bool:
        return self.report is not None and self.report.still

    @property
    def idle_replaying(self) -> bool:
        return self.report is not None and self.report.replaying > 0

    def awaits_cancellation(self) -> bool:
        return self.report is not None and self.report.replaying == len(self.report.awaiting)

    def give_up_cancellation(self) -> None:
        self.give_up()

    def stands_for(self) -> set[int]:
        return {self.action} if self.report is None else {self.action, *self.report.open}

    def uncalled(self) -> list[Action]:
        return [] if self.report is None else self.report.uncalled


class Between:
    """An action in an inner process, as the parent of a body in the outer process."""

    def __init__(self, action: int, path: bytes, parent: ParentPort) -> None:
        self.action = action
        self.path = path
        self.parent = parent
        self.children = parent.children
        # The end of the inner process cancels this action, and nothing else does.
        self.cancel_delivered = True

    @property
    def stopped(self) -> bool:
        """See `Body`."""
        return self.parent.stopped

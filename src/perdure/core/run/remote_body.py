"""Bodies that execute in another process: what stands for them here, and the two ports between the processes.

The process that holds a run's claim, the *outer* one, drives it; an *inner* process executes the body of one action,
with the same `Body`, `Replay` and protocols as anywhere, and with a driver of its own for just that body and what it
calls. The inner process has no store: what it reads and records goes through the outer one. So identity, replay and
quietness are decided where the code runs, and everything that concerns the whole run where its claim is held:

- E1 entry numbers and action numbers are given by the outer process, in the order in which it writes.
- E2 an inner process is told that a row is written when it is on disk, and waits for that before it writes another.
- E3 nothing of a body is written once its stand-in is closed, whatever is still on its way.
- E4 what the run has yet to be handed (`Driver._undrained`) is known to the outer process alone. Whatever an inner one
  finds or has handed over it reports with a number, and it takes itself for held back until the answer to its latest
  report says otherwise. So between two processes there is no moment at which neither holds new calls back.
- E5 a stand-in is quiet only while the inner process has said so and no message has passed since, in either direction:
  the inner one says how many it had acted on, and the outer one knows how many it has sent.
- E6 tasks that cannot execute in the inner process (`Outer.takes`) are carried out by the outer one, as calls of the
  stand-in; their outcomes are recorded by the inner body that called them.

Nothing holds back the outer process for a cancellation that an inner one has yet to write, nor the other way round:
two bodies in different processes share no memory, and whatever one tells the other passes through the journal, after
the cancellation. (Within one process D2 holds.)
"""

from __future__ import annotations

from collections.abc import Callable

from ..body.body import Body
from ..body.delivery import Delivery
from ..body.interfaces import ParentPort
from ..ground.model import Action, Kind
from .driver import driver_of
from .interfaces import Report


class StandIn(Body):
    """Stands for a body that executes elsewhere, with all bodies that it calls there. Has no journal of its own."""

    report: Report | None = None
    """Set while all those bodies are quiet (E5)."""
    undrained: frozenset[int] = frozenset()
    """What those bodies had yet to be handed, or to call again, when this one was opened."""
    give_up: Callable[[], None] = staticmethod(lambda: None)
    """Tells the inner process that the cancellation that its bodies wait for cannot come any more."""

    def hand_over(self) -> None:
        """The journal that was loaded into this body is replayed elsewhere."""
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

    def rest(self) -> list[int] | None:
        # It keeps its process, whatever it waits for there.
        return None

    def between_calls(self) -> bool:
        return False

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
    """An action whose body executes in an inner process, as the parent of a body that executes in the outer one."""

    def __init__(self, action: int, parent: ParentPort) -> None:
        self.action = action
        self.parent = parent
        self.children = parent.children

    @property
    def stopped(self) -> bool:
        """See `Body`."""
        return self.parent.stopped

"""Rehearsals: recorded runs replayed against today's code, without effects and without a store.

- RH1 no call of a task, a trace, a container or anything else durable is executed: a call without a recorded outcome
  waits until the rehearsal ends. Nothing is written to a store.
- RH2 a run that has not succeeded is rehearsed up to where its driver left the run: all recorded outcomes are
  delivered, and the calls that were under way are made again. A run that has succeeded is rehearsed to its end, and the
  result is compared.
- RH3 the first difference counts. Replay is as strict as under unchanged source.
"""

from __future__ import annotations

import os
import re
import sys
import sysconfig
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from concurrent.futures import Future
from enum import StrEnum
from types import FrameType
from typing import Any, NamedTuple

from ..core.body.body import Body
from ..core.body.branch import Call
from ..core.body.delivery import Outcome
from ..core.body.interfaces import ParentPort
from ..core.body.loop import LoopThread
from ..core.body.waits import Waiter
from ..core.body.wording import is_outdated, mismatch
from ..core.ground.clock import SystemClock
from ..core.ground.model import (
    Action,
    Created,
    Entry,
    Kind,
    Message,
    Result,
    RunRow,
    Segment,
    Source,
    Status,
)
from ..core.ground.spec import TaskSpec
from ..core.journal.segment import Journal, entries_of
from ..core.process.worker import Worker
from ..core.run.driver import Driver
from ..core.run.gate import Gate
from ..errors import NonDeterminismError, PerdureError
from ..executors.local import DaemonThreads
from ..store.memory import MemoryLiveness

TOKEN = b"rehearsal"
PATIENCE = 30.0
"""Seconds for one run. Recorded outcomes are delivered at once, so only a body that computes takes long."""
LOOK = 0.01
"""Seconds between two looks whether the code has made the calls that were under way."""
LOOKS = 200
"""So many looks at most."""
AT_ONCE = 32
"""Runs that are rehearsed at the same time."""


class Fate(StrEnum):
    """What would become of a run under today's code."""

    UNCHANGED = "unchanged"
    CHANGED = "changed"
    """The code differs, and the source has changed: something is executed that was not, or is executed again (P6)."""
    STOPS = "stops"
    """The run would stop with `NonDeterminismError` (P5)."""
    BROKEN = "broken"
    """The run cannot be replayed: its code or its rows cannot be used."""


class Recorded(NamedTuple):
    """A run as it is recorded."""

    run: RunRow
    segments: Sequence[Segment]
    actions: Sequence[Action]
    sources: dict[int, Source]
    messages: Sequence[Message] = ()
    redacted: bool = False
    """Values have been removed: calls are found by place and name, not by their arguments."""


class Rehearsed(NamedTuple):
    """The end of a rehearsal."""

    run: str
    task: str
    status: str
    verdict: Fate
    expected: str = ""
    received: str = ""
    where: str = ""
    """File and line of the last call that the code made."""
    why: str = ""
    """Why the run cannot be replayed."""

    def text(self) -> str:
        """The difference, for people."""
        if self.verdict is Fate.UNCHANGED:
            return f"run {self.run} ({self.task}): unchanged"
        if self.why:
            return f"run {self.run} ({self.task}): {self.why}"
        at = f"\n  at:       {self.where}" if self.where else ""
        return (
            f"run {self.run} ({self.task}): the code asks for something else than is recorded\n"
            f"  expected: {self.expected}\n  received: {self.received}{at}"
        )


Stops = Callable[[int | None, FrameType | None], None]
"""Is told of each call: the number of its entry, if it has one, and the frame of the user's code."""


class _Unchanged(PerdureError):
    """The code has asked for all that is recorded."""


class _Store:
    """What drivers ask of a store, answered from recorded runs. Writes are dropped."""

    id = "rehearsal"
    url = "memory://"

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.runs: dict[int, Recorded] = {}
        self._today: dict[bytes, int] = {}

    def source(self, number: int) -> Source | None:
        return next((r.sources[number] for r in list(self.runs.values()) if number in r.sources), None)

    def source_id(self, source: Source) -> int:
        return self._today.setdefault(source.digest, -1 - len(self._today))

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        return iter([s for s in self.runs[run].segments if numbers is None or s.number in numbers])

    def journal_length(self, run: int) -> int:
        return max((segment.number for segment in self.runs[run].segments), default=0)

    def actions(self, run: int, parent: int | None = None) -> list[Action]:
        return [one for one in self.runs[run].actions if parent is None or one.parent == parent]

    def open_actions(self, run: int) -> list[Action]:
        done = {entry.child for entry in self._entries(run)}
        return [one for one in self.runs[run].actions if one.action not in done]

    def _entries(self, run: int) -> Iterator[Entry]:
        recorded = self.runs[run]
        return entries_of(recorded.run.name, recorded.run.uid, recorded.segments)

    def last_action(self, run: int) -> int:
        return max((one.action for one in self.runs[run].actions), default=0)

    def run(self, name: str) -> RunRow | None:
        return next((found.run for found in list(self.runs.values()) if found.run.name == name), None)

    def run_by_id(self, run: int) -> RunRow | None:
        found = self.runs.get(run)
        return None if found is None else found.run

    def commit(self, writes: Sequence[Any]) -> list[Created | bool]:
        return [True for _ in writes]

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        return True

    def release(self, run: int, token: bytes, refusal: Any = None) -> bool:
        return True

    def message(self, run: int, box: str, number: int) -> Message | None:
        return None

    def messages(self, run: int, box: str, *, above: int, limit: int) -> list[Message]:
        return []

    def news(self, wanted: Sequence[tuple[int, str]]) -> list[tuple[int, str]]:
        return []

    def hear(self, bell: Callable[[], None]) -> bool:
        return True

    def cache_get(self, key: bytes) -> None:
        return None

    def version(self) -> int:
        return 0

    def close(self) -> None:
        pass


class _Gate(Gate):
    """Never lets anything new start (RH1)."""

    def __init__(self, settled: Callable[[], None]) -> None:
        super().__init__(lambda: None)
        self.free = False
        self._settled = settled

    def is_free(self) -> bool:
        return False

    def change(
        self, added: Collection[int] = (), removed: Collection[int] = (), tell: Callable[[], None] | None = None
    ) -> None:
        super().change(added, removed, tell)
        if not self.undrained:
            self._settled()


class _Body(Body):
    """A body whose calls without an outcome wait for ever (RH1)."""

    driver: _Driver

    def begin(self, call: Call, item: int = 0) -> Any:
        self.driver.place = _place(self.main) or self.driver.place
        if self.driver.recorded.redacted:
            self._find(call)
        answer = super().begin(call, item)
        if self.driver.stops is not None:
            entry = answer if isinstance(answer, Outcome) else getattr(answer, "entry", None)
            self.driver.stops(None if entry is None else entry.n, _users_frame())
        if answer is not None or self._replays_below(call):
            if answer in self.delivery.held:
                self.driver.held(call)
            return answer
        waiter: Waiter = self._waiter(call, item)
        with self._lock:
            self.delivery.held.append(waiter)
            self.stirred = True
        self.driver.held(call)
        return waiter

    def patch(self, name: str, note: Callable[[bool], None]) -> bool:
        self.driver.place = _place(self.main) or self.driver.place
        return super().patch(name, note)

    def has_passed(self) -> bool:
        # A run that has ended has passed every place, and the journal no longer shows the last of them.
        return super().has_passed() or (self.driver.to_the_end and self.driver.ended_under_other_code)

    def _replays_below(self, call: Call) -> bool:
        """Whether the call is a task that was under way: replay of the task's body has no effect."""
        return call.kind is Kind.TASK and (call.branch.id, call.fp, call.occ) in self.delivery.open_actions

    def _find(self, call: Call) -> None:
        """Give the call the identity of what is recorded at its place, if that has the same kind and name."""
        found = self.driver.place_of(self.action, call.branch.id, call.seq)
        if found is not None and found.kind == call.kind and found.name == call.name:
            call.fp, call.occ = found.fp, found.occ


class _Driver(Driver):
    """Drives a rehearsal; see the module text."""

    rehearses = True
    stops: Stops | None = None

    def __init__(self, worker: Worker, recorded: Recorded, spec: TaskSpec, loop: LoopThread) -> None:
        self.recorded = recorded
        self.place = ""
        self.where = ""
        self.to_the_end = recorded.run.status is Status.SUCCEEDED
        self._looks = 0
        self._looking = False
        self._calls: list[Call] = []
        super().__init__(worker, recorded.run, spec, loop, fresh=False)
        self._by_place = {(e.action, e.branch, e.seq): e for e in self._entries()} if recorded.redacted else {}

    def _entries(self) -> Iterator[Entry]:
        run = self.recorded.run
        return (e for e in entries_of(run.name, run.uid, self.recorded.segments) if e.result < Result.LOOSEN)

    @property
    def ended_under_other_code(self) -> bool:
        """Whether other code than today's has recorded last."""
        source = _source_of(self.recorded, None)
        return source is not None and self.is_of_other_code(source)

    def place_of(self, action: int, branch: int, seq: int) -> Any:
        """The entry, or the open action, that is recorded for that place."""
        found = self._by_place.get((action, branch, seq))
        if found is not None:
            return found
        return next((a for a in self.recorded.actions if (a.parent, a.branch, a.seq) == (action, branch, seq)), None)

    def make_gate(self) -> Gate:
        return _Gate(self._settled)

    def is_changed(self, source_id: int) -> bool:
        return False

    def open_body(self, parent: ParentPort | None, action: int, name: str, loop: LoopThread, **settings: Any) -> Body:
        return super().open_body(parent, action, name, loop, **{**settings, "kind": _Body})

    def stop(self, reason: BaseException) -> None:
        if isinstance(reason, NonDeterminismError) and not self.stopping:
            self.where = self.place
        super().stop(reason)

    def held(self, call: Call) -> None:
        """The code makes a call without an outcome."""
        self._calls.append(call)
        if self.to_the_end:
            self._settled()

    def check_stuck(self) -> None:
        super().check_stuck()
        self._settled()

    def _settled(self) -> None:
        if not self._looking:
            self._looking = True
            self.loop.soon(self._look)

    def _look(self) -> None:
        """Whether the rehearsal is over: nothing recorded is left, and the code waits."""
        self._looking = False
        if self.stopping or self.ending or self.gate.undrained:
            return
        bodies = list(self.bodies.values())
        missing = [action for body in bodies for action in body.not_called_again()]
        quiet = all(body.quiet() for body in bodies)
        if not missing and not self.to_the_end and (quiet or self.stops is None):
            self.stop(_Unchanged())
            return
        if not quiet:
            self._looks += 1
            # A person at a debugger takes as long as it takes.
            if self._looks < LOOKS or self.stops is not None:
                self._looking = True
                self.loop.later(LOOK, self._look)
                return
        asked = ", ".join(call.describe() for call in self._calls[:3]) or "nothing more"
        if missing:
            expected = f"{Kind(missing[0].kind).name.lower()} {missing[0].name}, which was under way"
            self.stop(mismatch(self.run.name, expected, asked))
        elif self._calls:
            self.stop(mismatch(self.run.name, "nothing more: the recorded run has ended here", asked))


class Rehearsal:
    """Rehearses recorded runs, many at a time, on one event loop."""

    def __init__(self, *, stops: Stops | None = None, patience: float | None = PATIENCE) -> None:
        """`stops` is told of each call. `patience`: seconds for one run."""
        self._stops = stops
        self._patience = patience
        self._store = _Store()
        store: Any = self._store
        self._worker = Worker(store, MemoryLiveness(), DaemonThreads(), clock=self._store.clock)
        self._number = 0

    def close(self) -> None:
        """End the threads."""
        self._worker.loops.stop()
        self._worker.post.close()

    def rehearse(self, recorded: Iterable[Recorded], spec: Callable[[RunRow], TaskSpec]) -> Iterator[Rehearsed]:
        """What would become of each run under the task that `spec` gives, in order.

        Raises:
            UsageError: `spec` raises it.
        """
        waiting: list[tuple[Recorded, _Driver, Future[Any]]] = []
        for one in recorded:
            waiting.append(self._begin(one, spec(one.run)))
            if len(waiting) >= AT_ONCE:
                yield self._end(*waiting.pop(0))
        for begun in waiting:
            yield self._end(*begun)

    def _begin(self, recorded: Recorded, spec: TaskSpec) -> tuple[Recorded, _Driver, Future[Any]]:
        self._number += 1
        row = recorded.run._replace(id=self._number, token=TOKEN, reuse=None, crashes=0)
        actions = [action._replace(run=row.id) for action in recorded.actions]
        recorded = recorded._replace(run=row, actions=actions)
        self._store.runs[row.id] = recorded
        driver = _Driver(self._worker, recorded, spec, self._worker.loops.free_loop())
        driver.stops = self._stops
        self._worker.drivers[row.id] = driver
        driver.loop.soon(driver.start)
        return recorded, driver, driver.done

    def _end(self, recorded: Recorded, driver: _Driver, done: Future[Any]) -> Rehearsed:
        run = recorded.run
        known = (run.name, run.task, str(run.status))
        try:
            result, value, _ = done.result(self._patience)
        except _Unchanged:
            return Rehearsed(*known, Fate.UNCHANGED)
        except NonDeterminismError as error:
            expected, received = error.expected or "", error.received or ""
            if is_outdated(error):
                return Rehearsed(*known, Fate.STOPS, expected, received, driver.where or driver.place)
            return self._different(known, recorded, driver, expected, received)
        except TimeoutError:
            driver.stop(PerdureError("the rehearsal takes too long"))
            return Rehearsed(*known, Fate.BROKEN, why=f"the code does not come to rest within {PATIENCE:g} s")
        except Exception as error:
            return Rehearsed(*known, Fate.BROKEN, why=f"{type(error).__name__}: {error}")
        finally:
            del self._store.runs[run.id]
        if not driver.to_the_end and self._stops is not None:
            return Rehearsed(*known, Fate.UNCHANGED)
        if not driver.to_the_end:
            ended = "the run ends" if result != Result.ERROR else "the run fails"
            return self._different(known, recorded, driver, "the calls that were under way", f"nothing more: {ended}")
        if (result, value) == (run.result, run.value) or recorded.redacted:
            return Rehearsed(*known, Fate.UNCHANGED)
        shown = [_shown(*pair) for pair in ((run.result, run.value), (result, value))]
        return self._different(known, recorded, driver, *shown)

    def _different(
        self, known: tuple[str, str, str], recorded: Recorded, driver: _Driver, expected: str, received: str
    ) -> Rehearsed:
        number = re.search(r"\[entry (\d+),", expected)
        source = _source_of(recorded, int(number[1]) if number else None)
        changed = source is not None and self._worker.source_changed(source, driver.run.target)
        verdict = Fate.CHANGED if changed and not driver.strict else Fate.STOPS
        return Rehearsed(*known, verdict, expected, received, driver.where or driver.place)


def _source_of(recorded: Recorded, entry: int | None) -> int | None:
    """The snapshot of the code that recorded that entry; by default the last one that recorded anything."""
    last: int | None = None
    for one in entries_of(recorded.run.name, recorded.run.uid, recorded.segments):
        last = one.source
        if one.n == entry:
            return last
    return last if last is not None else next((action.source for action in recorded.actions), None)


def _shown(result: int | None, value: bytes | None) -> str:
    from ..core.ground.values import describe_error, preview

    if value is None:
        return "the end of the run"
    if result == Result.ERROR:
        kind, message, _ = describe_error(value)
        return f"the failure {kind}: {message}"
    return f"the result {preview(value, 200)}"


_PYTHON = os.path.join(sysconfig.get_path("stdlib"), "")
_OWN = os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "")


def _place(main: Any) -> str:
    """File and line of the code that makes the present call; for a call by another task of the body, the line at which
    the body itself, executed by the task `main`, waits."""
    frame = _users_frame()
    if frame is not None:
        return f"{frame.f_code.co_filename}:{frame.f_lineno}"
    found = ""
    coroutine: Any = None if main is None else main.get_coro()
    while (inner := getattr(coroutine, "cr_frame", None)) is not None:
        if _is_users(inner):
            found = f"{inner.f_code.co_filename}:{inner.f_lineno}"
        coroutine = coroutine.cr_await
    return found


def _users_frame() -> FrameType | None:
    """The innermost frame of the user's code in this thread."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and not _is_users(frame):
        frame = frame.f_back
    return frame


def _is_users(frame: FrameType) -> bool:
    return not frame.f_code.co_filename.startswith((_OWN, _PYTHON, "<"))


def resealed(run: RunRow, entries: Sequence[Entry]) -> list[Segment]:
    """Segments of a journal for a rehearsal."""
    if not entries:
        return []
    return list(Journal(run.name, run.uid, TOKEN).append(entries)[0])


__all__ = ["Fate", "Recorded", "Rehearsal", "Rehearsed", "resealed"]

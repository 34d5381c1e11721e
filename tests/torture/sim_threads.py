"""Threads, locks, clocks and event loops under one seeded scheduler, in virtual time.

The threads are real, and exactly one of them runs at a time. A thread lets go of the processor at *points*: wherever
the thread takes or releases a lock, sleeps, starts a thread, polls an event loop's selector, wakes an event loop, or
calls the simulated store. At each point the scheduler chooses the thread that runs next. All of `threading`,
`concurrent.futures` and asyncio is built on one lock, one selector and one way to start a thread, so nothing else has
to be replaced.

Time is a number. The number grows by a microsecond at each point and by a few at each reading of a clock, and jumps to
the next deadline as soon as no thread can run. A `Process` is a group of threads that can be frozen, as SIGSTOP does,
or killed, as SIGKILL does: the threads of a killed process never run another line, not even to unwind.

`Scheduler.take_over` replaces the primitives of the whole interpreter. The interpreter has to be a forked child that
ends with `os._exit` afterwards.
"""

from __future__ import annotations

import _thread
import asyncio
import functools
import gc
import os
import random
import selectors
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from hashlib import blake2b
from math import ceil
from types import CodeType, FrameType, ModuleType
from typing import Any, NamedTuple, NoReturn

US = 1_000_000
READING = 2
"""Microseconds that a reading of a clock takes. Code that polls a clock gets somewhere by this."""


BROKEN = 70
"""Exit code of an interpreter whose simulation has failed itself."""


class Choices:
    """Where the scheduler and the faults take their choices from: a seed."""

    def __init__(self, seed: int) -> None:
        self._random = random.Random(seed)
        self.chance = self._random.random
        """A number from 0 to 1."""

    def among(self, count: int) -> int:
        """One of `count` possibilities."""
        return int(self.chance() * count)

    def between(self, low: float, high: float) -> float:
        return low + self.chance() * (high - low)

    def preempts(self, likely: float) -> bool:
        """Whether another thread goes on where the running thread could."""
        return self.chance() < likely

    def thread(self, count: int) -> int:
        """Which of so many threads goes on."""
        return self.among(count)


class Decision(NamedTuple):
    """A choice that was made, and how many possibilities there were."""

    made: int
    of: int


class Enumerated(Choices):
    """Choices that are given from outside, so that all of them can be gone through; behind the given ones, the first.

    Only what a test asks for is a choice: the order in which steps end, the call of the store at which the process is
    killed, and, with `preemptions`, the points at which another thread goes on."""

    def __init__(self, given: Sequence[int] = (), *, preemptions: int = 0) -> None:
        super().__init__(0)
        self.chance = lambda: 0.49  # nothing unlikely happens by chance
        self._given = given
        self._preemptions = preemptions
        self.made: list[Decision] = []

    def among(self, count: int) -> int:
        if count < 2:
            return 0
        place = len(self.made)
        made = self._given[place] if place < len(self._given) else 0
        self.made.append(Decision(made, count))
        return made

    def preempts(self, likely: float) -> bool:
        if self._preemptions and self.among(2):
            self._preemptions -= 1
            return True
        return False

    def thread(self, count: int) -> int:
        return 0


def following(made: Sequence[Decision]) -> list[int] | None:
    """The choices after these, depth first; `None` behind the last ones."""
    rest = list(made)
    while rest and rest[-1].made == rest[-1].of - 1:
        rest.pop()
    return [*(decision.made for decision in rest[:-1]), rest[-1].made + 1] if rest else None


class Process:
    """A simulated process: its threads, and whether they run."""

    def __init__(self, number: int) -> None:
        self.number = number
        self.frozen_until = 0
        self.dead = False


class SimThread:
    """A thread; `gate` is what the real thread waits for while another thread runs."""

    __slots__ = ("deadline", "gate", "joining", "number", "over", "process")

    def __init__(self, number: int, process: Process) -> None:
        self.number = number
        self.process = process
        self.deadline: int | None = None
        self.over = False
        self.joining: list[SimThread] = []
        self.gate = _thread.allocate_lock()
        self.gate.acquire()


class Stuck(Exception):
    """No thread can ever run again."""


def _in_property(frame: FrameType | None) -> bool:
    """Whether a `cached_property` is being computed. Before Python 3.12 that holds a real lock, which another thread
    of the simulation would wait for without letting this one go on."""
    while frame is not None:
        if frame.f_code is _COMPUTES:
            return True
        frame = frame.f_back
    return False


_COMPUTES = functools.cached_property.__get__.__code__


class Scheduler:
    """See the module text."""

    def __init__(self, choices: Choices, *, restless: float, lines: float = 0.0, under: tuple[str, ...] = ()) -> None:
        """`restless`: how likely another thread goes on at a point where the running thread could; `lines`: the same
        for each line of the files under these directories."""
        self.choices = choices
        self.restless = restless
        self._lines = lines
        self._under = under
        self._followed: dict[CodeType, Any] = {}
        self.now = 1_000 * US
        """Microseconds since the boot of the simulated machine."""
        self.epoch = 1_600_000_000 * US
        """The wall clock's reading at boot."""
        self.points = 0
        self.switches = 0
        self._trace = blake2b(digest_size=16)
        self._world = Process(0)
        self._count = 0
        self.current = self._new_thread(self._world)
        self.main = self.current
        self._ready = [self.current]
        self._blocked: dict[SimThread, None] = {}
        self._wake_at = 1 << 62
        self._threads: dict[int, SimThread] = {}
        self._process_of_next: Process | None = None

    def _new_thread(self, process: Process) -> SimThread:
        self._count += 1
        return SimThread(self._count, process)

    # -- the trace -------------------------------------------------------------------------------------------------

    def note(self, *what: object) -> None:
        """Something that has to be the same in each run of the seed."""
        self._trace.update(repr((self.current.number, self.now, what)).encode())

    @property
    def digest(self) -> str:
        """A hash of all that was noted, and of all switches between threads."""
        return self._trace.hexdigest()

    # -- scheduling ------------------------------------------------------------------------------------------------

    def point(self) -> None:
        """Another thread may run here."""
        self.points += 1
        self.now += 1
        if self.now >= self._wake_at:
            self._wake_due()
        if len(self._ready) > 1 and self.choices.preempts(self.restless):
            self._switch(self._pick(but=self.current))

    def block(self, deadline: int | None = None) -> None:
        """The running thread waits until another thread calls `wake`, or until the deadline."""
        me = self.current
        me.deadline = deadline
        self._ready.remove(me)
        self._blocked[me] = None
        if deadline is not None and deadline < self._wake_at:
            self._wake_at = deadline
        self._switch(self._pick())

    def wake(self, thread: SimThread) -> None:
        """A thread that has called `block` may go on."""
        if thread in self._blocked:
            del self._blocked[thread]
            thread.deadline = None
            self._ready.append(thread)

    def sleep(self, seconds: float) -> None:
        end = self.now + ceil(max(seconds, 0.0) * US)
        self.point()
        while self.now < end:
            self.block(end)

    def freeze(self, process: Process, seconds: float) -> None:
        """No thread of the process runs for so long; the running thread may be one of them."""
        process.frozen_until = self.now + int(seconds * US)
        if self.current.process is process:
            self._switch(self._pick())

    def kill(self, process: Process) -> None:
        """No thread of the process ever runs again; the running thread may be one of them."""
        process.dead = True
        self._ready = [thread for thread in self._ready if thread.process is not process]
        self._blocked = {thread: None for thread in self._blocked if thread.process is not process}
        if self.current.process is process:
            self._switch(self._pick())
            raise AssertionError("a thread of a killed process runs")

    def _pick(self, but: SimThread | None = None) -> SimThread:
        """The thread that goes on; `but`: another one, if there is one."""
        while True:
            now = self.now
            able = [thread for thread in self._ready if thread.process.frozen_until <= now]
            if len(able) > 1 and but is not None:
                able.remove(but)
            if able:
                return able[self.choices.thread(len(able))] if len(able) > 1 else able[0]
            self._pass_time()

    def _pass_time(self) -> None:
        """Nothing can run now: go to the next moment at which something can."""
        moments = [thread.process.frozen_until for thread in self._ready]
        for thread in self._blocked:
            if thread.deadline is not None:
                moments.append(max(thread.deadline, thread.process.frozen_until))
        if not moments:
            raise Stuck("every thread waits for another thread")
        self.now = max(self.now, min(moments))
        self._wake_due()

    def _wake_due(self) -> None:
        due = [t for t in self._blocked if t.deadline is not None and t.deadline <= self.now]
        for thread in due:
            self.wake(thread)
        self._wake_at = min((t.deadline for t in self._blocked if t.deadline is not None), default=1 << 62)

    def _switch(self, target: SimThread) -> None:
        me = self.current
        if target is me:
            return
        self.switches += 1
        self._trace.update(b"%d %d;" % (target.number, self.now))
        self.current = target
        target.gate.release()
        me.gate.acquire()

    # -- threads ---------------------------------------------------------------------------------------------------

    def start_thread(self, function: Callable[..., Any], args: tuple[Any, ...], kwargs: Any = None) -> int:
        """In the place of `_thread.start_new_thread`: the thread belongs to the process of the running thread."""
        process, self._process_of_next = self._process_of_next, None
        thread = self._new_thread(process or self.current.process)
        self._ready.append(thread)
        return _start_real_thread(self._live, (thread, function, args))

    def start_in(self, process: Process, name: str, target: Callable[[], None]) -> None:
        """Start a thread of that process, without waiting until it runs: the process may be killed before."""
        thread = threading.Thread(target=target, name=name, daemon=True)
        thread._started.wait = lambda timeout=None: True  # type: ignore[attr-defined]
        self._process_of_next = process
        thread.start()

    def _live(self, thread: SimThread, function: Callable[..., Any], args: tuple[Any, ...]) -> NoReturn:
        try:
            thread.gate.acquire()
            self._threads[threading.get_ident()] = thread
            if self._lines:
                sys.settrace(self._call)
            function(*args)
            sys.settrace(None)
            thread.over = True
            for other in thread.joining:
                self.wake(other)
            self._ready.remove(thread)
            # The real thread stays until the end of the real process: what Python does at the end of a thread would
            # run beside the other threads.
            self._switch(self._pick())
            raise AssertionError("a thread that is over runs")
        except BaseException:
            traceback.print_exc()
            os._exit(BROKEN)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        """A function is called: whether its lines are points, too."""
        code = frame.f_code
        if code not in self._followed:
            follows = code.co_filename.startswith(self._under) and code.co_name != "<module>"
            self._followed[code] = self._line if follows else None
        return self._followed[code]

    def _line(self, frame: FrameType, event: str, arg: object) -> Any:
        if event != "line" or len(self._ready) <= 1 or not self.choices.preempts(self._lines):
            return self._line
        if not _in_property(frame):
            self.points += 1
            self.now += 1
            self._switch(self._pick(but=self.current))
        return self._line

    def join(self, ident: int | None, timeout: float | None) -> None:
        """Wait for the end of a thread."""
        thread = self._threads.get(ident or 0)
        end = None if timeout is None else self.now + ceil(timeout * US)
        while thread is not None and not thread.over and (end is None or self.now < end):
            thread.joining.append(self.current)
            self.block(end)

    def ended(self, ident: int | None) -> bool:
        thread = self._threads.get(ident or 0)
        return thread is not None and thread.over

    # -- clocks ----------------------------------------------------------------------------------------------------

    def boot(self) -> int:
        """A reading of the monotonic clock, in microseconds."""
        self.now += READING
        return self.now

    def wall(self) -> int:
        """A reading of the wall clock, in microseconds."""
        return self.epoch + self.boot()

    # -- the interpreter -------------------------------------------------------------------------------------------

    def take_over(self, bindings: list[Binding], seed: int) -> None:
        """Replace the primitives of this interpreter, for good. `bindings`: see `find_bindings`."""
        global _active
        _active = self
        gc.disable()  # a collection runs finalizers, and when one happens depends on the interpreter's past
        random.seed(seed)
        bytes_of = random.Random(seed)
        os.urandom = lambda size: bytes_of.randbytes(size)  # type: ignore[assignment]
        os.getpid = lambda: 1000 + self.current.process.number
        socket.gethostname = lambda: "simulated"
        threading._start_new_thread = self.start_thread  # type: ignore[attr-defined]
        threading._allocate_lock = threading.Lock = SimLock  # type: ignore[attr-defined, assignment, misc]
        threading._CRLock = None  # type: ignore[attr-defined]
        threading.RLock = threading._PyRLock  # type: ignore[attr-defined]
        threading.Thread.join = lambda thread, timeout=None: self.join(thread.ident, timeout)  # type: ignore[method-assign]
        threading.Thread.is_alive = lambda thread: not self.ended(thread.ident)  # type: ignore[method-assign]
        selectors.DefaultSelector = SimSelector  # type: ignore[misc, assignment]
        selector_loop: Any = asyncio.SelectorEventLoop
        selector_loop._make_self_pipe = lambda loop: None
        selector_loop._write_to_self = lambda loop: loop._selector.wake()
        selector_loop.time = lambda loop: self.boot() / US
        for module, name, real in bindings:
            setattr(module, name, self._simulated(real))

    def _simulated(self, real: str) -> Any:
        if real == LOCK:
            return LockOfEach()
        return {
            "sleep": self.sleep,
            "time": lambda: self.wall() / US,
            "time_ns": lambda: self.wall() * 1000,
            "monotonic": lambda: self.boot() / US,
            "monotonic_ns": lambda: self.boot() * 1000,
            "perf_counter": lambda: self.boot() / US,
            "perf_counter_ns": lambda: self.boot() * 1000,
            "thread_time_ns": lambda: 0,
            "process_time_ns": lambda: 0,
            "clock_gettime_ns": lambda clock: self.boot() * 1000,
        }[real]


_start_real_thread = _thread.start_new_thread
_active: Any = None
"""The scheduler of this interpreter."""


class SimLock:
    """In the place of `threading.Lock`. Which of several waiting threads gets the lock is the scheduler's choice."""

    __slots__ = ("__weakref__", "_held", "_waiting")

    def __init__(self) -> None:
        self._held = False
        self._waiting: list[SimThread] = []

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = _active
        scheduler.point()
        if not self._held:
            self._held = True
            return True
        if not blocking:
            return False
        end = None if timeout < 0 else scheduler.now + ceil(timeout * US)
        me = scheduler.current
        while self._held:
            if end is not None and scheduler.now >= end:
                return False
            self._waiting.append(me)
            scheduler.block(end)
            if me in self._waiting:
                self._waiting.remove(me)
        self._held = True
        return True

    def release(self) -> None:
        if not self._held:
            raise RuntimeError("release unlocked lock")
        self._held = False
        if self._waiting:
            for thread in self._waiting:
                _active.wake(thread)
            self._waiting.clear()
            _active.point()

    def locked(self) -> bool:
        return self._held

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class LockOfEach:
    """A lock in a module's variable: every simulated process has its own."""

    def __init__(self) -> None:
        self._locks: dict[Process, SimLock] = {}

    def _mine(self) -> SimLock:
        return self._locks.setdefault(_active.current.process, SimLock())

    def __getattr__(self, name: str) -> Any:
        return getattr(self._mine(), name)

    def __enter__(self) -> bool:
        return self._mine().acquire()

    def __exit__(self, *_: object) -> None:
        self._mine().release()


class SimSelector(selectors._BaseSelectorImpl):  # type: ignore[name-defined, misc]
    """A selector whose files are never ready: it ends when the loop is woken, or at the loop's next timer."""

    def __init__(self) -> None:
        super().__init__()
        self._woken = False
        self._waiting: SimThread | None = None

    def wake(self) -> None:
        """What a byte in the loop's own pipe does."""
        self._woken = True
        if self._waiting is not None:
            _active.wake(self._waiting)
        _active.point()

    def select(self, timeout: float | None = None) -> list[Any]:
        scheduler = _active
        scheduler.point()
        if timeout is None or timeout > 0:
            end = None if timeout is None else scheduler.now + ceil(timeout * US)
            self._waiting = scheduler.current
            while not self._woken and (end is None or scheduler.now < end):
                scheduler.block(end)
            self._waiting = None
        self._woken = False
        return []


# -- readings of clocks that modules have taken by name ----------------------------------------------------------------


class Binding(NamedTuple):
    """A name in a module that stands for a function of `time`, or for a lock."""

    module: ModuleType
    name: str
    real: str


CLOCKS = (
    "sleep",
    "time",
    "time_ns",
    "monotonic",
    "monotonic_ns",
    "perf_counter",
    "perf_counter_ns",
    "thread_time_ns",
    "process_time_ns",
    "clock_gettime_ns",
)


LOCK = "a lock"


def find_bindings(*prefixes: str) -> list[Binding]:
    """Every name that stands for a function of `time`, in `time` itself and in the modules whose names begin so, and
    the locks of these modules."""
    wanted = {id(getattr(time, name)): name for name in CLOCKS}
    found = [Binding(time, name, name) for name in CLOCKS]
    for module_name, module in list(sys.modules.items()):
        if module_name.startswith(prefixes) or module_name in ("threading", "queue", "concurrent.futures._base"):
            for name, value in list(vars(module).items()):
                real = wanted.get(id(value))
                if real is not None:
                    found.append(Binding(module, name, real))
                elif type(value) is _thread.LockType and module_name.startswith(prefixes):
                    found.append(Binding(module, name, LOCK))
    return found

"""Deterministic simulation: random programs on several workers over one store, with faults, in virtual time.

`run_simulated(seed)` executes one history in a forked child and returns what was wrong. A history is made of the seed
alone: the programs, the settings of the workers, which thread runs when (`sim_threads`), how long everything takes, and
the faults. The same seed gives the same history in every process.

    python -m tests.torture.sim FIRST COUNT            many histories, with counts by kind of fault
    python -m tests.torture.sim SEED                   one history, told in full
    python -m tests.torture.sim --shrink SEED          the smallest programs with which the history goes wrong
    python -m tests.torture.sim --sweep FIRST COUNT    a fault at every call of the store, one after the other; with
                                                       --sweep-sample only one kind of fault at each
    python -m tests.torture.sim --digests FIRST COUNT  a hash of each history
"""

from __future__ import annotations

import faulthandler
import logging
import os
import pickle
import sys
import threading
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import perdure.core as core
from perdure import runtime
from perdure.api.run import Run
from perdure.core.body.body import Body
from perdure.core.ground.model import FINISHED, Status
from perdure.core.journal import source
from perdure.core.process.serving import LOOK_SECONDS, ServedRun, Server
from perdure.core.process.submission import new_run
from perdure.core.process.worker import Worker
from perdure.errors import PerdureError, RunEndedError, StoreError
from perdure.executors import local
from perdure.executors.local import DaemonThreads
from perdure.store.memory import MemoryStore

from . import exchange, oracle, programs
from .sim_store import Fault, Ledger, Sight, SimLiveness, SimStore
from .sim_threads import US, Choices, Decision, Enumerated, Process, Scheduler, SimThread, find_bindings

LONGEST = 600.0
"""Virtual seconds within which every run has to end once the faults have ended."""
HANGS_AFTER = 60.0
"""Real seconds after which a history is given up."""


class SimClock:
    """The clock of the store and of all workers."""

    boot_id = "simulated"

    def __init__(self, scheduler: Scheduler) -> None:
        self.boot = scheduler.boot
        self.wall = scheduler.wall


@dataclass
class Settings:
    """What a history is made of, besides its programs."""

    workers: int = 1
    runs: int = 1
    size: int = 2
    lease: float = 1.0
    park_after: float = 60.0
    concurrency: int = 100
    pace: float = 1.0
    """How many times longer steps take than the programs' timeouts expect."""
    restless: float = 0.1
    lines: float = 0.0
    """How likely another thread goes on at any line of the core."""
    sight: Sight = Sight.SAME_MACHINE
    error_rate: float = 0.0
    kill_rate: float = 0.0
    freeze_rate: float = 0.0
    slow_disk: float = 0.0
    bells: bool = False
    drain_rate: float = 0.0
    """How likely a process is told to stop at one look (SIGTERM), and a clock is set; `power`: the power is cut."""
    clock_rate: float = 0.0
    power: bool = False
    direct: float = 0.0
    """How likely a run is submitted to be driven at once by the submitting process."""
    faults: int = 0
    """How many faults strike at most."""
    messages: bool = False
    """The programs exchange messages, and a process sends those that come from outside."""
    replay_at_end: bool = False
    """Kill the process that drives a run once, when only the end of the run is left to be recorded."""

    @classmethod
    def of(cls, choices: Choices, *, messages: bool) -> Settings:
        """Settings by chance. In one of five histories, workers that are long at work take runs from each other."""
        pick = _picker(choices)
        calm = choices.chance() < 0.15
        if choices.chance() < 0.2:
            return cls(
                workers=pick([2, 3]),
                runs=pick([1, 2]),
                size=pick([2, 3]),
                lease=pick([0.1, 0.5]),
                pace=pick([20.0, 200.0]),
                restless=pick([0.02, 0.3]),
                sight=pick([Sight.OTHER_MACHINES, Sight.SESSIONS]),
                kill_rate=pick([0.0, 0.002]),
                freeze_rate=pick([0.0, 0.01, 0.05]),
                faults=pick([3, 6]),
                replay_at_end=choices.chance() < 0.5,
                drain_rate=pick([0.0, 0.03]),
                direct=0.2,
                messages=messages,
            )
        return cls(
            workers=pick([1, 1, 2, 2, 3]),
            runs=pick([1, 1, 1, 2, 3]),
            size=pick([1, 2, 2, 3, 4]),
            lease=pick([0.5, 1.0, 3.0]),
            park_after=pick([0.0, 0.03, 0.5, 60.0]),
            concurrency=pick([1, 2, 100]),
            pace=pick([1.0, 1.0, 1.0, 20.0, 200.0]),
            restless=pick([0.02, 0.1, 0.3, 0.7]),
            lines=pick([0.0] * 9 + [0.02]),
            sight=pick(list(Sight)),
            error_rate=0.0 if calm else pick([0.0, 0.005, 0.02, 0.05]),
            kill_rate=0.0 if calm else pick([0.0, 0.002, 0.01, 0.03]),
            freeze_rate=0.0 if calm else pick([0.0, 0.002, 0.01, 0.03]),
            slow_disk=pick([0.0, 0.0, 0.0, 0.01, 0.03]),
            bells=choices.chance() < 0.5,
            drain_rate=pick([0.0, 0.0, 0.03]),
            clock_rate=pick([0.0, 0.0, 0.03]),
            power=not calm and choices.chance() < 0.2,
            direct=pick([0.0, 0.5]),
            messages=messages,
            faults=pick([1, 2, 4, 6]),
            replay_at_end=choices.chance() < 0.8,
        )


def _picker(choices: Choices) -> Callable[[list[Any]], Any]:
    return lambda values: values[choices.among(len(values))]


class Life(programs.World):
    """One life of one run: from a claim to the end of driving. Its log is kept beside the simulated processes."""

    def __init__(self, simulation: Simulation, run: str, program: programs.Node, token: bytes) -> None:
        super().__init__(program)
        self.run = run
        self.token = token
        """Of the claim."""
        self.lines: list[programs.Line] = []
        self._simulation = simulation
        self.whole = False
        """The root body has made its last durable call."""
        self.ended = False
        """The run has ended in this life."""
        self.found = ""
        """The result of the run."""

    def write(self, line: programs.Line) -> None:
        driver = programs.driver()
        if driver is not None and not driver.stopping and not self.whole:
            # What a body sees while it is unwound is no observation, nor what the tasks see that it leaves behind.
            self.lines.append(line)
        self._simulation.line_written(line)

    def now(self) -> float:
        return self._simulation.scheduler.now / US

    def seconds(self, most: float) -> float:
        return self._simulation.seconds_of_a_step(super().seconds(most))

    def target(self, choice: int) -> Run:
        """The program's own run, or a run that was submitted before."""
        earlier = self._simulation.memory.run(f"r{choice // 6 % 2}")
        mine = programs.driver().run  # a `Run` would read the store, which may fail, outside of a durable call
        return Run(earlier if earlier is not None and earlier.id < mine.id else mine)

    def recorded_all(self) -> None:
        self.whole = True
        self._simulation.recorded_all(self)


class SimProcess(Process):
    """A simulated process: a worker that serves, and all its threads."""

    worker: Worker
    server: Server
    ever_frozen = False


class Sender(NamedTuple):
    """What a process has that only sends messages."""

    store: SimStore
    clock: SimClock
    id: str = "sender"
    drivers: dict[int, Any] = {}


class Listener:
    """A thread that rings the bell of a process when others have written."""

    def __init__(self, thread: SimThread) -> None:
        self.thread = thread
        self.rung = False


@dataclass
class Report:
    """What became of a history."""

    seed: int
    violations: list[str] = field(default_factory=list)
    faults: dict[str, int] = field(default_factory=dict)
    nodes: dict[str, int] = field(default_factory=dict)
    """The nodes of the programs, by kind."""
    digest: str = ""
    made: list[Decision] = field(default_factory=list)
    """The choices, where they were enumerated."""
    calls: int = 0
    """Calls of the store."""
    points: int = 0
    switches: int = 0
    virtual: float = 0.0
    lives: int = 0
    story: list[str] = field(default_factory=list)


class Simulation:
    """One history, in a process of its own."""

    def __init__(
        self,
        seed: int,
        trees: Sequence[programs.Node] | None = None,
        settings: Settings | None = None,
        script: Mapping[int, Fault] | None = None,
        choices: Choices | None = None,
    ) -> None:
        """The programs, the settings and the choices are those of the seed, unless given. `script`: faults by the
        number of the store's call, besides those of the settings."""
        self.choices = Choices(seed) if choices is None else choices
        self.settings = Settings.of(self.choices, messages=seed % 2 == 1) if settings is None else settings
        self.script = {} if script is None else script
        self.seed = seed
        size = self.settings.size
        self.trees = (
            list(trees)
            if trees is not None
            else [
                programs.generate(seed * 10 + number, size, messages=self.settings.messages)
                for number in range(self.settings.runs)
            ]
        )
        self.scheduler = Scheduler(self.choices, restless=self.settings.restless, lines=self.settings.lines, under=CORE)
        self.clock = SimClock(self.scheduler)
        self.report = Report(seed)
        self.counts: Counter[str] = Counter()
        self.faults_left = self.settings.faults
        self.lives: dict[str, list[Life]] = {}
        self._by_token: dict[bytes, Life] = {}
        self.processes: list[SimProcess] = []
        self._replayed: set[str] = set()
        self.letters: list[tuple[str, exchange.Mail | exchange.Cancel]] = []
        self.cancelled = ""
        """The run that is asked to cancel."""
        self._sender: SimProcess | None = None
        self._all_sent = False
        self._listeners: list[Listener] = []
        self._count = 0

    # -- the history -----------------------------------------------------------------------------------------------

    def run(self) -> Report:
        self.scheduler.take_over(BINDINGS, self.seed)
        programs.world = self.world
        runtime.worker = lambda: self.scheduler.current.process.worker
        source.Sources.snapshot = lambda self: SNAPSHOT  # type: ignore[method-assign]
        self._compare_told_and_durable()
        _complain_to(self.wrong)
        self.liveness = SimLiveness(self.settings.sight, self.processes)
        self.memory = self.make_store()
        self.ledger = Ledger(self)
        self.runs = {f"r{number}": tree for number, tree in enumerate(self.trees)}
        self.lives = {name: [] for name in self.runs}
        for _ in range(self.settings.workers):
            self.start_process()
        self.letters = [(name, mail) for name, tree in self.runs.items() for mail in exchange.mails(tree)]
        if self.settings.messages and self.choices.chance() < 0.2:
            place = self.choices.among(len(self.letters) + 1)
            self.cancelled = list(self.runs)[self.choices.among(len(self.runs))]
            self.letters.insert(place, (self.cancelled, exchange.Cancel()))
        self._watch()
        for name in self.runs:
            self.judge(name)
        report, scheduler = self.report, self.scheduler
        report.faults = dict(self.counts)
        report.nodes = dict(Counter(node.kind for tree in self.trees for node in tree.walk()))
        report.digest, report.points, report.switches = scheduler.digest, scheduler.points, scheduler.switches
        report.virtual = scheduler.now / US - 1000
        if isinstance(self.choices, Enumerated):
            report.made = self.choices.made
        report.lives = sum(map(len, self.lives.values()))
        return report

    def make_store(self) -> MemoryStore:
        """The tables that all processes share."""
        return MemoryStore(clock=self.clock)

    def _compare_told_and_durable(self) -> None:
        """No body is told an outcome that the store does not hold (W2)."""
        hand = Body._hand

        def checked(body: Body, waiter: Any, outcome: Any) -> None:
            if outcome is not None and outcome.n > self.memory.journal_length(body.driver.run_id):
                self.wrong(f"W2: run {body.driver.run.name} was told entry {outcome.n} before it was on disk")
            hand(body, waiter, outcome)

        Body._hand = checked  # type: ignore[method-assign]

    def start_process(self) -> None:
        """A new process that submits the runs and serves."""
        self._count += 1
        process = SimProcess(self._count)
        self.processes.append(process)
        self.scheduler.start_in(process, "perdure-serve", lambda: self._serve(process))

    def _serve(self, process: SimProcess) -> None:
        try:
            store = SimStore(self.memory, self, process)
            process.worker = worker = Worker(
                store,
                self.liveness.of(process, lambda: self.scheduler.now),
                DaemonThreads(),
                lease=self.settings.lease,
                clock=self.clock,
            )
            spec = programs.root.spec
            process.server = Server(
                worker,
                {spec.name: spec},
                concurrency=self.settings.concurrency,
                park_after=self.settings.park_after,
                tell=self.told,
            )
            self._submit(worker)
            self._until_it_works(process.server.serve)
            process.server.drain(self.choices.between(0.0, 0.2))
            self._until_it_works(worker.retire)
            self.scheduler.kill(process)
        except BaseException:
            self.wrong(f"a process that serves ended: {traceback.format_exc()}")

    def _submit(self, worker: Worker) -> None:
        spec = programs.root.spec
        for name in self.runs:
            if self.memory.run(name) is not None:
                continue
            new = new_run(spec, (), {}, name=name, created_at=self.clock.wall())
            if self.choices.chance() < self.settings.direct:
                self._until_it_works(lambda new=new: worker.submit(new, spec))
            else:
                self._until_it_works(lambda new=new: worker.enqueue(new, None))

    def _start_sender(self) -> None:
        """A process that sends messages, unless one is at work or all were sent."""
        before = self._sender
        if not self.letters or self._all_sent or (before is not None and not before.dead):
            return
        self._count += 1
        self._sender = process = SimProcess(self._count)
        self.scheduler.start_in(process, "sender", lambda: self._send_letters(process))

    def _send_letters(self, process: SimProcess) -> None:
        """A process that sends all messages to all runs, some of them twice. As the process may die, a later process
        sends all again."""
        try:
            process.worker = Sender(SimStore(self.memory, self, process), self.clock)  # type: ignore[assignment]
            for name, mail in self.letters:
                for _ in range(1 + (self.choices.chance() < 0.2)):
                    self.scheduler.sleep(self.choices.chance() ** 4)
                    with suppress(RunEndedError):
                        self._until_it_works(lambda name=name, mail=mail: mail.send(Run(self.memory.run(name))))
            self._all_sent = True
            self.scheduler.kill(process)
        except BaseException:
            self.wrong(f"a sender ended: {traceback.format_exc()}")

    def _until_it_works(self, work: Callable[[], Any]) -> None:
        while True:
            try:
                work()
                return
            except StoreError:
                self.scheduler.sleep(0.05)

    def _watch(self) -> None:
        """Start killed processes again, until all runs have ended."""
        scheduler = self.scheduler
        quiet_since = scheduler.now
        while True:
            scheduler.sleep(0.2 * self.choices.chance() ** 4)
            self._disturb()
            names = {run.name: run.status for run in self.memory.runs()}
            if len(names) == len(self.runs) and FINISHED.issuperset(names.values()):
                return
            if self.faults_left or any(process.frozen_until > scheduler.now for process in self.processes):
                quiet_since = scheduler.now
            if self.faults_left and scheduler.now > 1000 * US + 60 * US:
                self.faults_left = 0
            if scheduler.now - quiet_since > LONGEST * US:
                self.wrong(f"not ended after {LONGEST:g} s: {names}")
                return
            if names.keys() == self.runs.keys():
                self._start_sender()
            alive = [process for process in self.processes if not process.dead]
            if len(alive) < self.settings.workers and self.choices.chance() < 0.5:
                self.start_process()

    def _disturb(self) -> None:
        """Maybe a fault that strikes no single call."""
        settings, chance = self.settings, self.choices.chance
        if not self.faults_left:
            return
        if settings.drain_rate and chance() < settings.drain_rate:
            serving = [process for process in self.processes if not process.dead and hasattr(process, "server")]
            if serving:
                self.faults_left -= 1
                self.count("told to stop (SIGTERM)")
                serving[self.choices.among(len(serving))].server.stop()
        if settings.clock_rate and chance() < settings.clock_rate:
            self.faults_left -= 1
            self.count("the wall clock was set")
            self.scheduler.epoch += [-3600, 3600, -86400 * 365, 86400 * 365][self.choices.among(4)] * US
        if settings.power and chance() < 0.03:
            self.faults_left -= 1
            self.count("the power was cut")
            for process in [*self.processes, *filter(None, [self._sender])]:
                if not process.dead:
                    self.scheduler.kill(process)
            self._all_sent = False  # for all that the sender knows; messages that are there are not sent twice
            self.ledger.lose_power()

    # -- what happens ----------------------------------------------------------------------------------------------

    def wrong(self, what: str) -> None:
        """Something that must not happen."""
        self.report.violations.append(what)
        self.tell("WRONG", what)

    def tell(self, *what: object) -> None:
        """For people who look at one history."""
        if TELLING:
            me = self.scheduler.current
            self.report.story.append(
                f"{self.scheduler.now / US - 1000:10.6f} p{me.process.number} t{me.number} " + " ".join(map(str, what))
            )

    def told(self, outcome: ServedRun) -> None:
        self.tell("told", outcome.run, outcome.status.name, outcome.error)
        if outcome.error is not None and outcome.status is Status.INTERRUPTED:
            if not isinstance(outcome.error, (StoreError, PerdureError)) or "differs" in str(outcome.error):
                self.wrong(f"run {outcome.run} was interrupted: {outcome.error!r}")
            if type(outcome.error).__name__ == "NonDeterminismError":
                self.wrong(f"run {outcome.run}: false mismatch: {outcome.error}")

    def world(self) -> Life:
        """The life of the body whose code runs now."""
        driver = programs.driver()
        life = self._by_token.get(driver.token)
        if life is None:
            name = driver.run.name
            tree = programs.parse(self.runs[name].show())
            life = self._by_token[driver.token] = Life(self, name, tree, driver.token)
            self.lives[name].append(life)
        return life

    def seconds_of_a_step(self, drawn: float) -> float:
        """How long a step takes that would take so long by the program."""
        return drawn * self.settings.pace

    def line_written(self, line: programs.Line) -> None:
        self.scheduler.note(line.kind, line.body, line.name, line.what)
        self.tell(line.kind, line.body, line.thread, line.name, line.what)
        self.scheduler.point()
        self._strike("line", self.settings.kill_rate / 2)

    def recorded_all(self, life: Life) -> None:
        """The last durable call of a run is on disk: once, kill the process, so that the next one replays it all."""
        if self.settings.replay_at_end and life.run not in self._replayed:
            self._replayed.add(life.run)
            self.count("killed before the end of a run")
            self.scheduler.kill(self.scheduler.current.process)

    def count(self, fault: str) -> None:
        self.counts[fault] += 1
        self.tell("FAULT", fault)
        self.scheduler.note(fault)

    def _strike(self, where: str, rate: float) -> None:
        """Maybe kill the process that runs."""
        if rate and self.faults_left and self.choices.chance() < rate:
            self.faults_left -= 1
            self.count(f"killed at a {where}")
            self.scheduler.kill(self.scheduler.current.process)

    def freeze(self, process: SimProcess) -> None:
        """SIGSTOP, for up to three leases, and maybe for as long as others need to notice."""
        process.ever_frozen = True
        notice = LOOK_SECONDS * 2 if self.choices.chance() < 0.5 else 0.0
        self.scheduler.freeze(process, self.settings.lease * self.choices.between(0.1, 3.0) + notice)

    def is_healthy(self, process: SimProcess) -> bool:
        """Whether the process has been at work all the time, with a store that answers."""
        return not process.dead and not process.ever_frozen and not self.settings.error_rate and not self.script

    def bells_of(self, process: SimProcess, bell: Callable[[], None]) -> bool:
        """Whether a process hears of what others write; some rings are lost."""
        if self.settings.bells:
            threading.Thread(target=self._listen, args=(process, bell), name="perdure-bell", daemon=True).start()
        return self.settings.bells

    def _listen(self, process: SimProcess, bell: Callable[[], None]) -> None:
        listener = Listener(self.scheduler.current)
        self._listeners.append(listener)
        while True:
            while not listener.rung:
                self.scheduler.block()
            listener.rung = False
            bell()

    def ring(self) -> None:
        """A write has been applied."""
        for listener in self._listeners:
            if self.choices.chance() < 0.3:
                self.counts["a wake-up between processes was lost"] += 1
            else:
                listener.rung = True
                self.scheduler.wake(listener.thread)

    def fault_of(self, verb: str, writes: bool) -> Fault | None:
        """The fault of a call of the store that begins now."""
        settings, chance = self.settings, self.choices.chance
        self.report.calls += 1
        fault = self.script.get(self.report.calls)
        if fault is not None:
            self.count(f"{fault.value} ({'write' if writes else 'read'})")
            return fault
        if not self.faults_left:
            return None
        drawn = chance()
        kill, freeze = settings.kill_rate * (3 if writes else 0.3), settings.freeze_rate * (3 if writes else 0.3)
        for fault, rate in (
            (Fault.KILLED_BEFORE, kill / 2),
            (Fault.KILLED_AFTER, kill / 2),
            (Fault.FAILS, settings.error_rate / 2),
            (Fault.ANSWER_LOST, settings.error_rate / 2),
            (Fault.FROZEN_BEFORE, freeze / 2),
            (Fault.FROZEN_AFTER, freeze / 2),
        ):
            if drawn < rate:
                self.faults_left -= 1
                self.count(f"{fault.value} ({'write' if writes else 'read'})")
                return fault
            drawn -= rate
        return None

    # -- what is judged --------------------------------------------------------------------------------------------

    def judge(self, name: str) -> None:
        """Whether the lives of a run keep the promises."""
        run = self.memory.run(name)
        if run is None or run.status not in FINISHED:
            return
        if run.status is not Status.SUCCEEDED and (run.status is not Status.CANCELLED or name != self.cancelled):
            self.wrong(f"run {name} ended as {run.status.name}: {run.value!r}")
            return
        claims = self.ledger.claims
        lives = sorted(self.lives[name], key=lambda life: claims[life.token].at)
        if not lives:
            return  # cancelled before the run had begun
        if run.status is Status.SUCCEEDED:
            lives[-1].ended = True
            lives[-1].found = programs.root.spec.signature.returns.decode(run.value)
        told = []
        for life in lives:
            # A process that was frozen begins late, or goes on beside the process that has overtaken it. What it does
            # then is not recorded.
            end = self.ledger.overtaken(life.token)
            lines = [line for line in life.lines if line.at * US < end]
            told.append(oracle.Life(lines, oracle.DONE if life.ended else oracle.KILLED, life.found))
        shared = {
            line.name
            for lives in self.lives.values()
            for life in lives
            for line in life.lines
            if line.body == line.name
        }
        left = exchange.kept(self.memory, run.id)
        for violation in oracle.judge(
            oracle.History(self.runs[name], told, cancelled=name == self.cancelled, left=left)
        ):
            # The task `cached` may have been executed by another run.
            if violation.promise != "P2" or not any(f"told of {key}," in violation.text for key in shared):
                self.wrong(f"run {name}: {violation}")


def _complain_to(wrong: Callable[[str], None]) -> None:
    """Errors that perdure logs, and threads that end by an error, are violations."""

    class Handler(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if record.exc_info:
                text += "".join(traceback.format_exception(*record.exc_info))
            if record.levelno >= logging.ERROR:
                wrong(f"perdure logs: {text}")

    log = logging.getLogger("perdure")
    log.handlers[:] = [Handler()]
    log.propagate = False
    log.setLevel(logging.ERROR)
    warnings.simplefilter("ignore")  # of the blocking calls that programs make on purpose
    logging.getLogger("asyncio").handlers[:] = [logging.NullHandler()]
    logging.getLogger("asyncio").propagate = False
    threading.excepthook = lambda args: wrong(
        "a thread ended: " + "".join(traceback.format_exception(args.exc_type, args.exc_value, args.exc_traceback))
    )


# -- histories in forked children --------------------------------------------------------------------------------------

TELLING = False
SNAPSHOT = source.Sources(source.code_root(__file__)).snapshot()
BINDINGS = find_bindings("perdure", "tests.torture")
CORE = (os.path.join(os.path.dirname(core.__file__), ""), local.__file__)
"""The code that threads share."""


def history(
    seed: int, prepare: Callable[[], None] | None = None, kind: type[Simulation] = Simulation, **options: Any
) -> Report:
    """Execute one history in a forked child. `prepare` is called there first, `options` are those of `Simulation`."""

    def work() -> Report:
        if prepare is not None:
            prepare()
        return kind(seed, **options).run()

    return in_child(seed, work)


def in_child(seed: int, work: Callable[[], Report]) -> Any:
    """The report that `work` makes in a forked child, which ends without unwinding its threads."""
    read, write = os.pipe()
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.close(read)
            faulthandler.dump_traceback_later(HANGS_AFTER, exit=True)
            data = pickle.dumps(work())
            while data:
                data = data[os.write(write, data) :]
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    os.close(write)
    with open(read, "rb") as answer:
        data = answer.read()
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Report(seed, violations=[f"the history did not end: exit code {code}"]) if code else pickle.loads(data)


def run_simulated(seed: int) -> list[str]:
    """What was wrong in the history of a seed; empty where nothing was."""
    return history(seed).violations


def sweep(seed: int, *, sample: bool = False) -> Iterator[Report]:
    """One history without faults, and one for each call of the store and each fault that can strike the call; as a
    sample, one fault for each call."""
    settings = Settings(size=2, workers=1 + seed % 2, concurrency=1)
    whole = history(seed, settings=settings)
    yield whole
    for call in range(1, whole.calls + 1):
        faults = list(Fault)
        for fault in faults[call % len(faults) :][:1] if sample else faults:
            report = history(seed, settings=settings, script={call: fault})
            report.violations = [f"{fault.value}, call {call}: {violation}" for violation in report.violations]
            yield report


def shrunk(seed: int, seconds: float) -> str:
    """The smallest programs found with which the history of that seed still goes wrong, as text."""
    until = time.monotonic() + seconds
    trees = Simulation(seed).trees
    for place in range(len(trees)):

        def fails(tree: programs.Node, place: int = place) -> bool:
            return bool(history(seed, trees=[*trees[:place], tree, *trees[place + 1 :]]).violations)

        trees[place] = programs.shrink(trees[place], fails, until)
    return "\n".join(tree.show() for tree in trees)


def told_in_full(seed: int) -> int:
    """Print one history."""
    global TELLING
    TELLING = True
    report = history(seed)
    print("\n".join(report.story))
    for tree in Simulation(seed).trees:
        print(tree.show())
    print(Simulation(seed).settings)
    print(*report.violations, sep="\n")
    return 1 if report.violations else 0


def summed_up(reports: Iterable[Report]) -> int:
    """Print what is wrong, and counts."""
    began = time.perf_counter()
    faults: Counter[str] = Counter()
    bad: list[int] = []
    count = lives = points = switches = 0
    for report in reports:
        faults.update(report.faults)
        count += 1
        lives += report.lives
        points += report.points
        switches += report.switches
        if report.violations:
            bad.append(report.seed)
            print(f"seed {report.seed}: ", *report.violations, sep="\n  ", flush=True)
    took = time.perf_counter() - began
    print(
        f"{count} histories, {lives} lives, {points} points, {switches} switches; {count / took:.1f} histories a second"
    )
    for fault, number in sorted(faults.items()):
        print(f"{number:7} {fault}")
    print(f"wrong: {bad}")
    return 1 if bad else 0


def main(arguments: list[str]) -> int:
    what, *numbers = arguments if arguments[0].startswith("--") else ["", *arguments]
    first, *rest = map(int, numbers)
    if what == "--shrink":
        print(shrunk(first, 600.0))
        return 0
    if not rest:
        return told_in_full(first)
    seeds = range(first, first + rest[0])
    if what == "--digests":
        for seed in seeds:
            print(seed, history(seed).digest)
        return 0
    if what in ("--sweep", "--sweep-sample"):
        return summed_up(report for seed in seeds for report in sweep(seed, sample=what == "--sweep-sample"))
    return summed_up(map(history, seeds))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""The attacks: for each promise the programs, the moments of the kills, and checks beside those of the judge.

An attack is a function over a `History`: a run of a program with a choice of the moment (`point`). The point
`KIND:NAME` is a kill right behind a line of the log; `random:N` stands for kills at moments drawn from the seed; `None`
is the history without a kill, for stores in memory, too.
"""

from __future__ import annotations

import glob
import os
import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from .judging import Violation, judged
from .system import PATIENCE, Live, ProcessTrial, System, Trial, Unsupported, wait_for_line

SLEEP = 3.0
"""Length of the sleep of the program `sleep`, in seconds."""
LATE = 1.5
"""Tolerated delay of the end of a sleep on a busy machine, in seconds."""
FAKETIME = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), "")


@dataclass
class History:
    """A run under attack, with findings and counts."""

    system: System
    promise: str
    program: str
    point: str | None
    folder: Path
    seed: int
    violations: list[Violation] = field(default_factory=list)
    kills: int = 0
    executed: int = 0
    stack: ExitStack = field(default_factory=ExitStack)

    def trial(self) -> Trial:
        """The run of this history, closed at its end."""
        trial = self.system.trial(self.program, self.folder)
        self.stack.enter_context(closing(trial))
        return trial

    def killed(self, live: Live) -> bool:
        """Wait for a process with a kill point; whether the process came to the point."""
        died = live.wait() == -9
        self.kills += died
        return died

    def kill(self, live: Live) -> None:
        live.kill()
        self.kills += 1

    def expect(self, holds: bool, text: str, promise: str = "") -> None:
        """Note a violation, of the attacked promise by default, unless `holds`."""
        if not holds:
            self.violations.append(Violation(promise or self.promise, text))

    def ends(self, trial: Trial, live: Live, expected: Any) -> None:
        """The process ends well, with the expected result."""
        code, found = live.wait(), trial.result()
        said = trial.errors().strip()[-300:] if isinstance(trial, ProcessTrial) and code else ""
        self.expect(code == 0, f"process {live.life} ended with {code}: {said}")
        self.expect(found == {"value": expected}, f"the result is {found}, not {expected!r}")

    def judge(self, trial: Trial, needed: Sequence[str]) -> None:
        """Look through the whole log."""
        log = trial.log()
        self.executed += sum(line.kind == "begin" for line in log)
        self.violations += judged(log, needed)


@dataclass(frozen=True)
class Attack:
    """A way to attack a promise."""

    promise: str
    title: str
    program: str
    run: Callable[[History], None]
    points: tuple[str | None, ...] = (None,)


def _killed_and_continued(expected: Any, needed: Sequence[str], history: History) -> None:
    """The first process dies at the point, and the next process ends the run."""
    trial, point = history.trial(), history.point
    if point is None:
        history.ends(trial, trial.start(), expected)
    elif point.startswith("random"):
        _killed_at_random(history, trial)
        history.ends(trial, trial.again(), expected)
    else:
        died = history.killed(trial.start(point))
        history.expect(died, f"the program did not come to {point}")
        history.ends(trial, trial.again(), expected)
    history.judge(trial, needed)


def _killed_at_random(history: History, trial: Trial) -> None:
    """Three processes die, each at a random moment after the first line of its program."""
    chance = random.Random(f"{history.seed}{history.program}{history.point}")
    live = trial.start()
    for _ in range(3):
        wait_for_line(trial, "at", "process", life=live.life)
        time.sleep(chance.uniform(0, 0.12))
        history.kill(live)
        live = trial.again()
    live.wait()


def _two_at_once(history: History) -> None:
    """Two processes get the same run. The second must wait or refuse, and must not execute beside the first."""
    trial = history.trial()
    first = trial.start()
    wait_for_line(trial, "seen", "s0")
    second = trial.again()
    codes = [first.wait(), second.wait()]
    history.expect(codes[0] == 0, f"the first process ended with {codes[0]}")
    history.expect(trial.result() == {"value": [0, 10, 20, 30]}, f"the result is {trial.result()}")
    begun = [line.name for line in trial.log() if line.kind == "begin"]
    history.expect(len(set(begun)) == len(begun), f"two processes executed the same step: {begun}")
    history.judge(trial, ["s3"])


def _frozen_past_the_lease(history: History) -> None:
    """A frozen process loses its run. When the process continues, its body is given nothing more.

    The point `behind` continues the process when the run has ended, `beside` while the other process drives the run.
    """
    trial = history.trial()
    first = trial.start()
    wait_for_line(trial, "begin", "s1")
    first.freeze()
    time.sleep(history.system.lease + 0.5)
    second = trial.again()
    if history.point == "beside":
        wait_for_line(trial, "begin", "s1", life=2)
        first.thaw()
    history.ends(trial, second, [0, 10, 20, 30])
    continued = next((line.at for line in trial.log() if line.life == 2 and line.kind == "begin"), 0.0)
    first.thaw()
    code = first.wait()
    history.expect(code != 0, "the process that had lost its run ended as if it had the run")
    late = [line.name for line in trial.log() if line.life == 1 and line.kind == "seen" and line.at > continued]
    history.expect(not late, f"the process that had lost its run was given {late}")
    history.judge(trial, ["s3"])


def _changes_its_mind(history: History) -> None:
    """Unchanged source asks for something else than the record: the process ends before any new effect.

    In the program `asks-again` fitting code comes back, and ends the run.
    """
    trial = history.trial()
    ask = trial.folder / "ask"
    ask.write_text("usual")
    history.expect(history.killed(trial.start("seen:asked")), "the program did not come to seen:asked")
    ask.write_text(history.point or "other")
    code = trial.again().wait()
    begun = [line.name for line in trial.log() if line.kind == "begin" and line.life == 2]
    history.expect(code != 0, "the process that asked for something else ended well")
    history.expect(not begun, f"the process that asked for something else executed {begun}")
    if history.program == "asks":
        history.judge(trial, ["same", "usual"])
        return
    ask.write_text("usual")
    history.ends(trial, trial.again(), 3)
    history.judge(trial, ["same", "usual", "last"])


def _edited(history: History) -> None:
    """The source changes behind the kill: the unchanged step replays, the changed and the new step execute."""
    trial = history.trial()
    history.expect(history.killed(trial.start("seen:b")), "the program did not come to seen:b")
    (trial.folder / "edited.py").write_text((trial.folder / "edited_2.py").read_text())
    history.ends(trial, trial.again(), [1, 20, 3])
    begun = [line.name for line in trial.log() if line.kind == "begin" and line.life == 2]
    history.expect(begun == ["b2", "c"], f"behind the edit {begun} were executed, not b2 and c")
    history.judge(trial, ["a", "b", "b2", "c"])


def _slept(history: History) -> None:
    """The sleep ends 3 s after the first invocation, or at once where the deadline is past."""
    trial = history.trial()
    live = trial.start()
    wait_for_line(trial, "at", "asleep")
    if history.point is not None:
        time.sleep(1.0)
        history.kill(live)
        time.sleep(float(history.point.partition(":")[2]))
        live = trial.again()
    history.ends(trial, live, 2)
    log = trial.log()
    asleep = [line.at for line in log if (line.kind, line.name) == ("at", "asleep")]
    awake = [line.at for line in log if (line.kind, line.name) == ("at", "awake")]
    if awake:
        took, due = awake[0] - asleep[0], max(asleep[0] + SLEEP, asleep[-1])
        history.expect(took >= SLEEP - 0.01, f"the sleep of {SLEEP} s ended after {took:.2f} s")
        history.expect(awake[0] - due < LATE, f"the sleep of {SLEEP} s ended {awake[0] - due:.2f} s late")
    history.judge(trial, ["before", "behind"])


def _clock_set_back(history: History) -> None:
    """The wall clock is stepped between two processes; the readings of the body do not decrease."""
    if not FAKETIME:
        raise Unsupported("libfaketime is not installed")
    trial = history.trial()
    history.expect(history.killed(trial.start("seen:time1")), "the program did not come to seen:time1")
    shift = (history.point or "").partition(":")[2]
    live = trial.again(LD_PRELOAD=FAKETIME, FAKETIME=shift, DONT_FAKE_MONOTONIC="1", FAKETIME_DONT_FAKE_MONOTONIC="1")
    try:
        live.wait()
    except TimeoutError:
        if not _waits_fail(trial):
            raise
    if _waits_fail(trial):
        raise Unsupported("libfaketime makes waits of the system under attack fail (EINVAL)")
    history.ends(trial, live, True)
    history.judge(trial, ["between3"])


def _waits_fail(trial: Trial) -> bool:
    """Whether a process has met the known fault of libfaketime: a plain `time.sleep` raises EINVAL now and then."""
    return isinstance(trial, ProcessTrial) and "[Errno 22]" in trial.errors()


def _typed(history: History) -> None:
    """Each kind of failure reaches the body as an exception of a separate type."""
    trial = history.trial()
    code = trial.start().wait()
    found = (trial.result() or {}).get("value") or []
    history.expect(code == 0, f"the process ended with {code}")
    history.expect(len(set(found)) == 4 and "nothing" not in found, f"the failures were {found}")
    history.judge(trial, ["raises"])


def _failed_for_good(history: History) -> None:
    """A failed run reports its exception, and reports the same again without executing anything."""
    trial = history.trial()
    for begin in [trial.start, *([trial.again] if history.system.outlives else [])]:
        live = begin()
        history.expect(live.wait() != 0, f"process {live.life} of a failed run ended well")
        found = trial.result() or {}
        history.expect("no good" in found.get("error", ""), f"the failure is reported as {found}")
    begun = [line.name for line in trial.log() if line.kind == "begin" and line.life > 1]
    history.expect("good" not in begun, f"a run that had failed executed {begun}")
    history.judge(trial, ["good", "bad"])


def _data_is_no_code(history: History) -> None:
    """Recorded exceptions of foreign classes, and recorded bytes in the form of a pickle, execute nothing on replay."""
    trial = history.trial()
    (trial.folder / "elsewhere").mkdir()
    module = "from outside import note\nnote('at', 'imported')\n\nclass ForeignError(Exception): pass\n"
    (trial.folder / "elsewhere" / "foreign_module.py").write_text(module)
    history.expect(history.killed(trial.start("seen:pickled")), "the program did not come to seen:pickled")
    history.ends(trial, trial.again(), 1)
    again = [line for line in trial.log() if line.name == "imported" and line.life > 1]
    history.expect(not again, "replay imported the module that a recorded exception names")
    history.expect(not list(trial.folder.rglob("executed-by-data")), "recorded data was executed")
    history.judge(trial, ["last"])


def _container_joined(history: History) -> None:
    """The process dies while a container runs: the next process joins the running container."""
    trial = history.trial()
    if sys.platform != "linux":
        raise Unsupported("the container tells its start by Linux's uptime")
    live = trial.start()
    wait_for_line(trial, "at", "before")
    _wait_for_container(history, trial)
    history.kill(live)
    killed_at = float(Path("/proc/uptime").read_text().split()[0])
    history.ends(trial, trial.again(), 1)
    began = [line.value for line in trial.log() if line.name == "container-began"]
    history.expect(bool(began) and began[-1] <= killed_at, f"the container began at {began}, the kill was {killed_at}")
    history.judge(trial, ["last"])


def _wait_for_container(history: History, trial: Trial) -> None:
    """Wait until the program of the container has told its start. The last word of its command is the directory of the
    history, behind `began`."""
    word = f"began {os.path.realpath(history.folder)}".encode()
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and trial.result() is None:
        for path in glob.glob("/proc/[0-9]*/cmdline"):
            with suppress(OSError):
                if Path(path).read_bytes().rstrip(b"\0").endswith(b"\0" + word):
                    return
        time.sleep(0.05)
    raise Unsupported("no container is seen on this machine: an engine has to answer, and to run containers here")


def _never_spliced(history: History) -> None:
    """The generator gives other items in each process: the consumer gets items of a single execution, or an error."""
    trial = history.trial()
    history.expect(history.killed(trial.start(history.point)), f"the program did not come to {history.point}")
    trial.again().wait(PATIENCE)
    given = {line.value for line in trial.log() if line.kind == "seen"}
    history.expect(len(given) == 1, f"the consumer got items of several executions: {sorted(given)}")
    history.judge(trial, ["items"])


def _sweep(
    promise: str,
    title: str,
    program: str,
    expected: Any,
    needed: str,
    points: str,
    more: tuple[str | None, ...] = (None,),
) -> Attack:
    """Kills behind each of the lines, and the histories `more`."""
    return Attack(
        promise, title, program, partial(_killed_and_continued, expected, needed.split()), (*points.split(), *more)
    )


def _lines(kind: str, names: str) -> str:
    return " ".join(f"{kind}:{name}" for name in names.split())


_FIVE = "s0 s1 s2 s3 s4"
_SIX = "f0 f1 f2 f3 f4 f5"
_VALUES: list[Any] = [None, 0, "", False, [], "ValueError: of the step"]

ATTACKS: tuple[Attack, ...] = (
    _sweep("P1", "killed behind each outcome of a sequence", "steps", [0, 10, 20, 30, 40], _FIVE,
           _lines("seen", _FIVE)),
    _sweep("P1", "None, 0, empty values and an exception as outcomes", "values", _VALUES, "v0 raises last",
           _lines("seen", "v0 v1 v2 v3 v4 raises")),
    _sweep("P1", "killed behind each outcome of a fan-out", "fan-out", 15, _SIX, _lines("seen", _SIX)),
    _sweep("P1", "killed in and between child tasks", "child", [2, 3, 7], "c1a c1b c2a c2b own",
           _lines("seen", "c1a c1b child1 c2a c2b child2 own")),
    _sweep("P1", "killed behind outcomes that threads have seen", "thread", 3, "t0 t1 t2", _lines("got", "t0 t1 t2")),
    _sweep("P1", "killed behind each item of a generator", "generator", [f"same-{n}" for n in range(4)], "items last",
           _lines("seen", "item0 item1 item2 item3")),
    _sweep("P1", "a cached outcome is executed once", "cache", [True, 1], "last", _lines("seen", "first second")),
    _sweep("P1", "an attempt after a failed attempt repeats no step", "retry", [0, 1, 2, 9], "r0 r1 r2 last",
           _lines("seen", "r1 last")),
    Attack("P1", "items of two executions of a generator are never spliced", "other-generator",
           _never_spliced, ("seen:item0", "seen:item2")),
    _sweep("P2", "killed inside each step", "steps", [0, 10, 20, 30, 40], _FIVE,
           " ".join((_lines("begin", _FIVE), _lines("end", _FIVE))), ()),
    _sweep("P2", "killed three times at random moments of a fan-out", "fan-out", 15, _SIX,
           "random:1 random:2 random:3", ()),
    _sweep("P2", "killed three times at random moments of a sequence", "slow-steps", [0, 10, 20, 30], "s0 s1 s2 s3",
           "random:1 random:2 random:3", ()),
    Attack("P3", "two processes are given one run", "slow-steps", _two_at_once, ("two",)),
    Attack("P3", "a process is frozen past its lease, and continues", "slow-steps",
           _frozen_past_the_lease, ("beside", "behind")),
    _sweep("P4", "a race whose other side is faster on replay", "race", "left", "both",
           "seen:winner begin:after-left seen:after-left seen:both", ()),
    _sweep("P4", "random kills of branches", "fan-out", 15, _SIX, "random:4 random:5", ()),
    Attack("P5", "unchanged source asks for another step, or for none", "asks", _changes_its_mind, ("other", "none")),
    Attack("P5", "fitting code comes back behind a mismatch", "asks-again", _changes_its_mind, ("other", "none")),
    Attack("P6", "a step is changed and a step is added behind a kill", "edited", _edited, ("edited",)),
    Attack("P7", "killed asleep, continued at once and after the deadline", "sleep", _slept,
           ("after:0", "after:2.5", None)),
    _sweep("P8", "killed between readings of the time", "clock", True, "between3",
           _lines("seen", "time0 time1 time2 time3")),
    Attack("P8", "the clock is an hour back, or ahead, in the second process", "clock", _clock_set_back,
           ("shift:-1h", "shift:+1h")),
    Attack("P9", "killed while a container runs", "container", _container_joined, ("container",)),
    Attack("P10", "an exception, a timeout, a killed process, an unfit value", "failures", _typed),
    Attack("P10", "a failed run stays failed", "fails", _failed_for_good),
    Attack("P11", "recorded exceptions and bytes that would run code", "data", _data_is_no_code, ("data",)),
)  # fmt: skip
"""Every attack of the kit."""

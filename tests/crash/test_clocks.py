"""P7, P8 under a system clock that is set by an hour or a year, either way: during a sleep, and between crash and
resume.

libfaketime moves the wall clock of real processes; the boot clock is left alone, as when a person sets the time.
Within one boot a sleep's length does not change, and no reading is earlier than one that its branch knows of."""

from __future__ import annotations

import glob
import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import TIME_KIND, WHOLE, WORKFLOWS, Hosts, Lab
from tests.crash.test_one_driver import Process, executed, lines
from tests.stores import sqlite_only
from tests.waiting import Stall, kill, wait_for

from perdure.core.ground.values import ANY

LIBRARY = next(iter(glob.glob("/usr/lib/*/faketime/libfaketime.so.1")), None)
HOUR = 3600
YEAR = 365 * 24 * HOUR
STEPS = {"forward": HOUR, "back": -HOUR, **({"a year forward": YEAR, "a year back": -YEAR} if WHOLE else {})}

pytestmark = [
    pytest.mark.skipif(LIBRARY is None, reason="libfaketime is not installed (make debian)"),
    # On Postgres the server's clock counts; and under this library a process's own waiting may fail (EINVAL).
    sqlite_only,
]


class FakeClock:
    """The wall clock of a lab's processes, some seconds off; it can be set while they run."""

    def __init__(self, place: Path) -> None:
        self.file = place / "clock"
        self.set(0)
        self.env = {
            "LD_PRELOAD": str(LIBRARY),
            "FAKETIME_TIMESTAMP_FILE": str(self.file),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DISABLE_SHM": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DONT_RESET": "1",
        }

    def set(self, seconds: int) -> None:
        """Put it that far off, in one step."""
        new = self.file.with_suffix(".new")
        new.write_text(f"{seconds:+d}\n")
        new.replace(self.file)


@pytest.fixture
def clock(place: Path) -> FakeClock:
    return FakeClock(place)


def test_libfaketime_moves_the_wall_clock_alone(clock: FakeClock) -> None:
    """It moves the wall clock within one process, and neither the boot clock nor the monotonic one."""
    code = """if True:
        import json, sys, time
        def read():
            print(json.dumps([time.time(), time.clock_gettime(time.CLOCK_BOOTTIME), time.monotonic()]), flush=True)
        read(); sys.stdin.readline(); read()
    """
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        env={**os.environ, **clock.env},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    first = json.loads(process.stdout.readline())
    clock.set(HOUR)
    out, _ = process.communicate("\n", timeout=10)
    second = json.loads(out)
    assert abs(second[0] - first[0] - HOUR) < 5
    assert abs(second[1] - first[1]) < 5
    assert abs(second[2] - first[2]) < 5
    assert abs(first[1] - time.clock_gettime(time.CLOCK_BOOTTIME)) < 10


def begun(lab: Lab) -> float:
    return float(lines(lab, "naps")[0][1])


def woken(lab: Lab) -> float:
    return float(lines(lab, "woke")[-1][1])


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("task", ["sleeping", "sync_sleeping"])
def test_a_clock_set_during_a_sleep_does_not_change_its_length(
    hosts: Hosts, place: Path, clock: FakeClock, task: str, step: int
) -> None:
    """P7: the sleep takes what it was to take."""
    lab = Lab(hosts, place / task, WORKFLOWS / "long.py", task, {"SECONDS": "0.8", **clock.env})
    process = Process(lab)
    wait_for(lab.deadlines)
    clock.set(step)
    with Stall() as stall:
        assert process.end() == {"value": ["before", "after"]}
    assert 0.79 <= woken(lab) - begun(lab) < stall.bound(1.2, work=0.2)


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
@pytest.mark.parametrize("task", ["sleeping", "sync_sleeping"])
def test_a_clock_set_between_crash_and_resume_does_not_change_a_sleeps_length(
    hosts: Hosts, place: Path, clock: FakeClock, task: str, step: int
) -> None:
    """P7: it ends when it was to end, killed in between (twice) or not."""
    lab = Lab(hosts, place / task, WORKFLOWS / "long.py", task, {"SECONDS": "1.6", **clock.env})
    for number in (1, 2):
        process = Process(lab)
        wait_for(lambda number=number: len(lines(lab, "naps")) == number and lab.deadlines())
        kill(process.process)
        clock.set(step * number)
    with Stall() as stall:
        assert Process(lab).end() == {"value": ["before", "after"]}
    alive = lines(lab, "naps")[-1][1]
    # A sleep that began again would take 1.6 s more.
    assert begun(lab) + 1.59 <= woken(lab) < stall.bound(max(begun(lab) + 1.6, alive) + 1.3, work=0.1)
    assert executed(lab) == ["before", "after"]


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_a_sleep_whose_deadline_passed_while_nothing_ran_ends_at_once(
    hosts: Hosts, place: Path, clock: FakeClock, step: int
) -> None:
    """P7: a sleep that was to end while nothing ran ends at once, even if the wall clock shows an earlier time."""
    lab = Lab(hosts, place / "past", WORKFLOWS / "long.py", "sleeping", {"SECONDS": "0.4", **clock.env})
    process = Process(lab)
    [deadline] = wait_for(lab.deadlines)
    kill(process.process)
    clock.set(step)
    wait_for(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) > deadline)
    with Stall() as stall:
        assert Process(lab).end() == {"value": ["before", "after"]}
    again, woke = lines(lab, "naps")[-1], lines(lab, "woke")[-1]
    assert woke[1] - again[1] < stall.bound(0.1, work=0.05)


def ascending(answer: dict[str, dict[str, list[list[float]]]]) -> bool:
    """A branch's readings never decrease; a child's are not before those that its caller had when it called."""
    value = answer["value"]
    assert len(value["own"][0]) == 7
    assert len(value["below"]) == 15
    return all(now >= before for row in value["own"] + value["below"] for before, now in pairwise(row))


@pytest.mark.parametrize("steps", [(-HOUR, HOUR, -HOUR), (HOUR, -HOUR, 0)], ids=["back first", "forward first"])
def test_time_readings_never_decrease_while_the_clock_is_set(
    hosts: Hosts, place: Path, clock: FakeClock, steps: tuple[int, ...]
) -> None:
    """P8: in a body, its branches and its children, while the clock is set again and again."""
    lab = Lab(hosts, place / "readings", WORKFLOWS / "long.py", "readings", clock.env)
    process = Process(lab)
    for number, step in enumerate(steps):
        wait_for(lambda number=number: len(lines(lab, "reads")) > number)
        clock.set(step)
    answer = process.end()
    assert ascending(answer), answer


@pytest.mark.parametrize("step", STEPS.values(), ids=STEPS)
def test_time_readings_never_decrease_over_crashes_and_stay_as_read(
    hosts: Hosts, place: Path, clock: FakeClock, step: int
) -> None:
    """P8: the same where the clock is set between crash and resume; what was read stays as it was read."""
    lab = Lab(hosts, place / "readings", WORKFLOWS / "long.py", "readings", clock.env)
    first: Any = None
    for number in range(3):
        process = Process(lab)
        wait_for(lambda number=number: any(line[3] == number for line in lines(lab, "reads")))
        reading = next(wait_for(lambda: iter([row for row in lab.journal() if row.kind == TIME_KIND])))
        kill(process.process)
        assert reading.value is not None
        first = first or ANY.decode(reading.value)
        clock.set(step * (number + 1) if number % 2 else -step)
    answer = Process(lab).end()
    assert ascending(answer), answer
    assert answer["value"]["own"][0][0] == first


def test_durable_time_outside_a_run_is_the_wall_clock(place: Path, clock: FakeClock) -> None:
    """Outside a run durable_time is the plain clock."""
    code = "from perdure.extras import durable_time; print(durable_time())"
    clock.set(HOUR)
    out: Any = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **clock.env}, capture_output=True, text=True, timeout=20
    ).stdout
    assert abs(float(out) - time.time() - HOUR) < 20

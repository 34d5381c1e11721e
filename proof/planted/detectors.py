"""What may catch a planted fault: commands that fail on a faulty perdure, in order of cost."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from perdure.core.ground.clock import seconds as now

from .plants import PROJECT, Plant

REGISTER: Final = PROJECT / "docs" / "development" / "invariants.md"
TEST_SECONDS: Final = 90
"""A test that takes longer hangs."""
_CASE: Final = re.compile(r"`(tests/[^`]+)`")
_SUBREAPER: Final = 36


class Detector(NamedTuple):
    """A part of the proof that may catch a fault in the files below `reach`."""

    name: str
    command: tuple[str, ...]
    """Arguments of Python."""
    seconds: float
    """How long the detector may take."""
    reach: tuple[str, ...]
    env: dict[str, str] = {}  # noqa: RUF012 - never changed

    @property
    def exists(self) -> bool:
        """Whether the project has the detector's file."""
        return all((PROJECT / word.partition("::")[0]).exists() for word in self.command if word.startswith("tests/"))

    def reaches(self, plant: Plant) -> bool:
        """Whether the detector executes the file with the fault at all."""
        return plant.file.removeprefix("src/perdure/").startswith(self.reach)


class Finding(NamedTuple):
    """What a detector said of a fault."""

    caught: bool
    seconds: float
    how: str
    """The line that says what went wrong; without a catch, `nothing` or `out of time`."""


def pytest(*words: str) -> tuple[str, ...]:
    """The arguments of Python for pytest."""
    options = ("-q", "-x", "--no-header", "-p", "no:cacheprovider", "-p", "proof.planted.first_failure")
    return ("-m", "pytest", *options, f"--timeout={TEST_SECONDS}", *words)


def power(*programs: str) -> tuple[str, ...]:
    """The arguments of Python for the power cuts of some programs."""
    return pytest("tests/power/test_power_loss.py", "-k", f"told and ({' or '.join(programs)})")


def torture(kind: str, histories: int) -> tuple[str, ...]:
    """The arguments of Python for random programs against the oracle, up to the first violation."""
    options = ("--only", kind, "--seed", "1", "--histories", str(histories), "--jobs", "1", "--no-shrink", "--first")
    return ("-m", "tests.torture", "--seconds", "90", *options)


def generator(name: str, histories: int) -> tuple[str, ...]:
    """The arguments of Python for a generator of `proof.generators`, up to the first violation."""
    return ("-m", "proof.generators", name, "0", str(histories))


BODIES: Final = (
    "core/journal", "core/body", "core/commit", "core/run", "core/ground/clock", "api/trace", "durable",
)  # fmt: skip
PROOF: Final[tuple[Detector, ...]] = (
    Detector("reactive bodies", generator("bodies", 10_000), 60, ("core/body/delivery", "core/journal/replay")),
    Detector("replays", generator("replays", 5_000), 60, ("core/journal/replay",)),
    Detector("segments", generator("segments", 3_000), 60, ("core/journal/segment",)),
    Detector("schedules", generator("schedules", 300), 60, ("core/process/schedule",)),
    Detector("leaders", generator("leaders", 300), 60, ("core/commit/writer",)),
    Detector("attempts", generator("attempts", 100), 60, ("core/run/attempts",)),
    Detector("endings", generator("endings", 100), 60, ("core/run/ending",)),
    Detector(
        "redactions",
        generator("redactions", 200),
        60,
        ("containers/redaction", "containers/logs", "containers/engine"),
    ),
    Detector("containers", generator("containers", 30), 90, ("containers/program", "containers/copilot")),
    Detector("copies", generator("copies", 100), 60, ("store/blobs/directory", "store/blobs/copying")),
    Detector("collections", generator("collecting", 30), 120, ("upkeep/collecting",)),
    Detector(
        "orders of replay",
        pytest(
            "tests/unit/test_replay.py::test_entries_are_handed_out_in_journal_order_for_every_order_of_asking",
            "tests/unit/test_delivery.py::test_replay_hands_over_in_the_order_of_the_first_life_for_every_order_of_arrival",
        ),
        120,
        ("core/journal/replay", "core/body/delivery"),
    ),
    Detector("simulation", torture("simulated", 60), 150, BODIES),
    Detector("torture", torture("sqlite", 12), 150, BODIES),
    Detector("journal fuzz", pytest("tests/fuzz/test_journals.py"), 120, ("core/journal/segment",)),
    Detector(
        "random calendars",
        pytest("tests/unit/test_schedule.py", "-k", "each_instant or wherever or every_period"),
        120,
        ("core/process/schedule",),
    ),
    Detector(
        "random calls of stores",
        ("tests/contract/random_stores.py", "0", "400"),
        150,
        ("store/sqlite/store", "store/sqlite/queries", "store/memory", "store/_"),
    ),
    Detector(
        "random calls of stores", ("tests/contract/random_stores.py", "0", "6", "postgres"), 150, ("store/postgres",)
    ),
    Detector(
        "power cuts",
        power("submissions", "in_turn"),
        200,
        ("store/sqlite/store.py", "store/sqlite/file", "core/commit/writer", "core/run/calls"),
    ),
    Detector("power cuts", power("files"), 200, ("store/blobs/directory", "store/blobs/copying")),
)


def by_hand(plant: Plant) -> tuple[str, ...] | None:
    """The tests written by hand for what the plant breaks: its own, or else those of the register."""
    row = re.compile(rf"^\| \*\*{plant.breaks}\*\* \|.*\|(.*)\|$", re.MULTILINE)
    found = row.search(REGISTER.read_text(encoding="utf-8"))
    named = _CASE.findall(found[1]) if found is not None else []
    tests = plant.tests or tuple(named)
    return pytest(*tests, *("-k", "postgres" if "postgres" in plant.file else "not postgres")) if tests else None


def run(command: tuple[str, ...], top: Path, seconds: float, env: dict[str, str] | None = None) -> Finding:
    """Run a detector on a copy of the project. All processes that the detector leaves are ended."""
    ctypes.CDLL(None).prctl(_SUBREAPER, 1)  # orphans become children of this process, which ends them
    with tempfile.TemporaryDirectory(prefix="perdure-planted-", ignore_cleanup_errors=True) as folder:
        words = [sys.executable, *command]
        if "pytest" in command:
            words.append(f"--basetemp={folder}/tests")
        output = Path(folder) / "output"
        path = f"{top / 'src'}{os.pathsep}{top}"
        began = now()
        with output.open("wb") as stream:
            process = subprocess.Popen(
                words, cwd=top, stdout=stream, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, process_group=0,
                env={**os.environ, "PYTHONPATH": path, "TMPDIR": folder, **(env or {})},
            )  # fmt: skip
            code = _wait(process, seconds)
        took = now() - began
        _end_orphans(folder)
        text = output.read_text(encoding="utf-8", errors="replace")
    if code is None:
        return Finding(False, took, "out of time")
    if code == 0:
        return Finding(False, took, "nothing")
    return Finding(True, took, _said(text))


def _wait(process: subprocess.Popen[bytes], seconds: float) -> int | None:
    try:
        return process.wait(seconds)
    except subprocess.TimeoutExpired:
        pass
    for number, patience in ((signal.SIGINT, 10), (signal.SIGKILL, 10)):
        with suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            break
    return None


def _end_orphans(folder: str) -> None:
    """End the processes that a detector has left: those whose temporary directory is the detector's."""
    mark = f"TMPDIR={folder}".encode()
    left = True
    while left:
        left = False
        for children in Path("/proc/self/task").glob("*/children"):
            with suppress(OSError):
                for pid in map(int, children.read_text().split()):
                    left |= mark in Path(f"/proc/{pid}/environ").read_bytes().split(b"\0") and _killed(pid)


def _killed(pid: int) -> bool:
    with suppress(ProcessLookupError, ChildProcessError):
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    return True


def _said(text: str) -> str:
    """The line that tells most about a failure."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    for beginning in ("FAILED", "ERROR", "seed ", "== ", "E  "):
        for line in lines:
            if line.startswith(beginning):
                return line
    return lines[-1] if lines else "no output"

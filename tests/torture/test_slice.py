"""A slice of `make torture`: random programs in real lives, judged by the oracle.

The family: what decides the order in which a body is moved, and which steps are executed. Each program gets up to three
lives that are killed with SIGKILL, a life that ends behind its last durable call, and a replay of the whole journal.
"""

from __future__ import annotations

import subprocess
import sys

import pytest
from tests.crash.harness import WHOLE
from tests.torture import programs
from tests.torture.source import source

BATCH = 15
BATCHES = 40 if WHOLE else 2


def _torture(*arguments: object, busy: int = 0) -> None:
    """Run the torture in a process of its own, which forks, beside so many processes that only compute."""
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found = subprocess.run(
            [sys.executable, "-m", "tests.torture", "--only", "sqlite", "--jobs", "4", *map(str, arguments)],
            capture_output=True, text=True, timeout=600, check=False,
        )  # fmt: skip
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_random_program_replays_as_it_has_run(batch: int) -> None:
    """B1 to B11, P1, P2, P4, P7, P8."""
    _torture("--seed", batch * BATCH, "--histories", BATCH)


def test_the_programs_that_once_went_wrong_replay_as_they_have_run() -> None:
    """B2, B5, B7. Each is shrunk to what its fault needs (`programs.FOUND`)."""
    _torture("--seed", -len(programs.FOUND), "--histories", len(programs.FOUND), "--lives", 10 if WHOLE else 3)


def test_a_random_program_replays_as_it_has_run_on_a_busy_machine() -> None:
    """B7, B8: timers and threads come late."""
    _torture("--seed", 5000, "--histories", BATCH * (10 if WHOLE else 1), busy=3 if WHOLE else 1)


def test_a_program_is_written_and_read_as_text_and_printed_as_python() -> None:
    """What a failure prints is enough to repeat the failure."""
    for seed in range(200):
        program = programs.generate(seed)
        assert programs.parse(program.show()).show() == program.show()
        assert "await" in source(program)

"""P4 and P1 of random programs: a later life sees what the earlier lives have seen, and executes no recorded trace.

The family: what decides the order in which a body is moved. `workflows/random_programs.py` has the programs and
`random_lives.py` gives each program up to two lives that are killed with SIGKILL at a random line of the log, a life
that ends as soon as the last step is recorded, and a life that replays the whole journal.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from tests.crash.harness import WHOLE

LIVES = Path(__file__).parent / "random_lives.py"
BATCH = 12
BATCHES = 60 if WHOLE else 3
FOUND = {
    26: "a cancelled job that its thread had not begun yet was not begun on replay, although its calls were recorded",
    33: "the row of a sleep took events along that belong before those of an earlier row",
    11: "an event beside a synchronous call of the loop was noted behind an entry that the loop had not been given",
    129: "an end of a job stood ahead of the outcome that the thread of the job waited for",
    2031: "a body that had ended before its last recorded outcomes never left, because the timer for leaving waited",
    1086: "the members of a failing group were cancelled in the order of a set of addresses",
}
"""Seeds of programs that once went wrong, and how."""


def _lives(*arguments: int, busy: int = 0) -> None:
    loops = [subprocess.Popen([sys.executable, "-c", "while True: pass"]) for _ in range(busy)]
    try:
        found = subprocess.run(
            [sys.executable, LIVES, *map(str, arguments)], capture_output=True, text=True, timeout=600, check=False
        )
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()
    assert found.returncode == 0, found.stdout + found.stderr


@pytest.mark.parametrize("batch", range(BATCHES))
def test_a_random_program_replays_as_it_has_run(batch: int) -> None:
    """B1 to B11."""
    _lives(batch * BATCH, BATCH)


@pytest.mark.parametrize("seed", FOUND)
def test_a_program_that_once_went_another_way_replays_as_it_has_run(seed: int) -> None:
    """B2, B5, B7."""
    for lives in range(3 if WHOLE else 1):
        _lives(seed, 1, lives)


def test_a_random_program_replays_as_it_has_run_on_a_busy_machine() -> None:
    """B7, B8: timers and threads come late."""
    _lives(5000, BATCH * (10 if WHOLE else 1), busy=3 if WHOLE else 1)

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
BATCHES = 60 if WHOLE else 5


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


def test_the_programs_that_once_went_wrong_replay_as_they_have_run() -> None:
    """B2, B5, B7. Each is shrunk to what its fault needs (`random_programs.FOUND`)."""
    for lives in range(10 if WHOLE else 3):
        _lives(-4, 4, lives)


def test_a_random_program_replays_as_it_has_run_on_a_busy_machine() -> None:
    """B7, B8: timers and threads come late."""
    _lives(5000, BATCH * (10 if WHOLE else 1), busy=3 if WHOLE else 1)

"""The simulation (docs/development/simulation.md): a slice of its histories, its own promises, and its strength.

Histories are forked, so each test that executes some has a process of its own, without the threads of the test runner.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from tests.crash.harness import WHOLE
from tests.torture import sim_plants

SLICE = 4000 if WHOLE else 80
SWEPT = 20 if WHOLE else 2
BESIDE = 400 if WHOLE else 5


def _python(*arguments: object, hash_seed: int = 0) -> str:
    found = subprocess.run(
        [sys.executable, "-W", "ignore", *map(str, arguments)],
        capture_output=True, text=True, timeout=3000 if WHOLE else 300, check=False,
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed)},
    )  # fmt: skip
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


def test_simulated_histories_break_no_promise() -> None:
    """P1 to P8, B1 to B11, W2, SV1 to SV4: random programs on several workers that are killed, frozen and cut off."""
    _python("-m", "tests.torture.sim", 0, SLICE)


def test_a_seed_gives_the_same_history_in_every_process() -> None:
    """Every switch between threads, every call of the store and every line of a log, by a hash of them all."""
    first, second = (_python("-m", "tests.torture.sim", "--digests", 0, 12, hash_seed=seed) for seed in (1, 2))
    assert first.count("\n") == 12
    assert first == second


def test_any_call_of_the_store_may_fail_or_be_the_last() -> None:
    """SV1, SV3, W1, D4: each call of a history in turn fails, loses its answer, or meets a killed or frozen process.

    The family: the store fails between two calls that belong together."""
    _python("-m", "tests.torture.sim", "--sweep" if WHOLE else "--sweep-sample", 1, SWEPT)


def test_two_bodies_end_their_steps_in_every_order() -> None:
    """B1 to B11: all interleavings of each pair; with `WHOLE`, each is killed at every write, before and after."""
    _python("-m", "tests.torture.sim_bounded", "--kills", int(WHOLE))


def test_real_threads_and_the_simulation_replay_the_journals_of_each_other() -> None:
    """R1 to R4, B1 to B11: the same outcomes in the same order, on a simulated loop and on asyncio's own."""
    _python("-m", "tests.torture.sim_beside", 1, BESIDE)


@pytest.mark.parametrize("name", sim_plants.PLANTS)
def test_a_planted_fault_is_found(name: str) -> None:
    """The strength of the simulation: it finds each fault within a few hundred histories."""
    _python("-m", "tests.torture.sim_plants", name)

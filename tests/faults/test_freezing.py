"""P3: a process that was stopped past its lease (SIGSTOP) at a random moment writes nothing when it continues."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.crash.harness import Hosts
from tests.faults.freezing import freeze
from tests.stores import sqlite_only

TRIALS = 20 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 2


@sqlite_only
def test_a_process_frozen_at_a_random_moment_writes_nothing_when_it_continues(hosts: Hosts, place: Path) -> None:
    """The run ends as an undisturbed one does, and each step is recorded once."""
    for number in range(TRIALS):
        freeze(hosts, place / f"freeze{number}", random.Random(number))

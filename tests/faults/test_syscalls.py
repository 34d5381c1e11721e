"""P1, P2, W1 under faults in system calls: SIGKILL, a full disk and I/O errors at each call, short writes.

The family: every call of a small workflow that changes a file or a name (database, write-ahead log, blobs, lock files),
with every fault. `make test` tries one point in `SAMPLE`; `PERDURE_TEST_WHOLE=1` and `run_faults` try all of them.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from tests.crash.harness import Hosts, run_parallel
from tests.faults.syscalls import Fault, Place, counted, points, short_writes, trial
from tests.faults.upkeep import MODES, Upkeep
from tests.stores import sqlite_only

SAMPLE = 1 if os.environ.get("PERDURE_TEST_WHOLE") == "1" else 41

pytestmark = [pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, to inject faults"), sqlite_only]


def test_a_run_carries_on_after_a_fault_in_any_system_call(hosts: Hosts, tmp_path: Path) -> None:
    """P1, P2, W1: the process is killed or ends with a typed error; the same command again ends well."""
    all = points(counted(Place(hosts, tmp_path / "count"))) + short_writes()
    assert len(all) > 400, "the workflow makes fewer calls than it did"
    chosen = all[::SAMPLE]
    ways = run_parallel(
        [lambda n=n, fault=fault: trial(hosts, tmp_path / f"t{n}", fault) for n, fault in enumerate(chosen)]  # type: ignore[misc]
    )
    assert "killed" in ways
    assert "StoreUnavailableError" in ways


@pytest.mark.parametrize(
    "fault",
    [
        Fault("unlink", 1, "EIO", lasting=True),
        Fault("write", 1, "ENOSPC", lasting=True),
        Fault("fsync", 1, "EIO", lasting=True),
        Fault("mkdir", 1, "ENOSPC", lasting=True),
    ],
)
def test_a_store_needs_no_temporary_files(hosts: Hosts, tmp_path: Path, fault: Fault) -> None:
    """The family: calls that fail for the directory of temporary files. A store opened without one, or a typed error
    of the store, is right; `FileNotFoundError` was not."""
    trial(hosts, tmp_path / "t", fault)


@pytest.mark.parametrize("mode", MODES)
def test_a_move_a_backup_and_a_collection_carry_on_after_a_fault_in_any_system_call(
    hosts: Hosts, tmp_path: Path, mode: str
) -> None:
    """M1 to M5, G1 to G8: the same command again ends well, and no run is lost or doubled."""
    upkeep = Upkeep(hosts, tmp_path, mode)
    assert len(upkeep.points) > 40
    chosen = upkeep.points[:: 2 * SAMPLE if SAMPLE > 1 else 1]
    run_parallel([lambda fault=fault: upkeep.strike(fault) for fault in chosen])  # type: ignore[misc]

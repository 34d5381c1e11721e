"""`perdure serve` that is told to end at any moment of its start ends with 0: a supervisor must not see a failure."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.waiting import PATIENCE, running, wait_for

WHOLE = os.environ.get("PERDURE_TEST_WHOLE") == "1"
MOMENTS = 20 if WHOLE else 4
FLOW = """import perdure
env = perdure.TaskEnvironment(name="told")
@env.task
async def nothing() -> None: ...
"""


def has(pid: int, mask: str, number: int) -> bool:
    """Whether the signal is in that mask of the process (`SigBlk`: blocked, `SigCgt`: handled)."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return False
    [bits] = [int(line.split()[1], 16) for line in status.splitlines() if line.startswith(mask)]
    return bool(bits >> (number - 1) & 1)


@pytest.mark.skipif(sys.platform != "linux", reason="reads the masks of a process")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_end_at_any_moment_of_its_start_ends_with_0(
    tmp_path: Path, number: signal.Signals
) -> None:
    """The family: moments from the first line of the command to serving, counted from when the signal is blocked."""
    (tmp_path / "flow.py").write_text(FLOW)

    def start(after: float | None) -> tuple[int, str, float]:
        command = (sys.executable, "-m", "perdure", "serve", "flow.py")
        with running(*command, cwd=tmp_path, stderr=subprocess.PIPE, text=True) as process:
            wait_for(lambda: has(process.pid, "SigBlk", signal.SIGTERM) or has(process.pid, "SigCgt", signal.SIGTERM))
            began = time.monotonic()
            assert process.stderr is not None
            if after is None:
                line = process.stderr.readline()
                assert line.startswith("serving "), line
            else:
                time.sleep(after)  # the moment that is tried
            took = time.monotonic() - began
            process.send_signal(number)
            _, errors = process.communicate(timeout=PATIENCE)
            return process.returncode, errors, took

    code, errors, length = start(None)
    assert code == 0, errors
    for moment in range(MOMENTS):
        code, errors, _ = start(length * moment / MOMENTS)
        assert code == 0, f"moment {moment} of {MOMENTS}: {code}\n{errors}"

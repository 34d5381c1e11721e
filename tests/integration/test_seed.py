"""The example of Flyte's `extras` page runs as printed there, with `import perdure as flyte` for its import line."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from tests.waiting import PATIENCE, wait_for

EXAMPLE = """\
import perdure as flyte

def my_work():
    print("working")

env = flyte.TaskEnvironment("env")

@env.task
async def main():
    # Do something
    my_work()
    # Now we need to sleep for 1 hour before proceeding.
    await flyte.durable.sleep.aio(3600)  # Even if process crashes, it will resume and only sleep for
                                          # 1 hour in agregate. If the scheduling takes longer, it
                                          # will simply return immediately.
    # thing to be done after 1 hour
    my_work()
"""

COMMAND = [sys.executable, "-m", "perdure", "run", "seed.py", "main", "--name", "seed"]


def sleeping(database: Path) -> bool:
    if not database.exists():
        return False
    with sqlite3.connect(database) as connection:
        try:
            return bool(connection.execute("SELECT 1 FROM actions WHERE wake_boot IS NOT NULL").fetchall())
        except sqlite3.OperationalError:
            return False


def test_the_seeds_example_sleeps_an_hour_in_aggregate(tmp_path: Path) -> None:
    (tmp_path / "seed.py").write_text(EXAMPLE)
    database = tmp_path / ".perdure" / "perdure.db"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE_")}
    first = subprocess.Popen(COMMAND, cwd=tmp_path, env=environment, stderr=subprocess.DEVNULL)
    try:
        wait_for(lambda: sleeping(database))
    finally:
        first.kill()
        first.wait()
    # No test waits an hour: the recorded deadline is set back to one that has just passed, as an hour would do.
    with sqlite3.connect(database) as connection:
        connection.execute("UPDATE actions SET wake_boot = wake_boot - 3600000000, wake_at = wake_at - 3600000000")
    subprocess.run(COMMAND, cwd=tmp_path, env=environment, check=True, timeout=PATIENCE)

"""A store that a user may only read: looking works, and the first write is refused with the remedy.

As an ordinary user: root's permissions bind nothing, so the command gives them up.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_LOOKER = """
import os, sys
import perdure
from perdure.api import looking
from perdure.errors import StoreUnavailableError
from flow import add

def look():
    print(*(f"{run.name} {run.status}" for run in looking.runs().runs), looking.tree("one").total)
    print(perdure.Run.get("one").wait(5).result)

if os.geteuid() == 0:
    # Once with another store, as the modules may be readable for root only.
    perdure.init(store="memory://")
    perdure.with_runcontext(name="one").run(add, 1)
    import perdure.store.sqlite.store, perdure.store.locks
    perdure.init(store=sys.argv[1] + ".warm")
    perdure.with_runcontext(name="one").run(add, 1)
    look()
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
perdure.init(store=sys.argv[1])
look()
try:
    perdure.run(add, 2)
except StoreUnavailableError as error:
    print("refused:", error)
"""

_FLOW = """
import sys, threading, perdure
env = perdure.TaskEnvironment(name="shared")

@env.task
def add(a: int, b: int = 2) -> int:
    return a + b

if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    perdure.with_runcontext(name="one").run(add, 1)
    print("ready", flush=True)
    if "stay" in sys.argv:
        threading.Event().wait()
"""


@pytest.fixture
def public() -> Iterator[Path]:
    # pytest's own temporary directories are closed to the user that the command becomes.
    folder = Path(tempfile.mkdtemp(prefix="perdure-test-"))
    (folder / "store").mkdir()
    (folder / "flow.py").write_text(_FLOW)
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def _looker(folder: Path) -> list[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    done = subprocess.run(
        [sys.executable, "-c", _LOOKER, str(folder / "store" / "x.db")], cwd=folder, env=clean, capture_output=True,
        text=True, check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()[-3:]


def _filled(folder: Path, *more: str) -> subprocess.Popen[str]:
    process: subprocess.Popen[str] = subprocess.Popen(
        [sys.executable, "flow.py", str(folder / "store" / "x.db"), *more],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


def _closed_file(folder: Path) -> None:
    (folder / "store" / "x.db").chmod(0o444)


def _closed_folder(folder: Path) -> None:
    (folder / "store" / "x.db").chmod(0o666)


@pytest.mark.parametrize("close", [_closed_file, _closed_folder])
@pytest.mark.parametrize("live", [False, True])
def test_looking_at_a_store_needs_no_right_to_write(public: Path, close: Any, live: bool) -> None:
    """Also while another process holds the store open, with outcomes in the WAL."""
    process = _filled(public, *(["stay"] if live else []))
    try:
        if not live:
            assert process.wait(60) == 0
        close(public)
        for file in (public / "store").glob("x.db-*"):
            file.chmod(0o755 if file.is_dir() else 0o644)
        (public / "store").chmod(0o555)
        listed, result, refused = _looker(public)
        assert listed == "one SUCCEEDED 1"
        assert result == "3"
        assert refused.startswith("refused: ")
        assert "check its directory" in refused or "permissions" in refused
    finally:
        process.kill()
        process.wait(60)
        assert process.stdout is not None
        process.stdout.close()
        (public / "store").chmod(0o755)

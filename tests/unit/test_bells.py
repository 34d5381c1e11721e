"""Bells tell the processes beside one SQLite file of commits; a bell is a hint, so nothing ever waits for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from perdure.store.sqlite.bell import ENDED, QUEUED, Bells


@pytest.fixture
def database(tmp_path: Path) -> str:
    return str(tmp_path / "perdure.db")


def test_a_ring_is_heard_by_the_listeners_of_that_kind_alone(database: str) -> None:
    listener, other, ringer = Bells(database), Bells(database), Bells(database)
    heard, not_heard = threading.Event(), threading.Event()
    assert listener.listen(QUEUED, heard.set)
    assert other.listen(ENDED, not_heard.set)
    ringer.ring(QUEUED)
    assert heard.wait(10)
    assert not not_heard.is_set()
    heard.clear()
    ringer.ring(QUEUED)
    assert heard.wait(10)
    for bells in (listener, other, ringer):
        bells.close()
    assert os.listdir(f"{database}-bells") == []


def test_a_listener_that_was_killed_is_forgotten(database: str) -> None:
    program = (
        "import sys, time; from perdure.store.sqlite.bell import Bells, QUEUED;"
        "Bells(sys.argv[1]).listen(QUEUED, print); print('there', flush=True); time.sleep(60)"
    )
    victim = subprocess.Popen([sys.executable, "-c", program, database], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.readline()
    assert len(os.listdir(f"{database}-bells")) == 1
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    ringer = Bells(database)
    ringer.ring(QUEUED)
    assert os.listdir(f"{database}-bells") == []
    ringer.close()


def test_a_listener_that_does_not_read_delays_no_ring(database: str) -> None:
    listener, ringer = Bells(database), Bells(database)
    gate = threading.Event()
    assert listener.listen(QUEUED, lambda: gate.wait(60) and None)
    for _ in range(5000):
        ringer.ring(QUEUED)
    gate.set()
    for bells in (listener, ringer):
        bells.close()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have no way around the limit")
def test_a_database_with_a_long_path_has_bells_too(tmp_path: Path) -> None:
    """The address of a Unix socket has 107 bytes at most."""
    folder = tmp_path / ("x" * 150)
    folder.mkdir()
    test_a_ring_is_heard_by_the_listeners_of_that_kind_alone(str(folder / "perdure.db"))


def test_where_no_socket_can_be_bound_nothing_fails(tmp_path: Path) -> None:
    (tmp_path / "perdure.db-bells").write_text("a file where the directory belongs")
    bells = Bells(str(tmp_path / "perdure.db"))
    assert bells.listen(QUEUED, print) is False
    bells.ring(QUEUED)
    bells.close()

"""Bells tell the processes beside one SQLite file of commits; a bell is a hint, so nothing ever waits for one."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from perdure.store.sqlite.bell import ENDED, QUEUED, Bells


@pytest.fixture
def place() -> Iterator[Path]:
    """A directory with a short path, as the address of a socket is short."""
    with tempfile.TemporaryDirectory(dir="/tmp") as found:
        yield Path(found)


@pytest.fixture
def store(place: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An id of a store, in a directory for temporary files of the test's own."""
    monkeypatch.setenv("TMPDIR", str(place))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return "a1b2"


def sockets(place: Path) -> list[str]:
    return [path.name for path in place.rglob("*-*") if path.is_socket()]


def test_a_ring_is_heard_by_the_listeners_of_that_kind_alone(store: str, place: Path) -> None:
    listener, other, ringer = Bells(store), Bells(store), Bells(store)
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
    assert sockets(place) == []


def test_a_listener_that_was_killed_is_forgotten(store: str, place: Path) -> None:
    program = (
        "import sys, time; from perdure.store.sqlite.bell import Bells, QUEUED;"
        "Bells(sys.argv[1]).listen(QUEUED, print); print('there', flush=True); time.sleep(60)"
    )
    victim = subprocess.Popen([sys.executable, "-c", program, store], stdout=subprocess.PIPE)
    assert victim.stdout is not None
    victim.stdout.readline()
    assert len(sockets(place)) == 1
    victim.send_signal(signal.SIGKILL)
    victim.wait()
    ringer = Bells(store)
    ringer.ring(QUEUED)
    assert sockets(place) == []
    ringer.close()


def test_a_listener_that_does_not_read_delays_no_ring(store: str) -> None:
    listener, ringer = Bells(store), Bells(store)
    gate = threading.Event()
    assert listener.listen(QUEUED, lambda: gate.wait(60) and None)
    for _ in range(5000):
        ringer.ring(QUEUED)
    gate.set()
    for bells in (listener, ringer):
        bells.close()


def test_where_no_socket_can_be_bound_nothing_fails(store: str, place: Path) -> None:
    (place / f"perdure-{os.getuid()}").write_text("a file where the directory belongs")
    bells = Bells(store)
    assert bells.listen(QUEUED, print) is False
    bells.ring(QUEUED)
    bells.close()


def test_a_directory_that_others_may_write_to_is_not_used(store: str, place: Path) -> None:
    (place / f"perdure-{os.getuid()}").mkdir(mode=0o777)
    (place / f"perdure-{os.getuid()}").chmod(0o777)
    assert Bells(store).listen(QUEUED, print) is False

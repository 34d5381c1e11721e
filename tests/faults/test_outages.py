"""Liveness on Postgres over outages of the server: a dead worker is soon known to be dead, a living one never is.

The family: the outage (an immediate or a fast shutdown, the server killed, sessions terminated) and the moment of the
worker's death (before, during, right after the outage, and later, between two renewals of the lease).
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tests.postgres_server import Server, programs
from tests.waiting import Stall, stays_true, wait_for

from perdure.store.postgres import PostgresStore
from perdure.store.postgres.session import GRACE

HOLDERS = Path(__file__).parent / "leaseholders.py"
MOMENTS = (None, "before", "during", "at once", 0.3, 1.0)
"""When each holder is killed; seconds count from the end of the outage."""


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    folder = programs()
    if folder is None:
        pytest.skip("needs a Postgres server (apt-get install postgresql)")
    found = Server(folder)
    yield found
    found.close()


def terminate(server: Server) -> None:
    server.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
        "WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
    )


OUTAGES: dict[str, Callable[[Server], None]] = {
    "immediate": Server.quit,
    "fast": Server.stop,
    "killed": Server.kill,
    "sessions terminated": terminate,
}


@pytest.mark.parametrize("outage", OUTAGES)
def test_after_an_outage_a_dead_worker_is_soon_known_dead_and_a_living_one_never_is(
    server: Server, outage: str
) -> None:
    """P3: long before the lease (15 s) is over; seen by a process from before the outage, and by a new one."""
    url = server.url()
    command = [sys.executable, str(HOLDERS), url, "w", str(len(MOMENTS))]
    with (
        closing(PostgresStore(url)) as old,
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holders,
    ):
        assert holders.stdout is not None
        pids = dict(holders.stdout.readline().split() for _ in MOMENTS)
        names = {moment: f"w{number}" for number, moment in enumerate(MOMENTS)}
        seen = old.liveness()
        assert not any(seen.is_dead(name) for name in pids)

        def kill(moment: object) -> None:
            os.kill(int(pids[names[moment]]), signal.SIGKILL)  # type: ignore[index]

        kill("before")
        OUTAGES[outage](server)
        kill("during")
        if outage != "sessions terminated":
            time.sleep(0.5)  # for the length of the outage; no event tells
            server.start()
        kill("at once")
        began = time.monotonic()
        with closing(PostgresStore(url)) as new, Stall() as stall:
            both = (seen, new.liveness())
            for moment in MOMENTS[4:]:
                rest = began + moment - time.monotonic()
                stays_true(lambda: not any(live.is_dead(names[None]) for live in both), rest)
                kill(moment)
                killed = time.monotonic()
            dead = [names[moment] for moment in MOMENTS[1:]]

            def alive() -> list[str]:
                return [name for name in dead for live in both if not live.is_dead(name)]

            wait_for(lambda: not alive())
            took = time.monotonic() - killed
            assert not any(live.is_dead(names[None]) for live in both)
            assert took < stall.bound(GRACE + 1.0, work=0.5), f"{took:.1f} s"
        holders.communicate()

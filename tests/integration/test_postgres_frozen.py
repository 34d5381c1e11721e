"""P3 on Postgres: a process frozen between any two bytes of a transaction holds up no other, and is fenced."""

from __future__ import annotations

import os
import select
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from tests.contract._records import OTHER, TOKEN, action, created, entry, segment, writes
from tests.postgres_server import Server
from tests.waiting import wait_for

from perdure.core.ground.model import CachePut, Claim, RunWrites, Status
from perdure.store.postgres import PostgresStore
from perdure.store.postgres import store as postgres_store

SILENCE = 0.3
NAME = ".s.PGSQL.5432"


class Ice:
    """A socket in front of the server's. Once it is told to, it lets some more bytes of each message pass, and then
    nothing in either direction until it melts: to the server, its client is frozen. It counts what is sent."""

    def __init__(self, directory: str, root: str) -> None:
        self.directory = directory
        self._root = root
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.path.join(directory, NAME))
        self._listener.listen()
        self._lock = threading.Lock()
        self._melted = threading.Event()
        self._melted.set()
        self.sent = 0
        self._left: int | None = None
        self.frozen = threading.Event()
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def freeze_after(self, count: int) -> None:
        self.frozen.clear()
        self._left = count

    def melt(self) -> None:
        self._left = None
        self._melted.set()

    def close(self) -> None:
        self.melt()
        for one in (self._listener, *self._open):
            one.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            to = socket.socket(socket.AF_UNIX)
            to.connect(os.path.join(self._root, NAME))
            self._open += [client, to]
            threading.Thread(target=self._carry, args=(client, to), daemon=True).start()

    def _carry(self, client: socket.socket, to: socket.socket) -> None:
        try:
            while True:
                for source in select.select([client, to], [], [])[0]:
                    data = source.recv(1 << 16)
                    if not data:
                        client.close()
                        to.close()
                        return
                    if source is client:
                        data = self._weigh(data, to)
                    self._melted.wait()
                    (to if source is client else client).sendall(data)
        except (OSError, ValueError):
            client.close()
            to.close()

    def _weigh(self, data: bytes, to: socket.socket) -> bytes:
        """Send what may pass; what is left waits until it has melted."""
        with self._lock:
            self.sent += len(data)
            if self._left is None or not self._melted.is_set():
                return data
            if len(data) <= self._left:
                self._left -= len(data)
                return data
            to.sendall(data[: self._left])
            data = data[self._left :]
            self._melted.clear()
            self.frozen.set()
        return data


@pytest.fixture
def ice(postgres: Server) -> Iterator[Ice]:
    with tempfile.TemporaryDirectory(prefix="perdure-ice-") as directory:
        found = Ice(directory, postgres.root)
        yield found
        found.close()


def _batch(store: PostgresStore, run: int) -> Any:
    put = (CachePut(b"k", b"v" * 20_000, 1),)
    return store.commit([RunWrites(run, TOKEN, [segment(entry(1), entry(2))], [action(run, 1)], (), put)])


def _small_batch(store: PostgresStore, run: int) -> Any:
    return store.commit([RunWrites(run, TOKEN, [segment(entry(1)), segment(entry(2))])])


def _one(store: PostgresStore, run: int) -> Any:
    return store.commit([writes(run, entry(1))])


def _claim(store: PostgresStore, run: int) -> Any:
    claim = Claim(b"f" * 16, "f")
    return [store.claim(run, claim, expect=TOKEN, entries=0, statuses={Status.RUNNING})]


@pytest.mark.parametrize("work", [_batch, _small_batch, _one, _claim])
def test_a_process_that_is_frozen_between_any_two_bytes_holds_up_no_other(
    postgres: Server, ice: Ice, monkeypatch: pytest.MonkeyPatch, work: Callable[[PostgresStore, int], Any]
) -> None:
    monkeypatch.setattr(postgres_store, "SILENCE", SILENCE)
    monkeypatch.setattr("perdure.store.postgres.watch._TICK", 0.02)
    url = postgres.url()
    others = PostgresStore(url)
    mine = PostgresStore(url.replace(postgres.root, ice.directory))
    # What is sent in the end, once connections are open and statements prepared.
    for number in range(3):
        run = created(others, f"warm-{number}").id
        before = ice.sent
        assert work(mine, run) != [False]
    whole = ice.sent - before
    kept = ended = 0
    for turn in range(15):
        run = created(others, f"run-{turn}").id
        answers: list[Any] = []
        ice.freeze_after(whole * turn // 14 if turn else 1)
        thread = threading.Thread(target=lambda run=run, answers=answers: answers.append(work(mine, run)))
        thread.start()
        frozen = ice.frozen.wait(4.0)
        since = time.monotonic()
        taken = others.claim(run, Claim(OTHER, "other"), expect=TOKEN, entries=0, statuses={Status.RUNNING})
        took = time.monotonic() - since
        assert took < 3, f"after {turn}/14 of {whole} bytes: {took:.1f} s"
        ended += took > SILENCE / 2
        ice.melt()
        thread.join(20)
        assert not thread.is_alive()
        found = others.run(f"run-{turn}")
        assert found is not None
        if work is _claim:
            # One of the two has it.
            assert (taken is None) != (answers == [[None]])
            assert found.token == (OTHER if taken is not None else b"f" * 16)
        elif taken is not None and answers == [[False]]:
            assert others.journal_length(run) == 0
        else:
            # All of it was sent before the ice; it counts, and the next writer comes after it.
            assert answers == [[True]]
            assert others.journal_length(run) == (1 if work is _one else 2)
            kept += 1
        assert frozen or turn == 14
    # The test has come to where locks are held, and to where nothing is left to be sent.
    # (A single statement, and a small batch, which is one flight, hold none while they are sent.)
    assert ended >= (0 if work in (_one, _small_batch) else 3)
    mine.close()
    others.close()


def test_who_looks_at_the_tables_or_works_by_hand_is_left_alone(
    postgres: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(postgres_store, "SILENCE", 0.0)
    monkeypatch.setattr(postgres_store, "LONG_SILENCE", 0.5)
    monkeypatch.setattr("perdure.store.postgres.watch._ROUND", 1000.0)
    url = postgres.url()
    store = PostgresStore(url)
    schema = url.rpartition("schema=")[2]
    created(store)
    ours = postgres.dsn() + "&application_name=perdure"
    with psycopg.connect(ours) as looks, psycopg.connect(postgres.dsn()) as changes, psycopg.connect(ours) as holds:
        looks.execute(f"SELECT * FROM {schema}.runs")
        changes.execute(f"UPDATE {schema}.runs SET task = task")
        holds.execute(f"LOCK TABLE {schema}.cache IN ROW SHARE MODE")
        assert store._end_silent() == []  # no session waits for it
        assert wait_for(lambda: [pid for pid, _ in store._end_silent()]) == [holds.info.backend_pid]
        looks.execute("SELECT 1")
        changes.execute("SELECT 1")
        with pytest.raises(psycopg.OperationalError):
            holds.execute("SELECT 1")
    store.close()

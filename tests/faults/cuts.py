"""Postgres is lost while a workflow runs: its connection is cut at any message of the protocol, or the server ends."""

from __future__ import annotations

import random
import shutil
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.crash.harness import Hosts
from tests.faults.proxy import Proxy
from tests.faults.syscalls import Place, Violation, expected
from tests.journals import recorded
from tests.postgres_server import DATABASE, PASSWORD, USER, Server

from perdure.store.postgres import PostgresStore
from perdure.upkeep.moving import checked


class Cuts:
    """Trials on one server, behind one proxy; one at a time."""

    def __init__(self, hosts: Hosts, directory: Path, server: Server) -> None:
        self._hosts = hosts
        self._directory = directory
        self._server = server
        self.proxy = Proxy(server.root)
        self._count = 0

    def trial(self, number: int, after: bool) -> bool:
        """One process whose connection is cut at that message; whether there was such a message.

        Raises:
            Violation: a promise was not kept.
        """
        self.proxy.arm(number, after)
        self._drive(f"cut {'after' if after else 'before'} message {number}")
        return self.proxy.was_cut

    def outage(self, dice: random.Random) -> str:
        """One process whose server ends at a random moment, and is started again; how it ended.

        Raises:
            Violation: a promise was not kept.
        """
        how, delay = dice.choice(("quit", "kill", "stop")), dice.random()

        def strike() -> None:
            time.sleep(delay)  # the moment that is tried
            getattr(self._server, how)()
            self._server.start()

        self.proxy.arm(-1, False)
        striking = threading.Thread(target=strike)
        striking.start()
        try:
            self._drive(f"server ended by {how} after {delay:.3f} s", striking.join)
        finally:
            striking.join()
        return how

    def _drive(self, what: str, settled: Callable[[], None] = lambda: None) -> None:
        direct, through = self._urls()
        self._count += 1
        place = Place(self._hosts, self._directory / f"cut{self._count}", through)
        where = f"{what}, in {place.directory}"
        first = place.run("first")
        settled()
        self.proxy.disarm()
        if not first.answer or "value" not in first.answer:
            # The first connection of a process reports a fault at once; the same command again carries on.
            if not first.answer or "StoreError" not in first.answer["error"]:
                raise Violation(f"{where}: ended with {first.answer}, code {first.code}\n{first.errors}")
            again = place.run("again")
            if set(again.executed) & set(first.told):
                raise Violation(f"{where}: P1: executed again: {set(again.executed) & set(first.told)}")
            first.answer = again.answer
        elif twice := {name: count for name, count in Counter(first.executed).items() if count > 1}:
            raise Violation(f"{where}: executed twice by one process: {twice}")
        if first.answer != {"value": expected()}:
            raise Violation(f"{where}: ended with {first.answer}\n{first.errors}")
        self._check(direct, where)
        self._server.execute(f"DROP SCHEMA {direct.rpartition('=')[2]} CASCADE")
        shutil.rmtree(place.directory)

    def _check(self, url: str, where: str) -> None:
        if problems := checked(url).problems:
            raise Violation(f"{where}: perdure store check: {problems}")
        with closing(PostgresStore(url)) as store:
            run = store.run("r")
            assert run is not None
            numbers = [entry.n for entry in recorded(store, run)]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Violation(f"{where}: W1: the entries are numbered {numbers}")

    def messages(self) -> int:
        """How many messages an undisturbed workflow exchanges with the server."""
        self.proxy.arm(-1, False)
        place = Place(self._hosts, self._directory / "count", self._urls()[1])
        ended = place.run("first")
        assert ended.answer == {"value": expected()}, (ended.answer, ended.errors)
        return self.proxy.count

    def _urls(self) -> tuple[str, str]:
        """The URL of a new schema, and the same through the proxy."""
        direct = self._server.url()
        schema = direct.rpartition("&")[2]
        return direct, f"postgresql://{USER}:{PASSWORD}@/{DATABASE}?host={self.proxy.directory}&{schema}"


@contextmanager
def cutting(hosts: Hosts, directory: Path, server: Server) -> Iterator[Cuts]:
    """Trials behind a proxy that ends with the block."""
    found = Cuts(hosts, directory, server)
    try:
        yield found
    finally:
        found.proxy.close()

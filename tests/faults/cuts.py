"""A Postgres connection is cut before or after any message of the protocol, while a workflow runs."""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tests.crash.harness import Hosts
from tests.faults.proxy import Proxy
from tests.faults.syscalls import Place, Violation, expected
from tests.journals import recorded
from tests.postgres_server import DATABASE, PASSWORD, USER, Server
from tests.stores import drop_postgres

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
        direct = self._server.url()
        through = f"postgresql://{USER}:{PASSWORD}@/{DATABASE}?host={self.proxy.directory}"
        self._count += 1
        place = Place(self._hosts, self._directory / f"cut{self._count}", f"{through}&{direct.rpartition('&')[2]}")
        where = f"cut {'after' if after else 'before'} message {number} in {place.directory}"
        self.proxy.arm(number, after)
        first = place.run("first")
        was_cut = self.proxy.was_cut
        self.proxy.arm(-1, False)
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
        drop_postgres(direct)
        shutil.rmtree(place.directory)
        return was_cut

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
        place = Place(self._hosts, self._directory / "count", self._url_of_new_schema())
        ended = place.run("first")
        assert ended.answer == {"value": expected()}, (ended.answer, ended.errors)
        return self.proxy.count

    def _url_of_new_schema(self) -> str:
        schema = self._server.url().rpartition("&")[2]
        return f"postgresql://{USER}:{PASSWORD}@/{DATABASE}?host={self.proxy.directory}&{schema}"


@contextmanager
def cutting(hosts: Hosts, directory: Path, server: Server) -> Iterator[Cuts]:
    """Trials behind a proxy that ends with the block."""
    found = Cuts(hosts, directory, server)
    try:
        yield found
    finally:
        found.proxy.close()

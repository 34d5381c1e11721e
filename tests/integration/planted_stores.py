"""Stores with a planted fault each, opened by the conformance kit in the processes under attack."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from perdure.core.ground.model import Created, CreateRun, RunWrites, Segment
from perdure.core.ground.ports import Liveness, Store
from perdure.store import store_path
from perdure.store.locks import FileLiveness
from perdure.store.sqlite import SQLiteStore

Opened = tuple[Store, Liveness]


class Careless(SQLiteStore):
    """Gives each write of a driven run to `written`, which may forget it."""

    def written(self, write: Callable[[], list[Created | bool]], count: int) -> list[Created | bool]:
        return write()

    def commit(self, writes: Sequence[RunWrites | CreateRun]) -> list[Created | bool]:
        plain = super().commit
        if any(isinstance(write, CreateRun) for write in writes):
            return plain(writes)
        return self.written(lambda: plain(writes), len(writes))

    def append(self, run: int, token: bytes, segment: Segment) -> bool:
        plain = super().append
        return bool(self.written(lambda: [plain(run, token, segment)], 1)[0])


class Forgetful(Careless):
    """Answers that everything is written, and writes nothing."""

    def written(self, write: Callable[[], list[Created | bool]], count: int) -> list[Created | bool]:
        return [True] * count


class Hasty(Careless):
    """Answers before it commits."""

    pool: ThreadPoolExecutor | None = None

    def written(self, write: Callable[[], list[Created | bool]], count: int) -> list[Created | bool]:
        self.pool = self.pool or ThreadPoolExecutor(1)

        def late() -> None:
            time.sleep(0.3)
            write()

        self.pool.submit(late)
        return [True] * count


class Shortened(SQLiteStore):
    """Reads the journal of a run without the last segment."""

    def segments(self, run: int, numbers: Collection[int] | None = None) -> Iterator[Segment]:
        return iter(list(super().segments(run, numbers))[:-1])


def _opened(kind: type[SQLiteStore], url: Any) -> Opened:
    store = kind(store_path(url) or "")
    return store, FileLiveness(f"{store.path}-workers")


def forgetful(url: Any, *, durability: str) -> Opened:
    return _opened(Forgetful, url)


def hasty(url: Any, *, durability: str) -> Opened:
    return _opened(Hasty, url)


def shortened(url: Any, *, durability: str) -> Opened:
    return _opened(Shortened, url)

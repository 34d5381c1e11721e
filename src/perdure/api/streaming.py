"""Streams: items that the code of a run writes, and that readers follow live.

- ST1 an item that a body writes and the entry of the call are one commit; a call that is replayed writes nothing.
- ST2 an item that a reader has seen is never taken back. A trace that begins a stream again has the next attempt
  number, and the first item of the attempt tells the reader.
- ST3 the items of a trace are in the store before the stream is left, so the outcome of the trace comes after the
  items.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, suppress
from typing import Any, Final, Generic, NamedTuple, TypeVar
from weakref import WeakKeyDictionary

from .. import runtime
from ..core.body.branch import Branch
from ..core.body.scope import TraceScope, unscoped
from ..core.ground.model import FINISHED, Kind, RunRow, Status, Streamed
from ..core.ground.ports import Store
from ..core.ground.spec import Function
from ..core.ground.values import ANY, Signature, codec_for
from ..core.run import calls
from ..errors import RunStopped, StoreError, UsageError
from ._calling import caller, on_loop, run_async, run_sync, warn_blocking
from ._dual import Dual
from .messages import check_message_name
from .status import refuse_moved

T = TypeVar("T")

FLUSH_SECONDS: Final = 0.02
"""How long the items of a trace may wait in memory."""
FLUSH_ITEMS: Final = 500
"""So many items are written at once, by the caller: the memory of a writer is bounded."""
FLUSH_BYTES: Final = 1 << 20
"""The same for the bytes of the items."""
PAGE: Final = 500
"""How many items a reader has in memory at most."""
PAGE_BYTES: Final = 1 << 20
"""The same for the bytes of the items: the last item of a page may exceed them."""
HEARING_SECONDS: Final = 1.0
"""Seconds between two looks where the bell rings: a ring may be lost."""
DEAF_SECONDS: Final = 0.1
"""The same where no bell rings."""


# -- writing ---------------------------------------------------------------------------------------------------


def _named(name: str) -> None:
    """The signature of the durable calls. The name alone counts for the identity of a call."""


def _function(name: str) -> Function:
    return Function(
        kind=Kind.TRACE,
        fn=_named,
        name=name,
        is_async=False,
        signature=Signature(_named, (), globals()),
        qualified=lambda: f"perdure.{name}",
    )


_WRITE, _CLOSE = _function("stream.write"), _function("stream.close")


class _BodyWriter:
    """Writes from the body of a task: each item is a durable call."""

    def __init__(self, name: str) -> None:
        self._name = name

    def protocol(self, value: bytes | None) -> Any:
        """The durable call that writes the item; `None` closes the stream."""
        where = caller(lambda: f"stream {self._name!r}")
        if not isinstance(where, Branch):
            raise UsageError(f"stream {self._name!r} was opened in the body of a task: open a stream inside the trace")
        function = _CLOSE if value is None else _WRITE
        identity = function.signature.identity((self._name,), {})
        call = where.call(function.kind, function.name, function.fingerprint(identity), None, function, identity)
        return calls.publish(call, Streamed(self._name, 0, 1, value, call.body.driver.worker.clock.wall()))


class _TraceWriter:
    """Writes from inside a trace: items are collected, and are in the store within `FLUSH_SECONDS`. From any thread."""

    def __init__(self, name: str, scope: TraceScope) -> None:
        self._name = name
        self._driver: Any = scope.body.driver
        self._store: Store = self._driver.worker.store
        self._lock = threading.Lock()
        self._items: list[Streamed] = []
        self._size = 0
        self._writing = threading.Lock()
        self._wanted = threading.Event()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._error: StoreError | None = None
        last = self._store.last_streamed(self._driver.run_id, name)
        self._attempt = 1 if last is None else last.attempt + 1

    def write(self, value: bytes | None) -> bool:
        """Collect an item; whether the caller has to flush."""
        item = Streamed(self._name, 0, self._attempt, value, self._driver.worker.clock.wall())
        with self._lock:
            if self._error is not None:
                raise self._error
            self._items.append(item)
            self._size += len(value or b"")
            if self._thread is None:
                self._thread = threading.Thread(target=self._flush_often, name="perdure-stream", daemon=True)
                self._thread.start()
            full = len(self._items) >= FLUSH_ITEMS or self._size >= FLUSH_BYTES
        self._wanted.set()
        return full

    def flush(self) -> None:
        """Write what is collected. A worker that has lost its claim writes nothing."""
        with self._writing:
            with self._lock:
                items, self._items, self._size = self._items, [], 0
            if items:
                self._store.publish(self._driver.run_id, self._driver.token, (), items)

    def _flush_often(self) -> None:
        pause = threading.Event()
        while not self._closed:
            self._wanted.wait()
            self._wanted.clear()
            pause.wait(FLUSH_SECONDS)
            try:
                self.flush()
            except StoreError as error:
                with self._lock:
                    self._error = error
                return
            except RunStopped:
                return  # the body in this process is over

    def leave(self) -> None:
        """The trace writes no more items. All items are in the store when the method returns."""
        self._closed = True
        self._wanted.set()
        self.flush()
        with self._lock:
            if self._error is not None:
                raise self._error


class Stream(Generic[T]):
    """A stream that is being written. See `stream`."""

    def __init__(self, name: str, data_type: Any) -> None:
        self.name = check_message_name(name, "perdure.stream")
        self._codec = codec_for(data_type, f"stream {name!r}")
        self._writer: _BodyWriter | _TraceWriter | None = None

    def __repr__(self) -> str:
        return f"<perdure stream {self.name!r}>"

    def _open(self) -> None:
        where = caller(lambda: f"stream {self.name!r}")
        if where is None:
            raise UsageError(
                f"stream {self.name!r} was opened outside of a run. Only the body of a task, and the traces that the "
                "body calls, write streams; to read a stream, see perdure.Run.get(NAME).stream"
            )
        self._writer = _TraceWriter(self.name, where) if isinstance(where, TraceScope) else _BodyWriter(self.name)

    def _opened(self) -> _BodyWriter | _TraceWriter:
        if self._writer is None:
            raise UsageError(f"stream {self.name!r} is not open: write inside of its `with` or `async with` block")
        return self._writer

    @property
    def write(self) -> Dual[[T], None]:
        """Write an item: `out.write(item)`, or `await out.write.aio(item)`.

        Raises:
            ValueMismatchError: the item does not fit the declared type.
            ValueTooLargeError: the item is over the limit.
            UsageError: outside of the block of the stream.
        """
        return Dual(self._write, self._write_aio)

    def _write(self, item: T) -> None:
        writer, data = self._opened(), self._codec.encode(item)
        if isinstance(writer, _TraceWriter):
            if writer.write(data):
                writer.flush()
            return
        if on_loop():
            warn_blocking("Stream.write")
        run_sync(writer.protocol(data))

    def _write_aio(self, item: T) -> Coroutine[Any, Any, None]:
        writer, data = self._opened(), self._codec.encode(item)
        if isinstance(writer, _TraceWriter):
            return _collected(writer, data)
        return run_async(writer.protocol(data))

    def __enter__(self) -> Stream[T]:
        self._open()
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        writer, self._writer = self._opened(), None
        if isinstance(writer, _TraceWriter):
            if kind is None:
                writer.write(None)
            writer.leave()
        elif kind is None:
            run_sync(writer.protocol(None))

    async def __aenter__(self) -> Stream[T]:
        if isinstance(caller(lambda: f"stream {self.name!r}"), TraceScope):
            await asyncio.to_thread(self._open)
        else:
            self._open()
        return self

    async def __aexit__(self, kind: object, *_: object) -> None:
        writer, self._writer = self._opened(), None
        if isinstance(writer, _TraceWriter):
            if kind is None:
                writer.write(None)
            await asyncio.to_thread(writer.leave)
        elif kind is None:
            await run_async(writer.protocol(None))


async def _collected(writer: _TraceWriter, data: bytes) -> None:
    if writer.write(data):
        await asyncio.to_thread(writer.flush)


def stream(name: str, data_type: Any = Any, /) -> Stream[Any]:
    """A stream of items that the run writes, for readers that follow live: `with perdure.stream("answer", str) as out`,
    or `async with`; then `out.write(item)` or `await out.write.aio(item)`.

    The stream is read by `perdure.Run.get(RUN).stream(NAME)`. The end of the block closes the stream; an exception
    leaves the stream open, because another attempt may follow. In the body of a task, each write is a durable call.
    Inside a trace, items are in the store within 20 ms; where the trace is executed again, the stream begins the next
    attempt, and readers are told.

    Args:
        name: the name of the stream, within the run. A stream has one writer at a time.
        data_type: the type of the items.
    """
    return Stream(name, data_type)


# -- reading ---------------------------------------------------------------------------------------------------


class StreamItem(NamedTuple):
    """An item of a stream, as a reader gets the item."""

    value: Any
    offset: int
    """The position in the stream, from 1: `after=item.offset` continues behind the item."""
    attempt: int
    """The execution of the writing trace, from 1."""
    restarted: bool
    """Whether the attempt began with this item again: the items of earlier attempts do not count any more."""


class _Ear:
    """Hears the bell of a store for all readers of the process."""

    def __init__(self, store: Store) -> None:
        self._lock = threading.Lock()
        self._waiting: set[Callable[[], None]] = set()
        heard = store.hear(self.ring) and store.listen(self.ring, ends=True)
        self.seconds = HEARING_SECONDS if heard else DEAF_SECONDS

    def ring(self) -> None:
        """The bell rang. From any thread."""
        with self._lock:
            waiting = list(self._waiting)
        for wake in waiting:
            wake()

    def enter(self, wake: Callable[[], None]) -> None:
        """A reader begins to listen."""
        with self._lock:
            self._waiting.add(wake)

    def leave(self, wake: Callable[[], None]) -> None:
        """The reader listens no longer."""
        with self._lock:
            self._waiting.discard(wake)


_ears: WeakKeyDictionary[Store, _Ear] = WeakKeyDictionary()
_ears_lock = threading.Lock()


def _ear_of(store: Store) -> _Ear:
    with _ears_lock:
        ear = _ears.get(store)
        if ear is None:
            ear = _ears[store] = _Ear(store)
        return ear


class _Reader:
    """Reads one stream, page by page. The reader keeps a position only, so a slow reader costs the writer nothing."""

    def __init__(self, run: RunRow, name: str, data_type: Any, after: int) -> None:
        check_message_name(name, "Run.stream")
        if not isinstance(after, int) or after < 0:
            raise UsageError(f"after= is the offset of an item, from 0, not {after!r}")
        refuse_moved(run)
        self._run = run
        self._name = name
        self._codec = ANY if data_type is None else codec_for(data_type, f"stream {name!r}")
        self._after = after
        self._attempt: int | None = None
        self._store = runtime.worker().store
        self.ear = _ear_of(self._store)
        self._closed = False
        """Whether the item at the position is the end of the stream."""
        self.ended = False

    def page(self) -> list[StreamItem]:
        """The next items that are there. Sets `ended` where no items will follow."""
        if self._attempt is None:
            self._attempt = 0
            if self._after:
                for before in self._store.streamed(self._run.id, self._name, above=self._after - 1, limit=1):
                    self._attempt, self._closed = before.attempt, before.value is None
        # Before the items, so that the items of a run that has ended are all there.
        run = self._store.run_by_id(self._run.id)
        rows = self._store.streamed(self._run.id, self._name, above=self._after, limit=PAGE, size=PAGE_BYTES)
        over = run is None or run.status in FINISHED or run.status is Status.MOVED
        if rows:
            self._after, self._closed = rows[-1].number, rows[-1].value is None
        whole = len(rows) < PAGE and sum(len(row.value or b"") for row in rows) < PAGE_BYTES
        self.ended = whole and (self._closed or (over and not rows))
        return [self._item(row) for row in rows if row.value is not None]

    def _item(self, row: Streamed) -> StreamItem:
        assert row.value is not None
        restarted = self._attempt not in (0, row.attempt)
        self._attempt = row.attempt
        value = self._codec.decode(calls.as_declared(self._codec, row.value))
        return StreamItem(value, row.number, row.attempt, restarted)


def present(run: RunRow, name: str, after: int) -> Iterator[StreamItem]:
    """The items of a stream that are there, without a wait for further items."""
    reader = _Reader(run, name, None, after)
    while page := reader.page():
        yield from page


def _items(reader: _Reader) -> Iterator[StreamItem]:
    rung = threading.Event()
    reader.ear.enter(rung.set)
    try:
        while not reader.ended:
            rung.clear()
            page = reader.page()
            yield from page
            if not page and not reader.ended:
                rung.wait(reader.ear.seconds)
    finally:
        reader.ear.leave(rung.set)


async def _items_aio(reader: _Reader) -> AsyncGenerator[StreamItem, None]:
    async with aclosing(_rings(reader.ear)) as rings:
        async for _ in rings:
            page = None
            while not reader.ended and page != []:
                page = await asyncio.to_thread(reader.page)
                for item in page:
                    yield item
            if reader.ended:
                return


async def _rings(ear: _Ear) -> AsyncGenerator[None, None]:
    """Yields at once, then whenever the bell has rung, and now and then without a ring, which may be lost."""
    rung = asyncio.Event()
    loop = asyncio.get_running_loop()

    def wake() -> None:
        if not loop.is_closed():
            loop.call_soon_threadsafe(rung.set, context=unscoped())

    ear.enter(wake)
    try:
        while True:
            rung.clear()
            yield
            with suppress(TimeoutError):
                async with asyncio.timeout(ear.seconds):
                    await rung.wait()
    finally:
        ear.leave(wake)


def changes(run: RunRow) -> AsyncGenerator[None, None]:
    """Yields at once, and whenever the run may have written an item, published a value or ended."""
    refuse_moved(run)
    return _rings(_ear_of(runtime.worker().store))


class Following:
    """`run.stream(...)` and `run.stream.aio(...)`. See `Run.stream`."""

    def __init__(self, run: RunRow) -> None:
        self._run = run

    def __call__(self, name: str, data_type: Any = None, /, *, after: int = 0) -> Iterator[StreamItem]:
        return _items(_Reader(self._run, name, data_type, after))

    def aio(self, name: str, data_type: Any = None, /, *, after: int = 0) -> AsyncIterator[StreamItem]:
        """The items, for `async for`."""
        return _items_aio(_Reader(self._run, name, data_type, after))

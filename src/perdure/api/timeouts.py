"""`durable.timeout`: a recorded deadline, which ends the block in the same place on every replay."""

from __future__ import annotations

import asyncio
from types import TracebackType
from typing import Any

from ..core.body.branch import Branch
from ..core.body.scope import TraceScope
from ..core.ground.clock import Deadline
from ..core.ground.digest import blake2b
from ..core.ground.model import Kind
from ..core.ground.values import codec_for
from ..core.run import calls
from ..errors import UsageError
from ._calling import caller, on_loop, run_async, run_sync
from ._seconds import seconds_of

_FP = blake2b(b"%d\0" % Kind.TIMEOUT, digest_size=16).digest()
_END_FP = blake2b(b"%d\0end" % Kind.TIMEOUT, digest_size=16).digest()
_BOOL = codec_for(bool)


class timeout:  # noqa: N801 - named like asyncio.timeout, which it replaces
    """Bound the durable calls of a block: `async with durable.timeout(30): ...`.

    The deadline is `seconds` after the first entry into the block, over any number of crashes. At the deadline the
    block is cancelled and `TimeoutError` raised. The end is recorded: a replay ends the block in the same place, at
    once. (`asyncio.timeout` replays correctly, too, but waits again.)

    In a sync body (`with durable.timeout(30): ...`) nothing can interrupt the block; `TimeoutError` is raised at its
    end where the deadline has passed by then. Outside a run: like `asyncio.timeout`.

    Raises:
        ValueError: `seconds` is NaN or endless.
        TypeError: `seconds` is not a number.
    """

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds_of(seconds, "durable.timeout")
        self._plain: Any = None
        self._task: asyncio.Task[Any] | None = None
        self._watch: asyncio.Task[Any] | None = None
        self._cancelling = 0
        self._fired = False
        self._branch: Branch | None = None
        self._deadline: Deadline | None = None

    def expired(self) -> bool:
        """Whether the deadline has ended the block."""
        return self._fired

    # -- async -------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> timeout:
        where = caller(lambda: "durable.timeout")
        if where is None or isinstance(where, TraceScope):
            self._plain = asyncio.timeout(self._seconds)
            await self._plain.__aenter__()
            return self
        task = asyncio.current_task()
        assert task is not None
        self._task, self._cancelling = task, task.cancelling()
        call = where.call(Kind.TIMEOUT, "durable.timeout", _FP)
        begun = asyncio.get_running_loop().create_future()
        self._watch = asyncio.create_task(run_async(calls.timeout(call, self._seconds, begun)))
        self._watch.add_done_callback(self._fire)
        try:
            await begun
        except BaseException:
            self._task = None
            self._watch.cancel()
            raise
        return self

    def _fire(self, watch: asyncio.Task[Any]) -> None:
        if not watch.cancelled() and watch.exception() is None and self._task is not None:
            self._fired = True
            self._task.cancel()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> bool | None:
        if self._plain is not None:
            try:
                return bool(await self._plain.__aexit__(kind, error, traceback))
            finally:
                self._fired = self._plain.expired()
        task, self._task = self._task, None
        assert task is not None
        assert self._watch is not None
        if not self._watch.done():
            self._watch.cancel()
        cancelled = kind is not None and issubclass(kind, asyncio.CancelledError)
        if self._fired and task.uncancel() <= self._cancelling and cancelled:
            raise TimeoutError(f"the block took longer than {self._seconds:g} s") from error
        return None

    # -- sync --------------------------------------------------------------------------------------------------

    def __enter__(self) -> timeout:
        where = caller(lambda: "durable.timeout")
        if on_loop():
            raise UsageError("durable.timeout in async code is entered with: async with durable.timeout(...)")
        if where is None or isinstance(where, TraceScope):
            from ..core.ground.clock import SystemClock

            self._deadline = Deadline.after(self._seconds, SystemClock())
            return self
        self._branch = where
        self._deadline = run_sync(calls.timeout_begin(where.call(Kind.TIMEOUT, "durable.timeout", _FP), self._seconds))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        deadline = self._deadline
        assert deadline is not None
        if self._branch is None:
            from ..core.ground.clock import SystemClock

            self._fired = deadline.remaining(SystemClock()) <= 0
        elif kind is None or issubclass(kind, Exception):
            clock = self._branch.body.driver.worker.clock
            call = self._branch.call(Kind.TIMEOUT, "durable.timeout", _END_FP)
            self._fired = run_sync(calls.reading(call, lambda _: deadline.remaining(clock) <= 0, _BOOL))
        if self._fired and kind is None:
            raise TimeoutError(f"the block took longer than {self._seconds:g} s")

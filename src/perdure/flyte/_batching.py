"""Batches out of single records: many callers submit, and one function processes several records at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from perdure.core.body.scope import unscoped

RecordT = TypeVar("RecordT")
ResultT = TypeVar("ResultT")
ProcessFn = Callable[[list[RecordT]], Awaitable[Sequence[ResultT]]]
CostFn = Callable[[RecordT], int]


@runtime_checkable
class CostEstimator(Protocol):
    """A record that knows its cost."""

    def estimate_cost(self) -> int:
        """The cost."""


@runtime_checkable
class TokenEstimator(Protocol):
    """A record that knows its number of tokens."""

    def estimate_tokens(self) -> int:
        """The number of tokens."""


@dataclass
class Prompt:
    """A text for a model. A token counts as four characters."""

    text: str

    def estimate_tokens(self) -> int:
        """The number of tokens."""
        return len(self.text) // 4 + 1


@dataclass
class BatchStats:
    """The work of a batcher so far."""

    total_submitted: int = 0
    total_completed: int = 0
    total_batches: int = 0
    total_batch_cost: int = 0
    avg_batch_size: float = 0.0
    avg_batch_cost: float = 0.0
    busy_time_s: float = 0.0
    idle_time_s: float = 0.0

    @property
    def utilization(self) -> float:
        """The share of the time in which a batch was being processed."""
        total = self.busy_time_s + self.idle_time_s
        return self.busy_time_s / total if total else 0.0


@dataclass
class _Submitted:
    record: Any
    cost: int
    result: asyncio.Future[Any]


class DynamicBatcher(Generic[RecordT, ResultT]):
    """Collects records and processes them in batches.

    A batch is full at `target_batch_cost` or at `max_batch_size`. `batch_timeout_s` after its first record, a batch of
    `min_batch_size` records goes as it is. One batch is processed at a time; up to `prefetch_batches` wait.

    The batcher belongs to the event loop and to no task: several tasks may share a batcher. So the work in `process_fn`
    is not recorded; what a task does with a result is.
    """

    def __init__(
        self,
        process_fn: ProcessFn[RecordT, ResultT],
        *,
        cost_estimator: CostFn[RecordT] | None = None,
        target_batch_cost: int = 32_000,
        max_batch_size: int = 256,
        min_batch_size: int = 1,
        batch_timeout_s: float = 0.05,
        max_queue_size: int = 5_000,
        prefetch_batches: int = 2,
        default_cost: int = 1,
    ) -> None:
        self._process_fn = process_fn
        self._cost_estimator = cost_estimator
        self._target_cost = target_batch_cost
        self._max_size = max_batch_size
        self._min_size = min_batch_size
        self._timeout = batch_timeout_s
        self._queue: asyncio.Queue[_Submitted | None] = asyncio.Queue(max_queue_size)
        self._batches: asyncio.Queue[list[_Submitted] | None] = asyncio.Queue(prefetch_batches)
        self._default_cost = default_cost
        self._workers: list[asyncio.Task[None]] = []
        self._running = False
        self._stats = BatchStats()

    async def __aenter__(self) -> DynamicBatcher[RecordT, ResultT]:
        await self.start()
        return self

    async def __aexit__(self, *_: Any) -> None:
        await self.stop()

    @property
    def is_running(self) -> bool:
        """Whether records can be submitted."""
        return self._running

    @property
    def stats(self) -> BatchStats:
        """The work so far."""
        return self._stats

    async def start(self) -> None:
        """Begin to process.

        Raises:
            RuntimeError: the batcher is running.
        """
        if self._running:
            raise RuntimeError(f"{type(self).__name__} is running")
        self._running = True
        self._workers = [_detached(self._collect()), _detached(self._process())]

    async def stop(self) -> None:
        """Process all records that were submitted, and end."""
        if not self._running:
            return
        self._running = False
        await self._queue.put(None)
        await asyncio.gather(*self._workers)

    async def submit(self, record: RecordT, *, estimated_cost: int | None = None) -> asyncio.Future[ResultT]:
        """Add a record; the future gives its result. Waits while the queue is full.

        Raises:
            RuntimeError: the batcher is not running.
        """
        if not self._running:
            raise RuntimeError(f"{type(self).__name__} is not running: use async with, or call start()")
        result: asyncio.Future[ResultT] = asyncio.get_running_loop().create_future()
        cost = self._cost(record) if estimated_cost is None else estimated_cost
        self._stats.total_submitted += 1
        await self._queue.put(_Submitted(record, cost, result))
        return result

    async def submit_batch(
        self, records: Sequence[RecordT], *, estimated_cost: Sequence[int] | None = None
    ) -> list[asyncio.Future[ResultT]]:
        """Add several records."""
        costs: Sequence[int | None] = estimated_cost or [None] * len(records)
        return [await self.submit(record, estimated_cost=cost) for record, cost in zip(records, costs, strict=True)]

    def _cost(self, record: RecordT) -> int:
        if self._cost_estimator is not None:
            return self._cost_estimator(record)
        if isinstance(record, CostEstimator):
            return record.estimate_cost()
        return self._default_cost

    async def _collect(self) -> None:
        more = True
        while more:
            first = await self._queue.get()
            batch = [first] if first is not None else []
            more = first is not None
            due = _now() + self._timeout
            while more and len(batch) < self._max_size and sum(each.cost for each in batch) < self._target_cost:
                left = due - _now() if len(batch) >= self._min_size else None
                try:
                    async with asyncio.timeout(left):
                        item = await self._queue.get()
                except TimeoutError:
                    break
                if item is None:
                    more = False
                else:
                    batch.append(item)
            if batch:
                await self._batches.put(batch)
        await self._batches.put(None)

    async def _process(self) -> None:
        while True:
            idle = _now()
            batch = await self._batches.get()
            begun = _now()
            self._stats.idle_time_s += begun - idle
            if batch is None:
                return
            failure: Exception | None = None
            results: Sequence[ResultT] = ()
            try:
                results = await self._process_fn([each.record for each in batch])
                if len(results) != len(batch):
                    raise ValueError(f"process_fn returned {len(results)} results for batch of {len(batch)} records")
            except Exception as error:
                failure = error
            self._note(batch, _now() - begun)
            for number, each in enumerate(batch):
                if each.result.done():  # the submitter no longer waits
                    continue
                if failure is not None:
                    each.result.set_exception(failure)
                else:
                    each.result.set_result(results[number])

    def _note(self, batch: list[_Submitted], seconds: float) -> None:
        stats = self._stats
        stats.busy_time_s += seconds
        stats.total_batches += 1
        stats.total_completed += len(batch)
        stats.total_batch_cost += sum(each.cost for each in batch)
        stats.avg_batch_size = stats.total_completed / stats.total_batches
        stats.avg_batch_cost = stats.total_batch_cost / stats.total_batches


def _now() -> float:
    return asyncio.get_running_loop().time()


def _detached(work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
    """A task outside of the calling body: an empty context has no scope of perdure's."""
    return asyncio.get_running_loop().create_task(work, context=unscoped())


class TokenBatcher(DynamicBatcher[RecordT, ResultT]):
    """A `DynamicBatcher` that counts tokens."""

    def __init__(
        self,
        inference_fn: ProcessFn[RecordT, ResultT] | None = None,
        *,
        process_fn: ProcessFn[RecordT, ResultT] | None = None,
        token_estimator: CostFn[RecordT] | None = None,
        cost_estimator: CostFn[RecordT] | None = None,
        target_batch_tokens: int | None = None,
        target_batch_cost: int = 32_000,
        default_token_estimate: int | None = None,
        default_cost: int = 1,
        max_batch_size: int = 256,
        min_batch_size: int = 1,
        batch_timeout_s: float = 0.05,
        max_queue_size: int = 5_000,
        prefetch_batches: int = 2,
    ) -> None:
        function = inference_fn or process_fn
        if function is None:
            raise TypeError("TokenBatcher needs inference_fn or process_fn")
        super().__init__(
            function,
            cost_estimator=token_estimator or cost_estimator,
            target_batch_cost=target_batch_cost if target_batch_tokens is None else target_batch_tokens,
            max_batch_size=max_batch_size,
            min_batch_size=min_batch_size,
            batch_timeout_s=batch_timeout_s,
            max_queue_size=max_queue_size,
            prefetch_batches=prefetch_batches,
            default_cost=default_cost if default_token_estimate is None else default_token_estimate,
        )

    async def submit(
        self, record: RecordT, *, estimated_tokens: int | None = None, estimated_cost: int | None = None
    ) -> asyncio.Future[ResultT]:
        """As `DynamicBatcher.submit`, with the cost in tokens."""
        return await super().submit(
            record, estimated_cost=estimated_cost if estimated_tokens is None else estimated_tokens
        )

    def _cost(self, record: RecordT) -> int:
        if self._cost_estimator is None and isinstance(record, TokenEstimator):
            return record.estimate_tokens()
        return super()._cost(record)


__all__ = ["BatchStats", "CostEstimator", "DynamicBatcher", "Prompt", "TokenBatcher", "TokenEstimator"]

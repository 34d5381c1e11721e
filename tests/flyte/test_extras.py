"""`flyte.extras` and `flyte.syncify`: batches, `Sleep`, and async functions for sync callers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from tests.flyte.scripts import Scripts

from perdure.errors import UsageError
from perdure.flyte import extras
from perdure.flyte.extras import DynamicBatcher, Prompt, TokenBatcher
from perdure.flyte.syncify import syncify


async def _doubled(records: list[int]) -> list[int]:
    return [2 * record for record in records]


def test_a_batch_is_full_at_its_cost_or_at_its_size() -> None:
    """The family: full by size, by cost, by time, with a cost of the caller's, of the record's own."""
    batches: list[list[int]] = []

    async def process(records: list[int]) -> list[int]:
        batches.append(records)
        return await _doubled(records)

    async def main() -> None:
        batcher: DynamicBatcher[int, int] = DynamicBatcher(
            process, cost_estimator=lambda record: record, target_batch_cost=10, max_batch_size=4
        )
        async with batcher:
            futures = [await batcher.submit(number) for number in range(10)]
            assert await asyncio.gather(*futures) == [2 * number for number in range(10)]
            assert batches == [[0, 1, 2, 3], [4, 5, 6], [7, 8], [9]]
            await (await batcher.submit(1, estimated_cost=20))
        assert (batcher.stats.total_completed, batcher.stats.total_batch_cost) == (11, 65)
        with pytest.raises(RuntimeError, match="not running"):
            await batcher.submit(1)

    asyncio.run(main())


def test_a_failed_batch_fails_each_of_its_records() -> None:
    """The family: an exception, too few results; an exception among the results is a result."""

    async def failing(records: list[int]) -> list[int]:
        raise KeyError("batch")

    async def empty(records: list[int]) -> list[int]:
        return []

    async def mixed(records: list[int]) -> list[Any]:
        return [ValueError(record) for record in records]

    async def main() -> None:
        for process, kind in ((failing, KeyError), (empty, ValueError)):
            async with DynamicBatcher(process) as batcher:
                for future in await batcher.submit_batch([1, 2]):
                    with pytest.raises(kind):
                        await future
        async with DynamicBatcher(mixed) as values:
            assert isinstance(await (await values.submit(1)), ValueError)

    asyncio.run(main())


def test_tokens_are_the_cost_of_a_prompt() -> None:
    async def main() -> None:
        async def shout(prompts: list[Any]) -> list[str]:
            return [prompt.text.upper() for prompt in prompts]

        async with TokenBatcher(inference_fn=shout, batch_timeout_s=0.01) as batcher:
            assert await (await batcher.submit(Prompt("hello world"))) == "HELLO WORLD"
            assert batcher.stats.total_batch_cost == Prompt("hello world").estimate_tokens() == 3

    asyncio.run(main())


def test_a_batcher_serves_several_tasks_and_outlives_the_first(scripts: Scripts) -> None:
    scripts.write(
        """
        from flyte.extras import DynamicBatcher

        async def process(records):
            mark("b" + ",".join(map(str, records)))
            return [2 * record for record in records]

        batcher = None

        @env.task
        async def first(number: int) -> int:
            global batcher
            if batcher is None:
                batcher = DynamicBatcher(process, batch_timeout_s=0.01)
                await batcher.start()
            return await (await batcher.submit(number))

        @env.task
        async def main() -> list[int]:
            one = await first(1)
            return [one, await first(2), await first(3)]

        if __name__ == "__main__":
            print(flyte.run(main).outputs()[0])
        """
    )
    assert scripts.run("script.py") == "[2, 4, 6]\n"
    assert scripts.marks() == ["b1", "b2", "b3"]
    scripts.run("script.py", kill_at=2)
    assert scripts.run("script.py") == "[2, 4, 6]\n"
    assert scripts.marks() == ["b1", "b2", "b2", "b3"]


def test_a_task_with_sleep_runs_its_function(scripts: Scripts) -> None:
    scripts.write(
        """
        from datetime import timedelta
        from flyte.extras import Sleep

        nap = flyte.TaskEnvironment("nap", plugin_config=Sleep())

        @nap.task
        async def sleep_for(duration: timedelta) -> None:
            return None

        if __name__ == "__main__":
            print(flyte.run(sleep_for, duration=timedelta(hours=1)).outputs())
        """
    )
    assert scripts.run("script.py") == "ActionOutputs(o0=None)\n"


def test_an_absent_extra_says_so_when_used() -> None:
    with pytest.raises(UsageError, match=r"flyte\.extras\.shell\.create is absent in perdure: .*ContainerTask"):
        extras.shell.create("name", image="debian", script="true")


class _Counter:
    def __init__(self, start: int) -> None:
        self.start = start

    @syncify
    async def add(self, number: int) -> int:
        await asyncio.sleep(0)
        return self.start + number

    @syncify
    @classmethod
    async def name(cls) -> str:
        return cls.__name__

    @syncify
    async def upto(self, end: int) -> AsyncIterator[int]:
        for number in range(self.start, end):
            yield number


def test_a_syncified_function_has_two_colours() -> None:
    """The family: methods, class methods, generators, exceptions, a blocking call from a running loop."""
    counter = _Counter(2)
    assert (counter.add(3), _Counter.name(), list(counter.upto(5))) == (5, "_Counter", [2, 3, 4])

    async def main() -> None:
        assert await counter.add.aio(1) == 3
        assert [number async for number in counter.upto.aio(4)] == [2, 3]
        assert counter.add(5) == 7

    asyncio.run(main())

    @syncify
    async def failing() -> None:
        raise LookupError("inside")

    with pytest.raises(LookupError, match="inside"):
        failing()
    with pytest.raises(TypeError, match="async functions"):
        syncify(lambda: None)

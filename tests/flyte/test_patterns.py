"""Scripts in the styles of Flyte's own examples: the outputs of Flyte's local mode, also after kills."""

from __future__ import annotations

import pytest
from tests.flyte.scripts import Scripts

BREAKER = """
import asyncio
import flyte.errors

@env.task
async def flaky(number: int) -> str:
    mark(f"f{number}")
    await asyncio.sleep(0.01 * number)
    if number % 3 == 2:
        raise LookupError(f"no {number}")
    return f"ok {number}"

@env.task
async def main(limit: int) -> list[str]:
    tasks = [asyncio.create_task(flaky(number)) for number in range(6)]
    results, failures, pending = [], 0, set(tasks)
    while pending:
        done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
        for task in sorted(done, key=tasks.index):
            if task.exception() is None:
                results.append(task.result())
                continue
            failures += 1
            assert isinstance(task.exception(), flyte.errors.RuntimeUserError)
            results.append(task.exception().code)
            if failures > limit:
                for left in pending:
                    left.cancel()
                return [*results, "open"]
    return results

if __name__ == "__main__":
    print(flyte.run(main, 3).outputs()[0])
    print(flyte.run(main, 0).outputs()[0])
"""


@pytest.mark.parametrize("kill_at", [0, 3, 6, 8])
def test_a_circuit_breaker(scripts: Scripts, kill_at: int) -> None:
    scripts.write(BREAKER)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py").splitlines() == [
        "['ok 0', 'ok 1', 'LookupError', 'ok 3', 'ok 4', 'LookupError']",
        "['ok 0', 'ok 1', 'LookupError', 'open']",
    ]


RETRIES = """
from datetime import timedelta
import flyte.errors

@env.task(retries=flyte.RetryStrategy(count=3, backoff=flyte.Backoff(base=timedelta(milliseconds=10), factor=2.0)))
async def flaky() -> int:
    mark("flaky")
    if flyte.ctx().attempt_number < 2:
        raise ConnectionError("again")
    return flyte.ctx().attempt_number

@env.task(retries=3)
async def hopeless() -> int:
    mark("hopeless")
    raise flyte.errors.NonRecoverableError("never")

@env.task(timeout=flyte.Timeout(max_runtime=1, max_queued_time=timedelta(minutes=5)))
async def slow() -> int:
    import asyncio
    await asyncio.sleep(60)
    return 1

@env.task
async def main() -> list[str]:
    found = [str(await flaky())]
    for task in (hopeless, slow):
        try:
            await task()
        except flyte.errors.RuntimeUserError as error:
            found.append(error.code)
    return found

if __name__ == "__main__":
    print(flyte.run(main).outputs()[0])
"""


@pytest.mark.parametrize("kill_at", [0, 2, 4])
def test_retries_limits_and_failures_for_good(scripts: Scripts, kill_at: int) -> None:
    scripts.write(RETRIES)
    if kill_at:
        scripts.run("script.py", kill_at=kill_at)
    assert scripts.run("script.py") == "['2', 'NonRecoverableError', 'TaskTimeoutError']\n"
    marks = scripts.marks()
    assert marks.count("hopeless") == (2 if kill_at == 4 else 1)


CACHED = """
import asyncio
from flyte import Cache

@env.task(cache=Cache(behavior="auto"))
async def child(number: int) -> int:
    mark(f"c{number}")
    if number < 0:
        raise RuntimeError(number)
    return number * number

@env.task(cache="auto")
async def parent(numbers: list[int], tolerate: bool = False) -> list[int | None]:
    found = await asyncio.gather(*(child(number) for number in numbers), return_exceptions=True)
    bad = [value for value in found if isinstance(value, BaseException)]
    if bad and not tolerate:
        raise RuntimeError(f"{len(bad)} failed")
    return [None if isinstance(value, BaseException) else value for value in found]

@env.task
async def main(numbers: list[int]) -> list[int | None]:
    try:
        return await parent(numbers)
    except RuntimeError:
        return await parent.override(cache="disable")(numbers, tolerate=True)

if __name__ == "__main__":
    print(flyte.run(main, [1, -2, 3]).outputs()[0])
    print(flyte.run(main, [1, 2, 3]).outputs()[0])
    print(flyte.run(main, [1, 2, 3]).outputs()[0])
"""


def test_a_failed_parent_is_not_cached_and_its_children_are(scripts: Scripts) -> None:
    scripts.write(CACHED)
    assert scripts.run("script.py").splitlines() == ["[1, None, 9]", "[1, 4, 9]", "[1, 4, 9]"]
    assert sorted(scripts.marks()) == ["c-2", "c-2", "c1", "c2", "c3"]

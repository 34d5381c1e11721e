"""Cases of `tests/crash/test_named_interleavings.py`: failures and retries."""

from __future__ import annotations

import asyncio

import lab
from lab import LabError, env, flaky, see, step, sync_flaky, sync_step

import perdure


def jitter(most: float = 0.012) -> float:
    """Seconds for a step that takes another time, up to that, whenever it is executed (see `lab.step`)."""
    return -most


@env.task
async def caught_and_raised_again() -> list[str]:
    out = []
    try:
        await step("bad", fail=True)
    except LabError as error:
        out.append(str(error))
    see("main", out)
    try:
        await retried_reraise()
    except LabError as error:
        out.append(f"{error} {type(error.__cause__).__name__}")
    out.append(await step("end"))
    return out


@env.task(retries=1)
async def retried_reraise() -> str:
    await step("before it")
    try:
        return await flaky("worse", 5)
    except LabError as error:
        raise LabError("again") from error


@env.task(retries=perdure.RetryStrategy(3, perdure.Backoff(initial=0.01, factor=1.5)))
async def flaky_task(name: str) -> str:
    kept = await step(f"{name} kept")
    return kept + await flaky(f"{name} flaky", 2)


@env.task(retries=2)
def sync_flaky_task(name: str) -> str:
    kept = sync_step(f"{name} kept")
    return kept + sync_flaky(f"{name} flaky", 1)


@env.task
async def retries_with_backoff() -> list[str]:
    out = list(await asyncio.gather(flaky_task("a"), sync_flaky_task.aio("b"), step("beside", 0.005)))
    see("main", out)
    out.append(await step("end"))
    return out


@env.task(retries=2)
async def other_path(name: str) -> str:
    attempt = await flaky_counter(name)
    if attempt == 0:
        await step(f"{name} first path")
        await step(f"{name} fails", fail=True)
    await step(f"{name} second path")
    return f"{name} done at {attempt}"


@perdure.trace
async def flaky_counter(name: str) -> int:
    """How often it was executed before; fails the first time, so that the next attempt reads the number again."""
    before = lab.tries(f"{name} counter")
    lab.log("executed", f"{name} counter")
    if before == 0:
        raise LabError(f"{name} counter")
    return before


@env.task
async def second_attempt_other_path() -> list[str]:
    out = [await other_path("o"), await step("end")]
    see("main", out)
    return out


@env.task(retries=1)
async def attempt_decides(name: str) -> str:
    out = [await step(f"{name} common")]
    try:
        out.append(await flaky(f"{name} flaky", 1))
    except LabError:
        await step(f"{name} cleanup")
        raise
    out.append(await step(f"{name} rest"))
    return " ".join(out)


@env.task
async def cleanup_only_when_failing() -> list[str]:
    out = [await attempt_decides("d"), await step("end")]
    see("main", out)
    return out


@env.task
async def failing_child(name: str) -> str:
    await step(f"{name} child")
    return await flaky(f"{name} flaky", 1)


@env.task(retries=2)
async def retrying_parent(name: str) -> str:
    first = await step(f"{name} parent")
    return first + await failing_child(name)


@env.task
async def child_fails_under_retrying_parent() -> list[str]:
    out = list(await asyncio.gather(retrying_parent("k"), retrying_parent("l")))
    see("main", out)
    out.append(await step("end"))
    return out


@env.task
async def child(name: str) -> str:
    return await step(f"{name}.a") + await step(f"{name}.b")


@env.task(retries=2)
async def gather_then_fail() -> list[str]:
    found = await asyncio.gather(step("one", jitter(0.004)), step("two", jitter(0.004)), child("three"))
    found.append(await flaky("flaky", 2))
    return list(found)


@env.task
async def caught_from_child() -> list[str]:
    out = []
    for name in ("u", "v"):
        try:
            out.append(await always_fails(name))
        except LabError as error:
            out.append(f"caught {error}")
            see("main", out[-1])
        out.append(await step(f"{name} after"))
    return out


@env.task(retries=1)
async def always_fails(name: str) -> str:
    await step(f"{name} in")
    raise LabError(f"{name} out")


QUICK = perdure.RetryStrategy(4, perdure.Backoff(initial=0.01, factor=1.5, jitter=0.5))


@perdure.trace(retries=QUICK)
async def retried(name: str, failures: int) -> str:
    before = lab.tries(name)
    lab.log("executed", name)
    return lab._end(name, before < failures)


@perdure.trace(retries=QUICK)
def sync_retried(name: str, failures: int) -> str:
    before = lab.tries(name)
    lab.log("executed", name)
    return lab._end(name, before < failures)


@env.task
def sync_traces_of_their_own() -> list[str]:
    return [sync_step("s"), sync_retried("u", 2), sync_step("t")]


@env.task(retries=1)
async def given_up_at_first() -> str:
    """The trace fails for good, the task's own retry begins the trace again."""
    return await retried("w", 6)


@env.task
async def traces_of_their_own() -> list[str]:
    out = list(await asyncio.gather(retried("x", 2), sync_retried.aio("y", 1), step("beside", 0.005)))
    see("main", out)
    out += sync_traces_of_their_own()
    try:
        out.append(await retried("v", 100))
    except LabError as error:
        out.append(f"caught {error}")
    see("main", out)
    out += [await given_up_at_first(), await step("end")]
    return out


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)

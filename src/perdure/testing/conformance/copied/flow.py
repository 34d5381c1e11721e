"""The programs of the kit, written for perdure: `flow.py PROGRAM RUN` drives the named run.

`PerdureSystem` copies the file into the directory of each trial, so each trial is a project with a
separate source. Adapters of other systems have programs of the same names and results (docs/reliability.md).
"""

from __future__ import annotations

import asyncio
import importlib
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from outside import FOLDER, LIFE, executed, failure, note, result

import perdure
from perdure.extras import ContainerTask, durable_sleep, durable_time

env = perdure.TaskEnvironment("conformance")
pooled = perdure.TaskEnvironment("conformance-pool", executor="process")


@perdure.trace
async def step(name: str, value: Any = None, seconds: float = 0.0) -> Any:
    note("begin", name)
    await asyncio.sleep(seconds)
    note("end", name)
    return value


@perdure.trace
def plain_step(name: str, value: Any = None, seconds: float = 0.0) -> Any:
    return executed(name, value, seconds)


@perdure.trace
async def failing_step(name: str, message: str) -> None:
    executed(name)
    raise ValueError(message)


def seen(name: str, value: Any) -> Any:
    note("seen", name, value)
    return value


@env.task
async def steps() -> Any:
    return [seen(f"s{n}", await step(f"s{n}", n * 10)) for n in range(5)]


@env.task
async def slow_steps() -> Any:
    return [seen(f"s{n}", await step(f"s{n}", n * 10, 0.25)) for n in range(4)]


@env.task
async def values() -> Any:
    found: list[Any] = []
    values: list[Any] = [None, 0, "", False, []]
    for n, value in enumerate(values):
        found.append(seen(f"v{n}", await step(f"v{n}", value)))
    try:
        await failing_step("raises", "of the step")
    except ValueError as error:
        found.append(seen("raises", f"{type(error).__name__}: {error}"))
    await step("last")
    return found


@env.task
async def fan_out() -> Any:
    async def branch(n: int) -> Any:
        return seen(f"f{n}", await step(f"f{n}", n, 0.01 * (n % 3)))

    return sum(await asyncio.gather(*(branch(n) for n in range(6))))


@env.task
async def race() -> Any:
    """The sides swap lengths in every other process, so the winner is the slower side on replay."""
    left, right = asyncio.create_task(raced("left")), asyncio.create_task(raced("right"))
    done, _ = await asyncio.wait([left, right], return_when=asyncio.FIRST_COMPLETED)
    winner = seen("winner", "left" if left in done else "right")
    seen(f"after-{winner}", await step(f"after-{winner}", winner))
    await asyncio.gather(left, right)
    return seen("both", await step("both", winner))


@perdure.trace
async def raced(name: str) -> str:
    note("begin", name)
    lengths = {"left": 0.0, "right": 0.4} if LIFE % 2 else {"left": 0.4, "right": 0.0}
    await asyncio.sleep(lengths[name])
    note("end", name)
    return name


@env.task
async def half(n: int) -> int:
    seen(f"c{n}a", await step(f"c{n}a", n))
    return int(seen(f"c{n}b", await step(f"c{n}b", n + 1)))


@env.task
async def child() -> Any:
    found = [seen("child1", await half(1)), seen("child2", await half(2))]
    return [*found, seen("own", await step("own", 7))]


@env.task
async def thread() -> Any:
    def work(n: int) -> Any:
        value = plain_step(f"t{n}", n, 0.01 * n)
        note("got", f"t{n}", value)
        return value

    return sum(await asyncio.gather(*(asyncio.to_thread(work, n) for n in range(3))))


@perdure.trace
async def items(name: str, source: str) -> AsyncIterator[str]:
    note("begin", name)
    for n in range(4):
        yield f"{source}-{n}"
    note("end", name)


@env.task
async def generator() -> Any:
    found: list[Any] = []
    async for item in items("items", "same"):
        found.append(seen(f"item{len(found)}", item))
    await step("last")
    return found


@perdure.trace
async def other_items(name: str) -> AsyncIterator[str]:
    note("begin", name)
    for _ in range(4):
        yield f"life {LIFE}"
    note("end", name)


@env.task
async def other_generator() -> Any:
    found: list[Any] = []
    async for item in other_items("items"):
        found.append(seen(f"item{len(found)}", item))
    return found


@env.task(cache=perdure.Cache(version_override="1"))
async def cached(name: str) -> str:
    executed(f"cached-{name}")
    return name


@env.task
async def cache() -> Any:
    name = os.path.basename(FOLDER)
    first = seen("first", await cached(name))
    second = seen("second", await cached(name))
    return [first == second, seen("last", await step("last", 1))]


@env.task(retries=perdure.RetryStrategy(count=2))
async def retry() -> Any:
    found = [seen(f"r{n}", await step(f"r{n}", n)) for n in range(3)]
    first = not os.path.exists(os.path.join(FOLDER, "failed"))
    if first:
        Path(FOLDER, "failed").touch()
        raise RuntimeError("the first attempt fails")
    return [*found, seen("last", await step("last", 9))]


@env.task
async def sleep() -> Any:
    seen("before", await step("before", 1))
    note("at", "asleep")
    await durable_sleep.aio(3.0)
    note("at", "awake")
    return seen("behind", await step("behind", 2))


@env.task
async def clock() -> Any:
    found = []
    for n in range(4):
        found.append(seen(f"time{n}", await durable_time.aio()))
        await step(f"between{n}")
    return found == sorted(found)


@env.task
async def asks() -> Any:
    """Reads a file outside of any step, against the rules for bodies."""
    seen("same", await step("same", 1))
    with open(os.path.join(FOLDER, "ask")) as stream:
        name = stream.read().strip()
    if name != "none":
        seen("asked", await step(name, 2))
    return seen("last", await step("last", 3))


asks_again = asks


@env.task
async def fails() -> Any:
    seen("good", await step("good", 1))
    await failing_step("bad", "no good")


@pooled.task
async def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@env.task(timeout=0.2)
async def lasts() -> None:
    await asyncio.sleep(30)


class Opaque:
    """A value without an encoding, except by running code on reading."""

    def __reduce__(self) -> Any:
        return os.system, ("touch executed-by-data",)


@perdure.trace
async def opaque() -> Any:
    return Opaque()


@env.task
async def failures() -> Any:
    found = []
    for name, call in (
        ("raises", lambda: failing_step("raises", "x")),
        ("lasts", lasts),
        ("dies", dies),
        ("opaque", opaque),
    ):
        try:
            await call()
            found.append("nothing")
        except Exception as error:
            found.append(type(error).__name__)
        seen(name, found[-1])
    return found


@perdure.trace
async def foreign(name: str) -> None:
    """Raises an exception of a module without any other importer."""
    note("begin", name)
    sys.path.insert(0, os.path.join(FOLDER, "elsewhere"))
    raise importlib.import_module("foreign_module").ForeignError("from elsewhere")


@perdure.trace
async def pickled(name: str) -> bytes:
    note("begin", name)
    return b"cposix\nsystem\n(S'touch executed-by-data'\ntR."


@env.task
async def data() -> Any:
    try:
        await foreign("foreign")
    except Exception as error:
        seen("foreign", str(error).splitlines()[0][-14:])
    seen("pickled", len(await pickled("pickled")))
    return seen("last", await step("last", 1))


def container_task() -> Any:
    """The task of the program `container`; the image is in `CONFORMANCE_IMAGE`. The container tells its start, and then
    shows by the last word of its command that it has."""
    told = "cut -d' ' -f1 /proc/uptime > /var/outputs/at; exec /bin/sh -c 'sleep 5; true' \"began $0\""
    return ContainerTask(
        name="started",
        image=os.environ["CONFORMANCE_IMAGE"],
        command=["/bin/sh", "-c", told, os.getcwd()],
        outputs={"at": float},
    )


if os.environ.get("CONFORMANCE_IMAGE"):
    started = container_task()
    with_containers = perdure.TaskEnvironment(
        "conformance-containers", depends_on=[perdure.TaskEnvironment.from_task("images", started)]
    )

    @with_containers.task
    async def container() -> Any:
        note("at", "before")
        at = seen("container", await started())
        note("at", "container-began", at)
        return await step("last", 1)


def main() -> None:
    program, run = sys.argv[1:]
    opener = os.environ.get("CONFORMANCE_OPEN")
    if opener:
        module, _, name = opener.partition(":")
        own = getattr(importlib.import_module(module), name)
        importlib.import_module("perdure.runtime.process").open_store = own  # type: ignore[attr-defined]
    if program == "edited":
        sys.modules["flow"] = sys.modules["__main__"]
        task = importlib.import_module("edited").edited
    else:
        task = globals()[program.replace("-", "_")]
    note("at", "process")
    try:
        found = perdure.with_runcontext(name=run).run(task).outputs()[0]
    except Exception as error:
        failure(error)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        sys.exit(1)
    result(found)


if __name__ == "__main__":
    main()

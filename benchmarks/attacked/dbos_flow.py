"""The programs of the conformance kit for dbos on SQLite, as its documentation writes workflows and steps."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Any

from dbos import DBOS, SetWorkflowID
from outside import FOLDER, failure, note, result


@DBOS.step()
async def step(name: str, value: Any = None, seconds: float = 0.0) -> Any:
    note("begin", name)
    await asyncio.sleep(seconds)
    note("end", name)
    return value


@DBOS.step()
async def failing_step(name: str, message: str) -> None:
    note("begin", name)
    note("end", name)
    raise ValueError(message)


def seen(name: str, value: Any) -> Any:
    note("seen", name, value)
    return value


@DBOS.workflow()
async def steps() -> Any:
    return [seen(f"s{n}", await step(f"s{n}", n * 10)) for n in range(5)]


@DBOS.workflow()
async def slow_steps() -> Any:
    return [seen(f"s{n}", await step(f"s{n}", n * 10, 0.25)) for n in range(4)]


@DBOS.workflow()
async def values() -> Any:
    found: list[Any] = []
    given: list[Any] = [None, 0, "", False, []]
    for n, value in enumerate(given):
        found.append(seen(f"v{n}", await step(f"v{n}", value)))
    try:
        await failing_step("raises", "of the step")
    except ValueError as error:
        found.append(seen("raises", f"{type(error).__name__}: {error}"))
    await step("last")
    return found


@DBOS.workflow()
async def fan_out() -> Any:
    async def branch(n: int) -> Any:
        return seen(f"f{n}", await step(f"f{n}", n, 0.01 * (n % 3)))

    return sum(await asyncio.gather(*(branch(n) for n in range(6))))


@DBOS.workflow()
async def half(n: int) -> int:
    seen(f"c{n}a", await step(f"c{n}a", n))
    return int(seen(f"c{n}b", await step(f"c{n}b", n + 1)))


@DBOS.workflow()
async def child() -> Any:
    found = [seen("child1", await half(1)), seen("child2", await half(2))]
    return [*found, seen("own", await step("own", 7))]


@DBOS.workflow()
async def sleep() -> Any:
    seen("before", await step("before", 1))
    note("at", "asleep")
    await DBOS.sleep_async(3.0)
    note("at", "awake")
    return seen("behind", await step("behind", 2))


@DBOS.step(name="other")
async def other_step(name: str, value: Any) -> Any:
    note("begin", name)
    note("end", name)
    return value


@DBOS.step(name="last")
async def last_step(name: str, value: Any) -> Any:
    note("begin", name)
    note("end", name)
    return value


@DBOS.workflow()
async def asks() -> Any:
    """Reads a file outside of any step, against the rules for workflows. dbos knows a step by its function's name."""
    seen("same", await step("same", 1))
    with open(os.path.join(FOLDER, "ask")) as stream:
        name = stream.read().strip()
    if name != "none":
        seen("asked", await (step if name == "usual" else other_step)(name, 2))
    return seen("last", await last_step("last", 3))


async def drive(program: str, run: str) -> Any:
    workflow = globals()[program.replace("-", "_")]
    if await DBOS.get_workflow_status_async(run) is None:
        with SetWorkflowID(run):
            handle = await DBOS.start_workflow_async(workflow)
    else:  # the launch has recovered the workflow
        handle = await DBOS.retrieve_workflow_async(run)
    return await handle.get_result()


def main() -> None:
    program, run = sys.argv[1:]
    url = f"sqlite:///{FOLDER}/dbos.db"
    DBOS(config={"name": "attacked", "system_database_url": url, "enable_otlp": False, "log_level": "ERROR"})
    DBOS.launch()
    note("at", "process")
    try:
        found = asyncio.run(drive(program, run))
    except Exception as error:
        failure(error)
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        os._exit(1)
    result(found)
    os._exit(0)


if __name__ == "__main__":
    main()

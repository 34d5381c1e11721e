"""D4: a `RunStopped` that does not belong to the run is a failure of the code that raises the exception.

The kind: an exception of perdure's own machinery in the hands of user code, raised by hand or carried from a run that
was stopped into another run. Members: `RunStopped` and `Parked`, in sync and async bodies, child tasks and traces, in a
pool child, caught, from an executor, and from a future that two runs share.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors
from perdure.api import ending

env = perdure.TaskEnvironment(name="stray")
far = perdure.TaskEnvironment(name="stray_far", executor="process")
KINDS: dict[str, type[BaseException]] = {"RunStopped": errors.RunStopped, "Parked": errors.Parked}
CARRIED: concurrent.futures.Future[int] = concurrent.futures.Future()


def throw(kind: str) -> int:
    raise KINDS[kind]("raised by hand")


@env.task
def in_a_sync_body(kind: str) -> int:
    return throw(kind)


@env.task
async def in_an_async_body(kind: str) -> int:
    await asyncio.sleep(0)
    return throw(kind)


@perdure.trace
def traced(kind: str) -> int:
    return throw(kind)


@perdure.trace
async def traced_async(kind: str) -> int:
    return throw(kind)


@env.task
def in_a_trace(kind: str) -> int:
    return traced(kind)


@env.task
async def in_an_async_trace(kind: str) -> int:
    return await traced_async(kind)


@env.task
async def in_a_child(kind: str) -> int:
    return await in_an_async_body.aio(kind)


@env.task
def in_a_sync_child(kind: str) -> int:
    return in_a_sync_body(kind)


@far.task
def in_another_process(kind: str) -> int:
    return throw(kind)


@env.task
async def from_an_executor(kind: str) -> int:
    return await asyncio.get_running_loop().run_in_executor(None, throw, kind)


@env.task
def caught(kind: str) -> list[str]:
    found = []
    for _ in range(2):
        try:
            traced(kind)
        except errors.UsageError as error:
            found.append(type(error).__name__)
    return found


ENDING = [
    in_a_sync_body, in_an_async_body, in_a_trace, in_an_async_trace, in_a_child, in_a_sync_child, in_another_process,
    from_an_executor,
]  # fmt: skip


@pytest.fixture(autouse=True)
def _store(tmp_path: Path) -> Any:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("task", ENDING, ids=lambda task: task.name)
def test_a_stop_that_is_raised_by_hand_is_a_typed_failure(task: Any, kind: str) -> None:
    for _ in range(2):
        with pytest.raises(errors.UsageError, match=rf"raised {kind}, though its run goes on.*raised by hand"):
            perdure.with_runcontext(name="r").run(task, kind)
        assert perdure.Run.get("r").status.name == "FAILED"


def test_a_failure_by_a_stray_stop_may_be_caught() -> None:
    for _ in range(2):
        assert perdure.with_runcontext(name="c").run(caught, "Parked").result == ["UsageError", "UsageError"]


@env.task
def is_stopped() -> int:
    try:
        aborts("first")
        while True:
            traced_number(1)
    except errors.RunStopped as error:
        CARRIED.set_exception(error)
        raise


@perdure.trace
def aborts(name: str) -> None:
    ending.abort(name)


@perdure.trace
def traced_number(number: int) -> int:
    return number


@env.task
def takes_over() -> int:
    return CARRIED.result(30)


def test_the_stop_of_one_run_that_a_future_carries_does_not_stop_another() -> None:
    with pytest.raises(errors.RunAbortedError):
        perdure.with_runcontext(name="first").run(is_stopped)
    with pytest.raises(errors.UsageError, match="takes_over raised RunStopped, though its run goes on"):
        perdure.with_runcontext(name="second").run(takes_over)
    assert perdure.Run.get("second").status.name == "FAILED"

"""Threads of an application are not a run's business: traced helpers are plain functions there, at any time.

Family: code outside of all runs in a process that happens to drive a run. Threads that a body starts are told apart by
who started the thread, not by when.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="application")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@perdure.trace
def helper(n: int) -> int:
    return n + 1


@env.task
def child(n: int) -> int:
    return n + 1


go = threading.Event()
started = threading.Event()


@env.task
def unrelated() -> int:
    started.set()
    go.wait(60)
    return 1


def _while_a_run_is_driven(work: Callable[[], Any]) -> Any:
    """Drive a run in a thread of its own, and meanwhile do the work in a thread that starts only then."""
    go.clear()
    started.clear()
    with ThreadPoolExecutor(1) as runs:
        run = runs.submit(perdure.run, unrelated)
        assert started.wait(60)
        try:
            with ThreadPoolExecutor(1) as application:
                return application.submit(work).result(60)
        finally:
            go.set()
            run.result(60)


def _nested() -> int:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(helper, 1).result(60)


@pytest.mark.parametrize(
    "work",
    [
        lambda: helper(1), lambda: child(1), lambda: durable_sleep(0) or 2, lambda: min(2, int(durable_time())),
        lambda: asyncio.run(asyncio.to_thread(helper, 1)), _nested, lambda: next(iter(perdure.map(child, [1]))),
    ],
)  # fmt: skip
def test_a_thread_of_the_application_calls_durable_functions_as_plain_ones(work: Callable[[], Any]) -> None:
    assert _while_a_run_is_driven(work) == 2


def _refused(work: Callable[[], Any]) -> str:
    try:
        work()
    except errors.BranchError as error:
        return str(error)
    return "not refused"


@env.task
def thread_of_a_body() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_refused, lambda: helper(1)).result(60)


@env.task
def thread_of_a_thread_of_a_body() -> str:
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(lambda: _refused(_nested)).result(60)


@env.task
async def thread_of_an_async_body() -> str:
    with ThreadPoolExecutor(1) as pool:
        return await asyncio.wrap_future(pool.submit(_refused, lambda: child(1)))


@pytest.mark.parametrize("task", [thread_of_a_body, thread_of_a_thread_of_a_body, thread_of_an_async_body])
def test_a_thread_that_a_body_started_is_refused(task: Any) -> None:
    assert "asyncio.to_thread" in perdure.run(task).result

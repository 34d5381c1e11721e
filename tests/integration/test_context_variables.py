"""The context variables of the caller of `perdure.run` are there in the bodies of the run, in each colour."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Any

import pytest

import perdure

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="context")
REQUEST: ContextVar[str] = ContextVar("request", default="none")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@perdure.trace
def traced() -> str:
    return REQUEST.get()


@env.task
def sync_child() -> list[str]:
    return [REQUEST.get(), traced()]


@env.task
async def async_child() -> list[str]:
    return [REQUEST.get(), await asyncio.to_thread(REQUEST.get)]


@env.task
def sync_body() -> list[str]:
    return [REQUEST.get(), *sync_child(), *async_child()]  # type: ignore[misc]


@env.task
async def async_body() -> list[str]:
    return [REQUEST.get(), *await sync_child.aio(), *await async_child()]


async def _run(task: Any, name: str) -> list[str]:
    REQUEST.set(name)
    found: list[str] = (await perdure.run.aio(task)).result
    return found


@pytest.mark.parametrize("task", [sync_body, async_body])
def test_a_blocking_run_carries_the_callers_variables(task: Any) -> None:
    token = REQUEST.set("blocking")
    try:
        assert perdure.run(task).result == ["blocking"] * 5
    finally:
        REQUEST.reset(token)
    assert perdure.run(task).result == ["none"] * 5


@pytest.mark.parametrize("task", [sync_body, async_body])
def test_runs_of_one_event_loop_each_carry_their_own_callers_variables(task: Any) -> None:
    async def main() -> list[list[str]]:
        return await asyncio.gather(*(asyncio.create_task(_run(task, f"request {n}")) for n in range(5)))

    assert asyncio.run(main()) == [[f"request {n}"] * 5 for n in range(5)]


@env.task
def sets_it() -> None:
    REQUEST.set("of the body")


def test_a_body_does_not_change_the_variables_of_its_caller() -> None:
    perdure.run(sets_it)
    assert REQUEST.get() == "none"


def test_a_run_that_is_continued_by_its_name_carries_the_variables_of_its_new_caller() -> None:
    perdure.with_runcontext(name="blocking").submit(sync_body)
    perdure.with_runcontext(name="async").submit(async_body)
    REQUEST.set("continued")
    assert perdure.with_runcontext(name="blocking").run(sync_body).result == ["continued"] * 5

    async def main() -> list[str]:
        REQUEST.set("aio")
        found: list[str] = (await perdure.with_runcontext(name="async").run.aio(async_body)).result
        return found

    assert asyncio.run(main()) == ["aio"] * 5
    REQUEST.set("none")

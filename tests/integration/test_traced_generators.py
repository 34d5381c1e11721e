"""A traced generator takes nothing in: neither a sent value nor a thrown exception. `resume` names a parameter.

Families: code of the generator that would run unrecorded, or be skipped without a word; declarations of `resume` that
cannot work.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors

env = perdure.TaskEnvironment(name="generators")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


handled: list[str] = []


@perdure.trace
def connection() -> Iterator[str]:
    try:
        yield "open"
    except ValueError:
        handled.append("rollback")
        raise
    finally:
        handled.append("closed")


@perdure.trace
async def async_connection() -> AsyncIterator[str]:
    try:
        yield "open"
    except ValueError:
        handled.append("rollback")
        raise
    finally:
        handled.append("closed")


managed = contextlib.contextmanager(connection)
async_managed = contextlib.asynccontextmanager(async_connection)


@env.task
def block_raises() -> None:
    with managed():
        raise ValueError("broken")


@env.task
async def async_block_raises() -> None:
    async with async_managed():
        raise ValueError("broken")


@env.task
def throws_by_hand() -> None:
    items = connection()
    next(items)
    items.throw(ValueError("broken"))  # type: ignore[attr-defined]


@env.task
async def throws_by_hand_async() -> None:
    items = async_connection()
    await anext(items)
    await items.athrow(ValueError("broken"))  # type: ignore[attr-defined]


@pytest.mark.parametrize("task", [block_raises, async_block_raises, throws_by_hand, throws_by_hand_async])
def test_a_thrown_exception_is_refused_and_the_generator_closed(task: perdure.Task[[], None]) -> None:
    handled.clear()
    with pytest.raises(errors.UsageError, match=r"cannot be thrown into it.*ValueError: broken"):
        perdure.run(task)
    assert handled == ["closed"]


@env.task
def block_ends() -> str:
    with managed() as found:
        return found


@env.task
async def async_block_ends() -> str:
    async with async_managed() as found:
        return found


@env.task
def closes() -> str:
    items = connection()
    found = next(items)
    with pytest.raises(GeneratorExit):
        items.throw(GeneratorExit())  # type: ignore[attr-defined]
    return found


@pytest.mark.parametrize("task", [block_ends, async_block_ends, closes])
def test_a_block_without_an_exception_works(task: perdure.Task[[], str]) -> None:
    handled.clear()
    assert perdure.run(task).result == "open"
    assert handled == ["closed"]


def plain(before: tuple[str, ...] = ()) -> str:
    return "no generator"


def without(question: str) -> Iterator[str]:
    yield question


def no_default(question: str, before: list[str]) -> Iterator[str]:
    yield question


def positional(before: tuple[str, ...] = (), /) -> Iterator[str]:
    yield from before


def variadic(*before: str) -> Iterator[str]:
    yield from before


@pytest.mark.parametrize(
    ("fn", "message"),
    [
        (plain, "plain is no generator"),
        (without, r"has no such parameter. Add it: def without\(..., before=\(\)\)"),
        (no_default, r"needs a default: before=\(\)"),
        (positional, "has no such parameter"),
        (variadic, "has no such parameter"),
    ],
)
def test_a_resume_that_cannot_work_is_refused_at_the_declaration(fn: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        perdure.trace(resume="before")(fn)


@perdure.trace(resume="before")
def counting(upto: int, before: Sequence[int] = ()) -> Iterator[int]:
    yield from range(len(before), upto)


@env.task
def counts() -> list[int]:
    return list(counting(3))


@env.task
def passes_by_name() -> list[int]:
    return list(counting(3, before=[0]))


@env.task
def passes_by_position() -> list[int]:
    return list(counting(3, [0]))


def test_inside_a_task_the_items_given_so_far_are_a_list_and_outside_the_default_holds() -> None:
    assert perdure.run(counts).result == [0, 1, 2]
    assert list(counting(3)) == [0, 1, 2]
    assert list(counting(3, [0])) == [1, 2]


@pytest.mark.parametrize("task", [passes_by_name, passes_by_position])
def test_a_caller_that_passes_the_items_is_refused(task: perdure.Task[[], list[int]]) -> None:
    with pytest.raises(errors.UsageError, match="perdure passes 'before' inside a task"):
        perdure.run(task)

"""`perdure.map` raises the failure of a call, so that no failure passes for a result.

Family: a failure that looks like a value. Each form of the call is tried: sync, async, limited, outside a run, and with
a failure of perdure's own.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors
from perdure.core.ground.values import ANY, codec_for

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="mapping")
REPAIRED = "PERDURE_TEST_REPAIRED"


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    yield
    perdure.init()


@env.task
def odd(n: int) -> int:
    if REPAIRED not in os.environ and n == 2:
        raise ValueError(f"{n} is even")
    return n


@env.task
async def odd_aio(n: int) -> int:
    if REPAIRED not in os.environ and n == 2:
        raise errors.NonRecoverableError(f"{n} is even")
    return n


@env.task
def sync_list() -> int:
    return len(list(perdure.map(odd, [1, 2, 3])))


@env.task
def sync_limited() -> int:
    return len(list(perdure.map(odd, [1, 2, 3], concurrency=1)))


@env.task
async def async_list() -> int:
    return len([each async for each in perdure.map.aio(odd_aio, [1, 2, 3])])


@env.task
async def async_limited() -> int:
    return len([each async for each in perdure.map.aio(odd, [1, 2, 3], concurrency=2)])


@env.task
def as_values() -> list[str]:
    return [str(each) for each in perdure.map(odd, [1, 2, 3], return_exceptions=True)]


@pytest.mark.parametrize("task", [sync_list, sync_limited, async_list, async_limited])
def test_a_failed_call_is_raised_and_counted_as_no_result(task: Any) -> None:
    with pytest.raises((ValueError, errors.NonRecoverableError), match="2 is even"):
        perdure.run(task)


def test_outside_a_run_a_failed_call_is_raised() -> None:
    with pytest.raises(ValueError, match="2 is even"):
        list(perdure.map(odd, [1, 2, 3]))


def test_failures_are_values_on_request() -> None:
    assert perdure.run(as_values).result == ["1", "2 is even", "3"]


def test_resume_tries_a_failed_call_of_a_map_again(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="2 is even"):
        perdure.with_runcontext(name="one").run(sync_list)
    monkeypatch.setenv(REPAIRED, "1")
    from perdure.api import operate

    handle = operate.resume("one")
    assert handle.done is not None
    handle.done.result(60)
    assert operate.outcome(handle).result == 3


@pytest.mark.parametrize("name", [name for name in errors.__all__ if name != "PerdureWarning"])
def test_no_error_of_perdure_is_stored_as_an_ordinary_value(name: str) -> None:
    cls = getattr(errors, name)
    error = cls.__new__(cls)
    for value in (error, [error], {"x": error}, (1, error)):
        with pytest.raises(errors.UnsupportedTypeError):
            ANY.encode(value)
    with pytest.raises(errors.UnsupportedTypeError):
        codec_for(list[cls])  # type: ignore[valid-type]

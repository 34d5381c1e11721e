"""What `perdure.carry` refuses, and what it stores."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from contextvars import ContextVar, copy_context
from pathlib import Path
from typing import Any

import pytest

import perdure
from perdure import errors, runtime
from perdure.core.ground import carrying

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="carrying")
REQUEST: ContextVar[Any] = ContextVar("request")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    perdure.carry(REQUEST)
    yield
    carrying.withdraw("request")
    perdure.init()


@env.task
async def sees() -> Any:
    return REQUEST.get("nothing")


@env.task
def sees_sync() -> Any:
    return REQUEST.get("nothing")


def within(value: Any, call: Callable[..., Any], *args: Any, variable: ContextVar[Any] = REQUEST, **more: Any) -> Any:
    """The call, in a context in which the variable has that value."""
    context = copy_context()
    context.run(variable.set, value)
    return context.run(call, *args, **more)


def carried(run: perdure.Run) -> bytes | None:
    found = runtime.worker().store.run(run.name)
    assert found is not None
    return found.carried


@pytest.mark.parametrize("task", [sees, sees_sync])
def test_nothing_is_stored_for_what_is_not_set(task: Any) -> None:
    """CV3."""
    run = perdure.run(task)
    assert run.result == "nothing"
    assert carried(run) is None


@pytest.mark.parametrize("task", [sees, sees_sync])
@pytest.mark.parametrize("value", ["r-17", 17, None, {"id": [1, 2]}, b"\0"])
def test_the_recorded_value_wins_over_that_of_a_caller_who_continues(task: Any, value: Any) -> None:
    """CV2. The family: values of the built-in types, a `None` that was set among them."""
    run = within(value, perdure.with_runcontext(name="r").submit, task)
    assert run.status == perdure.Status.QUEUED
    assert within("of the caller", perdure.with_runcontext(name="r").run, task).result == value


def test_runs_of_one_loop_do_not_mix_their_values() -> None:
    async def one(number: int) -> Any:
        REQUEST.set(number)
        return (await perdure.run.aio(sees)).result

    async def main() -> list[Any]:
        return await asyncio.gather(*(asyncio.create_task(one(number)) for number in range(5)))

    assert asyncio.run(main()) == list(range(5))


def test_a_value_that_cannot_be_stored_is_refused_and_stores_no_run() -> None:
    """CV1. The family: a value of no storable type, one over the limit, one that does not fit its declared type."""
    typed: ContextVar[Any] = ContextVar("typed")
    perdure.carry(typed, int)
    try:
        for variable, value, said in (
            (REQUEST, object(), "'request' goes with each run"),
            (REQUEST, "x" * carrying.INLINE_LIMIT, "request"),
            (typed, "seven", "'typed' goes with each run"),
        ):
            for call in (perdure.run, perdure.submit):
                with pytest.raises(errors.UsageError, match=said):
                    within(value, call, sees, variable=variable)
        assert list(perdure.runs()) == []
    finally:
        carrying.withdraw("typed")


def test_what_is_no_context_variable_or_has_the_name_of_another_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="takes a context variable"):
        perdure.carry("request")  # type: ignore[arg-type]
    code = "import perdure; from contextvars import ContextVar; perdure.carry(ContextVar('request'))"
    with pytest.raises(errors.UsageError, match="two context variables are named 'request'"):
        exec(compile(code, "elsewhere.py", "exec"), {})
    with pytest.raises(errors.UnsupportedTypeError, match="context variable stream"):
        perdure.carry(ContextVar("stream"), type(open))


def test_a_process_that_does_not_know_the_variable_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a", "b"):
        within("r-17", perdure.with_runcontext(name=name).submit, sees)
    carrying.withdraw("request")
    with caplog.at_level(logging.WARNING, "perdure"):
        for name in ("a", "b"):
            assert perdure.with_runcontext(name=name).run(sees).result == "nothing"
    assert caplog.text.count("comes with the context variable 'request'") == 1
    assert "perdure.carry" in caplog.text


def test_a_value_that_no_longer_fits_stops_the_run_and_loses_nothing() -> None:
    within("text", perdure.with_runcontext(name="r").submit, sees)
    carrying.withdraw("request")
    perdure.carry(REQUEST, int)
    with pytest.raises(errors.UsageError, match="run 'r': the context variable 'request' does not arrive"):
        perdure.with_runcontext(name="r").run(sees)
    carrying.withdraw("request")
    perdure.carry(REQUEST)
    assert perdure.with_runcontext(name="r").run(sees).result == "text"

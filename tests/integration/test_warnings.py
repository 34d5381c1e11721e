"""A warning about a blocking call names the line of the program that made the call.

The family: each synchronous durable call in an async body, whichever layers of perdure lie between call and warning.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

import perdure
from perdure.errors import PerdureWarning
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="warned")


@perdure.trace
def step(n: int) -> int:
    return n


@env.task
def child(n: int) -> int:
    return n


def _receive() -> object:
    perdure.Run.get(perdure.ctx().run_name).send("box", 1)
    return perdure.receive("box", int)


def _condition() -> object:
    condition = perdure.new_condition("ready", prompt="go on?", data_type=bool)
    perdure.Run.get(perdure.ctx().run_name).signal("ready", True)
    return condition.wait()


def _stream() -> None:
    with perdure.stream("words", str) as stream:
        stream.write("word")


CALLS: dict[str, Callable[[], object]] = {
    "trace": lambda: step(1),
    "task": lambda: child(1),
    "map": lambda: list(perdure.map(child, [1])),
    "sleep": lambda: durable_sleep(0.001),
    "time": lambda: durable_time(),
    "publish": lambda: perdure.publish("state", 1),
    "receive": _receive,
    "condition": _condition,
    "stream": _stream,
}


@env.task
async def body(which: str) -> None:
    CALLS[which]()


@pytest.mark.parametrize("which", CALLS)
def test_a_blocking_call_is_reported_at_the_line_of_the_program(which: str, tmp_path: Path) -> None:
    perdure.init(store=tmp_path / "perdure.db")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        perdure.run(body, which)
    own = [found for found in caught if issubclass(found.category, PerdureWarning)]
    assert own
    assert {found.filename for found in own} == {__file__}
    perdure.init()

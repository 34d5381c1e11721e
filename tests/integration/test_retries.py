"""Retries of traces, tasks and calls in other processes: which failures are tried again, and after which pause."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from types import SimpleNamespace
from typing import Any

import pytest
from tests.integration.shell import Shell

import perdure
from perdure import RetryStrategy, errors, runtime
from perdure.api import looking
from perdure.api.standing import standing
from perdure.cli import output
from perdure.core.ground.clock import wall
from perdure.core.run.retrying import asked_pause
from perdure.testing import virtual_time

pytestmark = [
    pytest.mark.usefixtures("perdure_store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]

env = perdure.TaskEnvironment(name="retries")
AT_ONCE = perdure.Backoff(initial=0)
tried: list[str] = []


@pytest.fixture(autouse=True)
def _nothing_tried() -> None:
    tried.clear()


class Busy(Exception):
    """A service asks for patience."""

    def __init__(self, retry_after: Any = None) -> None:
        super().__init__("busy")
        self.retry_after = retry_after


def fails(name: str, failures: int, error: Exception | None = None) -> str:
    """Fails so many times, then gives the name."""
    tried.append(name)
    if tried.count(name) <= failures:
        raise error if error is not None else ValueError(f"{name} {tried.count(name)}")
    return name


@perdure.trace(retries=RetryStrategy(3, AT_ONCE))
def sync_call(name: str, failures: int) -> str:
    return fails(name, failures)


@perdure.trace(retries=RetryStrategy(3, AT_ONCE))
async def async_call(name: str, failures: int) -> str:
    await asyncio.sleep(0)
    return fails(name, failures)


@env.task
async def in_many_ways() -> list[str]:
    out = list(await asyncio.gather(async_call("a", 3), sync_call.aio("b", 2), asyncio.to_thread(sync_call, "c", 1)))
    out.append(sync_call("on the loop", 2))
    out += await asyncio.gather(async_child("d"), sync_child.aio("e"))
    out += [value async for value in perdure.map.aio(sync_child, ["f", "g"])]
    return out


@env.task
async def async_child(name: str) -> str:
    return await async_call(name, 2)


@env.task
def sync_child(name: str) -> str:
    return sync_call(name, 2)


def test_a_trace_is_tried_again_however_it_is_called() -> None:
    """RT2. Family: sync and async traces, in tasks, threads, children, maps and on the loop's own thread."""
    found = perdure.run(in_many_ways)
    assert found.result == ["a", "b", "c", "on the loop", "d", "e", "f", "g"]
    assert [tried.count(name) for name in found.result] == [4, 3, 2, 3, 3, 3, 3, 3]


@env.task
def gives_up() -> str:
    try:
        return sync_call("x", 4)
    except ValueError as error:
        return f"caught {error}"


@env.task(retries=RetryStrategy(1, AT_ONCE))
def tries_all_again() -> str:
    return sync_call("y", 6)


def test_the_last_failure_is_raised_and_a_retry_of_the_task_begins_all_retries_again() -> None:
    """RT2: a trace counts its failures within one attempt of the task."""
    assert perdure.run(gives_up).result == "caught x 4"
    assert perdure.run(tries_all_again).result == "y"
    assert tried.count("y") == 7


@perdure.trace(retries=RetryStrategy(3, AT_ONCE, retry_on=(Busy, OSError)))
def by_class(name: str, error: str) -> str:
    return fails(name, 1, {"busy": Busy(), "file": FileNotFoundError(), "value": ValueError()}[error])


@perdure.trace(retries=RetryStrategy(3, AT_ONCE, retry_if=lambda error: "again" in str(error)))
def by_function(name: str, text: str) -> str:
    return fails(name, 1, ValueError(text))


@perdure.trace(retries=RetryStrategy(3, AT_ONCE, retry_if=lambda error: error.status > 1))
def by_broken_function(name: str) -> str:
    return fails(name, 1)


@perdure.trace(retries=RetryStrategy(3, AT_ONCE))
def final(name: str) -> str:
    return fails(name, 1, errors.NonRecoverableError("never"))


@env.task(retries=RetryStrategy(2, AT_ONCE, retry_on=Busy))
def task_by_class(name: str, error: str) -> str:
    return fails(name, 1, {"busy": Busy(), "value": ValueError("once")}[error])


@env.task
def calls_trace(which: str, name: str, *rest: str) -> str:
    return {"class": by_class, "function": by_function, "broken": by_broken_function, "final": final}[which](
        name, *rest
    )


@pytest.mark.parametrize(
    ("arguments", "attempts"),
    [
        (("class", "a", "busy"), 2),
        (("class", "b", "file"), 2),
        (("class", "c", "value"), 1),
        (("function", "d", "try again"), 2),
        (("function", "e", "never"), 1),
        (("broken", "f"), 1),
        (("final", "g"), 1),
    ],
)
def test_only_fitting_failures_are_tried_again(arguments: tuple[str, ...], attempts: int) -> None:
    """Family: by class, by subclass, by function, by a function that fails itself, and failures that are final."""
    if attempts == 2:
        assert perdure.run(calls_trace, *arguments).result == arguments[1]
    else:
        with pytest.raises((ValueError, errors.NonRecoverableError)) as caught:
            perdure.run(calls_trace, *arguments)
        notes = getattr(caught.value, "__notes__", [])
        assert any("retry_if raised AttributeError" in note for note in notes) == (arguments[0] == "broken")
    assert tried.count(arguments[1]) == attempts


def test_a_tasks_retries_look_at_the_failure_as_well() -> None:
    assert perdure.run(task_by_class, "t", "busy").result == "t"
    with pytest.raises(ValueError, match="once"):
        perdure.run(task_by_class, "u", "value")
    assert tried == ["t", "t", "u"]


@env.task(retries=6)
def small_pauses() -> str:
    return fails("small", 6)


@env.task
def small_pauses_of_a_trace() -> str:
    return small("trace", 6)


@perdure.trace(retries=6)
def small(name: str, failures: int) -> str:
    return fails(name, failures)


@pytest.mark.parametrize("task", [small_pauses, small_pauses_of_a_trace])
def test_an_int_pauses_for_a_small_and_growing_time(task: Any) -> None:
    """0.1 s doubled five times is 6.3 s in all, each pause up to a quarter shorter."""
    with virtual_time() as clock:
        began = clock.now
        perdure.run(task)
        passed = (clock.now - began).total_seconds()
    assert 0.75 * 6.3 <= passed < 6.3 + 2


NOW = 1_800_000_000
ASKING: dict[str, tuple[Any, float]] = {
    "seconds": (Busy(7), 7),
    "a fraction": (Busy(0.5), 0.5),
    "text": (Busy("12"), 12),
    "a timedelta": (Busy(timedelta(minutes=2)), 120),
    "a datetime": (Busy(datetime.fromtimestamp(NOW + 30, UTC)), 30),
    "the date of HTTP": (Busy(format_datetime(datetime.fromtimestamp(NOW + 90, UTC), usegmt=True)), 90),
    "a moment in the past": (Busy(datetime.fromtimestamp(NOW - 30, UTC)), 0),
    "nothing": (Busy(), 0),
    "no time": (Busy("soon"), 0),
    "a truth": (Busy(True), 0),
    "not a number": (Busy(float("nan")), 0),
    "endless": (Busy(float("inf")), 0),
    "a thousand years": (Busy(86400 * 365_000), 0),
    "a method": (Busy(lambda: 3), 0),
}


@pytest.mark.parametrize("name", ASKING)
def test_a_failure_says_when_to_come_back(name: str) -> None:
    error, seconds = ASKING[name]
    assert asked_pause(error, NOW * 1_000_000) == pytest.approx(seconds)


def test_the_header_of_a_response_counts() -> None:
    """Family: `response.headers` as of httpx, requests, openai and anthropic; `headers` as of aiohttp and urllib; an
    attribute that raises."""
    error: Any = ValueError("429")
    error.response = SimpleNamespace(headers={"retry-after": "9"})
    assert asked_pause(error, 0) == 9
    error.response = None
    error.headers = {"Retry-After": "4"}
    assert asked_pause(error, 0) == 4
    error.headers = None
    assert asked_pause(error, 0) == 0

    class Rude(Exception):
        @property
        def retry_after(self) -> float:
            raise RuntimeError("not now")

    assert asked_pause(Rude(), 0) == 0


@perdure.trace(retries=RetryStrategy(1, AT_ONCE))
def asks_for_a_day(name: str) -> str:
    return fails(name, 1, Busy(86400))


@env.task
def waits_for_a_day_in_a_trace() -> str:
    return asks_for_a_day("trace")


@env.task(retries=RetryStrategy(1, AT_ONCE))
def waits_for_a_day() -> str:
    return fails("task", 1, Busy(86400))


@env.task(retries=RetryStrategy(1, AT_ONCE))
def waits_because_a_trace_asks() -> str:
    return plainly_asks("traced")


@perdure.trace
def plainly_asks(name: str) -> str:
    return fails(name, 1, Busy(86400))


@pytest.mark.parametrize("task", [waits_for_a_day_in_a_trace, waits_for_a_day, waits_because_a_trace_asks])
def test_the_pause_is_as_long_as_the_failure_asks(task: Any) -> None:
    with virtual_time() as clock:
        began = clock.now
        perdure.run(task)
        assert timedelta(days=1) <= clock.now - began < timedelta(days=1, minutes=1)


@env.task
def rests() -> str:
    return pauses("rests")


@perdure.trace(retries=RetryStrategy(2, perdure.Backoff(3600, maximum=7200)))
def pauses(name: str) -> str:
    return fails(name, 2)


@env.task(retries=RetryStrategy(3, perdure.Backoff(3600, maximum=7200)))
def away(name: str) -> str:
    raise ConnectionError(f"the bank is away: {name}")


def test_the_error_of_a_failed_attempt_is_there_while_the_next_one_waits() -> None:
    """RT1: the error goes with the commit that begins the pause."""
    with perdure.Worker([away], park_after=0.1):
        run = perdure.submit(away, "x")
        _soon(lambda: runtime.worker().store.run(run.name).status == "SLEEPING")  # type: ignore[union-attr]
        row = runtime.worker().store.run(run.name)
        assert row is not None
        assert standing(row).endswith("It failed with ConnectionError: the bank is away: x")
        [failure] = looking.picture(run.name).node(0).failures
        found = looking.error_of(failure)
        assert found is not None
        assert found.message == "the bank is away: x"
        assert 0 <= wall() - failure.at < 60_000_000
        shown = output.action_data(looking.picture(run.name).node(0))
        assert [one["message"] for one in shown["failures"]] == ["the bank is away: x"]
        run.abort()


@env.task
def holds() -> str:
    while not released:
        time.sleep(0.01)
    return "held"


released: list[int] = []


def test_a_run_that_waits_tells_which_workers_serve_its_task() -> None:
    """No worker at all, a worker of another task, a full one, and a paused queue beside them."""
    released.clear()

    def why(run: Any) -> str:
        row = runtime.worker().store.run(run.name)
        assert row is not None
        return standing(row)

    waits = perdure.submit(rests)
    assert "no worker is alive" in why(waits)
    with perdure.Worker([holds], concurrency=1):
        _soon(lambda: "no live worker serves task retries.rests" in why(waits))
        held = perdure.submit(holds)
        _soon(lambda: held.status == "RUNNING")
        assert "the 1 worker that serves it is full." in why(perdure.submit(holds))
        released.append(1)
    waits.abort()


def test_a_run_in_the_pause_of_a_trace_is_parked_shown_and_cancelled() -> None:
    with perdure.Worker([rests], park_after=0.1):
        run = perdure.submit(rests)
        _soon(lambda: runtime.worker().store.run(run.name).status == "SLEEPING")  # type: ignore[union-attr]
        row = runtime.worker().store.run(run.name)
        assert row is not None
        assert "pauses failed, and attempt 2 begins at" in standing(row)
        [action] = [one for one in runtime.worker().store.open_actions(row.id) if one.parent == 0]
        assert (action.name, action.attempt, action.failures) == ("pauses", 2, 1)
        assert action.wake_at is not None
        assert 3500 < (action.wake_at - wall()) / 1e6 < 3600
        assert run.cancel("enough")
        assert run.wait(timeout=60).status == "CANCELLED"
    assert tried == ["rests"]


def _soon(condition: Callable[[], object]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.02)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: RetryStrategy(-1), "count must be"),
        (lambda: RetryStrategy(1, 2.0), "backoff must be"),  # type: ignore[arg-type]
        (lambda: RetryStrategy(1, retry_on="ValueError"), "retry_on must be"),  # type: ignore[arg-type]
        (lambda: RetryStrategy(1, retry_on=()), "retry_on must be"),
        (lambda: RetryStrategy(1, retry_if=True), "retry_if must be"),  # type: ignore[arg-type]
        (lambda: perdure.Backoff(-1), "initial must be"),
        (lambda: perdure.Backoff(jitter=2), "jitter must be"),
        (lambda: perdure.Backoff(factor="2"), "factor must be"),  # type: ignore[arg-type]
        (lambda: perdure.trace(retries=-1)(lambda: None), "retries must be"),
        (lambda: perdure.trace(retries=2)(_generator), "is a generator"),
    ],
)
def test_settings_without_a_meaning_are_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(errors.UsageError, match=says):
        make()


def _generator() -> Any:
    yield 1


def test_a_plain_call_outside_of_a_run_is_not_retried() -> None:
    with pytest.raises(ValueError, match="plain 1"):
        small("plain", 1)


FAR = """
import os
import perdure

env = perdure.TaskEnvironment(name="far", executor="process")

class Busy(Exception):
    retry_after = 0.6

def tries(name):
    with open(name, "a") as file:
        file.write("x")
    return os.path.getsize(name)

@perdure.trace(retries=3)
def call():
    if tries("trace") < 3:
        raise Busy()
    return "called"

@env.task(retries=perdure.RetryStrategy(2, perdure.Backoff(initial=0), retry_on=Busy))
def main() -> str:
    found = call()
    if tries("task") == 1:
        raise Busy()
    return found
"""


def test_bodies_in_other_processes_are_retried_by_the_same_rules(shell: Shell) -> None:
    """A trace in a pool child pauses there; the failure of the child's body carries what its exception asks for."""
    shell.write("far.py", FAR)
    began = time.monotonic()
    ended = shell("run", "far.py", "main")
    assert ended.returncode == 0, ended.stderr
    assert "called" in ended.stdout
    # Two pauses of the trace and one of the task.
    assert time.monotonic() - began >= 1.8
    assert ((shell.path / "trace").read_text(), (shell.path / "task").read_text()) == ("xxx", "xx")

"""Values that runs publish, on SQLite and on Postgres: from bodies and from traces, read during the run and after."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.postgres_server import programs, server
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import errors, runtime
from perdure.api import streaming
from perdure.core.ground.values import INLINE_LIMIT
from perdure.upkeep.moving import move

env = perdure.TaskEnvironment(name="publishing")
apart = perdure.TaskEnvironment(name="apart", executor="process")
go_on = threading.Event()


@dataclass
class Step:
    name: str
    done: float


@pytest.fixture(autouse=True, params=["sqlite", "postgres"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[None]:
    if request.param == "postgres" and programs() is None:
        pytest.skip("no Postgres here")
    perdure.init(store=server().url() if request.param == "postgres" else tmp_path / "perdure.db")
    go_on.clear()
    yield
    perdure.init()


@perdure.trace
def works(name: str) -> None:
    perdure.publish(name, "works")
    go_on.wait(PATIENCE)


@perdure.trace
async def works_async(name: str, value: Any) -> None:
    await perdure.publish.aio(name, value)
    perdure.publish(f"{name} again", value)


@env.task
async def publishes() -> str:
    await perdure.publish.aio("progress", 0.25)
    await perdure.publish.aio("progress", 0.5)
    await perdure.publish.aio("step", Step("fetch", 0.5))
    await works_async("inner", [1, 2])
    await works.aio("phase")
    return "done"


@env.task
def publishes_in_a_sync_body() -> None:
    perdure.publish("progress", 1)
    perdure.publish("progress", 2, data_type=int)


turns = threading.Semaphore(0)


@perdure.trace
def turn() -> None:
    assert turns.acquire(timeout=PATIENCE)


@env.task
async def publishes_turn_by_turn() -> None:
    for number in range(3):
        await perdure.publish.aio("turn", number)
        await turn.aio()


@perdure.trace
def publishes_turns() -> None:
    for number in range(3):
        perdure.publish("turn", number)
        assert turns.acquire(timeout=PATIENCE)


@env.task
async def publishes_turn_by_turn_in_a_trace() -> None:
    await publishes_turns.aio()


@apart.task
async def publishes_in_another_process() -> None:
    await perdure.publish.aio("body", 1)
    await works_async("trace", 2)


@env.task
async def fails(remaining: list[int]) -> None:
    await perdure.publish.aio("progress", len(remaining))
    await works_async("inner", len(remaining))
    raise ValueError("no")


@env.task(retries=1)
async def publishes_what_changes(log: str) -> str:
    with Path(log).open("a+") as file:
        file.write("x")
        file.seek(0)
        lives = len(file.read())
    await perdure.publish.aio("life", lives)
    if lives == 1:
        raise ValueError("no")
    return "done"


def finished(task: Any, *args: Any, name: str = "r") -> Any:
    return perdure.with_runcontext(name=name).run(task, *args)


def test_values_are_read_while_the_run_goes_on_and_after_its_end() -> None:
    thread = threading.Thread(target=finished, args=(publishes,))
    thread.start()
    try:
        wait_for(lambda: "phase" in (perdure.Run.get("r").published() if runtime.worker().store.run("r") else {}))
        run = perdure.Run.get("r")
        assert run.published("progress") == 0.5
        assert run.status == "RUNNING"
    finally:
        go_on.set()
        thread.join()
    assert run.published("step", Step) == Step("fetch", 0.5)
    assert run.published("never") is None
    assert set(run.published()) == {"progress", "step", "inner", "inner again", "phase"}
    assert run.published("inner") == run.published("inner again") == [1, 2]


@pytest.mark.parametrize("task", [publishes_turn_by_turn, publishes_turn_by_turn_in_a_trace])
def test_a_reader_of_changes_is_woken_by_the_bell(monkeypatch: pytest.MonkeyPatch, task: Any) -> None:
    """The fallback look is put off for a minute, so that only the bell wakes the reader in time. The family: values of
    a body and of a trace; a body in another process publishes through the same commit."""
    monkeypatch.setattr(streaming, "HEARING_SECONDS", 4 * PATIENCE)
    thread = threading.Thread(target=finished, args=(task,))
    thread.start()
    run = wait_for(lambda: perdure.Run.get("r") if runtime.worker().store.run("r") else None)
    seen: list[Any] = []

    async def read() -> None:
        async for _ in streaming.changes(run.row):
            value = await asyncio.to_thread(run.published, "turn")
            if value not in (None, *seen):
                seen.append(value)
                turns.release()
            if len(seen) == 3:
                return

    asyncio.run(asyncio.wait_for(read(), PATIENCE))
    thread.join()
    assert seen == [0, 1, 2]


def test_a_sync_body_and_a_body_in_another_process_publish() -> None:
    assert finished(publishes_in_a_sync_body).published("progress", int) == 2
    run = finished(publishes_in_another_process, name="apart")
    assert run.published() == {"body": 1, "trace": 2, "trace again": 2}


def test_a_failed_run_keeps_its_values() -> None:
    with pytest.raises(ValueError, match="no"):
        finished(fails, [1, 2])
    assert perdure.Run.get("r").published() == {"progress": 2, "inner": 2, "inner again": 2}


def test_a_call_that_is_replayed_with_another_value_publishes_nothing(tmp_path: Path) -> None:
    """PB1. The name alone is the identity of the call, so values of another attempt may differ."""
    assert finished(publishes_what_changes, str(tmp_path / "log")).result == "done"
    assert perdure.Run.get("r").published("life") == 1


def test_a_misuse_is_refused_with_a_remedy() -> None:
    """Family: outside of a run, no name, a value that does not fit, a value over the limit, a reader's wrong type."""

    @env.task
    async def misuses() -> list[str]:
        texts = []
        for arguments, settings in (
            (("", 1), {}),
            (("n", "text"), {"data_type": int}),
            (("n", "x" * (INLINE_LIMIT + 1)), {}),
            (("n", object()), {}),
        ):
            try:
                await perdure.publish.aio(*arguments, **settings)
            except errors.UsageError as error:
                texts.append(type(error).__name__)
        await perdure.publish.aio("n", "text")
        return texts

    with pytest.raises(errors.UsageError, match="outside of a run"):
        perdure.publish("progress", 1)
    run = finished(misuses)
    assert run.result == ["UsageError", "ValueMismatchError", "ValueTooLargeError", "UnsupportedTypeError"]
    with pytest.raises(errors.ValueMismatchError, match="published another type of value as 'n'"):
        run.published("n", int)


def test_values_move_with_their_run_and_the_old_store_says_where(tmp_path: Path) -> None:
    finished(publishes_in_a_sync_body)
    target = f"sqlite:///{tmp_path / 'other.db'}"
    move(runtime.store_url(), str(tmp_path / "other.db"))
    with pytest.raises(errors.RunMovedError):
        perdure.Run.get("r").published()
    perdure.init(store=target)
    assert perdure.Run.get("r").published("progress") == 2

"""A cleanup that failed is tried again by `resume`, from the place where the code was cancelled (B12).

The family: a body that made durable calls, was cancelled, and then failed. Its next attempt is given the recorded
outcomes of these calls before it hears of the request. Otherwise the code would be cancelled at its first call, and
would never undo the later ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet, fleet_of, words
from tests.waiting import wait_for

import perdure
from perdure import Status

FLOW = """
import asyncio
import pathlib

import perdure
from perdure.errors import RunCancelledError
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="flow")
HERE = pathlib.Path(__file__).parent


@perdure.trace
def note(word: str) -> str:
    with (HERE / "log").open("a") as file:
        file.write(word + "\\n")
    return word


@perdure.trace
async def note_async(word: str) -> str:
    return note.__wrapped__(word)


@env.task
async def child(word: str) -> str:
    return await note_async(word)


async def undo(*words):
    if not (HERE / "fixed").exists():
        raise ValueError("the cleanup is broken")
    for word in words:
        await note_async("undo " + word)


@env.task
async def in_line() -> None:
    done = []
    try:
        done.append(await note_async("one"))
        done.append(await note_async("two"))
        done.append(await child("three"))
        await durable_sleep.aio(3600)
    except asyncio.CancelledError:
        await undo(*done)
        raise


@env.task
async def beside() -> None:
    done = []

    async def book(word):
        done.append(await note_async(word))
        await asyncio.sleep(0.05)
        done.append(await note_async("more " + word))

    try:
        await asyncio.gather(book("one"), book("two"))
        await durable_sleep.aio(3600)
    except asyncio.CancelledError:
        await undo(*sorted(done))
        raise


@env.task
async def behind_plain_waits() -> None:
    done = []
    try:
        done.append(await note_async("one"))
        await asyncio.sleep(0.2)
        done.append(await note_async("two"))
        await asyncio.to_thread(lambda: done.append(note("three")))
        await perdure.receive.aio("words", str)
    except asyncio.CancelledError:
        await undo(*done)
        raise


@env.task
async def in_a_child() -> None:
    await in_line()


@env.task
def sync() -> None:
    done = []
    try:
        done.append(note("one"))
        done.append(note("two"))
        durable_sleep(3600)
    except RunCancelledError:
        if not (HERE / "fixed").exists():
            raise ValueError("the cleanup is broken") from None
        for word in done:
            note("undo " + word)
        raise


@env.task
def sync_with_an_async_child() -> None:
    in_line()
"""

DONE = {
    "in_line": ["one", "two", "three"],
    "beside": ["more one", "more two", "one", "two"],
    "behind_plain_waits": ["one", "two", "three"],
    "in_a_child": ["one", "two", "three"],
    "sync": ["one", "two"],
    "sync_with_an_async_child": ["one", "two", "three"],
}


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", FLOW) as found:
        yield found


@pytest.mark.parametrize("task", DONE)
def test_resume_undoes_all_that_was_done_before_the_cancellation(fleet: Fleet, task: str) -> None:
    fleet.serve("--park-after", "3600s")
    fleet.submit(fleet.new(task, "r"))
    done = DONE[task]
    wait_for(lambda: sorted(words(fleet)) == sorted(done), story=fleet.story)
    run = perdure.Run.get("r")
    wait_for(lambda: run.status in (Status.SLEEPING, Status.WAITING), story=fleet.story)
    run.cancel("wrong input")
    assert run.wait(60).status == Status.FAILED
    (fleet.directory / "fixed").touch()
    again = fleet.perdure("resume", "r")
    assert run.status == Status.CANCELLED, again.stderr
    assert sorted(words(fleet)) == sorted([*done, *("undo " + word for word in done)])

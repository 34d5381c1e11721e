"""Cancelling runs in every state, from this process, another process and the command line; the end of the grace."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash.fleet import Fleet, fleet_of, words
from tests.waiting import wait_for, wait_for_file

import perdure
from perdure import Status, errors

FLOW = """
import asyncio
import os
import pathlib
import time

import perdure
from perdure.errors import RunCancelledError
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="flow")
inner = perdure.TaskEnvironment(name="inner", executor="process")
HERE = pathlib.Path(__file__).parent


def log(word):
    with (HERE / "log").open("a") as file:
        file.write(word + "\\n")


@perdure.trace
def note(word: str) -> str:
    log(word)
    return word


@perdure.trace
async def note_async(word: str) -> str:
    log(word)
    return word


@env.task
async def waits(seconds: float) -> str:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    finally:
        await note_async("cleaned")
    return "ended"


@env.task
def waits_sync(seconds: float) -> str:
    note("begun")
    try:
        durable_sleep(seconds)
    finally:
        note("cleaned")
    return "ended"


@env.task
async def receives(seconds: float) -> str:
    await note_async("begun")
    try:
        return await perdure.receive.aio("words", str)
    finally:
        await note_async("cleaned")


@env.task
def receives_sync(seconds: float) -> str:
    note("begun")
    try:
        return perdure.receive("words", str)
    finally:
        note("cleaned")


@env.task
async def cleans_for_ever(seconds: float) -> None:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    finally:
        await note_async("cleaning")
        await durable_sleep.aio(3600)


@env.task
def computes(seconds: float) -> None:
    note("begun")
    time.sleep(seconds)
    log("computed")
    note("never")


@env.task(retries=perdure.RetryStrategy(5, perdure.Backoff(initial=3600)))
async def fails_and_pauses(seconds: float) -> None:
    await note_async("begun")
    raise ValueError("again in an hour")


@env.task
async def fails_while_cleaning(seconds: float) -> None:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    except asyncio.CancelledError:
        raise ValueError("no cleanup")


@env.task
async def sync_child_of_async(seconds: float) -> None:
    try:
        await waits_sync.aio(seconds)
    finally:
        await note_async("parent cleaned")


@inner.task
def elsewhere(seconds: float) -> None:
    note("begun")
    durable_sleep(seconds)


@inner.task
def cleans_elsewhere(seconds: float) -> None:
    note("begun")
    try:
        durable_sleep(seconds)
    finally:
        note("cleaning")
        durable_sleep(0.01)
        note("cleaned")


@inner.task
async def cleans_elsewhere_async(seconds: float) -> None:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    finally:
        await note_async("cleaning")
        await durable_sleep.aio(0.01)
        await note_async("cleaned")


@inner.task
def receives_elsewhere(seconds: float) -> None:
    note("begun")
    try:
        perdure.receive("words", str)
    finally:
        note("cleaned")


@inner.task
async def receives_elsewhere_async(seconds: float) -> None:
    await note_async("begun")
    try:
        await perdure.receive.aio("words", str)
    finally:
        await note_async("cleaned")


@inner.task
def calls_from_elsewhere(seconds: float) -> None:
    try:
        elsewhere(seconds)
    finally:
        note("cleaned")


@inner.task
async def calls_from_elsewhere_async(seconds: float) -> None:
    try:
        await elsewhere.aio(seconds)
    finally:
        await note_async("cleaned")


@env.task
def sync_parent_of_elsewhere(seconds: float) -> None:
    try:
        cleans_elsewhere(seconds)
    finally:
        note("parent cleaned")


@inner.task(retries=2)
def killed_elsewhere(seconds: float) -> None:
    note("begun")
    try:
        durable_sleep(seconds)
    finally:
        note("cleaning")
        log(f"pid {os.getpid()}")
        while not (HERE / "go").exists():
            durable_sleep(0.02)
        note("cleaned")


@inner.task(retries=2)
async def killed_elsewhere_async(seconds: float) -> None:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    finally:
        await note_async("cleaning")
        log(f"pid {os.getpid()}")
        while not (HERE / "go").exists():
            await durable_sleep.aio(0.02)
        await note_async("cleaned")


@env.task
async def child_elsewhere(seconds: float) -> None:
    try:
        await elsewhere.aio(seconds)
    finally:
        await note_async("parent cleaned")
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", FLOW) as found:
        yield found


def begun(fleet: Fleet, task: str, seconds: float = 3600.0) -> perdure.Run:
    fleet.submit(fleet.new(task, "r", seconds=seconds))
    wait_for(lambda: "begun" in words(fleet), story=fleet.story)
    return perdure.Run.get("r")


def ended(run: perdure.Run, status: Status = Status.CANCELLED) -> None:
    assert run.wait(60).status == status
    if status == Status.CANCELLED:
        with pytest.raises(errors.RunCancelledError, match="wrong input"):
            run.result  # noqa: B018


@pytest.mark.parametrize("task", ["waits", "waits_sync"])
@pytest.mark.parametrize("park", ["3600s", "0s"])
def test_a_run_of_another_process_cleans_up_running_or_parked(fleet: Fleet, task: str, park: str) -> None:
    fleet.serve("--park-after", park)
    run = begun(fleet, task)
    if park == "0s":
        fleet.wait("r", status=Status.SLEEPING)
    else:
        wait_for(lambda: run.status == Status.SLEEPING)
    assert run.cancel("wrong input") is True
    assert run.cancel("another reason") is False
    ended(run)
    assert words(fleet) == ["begun", "cleaned"]
    assert run.cancel() is False
    assert [one.name for one in perdure.runs(status="CANCELLED")] == ["r"]


@pytest.mark.parametrize("task", ["receives", "receives_sync"])
@pytest.mark.parametrize("park", ["3600s", "0s"])
def test_a_run_that_waits_for_a_message_cleans_up(fleet: Fleet, task: str, park: str) -> None:
    """B12."""
    fleet.serve("--park-after", park)
    run = begun(fleet, task)
    wait_for(lambda: run.status == Status.WAITING)
    assert run.cancel("wrong input") is True
    ended(run)
    assert words(fleet) == ["begun", "cleaned"]


def test_a_run_of_this_process_is_told_at_once(fleet: Fleet) -> None:
    with perdure.Worker([fleet.file]):
        run = begun(fleet, "waits_sync")
        wait_for(lambda: run.status == Status.SLEEPING)
        before = time.monotonic()
        run.cancel("wrong input")
        ended(run)
        assert time.monotonic() - before < 20
    assert words(fleet) == ["begun", "cleaned"]


def test_a_queued_run_is_cancelled_without_a_worker(fleet: Fleet) -> None:
    fleet.submit(fleet.new("waits", "r", seconds=1.0))
    run = perdure.Run.get("r")
    assert run.cancel("wrong input") is True
    assert run.status == Status.CANCELLED
    assert run.ended_at is not None
    ended(run)
    assert words(fleet) == []


def test_an_interrupted_run_cleans_up_as_soon_as_a_worker_has_it(fleet: Fleet) -> None:
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, "waits_sync")
    wait_for(lambda: run.status == Status.SLEEPING)
    worker.kill()
    wait_for(lambda: run.status == Status.INTERRUPTED)
    assert run.cancel("wrong input")
    assert run.status == Status.INTERRUPTED
    fleet.serve()
    ended(run)
    assert words(fleet) == ["begun", "cleaned"]


def test_the_pause_before_a_retry_ends_and_nothing_is_retried(fleet: Fleet) -> None:
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, "fails_and_pauses")
    wait_for(lambda: run.status == Status.SLEEPING)
    run.cancel("wrong input")
    ended(run)


def test_the_end_of_the_grace_ends_a_cleanup_and_a_computation(fleet: Fleet) -> None:
    """Family: code that does not end by itself, in async and in sync code, that hears of the request or does not."""
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, "cleans_for_ever")
    run.cancel("wrong input", grace=1.5)
    wait_for(lambda: "cleaning" in words(fleet))
    ended(run)
    fleet.submit(fleet.new("computes", "c", seconds=8.0))
    wait_for(lambda: words(fleet).count("begun") == 2)
    computes = perdure.Run.get("c")
    computes.cancel("wrong input", grace=0.5)
    ended(computes)
    wait_for(lambda: "computed" in words(fleet))
    assert "never" not in words(fleet)


def test_a_parked_cleanup_is_ended_too(fleet: Fleet) -> None:
    fleet.serve("--park-after", "0s")
    run = begun(fleet, "cleans_for_ever")
    fleet.wait("r", status=Status.SLEEPING)
    run.cancel("wrong input")
    wait_for(lambda: "cleaning" in words(fleet) and run.row.status == Status.SLEEPING)
    assert run.cancel("ignored", grace=0) is False
    ended(run)


def test_without_grace_a_run_ends_at_once(fleet: Fleet) -> None:
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, "cleans_for_ever")
    worker.kill()
    run.cancel("wrong input", grace=0)
    assert run.row.status == Status.CANCELLED
    ended(run)


def test_a_cleanup_that_fails_makes_a_failed_run(fleet: Fleet) -> None:
    fleet.serve()
    run = begun(fleet, "fails_while_cleaning")
    run.cancel("wrong input")
    ended(run, Status.FAILED)
    with pytest.raises(ValueError, match="no cleanup"):
        run.result  # noqa: B018


@pytest.mark.parametrize("task", ["sync_child_of_async", "child_elsewhere"])
def test_a_child_in_a_thread_or_process_ends_before_the_cleanup_of_its_async_caller(fleet: Fleet, task: str) -> None:
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, task)
    wait_for(lambda: run.status == Status.SLEEPING)
    run.cancel("wrong input")
    ended(run)
    assert words(fleet)[-1] == "parent cleaned"


@pytest.mark.parametrize(
    ("task", "last"),
    [
        ("elsewhere", ["begun"]),
        ("cleans_elsewhere", ["begun", "cleaning", "cleaned"]),
        ("cleans_elsewhere_async", ["begun", "cleaning", "cleaned"]),
        ("receives_elsewhere", ["begun", "cleaned"]),
        ("receives_elsewhere_async", ["begun", "cleaned"]),
        ("calls_from_elsewhere", ["begun", "cleaned"]),
        ("calls_from_elsewhere_async", ["begun", "cleaned"]),
        ("sync_parent_of_elsewhere", ["begun", "cleaning", "cleaned", "parent cleaned"]),
    ],
)
def test_a_body_in_another_process_cleans_up(fleet: Fleet, task: str, last: list[str]) -> None:
    """E7. The family: a sync and an async body that sleeps, receives, or calls into yet another process; the root of
    the run, and the child of a body in a thread. (The child of an async body ends with its caller's call.)"""
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, task)
    wait_for(lambda: run.status in (Status.SLEEPING, Status.WAITING))
    run.cancel("wrong input")
    ended(run)
    assert words(fleet) == last


@pytest.mark.parametrize("task", ["killed_elsewhere", "killed_elsewhere_async"])
@pytest.mark.parametrize("victim", ["worker", "child"])
def test_a_cleanup_in_another_process_goes_on_after_a_kill(fleet: Fleet, task: str, victim: str) -> None:
    """E7, P1: what the cleanup has recorded is replayed, in the next worker and in the next attempt."""
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, task)
    wait_for(lambda: run.status == Status.SLEEPING)
    run.cancel("wrong input")
    [pid] = wait_for(lambda: [int(word.split()[1]) for word in words(fleet) if word.startswith("pid ")])
    if victim == "child":
        os.kill(pid, signal.SIGKILL)
    else:
        worker.kill()
        fleet.serve("--park-after", "3600s")
    wait_for(lambda: len([word for word in words(fleet) if word.startswith("pid ")]) == 2, story=fleet.story)
    fleet.file.with_name("go").touch()
    ended(run)
    assert [word for word in words(fleet) if not word.startswith("pid ")] == ["begun", "cleaning", "cleaned"]


def test_the_caller_of_a_cancelled_run_gets_the_error(fleet: Fleet) -> None:
    from perdure.api.loading import load_file

    module: Any = load_file(str(fleet.file))
    told: list[Any] = []

    def call() -> None:
        try:
            perdure.with_runcontext(name="r").run(module.waits, 3600.0)
        except errors.RunCancelledError as error:
            told.append(error)

    async def call_async() -> None:
        with pytest.raises(errors.RunCancelledError, match="no reason") as error:
            await perdure.with_runcontext(name="s").run.aio(module.waits, 3600.0)
        assert error.value.run.name == "s"  # type: ignore[attr-defined]

    thread = threading.Thread(target=call)
    thread.start()
    wait_for_file(fleet.directory / "log")
    perdure.Run.get("r").cancel("wrong input")
    thread.join(60)
    assert [str(error) for error in told] == ["run 'r' was cancelled: wrong input"]
    assert told[0].run.name == "r"

    async def both() -> None:
        call = asyncio.create_task(call_async())
        while [one.name for one in perdure.runs(name="s")] != ["s"]:
            await asyncio.sleep(0.01)
        await perdure.Run.get("s").cancel.aio("no reason")
        await call

    asyncio.run(both())
    with pytest.raises(errors.RunCancelledError, match="wrong input"):
        perdure.with_runcontext(name="r").run(module.waits, 3600.0)
    with pytest.raises(errors.RunCancelledError, match="wrong input"):
        perdure.Run.get("r").resume()


def test_a_run_that_has_ended_and_an_unknown_run_are_refused(fleet: Fleet) -> None:
    fleet.serve()
    run = begun(fleet, "waits", 0.0)
    run.wait(60)
    with pytest.raises(errors.UsageError, match="it is SUCCEEDED; there is nothing to cancel"):
        run.cancel()
    aborted = fleet.submit(fleet.new("waits", "a", seconds=1.0), after=60)[0]
    perdure.Run.get(aborted.name).abort()
    with pytest.raises(errors.UsageError, match="it is ABORTED"):
        perdure.Run.get("a").cancel()
    assert "no run is called" in fleet.perdure("cancel", "absent").stderr
    for wrong in (-1, "soon", True):
        with pytest.raises(errors.UsageError, match="grace must be"):
            run.cancel(grace=wrong)  # type: ignore[arg-type]
    with pytest.raises(errors.UsageError, match="reason must be"):
        run.cancel(3)  # type: ignore[arg-type]


def test_the_command_line_cancels_and_says_what_came_of_it(fleet: Fleet) -> None:
    fleet.submit(fleet.new("waits", "q", seconds=1.0), after=60)
    done = fleet.perdure("cancel", "q", "--reason", "wrong input", "--json")
    assert '"status": "CANCELLED"' in done.stdout
    assert "run q is cancelled" in done.stderr
    assert "asked to cancel before" in fleet.perdure("cancel", "q").stderr
    waited = fleet.perdure("wait", "q")
    assert waited.returncode == 1
    assert "run 'q' was cancelled: wrong input" in waited.stderr
    assert "CANCELLED" in fleet.perdure("show", "q").stdout
    fleet.serve("--park-after", "3600s")
    begun(fleet, "waits")
    assert "run r is asked to cancel" in fleet.perdure("cancel", "r", "--grace", "30s").stderr
    fleet.wait("r", status=Status.CANCELLED)
    assert "q" in fleet.perdure("gc", "--older-than", "0s", "--status", "CANCELLED", "--dry-run").stdout

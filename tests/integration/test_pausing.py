"""PS1, PS2: pausing runs in every state, from this process, another process and the command line, and their resume."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet, fleet_of, words
from tests.waiting import wait_for

import perdure
from perdure import Status, errors

FLOW = """
import asyncio
import pathlib
import time

import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="flow")
inner = perdure.TaskEnvironment(name="inner", executor="process")
HERE = pathlib.Path(__file__).parent


def log(word):
    with (HERE / "log").open("a") as file:
        file.write(word + "\\n")


def held(word):
    log(word + " begun")
    while not (HERE / "go").exists():
        time.sleep(0.01)
    log(word)
    return word


@perdure.trace
def note(word: str) -> str:
    log(word)
    return word


@perdure.trace
async def note_async(word: str) -> str:
    log(word)
    return word


@perdure.trace
def work(word: str) -> str:
    return held(word)


@perdure.trace
async def work_async(word: str) -> str:
    return await asyncio.to_thread(held, word)


@env.task
def sync_steps(seconds: float = 0.0) -> list[str]:
    return [work("first"), note("second")]


@env.task
async def async_steps(seconds: float = 0.0) -> list[str]:
    return [await work_async("first"), await note_async("second")]


@env.task
async def in_a_child(seconds: float = 0.0) -> list[str]:
    return await async_steps()


@env.task
def in_a_sync_child(seconds: float = 0.0) -> list[str]:
    return sync_steps()


@inner.task
async def elsewhere(seconds: float = 0.0) -> list[str]:
    return [await work_async("first"), await note_async("second")]


@inner.task
def elsewhere_sync(seconds: float = 0.0) -> list[str]:
    return [work("first"), note("second")]


@env.task
async def in_a_process(seconds: float = 0.0) -> list[str]:
    return await elsewhere()


@env.task
async def plain_await(seconds: float = 0.0) -> list[str]:
    found = [await work_async("first")]
    await asyncio.sleep(0.01)
    return [*found, await note_async("second")]


@env.task
async def sleeps(seconds: float) -> str:
    await note_async("begun")
    await durable_sleep.aio(seconds)
    return await note_async("slept")


@env.task
def sleeps_sync(seconds: float) -> str:
    note("begun")
    durable_sleep(seconds)
    return note("slept")


@inner.task
def sleeps_elsewhere(seconds: float) -> str:
    note("begun")
    durable_sleep(seconds)
    return note("slept")


@env.task
async def receives(seconds: float) -> str:
    await note_async("begun")
    return await perdure.receive.aio("words", str)


@env.task
async def cleans_up(seconds: float) -> None:
    await note_async("begun")
    try:
        await durable_sleep.aio(seconds)
    finally:
        await note_async("cleaned")


@env.task
async def pauses_a_run(seconds: float) -> None:
    perdure.Run.get("r").pause()
"""

STEPS = [
    "sync_steps", "async_steps", "in_a_child", "in_a_sync_child", "elsewhere", "elsewhere_sync", "in_a_process",
    "plain_await",
]  # fmt: skip


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", FLOW) as found:
        yield found


def heard(fleet: Fleet, run: perdure.Run) -> None:
    """Pause the run, and wait until its worker knows of that: the worker looks at the rows of its runs in the order of
    their claims, about once a second, and has claimed the canary first."""
    assert run.pause() is True
    assert run.pause() is False
    canary = perdure.Run.get("canary")
    canary.pause()
    wait_for(lambda: canary.status == Status.PAUSED, story=fleet.story)


def canary(fleet: Fleet) -> None:
    fleet.submit(fleet.new("receives", "canary", seconds=0.0))
    wait_for(lambda: perdure.Run.get("canary").status == Status.WAITING, story=fleet.story)
    (fleet.directory / "log").unlink()


def begun(fleet: Fleet, task: str, word: str = "begun", seconds: float = 3600.0) -> perdure.Run:
    fleet.submit(fleet.new(task, "r", seconds=seconds))
    wait_for(lambda: word in words(fleet), story=fleet.story)
    return perdure.Run.get("r")


def stands_still(run: perdure.Run, fleet: Fleet) -> None:
    wait_for(lambda: run.status == Status.PAUSED, story=fleet.story)
    assert run.row.token is None


@pytest.mark.parametrize("task", STEPS)
def test_what_executes_is_recorded_and_nothing_new_starts(fleet: Fleet, task: str) -> None:
    """PS1. Family: sync and async bodies, children, bodies in pool processes, a plain await behind the step."""
    fleet.serve("--park-after", "3600s")
    canary(fleet)
    run = begun(fleet, task, "first begun")
    heard(fleet, run)
    assert run.status == Status.RUNNING
    (fleet.directory / "go").touch()
    stands_still(run, fleet)
    assert words(fleet) == ["first begun", "first"]
    assert "work" in {
        node.name.removesuffix("_async") for node in run.tree().nodes.values() if node.status == "SUCCEEDED"
    }
    assert run.resume(drive=False) is run
    assert run.wait(100).result == ["first", "second"]
    assert words(fleet) == ["first begun", "first", "second"]


@pytest.mark.parametrize("task", ["sleeps", "sleeps_sync", "sleeps_elsewhere"])
@pytest.mark.parametrize("park", ["3600s", "0s"])
def test_a_sleep_that_ends_in_the_pause_ends_at_the_resume(fleet: Fleet, task: str, park: str) -> None:
    """PS2, P7. Family: asleep in memory and parked, in async and sync code and in a pool process."""
    fleet.serve("--park-after", park)
    run = begun(fleet, task, seconds=2.5)
    run.pause()
    stands_still(run, fleet)
    fleet.submit(fleet.new("sleeps", "beside", seconds=4.0))
    fleet.wait("beside")
    assert run.status == Status.PAUSED
    assert words(fleet) == ["begun", "begun", "slept"]
    run.resume(drive=False)
    assert run.wait(100).result == "slept"
    assert words(fleet).count("begun") == 2


def test_a_paused_run_keeps_its_messages(fleet: Fleet) -> None:
    """PS2, P12. Family: sent to a run that waits, and to a run that has not begun; `wake` is refused."""
    fleet.serve("--park-after", "0s")
    run = begun(fleet, "receives")
    run.pause()
    stands_still(run, fleet)
    fleet.submit(fleet.new("receives", "q", seconds=0.0), after=0.1)
    queued = perdure.Run.get("q")
    queued.pause()
    for paused in (run, queued):
        paused.send("words", f"hello {paused.name}")
        with pytest.raises(errors.UsageError, match=f"run '{paused.name}' is paused; to continue it: perdure resume"):
            paused.wake()
    fleet.submit(fleet.new("sleeps", "beside", seconds=0.5))
    fleet.wait("beside")
    assert [one.status for one in (run, queued)] == [Status.PAUSED] * 2
    for paused in (run, queued):
        paused.resume(drive=False)
        assert paused.wait(100).result == f"hello {paused.name}"


def test_a_paused_run_outlives_its_worker_and_no_other_takes_it_up(fleet: Fleet) -> None:
    """PS2. Family: the worker is killed while the step executes, and when the run stands still."""
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, "sync_steps", "first begun")
    run.pause()
    worker.kill()
    wait_for(lambda: run.status == Status.PAUSED)
    fleet.serve()
    wait_for(lambda: run.row.token is None, story=fleet.story)
    (fleet.directory / "go").touch()
    fleet.submit(fleet.new("sleeps", "beside", seconds=0.5))
    fleet.wait("beside")
    assert "first" not in words(fleet)
    assert [one.name for one in perdure.runs(status="PAUSED")] == ["r"]
    assert perdure.runs(status=["INTERRUPTED", "RUNNING"])[:] == []
    assert fleet.perdure("resume", "--all").stdout == ""
    run.resume(drive=False)
    assert run.wait(100).result == ["first", "second"]


def test_an_interrupted_run_is_paused_and_driven_here_by_resume(fleet: Fleet) -> None:
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, "sync_steps", "first begun")
    worker.kill()
    wait_for(lambda: run.status == Status.INTERRUPTED)
    run.pause()
    assert run.status == Status.PAUSED
    (fleet.directory / "go").touch()
    assert run.resume().result == ["first", "second"]
    assert run.row.paused is None


def test_a_caller_that_drives_a_run_hears_that_it_is_paused(fleet: Fleet) -> None:
    """PS1. Family: sync and async callers, a request for the paused run by its name, the command line."""
    from perdure.api.loading import find_task

    heard: list[BaseException] = []

    def drive(name: str, *, is_async: bool) -> None:
        try:
            context = perdure.with_runcontext(name=name)
            task = find_task(str(fleet.file), "async_steps")
            if is_async:
                asyncio.run(context.run.aio(task))
            else:
                context.run(task)
        except errors.PerdureError as error:
            heard.append(error)

    threads = [threading.Thread(target=drive, args=(name,), kwargs={"is_async": name == "a"}) for name in "as"]
    for thread in threads:
        thread.start()
    wait_for(lambda: words(fleet).count("first begun") == 2)
    runs = [perdure.Run.get(name) for name in "as"]
    for run in runs:
        run.pause()
    (fleet.directory / "go").touch()
    for thread in threads:
        thread.join()
    assert sorted(str(error) for error in heard) == [
        f"run '{name}' is paused; to continue it: perdure resume {name}" for name in "as"
    ]
    assert {type(error) for error in heard} == {errors.RunPausedError}
    assert sorted(error.run.name for error in heard) == ["a", "s"]  # type: ignore[attr-defined]
    drive("s", is_async=False)
    assert isinstance(heard.pop(), errors.RunPausedError)
    shown = fleet.perdure("run", fleet.file, "async_steps", "--name", "s")
    assert shown.returncode == 1
    assert "Error: run 's' is paused" in shown.stderr
    assert [run.status for run in runs] == [Status.PAUSED] * 2
    assert runs[0].resume().result == ["first", "second"]
    assert asyncio.run(runs[1].resume.aio()).result == ["first", "second"]
    assert words(fleet).count("first") == 2


@pytest.mark.parametrize("task", ["sync_steps", "async_steps", "elsewhere"])
def test_a_run_that_is_resumed_before_it_stands_still_goes_on_with_its_driver(fleet: Fleet, task: str) -> None:
    """PS1. The driver looks at the row once more before it gives the run back."""
    worker = fleet.serve("--park-after", "3600s")
    run = begun(fleet, task, "first begun")
    run.pause()
    run.resume(drive=False)
    (fleet.directory / "go").touch()
    assert run.wait(100).result == ["first", "second"]
    assert run.row.crashes == 0
    assert worker.process.poll() is None


def test_a_run_that_does_not_stand_still_yet_is_not_driven_twice(fleet: Fleet) -> None:
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, "async_steps", "first begun")
    run.pause()
    with pytest.raises(errors.RunAlreadyActive):
        run.resume()
    assert run.row.paused is None
    (fleet.directory / "go").touch()
    assert run.wait(100).result == ["first", "second"]


@pytest.mark.parametrize("end", ["cancel", "abort"])
def test_a_paused_run_is_cancelled_with_its_cleanup_or_aborted(fleet: Fleet, end: str) -> None:
    """B12. Family: stands still, and is about to."""
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, "cleans_up")
    run.pause()
    stands_still(run, fleet)
    fleet.submit(fleet.new("cleans_up", "s", seconds=3600.0))
    wait_for(lambda: words(fleet).count("begun") == 2)
    soon = perdure.Run.get("s")
    soon.pause()
    for one in (run, soon):
        assert one.cancel() if end == "cancel" else one.abort()
        assert one.wait(100).status == ("CANCELLED" if end == "cancel" else "ABORTED")
        assert one.row.paused is None
    assert words(fleet).count("cleaned") == (2 if end == "cancel" else 0)


def test_a_pause_is_refused_where_it_means_nothing(fleet: Fleet) -> None:
    """Family: unknown, ended, being cancelled, in a body, resumed without a pause."""
    fleet.serve("--park-after", "3600s")
    run = begun(fleet, "cleans_up")
    wait_for(lambda: run.status == Status.SLEEPING)
    with pytest.raises(
        errors.UsageError, match="run 'r' is not paused, it is SLEEPING; to drive it here: perdure resume r"
    ):
        run.resume(drive=False)
    fleet.submit(fleet.new("pauses_a_run", "p", seconds=0.0))
    with pytest.raises(errors.NestedRunError, match=r"Run\.pause was called in the body"):
        perdure.Run.get("p").wait(100).result  # noqa: B018
    fleet.submit(fleet.new("sleeps", "done", seconds=0.0))
    fleet.wait("done")
    with pytest.raises(
        errors.UsageError, match="run 'done' has ended already, it is SUCCEEDED; there is nothing to pause"
    ):
        perdure.Run.get("done").pause()
    with pytest.raises(errors.UsageError, match="run 'done' is not paused, it is SUCCEEDED"):
        perdure.Run.get("done").resume(drive=False)
    with pytest.raises(errors.RunNotFoundError):
        perdure.Run.get("unknown").pause()
    fleet.store.cancel(run.row.id, "why", None, 1)
    with pytest.raises(errors.UsageError, match="run 'r' is being cancelled, and its cleanup cannot be paused"):
        run.pause()


def test_the_end_of_a_run_beside_a_pause_is_one_of_both(fleet: Fleet) -> None:
    """PS1, D4. A run that ends while it is paused has ended, and the pause is gone."""
    (fleet.directory / "go").touch()
    fleet.serve("--park-after", "3600s")
    names = [f"r{number}" for number in range(20)]
    fleet.submit(*(fleet.new("async_steps", name) for name in names))
    refused = {}
    for name in names:
        try:
            perdure.Run.get(name).pause()
        except errors.UsageError as error:
            refused[name] = str(error)
    assert all("has ended already" in text for text in refused.values())
    for name in names:
        run = perdure.Run.get(name)
        wait_for(lambda run=run: run.status in ("PAUSED", "SUCCEEDED"), story=fleet.story)  # type: ignore[misc]
        if run.status == "PAUSED":
            assert name not in refused
            run.resume(drive=False)
        assert run.wait(100).result == ["first", "second"]
        assert run.row.paused is None
    assert words(fleet).count("second") == len(names)


def test_the_command_line_pauses_shows_and_resumes(fleet: Fleet) -> None:
    fleet.submit(fleet.new("sleeps", "q", seconds=0.0))
    done = fleet.perdure("pause", "q", "--json")
    assert '"status": "PAUSED"' in done.stdout
    assert "run q is paused" in done.stderr
    assert "was paused before" in fleet.perdure("pause", "q").stderr
    assert "PAUSED" in fleet.perdure("show", "q").stdout
    assert "PAUSED" in fleet.perdure("ls", "--status", "PAUSED").stdout
    assert fleet.perdure("ls", "--status", "QUEUED", "--json").stdout.strip() == "[]"
    refused = fleet.perdure("wake", "q")
    assert refused.returncode == 2
    assert "run 'q' is paused" in refused.stderr
    assert "--no-drive is about paused runs" in fleet.perdure("resume", "--all", "--no-drive").stderr
    freed = fleet.perdure("resume", "q", "--no-drive")
    assert freed.returncode == 0
    assert "run q is no longer paused, it is QUEUED" in freed.stderr
    fleet.perdure("pause", "q")
    driven = fleet.perdure("resume", "q")
    assert (driven.returncode, driven.stdout) == (0, "slept\n")
    worker = fleet.serve("-v")
    canary(fleet)
    run = begun(fleet, "sync_steps", "first begun")
    assert "run r is about to stand still, it is RUNNING" in fleet.perdure("pause", "r").stderr
    perdure.Run.get("canary").pause()
    worker.says("run canary (flow.receives) is paused")
    (fleet.directory / "go").touch()
    stands_still(run, fleet)
    worker.says("run r (flow.sync_steps) is paused")

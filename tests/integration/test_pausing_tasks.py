"""PS3: pausing a task on all runs, from this process and the command line, with workers and direct runs, and the
resume."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.crash.fleet import Fleet, fleet_of, words
from tests.integration.test_pausing import FLOW, STEPS, begun, canary, stands_still
from tests.waiting import kill, wait_for

import perdure
from perdure import Status, errors
from perdure.api.loading import find_task


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", FLOW) as found:
        yield found


def task_of(fleet: Fleet, name: str) -> perdure.Task[..., Any]:
    return find_task(str(fleet.file), name)


def beside(fleet: Fleet, name: str = "beside") -> None:
    """A run of another task that begins and ends: the worker has looked at the store since."""
    fleet.submit(fleet.new("cleans_up", name, seconds=0.0))
    fleet.wait(name)


@pytest.mark.parametrize("task", STEPS)
def test_what_executes_is_recorded_and_nothing_new_starts(fleet: Fleet, task: str) -> None:
    """PS1, PS3. Family: sync and async bodies, children, bodies in pool processes, a plain await behind the step."""
    fleet.serve("--park-after", "3600s")
    canary(fleet)
    run = begun(fleet, task, "first begun")
    assert perdure.pause_task(run.task) is True
    assert perdure.pause_task(run.task) is False
    assert perdure.pause_task("flow.receives") is True
    wait_for(lambda: perdure.Run.get("canary").status == Status.PAUSED, story=fleet.story)
    assert run.status == Status.RUNNING
    (fleet.directory / "go").touch()
    stands_still(run, fleet)
    assert words(fleet) == ["first begun", "first"]
    assert list(perdure.paused_tasks()) == sorted([run.task, "flow.receives"])
    assert perdure.resume_task(run.task) is True
    assert perdure.resume_task(run.task) is False
    assert run.wait(100).result == ["first", "second"]
    assert words(fleet) == ["first begun", "first", "second"]
    assert perdure.Run.get("canary").status == Status.PAUSED


@pytest.mark.parametrize("park", ["3600s", "0s"])
def test_runs_of_every_state_stand_still_and_all_go_on(fleet: Fleet, park: str) -> None:
    """PS3, P7. Family: asleep in memory and parked, submitted before and in the pause, due later; another task goes
    on."""
    fleet.serve("--park-after", park)
    run = begun(fleet, "sleeps", seconds=2.5)
    fleet.submit(fleet.new("sleeps", "later", seconds=0.0), after=2.5)
    task = task_of(fleet, "sleeps")
    assert asyncio.run(perdure.pause_task.aio(task)) is True
    stands_still(run, fleet)
    fleet.submit(fleet.new("sleeps", "since", seconds=0.0))
    assert perdure.Run.get("since").status == Status.QUEUED
    fleet.submit(fleet.new("cleans_up", "beside", seconds=4.0))
    fleet.wait("beside")
    assert [perdure.Run.get(name).status for name in ("r", "later", "since")] == ["PAUSED", "QUEUED", "QUEUED"]
    assert words(fleet) == ["begun", "begun", "cleaned"]
    assert asyncio.run(perdure.paused_tasks.aio()).keys() == {"flow.sleeps"}
    assert asyncio.run(perdure.resume_task.aio(task)) is True
    fleet.wait("r", "later", "since")


def test_the_pause_outlives_every_process(fleet: Fleet) -> None:
    """PS3. Family: the worker is killed before it has heard of the pause, and when the run stands still; a worker that
    begins in the pause lets go of the claim, and takes nothing up."""
    first = fleet.serve("--park-after", "3600s")
    run = begun(fleet, "sync_steps", "first begun")
    perdure.pause_task("flow.sync_steps")
    kill(first.process)
    fleet.submit(fleet.new("sync_steps", "q"))
    second = fleet.serve()
    beside(fleet)
    # The run is PAUSED from the death of its driver on, and the worker lets go of the claim at its next look.
    wait_for(lambda: run.row.token is None, story=fleet.story)
    stands_still(run, fleet)
    kill(second.process)
    fleet.serve()
    beside(fleet, "again")
    assert [perdure.Run.get(name).status for name in ("r", "q")] == ["PAUSED", "QUEUED"]
    (fleet.directory / "go").touch()
    assert words(fleet).count("first begun") == 1
    perdure.resume_task("flow.sync_steps")
    assert run.wait(100).result == ["first", "second"]
    fleet.wait("q")


@pytest.mark.parametrize("how", ["sync", "async", "unnamed", "again"])
def test_a_direct_run_is_stored_and_does_not_execute(fleet: Fleet, how: str) -> None:
    """PS3. Family: `run` and `run.aio`, with and without a name, a new and a stored run."""
    task = task_of(fleet, "sleeps")
    perdure.pause_task(task)
    again = perdure.with_runcontext(name="d")
    if how == "again":
        again.submit(task, seconds=0.0)
    ask = {
        "async": lambda: asyncio.run(again.run.aio(task, seconds=0.0)),
        "unnamed": lambda: perdure.run(task, seconds=0.0),
    }
    with pytest.raises(errors.RunPausedError) as raised:
        ask.get(how, lambda: again.run(task, seconds=0.0))()
    run = raised.value.run  # type: ignore[attr-defined]
    assert str(raised.value) == (
        f"run {run.name!r} stands still, because its task flow.sleeps is paused; to continue: perdure resume --task "
        "flow.sleeps"
    )
    assert run.status == Status.QUEUED
    assert run.row.token is None
    assert words(fleet) == []
    perdure.resume_task(task)
    if how == "unnamed":
        assert run.resume().result == "slept"
    else:
        assert again.run(task, seconds=0.0).result == "slept"
    assert words(fleet) == ["begun", "slept"]


def test_a_run_that_this_process_drives_raises_and_goes_on_later(fleet: Fleet) -> None:
    """PS1, PS3. The caller of `run` gets `RunPausedError`, with the run."""
    task = task_of(fleet, "sleeps")

    async def main() -> None:
        driving = asyncio.ensure_future(perdure.with_runcontext(name="d").run.aio(task, seconds=0.5))
        while "begun" not in words(fleet):
            await asyncio.sleep(0.01)
        await perdure.pause_task.aio(task)
        with pytest.raises(errors.RunPausedError, match=r"because its task flow\.sleeps is paused"):
            await driving

    asyncio.run(main())
    run = perdure.Run.get("d")
    assert run.status == Status.PAUSED
    for refused in (lambda: run.resume(), lambda: run.rerun(name="e")):
        with pytest.raises(errors.RunPausedError, match=r"because its task flow\.sleeps is paused"):
            refused()
    for wrong in (run.wake, lambda: run.resume(drive=False)):
        with pytest.raises(errors.UsageError, match=r"because its task flow\.sleeps is paused"):
            wrong()
    assert perdure.Run.get("e").status == Status.QUEUED
    perdure.resume_task(task)
    assert run.resume().result == "slept"


def test_a_run_that_is_paused_itself_stays_paused_when_its_task_goes_on(fleet: Fleet) -> None:
    """PS2, PS3. Family: both orders of the two pauses; a cancelled and an aborted run of a paused task."""
    fleet.submit(*(fleet.new("sleeps", name, seconds=0.0) for name in ("a", "b", "c", "d")))
    perdure.Run.get("a").pause()
    perdure.pause_task("flow.sleeps")
    perdure.Run.get("b").pause()
    assert perdure.Run.get("c").cancel() is True
    assert perdure.Run.get("c").status == Status.CANCELLED
    assert perdure.Run.get("d").abort() is True
    perdure.Run.get("b").resume(drive=False)
    fleet.serve()
    beside(fleet)
    assert perdure.Run.get("b").status == Status.QUEUED
    perdure.resume_task("flow.sleeps")
    fleet.wait("b")
    assert perdure.Run.get("a").status == Status.PAUSED


def test_a_run_that_was_asked_to_cancel_cleans_up_after_the_pause(fleet: Fleet) -> None:
    """PS3. No code of the task executes in the pause, that of a cleanup included; `abort` ends such a run."""
    fleet.serve("--park-after", "0s")
    run = begun(fleet, "cleans_up")
    wait_for(lambda: run.status == Status.SLEEPING, story=fleet.story)
    perdure.pause_task("flow.cleans_up")
    run.cancel("enough")
    fleet.submit(fleet.new("sleeps", "beside", seconds=0.5))
    fleet.wait("beside")
    assert run.status == Status.PAUSED
    assert "cleaned" not in words(fleet)
    perdure.resume_task("flow.cleans_up")
    wait_for(lambda: run.status == Status.CANCELLED, story=fleet.story)
    assert words(fleet).count("cleaned") == 1


def test_calls_of_the_task_in_runs_of_other_tasks_go_on(fleet: Fleet) -> None:
    (fleet.directory / "go").touch()
    fleet.serve()
    perdure.pause_task(task_of(fleet, "async_steps"))
    fleet.submit(fleet.new("in_a_child", "r"))
    assert perdure.Run.get("r").wait(100).result == ["first", "second"]


def test_a_renamed_task_is_paused_under_its_former_names_too(fleet: Fleet) -> None:
    """PS3. Family: the task itself, which knows its former names, is paused and resumed."""
    fleet.submit(
        fleet.new("sleeps", "old", seconds=0.0)._replace(task="flow.slept", target="flow.py::flow::flow.slept")
    )
    env = perdure.TaskEnvironment(name="flow")

    async def sleeps(seconds: float) -> str:
        return "slept"

    renamed = env.task(formerly="flow.slept")(sleeps)
    assert perdure.pause_task(renamed) is True
    assert list(perdure.paused_tasks()) == ["flow.sleeps", "flow.slept"]
    assert perdure.resume_task(renamed) is True
    assert perdure.paused_tasks() == {}


def test_wrong_names_are_refused(fleet: Fleet) -> None:
    with pytest.raises(errors.UsageError, match=r"has no run of a task 'flow\.slepes'\. Give the full name"):
        perdure.pause_task("flow.slepes")
    for wrong in (perdure.pause_task, perdure.resume_task):
        with pytest.raises(errors.UsageError, match="takes a task or its full name, not 7"):
            wrong(7)  # type: ignore[arg-type]
    assert perdure.paused_tasks() == {}
    assert perdure.resume_task("flow.slepes") is False


def test_the_command_line_pauses_shows_and_resumes_a_task(fleet: Fleet) -> None:
    fleet.submit(fleet.new("sleeps", "q", seconds=0.0))
    done = fleet.perdure("pause", "--task", "flow.sleeps", "--json")
    assert '{"task": "flow.sleeps", "state": "is paused"}' in " ".join(done.stdout.split())
    assert "task flow.sleeps is paused" in done.stderr
    assert "task flow.sleeps was paused before" in fleet.perdure("pause", "--task", "flow.sleeps").stderr
    assert "Task flow.sleeps is paused since 20" in " ".join(fleet.perdure("show", "q").stdout.split())
    listed = fleet.perdure("ls", "--json").stdout
    assert '"status": "QUEUED"' in listed
    assert "Task flow.sleeps is paused since 20" in listed
    for refused in (fleet.perdure("resume", "q"), fleet.perdure("run", "flow.py", "sleeps", "--seconds", "0")):
        assert refused.returncode == 1
        assert (
            "because its task flow.sleeps is paused; to continue: perdure resume --task flow.sleeps" in refused.stderr
        )
    assert "no run is interrupted" in fleet.perdure("resume", "--all").stderr
    for wrong in (("pause",), ("pause", "q", "--task", "flow.sleeps")):
        assert "name runs, or a task with --task" in fleet.perdure(*wrong).stderr
    assert "give it alone" in fleet.perdure("resume", "q", "--task", "flow.sleeps").stderr
    assert fleet.perdure("pause", "--task", "flow.unknown").returncode == 2
    freed = fleet.perdure("resume", "--task", "flow.sleeps")
    assert (freed.returncode, freed.stdout) == (0, "")
    assert "task flow.sleeps is no longer paused" in freed.stderr
    assert "task flow.sleeps is not paused" in fleet.perdure("resume", "--task", "flow.sleeps").stderr
    assert fleet.perdure("resume", "q").stdout == "slept\n"

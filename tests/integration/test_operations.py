"""Operations on runs from Python: list, end, continue, repeat, wake and look, in both colours.

Each operation is tried on runs of several states, also on a run that has ended and on an unknown run.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.crash.fleet import Fleet, fleet_of

import perdure
from perdure import Status, errors

env = perdure.TaskEnvironment(name="operations")
FAULT = "PERDURE_TEST_FAULT"
"""The argument that `fetch` fails on: in the environment, as a resumed run may load this file a second time."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    os.environ.pop(FAULT, None)
    yield
    perdure.init()


@perdure.trace
async def fetch(n: int) -> int:
    if str(n) == os.environ.get(FAULT):
        raise ConnectionError("no route")
    return n


@env.task
async def add(a: int, b: int = 1) -> int:
    return await fetch(a) + await fetch(b)


@env.task
async def other(when: datetime) -> str:
    return when.isoformat()


@env.task
async def abort_another(name: str) -> None:
    perdure.Run.get(name).abort()


@perdure.trace
def abort_in_a_trace(name: str) -> bool:
    return perdure.Run.get(name).abort()


@env.task
async def abort_by_trace(name: str) -> bool:
    return abort_in_a_trace(name)


def named(name: str, task: Any = add, *args: Any, **inputs: Any) -> perdure.Run:
    return perdure.with_runcontext(name=name).run(task, *args, **inputs)


def failed(name: str) -> perdure.Run:
    os.environ[FAULT] = "1"
    with pytest.raises(ConnectionError) as error:
        named(name, add, 2)
    del os.environ[FAULT]
    found: perdure.Run = error.value.run  # type: ignore[attr-defined]
    return found


def names(page: perdure.RunPage) -> list[str]:
    return [run.name for run in page]


# -- runs ------------------------------------------------------------------------------------------------------


def test_runs_are_listed_newest_first_and_filtered_by_every_property() -> None:
    when = datetime(2026, 1, 2, tzinfo=UTC)
    named("one", add, 1)
    failed("two")
    named("three", other, when)
    perdure.with_runcontext(name="four", delay=60).submit(add, 5, b=6)
    assert names(perdure.runs()) == ["four", "three", "two", "one"]
    assert names(perdure.runs(status="succeeded")) == ["three", "one"]
    assert names(perdure.runs(status={Status.FAILED, Status.QUEUED})) == ["four", "two"]
    assert names(perdure.runs(task=add)) == ["four", "two", "one"]
    assert names(perdure.runs(task="operations.other")) == ["three"]
    assert names(perdure.runs(name="t*")) == ["three", "two"]
    assert names(perdure.runs(name="one")) == ["one"]
    assert names(perdure.runs(inputs={"a": 5})) == ["four"]
    assert names(perdure.runs(inputs={"when": when})) == ["three"]
    assert names(perdure.runs(inputs={"a": 5, "b": 7})) == []
    assert names(perdure.runs(created=timedelta(hours=1), task=other)) == ["three"]
    assert names(perdure.runs(created=datetime(2100, 1, 1, tzinfo=UTC))) == []
    first = perdure.Run.get("two").created_at
    assert names(perdure.runs(created=(first, None))) == ["four", "three", "two"]
    assert names(perdure.runs(created=(None, first))) == ["one"]


def test_pages_give_every_run_once_also_while_new_runs_arrive() -> None:
    for number in range(7):
        named(f"run-{number}", add, number)
    page, seen = perdure.runs(limit=3), []
    while True:
        seen += names(page)
        if page.after is None:
            break
        named(f"late-{page.after}", add, 1)
        page = perdure.runs(limit=3, after=page.after)
    assert seen == [f"run-{number}" for number in reversed(range(7))]


def test_a_store_that_is_absent_holds_no_runs(tmp_path: Path) -> None:
    perdure.init(store=tmp_path / "absent.db")
    assert names(perdure.runs()) == []
    assert not (tmp_path / "absent.db").exists()


def test_tags_are_kept_with_a_run_and_found(fleet: Fleet) -> None:
    """Tags of a run that is driven here, of a submitted run, and of a run that repeats another."""
    perdure.with_runcontext(name="a", tags={"team": "data", "day": "monday"}).run(add, 1)
    perdure.with_runcontext(name="b", tags={"team": "web"}, delay=60).submit(add, 1)
    named("c", add, 1)
    assert perdure.Run.get("a").tags == {"team": "data", "day": "monday"}
    assert perdure.Run.get("c").tags == {}
    assert perdure.Run.get("a").rerun(name="d", file=__file__).tags == {"team": "data", "day": "monday"}
    assert names(perdure.runs(tags={"team": "data"})) == ["d", "a"]
    assert names(perdure.runs(tags={"team": "data", "day": "tuesday"})) == []
    assert names(perdure.runs(tags={})) == ["d", "c", "b", "a"]
    done = fleet.perdure("ls", "--json", "--tag", "team=web")
    assert [(run["name"], run["tags"]) for run in json.loads(done.stdout)] == [("b", {"team": "web"})]
    assert "NAME=VALUE" in fleet.perdure("ls", "--tag", "team").stderr


@pytest.mark.parametrize(
    "wrong", [{"": "x"}, {"a=b": "x"}, {"a": 1}, {1: "x"}, "a=b", {"a": "x" * 201}, {f"t{n}": "" for n in range(51)}]
)
def test_tags_that_cannot_be_kept_are_refused(wrong: Any) -> None:
    with pytest.raises(errors.UsageError, match="tag"):
        perdure.with_runcontext(tags=wrong)


LOOKS = """
import os
import sys
import perdure

env = perdure.TaskEnvironment(name="looks")


@perdure.trace
async def look(n: int) -> bool:
    return perdure.ctx().replaying


@env.task
async def looks() -> list[bool]:
    found = [perdure.ctx().replaying]
    found.append(await look(1))
    found.append(perdure.ctx().replaying)
    print(*found, file=sys.stderr, flush=True)
    if "PERDURE_TEST_FAULT" in os.environ:
        os._exit(3)
    return found
"""


def test_the_context_says_whether_a_body_replays(fleet: Fleet) -> None:
    """The first life dies behind its calls; the second goes through their outcomes."""
    file = fleet.directory / "looks.py"
    file.write_text(LOOKS)
    first = fleet.perdure("run", "looks.py", "looks", "--name", "r", env={FAULT: "1"})
    assert (first.returncode, "False False False" in first.stderr) == (3, True)
    second = fleet.perdure("run", "looks.py", "looks", "--name", "r", "--json")
    assert json.loads(second.stdout)["result"] == [True, False, False]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"status": "DONE"}, "status must be one or several of QUEUED"),
        ({"status": 3}, "status must be"),
        ({"task": max}, "task must be a task or its full name"),
        ({"name": 3}, "name must be"),
        ({"inputs": ["a"]}, "inputs must map names"),
        ({"created": "yesterday"}, "created must be a datetime"),
        ({"created": (1, 2)}, "created must be a datetime"),
        ({"limit": 0}, "limit must be"),
        ({"limit": True}, "limit must be"),
        ({"after": "x"}, "after must be"),
    ],
)
def test_a_filter_that_means_nothing_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(errors.UsageError, match=message):
        perdure.runs(**wrong)


def test_the_command_line_filters_like_python(fleet: Fleet) -> None:
    for name in ("daily-1", "daily-2", "other"):
        fleet.submit(fleet.new("nap", name, seconds=0.0))
    done = fleet.perdure("ls", "--json", "--task", "sleeper.nap", "--name", "daily-*")
    assert [run["name"] for run in json.loads(done.stdout)] == ["daily-2", "daily-1"]
    assert "no such runs" in fleet.perdure("ls", "--name", "weekly").stderr


# -- a run's operations ----------------------------------------------------------------------------------------


def test_abort_ends_a_queued_run_once_and_refuses_a_run_that_has_ended() -> None:
    run = perdure.with_runcontext(name="q", delay=60).submit(add, 1)
    assert run.abort() is True
    assert run.abort() is False
    assert run.status == Status.ABORTED
    with pytest.raises(errors.RunAbortedError, match="rerun q --recover"):
        run.result  # noqa: B018
    with pytest.raises(errors.UsageError, match="it is SUCCEEDED; there is nothing to abort"):
        named("done", add, 1).abort()


def test_resume_continues_a_failed_run_and_leaves_an_ended_run_alone() -> None:
    run = failed("f")
    assert run.resume().result == 3
    assert run.resume().result == 3
    aborted = perdure.with_runcontext(name="a", delay=60).submit(add, 1)
    aborted.abort()
    with pytest.raises(errors.RunAbortedError):
        aborted.resume()
    os.environ[FAULT] = "1"
    with pytest.raises(ConnectionError) as error:
        named("again", add, 2)
    with pytest.raises(ConnectionError) as error:
        perdure.Run.get("again").resume()
    assert error.value.run.name == "again"  # type: ignore[attr-defined]


def test_rerun_makes_a_new_run_and_may_reuse_the_work_of_the_old_run() -> None:
    run = failed("old")
    again = run.rerun(recover=True, name="new")
    assert (again.name, again.result) == ("new", 3)
    assert any(node.reused for node in again.tree().nodes.values())
    assert not any(node.reused for node in run.rerun().tree().nodes.values())
    with pytest.raises(errors.UsageError, match="a name of its own"):
        run.rerun(name="old")


def test_the_asynchronous_forms_do_the_same() -> None:
    async def all_of_them() -> None:
        await perdure.with_runcontext(name="x").run.aio(add, 1)
        run = perdure.Run.get("x")
        assert names(await perdure.runs.aio(name="x")) == ["x"]
        assert (await run.resume.aio()).result == 2
        assert (await run.rerun.aio(name="y")).result == 2
        assert (await run.tree.aio()).total == 3
        assert await run.logs.aio() == []
        waiting = await perdure.with_runcontext(name="z", delay=60).submit.aio(add, 1)
        assert await waiting.wake.aio() is True
        assert await waiting.abort.aio() is True

    asyncio.run(all_of_them())


def test_a_failure_reaches_the_caller_of_an_asynchronous_resume() -> None:
    run = failed("f")
    os.environ[FAULT] = "1"

    async def again() -> None:
        with pytest.raises(ConnectionError):
            await run.resume.aio()

    asyncio.run(again())
    assert run.status == Status.FAILED


def test_an_operation_in_a_body_is_refused_and_in_a_trace_recorded() -> None:
    """Family: an effect in a body, which each replay would repeat."""
    target = perdure.with_runcontext(name="t", delay=60).submit(add, 1)
    with pytest.raises(errors.NestedRunError, match=r"under @perdure\.trace"):
        perdure.run(abort_another, "t")
    assert target.status == Status.QUEUED
    assert perdure.run(abort_by_trace, "t").result is True


@pytest.mark.parametrize("operation", ["abort", "wake", "tree", "logs", "resume", "rerun"])
def test_a_run_that_was_removed_meanwhile_is_named(operation: str) -> None:
    from perdure.upkeep import collecting

    run = named("gone", add, 1)
    collecting.collect(timedelta(0), frozenset({Status.SUCCEEDED}))
    with pytest.raises(errors.RunNotFoundError, match="'gone'"):
        getattr(run, operation)()


# -- wake ------------------------------------------------------------------------------------------------------

SLEEPER = """
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="sleeper")


@env.task
async def nap(seconds: float) -> str:
    await durable_sleep.aio(seconds)
    return "awake"
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "sleeper.py", SLEEPER) as found:
        yield found


def test_a_woken_run_begins_before_its_time(fleet: Fleet) -> None:
    fleet.submit(fleet.new("nap", "n", seconds=0.0), after=3600)
    fleet.serve()
    run = perdure.Run.get("n")
    assert run.status == Status.QUEUED
    assert "is due now" in fleet.perdure("wake", "n").stderr
    fleet.wait("n")
    with pytest.raises(errors.UsageError, match="nothing to wake"):
        run.wake()
    assert "nothing to wake" in fleet.perdure("wake", "n").stderr


def test_a_run_that_waking_does_not_help_is_refused_with_the_reason(fleet: Fleet) -> None:
    """Recorded deadlines stay, so an early start of a sleeping run would end at the same sleep; and a due run waits for
    no time."""
    fleet.submit(fleet.new("nap", "n", seconds=3600.0))
    worker = fleet.serve("--park-after", "0s")
    fleet.wait("n", status=Status.SLEEPING)
    worker.kill()
    run = perdure.Run.get("n")
    until = run.row.wake_at
    with pytest.raises(errors.UsageError, match=r"changes nothing.* The run sleeps until "):
        run.wake()
    assert "changes nothing" in fleet.perdure("wake", "n").stderr
    assert run.row.wake_at == until
    fleet.submit(fleet.new("nap", "due", seconds=0.0))
    with pytest.raises(errors.UsageError, match=r"is due already, so there is nothing to wake.* no worker is alive"):
        perdure.Run.get("due").wake()

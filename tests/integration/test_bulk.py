"""One operation on all runs of a filter, from Python and the command line: the count comes first, and both agree."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell

import perdure
from perdure import errors
from perdure.api import bulk as bulk_module
from perdure.api.looking import RunFilter
from perdure.cli import bulk as command

env = perdure.TaskEnvironment(name="many")
FAULT = "PERDURE_TEST_MANY_FAULT"
"""Runs of `breaks` fail while this is set; in the environment, as a resumed run may load this file a second time."""


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[None]:
    perdure.init(store=tmp_path / "perdure.db")
    os.environ.pop(FAULT, None)
    yield
    os.environ.pop(FAULT, None)
    perdure.init()


@env.task
def add(a: int = 1) -> int:
    return a + 1


@env.task
def breaks() -> int:
    if FAULT in os.environ:
        raise LookupError("gone")
    return 1


@env.task
def aborts_many() -> int:
    return perdure.bulk("abort", name="*").matching


def stored(*names: str, task: Any = add, **tags: str) -> None:
    for name in names:
        perdure.with_runcontext(name=name, tags=tags or None, delay=3600).submit(task)


def ended(*names: str) -> None:
    for name in names:
        perdure.with_runcontext(name=name).run(add)


def status(name: str) -> str:
    return str(perdure.Run.get(name).status)


def failed(*names: str) -> None:
    os.environ[FAULT] = "1"
    for name in names:
        with pytest.raises(LookupError):
            perdure.with_runcontext(name=name).run(breaks)
    del os.environ[FAULT]


def test_a_dry_run_counts_and_changes_nothing_and_the_operation_does_what_was_counted() -> None:
    stored("a", "b", team="web")
    stored("other")
    ended("c")
    dry = perdure.bulk("abort", task="many.add", name="[abc]", dry_run=True)
    assert str(dry) == "3 runs match: 2 would be aborted; left alone: 1 ended"
    assert (dry.dry_run, dry.names, dry.left) == (True, ["b", "a"], {"ended": 1})
    assert status("a") == "QUEUED"
    done = perdure.bulk("abort", task="many.add", name="[abc]")
    assert str(done) == "3 runs match: 2 were aborted; left alone: 1 ended"
    assert done.names == dry.names
    assert [status(name) for name in ("a", "b", "c", "other")] == ["ABORTED", "ABORTED", "SUCCEEDED", "QUEUED"]
    assert str(perdure.bulk("abort", tags={"team": "web"})) == "2 runs match: 0 were aborted; left alone: 2 ended"


def test_each_filter_selects_and_operations_leave_alone_what_they_cannot_change() -> None:
    """The family: each operation on runs that are queued, paused, asked to cancel, ended and failed."""
    stored("queued", "paused")
    failed("failed")
    ended("ended")
    perdure.Run.get("paused").pause()

    def counted(operation: str, **wanted: Any) -> tuple[list[str], dict[str, int]]:
        found = perdure.bulk(operation, dry_run=True, **wanted)
        return found.names, found.left

    assert counted("abort", name="*") == (["paused", "queued"], {"ended": 2})
    assert counted("cancel", status=["QUEUED"], name="*") == (["queued"], {})
    assert counted("pause", name="*") == (["queued"], {"ended": 2, "paused before": 1})
    assert counted("resume", name="*") == (["failed", "paused"], {"ended": 1, "not standing still": 1})
    assert counted("resume", error="LookupError") == (["failed"], {})
    assert counted("abort", created=timedelta(hours=1), task="many.add")[0] == ["paused", "queued"]
    assert counted("abort", created=(None, None), name="nothing-*") == ([], {})
    perdure.pause_task(add)
    assert counted("resume", name="paused") == ([], {"of a paused task": 1})


def test_paused_runs_are_left_to_workers_and_failed_runs_are_driven_to_their_ends() -> None:
    stored("paused")
    perdure.Run.get("paused").pause()
    failed("one", "two")
    done = asyncio.run(perdure.bulk.aio("resume", name="*"))
    assert sorted(done.names) == ["one", "paused", "two"]
    assert [status(name) for name in ("one", "two", "paused")] == ["SUCCEEDED", "SUCCEEDED", "QUEUED"]


def test_cancel_and_pause_give_their_arguments_to_each_run() -> None:
    stored("a", "b")
    assert perdure.bulk("pause", name="*").names == ["b", "a"]
    assert status("a") == "PAUSED"
    assert perdure.bulk("cancel", name="*", reason="moved away").names == ["b", "a"]
    with pytest.raises(errors.RunCancelledError, match="moved away"):
        _ = perdure.Run.get("a").result


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: perdure.bulk("abort"), "give a filter"),
        (lambda: perdure.bulk("abort", tags={}), "give a filter"),
        (lambda: perdure.bulk("explode", name="*"), "one of abort, cancel, pause, resume"),
        (lambda: perdure.bulk("abort", status="odd"), "status must be"),
        (lambda: perdure.bulk("abort", name=5), "name must be"),
        (lambda: perdure.bulk("abort", error=5), "error must be"),
        (lambda: perdure.bulk("abort", task=5), "task must be"),
        (lambda: perdure.bulk("cancel", name="*", reason=5), "reason must be"),
    ],
)
def test_a_call_that_means_nothing_changes_nothing(call: Any, words: str) -> None:
    stored("a")
    with pytest.raises(errors.UsageError, match=words):
        call()
    assert status("a") == "QUEUED"


def test_a_body_may_not_operate_on_many_runs() -> None:
    stored("a")
    with pytest.raises(errors.NestedRunError):
        perdure.with_runcontext(name="within").run(aborts_many)
    assert status("a") == "QUEUED"


def test_a_run_that_changed_or_came_since_the_count_is_left_alone() -> None:
    """The family: ended meanwhile, no longer of the status, stored meanwhile, removed meanwhile."""
    stored("ends", "pauses", "stays")
    wanted = RunFilter(frozenset({perdure.Status.QUEUED}), "many.add")
    plan = bulk_module.planned("abort", wanted)
    assert plan.bulk.names == ["stays", "pauses", "ends"]
    perdure.Run.get("ends").abort()
    perdure.Run.get("pauses").pause()
    stored("later")
    again = bulk_module.planned("abort", wanted, below=plan.below)
    assert again.bulk.names == ["stays"]
    done, _ = bulk_module.carried_out(plan, wanted)
    assert (done.names, done.left, done.refused) == (["stays"], {"changed meanwhile": 2}, {})
    assert [status(name) for name in ("stays", "pauses", "later")] == ["ABORTED", "PAUSED", "QUEUED"]


def test_a_plan_is_bounded_and_says_so() -> None:
    stored(*(f"r{n}" for n in range(5)))
    wanted = RunFilter(task="many.add")
    some = bulk_module.planned("abort", wanted, most=2)
    assert (some.bulk.names, some.full, some.bulk.matching) == (["r4", "r3"], True, 2)
    assert not bulk_module.planned("abort", wanted, most=5).full
    short = bulk_module.planned("abort", wanted, looks=1)
    assert short.reached is not None  # a page was read, and no further page
    assert bulk_module.planned("abort", wanted).reached is None


def test_the_command_line_counts_asks_and_does_the_same(shell: Shell) -> None:
    """The family: a dry run, no terminal to ask on, `--yes`, nothing to do, wrong options, JSON."""
    assert tuple(command.OPERATIONS) == bulk_module.OPERATIONS
    for name in ("one", "two"):
        assert shell("submit", "--name", name, "--in", "1h", "wf.py", "add", "--a", "1").returncode == 0
    assert shell("run", "--name", "done", "wf.py", "add", "--a", "1").returncode == 0
    dry = shell("bulk", "abort", "--task", "etl.add", "--dry-run")
    assert "3 runs match: 2 would be aborted; left alone: 1 ended" in dry.stderr
    assert dry.stdout.split() == ["two", "one"]
    asked = shell("bulk", "abort", "--task", "etl.add")
    assert (asked.returncode, "--yes" in asked.stderr) == (2, True)
    assert shell("bulk", "abort").returncode == 2
    assert shell("bulk", "abort", "--reason", "x", "--name", "*").returncode == 2
    assert shell("bulk", "explode", "--name", "*").returncode == 2
    assert shell("show", "one", "--json").stdout.count('"QUEUED"') >= 1
    done = shell("bulk", "abort", "--status", "queued", "--yes", "--json")
    found = json.loads(done.stdout)
    assert (found["names"], found["matching"], found["dry_run"], found["ends"]) == (["two", "one"], 2, False, [])
    nothing = shell("bulk", "abort", "--task", "etl.add")
    assert (nothing.returncode, "0 would be aborted; left alone: 3 ended" in nothing.stderr) == (0, True)


def test_the_command_line_drives_failed_runs_to_their_ends(shell: Shell) -> None:
    """A run that fails again makes the exit code 1; JSON on stdout is one document with the ends."""
    for name in ("one", "two"):
        assert shell("run", "--name", name, "wf.py", "fixable").returncode == 1
    again = shell("bulk", "resume", "--error", "RuntimeError", "--yes", "--json")
    assert again.returncode == 1
    assert [end["status"] for end in json.loads(again.stdout)["ends"]] == ["FAILED", "FAILED"]
    shell.write("fixed", "")
    done = shell("bulk", "resume", "--error", "RuntimeError", "--yes")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["two", "one", "two:", "4", "one:", "4"]

"""`perdure submit`, `serve`, `wait` and `watch` as people and scripts meet them: real processes, exit codes, both
streams."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import signal
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from tests.crash.fleet import Fleet, fleet_of
from tests.waiting import wait_for

from perdure.core.ground.clock import US
from perdure.core.ground.model import Status

WORKFLOWS = """
import asyncio, os, threading
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment("flow")

@env.task
def add(a: int, b: int = 2) -> int:
    return a + b

@env.task
def fails() -> None:
    raise ValueError("the file is not there")

@env.task
async def nap(s: float = 3600) -> str:
    await durable_sleep.aio(s)
    return "woke"

@env.task
def forever() -> None:
    threading.Event().wait()

@perdure.trace
def sends(name: str) -> str:
    return perdure.with_runcontext(name=name, delay=60).submit(add, a=1).name

@perdure.trace
async def sends_async(name: str) -> str:
    return (await perdure.with_runcontext(name=name).submit.aio(add, a=1)).name

@env.task
def from_a_trace() -> str:
    return sends("sent")

@env.task
async def from_an_async_trace() -> str:
    return await sends_async("sent-async")

@env.task
def from_a_body() -> str:
    return perdure.submit(add, a=1).name
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", WORKFLOWS, here=False) as found:
        yield found


def at_once(fleet: Fleet, *lines: str) -> list[subprocess.CompletedProcess[str]]:
    """What these command lines come to, side by side."""
    with ThreadPoolExecutor(3) as pool:
        return list(pool.map(lambda line: fleet.perdure(*line.split()), lines))


# -- submit ----------------------------------------------------------------------------------------------------


def test_what_is_submitted_is_queued_until_it_is_due(fleet: Fleet) -> None:
    plain, later, past, data = at_once(
        fleet,
        "submit flow.py add --a 1 --name plain",
        "submit flow.py add --a 1 --name later --in 1h",
        "submit flow.py add --a 1 --name past --at 2020-01-01T02:00",
        "submit flow.py add --a 1 --name data --at 2199-01-01 --json",
    )
    assert (plain.returncode, plain.stdout) == (0, "plain\n")
    assert plain.stderr == "run plain is QUEUED; wait for it with: perdure wait plain\n"
    assert later.stderr.startswith("run later is QUEUED, and begins at 2")
    assert past.stderr == "run past is QUEUED; wait for it with: perdure wait past\n"
    assert json.loads(data.stdout) == {"name": "data", "task": "flow.add", "status": "QUEUED"}
    row = fleet.run("later")
    assert row.wake_at is not None
    assert 3595 * US < row.wake_at - row.created_at < 3605 * US
    fleet.serve()
    fleet.wait("plain", "past")
    shown, again, other, listed = at_once(
        fleet,
        "show later",
        "submit flow.py add --a 1 --name plain",
        "submit flow.py add --a 3 --name plain",
        "ls --status QUEUED --json",
    )
    assert "The run begins at 2" in shown.stdout
    assert " at the earliest" in shown.stdout
    assert (again.returncode, again.stdout) == (0, "plain\n")
    assert again.stderr == "run plain has ended before, it is SUCCEEDED; see: perdure wait plain\n"
    assert other.returncode == 2
    assert "run 'plain' exists with another task or other inputs" in other.stderr
    assert "asked for: flow.add(a=3)" in other.stderr
    wakes = {run["name"]: run["wakes_at"] for run in json.loads(listed.stdout)}
    assert sorted(wakes) == ["data", "later"]
    assert wakes["data"].startswith(("2198-12-31", "2199-01-01"))


TIMES = "Error: --at takes a time such as 02:00, 2026-11-23T02:00 or 2026-11-23T02:00+01:00, not"
LENGTH = "is no length of time such as 30d, 12h, 90m, 45s or 1d12h"
WRONG = [
    ("submit", "Error: name a file and a task: perdure submit FILE TASK; more with: perdure submit --help"),
    ("submit flow.py nope", "Error: flow.py holds no task 'nope'; its tasks are: add, fails, "),
    ("submit flow.py add --a x", "Error: input --a of flow.add is int, not 'x'"),
    ("submit flow.py add --a 1 --at 25:00", f"{TIMES} '25:00'"),
    ("submit flow.py add --a 1 --in -5m", f"Error: Invalid value for '--in': '-5m' {LENGTH}"),
    ("submit flow.py add --a 1 --at 02:00 --in 5m", "Error: a run begins either at a time or after a delay; give one"),
    ("submit top.py main", "top.py calls perdure.submit at its top level"),
    ("wait nope", "Error: no run is called 'nope' in "),
    ("wait", "Error: Missing argument 'RUN...'."),
    ("serve", "Error: Missing argument 'FILE_OR_MODULE...'."),
    ("serve nope.py", "Error: nope.py: no such file"),
    ("serve nope.py nope", "Error: none of nope.py, nope could be loaded, so there is nothing to serve"),
    ("serve empty.py", "Error: there are no tasks to serve in empty.py; declare one with @env.task"),
    ("serve flow.py --concurrency 0", "Error: Invalid value for '--concurrency': 0 is not in the range x>=1."),
]


def test_what_is_wrong_is_said_in_one_message(fleet: Fleet) -> None:
    (fleet.directory / "empty.py").write_text("")
    (fleet.directory / "top.py").write_text(WORKFLOWS + "\nmain = add\nperdure.submit(add, a=1)\n")
    for (line, message), done in zip(WRONG, at_once(fleet, *(line for line, _ in WRONG)), strict=True):
        assert done.returncode == 2, line
        assert done.stdout == "", line
        assert message in done.stderr, done.stderr
        assert "Traceback" not in done.stderr, done.stderr
        *before, last = done.stderr.splitlines()
        assert message.removeprefix("Error: ") in last, done.stderr
        assert all(text == "" or text.startswith(("Usage:", "Try '", "Error: nope")) for text in before), done.stderr
    assert fleet.store.runs() == []


def test_a_store_that_cannot_be_opened(fleet: Fleet) -> None:
    for done in at_once(
        fleet, "serve flow.py --store /nonexistent/x.db", "submit flow.py fails --store /nonexistent/x.db"
    ):
        assert done.returncode == 1
        assert done.stderr == (
            "Error: the directory /nonexistent of the store does not exist: create it, or name another file\n"
        )


def test_submitting_from_traces_and_bodies(fleet: Fleet) -> None:
    """SV3: In a trace a run is submitted once, even if the submitter is killed; in a body it is refused."""
    script = fleet.directory / "script.py"
    script.write_text(
        "import perdure, flow\nrun = perdure.with_runcontext(name='outside').submit(flow.add, a=40)\n"
        "print(run.name, run.wait(30).result)\n"
    )
    fleet.serve()
    outside = subprocess.run(
        [sys.executable, str(script)], cwd=fleet.directory, capture_output=True, text=True, timeout=40, check=False
    )
    assert outside.stdout.split() == ["outside", "42"], outside.stderr
    sync, others, refused = at_once(
        fleet, "run flow.py from_a_trace", "run flow.py from_an_async_trace", "run flow.py from_a_body"
    )
    assert (sync.stdout, others.stdout) == ("sent\n", "sent-async\n")
    fleet.wait("sent-async")
    assert fleet.status("sent") is Status.QUEUED
    assert refused.returncode == 1
    assert "perdure.submit was called in the body of task flow.from_a_body, where each replay would call it" in (
        refused.stderr
    )
    assert len(fleet.store.runs()) == 6


# -- wait ------------------------------------------------------------------------------------------------------


def test_wait(fleet: Fleet) -> None:
    fleet.submit(
        fleet.new("add", "good", a=1), fleet.new("fails", "bad"), fleet.new("nap", "long"), fleet.new("nap", "gone")
    )
    fleet.submit(fleet.new("add", "undriven", a=2), after=-10)
    fleet.store.abort(fleet.run("gone").id, 1)
    undriven = fleet.perdure("wait", "undriven", "long", "--timeout", "6s")
    assert undriven.returncode == 1
    first, second, third = undriven.stderr.splitlines()
    serve = f"start a worker with `perdure serve {fleet.file}`, or drive it with `perdure resume undriven`"
    assert first == f"run undriven is QUEUED and no process drives the run: {serve}"
    assert second == "Error: run undriven has not ended within 6 s, it is QUEUED; see: perdure show undriven"
    assert third == "Error: run long has not ended within 6 s, it is QUEUED; see: perdure show long"
    fleet.serve("--park-after", "1s")
    fleet.wait("long", status=Status.SLEEPING)
    one, several, data, aborted = at_once(
        fleet,
        "wait good",
        "wait good bad long --timeout 1s",
        "wait good bad long gone --timeout 1s --json -q",
        "wait gone",
    )
    assert (one.returncode, one.stdout, one.stderr) == (0, "3\n", "")
    assert (several.returncode, several.stdout) == (1, "good: 3\n")
    assert "run bad failed: ValueError: the file is not there" in several.stderr
    assert "run long has not ended within 1 s, it is SLEEPING; see: perdure show long" in several.stderr
    found = {run["name"]: run for run in json.loads(data.stdout)}
    assert data.returncode == 1
    assert {name: run["status"] for name, run in found.items()} == {
        "good": "SUCCEEDED", "bad": "FAILED", "long": "SLEEPING", "gone": "ABORTED",
    }  # fmt: skip
    assert (found["good"]["result"], found["bad"]["error"]["type"]) == (3, "ValueError")
    assert aborted.returncode == 1
    assert aborted.stderr.startswith("Error: run 'gone' was aborted")


# -- looking on ------------------------------------------------------------------------------------------------


def test_ls_show_and_abort_of_runs_that_others_have(fleet: Fleet) -> None:
    worker = fleet.serve("--park-after", "1s", "-v")
    fleet.submit(fleet.new("nap", "parked"), fleet.new("forever", "busy"))
    fleet.submit(fleet.new("add", "queued", a=1), after=3600)
    fleet.wait("parked", status=Status.SLEEPING)
    wait_for(lambda: fleet.status("busy") is Status.RUNNING)
    sleeping, queued, parked, busy = at_once(
        fleet, "ls --status sleeping", "ls --status QUEUED", "show parked", "show busy --json"
    )
    assert "parked  flow.nap  SLEEPING" in sleeping.stdout
    assert "queued  flow.add  QUEUED" in queued.stdout
    assert "The run sleeps until 2" in parked.stdout
    assert "durable_sleep  sleep  SLEEPING" in parked.stdout
    assert json.loads(busy.stdout)["driven_by"]["pid"] == worker.pid
    for name, done in zip(
        ("queued", "parked", "busy"), at_once(fleet, "abort queued", "abort parked", "abort busy"), strict=True
    ):
        assert (done.returncode, done.stderr) == (0, f"run {name} is aborted\n")
    worker.says("run busy (flow.forever) was aborted")
    assert all(run.status is Status.ABORTED for run in fleet.store.runs())
    assert fleet.store.next_due({"flow.add", "flow.nap"}) is None


def watching(fleet: Fleet, *words: str, **streams: Any) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "perdure", "watch", *words], cwd=fleet.directory, env={**os.environ, "COLUMNS": "100"},
        **streams,
    )  # fmt: skip


def test_watch_on_a_pipe(fleet: Fleet) -> None:
    """A line for each change, at once; the command ends when its output is closed, or with Ctrl-C."""
    fleet.submit(fleet.new("add", "one", a=1))
    text = watching(fleet, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    data = watching(fleet, "--json", "--status", "SUCCEEDED", stdout=subprocess.PIPE)
    assert text.stdout is not None
    assert data.stdout is not None
    assert text.stdout.readline().split()[1:] == [b"one", b"flow.add", b"QUEUED"]
    fleet.serve()
    seen = [text.stdout.readline().split()[-1]]
    if seen == [b"RUNNING"]:
        seen.append(text.stdout.readline().split()[-1])
    assert seen[-1] == b"SUCCEEDED"
    assert json.loads(data.stdout.readline())["name"] == "one"
    text.send_signal(signal.SIGINT)
    assert text.wait(10) == 130
    assert text.stderr is not None
    assert text.stderr.read() == b"interrupted\n"
    data.stdout.close()
    fleet.submit(fleet.new("add", "two", a=1))
    assert data.wait(10) is not None


def test_watch_on_a_terminal(fleet: Fleet) -> None:
    """A table that changes in place."""
    fleet.submit(fleet.new("add", "one", a=1))
    leader, follower = pty.openpty()
    process = watching(fleet, stdout=follower, stderr=follower, stdin=follower)
    os.close(follower)
    shown = b""

    def shows(text: bytes) -> bool:
        nonlocal shown
        if select.select([leader], [], [], 0.1)[0]:
            try:
                shown += os.read(leader, 65536)
            except OSError:
                pass
        return text in shown

    try:
        wait_for(lambda: shows(b"QUEUED"))
        assert b"NAME" in shown
        fleet.serve()
        wait_for(lambda: shows(b"SUCCEEDED"))
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 130
        wait_for(lambda: shows(b"\x1b[?25h"), 5)  # the cursor is back
    finally:
        process.kill()
        os.close(leader)


def test_watch_of_no_store_waits_for_one(tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure", "watch"], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    assert process.stderr is not None
    assert process.stderr.readline() == b"there is no store at .perdure/perdure.db yet\n"
    assert not (tmp_path / ".perdure").exists()
    (tmp_path / "flow.py").write_text(WORKFLOWS)
    fleet = Fleet(tmp_path, tmp_path / "flow.py")
    fleet.submit(fleet.new("add", "one", a=1))
    assert process.stdout is not None
    assert b"one  flow.add  QUEUED" in process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 130
    fleet.close()


# -- serve -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("does", ["time.sleep(60)", "threading.Event().wait()", "while True: pass"])
def test_a_worker_that_is_told_to_end_while_it_starts_ends_with_0(
    tmp_path: Path, number: signal.Signals, does: str
) -> None:
    """The family: a signal before serving begins, here while the file is loaded: asleep, waiting, or computing."""
    (tmp_path / "slow.py").write_text(f"import os, threading, time\nopen('loading', 'w').close()\n{does}\n")
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure", "serve", "slow.py"], cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for((tmp_path / "loading").exists)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "told to end before serving began; no run was taken\n")


def test_serve_says_what_matters(fleet: Fleet) -> None:
    """Without -v what went wrong, with -v what becomes of each run. A task's output does not go to stdout."""
    quiet = fleet.serve()
    fleet.submit(fleet.new("add", "good", a=1), fleet.new("fails", "bad"))
    fleet.wait("good")
    fleet.wait("bad", status=Status.FAILED)
    quiet.terminate()
    assert quiet.code() == 0
    begins, *said = quiet.errors().splitlines()
    assert begins.startswith("serving flow.add, flow.fails, ")
    # In either order: the store knows that a run has ended before the worker says so.
    ends, failed = sorted(said)
    assert failed == "run bad (flow.fails) failed: ValueError: the file is not there"
    assert re.fullmatch(r"SIGTERM: [01] runs? (is|are) let go, for at most 30 s", ends)
    loud = fleet.serve("-v")
    fleet.submit(fleet.new("add", "next", a=1))
    assert "run next (flow.add) succeeded" in loud.says("run next")
    loud.signal(signal.SIGINT)
    assert loud.code() == 0
    assert any(line.startswith("SIGINT: ") for line in loud.errors().splitlines())


def test_a_module_can_be_served_by_its_name(fleet: Fleet) -> None:
    package = fleet.directory / "jobs"
    package.mkdir()
    (package / "__init__.py").write_text("")
    (package / "daily.py").write_text(textwrap.dedent(WORKFLOWS))
    worker = fleet.serve(files=[Path("jobs.daily")])
    fleet.submit(fleet.new("add", "packed", package / "daily.py", a=4))
    fleet.wait("packed")
    worker.terminate()
    assert worker.code() == 0


# -- completion ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("perdure submit flow.py fr", ["from_a_trace", "from_an_async_trace", "from_a_body"]),
        ("perdure submit flow.py add --", ["--a", "--b", "--name", "--tag", "--at", "--in", "--json", "--help"]),
        ("perdure run flow.py add --", ["--a", "--b", "--name", "--tag", "--json", "--help"]),
        ("perdure wait fi", ["first"]),
        ("perdure watch --status q", ["queued"]),
        ("perdure serve --con", ["--concurrency"]),
        ("perdure s", ["schedule", "schedules", "send", "serve", "show", "signal", "store", "stream", "submit"]),
    ],
)
def test_completion(fleet: Fleet, line: str, words: list[str]) -> None:
    fleet.submit(fleet.new("add", "first", a=1))
    env = {"_PERDURE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(line.split()) - 1)}
    done = subprocess.run(
        [sys.executable, "-c", "from perdure.cli import main; main()"], cwd=fleet.directory, capture_output=True,
        env={**os.environ, **env}, text=True, timeout=20, check=False,
    )  # fmt: skip
    assert [word.partition(",")[2] for word in done.stdout.splitlines()] == words, done.stderr

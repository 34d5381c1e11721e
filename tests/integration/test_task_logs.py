"""What tasks print and log is kept with its run, action and attempt: once, bounded, and at no cost for the task."""

from __future__ import annotations

import json
import logging
import re
import signal
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.waiting import wait_for

import perdure
from perdure.runtime import task_logs
from perdure.runtime.task_logs import TaskRecord, records_of

WORKFLOW = """
import asyncio, logging, os, sys, threading, time
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="w")
pool = perdure.TaskEnvironment(name="pool", executor="process")
logger = logging.getLogger("shop")
logger.setLevel(logging.INFO)
quiet = logging.getLogger("quiet")

@perdure.trace
def charge(n: int) -> int:
    print("charging", n)
    return n

@perdure.trace
async def charge_async(n: int) -> int:
    print("charging later", n)
    return n

@env.task
def child(n: int) -> int:
    print(f"child {n}", file=sys.stderr)
    return charge(n)

@env.task
async def main(wait: bool = False) -> int:
    print("begin")
    logger.info("order %d", 7)
    quiet.info("not enabled")
    perdure.log.info("by perdure.log")
    print("a", end="")
    print("b", end="\\nno end of line")
    await charge_async(1) if False else await charge_async.aio(1)
    await asyncio.to_thread(print, "in a thread")
    found = await asyncio.gather(child.aio(1), child.aio(2))
    print("half")
    while wait and not os.path.exists("go"):
        await asyncio.sleep(0.02)
    try:
        raise ValueError("shown")
    except ValueError:
        logger.exception("it failed")
    await charge_async.aio(2)
    print("end")
    return sum(found)

@env.task(retries=1)
def flaky() -> int:
    print("attempt", perdure.ctx().attempt)
    if perdure.ctx().attempt == 1:
        raise OSError("first time")
    return 1

@pool.task
def elsewhere(n: int) -> int:
    print("in a pool child", n)
    logger.warning("pool child logs")
    return n

@env.task
def calls_pool() -> int:
    return elsewhere(3)

@env.task
def much(lines: int, text: str) -> int:
    for n in range(lines):
        print(n, text)
    return lines

@env.task
def threads() -> int:
    thread = threading.Thread(target=print, args=("stray",))
    thread.start()
    thread.join()
    os.write(1, b"past Python\\n")
    return 1
"""


@pytest.fixture
def shell(shell: Shell) -> Shell:
    shell.write("w.py", WORKFLOW)
    return shell


def records(shell: Shell, run: str, *action: str) -> list[dict[str, Any]]:
    done = shell("logs", run, *action, "--json")
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


def until_kept(shell: Shell, run: str, text: str) -> None:
    """Wait until the run has printed the text."""
    wait_for(
        lambda: shell("show", run).returncode == 0 and any(one["text"] == text for one in records(shell, run)),
        story=lambda: shell("ls").stdout,
    )


def test_what_a_run_prints_and_logs_is_kept_by_action(shell: Shell) -> None:
    """Family: ways in which code of a task writes: a sync and an async body, a trace, a thread of `to_thread`, text in
    pieces, text without an end, loggers of three kinds, an exception."""
    done = shell("run", "w.py", "main", "--name", "one")
    assert (done.returncode, done.stdout) == (0, "3\n")
    # Shown as before, each once.
    assert done.stderr.count("charging later 1") == done.stderr.count("child 2") == done.stderr.count("half") == 1
    root = records(shell, "one", "main")
    assert [(one["source"], one["text"].partition("\n")[0]) for one in root] == [
        ("stdout", "begin"), ("log", "order 7"), ("log", "by perdure.log"), ("stdout", "ab"),
        ("stdout", "no end of linecharging later 1"), ("stdout", "in a thread"), ("stdout", "half"),
        ("log", "it failed"), ("stdout", "charging later 2"), ("stdout", "end"),
    ]  # fmt: skip
    logged = next(one for one in root if one["text"] == "order 7")
    assert (logged["level"], logged["logger"], logged["run"], logged["attempt"]) == ("INFO", "shop", "one", 1)
    assert "ValueError: shown" in next(one for one in root if one["text"].startswith("it failed"))["text"]
    assert root[-2]["trace"] == "charge_async"
    assert all(one["replaying"] is False and one["at"] for one in root)
    children = records(shell, "one", "child")
    assert sorted(one["text"] for one in children) == ["charging 1", "charging 2", "child 1", "child 2"]
    assert len({one["action"] for one in children}) == 2
    text = shell("logs", "one", "child")
    assert sorted(text.stdout.splitlines()) == ["charging 1", "charging 2", "child 1", "child 2"]
    assert re.search(r"== w\.child, action \d+, attempt 1", text.stderr)
    assert re.search(r"\d\d:\d\d:\d\d INFO shop: order 7\n", shell("logs", "one", "0").stdout)
    wrong = shell("logs", "one", "absent")
    assert wrong.returncode == 2
    assert "no task or container 'absent'" in wrong.stderr


def test_a_replay_keeps_nothing_twice_and_perdures_own_logger_is_silent(shell: Shell) -> None:
    """TL1: a run is killed half-way, then resumed. Variants: killed twice; the terminal of the resumed run."""
    for life in (1, 2):
        process = shell.start("run", "w.py", "main", "--wait", "--name", "one")
        until_kept(shell, "one", "half")
        wait_for(lambda life=life: [one["text"] for one in records(shell, "one")].count("half") == life)  # type: ignore[misc]
        process.send_signal(signal.SIGKILL)
        process.communicate()
    (shell.path / "go").touch()
    done = shell("resume", "one")
    assert done.returncode == 0
    assert "by perdure.log" not in done.stderr
    found = records(shell, "one", "main")
    texts = [one["text"].partition("\n")[0] for one in found]
    for text in ("begin", "order 7", "by perdure.log", "ab", "it failed", "end"):
        assert texts.count(text) == 1, texts
    # Printed behind the last recorded outcome, so each life prints it again.
    assert texts.count("half") == 3
    assert sorted({one["attempt"] for one in found}) == [1, 2, 3]


def test_attempts_have_logs_of_their_own(shell: Shell) -> None:
    assert shell("run", "w.py", "flaky", "--name", "f").returncode == 0
    kept = [one for one in records(shell, "f") if one["source"] == "stdout"]
    assert [(one["attempt"], one["text"]) for one in kept] == [(1, "attempt 1"), (2, "attempt 2")]


def test_a_pool_child_keeps_what_its_body_prints(shell: Shell) -> None:
    assert shell("run", "w.py", "calls_pool", "--name", "p").returncode == 0
    kept = records(shell, "p", "elsewhere")
    assert [one["text"] for one in kept] == ["in a pool child 3", "pool child logs"]


def test_a_worker_keeps_logs_which_can_be_followed(shell: Shell) -> None:
    worker = shell.start("serve", "w.py")
    try:
        assert shell("submit", "w.py", "main", "--wait", "--name", "s").returncode == 0
        following = shell.start("logs", "s", "main", "-f")
        assert following.stdout is not None
        while following.stdout.readline() != "half\n":
            assert following.poll() is None
        (shell.path / "go").touch()
        rest, errors = following.communicate(timeout=60)
        assert rest.endswith("charging later 2\nend\n"), errors
        assert "ValueError: shown" in rest
    finally:
        worker.kill()
        worker.communicate()


def test_an_attempt_keeps_its_newest_records(shell: Shell) -> None:
    """TL3: what is on disk is bounded, and the newest part is there without a gap."""
    text = "x" * 1000
    assert shell("run", "w.py", "much", "--lines", "6000", "--text", text, "--name", "m").returncode == 0
    files = list((shell.path / ".perdure").glob("perdure.db-logs/*/*"))
    assert sorted(file.name for file in files) == ["0.1.jsonl", "0.1.jsonl.1"]
    assert sum(file.stat().st_size for file in files) <= task_logs.ATTEMPT_BYTES
    kept = [int(one["text"].split()[0]) for one in records(shell, "m")]
    assert kept == list(range(kept[0], 6000))
    assert len(kept) > 2000
    assert all(file.stat().st_mode & 0o777 == 0o600 for file in files)


def test_what_does_not_belong_to_the_task_is_shown_and_not_kept(shell: Shell) -> None:
    done = shell("run", "w.py", "threads", "--name", "t")
    assert "stray" in done.stderr
    assert "past Python" in done.stderr
    assert records(shell, "t") == []
    assert shell("logs", "t").stderr == "run t has written nothing\n"


def test_a_directory_that_cannot_be_written_costs_the_records_and_nothing_else(shell: Shell) -> None:
    """TL2."""
    (shell.path / ".perdure").mkdir()
    (shell.path / ".perdure" / "perdure.db-logs").write_text("in the way")
    done = shell("run", "w.py", "main", "--name", "one")
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert done.stderr.count("what tasks print cannot be kept") == 1


def test_gc_removes_logs_with_their_run(shell: Shell) -> None:
    assert shell("run", "w.py", "main", "--name", "one").returncode == 0
    assert list((shell.path / ".perdure").glob("perdure.db-logs/*"))
    assert shell("gc", "--older-than", "0s").returncode == 0
    assert not list((shell.path / ".perdure").glob("perdure.db-logs/*"))


def test_the_files_of_all_tasks_are_bounded(tmp_path: Path) -> None:
    """TL3: the files that were written first go; logs of containers stay."""
    for n in range(5):
        (tmp_path / f"{n}").mkdir()
        (tmp_path / f"{n}" / "0.1.jsonl").write_bytes(b"x" * 100)
        (tmp_path / f"{n}" / "1.1.log").write_bytes(b"x" * 1000)  # of a container: has a bound of its own
        time.sleep(0.01)
    assert task_logs.bound(str(tmp_path), 250) == 300
    left = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.glob("*/*.jsonl"))
    assert left == ["3/0.1.jsonl", "4/0.1.jsonl"]
    assert len(list(tmp_path.glob("*/*.log"))) == 5


def test_a_damaged_line_is_left_out() -> None:
    data = b'{"at":1,"text":"a","source":"stdout"}\n\x00\x00{"at"\n{"at":2,"text":"b","source":"log","level":"INFO"}\n'
    assert records_of(data) == [TaskRecord(1, "a", "stdout"), TaskRecord(2, "b", "log", "INFO")]


# -- in this process -------------------------------------------------------------------------------------------

env = perdure.TaskEnvironment("logs_here")
seen: list[Any] = []


class Collecting(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        seen.append(record)


@env.task
def logs_here() -> int:
    logging.getLogger("here").warning("inside", extra={"run": "of the user's own"})
    return 1


def test_records_of_the_users_handlers_know_their_run(tmp_path: Path) -> None:
    perdure.init(store=tmp_path / "logs.db")
    handler = Collecting()
    handler.addFilter(perdure.ReplayFilter())
    logging.getLogger("here").addHandler(handler)
    try:
        perdure.with_runcontext(name="known").run(logs_here)
        logging.getLogger("here").warning("outside")
    finally:
        logging.getLogger("here").removeHandler(handler)
        perdure.init()
    inside, outside = seen[-2:]
    known: Any = inside
    assert (known.perdure_run, known.perdure_action, known.perdure_attempt) == ("known", 0, 1)
    assert known.perdure_replaying is False
    assert known.run == "of the user's own"
    assert outside.perdure_run is None


def test_a_wrapped_stream_is_the_stream_to_code_that_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    stream = sys.stdout
    assert task_logs._Tee(stream, "stdout").encoding == stream.encoding
    wrapped: Any = task_logs._Tee(stream, "stdout")
    assert wrapped.isatty() == stream.isatty()
    assert wrapped.buffer is stream.buffer
    assert print("passed on", file=wrapped) is None


def test_structlog_knows_the_run_and_is_silent_on_replay(shell: Shell) -> None:
    shell.write("s.py", """
        import os, time, perdure, structlog
        from perdure.integrations.structlog import of_task
        structlog.configure(processors=[of_task, structlog.processors.JSONRenderer()])
        log = structlog.get_logger()
        env = perdure.TaskEnvironment(name="s")
        @perdure.trace
        def step() -> int:
            return 1
        @env.task
        def main() -> int:
            log.info("begun", action="own")
            step()
            log.info("waits")
            while not os.path.exists("go"):
                time.sleep(0.02)
            log.info("goes on")
            return step()
    """)  # fmt: skip
    process = shell.start("run", "s.py", "main", "--name", "one")
    wait_for(lambda: "waits" in shell("logs", "one").stdout)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (shell.path / "go").touch()
    done = shell("resume", "one")
    assert done.returncode == 0, done.stderr
    assert "begun" not in done.stderr
    events = [json.loads(one["text"]) for one in records(shell, "one")]
    assert events[0] == {"event": "begun", "run": "one", "action": "own", "attempt": 1}
    assert events[-1] == {"event": "goes on", "run": "one", "action": 0, "attempt": 2}

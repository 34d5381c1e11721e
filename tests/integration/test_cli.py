"""The `perdure` command as people and scripts meet it: real processes, real signals, exit codes, stdout and stderr."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path
from typing import Any

import pytest

from perdure.api.looking import Node, _Grown
from perdure.cli import commands
from perdure.cli.failures import users_frames
from perdure.cli.output import jsonable, span
from perdure.core.model import Entry, Kind, NewRun, Result, Status
from perdure.core.recovering import work_of
from perdure.store._rows import submitted

WORKFLOWS = '''
import asyncio, os, time
from dataclasses import dataclass
import perdure
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="etl")

def log(word):
    fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{word}\\n".encode())
    os.close(fd)

@dataclass
class Item:
    id: int
    tags: list[str]

@perdure.trace
def step(n: int) -> int:
    log(f"step{n}")
    return n * n

@env.task
def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    A second paragraph.
    """
    print("adding", a, b)
    return a + b

@env.task
def echo(item: Item) -> Item:
    return item

@env.task
def text() -> str:
    return "plain text"

@env.task
def nothing() -> None:
    step(1)

def helper():
    raise ValueError("the file is\\nnot there")

@env.task
def fails() -> int:
    step(1)
    return helper()

@env.task
def fixable() -> int:
    step(1)
    if not os.path.exists("fixed"):
        raise RuntimeError("not fixed yet")
    return step(2)

@env.task
async def child(n: int) -> int:
    x = await step.aio(n)
    await durable_sleep.aio(0.3 if n == 2 else 0.01)
    if n == 2 and not os.path.exists("fixed"):
        raise RuntimeError("no two yet")
    y = await step.aio(n + 100)
    return x + y

@env.task
async def tree(n: int = 3) -> list[int]:
    t = await durable_time.aio()
    try:
        await child(2) if n < 0 else None
    except RuntimeError:
        pass
    with perdure.group("all"):
        return list(await asyncio.gather(*(child(i) for i in range(n))))

@env.task(retries=1)
def flaky() -> int:
    if step(7) and perdure.ctx().attempt == 1:
        raise OSError("first time")
    return 7

@env.task
def slow(s: float = 60) -> str:
    step(1)
    durable_sleep(s)
    step(2)
    return "woke"

@env.task
def blocked() -> int:
    step(1)
    time.sleep(60)
    return 1

@env.task
async def stubborn() -> int:
    step.aio  # keep the loop free
    await step.aio(1)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
'''


class Shell:
    """A directory with a workflow file and a store, and the command to run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
        self.write("wf.py", WORKFLOWS)

    def write(self, name: str, text: str) -> None:
        (self.path / name).write_text(textwrap.dedent(text))

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perdure", *args], cwd=self.path, env=self.env | env, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip

    def json(self, *args: str) -> Any:
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "perdure", *args], cwd=self.path, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def log(self) -> list[str]:
        file = self.path / "log"
        return file.read_text().split() if file.exists() else []

    def until_logged(self, word: str) -> None:
        for _ in range(1500):
            if word in self.log():
                return
            time.sleep(0.02)
        raise AssertionError(f"{word} is not in {self.log()}")

    def until_status(self, name: str, status: str) -> None:
        for _ in range(50):
            if any(run["name"] == name and run["status"] == status for run in self.json("ls")):
                return
            time.sleep(0.1)
        raise AssertionError(self("ls").stdout)


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def last(text: str) -> str:
    return text.splitlines()[-1]


# -- run -------------------------------------------------------------------------------------------------------


def test_the_result_goes_to_stdout_and_everything_else_to_stderr(shell: Shell) -> None:
    done = shell("run", "wf.py", "add", "--name", "sum", "--a", "1")
    assert (done.returncode, done.stdout) == (0, "3\n")
    assert "adding 1 2" in done.stderr
    assert "run sum started: etl.add" in done.stderr
    assert last(done.stderr).startswith("run sum succeeded: 0 replayed, 0 executed")


def test_json_holds_name_status_and_result(shell: Shell) -> None:
    found = shell.json("run", "wf.py", "echo", "--name", "e", "--item", '{"id": 1, "tags": ["é"]}')
    assert (found["name"], found["task"], found["status"]) == ("e", "etl.echo", "SUCCEEDED")
    assert found["result"] == {"id": 1, "tags": ["é"]}
    assert found["error"] is None


def test_text_is_printed_as_it_is_and_structures_as_python_writes_them(shell: Shell) -> None:
    assert shell("run", "wf.py", "text").stdout == "plain text\n"
    assert shell("run", "wf.py", "nothing", "-q").stdout == "None\n"
    done = shell("run", "wf.py", "echo", "--item", '{"id": 1, "tags": []}', "-q")
    assert done.stdout == "Item(id=1, tags=[])\n"
    assert done.stderr == ""


def test_running_a_finished_name_again_gives_the_recorded_result(shell: Shell) -> None:
    assert shell("run", "wf.py", "nothing", "--name", "x").returncode == 0
    again = shell("run", "wf.py", "nothing", "--name", "x")
    assert (again.returncode, again.stdout) == (0, "None\n")
    assert "recorded result" in again.stderr
    assert shell.log() == ["step1"]


def test_a_failure_shows_the_users_own_frames_and_how_to_go_on(shell: Shell) -> None:
    for again in (False, True):
        done = shell("run", "wf.py", "fails", "--name", "f")
        assert (done.returncode, done.stdout) == (1, "")
        assert "in fails" in done.stderr
        assert "in helper" in done.stderr
        assert "site-packages" not in done.stderr
        assert "perdure/core" not in done.stderr
        lines = done.stderr.splitlines()
        assert lines[-2].startswith("run f failed: ValueError: the file is")
        assert ("recorded before" in lines[-2]) is again
        assert lines[-1].endswith("perdure resume f")
    assert shell.log() == ["step1"]


def test_json_of_a_failure(shell: Shell) -> None:
    done = shell("run", "wf.py", "fails", "--name", "f", "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 1
    assert (found["name"], found["status"], found["result"]) == ("f", "FAILED", None)
    assert found["error"]["type"] == "ValueError"
    assert found["error"]["message"] == "the file is\nnot there"


def test_a_file_alone_lists_its_tasks(shell: Shell) -> None:
    done = shell("run", "wf.py")
    assert done.returncode == 2  # nothing was run
    assert "add --a [--b]\n    Add two numbers." in done.stdout
    assert shell("run", "wf.py", "--help").returncode == 0
    listed = json.loads(shell("run", "wf.py", "--json").stdout)
    add = next(task for task in listed if task["name"] == "add")
    assert add["inputs"][1] == {"name": "b", "option": "--b", "type": "int", "required": False, "default": 2}


def test_help_behind_a_task_shows_its_docstring_and_inputs(shell: Shell) -> None:
    done = shell("run", "wf.py", "add", "--help")
    assert done.returncode == 0
    assert "  Add two numbers.\n\n  A second paragraph." in done.stdout
    assert "--a int  required" in done.stdout
    assert "--b int  default: 2" in done.stdout


def test_retries_are_told_on_stderr(shell: Shell) -> None:
    done = shell("run", "wf.py", "flaky")
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert "etl.flaky failed (attempt 1 of 2), trying again: OSError: first time" in done.stderr
    assert shell.log() == ["step7"]


def test_subprocesses_of_a_task_do_not_write_into_the_result(shell: Shell) -> None:
    shell.write("sub.py", """
        import subprocess, sys, perdure
        env = perdure.TaskEnvironment(name="s")
        print("while loading")
        @env.task
        def main() -> int:
            subprocess.run([sys.executable, "-c", "print('from the child')"], check=True)
            return 1
    """)  # fmt: skip
    done = shell("run", "sub.py", "main")
    assert done.stdout == "1\n"
    assert "from the child" in done.stderr
    assert "while loading" in done.stderr


def test_dash_m_and_version(shell: Shell) -> None:
    import perdure

    assert shell("--version").stdout == f"perdure {perdure.__version__}\n"


# -- mistakes --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["run"], "perdure run FILE TASK"),
        (["run", "no.py", "main"], "no.py: no such file"),
        (["run", "log", "main"], "log is not a Python file (.py)"),
        (["run", "wf.py", "nope"], "wf.py holds no task 'nope'; its tasks are: add, blocked,"),
        (["run", "wf.py", "helper"], "helper in wf.py is not a task (function)"),
        (["run", "empty.py"], "empty.py holds no tasks"),
        (["run", "wf.py", "add"], "missing input of etl.add: --a (int)"),
        (["run", "wf.py", "add", "--a", "x"], "input --a of etl.add is int, not 'x'"),
        (["run", "wf.py", "add", "--a", "1", "--c", "2"], "no such input: --c. etl.add takes: --a (int), --b (int)"),
        (["run", "wf.py", "add", "1"], "unexpected '1'; inputs are given by name"),
        (["run", "--c", "wf.py", "add"], "no such option: --c"),
        (["run", "wf.py", "add", "--a", "1", "--name", "-x"], "begins with no dash"),
        (["run", "guard.py", "main"], 'if __name__ == "__main__":'),
        (["run", "wf.py", "text", "--store", "mongo://x"], "no store is called 'mongo'"),
        (["run", "wf.py", "text", "--store", "wf.py"], "wf.py is not a perdure store"),
        (["resume", "nope"], "no run is called 'nope'"),
        (["resume"], "name runs, or say --all"),
        (["resume", "--all", "x"], "name runs, or say --all"),
        (["abort", "nope"], "no run is called 'nope'"),
        (["abort"], "Missing argument 'RUN...'"),
        (["rerun", "nope"], "no run is called 'nope'"),
        (["show", "nope"], "no run is called 'nope'"),
        (["ls", "--status", "LOST"], "'LOST' is not one of"),
        (["ls", "--limit", "-1"], "-1 is not in the range"),
        (["lst"], "No such command 'lst'"),
    ],
)
def test_a_mistake_is_one_message_with_exit_code_2(shell: Shell, args: list[str], message: str) -> None:
    (shell.path / "log").touch()
    shell.write("empty.py", "")
    shell.write("guard.py", """
        import perdure
        env = perdure.TaskEnvironment(name="g")
        @env.task
        def main() -> int:
            return 1
        perdure.run(main)
    """)  # fmt: skip
    done = shell(*args)
    assert message in done.stderr
    assert done.returncode == (1 if "not a perdure store" in message else 2)
    assert done.stdout == ""
    assert "Traceback" not in done.stderr


def test_an_error_in_the_users_file_shows_where_and_nothing_of_ours(shell: Shell) -> None:
    shell.write("broken.py", "import perdure\ndef f():\n    return 1 / 0\nf()\n")
    done = shell("run", "broken.py", "main")
    assert done.returncode == 2
    assert 'broken.py", line 3, in f' in done.stderr
    assert "importlib" not in done.stderr
    assert "loading.py" not in done.stderr
    assert last(done.stderr) == "Error: broken.py cannot be imported: ZeroDivisionError: division by zero"
    shell.write("broken.py", "def f(:\n")
    done = shell("run", "broken.py", "main")
    assert done.returncode == 2
    assert 'broken.py", line 1' in done.stderr
    assert "SyntaxError" in last(done.stderr)
    shell.write("broken.py", "raise SystemExit(3)\n")
    assert last(shell("run", "broken.py", "main").stderr).endswith("while it was imported (exit code 3)")


def test_a_name_with_other_inputs_shows_both(shell: Shell) -> None:
    shell("run", "wf.py", "add", "--name", "x", "--a", "1")
    done = shell("run", "wf.py", "add", "--name", "x", "--a", "2")
    assert done.returncode == 2
    assert "it is:     etl.add(a=1)" in done.stderr
    assert "asked for: etl.add(a=2)" in done.stderr


def test_a_store_that_cannot_be_made_is_one_message(shell: Shell) -> None:
    done = shell("run", "wf.py", "text", "--store", "missing/dir/x.db")
    assert done.returncode == 1
    assert "missing/dir of the store does not exist" in done.stderr
    assert "Traceback" not in done.stderr


def test_looking_makes_no_store(shell: Shell) -> None:
    done = shell("ls")
    assert (done.returncode, done.stdout) == (0, "")
    assert "no runs in" in done.stderr
    assert shell.json("ls") == []
    assert shell("resume", "--all").returncode == 0
    shell("show", "x")
    assert not (shell.path / ".perdure").exists()


def test_output_that_cannot_be_written(shell: Shell) -> None:
    command = f"{sys.executable} -m perdure run wf.py text --name t"
    full = subprocess.run(
        ["sh", "-c", f"{command} > /dev/full"], cwd=shell.path, env=shell.env, capture_output=True, text=True
    )
    assert full.returncode == 1
    assert "No space left" in full.stderr
    assert "Traceback" not in full.stderr
    piped = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {sys.executable} -m perdure show t | true"],
        cwd=shell.path, env=shell.env, capture_output=True, text=True,
    )  # fmt: skip
    assert "Traceback" not in piped.stderr
    assert shell("run", "wf.py", "text", "--name", "t").stdout == "plain text\n"


def test_a_closed_stdout_and_stderr_are_not_taken_by_the_next_file(shell: Shell) -> None:
    shell.write("fds.py", """
        import os, time, perdure
        env = perdure.TaskEnvironment(name="f")
        @env.task
        def main() -> int:
            os.write(2, bytes([15]))  # not into the pipe through which SIGTERM, number 15, wakes the watchdog
            time.sleep(3)
            return os.open("data", os.O_WRONLY | os.O_CREAT)
    """)  # fmt: skip
    command = f"{sys.executable} -m perdure run fds.py main --name x >&- 2>&-"
    assert subprocess.run(["sh", "-c", command], cwd=shell.path, env=shell.env).returncode == 0
    assert shell.json("resume", "x")["result"] > 2


# -- signals ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("task", ["slow", "blocked", "stubborn"])
def test_a_signal_ends_promptly_and_the_last_line_says_how_to_go_on(
    shell: Shell, task: str, number: signal.Signals
) -> None:
    process = shell.start("run", "wf.py", task, "--name", "x")
    shell.until_logged("step1")
    began = time.monotonic()
    process.send_signal(number)
    out, err = process.communicate(timeout=30)
    assert time.monotonic() - began < 6
    assert process.returncode == 130
    assert last(err) == "run x is interrupted; to continue: perdure resume x"
    assert "Traceback" not in err
    assert out == ""
    assert [run["status"] for run in shell.json("ls")] == ["INTERRUPTED"]


def test_a_signal_also_ends_a_background_job_whose_shell_ignores_sigint(shell: Shell) -> None:
    script = (
        f"{sys.executable} -m perdure run wf.py slow --name x & p=$!; "
        "while ! grep -q step1 log; do sleep 0.1; done; kill -INT $p; wait $p"
    )
    done = subprocess.run(
        ["sh", "-c", script], cwd=shell.path, env=shell.env, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 130


def test_a_signal_with_json_still_gives_json(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--json")
    shell.until_logged("step1")
    process.terminate()
    out, err = process.communicate(timeout=30)
    assert json.loads(out)["status"] == "INTERRUPTED"
    assert "perdure resume x" in last(err)


def test_a_signal_while_the_file_is_loaded(shell: Shell) -> None:
    shell.write("loads.py", "import time\nopen('log', 'w').write('here')\ntime.sleep(60)\n")
    process = shell.start("run", "loads.py", "main")
    shell.until_logged("here")
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=10)
    assert process.returncode == 130
    assert "Traceback" not in err


def test_the_hint_names_the_store_where_it_is_needed(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "a b", "--store", "other.db")
    shell.until_logged("step1")
    process.terminate()
    _, err = process.communicate(timeout=30)
    assert last(err).endswith("perdure resume 'a b' --store other.db")
    assert shell("ls", "--json", PERDURE_STORE="sqlite:///other.db").stdout.count('"a b"') == 1


def test_after_sigkill_the_same_command_carries_on(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--s", "4")
    shell.until_logged("step1")
    process.kill()
    process.wait()
    done = shell("run", "wf.py", "slow", "--name", "x", "--s", "4")
    assert (done.returncode, done.stdout) == (0, "woke\n")
    assert "run x continues: etl.slow" in done.stderr
    assert "1 replayed, 2 executed" in last(done.stderr)
    assert shell.log() == ["step1", "step2"]


def test_a_mismatch_is_one_message_and_leaves_the_run_as_it_was(shell: Shell) -> None:
    shell.write("moody.py", """
        import os, perdure
        from perdure.extras import durable_sleep
        from wf import step
        env = perdure.TaskEnvironment(name="m")
        @env.task
        def main() -> int:
            step(int(os.environ["MOOD"]))
            durable_sleep(5)
            return 1
    """)  # fmt: skip
    shell.env["MOOD"] = "1"
    process = shell.start("run", "moody.py", "main", "--name", "x")
    shell.until_status("x", "SLEEPING")
    process.kill()
    process.wait()
    done = shell("resume", "x", "--json", MOOD="2")
    assert done.returncode == 1
    assert "expected: trace step" in done.stderr
    assert "Traceback" not in done.stderr
    found = json.loads(done.stdout)
    assert (found["name"], found["task"], found["status"]) == ("x", "m.main", "INTERRUPTED")
    assert shell("resume", "x").stdout == "1\n"
    assert shell.log() == ["step1"]


# -- resume ----------------------------------------------------------------------------------------------------


def interrupt(shell: Shell, name: str, *args: str) -> None:
    """Start a run of `slow` and kill it after its first step."""
    (shell.path / "log").unlink(missing_ok=True)
    process = shell.start("run", "wf.py", "slow", "--name", name, *args)
    shell.until_logged("step1")
    time.sleep(0.2)
    process.kill()
    process.wait()


def test_resume_continues_what_was_interrupted(shell: Shell) -> None:
    interrupt(shell, "x", "--s", "3")
    done = shell("resume", "x")
    assert (done.returncode, done.stdout) == (0, "woke\n")
    assert shell.log() == ["step1", "step2"]
    (shell.path / "wf.py").unlink()  # nothing is executed, so nothing is loaded
    again = shell.json("resume", "x")
    assert (again["name"], again["status"], again["result"]) == ("x", "SUCCEEDED", "woke")


def test_resume_all_leaves_failed_ones_alone(shell: Shell) -> None:
    interrupt(shell, "a", "--s", "3")
    interrupt(shell, "b", "--s", "3.1")
    assert shell("run", "wf.py", "fixable", "--name", "f").returncode == 1
    found = shell.json("resume", "--all")
    assert [(run["name"], run["status"]) for run in found] == [("a", "SUCCEEDED"), ("b", "SUCCEEDED")]
    statuses = {run["name"]: run["status"] for run in shell.json("ls")}
    assert statuses == {"a": "SUCCEEDED", "b": "SUCCEEDED", "f": "FAILED"}
    assert shell("resume", "--all").returncode == 0


def test_resume_continues_a_failed_run_that_is_named(shell: Shell) -> None:
    assert shell("run", "wf.py", "fixable", "--name", "f").returncode == 1
    assert shell("resume", "f").returncode == 1
    (shell.path / "fixed").touch()
    done = shell("resume", "f")
    assert (done.returncode, done.stdout) == (0, "4\n")
    assert shell.log() == ["step1", "step2"]


def test_resume_of_several_tells_them_apart_and_one_mistake_stops_no_other(shell: Shell) -> None:
    interrupt(shell, "a", "--s", "3")
    shell("run", "wf.py", "text", "--name", "t")
    done = shell("resume", "a", "nope", "t")
    assert done.stdout == "a: woke\nt: plain text\n"
    assert "no run is called 'nope'" in done.stderr
    assert done.returncode == 2


def test_resume_needs_code_that_is_ours_or_named(shell: Shell, tmp_path_factory: pytest.TempPathFactory) -> None:
    interrupt(shell, "x", "--s", "3")
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    os.rename(shell.path / "wf.py", elsewhere / "wf.py")
    done = shell("resume", "x")
    assert done.returncode == 2
    assert "wf.py, is gone. If it has moved: perdure resume x --file" in done.stderr
    done = shell("resume", "x", "--file", str(elsewhere / "wf.py"))
    assert (done.returncode, done.stdout) == (0, "woke\n"), done.stderr


def test_a_live_run_is_not_driven_twice(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x")
    shell.until_logged("step1")
    for command in (("resume", "x"), ("run", "wf.py", "slow", "--name", "x"), ("rerun", "x", "--recover")):
        done = shell(*command)
        assert done.returncode == 1
        assert f"by process {process.pid} on" in last(done.stderr)
        assert "Traceback" not in done.stderr
    shell.until_status("x", "SLEEPING")
    assert [run["driven_by"]["pid"] for run in shell.json("ls")] == [process.pid]
    process.kill()
    process.communicate()


# -- abort -----------------------------------------------------------------------------------------------------


def test_abort_ends_a_live_run_where_it_is_driven(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x")
    shell.until_logged("step1")
    assert shell("abort", "x").returncode == 0
    _, err = process.communicate(timeout=20)
    assert process.returncode == 1
    assert "was aborted" in last(err)
    assert "Traceback" not in err
    assert shell.json("ls")[0]["status"] == "ABORTED"
    assert shell.json("abort", "x") == [{"name": "x", "status": "ABORTED"}]
    done = shell("resume", "x")
    assert done.returncode == 1
    assert "perdure rerun x --recover" in last(done.stderr)


def test_abort_of_a_finished_run_is_a_mistake(shell: Shell) -> None:
    shell("run", "wf.py", "text", "--name", "t")
    done = shell("abort", "t")
    assert done.returncode == 2
    assert "has ended already, it is SUCCEEDED" in done.stderr


# -- rerun -----------------------------------------------------------------------------------------------------


def test_rerun_is_a_new_run_with_the_same_inputs(shell: Shell) -> None:
    shell("run", "wf.py", "add", "--name", "x", "--a", "5")
    done = shell("rerun", "x", "--name", "y")
    assert (done.returncode, done.stdout) == (0, "7\n")
    assert "adding 5 2" in done.stderr
    assert [run["name"] for run in shell.json("ls")] == ["y", "x"]
    assert shell("rerun", "x", "--name", "x").returncode == 2


def test_rerun_recover_reuses_what_succeeded(shell: Shell) -> None:
    assert shell("run", "wf.py", "tree", "--name", "x").returncode == 1
    before = sorted(shell.log())
    assert before == ["step0", "step1", "step100", "step101", "step2"]
    (shell.path / "fixed").touch()
    done = shell("rerun", "x", "--recover", "--name", "y")
    assert (done.returncode, done.stdout) == (0, "[10000, 10202, 10408]\n"), done.stderr
    assert "run y started: etl.tree" in done.stderr
    # Nothing but what came behind the failure, although it lies inside a child that had failed.
    assert sorted(shell.log()) == sorted([*before, "step102"])
    tree = shell.json("show", "y")
    assert tree["recovers"] == "x"
    assert tree["attempts"] == 1
    children = [node for node in tree["actions"] if node["kind"] == "task"]
    assert [(child["status"], child["reused"]) for child in children if child["inputs"] != {"n": 2}] == [
        ("SUCCEEDED", True), ("SUCCEEDED", True),
    ]  # fmt: skip
    open_child = next(child for child in children if child["inputs"] == {"n": 2})
    assert (open_child["status"], open_child["attempts"]) == ("SUCCEEDED", 1)
    assert [(node["name"], node["reused"]) for node in open_child["actions"]] == [
        ("step", True), ("durable_sleep", True), ("step", False),
    ]  # fmt: skip
    # The same command again finds the run that it has made.
    assert shell("rerun", "x", "--recover", "--name", "y").stdout == "[10000, 10202, 10408]\n"
    assert sorted(shell.log()) == sorted([*before, "step102"])


def test_rerun_recover_of_a_recovered_run(shell: Shell) -> None:
    assert shell("run", "wf.py", "tree", "--name", "x").returncode == 1
    before = sorted(shell.log())
    assert shell("rerun", "x", "--recover", "--name", "y").returncode == 1
    assert sorted(shell.log()) == before
    (shell.path / "fixed").touch()
    assert shell("rerun", "y", "--recover", "--name", "z").stdout == "[10000, 10202, 10408]\n"
    assert sorted(shell.log()) == sorted([*before, "step102"])


def test_rerun_recover_tries_failures_again_that_the_code_had_caught(shell: Shell) -> None:
    shell.write("caught.py", """
        import os, perdure
        from wf import step
        env = perdure.TaskEnvironment(name="c")
        @perdure.trace
        def attempt() -> str:
            if not os.path.exists("fixed"):
                raise OSError("down")
            return "up"
        @env.task
        def main() -> str:
            step(1)
            try:
                state = attempt()
            except OSError:
                state = "down"
            step(2)
            if not os.path.exists("fixed"):
                raise RuntimeError(state)
            return state
    """)  # fmt: skip
    assert "RuntimeError: down" in shell("run", "caught.py", "main", "--name", "x").stderr
    (shell.path / "fixed").touch()
    assert shell("rerun", "x", "--recover").stdout == "up\n"
    assert shell.log() == ["step1", "step2"]


def test_rerun_recover_of_an_aborted_run_does_not_inherit_its_deadline(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--s", "5")
    shell.until_logged("step1")
    shell("abort", "x")
    process.communicate(timeout=20)
    began = time.monotonic()
    done = shell("rerun", "x", "--recover")
    assert done.stdout == "woke\n"
    assert time.monotonic() - began > 5
    assert shell.log() == ["step1", "step2"]


def test_rerun_recover_killed_in_the_middle_is_resumed_with_its_work(shell: Shell) -> None:
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--s", "5")
    shell.until_logged("step1")
    shell("abort", "x")
    process.communicate(timeout=20)
    process = shell.start("rerun", "x", "--recover", "--name", "y")
    shell.until_status("y", "SLEEPING")
    process.kill()
    process.wait()
    assert shell("resume", "y").stdout == "woke\n"
    assert shell.log() == ["step1", "step2"]


def test_rerun_recover_killed_before_it_had_anything_is_still_recovered(shell: Shell) -> None:
    assert shell("run", "wf.py", "fixable", "--name", "x").returncode == 1
    shell.write("half.py", """
        import os, perdure.core.driver as driver
        driver.work_of = lambda *args: os._exit(9)
        from perdure.cli import main
        main()
    """)  # fmt: skip
    half = subprocess.run(
        [sys.executable, "half.py", "rerun", "x", "--recover", "--name", "y"], cwd=shell.path, env=shell.env
    )
    assert half.returncode == 9
    (shell.path / "fixed").touch()
    assert shell("resume", "y").stdout == "4\n"
    assert shell.log() == ["step1", "step2"]


# -- ls, show --------------------------------------------------------------------------------------------------


def test_ls_lists_newest_first_with_times_in_utc(shell: Shell) -> None:
    shell("run", "wf.py", "text", "--name", "a")
    shell("run", "wf.py", "fails", "--name", "b")
    found = shell.json("ls")
    assert [(run["name"], run["task"], run["status"]) for run in found] == [
        ("b", "etl.fails", "FAILED"), ("a", "etl.text", "SUCCEEDED"),
    ]  # fmt: skip
    assert all(run["created_at"].endswith("+00:00") and run["ended_at"] > run["created_at"] for run in found)
    assert [run["name"] for run in shell.json("ls", "--status", "failed")] == ["b"]
    assert [run["name"] for run in shell.json("ls", "--limit", "1")] == ["b"]
    table = shell("ls", "--limit", "1")
    assert table.stdout.splitlines()[0].split() == ["NAME", "TASK", "STATUS", "CREATED", "TOOK", "INPUTS"]
    assert table.stdout.splitlines()[1].split()[:3] == ["b", "etl.fails", "FAILED"]
    assert "more than 1" in table.stderr


def test_ls_finds_interrupted_runs_among_those_stored_as_running(shell: Shell) -> None:
    interrupt(shell, "x", "--s", "60")
    shell("run", "wf.py", "text", "--name", "t")
    assert [run["name"] for run in shell.json("ls", "--status", "INTERRUPTED")] == ["x"]
    assert shell.json("ls", "--status", "RUNNING") == []
    assert shell.json("ls", "--status", "SLEEPING") == []


def test_show_nests_actions_and_tells_all_about_them(shell: Shell) -> None:
    shell("run", "wf.py", "tree", "--name", "x", "--n", "3")
    tree = shell.json("show", "x")
    assert (tree["name"], tree["task"], tree["status"], tree["attempts"]) == ("x", "etl.tree", "FAILED", 1)
    assert tree["error"] == {"type": "RuntimeError", "message": "no two yet"}
    reading, *children = tree["actions"]
    assert (reading["kind"], reading["status"]) == ("time", "SUCCEEDED")
    assert {child["group"] for child in children} == {"all"}
    done = next(child for child in children if child["inputs"] == {"n": 0})
    assert (done["kind"], done["status"], done["attempts"], done["outcome"]) == ("task", "SUCCEEDED", 1, 10000)
    assert [node["kind"] for node in done["actions"]] == ["trace", "sleep", "trace"]
    assert done["duration"] >= 0.01
    assert done["actions"][1]["until"] > done["start"]
    failed = next(child for child in children if child["inputs"] == {"n": 2})
    assert (failed["status"], failed["error"]["type"]) == ("FAILED", "RuntimeError")
    assert [node["status"] for node in failed["actions"]] == ["SUCCEEDED", "SUCCEEDED"]
    table = shell("show", "x").stdout
    assert "  etl.child [all]" in table
    assert "    durable_sleep [all]" in table


def test_show_of_attempts_and_interruptions(shell: Shell) -> None:
    shell("run", "wf.py", "flaky", "--name", "f")
    tree = shell.json("show", "f")
    assert (tree["attempts"], [node["reused"] for node in tree["actions"]]) == (2, [True])
    interrupt(shell, "x")
    tree = shell.json("show", "x")
    assert tree["status"] == "INTERRUPTED"
    assert [(node["kind"], node["status"]) for node in tree["actions"]] == [
        ("trace", "SUCCEEDED"), ("sleep", "INTERRUPTED"),
    ]  # fmt: skip
    shell("abort", "x")
    assert [node["status"] for node in shell.json("show", "x")["actions"]] == ["SUCCEEDED", "ABORTED"]


def test_show_of_generators_cancellations_and_timeouts(shell: Shell) -> None:
    shell.write("kinds.py", """
        import asyncio, perdure
        from perdure.extras import durable_sleep
        env = perdure.TaskEnvironment(name="k")
        @perdure.trace
        async def numbers(n: int):
            for i in range(n):
                yield i
        @perdure.trace
        async def never() -> None:
            await asyncio.sleep(60)
        @env.task
        async def main() -> int:
            total = 0
            async for i in numbers(3):
                total += i
            async for i in numbers(5):
                break
            try:
                await asyncio.wait_for(never(), 0.05)
            except TimeoutError:
                pass
            async with perdure.durable.timeout(60):
                await perdure.durable.uuid4.aio()
            try:
                async with perdure.durable.timeout(0.05):
                    await asyncio.sleep(60)
            except TimeoutError:
                pass
            return total
    """)  # fmt: skip
    done = shell("run", "kinds.py", "main", "--name", "k")
    assert (done.returncode, done.stdout) == (0, "3\n"), done.stderr
    nodes = [(node["kind"], node["status"], node["items"]) for node in shell.json("show", "k")["actions"]]
    assert sorted(nodes, key=str) == sorted([
        ("trace", "SUCCEEDED", 3), ("trace", "CLOSED", 1), ("trace", "CANCELLED", None), ("timeout", "NOT_FIRED", None),
        ("uuid", "SUCCEEDED", None), ("timeout", "FIRED", None),
    ], key=str)  # fmt: skip


def test_show_of_a_failure_that_was_taken_back_and_made_good(shell: Shell) -> None:
    assert shell("run", "wf.py", "tree", "--name", "x").returncode == 1
    (shell.path / "fixed").touch()
    assert shell("resume", "x").returncode == 0
    children = [node for node in shell.json("show", "x")["actions"] if node["inputs"] == {"n": 2}]
    assert [(child["status"], child["discarded"]) for child in children] == [("FAILED", True), ("SUCCEEDED", False)]
    # What the action did stands once, below its last outcome.
    assert [len(child["actions"]) for child in children] == [0, 3]


def test_show_tells_what_goes_on_from_what_was_left_behind(shell: Shell) -> None:
    shell.write("left.py", """
        import asyncio, perdure
        from perdure.extras import durable_sleep
        env = perdure.TaskEnvironment(name="l")
        @perdure.trace
        async def fails() -> None:
            await asyncio.sleep(0.2)
            raise ValueError("no")
        @env.task
        async def child() -> None:
            await asyncio.gather(durable_sleep.aio(60), fails())
        @env.task
        async def main() -> None:
            try:
                await child()
            except ValueError:
                await durable_sleep.aio(61)
    """)  # fmt: skip
    process = shell.start("run", "left.py", "main", "--name", "x")
    for _ in range(100):
        tree = json.loads(shell("show", "x", "--json").stdout or '{"actions": []}')
        if len(tree["actions"]) == 2:
            break
    child, sleep = tree["actions"]
    assert (tree["status"], sleep["kind"], sleep["status"]) == ("SLEEPING", "sleep", "SLEEPING")
    assert (child["status"], child["discarded"]) == ("FAILED", False)
    assert [(node["kind"], node["status"]) for node in child["actions"]] == [
        ("sleep", "UNFINISHED"), ("trace", "FAILED"),
    ]  # fmt: skip
    process.kill()
    process.communicate()


def test_show_leaves_out_the_middle_of_a_large_run_and_says_so(shell: Shell) -> None:
    shell.write("many.py", """
        import perdure
        env = perdure.TaskEnvironment(name="m")
        @perdure.trace
        def step(n: int) -> int:
            return n
        @env.task
        def main(n: int = 3000) -> int:
            return sum(step(i) for i in range(n))
    """)  # fmt: skip
    assert shell("run", "many.py", "main", "--name", "m").returncode == 0
    done = shell("show", "m", "--limit", "10")
    assert "… 2,991 more" in done.stdout
    assert "n=2999" in done.stdout
    assert "2,991 of 3,001 actions are left out" in done.stderr
    assert len(shell("show", "m").stdout.splitlines()) < 220
    tree = shell.json("show", "m", "--limit", "10")
    assert (tree["total"], tree["left_out"], len(tree["actions"])) == (3001, 2991, 9)
    assert len(shell.json("show", "m")["actions"]) == 3000


# -- completion, progress --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["bash", "zsh", "fish"])
def test_completion_scripts(shell: Shell, name: str) -> None:
    done = shell("completion", name)
    assert done.returncode == 0
    assert "_PERDURE_COMPLETE" in done.stdout


def complete(shell: Shell, line: str) -> list[str]:
    words = line.split(" ")
    env = {"_PERDURE_COMPLETE": "bash_complete", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    done = shell(**env)
    return [item.partition(",")[2] for item in done.stdout.splitlines()]


def test_completion_knows_tasks_inputs_and_runs_and_executes_no_file(shell: Shell) -> None:
    shell("run", "wf.py", "text", "--name", "first")
    with open(shell.path / "wf.py", "a") as file:
        file.write("\nopen('executed', 'w')\n")
    assert complete(shell, "perdure run wf.py fl") == ["flaky"]
    assert complete(shell, "perdure run wf.py add --b") == ["--b"]
    assert complete(shell, "perdure resume fi") == ["first"]
    assert complete(shell, "perdure re") == ["rerun", "resume"]
    assert not (shell.path / "executed").exists()


def test_a_terminal_sees_live_progress_and_the_tasks_prints_above_it(shell: Shell) -> None:
    shell.write("live.py", """
        import time, perdure
        from perdure.extras import durable_sleep
        env = perdure.TaskEnvironment(name="l")
        @env.task
        def inner() -> int:
            time.sleep(0.8)
            print("said inside")
            return 1
        @env.task
        def main() -> int:
            inner()
            durable_sleep(1)
            return 2
    """)  # fmt: skip
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "perdure", "run", "live.py", "main", "--name", "x"], cwd=shell.path,
        env=shell.env | {"TERM": "xterm", "COLUMNS": "120"}, stdout=subprocess.PIPE, stderr=follower, text=True,
    )  # fmt: skip
    os.close(follower)
    seen = b""
    while select.select([leader], [], [], 20)[0]:
        try:
            part = os.read(leader, 65536)
        except OSError:
            break
        if not part:
            break
        seen += part
    out, _ = process.communicate(timeout=20)
    shown = seen.decode()
    assert (process.returncode, out) == (0, "2\n"), shown
    assert "running l.inner" in shown
    assert "sleeping until" in shown
    assert "said inside" in shown
    assert "run x succeeded" in shown


# -- pieces ----------------------------------------------------------------------------------------------------


def row(n: int, result: Result, seq: int = 0, occ: int = 0) -> Entry:
    """An entry of the root body."""
    return Entry(1, 0, n, 0, seq, occ, 0, Kind.TRACE, result, b"f" * 16, "f", None, b"\x01", None, 1, None, None, n, 5)


def test_a_call_recorded_and_then_cancelled_is_one_cancelled_call() -> None:
    journal = [row(1, Result.VALUE), row(2, Result.VALUE, 1, 1), row(3, Result.CANCELLED)]
    new = NewRun(b"", "x", "t", "f::m::q", b"\x80", b"", 0)
    run = submitted(1, new, None, 0)
    grown = _Grown(run, Status.SUCCEEDED, [], 0)
    grown.read(journal)
    grown.arrange()
    nodes: dict[int, Node] = {}
    assert [grown.node(position, nodes).status for position in (1, 2)] == ["CANCELLED", "SUCCEEDED"]
    assert len(grown.flat) == 3
    entries, _ = work_of(journal, [], run)
    assert [(entry.result, entry.occ) for entry in entries] == [(Result.VALUE, 1), (Result.LOOSEN, 0)]


def test_statuses_are_those_of_the_model() -> None:
    assert tuple(map(str, Status)) == commands.STATUSES


def test_help_imports_neither_the_core_nor_rich() -> None:
    code = (
        "import sys; sys.argv = ['perdure', '--help']\n"
        "from perdure.cli import main\n"
        "try: main()\n"
        "except SystemExit: print([m for m in ('rich', 'msgspec', 'asyncio', 'sqlite3') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert last(done.stdout) == "[]"


def test_users_frames_keeps_what_is_the_users() -> None:
    ours = os.path.join(os.path.dirname(commands.__file__), "x.py")
    text = textwrap.dedent(f"""\
        Traceback (most recent call last):
          File "{ours}", line 1, in inside
            go()
            ^^^^
        KeyError: 'a'

        The above exception was the direct cause of the following exception:

        Traceback (most recent call last):
          File "{ours}", line 2, in inside
            go()
          File "/home/me/wf.py", line 3, in main
            go(
              1,
            )
          File "<frozen importlib._bootstrap>", line 9, in load
          + Exception Group Traceback (most recent call last):
          |   File "/home/me/wf.py", line 5, in other
          |     two()
          |   File "{ours}", line 6, in inside
          |     hidden()
          | ExceptionGroup: two
        """)
    shown = users_frames(text)
    assert "inside" not in shown
    assert "hidden" not in shown
    assert "frozen" not in shown
    assert shown.startswith("KeyError: 'a'")
    assert shown.count("/home/me/wf.py") == 2
    assert "      1,\n    )" in shown
    assert "  |     two()\n  | ExceptionGroup: two" in shown


def test_values_that_json_has_no_form_for() -> None:
    import datetime
    import decimal
    import enum

    colour = enum.Enum("colour", {"RED": "r"})
    value = {
        1: float("nan"), (1, 2): {3}, colour.RED: decimal.Decimal("1.50"), "b": b"hi", "t": datetime.timedelta(hours=1),
        "o": Path("a"), "d": datetime.date(2026, 11, 22),
    }  # fmt: skip
    assert json.loads(json.dumps(jsonable(value))) == {
        "1": "nan", "[1, 2]": [3], "r": "1.50", "b": "aGk=", "t": 3600.0, "o": "a", "d": "2026-11-22",
    }  # fmt: skip
    assert jsonable(Node("task", "n", "S"))["kind"] == "task"


@pytest.mark.parametrize(
    ("us", "text"),
    [(None, ""), (12, "12 µs"), (1500, "1.5 ms"), (61_000_000, "1 m 01 s"), (3_700_000_000, "1 h 01 m")],
)
def test_durations_for_people(us: int | None, text: str) -> None:
    assert span(us) == text

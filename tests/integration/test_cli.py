"""The `perdure` command as people and scripts meet it: real processes, real signals, exit codes, stdout and stderr."""

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
from pathlib import Path

import pytest
from tests.integration.shell import Shell, last
from tests.waiting import PATIENCE, Stall

from perdure.api.jsonable import jsonable
from perdure.api.looking import ActionNode, _Grown
from perdure.cli import commands
from perdure.cli.failures import users_frames
from perdure.cli.output import span
from perdure.core.ground.model import Entry, Kind, NewRun, Result, Status
from perdure.core.journal.recovering import work_of
from perdure.store._rows import submitted

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
    assert re.search(r"etl\.flaky failed \(attempt 1 of 2\), next in 0\.\d+ s: OSError: first time", done.stderr)
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


@pytest.mark.parametrize("url", ["s3://", "ftp://host/x", "az://container/x"])
def test_where_files_lie_is_no_fault_of_an_input(shell: Shell, url: str) -> None:
    shell.write("files.py", """
        import perdure
        from perdure.io import File
        env = perdure.TaskEnvironment(name="files")
        @env.task
        def main(text: File) -> int:
            return 1
        @env.task
        def other() -> int:
            return 1
    """)  # fmt: skip
    shell.env["PERDURE_BLOBS"] = url
    done = shell("run", "files.py", "main", "--text", "files.py")
    assert done.returncode == 2
    assert done.stderr.startswith("Error: ")
    assert done.stderr.count("\n") == 1
    assert "--text" not in done.stderr
    if not url.startswith("az"):  # what it says is right, only the environment is not
        assert shell("run", "files.py", "other").returncode == 2


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


@pytest.mark.parametrize("words", ["show t", "ls", "--help", "conditions --json"])
def test_a_reader_that_has_seen_enough_ends_each_command_well(shell: Shell, words: str) -> None:
    """The family: each way to write to stdout. A broken pipe of the output is no failure of the command."""
    shell("run", "wf.py", "text", "--name", "t")
    program = f"exec 3> >(exec true); wait $!; {sys.executable} -m perdure {words} >&3"
    piped = subprocess.run(["bash", "-c", program], cwd=shell.path, env=shell.env, capture_output=True, text=True)
    assert (piped.returncode, piped.stderr) == (0, "")


@pytest.mark.parametrize("words", ["ls", "conditions", "submit wf.py text", "run wf.py text"])
def test_a_working_directory_that_is_gone_is_no_failure_of_the_output(shell: Shell, words: str) -> None:
    """The family: errors of the operating system without a file name that have nothing to do with stdout."""
    program = f"mkdir gone; cd gone; rmdir ../gone; {sys.executable} -m perdure {words}"
    done = subprocess.run(["bash", "-c", program], cwd=shell.path, env=shell.env, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "Error: the working directory does not exist any more; change to another directory"
    )
    assert "Traceback" not in done.stderr


def test_a_closed_stdout_and_stderr_are_not_taken_by_the_next_file(shell: Shell) -> None:
    shell.write("fds.py", """
        import os, threading, perdure
        env = perdure.TaskEnvironment(name="f")
        @env.task
        def main() -> int:
            os.write(2, bytes([15]))  # not into the pipe through which SIGTERM, number 15, wakes the watchdog
            threading.Event().wait(3)
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
    with Stall() as stall:
        process.send_signal(number)
        out, err = process.communicate(timeout=PATIENCE)
    assert stall.took < stall.bound(6.0, work=0.5)
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
    shell.write("loads.py", "import threading\nopen('log', 'w').write('here')\nthreading.Event().wait()\n")
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
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--s", "6")
    shell.until_logged("step1")
    shell.until_it_sleeps("x")
    process.kill()
    process.wait()
    done = shell("run", "wf.py", "slow", "--name", "x", "--s", "6")
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
    assert "perdure resume x --accept" in done.stderr
    assert "perdure rerun x --recover" in done.stderr
    found = json.loads(done.stdout)
    assert (found["name"], found["task"], found["status"]) == ("x", "m.main", "INTERRUPTED")
    refused = shell("resume", "--all", "--accept")
    assert (refused.returncode, "name the run" in refused.stderr) == (2, True), refused.stderr
    assert shell("resume", "x").stdout == "1\n"
    assert shell.log() == ["step1"]


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
    assert complete(shell, "perdure re") == ["rehearse", "report", "rerun", "resume"]
    assert not (shell.path / "executed").exists()


def test_a_terminal_sees_live_progress_and_the_tasks_prints_above_it(shell: Shell) -> None:
    shell.write("live.py", """
        import threading, perdure
        from perdure.extras import durable_sleep
        env = perdure.TaskEnvironment(name="l")
        @env.task
        def inner() -> int:
            threading.Event().wait(0.8)  # longer than the pause between two pictures
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
    return Entry(0, n, 0, seq, occ, 0, Kind.TRACE, result, b"f" * 16, "f", None, b"\x01", None, 1, None, None, n, 5)


def test_a_call_recorded_and_then_cancelled_is_one_cancelled_call() -> None:
    journal = [row(1, Result.VALUE), row(2, Result.VALUE, 1, 1), row(3, Result.CANCELLED)]
    new = NewRun(b"", "x", "t", "f::m::q", b"\x80", b"", 0)
    run = submitted(1, new, None, 0)
    grown = _Grown(run, Status.SUCCEEDED, [], 0)
    grown.read(journal)
    grown.arrange()
    nodes: dict[int, ActionNode] = {}
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
    assert jsonable(ActionNode("task", "n", "S"))["kind"] == "task"


@pytest.mark.parametrize(
    ("us", "text"),
    [(None, ""), (12, "12 µs"), (1500, "1.5 ms"), (61_000_000, "1 m 01 s"), (3_700_000_000, "1 h 01 m")],
)
def test_durations_for_people(us: int | None, text: str) -> None:
    assert span(us) == text

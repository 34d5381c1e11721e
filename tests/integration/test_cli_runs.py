"""What the `perdure` command does with runs that are there: resume, abort, rerun, ls, show."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from typing import Any

import pytest
from tests.integration.shell import Shell, last
from tests.waiting import kill

# -- resume ----------------------------------------------------------------------------------------------------


def interrupt(shell: Shell, name: str, *args: str) -> None:
    """Start a run of `slow` and kill it after its first step."""
    (shell.path / "log").unlink(missing_ok=True)
    process = shell.start("run", "wf.py", "slow", "--name", name, *args)
    shell.until_logged("step1")
    shell.until_it_sleeps(name)
    kill(process)


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


def abort_in_its_sleep(shell: Shell) -> None:
    """Run x, which has a sleep of 5 s."""
    process = shell.start("run", "wf.py", "slow", "--name", "x", "--s", "5")
    shell.until_logged("step1")
    shell("abort", "x")
    process.communicate(timeout=20)


def test_rerun_recover_of_an_aborted_run_does_not_inherit_its_deadline(shell: Shell) -> None:
    abort_in_its_sleep(shell)
    began = time.monotonic()
    done = shell("rerun", "x", "--recover")
    assert done.stdout == "woke\n"
    assert time.monotonic() - began > 5
    assert shell.log() == ["step1", "step2"]


def test_rerun_recover_killed_in_the_middle_is_resumed_with_its_work(shell: Shell) -> None:
    abort_in_its_sleep(shell)
    process = shell.start("rerun", "x", "--recover", "--name", "y")
    shell.until_status("y", "SLEEPING")
    process.kill()
    process.wait()
    assert shell("resume", "y").stdout == "woke\n"
    assert shell.log() == ["step1", "step2"]


def test_rerun_recover_killed_before_it_had_anything_is_still_recovered(shell: Shell) -> None:
    assert shell("run", "wf.py", "fixable", "--name", "x").returncode == 1
    shell.write("half.py", """
        import os, perdure.core.run.driver as driver
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
    assert table.stdout.splitlines()[0].split() == ["NAME", "TASK", "STATUS", "CREATED", "TOOK", "INPUTS", "STATE"]
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
    assert [node["entry"] is None for node in tree["actions"]] == [False, True]
    shell("abort", "x")
    assert [node["status"] for node in shell.json("show", "x")["actions"]] == ["SUCCEEDED", "ABORTED"]


@pytest.mark.parametrize("call", [("tree", "--n", "3"), ("flaky",), ("fails",), ("slow", "--s", "0.01"), ("nothing",)])
def test_show_names_the_entry_that_holds_each_outcome(shell: Shell, call: tuple[str, ...]) -> None:
    """Family: a number that leads to another entry, or to none. Tried: nested and parallel children, a failure that a
    retry has taken back, a failed call, a sleep and a single call."""
    shell("run", "wf.py", *call, "--name", "x")
    entries = {row["entry"]: row for row in map(json.loads, shell("store", "dump", "x").stdout.splitlines())}

    def below(node: dict[str, Any]) -> list[dict[str, Any]]:
        return [found for child in node["actions"] for found in (child, *below(child))]

    root = shell.json("show", "x")
    assert root["entry"] is None
    nodes = below(root)
    assert nodes
    numbers = [node["entry"] for node in nodes]
    assert len(set(numbers)) == len(numbers)
    for node in nodes:
        entry = entries[node["entry"]]
        assert (entry["kind"], entry["name"], entry["child"]) == (node["kind"], node["name"], node["action"])
        assert entry["outcome"] == node["outcome"]
    table = shell("show", "x").stdout.splitlines()
    heading = next(number for number, line in enumerate(table) if line.startswith("ACTION "))
    end = table[heading].index("ENTRY") + len("ENTRY")
    assert [line[:end].split()[-1] for line in table[heading + 2 :]] == list(map(str, numbers))


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


# -- tags ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["run", "submit"])
def test_tags_of_the_command_line_are_kept_with_a_new_run(shell: Shell, verb: str) -> None:
    shell(verb, "wf.py", "add", "--name", "x", "--a", "1", "--tag", "team=data", "--tag=day=mon=day")
    shell(verb, "--tag", "team=web", "wf.py", "add", "--name", "y", "--a", "1")
    shell(verb, "wf.py", "add", "--name", "y", "--a", "1", "--tag", "team=data")
    assert {run["name"]: run["tags"] for run in shell.json("ls")} == {
        "x": {"team": "data", "day": "mon=day"},
        "y": {"team": "web"},
    }
    assert [run["name"] for run in shell.json("ls", "--tag", "team=data")] == ["x"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--tag", "team"], "NAME=VALUE"),
        (["--tag", "=data"], "NAME=VALUE"),
        (["--tag"], "--tag needs a value"),
        (["--tag", "team=a", "--tag", "team=b"], "given twice"),
        (["--tag", "team=" + "x" * 201], "at most 200"),
    ],
)
def test_tags_that_cannot_be_kept_start_nothing(shell: Shell, words: list[str], said: str) -> None:
    done = shell("submit", "wf.py", "add", "--a", "1", *words)
    assert done.returncode == 2
    assert said in done.stderr
    assert shell.json("ls") == []

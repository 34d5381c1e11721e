"""Patches beside crashes: how they show, what is refused, and what becomes of them in exports, forks and recoveries.

The crash tests stand in tests/crash/test_patched_code.py.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from tests.integration.shell import Shell

import perdure
from perdure.errors import InsideTraceError, UsageError
from perdure.testing import assert_replays, assert_survives

HEAD = """
import perdure
env = perdure.TaskEnvironment("w")

@perdure.trace
def step(n: int) -> int:
    with open("log", "a") as stream:
        stream.write(f"step{n}\\n")
    if n == 9:
        raise ValueError("nine")
    return n

@env.task
def main(last: int = 2) -> list[int]:
"""
OLD = HEAD + "    return [step(1), step(last)]\n"
PATCHED = HEAD + "    return [step(10) if perdure.patched('p') else step(1), step(last)]\n"
DEPRECATED = HEAD + "    perdure.deprecate('p')\n    return [step(10), step(last)]\n"


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return Shell(tmp_path)


def outcomes(shell: Shell, run: str) -> list[tuple[str, object]]:
    return [(one["name"], one["outcome"]) for one in shell.json("show", run)["actions"]]


@pytest.mark.parametrize("name", ["", " ", None, 3, "a\nb", "x" * 201])
def test_what_is_no_name_is_refused(name: object) -> None:
    for ask in (perdure.patched, perdure.deprecate):
        with pytest.raises(UsageError, match="takes the name of a patch"):
            ask(name)  # type: ignore[arg-type]


def test_outside_of_a_run_the_new_code_counts() -> None:
    assert perdure.patched("2026-12-fix") is True
    perdure.deprecate("2026-12-fix")


env = perdure.TaskEnvironment("patched")


@perdure.trace
def asks_inside() -> bool:
    return perdure.patched("p")


@env.task
def in_a_trace() -> bool:
    return asks_inside()


@env.task
async def everywhere() -> list[bool]:
    return [perdure.patched("p"), await child(), perdure.patched("q")]


@env.task
async def child() -> bool:
    perdure.deprecate("p")
    return perdure.patched("p")


def test_inside_a_trace_the_question_is_refused(perdure_store: object) -> None:
    with pytest.raises(InsideTraceError, match="ask in the task"):
        perdure.run(in_a_trace)


def test_a_patched_task_replays_from_every_prefix_and_survives_every_crash() -> None:
    assert_replays(everywhere)
    assert assert_survives(everywhere) > 2


def test_the_answer_is_shown(shell: Shell) -> None:
    shell.write("w.py", PATCHED)
    assert shell("run", "w.py", "main", "--name", "x").stdout == "[10, 2]\n"
    assert ("p", True) in outcomes(shell, "x")
    assert re.search(r"^  p +patch +SUCCEEDED .* True$", shell("show", "x").stdout, re.MULTILINE)
    assert shell("store", "check").returncode == 0


@pytest.mark.parametrize(
    ("recorded", "today", "fits"),
    [
        (OLD, PATCHED, True),
        (PATCHED, PATCHED, True),
        (PATCHED, DEPRECATED, True),
        (OLD, DEPRECATED, False),
        (PATCHED, HEAD + "    return [step(10), step(last)]\n", True),
        (PATCHED, OLD, False),
    ],
)
def test_exported_runs_are_replayed_with_their_answers(shell: Shell, recorded: str, today: str, fits: bool) -> None:
    """PT2, PT3. A run that has ended has passed every place."""
    shell.write("w.py", recorded)
    shell("run", "w.py", "main", "--name", "x")
    exported = json.loads(shell("export", "x").stdout)
    assert any(entry["shown"] == "patch p -> True" for entry in exported["entries"]) == (recorded is PATCHED)
    shell.write("x.json", json.dumps(exported))
    shell.write("w.py", today)
    shell.write("test_it.py", "from perdure.testing import replay\nreplay('x.json', source='w.py')\n")
    done = subprocess.run(
        [sys.executable, "test_it.py"], cwd=shell.path, env=shell.env, check=False, capture_output=True
    )
    assert (done.returncode == 0) == fits, done.stderr.decode()


@pytest.mark.parametrize("code", [OLD, PATCHED])
@pytest.mark.parametrize("verb", ["resume", "recover"])
def test_a_run_that_goes_on_keeps_its_answer(shell: Shell, code: str, verb: str) -> None:
    """PT1: a failed run is fixed and resumed, or its work is taken over by a new run."""
    shell.write("w.py", code)
    assert shell("run", "w.py", "main", "--name", "x", "--last", "9").returncode == 1
    shell.write("w.py", PATCHED.replace("if n == 9", "if n == 99"))
    words = ("resume", "x") if verb == "resume" else ("rerun", "x", "--recover", "--name", "y")
    done = shell(*words)
    assert done.stdout == ("[1, 9]\n" if code is OLD else "[10, 9]\n"), done.stderr
    assert shell.log().count("step1") == (code is OLD)
    assert shell.log().count("step10") == (code is PATCHED)


def test_a_fork_keeps_the_answer_in_front_of_the_cut(shell: Shell) -> None:
    shell.write("w.py", PATCHED)
    shell("run", "w.py", "main", "--name", "x")
    shell.write("w.py", PATCHED + "\nOTHER = 1\n")
    [last] = [one["entry"] for one in shell.json("show", "x")["actions"] if one["outcome"] == 2]
    assert shell("fork", "x", "--before", str(last), "--name", "y").returncode == 0
    assert shell("resume", "y").stdout == "[10, 2]\n"
    assert ("p", True) in outcomes(shell, "y")

"""`perdure show` and `perdure ls`: the action that matters is found among many, and why a run does not move is said."""

from __future__ import annotations

import os
import subprocess
import sys

from tests.integration.shell import Shell

MANY = """
import perdure, sys
env = perdure.TaskEnvironment(name="many")

@perdure.trace
def step(n: int) -> str:
    return f"value {n}"

@env.task
def main(n: int) -> int:
    return sum(len(step(i)) for i in range(n))

if __name__ == "__main__":
    perdure.init("many.db", durability="process")
    perdure.with_runcontext(name="many").run(main, n=int(sys.argv[1]))
"""


def _cpu(shell: Shell, *words: str) -> tuple[float, str]:
    """Seconds of processor time of a command, and its output."""
    before = os.times()
    done = shell(*words)
    after = os.times()
    assert done.returncode == 0, done.stderr
    spent = after.children_user + after.children_system - before.children_user - before.children_system
    return spent, done.stdout


def test_a_tree_of_20000_actions_is_printed_about_as_fast_as_its_json(shell: Shell) -> None:
    """A table that measured each cell several times took 15 times as long as the JSON of the same tree."""
    shell.write("many.py", MANY)
    subprocess.run([sys.executable, "many.py", "20000"], cwd=shell.path, env=shell.env, check=True)
    as_json, _ = _cpu(shell, "show", "many", "--store", "many.db", "--json")
    as_text, text = _cpu(shell, "show", "many", "--store", "many.db", "--limit", "0")
    assert len(text.splitlines()) == 20_004
    assert as_text < 4 * as_json


def test_columns_stand_below_their_headings_also_for_wide_characters(shell: Shell) -> None:
    shell.write("wide.py", MANY.replace('return f"value {n}"', 'return "漢字" if n else "ab"'))
    shell("run", "wide.py", "main", "--n", "2", "--name", "wide")
    lines = shell("show", "wide").stdout.splitlines()
    head = next(line for line in lines if line.startswith("ACTION"))
    at = head.index("OUTCOME")
    assert [line[at:] for line in lines[lines.index(head) + 1 :]] == ["4", "'ab'", "'漢字'"]


def test_failed_slowest_and_named_actions_are_shown_alone(shell: Shell) -> None:
    shell("run", "wf.py", "fails", "--name", "broken")
    text = shell("show", "broken", "--failed").stdout
    assert "etl.fails" in text
    assert "step" not in text.replace("1 more", "")
    whole = shell("show", "broken", "--action", "fails").stdout
    assert "error: ValueError: the file is\nnot there" in whole.replace("builtins.", "")
    assert 'raise ValueError("the file is\\nnot there")' in whole
    shell("run", "wf.py", "tree", "--name", "wide")
    lines = shell("show", "wide", "--slowest", "--limit", "3", "--json").stdout
    assert lines.count('"duration"') == 4
    took = [node["duration"] for node in shell.json("show", "wide", "--slowest", "--limit", "5")["actions"]]
    assert took == sorted(took, reverse=True)
    assert shell.json("show", "wide", "--action", "child")["inputs"]["n"] in (0, 1, 2)
    unknown = shell("show", "wide", "--action", "nothing")
    assert unknown.returncode == 2
    assert "its actions are: etl.tree" in unknown.stderr
    assert shell("show", "wide", "--failed", "--slowest").returncode == 2


def test_the_list_is_filtered_by_age_and_error_and_says_why_runs_stand(shell: Shell) -> None:
    shell("run", "wf.py", "fails", "--name", "broken")
    shell("run", "wf.py", "text", "--name", "fine")
    shell("submit", "wf.py", "text", "--name", "queued")
    assert [run["name"] for run in shell.json("ls", "--error", "ValueError")] == ["broken"]
    assert shell.json("ls", "--error", "KeyError") == []
    assert [run["name"] for run in shell.json("ls", "--error", "Exception")] == ["broken"]
    assert len(shell.json("ls", "--since", "1h")) == 3
    assert shell.json("ls", "--since", "0s") == []
    why = {run["name"]: run["why"] for run in shell.json("ls")}
    assert why["broken"] == "The run failed: ValueError: the file is not there"
    assert "no worker is alive" in why["queued"]
    text = shell("ls").stdout
    assert "The run failed: ValueError: the file is" in text
    assert "no worker is alive" in shell("show", "queued").stdout

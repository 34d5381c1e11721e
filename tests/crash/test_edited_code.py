"""P6: the script is edited between crash and resume. Unchanged calls replay, changed ones run, and the run may be
killed again and go on under the edited code. A failed run can be fixed and continued."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from tests.crash.harness import SAMPLE, Broken, Hosts, Lab, check, plain_text, replay_all, run_parallel

HEAD = """
from __future__ import annotations
import asyncio
import lab
import perdure
from lab import env, flaky, items, step, sync_step
from perdure import durable
from perdure.extras import durable_sleep, durable_time

@env.task
async def child(name: str) -> str:
    return await step(f"{name}1") + await step(f"{name}2")

"""
TAIL = """

if __name__ == "__main__":
    lab.main({"flow": flow})
"""


def body(*lines: str, colour: str = "async def") -> str:
    """A script whose task has these lines."""
    return HEAD + f"@env.task\n{colour} flow() -> list[str]:\n" + "".join(f"    {line}\n" for line in lines) + TAIL


def steps(*names: str) -> str:
    """A script that takes these steps in sequence; a sync or async one is chosen by the name's case."""
    return body("return [" + ", ".join(f"await step({name!r})" for name in names) + "]")


def sync_steps(*names: str) -> str:
    return body("return [" + ", ".join(f"sync_step({name!r})" for name in names) + "]", colour="def")


def gathered(*names: str) -> str:
    return body(
        "async def branch(name: str) -> str:",
        "    return await step(name) + await step(name + '2')",
        f"found = list(await asyncio.gather(*(branch(name) for name in {names!r})))",
        "return [*found, await step('end')]",
    )


# Before, after, and what the edited code gives in the end.
EDITS: dict[str, tuple[str, str, list[str]]] = {
    "nothing": (steps("a", "b", "c", "d"), steps("a", "b", "c", "d"), ["a", "b", "c", "d"]),
    "a comment": (steps("a", "b", "c"), "# new\n\n" + steps("a", "b", "c"), ["a", "b", "c"]),
    "put in at the start": (steps("a", "b", "c"), steps("new", "a", "b", "c"), ["new", "a", "b", "c"]),
    "put in the middle": (steps("a", "b", "c"), steps("a", "new", "b", "c"), ["a", "new", "b", "c"]),
    "put in at the end": (steps("a", "b", "c"), steps("a", "b", "c", "new"), ["a", "b", "c", "new"]),
    "first removed": (steps("a", "b", "c"), steps("b", "c"), ["b", "c"]),
    "middle removed": (steps("a", "b", "c", "d"), steps("a", "c", "d"), ["a", "c", "d"]),
    "last removed": (steps("a", "b", "c", "d"), steps("a", "b", "c"), ["a", "b", "c"]),
    "all removed": (steps("a", "b", "c", "d"), body("return []"), []),
    "renamed": (steps("a", "b", "c"), steps("a", "B", "c"), ["a", "B", "c"]),
    "other order": (steps("a", "b", "c", "d"), steps("c", "b", "a", "d"), ["c", "b", "a", "d"]),
    "sync: put in": (sync_steps("a", "b", "c"), sync_steps("a", "new", "b", "c"), ["a", "new", "b", "c"]),
    "sync: removed": (sync_steps("a", "b", "c"), sync_steps("b", "c"), ["b", "c"]),
    "sync to async": (
        body("return [sync_step('a'), sync_step('b'), sync_step('c')]", colour="def"),
        body("return [await sync_step.aio('a'), await sync_step.aio('b'), await sync_step.aio('c')]"),
        ["a", "b", "c"],
    ),
    "gather: a branch more": (gathered("a", "b"), gathered("a", "b", "c"), ["aa2", "bb2", "cc2", "end"]),
    "gather: a branch less": (gathered("a", "b", "c"), gathered("a", "c"), ["aa2", "cc2", "end"]),
    "gather from sequence": (
        steps("a", "b", "c"),
        body("return list(await asyncio.gather(step('a'), step('b'), step('c')))"),
        ["a", "b", "c"],
    ),
    "child put in": (
        steps("a", "b", "c"),
        body("return [await step('a'), await child('k'), await step('b'), await step('c')]"),
        ["a", "k1k2", "b", "c"],
    ),
    "child removed": (
        body("return [await step('a'), await child('k'), await step('b')]"),
        steps("a", "b"),
        ["a", "b"],
    ),
    "child changed": (
        body("return [await step('a'), await child('k'), await step('b')]"),
        body("return [await step('a'), await child('k'), await step('b')]").replace(
            'return await step(f"{name}1")', "return await step('new') + await step(f\"{name}1\")"
        ),
        ["a", "newk1k2", "b"],
    ),
    "sleep put in": (
        steps("a", "b", "c"),
        body(
            "out = [await step('a')]",
            "await durable_sleep.aio(0.005)",
            "return [*out, await step('b'), await step('c')]",
        ),
        ["a", "b", "c"],
    ),
    "timeout around a step": (
        steps("a", "b", "c"),
        body(
            "out = [await step('a')]",
            "async with asyncio.timeout(5):",
            "    out.append(await step('b'))",
            "return [*out, await step('c')]",
        ),
        ["a", "b", "c"],
    ),
}


def write(lab: Lab, text: str) -> None:
    lab.script.write_text(text)


def new_lab(hosts: Hosts, place: Path, name: str) -> Lab:
    directory = place / name.replace(" ", "-").replace(":", "")
    return Lab(hosts, directory, directory / "flow.py", "flow")


def edited_after(hosts: Hosts, place: Path, name: str, kill_at: str, again: str | None) -> bool:
    """Kill at one write of the old code, go on under the new, killed again at each write if `again`."""
    old, new, expected = EDITS[name]
    lab = new_lab(hosts, place / f"{kill_at}-{again}".replace(":", ""), name)
    write(lab, old)
    hit = lab.start(kill_at=kill_at).killed
    if not hit or lab.run_row()["status"] != "RUNNING":
        # The old code had come to its end before.
        return hit
    write(lab, new)
    if again is not None:
        for _ in range(60):
            if not lab.start(kill_at=again).killed:
                break
    else:
        lab.start()
    check(lab, 1)
    last = lab.trials[-1]
    if last.answer != {"value": expected}:
        # A finished child keeps the outcome that it had.
        if (
            name == "child changed"
            and last.answer == {"value": ["a", "k1k2", "b"]}
            and "k2" in lab.trials[0].executed()
        ):
            return True
        raise Broken(f"expected {expected}, not {last.answer}\n{lab.story()}")
    replay_all(lab, expected)
    return True


@pytest.mark.parametrize("name", EDITS)
def test_a_script_edited_between_crash_and_resume_replays_unchanged_calls(hosts: Hosts, place: Path, name: str) -> None:
    """P6, P1: at every write of the old code; then undisturbed, or killed at every write of the new. In a sample,
    the old code dies behind its first and its second outcome, the submission being its first write."""
    points = [f"{number}:after" for number in (range(1, 9) if SAMPLE == 1 else (2, 3))]
    jobs = [partial(edited_after, hosts, place, name, point, again) for point in points for again in (None, "2:after")]
    assert sum(run_parallel(jobs)) >= (4 if SAMPLE == 1 else 2)


def perdure(lab: Lab, *words: str) -> subprocess.CompletedProcess[str]:
    """The command line, in a process of its own."""
    from tests.crash.harness import WORKFLOWS

    path = os.pathsep.join([str(WORKFLOWS), *filter(None, [os.environ.get("PYTHONPATH")])])
    return subprocess.run(
        [sys.executable, "-c", "import sys; from perdure.cli import main; sys.exit(main())", *words],
        cwd=lab.directory,
        env={**os.environ, "LAB_LOG": str(lab.log_file), **lab.env, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


FAILING = body(
    "out = [await step('a'), await child('k')]",
    "raise ValueError('not yet right')",
)
FIXED = body(
    "out = [await step('a'), await child('k')]",
    "return [*out, await step('b')]",
)
FAILING_CHILD = FAILING.replace("raise ValueError('not yet right')", "return out").replace(
    'return await step(f"{name}1")', 'raise ValueError(await step(f"{name}1"))\n    return await step(f"{name}1")'
)
FAILING_STEP = body("out = [await step('a'), await child('k')]", "return [*out, await step('b', fail=True)]")


@pytest.mark.parametrize("failing", [FAILING, FAILING_CHILD, FAILING_STEP], ids=["body", "child", "step"])
def test_a_failed_run_goes_on_after_its_code_is_fixed(hosts: Hosts, place: Path, failing: str) -> None:
    """P6: starting it again gives its error again; `perdure resume` continues it under the fixed code."""
    lab = new_lab(hosts, place, "fixed")
    write(lab, failing)
    first = lab.start()
    assert first.answer is not None, lab.story()
    assert first.answer["error"] in ("ValueError", "LabError"), lab.story()
    again = lab.start()
    assert again.answer == first.answer, lab.story()
    assert not again.executed(), lab.story()
    write(lab, FIXED)
    done = perdure(lab, "resume", "r")
    assert done.returncode == 0, plain_text(done.stderr) + lab.story()
    looked = lab.start()
    assert looked.answer == {"value": ["a", "k1k2", "b"]}, lab.story()
    counts: dict[str, Any] = {}
    for line in lab.log_file.read_text().splitlines():
        if '"executed"' in line:
            counts[line.split('"')[3]] = counts.get(line.split('"')[3], 0) + 1
    expected = {"a": 1, "k1": 1, "k2": 1, "b": 1 + (failing is FAILING_STEP)}
    assert counts == expected, lab.story()
    assert lab.status() == "SUCCEEDED"

"""A recorded failure or value looks the same to the code behind the call, live and on replay (P1), and a recorded
value that today's code cannot read stops the run before any new effect (P5).

Each program is run once until it ends its own process by `os._exit`, and then again under the same name.
"""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

HEAD = """
import asyncio, json, os, sys
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment("replayed")

def told(error, depth=0):
    "Everything that code can see of an exception but its traceback."
    if error is None or depth > 5:
        return None
    shown = {"type": type(error).__name__, "text": text(error), "args": repr(error.args)}
    shown["suppress"] = error.__suppress_context__
    held = {name: repr(value) for name, value in vars(error).items()}
    shown |= {name: item for name, item in held.items() if name not in ("__perdure_entry__", "traceback_text")}
    shown["cause"] = told(error.__cause__, depth + 1)
    shown["context"] = told(error.__context__, depth + 1)
    if issubclass(type(error), BaseExceptionGroup):
        shown["members"] = [told(member, depth + 1) for member in error.exceptions]
    return shown

def text(error):
    try:
        return str(error)
    except BaseException as other:
        return type(other).__name__

def tell(what):
    with open("told.jsonl", "a") as file:
        file.write(json.dumps(what) + "\\n")

def die_once():
    if not os.path.exists("died"):
        open("died", "w").close()
        os._exit(9)

class Slotted(Exception):
    __slots__ = ("code",)
    def __init__(self, code):
        super().__init__(code)
        self.code = code

class Odd(Exception):
    @property
    def __class__(self):
        raise SystemExit(3)

class Mute(Exception):
    def __str__(self):
        raise KeyboardInterrupt

def local():
    class Local(Exception):
        pass
    return Local("inside")

def fail(kind):
    if kind == "local":
        raise local()
    if kind == "slots":
        raise Slotted(5)
    if kind == "unstorable":
        raise ValueError(object)
    if kind == "caused":
        try:
            fail("local")
        except Exception as cause:
            raise ValueError("outer") from cause
    if kind == "in a context":
        try:
            fail("unstorable")
        except Exception:
            raise local()
    if kind == "group":
        raise ExceptionGroup("g", [local(), Slotted(1), ValueError("v")])
    if kind == "noted":
        error = local()
        error.add_note("a note")
        raise error
    if kind == "odd":
        raise Odd("x")
    if kind == "mute":
        raise Mute("x")
    if kind == "generator exit":
        raise GeneratorExit("by hand")
    if kind == "odd group":
        raise BaseExceptionGroup("g", [Odd("x"), GeneratorExit()])
"""

CALLS = {
    "sync trace": "@perdure.trace\ndef step(kind):\n    fail(kind)",
    "async trace": "@perdure.trace\nasync def step(kind):\n    fail(kind)",
    "async task": "@env.task\nasync def step(kind: str):\n    fail(kind)",
    "sync task": "@env.task\ndef step(kind: str):\n    fail(kind)",
    "generator": "@perdure.trace\nasync def step(kind):\n    fail(kind)\n    yield 1",
    "sync generator": "@perdure.trace\ndef step(kind):\n    fail(kind)\n    yield 1",
}
SYNC = {"sync trace", "sync task", "sync generator"}

KINDS = ["local", "slots", "unstorable", "caused", "in a context", "group", "noted", "odd", "mute", "generator exit",
         "odd group"]  # fmt: skip


def run(
    folder: Path, program: str, name: str = "r", *, code: int | None = None, inputs: dict[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    script = folder / "flow.py"
    script.write_text(HEAD + textwrap.dedent(program))
    given = "".join(f", {name}={text}" for name, text in (inputs or {}).items())
    start = f"import flow, perdure; perdure.with_runcontext(name={name!r}).run(flow.main{given})"
    command = [sys.executable, "-c", start]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=100, check=False)
    if code is not None:
        assert done.returncode == code, done.stderr
    return done


def told(folder: Path) -> list[Any]:
    return [json.loads(line) for line in (folder / "told.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("call", CALLS)
def test_a_failure_looks_the_same_live_and_on_replay(tmp_path: Path, call: str) -> None:
    """Type, text, arguments, attributes, notes, cause, context and members, for classes that are rebuilt and classes
    that are not, for classes that misbehave, and for a `GeneratorExit` raised by hand."""
    wait = "" if call in SYNC else "await "
    if "generator" in call:
        wait = "next" if call in SYNC else "await anext"
    program = f"""
{CALLS[call]}

@env.task
{"" if call in SYNC else "async "}def main():
    for kind in {KINDS}:
        try:
            {wait}(step(kind))
        except BaseException as error:
            tell([kind, told(error)])
        else:
            tell([kind, "nothing was raised"])
        try:
            raise KeyError("handled")
        except KeyError:
            try:
                {wait}(step(kind))
            except BaseException as error:
                tell([kind, told(error)])
    die_once()
"""
    run(tmp_path, program, code=9)
    live = told(tmp_path)
    run(tmp_path, program, code=0)
    assert len(live) == 2 * len(KINDS)
    replayed = told(tmp_path)[len(live) :]
    for one, other in zip(live, replayed, strict=True):
        assert one == other
    assert [shown["type"] for _, shown in live[2:6]] == ["Slotted", "Slotted", "ValueError", "ValueError"]
    for kind, shown in live:
        assert shown != "nothing was raised", kind


@pytest.mark.parametrize("kind", ["odd", "mute", "generator exit", "odd group", "local"])
@pytest.mark.parametrize("color", ["", "async "])
def test_a_run_whose_task_fails_in_an_odd_way_is_a_failed_run(tmp_path: Path, kind: str, color: str) -> None:
    """It does not stay interrupted, and its failure can be shown."""
    done = run(tmp_path, f"@env.task\n{color}def main():\n    fail({kind!r})\n")
    assert done.returncode != 0
    shown = subprocess.run(
        [sys.executable, "-m", "perdure", "show", "r"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert "FAILED" in shown.stdout, shown.stdout + shown.stderr + done.stderr


RENAMED = {
    "a traced value": ("@perdure.trace\ndef pay() -> Receipt:\n    return Receipt(5)", "pay()"),
    "a child's value": ("@env.task\ndef pay() -> Receipt:\n    return Receipt(5)", "pay()"),
    "a traced item": (
        "@perdure.trace\ndef pays() -> Iterator[Receipt]:\n    yield Receipt(5)\n\ndef pay():\n    return next(pays())",
        "pay()",
    ),
    "a list of values": ("@perdure.trace\ndef pay() -> list[Receipt]:\n    return [Receipt(5)]", "pay()"),
}


@pytest.mark.parametrize("case", RENAMED)
def test_a_recorded_value_that_the_declared_type_cannot_read_stops_the_run(tmp_path: Path, case: str) -> None:
    """P5: a field was renamed between the crash and the resume. `except Exception` in the body does not see the
    mismatch, no new effect happens, and the run goes on when the type fits again."""
    declared, call = RENAMED[case]

    def program(field: str) -> str:
        return f"""
import dataclasses
from collections.abc import Iterator

@dataclasses.dataclass
class Receipt:
    {field}: int

{declared}

@perdure.trace
def refund():
    tell("REFUND")

@env.task
def main():
    try:
        {call}
    except Exception:
        refund()
    die_once()
    tell("done")
"""

    run(tmp_path, program("amount"), code=9)
    for _ in range(2):
        stopped = run(tmp_path, program("total"), code=1)
        assert "NonDeterminismError" in stopped.stderr
        assert "'amount': 5" in stopped.stderr
        assert "Receipt" in stopped.stderr
        assert "'total'" in stopped.stderr
    assert not (tmp_path / "told.jsonl").exists()
    run(tmp_path, program("amount"), code=0)
    assert told(tmp_path) == ["done"]


@pytest.mark.parametrize("executor", ["local", "process"])
def test_recorded_inputs_that_the_declared_type_cannot_read_stop_the_run(tmp_path: Path, executor: str) -> None:
    """P5, for the inputs of a run, also where the body executes in another process."""

    def program(field: str) -> str:
        return f"""
import dataclasses, threading

@dataclasses.dataclass
class Receipt:
    {field}: int

env = perdure.TaskEnvironment("elsewhere", executor={executor!r})

@perdure.trace
def effect():
    tell("effect")

@env.task
def main(receipt: Receipt = Receipt(5)):
    if not os.path.exists("died"):
        open("died", "w").close()
        os.kill(os.getpid() if {executor!r} == "local" else os.getppid(), 9)
        threading.Event().wait()
    effect()
"""

    def resume() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "perdure", "resume", "r"]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    asked = {"receipt": "flow.Receipt(7)"}
    run(tmp_path, program("amount"), code=-9, inputs=asked)
    (tmp_path / "flow.py").write_text(HEAD + program("total"))
    stopped = resume()
    assert stopped.returncode != 0
    assert "'amount': 7" in stopped.stderr
    assert "'total'" in stopped.stderr
    assert not (tmp_path / "told.jsonl").exists()
    (tmp_path / "flow.py").write_text(HEAD + program("amount"))
    assert resume().returncode == 0
    assert told(tmp_path) == ["effect"]


@pytest.mark.parametrize("color", ["", "async "])
def test_the_cost_of_a_failure_grows_with_its_depth_and_not_with_the_square(tmp_path: Path, color: str) -> None:
    """A failure that passes 300 tasks; the stack of one thread holds fewer sync tasks than that."""
    wait = "await " if color else ""
    program = f"""
import time

@env.task
{color}def down(n: int) -> int:
    if n == 0:
        raise ValueError("bottom")
    return {wait}down(n - 1)

@env.task
{color}def main():
    began = time.process_time()
    try:
        {wait}down(10)
    except ValueError as error:
        short = time.process_time() - began
    began = time.process_time()
    try:
        {wait}down(300)
    except ValueError as error:
        tell([str(error), (time.process_time() - began) / short])
"""
    run(tmp_path, program, code=0)
    [[text, ratio]] = told(tmp_path)
    assert text == "bottom"
    assert ratio < 30 * 4

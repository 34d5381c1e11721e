"""What people type and see at the corners: lengths and times, names of modules, marks in trees, hostile text."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from datetime import UTC, datetime
from datetime import time as clock_time
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell

FLOWS = """
import asyncio, datetime, decimal, enum, os, pathlib, perdure
from perdure.io import Dir, File

env = perdure.TaskEnvironment(name="corner")
ESC = "\\x1b]0;owned\\x07\\x1b[2J\\u202e"

class Color(enum.Enum):
    RED = "r"

@env.task
def add(a: int, b: int = 2) -> int:
    return a + b

@env.task
def hostile(text: str) -> str:
    raise ValueError(f"{ESC} {text}")

@env.task(short_name="bad" + ESC)
def badly_named() -> str:
    return ESC

@env.task
def fails_at_once() -> int:
    raise ValueError("x")

@env.task(retries=2)
def fails_thrice() -> int:
    raise ValueError("y")

@env.task(retries=1)
def parent() -> int:
    try:
        fails_thrice()
    except ValueError:
        pass
    return fails_at_once()

@env.task
def files(file: File, folder: Dir | None = None) -> str:
    return file.open("r").read()

@env.task
def dated(
    day: datetime.datetime = datetime.datetime(2027, 1, 2, 3, 4),
    path: pathlib.Path = pathlib.Path("a/b"),
    color: Color = Color.RED,
    price: decimal.Decimal = decimal.Decimal("1.5"),
) -> int:
    return 1
"""


@pytest.fixture
def corner(shell: Shell) -> Shell:
    shell.write("flows.py", FLOWS)
    (shell.path / "pkg").mkdir()
    shell.write("pkg/__init__.py", "")
    shell.write("pkg/flows.py", FLOWS)
    return shell


# -- lengths and times -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("length", ["1", "0", "0.5", "1s", "1.5s"])
def test_a_length_without_a_unit_is_seconds(corner: Shell, length: str) -> None:
    assert corner("run", "flows.py", "add", "--a", "1", "--name", "one").returncode == 0
    assert corner("wait", "one", "--timeout", length).stdout == "3\n"
    removed = corner("gc", "--older-than", length, "--dry-run")
    assert removed.returncode == 0, removed.stderr


@pytest.mark.parametrize("length", ["", "x", "-1", "1w", "1 s", "1e3", "5m5"])
def test_another_text_is_no_length(corner: Shell, length: str) -> None:
    assert corner("gc", "--older-than", length).returncode == 2


def _in_berlin(code: str) -> str:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
    script = "from datetime import *\nfrom perdure.api.local_time import *\n" + textwrap.dedent(code)
    done = subprocess.run(
        [sys.executable, "-c", script], env=clean | {"TZ": "Europe/Berlin"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(
    ("written", "moment"),
    [
        ("2027-03-28T02:30", "2027-03-28T01:00:00+00:00"),  # skipped: the end of the gap
        ("2027-03-28T02:00", "2027-03-28T01:00:00+00:00"),
        ("2027-03-28T02:59:59", "2027-03-28T01:00:00+00:00"),
        ("2027-03-28T03:00", "2027-03-28T01:00:00+00:00"),
        ("2027-03-28T01:59", "2027-03-28T00:59:00+00:00"),
        ("2026-10-25T02:30", "2026-10-25T00:30:00+00:00"),  # repeated: the first time
        ("2026-10-25T03:00", "2026-10-25T02:00:00+00:00"),
        ("2026-10-25T02:30+01:00", "2026-10-25T01:30:00+00:00"),
    ],
)
def test_a_local_time_follows_the_rule_of_cron_where_clocks_change(written: str, moment: str) -> None:
    assert _in_berlin(f"print(local_moment(datetime.fromisoformat({written!r})).astimezone(UTC).isoformat())") == moment


@pytest.mark.parametrize(
    ("now", "clock", "moment"),
    [
        ("2026-10-25T00:45", "02:30", "2026-10-25T01:30"),  # 02:45 for the first time: in 45 minutes
        ("2026-10-25T01:45", "02:30", "2026-10-26T01:30"),
        ("2027-03-28T00:45", "02:30", "2027-03-28T01:00"),
        ("2027-03-28T01:15", "02:30", "2027-03-29T00:30"),
        ("2027-06-01T12:00", "02:30", "2027-06-02T00:30"),
        ("2027-06-01T12:00", "23:00", "2027-06-01T21:00"),
    ],
)
def test_a_time_of_day_is_the_next_moment_that_clocks_show_it(now: str, clock: str, moment: str) -> None:
    code = f"""
    now = datetime.fromisoformat({now!r}).replace(tzinfo=UTC)
    print(next_local(time.fromisoformat({clock!r}), now).astimezone(UTC).isoformat())
    """
    assert _in_berlin(code) == f"{moment}:00+00:00"


def test_a_submitted_run_begins_by_the_same_rule() -> None:
    code = """
    import perdure
    from perdure.api.submitting import due_at
    perdure.init(store="memory://")
    at = datetime(2097, 3, 31, 2, 30)
    print(datetime.fromtimestamp(due_at(at, None).at / 1e6, UTC).isoformat())
    """
    assert _in_berlin(code) == "2097-03-31T01:00:00+00:00"


# -- sources ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("source", ["flows.py", "flows", "pkg.flows", "pkg/flows.py"])
def test_run_and_submit_take_a_file_or_a_module(corner: Shell, source: str) -> None:
    assert corner("run", source, "add", "--a", "1").stdout == "3\n"
    assert corner("run", source).returncode == 2
    assert "add --a" in corner("run", source, "--help").stdout
    assert corner("submit", source, "add", "--a", "1").returncode == 0


def test_a_source_that_is_neither_is_told(corner: Shell) -> None:
    found = corner("run", "pkg.nothing", "add")
    assert (found.returncode, "neither a Python file nor a module" in found.stderr) == (2, True)


# -- help and trees --------------------------------------------------------------------------------------------


def test_help_shows_inputs_as_they_are_typed(corner: Shell) -> None:
    files = corner("run", "flows.py", "files", "--help").stdout
    assert "--file PATH_OR_URL" in files
    assert "JSON" not in files.partition("Options of perdure")[0]
    dated = corner("run", "flows.py", "dated", "--help").stdout
    for default in ("2027-01-02T03:04:00", "a/b", "RED", "1.5"):
        assert f"default: {default}" in dated
    assert "PosixPath" not in dated
    assert "datetime.datetime" not in dated


def test_tables_show_times_as_people_write_them(corner: Shell) -> None:
    corner("run", "flows.py", "dated", "--day", "2027-05-06T07:08", "--path", "x/y", "--price", "2.5", "--name", "one")
    for table in (corner("ls").stdout, corner("show", "one").stdout):
        assert "2027-05-06T07:08:00" in table
        assert "2.5" in table
        assert "datetime" not in table
        assert "Decimal(" not in table


def _row(table: str, name: str) -> list[str]:
    return next(line for line in reversed(table.splitlines()) if line.strip().startswith(name)).split()


def test_the_tree_counts_attempts_and_marks_only_failures_that_were_taken_back(corner: Shell) -> None:
    corner("run", "flows.py", "parent", "--name", "one")
    table = corner("show", "one").stdout
    assert _row(table, "corner.parent")[2:4] == ["FAILED", "2"]
    assert _row(table, "corner.fails_thrice")[2:4] == ["FAILED", "3"]
    assert _row(table, "corner.fails_at_once")[2:4] == ["FAILED", "2"]
    first = next(line for line in table.splitlines() if "fails_at_once" in line)
    assert "FAILED, discarded" in first, "the first attempt's failure was taken back by the retry"
    for name, attempts in (("fails_at_once", "1"), ("fails_thrice", "3")):
        corner("run", "flows.py", name, "--name", name)
        assert _row(corner("show", name).stdout, f"corner.{name}")[2:4] == ["FAILED", attempts]


# -- hostile text ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ("run", "flows.py", "hostile", "--text", "\x1b[31m"), ("run", "flows.py", "badly_named", "-v"), ("ls",),
        ("show", "one"), ("show", "two"), ("resume", "one"), ("wait", "one"), ("run", "flows.py", "nothing\x1b[2J"),
        ("show", "no\x1bsuch"),
    ],
)  # fmt: skip
def test_no_control_character_from_outside_reaches_a_terminal(corner: Shell, command: tuple[str, ...]) -> None:
    """Family: names, inputs, exceptions and previews with escape sequences, in tables, messages and tracebacks."""
    corner("run", "flows.py", "hostile", "--text", "\x1b[31m", "--name", "one")
    corner("run", "flows.py", "badly_named", "--name", "two")
    done = corner(*command)
    shown = done.stderr + ("" if command[0] == "run" else done.stdout)
    assert not {"\x1b", "\x07", "\u202e"} & set(shown), shown


def test_a_terminal_gets_a_result_without_control_characters_and_a_pipe_gets_all_of_it(corner: Shell) -> None:
    import pty

    assert "\x1b]0;owned" in corner("run", "flows.py", "badly_named").stdout
    parent, child = pty.openpty()
    command = [sys.executable, "-m", "perdure", "run", "flows.py", "badly_named"]
    done = subprocess.run(command, cwd=corner.path, env=corner.env, stdout=child, stderr=subprocess.PIPE, check=False)
    os.close(child)
    data = os.read(parent, 10_000)
    os.close(parent)
    assert done.returncode == 0
    assert b"\\x1b]0;owned\\x07" in data
    assert b"\x1b]" not in data


# -- numbers and awaits ----------------------------------------------------------------------------------------


class _Number:
    """As numpy's numbers: none of Python's own, but convertible."""

    def __init__(self, value: float) -> None:
        self.value = value

    def __float__(self) -> float:
        return float(self.value)


@pytest.mark.parametrize("seconds", [-1, -0.001, 0, True, False, _Number(0.001), _Number(-5)])
def test_a_sleep_takes_every_number_and_a_past_deadline_returns_at_once(tmp_path: Path, seconds: Any) -> None:
    import perdure
    from perdure import durable
    from perdure.extras import durable_sleep

    perdure.init(store=tmp_path / "perdure.db")
    env = perdure.TaskEnvironment(name="sleeps")

    @env.task
    def main() -> int:
        durable_sleep(0 if seconds is True else seconds)
        with durable.timeout(_Number(30) if isinstance(seconds, _Number) else 30):
            return 1

    assert perdure.run(main).result == 1
    durable_sleep(0 if seconds is True else seconds)
    perdure.init()


@pytest.mark.parametrize("forgets", ["task", "trace", "nested"])
def test_a_returned_coroutine_asks_for_the_await(tmp_path: Path, forgets: str) -> None:
    import asyncio

    import perdure
    from perdure import errors

    perdure.init(store=tmp_path / "perdure.db")
    env = perdure.TaskEnvironment(name="awaits")
    made: list[Any] = []

    @perdure.trace
    def traced() -> Any:
        made.append(asyncio.sleep(0))
        return made[-1]

    @env.task
    def main() -> Any:
        if forgets == "trace":
            return traced()
        made.append(asyncio.sleep(0))
        return made[-1] if forgets == "task" else {"x": [made[-1]]}

    with pytest.raises(errors.ValueMismatchError, match="did you forget `await`"):
        perdure.run(main)
    for each in made:
        each.close()
    perdure.init()


@pytest.mark.parametrize(
    ("annotation", "value"), [(int, "a"), (str, 1), (bool, 1), (list[int], "a"), (bytes, "a"), (dict[str, int], 3)]
)
def test_the_arguments_of_a_trace_are_checked_as_a_tasks(tmp_path: Path, annotation: Any, value: Any) -> None:
    import perdure
    from perdure import errors

    perdure.init(store=tmp_path / "perdure.db")
    env = perdure.TaskEnvironment(name="checks")
    called = []

    def step(x: Any) -> None:
        called.append(x)

    step.__annotations__["x"] = annotation
    traced, child = perdure.trace(step), env.task(step)

    @env.task(short_name="main")
    def main(which: str) -> None:
        (traced if which == "trace" else child)(value)

    messages = []
    for which in ("trace", "task"):
        with pytest.raises(errors.ValueMismatchError, match="parameter 'x'") as caught:
            perdure.run(main, which)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert called == []
    perdure.init()


def test_the_gap_is_computed_for_the_local_zone_of_the_process() -> None:
    from perdure.api.local_time import next_local

    now = datetime(2027, 6, 1, 12, tzinfo=UTC)
    assert next_local(clock_time(0, 0), now) > now


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (Path("a/b"), "a/b"),
        (datetime(2027, 1, 2, 3, 4), "2027-01-02T03:04:00"),
        (clock_time(9, 30), "09:30:00"),
        ({"a": 1}, "{'a': 1}"),
        (3, "3"),
        (None, "None"),
    ],
)
def test_a_result_is_shown_as_people_write_it(value: Any, shown: str) -> None:
    from perdure.cli.output import readable

    assert readable(value) == shown


@pytest.mark.parametrize("status", ["SUCCEEDED", "ABORTED", "SLEEPING"])
def test_a_worker_tells_the_end_of_a_run_in_plain_words(status: str, capsys: pytest.CaptureFixture[str]) -> None:
    from perdure.cli.base import output
    from perdure.cli.serving import _tell
    from perdure.core.ground.model import Status
    from perdure.core.process.serving import ServedRun

    output.verbose = 1
    try:
        _tell(ServedRun(run="one", task="etl.main", status=Status(status), error=None, again=None))
    finally:
        output.verbose = 0
    said = capsys.readouterr().err
    assert "is succeeded" not in said
    assert said.startswith("run one (etl.main) ")

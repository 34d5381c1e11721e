"""`executor="process"` with real processes: values and failures as anywhere, deaths, timeouts, places, surroundings."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.journals import recorded
from tests.postgres_server import server
from tests.processes import flows
from tests.waiting import Stall, is_gone, wait_for

import perdure
from perdure import errors, runtime
from perdure.core.ground.values import describe_error

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]


def run(task: Any, *args: Any) -> Any:
    return perdure.run(task, *args).result


def gone(pid: int) -> bool:
    """Wait until that process has ended."""
    return wait_for(lambda: is_gone(pid))


# -- programs of a body ----------------------------------------------------------------------------------------


def programs(path: Path) -> list[int]:
    """The numbers of the programs that a body has started."""
    return [int(pid) for pid, _ in flows.marks(str(path))]


@pytest.mark.parametrize(
    ("task", "then", "error"),
    [
        (flows.hasty_program, "wait", errors.TaskTimeoutError),
        (flows.starts_a_program, "exit", errors.BodyDiedError),
        (flows.starts_a_program, "kill", errors.BodyDiedError),
    ],
    ids=["timeout", "exit", "kill"],
)
def test_programs_end_with_the_body_that_started_them(
    tmp_path: Path, task: Any, then: str, error: type[Exception]
) -> None:
    """C1: at a timeout, and when the body's process dies: the program, and a program of the program."""
    path = tmp_path / "marks"
    with pytest.raises(error):
        run(task, str(path), then)
    assert len(programs(path)) == 2
    assert all(gone(pid) for pid in programs(path))


def test_programs_end_with_a_body_that_is_cancelled(tmp_path: Path) -> None:
    """C1: the body waits for its program on the event loop."""
    path = tmp_path / "marks"
    assert run(flows.gives_up_a_program, str(path)) == "cancelled"
    assert all(gone(pid) for pid in programs(path))


def test_a_program_that_a_body_has_left_behind_runs_on(tmp_path: Path) -> None:
    """A body may start a server and end well."""
    path = tmp_path / "marks"
    first = run(flows.starts_a_program, str(path), "return")
    assert run(flows.pid) == first
    assert not any(is_gone(pid) for pid in programs(path))
    os.killpg(first, signal.SIGKILL)
    assert all(gone(pid) for pid in programs(path))


@pytest.mark.parametrize("how", ["signal", "set_wakeup_fd", "add_signal_handler"])
def test_a_body_that_handles_signals_is_told_why_not_and_what_to_do(how: str) -> None:
    """Python's own message names the main thread alone, which a body cannot choose."""
    with pytest.raises((ValueError, RuntimeError), match=r"use the task's timeout=; code that needs signals can be a"):
        run(flows.handles_signals, how)


# -- values and failures ---------------------------------------------------------------------------------------


def test_a_body_executes_in_another_process_and_the_next_one_in_the_same() -> None:
    first = run(flows.pid)
    assert first != os.getpid()
    assert run(flows.apid) == first


def test_a_process_in_which_a_body_has_left_a_thread_at_work_is_not_used_again() -> None:
    """C3."""
    first = run(flows.leaves_a_thread, 30.0)
    assert run(flows.pid) != first


@pytest.mark.parametrize("value", [None, 0, "", "text", 2**100, [1, {"a": (2, b"3")}], {1, 2}, float("inf")])
def test_values_come_back_as_they_were(value: Any) -> None:
    found = run(flows.echo, value)
    assert found == value
    assert type(found) is type(value)


def test_values_of_user_classes_come_back() -> None:
    assert run(flows.point, flows.Point(1, 2.5)) == flows.Point(2, 2.5)


def test_large_values_cross_both_ways() -> None:
    data = random.Random(1).randbytes(5 * 2**20)
    assert run(flows.big, data) == bytes(reversed(data))


def test_a_failure_keeps_its_class_its_attributes_its_cause_and_the_text_of_its_traceback() -> None:
    with pytest.raises(flows.OwnError) as caught:
        run(flows.raises, "own")
    error = caught.value
    assert (error.code, error.hint, str(error)) == (7, "left", "code 7")
    assert isinstance(error.__cause__, KeyError)
    entry = caught.traceback[-1]
    assert entry.name == "raises"
    assert str(entry.path) == flows.__file__
    assert "raise OwnError" in str(entry.statement)
    row = error.run.row  # type: ignore[attr-defined]
    assert "flows.py" in describe_error(row.value)[2]
    assert "raise OwnError" in describe_error(row.value)[2]


def test_groups_exits_and_stray_cancellations_are_failures() -> None:
    with pytest.raises(ExceptionGroup) as caught:
        run(flows.raises, "group")
    assert [type(member) for member in caught.value.exceptions] == [ValueError, flows.OwnError]
    with pytest.raises(SystemExit) as left:
        run(flows.raises, "exit")
    assert left.value.code == 4
    with pytest.raises(asyncio.CancelledError):
        run(flows.raises, "cancelled")


def test_a_result_that_does_not_fit_its_declaration_fails_the_task() -> None:
    with pytest.raises(errors.ValueMismatchError, match="int"):
        run(flows.misfit)


def test_a_failure_that_is_final_is_not_tried_again(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with pytest.raises(flows.OwnFinalError):
        run(flows.final, path)
    assert len(flows.marks(path)) == 1


# -- deaths ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "code", "signal"), [("segfault", None, "SIGSEGV"), ("exit", 3, None), ("kill", None, "SIGKILL")]
)
def test_the_death_of_a_child_fails_only_the_attempt(how: str, code: int | None, signal: str | None) -> None:
    assert run(flows.near_dies, how) == f"far.dies 1 {code} {signal}"
    with pytest.raises(errors.BodyDiedError, match=r"far\.dies.*attempt 1") as caught:
        run(flows.dies, how)
    assert (caught.value.exit_code, caught.value.signal) == (code, signal)
    assert run(flows.echo, 1) == 1


def test_the_death_of_a_child_is_noticed_while_its_fork_lives_on() -> None:
    with Stall() as stall, pytest.raises(errors.BodyDiedError):
        run(flows.dies_before_its_fork)
    # The fork lives for ten seconds.
    assert stall.took < stall.bound(8.0, work=1.0)


@pytest.mark.parametrize("how", ["segfault", "exit", "kill"])
def test_deaths_count_as_retries_and_recorded_outcomes_are_reused(tmp_path: Path, how: str) -> None:
    path = str(tmp_path / "marks")
    assert run(flows.dies_twice, path, how) == "True 3"
    assert [text for _, text in flows.marks(path)] == ["once", "attempt", "attempt", "attempt"]


# -- time ------------------------------------------------------------------------------------------------------


def test_a_timeout_kills_the_child(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with pytest.raises(errors.TaskTimeoutError, match=r"0\.5 s"):
        run(flows.too_long, path)
    assert gone(int(flows.marks(path)[0][0]))


def test_a_retry_after_a_timeout_reuses_recorded_outcomes(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    assert run(flows.too_long_at_first, path) == "done"
    assert [text for _, text in flows.marks(path)] == ["kept", "attempt", "attempt"]


def test_a_durable_sleep_in_a_child() -> None:
    assert 0.2 <= run(flows.naps, 0.2) < 2


@pytest.mark.parametrize(
    ("task", "answer"),
    [
        (flows.cancelled_by_timeout, "late"),
        (flows.far_cancelled_by_timeout, "late"),
        (flows.cancelled_by_group, "group ended"),
    ],
)
def test_a_cancelled_body_is_killed_at_once(tmp_path: Path, task: Any, answer: str) -> None:
    path = str(tmp_path / "marks")
    run(flows.echo, "a child is warm")
    assert run(task, path) == answer
    assert gone(int(flows.marks(path)[0][0]))
    assert run(flows.echo, "next") == "next"


# -- places ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", [flows.burn_many, flows.burn_many_async])
def test_map_uses_all_places_at_once(task: Any) -> None:
    """C2."""
    run(flows.gather_many, 4)  # children are warm
    with Stall() as stall:
        pids = run(task, 50, 0.04)
    assert len(set(pids)) == 2
    assert min(pids.count(pid) for pid in set(pids)) >= 10
    assert stall.took < stall.bound(20.0, work=50 * 0.04)


def test_gather_of_many() -> None:
    assert run(flows.gather_many, 100) == list(range(100))


@pytest.mark.parametrize("task", [flows.deep, flows.deep_sync])
def test_waiting_bodies_hold_no_place(task: Any) -> None:
    """C2."""
    pids = run(task, 5)
    assert len(set(pids)) == 6


def test_sleeping_bodies_hold_no_place() -> None:
    run(flows.gather_many, 4)  # children are warm
    with Stall() as stall:
        assert all(slept >= 4 for slept in run(flows.nap_many, 8, 4.0))
    # Two places would make it sixteen.
    assert stall.took < stall.bound(12.0, work=1.0)


def test_each_kind_of_durable_call_works_in_a_child(tmp_path: Path) -> None:
    """E6."""
    path = str(tmp_path / "marks")
    ran = perdure.run(flows.tells_everything, path)
    found = ran.result
    far_pid = int(flows.marks(path)[0][0])
    assert found[0] == "first"
    assert found[1] == [1, far_pid]
    assert found[2] == [0, 1, 2]
    assert found[3] is True
    assert found[7] == ["a", "b"]
    assert found[8] == [ran.name, "far.everything", 1, 1]
    shown = {row.name: row.label for row in recorded(runtime.worker().store, ran.row)}
    assert shown["anote"] == "all"


# -- surroundings ----------------------------------------------------------------------------------------------


def test_environment_variables_are_set_in_the_child_only() -> None:
    """C3."""
    assert run(flows.dresses) == ["blue", None, None]


def test_printed_text_of_a_body_is_flushed_before_the_caller_goes_on(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    run(flows.prints, "words")
    assert capfd.readouterr().out == "words\nunfinished"


def test_the_store_is_not_open_in_a_child() -> None:
    with pytest.raises(errors.UsageError, match="only the process that drives"):
        run(flows.looks_at_runs)


def test_files_and_directories_cross_between_processes(tmp_path: Path) -> None:
    assert run(flows.passes_files, "inside") == "inside"
    perdure.init(store="memory://")
    assert run(flows.passes_files, "inside") == "inside"


def test_bodies_and_files_cross_with_a_store_on_postgres() -> None:
    perdure.init(store=server().url())
    assert run(flows.passes_files, "inside") == "inside"


def test_code_that_another_process_cannot_load_is_refused_at_the_call() -> None:
    @flows.far.task
    def inner() -> int:
        return 1

    assert inner() == 1
    with pytest.raises(errors.UsageError, match="defined inside a function"):
        run(inner)


def test_programs_without_process_tasks_do_not_load_the_executor() -> None:
    code = (
        "import sys, perdure\n"
        "@perdure.TaskEnvironment('e').task\n"
        "def one() -> int: return 1\n"
        "perdure.init(store='memory://')\n"
        "perdure.run(one)\n"
        "print([m for m in sys.modules if m.startswith('perdure.executors._') or m == 'perdure.core.run.elsewhere'])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_an_unknown_executor_is_refused() -> None:
    with pytest.raises(errors.UsageError, match="'local', 'process' or 'ray'"):
        perdure.TaskEnvironment(name="x", executor="cloud")  # type: ignore[arg-type]


@pytest.mark.parametrize("text", ["0", "many", "-1"])
def test_an_invalid_number_of_processes_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PERDURE_PROCESSES", text)
    with pytest.raises(errors.UsageError, match="PERDURE_PROCESSES"):
        run(flows.pid)


def test_children_end_with_the_store(tmp_path: Path) -> None:
    pid = run(flows.pid)
    perdure.init(store=tmp_path / "other.db")
    assert gone(pid)

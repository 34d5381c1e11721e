"""P1, P2, P3, P5, P6, P7: the process that drives is killed, aborted or fenced while its children execute."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.journals import recorded_in
from tests.processes.flows import marks
from tests.processes.test_processes import gone
from tests.stores import deadlines
from tests.waiting import PATIENCE, wait_for

from perdure.core.ground.model import Result
from perdure.core.ground.values import ANY

FLOWS = Path(__file__).with_name("flows.py")


class Project:
    """A directory with one run, `r`, and the processes that drive it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.store = directory / "perdure.db"
        self.path = str(directory / "marks")
        self.script = FLOWS
        self.started: list[subprocess.Popen[str]] = []

    def start(self, task: str, *args: object) -> subprocess.Popen[str]:
        command = [sys.executable, str(self.script), str(self.store), task, *map(repr, args)]
        found = subprocess.Popen(
            command, cwd=self.directory, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
            env={**os.environ, "PERDURE_PROCESSES": "2"},
        )  # fmt: skip
        self.started.append(found)
        return found

    def end(self, task: str, *args: object) -> str:
        """Start it, and wait for its result."""
        out, err = self.start(task, *args).communicate(timeout=PATIENCE)
        assert out, err
        return out.strip()

    def fail(self, task: str, *args: object) -> str:
        """Start it, and wait for its failure."""
        process = self.start(task, *args)
        out, err = process.communicate(timeout=PATIENCE)
        assert process.returncode == 1, out
        return err

    def accept(self) -> str:
        """Continue the run with `perdure resume --accept`, and return what that logs."""
        command = [sys.executable, "-m", "perdure", "resume", "r", "--accept", "--file", str(self.script)]
        done = subprocess.run(
            [*command, "--store", str(self.store)], cwd=self.directory, capture_output=True, text=True, timeout=PATIENCE
        )
        assert done.returncode == 0, done.stderr
        return done.stderr

    def kill(self) -> None:
        self.started[-1].kill()
        self.started[-1].communicate(timeout=10)

    def recorded(self) -> set[str]:
        """The notes whose outcome is in the journal."""
        notes = [entry for _, entry in recorded_in(self.store) if entry.name == "note" and entry.result == Result.VALUE]
        return {ANY.decode(entry.inputs)["text"] for entry in notes if entry.inputs is not None}

    def pids(self, *paths: str) -> set[int]:
        return {int(pid) for path in paths for pid, _ in marks(path)}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    found = Project(tmp_path)
    yield found
    for process in found.started:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=10)


@pytest.mark.parametrize("notes", [1, 4, 7, 10])
def test_steps_run_once_and_no_child_outlives_a_killed_driver(project: Project, notes: int) -> None:
    a, b = project.path + ".a", project.path + ".b"
    project.start("two_lines", project.path, 0.03)
    wait_for(lambda: len(marks(a)) + len(marks(b)) >= notes)
    project.kill()
    assert all(gone(pid) for pid in project.pids(a, b))
    before = {path: len(marks(path)) for path in (a, b)}
    recorded = Counter(entry.action for _, entry in recorded_in(project.store) if entry.name == "note")
    assert project.end("two_lines", project.path, 0.03) == str([list(range(6))] * 2)
    # What was not recorded runs again, and nothing else does.
    again = sum(len(marks(path)) - before[path] for path in (a, b))
    assert again == 12 - recorded.total()
    assert all(gone(pid) for pid in project.pids(a, b))


def test_a_child_that_holds_the_gil_ends_with_the_driver(project: Project) -> None:
    """C1."""
    project.start("holds_the_interpreter", project.path)
    wait_for(lambda: marks(project.path))
    project.kill()
    assert all(gone(pid) for pid in project.pids(project.path))


def test_a_sleep_lasts_its_time_over_several_processes(project: Project) -> None:
    project.start("naps", 2.0)
    wait_for(lambda: deadlines(project.store))
    project.kill()
    assert 2.0 <= float(project.end("naps", 2.0)) < 30


def test_nothing_is_recorded_after_the_run_is_aborted_and_its_children_end(project: Project) -> None:
    process = project.start("steps", project.path, 1000, 0.02)
    wait_for(lambda: len(marks(project.path)) >= 3)
    command = [sys.executable, "-m", "perdure", "abort", "r"]
    subprocess.run(command, check=True, cwd=project.directory, env={**os.environ, "PERDURE_STORE": str(project.store)})
    recorded = project.recorded()
    assert "RunAbortedError" in process.communicate(timeout=PATIENCE)[1]
    assert project.recorded() == recorded
    assert all(gone(pid) for pid in project.pids(project.path))


def test_nothing_is_recorded_after_another_process_claims_the_run(project: Project) -> None:
    process = project.start("steps", project.path, 1000, 0.02)
    wait_for(lambda: len(marks(project.path)) >= 3)
    connection = sqlite3.connect(project.store)
    with connection:
        connection.execute("UPDATE runs SET token = randomblob(16), worker = 'another'")
    recorded = project.recorded()
    assert "LeaseLostError" in process.communicate(timeout=PATIENCE)[1]
    assert project.recorded() == recorded
    assert all(gone(pid) for pid in project.pids(project.path))
    connection.close()


def test_ctrl_c_ends_the_children_and_the_run_can_be_continued(project: Project) -> None:
    process = project.start("two_lines", project.path, 0.05)
    a, b = project.path + ".a", project.path + ".b"
    wait_for(lambda: marks(a) and marks(b))
    process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in process.communicate(timeout=PATIENCE)[1]
    assert all(gone(pid) for pid in project.pids(a, b))
    assert project.end("two_lines", project.path, 0.05) == str([list(range(6))] * 2)


@pytest.mark.parametrize("how", ["abort", "SIGINT"])
def test_programs_of_bodies_end_with_an_abort_and_with_ctrl_c(project: Project, how: str) -> None:
    """C1: a program that a body has started does not go on beside the next attempt."""
    process = project.start("starts_a_program", project.path, "wait")
    wait_for(lambda: len(marks(project.path)) == 2)
    if how == "abort":
        command = [sys.executable, "-m", "perdure", "abort", "r", "--store", str(project.store)]
        subprocess.run(command, check=True, cwd=project.directory)
    else:
        process.send_signal(signal.SIGINT)
    process.communicate(timeout=PATIENCE)
    assert all(gone(pid) for pid in project.pids(project.path))


def test_programs_of_bodies_end_with_a_drain(project: Project) -> None:
    """C1: a worker that is told to end stops what does not end in time."""
    common = ["--store", str(project.store)]
    subprocess.run(
        [sys.executable, "-m", "perdure", "submit", *common, str(FLOWS), "starts_a_program", "--path", project.path,
         "--then", "wait"],
        check=True, cwd=project.directory,
    )  # fmt: skip
    worker = subprocess.Popen(
        [sys.executable, "-m", "perdure", "serve", str(FLOWS), "--drain", "0.2s", *common], cwd=project.directory,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    project.started.append(worker)
    wait_for(lambda: len(marks(project.path)) == 2)
    worker.send_signal(signal.SIGTERM)
    _, err = worker.communicate(timeout=PATIENCE)
    assert worker.returncode == 0, err
    assert all(gone(pid) for pid in project.pids(project.path))


def test_a_mismatch_in_a_child_stops_the_run(project: Project) -> None:
    project.start("by_luck", project.path)
    wait_for(lambda: marks(project.path)[1:])
    project.kill()
    err = project.fail("by_luck", project.path)
    assert "NonDeterminismError" in err
    assert "expected: trace note" in err
    assert "received: trace note" in err


@pytest.mark.parametrize("task", ["calls_by_luck", "far_calls_by_luck"])
def test_an_open_call_that_is_not_made_again_is_a_mismatch(project: Project, task: str) -> None:
    project.start(task, project.path)
    wait_for(lambda: marks(project.path))
    project.kill()
    assert "not called again" in project.fail(task, project.path)
    # Accepted, the run goes on under the code as it is, in this process and in the other.
    assert "differences are accepted" in project.accept()


@pytest.mark.parametrize(("luck", "line"), [("near", "far"), ("far", "near"), ("far", "far")])
def test_nothing_new_starts_in_one_process_before_a_mismatch_in_another_is_found(
    project: Project, luck: str, line: str
) -> None:
    """P5: a body that has been handed all that it had recorded waits for those that have not, wherever they are."""
    project.start("beside_late_luck", project.path, luck, line)
    steps = project.path + ".steps"
    wait_for(lambda: marks(project.path) and len(marks(steps)) >= 5)
    wait_for(lambda: any(text.startswith("luck") for text in project.recorded()))
    project.kill()
    assert all(gone(pid) for pid in project.pids(project.path, steps))
    recorded = sum(text.startswith("step") for text in project.recorded())
    before = len(marks(steps))
    assert "NonDeterminismError" in project.fail("beside_late_luck", project.path, luck, line)
    assert len(marks(steps)) == before, f"{recorded} were recorded"


EDITED = """
import sys
import perdure

env = perdure.TaskEnvironment(name="edited", executor="process")

@perdure.trace
def note(path: str, text: str) -> str:
    with open(path, "a") as stream:
        stream.write(f"0 {text}\\n")
    return text

@env.task
def main(path: str) -> list[str]:
    return [note(path, "one"), STEP, note(path, "three")]

if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    print(perdure.with_runcontext(name="r").run(main, eval(sys.argv[3])).result)
"""


def test_edited_code_reuses_matching_outcomes_in_children(project: Project, tmp_path: Path) -> None:
    project.script = tmp_path / "edited.py"
    project.script.write_text(EDITED.replace("STEP", "[0 / 0]"))
    assert "ZeroDivisionError" in project.fail("main", project.path)
    project.script.write_text(EDITED.replace("STEP", 'note(path, "two")'))
    command = [sys.executable, "-m", "perdure", "resume", "r"]
    subprocess.run(command, check=True, cwd=project.directory, env={**os.environ, "PERDURE_STORE": str(project.store)})
    assert [text for _, text in marks(project.path)] == ["one", "two", "three"]

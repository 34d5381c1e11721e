"""Messages, published values, streams and cancellation of bodies with `executor="ray"` (P12, MS1 to MS3).

The family: every way in which a body talks to other processes. The body is on a node, and the driving process has the
mailbox. The process that drives, or the process of the body, is killed in between.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest
import remote_flows as flows
from tests.processes.test_killed import Project
from tests.processes.test_processes import gone
from tests.waiting import wait_for

import perdure
from perdure import runtime

pytestmark = [
    pytest.mark.usefixtures("store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]


def submitted(task: Any, *args: Any) -> perdure.Run:
    return perdure.with_runcontext(name="r").submit(task, *args)


def waits_for(box: str) -> bool:
    """Whether a call of the run waits for the condition or mailbox of that name."""
    return any(wait.action.name.endswith(f":{box}") for wait in runtime.worker().store.open_waits())


def said(run: perdure.Run) -> list[list[Any]]:
    """The items of both streams of `talks`."""
    return [[item.value for item in run.stream(name)] for name in ("body", "trace")]


def judge(run: perdure.Run, path: str) -> None:
    """What `talks` leaves behind, killed or not."""
    assert run.published() == {"progress": 0.5, "spoken": 2}
    assert said(run) == [[0, 1], ["one", "two"]]
    assert [text for _, text in flows.marks(path)] == ["went", "sent"]


def test_a_body_on_a_node_talks_to_other_processes(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with perdure.Worker([flows]):
        run = submitted(flows.talks, path)
        wait_for(lambda: waits_for("go"))
        run.signal("go", flows.Point(5))
        wait_for(lambda: len(flows.marks(path)) == 2 and waits_for("box"))
        run.send("box", 7)
        assert run.wait(100).result == [5, 2, 1, 7]
    assert os.getpid() not in {int(pid) for pid, _ in flows.marks(path)}
    judge(run, path)


def test_messages_survive_the_death_of_the_body(tmp_path: Path) -> None:
    """P12: the next attempt replays what the first one has received, sent, published and streamed."""
    path = str(tmp_path / "marks")
    with perdure.Worker([flows]):
        run = submitted(flows.talks, path)
        run.signal("go", flows.Point(5))
        wait_for(lambda: len(flows.marks(path)) == 2 and waits_for("box"))
        os.kill(int(flows.marks(path)[1][0]), signal.SIGKILL)
        run.send("box", 7)
        assert run.wait(100).result == [5, 2, 1, 7]
    judge(run, path)


def test_messages_survive_the_death_of_the_driving_process(project: Project) -> None:
    """P12: a message that comes while no process drives the run is received by the next one."""
    perdure.init(store=project.store)
    project.start("talks", project.path)
    run = wait_for(lambda: perdure.Run.get("r") if runtime.worker().store.run("r") else None)
    run.signal("go", flows.Point(5))
    wait_for(lambda: len(flows.marks(project.path)) == 2 and waits_for("box"))
    project.kill()
    run.send("box", 7)
    assert all(gone(pid) for pid in project.pids(project.path))
    assert project.end("talks", project.path) == "[5, 2, 1, 7]"
    judge(run, project.path)


def test_a_cancelled_run_ends_its_body_on_a_node_and_cleans_up(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with perdure.Worker([flows]):
        run = submitted(flows.cleans_up_after_a_node, path)
        wait_for(lambda: waits_for("never"))
        run.cancel("no longer wanted")
        run.wait(100)
    assert run.status == "CANCELLED"
    (pid, _), (cleaner, _) = flows.marks(path)
    assert [text for _, text in flows.marks(path)] == ["awaits", "cleaned"]
    assert gone(int(pid))
    assert int(cleaner) == os.getpid()

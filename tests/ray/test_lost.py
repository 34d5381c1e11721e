"""P1, P2, P3 with `executor="ray"`: the process that drives is killed, aborted or interrupted; a node is lost."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import remote_flows as flows
from tests.journals import recorded_in
from tests.processes.test_killed import Project
from tests.processes.test_processes import gone
from tests.ray.cluster import pids
from tests.ray.conftest import Cluster
from tests.waiting import wait_for

import perdure

pytestmark = pytest.mark.usefixtures("store")

marks = flows.marks


def test_a_killed_driver_leaves_no_process_and_the_next_driver_continues(project: Project) -> None:
    """N1."""
    a, b = project.path + ".a", project.path + ".b"
    project.start("two_lines", project.path, 0.2)
    wait_for(lambda: marks(a) and marks(b) and len(marks(a)) + len(marks(b)) >= 5, 40)
    project.kill()
    assert all(gone(pid) for pid in project.pids(a, b))
    before = {path: len(marks(path)) for path in (a, b)}
    recorded = sum(entry.name == "note" for _, entry in recorded_in(project.store))
    assert project.end("two_lines", project.path, 0.2) == str([list(range(6))] * 2)
    # What was not recorded runs again, at most one step of each line, and nothing else does.
    again = {path: len(marks(path)) - before[path] for path in (a, b)}
    assert sum(again.values()) == 12 - recorded
    assert all(before[path] + again[path] <= 7 for path in (a, b))


def test_an_aborted_run_leaves_no_process_and_records_nothing_more(project: Project) -> None:
    process = project.start("steps", project.path, 1000, 0.05)
    wait_for(lambda: len(marks(project.path)) >= 3, 40)
    command = [sys.executable, "-m", "perdure", "abort", "r"]
    subprocess.run(command, check=True, cwd=project.directory, env={**os.environ, "PERDURE_STORE": str(project.store)})
    recorded = project.recorded()
    assert "RunAbortedError" in process.communicate(timeout=20)[1]
    assert project.recorded() == recorded
    assert all(gone(pid) for pid in project.pids(project.path))


def test_ctrl_c_ends_the_processes_on_the_nodes_and_prints_no_traceback(project: Project) -> None:
    process = project.start("steps", project.path, 1000, 0.05)
    wait_for(lambda: len(marks(project.path)) >= 3, 40)
    process.send_signal(signal.SIGINT)
    err = process.communicate(timeout=20)[1]
    assert err.rstrip().endswith("KeyboardInterrupt")
    assert err.count("Traceback") == 1
    assert all(gone(pid) for pid in project.pids(project.path))


def test_a_local_cluster_lives_exactly_as_long_as_the_process(
    project: Project, cluster: Cluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The thread that serves the first body ends, and Linux kills what a thread has started that ends."""
    monkeypatch.setenv("PERDURE_RAY_ADDRESS", "local")
    directory = cluster.directory / "own"
    directory.mkdir()
    monkeypatch.setenv("RAY_TMPDIR", str(directory))
    process = project.start("one_after_the_other", 2)
    out, err = process.communicate(timeout=60)
    assert (out, err) == ("[0, 2]\n", "")
    wait_for(lambda: not pids(str(directory)))


def test_a_lost_node_costs_no_retry(cluster: Cluster, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = str(tmp_path / "marks")
    nodes = {name: cluster.add(name, num_cpus=5) for name in ("one", "other")}
    found: list[Any] = []
    thread = threading.Thread(target=lambda: found.append(perdure.run(flows.until_told, path).result), daemon=True)
    thread.start()
    wait_for(lambda: len(marks(path)) == 2, 40)
    (_, node), pid = marks(path)[1][1].split(" on "), int(marks(path)[1][0])
    cluster.kill(nodes.pop(node))
    assert gone(pid)
    thread.join(60)
    # The note that was recorded is not made again.
    assert found == [[False, *nodes, 2]]
    assert [text for _, text in marks(path)] == ["once", f"attempt on {node}", f"attempt on {next(iter(nodes))}"]
    # Ray has not tried again: the listener would have refused the process.
    assert "attempt 1 was lost (Ray has lost it" in caplog.text
    for number in nodes.values():
        cluster.kill(number)


def test_a_connection_that_breaks_loses_the_attempt_and_costs_no_retry(tmp_path: Path) -> None:
    """N2."""
    path = str(tmp_path / "marks")
    assert perdure.run(flows.cuts_its_connection_once, path).result == 2
    assert [text for _, text in marks(path)] == ["once", "attempt", "attempt"]

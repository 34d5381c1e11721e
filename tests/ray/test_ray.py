"""`executor="ray"` on a real cluster: values and failures as anywhere, deaths, cancellation, resources, all kinds of
calls."""

from __future__ import annotations

import logging
import os
from pathlib import Path
from typing import Any

import pytest
import remote_flows as flows
from tests.postgres_server import server
from tests.processes.test_processes import gone
from tests.ray.conftest import PROJECT, Cluster

import perdure
from perdure import errors
from perdure.executors import on_ray

pytestmark = pytest.mark.usefixtures("store")


def run(task: Any, *args: Any) -> Any:
    return perdure.run(task, *args).result


def pids(path: str) -> set[int]:
    return {int(pid) for pid, _ in flows.marks(path)}


def test_a_body_executes_on_a_node_with_the_code_that_was_shipped() -> None:
    found = run(flows.where)
    assert found["pid"] != os.getpid()
    assert (found["node"] in ("head", "broad"), found["dress"], found["word"]) == (True, "blue", "shipped")
    assert found["cwd"] == os.path.dirname(found["beside"]) != str(PROJECT)


def test_values_and_files_come_back_as_they_were() -> None:
    assert run(flows.point, flows.Point(1, 2.5)) == flows.Point(2, 2.5)
    assert run(flows.passes_files, "content") == "content"


def test_a_failure_keeps_its_class_its_attributes_its_cause_and_its_place() -> None:
    with pytest.raises(flows.OwnError) as caught:
        run(flows.raises)
    error = caught.value
    assert (error.code, error.hint, str(error)) == (7, "left", "code 7")
    assert isinstance(error.__cause__, KeyError)
    assert caught.traceback[-1].name == "raises"


@pytest.mark.parametrize("kind", ["sqlite", "postgres"])
def test_every_kind_of_call_can_be_made_on_a_node_and_is_recorded_here(
    tmp_path: Path, cluster: Cluster, kind: str
) -> None:
    if kind == "postgres":
        perdure.init(store=server().url(), ray_address=cluster.address)
    path = str(tmp_path / "marks")
    run = perdure.with_runcontext(name="all").run(flows.tells_everything, path)
    found = run.result
    assert found["note"] == found["pid"] == found["near"][1] != os.getpid()
    assert found["child"] not in (os.getpid(), found["pid"])
    assert found["slept"]
    assert found["map"] == ["a", "b"]
    assert found["context"] == ["all", "narrow.everything", 1]
    assert perdure.with_runcontext(name="all").run(flows.tells_everything, path).result == found
    assert [text for _, text in flows.marks(path)] == ["first"]


def test_many_bodies_execute_at_once() -> None:
    assert run(flows.maps, 4) == [0, 2, 4, 6]


def test_a_body_is_placed_on_a_node_with_its_resources() -> None:
    assert run(flows.broad_node) == "broad"


def test_a_body_without_a_large_enough_node_warns_waits_and_can_be_cancelled(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[on_ray.RayBody] = []
    main = on_ray.RayBody.main
    monkeypatch.setattr(on_ray.RayBody, "main", lambda body: (begun.append(body), main(body)))
    # Where the command line was used in this process nothing of the logger's gets further up.
    monkeypatch.setattr(logging.getLogger("perdure"), "propagate", True)
    assert run(flows.cancelled_in_the_queue) == "late"
    assert "nowhere.never waits: no node of the Ray cluster has 64 cores, 8 GPUs" in caplog.messages
    from ray.exceptions import TaskCancelledError  # not before the cluster has said how Ray is to be loaded

    # Ray does not keep it either.
    assert isinstance(begun[0]._ended.exception(5), TaskCancelledError)


@pytest.mark.parametrize("how", ["exit", "segfault"])
def test_a_process_that_dies_fails_its_attempt_and_retries_count_it(tmp_path: Path, how: str) -> None:
    path = str(tmp_path / "marks")
    assert run(flows.dies_twice, path, how) == "True 3"
    assert [text for _, text in flows.marks(path)] == ["once", "attempt", "attempt", "attempt"]


def test_a_death_reports_the_exit_code_or_signal() -> None:
    with pytest.raises(errors.BodyDiedError, match=r"far\.dies.*exit code 3.*attempt 1") as caught:
        run(flows.dies, 3)
    assert (caught.value.exit_code, caught.value.signal) == (3, None)


def test_a_timeout_ends_a_busy_process(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    with pytest.raises(errors.TaskTimeoutError):
        run(flows.too_long, path)
    assert all(gone(pid) for pid in pids(path))


def test_cancellation_ends_the_process(tmp_path: Path) -> None:
    path = str(tmp_path / "marks")
    assert run(flows.cancelled_by_timeout, path) == "cancelled"
    assert pids(path)
    assert all(gone(pid) for pid in pids(path))


def test_a_node_does_not_have_a_file_outside_of_the_code_root_imported(tmp_path: Path) -> None:
    """N3: the file would be imported by a process beside the driving process."""
    file, imported = tmp_path / "planted.py", tmp_path / "imported"
    file.write_text(
        "import os, perdure\n"
        "env = perdure.TaskEnvironment('planted', executor='process')\n"
        f"if 'NODE' not in os.environ: open({str(imported)!r}, 'w')\n"
        "@env.task\ndef ends_well() -> int: return 1\n"
    )
    with pytest.raises(errors.UsageError, match=r"planted.py, is not below the code root of far.calls_a_task_of"):
        run(flows.calls_a_task_of, str(file), "planted")
    assert not imported.exists()

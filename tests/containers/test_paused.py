"""PS1, PS3, P9: a run, or its task, is paused while a container of the run executes, with an engine in memory."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.containers.test_service import Connection
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import Status
from perdure.containers.memory import MemoryEngine, Running
from perdure.errors import RunPausedError
from perdure.extras import ContainerTask

job = ContainerTask(name="job", image="image", command=["job"], outputs={"o": str}, network="none", local_logs=False)
env = perdure.TaskEnvironment.from_task("paused_containers", job)


def noted() -> list[str]:
    """The words of `note`, in a file, because a resume may load this module once more."""
    file = Path(os.environ["NOTED"])
    return file.read_text().split() if file.exists() else []


@perdure.trace
async def note(word: str) -> str:
    with Path(os.environ["NOTED"]).open("a") as file:
        file.write(word + "\n")
    return word


@env.task
async def in_turn() -> list[str]:
    return [await job(), await note("after"), await job()]


@env.task
async def beside() -> list[str]:
    async def then() -> str:
        return await note(await job())

    return list(await asyncio.gather(then(), job()))


class Engine:
    """An engine in memory, whose containers end when the test says so."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.memory = MemoryEngine(self._run)

    async def _run(self, running: Running) -> int:
        while not self.go.is_set():
            await asyncio.sleep(0.01)
        Path(running.path("/var/outputs/o")).write_text("done")
        return 0

    @property
    def started(self) -> int:
        return len(self.memory.starts)


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    found = Engine()

    async def connect(wanted: str | None) -> Any:
        return Connection(found.memory)

    monkeypatch.setattr(sys.modules["perdure.runtime.process"], "_connect", connect)
    monkeypatch.setenv("NOTED", str(tmp_path / "noted"))
    perdure.init(tmp_path / "perdure.db")
    yield found
    found.go.set()
    perdure.init()


def pause(run: perdure.Run, what: str) -> None:
    assert run.pause() if what == "run" else perdure.pause_task(run.task)


def goes_on(run: perdure.Run, what: str) -> None:
    if what == "task":
        assert perdure.resume_task(run.task)


@pytest.mark.parametrize("what", ["run", "task"])
@pytest.mark.parametrize(
    ("task", "first", "result", "words"),
    [(in_turn, 1, ["done", "after", "done"], ["after"]), (beside, 2, ["done", "done"], ["done"])],
)
def test_a_container_that_executes_in_a_pause_is_recorded_and_not_started_again(
    engine: Engine, what: str, task: Any, first: int, result: list[str], words: list[str]
) -> None:
    """PS1, PS3, P9. Family: the pause of the run and of its task; one container, and two side by side."""
    ended: list[BaseException] = []

    def drive() -> None:
        try:
            perdure.with_runcontext(name="r").run(task)
        except BaseException as error:
            ended.append(error)

    driving = threading.Thread(target=drive)
    driving.start()
    wait_for(lambda: engine.started == first)
    run = perdure.Run.get("r")
    pause(run, what)
    driving.join(0.3)
    assert driving.is_alive()
    assert run.status == Status.RUNNING
    engine.go.set()
    driving.join(PATIENCE)
    assert [type(one) for one in ended] == [RunPausedError]
    assert run.status == Status.PAUSED
    assert noted() == []
    assert engine.started == first
    jobs = [node.status for node in run.tree().nodes.values() if node.name == "paused_containers.job"]
    assert jobs == ["SUCCEEDED"] * first
    wait_for(lambda: engine.memory._containers == {})
    goes_on(run, what)
    assert run.resume().result == result
    assert noted() == words
    assert engine.started == 2


@pytest.mark.parametrize("what", ["run", "task"])
def test_a_resume_while_the_container_still_executes_goes_on_with_it(engine: Engine, what: str) -> None:
    """PS1, PS3. The driver has not let go of the run, and goes on as if nothing had been."""
    done: list[Any] = []
    driving = threading.Thread(target=lambda: done.append(perdure.with_runcontext(name="r").run(in_turn).result))
    driving.start()
    wait_for(lambda: engine.started == 1)
    run = perdure.Run.get("r")
    pause(run, what)
    driving.join(0.2)
    goes_on(run, what)
    if what == "run":
        run.resume(drive=False)
    engine.go.set()
    driving.join(PATIENCE)
    assert done == [["done", "after", "done"]]
    assert engine.started == 2

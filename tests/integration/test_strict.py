"""Environments that are strict: an edit of the past stops a run, also where the source has changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.waiting import wait_for

import perdure
from perdure.api.hosting import served_tasks
from perdure.api.loading import find_task
from perdure.errors import NonDeterminismError
from perdure.testing import virtual_time
from perdure.upkeep.rehearsal_of_store import rehearsed

CODE = """
import perdure

env = perdure.TaskEnvironment("paying", strict={strict})
done = []


@perdure.trace
async def step(n: int) -> int:
    done.append(n)
    return n


@env.task
async def main() -> int:
    total = await step(1) + await step(2)
    await perdure.durable.sleep.aio(86400)
    return total
"""
EDITS = {
    "another argument": ("step(1)", "step(11)"),
    "one call less": ("await step(1) + ", ""),
    "one call more": ("total =", "await step(0)\n    total ="),
    "another order": ("await step(1) + await step(2)", "await step(2) + await step(1)"),
}


def _task(directory: Path, code: str) -> tuple[str, perdure.Task[..., int]]:
    directory.mkdir()
    (directory / "paying.py").write_text(code)
    return str(directory / "paying.py"), find_task(str(directory / "paying.py"), "main")


@pytest.fixture
def asleep(tmp_path: Path) -> Iterator[Callable[[str], perdure.Run]]:
    """Leaves a run asleep in a store, on a clock that jumps."""

    def leave(code: str) -> perdure.Run:
        _, task = _task(tmp_path / "before", code)
        with perdure.Worker([task], park_after=0):
            run = perdure.with_runcontext(name="r").submit(task)
            wait_for(lambda: run.status == "SLEEPING")
        return perdure.Run.get("r")

    perdure.init(store=tmp_path / "perdure.db")
    with virtual_time():
        yield leave
    perdure.init()


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("strict", [True, False])
def test_an_edited_run_stops_where_the_environment_is_strict(
    tmp_path: Path, asleep: Callable[[str], perdure.Run], edit: str, strict: bool
) -> None:
    code = CODE.format(strict=strict)
    run = asleep(code)
    assert code.count(EDITS[edit][0]) == 1
    file, _ = _task(tmp_path / "after", code.replace(*EDITS[edit]))
    [found] = rehearsed([file], served_tasks([file]))
    assert str(found.verdict) == ("stops" if strict else "changed")
    if strict:
        with pytest.raises(NonDeterminismError, match="its environment is strict"):
            run.resume(file)
        assert run.status == "INTERRUPTED"
    assert run.resume(file, accept=strict).status == "SUCCEEDED"


def test_an_edit_of_what_is_to_come_is_no_difference(tmp_path: Path, asleep: Callable[[str], perdure.Run]) -> None:
    code = CODE.format(strict=True)
    run = asleep(code)
    file, _ = _task(tmp_path / "after", code.replace("return total", "return total + await step(3)"))
    assert run.resume(file).result == 6

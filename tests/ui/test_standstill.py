"""What the page of a run shows of a process that has gone, and which errors a filter takes."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.crash.fleet import Fleet, fleet_of
from tests.waiting import wait_for

import perdure
from perdure.api.looking import RunFilter, selected
from perdure.core.ground.model import Status
from perdure.ui.pages import run_page
from perdure.ui.settings import UiSettings
from perdure.ui.values import Mask

TASKS = """
import asyncio
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="still")

@env.task
async def held() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(durable_sleep.aio(0.2))
        group.create_task(hang())

@env.task
async def hang() -> None:
    await asyncio.sleep(3600)

@env.task(timeout=0.05)
async def overlong() -> None:
    await asyncio.sleep(3600)
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "still.py", TASKS) as found:
        yield found


def test_the_timeline_of_an_interrupted_run_ends_at_the_last_sign_of_life(fleet: Fleet) -> None:
    """Two looks at different times see the same bars, since nothing was executed in between."""
    fleet.submit(fleet.new("held", "h"))
    worker = fleet.serve()
    fleet.wait("h", status=Status.RUNNING)
    worker.kill()
    wait_for(lambda: perdure.Run.get("h").status == Status.INTERRUPTED)
    ui = UiSettings({}, Mask())
    first, second = run_page(ui, "h", {}), run_page(ui, "h", {})
    assert first["length"] == second["length"]
    assert [one["bar"] for one in first["actions"]] == [one["bar"] for one in second["actions"]]


def test_an_error_filter_takes_the_subclasses_that_are_known(fleet: Fleet) -> None:
    fleet.submit(fleet.new("overlong", "late"))
    fleet.serve()
    fleet.wait("late", status=Status.FAILED)

    def names(error: str) -> list[str]:
        return [row.name for row in selected(RunFilter(error=error))]

    for error in (
        "TaskTimeoutError", "perdure.errors.TaskTimeoutError", "TimeoutError", "builtins.TimeoutError", "OSError",
        "PerdureError", "Exception",
    ):  # fmt: skip
        assert names(error) == ["late"], error
    for error in ("ValueError", "meoutError", "MessageTimedoutError"):
        assert names(error) == [], error

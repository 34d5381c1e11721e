"""`perdure top`: the screens through textual's own pilot, and the command on a terminal."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.terminal import Terminal
from tests.waiting import PATIENCE

import perdure
from perdure.core.ground.model import Status
from perdure.extras import durable_sleep

pytest.importorskip("textual")
from textual.pilot import Pilot
from textual.widgets import DataTable, Static

from perdure.cli.top import Question, RunScreen, TopApp

env = perdure.TaskEnvironment("top")


@perdure.trace
def step(n: int) -> int:
    print("said [bold]by[/] step", n)
    return n


@env.task
def fine(text: str = "") -> int:
    return step(1)


@env.task
def bad() -> None:
    raise LookupError("no [red]stock[/]\x1b[2J")


@env.task(queue=perdure.Queue("crawl", concurrency=3))
def queued() -> None:
    durable_sleep(1)


@pytest.fixture
def store(tmp_path: Path) -> Any:
    perdure.init(store=tmp_path / "top.db")
    try:
        perdure.with_runcontext(name="fine-1").run(fine, text="[link=x]markup[/]")
        with pytest.raises(LookupError):
            perdure.with_runcontext(name="bad-1").run(bad)
        perdure.with_runcontext(name="waits-1").submit(queued)
        yield
    finally:
        perdure.init()


def piloted(scenario: Callable[[Pilot[None]], Any], status: Status | None = None) -> None:
    """Play a scenario on the application, without a terminal."""

    async def play() -> None:
        app = TopApp(50, status)
        async with app.run_test(size=(160, 40)) as pilot:
            await scenario(pilot)

    asyncio.run(play())


async def until(pilot: Pilot[None], condition: Callable[[], bool]) -> None:
    """Wait until the application shows something."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await pilot.pause(0.05)


def cells(pilot: Pilot[None], table: str) -> list[list[str]]:
    found = pilot.app.screen.query(f"#{table}").results(DataTable)
    return [[str(cell) for cell in one.get_row_at(row)] for one in found for row in range(one.row_count)]


def shown(pilot: Pilot[None], name: str) -> str:
    return str(pilot.app.screen.query_one(f"#{name}", Static).render())


@pytest.mark.usefixtures("store")
def test_the_store_is_shown_and_followed() -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(cells(pilot, "runs")) == 3)
        rows = {row[0]: row for row in cells(pilot, "runs")}
        assert rows["fine-1"][2] == "SUCCEEDED"
        assert rows["bad-1"][2] == "FAILED"
        assert r"no [red]stock[/]\x1b[2J" in rows["bad-1"][6]
        assert [row[0] for row in cells(pilot, "queues")] == ["crawl"]
        assert "concurrency=3" in cells(pilot, "queues")[0][4]
        await asyncio.to_thread(lambda: perdure.with_runcontext(name="later").run(fine))
        await until(pilot, lambda: cells(pilot, "runs")[0][0] == "later")
        await until(
            pilot, lambda: any(row[0] == str(os.getpid()) and row[2] == "alive" for row in cells(pilot, "workers"))
        )

    piloted(scenario)


@pytest.mark.usefixtures("store")
def test_a_run_is_opened_with_its_tree_and_log_and_left_again() -> None:
    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(cells(pilot, "runs")) == 3)
        names = [row[0] for row in cells(pilot, "runs")]
        for _ in range(names.index("fine-1")):
            await pilot.press("down")
        await pilot.press("enter")
        await until(pilot, lambda: isinstance(pilot.app.screen, RunScreen))
        await until(pilot, lambda: "said [bold]by[/] step 1" in shown(pilot, "log"))
        assert "SUCCEEDED" in shown(pilot, "tree")
        assert "fine-1" in shown(pilot, "head")
        await pilot.press("escape")
        await until(pilot, lambda: len(cells(pilot, "runs")) == 3)

    piloted(scenario)


@pytest.mark.usefixtures("store")
def test_an_operation_is_done_after_a_question_alone() -> None:
    """Family: answers to the question (no, yes), and an operation that the run's status does not allow."""

    async def scenario(pilot: Pilot[None]) -> None:
        await until(pilot, lambda: len(cells(pilot, "runs")) == 3)
        assert cells(pilot, "runs")[0][0] == "waits-1"
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("n")
        await until(pilot, lambda: not isinstance(pilot.app.screen, Question))
        assert perdure.Run.get("waits-1").status == Status.QUEUED
        await pilot.press("p")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: cells(pilot, "runs")[0][2:3] == ["PAUSED"])
        await pilot.press("a")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: cells(pilot, "runs")[0][2:3] == ["ABORTED"])
        await pilot.press("p")
        await until(pilot, lambda: isinstance(pilot.app.screen, Question))
        await pilot.press("y")
        await until(pilot, lambda: any(one.severity == "error" for one in pilot.app._notifications))

    piloted(scenario)


def test_a_store_that_is_not_there_yet_is_waited_for(tmp_path: Path) -> None:
    perdure.init(store=tmp_path / "none.db")
    try:

        async def scenario(pilot: Pilot[None]) -> None:
            await pilot.pause(0.3)
            assert cells(pilot, "runs") == []
            assert not (tmp_path / "none.db").exists()

        piloted(scenario)
    finally:
        perdure.init()


def test_the_command_draws_on_a_terminal_and_gives_it_back(shell: Shell) -> None:
    shell("run", "wf.py", "add", "--a", "1", "--name", "daily-run")
    for end in ("q", ""):
        terminal = Terminal(shell.path, shell.env, "top", columns=160)
        try:
            terminal.until("daily-run")
            if end:
                terminal.type(end)
            else:
                terminal.process.send_signal(signal.SIGTERM)
            assert terminal.process.wait(PATIENCE) == 0
            terminal.until("\x1b[?1049l")  # the screen of before is back
        finally:
            terminal.close()
    done = shell("top")
    assert done.returncode == 2
    assert "perdure watch prints a line for each change" in done.stderr

"""`perdure.Worker`: a worker inside an application, in any thread, ended in good order, without signal handlers."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import kill, running, wait_for, wait_for_file

import perdure
from perdure import Status, errors

SHOP = """
import os
import pathlib
import time
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="shop")
HERE = pathlib.Path(__file__).parent


@perdure.trace
def step(n: int) -> int:
    with (HERE / "log").open("a") as log:
        log.write(f"step{n}\\\\n")
    if n == 7:
        (HERE / "begun").write_text("x")
        time.sleep(0.5)
    return n


@env.task
def sell(n: int) -> int:
    return step(n) + step(n + 1)


@env.task
async def nap(seconds: float) -> str:
    await durable_sleep.aio(seconds)
    return "awake"


@env.task
def fails() -> None:
    raise ValueError("no")
"""


@pytest.fixture
def shop(tmp_path: Path) -> Iterator[str]:
    file = tmp_path / "shop.py"
    file.write_text(SHOP.replace("\\\\n", "\\n"))
    perdure.init(store=tmp_path / "perdure.db")
    yield str(file)
    perdure.init()


def tasks_of(file: str) -> Any:
    from perdure.api.loading import load_file

    return load_file(file)


def test_runs_are_driven_while_the_block_lasts_and_not_behind_it(shop: str) -> None:
    module = tasks_of(shop)
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with perdure.Worker([shop], concurrency=3):
        assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
        runs = [perdure.submit(module.sell, n) for n in range(10, 16)]
        assert [run.wait(60).result for run in runs] == [2 * n + 1 for n in range(10, 16)]
        failed = perdure.submit(module.fails).wait(60)
        assert failed.status == Status.FAILED
    left = perdure.submit(module.sell, 1)
    assert left.status == Status.QUEUED
    with perdure.Worker([module]):
        assert left.wait(60).result == 3


@pytest.mark.parametrize("kind", ["file", "module", "task"])
def test_a_source_may_be_a_file_a_module_or_a_task(shop: str, kind: str) -> None:
    module = tasks_of(shop)
    source: Any = {"file": Path(shop), "module": module, "task": module.sell}[kind]
    with perdure.Worker([source]):
        assert perdure.submit(module.sell, 1).wait(60).result == 3


def test_a_worker_lives_in_an_event_loop_of_the_application(shop: str) -> None:
    module = tasks_of(shop)

    async def application() -> list[int]:
        async with perdure.Worker([module]):
            runs = [await perdure.submit.aio(module.sell, n) for n in range(3)]
            return [(await run.wait.aio(60)).result for run in runs]

    assert asyncio.run(application()) == [1, 3, 5]


def test_a_worker_lives_in_another_thread_than_the_main_thread(shop: str) -> None:
    module = tasks_of(shop)
    found: list[Any] = []

    def application() -> None:
        with perdure.Worker([module]):
            found.append(perdure.submit(module.sell, 1).wait(60).result)

    thread = threading.Thread(target=application)
    thread.start()
    thread.join(90)
    assert found == [3]


def test_a_second_worker_in_one_process_is_refused_and_so_is_another_store(shop: str, tmp_path: Path) -> None:
    with perdure.Worker([shop]) as first:
        with pytest.raises(errors.UsageError, match=r"has a perdure\.Worker already"):
            perdure.Worker([shop]).start()
        with pytest.raises(errors.UsageError, match=r"while a perdure\.Worker is at work"):
            perdure.init(store=tmp_path / "other.db")
        assert first.driven == 0
    with perdure.Worker([shop]):
        pass


def test_the_end_records_what_is_executing_and_leaves_the_rest_to_others(shop: str, tmp_path: Path) -> None:
    """Family: the end of a worker in the middle of a trace, of a sleep, and of an idle worker."""
    module = tasks_of(shop)
    with perdure.Worker([module], drain=30):
        run = perdure.submit(module.sell, 7)
        asleep = perdure.submit(module.nap, 3600.0)
        wait_for_file(tmp_path / "begun")
        wait_for(lambda: asleep.status == Status.SLEEPING)
    assert run.status == Status.INTERRUPTED
    assert asleep.row.status == Status.SLEEPING
    with perdure.Worker([module]):
        assert run.wait(60).result == 15
    assert (tmp_path / "log").read_text().split() == ["step7", "step8"]


def test_a_block_that_fails_ends_the_worker_too(shop: str) -> None:
    with pytest.raises(ZeroDivisionError), perdure.Worker([shop]):
        raise ZeroDivisionError
    with perdure.Worker([shop]):
        pass


@pytest.mark.parametrize(
    ("sources", "options", "message"),
    [
        ([], {}, "no tasks to serve"),
        ("shop.py", {}, "takes a list"),
        ([3], {}, "serves files, modules and tasks"),
        (["absent.py"], {}, "absent.py"),
        (["shop.py"], {"concurrency": 0}, "concurrency must be"),
        (["shop.py"], {"drain": -1}, "drain must be seconds"),
        (["shop.py"], {"park_after": "1m"}, "park_after must be seconds"),
    ],
)
def test_a_worker_that_cannot_be_is_refused(shop: str, sources: Any, options: Any, message: str) -> None:
    with pytest.raises(errors.UsageError, match=message), perdure.Worker(sources, **options):
        pass
    with perdure.Worker([shop]):
        pass


APPLICATION = """
import sys
import time
import perdure
import shop

with perdure.Worker([shop]):
    print("ready", flush=True)
    time.sleep(600)
"""


def test_an_application_that_is_killed_leaves_its_runs_to_others(shop: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(APPLICATION)
    env = {**os.environ, "PERDURE_STORE": str(tmp_path / "perdure.db")}
    module = tasks_of(shop)
    with running(sys.executable, "app.py", cwd=tmp_path, env=env) as process:
        run = perdure.submit(module.sell, 7)
        wait_for_file(tmp_path / "begun")
        kill(process)
    with perdure.Worker([module]):
        assert run.wait(60).result == 15

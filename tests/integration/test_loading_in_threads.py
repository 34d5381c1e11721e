"""Files of tasks that several threads load at once: each thread gets the whole module, or the error of its import.

The family: an application whose requests, workers and callers find tasks by file in threads. Python guards its own
imports; a file that perdure loads by its path needs the same guard.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from perdure.api.loading import find_task, load_file
from perdure.errors import CodeNotLoadedError

SLOW = """
import time
import perdure
env = perdure.TaskEnvironment(name="{name}")
time.sleep(0.2)

@env.task
def main() -> int:
    return 1
"""


@pytest.fixture(autouse=True)
def modules() -> Iterator[None]:
    before, path = set(sys.modules), list(sys.path)
    yield
    for name in set(sys.modules) - before:
        del sys.modules[name]
    sys.path[:] = path


def at_once(*calls: Callable[[], Any]) -> list[Any]:
    """What each call returned or raised."""
    found: list[Any] = [None] * len(calls)
    start = threading.Barrier(len(calls))

    def work(place: int, call: Callable[[], Any]) -> None:
        start.wait()
        try:
            found[place] = call()
        except Exception as error:
            found[place] = error

    threads = [threading.Thread(target=work, args=item) for item in enumerate(calls)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_threads_that_load_one_file_at_once_get_the_whole_module(tmp_path: Path) -> None:
    file = tmp_path / "slow_one.py"
    file.write_text(SLOW.format(name="slow_one"))
    found = at_once(*[lambda: find_task(str(file), "main").name] * 4)
    assert found == ["slow_one.main"] * 4


def test_threads_that_load_a_file_of_a_package_at_once_get_the_whole_module(tmp_path: Path) -> None:
    package = tmp_path / "slow_package"
    package.mkdir()
    (package / "__init__.py").touch()
    file = package / "flow.py"
    file.write_text(SLOW.format(name="slow_two"))
    found = at_once(*[lambda: load_file(str(file)).main.name] * 4)
    assert found == ["slow_two.main"] * 4


def test_threads_that_load_two_files_do_not_wait_for_each_other(tmp_path: Path) -> None:
    for name, other in (("left", "right"), ("right", "left")):
        text = f"import pathlib, time\nhere = pathlib.Path(__file__).parent\n(here / '{name}.began').touch()\n"
        text += f"end = time.monotonic() + 20\nwhile not (here / '{other}.began').exists():\n"
        text += "    assert time.monotonic() < end, 'alone'\n    time.sleep(0.005)\n"
        (tmp_path / f"{name}.py").write_text(text)
    found = at_once(*[lambda name=name: load_file(str(tmp_path / f"{name}.py")).__name__ for name in ("left", "right")])
    assert found == ["left", "right"]


def test_each_thread_hears_of_an_import_that_fails(tmp_path: Path) -> None:
    file = tmp_path / "broken_one.py"
    file.write_text("import time\ntime.sleep(0.1)\nraise ValueError('broken')\n")
    found = at_once(*[lambda: load_file(str(file))] * 3)
    assert all(isinstance(error, CodeNotLoadedError) and "broken" in str(error) for error in found), found

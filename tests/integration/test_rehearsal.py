"""Recorded runs against the code of the day: as tests of users, and before a deployment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.waiting import PATIENCE, wait_for

import perdure
from perdure import runtime
from perdure.api.hosting import served_tasks
from perdure.core.ground.model import Status
from perdure.errors import UsageError
from perdure.testing import assert_replays, assert_survives, fake, replay
from perdure.upkeep.exporting import exported
from perdure.upkeep.rehearsal_of_store import rehearsed
from perdure.upkeep.rehearsing import Rehearsed

CODE = """
import asyncio, random
import perdure
from perdure import durable

env = perdure.TaskEnvironment("flow")
elsewhere = perdure.TaskEnvironment("elsewhere", executor="process")


@perdure.trace
async def step(n: int) -> int:
    with open("effects", "a") as file:
        file.write(f"{n} ")
    return n * 10


@perdure.trace
def sync_step(n: int) -> int:
    with open("effects", "a") as file:
        file.write(f"{n} ")
    return n * 10


@env.task
async def child(n: int) -> int:
    return await step(n)


@elsewhere.task
def in_a_process(n: int) -> int:
    got = sync_step(n)
    durable.sleep(3600)
    return got


@env.task
async def main(n: int) -> int:
    total = await step(1)
    results = await asyncio.gather(child(n), step(3))
    await durable.sleep.aio(86400)
    return total + sum(results) + await step(4)


@env.task
def main_sync(n: int) -> int:
    total = sync_step(1)
    total += sync_step(n)
    durable.sleep(86400)
    return total


@env.task
async def short(n: int) -> int:
    return await step(1) + await step(n)


@env.task
async def fails(n: int) -> int:
    await step(n)
    raise ValueError("as always")


@env.task
def waits_elsewhere(n: int) -> int:
    return in_a_process(n)
"""
EDITS = {
    "one more step": ("total = await step(1)", "total = await step(1) + await step(77)"),
    "one step less": ("    total = await step(1)\n", "    total = 10\n"),
    "other argument": ("step(3))", "step(33))"),
    "sleep is gone": ("    await durable.sleep.aio(86400)\n", ""),
}
ALSO_FIT = {
    "another order of branches": ("gather(child(n), step(3))", "gather(step(3), child(n))"),
    "later code": ("await step(4)", "await step(5)"),
    "a comment": ("total = await step(1)", "# more words\n    total = await step(1)"),
    "a longer sleep": ("aio(86400)", "aio(86500)"),
}


def perdure_command(directory: Path, *words: str, code: int | None = 0) -> subprocess.CompletedProcess[str]:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE")}
    done = subprocess.run(
        [sys.executable, "-m", "perdure", *words], cwd=directory, capture_output=True, text=True, timeout=PATIENCE,
        check=False, env={**env, "PYTHONDONTWRITEBYTECODE": "1", "PERDURE_PROCESSES": "2"},
    )  # fmt: skip
    assert code is None or done.returncode == code, done.stdout + done.stderr
    return done


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with runs that sleep in the store, one that has failed and one that has succeeded."""
    directory = tmp_path_factory.mktemp("project")
    (directory / "flow.py").write_text(CODE)
    for n, task in enumerate(("main", "main", "main_sync", "waits_elsewhere")):
        perdure_command(directory, "submit", "flow.py", task, "--name", f"{task}-{n}", "--n", "2")
    perdure_command(directory, "run", "flow.py", "short", "--name", "done", "--n", "2")
    perdure_command(directory, "run", "flow.py", "fails", "--name", "failed", "--n", "2", code=1)
    with _serving(directory):
        expected = {"SLEEPING": 4, "SUCCEEDED": 1, "FAILED": 1}
        wait_for(lambda: _statuses(directory) == expected, story=lambda: _statuses(directory))
    return directory


@contextlib.contextmanager
def _serving(directory: Path) -> Iterator[None]:
    server = subprocess.Popen(
        [sys.executable, "-m", "perdure", "serve", "flow.py", "--park-after", "0s"], cwd=directory,
        stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        yield
    finally:
        server.terminate()
        server.wait(PATIENCE)


def _statuses(directory: Path) -> dict[str, int]:
    rows = json.loads(perdure_command(directory, "ls", "--json").stdout)
    runs = rows["runs"] if isinstance(rows, dict) else rows
    found: dict[str, int] = {}
    for run in runs:
        found[run["status"]] = found.get(run["status"], 0) + 1
    return found


def _rehearsed(directory: Path, code: str | None = None, **which: Any) -> dict[str, Rehearsed]:
    """A rehearsal of the store of that directory, in this process, under other code."""
    file = _load(directory, CODE if code is None else code)
    effects = (directory / "effects").read_text()
    before = {path: path.read_bytes() for path in directory.glob(".perdure/*.db")}
    perdure.init(store=directory / ".perdure" / "perdure.db")
    try:
        found = {one.run: one for one in rehearsed([str(file)], served_tasks([str(file)]), **which)}
    finally:
        perdure.init()
    assert (directory / "effects").read_text() == effects
    assert {path: path.read_bytes() for path in before} == before
    return found


def _load(directory: Path, code: str = CODE) -> Path:
    path = directory / f"flow_{abs(hash(code))}" / "flow.py"
    path.parent.mkdir(exist_ok=True)
    path.write_text(code)
    return path


def test_unchanged_code_fits_all_live_runs(project: Path) -> None:
    """RH2: async and sync bodies, children, bodies that are in other processes, failed runs if asked for."""
    found = _rehearsed(project)
    assert {name: str(one.verdict) for name, one in found.items()} == dict.fromkeys(
        ("main-0", "main-1", "main_sync-2", "waits_elsewhere-3"), "unchanged"
    )
    assert set(_rehearsed(project, task="flow.main_sync")) == {"main_sync-2"}
    some = _rehearsed(project, statuses=(Status.FAILED, Status.SLEEPING))
    assert {name: str(one.verdict) for name, one in some.items()} == dict.fromkeys(
        ("main-0", "main-1", "main_sync-2", "failed"), "unchanged"
    )


@pytest.mark.parametrize("edit", ALSO_FIT)
def test_an_edit_of_what_is_to_come_fits(project: Path, edit: str) -> None:
    found = _rehearsed(project, _edited(*ALSO_FIT[edit]))
    assert {str(one.verdict) for one in found.values()} == {"unchanged"}


def _edited(old: str, new: str) -> str:
    assert CODE.count(old) == 1, old
    return CODE.replace(old, new)


@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_of_the_past_is_shown_with_its_line(project: Path, edit: str) -> None:
    """RH1, RH3: nothing is executed, and not a byte of the store changes (`_rehearsed` looks)."""
    found = _rehearsed(project, _edited(*EDITS[edit]))
    assert {name: str(one.verdict) for name, one in found.items()} == {
        "main-0": "changed", "main-1": "changed", "main_sync-2": "unchanged", "waits_elsewhere-3": "unchanged",
    }  # fmt: skip
    one = found["main-0"]
    assert one.expected
    assert one.received
    assert "flow.py:" in one.where


def test_code_that_depends_on_chance_would_stop(tmp_path: Path) -> None:
    """The source is the same, and the code asks for something else: P5."""
    code = _edited("total = await step(1)", "total = await step(random.randrange(1 << 60))")
    (tmp_path / "flow.py").write_text(code)
    perdure_command(tmp_path, "submit", "flow.py", "main", "--name", "chance", "--n", "2")
    with _serving(tmp_path):
        wait_for(lambda: _statuses(tmp_path) == {"SLEEPING": 1})
    [one] = _rehearsed(tmp_path, code).values()
    assert str(one.verdict) == "stops"


def test_the_command_exits_with_1_where_a_run_would_not_go_on(project: Path) -> None:
    """In one process, and in several processes (`FEW` runs are rehearsed in one)."""
    assert "4 would go on unchanged" in perdure_command(project, "rehearse", "flow.py").stdout
    other = _load(project, _edited(*EDITS["one more step"]))
    done = perdure_command(project, "rehearse", str(other), code=1)
    assert "2 would execute something else" in done.stdout
    assert "executes something else: run main-0 (flow.main)" in done.stdout
    assert "no task 'x'" in perdure_command(project, "rehearse", "flow.py", "--task", "x", code=2).stderr
    assert "the statuses are" in perdure_command(project, "rehearse", "flow.py", "--status", "ASLEEP", code=2).stderr


def test_a_rehearsal_in_several_processes_finds_the_same(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.upkeep.rehearsal_of_store.FEW", 0)
    monkeypatch.setenv("PERDURE_PROCESSES", "2")
    found = _rehearsed(project, _edited(*EDITS["one step less"]))
    assert sorted(str(one.verdict) for one in found.values()) == ["changed", "changed", "unchanged", "unchanged"]


@pytest.mark.parametrize(
    ("run", "at", "typed", "shown"),
    [
        ("main-0", 1, "p total\nc\n", "(Pdb) 10"),
        ("main_sync-2", 2, "p total\nc\n", "(Pdb) 30"),
        ("done", 99, "c\n", ""),
        ("failed", 1, "n\nc\n", "as always"),
    ],
)
def test_a_run_is_debugged_without_effects(project: Path, run: str, at: int, typed: str, shown: str) -> None:
    """Async and sync bodies; runs that sleep, have ended, have failed; an entry behind the end."""
    effects = (project / "effects").read_text()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PERDURE")}
    line = [sys.executable, "-m", "perdure", "debug", run, "--at", str(at)]
    done = subprocess.run(
        line, cwd=project, input=typed, capture_output=True, text=True, timeout=PATIENCE, check=False, env=env
    )
    assert done.returncode == 0, done.stderr
    assert shown in done.stdout
    assert "asked for all that is recorded" in done.stderr
    assert (project / "effects").read_text() == effects


# -- replay as a test ------------------------------------------------------------------------------------------


def _export(project: Path, run: str) -> str:
    perdure.init(store=project / ".perdure" / "perdure.db")
    try:
        return json.dumps(exported(run))
    finally:
        perdure.init()


@pytest.mark.parametrize("run", ["done", "failed", "main-0", "main_sync-2", "waits_elsewhere-3"])
def test_an_exported_run_is_replayed_without_effects(project: Path, tmp_path: Path, run: str) -> None:
    file = tmp_path / f"{run}.json"
    file.write_text(_export(project, run))
    assert str(project) not in file.read_text()
    effects = (project / "effects").read_text()
    assert replay(tmp_path / "*.json", source=_load(project)) == 1
    assert (project / "effects").read_text() == effects


@pytest.mark.parametrize(
    ("run", "edit"),
    [(run, edit) for run in ("main-0",) for edit in EDITS.values()]
    + [
        ("done", ("return await step(1) + await step(n)", "return await step(1) + await step(n + 1)")),
        ("done", ("return await step(1) + await step(n)", "return await step(1) + await step(n) + await step(9)")),
        ("done", ("return await step(1) + await step(n)", "return await step(1) + await step(n) + 1")),
        ("done", ("return await step(1) + await step(n)", "return await step(1)")),
        ("main_sync-2", ("    total += sync_step(n)\n", "")),
    ],
)
def test_the_first_difference_is_shown_with_both_sides(
    project: Path, tmp_path: Path, run: str, edit: tuple[str, str]
) -> None:
    file = tmp_path / "run.json"
    file.write_text(_export(project, run))
    with pytest.raises(AssertionError, match=f"run {run}.*\n  expected: .*\n  received: ") as caught:
        replay(file, source=_load(tmp_path, CODE.replace(*edit)))
    assert "flow.py:" in str(caught.value)


def test_redacted_texts_are_not_in_the_file_and_the_run_still_replays(tmp_path: Path) -> None:
    """Texts in arguments, values, errors, inputs and results."""
    (tmp_path / "mails.py").write_text(
        """
import perdure
env = perdure.TaskEnvironment("mails")

@perdure.trace
async def mail(to: str, words: list[str]) -> dict[str, str]:
    if to.startswith("bad"):
        raise ValueError(f"secret-address {to}")
    return {"id": f"secret-{to}", "to": to}

@env.task
async def main(to: str) -> str:
    sent = await mail(to, ["secret-text"])
    again = await mail(sent["id"], [sent["to"]])
    try:
        await mail("bad " + to, [])
    except ValueError:
        return again["id"]
    return ""
"""
    )
    perdure_command(tmp_path, "run", "mails.py", "main", "--name", "r", "--to", "secret-ada")
    file = tmp_path / "r.json"
    file.write_text(perdure_command(tmp_path, "export", "r", "--redact", "mail", "--redact", "mails.main").stdout)
    assert "secret" not in file.read_text()
    assert "secret" in perdure_command(tmp_path, "export", "r").stdout
    assert replay(file, source=tmp_path / "mails.py") == 1
    code = (tmp_path / "mails.py").read_text()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "mails.py").write_text(
        code.replace('    again = await mail(sent["id"], [sent["to"]])\n', "    again = sent\n")
    )
    with pytest.raises(AssertionError, match="expected"):
        replay(file, source=tmp_path / "other" / "mails.py")


def test_a_file_that_is_no_recorded_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        replay(tmp_path / "none.json")
    for text in ("", "[]", "{}", '{"perdure": "recorded run"}', '{"perdure": "recorded run", "format": 99}'):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(UsageError, match=r"no recorded run|newer perdure"):
            replay(tmp_path / "bad.json")


# -- every prefix, every crash ---------------------------------------------------------------------------------

env = perdure.TaskEnvironment("test_rehearsal")
luck: list[int] = []


@perdure.trace
async def add(n: int) -> int:
    luck.append(n)
    return n + 1


@env.task(retries=2)
async def below(n: int) -> int:
    found = perdure.ctx()
    assert found is not None
    got = await add(n)
    if found.attempt == 1:
        raise OSError("once")
    return got


@env.task
async def good(n: int) -> int:
    total = await below(n)
    for k in range(3):
        await perdure.durable.sleep.aio(3600)
        total += await add(k)
    return total


@env.task
def good_sync(n: int) -> int:
    perdure.durable.sleep(3600)
    return sum(perdure.map(below, range(n)))  # type: ignore[arg-type]


@env.task
async def counts_on_memory(n: int) -> int:
    """Depends on what the process remembers."""
    return await add(len(luck)) + await add(n)


@env.task
async def fails_in_the_end(n: int) -> int:
    await add(n)
    raise ValueError(f"no {n}")


@pytest.mark.parametrize("task", [good, good_sync, fails_in_the_end])
def test_a_deterministic_task_replays_from_every_prefix_and_survives_every_crash(task: Any) -> None:
    settings = runtime.process().settings
    assert_replays(task, {"n": 3})
    assert assert_survives(task, {"n": 3}) > 1
    assert 1 < assert_survives(task, {"n": 3}, at="random", seed=7) <= 10
    assert runtime.process().settings == settings


def test_a_task_that_depends_on_memory_is_found(tmp_path: Path) -> None:
    luck.clear()
    with pytest.raises(AssertionError, match="expected: trace add"):
        assert_replays(counts_on_memory, {"n": 3})
    with pytest.raises(AssertionError, match="crashed after write"):
        assert_survives(counts_on_memory, {"n": 3})
    with fake(add, returns=1), pytest.raises(UsageError, match="every_write"):
        assert_survives(good, {"n": 3}, at="now")  # type: ignore[arg-type]

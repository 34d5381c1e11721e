"""FK1, FK2: forks of finished runs at each of their entries, with replaced outcomes, messages, files and children."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from tests.crash.fleet import Fleet, fleet_of, words
from tests.waiting import wait_for

import perdure
from perdure import Status, errors
from perdure.api.loading import find_task
from perdure.core.ground.model import ROOT, Kind, Result
from perdure.core.journal.segment import journal_of
from perdure.upkeep import collecting

FLOW = """
import asyncio
import pathlib
from dataclasses import dataclass

import perdure
from perdure.extras import durable_sleep, durable_time
from perdure.io import File

env = perdure.TaskEnvironment(name="flow")
HERE = pathlib.Path(__file__).parent


def log(word):
    with (HERE / "log").open("a") as file:
        file.write(word + "\\n")


@dataclass
class Offer:
    price: float
    accepted: bool = False


@perdure.trace
async def note(word: str) -> str:
    log(word)
    return word


@perdure.trace
def price(item: str) -> float:
    log(f"price {item}")
    return 2.5


@perdure.trace
async def offer(price: float) -> Offer:
    log("offer")
    return Offer(price)


@perdure.trace
def items(count: int):
    for number in range(count):
        log(f"item {number}")
        yield number


@perdure.trace
def fails() -> int:
    log("fails")
    raise ValueError("no")


@perdure.trace
def write() -> File:
    (HERE / "data.txt").write_text("data")
    return File.from_local(HERE / "data.txt")


@env.task
async def child(word: str) -> int:
    await note(f"{word} one")
    await note(f"{word} two")
    return len(word)


@env.task
async def everything() -> list:
    found = [price("a"), (await offer(1.0)).price]
    await durable_sleep.aio(0.01)
    found += await asyncio.gather(child("x"), child("yy"), note("beside"))
    found += list(items(2))
    try:
        fails()
    except ValueError:
        found.append(await note("caught"))
    await durable_time.aio()
    found.append(await note("last"))
    return found


@env.task
async def decides() -> str:
    first = await offer(3.0)
    if first.accepted:
        return await note(f"bought at {first.price}")
    return await note("declined")


@env.task
async def sums() -> int:
    return await child("abc") + await child("de")


@env.task(retries=1)
async def retried() -> list[str]:
    await note("before")
    if perdure.ctx().attempt == 1:
        raise ValueError("once")
    return [await note("after")]


@env.task
async def listens() -> list[str]:
    go = await perdure.new_condition.aio("go", data_type=str)
    found = [await go.wait.aio(), await perdure.receive.aio("words", str)]
    await note("between")
    return [*found, await perdure.receive.aio("words", str), await go.wait.aio()]


@env.task
async def receives_in_a_child() -> str:
    return await receiver()


@env.task
async def receiver() -> str:
    return await perdure.receive.aio("words", str)


@env.task
async def cleans_up() -> None:
    await note("begun")
    try:
        await durable_sleep.aio(3600)
    finally:
        await note("cleaned")


@perdure.trace
def mark() -> None:
    log("mark")


@env.task
def makes_a_file() -> str:
    made = write()
    mark()
    return pathlib.Path(made.path).read_text()
"""


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with fleet_of(tmp_path, "flow.py", FLOW) as found:
        yield found


def driven(fleet: Fleet, task: str, name: str = "r") -> perdure.Run:
    run = perdure.with_runcontext(name=name).run(find_task(str(fleet.file), task))
    return run


def entries(run: perdure.Run) -> list[Any]:
    from perdure import runtime

    return list(journal_of(runtime.worker().store, run.row))


def number(run: perdure.Run, name: str, place: int = 0) -> int:
    found = [one.n for one in entries(run) if one.action == ROOT and one.name == name and one.result < Result.LOOSEN]
    return int(found[place])


def test_a_run_is_forked_before_each_of_its_entries(fleet: Fleet) -> None:
    """FK1, FK2. Family: traces, children side by side, a sleep, items of a generator, a failure, a reading."""
    run = driven(fleet, "everything")
    before, row = entries(run), run.row
    whole = words(fleet)
    kinds = set()
    for entry in before:
        if entry.action != ROOT or entry.result == Result.NOTE:
            continue
        (fleet.directory / "log").unlink()
        kinds.add((entry.kind, entry.result))
        fork = run.rerun(from_=entry.n, name=f"f{entry.n}")
        assert fork.result == run.result
        done = words(fleet)
        shared = [one for one in before if one.n < entry.n and one.action == ROOT]
        assert len(done) <= len(whole)
        assert not {one.name for one in shared if one.name == "price"} or "price a" not in done
        names = {one.name for one in shared}
        assert ("flow.offer" in names or "offer" in names) == ("offer" not in done)
        assert [one for one in entries(fork) if one.n < entry.n and one.action == ROOT and one.name] == [
            one for one in shared if one.name
        ]
        assert done[-1] == "last"
    assert len(kinds) >= 6
    assert (entries(run), run.row) == (before, row)


def test_a_child_under_way_is_executed_from_its_beginning_and_an_ended_child_is_not(fleet: Fleet) -> None:
    """FK2. Family: the outcome of the first child, of the second, and of the step beside both."""
    run = driven(fleet, "sums")
    first, second = number(run, "flow.child"), number(run, "flow.child", 1)
    (fleet.directory / "log").unlink()
    assert run.rerun(from_=second).result == 5
    assert words(fleet) == ["de one", "de two"]
    assert run.rerun(from_=first).result == 5
    assert words(fleet)[2:] == ["abc one", "abc two", "de one", "de two"]
    shown = run.fork(before=second, name="shown").tree()
    assert [node.name for node in shown.nodes.values()] == ["flow.sums", "flow.child", "note", "note"]


@dataclass
class Other:
    price: float


def test_an_outcome_is_replaced_by_its_declared_type(fleet: Fleet) -> None:
    """FK1. Family: a dataclass of a trace, the result of a child, in Python and on the command line; a wrong type."""
    run = driven(fleet, "decides")
    assert run.result == "declined"
    offered = number(run, "offer")
    from flow import Offer  # type: ignore[import-not-found]

    fork = run.fork(after=offered, outcome=Offer(9.0, True))
    assert fork.status == Status.SLEEPING
    assert fork.resume().result == "bought at 9.0"
    with pytest.raises(errors.ValueMismatchError, match="Offer"):
        run.fork(after=offered, outcome="cheap")
    done = fleet.perdure("fork", "r", "--after", offered, "--outcome", '{"price": 4, "accepted": true}', "--name", "c")
    assert (done.returncode, done.stdout) == (0, "c\n"), done.stderr
    assert fleet.perdure("resume", "c").stdout == "bought at 4.0\n"
    wrong = fleet.perdure("fork", "r", "--after", offered, "--outcome", '{"cost": 4}')
    assert wrong.returncode == 2
    assert "return value of offer of run 'r'" in wrong.stderr
    assert json.loads(fleet.perdure("fork", "r", "--before", 1, "--json").stdout)["task"] == "flow.decides"
    sums = driven(fleet, "sums", "s")
    asyncio.run(sums.fork.aio(after=number(sums, "flow.child"), outcome=100, name="t"))
    assert perdure.Run.get("t").resume().result == 102
    assert fleet.perdure("rerun", "s", "--from", number(sums, "flow.child", 1)).stdout == "5\n"


def test_a_worker_goes_on_with_a_fork(fleet: Fleet) -> None:
    run = driven(fleet, "everything")
    fleet.serve()
    fork = run.fork(before=number(run, "note", 1))
    assert fork.wait(100).result == run.result


def test_a_fork_of_a_run_that_was_retried(fleet: Fleet) -> None:
    """FK1. The attempts of a fork are counted from 1, and what was recorded before the failure is reused."""
    run = driven(fleet, "retried")
    (fleet.directory / "log").unlink()
    fork = run.rerun(from_=number(run, "note", -1), name="f")
    assert fork.result == ["after"]
    assert words(fleet) == ["after"]


def test_received_messages_stay_received_and_later_ones_are_not_shared(fleet: Fleet) -> None:
    """FK1, P12. Family: a condition, a mailbox, and a message that a child had received which the fork executes."""
    driver = threading.Thread(target=driven, args=(fleet, "listens"))
    driver.start()
    wait_for(lambda: "r" in [one.name for one in perdure.runs()])
    run = perdure.Run.get("r")
    run.signal("go", "now")
    for word in ("one", "two"):
        run.send("words", word)
    driver.join()
    assert run.result == ["now", "one", "two", "now"]
    fork = run.fork(before=number(run, "note"))
    fork.send("words", "new")
    assert fork.resume().result == ["now", "one", "new", "now"]
    driver = threading.Thread(target=driven, args=(fleet, "receives_in_a_child", "c"))
    driver.start()
    wait_for(lambda: "c" in [one.name for one in perdure.runs()])
    perdure.Run.get("c").send("words", "hello")
    driver.join()
    original = perdure.Run.get("c")
    assert original.rerun(from_=number(original, "flow.receiver")).result == "hello"


def test_removing_the_original_leaves_the_fork_whole(fleet: Fleet) -> None:
    """FK1, G6."""
    run = driven(fleet, "makes_a_file")
    fork = run.fork(before=number(run, "mark"), name="f")
    (fleet.directory / "data.txt").unlink()
    collecting.collect(timedelta(0), frozenset({Status.SUCCEEDED}), dry_run=False)
    with pytest.raises(errors.RunNotFoundError):
        perdure.Run.get("r")
    assert fork.resume().result == "data"


def test_a_fork_is_refused_where_it_means_nothing(fleet: Fleet) -> None:
    """Family: unknown entries, entries of children, of marks, runs that have not ended, names, missing outcomes."""
    run = driven(fleet, "everything")
    child = next(one.n for one in entries(run) if one.action != ROOT)
    sleep = next(one.n for one in entries(run) if one.action == ROOT and one.kind == Kind.SLEEP)
    for call, message in [
        ({"before": 999}, "run 'r' has no entry 999; see the numbers with: perdure show r"),
        ({"before": child}, f"entry {child} of run 'r', note, belongs to a child"),
        ({}, "name one entry"),
        ({"before": 1, "after": 1}, "name one entry"),
        ({"before": 1, "outcome": 3}, "an outcome takes the place"),
        ({"after": 1}, "an outcome takes the place"),
        ({"before": "one"}, "an entry is named by its number"),
        ({"after": sleep, "outcome": None}, "is no outcome of a trace or task: fork before it"),
        ({"before": 1, "name": ""}, "name"),
    ]:
        with pytest.raises(errors.UsageError, match=message):
            run.fork(**call)
    run.fork(before=1, name="taken")
    with pytest.raises(errors.RunConflictError, match="a run is called 'taken' already"):
        run.fork(before=1, name="taken")
    with pytest.raises(errors.UsageError, match="run 'taken' has not ended, it is SLEEPING"):
        perdure.Run.get("taken").fork(before=1)
    with pytest.raises(errors.UsageError, match="give one of both"):
        run.rerun(from_=1, recover=True)
    retried = driven(fleet, "retried", "t")
    mark = next(one.n for one in entries(retried) if one.result >= Result.LOOSEN)
    with pytest.raises(errors.UsageError, match=f"entry {mark} of run 't' holds no outcome of a call"):
        retried.fork(before=mark)


def test_a_cancelled_run_is_forked_before_its_code_knew(fleet: Fleet) -> None:
    fleet.serve("--park-after", "3600s")
    fleet.submit(fleet.new("cleans_up", "r"))
    wait_for(lambda: "begun" in words(fleet))
    run = perdure.Run.get("r")
    wait_for(lambda: run.status == Status.SLEEPING)
    run.cancel("enough")
    assert run.wait(100).status == "CANCELLED"
    cleaned = number(run, "note", 1)
    with pytest.raises(errors.UsageError, match=r"run 'r' was cancelled, and its code knew by entry \d+: fork before"):
        run.fork(before=cleaned)
    fork = run.fork(before=2, name="f")
    wait_for(lambda: fork.status == Status.SLEEPING and len(fork.tree().nodes) == 3)
    assert words(fleet) == ["begun", "cleaned"]
    fork.cancel()
    assert fork.wait(100).status == "CANCELLED"

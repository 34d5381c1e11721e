"""`Batch`: one call of a function for the inputs of many runs, and an outcome of its own for each."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from pathlib import Path

import pytest
from tests.crash.fleet import fleet_of
from tests.waiting import wait_for

import perdure
from perdure import errors

pytestmark = [
    pytest.mark.usefixtures("perdure_store"),
    pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning"),
]

env = perdure.TaskEnvironment(name="batching")
calls: list[list[int]] = []


@pytest.fixture(autouse=True)
def _no_calls() -> None:
    calls.clear()


@env.task(batch=perdure.Batch(size=5, within=0.3))
async def doubled(numbers: list[int]) -> list[int]:
    calls.append(numbers)
    await asyncio.sleep(0)
    return [2 * number for number in numbers]


@env.task(batch=perdure.Batch(size=4, within=0.3))
def halved(numbers: list[int]) -> list[float]:
    calls.append(numbers)
    return [number / 2 if number >= 0 else ValueError(f"{number} is negative") for number in numbers]  # type: ignore[misc]


@env.task(batch=perdure.Batch(size=3, within=0.2), retries=perdure.RetryStrategy(1, perdure.Backoff(0)))
def flaky(numbers: list[int]) -> list[int]:
    calls.append(numbers)
    if len(calls) == 1:
        raise ConnectionError("not yet")
    return numbers


@env.task(batch=perdure.Batch(size=3, within=0.1))
def too_few(numbers: list[int]) -> list[int]:
    return numbers[1:]


@env.task
async def maps(count: int) -> list[int]:
    return [value async for value in perdure.map.aio(doubled, range(count))]


def test_runs_share_calls_and_have_outcomes_of_their_own() -> None:
    """BT1, BT2: full calls, and a call that is not full when the time of its first item is over."""
    with perdure.Worker([doubled]):
        runs = [perdure.submit(doubled, n) for n in range(12)]
        assert [run.wait(timeout=60).result for run in runs] == [2 * n for n in range(12)]
    assert sorted(n for call in calls for n in call) == list(range(12))
    assert max(map(len, calls)) <= 5
    assert len(calls) < 12


def test_one_item_fails_alone() -> None:
    with perdure.Worker([halved]):
        runs = [perdure.submit(halved, numbers=n) for n in (4, -1, 6)]
        ended = [run.wait(timeout=60) for run in runs]
        assert [run.status for run in ended] == ["SUCCEEDED", "FAILED", "SUCCEEDED"]
        assert (ended[0].result, ended[2].result) == (2.0, 3.0)
        with pytest.raises(ValueError, match="-1 is negative"):
            _ = ended[1].result


def test_a_failed_call_fails_all_its_items_and_each_run_has_its_own_retries() -> None:
    with perdure.Worker([flaky]):
        runs = [perdure.submit(flaky, n) for n in range(3)]
        assert [run.wait(timeout=60).result for run in runs] == [0, 1, 2]


def test_children_of_one_run_share_calls() -> None:
    assert perdure.run(maps, 10).result == [2 * n for n in range(10)]
    assert len(calls) < 10


def test_a_result_that_does_not_fit_fails_every_item() -> None:
    with pytest.raises(errors.UsageError, match="has to give a list of as many results"):
        perdure.run(too_few, 1)


def test_a_plain_call_is_a_batch_as_well() -> None:
    async def both() -> list[int]:
        return list(await asyncio.gather(doubled(1), doubled(2)))  # type: ignore[arg-type]

    assert asyncio.run(both()) == [2, 4]
    assert sorted(map(sorted, calls)) == [[1, 2]]


def _two(a: list[int], b: list[int]) -> list[int]:
    return a


def _no_list(a: int) -> list[int]:
    return [a]


def _fine(a: list[int]) -> list[int]:
    return a


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: perdure.Batch(size=0), "size must be"),
        (lambda: perdure.Batch(within=-1), "within must be"),
        (lambda: env.task(batch=3)(_fine), "must be a perdure.Batch"),  # type: ignore[call-overload]
        (lambda: env.task(batch=perdure.Batch())(_two), "must take one argument"),
        (lambda: env.task(batch=perdure.Batch())(_no_list), "must be declared as lists"),
        (
            lambda: perdure.TaskEnvironment(name="far", executor="process").task(batch=perdure.Batch())(_fine),
            "executor='local'",
        ),
    ],
)
def test_settings_without_a_meaning_are_refused(make, says: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(errors.UsageError, match=says):
        make()


KILLED = """
import json, os, time
import perdure

env = perdure.TaskEnvironment(name="killed")

def log(*what):
    file = os.path.join(os.path.dirname(os.path.abspath(__file__)), "calls")
    fd = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, json.dumps(what).encode() + b"\\n")
    os.close(fd)

@env.task(batch=perdure.Batch(size=4, within=0.2))
def squared(numbers: list[int]) -> list[int]:
    log("begins", numbers)
    time.sleep(0.3)
    log("ends", numbers)
    return [n * n for n in numbers]
"""


def test_a_worker_killed_within_a_call_costs_no_outcome(tmp_path: Path) -> None:
    """BT1: kills while items wait, while the function works, and right behind the call; every run ends once."""
    with fleet_of(tmp_path, "killed.py", KILLED) as fleet:

        def logged(kind: str) -> list[list[int]]:
            file = fleet.directory / "calls"
            lines = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
            return [numbers for what, numbers in lines if what == kind]

        worker = fleet.serve()
        fleet.submit(*(fleet.new("squared", f"r{n}", numbers=n) for n in range(16)))
        for kind, count in (("begins", 1), ("ends", 2)):
            wait_for(lambda: len(logged(kind)) >= count, story=fleet.story)  # noqa: B023
            worker.kill()
            worker = fleet.serve()
        fleet.wait()
        assert [perdure.Run.get(f"r{n}").result for n in range(16)] == [n * n for n in range(16)]
        done = Counter(n for numbers in logged("ends") for n in numbers)
        assert set(done) == set(range(16))
        assert all(len(numbers) <= 4 for numbers in logged("begins"))

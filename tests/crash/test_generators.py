"""P1 for traced generators that are interrupted: no consumer ever gets the items of two executions spliced.

Family: what a second execution gives in place of recorded items. The same items, equal ones in another encoding (the
order of a set, the name of a file), other ones, an early end, an exception; for sync and async generators, in the
process of the run and in a pool process, killed at every write.
"""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from tests.crash.harness import WORKFLOWS, Broken, Hosts, Lab, run_parallel
from tests.crash.test_edited_code import HEAD, TAIL, write

SCRIPT = WORKFLOWS / "second_lives.py"
FIRST = ["first0", "first1", "first2", "first3"]
OTHER = ["first0", "other1", "other2", "other3"]
CONSUMERS = (
    "texts_consumed",
    "points_consumed",
    "mappings_consumed",
    "files_consumed",
    "async_texts_consumed",
    "async_points_consumed",
)
POINTS = [f"{number}:after" for number in range(1, 9)]


def killed_at(hosts: Hosts, place: Path, name: str, point: str, env: dict[str, str] | None = None) -> Lab | None:
    """A run whose first process was killed there; `None` where that process ended before."""
    lab = Lab(hosts, place / f"{name}-{point}".replace(":", ""), SCRIPT, name, env)
    return lab if lab.start(kill_at=point).killed else None


def recorded_items(lab: Lab) -> int:
    return sum(row.result == 3 for row in lab.journal())


def goes_on(hosts: Hosts, place: Path, name: str, point: str, executor: str = "local") -> bool:
    lab = killed_at(hosts, place, name, point, {"LAB_EXECUTOR": executor})
    if lab is None:
        return False
    before = lab.trials[-1].seen().get("main", [])
    again = lab.start()
    if again.answer != {"value": FIRST} or again.seen().get("main", before)[: len(before)] != before:
        raise Broken(f"P1: expected {FIRST}, not {again.answer}\n{lab.story()}")
    return True


@pytest.mark.parametrize("name", CONSUMERS)
def test_equal_items_go_on_after_a_kill_at_every_item(hosts: Hosts, place: Path, name: str) -> None:
    """P1, GI1: also where sets come in another order, and files under other names."""
    assert sum(run_parallel([partial(goes_on, hosts, place, name, point) for point in POINTS])) >= 4


def diverges(hosts: Hosts, place: Path, name: str, point: str, executor: str = "local") -> bool:
    """Whether the run was stopped. Where no more than item 0 was recorded, or all, it goes on with one execution."""
    lab = killed_at(hosts, place, name, point, {"LAB_EXECUTOR": executor})
    if lab is None:
        return False
    journal, seen = lab.journal(), lab.trials[-1].seen().get("main", [])
    trial = lab.start(env={"LIFE": "other"})
    if trial.answer is None:
        raise Broken(f"no answer\n{lab.story()}")
    if "value" in trial.answer:
        if trial.answer["value"] not in (FIRST, OTHER) or (FIRST[1] in seen and trial.answer["value"] != FIRST):
            raise Broken(f"P1: spliced: {trial.answer}\n{lab.story()}")
        return False
    assert trial.answer["error"] == "GeneratorDivergedError", lab.story()
    assert "item 1 as recorded" in trial.answer["text"], trial.answer["text"]
    assert "resume=" in trial.answer["text"]
    assert lab.journal() == journal, lab.story()
    assert lab.status() == "INTERRUPTED", lab.story()
    assert trial.seen().get("main", [])[: len(seen)] == seen
    assert not any(item.startswith("other") for item in trial.seen().get("main", [])), lab.story()
    assert lab.start().answer == {"value": FIRST}, lab.story()
    return True


@pytest.mark.parametrize("name", CONSUMERS)
def test_other_items_stop_the_run_before_any_is_handed_out(hosts: Hosts, place: Path, name: str) -> None:
    """P1, P5, GI1: the run stays interrupted, nothing is recorded, and fitting code continues it."""
    assert sum(run_parallel([partial(diverges, hosts, place, name, point) for point in POINTS])) >= 3


@pytest.mark.parametrize("name", ["texts_consumed", "async_points_consumed"])
def test_other_items_in_a_pool_process_stop_the_run(hosts: Hosts, place: Path, name: str) -> None:
    """P1, P5."""
    points = ["4:after", "5:after"]
    assert sum(run_parallel([partial(diverges, hosts, place, name, point, "process") for point in points])) >= 1


@pytest.mark.parametrize("name", ["texts_consumed", "async_texts_consumed"])
def test_an_early_end_of_the_second_execution_stops_the_run(hosts: Hosts, place: Path, name: str) -> None:
    """P1."""
    lab = killed_at(hosts, place, name, "4:after")
    assert lab is not None
    assert recorded_items(lab) >= 2
    trial = lab.start(env={"LIFE": "short"})
    assert trial.answer["error"] == "GeneratorDivergedError", lab.story()
    assert "received: the end of the generator" in trial.answer["text"]
    assert lab.status() == "INTERRUPTED"
    assert lab.start().answer == {"value": FIRST}


@pytest.mark.parametrize("name", ["texts_consumed", "async_texts_consumed"])
def test_an_exception_in_place_of_a_recorded_item_is_the_outcome_of_the_next_item(
    hosts: Hosts, place: Path, name: str
) -> None:
    """P1: a failure, as that of any call that is executed again; a note says what it stands for."""
    lab = killed_at(hosts, place, name, "4:after")
    assert lab is not None
    count = recorded_items(lab)
    trial = lab.start(env={"LIFE": "raises"})
    assert trial.answer == {"error": "LabError", "text": "broken"}, lab.story()
    assert trial.seen()["main"] == FIRST[:count]
    assert lab.status() == "FAILED"
    error = next(row for row in lab.journal() if row.result == 1)
    assert error.item == count
    assert error.value is not None
    assert b"raised this in place of item 1" in error.value


def test_a_body_that_catches_every_exception_does_not_see_a_divergence(hosts: Hosts, place: Path) -> None:
    """P5: the divergence is no failure of the stream, so no compensation is executed."""
    lab = killed_at(hosts, place, "caught", "4:after")
    assert lab is not None
    trial = lab.start(env={"LIFE": "other"})
    assert trial.answer["error"] == "GeneratorDivergedError", lab.story()
    assert trial.executed() == []
    assert lab.start().answer == {"value": FIRST}


def does_not_open(hosts: Hosts, place: Path, name: str, point: str) -> bool:
    lab = killed_at(hosts, place, name, point)
    if lab is None or "a" not in lab.trials[-1].recorded:
        return False
    trial = lab.start(env={"LIFE": "other"})
    if "value" not in (trial.answer or {}) or any(line.kind == "opened" for line in trial.log):
        raise Broken(f"the generator was executed again\n{lab.story()}")
    return True


@pytest.mark.parametrize("name", ["finished", "half_consumed"])
def test_a_generator_that_had_ended_or_was_closed_is_not_executed_on_replay(
    hosts: Hosts, place: Path, name: str
) -> None:
    """P1, GI2."""
    points = [f"{number}:after" for number in range(3, 11)]
    assert sum(run_parallel([partial(does_not_open, hosts, place, name, point) for point in points])) >= 1


def fails_once(hosts: Hosts, place: Path, point: str) -> bool:
    lab = killed_at(hosts, place, "fails_once", point)
    if lab is None:
        return False
    trial = lab.start()
    values = [[f"{number}-{place}" for place in range(3)] for number in range(1, 4)]
    if trial.answer is None or trial.answer.get("value") not in values:
        # Interrupted between two items, and executed again with others.
        assert (trial.answer or {}).get("error") == "GeneratorDivergedError", lab.story()
        return False
    return True


def test_a_generator_that_failed_is_tried_again_as_a_whole(hosts: Hosts, place: Path) -> None:
    """P1, GI3: a retry discards the failure with the items before it, and the next attempt gets one execution."""
    alone = Lab(hosts, place / "undisturbed", SCRIPT, "fails_once")
    assert alone.start().answer == {"value": ["1-0", "1-1", "1-2"]}, alone.story()
    assert any(run_parallel([partial(fails_once, hosts, place, point) for point in POINTS]))


UNFINISHED = (
    "consumer_fails",
    "consumer_fails_between_steps",
    "async_consumer_fails",
    "sibling_fails",
    "threaded_consumer_fails",
)


def one_execution(hosts: Hosts, place: Path, name: str, point: str | None, executor: str = "local") -> int:
    """The number of the execution whose items the run has ended with; 0 if an execution was interrupted between two
    items, and the next execution gave others."""
    lab = Lab(hosts, place / f"{name}-{point}".replace(":", ""), SCRIPT, name, {"LAB_EXECUTOR": executor})
    trial = lab.start(kill_at=point)
    if trial.killed:
        trial = lab.start()
    answer = trial.answer or {}
    if answer.get("error") == "GeneratorDivergedError" and point is not None:
        return 0
    items = [str(item).split("(")[-1].strip("')") for item in answer.get("value", [])]
    numbers = {item.split("-")[0] for item in items if "-" in item}
    if len(numbers) != 1 or [item for item in items if item.endswith("-2")] == []:
        raise Broken(f"P1: {answer}\n{lab.story()}")
    return int(numbers.pop())


@pytest.mark.parametrize("name", UNFINISHED)
def test_a_retry_executes_a_generator_that_had_not_ended_as_a_whole(hosts: Hosts, place: Path, name: str) -> None:
    """P1, GI3: its consumer has failed half-way. The family: consumers that are sync, async, in a thread, with steps
    between the items, and a generator that is cancelled while it executes."""
    assert one_execution(hosts, place, name, None) == 1
    found = run_parallel([partial(one_execution, hosts, place, name, point) for point in POINTS])
    assert any(found)


@pytest.mark.parametrize("name", ["consumer_fails_between_steps", "sibling_fails"])
def test_a_retry_in_a_pool_process_executes_an_unfinished_generator_as_a_whole(
    hosts: Hosts, place: Path, name: str
) -> None:
    """P1, GI3."""
    assert one_execution(hosts, place, name, None, "process") == 1


def resumes(hosts: Hosts, place: Path, name: str, point: str) -> bool:
    lab = killed_at(hosts, place, name, point)
    if lab is None:
        return False
    given = recorded_items(lab)
    trial = lab.start()
    value = (trial.answer or {}).get("value", [])
    opened = [line.fields[0] for line in trial.log if line.kind == "opened"]
    pids = [item.split("-")[0] for item in value]
    if [item.split("-")[1] for item in value] != list("0123") or opened not in ([], [value[:given]]):
        raise Broken(f"P1: {value}, begun with {opened}\n{lab.story()}")
    return len(set(pids)) == 2


@pytest.mark.parametrize("name", ["resumed", "async_resumed"])
def test_a_generator_continues_by_itself_after_the_items_it_has_given(hosts: Hosts, place: Path, name: str) -> None:
    """P1, GI1."""
    assert sum(run_parallel([partial(resumes, hosts, place, name, point) for point in POINTS])) >= 3


STREAM = (
    HEAD.replace("import asyncio", "import asyncio, os")
    + """
@perdure.trace
def stream(prompt: str):
    for number in range(4):
        yield f"{os.getpid()}-{number}"

@env.task
def flow() -> list[str]:
    return list(stream("hello"))
"""
    + TAIL
)
RESUMING = (
    STREAM.replace("@perdure.trace\n", "@perdure.trace(resume='before')\n")
    .replace("prompt: str)", "prompt: str, before=())")
    .replace("range(4)", "range(len(before), 4)")
)


def test_a_run_that_has_diverged_continues_once_its_generator_can_resume(hosts: Hosts, place: Path) -> None:
    """P1, P6: the remedy that the message names."""
    lab = Lab(hosts, place / "remedy", place / "remedy" / "flow.py", "flow")
    write(lab, STREAM)
    assert lab.start(kill_at="4:after").killed
    count = recorded_items(lab)
    assert lab.start().answer["error"] == "GeneratorDivergedError", lab.story()
    write(lab, RESUMING)
    trial = lab.start()
    assert [item.split("-")[1] for item in trial.answer["value"]] == list("0123"), lab.story()
    assert len({item.split("-")[0] for item in trial.answer["value"][:count]}) == 1

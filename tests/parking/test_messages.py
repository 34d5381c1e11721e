"""A run that waits for a message leaves memory, and a message brings the run back (D5, MS4, P12)."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from tests.parking.serving import NAP, PARK_AFTER, Serving, Watched, assert_replays, seen, step
from tests.waiting import wait_for

import perdure
from perdure import runtime
from perdure.core.ground.model import NewMessage, RunWrites, Status
from perdure.core.ground.values import ANY
from perdure.errors import ConditionTimedoutError
from perdure.extras import durable_sleep
from perdure.testing import VirtualClock

pytestmark = pytest.mark.filterwarnings("ignore::perdure.errors.PerdureWarning")

env = perdure.TaskEnvironment(name="waiting")


@env.task
async def approval() -> Any:
    await step("before")
    answer = await perdure.new_condition("approve", data_type=str).wait.aio()
    return await step(f"after {answer}")


@env.task
async def limited() -> Any:
    try:
        return await perdure.new_condition("approve", data_type=str, timeout=3 * NAP).wait.aio()
    except ConditionTimedoutError as error:
        return str(error)


@env.task
async def mailboxes() -> Any:
    async def receiver(name: str) -> list[str]:
        return [await perdure.receive.aio(name, str) for _ in range(2)]

    return await asyncio.gather(receiver("left"), receiver("right"))


@env.task
async def beside_a_sleep() -> Any:
    async def sleeper() -> str:
        await durable_sleep.aio(NAP)
        return await step("slept")

    async def receiver() -> Any:
        return await perdure.receive.aio("box", str)

    return await asyncio.gather(sleeper(), receiver())


@env.task
async def bounded() -> Any:
    try:
        async with asyncio.timeout(0.01):
            return await perdure.receive.aio("box", str)
    except TimeoutError:
        seen.append("late")
    return await perdure.receive.aio("box", str)


@env.task
def in_a_thread() -> Any:
    return [perdure.receive("box", str), perdure.receive("box", str)]


@env.task
async def child() -> Any:
    return await perdure.receive.aio("box", str)


@env.task
async def in_children() -> Any:
    return await asyncio.gather(child.aio(), child.aio())


def leave_memory(serving: Serving, run: Any) -> None:
    """Wait until the run waits, let the patience of the worker pass, and wait until the run is parked."""
    store = runtime.worker().store
    wait_for(lambda: any(wait.run == run.name for wait in store.open_waits()))
    serving.look_twice()
    serving.clock.jump(PARK_AFTER + 1)
    wait_for(lambda: run.row.status == Status.WAITING, story=lambda: serving.outcomes)


def ended(run: Any) -> Any:
    wait_for(lambda: run.row.status in (Status.SUCCEEDED, Status.FAILED))
    return run.result


def test_a_run_that_waits_is_parked_and_a_signal_brings_it_back(clock: VirtualClock) -> None:
    with Serving([approval], clock) as serving:
        run = perdure.submit(approval)
        leave_memory(serving, run)
        assert run.status == Status.WAITING
        wait_for(lambda: runtime.worker().drivers == {})
        run.signal("approve", "yes")
        assert ended(run) == "after yes"
        assert_replays(run)


def test_a_run_whose_message_comes_soon_stays_in_memory(clock: VirtualClock) -> None:
    with Serving([approval], clock) as serving:
        run = perdure.submit(approval)
        wait_for(lambda: runtime.worker().store.open_waits())
        serving.look_twice()
        assert run.status == Status.WAITING
        assert run.row.status == Status.RUNNING
        run.signal("approve", "yes")
        assert ended(run) == "after yes"
        assert serving.parks() == 0


@pytest.mark.parametrize("signalled", [True, False])
def test_a_parked_wait_with_a_timeout_ends_at_its_deadline_or_before(clock: VirtualClock, signalled: bool) -> None:
    with Serving([limited], clock) as serving:
        run = perdure.submit(limited)
        leave_memory(serving, run)
        if signalled:
            run.signal("approve", "yes")
            assert ended(run) == "yes"
        else:
            assert serving.finish(run) == f"condition 'approve' was not signalled within {3 * NAP:g} s"
        assert_replays(run)


def test_messages_for_another_name_do_not_wake_a_parked_run(clock: VirtualClock) -> None:
    with Serving([approval], clock) as serving:
        run = perdure.submit(approval)
        leave_memory(serving, run)
        run.send("approve", "not a signal")
        run.signal("something else", "yes")
        serving.look_twice()
        assert run.row.status == Status.WAITING
        run.signal("approve", "yes")
        assert ended(run) == "after yes"


def test_each_of_two_mailboxes_wakes_the_run(clock: VirtualClock) -> None:
    with Serving([mailboxes], clock) as serving:
        run = perdure.submit(mailboxes)
        for name in ("left", "right", "right", "left"):
            leave_memory(serving, run)
            run.send(name, name)
        assert ended(run) == [["left", "left"], ["right", "right"]]
        assert_replays(run)


def test_a_sleep_beside_a_wait_ends_at_its_deadline(clock: VirtualClock) -> None:
    with Serving([beside_a_sleep], clock) as serving:
        run = perdure.submit(beside_a_sleep)
        leave_memory(serving, run)
        serving.skip_until(lambda: "slept" in str(recorded_steps(run)))
        run.send("box", "m")
        assert ended(run) == ["slept", "m"]


def recorded_steps(run: Any) -> list[Any]:
    from tests.journals import recorded

    return [entry.value for entry in recorded(runtime.worker().store, run.row)]


@pytest.mark.parametrize("task", [in_a_thread, in_children])
def test_waits_in_threads_and_in_children_are_parked(clock: VirtualClock, task: Any) -> None:
    with Serving([task, child], clock) as serving:
        run = perdure.submit(task)
        for value in ("a", "b"):
            leave_memory(serving, run)
            run.send("box", value)
        assert sorted(ended(run)) == ["a", "b"]
        assert_replays(run)


def test_a_message_between_the_last_look_and_the_park_is_not_missed(clock: VirtualClock, watched: Watched) -> None:
    """The message commits when the driver has decided to park, and before the park commits."""
    with Serving([approval], clock) as serving:
        run = perdure.submit(approval)
        store = runtime.worker().store
        wait_for(lambda: any(wait.run == run.name for wait in store.open_waits()))

        def send_first(writes: Any) -> None:
            parks = [write for write in writes if isinstance(write, RunWrites) and write.park is not None]
            if parks and store.message(parks[0].run, "condition:approve", "") is None:
                data = ANY.encode("yes")
                store.send(parks[0].run, NewMessage("condition:approve", "", data, 1))

        watched.before = send_first
        serving.look_twice()
        clock.jump(PARK_AFTER + 1)
        assert ended(run) == "after yes"
        wait_for(lambda: serving.parks() == 1)


def test_messages_that_come_while_no_worker_lives_wait_for_one(clock: VirtualClock) -> None:
    with Serving([mailboxes], clock) as serving:
        run = perdure.submit(mailboxes)
        leave_memory(serving, run)
    for name in ("left", "left", "right", "right"):
        run.send(name, name)
    with Serving([mailboxes], clock):
        assert ended(run) == [["left", "left"], ["right", "right"]]

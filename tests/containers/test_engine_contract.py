"""The port of container engines, held by Docker, by Podman and by their twin in memory."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any

import pytest
from tests.containers.engines import IMAGE, Engine

from perdure.containers.engine import ContainerEngine, ContainerSpec, LogLine
from perdure.containers.memory import MemoryEngine, Running
from perdure.errors import EngineUnavailableError, ImageNotFoundError, UsageError

LABELS = {"perdure.test": "contract"}


# ------------------------------------------------------------------- programs: as a shell runs them, and in memory

PROGRAMS: dict[str, Callable[[Running], Awaitable[int]]] = {}


def program(shell: str) -> Callable[[Callable[[Running], Awaitable[int]]], str]:
    def register(twin: Callable[[Running], Awaitable[int]]) -> str:
        PROGRAMS[shell] = twin
        return shell

    return register


@program("echo out; echo err >&2; exit 3")
async def speaks_and_fails(inside: Running) -> int:
    inside.out("out")
    inside.err("err")
    return 3


@program("exec sleep 1000")
async def deaf(inside: Running) -> int:
    """Process 1 without a handler: SIGTERM does nothing to it."""
    await asyncio.sleep(1000)
    return 0


@program("trap 'exit 143' TERM; echo ready; while :; do sleep 0.02; done")
async def polite(inside: Running) -> int:
    inside.out("ready")
    await inside.signals.get()
    return 143


@program("i=0; while [ $i -lt 1000 ]; do echo line $i; i=$((i+1)); done")
async def counts(inside: Running) -> int:
    inside.out("\n".join(f"line {i}" for i in range(1000)))
    return 0


@program("sleep 2")
async def naps(inside: Running) -> int:
    await asyncio.sleep(2)
    return 0


@program("echo first; sleep 0.7; echo second; sleep 0.7; printf third")
async def tells_slowly(inside: Running) -> int:
    for text in ("first", "second", "third"):
        inside.out(text)
        await asyncio.sleep(0.7)
    return 0


async def in_memory(inside: Running) -> int:
    assert inside.spec.command is not None
    return await PROGRAMS[inside.spec.command[-1]](inside)


# ------------------------------------------------------------------------------------------------------- the engines


class Subject:
    """An engine under test, of any kind."""

    def __init__(self, kind: str, private: Engine | None) -> None:
        self.kind = kind
        self.private = private

    @asynccontextmanager
    async def open(self) -> AsyncIterator[ContainerEngine]:
        if self.private is None:
            self.memory = MemoryEngine(in_memory, images=[IMAGE])
            engine: ContainerEngine = self.memory
        else:
            engine = self.private.client()
        try:
            yield engine
        finally:
            await engine.close()

    def outage(self) -> None:
        if self.private is None:
            self.memory.outage()
        else:
            self.private.kill()

    def recover(self) -> None:
        if self.private is None:
            self.memory.restart()
        else:
            self.private.restart()

    def wipe(self) -> None:
        if self.private is None:
            self.memory.wipe()
        else:
            self.private.wipe()


@pytest.fixture(params=["memory", "docker", "podman"])
def subject(request: pytest.FixtureRequest) -> Subject:
    private = None if request.param == "memory" else request.getfixturevalue(request.param)
    return Subject(request.param, private)


def run(subject: Subject, scenario: Callable[[ContainerEngine], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with subject.open() as engine:
            return await scenario(engine)

    return asyncio.run(asyncio.wait_for(main(), 60))


async def sh(engine: ContainerEngine, text: str, **more: Any) -> ContainerSpec:
    image = await engine.image(IMAGE, pull="never")
    spec = ContainerSpec(image=image.id, command=("/bin/sh", "-c", text), network="none", labels=LABELS)
    return replace(spec, **more)


async def finish(engine: ContainerEngine, name: str, spec: ContainerSpec) -> tuple[int, list[LogLine]]:
    """A container from creation to removal: its exit code and its logs."""
    id = await engine.create(name, spec)
    assert await engine.start(name)
    await engine.wait(id)
    seen = await engine.inspect(id)
    lines = [line async for line in engine.logs(id)]
    await engine.remove(id)
    assert seen is not None
    assert seen.state == "exited"
    return seen.exit_code, lines


async def text_of(engine: ContainerEngine, name: str, spec: ContainerSpec) -> str:
    code, lines = await finish(engine, name, spec)
    text = "\n".join(line.data.decode() for line in lines)
    assert code == 0, text
    return text


# --------------------------------------------------------------------------------------------------------- one life


def test_a_life(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, speaks_and_fails)
        id = await engine.create("life", spec)
        created = await engine.inspect(id)
        assert created is not None
        assert (created.id, created.name, created.state, created.pid) == (id, "life", "created", 0)
        assert created.labels.items() >= LABELS.items()
        assert (created.started_at, created.finished_at) == (None, None)

        before = time.time_ns() // 1000
        assert await engine.start("life")
        await engine.wait(id)

        ended = await engine.inspect("life")
        assert ended is not None
        assert (ended.id, ended.state, ended.exit_code, ended.oom_killed) == (id, "exited", 3, False)
        assert ended.pid == 0
        assert ended.started_at is not None
        assert ended.finished_at is not None
        assert before - 100_000 <= ended.started_at <= ended.finished_at <= time.time_ns() // 1000 + 100_000
        lines = [line async for line in engine.logs(id)]
        assert sorted(lines) == [LogLine("stderr", b"err"), LogLine("stdout", b"out")]

        await engine.remove(id)
        assert await engine.inspect(id) is None

    run(subject, scenario)


def test_a_running_container_is_shown_running(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("runs", await sh(engine, deaf))
        await engine.start("runs")
        seen = await engine.inspect(id)
        assert seen is not None
        assert seen.state == "running"
        assert seen.pid > 0
        assert seen.started_at is not None
        assert seen.finished_at is None
        if subject.private is not None:
            assert seen.pid in subject.private.pids()

    run(subject, scenario)


def test_create_again_gives_the_existing_container(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("twice", await sh(engine, deaf))
        assert await engine.create("twice", await sh(engine, speaks_and_fails)) == id
        assert len(await engine.find(LABELS)) == 1

    run(subject, scenario)


def test_start_of_a_running_container_changes_nothing(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("runs", await sh(engine, deaf))
        await engine.start("runs")
        before = await engine.inspect(id)
        assert await engine.start("runs")
        assert await engine.inspect(id) == before

    run(subject, scenario)


def test_start_of_an_ended_container_runs_it_again(subject: Subject) -> None:
    """Every engine does so. The caller looks at the state first, and owns the name."""

    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("again", await sh(engine, speaks_and_fails))
        for _ in range(2):
            assert await engine.start("again")
            await engine.wait(id)
        lines = [line async for line in engine.logs(id)]
        assert len(lines) == 4

    run(subject, scenario)


def test_the_old_name_starts_nothing(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("old", await sh(engine, deaf))
        assert await engine.rename(id, "new")
        assert not await engine.start("old")
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.name, seen.state) == ("new", "created")
        assert await engine.inspect("old") is None
        assert await engine.rename(id, "new"), "again"
        assert await engine.start("new")

    run(subject, scenario)


def test_an_absent_container_is_no_error(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        assert await engine.inspect("gone") is None
        assert not await engine.start("gone")
        assert not await engine.rename("gone", "other")
        await engine.wait("gone")
        await engine.stop("gone", 1)
        await engine.remove("gone")
        assert [line async for line in engine.logs("gone")] == []
        assert await engine.find({"no": "such"}) == []

    run(subject, scenario)


def test_find_by_all_labels(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        one = await engine.create("one", await sh(engine, deaf, labels={"a": "1", "b": "x=y, z"}))
        two = await engine.create("two", await sh(engine, deaf, labels={"a": "1"}))
        await engine.start("two")
        assert {seen.id: seen.state for seen in await engine.find({"a": "1"})} == {one: "created", two: "running"}
        assert [seen.id for seen in await engine.find({"a": "1", "b": "x=y, z"})] == [one]
        assert await engine.find({"a": "2"}) == []

    run(subject, scenario)


def test_a_program_that_is_not_there(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("nope", replace(await sh(engine, ""), command=("/nope",)))
        with pytest.raises(UsageError, match=r"cannot start nope.*no such"):
            await engine.start("nope")
        seen = await engine.inspect(id)
        assert seen is not None
        assert seen.state == "created"

    run(subject, scenario)


def test_images(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        image = await engine.image(IMAGE)
        assert image.id
        assert image.digest
        assert await engine.image(image.id, pull="never") == image or subject.kind == "memory"
        for pull in ("missing", "always", "never"):
            with pytest.raises(ImageNotFoundError, match=r"perdure\.invalid/none:1"):
                await engine.image("perdure.invalid/none:1", pull=pull)
        with pytest.raises(ImageNotFoundError):
            await engine.image("No Reference!")
        with pytest.raises(ImageNotFoundError):
            await engine.create("c1", ContainerSpec(image="perdure.invalid/none:1", command=("x",), network="none"))

    async def images_by_id(engine: ContainerEngine) -> None:
        await scenario(engine)

    if subject.kind == "memory":
        pytest.skip("its images are names only")
    run(subject, images_by_id)


# -------------------------------------------------------------------------------------------------- waits and ends


def test_fifty_waits_overlap(subject: Subject) -> None:
    """One connection each, and none waits for another's."""

    async def scenario(engine: ContainerEngine) -> None:
        ids = [await engine.create("waited", await sh(engine, deaf))]
        await engine.start("waited")
        waits = [asyncio.ensure_future(engine.wait(ids[0])) for _ in range(60)]
        await asyncio.sleep(0.5)

        started = time.monotonic()
        assert await engine.inspect(ids[0]) is not None
        assert time.monotonic() - started < 2, "a quick call waits for the waits"
        assert not any(wait.done() for wait in waits)
        await engine.remove(ids[0])
        await asyncio.gather(*waits)

    run(subject, scenario)


def test_containers_overlap(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        spec = await sh(engine, naps)
        for index in range(5):
            await engine.create(f"nap{index}", spec)
        started = time.monotonic()
        await asyncio.gather(*(engine.start(f"nap{index}") for index in range(5)))
        await asyncio.gather(*(engine.wait(f"nap{index}") for index in range(5)))
        assert time.monotonic() - started < 8, "five naps of 2 s"

    run(subject, scenario)


def test_wait_for_a_container_that_was_never_started_returns(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        await engine.create("idle", await sh(engine, deaf))
        await asyncio.wait_for(engine.wait("idle"), 5)

    run(subject, scenario)


def test_wait_ends_when_it_is_removed(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("removed", await sh(engine, deaf))
        await engine.start("removed")
        wait = asyncio.ensure_future(engine.wait(id))
        await asyncio.sleep(0.3)
        await engine.remove(id)
        await asyncio.wait_for(wait, 10)

    run(subject, scenario)


def test_stop_asks_first(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("polite", await sh(engine, polite))
        await engine.start("polite")
        async for line in engine.logs(id):
            assert line.data == b"ready"
            break
        started = time.monotonic()
        await engine.stop(id, 20)
        assert time.monotonic() - started < 10
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.state, seen.exit_code, seen.oom_killed) == ("exited", 143, False)
        await engine.stop(id, 1)

    run(subject, scenario)


def test_stop_kills_after_its_grace(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("deaf", await sh(engine, deaf))
        await engine.start("deaf")
        started = time.monotonic()
        await engine.stop(id, 1)
        assert 0.9 < time.monotonic() - started < 8
        seen = await engine.inspect(id)
        assert seen is not None
        assert (seen.state, seen.exit_code) == ("exited", 137)

    run(subject, scenario)


def test_remove_kills_at_once(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("deaf", await sh(engine, deaf))
        await engine.start("deaf")
        started = time.monotonic()
        await asyncio.gather(engine.remove(id), engine.remove(id), engine.remove("deaf"))
        assert time.monotonic() - started < 5
        assert await engine.find(LABELS) == []

    run(subject, scenario)


# ------------------------------------------------------------------------------------------------------------- logs


def test_logs_follow_and_end(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("slow", await sh(engine, tells_slowly))
        await engine.start("slow")
        seen = [(time.monotonic(), line.data) async for line in engine.logs(id)]
        end = await engine.inspect(id)
        assert [data for _, data in seen] == [b"first", b"second", b"third"]
        assert seen[1][0] - seen[0][0] > 0.2, "they come as they are written"
        assert end is not None
        assert end.state == "exited"

    run(subject, scenario)


def test_logs_are_whole_when_the_wait_is_over(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        for skip in (0, 990):
            id = await engine.create("counts", await sh(engine, counts))
            await engine.start("counts")
            followed = asyncio.ensure_future(collect(engine, id, skip))
            await engine.wait(id)
            expected = [f"line {i}".encode() for i in range(1000)][skip:]
            assert await collect(engine, id, skip) == expected
            assert await followed == expected
            await engine.remove(id)

    async def collect(engine: ContainerEngine, id: str, skip: int) -> list[bytes]:
        return [line.data async for line in engine.logs(id, skip=skip)]

    run(subject, scenario)


# -------------------------------------------------------------------------------------------------- lost connections


@pytest.mark.parametrize("call", ["wait", "logs"])
def test_a_lost_connection_is_told(subject: Subject, call: str) -> None:
    """...and never taken for the container's end."""

    async def scenario(engine: ContainerEngine) -> None:
        id = await engine.create("lost", await sh(engine, polite))
        await engine.start("lost")
        seen = await engine.inspect(id)
        assert seen is not None
        pid = seen.pid
        waiting = asyncio.ensure_future(engine.wait(id) if call == "wait" else read(engine, id))
        await asyncio.sleep(0.5)
        try:
            await asyncio.to_thread(subject.outage)
            if subject.kind == "podman" and call == "wait":
                # The process is watched, not the engine; that it was missing is told when it is asked.
                os.kill(pid, signal.SIGTERM)
            with pytest.raises(EngineUnavailableError):
                await waiting
            for attempt in (engine.inspect(id), engine.info(), engine.start("lost"), engine.find(LABELS)):
                with pytest.raises(EngineUnavailableError) as caught:
                    await attempt
                assert subject.private is None or subject.private.url in str(caught.value)
        finally:
            await asyncio.to_thread(subject.recover)
        assert await engine.inspect(id) is not None, "the same adapter, after the engine came back"

    async def read(engine: ContainerEngine, id: str) -> None:
        async for _ in engine.logs(id):
            pass

    run(subject, scenario)


def test_identity_lasts_as_long_as_the_containers(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        first = await engine.info()
        assert first.kind == subject.kind
        assert await engine.info() == first

        await asyncio.to_thread(subject.recover)
        again = await engine.info()
        assert again.id == first.id
        if first.started_at is not None:
            assert again.started_at is not None
            assert again.started_at > first.started_at

        await asyncio.to_thread(subject.wipe)
        assert (await engine.info()).id != first.id

    run(subject, scenario)


def test_when_the_daemon_was_started(subject: Subject) -> None:
    async def scenario(engine: ContainerEngine) -> None:
        before = time.time_ns() // 1000
        await asyncio.to_thread(subject.recover)
        info = await engine.info()
        if subject.kind == "podman":
            assert info.started_at is None
        else:
            assert info.started_at is not None
            assert before - 50_000 <= info.started_at <= time.time_ns() // 1000
        if subject.kind != "memory":
            assert info.local
            assert not info.rootless

    run(subject, scenario)

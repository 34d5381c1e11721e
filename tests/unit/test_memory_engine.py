"""The engine in memory does to its containers what real ones suffer."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from perdure.containers.engine import ContainerSpec, Mount
from perdure.containers.memory import MemoryEngine, Running
from perdure.errors import EngineUnavailableError

SPEC = ContainerSpec(image="memory:image", command=("x",))


async def forever(inside: Running) -> int:
    await asyncio.Event().wait()
    return 0


def run(engine: MemoryEngine, scenario: Callable[[], Awaitable[None]]) -> None:
    async def main() -> None:
        await engine.create("it", SPEC)
        await engine.start("it")
        await scenario()
        await engine.close()

    asyncio.run(main())


def test_an_outage_breaks_waits_off_and_stops_nothing() -> None:
    engine = MemoryEngine(forever)

    async def scenario() -> None:
        wait = asyncio.ensure_future(engine.wait("it"))
        await asyncio.sleep(0)
        engine.outage()
        for call in (wait, engine.inspect("it"), engine.info(), engine.start("it")):
            with pytest.raises(EngineUnavailableError):
                await call
        engine.recover()
        seen = await engine.inspect("it")
        assert seen is not None
        assert seen.state == "running"
        assert len(engine.starts) == 1

    run(engine, scenario)


@pytest.mark.parametrize(("forget", "state", "code"), [(False, "exited", 137), (True, "created", 0)])
def test_a_reboot_as_docker_and_as_podman_show_it(forget: bool, state: str, code: int) -> None:
    engine = MemoryEngine(forever)

    async def scenario() -> None:
        before = await engine.info()
        engine.reboot(forget=forget)
        seen = await engine.inspect("it")
        assert seen is not None
        assert (seen.state, seen.exit_code, seen.started_at is None) == (state, code, forget)
        assert (await engine.info()).id == before.id

    run(engine, scenario)


def test_killed_for_memory() -> None:
    engine = MemoryEngine(forever)

    async def scenario() -> None:
        engine.oom("it")
        await engine.wait("it")
        seen = await engine.inspect("it")
        assert seen is not None
        assert (seen.exit_code, seen.oom_killed) == (137, True)

    run(engine, scenario)


def test_scripts_see_mounts_and_fail_like_programs(tmp_path: Path) -> None:
    def script(inside: Running) -> int:
        Path(inside.path("/out/file")).write_text("written")
        raise ValueError("a bug")

    async def main() -> None:
        engine = MemoryEngine(script)
        await engine.create("it", ContainerSpec(image="memory:image", mounts=(Mount(str(tmp_path), "/out", False),)))
        await engine.start("it")
        await engine.wait("it")
        seen = await engine.inspect("it")
        assert seen is not None
        assert seen.exit_code == 1
        assert [line.data async for line in engine.logs("it")] == [b"ValueError: a bug"]
        assert (tmp_path / "file").read_text() == "written"

    asyncio.run(main())

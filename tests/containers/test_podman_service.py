"""Where there is only a `podman` program, perdure starts its service for itself, and takes it along when it ends."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
from tests.containers.engines import IMAGE, Engine, PrivatePodman
from tests.waiting import wait_for

from perdure.containers import discovery
from perdure.containers.discovery import open_engine
from perdure.containers.engine import ContainerSpec


@pytest.fixture
def only_a_program(podman: Engine, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    assert isinstance(podman, PrivatePodman)
    monkeypatch.setattr(discovery, "DOCKER_SOCKETS", ())
    monkeypatch.setattr(discovery, "PODMAN_SOCKETS", ())
    return {"PATH": f"{podman.wrapper()}:{os.environ['PATH']}"}


def test_a_service_of_our_own(podman: Engine, only_a_program: dict[str, str]) -> None:
    async def scenario() -> None:
        engine = await open_engine(None, only_a_program)
        info = await engine.info()
        assert info.kind == "podman"
        assert info.url != podman.url
        image = await engine.image(IMAGE, pull="never")
        await engine.create("outlives", ContainerSpec(image=image.id, command=("/bin/sleep", "1000"), network="none"))
        await engine.start("outlives")
        await engine.close()
        assert not os.path.exists(os.path.dirname(info.url.removeprefix("unix://")))

        other = podman.client()
        seen = await other.inspect("outlives")
        assert seen is not None
        assert seen.state == "running"
        assert (await other.info()).id == info.id, "the same storage is the same engine"
        await other.close()

    asyncio.run(scenario())
    assert services(podman) == 1, "the one that the tests started"


def test_it_dies_with_us(podman: Engine, only_a_program: dict[str, str]) -> None:
    program = textwrap.dedent(f"""
        import asyncio, os, signal, sys
        sys.path[:0] = {sys.path!r}
        from perdure.containers import discovery
        discovery.DOCKER_SOCKETS = discovery.PODMAN_SOCKETS = ()
        async def main():
            engine = await discovery.open_engine("podman", {only_a_program!r})
            print((await engine.info()).url, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        asyncio.run(main())
    """)
    child = subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True, timeout=60, check=False)
    assert child.returncode == -signal.SIGKILL
    directory = Path(child.stdout.strip().removeprefix("unix://")).parent
    wait_for(lambda: services(podman) == 1)

    async def next_one() -> None:
        await (await open_engine("podman", only_a_program)).close()

    assert directory.exists()
    asyncio.run(next_one())
    assert not directory.exists(), "the next one tidies up"


def services(podman: Engine) -> int:
    return sum("system service" in command for command in podman.processes())

"""An engine in memory, the twin of real engines: containers are Python functions, and tests can stop, wipe or reboot
the engine.

The twin keeps the port's promises and nothing else of a real engine: no isolation, no limits, no images but the
named.
"""

from __future__ import annotations

import asyncio
import inspect
import itertools
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from perdure.containers.engine import ContainerSpec, EngineImage, EngineInfo, LogLine, Pull, Seen
from perdure.core.ground import clock
from perdure.errors import ContainerError, EngineUnavailableError, ImageNotFoundError, UsageError

KILLED: Final = 137
TERMINATED: Final = 143


@dataclass
class Running:
    """A container from the inside, as the script sees the container."""

    spec: ContainerSpec
    name: str
    signals: asyncio.Queue[str]
    """`SIGTERM` arrives here, once per `stop`; a script that never reads the queue is killed in the end."""
    _write: Callable[[LogLine], None] = field(repr=False)

    def out(self, text: str) -> None:
        """Write lines to standard output."""
        for line in text.splitlines():
            self._write(LogLine("stdout", line.encode()))

    def err(self, text: str) -> None:
        """Write lines to standard error."""
        for line in text.splitlines():
            self._write(LogLine("stderr", line.encode()))

    def path(self, target: str) -> str:
        """The path on this machine of a path in the container."""
        for mount in self.spec.mounts:
            if target == mount.target or target.startswith(mount.target.rstrip("/") + "/"):
                return mount.source + target[len(mount.target.rstrip("/")) :]
        raise FileNotFoundError(target)


Script: TypeAlias = Callable[[Running], int | Awaitable[int | None] | None]
"""Runs as the container's process; returns the exit code (`None`: 0)."""


@dataclass
class _Container:
    id: str
    name: str
    spec: ContainerSpec
    state: str = "created"
    exit_code: int = 0
    oom_killed: bool = False
    pid: int = 0
    started_at: int | None = None
    finished_at: int | None = None
    lines: list[LogLine] = field(default_factory=list)
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    process: asyncio.Task[None] | None = None
    signals: asyncio.Queue[str] = field(default_factory=asyncio.Queue)

    def stir(self) -> None:
        """Wake all tasks that wait for a change of the container."""
        self.changed.set()
        self.changed = asyncio.Event()


class MemoryEngine:
    """An engine in memory. `script` runs as every container; `images` maps names to images."""

    def __init__(self, script: Script, *, images: Iterable[str] = ("image",)) -> None:
        self.script = script
        self.images = {name: EngineImage(f"memory:{name}", f"memory:{name}") for name in images}
        self.starts: list[str] = []
        """The id of a container for each start."""
        self.up = True
        self._containers: dict[str, _Container] = {}
        self._ids = itertools.count(1)
        self._generation = 1
        self._daemon_started_at = clock.wall()
        self._down = asyncio.Event()

    # ---- for tests

    def outage(self) -> None:
        """The engine stops answering, and calls under way break off; containers run on."""
        self.up = False
        self._down.set()

    def recover(self) -> None:
        """The end of an outage."""
        self.up = True
        self._down = asyncio.Event()

    def restart(self) -> None:
        """Restart the daemon, and kill running containers, as by Docker without live restore."""
        self.outage()
        for container in self._containers.values():
            self._kill(container, KILLED)
        self._daemon_started_at = clock.wall()
        self.recover()

    def reboot(self, *, forget: bool = False) -> None:
        """Restart the machine. `forget`: running containers show as never started, as by Podman."""
        ran = [container for container in self._containers.values() if container.state == "running"]
        self.restart()
        if forget:
            for container in ran:
                container.state, container.exit_code = "created", 0
                container.started_at = container.finished_at = None

    def wipe(self) -> None:
        """All containers are gone, and so is the engine's identity."""
        self.restart()
        self._containers.clear()
        self._generation += 1

    def oom(self, name: str) -> None:
        """The kernel kills a container for too much memory."""
        container = self._at(name)
        assert container is not None
        container.oom_killed = True
        self._kill(container, KILLED)

    # ---- the port

    async def info(self) -> EngineInfo:
        await self._reach()
        return EngineInfo(
            id=f"memory-{id(self)}-{self._generation}",
            kind="memory",
            url="memory://",
            version="1",
            local=False,  # process numbers are made up
            rootless=False,
            started_at=self._daemon_started_at,
            instance=str(self._daemon_started_at),
        )

    async def image(self, reference: str, *, pull: Pull = "missing", platform: str | None = None) -> EngineImage:
        await self._reach()
        if reference not in self.images:
            raise ImageNotFoundError(f"There is no image {reference!r}.")
        return self.images[reference]

    async def build(self, dockerfile: str, context: str, tag: str, *, platform: str | None = None) -> EngineImage:
        await self._reach()
        if "broken" in dockerfile:
            raise ContainerError(f"Building {tag!r} from {dockerfile} failed.", image=tag)
        return self.images.setdefault(tag, EngineImage(f"memory:{tag}", f"memory:{tag}"))

    async def create(self, name: str, spec: ContainerSpec) -> str:
        await self._reach()
        there = self._at(name)
        if there is not None:
            return there.id
        if spec.image not in {image.id for image in self.images.values()}:
            raise ImageNotFoundError(f"There is no image {spec.image!r}.")
        container = _Container(f"{next(self._ids):012x}", name, spec)
        self._containers[container.id] = container
        return container.id

    async def rename(self, id: str, name: str) -> bool:
        await self._reach()
        container, taken = self._at(id), self._at(name)
        if container is None:
            return False
        if taken not in (None, container):
            raise EngineUnavailableError(f"The name {name} is taken.")
        container.name = name
        return True

    async def start(self, name: str) -> bool:
        await self._reach()
        container = self._at(name)
        if container is None:
            return False
        if container.state == "running":
            return True
        if container.spec.command == ("/nope",):
            raise UsageError(f"cannot start {name}: no such program")
        self.starts.append(container.id)
        container.state, container.started_at, container.finished_at = "running", clock.wall(), None
        container.exit_code, container.oom_killed, container.pid = 0, False, 2_000_000_000 + len(self.starts)
        container.signals = asyncio.Queue()
        container.process = asyncio.ensure_future(self._run(container))
        container.stir()
        return True

    async def inspect(self, id: str) -> Seen | None:
        await self._reach()
        container = self._at(id)
        return None if container is None else _seen(container)

    async def find(self, labels: dict[str, str]) -> list[Seen]:
        await self._reach()
        return [
            _seen(container)
            for container in self._containers.values()
            if labels.items() <= container.spec.labels.items()
        ]

    async def wait(self, id: str) -> None:
        await self._reach()
        container = self._at(id)
        while container is not None and container.state == "running" and container.id in self._containers:
            await self._change(container)

    async def logs(self, id: str, *, skip: int = 0) -> AsyncIterator[LogLine]:
        await self._reach()
        container = self._at(id)
        at = skip
        while container is not None:
            while at < len(container.lines):
                yield container.lines[at]
                at += 1
            if container.state != "running":
                return
            await self._change(container)

    async def copy_out(self, id: str, path: str, to: str) -> None:
        await self._reach()
        container = self._at(id)
        assert container is not None
        inside = Running(container.spec, container.name, container.signals, container.lines.append)
        shutil.copytree(inside.path(path), to, symlinks=True, dirs_exist_ok=True)

    async def stop(self, id: str, grace: float) -> None:
        await self._reach()
        container = self._at(id)
        if container is None or container.state != "running":
            return
        container.signals.put_nowait("SIGTERM")
        try:
            async with asyncio.timeout(grace):
                await self.wait(container.id)
        except TimeoutError:
            self._kill(container, KILLED)

    async def remove(self, id: str) -> None:
        await self._reach()
        container = self._at(id)
        if container is not None:
            del self._containers[container.id]
            self._kill(container, KILLED)
            container.stir()

    async def close(self) -> None:
        for container in self._containers.values():
            if container.process is not None:
                container.process.cancel()

    # ---- inside

    def _at(self, id: str) -> _Container | None:
        named = (container for container in self._containers.values() if container.name == id)
        return self._containers.get(id) or next(named, None)

    async def _reach(self) -> None:
        await asyncio.sleep(0)  # a real engine never answers at once
        if not self.up:
            raise EngineUnavailableError("memory:// does not answer")

    async def _change(self, container: _Container) -> None:
        """Until something happens to the container, or the engine goes down."""
        waiting = [asyncio.ensure_future(event.wait()) for event in (container.changed, self._down)]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for future in waiting:
                future.cancel()
        await self._reach()

    async def _run(self, container: _Container) -> None:
        def write(line: LogLine) -> None:
            container.lines.append(line)
            container.stir()

        running = Running(container.spec, container.name, container.signals, write)
        try:
            result = self.script(running)
            code = await result if inspect.isawaitable(result) else result
        except asyncio.CancelledError:
            return  # killed: `_kill` has said how
        except Exception as error:  # a broken script is a failed program
            running.err(f"{type(error).__name__}: {error}")
            code = 1
        self._end(container, code or 0)

    def _kill(self, container: _Container, code: int) -> None:
        if container.state == "running":
            assert container.process is not None
            container.process.cancel()
            self._end(container, code)

    def _end(self, container: _Container, code: int) -> None:
        container.state, container.exit_code, container.pid = "exited", code, 0
        container.finished_at = max(clock.wall(), container.started_at or 0)
        container.stir()


def _seen(container: _Container) -> Seen:
    return Seen(
        id=container.id,
        name=container.name,
        labels=dict(container.spec.labels),
        state=container.state,
        exit_code=container.exit_code,
        oom_killed=container.oom_killed,
        pid=container.pid,
        started_at=container.started_at,
        finished_at=container.finished_at,
        error="",
    )

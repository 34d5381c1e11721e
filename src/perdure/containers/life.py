"""The life of one attempt of a container task, which any process can enter at any point (P9).

    stage inputs -> create -> record *starting* (fsynced) -> start -> follow logs, wait -> collect -> outcome -> remove

- L1 a container is started only after the container is recorded with the attempt, by id. So a container without a
  record was never started, and is made again.
- L2 a container is started by a name that carries the claim. A process that takes over the run first renames the
  container; a fenced process can then no longer start the container (P3).
- L3 a container is started from the state *created* only, by the same daemon in the same boot. Engines would start an
  ended container again. After a reboot Podman shows a container that ran as *created*; so does a Docker or a Podman
  that was killed during the start. Podman's service may change at any time, so there the process id tells: only a start
  gives a container a process.
- L4 a container that ended under a dying engine or machine has not ended by itself: the attempt is lost, and not
  charged.
- L5 while the engine does not answer, the container's state is unknown, and the run stays interrupted.
- L6 an attempt that times out returns when its container has ended, as attempts may not overlap. A mark on disk says so
  first: after a crash, the exit code of a container that was told to end means nothing.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, TypeVar

import msgspec

from ..core.ground.clock import SystemClock, seconds
from ..core.ground.detached import Detached
from ..core.ground.spec import AttemptLost
from ..core.ground.trees import remove_tree
from ..errors import (
    EngineUnavailableError,
    PerdureError,
    TaskTimeoutError,
    UsageError,
)
from .background import GRACE, PATIENCE, SharedOutcome
from .engine import ContainerEngine, ContainerSpec, EngineImage, EngineInfo, Mount, Seen
from .logs import LogSink, follow, last_lines
from .place import LABEL, RUN_LABEL, About, Place
from .program import Build, CommandLine, ContainerEnd, Program, Secrets, concluded, hash_of
from .redaction import NO_SECRETS
from .service import Containers

log = logging.getLogger("perdure")
T = TypeVar("T")

LOOK_SECONDS = 2.0
"""Seconds between looks at the main process of a running container: an engine may never hear of the end."""
RETRY_SECONDS = 0.25
_DYING = (128 + signal.SIGTERM, 128 + signal.SIGKILL)
"""Exit codes of containers that end with their engine."""
_SPEC_LABEL = "perdure.spec"
_UNKNOWN_END = 255
"""The exit code where the engine has lost sight of the end."""
DYING_SECONDS = 1.0


class _OtherEngineError(EngineUnavailableError):
    """Another engine answers than the engine of the container."""


class _StartedContainer(msgspec.Struct, frozen=True, array_like=True):
    """The record that precedes the start of a container."""

    id: str
    engine: str
    url: str
    boot: str | None
    instance: str | None
    labels_hash: str
    image: str
    command: list[str]


async def run(
    program: Program, containers: Containers, attempt: Detached, values: dict[str, Any], identity: bytes
) -> Any:
    """One attempt, begun or joined. See `Background.run`."""
    return await ContainerLife(program, containers, attempt, values, identity).run()


class ContainerLife:
    def __init__(
        self, program: Program, containers: Containers, attempt: Detached, values: dict[str, Any], identity: bytes
    ) -> None:
        self.program = program
        self.containers = containers
        self.attempt = attempt
        self.values = values
        self.identity = identity
        self.place: Place = containers.place(attempt.run.uid, attempt.action, attempt.attempt)
        self.boot = SystemClock().boot_id
        self.name = f"perdure-{program.slug}-{self.place.key}-{attempt.token[:4].hex()}"
        self.redactor = NO_SECRETS
        self.following: Future[None] | None = None
        """Takes the log lines; goes on after a timeout, until the container has ended."""

    async def run(self) -> Any:
        try:
            return await self._run()
        except (PerdureError, AttemptLost) as error:
            self.redactor.clean(error)
            raise

    async def _run(self) -> Any:
        await self.containers.ready(self.attempt.run.uid, self.attempt.action, self.attempt.attempt)
        state = self.attempt.state
        if state is None:
            try:
                found = await self._shared_or_started()
            except EngineUnavailableError as error:
                # Nothing was started: the run may go on once an engine answers.
                self.redactor.clean(error)
                self.attempt.suspend(error)
            if isinstance(found, SharedOutcome):
                return found.value
            started = found
        else:
            self.redactor = self.containers.secrets_of(self.program, self.attempt).redactor()
            started = msgspec.msgpack.decode(state, type=_StartedContainer)
        sink = await self.containers.sink(self.program, self.attempt, self.redactor)
        ended = False
        try:
            seen = await self._until_ended(started, sink)
            ended = True
            return await self._outcome(started, seen, sink)
        except (asyncio.CancelledError, TaskTimeoutError):
            if self.attempt.seconds_left == 0:
                # The caller begins the next attempt on return, and attempts may not overlap.
                ended = await self._stopped()
            raise
        finally:
            if ended or not self.containers.linger(self.place.key, self.following, sink):
                sink.close()

    # -- begin -------------------------------------------------------------------------------------------------

    async def _shared_or_started(self) -> _StartedContainer | SharedOutcome:
        """Create and record the container; or the outputs that another run has left in the cache."""
        program = self.program
        info, image = await self.containers.patiently(self.program.name, self._image)
        arguments = program.interface.arguments(self.values, program.input_dir)
        if program.cache_version is not None:
            key = program.cache_key(image.digest, program.rendered(arguments), self.identity)
            hit = self.attempt.cached(key)
            if hit is not None:
                return SharedOutcome(program.decode(hit))
            self.attempt.cached_under = key
        secrets = self.containers.secrets_of(program, self.attempt)
        self.redactor = secrets.redactor()
        # Nothing of this attempt was ever started (L1).
        await self.containers.patiently(self.program.name, self._clear)
        staging = self.containers.in_thread(lambda: self._stage(info, secrets))
        mounts = await self.containers.ask(self.containers.whole(self.place.key, staging))
        run, action = self.attempt.run.name, str(self.attempt.action)
        command = program.rendered(arguments, self.place.key, run, action)
        spec = self._spec(image, command, secrets, mounts)
        id = await self.containers.patiently(self.program.name, lambda: self._create(spec))
        started = _StartedContainer(
            id,
            info.id,
            info.url,
            self.boot if info.local else None,
            info.instance,
            spec.labels[_SPEC_LABEL],
            f"{program.image_name} ({image.digest})" if image.digest != program.image_name else image.digest,
            command.words,
        )
        try:
            await self.attempt.keep(msgspec.msgpack.encode(started))
        except BaseException:
            # This process may not start the container (any more). If the record was kept after all, the container is
            # missing, and the next driver makes another attempt.
            self.containers.call(self._forget(id))
            raise
        return started

    def _spec(
        self, image: EngineImage, command: CommandLine, secrets: Secrets, mounts: tuple[Mount, ...]
    ) -> ContainerSpec:
        program = self.program
        plain = replace(
            program.settings,
            image=image.id,
            entrypoint=command.entrypoint,
            command=command.arguments,
            labels={
                LABEL: self.place.key,
                RUN_LABEL: self.attempt.run.uid.hex(),
                "perdure.name": self.attempt.run.name,
                "perdure.task": program.name,
            },
            mounts=mounts,
        )
        labels = {**plain.labels, _SPEC_LABEL: hash_of(plain)}
        return replace(plain, labels=labels, env={**program.settings.env, **secrets.env})

    async def _image(self) -> tuple[EngineInfo, EngineImage]:
        program = self.program
        info = await self.containers.info()
        engine = await self.containers.engine()
        platform = program.settings.platform
        if isinstance(program.image, Build):
            build = program.image
            return info, await engine.build(build.dockerfile, build.context, build.tag, platform=platform)
        return info, await engine.image(program.image, pull=program.pull, platform=platform)

    async def _clear(self) -> None:
        engine = await self.containers.engine()
        for seen in await engine.find({LABEL: self.place.key}):
            await engine.remove(seen.id)

    def _stage(self, info: EngineInfo, secrets: Secrets) -> tuple[Mount, ...]:
        program, place = self.program, self.place
        run = self.attempt.run
        about = About(run.id, run.uid.hex(), run.name, self.attempt.action, self.attempt.attempt, info.id, info.url)
        place.make(about)
        mounts = [
            Mount(place.inputs, program.input_dir, True),
            Mount(place.outputs, program.output_dir, False),
            *program.interface.stage(self.values, place.inputs, program.input_dir),
        ]
        if secrets.files:
            # The container may run as any user, who may read the files; other users of this machine cannot reach the
            # directory.
            os.mkdir(place.secrets, mode=0o700)
            for number, (target, data) in enumerate(secrets.files.items()):
                source = os.path.join(place.secrets, str(number))
                with open(os.open(source, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o400), "wb") as stream:
                    stream.write(data)
                    os.fchmod(stream.fileno(), 0o444)  # under any umask
                mounts.append(Mount(source, target, True))
        return tuple(mounts)

    async def _create(self, spec: ContainerSpec) -> str:
        engine = await self.containers.engine()
        return await self.containers.whole(self.place.key, engine.create(self.name, spec))

    async def _forget(self, id: str) -> None:
        with suppress(PerdureError):
            engine = await self.containers.engine()
            seen = await engine.inspect(self.name)
            if seen is not None and seen.id == id and seen.state == "created":
                await engine.remove(id)

    # -- until it has ended ------------------------------------------------------------------------------------

    async def _until_ended(self, started: _StartedContainer, sink: LogSink) -> Seen:
        fresh = sure = self.attempt.state is None
        warned = False
        silent_since: float | None = None
        while True:
            try:
                if fresh:
                    fresh = False
                    seen = None
                    await self.containers.ask(self._start())
                else:
                    seen = await self.containers.ask(self._look(started, sure))
                if self.following is None:
                    self.following = self.containers.call(self._follow(started.id, sink))
                if seen is not None and seen.state != "running":
                    await last_lines(asyncio.wrap_future(self.following), self.program.name)
                    self._unfollow()
                    return seen
                silent_since = None
                await self.containers.ask(self._wait(started))
            except _OtherEngineError as error:
                self.attempt.suspend(EngineUnavailableError(str(error)))
            except EngineUnavailableError as error:
                # The engine may or may not have carried out the last request: look, as a joining process does (L5).
                sure = False
                self._unfollow()
                silent_since = silent_since or seconds()
                if seconds() - silent_since > PATIENCE:
                    self.redactor.clean(error)
                    self.attempt.suspend(error)
                if not warned:
                    warned = True
                    log.warning("%s: waiting for the container engine: %s", self.program.name, error)
                await asyncio.sleep(RETRY_SECONDS)

    def _unfollow(self) -> None:
        if self.following is not None:
            self.following.cancel()
            self.following = None

    async def _stopped(self) -> bool:
        """Stop the container at the attempt's timeout, and take its last lines; whether both succeeded."""
        self.place.mark_late()
        try:
            await self.containers.ask(self._stop())
        except PerdureError as error:
            log.warning("%s: its container cannot be stopped yet: %s", self.program.name, error)
            return False
        if self.following is not None:
            await last_lines(asyncio.wrap_future(self.following), self.program.name)
        self._unfollow()
        return True

    async def _stop(self) -> None:
        await (await self.containers.engine()).stop(self.name, GRACE)

    async def _start(self) -> None:
        """Start the container that this process has created and recorded."""
        if not await (await self.containers.engine()).start(self.name):
            raise AttemptLost("the container is gone")

    async def _look(self, started: _StartedContainer, sure: bool) -> Seen:
        """The container now, running or ended; started here, if need be.

        `sure`: this process has started the container, and has heard from the engine ever since.
        """
        engine = await self.containers.engine()
        reborn = not sure and await self._other_daemon(engine, started)
        seen = await engine.inspect(started.id)
        if seen is not None and seen.name != self.name:
            # From now on no other process can start the container (L2); look again.
            seen = await engine.inspect(started.id) if await engine.rename(started.id, self.name) else None
        if seen is None:
            raise AttemptLost("the container is gone")
        if seen.labels.get(LABEL) != self.place.key or seen.labels.get(_SPEC_LABEL) != started.labels_hash:
            raise AttemptLost("a container of another kind is in its place")
        late = self.attempt.seconds_left == 0
        if late and (seen.state in ("created", "running", "paused", "restarting") or self.place.is_late):
            # The time was up before this process joined the container; an exit code after the stop means nothing.
            raise TaskTimeoutError(f"task {self.program.name} took longer than its timeout")
        if seen.state == "created" and seen.started_at is None:
            if reborn or seen.pid:
                # A daemon that dies during a start may not remember the start. The container may run, or have ended.
                await self._discard(engine, started.id)
                raise AttemptLost("the container engine was restarted, perhaps during the start of the container")
            try:
                await self._start()
            except UsageError as error:
                # Started after all, or half; a fault of the specification will show in the next attempt.
                await self._discard(engine, started.id)
                raise AttemptLost(f"the container cannot be started: {error}") from error
            return seen._replace(state="running")
        if seen.state in ("running", "paused", "restarting"):
            return seen._replace(state="running")
        if seen.state != "exited":
            await self._discard(engine, started.id)
            raise AttemptLost(f"the container is {seen.state}{': ' if seen.error else ''}{seen.error}")
        if not sure or seen.exit_code in _DYING or seen.exit_code == _UNKNOWN_END:
            await self._check_end(engine, started, seen)
        return seen

    async def _other_daemon(self, engine: ContainerEngine, started: _StartedContainer) -> bool:
        """Whether another daemon process answers than the daemon that was to start the container. Another engine, or
        another boot of the machine, raises."""
        info = await self.containers.info()
        if info.id != started.engine:
            if info.url != started.url:
                raise _OtherEngineError(
                    f"the engine at {started.url} has the container of {self.program.name}, and the engine at "
                    f"{info.url} answers now. Make the first engine reachable, or name the engine with "
                    "PERDURE_CONTAINER_ENGINE."
                )
            raise AttemptLost("the engine has lost its containers")
        if started.boot is not None and started.boot != self.boot:
            await self._discard(engine, started.id)
            raise AttemptLost("the machine was restarted")
        return info.instance != started.instance

    async def _check_end(self, engine: ContainerEngine, started: _StartedContainer, seen: Seen) -> None:
        """Whether the container has ended by itself, and not with the engine (L4)."""
        if seen.oom_killed:
            return
        info = await engine.info()
        if info.instance is None:
            return
        taken = seen.exit_code in _DYING or seen.exit_code == _UNKNOWN_END
        if taken and info.instance == started.instance:
            # A stopping engine first ends the containers, and answers until then.
            await asyncio.sleep(DYING_SECONDS)
            info = await engine.info()
        if info.instance == started.instance or info.started_at is None:
            return
        if taken or seen.finished_at is None or seen.finished_at >= info.started_at:
            await self._discard(engine, started.id)
            raise AttemptLost("the container engine was restarted under it")

    async def _wait(self, started: _StartedContainer) -> None:
        """Return when the container has stopped running, or the main process is gone and the engine does not know."""
        engine = await self.containers.engine()
        id, local = started.id, started.boot is not None
        waiting = asyncio.ensure_future(engine.wait(id))
        suspicious = False
        try:
            while not (await asyncio.wait([waiting], timeout=LOOK_SECONDS))[0]:
                seen = await engine.inspect(id)
                dead = (
                    local and seen is not None and seen.state == "running" and seen.pid > 0
                    and _is_gone(seen.pid)
                )  # fmt: skip
                if dead and suspicious:
                    await self._discard(engine, id)
                    raise AttemptLost("the container's main process is gone, and the engine does not know")
                suspicious = dead
            waiting.result()
        finally:
            waiting.cancel()

    async def _discard(self, engine: ContainerEngine, id: str) -> None:
        with suppress(PerdureError):
            await engine.remove(id)

    async def _follow(self, id: str, sink: LogSink) -> None:
        await follow(await self.containers.engine(), id, sink)

    # -- its outcome -------------------------------------------------------------------------------------------

    async def _outcome(self, started: _StartedContainer, seen: Seen, sink: LogSink) -> Any:
        outputs = await self._outputs(started.id)
        end = ContainerEnd(seen.exit_code, seen.oom_killed, seen.error, started.image, started.command, list(sink.tail))
        return await self.containers.in_thread(lambda: concluded(self.program, outputs, end, self.redactor))

    async def _outputs(self, id: str) -> str:
        """A directory with the container's outputs that this process can read."""
        place = self.place
        if await self.containers.in_thread(place.is_readable):
            return place.outputs

        def empty() -> None:
            remove_tree(place.copied)
            os.mkdir(place.copied, 0o700)

        async def copy() -> None:
            await self.containers.in_thread(empty)
            await (await self.containers.engine()).copy_out(id, self.program.output_dir, place.copied)

        await self.containers.patiently(self.program.name, copy)
        return place.copied


def _is_gone(pid: int) -> bool:
    return not os.path.exists(f"/proc/{pid}") and os.path.exists("/proc/self")

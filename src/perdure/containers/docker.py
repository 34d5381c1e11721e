"""Docker, and Podman through the same API.

Podman's differences are handled here and in `_wire.py`, each beside its name.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import platform
import posixpath
import re
import tempfile
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import aiodocker
import aiohttp
from aiodocker.containers import DockerContainer

from perdure.containers import _archive, _build, _connection, _identity, _processes, _wire
from perdure.containers.engine import ContainerSpec, EngineImage, EngineInfo, LogLine, Pull, Seen
from perdure.containers.redaction import Redactor, bare_url, credentials_of
from perdure.core.ground import clock
from perdure.errors import ContainerError, EngineUnavailableError, ImageNotFoundError, PerdureError, UsageError

QUICK: Final = 60.0
"""Seconds for a call that only looks."""
WORK: Final = 300.0
"""Seconds for a call that changes something: the engine works through many calls one after another."""


class _PodmanKnown(NamedTuple):
    """Podman's last answer, and the signs by which a change of the engine shows."""

    graph: str
    socket: object
    info: EngineInfo


class DockerEngine:
    """The engine at `url`: `unix://path`, `tcp://host:port`, `http://...` or `https://...`.

    `environ` may hold Docker's own DOCKER_TLS_VERIFY and DOCKER_CERT_PATH. `on_close` ends a service that was
    started for this engine.
    """

    def __init__(
        self, url: str, *, environ: Mapping[str, str] | None = None, on_close: Callable[[], None] | None = None
    ) -> None:
        self.url = bare_url(url)
        self._address = url
        self._redactor = Redactor(credentials_of(url))
        self._environ = environ or {}
        self._on_close = on_close
        self._docker: aiodocker.Docker | None = None
        self._podman: tuple[int, ...] | None = None
        """Podman's version; `None`: the engine is Docker."""
        self._podman_known: _PodmanKnown | None = None
        self._docker_known: EngineInfo | None = None
        self._one_asks = asyncio.Lock()
        self._oom_killed: set[str] = set()
        """Ids of containers whose OOM kill was seen here."""

    # ---- the engine

    async def info(self) -> EngineInfo:
        async with self._asking(QUICK):
            docker = await self._ready()
            if self._podman is not None:
                return await self._podman_info(docker)
            known = await self._same_daemon(docker)
            if known is not None:
                return known
            before = _identity.daemon_start(self.url)
            info = dict(await docker.system.info())
            try:
                none = str((await docker._query_json("networks/none"))["Id"])
            except aiodocker.DockerError as error:
                if error.status != 404:
                    raise
                none = ""
        local = _identity.is_local(self.url, info.get("Name", ""), info.get("KernelVersion", ""))
        lasting = local and not info.get("LiveRestoreEnabled")
        start = _identity.daemon_start(self.url) if lasting else None
        found = EngineInfo(
            id=_identity.docker_id(info, none),
            kind="docker",
            url=self.url,
            version=str(info.get("ServerVersion", "")),
            local=local,
            rootless="name=rootless" in (info.get("SecurityOptions") or ()),
            started_at=start.at if start is not None else None,
            instance=start.instance if start is not None else None,
        )
        # Kept only where the same process answered all of the questions.
        same = start is not None and before is not None and start.instance == before.instance
        self._docker_known = found if same else None
        return found

    async def _same_daemon(self, docker: aiodocker.Docker) -> EngineInfo | None:
        """The last answer, if the same process answers now. Docker takes 10 ms and more for a full answer, as Docker
        counts all containers and images."""
        known = self._docker_known
        if known is None:
            return None
        async with docker._query("_ping", versioned_api=False) as response:
            response.release()
        start = _identity.daemon_start(self.url)
        if start is None or start.instance != known.instance:
            return None
        # Two readings of the clock never agree to the microsecond; a large difference means a clock that was set.
        return known if abs(start.at - (known.started_at or 0)) < 10_000 else known._replace(started_at=start.at)

    async def _podman_info(self, docker: aiodocker.Docker) -> EngineInfo:
        """Podman takes a quarter of a second for the answer, which changes only with the socket or the storage."""
        socket = _identity.stamp(self.url.removeprefix("unix://"))
        if self._podman_known is not None and socket is not None:
            graph, at, known = self._podman_known
            async with docker._query("_ping", versioned_api=False) as response:
                response.release()
            if known.local and at == socket and known.id == _identity.podman_id(platform.node(), graph, local=True):
                return known
        info = await docker._query_json("libpod/info")
        host, graph = info["host"], str(info["store"]["graphRoot"])
        local = _identity.is_local(self.url, host["hostname"], host["kernel"])
        found = EngineInfo(
            id=_identity.podman_id(host["hostname"], graph, local=local),
            kind="podman",
            url=self.url,
            version=str(info["version"]["Version"]),
            local=local,
            rootless=bool(host["security"]["rootless"]),
            started_at=None,  # containers do not end with Podman's service
            instance=None,
        )
        self._podman_known = _PodmanKnown(graph, socket, found)
        return found

    async def close(self) -> None:
        docker, self._docker = self._docker, None
        if docker is not None:
            await _connection.close(docker)
        if self._on_close is not None:
            self._on_close()
            self._on_close = None

    # ---- images

    async def image(self, reference: str, *, pull: Pull = "missing", platform: str | None = None) -> EngineImage:
        found: dict[str, Any] | None = None
        if pull != "always":
            found = await self._image(reference)
            if found is not None and platform is not None and not _wire.fits(found, platform):
                if pull == "never":
                    here = f"{found.get('Os')}/{found.get('Architecture')}"
                    raise ImageNotFoundError(f"The image {reference!r} is here for {here} only, not for {platform}.")
                found = None
        if found is None:
            if pull == "never":
                raise ImageNotFoundError(f'There is no image {reference!r} at {self.url}, and pull="never" forbids it.')
            await self._pull(reference, platform)
            found = await self._image(reference)
            if found is None:
                raise ImageNotFoundError(f"The image {reference!r} is not at {self.url} although it was pulled.")
        return _wire.image(found, reference)

    async def build(self, dockerfile: str, context: str, tag: str, *, platform: str | None = None) -> EngineImage:
        said: list[str] = []
        with await asyncio.to_thread(_build.pack, dockerfile, context) as archive:
            async with self._asking(None):
                try:
                    steps = (await self._ready()).images.build(
                        fileobj=archive,
                        encoding="identity",
                        path_dockerfile=_build.DOCKERFILE,
                        tag=tag,
                        platform=platform,
                        stream=True,
                    )
                    async for step in steps:
                        said += str(step.get("stream", "")).splitlines()
                except aiodocker.DockerError as error:
                    if _connection.is_outage(error):
                        raise
                    tail = tuple(line for line in said if line.strip())[-50:]
                    text = "\n".join([f"Building {tag!r} from {dockerfile} failed: {error.message}", *tail])
                    raise ContainerError(text, image=tag, log_tail=tail) from error
        found = await self._image(tag)
        if found is None:
            raise EngineUnavailableError(f"The build of {tag!r} at {self.url} broke off.")
        return _wire.image(found, tag)

    async def _image(self, reference: str) -> dict[str, Any] | None:
        async with self._asking(QUICK):
            docker = await self._ready()
            try:
                return dict(await docker.images.inspect(reference))
            except aiodocker.DockerError as error:
                # 400: not a reference at all, such as upper case. Podman answers 500 there.
                if error.status not in (400, 404) and "invalid reference" not in error.message:
                    raise
        return None

    async def _pull(self, reference: str, platform: str | None) -> None:
        async with self._asking(None):
            try:
                await (await self._ready()).images.pull(reference, platform=platform)
            except aiodocker.DockerError as error:
                # "connection refused" is the registry's here, not the engine's.
                if _connection.is_outage(error) and "connection refused" not in error.message:
                    raise
                text = f"The image {reference!r} is not here, and pulling it failed: {error.message.strip()}"
                raise ImageNotFoundError(text) from None

    # ---- containers

    async def create(self, name: str, spec: ContainerSpec) -> str:
        async with self._asking(WORK):
            docker = await self._ready()
            self._check(spec)
            body = _wire.config(spec, podman=self._podman is not None)
            if spec.command == () and spec.entrypoint is None:
                # An empty command means "the image's" unless an entrypoint precedes.
                image = await docker.images.inspect(spec.image)
                body["Entrypoint"] = (image.get("Config") or {}).get("Entrypoint") or [""]
            params = {"name": name} if spec.platform is None else {"name": name, "platform": spec.platform}
            try:
                # Not `containers.create`, which takes no platform.
                created = await docker._query_json("containers/create", "POST", params=params, data=body)
                return str(created["Id"])
            except aiodocker.DockerError as error:
                # Podman up to 4 answers 500 where Docker answers 409.
                if error.status == 409 or "name is already in use" in error.message:
                    there = await self._show(name)
                    if there is not None:
                        return str(there["Id"])
                if _connection.is_outage(error):
                    raise
                if error.status == 404 and "image" in error.message.lower():
                    raise ImageNotFoundError(f"There is no image {spec.image!r} at {self.url} (any more).") from error
                raise UsageError(f"{self.url} refuses the container {name}: {error.message.strip()}") from error

    def _check(self, spec: ContainerSpec) -> None:
        if self._podman is None:
            return
        if spec.gpu and self._podman < (5,):
            raise UsageError("Podman before 5.0 gives no GPU to a container made over its API.")
        if self.url.startswith("unix://"):
            for mount in spec.mounts:
                # Podman makes an empty directory of a missing source; Docker refuses.
                if not os.path.lexists(mount.source):
                    raise UsageError(f"There is no {mount.source} to be mounted as {mount.target}.")

    async def rename(self, id: str, name: str) -> bool:
        async with self._asking(WORK):
            try:
                await (await self._container(id)).rename(name)
            except aiodocker.DockerError as error:
                there = await self._show(id)
                if there is None and _connection.is_gone(error):
                    return False
                if there is None or str(there["Name"]).removeprefix("/") != name:  # renamed already?
                    raise
            return True

    async def start(self, name: str) -> bool:
        async with self._asking(WORK):
            try:
                await (await self._container(name)).start()
            except aiodocker.DockerError as error:
                if _connection.is_outage(error):
                    raise
                # Docker also answers 404 where a network or a program of the container is missing.
                if _connection.is_gone(error) and await self._show(name) is None:
                    return False
                raise UsageError(f"{self.url} cannot start {name}: {error.message.strip()}") from error
            return True

    async def inspect(self, id: str) -> Seen | None:
        async with self._asking(QUICK):
            shown = await self._show(id)
        if shown is None:
            return None
        seen = _wire.seen(shown)
        # Podman's monitor often misses an OOM kill of a container's first process.
        missed = seen.id in self._oom_killed and seen.exit_code == 137
        return seen._replace(oom_killed=True) if missed else seen

    async def find(self, labels: dict[str, str]) -> list[Seen]:
        wanted = [f"{name}={value}" for name, value in labels.items()]
        async with self._asking(QUICK):
            listed = await (await self._ready()).containers.list(all=True, filters=json.dumps({"label": wanted}))
        found = [await self.inspect(container.id) for container in listed]
        return [container for container in found if container is not None]  # some may have gone meanwhile

    async def wait(self, id: str) -> None:
        if await self._ready_podman() and await self._wait_podman(id):
            return
        while True:
            async with self._asking(None):
                try:
                    await (await self._container(id)).wait()
                except aiodocker.DockerError as error:
                    if not _connection.is_gone(error):
                        raise
                    return
            # Checked by `inspect`: Podman's answer may come early, and is 0 for a container that was never started.
            if not _runs(await self.inspect(id)):
                return
            await asyncio.sleep(0.05)

    async def _wait_podman(self, id: str) -> bool:
        """Podman polls its containers a few times in a second. For a process of this machine, the kernel reports the
        end at once, also where Podman's monitor was killed and Podman will never know. `False`: the kernel cannot
        report here."""
        async with self._one_asks:  # many waits begin together
            if self._podman_known is None:
                await self.info()
        # Not asked again each time: behind another engine, the process would not belong to the container.
        if self._podman_known is None or not self._podman_known.info.local:
            return False
        container = await self.inspect(id)
        if container is None or not _runs(container):
            return True
        ended = await _processes.ended(container.pid, container.id)
        if ended is None:
            return False
        if ended.oom_killed:
            self._oom_killed.add(container.id)
        for pause in (0.002, 0.005, 0.01, 0.02, 0.05, *(0.1,) * 50):
            if not _runs(await self.inspect(id)):
                break
            await asyncio.sleep(pause)
        return True

    async def logs(self, id: str, *, skip: int = 0) -> AsyncIterator[LogLine]:
        end = asyncio.ensure_future(self.wait(id))
        try:
            while True:
                ended = end.done()
                began = clock.perf()
                lines = _wire.Lines(skip)
                # Podman loses lines for followers when there are many lines.
                async for data in self._log_data(id, follow=not ended and self._podman is None):
                    for line in lines.feed(data):
                        yield line
                if ended:
                    break
                skip += lines.given
                if self._podman is None:
                    # Docker keeps a last line without a newline from followers: look once more at the end.
                    await end
                else:
                    # Each look reads the whole log: at most a tenth of the time goes into looks.
                    await asyncio.wait({end}, timeout=max(0.25, 10 * (clock.perf() - began) / 1e9))
            end.result()
        finally:
            end.cancel()
            await asyncio.wait({end})
        if lines.torn:
            raise EngineUnavailableError(f"The logs of {id} from {self.url} broke off.")
        for line in lines.end():
            yield line

    async def _log_data(self, id: str, *, follow: bool) -> AsyncIterator[bytes]:
        async with self._asking(None):
            docker = await self._ready()
            params = {"stdout": 1, "stderr": 1, "follow": int(follow)}
            try:
                # Not `container.log`, which decodes to text, and takes a broken connection for the end.
                asked = docker._query(f"containers/{id}/logs", params=params, timeout=_ENDLESS)
                async with asked as response, response:
                    async for data in response.content.iter_any():
                        yield data
            except aiodocker.DockerError as error:
                if not _connection.is_gone(error) and error.status != 409:  # not there, or just being removed
                    raise

    async def copy_out(self, id: str, path: str, to: str) -> None:
        with tempfile.TemporaryFile(dir=os.path.dirname(to)) as spool:
            async with self._asking(None):
                docker = await self._ready()
                query = docker._query(f"containers/{id}/archive", params={"path": path}, timeout=_ENDLESS)
                async with query as response:
                    async for data in response.content.iter_chunked(1 << 18):
                        spool.write(data)
            spool.seek(0)
            await asyncio.to_thread(_archive.unpack, spool, posixpath.basename(path), to)

    async def stop(self, id: str, grace: float) -> None:
        async with self._asking(grace + WORK):
            try:
                await (await self._container(id)).stop(t=math.ceil(grace))
            except aiodocker.DockerError as error:
                if not _connection.is_gone(error):
                    raise

    async def remove(self, id: str) -> None:
        async with self._asking(WORK):
            try:
                await (await self._container(id)).delete(force=True, v=True)
            except aiodocker.DockerError as error:
                if _connection.is_gone(error):
                    return
                if error.status != 409:
                    raise
                # Another caller is removing the container.
                while await self._show(id) is not None:  # noqa: ASYNC110 - only the engine knows
                    await asyncio.sleep(0.1)

    # ---- the connection

    async def _ready(self) -> aiodocker.Docker:
        """The client, with the version of the API that the engine speaks."""
        if (known := self._docker) is not None:
            return known
        base, connector = _connection.connect(self._address, self._environ)
        timeout = aiohttp.ClientTimeout(total=WORK, sock_connect=10)
        docker = aiodocker.Docker(url=base, connector=connector, timeout=timeout)
        try:
            # Not /version: Podman takes a third of a second for an answer.
            async with docker._query("_ping", versioned_api=False) as response, response:
                version, podman = response.headers.get("Api-Version"), response.headers.get("Libpod-Api-Version")
            if version is None:
                raise EngineUnavailableError(f"What answers at {self.url} is no container engine.")
            docker.api_version = f"v{version}"
        except BaseException:
            await _connection.close(docker)
            raise
        if self._docker is not None:  # another call was faster
            await _connection.close(docker)
            return self._docker
        if podman:
            self._podman = tuple(map(int, re.findall(r"\d+", podman)[:3]))
        self._docker = docker
        return docker

    async def _container(self, id: str) -> DockerContainer:
        return (await self._ready()).containers.container(id)

    async def _ready_podman(self) -> bool:
        """Whether the engine is Podman."""
        async with self._asking(QUICK):
            await self._ready()
        return self._podman is not None

    async def _show(self, id: str) -> dict[str, Any] | None:
        try:
            return await (await self._container(id)).show()
        except aiodocker.DockerError as error:
            if not _connection.is_gone(error):
                raise
            return None

    @asynccontextmanager
    async def _asking(self, seconds: float | None) -> AsyncIterator[None]:
        """Translates faults of the connection or the engine, and strikes the URL's credentials out of messages."""
        try:
            async with self._translated(seconds):
                yield
        except PerdureError as error:
            self._redactor.clean(error)
            raise

    @asynccontextmanager
    async def _translated(self, seconds: float | None) -> AsyncIterator[None]:
        try:
            if seconds is None:
                yield  # also from a generator, where a timeout may not stand
            else:
                async with asyncio.timeout(seconds):
                    yield
        except TimeoutError as error:
            raise EngineUnavailableError(f"{self.url} has not answered for {seconds or 0:.0f} s.") from error
        except aiodocker.DockerError as error:
            said = "does not answer" if error.status == _connection.NO_CONNECTION else "fails"
            raise EngineUnavailableError(f"{self.url} {said}: {error.message.strip()}") from error
        except RuntimeError as error:
            # aiohttp's message where the session was closed between the steps of a call.
            if "closed" not in str(error):
                raise
            raise EngineUnavailableError(f"The connection to {self.url} was closed.") from error
        except (aiohttp.ClientError, OSError, EOFError) as error:
            raise EngineUnavailableError(f"{self.url} does not answer: {str(error) or type(error).__name__}") from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            raise EngineUnavailableError(f"An answer of {self.url} broke off: {error}") from error


_ENDLESS: Final = aiohttp.ClientTimeout(total=None, sock_connect=10)


def _runs(container: Seen | None) -> bool:
    return container is not None and container.state in ("running", "paused", "restarting")

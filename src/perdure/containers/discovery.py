"""Finds the container engine, or lists the places that were tried."""

from __future__ import annotations

import asyncio
import ctypes
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from typing import Final

from perdure.containers.docker import DockerEngine
from perdure.containers.engine import ContainerEngine
from perdure.containers.redaction import bare_url
from perdure.core.ground.trees import discard_tree
from perdure.errors import EngineUnavailableError, UsageError

DOCKER_SOCKETS: Final = ("/var/run/docker.sock", "~/.docker/run/docker.sock")
"""The standard place, and Docker Desktop's."""
PODMAN_SOCKETS: Final = ("/run/podman/podman.sock", "$XDG_RUNTIME_DIR/podman/podman.sock")
"""Root's, and a user's own."""

SCHEMES: Final = ("unix", "tcp", "http", "https")
_DIRECTORY: Final = "perdure-podman-"
STARTUP: Final = 30.0
"""Seconds for Podman's service to come up."""


async def open_engine(wanted: str | None, environ: Mapping[str, str]) -> ContainerEngine:
    """The engine to use, after a first answer. `wanted` is `docker`, `podman`, a URL, or `None`: the first of
    DOCKER_HOST, Docker's socket, Podman's sockets, and a service of a `podman` program started for this process."""
    wanted = (wanted or "").strip() or None
    if wanted not in (None, "docker", "podman"):
        return await _at(_checked(wanted, "The container engine"), environ)
    looked: list[str] = []
    if wanted != "podman":
        if host := environ.get("DOCKER_HOST"):
            # The user's choice: no other engine takes the place of a silent one.
            return await _at(_checked(host, "DOCKER_HOST"), environ)
        looked.append("DOCKER_HOST: not set")
        for path in DOCKER_SOCKETS:
            if found := await _behind(path, environ, looked):
                return found
    if wanted != "docker":
        for path in PODMAN_SOCKETS:
            if found := await _behind(path, environ, looked):
                return found
        program = shutil.which("podman", path=environ.get("PATH"))
        if program is not None:
            return await _own_service(program, environ)
        looked.append("a program `podman`: none in PATH")
    what = {"docker": "Docker", "podman": "Podman", None: "container engine"}[wanted]
    install = {
        "docker": "`apt-get install docker.io`",
        "podman": "`apt-get install podman`",
        None: "`apt-get install podman` (or docker.io)",
    }[wanted]
    raise EngineUnavailableError(
        "\n".join(
            [
                f"No {what} was found. Looked for:",
                *(f"  - {line}" for line in looked),
                f"Install one (on Debian: {install}), or name one that is elsewhere: PERDURE_CONTAINER_ENGINE or "
                "init(container_engine=...) takes docker, podman, or a URL such as unix:///run/podman/podman.sock.",
            ]
        )
    )


def _checked(url: str, source: str) -> str:
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in SCHEMES or not rest:
        known = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        raise UsageError(f"{source} is {bare_url(url)!r}, and has to be docker, podman, or a URL of {known}.")
    return url


async def _at(url: str, environ: Mapping[str, str]) -> ContainerEngine:
    if url.startswith("unix://"):
        path = url.removeprefix("unix://")
        obstacle = await asyncio.to_thread(_obstacle, path)
        if obstacle is not None:
            raise EngineUnavailableError(f"The container engine at {bare_url(url)} cannot be used: {obstacle}.")
    return await _answering(DockerEngine(url, environ=environ))


async def _behind(path: str, environ: Mapping[str, str], looked: list[str]) -> ContainerEngine | None:
    """The engine behind a well-known socket. An engine that refuses is passed over, and noted in `looked`."""
    place = path
    for variable in ("XDG_RUNTIME_DIR", "HOME"):
        name = "~" if variable == "HOME" else f"${variable}"
        if name in path:
            if not environ.get(variable):
                return None
            place = path.replace(name, environ[variable])
    obstacle = await asyncio.to_thread(_obstacle, place)
    if obstacle is None:
        try:
            return await _answering(DockerEngine(f"unix://{place}", environ=environ))
        except EngineUnavailableError as error:
            obstacle = str(error)
    looked.append(f"{place}: {obstacle}")
    return None


def _obstacle(path: str) -> str | None:
    """The reason why the socket leads nowhere; `None`: an engine can be reached."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(10)
            connection.connect(path)
    except FileNotFoundError:
        return "no such socket"
    except PermissionError:
        remedy = "use rootless podman"
        if "docker" in os.path.basename(path):
            remedy = (
                "add yourself to the group docker (`sudo usermod -aG docker $USER`, then log in again), or " + remedy
            )
        return f"permission denied; {remedy}"
    except ConnectionRefusedError:
        return "the socket is there, but no process listens: start the engine"
    except OSError as error:
        return str(error)
    return None


async def _answering(engine: DockerEngine) -> DockerEngine:
    try:
        await engine.info()
    except BaseException:
        await engine.close()
        raise
    return engine


# ------------------------------------------------------------------------------------------------ a service of our own


async def _own_service(program: str, environ: Mapping[str, str]) -> ContainerEngine:
    """Podman's API on a private socket, for this process alone. `close` ends the service, or the kernel does when
    the thread that started the service ends. Containers belong to their own monitors and go on."""
    await asyncio.to_thread(_sweep)
    directory = tempfile.mkdtemp(prefix=f"{_DIRECTORY}{os.getpid()}-")
    path = os.path.join(directory, "podman.sock")
    log = os.path.join(directory, "log")
    # No idle timeout: while a container runs there need not be a connection.
    command = [program, "system", "service", "--time=0", f"unix://{path}"]
    # Not in a pool's thread: the kernel's signal comes when the starting thread ends.
    with open(log, "wb") as output:  # noqa: ASYNC230
        service = subprocess.Popen(  # noqa: ASYNC220 - takes about a millisecond
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=dict(environ), preexec_fn=_preexec()
        )

    def end() -> None:
        service.terminate()
        try:
            service.wait(10)
        except subprocess.TimeoutExpired:
            service.kill()
            service.wait()
        discard_tree(directory)

    try:
        pause = 0.01
        waited = 0.0
        while _obstacle(path) is not None:
            if service.poll() is not None or waited > STARTUP:
                with open(log, errors="replace") as output_again:  # noqa: ASYNC230
                    said = output_again.read()[-2000:].strip()
                raise EngineUnavailableError(f"`{' '.join(command)}` does not come up:\n{said}")
            await asyncio.sleep(pause)
            waited += pause
            pause = min(pause * 1.5, 0.2)
        return await _answering(DockerEngine(f"unix://{path}", environ=environ, on_close=end))
    except BaseException:
        end()
        raise


def _sweep() -> None:
    """Remove the directories of processes that were killed."""
    for name in os.listdir(tempfile.gettempdir()):
        pid = name.removeprefix(_DIRECTORY).partition("-")[0]
        if name.startswith(_DIRECTORY) and pid.isdigit():
            try:
                os.kill(int(pid), 0)
            except ProcessLookupError:
                discard_tree(os.path.join(tempfile.gettempdir(), name))
            except OSError:
                pass  # another user's process


def _preexec() -> Callable[[], None] | None:
    """The function that the child executes before Podman: asks the kernel to end the child when the parent dies."""
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after a fork in a threaded process the less is done the better
    set_pdeathsig = 1
    terminate = int(signal.SIGTERM)

    def preexec() -> None:
        prctl(set_pdeathsig, terminate, 0, 0, 0)

    return preexec

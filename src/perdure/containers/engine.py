"""The port of container engines, in perdure's own words.

Every method may raise `EngineUnavailableError`: the engine does not answer, or the connection broke. The effect of
the call is then unknown, and the caller looks before a retry. Every method that names a container by id or name is
idempotent.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple, Protocol

Pull = Literal["missing", "always", "never"]


class Mount(NamedTuple):
    """A file or directory of this machine, seen in the container."""

    source: str
    target: str
    read_only: bool


@dataclass(frozen=True)
class ContainerSpec:
    """The specification of a new container. `None` leaves a choice to the image or the engine."""

    image: str
    """The id from `ContainerEngine.image`."""
    entrypoint: tuple[str, ...] | None = None
    """Replaces the image's entrypoint; `()` removes it."""
    command: tuple[str, ...] | None = None
    """Replaces the image's command; `()` removes it."""
    env: dict[str, str] = field(default_factory=dict, repr=False)
    labels: dict[str, str] = field(default_factory=dict)
    mounts: tuple[Mount, ...] = ()
    workdir: str | None = None
    user: str | None = None
    network: str | None = None
    platform: str | None = None
    cpu: float | None = None
    """Cores."""
    memory: int | None = None
    """Bytes; swap is not added."""
    gpu: int = 0
    """How many GPUs; 0: none is asked for."""
    shm: int | None = None
    """Bytes of /dev/shm."""


class Seen(NamedTuple):
    """A container as the engine shows the container."""

    id: str
    name: str
    labels: dict[str, str]
    state: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    exit_code: int
    oom_killed: bool
    pid: int
    """Number of the main process on the engine's machine; 0: none."""
    started_at: int | None
    """Start in microseconds since the epoch by the engine's clock; `None`: never started."""
    finished_at: int | None
    """End, likewise; `None`: not ended."""
    error: str
    """The engine's account of a failed start or run; usually empty."""


class EngineInfo(NamedTuple):
    """Identity and state of the engine that answers."""

    id: str
    """The same for as long as the engine keeps its containers; another after the engine's state was wiped."""
    kind: Literal["docker", "podman", "memory"]
    url: str
    """The address, such as `unix:///var/run/docker.sock`."""
    version: str
    local: bool
    """Whether the engine runs on this machine, so that paths and process numbers mean the same to both."""
    rootless: bool
    started_at: int | None
    """Start of the engine's daemon (microseconds since the epoch, right to a tenth of a second), where containers
    die with the daemon; `None` where containers survive (Podman, Docker with live restore) or the start is unknown."""
    instance: str | None
    """Names the start of the daemon, always by the same text; `None` where `started_at` is."""


class EngineImage(NamedTuple):
    """An image that the engine holds."""

    id: str
    digest: str
    """The digest of the pull, else the id: equal content, equal text."""


class LogLine(NamedTuple):
    """A line that a container wrote; a very long line comes in several pieces."""

    stream: Literal["stdout", "stderr"]
    data: bytes
    """Without the newline."""
    opens: bool = True
    """Whether the piece is the beginning of the line."""
    closes: bool = True
    """Whether the piece is the end of the line."""


class LineCutter:
    """Cuts one stream of bytes into lines, and long lines into pieces. The pieces do not depend on how the bytes
    arrive, so that a reader who begins again finds the same pieces."""

    LONGEST: Final = 64 * 1024
    """Bytes of a piece at most."""

    def __init__(self, stream: Literal["stdout", "stderr"]) -> None:
        self._stream = stream
        self._partial = bytearray()
        self._opens = True

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """The pieces that are complete with this data."""
        *lines, rest = data.split(b"\n")
        for line in lines:
            self._partial += line
            yield from self._pieces()
            yield from self.end(always=True)
        self._partial += rest
        yield from self._pieces()

    def end(self, *, always: bool = False) -> Iterator[LogLine]:
        """The last piece of a line; of a line without a newline only where something is left."""
        if self._partial or always:
            yield LogLine(self._stream, bytes(self._partial), self._opens)
        self._partial.clear()
        self._opens = True

    def _pieces(self) -> Iterator[LogLine]:
        at = 0
        while len(self._partial) - at > self.LONGEST:
            yield LogLine(self._stream, bytes(self._partial[at : at + self.LONGEST]), self._opens, False)
            self._opens = False
            at += self.LONGEST
        del self._partial[:at]


class ContainerEngine(Protocol):
    """An engine, used from one event loop."""

    async def info(self) -> EngineInfo:
        """Which engine answers; asked of it each time."""

    async def image(self, reference: str, *, pull: Pull = "missing", platform: str | None = None) -> EngineImage:
        """The image of a name, pulled where `pull` says so. `ImageNotFoundError`: the image cannot be had."""

    async def build(self, dockerfile: str, context: str, tag: str, *, platform: str | None = None) -> EngineImage:
        """Build an image from a Dockerfile (a path) and a context (a directory). `ContainerError` with the last
        lines of the build where the build fails."""

    async def create(self, name: str, spec: ContainerSpec) -> str:
        """Create a container without a start, and return the id. Where a container of the name exists, return the id
        of that container, under any specification. `UsageError`, in the engine's words, where the engine refuses
        the specification (some mistakes, such as a missing network, only show at the start); `ImageNotFoundError`
        where the image is gone."""

    async def rename(self, id: str, name: str) -> bool:
        """Give a container another name; `False`: there is no such container. The old name becomes invalid. Fine if
        the container has the name already."""

    async def start(self, name: str) -> bool:
        """Start the container of that *name*; `False`: no container has the name (any more). A running container
        stays as it is. An ended container runs again: the caller has looked at the state before, and owns the name.
        `UsageError`, in the engine's words, where the start fails (no such program in the image, for instance); the
        container is still *created* then."""

    async def inspect(self, id: str) -> Seen | None:
        """A container by id or name; `None`: not there."""

    async def find(self, labels: dict[str, str]) -> list[Seen]:
        """All containers, in any state, with all of these labels."""

    async def wait(self, id: str) -> None:
        """Return when the container does not run: ended, never started, or not there (any more). Also, where
        visible, when the main process is gone and the engine does not notice (Podman with a killed monitor): then
        `inspect` still shows a running container, with a `pid` of no process."""

    def logs(self, id: str, *, skip: int = 0) -> AsyncIterator[LogLine]:
        """The lines of a container from the first, without `skip` lines, until the container ends. Nothing where
        there is no such container. The order between the two streams is not kept."""

    async def copy_out(self, id: str, path: str, to: str) -> None:
        """Copy the directory `path` of a container, in any state, into `to`, an empty directory of this machine. The
        copy is readable for this process, and holds files, directories and links only."""

    async def stop(self, id: str, grace: float) -> None:
        """SIGTERM, up to `grace` seconds, SIGKILL. Fine if the container does not run or is not there."""

    async def remove(self, id: str) -> None:
        """Remove a container in any state, with its anonymous volumes. Fine if the container is not there."""

    async def close(self) -> None:
        """Give connections back; end services that were started for the engine."""

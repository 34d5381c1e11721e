"""What perdure asks of a container engine, in its own words.

Every method may raise `EngineUnavailableError`: the engine does not answer, or the connection broke. Then nothing is
known of what the call did, and whoever called looks before trying again. Every method that names a container by id
or name is safe to repeat.
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
    """A container as it is to be created. `None` leaves a choice to the image or the engine."""

    image: str
    """The id that `ContainerEngine.image` gave."""
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
    """Bytes; swap is not added to it."""
    gpu: int = 0
    """How many GPUs; 0: none is asked for."""
    shm: int | None = None
    """Bytes of /dev/shm."""


class Seen(NamedTuple):
    """A container as the engine shows it."""

    id: str
    name: str
    labels: dict[str, str]
    state: str
    """`created`, `running`, `paused`, `restarting`, `removing`, `exited` or `dead`."""
    exit_code: int
    oom_killed: bool
    pid: int
    """Of its main process on the engine's machine; 0: none."""
    started_at: int | None
    """Microseconds since the epoch by the engine's clock; `None`: it was never started."""
    finished_at: int | None
    """The same for its end; `None`: it has not ended."""
    error: str
    """What the engine says went wrong when it was started or ran; usually empty."""


class EngineInfo(NamedTuple):
    """Which engine this is."""

    id: str
    """The same for as long as the engine keeps its containers; another one after its state was wiped."""
    kind: Literal["docker", "podman", "memory"]
    url: str
    """How it is reached, such as `unix:///var/run/docker.sock`."""
    version: str
    local: bool
    """Whether it runs on this machine, so that paths and process numbers mean the same to both."""
    rootless: bool
    started_at: int | None
    """When the engine's daemon was started (microseconds since the epoch), where containers die with it; `None` where
    they do not (Podman, Docker with live restore) or this cannot be told. Right to a tenth of
    a second."""
    instance: str | None
    """Names that very start of the daemon, always the same text; `None` where `started_at` is."""


class EngineImage(NamedTuple):
    """An image that is here."""

    id: str
    digest: str
    """The digest it was pulled by, else its id: the same content, the same text."""


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
        """The image of that name, pulled where `pull` says so. `ImageNotFoundError`: not to be had."""

    async def build(self, dockerfile: str, context: str, tag: str, *, platform: str | None = None) -> EngineImage:
        """Build an image from a Dockerfile (a path) and its context (a directory). `ContainerError` with the last
        lines of the build where it fails."""

    async def create(self, name: str, spec: ContainerSpec) -> str:
        """Create a container that is not started; its id. Where one of that name is there already, that one's id,
        whatever its specification. `UsageError` where the engine refuses the specification, in the engine's words (some
        mistakes, such as a network that does not exist, only come out when it is started); `ImageNotFoundError` where
        the image is gone."""

    async def rename(self, id: str, name: str) -> bool:
        """Give a container another name; `False` if it is not there. The old name reaches it no longer. Fine if it
        bears that name already."""

    async def start(self, name: str) -> bool:
        """Start the container of that *name*; `False` if none has it (any more). Nothing happens to one that runs.
        One that has ended runs again: whoever starts has looked at its state before, and owns its name.
        `UsageError` where it cannot start (no such program in the image, for instance), in the engine's words; it is
        still *created* then."""

    async def inspect(self, id: str) -> Seen | None:
        """A container by id or name; `None`: not there."""

    async def find(self, labels: dict[str, str]) -> list[Seen]:
        """All containers, in whatever state, that carry all these labels."""

    async def wait(self, id: str) -> None:
        """Returns when the container does not run: it has ended, was never started, or is not there (any more). Also,
        where that can be seen, when its main process is gone and the engine does not notice (Podman, whose monitor was
        killed): then `inspect` still shows it running, with a `pid` that no process has."""

    def logs(self, id: str, *, skip: int = 0) -> AsyncIterator[LogLine]:
        """What it has written, from its first line but for `skip`, and what it writes until it ends. Nothing where it
        is not there. The order between the two streams is not kept."""

    async def copy_out(self, id: str, path: str, to: str) -> None:
        """Copy the directory `path` of a container, whatever its state, into `to`, an empty directory of this machine:
        all of it readable for this process, whoever owned it. Files, directories and links only."""

    async def stop(self, id: str, grace: float) -> None:
        """SIGTERM, up to `grace` seconds, SIGKILL. Fine if it does not run or is not there."""

    async def remove(self, id: str) -> None:
        """Remove it, whatever its state, with its anonymous volumes. Fine if it is not there."""

    async def close(self) -> None:
        """Give connections back; end what was started for them."""

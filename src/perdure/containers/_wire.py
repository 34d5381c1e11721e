"""The Docker Engine API's data in perdure's words and back; no I/O.

Podman speaks the same API with a few differences, each marked with its name.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Final

from perdure.containers.engine import ContainerSpec, EngineImage, LineCutter, LogLine, Seen
from perdure.errors import UsageError

STATES: Final = {
    "created": "created",
    "running": "running",
    "paused": "paused",
    "restarting": "restarting",
    "removing": "removing",
    "exited": "exited",
    "dead": "dead",
    # Podman's own words, where the compatible API lets the words through. `stopped`: ended, and not yet cleaned up.
    # `initialized`: known to the runtime; a start is under way, or was cut off.
    "configured": "created",
    "initialized": "created",
    "stopping": "running",
    "stopped": "exited",
}
LOG_LIMIT: Final = {"max-size": "512m", "max-file": "2"}
"""Docker's own copy of a log: more than perdure keeps, so that a program that logs without end fills no disk."""
ENDED: Final = frozenset({"created", "exited", "dead"})
"""The states of a container without a process."""

_NEVER: Final = "0001-01-01"
_EPOCH: Final = datetime.fromisoformat("1970-01-01T00:00:00+00:00")


def config(spec: ContainerSpec, *, podman: bool) -> dict[str, Any]:
    """The body of a create request."""
    host: dict[str, Any] = {
        "AutoRemove": False,  # the exit code would be gone before a record of it
        "RestartPolicy": {"Name": "no"},  # a second run of an attempt would break P9
        "SecurityOpt": ["no-new-privileges"],
        # Not the engine's default driver, whose logs may be unreadable, thrown away or thinned out.
        "LogConfig": {"Type": "json-file", "Config": {} if podman else LOG_LIMIT},
    }
    for mount in spec.mounts:
        both = mount.source + mount.target
        if podman and ":" not in both:
            # Podman splits Mounts at commas.
            host.setdefault("Binds", []).append(f"{mount.source}:{mount.target}{':ro' if mount.read_only else ''}")
        elif podman and "," in both:
            raise UsageError(f"Podman can mount no path with a colon and a comma: {mount.source} as {mount.target}.")
        else:
            # Not a Bind, which is a text with colons, and paths may contain colons.
            host.setdefault("Mounts", []).append(
                {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
            )
    if spec.network is not None:
        host["NetworkMode"] = spec.network
    if spec.memory is not None:
        host["Memory"] = host["MemorySwap"] = spec.memory  # MemorySwap is memory and swap together
    if spec.cpu is not None:
        host["NanoCpus"] = round(spec.cpu * 1e9)
    if spec.shm is not None:
        host["ShmSize"] = spec.shm
    if spec.gpu:
        host["DeviceRequests"] = [_gpus(spec.gpu, podman)]
    body: dict[str, Any] = {
        "Image": spec.image,
        "Env": [f"{name}={value}" for name, value in spec.env.items()],
        "Labels": spec.labels,
        "HostConfig": host,
    }
    if spec.workdir is not None:
        body["WorkingDir"] = spec.workdir
    if spec.user is not None:
        body["User"] = spec.user
    if spec.entrypoint is not None:
        # An empty list means "the image's" to both engines; an empty text means "none".
        body["Entrypoint"] = list(spec.entrypoint) or [""]
    if spec.command is not None:
        body["Cmd"] = list(spec.command)
    return body


def _gpus(count: int, podman: bool) -> dict[str, Any]:
    if podman:  # Podman has no nvidia driver: devices have CDI names
        return {"Driver": "cdi", "DeviceIDs": [f"nvidia.com/gpu={index}" for index in range(count)]}
    return {"Driver": "", "Count": count, "Capabilities": [["gpu"]]}


def seen(shown: dict[str, Any]) -> Seen:
    """A container from an inspect answer."""
    state = shown["State"]
    started, finished = microseconds(state.get("StartedAt")), microseconds(state.get("FinishedAt"))
    if started is not None and finished is not None:
        finished = max(started, finished)  # Podman uses two clocks, a few milliseconds apart
    status = STATES.get(str(state["Status"]).lower(), "dead")
    return Seen(
        id=shown["Id"],
        name=str(shown["Name"]).removeprefix("/"),
        labels=shown["Config"].get("Labels") or {},
        state=status,
        exit_code=state.get("ExitCode") or 0,
        oom_killed=bool(state.get("OOMKilled")),
        # Podman keeps the number where a start was cut off, also after the end of the process.
        pid=(state.get("Pid") or 0) if status not in ("exited", "dead") else 0,
        started_at=started,
        # During a second run, Docker still shows the end of the first.
        finished_at=finished if status in ENDED else None,
        error=state.get("Error") or "",
    )


def microseconds(text: str | None) -> int | None:
    """An RFC 3339 time with up to nine decimals; `None` for Go's zero time."""
    if not text or text.startswith(_NEVER):
        return None
    # Python up to 3.12 reads three or six decimals only.
    main, _, rest = text.partition(".")
    digits = rest[: len(rest) - len(rest.lstrip("0123456789"))]
    zone = rest[len(digits) :] if rest else ""
    if not rest:
        main, zone = (main[:-1], "Z") if main.endswith("Z") else (main[:-6], main[-6:])
    moment = datetime.fromisoformat(main + ("+00:00" if zone in ("Z", "z") else zone))
    delta = moment - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + int(digits[:6].ljust(6, "0"))


def image(found: dict[str, Any], reference: str) -> EngineImage:
    """An image from an inspect answer."""
    _, _, digest = reference.partition("@")
    for pulled in () if digest else found.get("RepoDigests") or ():
        _, _, digest = str(pulled).partition("@")
        break
    return EngineImage(str(found["Id"]), digest or str(found["Id"]))


def fits(found: dict[str, Any], platform: str) -> bool:
    """Whether an image is for a platform: `os/architecture[/variant]`, or an architecture alone."""
    same = {"x86_64": "amd64", "aarch64": "arm64"}
    wanted = platform.lower().split("/")
    if len(wanted) == 1:
        wanted.insert(0, str(found.get("Os")))
    have = [str(found.get("Os")), str(found.get("Architecture")), str(found.get("Variant") or "")]
    wanted, have = ([same.get(part, part) for part in parts] for parts in (wanted, have))
    return wanted[:2] == have[:2] and (len(wanted) < 3 or not have[2] or wanted[2] == have[2])


class Lines:
    """Puts a log stream back together: frames, which may arrive in any pieces, hold pieces of lines."""

    def __init__(self, skip: int = 0) -> None:
        self.given = 0
        """How many lines were handed out."""
        self._skip = skip
        self._raw = bytearray()
        self._cutters = {"stdout": LineCutter("stdout"), "stderr": LineCutter("stderr")}

    def feed(self, data: bytes) -> Iterator[LogLine]:
        """The lines that are complete with this data."""
        self._raw += data
        at = 0
        while len(self._raw) - at >= 8:
            kind, length = struct.unpack_from(">BxxxL", self._raw, at)
            if len(self._raw) - at < 8 + length:
                break
            frame = bytes(self._raw[at + 8 : at + 8 + length])
            at += 8 + length
            yield from self._not_skipped(self._cutters["stderr" if kind == 2 else "stdout"].feed(frame))
        del self._raw[:at]

    def end(self) -> Iterator[LogLine]:
        """Last lines that have no newline."""
        for cutter in self._cutters.values():
            yield from self._not_skipped(cutter.end())

    @property
    def torn(self) -> bool:
        """Whether the stream broke off within a frame."""
        return bool(self._raw)

    def _not_skipped(self, lines: Iterator[LogLine]) -> Iterator[LogLine]:
        for line in lines:
            if self._skip:
                self._skip -= 1
            else:
                self.given += 1
                yield line

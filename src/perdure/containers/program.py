"""A container task as it was declared, and what any way to run one makes of it."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ..core.ground.digest import blake2b
from ..errors import ContainerError, OOMError, OutputMissingError
from .copilot import Away, FileSystem, Interface, Template, check_error_file
from .engine import ContainerSpec, Pull

Command = tuple[tuple[str, ...] | None, tuple[str, ...] | None]
"""Entrypoint and command, as engines take them; `None`: the image's."""


@dataclass(frozen=True)
class Build:
    """An image that is made from a Dockerfile when it is needed."""

    dockerfile: str
    context: str
    tag: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """What a container gets that is written nowhere else."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By their paths in the container."""

    def values(self) -> list[str]:
        """To be struck out of log lines: each whole, and, as a log is read by lines, each line of it."""
        whole = [*self.env.values(), *(data.decode("utf-8", "surrogateescape").strip() for data in self.files.values())]
        return [*whole, *(line.strip() for text in whole for line in text.splitlines())]


@dataclass(frozen=True)
class Program:
    """A container task as it was declared."""

    name: str
    image: str | Build
    interface: Interface
    entrypoint: tuple[str, ...] | None
    command: Template | None
    arguments: Template | None
    input_dir: str
    output_dir: str
    local_logs: bool
    secrets: Callable[[], Secrets]
    settings: ContainerSpec
    """All that does not depend on the inputs."""
    pull: Pull
    cache_version: str | None
    """`None`: its outcomes are not shared between runs."""
    shape: Callable[[tuple[Any, ...]], Any]
    """The outputs, in the order of their declaration, as the task's value."""
    decode: Callable[[bytes], Any]
    """A shared outcome as the task's value."""
    pod_template: Mapping[str, Any]
    """What its pod is to have on Kubernetes, beside what it needs."""
    references: Callable[[Away | None], FileSystem]
    """Stages files as references to blobs, for who fetches them elsewhere, and takes those that are away."""

    def rendered(self, arguments: dict[str, str]) -> Command:
        """What runs, with the inputs filled in."""

        def filled(template: Template | None) -> tuple[str, ...]:
            return tuple(template.render(arguments, self.input_dir, self.output_dir)) if template else ()

        command, rest = filled(self.command), filled(self.arguments)
        if self.entrypoint is not None:
            return self.entrypoint, (*command, *rest)
        if self.command is not None:
            return command, rest
        return None, rest if self.arguments is not None else None

    def cache_key(self, image: str, command: Command, identity: bytes) -> bytes:
        """Under which an outcome is shared between runs. `image`: what names its content; `identity`: canonical bytes
        of the inputs."""
        digest = blake2b(b"container\0", digest_size=16)
        for part in (
            self.name,
            self.cache_version,
            image,
            command,
            identity,
            sorted(self.settings.env.items()),
            self.settings.user,
            self.settings.workdir,
        ):
            digest.update(msgspec.msgpack.encode(part) + b"\0")
        return digest.digest()

    @property
    def image_name(self) -> str:
        """The image, as the user calls it."""
        return self.image if isinstance(self.image, str) else self.image.tag

    @property
    def slug(self) -> str:
        """Its name as a part of a container's."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:24].strip("-") or "task"


def hash_of(spec: ContainerSpec) -> str:
    """Tells one specification from another."""
    return blake2b(msgspec.json.encode(spec, order="sorted"), digest_size=12).hexdigest()


class End(NamedTuple):
    """How a container has ended."""

    exit_code: int
    oom_killed: bool
    error: str
    """What its engine says went wrong; usually empty."""
    image: str
    command: list[str]
    tail: list[str]
    """Its last log lines."""
    reported: tuple[str, bool] | None = None
    """What it left in `_ERROR`, and whether that forbids to try again."""


def concluded(program: Program, outputs: str, end: End, away: Away | None = None) -> Any:
    """The task's value, out of the directory that a container has left. Blocks.

    Args:
        program: the task.
        outputs: the directory.
        end: how the container has ended.
        away: the files in the directory that only stand for their content.

    Raises:
        ContainerError, OOMError: it has failed, or says so.
        OutputMissingError, OutputParseError: its outputs are not those that were declared.
    """
    reported = check_error_file(outputs, away)
    if end.exit_code != 0 or reported is not None:
        raise failure(program, end._replace(reported=reported))
    try:
        files = program.references(away) if away is not None else None
        found = program.interface.collect(outputs, files, away)
    except OutputMissingError as error:
        if end.tail:
            error.add_note("its last log lines:\n" + "\n".join(f"  {line}" for line in end.tail[-10:]))
        raise
    return program.shape(found)


def failure(program: Program, end: End) -> ContainerError:
    """The error that tells of a container that has failed."""
    code = end.exit_code
    name = _signal_name(code)
    cls: type[ContainerError] = ContainerError
    if end.oom_killed:
        cls = OOMError
        memory = program.settings.memory
        limit = f" of {memory:,} bytes" if memory else ""
        what = f"was killed because it used more memory than its limit{limit} (exit code {code})"
    elif end.reported is not None:
        what = f"reported an error: {end.reported[0].strip() or '(empty _ERROR file)'}"
        if code:
            what += f" (exit code {code})"
    else:
        what = f"ended with exit code {code}" + (f" ({name})" if name else "")
    message = f"container {program.name} {what}\n  image: {end.image}\n  command: {end.command}"
    if end.error:
        message += f"\n  engine: {end.error}"
    if end.tail:
        message += "\n  last log lines:\n" + "\n".join(f"    {line}" for line in end.tail)
    error = cls(
        message, exit_code=code, signal=name, oom_killed=end.oom_killed, image=end.image, command=end.command,
        log_tail=end.tail,
    )  # fmt: skip
    error.recoverable = not (end.reported is not None and end.reported[1])
    return error


def _signal_name(code: int) -> str | None:
    if code <= 128:
        return None
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return None

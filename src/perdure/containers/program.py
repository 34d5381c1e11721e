"""A container task as declared, and the steps that all engines and clusters share."""

from __future__ import annotations

import re
import signal
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import msgspec

from ..core.ground.digest import blake2b
from ..errors import ContainerError, OOMError, OutputMissingError
from .copilot import Away, ErrorReport, FileSystem, Interface, Template, TemplateValues, check_error_file
from .engine import ContainerSpec, Pull
from .redaction import Redactor


class CommandLine(NamedTuple):
    """Entrypoint and command, as engines take both; `None`: the image's."""

    entrypoint: tuple[str, ...] | None
    arguments: tuple[str, ...] | None

    @property
    def words(self) -> list[str]:
        """The words that do not come from the image."""
        return [*(self.entrypoint or ()), *(self.arguments or ())]


@dataclass(frozen=True)
class Build:
    """An image that the engine builds from a Dockerfile on first use."""

    dockerfile: str
    context: str
    tag: str


@dataclass(frozen=True, slots=True)
class Secrets:
    """The secrets of a container, written nowhere else."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """By their paths in the container."""

    def redactor(self) -> Redactor:
        """Strikes each secret out of texts: whole and, as a log is read by lines, each line of a secret."""
        whole = [*self.env.values(), *(data.decode("utf-8", "surrogateescape").strip() for data in self.files.values())]
        return Redactor(whole, (line.strip() for text in whole for line in text.splitlines()))


@dataclass(frozen=True)
class Program:
    """A container task as declared."""

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
    """The part of the specification that does not depend on the inputs."""
    pull: Pull
    cache_version: str | None
    """`None`: outcomes are not shared between runs."""
    shape: Callable[[tuple[Any, ...]], Any]
    """From the outputs, in the order of their declaration, to the task's value."""
    decode: Callable[[bytes], Any]
    """From a shared outcome to the task's value."""
    pod_template: Mapping[str, Any]
    """Additions to the pod on Kubernetes."""
    references: Callable[[Away | None], FileSystem]
    """Stages files as references to blobs, for a pod that fetches the content, and takes files that are away."""

    def rendered(self, arguments: dict[str, str], attempt: str = "", run: str = "", action: str = "") -> CommandLine:
        """The command with the inputs filled in. CommandLine and arguments follow the entrypoint, as in Flyte.

        Args:
            arguments: the text of each input.
            attempt: the key of the attempt; empty: the attempt does not count, as in a cache key.
            run: the name of the run, likewise.
            action: the name of the action, likewise.
        """
        around = TemplateValues(self.input_dir, self.output_dir, attempt, run, action)
        if self.command is None and self.arguments is None:
            return CommandLine(self.entrypoint, None if self.entrypoint is None else ())
        templates = (template for template in (self.command, self.arguments) if template is not None)
        return CommandLine(
            self.entrypoint, tuple(word for each in templates for word in each.render(arguments, around))
        )

    def cache_key(self, image: str, command: CommandLine, identity: bytes) -> bytes:
        """The key under which runs share an outcome.

        Args:
            image: a name of the image's content.
            command: rendered without the attempt.
            identity: canonical bytes of the inputs.
        """
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
        """The task's name as a part of a container's name."""
        return re.sub(r"[^a-z0-9]+", "-", self.name.lower()).strip("-")[:24].strip("-") or "task"


def hash_of(spec: ContainerSpec) -> str:
    """A hash of a specification."""
    return blake2b(msgspec.json.encode(spec, order="sorted"), digest_size=12).hexdigest()


class ContainerEnd(NamedTuple):
    """The end of a container."""

    exit_code: int
    oom_killed: bool
    error: str
    """The engine's own account of a failure; usually empty."""
    image: str
    command: list[str]
    tail: list[str]
    """The last log lines."""
    reported: ErrorReport | None = None


def concluded(program: Program, outputs: str, end: ContainerEnd, redactor: Redactor, away: Away | None = None) -> Any:
    """The task's value, out of the directory that a container has left. Blocks.

    Args:
        program: the task.
        outputs: the directory.
        end: how the container has ended.
        redactor: strikes the container's secrets out of messages.
        away: the files in the directory that only stand for their content.

    Raises:
        ContainerError, OOMError: the container has failed, or says so.
        OutputMissingError, OutputParseError: the outputs are not those that were declared.
    """
    reported = check_error_file(outputs, redactor, away)
    if end.exit_code != 0 or reported is not None:
        raise failure(program, end._replace(reported=reported))
    try:
        files = program.references(away) if away is not None else None
        found = program.interface.collect(outputs, files, away, redactor)
    except OutputMissingError as error:
        if end.tail:
            error.add_note("its last log lines:\n" + "\n".join(f"  {line}" for line in end.tail[-10:]))
        raise
    return program.shape(found)


def failure(program: Program, end: ContainerEnd) -> ContainerError:
    """The error for a container that has failed."""
    code = end.exit_code
    name = _signal_name(code)
    cls: type[ContainerError] = ContainerError
    if end.oom_killed:
        cls = OOMError
        memory = program.settings.memory
        limit = f" of {memory:,} bytes" if memory else ""
        what = f"was killed because it used more memory than its limit{limit} (exit code {code})"
    elif end.reported is not None:
        what = f"reported an error: {end.reported.text.strip() or '(empty _ERROR file)'}"
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
    error.recoverable = end.reported is None or not end.reported.is_final
    return error


def _signal_name(code: int) -> str | None:
    if code <= 128:
        return None
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return None

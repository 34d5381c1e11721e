"""The inputs and outputs of a container task, compiled once, where it is declared."""

from __future__ import annotations

from typing import Any, get_args

from perdure.containers.copilot.collect import collect_outputs
from perdure.containers.copilot.metadata import MetadataFormat, argument, metadata
from perdure.containers.copilot.names import METADATA_FILES, check_variables
from perdure.containers.copilot.outputs import Away
from perdure.containers.copilot.placing import Layout, Placed, place
from perdure.containers.copilot.stage import FileSystem, fill
from perdure.containers.copilot.types import declared
from perdure.containers.engine import Mount
from perdure.containers.redaction import NO_SECRETS, Redactor
from perdure.errors import InputError, UsageError


class Interface:
    """The inputs and outputs of a container.

    Args:
        inputs: the inputs' types by name.
        outputs: the outputs' types by name, in the order of the result.
        metadata_format: the format of the file with all inputs.
        layout: whether a File lies at the input's name (`DIRECT`) or below, under the file's own name (`NAMED_DIR`).
        files: puts files and directories on disk, and takes them back.

    Raises:
        UsageError: a name that cannot name a file, an unknown format or layout, a missing package.
        UnsupportedTypeError: a type that cannot cross into a container.
    """

    def __init__(
        self,
        inputs: dict[str, Any],
        outputs: dict[str, Any],
        *,
        metadata_format: MetadataFormat = "JSON",
        layout: Layout = "DIRECT",
        files: FileSystem,
    ) -> None:
        if metadata_format not in METADATA_FILES:
            raise UsageError(f"metadata_format is one of {', '.join(METADATA_FILES)}, not {metadata_format!r}")
        if layout not in get_args(Layout):
            raise UsageError(f"file_input_layout is one of {', '.join(get_args(Layout))}, not {layout!r}")
        check_variables(inputs, "input")
        check_variables(outputs, "output")
        if metadata_format == "PROTO":
            from perdure.containers.copilot.literals import check_installed

            check_installed()
        self.inputs = {name: declared(type, f"input {name!r}", files) for name, type in inputs.items()}
        self.outputs = {name: declared(type, f"output {name!r}", files) for name, type in outputs.items()}
        self.metadata_format: MetadataFormat = metadata_format
        self.layout: Layout = layout
        self._files = files

    def stage(
        self, values: dict[str, Any], directory: str, container_dir: str, files: FileSystem | None = None
    ) -> list[Mount]:
        """Make `directory`, which exists and has no other writer, hold these inputs and nothing else.

        Idempotent, also after a crash in the middle: correct files stay untouched. Everything is readable for every
        user.

        Args:
            values: all inputs by name.
            directory: the target on this machine.
            container_dir: the target as the container sees the directory.
            files: puts files and directories there, in place of the interface's own; nothing is mounted then.

        Returns:
            Mounts to add to the mount of `directory`: inputs of type `Dir` are mounted, not copied.

        Raises:
            InputError: an input is missing or unknown.
            ValueMismatchError: a value does not fit its type.
            UsageError: a value without a form, such as a dict key that cannot name a file.
        """
        placed = self._placed(values)
        extra = metadata(placed, container_dir, self.metadata_format)
        return fill(directory, placed, extra, container_dir, files or self._files, mounted=files is None)

    def arguments(self, values: dict[str, Any], container_dir: str) -> dict[str, str]:
        """The text of each input, for templates. Raises as `stage` does."""
        return {item.path: argument(item, container_dir) for item in self._placed(values)}

    def collect(
        self,
        directory: str,
        files: FileSystem | None = None,
        away: Away | None = None,
        redactor: Redactor = NO_SECRETS,
    ) -> tuple[Any, ...]:
        """The outputs in a directory, in declared order.

        Args:
            directory: the directory of the outputs.
            files: takes files and directories, in place of the interface's own.
            away: files that only stand for their content.
            redactor: strikes the container's secrets out of messages.

        Raises:
            OutputMissingError: an output is missing.
            OutputParseError: an output does not fit its type, or may not be taken.
            StoreError: a file cannot be kept.
        """
        forms = {name: (output.form, output.label) for name, output in self.outputs.items()}
        return collect_outputs(directory, forms, files or self._files, away, redactor)

    def _placed(self, values: dict[str, Any]) -> list[Placed]:
        for name in values:
            if name not in self.inputs:
                raise InputError(f"unknown input {name!r}; declared are: {', '.join(self.inputs) or 'none'}")
        for name in self.inputs:
            if name not in values:
                raise InputError(f"input {name!r} is missing")
        return [place(input.form, input.check(values[name]), name, self.layout) for name, input in self.inputs.items()]

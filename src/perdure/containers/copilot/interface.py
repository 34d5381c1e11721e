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
    """What goes into a container and what comes out of it.

    Args:
        inputs: the inputs' types by name.
        outputs: the outputs' types by name, in the order in which they are returned.
        metadata_format: which file holds all inputs together.
        layout: whether a File or Dir lies at its input's name (`DIRECT`) or below it under its own (`NAMED_DIR`).
        files: how files and directories come to disk and back.

    Raises:
        UsageError: a name that cannot be one of a file, an unknown format or layout, a missing package.
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
        """Make `directory` hold these inputs and nothing else; it exists, and belongs to nobody else.

        May be repeated, also where an earlier process died in its middle: afterwards all is right, and what was right
        before has not been touched. Everything is readable for every user.

        Args:
            values: all inputs by name.
            directory: where they go on this machine.
            container_dir: where the container sees it.
            files: what files and directories are put there by, in place of the interface's own; nothing is mounted
                then.

        Returns:
            Mounts to add to the one of `directory`: inputs that are a `Dir` are mounted, not copied.

        Raises:
            InputError: an input is missing or unknown.
            ValueMismatchError: a value does not fit its type.
            UsageError: a value that has no form there, such as a dict key that cannot be the name of a file.
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
        """The outputs that lie there, in declared order.

        Args:
            directory: where they lie.
            files: what takes files and directories, in place of the interface's own.
            away: files that only stand for their content.
            redactor: strikes the container's secrets out of messages.

        Raises:
            OutputMissingError: one is not there.
            OutputParseError: one does not fit its type, or may not be taken.
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

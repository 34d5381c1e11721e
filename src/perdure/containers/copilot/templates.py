"""`{{.inputs.x}}` in commands: each element of a command is rendered by itself, and never by a shell.

White space inside the braces does not matter, nor does the case of a placeholder. The name of an input is matched
exactly first, then without regard to case where only one input has that name. Values that are filled in are not
rendered again: a value that holds `{{.inputs.y}}` stays so. Placeholders that neither Flyte nor perdure knows are
left alone, as the program may have templates of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final, NamedTuple

from perdure.containers.copilot.names import METADATA_FILES
from perdure.errors import UsageError

_PLACEHOLDER: Final = re.compile(r"\{\{\s*[.$]([^{}\s]+)\s*\}\}")


class TemplateValues(NamedTuple):
    """The values of placeholders that are not inputs."""

    input_dir: str
    output_dir: str
    attempt: str = ""
    """Names one attempt among all of all stores."""
    run: str = ""
    action: str = ""


# The text for a placeholder, given the text of each input and the other values.
_Render = Callable[[Mapping[str, str], TemplateValues], str]

_KNOWN: Final[dict[str, Callable[[TemplateValues], str]]] = {
    "inputprefix": lambda around: around.input_dir,
    "outputprefix": lambda around: around.output_dir,
    "rawoutputdataprefix": lambda around: around.output_dir,
    "input": lambda around: f"{around.input_dir}/{METADATA_FILES['PROTO']}",
    # A letter first, and letters and digits only, as in Flyte: the key may become the name of a table or a job.
    "perretryuniquekey": lambda around: f"a{around.attempt}",
    # No checkpoint outlives an attempt here; Flyte renders two quotes in a first attempt.
    "prevcheckpointprefix": lambda around: '""',
    "checkpointoutputprefix": lambda around: f"{around.output_dir}/_flytecheckpoints",
    "runname": lambda around: around.run,
    "actionname": lambda around: around.action,
}
"""Flyte's placeholders that have a meaning here, in lower case."""


class Template:
    """The elements of a command, compiled.

    Args:
        elements: the command.
        inputs: the names of the declared inputs.
        where: how messages name the elements, such as `command`.

    Raises:
        UsageError: an element is no string, or names an input that is not declared.
    """

    def __init__(self, elements: Sequence[str], inputs: Collection[str], where: str) -> None:
        if isinstance(elements, (str, bytes)):
            raise UsageError(f"{where} is a list of strings, one per word, not one string: {elements!r}")
        self.where = where
        self._inputs = list(inputs)
        self._elements = [self._compiled(element, position) for position, element in enumerate(elements)]

    def render(self, arguments: Mapping[str, str], around: TemplateValues) -> list[str]:
        """The command for these inputs, as text by name.

        Raises:
            UsageError: an element would hold a NUL, which no command line can.
        """
        rendered = []
        for position, pieces in enumerate(self._elements):
            text = "".join(piece if isinstance(piece, str) else piece(arguments, around) for piece in pieces)
            if "\0" in text:
                raise UsageError(
                    f"{self.where}[{position}] would hold a NUL character, which no command line can: read the input "
                    f"from its file instead"
                )
            rendered.append(text)
        return rendered

    def _compiled(self, element: str, position: int) -> list[str | _Render]:
        where = f"{self.where}[{position}]"
        if not isinstance(element, str):
            raise UsageError(f"{where} is {element!r}, not a string: write it as one, such as {str(element)!r}")
        pieces: list[str | _Render] = []
        end = 0
        for found in _PLACEHOLDER.finditer(element):
            text, name = found.group(0, 1)
            pieces += [element[end : found.start()], self._placeholder(text, name, where)]
            end = found.end()
        return [*pieces, element[end:]]

    def _placeholder(self, text: str, name: str, where: str) -> str | _Render:
        kind, dot, variable = name.partition(".")
        if kind.lower() == "inputs" and dot:
            return _argument(self._input(variable, text, where))
        known = _KNOWN.get(name.lower())
        return text if known is None else lambda arguments, around: known(around)

    def _input(self, variable: str, text: str, where: str) -> str:
        if variable in self._inputs:
            return variable
        alike = [name for name in self._inputs if name.casefold() == variable.casefold()]
        if len(alike) > 1:
            raise UsageError(f"{where}: {text} could be any of {', '.join(alike)}: write the one that is meant")
        for name in alike:
            return name
        declared = ", ".join(self._inputs) if self._inputs else "none"
        raise UsageError(f"{where}: {text} names an input that is not declared; declared are: {declared}")


def _argument(name: str) -> _Render:
    return lambda arguments, around: arguments[name]

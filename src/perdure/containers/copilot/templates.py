"""`{{.inputs.x}}` in commands: each element of a command is rendered by itself, and never by a shell.

White space inside the braces does not matter, nor does the case of all but an input's own name, which is matched as
it is first, then without regard to case where that names one input alone. What is put in is never looked at again:
a value that holds `{{.inputs.y}}` stays so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from perdure.errors import UsageError

_PLACEHOLDER: Final = re.compile(r"\{\{\s*\.([^{}]*)\}\}")
_DIRECTORIES: Final = {"inputprefix": "input", "outputprefix": "output", "rawoutputdataprefix": "output"}

# The text for a placeholder, given the arguments, the input and the output directory.
_Render = Callable[[Mapping[str, str], str, str], str]


class Template:
    """The elements of a command, compiled.

    Args:
        elements: the command.
        inputs: the names of the declared inputs.
        where: what the elements are, as messages name it, such as `command`.

    Raises:
        UsageError: an element is no string, or holds a placeholder that means nothing.
    """

    def __init__(self, elements: Sequence[str], inputs: Collection[str], where: str) -> None:
        if isinstance(elements, (str, bytes)):
            raise UsageError(f"{where} is a list of strings, one per word, not one string: {elements!r}")
        self.where = where
        self._inputs = list(inputs)
        self._elements = [self._compiled(element, position) for position, element in enumerate(elements)]

    def render(self, arguments: Mapping[str, str], input_dir: str, output_dir: str) -> list[str]:
        """The command for these inputs, as text by name.

        Raises:
            UsageError: an element would hold a NUL, which no command line can.
        """
        rendered = []
        for position, pieces in enumerate(self._elements):
            text = "".join(
                piece if isinstance(piece, str) else piece(arguments, input_dir, output_dir) for piece in pieces
            )
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
            pieces += [element[end : found.start()], self._placeholder(found[0], found[1].strip(), where)]
            end = found.end()
        return [*pieces, element[end:]]

    def _placeholder(self, text: str, name: str, where: str) -> _Render:
        kind, dot, variable = name.partition(".")
        if kind.lower() == "inputs" and dot:
            return _argument(self._input(variable, text, where))
        match _DIRECTORIES.get(name.lower()):
            case "input":
                return lambda arguments, input_dir, output_dir: input_dir
            case "output":
                return lambda arguments, input_dir, output_dir: output_dir
        raise UsageError(
            f"{where}: {text} means nothing; there are {self._known()}{{{{.inputPrefix}}}}, {{{{.outputPrefix}}}} and "
            f"{{{{.rawOutputDataPrefix}}}} (text of this form that shall reach the command as it is can be an input)"
        )

    def _input(self, variable: str, text: str, where: str) -> str:
        if variable in self._inputs:
            return variable
        alike = [name for name in self._inputs if name.casefold() == variable.casefold()]
        if len(alike) == 1:
            return alike[0]
        if alike:
            raise UsageError(f"{where}: {text} could be any of {', '.join(alike)}: write the one that is meant")
        declared = ", ".join(self._inputs) if self._inputs else "none"
        raise UsageError(f"{where}: {text} names an input that is not declared; declared are: {declared}")

    def _known(self) -> str:
        return "".join(f"{{{{.inputs.{name}}}}}, " for name in self._inputs)


def _argument(name: str) -> _Render:
    return lambda arguments, input_dir, output_dir: arguments[name]

"""Form fields from signatures and from the types of messages, and the texts of a sent form as values.

Texts are read as the command line reads them (`cli.convert`), so a form and `perdure run` accept the same, but
for broken JSON: a field of a list says JSON, so a text that begins like JSON is no item of the list.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from ..api.convert import Unfit, from_text, is_simple, members, parsed_json, stripped
from ..api.jsonable import jsonable
from ..api.shapes import text_of, type_of
from ..api.task import Task
from ..cli.inputs import NOTHING, Input, Own, inputs_of, read
from ..errors import InputError, ValueMismatchError
from .values import Mask, pretty


class FormField(NamedTuple):
    """An input of a form."""

    name: str
    kind: str
    """`choice`, `text`, `number`, `long` or `secret`."""
    type: str
    """The type for people."""
    required: bool
    value: str
    """The text at first."""
    choices: tuple[str, ...] = ()
    hint: str = ""


def task_fields(task: Task[..., Any], given: Mapping[str, str], mask: Mask) -> list[FormField]:
    """The fields for the inputs of a task. `given`: the texts of a form that was refused."""
    return [_field(one, given.get(f"in-{one.name}"), mask) for one in inputs_of(task)]


def _field(one: Input, given: str | None, mask: Mask) -> FormField:
    default = "" if one.default is NOTHING else _default(one.default)
    kind, choices = _kind_of(one.type)
    if one.is_many or (kind == "text" and not is_simple(one.type) and one.type_label != "any"):
        kind = "long"
    if kind == "choice" and not one.required and default not in choices:
        choices = ("", *choices)
    if mask.hides(one.name):
        kind, default = "secret", ""
    hint = "JSON" if kind == "long" else ""
    return FormField(one.name, kind, one.type_label, one.required, default if given is None else given, choices, hint)


def _default(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Enum):
        return value.name
    return "null" if value is None else pretty(jsonable(value)).text


def _kind_of(tp: Any) -> tuple[str, tuple[str, ...]]:
    several = [member for member in members(tp) if member is not types.NoneType]
    optional = types.NoneType in members(tp)
    found = stripped(tp) if not several else several[0] if len(several) == 1 else Any
    none = ("null",) if optional else ()
    if found is bool:
        return "choice", ("true", "false", *none)
    if typing.get_origin(found) is typing.Literal:
        return "choice", (*map(str, typing.get_args(found)), *none)
    if isinstance(found, type) and issubclass(found, Enum):
        return "choice", (*found.__members__, *none)
    return ("number" if found in (int, float) and not optional else "text"), ()


def task_values(task: Task[..., Any], texts: Mapping[str, str]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The arguments of a task from the texts of a form. An empty text of an optional input leaves the default.

    Raises:
        InputError: an input is missing or does not fit the type.
    """
    words = ["--"]
    for one in inputs_of(task):
        text = texts.get(f"in-{one.name}", "")
        if one.is_many and text.lstrip().startswith(("[", "{")):
            _check_json(task, one, text)
        if text or (one.required and stripped(one.type) is str):
            words.append(f"{one.option}={text}")
    return read(task, "the form", words, Own("submit"))


def _check_json(task: Task[..., Any], one: Input, text: str) -> None:
    try:
        parsed_json(text)
    except ValueError as error:
        raise InputError(f"input {one.option} of {task.name} is {one.type_label} as JSON: {error}") from None


# -- messages --------------------------------------------------------------------------------------------------


def message_fields(shape: Any) -> list[FormField]:
    """The fields for a message of the shape: a field for each part of a record, otherwise a single field `value`."""
    if isinstance(shape, list) and shape and shape[0] == "record" and len(shape) == 3 and isinstance(shape[2], dict):
        return [
            _shape_field(name, part[0], required=bool(part[1]))
            for name, part in shape[2].items()
            if isinstance(part, list) and len(part) == 2
        ]
    return [_shape_field("value", shape, required=True)]


def _shape_field(name: str, shape: Any, *, required: bool) -> FormField:
    if shape == "bool":
        return FormField(name, "choice", "bool", required, "", ("true", "false"))
    if isinstance(shape, list) and shape and shape[0] == "literal":
        return FormField(name, "choice", text_of(shape), required, "", tuple(map(str, shape[1:])))
    kind = "number" if shape in ("int", "float") else "text" if isinstance(shape, str) and shape != "Any" else "long"
    return FormField(name, kind, text_of(shape), required, "", (), "JSON" if kind == "long" else "")


class MessageValue(NamedTuple):
    """A message from a form."""

    value: Any
    type: Any
    """The type under which the value is encoded; `None`: the type of the value."""


def message_value(shape: Any, texts: Mapping[str, str]) -> MessageValue:
    """The message from the texts of a form.

    Raises:
        ValueMismatchError: a text does not fit.
    """
    fields = message_fields(shape)
    whole = type_of(shape)
    try:
        if len(fields) == 1 and fields[0].name == "value" and not (isinstance(shape, list) and shape[0] == "record"):
            return MessageValue(from_text(texts.get("in-value", ""), whole), None if whole is Any else whole)
        found: dict[str, Any] = {}
        for field in fields:
            text = texts.get(f"in-{field.name}", "")
            if text or field.required:
                found[field.name] = _part(field, shape, text)
        return MessageValue(found, whole)
    except Unfit as misfit:
        raise ValueMismatchError(f"the message takes {text_of(shape)}; nothing was sent: {misfit}") from None


def _part(field: FormField, shape: Any, text: str) -> Any:
    try:
        return from_text(text, type_of(shape[2][field.name][0]))
    except Unfit as misfit:
        raise Unfit(misfit.expected, misfit.found, field.name, misfit.note) from None

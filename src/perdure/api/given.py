"""JSON of unknown origin as inputs of a task and as messages to a run, read by the declared types before anything is
stored."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Iterable
from inspect import Parameter
from typing import Any

from ..core.ground.model import Kind
from ..core.run.mailbox import box_of
from ..errors import InputError, ValueMismatchError
from .convert import Unfit, from_json, label, shown
from .messages import check_message_name, shown_box, type_waited_for, wait_for_box
from .run import Run
from .task import Task


def declared_types(task: Task[..., Any]) -> dict[str, Any]:
    """The declared type of each input of a task, in the order of the parameters; `Parameter.empty` for no type."""
    fn = inspect.unwrap(task.fn)
    try:
        hints = typing.get_type_hints(fn, include_extras=True)
    except Exception:  # an undefined annotation; the task's own signature has the better message
        hints = {}
    found = {}
    for parameter in task.spec.signature.parameters.values():
        declared = hints.get(parameter.name, parameter.annotation)
        if isinstance(declared, str):
            declared = Parameter.empty
        if declared is Parameter.empty and isinstance(parameter.default, (bool, str)):
            declared = type(parameter.default)
        found[parameter.name] = declared
    return found


def described_inputs(task: Task[..., Any]) -> dict[str, str]:
    """The inputs of a task for people: the name and the type, `= default` behind an input that may be left out."""
    found = {}
    for name, tp in declared_types(task).items():
        default = task.spec.signature.parameters[name].default
        found[name] = label(tp) + ("" if default is Parameter.empty else f" = {default!r}")
    return found


def given_inputs(task: Task[..., Any], data: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments for a task, from a JSON object with a member for each input.

    Raises:
        InputError: an input is missing, unknown, or does not fit the type; the message shows the type.
    """
    parameters, types = task.spec.signature.parameters, declared_types(task)
    takes = ", ".join(f"{name}: {text}" for name, text in described_inputs(task).items()) or "no inputs"
    if not isinstance(data, dict):
        raise InputError(f"the inputs of {task.name} are a JSON object, not {shown(data)}; the task takes {takes}")
    rest = next((one.name for one in parameters.values() if one.kind is Parameter.VAR_KEYWORD), None)
    unknown = [name for name in data if name not in parameters or name == rest]
    if unknown and rest is None:
        raise InputError(f"{task.name} has no input {', '.join(map(repr, unknown))}; the task takes {takes}")
    values: dict[str, Any] = {}
    for one in parameters.values():
        if one.name in data and one.kind is Parameter.VAR_POSITIONAL:
            values[one.name] = _input(task, one.name, list[types[one.name]], data[one.name])  # type: ignore[name-defined, valid-type]
        elif one.name in data and one.name != rest:
            values[one.name] = _input(task, one.name, types[one.name], data[one.name])
        elif one.default is Parameter.empty and one.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD):
            raise InputError(f"{task.name} needs the input {one.name!r}; the task takes {takes}")
    args, inputs = arranged(parameters.values(), values)
    return args, inputs | {name: _input(task, name, types[rest], data[name]) for name in unknown if rest is not None}


def arranged(parameters: Iterable[Parameter], values: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Values by the names of parameters as positional and keyword arguments; `*args` has a list as its value."""
    parameters, values, args = list(parameters), dict(values), []
    positional_only = [i for i, one in enumerate(parameters) if one.kind is Parameter.POSITIONAL_ONLY]
    last = max((i for i in positional_only if parameters[i].name in values), default=-1)
    many = next((one for one in parameters if one.kind is Parameter.VAR_POSITIONAL and one.name in values), None)
    for position, one in enumerate(parameters):
        if one is many:
            args.extend(values.pop(one.name))
        elif one.kind in (Parameter.POSITIONAL_ONLY, Parameter.POSITIONAL_OR_KEYWORD) and (many or position <= last):
            # Python has no way to name positional-only parameters, nor parameters before them.
            args.append(values.pop(one.name) if one.name in values else one.default)
    return tuple(args), values


def _input(task: Task[..., Any], name: str, tp: Any, data: Any) -> Any:
    try:
        return from_json(data, tp)
    except Unfit as unfit:
        raise InputError(f"input {name!r} of {task.name} is {label(tp)}: {unfit}") from None


def given_message(run: Run, kind: Kind, name: str, read: Callable[[Any], Any]) -> tuple[Any, Any]:
    """The value of a message, and the type under which the value is encoded: the type that the run waits for, `None`
    where the run does not wait yet.

    Args:
        read: gives the value under a type, or raises `Unfit`.

    Raises:
        ValueMismatchError: the value does not fit the type that the run waits for.
    """
    box = box_of(kind, check_message_name(name, "a message"))
    asked = type_waited_for(wait_for_box(run.name, box))
    if asked is None:
        return read(Any), None
    try:
        return read(asked.type), asked.type
    except Unfit as misfit:
        raise ValueMismatchError(
            f"{shown_box(box)} of run {run.name!r} takes {asked.text}; nothing was sent: {misfit}"
        ) from None

"""A child's failure as Flyte shows it: a `RuntimeUserError`, which is an instance of its own class at the same time.

`except flyte.errors.RuntimeUserError` and `except ValueError` both take a child's `ValueError`. The journal holds the
original class, so replay raises the same as life.
"""

from __future__ import annotations

import builtins
from collections.abc import Generator
from typing import Any

from .. import errors as own
from . import errors

_OUTCOMES = (
    own.BodyDiedError, own.ContainerError, own.NonRecoverableError, own.OutputMissingError, own.OutputParseError,
    own.RemoteError, own.TaskTimeoutError, own.ValueMismatchError,
)  # fmt: skip
"""Errors of perdure's that are outcomes of a task; the other ones say that perdure was used wrongly, or stops."""


def failure(error: Exception) -> Exception:
    """The exception as Flyte raises a child's failure; an error that is no outcome of a task comes back as it is."""
    if isinstance(error, own.PerdureError) and not isinstance(error, (*_OUTCOMES, errors.BaseRuntimeError)):
        return error
    if getattr(type(error), "flyte_failure", False):
        return error
    try:
        return _shown(error)
    except TypeError:  # a class that cannot be combined
        shown = errors.RuntimeUserError(type(error).__name__, str(error), "user")
        shown.__cause__ = error
        return shown


def _shown(error: Exception) -> Exception:
    original = type(error)
    cls = _both(original)
    # The bare instance of the built-in base: no code of the class runs.
    new: Any = next(base.__new__ for base in original.__mro__ if vars(builtins).get(base.__name__) is base)
    shown: Exception = new(cls)
    shown.args = error.args
    shown.__dict__.update(error.__dict__)
    for name in (
        "errno",
        "strerror",
        "filename",
        "filename2",
        "value",
        "name",
        "path",
        "obj",
        "object",
        "start",
        "end",
    ):
        if getattr(error, name, None) is not None:
            setattr(shown, name, getattr(error, name))
    if not isinstance(error, errors.BaseRuntimeError):
        code = error.type_name.rpartition(".")[2] if isinstance(error, own.RemoteError) else type(error).__name__
        shown.__dict__.update(code=code, kind="user", worker="user")
    shown.__dict__["flyte_message"] = str(error)
    shown.__cause__, shown.__context__ = error.__cause__, error.__context__
    shown.__suppress_context__ = error.__suppress_context__
    return shown.with_traceback(error.__traceback__)


_combined: dict[type[Exception], type[Exception]] = {}


def _both(cls: type[Exception]) -> type[Exception]:
    found = _combined.get(cls)
    if found is None:
        found = _combined[cls] = _combine(cls)
    return found


def _combine(cls: type[Exception]) -> type[Exception]:
    """A class that is both; `__qualname__` and `__module__` name the original for the journal and for tracebacks."""
    base: type[Exception] = errors.RuntimeUserError
    if issubclass(cls, own.TaskTimeoutError):
        base = errors.TaskTimeoutError
    elif issubclass(cls, own.ValueMismatchError):
        base = errors.RuntimeDataValidationError
    elif issubclass(cls, own.OOMError):
        base = errors.OOMError
    bases = (cls,) if issubclass(cls, errors.BaseRuntimeError) else (base, cls)
    name = base.__name__
    if issubclass(cls, errors.BaseRuntimeError):
        name = "RuntimeSystemError" if issubclass(cls, errors.RuntimeSystemError) else "RuntimeUserError"
    members = {"__str__": _text, "__repr__": _representation, "__reduce__": Exception.__reduce__}
    both = type(name, bases, {**members, "__module__": cls.__module__, "flyte_failure": True})
    both.__qualname__ = cls.__qualname__
    return both


def _text(error: Any) -> str:
    return str(error.__dict__.get("flyte_message", ""))


def _representation(error: Any) -> str:
    return f"{type(error).__name__}({_text(error)!r})"


def with_failures(protocol: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """A call's protocol that raises failures as Flyte does."""
    try:
        return (yield from protocol)
    except Exception as error:
        shown = failure(error)
    raise shown

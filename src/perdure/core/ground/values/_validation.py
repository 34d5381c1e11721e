"""`pydantic.ValidationError` as data, and back.

The class belongs to a compiled module and has no constructor. pydantic rebuilds an error from a list of single errors,
each with a type, a place and the refused input.
"""

from __future__ import annotations

import sys
from typing import Any


def is_validation_error(cls: type) -> bool:
    """Whether the class is pydantic's `ValidationError`. pydantic is not imported."""
    return cls is getattr(sys.modules.get("pydantic_core"), "ValidationError", None)


def parts(exc: Any) -> tuple[str, list[dict[str, Any]]]:
    """The title, and the single errors with their types, places, messages, inputs and contexts."""
    return exc.title, exc.errors(include_url=False)


def rebuilt(cls: Any, title: str, errors: list[dict[str, Any]]) -> BaseException:
    """The error of the parts. Raises where pydantic does not take the parts."""
    made: BaseException = cls.from_exception_data(title, [_single(error) for error in errors])
    return made


def _single(error: dict[str, Any]) -> dict[str, Any]:
    from pydantic_core import PydanticCustomError, PydanticKnownError

    context = error.get("ctx") or None
    kind: Any = error["type"]
    if kind in ("value_error", "assertion_error"):
        # The context holds an exception from a validator; only the message was stored.
        made = ValueError if kind == "value_error" else AssertionError
        context = {"error": made(str(error["msg"]).partition(", ")[2])}
    else:
        try:
            PydanticKnownError(kind, context)
        except KeyError:
            kind = PydanticCustomError(kind, error["msg"], context)
            context = None
    return {"type": kind, "loc": tuple(error["loc"]), "input": error["input"], **({"ctx": context} if context else {})}

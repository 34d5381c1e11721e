"""Tracebacks of exceptions as text, in bounded time, without the values of local variables.

A traceback grows with the depth of the call, and a tree of exceptions may name one exception many times. Of each
exception only some frames are formatted, and of each tree only some exceptions.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from itertools import islice
from types import TracebackType
from typing import Final

FIRST_FRAMES: Final = 10
LAST_FRAMES: Final = 40
"""The number of formatted frames of an exception: behind the outermost frame, and before the innermost frame."""
MAX_LINKS: Final = 10
"""The number of causes and contexts that are formatted before the exception."""
MAX_MEMBERS: Final = 15
"""The number of formatted members, for all groups of the tree together."""

_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"

cause_of = BaseException.__dict__["__cause__"].__get__
context_of = BaseException.__dict__["__context__"].__get__
suppresses = BaseException.__dict__["__suppress_context__"].__get__
traceback_of = BaseException.__dict__["__traceback__"].__get__
members_of = BaseExceptionGroup.__dict__["exceptions"].__get__
"""Descriptors of the base classes: a class may define properties with the same names that raise or lie."""


def linked(exc: BaseException) -> list[BaseException]:
    """The cause, the context and the members of an exception."""
    found = [cause_of(exc), context_of(exc)]
    if issubclass(type(exc), BaseExceptionGroup):
        found += members_of(exc)
    return [link for link in found if link is not None]


def format_chain(exc: BaseException) -> str:
    """The traceback of an exception, behind the tracebacks of the causes or contexts."""
    parts = [format_one(exc)]
    seen = {id(exc)}
    for _ in range(MAX_LINKS):
        cause = cause_of(exc)
        before = cause if cause is not None else None if suppresses(exc) else context_of(exc)
        if before is None or id(before) in seen:
            break
        parts.append(_CAUSE if cause is not None else _CONTEXT)
        parts.append(format_one(before))
        seen.add(id(before))
        exc = before
    return "".join(reversed(parts))


def format_one(exc: BaseException) -> str:
    """The traceback of an exception alone, with some members of a group below."""
    return "".join(_lines(exc, [MAX_MEMBERS], ""))


def _lines(exc: BaseException, left: list[int], margin: str) -> Iterator[str]:
    """`left` holds how many members may still be formatted."""
    found = traceback_of(exc)
    if found is not None:
        yield f"{margin}Traceback (most recent call last):\n"
        yield from (_indented(line, margin) for line in _frames(found))
    yield from (_indented(line, margin) for line in _last_lines(exc))
    if issubclass(type(exc), BaseExceptionGroup):
        for position, member in enumerate(members_of(exc), 1):
            left[0] -= 1
            if left[0] < 0:
                yield f"{margin}  ... and more\n"
                return
            yield f"{margin}  ---------------- {position} ----------------\n"
            yield from _lines(member, left, margin + "  | ")


def _frames(found: TracebackType) -> list[str]:
    length = 0
    entry: TracebackType | None = found
    while entry is not None:
        length += 1
        entry = entry.tb_next
    if length <= FIRST_FRAMES + LAST_FRAMES:
        return _formatted(found, length)
    hidden = length - FIRST_FRAMES - LAST_FRAMES
    last = found
    for _ in range(length - LAST_FRAMES):
        assert last.tb_next is not None
        last = last.tb_next
    shown = f"  [{hidden} frames are left out]\n"
    return [*_formatted(found, FIRST_FRAMES), shown, *_formatted(last, LAST_FRAMES)]


def _formatted(found: TracebackType, limit: int) -> list[str]:
    frames = islice(traceback.walk_tb(found), limit)
    return traceback.StackSummary.extract(frames).format()


def _last_lines(exc: BaseException) -> list[str]:
    """The class and the message, and the place of a `SyntaxError`."""
    try:
        if isinstance(exc, SyntaxError):
            return traceback.format_exception_only(exc)
    except BaseException:  # text and attributes may be code of the user's
        pass
    cls = type(exc)
    name = cls.__qualname__ if cls.__module__ in ("builtins", "__main__") else f"{cls.__module__}.{cls.__qualname__}"
    message = text_of(exc)
    notes = exc.__dict__.get("__notes__")
    kept = [note for note in notes if isinstance(note, str)] if isinstance(notes, list) else []
    return [f"{name}: {message}\n" if message else f"{name}\n", *(f"{note}\n" for note in kept[:100])]


def text_of(exc: BaseException) -> str:
    """The message of an exception; where `__str__` of its class raises, a text that says so."""
    try:
        return str.__str__(str(exc))
    except BaseException as error:  # any exception, `SystemExit` too, from code of the user's
        return f"<{type(exc).__qualname__} whose str() raises {type(error).__qualname__}>"


def _indented(text: str, margin: str) -> str:
    return "".join(margin + line for line in text.splitlines(keepends=True)) if margin else text

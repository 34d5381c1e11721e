"""Tracebacks with the frames of the user's own code."""

from __future__ import annotations

import os
import re
import traceback

_HERE = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_ASYNCIO = (os.path.dirname(os.__file__) + "/asyncio/", os.path.dirname(os.__file__) + "/concurrent/")
_FRAME = re.compile(r'(?P<margin>[ |+]*)File "(?P<path>[^"]*)", line \d+')


def users_frames(text: str) -> str:
    """A formatted traceback without the frames of perdure, of Python's import machinery and of its event loop.

    Works on text, because the journal holds text: a failure looks the same live and years later.
    """
    kept: list[str] = []
    hidden: str | None = None
    for line in text.splitlines():
        frame = _FRAME.match(line)
        if frame is not None:
            hidden = frame["margin"] if _is_ours(frame["path"]) else None
        elif hidden is not None and not line.startswith(f"{hidden}  "):
            hidden = None
        if hidden is None:
            kept.append(line)
    return "\n".join(_without_empty(kept)).strip("\n")


def _without_empty(lines: list[str]) -> list[str]:
    """Leave out headings under which no frame is left."""
    kept: list[str] = []
    for number, line in enumerate(lines):
        if line.endswith("Traceback (most recent call last):"):
            below = lines[number + 1] if number + 1 < len(lines) else ""
            if _FRAME.match(below) is None:
                continue
        kept.append(line)
    return kept


def _is_ours(path: str) -> bool:
    return path.startswith((_HERE, "<frozen ", *_ASYNCIO))


def of_exception(error: BaseException) -> str:
    """The traceback of a live exception, as `users_frames` shows it."""
    return users_frames("".join(traceback.format_exception(error)))

"""The traceback of another process, rebuilt: the frames are empty, but files, lines and names are right."""

from __future__ import annotations

import sys
import traceback
from types import FrameType, FunctionType, TracebackType

Frames = list[tuple[str, int, str]]
"""File, line and function, outermost first."""

LIMIT = 100
"""Innermost frames that cross."""


def frames_of(error: BaseException) -> Frames:
    """Where an exception was raised."""
    found = [(frame.f_code.co_filename, line, frame.f_code.co_name) for frame, line in
             traceback.walk_tb(error.__traceback__)]  # fmt: skip
    return found[-LIMIT:]


def with_frames(error: BaseException, frames: Frames) -> BaseException:
    """The exception, with the rebuilt traceback."""
    trace: TracebackType | None = None
    for file, line, name in reversed(frames):
        code = _here.__code__.replace(co_filename=file, co_name=name, co_qualname=name)
        frame = FunctionType(code, {"sys": sys})()
        # Without an instruction, since its position would be one in this file.
        trace = TracebackType(trace, frame, -1, line)
    return error.with_traceback(trace)


def _here() -> FrameType:
    return sys._getframe()

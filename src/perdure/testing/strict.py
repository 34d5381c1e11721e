"""The check of bodies at run time: `PERDURE_STRICT=1`.

A profile function hears of each call of a C function in the threads of the process. A call that reads a clock, draws a
random number, makes a UUID or opens a file in the context of a body is warned about, once per place and rule, at the
line of the body or of its helper function. Rules and remedies are those of `perdure check`.

Nothing is patched, and the check raises nothing into the code: also a warning that filters turn into an error goes to
stderr. Not seen: threads that a body starts with `threading.Thread`, whose context is empty.
"""

from __future__ import annotations

import linecache
import os
import random
import sys
import sysconfig
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, datetime
from functools import lru_cache
from types import FrameType
from typing import Any

from ..core.body.scope import current_scope, is_body
from ..errors import PerdureWarning
from .check.finding import is_ignored_at
from .check.rules import BY_NAME, rule_of_call

_MODULES = ("time", "posix", "nt", "_io", "io", "builtins")
_TWINS = {"posix": "os", "nt": "os", "_io": "io"}
_FILES = {"open", "listdir", "scandir"}
_OWN = os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep
_LIBRARY = tuple({sysconfig.get_path(name) + os.sep for name in ("stdlib", "platstdlib")})
_FOREIGN = tuple({sysconfig.get_path(name) + os.sep for name in ("purelib", "platlib")})
_RANDOM = {"random", "uuid", "secrets"}
_SILENT = {"logging", "importlib", "linecache", "traceback", "warnings", "inspect", "zoneinfo", "asyncio", "tokenize"}
"""Modules of the standard library whose reads no body asked for."""

_seen: set[tuple[str, int, str]] = set()


def install() -> None:
    """Watch this thread and each thread that `threading` starts from now on."""
    threading.setprofile(_heard)
    sys.setprofile(_heard)


@contextmanager
def watching() -> Iterator[None]:
    """Watch for a while, in this thread and in those that begin meanwhile. Another profiler is left alone, and
    `PERDURE_STRICT=0` turns the check off."""
    if os.environ.get("PERDURE_STRICT") == "0" or sys.getprofile() is not None:
        yield
        return
    install()
    try:
        yield
    finally:
        sys.setprofile(None)
        threading.setprofile(None)


def _heard(frame: FrameType, event: str, called: Any) -> None:
    if event != "c_call" or not is_body(current_scope()):
        return
    try:
        name = _name_of(called)
        if name is not None:
            _judge(frame, name)
    except Exception as error:
        # An exception here would end the profile function, and be raised in the body.
        sys.stderr.write(f"PERDURE_STRICT: the check failed: {error!r}\n")


def _name_of(called: Any) -> str | None:
    """The dotted name that the rules know the C function by; `None` for a function that is no concern."""
    name, owner = called.__name__, getattr(called, "__self__", None)
    if owner is random._inst:
        return "random.getrandbits" if name in ("random", "getrandbits") else None
    if isinstance(owner, type) and issubclass(owner, date):
        kind = "datetime" if issubclass(owner, datetime) else "date"
        return f"datetime.{kind}.{name}" if name in ("now", "utcnow", "today") else None
    return _concern(called.__module__, name)


@lru_cache(maxsize=4096)
def _concern(module: str | None, name: str) -> str | None:
    """The dotted name of a C function that a rule is about."""
    if module not in _MODULES:
        return None
    dotted = name if module == "builtins" else f"{_TWINS.get(module, module)}.{name}"
    rule = rule_of_call(dotted)
    if rule is None or (rule.name == "io" and name not in _FILES) or rule.name not in ("io", "clock", "random"):
        return None
    return dotted


def _judge(frame: FrameType, name: str) -> None:
    """Warn where the call comes from a body's own code, by way of libraries or not."""
    rule = rule_of_call(name)
    assert rule is not None
    at: FrameType | None = frame
    while at is not None:
        file = at.f_code.co_filename
        if file.startswith((_OWN, "<frozen")):
            return
        if file.startswith(_LIBRARY) and not file.startswith(_FOREIGN):
            module = at.f_globals.get("__name__", "").partition(".")[0]
            if module in _SILENT or (rule.name == "clock" and at is frame):
                return
            if rule.name == "random" and module not in _RANDOM:
                return
            if module == "uuid":
                rule = BY_NAME["uuid"]
        elif not file.startswith(_FOREIGN):
            break
        at = at.f_back
    if at is None:
        return
    place = (at.f_code.co_filename, at.f_lineno, rule.name)
    if place in _seen:
        return
    _seen.add(place)
    if not is_ignored_at(linecache.getline(place[0], place[1]), rule.name):
        _warn(place[0], place[1], f"{rule.name}: {rule.what}; {rule.reason}. Instead: {rule.instead}")


def _warn(file: str, line: int, text: str) -> None:
    try:
        warnings.warn_explicit(text, PerdureWarning, file, line)
    except PerdureWarning:
        sys.stderr.write(f"{file}:{line}: {text}\n")

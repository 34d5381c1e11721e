"""Stored values for people and for JSON, with the fields that look like secrets masked."""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from ..api.files.reference import ContentReference
from ..api.jsonable import jsonable
from ..cli.failures import users_frames
from ..core.ground.values import ANY, describe_error, plain_inputs, preview
from ..errors import PerdureError, UsageError

MASK: Final = "••••••"
LONGEST: Final = 20_000
"""Characters of a value on a page; the whole value can be downloaded."""
LONGEST_BYTES: Final = 64 << 10
"""Bytes of inputs that a list decodes for a preview."""
MOST_REFERENCES: Final = 100
"""Files of a value that can be shown."""

_WORDS: Final = re.compile(r"[A-Z]?[a-z0-9]+|[A-Z]+(?![a-z])")
_SECRET: Final = frozenset((
    "password", "passwd", "passphrase", "secret", "secrets", "token", "credential", "credentials", "authorization",
    "apikey", "cookie",
))  # fmt: skip
_KEYS: Final = frozenset(("api", "access", "private", "secret", "signing", "encryption"))


class ShownText(NamedTuple):
    """A value as text."""

    text: str
    cut: bool
    """Whether the text is only the beginning."""


class HeldReference(NamedTuple):
    """A reference to content inside of a value."""

    where: str
    """The place in the value, such as `parts[0].image`; empty for the value itself."""
    reference: ContentReference


class Mask:
    """Decides which fields are secrets: by their names, and by a list of further names."""

    def __init__(self, names: Collection[str] = ()) -> None:
        self._names = frozenset(name.lower() for name in names)

    def hides(self, name: str) -> bool:
        """Whether the value of a field of the name is not to be shown."""
        if name.lower() in self._names:
            return True
        words = [word.lower() for word in _WORDS.findall(name)]
        return not _SECRET.isdisjoint(words) or ("key" in words and not _KEYS.isdisjoint(words))

    def masked(self, data: Any) -> Any:
        """JSON data without the values of secret fields."""
        if isinstance(data, dict):
            return {name: MASK if self.hides(name) else self.masked(value) for name, value in data.items()}
        if isinstance(data, list):
            pairs = _pairs(data)
            return self.masked(pairs) if pairs is not None else [self.masked(item) for item in data]
        return data

    # -- encoded values ----------------------------------------------------------------------------------------

    def value(self, data: bytes | None) -> Any:
        """A stored value as JSON data."""
        if data is None:
            return None
        try:
            return self.masked(jsonable(ANY.decode(data)))
        except (PerdureError, RecursionError):
            return preview(data)

    def inputs(self, data: bytes | None) -> Any:
        """Stored arguments as JSON data."""
        if data is None:
            return None
        try:
            return self.masked(jsonable(plain_inputs(data)))
        except (UsageError, RecursionError):
            return preview(data)

    def references(self, data: bytes | None, *, inputs: bool) -> list[HeldReference]:
        """The files, directories and data frames in a stored value or in stored arguments, in the order of the value.
        What stands in a secret field is left out."""
        found: list[HeldReference] = []
        if data is not None:
            with suppress(PerdureError, RecursionError):
                self._collect(plain_inputs(data) if inputs else ANY.decode(data), "", found)
        return found

    def _collect(self, value: Any, where: str, found: list[HeldReference]) -> None:
        if len(found) == MOST_REFERENCES:
            return
        if isinstance(value, ContentReference):
            found.append(HeldReference(where, value))
        elif isinstance(value, Mapping):
            for key, part in value.items():
                if not (isinstance(key, str) and self.hides(key)):
                    self._collect(part, f"{where}.{key}" if where else str(key), found)
        elif isinstance(value, (list, tuple, set, frozenset)):
            pairs = _pairs(value) if isinstance(value, list) else None
            if pairs is not None:
                self._collect(pairs, where, found)
                return
            for number, part in enumerate(value):
                self._collect(part, f"{where}[{number}]", found)

    def inputs_line(self, data: bytes, limit: int = 120) -> str:
        """Stored arguments in one short line, for lists."""
        if len(data) > LONGEST_BYTES:
            return f"{len(data):,} bytes"
        found = self.inputs(data)
        if not isinstance(found, Mapping):
            return str(found)[:limit]
        text = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in found.items())
        return text if len(text) <= limit else f"{text[: limit - 1]}…"


def _pairs(data: list[Any]) -> dict[str, Any] | None:
    """A list of pairs as a mapping; `None`: the list is none. A `dict` without declared types is stored as pairs."""
    if not data or not all(isinstance(item, list) and len(item) == 2 and isinstance(item[0], str) for item in data):
        return None
    found = dict(data)
    return found if len(found) == len(data) else None


def pretty(data: Any, limit: int | None = LONGEST) -> ShownText:
    """JSON data as text: a text as it is, other data indented."""
    text = data if isinstance(data, str) else json.dumps(data, indent=2, ensure_ascii=False)
    return ShownText(text, False) if limit is None or len(text) <= limit else ShownText(text[:limit], True)


def error_data(data: bytes | None) -> dict[str, Any] | None:
    """A stored exception: type, message, traceback, the frames of the user's code, and the line that raised."""
    if data is None:
        return None
    try:
        kind, message, traceback = describe_error(data)
    except UsageError as error:
        return {"type": "unreadable", "message": str(error), "traceback": "", "frames": "", "line": None}
    frames = users_frames(traceback)
    return {"type": kind, "message": message, "traceback": traceback, "frames": frames, "line": _last_line(frames)}


_FRAME: Final = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>.+)')


def _last_line(frames: str) -> dict[str, Any] | None:
    found = list(_FRAME.finditer(frames))
    if not found:
        return None
    last = found[-1]
    return {"file": last["file"], "line": int(last["line"]), "function": last["function"]}

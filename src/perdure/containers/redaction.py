"""The redactor: strikes secrets out of every text that comes from a container, a URL or the environment.

A text may quote a secret as it is, or escaped as Python, JSON or a URL does, or encoded as base64. A text may also be
cut within a secret: callers say where a text was cut, and what is left of a secret at a cut is struck out, too.
"""

from __future__ import annotations

import html
import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator
from typing import Any, AnyStr, Final
from urllib.parse import quote, quote_plus, unquote

STRUCK: Final = "***"
SHORTEST: Final = 4
"""Characters of the shortest redacted secret: shorter secrets would make every text unreadable."""


class Redactor:
    """Strikes out the secrets of one container; safe for use from any thread."""

    def __init__(self, secrets: Iterable[str] = (), lines: Iterable[str] = ()) -> None:
        """Strike out these secrets, and these lines of secrets. A line alone is looked for only as text escapes it."""
        texts = {form for secret in secrets if len(secret) >= SHORTEST for form in _encoded(secret)}
        texts |= {form for line in lines if len(line) >= SHORTEST for form in _escaped(line)}
        self._texts = sorted(texts)
        self._datas = [form.encode("utf-8", "surrogateescape") for form in self._texts]
        self._longest = max(map(len, self._datas), default=0)

    @property
    def is_idle(self) -> bool:
        """Whether there are no secrets."""
        return not self._texts

    def text(self, text: str) -> str:
        """A whole text without the secrets."""
        return _struck(text, _places(text, self._texts), STRUCK)

    def data(self, data: bytes, *, opens: bool = True, closes: bool = True) -> bytes:
        """Text as bytes without the secrets.

        Args:
            data: the text, or a piece of a longer text.
            opens: whether the piece is the beginning of the text.
            closes: whether the piece is the end of the text.
        """
        places = _places(data, self._datas)
        if not opens:
            # The beginning of the piece may end a secret.
            back = data[::-1]
            places.append((0, max((_begun(back, form[-len(data) :][::-1]) for form in self._datas), default=0)))
        if not closes:
            # The end of the piece may begin a secret.
            begun = max((_begun(data, form) for form in self._datas), default=0)
            places.append((len(data) - begun, len(data)))
        return _struck(data, places, STRUCK.encode())

    def head(self, data: bytes, limit: int) -> bytes:
        """The first bytes of data, cut after the redaction, so that no secret is cut in two."""
        wanted = limit + self._longest
        return self.data(data[:wanted], closes=len(data) <= wanted)[:limit]

    def clean(self, error: BaseException) -> None:
        """Strike the secrets out of an exception: arguments, attributes and notes. Causes are cut off, as their
        texts are not perdure's own."""
        if self._texts:
            error.args = tuple(self._value(each) for each in error.args)
            for name, value in list(vars(error).items()):
                setattr(error, name, self._value(value))
            error.__cause__ = error.__context__ = None
            error.__suppress_context__ = True

    def _value(self, value: Any) -> Any:
        match value:
            case str():
                return self.text(value)
            case bytes():
                return self.data(value)
            case list():
                return [self._value(each) for each in value]
            case tuple() if type(value) is tuple:
                return tuple(self._value(each) for each in value)
        return value


NO_SECRETS: Final = Redactor()


def _places(text: AnyStr, forms: Iterable[AnyStr]) -> list[tuple[int, int]]:
    """Begin and end of every occurrence of the forms; occurrences may overlap."""
    found = []
    for form in forms:
        at = text.find(form)
        while at >= 0:
            found.append((at, at + len(form)))
            at = text.find(form, at + 1)
    return found


def _begun(data: bytes, form: bytes) -> int:
    """The length of the longest end of the data that begins the form."""
    at = data.find(form[:_ANCHOR], max(0, len(data) - len(form)))
    while at >= 0:
        # A short look first: a program may print the begin of a secret again and again.
        if form.startswith(data[at : at + _LOOK]) and form.startswith(data[at:]):
            return len(data) - at
        at = data.find(form[:_ANCHOR], at + 1)
    return next((n for n in range(min(_ANCHOR, len(data), len(form)), 0, -1) if data.endswith(form[:n])), 0)


def _struck(text: AnyStr, places: list[tuple[int, int]], star: AnyStr) -> AnyStr:
    """The text with a star for each place; places that touch share a star."""
    pieces, done, struck = [text[:0]], 0, False
    for begin, end in sorted(places):
        if begin == end or end <= done:
            continue
        if begin > done or not struck:
            pieces += (text[done:begin], star)
        done, struck = end, True
    pieces.append(text[done:])
    return text[:0].join(pieces)


_ANCHOR: Final = 8
"""Bytes by which a cut secret is looked for: comparisons of a long secret at every byte would be quadratic."""
_LOOK: Final = 256
_BASE64: Final = 6
"""Characters of the shortest base64 form: shorter forms would meet other text."""
_BASE64_LINES: Final = (64, 76)
"""Characters in a line of base64, as openssl, mail and `base64` break lines."""


def _encoded(secret: str) -> set[str]:
    """The secret plain, escaped, and as base64 and hexadecimal digits."""
    data = secret.encode("utf-8", "surrogateescape")
    return {*_escaped(secret), data.hex(), data.hex().upper(), *_base64_forms(data)}


def _escaped(secret: str) -> set[str]:
    """The text plain, and as Python, JSON, Go, HTML, shells and URLs escape it."""
    data = secret.encode("utf-8", "surrogateescape")
    # A text with both kinds of quotes has the single quotes escaped.
    python = {shown(each)[cut:-1] for shown in (repr, ascii) for each, cut in ((secret, 1), (data, 2))}
    python |= {re.sub(r"(?<!\\)((?:\\\\)*)'", r"\1\\'", each) for each in python}
    dumped = {json.dumps(secret, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False)}
    dumped |= {each.replace("/", "\\/") for each in dumped} | {_as_go(each) for each in dumped}
    quoted = {quote(data, safe=""), quote(data), quote_plus(data)}
    quoted |= {re.sub("%..", lambda found: found[0].lower(), each) for each in quoted}
    shells = {secret.replace("'", "'\\''"), secret.replace("'", "'\"'\"'")}
    return {secret, *python, *dumped, *quoted, *shells, html.escape(secret), html.escape(secret, quote=False)}


def _as_go(dumped: str) -> str:
    """JSON as Go writes it, which escapes the characters of HTML."""
    return dumped.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def _base64_forms(data: bytes) -> Iterator[str]:
    """The digits that depend on the secret alone, wherever the secret begins in what was encoded, and broken lines."""
    for before in range(3):
        digits = b64encode(b"\0" * before + data).decode()[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]
        lines = (digits[at : at + width] for width in _BASE64_LINES for at in range(0, len(digits), width))
        for each in (digits, *(() if before else lines)):
            if len(each) >= _BASE64:
                yield each
                yield each.replace("+", "-").replace("/", "_")


def credentials_of(url: str) -> list[str]:
    """The user and password of a URL, together and alone, also where the URL is malformed."""
    if url.startswith("unix:"):
        return []
    before = url.partition("?")[0].rpartition("@")[0]
    both = before.removeprefix(before.partition("://")[0] + "://") if "://" in before else before
    password = both.partition(":")[2]
    return [each for found in (both, password) for each in (found, unquote(found)) if found]


def bare_url(url: str) -> str:
    """A URL for messages: without user, password and query, also where the URL is malformed."""
    scheme, colon, rest = url.partition(":")
    if scheme == "unix":
        return url
    user, at, host = rest.rpartition("@")
    host = host.partition("?")[0]
    place = host.strip("/").partition("/")[0]
    _, ported, port = (place.rpartition("]")[2] if place.startswith("[") else place).partition(":")
    if not set("?#").isdisjoint(user) or (ported and not port.isdigit()):
        # Where a password ends cannot be known.
        return f"{scheme}:***" if colon else STRUCK
    if not at:
        return f"{scheme}{colon}{host}" if colon else url.rpartition("@")[2]
    return f"{scheme}:{'//' if user.startswith('/') else ''}{host}" if colon else host

"""The redactor: strikes secrets out of every text that comes from a container, a URL or the environment.

A text may quote a secret as it is, or escaped as Python, JSON or a URL does. A text may also be cut within a secret:
callers say where a text was cut, and what is left of a secret at a cut is struck out, too.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote, unquote

STRUCK: Final = "***"
SHORTEST: Final = 4
"""Characters of the shortest redacted secret: shorter secrets would make every text unreadable."""


class Redactor:
    """Strikes out the secrets of one container; safe for use from any thread."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        forms = {form for secret in secrets for form in _forms(secret) if len(secret) >= SHORTEST}
        # The longest first, as one secret may be a part of another.
        self._texts = sorted(forms, key=len, reverse=True)
        self._datas = [form.encode("utf-8", "surrogateescape") for form in self._texts]
        self._longest = max(map(len, self._datas), default=0)
        self._in_text = re.compile("|".join(map(re.escape, self._texts)))
        self._in_data = re.compile(b"|".join(map(re.escape, self._datas)))

    @property
    def is_idle(self) -> bool:
        """Whether there are no secrets."""
        return not self._texts

    def text(self, text: str) -> str:
        """A whole text without the secrets."""
        return self._in_text.sub(STRUCK, text) if self._texts else text

    def data(self, data: bytes, *, opens: bool = True, closes: bool = True) -> bytes:
        """Text as bytes without the secrets.

        Args:
            data: the text, or a piece of a longer text.
            opens: whether the piece is the beginning of the text.
            closes: whether the piece is the end of the text.
        """
        if not self._datas:
            return data
        data = self._in_data.sub(STRUCK.encode(), data)
        if not opens:
            data = self._without_end_of_secret(data)
        return data if closes else self._without_begin_of_secret(data)

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

    def _without_begin_of_secret(self, data: bytes) -> bytes:
        """Of a text that goes on: without an end that begins a secret."""
        for secret in self._datas:
            for length in range(min(len(secret) - 1, len(data)), 0, -1):
                if data.endswith(secret[:length]):
                    return data[:-length] + STRUCK.encode()
        return data

    def _without_end_of_secret(self, data: bytes) -> bytes:
        """Of a text that began earlier: without a beginning that ends a secret."""
        for secret in self._datas:
            for length in range(min(len(secret) - 1, len(data)), 0, -1):
                if data.startswith(secret[-length:]):
                    return STRUCK.encode() + data[length:]
        return data


NO_SECRETS: Final = Redactor()


def _forms(secret: str) -> set[str]:
    """The secret plain, and as escaped by Python, JSON and URLs."""
    dumped = {json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1]}
    quoted = quote(secret.encode("utf-8", "surrogateescape"), safe="")
    return {secret, repr(secret)[1:-1], ascii(secret)[1:-1], repr(secret.encode("utf-8", "surrogateescape"))[2:-1],
            quoted, *dumped}  # fmt: skip


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
    rest = rest.partition("?")[0]
    user, at, host = rest.rpartition("@")
    if not at:
        return f"{scheme}{colon}{rest}" if colon else url.rpartition("@")[2]
    return f"{scheme}:{'//' if user.startswith('/') else ''}{host}" if colon else host

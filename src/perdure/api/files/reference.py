"""The parts that `File` and `Dir` have in common: an immutable reference by name, hash, size and URL; paths."""

from __future__ import annotations

import builtins
import os
import re
from typing import Any, Final, NoReturn

from ...errors import UsageError
from ...store.blobs.user_files import check_name

_HASH: Final = re.compile(r"[0-9a-f]{64}")

StrPath = str | os.PathLike[str]


class ContentReference:
    """A name, and the hash and size of a content. Never changes."""

    __slots__ = ("hash", "name", "size", "url")

    name: str
    """The last part of the path or URL that the reference was made from."""

    hash: str
    """The SHA-256 of the content, in hexadecimal. Empty for a file at a URL whose content perdure has not seen."""

    size: int
    """The length of the content in bytes."""

    url: str
    """The place of the content; empty where the blob store holds the content."""

    def __init__(self, *, name: str, hash: str, size: int, url: str = "") -> None:
        check_name(name)
        if not isinstance(url, str):
            raise UsageError(f"{url!r} is no URL: use {type(self).__name__}.from_existing_remote(url)")
        if not isinstance(hash, str) or not (_HASH.fullmatch(hash) or self._may_lack_hash(url, hash)):
            raise UsageError(f"{hash!r} is no content hash: use {type(self).__name__}.from_local(path)")
        if type(size) is not int or size < 0:
            raise UsageError(f"{size!r} is no size in bytes: use {type(self).__name__}.from_local(path)")
        object.__setattr__(self, "name", name)
        object.__setattr__(self, "hash", hash)
        object.__setattr__(self, "size", size)
        object.__setattr__(self, "url", url)

    def _may_lack_hash(self, url: str, hash: str) -> bool:
        return False

    def __setattr__(self, name: str, value: object) -> NoReturn:
        raise AttributeError(f"a {type(self).__name__} never changes: make another one")

    def __delattr__(self, name: str) -> NoReturn:
        self.__setattr__(name, None)

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        assert isinstance(other, ContentReference)
        return self._identity() == other._identity()

    def _identity(self) -> tuple[str, ...]:
        return self.hash, self.name, self.url

    def __hash__(self) -> int:
        return builtins.hash((type(self), self._identity()))

    def __repr__(self) -> str:
        where = f"url={self.url!r}" if self.url else f"hash='{self.hash[:12]}…'"
        return f"{type(self).__name__}(name={self.name!r}, size={self.size}, {where})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuilt, (type(self), self._fields())

    def _fields(self) -> dict[str, Any]:
        return {"name": self.name, "hash": self.hash, "size": self.size, "url": self.url}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.is_instance_schema(cls)


def _rebuilt(cls: type[ContentReference], fields: dict[str, Any]) -> ContentReference:
    return cls(**fields)


def path_text(path: StrPath) -> str:
    """A path as text.

    Raises:
        UsageError: not a path.
    """
    text = os.fspath(path)
    if not isinstance(text, str) or not text or "\0" in text:
        raise UsageError(f"{text!r} is not a path: give text or a pathlib.Path")
    return text


def temporary_folder() -> str:
    """A new temporary directory, which belongs to the caller."""
    import tempfile

    return tempfile.mkdtemp(prefix="perdure-")

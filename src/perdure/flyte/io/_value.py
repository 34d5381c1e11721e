"""The parts that `File` and `Dir` have in common: fields, content in the blob store, pydantic's methods."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from typing import Any, NamedTuple, Self

from ... import runtime
from ...errors import UsageError


class Signature(NamedTuple):
    """What tells that a path on this machine still has the content that was stored."""

    path: str
    inode: int
    size: int
    changed: int


def signature(path: str) -> Signature:
    """The signature of a file, or of a directory's own entry."""
    found = os.stat(path)
    return Signature(path, found.st_ino, found.st_size, found.st_mtime_ns)


def local(path: str) -> str | None:
    """The path on this machine; `None` for a URL of another kind."""
    if path.startswith("file://"):
        return path.removeprefix("file://")
    return None if "://" in path else path


def last_part(path: str) -> str:
    """The name of a path or a URL."""
    return path.rstrip("/").rpartition("/")[2]


_RANDOM = re.compile(r"tmp[a-z0-9_]{8}|[0-9a-f]{32}")


def lasting_name(path: str) -> str:
    """The name for stored content: of a temporary file, whose name is random, only the suffix.

    A body that is executed again makes other temporary files, and the paths of their content must be the same.
    """
    name = last_part(path)
    stem, dot, suffix = name.partition(".")
    return f"file{dot}{suffix}" if _RANDOM.fullmatch(stem) else name


def in_blob_store(path: str) -> bool:
    """Whether a path lies in the blob store, where no content may change."""
    root = os.path.realpath(runtime.blobs().root)
    return os.path.realpath(path).startswith(root + os.sep)


def staged(name: str | None) -> str:
    """A free path for new content."""
    import tempfile
    import uuid

    return os.path.join(tempfile.mkdtemp(prefix="perdure-"), name or uuid.uuid4().hex)


class Fields:
    """The methods of a pydantic model, which need not be installed: fields as a dict, as JSON, and back."""

    _names: tuple[str, ...]
    _required: tuple[str, ...] = ()

    def model_dump(
        self,
        *,
        mode: str = "python",
        include: Any = None,
        exclude: Any = None,
        exclude_none: bool = False,
        **ignored: Any,
    ) -> dict[str, Any]:
        """The fields: all, or the included without the excluded ones. Other settings of pydantic have no effect."""
        names = [name for name in self._names if (include is None or name in include) and name not in (exclude or ())]
        found = {name: getattr(self, name) for name in names}
        return {name: value for name, value in found.items() if value is not None} if exclude_none else found

    def model_dump_json(self, **ignored: Any) -> str:
        """The fields as JSON."""
        indent = ignored.pop("indent", None)
        separators = (",", ":") if indent is None else None
        return json.dumps(self.model_dump(mode="json", **ignored), indent=indent, separators=separators)

    @classmethod
    def model_validate(cls, obj: Any, **ignored: Any) -> Self:
        """An instance from its fields."""
        if isinstance(obj, cls):
            return obj
        return cls(**{name: value for name, value in dict(obj).items() if name in cls._names})

    @classmethod
    def model_validate_json(cls, json_data: str | bytes, **ignored: Any) -> Self:
        """An instance from its fields as JSON."""
        return cls.model_validate(json.loads(json_data))

    def model_copy(self, *, update: dict[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy, with other values for some fields."""
        import copy

        made = copy.copy(self)
        for name, value in (update or {}).items():
            setattr(made, name, value)
        return made

    @classmethod
    def schema_match(cls, incoming: dict[str, Any]) -> bool:
        """Whether a JSON schema describes this class."""
        return set(incoming.get("properties", ())) >= set(cls._names)

    @classmethod
    def model_json_schema(cls, **ignored: Any) -> dict[str, Any]:
        """The JSON schema."""
        properties = {name: {"type": "string"} for name in cls._names}
        return {"type": "object", "title": cls.__name__, "required": list(cls._required), "properties": properties}

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        from pydantic_core import core_schema

        return core_schema.no_info_plain_validator_function(
            cls.model_validate,
            serialization=core_schema.plain_serializer_function_ser_schema(
                lambda value: value.model_dump(), return_schema=core_schema.dict_schema(), when_used="json"
            ),
        )

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> dict[str, Any]:
        return cls.model_json_schema()

    def _shown(self) -> dict[str, Any]:
        """The fields that `repr` shows."""
        return self.model_dump()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self._shown().items())})"

    def __str__(self) -> str:
        return " ".join(f"{name}={value!r}" for name, value in self._shown().items())


_OLD_NAMES = {
    "dict": "model_dump", "json": "model_dump_json", "copy": "model_copy", "parse_obj": "model_validate",
    "parse_raw": "model_validate_json", "schema": "model_json_schema",
}  # fmt: skip
"""Methods of pydantic 1, which pydantic 2 keeps. `dict` is set here, as annotations in the class mean the type."""
for _old, _new in _OLD_NAMES.items():
    setattr(Fields, _old, vars(Fields)[_new])


class PathValue(Fields):
    """A path or URL, and the content that the blob store keeps for it."""

    _names = ("path", "name", "format", "hash")
    _required = ("path",)
    path: str
    name: str | None
    format: str
    hash: str | None
    _reference: Any
    """The class of `perdure.io` for the content."""
    _is_there: Callable[[str], bool]
    """Whether the content lies at a path on this machine."""

    def __init__(self, *, path: str, name: str | None = None, format: str = "", hash: str | None = None) -> None:
        if not isinstance(path, (str, os.PathLike)) or not os.fspath(path):
            raise UsageError(f"{path!r} is no path: use {type(self).__name__}.from_local(path)")
        self._path: str | None = os.fspath(path)
        self._content: Any = None
        self._stored_from: Signature | None = None
        self.name = last_part(self._path) if name is None else name
        self.format = format
        self.hash = hash

    @classmethod
    def of_content(cls, content: Any, name: str | None, format: str = "", hash: str | None = None) -> Self:
        """A value whose content is in the blob store, or at a URL that perdure has looked at."""
        self = cls(path=content.url or content.name, name=name or content.name, format=format, hash=hash)
        self._path = content.url or None
        self._content = content
        return self

    def _readable(self) -> str:
        """The path of the content on this machine."""
        found = local(self.path)
        if found is not None:
            return found
        if self._content is None:
            self._content = self._reference.from_existing_remote(self.path)
        return str(self._content.path)

    async def _readable_aio(self) -> str:
        if local(self.path) is None and self._content is None:
            self._content = await self._reference.from_existing_remote.aio(self.path)
        return self._readable()

    async def exists(self) -> bool:
        """Whether the content exists."""
        if local(self.path) is None and self._content is None:
            try:
                await self._readable_aio()
            except UsageError:
                return False
        return self.exists_sync()

    def exists_sync(self) -> bool:
        """As `exists`."""
        found = local(self.path)
        if found is not None:
            return self._is_there(found)
        try:
            return bool(self._readable())
        except UsageError:
            return False

    @property
    def lazy_uploader(self) -> None:
        """Nothing: `from_local` has stored the content when it returns."""
        return None

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.model_dump() == other.model_dump()

    __hash__ = None  # type: ignore[assignment]

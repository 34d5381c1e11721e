"""Values as plain JSON data, for the command line, HTTP and protocols of tools."""

from __future__ import annotations

import base64
import dataclasses
import json
import math
from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from typing import Any

from ..errors import PerdureError

LONGEST_INT = 10_000
"""Bits of an integer that is shown in decimal."""
LONGEST_RANGE = 1_000
"""Numbers of a `range` that is shown as a list."""


def jsonable(value: Any) -> Any:
    """A value as plain JSON data. Values without a JSON form become text; nothing fails."""
    if value is None or (isinstance(value, (bool, str)) and not isinstance(value, Enum)):
        return value
    if isinstance(value, Enum):
        return jsonable(value.value)
    if isinstance(value, int):
        # Python refuses to write more digits, and readers of JSON to read them.
        return int(value) if value.bit_length() <= LONGEST_INT else hex(value)
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else str(value)
    if isinstance(value, Mapping):
        return {_key(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: jsonable(item) for name, item in value._asdict().items()}
    if isinstance(value, range) and value[LONGEST_RANGE:]:
        return f"range({', '.join(str(jsonable(part)) for part in (value.start, value.stop, value.step))})"
    if isinstance(value, (list, tuple, set, frozenset, range)):
        return [jsonable(item) for item in value]
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, timedelta):
        return value.total_seconds()
    if (frame := _data_frame(value)) is not None:
        return frame
    if is_reference(value):
        place = {"url": value.url} if value.url else {"path": local_path(value)}
        return {"name": value.name, "size": value.size, "hash": value.hash, **place}
    return _record(value)


def is_reference(value: object) -> bool:
    """Whether a value is a `perdure.io.File` or `Dir`, without loading `perdure.io`."""
    return type(value).__module__ == "perdure.io" and type(value).__name__ in ("File", "Dir")


def _data_frame(value: Any) -> Any:
    """A data frame as plain JSON data; `None` for any other value."""
    from ..core.ground.values import frames_of

    frames = frames_of(type(value))
    return None if frames is None else _frame(value if isinstance(value, frames.reference) else frames.put(value))


def _frame(reference: Any) -> dict[str, Any]:
    """A data frame by its Parquet file."""
    counts = {"rows": reference.rows, "columns": reference.columns}
    return {"kind": reference.kind, **counts, "hash": reference.hash, "path": local_path(reference)}


def local_path(value: Any) -> str | None:
    try:
        return str(value.path)
    except PerdureError:
        return None  # the content is gone


def _record(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {one.name: jsonable(getattr(value, one.name, None)) for one in dataclasses.fields(value)}
    names = getattr(type(value), "__struct_fields__", None)  # msgspec.Struct
    if names is not None:
        return {name: jsonable(getattr(value, name)) for name in names}
    if hasattr(type(value), "model_dump"):  # pydantic
        return jsonable(value.model_dump(mode="json"))
    return str(value)


def _key(key: Any) -> str:
    plain = jsonable(key)
    return plain if isinstance(plain, str) else json.dumps(plain)

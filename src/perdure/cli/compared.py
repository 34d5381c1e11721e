"""A comparison of two runs as JSON data: for the command line and for the web page."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

from ..api.jsonable import jsonable
from ..core.ground.model import Entry, Kind, Result
from ..core.ground.values import ANY, describe_error, plain_inputs, preview
from ..errors import PerdureError, UsageError

SHOWN: Final = 50
"""Differences that are shown."""
NAMES: Final = 50
"""Names of actions whose times are shown."""
LONGEST: Final = 400
"""Characters of a value."""

Decoded = Callable[[bytes | None], Any]
"""Turns stored bytes into JSON data."""


def _value(data: bytes | None) -> Any:
    try:
        return None if data is None else jsonable(ANY.decode(data))
    except (PerdureError, RecursionError):
        return preview(data or b"")


def _inputs(data: bytes | None) -> Any:
    try:
        return None if data is None else jsonable(plain_inputs(data))
    except (PerdureError, RecursionError):
        return preview(data or b"")


def comparison_data(found: Any, value: Decoded = _value, inputs: Decoded = _inputs) -> dict[str, Any]:
    """A comparison (`api.comparing.RunComparison`) as JSON data.

    Args:
        value, inputs: turn a stored value and stored arguments into JSON data.
    """
    from ..api.comparing import parted

    a, b = found.a.row, found.b.row
    same_outcome = (a.result, a.value) == (b.result, b.value)
    first_call = parted(found.differences)

    def shown(one: Any) -> dict[str, Any]:
        return {
            "what": one.what, "a": _entry_data(one.a, value, inputs), "b": _entry_data(one.b, value, inputs),
            "parts": one is first_call,
        }  # fmt: skip

    return {
        "sentence": told(found),
        "inputs": _fields(inputs(a.inputs), inputs(b.inputs)),
        "same_inputs": a.inputs == b.inputs,
        "outcome": {"a": _outcome(a, value), "b": _outcome(b, value), "same": same_outcome},
        "times": [
            {"name": one.name, "a": _times(one.a), "b": _times(one.b)} for one in islice(found.times, NAMES)
        ],
        "differences": [shown(one) for one in found.differences[:SHOWN]],
        "parts": None if first_call is None else shown(first_call),
        "total": len(found.differences),
        "compared": found.compared,
        "cut": found.cut,
    }  # fmt: skip


def told(found: Any) -> str:
    """A comparison in one sentence."""
    total = len(found.differences)
    if total == 0:
        return f"The journals agree in all {found.compared:,} calls that both runs have."
    first = found.differences[0]
    one, two = first.a, first.b
    if first.what == "missing":
        entry, side = (one, found.b) if two is None else (two, found.a)
        text = f"{entry.name} (entry {entry.n}) has no counterpart in run {side.run.name}"
    elif first.what == "call":
        text = f"entry {one.n} calls {one.name}, entry {two.n} of the other run {_other_call(one, two)}"
    else:
        text = f"{one.name} (entry {one.n}, and {two.n} of the other run) has different outcomes"
    return f"The journals differ in {total:,} call{'' if total == 1 else 's'}. The first: {text}."


def _other_call(one: Entry, two: Entry) -> str:
    return "calls it with other inputs" if one.name == two.name else f"calls {two.name}"


def _fields(a: Any, b: Any) -> list[dict[str, Any]]:
    one = a if isinstance(a, dict) else {"inputs": a}
    two = b if isinstance(b, dict) else {"inputs": b}
    return [
        {"name": name, "a": _text(one[name]) if name in one else None, "b": _text(two[name]) if name in two else None}
        for name in dict.fromkeys((*one, *two))
    ]


def _text(data: Any) -> str:
    text = json.dumps(data, ensure_ascii=False)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def _outcome(row: Any, value: Decoded) -> str | None:
    return None if row.value is None else _result(row.result, row.value, value)


def _result(result: int, data: bytes | None, value: Decoded) -> str:
    if result == Result.ERROR and data is not None:
        try:
            kind, message, _ = describe_error(data)
        except UsageError as error:
            return str(error)
        text = f"{kind.rpartition('.')[2]}: {message}"
        return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"
    return Result(result).name.lower() if data is None else _text(value(data))


def _entry_data(entry: Entry | None, value: Decoded, inputs: Decoded) -> dict[str, Any] | None:
    if entry is None:
        return None
    return {
        "entry": entry.n,
        "name": entry.name,
        "kind": Kind(entry.kind).name.lower() if entry.kind else None,
        "inputs": None if entry.inputs is None else _text(inputs(entry.inputs)),
        "outcome": _result(entry.result, entry.value, value),
        "failed": entry.result == Result.ERROR,
    }


def _times(one: Any) -> dict[str, Any] | None:
    return None if one is None else {"count": one.actions, "failed": one.failed, "time": one.time / 1_000_000}


# -- the command -----------------------------------------------------------------------------------------------

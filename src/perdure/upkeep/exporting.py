"""A recorded run as JSON, for tests that replay the run (`perdure.testing.replay`).

The file holds all that replay needs: the run's row, the entries of the journal, the actions and the snapshots of the
code. Bytes are base64. `shown` stands beside encoded values, for people, and is not read.
"""

from __future__ import annotations

import json
import os
from base64 import b64decode, b64encode
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Any

import msgspec
from msgspec import structs

from .. import runtime
from ..api.looking import find
from ..core.ground.model import Action, Entry, Kind, Result, RunRow, Source, Status
from ..core.ground.ports import Store
from ..core.ground.spec import parsed
from ..core.ground.values import describe_error, preview
from ..core.journal.segment import journal_of
from ..errors import UsageError
from .rehearsing import Recorded, resealed

FORMAT = 1
REDACTED = "redacted"
_KEPT = frozenset({"module", "name"})
"""Texts of a recorded exception that replay needs."""


def recorded_run(store: Store, row: RunRow) -> Recorded:
    """All that a rehearsal needs of a stored run.

    Raises:
        JournalDamagedError, StoreVersionError: the journal cannot be read.
    """
    entries = list(journal_of(store, row))
    actions = store.actions(row.id)
    numbers = {entry.source for entry in entries} | {action.source for action in actions}
    found = {number: store.source(number) for number in numbers}
    sources = {number: source for number, source in found.items() if source is not None}
    return Recorded(row, list(store.segments(row.id)), actions, sources)


def exported(name: str, redact: Sequence[str] = ()) -> dict[str, Any]:
    """A run of the store in use, as JSON.

    Args:
        name: the run's name.
        redact: names of tasks and traces, with `*` and `?`, whose texts are replaced by `redacted`.

    Raises:
        RunNotFoundError: there is no such run.
    """
    row = find(name)
    store = runtime.worker().store
    recorded = recorded_run(store, row)
    return written(recorded, list(journal_of(store, row)), redact)


def written(recorded: Recorded, entries: Sequence[Entry], redact: Sequence[str] = ()) -> dict[str, Any]:
    """A recorded run as JSON; see `exported`."""
    row = recorded.run
    if _wanted(row.task, redact):
        row = row._replace(inputs=_plain(row.inputs), value=_value(row.value, row.result == Result.ERROR), carried=None)
    file, module, task, former = parsed(row.target)
    # Without the directories of the machine that has recorded the run.
    row = row._replace(target="::".join(filter(None, (os.path.basename(file), module, task, former))))
    run = {field: getattr(row, field) for field in _RUN}
    return {
        "perdure": "recorded run",
        "format": FORMAT,
        "redacted": bool(redact),
        "run": _bytes_out(run) | {"shown": _shown_inputs(row.inputs)},
        "sources": {
            str(number): {"digest": _out(s.digest), "python": s.python, "modules": _bytes_out(s.modules)}
            for number, s in recorded.sources.items()
        },
        "actions": [_bytes_out(_redacted_action(a, redact)._asdict()) for a in recorded.actions],
        "entries": [_entry_out(_redacted_entry(e, redact)) for e in entries],
    }


_RUN = (
    "uid", "name", "task", "target", "inputs", "inputs_hash", "created_at", "status", "started_at", "ended_at",
    "result", "value", "cancel", "cancel_until", "tags", "carried",
)  # fmt: skip


def read(text: str, where: str) -> Recorded:
    """A recorded run from JSON.

    Raises:
        UsageError: the text is no recorded run, or was written by a newer perdure.
    """
    try:
        data = json.loads(text)
        if data["perdure"] != "recorded run":
            raise ValueError("it says nothing of perdure")
        if data["format"] > FORMAT:
            raise UsageError(f"{where} was written by a newer perdure (format {data['format']}): upgrade perdure")
        return _read(data)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UsageError(f"{where} is no recorded run, as `perdure export RUN` writes it: {error!r}") from None


def _read(data: dict[str, Any]) -> Recorded:
    given = data["run"]
    empty: dict[str, Any] = dict.fromkeys(RunRow._fields)
    values = {name: _in(given.get(name)) if name in _BYTES else given[name] for name in _RUN}
    row = RunRow(**(empty | values | {"id": 0, "crashes": 0, "mark": 0, "status": Status(given["status"])}))
    sources = {
        int(number): Source(
            b64decode(one["digest"]), one["python"], {name: b64decode(text) for name, text in one["modules"].items()}
        )
        for number, one in data["sources"].items()
    }
    actions = [Action(**_bytes_in(one)) for one in data["actions"]]
    entries = [Entry(**_bytes_in({**_NO_VALUE, **one}, Entry.__struct_fields__)) for one in data["entries"]]
    return Recorded(row, resealed(row, entries), actions, sources, redacted=data["redacted"])


_NO_VALUE: dict[str, Any] = dict.fromkeys(("label", "value", "inputs", "child", "after", "notes"))
"""The fields of an entry that a file leaves out."""


def _bytes_in(fields: dict[str, Any], names: Sequence[str] | None = None) -> dict[str, Any]:
    wanted = fields if names is None else names
    return {name: _in(fields[name]) if name in _BYTES else fields[name] for name in wanted if name in fields}


_BYTES = frozenset({"carried", "uid", "inputs", "inputs_hash", "value", "fp", "notes", "state"})


def _out(value: bytes) -> str:
    return b64encode(value).decode()


def _in(value: str | None) -> bytes | None:
    return None if value is None else b64decode(value)


def _bytes_out(fields: dict[str, Any]) -> dict[str, Any]:
    return {name: _out(value) if isinstance(value, bytes) else value for name, value in fields.items()}


def _entry_out(entry: Entry) -> dict[str, Any]:
    fields = {name: value for name, value in structs.asdict(entry).items() if value is not None}
    if entry.result >= Result.LOOSEN and entry.result != Result.PATCH:
        return _bytes_out(fields) | {"shown": f"{Result(entry.result).name.lower()} {entry.seq}"}
    shown = f"{Kind(entry.kind).name.lower()} {entry.name}"
    if entry.inputs:
        shown += f"({_shown_inputs(entry.inputs)})"
    if entry.value is not None and entry.result == Result.ERROR:
        kind, message, _ = describe_error(entry.value)
        shown += f" raised {kind}: {message}"
    elif entry.value is not None:
        shown += f" -> {preview(entry.value, 120)}"
    return _bytes_out(fields) | {"shown": shown}


def _shown_inputs(inputs: bytes) -> str:
    return preview(inputs, 120)


# -- redacting -------------------------------------------------------------------------------------------------


def _wanted(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(".")[2], pattern) for pattern in patterns)


def _redacted_entry(entry: Entry, patterns: Sequence[str]) -> Entry:
    if not _wanted(entry.name, patterns):
        return entry
    inputs = None if entry.inputs is None else _plain(entry.inputs)
    return structs.replace(entry, inputs=inputs, value=_value(entry.value, entry.result == Result.ERROR))


def _redacted_action(action: Action, patterns: Sequence[str]) -> Action:
    if not _wanted(action.name, patterns) or action.inputs is None:
        return action
    return action._replace(inputs=_plain(action.inputs))


def _value(data: bytes | None, is_error: bool) -> bytes | None:
    if data is None:
        return None
    return _encode(_without_texts(msgspec.msgpack.decode(data), _KEPT if is_error else frozenset()))


def _plain(data: bytes) -> bytes:
    return _encode(_without_texts(msgspec.msgpack.decode(data), frozenset()))


_encode = msgspec.msgpack.Encoder().encode


def _without_texts(value: Any, kept: frozenset[str]) -> Any:
    if isinstance(value, str):
        return REDACTED
    if isinstance(value, bytes):
        return REDACTED.encode()
    if isinstance(value, list):
        return [_without_texts(item, kept) for item in value]
    if isinstance(value, dict):
        return {key: item if key in kept else _without_texts(item, kept) for key, item in value.items()}
    return value

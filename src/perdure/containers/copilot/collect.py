"""Outputs from disk, behind a container.

An output is `<name>`, else exactly one `<name>.*`. A list or dict is a directory or one file of JSON. A union is read
as the first member that fits, in this order: None, int, bool, float, Decimal, datetime, date, timedelta, UUID,
Literal, Enum, records, list, dict, str, bytes, File, Dir. So a text that fits several members becomes the narrowest:
`"1"` in an `int | str` comes back as 1, and a file that holds `null` is None wherever None is allowed.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from perdure.containers.copilot.leaves import Leaf, read_json
from perdure.containers.copilot.names import ERROR_FILE
from perdure.containers.copilot.outputs import INLINE_LIMIT, Away, OutputEntry, OutputRefused, Outputs, Quoted
from perdure.containers.copilot.stage import FileSystem
from perdure.containers.copilot.types import Choice, Form, Listing, Reference, Table
from perdure.containers.redaction import NO_SECRETS, Redactor
from perdure.errors import OutputMissingError, OutputParseError, UsageError

_ERROR_LIMIT = 64 * 1024
_BEYOND = 64 * 1024
_SHOWN = 1000
_NON_RECOVERABLE = "non-recoverable"


class ErrorReport(NamedTuple):
    """The content of `_ERROR`."""

    text: str
    is_final: bool
    """Whether the first line forbids further attempts."""


def collect_outputs(
    directory: str,
    outputs: dict[str, tuple[Form, str]],
    files: FileSystem,
    away: Away | None = None,
    redactor: Redactor = NO_SECRETS,
) -> tuple[Any, ...]:
    """The outputs in order, from form and type label by name. Each output is found before any is taken."""
    if not outputs:
        return ()
    try:
        opened = Outputs(directory, away)
    except OSError as error:
        name, (_, label) = next(iter(outputs.items()))
        raise OutputMissingError(
            f"output {name!r} (`{label}`) is missing: the output directory cannot be opened ({error.strerror})",
            output=name,
            declared=label,
            found="no directory",
        ) from error
    try:
        with opened as top:
            places = {name: _find(top.names(), name, label) for name, (_, label) in outputs.items()}
            return tuple(
                _taken(top, places[name], name, form, label, _Collection(files, redactor))
                for name, (form, label) in outputs.items()
            )
    except (OutputMissingError, OutputParseError) as error:
        redactor.clean(error)
        raise


def _taken(top: Outputs, place: str, name: str, form: Form, label: str, collection: _Collection) -> Any:
    try:
        return collection.take(form, top.entry(place))
    except OutputRefused as refused:
        raise _parse_error(name, label, refused, collection.redactor) from refused.__cause__


def check_error_file(directory: str, redactor: Redactor = NO_SECRETS, away: Away | None = None) -> ErrorReport | None:
    """The container's account of a failure in `_ERROR` (the first 64 KiB).

    `None`: there is no such file. A file that cannot be read still says that the container failed.
    """
    try:
        with Outputs(directory, away) as top:
            if ERROR_FILE not in top.names():
                return None
            text = _head(top.entry(ERROR_FILE), redactor)
    except FileNotFoundError:
        return None
    except OutputRefused as refused:
        return ErrorReport(f"({ERROR_FILE} is there, but {refused.reason})", False)
    return ErrorReport(text, text.partition("\n")[0].strip().lower() == _NON_RECOVERABLE)


def _head(entry: OutputEntry, redactor: Redactor) -> str:
    if entry.is_dir:
        raise OutputRefused("it is a directory", entry.shown)
    # A few bytes more than are shown, so that a secret at the cut is seen whole.
    data = entry.read(_ERROR_LIMIT + _BEYOND, cut=True)
    return redactor.head(data, _ERROR_LIMIT).decode("utf-8", "replace")


def _find(names: list[str], name: str, label: str) -> str:
    if name in names:
        return name
    candidates = [other for other in names if other.startswith(f"{name}.")]
    if len(candidates) == 1:
        return candidates[0]
    if not candidates:
        there = _listed(names) or "nothing"
        raise OutputMissingError(
            f"output {name!r} (`{label}`) is missing: neither `{name}` nor `{name}.*` is in the output directory, "
            f"which holds {there}",
            output=name,
            declared=label,
            found=there,
        )
    there = _listed(candidates)
    raise OutputParseError(
        f"output {name!r} (`{label}`) is ambiguous: {there} are all there; leave one of them, or name it `{name}`",
        output=name,
        declared=label,
        found=there,
    )


def _cut(text: str) -> str:
    """A path or reason for a message: a container may nest directories as deep as it likes."""
    return text if len(text) <= _SHOWN else f"{text[: _SHOWN // 2]}…{text[-_SHOWN // 2 :]}"


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _parse_error(name: str, label: str, refused: OutputRefused, redactor: Redactor) -> OutputParseError:
    what = refused.found.shown(redactor) if isinstance(refused.found, Quoted) else refused.found
    where = "" if refused.path in ("", name) else f" at `{_cut(redactor.text(refused.path))}`"
    reason = _cut(redactor.text(refused.reason))
    found = f"; found {what}" if what and what not in refused.reason else ""
    return OutputParseError(
        f"output {name!r} (`{label}`) cannot be taken{where}: {reason}{found}",
        output=name,
        declared=label,
        found=what,
    )


class _Collection:
    """Takes one output, and counts the bytes that are read into memory."""

    def __init__(self, files: FileSystem, redactor: Redactor) -> None:
        self.files = files
        self.redactor = redactor
        self.room = INLINE_LIMIT

    def take(self, form: Form, entry: OutputEntry) -> Any:
        match form:
            case Reference():
                return self._reference(form, entry)
            case Choice():
                return self._choice(form, entry)
            case Listing() if entry.is_dir:
                return self._list(form, entry)
            case Table() if entry.is_dir:
                return {name: self.take(form.item, entry.child(name)) for name in entry.names()}
        if entry.is_dir:
            raise OutputRefused(f"a file is expected for `{form.label}`", entry.shown, "a directory")
        return _parsed(form, self._read(entry), entry.shown)

    def _read(self, entry: OutputEntry) -> bytes:
        data = entry.read(self.room)
        self.room -= len(data)
        return data

    def _reference(self, form: Reference, entry: OutputEntry) -> Any:
        if entry.is_dir != (form.kind == "dir"):
            other = "Dir" if entry.is_dir else "File"
            raise OutputRefused(f"declare it as {other} to take it as it is", entry.shown, entry.kind)
        # The name is recorded, and may hold a secret as a message may.
        name = self.redactor.text(entry.shown.rpartition("/")[-1])
        with entry.path() as path:
            take = self.files.dir_from if entry.is_dir else self.files.file_from
            try:
                return take(path, name)
            except UsageError as error:
                raise OutputRefused(str(error).replace(path, entry.shown), entry.shown) from error

    def _list(self, form: Listing, entry: OutputEntry) -> list[Any]:
        names = entry.names()
        wanted = [str(position) for position in range(len(names))]
        if set(names) != set(wanted):
            raise OutputRefused(
                "a list's directory holds `0`, `1`, ... and nothing else; declare it as dict[str, ...] or Dir to take "
                "other names",
                entry.shown,
                _listed(names),
            )
        return [self.take(form.item, entry.child(name)) for name in wanted]

    def _choice(self, form: Choice, entry: OutputEntry) -> Any:
        if entry.is_dir:
            return self._first(form, entry, [item for item in form.tries if item.kind in ("list", "dict", "dir")])
        inline = [item for item in form.tries if not isinstance(item, Reference)]
        file = next((item for item in form.tries if item.kind == "file"), None)
        failures: list[OutputRefused] = []
        # Beside None alone a File is not read: `null` is short.
        most = self.room if any(item.kind != "none" for item in inline) else 64
        if file is None or entry.found.st_size <= most:
            data = self._read(entry)
            for member in inline:
                try:
                    return _parsed(member, data, entry.shown)
                except OutputRefused as refused:
                    failures.append(refused)
            if file is None:
                if len([item for item in inline if item.kind != "none"]) == 1:
                    raise failures[-1]  # an Optional: name the fault of its only type
                raise OutputRefused(f"it fits no member of `{form.label}`", entry.shown, Quoted(data))
        assert isinstance(file, Reference)
        return self._reference(file, entry)

    def _first(self, form: Choice, entry: OutputEntry, members: list[Any]) -> Any:
        for member in members:
            try:
                return self.take(member, entry)
            except OutputRefused as refused:
                if len(members) == 1:
                    raise
                last = refused
        if not members:
            raise OutputRefused(f"a file is expected for `{form.label}`", entry.shown, "a directory")
        raise last


def _parsed(form: Leaf | Listing | Table | Reference, data: bytes, shown: str) -> Any:
    try:
        return form.read(data) if isinstance(form, Leaf) else _of_json(form, read_json(data))
    except OutputRefused as refused:
        raise OutputRefused(refused.reason, f"{shown}{refused.path}", refused.found) from refused.__cause__
    except Exception as error:  # validators are user code
        raise OutputRefused(_reason(error, form.label), shown, Quoted(data)) from error


def _of_json(form: Form, data: Any) -> Any:
    """A value from inside a file of JSON."""
    match form:
        case Listing() if type(data) is list:
            return [_inside(form.item, item, f"[{position}]") for position, item in enumerate(data)]
        case Table() if type(data) is dict:
            return {key: _inside(form.item, item, f"[{key!r}]") for key, item in data.items()}
        case Leaf():
            return form.load(data)
        case Choice():
            for member in form.tries:
                try:
                    return _of_json(member, data)
                except Exception:
                    continue
        case Reference():
            raise ValueError(f"a {form.label} comes as a file of its own in a directory, not inside JSON")
    raise ValueError(f"`{form.label}` is expected")


def _inside(form: Form, data: Any, step: str) -> Any:
    try:
        return _of_json(form, data)
    except OutputRefused as refused:
        raise OutputRefused(refused.reason, f"{step}{refused.path}", refused.found) from refused.__cause__
    except Exception as error:
        raise OutputRefused(_reason(error, form.label), step, Quoted(_as_text(data))) from error


def _reason(error: Exception, label: str) -> str:
    return f"it is not a `{label}` ({_told(error)})"


def _told(error: Exception) -> str:
    """The text of an exception. Pydantic's own text quotes the input cut short, so that a secret could not be found."""
    errors = getattr(error, "errors", None)
    if callable(errors) and type(error).__module__.startswith("pydantic"):
        found = errors(include_url=False, include_input=False, include_context=False)
        return "; ".join(f"{'.'.join(map(str, each['loc']))}: {each['msg']}".removeprefix(": ") for each in found)
    return str(error)


def _as_text(data: Any) -> bytes:
    """A value from inside JSON, to be quoted."""
    try:
        return data.encode("utf-8", "replace") if isinstance(data, str) else json.dumps(data).encode()
    except (ValueError, RecursionError):
        return type(data).__name__.encode()

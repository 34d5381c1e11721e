"""Outputs from disk, behind a container.

An output is `<name>`, else exactly one `<name>.*`. A list or dict is a directory or one file of JSON. A union is read
as the first member that fits, in this order: None, int, bool, float, Decimal, datetime, date, timedelta, UUID,
Literal, Enum, records, list, dict, str, bytes, File, Dir. So what could be either is the narrower one: `"1"` in an
`int | str` comes back as 1, and a file that holds `null` is None wherever None is allowed.
"""

from __future__ import annotations

from typing import Any

from perdure.containers.copilot.leaves import Leaf, read_json
from perdure.containers.copilot.names import ERROR_FILE
from perdure.containers.copilot.outputs import INLINE_LIMIT, Away, Entry, Outputs, Refused
from perdure.containers.copilot.stage import FileSystem
from perdure.containers.copilot.types import Choice, Form, Listing, Reference, Table
from perdure.errors import OutputMissingError, OutputParseError, UsageError

_ERROR_LIMIT = 64 * 1024
_NON_RECOVERABLE = "non-recoverable"


def collect_outputs(
    directory: str, outputs: dict[str, tuple[Form, str]], files: FileSystem, away: Away | None = None
) -> tuple[Any, ...]:
    """The outputs, by name their form and their type as text, in order. Each is found before any is taken."""
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
    with opened as top:
        places = {name: _find(top.names(), name, label) for name, (_, label) in outputs.items()}
        values = []
        for name, (form, label) in outputs.items():
            try:
                values.append(_Collection(files).take(form, top.entry(places[name])))
            except Refused as refused:
                raise _parse_error(name, label, refused) from refused.__cause__
    return tuple(values)


def check_error_file(directory: str, away: Away | None = None) -> tuple[str, bool] | None:
    """What the container says in `_ERROR` (its first 64 KiB), and whether its first line forbids to try again.

    `None`: it left no such file. One that cannot be read says that it failed all the same.
    """
    try:
        with Outputs(directory, away) as top:
            if ERROR_FILE not in top.names():
                return None
            text = _head(top.entry(ERROR_FILE))
    except FileNotFoundError:
        return None
    except Refused as refused:
        return f"({ERROR_FILE} is there, but {refused.reason})", False
    return text, text.partition("\n")[0].strip().lower() == _NON_RECOVERABLE


def _head(entry: Entry) -> str:
    if entry.is_dir:
        raise Refused("it is a directory", entry.shown)
    return entry.read(_ERROR_LIMIT, cut=True).decode("utf-8", "replace")


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


def _listed(names: list[str]) -> str:
    shown = ", ".join(ascii(name)[1:-1] for name in names[:20])
    return f"{shown} and {len(names) - 20} more" if len(names) > 20 else shown


def _parse_error(name: str, label: str, refused: Refused) -> OutputParseError:
    where = "" if refused.path in ("", name) else f" at `{refused.path}`"
    found = f"; found {refused.found}" if refused.found and refused.found not in refused.reason else ""
    return OutputParseError(
        f"output {name!r} (`{label}`) cannot be taken{where}: {refused.reason}{found}",
        output=name,
        declared=label,
        found=refused.found,
    )


class _Collection:
    """One output; what it reads into memory is counted."""

    def __init__(self, files: FileSystem) -> None:
        self.files = files
        self.room = INLINE_LIMIT

    def take(self, form: Form, entry: Entry) -> Any:
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
            raise Refused(f"a file is expected for `{form.label}`", entry.shown, "a directory")
        return _parsed(form, self._read(entry), entry.shown)

    def _read(self, entry: Entry) -> bytes:
        data = entry.read(self.room)
        self.room -= len(data)
        return data

    def _reference(self, form: Reference, entry: Entry) -> Any:
        if entry.is_dir != (form.kind == "dir"):
            other = "Dir" if entry.is_dir else "File"
            raise Refused(f"declare it as {other} to take it as it is", entry.shown, entry.kind)
        name = entry.shown.rpartition("/")[2]
        with entry.path() as path:
            take = self.files.dir_from if entry.is_dir else self.files.file_from
            try:
                return take(path, name)
            except UsageError as error:
                raise Refused(str(error).replace(path, entry.shown), entry.shown) from error

    def _list(self, form: Listing, entry: Entry) -> list[Any]:
        names = entry.names()
        wanted = [str(position) for position in range(len(names))]
        if set(names) != set(wanted):
            raise Refused(
                "a list's directory holds `0`, `1`, ... and nothing else; declare it as dict[str, ...] or Dir to take "
                "other names",
                entry.shown,
                _listed(names),
            )
        return [self.take(form.item, entry.child(name)) for name in wanted]

    def _choice(self, form: Choice, entry: Entry) -> Any:
        if entry.is_dir:
            return self._first(form, entry, [item for item in form.tries if item.kind in ("list", "dict", "dir")])
        inline = [item for item in form.tries if not isinstance(item, Reference)]
        file = next((item for item in form.tries if item.kind == "file"), None)
        failures: list[Refused] = []
        # Beside None alone a File is not read: `null` is short.
        most = self.room if any(item.kind != "none" for item in inline) else 64
        if file is None or entry.found.st_size <= most:
            data = self._read(entry)
            for member in inline:
                try:
                    return _parsed(member, data, entry.shown)
                except Refused as refused:
                    failures.append(refused)
            if file is None:
                if len([item for item in inline if item.kind != "none"]) == 1:
                    raise failures[-1]  # an Optional: what is wrong with its one type
                raise Refused(f"it fits no member of `{form.label}`", entry.shown, _shortened(data))
        assert isinstance(file, Reference)
        return self._reference(file, entry)

    def _first(self, form: Choice, entry: Entry, members: list[Any]) -> Any:
        for member in members:
            try:
                return self.take(member, entry)
            except Refused as refused:
                if len(members) == 1:
                    raise
                last = refused
        if not members:
            raise Refused(f"a file is expected for `{form.label}`", entry.shown, "a directory")
        raise last


def _parsed(form: Leaf | Listing | Table | Reference, data: bytes, shown: str) -> Any:
    try:
        return form.read(data) if isinstance(form, Leaf) else _of_json(form, read_json(data))
    except Refused as refused:
        raise Refused(refused.reason, f"{shown}{refused.path}", refused.found) from refused.__cause__
    except Exception as error:  # validators are anybody's code
        raise Refused(_reason(error, form.label), shown, _shortened(data)) from error


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
    except Refused as refused:
        raise Refused(refused.reason, f"{step}{refused.path}", refused.found) from refused.__cause__
    except Exception as error:
        raise Refused(_reason(error, form.label), step, _shortened(str(data).encode("utf-8", "replace"))) from error


def _reason(error: Exception, label: str) -> str:
    return f"it is not a `{label}` ({error})"


def _shortened(data: bytes) -> str:
    """Content inside a message: text as text, other bytes as such."""
    try:
        text = repr(data[:80].decode())
    except UnicodeDecodeError:
        text = repr(data[:40])
    return f"{text}… ({len(data):,} bytes)" if len(data) > 80 else text

"""The content of files in a run's values: a preview, the pictures in it, and downloads.

An address names a run, an action, and the number of a reference in a recorded value; for a file in a directory also
the number in the directory's manifest. No address names a path, a hash or a URL, so nothing but content of this store
that the run has recorded is ever read. Content at a URL of the user's lies outside of the store and is not read.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO, Final, NamedTuple

from .. import runtime
from ..api import looking
from ..api.files.file import File
from ..api.files.folder import Dir
from ..api.files.frame import DataFrame
from ..api.files.reference import ContentReference
from ..api.looking import ActionNode
from ..errors import PerdureError, UsageError
from .filters import number
from .settings import UiSettings
from .values import HeldReference, Mask

START: Final = 64 << 10
"""Bytes of a file that a preview reads."""
LARGEST_PICTURE: Final = 10 << 20
"""Bytes of a picture that is shown."""
ROWS: Final = 100
COLUMNS: Final = 30
CELL: Final = 200
"""Characters of a cell of a table."""
LISTED: Final = 500
"""Files of a directory that are listed."""
NODES: Final = 1_000
"""Values in a tree of JSON."""
DEPTH: Final = 20
CHUNK: Final = 256 << 10

_PICTURES: Final = (
    (b"\x89PNG\r\n\x1a\n", "image/png"), (b"\xff\xd8\xff", "image/jpeg"), (b"GIF87a", "image/gif"),
    (b"GIF89a", "image/gif"),
)  # fmt: skip


class ShownFile(NamedTuple):
    """A file that an address names."""

    name: str
    """For people: any bytes of a name as text."""
    raw_name: bytes
    file: File


def held(mask: Mask, node: ActionNode, which: str) -> list[HeldReference]:
    """The references in the inputs or the outcome of an action."""
    return mask.references(node.inputs if which == "inputs" else node.value, inputs=which == "inputs")


def listed(mask: Mask, node: ActionNode) -> list[dict[str, Any]]:
    """The references of an action as data for its page."""
    return [
        {"which": which, "number": at, "where": one.where, **_described(one.reference)}
        for which in ("inputs", "outcome")
        for at, one in enumerate(held(mask, node, which))
    ]


def _described(one: ContentReference) -> dict[str, Any]:
    kind = "directory" if isinstance(one, Dir) else "data frame" if isinstance(one, DataFrame) else "file"
    return {"name": shown_name(one.name), "kind": kind, "size": one.size, "url": one.url or None}


def shown_name(name: str) -> str:
    """A name of a file as text that can be printed."""
    return os.fsencode(name).decode("utf-8", "replace")


def _reference(ui: UiSettings, asked: Mapping[str, str]) -> HeldReference:
    name, which = asked.get("name", ""), asked.get("which", "outcome")
    at, n = number(asked.get("at", "0"), "at"), number(asked.get("n", "0"), "n")
    picture = looking.picture(name)
    if at >= picture.total or which not in ("inputs", "outcome"):
        raise UsageError(f"run {name!r} has no such value")
    found = held(ui.mask, picture.node(at), which)
    if n >= len(found):
        raise UsageError(f"the {which} of action {at} of run {name!r} has no file of number {n}")
    return found[n]


def _chosen(reference: ContentReference, files: dict[str, File], asked: Mapping[str, str]) -> ShownFile | None:
    """The file that is asked for; `None`: a directory without a choice."""
    if isinstance(reference, DataFrame):
        return _shown(reference.file)
    if isinstance(reference, File):
        return _shown(reference)
    if "entry" not in asked:
        return None
    entry = number(asked["entry"], "entry")
    if entry >= len(files):
        raise UsageError(f"directory {shown_name(reference.name)!r} has no file of number {entry}")
    return _shown(list(files.values())[entry])


def _shown(file: File) -> ShownFile:
    return ShownFile(shown_name(file.name), os.fsencode(file.name), file)


def _files(reference: ContentReference) -> dict[str, File]:
    return reference.files() if isinstance(reference, Dir) else {}


def file_page(ui: UiSettings, asked: Mapping[str, str]) -> dict[str, Any]:
    """A file of a run's value with a preview, or a directory with its files."""
    held_one = _reference(ui, asked)
    reference = held_one.reference
    files: dict[str, File] = {}
    preview, problem, shown = None, None, None
    try:
        files = _files(reference)
        shown = _chosen(reference, files, asked)
        if shown is not None:
            preview = _preview(ui, shown.file)
    except UsageError:
        raise
    except PerdureError as error:
        problem = str(error)
    if shown is not None and shown.file.url:
        problem = f"The content lies at {shown.file.url}, outside of the store, and is not shown here."
    place = {"name": asked.get("name", ""), "at": asked.get("at", "0"), "which": asked.get("which", "outcome")}
    return {
        "run": place["name"],
        "place": {**place, "n": asked.get("n", "0")},
        "entry": asked.get("entry") if shown is not None and isinstance(reference, Dir) else None,
        "where": held_one.where,
        "top": _described(reference),
        "file": None if shown is None else {"name": shown.name, "size": shown.file.size, "hash": shown.file.hash},
        "entries": [{"path": shown_name(path), "size": file.size} for path, file in list(files.items())[:LISTED]],
        "left_out": max(0, len(files) - LISTED),
        "preview": preview,
        "problem": problem,
    }


# -- previews --------------------------------------------------------------------------------------------------


def _preview(ui: UiSettings, file: File) -> dict[str, Any] | None:
    if file.url:
        return None
    start = runtime.blobs().start(file.hash, file.size, START)
    cut = file.size > len(start)
    if _picture_type(start) is not None:
        return {"kind": "picture", "shown": file.size <= LARGEST_PICTURE, "cut": False}
    text = _text(start, cut)
    if text is None:
        return {"kind": "binary", "cut": False}
    ending = file.name.lower().rpartition(".")[2]
    found = None
    if ending == "json" and not cut:
        found = _json(ui.mask, text)
    elif ending in ("csv", "tsv"):
        found = _table(text, "\t" if ending == "tsv" else ",", cut)
    return found or {"kind": "text", "text": text, "cut": cut}


def _picture_type(start: bytes) -> str | None:
    if start[:4] == b"RIFF" and start[8:12] == b"WEBP":
        return "image/webp"
    return next((kind for magic, kind in _PICTURES if start.startswith(magic)), None)


def _text(start: bytes, cut: bool) -> str | None:
    """The bytes as text; `None`: they are no text."""
    if b"\0" in start:
        return None
    for tail in range(4 if cut else 1):  # the last character may be cut in two
        try:
            return start[: len(start) - tail].decode("utf-8-sig")
        except UnicodeDecodeError:
            continue
    return None


def _table(text: str, delimiter: str, cut: bool) -> dict[str, Any] | None:
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error:
        return None
    if cut and len(rows) > 1:
        rows.pop()  # only a part of the row was read
    wide = max(map(len, rows), default=0) > COLUMNS
    kept = [[cell[:CELL] for cell in row[:COLUMNS]] for row in rows[: ROWS + 1]]
    if not kept:
        return None
    return {"kind": "table", "head": kept[0], "rows": kept[1:], "cut": cut or wide or len(rows) > len(kept)}


def _json(mask: Mask, text: str) -> dict[str, Any] | None:
    try:
        data = mask.masked(json.loads(text))
    except (ValueError, RecursionError):
        return None
    left = [NODES]
    return {"kind": "json", "tree": _node("", data, left, 0), "cut": left[0] <= 0}


def _node(key: str, value: Any, left: list[int], depth: int) -> dict[str, Any]:
    """A value as a node of a tree. `left`: how many more nodes may be made."""
    left[0] -= 1
    if not isinstance(value, (dict, list)):
        text = json.dumps(value, ensure_ascii=False)
        return {"key": key, "text": text if len(text) <= CELL else f"{text[:CELL]}…", "parts": None}
    parts: list[dict[str, Any]] = []
    items = value.items() if isinstance(value, dict) else enumerate(value)
    for name, part in items:
        if left[0] <= 0 or depth == DEPTH:
            parts.append({"key": "…", "text": "", "parts": None})
            left[0] = min(left[0], 0)
            break
        parts.append(_node(str(name), part, left, depth + 1))
    word = f"{len(value)} {'fields' if isinstance(value, dict) else 'items'}"
    return {"key": key, "text": word, "parts": parts}


# -- content ---------------------------------------------------------------------------------------------------


class SentContent(NamedTuple):
    """Content to send to a browser."""

    raw_name: bytes
    size: int
    chunks: Iterator[bytes]


def content(ui: UiSettings, asked: Mapping[str, str]) -> SentContent:
    """The content of a file, for a download.

    Raises:
        UsageError: there is no such file, or the content lies outside of the store.
        StoreError: the content is gone.
    """
    shown = _asked_file(ui, asked)
    # Opened here, so that a missing content is an answer and not a response that breaks off.
    stream = runtime.blobs().open(shown.file.hash, shown.file.size)
    return SentContent(shown.raw_name, shown.file.size, _chunks(stream))


def _asked_file(ui: UiSettings, asked: Mapping[str, str]) -> ShownFile:
    reference = _reference(ui, asked).reference
    shown = _chosen(reference, _files(reference), asked)
    if shown is None:
        raise UsageError("a directory is no file: choose one of its files")
    if shown.file.url:
        raise UsageError(f"the content lies at {shown.file.url}, outside of the store, and is not sent from here")
    return shown


def _chunks(stream: BinaryIO) -> Iterator[bytes]:
    with stream:
        while chunk := stream.read(CHUNK):
            yield chunk


class SentPicture(NamedTuple):
    """A picture for a page."""

    media_type: str
    data: bytes


def picture(ui: UiSettings, asked: Mapping[str, str]) -> SentPicture:
    """A picture of a known kind. The bytes tell the kind: neither the name nor the value does.

    Raises:
        UsageError: there is no such picture, or the picture is too large.
        StoreError: the content is gone.
    """
    file = _asked_file(ui, asked).file
    data = runtime.blobs().start(file.hash, file.size, LARGEST_PICTURE + 1)
    media_type = _picture_type(data)
    if media_type is None or len(data) > LARGEST_PICTURE:
        raise UsageError(f"{shown_name(file.name)!r} is no picture that can be shown")
    return SentPicture(media_type, data)

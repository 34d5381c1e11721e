"""Data that a container or a bucket gives, of any kind: a value or a typed error, in bounded time, and nothing else."""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzz.budget import examples, kept

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers._wire import Lines
from perdure.containers.copilot import Interface, check_error_file
from perdure.containers.engine import LineCutter
from perdure.containers.kubernetes import tree
from perdure.containers.kubernetes.status import look
from perdure.containers.redaction import Redactor
from perdure.core.ground.trees import remove_tree
from perdure.errors import OutputMissingError, OutputParseError, StoreError
from perdure.io import Dir, File


class Color(Enum):
    RED = "r"


@dataclass
class Point:
    x: int = 0
    tags: set[int] = field(default_factory=set)


TYPES: list[Any] = [
    str, int, bool, float, bytes, datetime, date, timedelta, Decimal, UUID, None, Color, Literal["a", 1], Point,
    list[int], dict[str, float], list[Point], int | str | None, File, Dir, File | None, list[dict[str, Decimal]],
]  # fmt: skip
TEXTS = st.one_of(
    st.text(st.sampled_from("0123456789.+-eExXpP_infaNTZ:,dhmsµnuPWD \n"), max_size=200),
    st.text(max_size=200),
    st.builds(lambda part, count, end: part * count + end, st.text(min_size=1, max_size=4), st.integers(1, 20_000),
              st.text(max_size=3)),
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=5) | st.dictionaries(st.text(max_size=5), inner, max_size=5),
)
CONTENT = st.one_of(st.binary(max_size=300), TEXTS.map(lambda text: text.encode("utf-8", "replace")),
                    JSON.map(lambda data: json.dumps(data).encode()))  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runtime.init(str(tmp_path_factory.mktemp("store") / "perdure.db"))
    yield
    runtime.init()


@pytest.fixture(scope="module")
def top() -> Iterator[Path]:
    folder = tempfile.mkdtemp()
    yield Path(folder)
    remove_tree(folder)


@kept("outputs", "content", type=list[int])
@kept("outputs", "content", type=int)
@given(type=st.sampled_from(TYPES), content=CONTENT)
@examples(300)
def test_any_content_of_an_output_is_a_value_or_a_typed_error(top: Path, type: Any, content: bytes) -> None:
    (top / "x").write_bytes(content)
    begun, said = time.process_time(), ""
    try:
        Interface({}, {"x": type}, files=ContainerFiles()).collect(str(top))
    except OutputParseError as error:
        said = str(error)
    assert len(said) < 5000
    assert time.process_time() - begun < 5
    (top / "x").unlink()


ENTRIES = st.dictionaries(
    st.sampled_from(["x", "x.a", "x.b", "0", "1", "_ERROR", "k"]),
    st.sampled_from(["file", "folder", "fifo", "loop", "out", "up", "self", "odd"]),
    max_size=4,
)


@given(type=st.sampled_from(TYPES), above=ENTRIES, below=ENTRIES)
@examples(200)
def test_any_directory_is_a_value_or_a_typed_error(type: Any, above: dict[str, str], below: dict[str, str]) -> None:
    folder = tempfile.mkdtemp()
    try:
        made(Path(folder), above)
        for name, kind in above.items():
            if kind == "folder":
                made(Path(folder) / name, below)
        check_error_file(folder)
        Interface({}, {"x": type}, files=ContainerFiles()).collect(folder)
    except (OutputParseError, OutputMissingError):
        pass
    finally:
        remove_tree(folder)


def made(folder: Path, entries: dict[str, str]) -> None:
    for name, kind in entries.items():
        place = folder / name
        match kind:
            case "file":
                place.write_text("1")
            case "folder":
                place.mkdir()
            case "fifo":
                os.mkfifo(place)
            case "odd":
                Path(os.fsdecode(os.fsencode(folder) + b"/" + name.encode() + b".\xff")).touch()
            case link:
                place.symlink_to({"loop": name, "out": "/etc/passwd", "up": "../..", "self": "."}[link])


PATHS = st.lists(st.sampled_from([b"a", b"b", b"", b".", b"..", b"\0", b"x" * 300]), max_size=4).map(b"/".join)
ITEMS = st.tuples(
    PATHS,
    st.sampled_from(["dir", "data", "file", "exec", "link", "other", "", "x"]),
    st.sampled_from([b"", b"x", b"h" * 32, b"../..", b"/etc"]),
    st.sampled_from([0, 1, -1, 1 << 46, 1 << 62]),
    st.sampled_from(["", "outputs/0", "../x", "about", "sha256/00"]),
)


class Manifest:
    """A bucket with nothing but a manifest."""

    url = "s3://bucket/attempt"

    def __init__(self, data: bytes) -> None:
        self.data = data

    def get(self, key: str) -> bytes | None:
        return self.data

    def download(self, key: str, size: int, part: str) -> None:
        raise FileNotFoundError(key)


@kept("trees")
@given(
    data=st.one_of(
        st.binary(max_size=100), st.lists(ITEMS, max_size=6).map(lambda items: msgspec.msgpack.encode((1, items)))
    )
)
@examples(300)
def test_any_manifest_is_a_tree_inside_or_a_typed_error(data: bytes) -> None:
    folder = tempfile.mkdtemp()
    inside = os.path.join(folder, "in")
    os.mkdir(inside)
    try:
        tree.fetch(Manifest(data), inside)  # type: ignore[arg-type]
    except StoreError:
        assert os.listdir(inside) == []
    finally:
        assert os.listdir(folder) == ["in"]
        remove_tree(folder)


@given(pieces=st.lists(st.binary(max_size=40), max_size=20))
@examples(100)
def test_any_log_stream_becomes_lines(pieces: list[bytes]) -> None:
    lines = Lines()
    for piece in pieces:
        list(lines.feed(piece))
    found = list(lines.end())
    assert all(len(line.data) <= LineCutter.LONGEST for line in found)


@given(
    before=st.binary(max_size=50),
    after=st.binary(max_size=50),
    cut=st.integers(0, 20),
    secret=st.text(min_size=4, max_size=20),
)
@examples(100)
def test_no_cut_shows_a_part_of_a_secret(before: bytes, after: bytes, cut: int, secret: str) -> None:
    hidden = secret.encode()
    data = before + hidden + after
    at = len(before) + min(cut, len(hidden))
    redactor = Redactor([secret])
    first, second = redactor.data(data[:at], closes=False), redactor.data(data[at:], opens=False)
    for piece in (first, second):
        assert hidden not in piece
    if 0 < min(cut, len(hidden)) < len(hidden):
        assert b"***" in first
        assert b"***" in second


@given(phase=st.sampled_from(["", "Pending", "Running", "Succeeded", "Failed", "Odd"]), reason=st.text(max_size=10))
@examples(100)
def test_any_phase_is_a_state(phase: str, reason: str) -> None:
    state = look({"metadata": {}, "spec": {}, "status": {"phase": phase, "reason": reason}}, 1.0)
    assert state.step is not None

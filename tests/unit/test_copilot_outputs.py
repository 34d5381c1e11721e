"""Outputs as containers really leave them: other forms of text, missing and wrong ones, and hostile directories."""

from __future__ import annotations

import json
import os
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from enum import Enum
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import pydantic
import pytest

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers.copilot import Interface, check_error_file, outputs
from perdure.errors import OutputMissingError, OutputParseError
from perdure.io import Dir, File


@pytest.fixture(scope="module", autouse=True)
def _store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    runtime.init(str(tmp_path_factory.mktemp("store") / "perdure.db"))
    yield
    runtime.init()


@pytest.fixture
def out(tmp_path: Path) -> Path:
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def collect(type: Any, out: Path) -> Any:
    [value] = Interface({}, {"x": type}, files=ContainerFiles()).collect(str(out))
    return value


def refused(type: Any, out: Path, *words: str) -> OutputParseError:
    with pytest.raises(OutputParseError) as caught:
        collect(type, out)
    assert caught.value.output == "x"
    for word in words:
        assert word in str(caught.value)
    return caught.value


class Color(Enum):
    RED = "red"


@dataclass
class Point:
    x: int

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x is negative")


class Model(pydantic.BaseModel):
    x: int


# -- text ------------------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1, minutes=2, seconds=3)


@pytest.mark.parametrize(
    ("type", "data", "value"),
    [
        (str, b"a\n", "a"),
        (str, b"a\r\n", "a\r"),
        (str, b" \n a b\n\n ", "a b"),
        (str, b"\t\ta\tb\t\n", "a\tb"),
        (str, b"\xc2\xa0a\x0b\n", "\xa0a\x0b"),
        (str, b" a ", "a"),
        (str, b"a\r", "a\r"),
        (str, b"null", "null"),
        (int, b" 7\n", 7),
        (int, b"+7", 7),
        (int, b"-0", 0),
        (bool, b"True\n", True),
        (bool, b"FALSE\r\n", False),
        (bool, b"1", True),
        (bool, b"T", True),
        (bool, b"t\n", True),
        (bool, b"F", False),
        (bool, b"f", False),
        (bool, b"0\n", False),
        (float, b"1e3", 1000.0),
        (float, b".5", 0.5),
        (float, b"5.", 5.0),
        (float, b"1_0.5_0e+0_1", 105.0),
        (float, b"0x1p-2", 0.25),
        (float, b"-0X1.8P3\n", -12.0),
        (float, b"0x_1_0p0", 16.0),
        (float, b"+Inf", float("inf")),
        (float, b"-inf", float("-inf")),
        (float, b"Infinity", float("inf")),
        (timedelta, b"1h2m3s\n", HOUR),
        (timedelta, b"PT1H2M3S", HOUR),
        (timedelta, b"1:02:03", HOUR),
        (timedelta, b"1 day, 2:03:04.5", timedelta(days=1, hours=2, minutes=3, seconds=4.5)),
        (timedelta, b"0", timedelta(0)),
        (datetime, b"2026-11-22T10:00:00Z\n", datetime(2026, 11, 22, 10, tzinfo=UTC)),
        (datetime, b"2026-11-22T12:00:00.123456789+02:00", datetime(2026, 11, 22, 10, 0, 0, 123456, tzinfo=UTC)),
        (Color, b" RED\n", Color.RED),
        (Color, b" red\n", Color.RED),
        (Literal["a", True], b"true\n", True),
        (bytes, b" a\n", b" a\n"),
        (None, b"null\n", None),
        (int | None, b"null\n", None),
        (int | None, b"3", 3),
        (str | None, b"null", None),
        (str | None, b"text", "text"),
        (int | float, b"3", 3),
        (int | float, b"3.5", 3.5),
        (int | str, b"1", 1),
        (bool | str, b"true\n", True),
        (str | bytes, b"\xff", b"\xff"),
        (str | Point, b'{"x": 1}', Point(1)),
        (Point, b'{"x": 1, "more": 2}\n', Point(1)),
        (Model, b'{"x": 1}', Model(x=1)),
        (list[int], b"[1, 2]", [1, 2]),
        (list[int | str], b'[1, "1"]', [1, "1"]),
        (list[float], b"[NaN, 1]", None),
        (dict[str, int], b'{"../a": 1}', {"../a": 1}),
        (list[timedelta], b'["1h2m3s", 1000]', [HOUR, timedelta(microseconds=1)]),
        (list[bytes], b'["/wA="]', [b"\xff\x00"]),
        (dict[str, int] | int, b'{"a": 1}', {"a": 1}),
    ],
)  # fmt: skip
def test_a_file_holds_this_value(out: Path, type: Any, data: bytes, value: Any) -> None:
    (out / "x").write_bytes(data)
    found = collect(type, out)
    if data == b"[NaN, 1]":
        assert found[0] != found[0]
        assert found[1] == 1.0
    else:
        assert found == value
        assert found.__class__ is value.__class__


@pytest.mark.parametrize(
    ("type", "data", "said"),
    [
        (str, b"\xff\xfe", "declare it as bytes or File"),
        (int, b"", "digits"),
        (int, b"1.0", "digits"),
        (int, b"1_000", "digits"),
        (int, "٣".encode(), "digits"),
        (int, b"1 2", "digits"),
        (int, b"9" * 5000, "int"),
        (bool, b"yes", "true, false, t, f, 1 or 0"),
        (bool, b"", "true, false, t, f, 1 or 0"),
        (bool, b"2", "true, false, t, f, 1 or 0"),
        (float, b"1__0", "a number is expected"),
        (float, b"_1", "a number is expected"),
        (float, b"1_.5", "a number is expected"),
        (float, b"0x1", "a number is expected"),
        (float, b"0b1", "a number is expected"),
        (float, b"1e999", "over the range"),
        (float, b"0x1p9999", "over the range"),
        (datetime, b"2026-11-22T10:00:00", "offset"),
        (datetime, b"2026-11-22", "RFC 3339"),
        (datetime, b"2026-13-22T10:00:00Z", "month"),
        (timedelta, b"1h 2m", "1h2m3s"),
        (timedelta, b"P1Y", "PT1H2M3S"),
        (timedelta, b"9" * 30 + b"h", "longer"),
        (Color, b"Red", "one of RED"),
        (Literal["a"], b"b", "one of a"),
        (None, b"", "null"),
        (int | None, b"abc", "digits"),
        (int | bool, b"abc", "no member"),
        (Point, b'{"x": "1"}', "int"),
        (Point, b'{"x": -1}', "x is negative"),
        (Point, b"{", "it is not a `Point`"),
        (Model, b'{"x": "one"}', "valid integer"),
        (Point, b"[" * 100_000, "nested too deeply"),
        (list[int], b'[1, "2"]', "int is expected"),
        (list[int], b"[true]", "int is expected"),
        (list[int], b"{}", "`list[int]` is expected"),
        (dict[str, int], b"[]", "`dict[str, int]` is expected"),
        (list[File], b'["/etc/passwd"]', "a File comes as a file of its own"),
        (list[bytes], b'["**"]', "base64"),
        (list[str], b'["\\ud800', "it is not"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(out: Path, type: Any, data: bytes, said: str) -> None:
    (out / "x").write_bytes(data)
    error = refused(type, out, said)
    assert len(str(error)) < 1000


DIGITS = b"9" * 40_000


@pytest.mark.parametrize(
    "type", [int, float, Decimal, datetime, date, timedelta, UUID, bool, Color, int | float | None]
)
@pytest.mark.parametrize(
    "data",
    [
        DIGITS + b"x", b"0." + DIGITS + b"x", DIGITS + b"." + DIGITS + b"e", b"0x" + DIGITS + b"p", b"1_" * 20_000,
        b"2026-11-22T10:00:00." + DIGITS, b"1s" * 20_000 + b"x", b"P" + DIGITS + b"W" + DIGITS + b"D",
        DIGITS + b" days, 1:02:0", b"-" * 40_000, b" " * 40_000 + b"x",
    ],
    ids=range(11),
)  # fmt: skip
def test_a_long_text_is_refused_in_linear_time(out: Path, type: Any, data: bytes) -> None:
    """Patterns over outside text never backtrack: a float of 40,000 digits and an x once took 45 s of CPU."""
    (out / "x").write_bytes(data)
    begun = time.process_time()
    error = refused(type, out)
    assert time.process_time() - begun < 1.0
    assert len(str(error)) < 1000


@pytest.mark.parametrize("type", [list[int], list[float], dict[str, Decimal], Point])
def test_long_numbers_in_json_are_refused_in_linear_time(out: Path, type: Any) -> None:
    (out / "x").write_bytes(b'{"x": 0.' + b"3" * 4_000_000 + b"e}")
    begun = time.process_time()
    refused(type, out)
    assert time.process_time() - begun < 2.0


@dataclass
class Hashed:
    numbers: set[int] = field(default_factory=set)
    frozen: frozenset[float] = field(default_factory=frozenset)
    table: dict[int, int] = field(default_factory=dict)
    pairs: set[tuple[int, int]] = field(default_factory=set)
    inner: list[dict[str, set[int]]] = field(default_factory=list)


class HashedModel(pydantic.BaseModel):
    numbers: set[int] = set()
    table: dict[int, int] = {}


COLLIDING = [(2**61 - 1) * number for number in range(1, 20_001)]


@pytest.mark.parametrize(
    ("type", "data"),
    [
        (Hashed, {"numbers": COLLIDING}),
        (Hashed, {"table": {str(number): 1 for number in COLLIDING}}),
        (Hashed, {"pairs": [[number, 1] for number in COLLIDING]}),
        (Hashed, {"inner": [{"k": COLLIDING}]}),
        (HashedModel, {"numbers": COLLIDING}),
        (HashedModel, {"table": {str(number): 1 for number in COLLIDING}}),
    ],
)
def test_numbers_of_a_single_hash_are_refused(out: Path, type: Any, data: Any) -> None:
    """A set of colliding integers in 500 KB took 95 s of CPU."""
    (out / "x").write_text(json.dumps(data))
    begun = time.process_time()
    refused(type, out, "collide")
    assert time.process_time() - begun < 10


def test_a_large_set_of_ordinary_numbers_is_taken(out: Path) -> None:
    numbers = [number * 12_345 for number in range(100_000)]
    (out / "x").write_text(json.dumps({"numbers": numbers, "table": {str(number): 1 for number in numbers}}))
    found = collect(Hashed, out)
    assert found.numbers == set(numbers)
    assert list(found.table) == numbers


def test_a_refusal_names_the_output_its_type_and_the_content(out: Path) -> None:
    (out / "x").mkdir()
    (out / "x" / "0").write_text("1")
    (out / "x" / "1").write_text("one")
    error = refused(list[int], out, "output 'x' (`list[int]`)", "at `x/1`", "'one'")
    assert (error.output, error.declared, error.found) == ("x", "list[int]", "'one'")
    (out / "x" / "1").unlink()
    (out / "x" / "0").rename(out / "x" / "01")
    refused(list[int], out, "`0`, `1`, ...", "01")


def test_several_outputs_come_in_declared_order(out: Path) -> None:
    (out / "b").write_text("1")
    (out / "a.txt").write_text("text\n")
    made = Interface({}, {"b": int, "a": str}, files=ContainerFiles())
    assert made.collect(str(out)) == (1, "text")
    assert Interface({}, {}, files=ContainerFiles()).collect(str(out / "absent")) == ()


# -- which file ------------------------------------------------------------------------------------------------------


def test_a_file_with_a_suffix_is_taken_where_it_is_the_only_one(out: Path) -> None:
    (out / "x.tar.gz").write_bytes(b"data")
    (out / "xy").write_bytes(b"")
    found = collect(File, out)
    assert (found.name, Path(found.path).read_bytes()) == ("x.tar.gz", b"data")
    (out / "x.txt").write_bytes(b"")
    refused(File, out, "x.tar.gz, x.txt are all there")
    (out / "x").write_bytes(b"exact")
    assert Path(collect(File, out).path).read_bytes() == b"exact"


def test_a_missing_output_lists_the_files_that_are_there(out: Path) -> None:
    for type in (str, str | None, list[int], Dir):
        with pytest.raises(OutputMissingError, match="neither `x` nor") as caught:
            collect(type, out)
        assert caught.value.found == "nothing"
    for n in range(30):
        (out / f"y{n:02}").touch()
    with pytest.raises(OutputMissingError, match=r"y00, y01, .*y19 and 10 more") as caught:
        collect(str, out)
    assert (caught.value.output, caught.value.declared) == ("x", "str")
    with pytest.raises(OutputMissingError, match="cannot be opened"):
        collect(str, out / "absent")


def test_nothing_is_stored_where_an_output_is_missing(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "a").write_text("1")
    monkeypatch.setattr(ContainerFiles, "file_from", lambda *args: pytest.fail("stored"))
    with pytest.raises(OutputMissingError):
        Interface({}, {"a": File, "b": File}, files=ContainerFiles()).collect(str(out))


def test_files_and_directories_are_not_taken_for_each_other(out: Path) -> None:
    (out / "x").mkdir()
    refused(File, out, "declare it as Dir")
    refused(File | None, out, "a file is expected")
    refused(str, out, "a file is expected", "a directory")
    refused(int | str, out, "a file is expected")
    (out / "x").rmdir()
    (out / "x").touch()
    refused(Dir, out, "declare it as File")


def test_files_come_from_directories_by_position_and_by_key(out: Path) -> None:
    (out / "x").mkdir()
    for n in range(11):
        (out / "x" / str(n)).write_text(str(n))
    assert [Path(file.path).read_text() for file in collect(list[File], out)] == [str(n) for n in range(11)]
    assert collect(list[int], out) == list(range(11))
    assert collect(dict[str, File], out)["10"].name == "10"
    assert collect(Dir | int, out).name == "x"


# -- size ------------------------------------------------------------------------------------------------------------


def test_reading_into_memory_is_bounded(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.containers.copilot.collect.INLINE_LIMIT", 1000)
    (out / "x").write_bytes(b"a" * 1000)
    assert len(collect(str, out)) == 1000
    (out / "x").write_bytes(b"a" * 1001)
    for type in (str, bytes, int, Point, list[str], str | None):
        refused(type, out, "declare it as File")
    assert collect(File | None, out).size == 1001
    assert collect(File | str, out).size == 1001
    (out / "x").unlink()
    (out / "x").mkdir()
    for n in range(3):
        (out / "x" / str(n)).write_bytes(b"a" * 400)
    refused(list[str], out, "declare it as File", "x/2")


def test_a_file_beside_none_is_not_read_into_memory(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "x").write_bytes(b"a" * 1000)
    monkeypatch.setattr(outputs.OutputEntry, "read", lambda *args: pytest.fail("read"))
    assert collect(File | None, out).size == 1000


def test_a_sparse_file_of_a_terabyte_is_refused_at_once(out: Path) -> None:
    with open(out / "x", "wb") as file:
        file.truncate(1 << 40)
    assert outputs.INLINE_LIMIT == 16 * 1024 * 1024
    refused(bytes, out, "declare it as File", f"{1 << 40:,} bytes")


# -- hostile directories ---------------------------------------------------------------------------------------------

ALL_TYPES = [str, bytes, int, File, Dir, list[str], dict[str, str], File | None, str | None]


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "0").write_text("hidden")
    return tmp_path / "secret"


@pytest.mark.parametrize("type", ALL_TYPES)
def test_a_link_that_leads_out_is_refused(out: Path, secret: Path, type: Any) -> None:
    for target in (
        secret / "0",
        secret,
        Path("../secret/0"),
        Path("../secret"),
        Path("inner/../../secret/0"),
        "..",
        "/",
    ):
        (out / "inner").mkdir(exist_ok=True)
        (out / "x").symlink_to(target)
        refused(type, out, "symbolic link")
        (out / "x").unlink()


def test_a_link_out_on_the_way_or_below_is_refused(out: Path, secret: Path) -> None:
    (out / "way").symlink_to("..")
    (out / "x").symlink_to("way/secret/0")
    refused(str, out, "leads out")
    (out / "x").unlink()
    (out / "x").mkdir()
    (out / "x" / "0").symlink_to("../../secret/0")
    for type in (list[str], list[File], dict[str, str], dict[str, File]):
        refused(type, out, "leads out", "x/0")
    error = refused(Dir, out, "symbolic link")
    assert "/proc/" not in str(error)


def test_a_link_that_stays_inside_is_fine(out: Path) -> None:
    (out / "deep" / "er").mkdir(parents=True)
    (out / "deep" / "er" / "file").write_text("text")
    (out / "link").symlink_to("deep/er")
    (out / "x").symlink_to("./link/../er/file")
    assert collect(str, out) == "text"
    assert collect(File, out).name == "x"
    (out / "x").unlink()
    (out / "x").symlink_to("deep/../link")
    assert collect(dict[str, str], out) == {"file": "text"}
    assert [*collect(Dir, out).files()] == ["file"]
    (out / "x").unlink()
    (out / "x").symlink_to("deep/er/..")
    assert collect(dict[str, dict[str, str]], out) == {"er": {"file": "text"}}
    (out / "x").unlink()
    (out / "x").symlink_to("deep/..")
    assert {*collect(Dir | int, out).files()} >= {"deep/er/file"}


def test_a_link_that_leads_nowhere_is_refused(out: Path) -> None:
    (out / "x").symlink_to("gone")
    refused(str, out, "leads nowhere")
    (out / "x").unlink()
    (out / "x").symlink_to("x")
    refused(str, out, "circles")
    (out / "x").unlink()
    (out / "file").touch()
    (out / "x").symlink_to("file/../file")
    refused(str, out, "no directory")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("type", ALL_TYPES)
def test_a_fifo_or_a_socket_is_refused_and_never_opened(out: Path, type: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = os.open
    monkeypatch.setattr(os, "open", lambda path, *args, **options: opened.append(path) or real(path, *args, **options))
    os.mkfifo(out / "x")
    refused(type, out, "a FIFO")
    (out / "x").unlink()
    with socket.socket(socket.AF_UNIX) as made:
        monkeypatch.chdir(out)  # the path of a socket is short
        made.bind("x")
        refused(type, out, "a socket")
    assert "x" not in opened
    (out / "x").unlink()
    (out / "x").mkdir()
    os.mkfifo(out / "x" / "0")
    if type in (list[str], dict[str, str], Dir):
        refused(type, out, "FIFO")
    assert "0" not in opened


@pytest.mark.timeout(10)
def test_a_device_is_refused_and_never_opened(out: Path) -> None:
    try:
        os.mknod(out / "x", stat.S_IFCHR | 0o666, os.makedev(1, 5))  # /dev/zero: reading it would not end
    except PermissionError:
        pytest.skip("only root makes devices")
    for type in ALL_TYPES:
        refused(type, out, "a device")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("swap", ["link", "fifo", "other file"])
@pytest.mark.parametrize("type", [str, File])
def test_a_file_that_is_swapped_before_it_is_opened_does_not_leak(
    out: Path, secret: Path, swap: str, type: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "x").write_text("mine")
    real = os.open

    def swapping(path: Any, *args: Any, **options: Any) -> int:
        if path == "x":
            (out / "x").rename(out / "old")
            if swap == "link":
                (out / "x").symlink_to(secret / "0")
            elif swap == "fifo":
                os.mkfifo(out / "x")
            else:
                os.link(secret / "0", out / "x")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", swapping)
    refused(type, out)


def test_a_file_that_is_swapped_after_it_was_opened_does_not_leak(
    out: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "x").write_text("mine")
    real = ContainerFiles.file_from

    def swapping(self: ContainerFiles, path: str, name: str) -> File:
        (out / "x").rename(out / "old")
        (out / "x").symlink_to(secret / "0")
        return real(self, path, name)

    monkeypatch.setattr(ContainerFiles, "file_from", swapping)
    assert Path(collect(File, out).path).read_text() == "mine"


def test_a_directory_on_the_way_that_becomes_a_link_does_not_leak(
    out: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "x").mkdir()
    (out / "x" / "0").write_text("mine")
    (out / "x" / "1").write_text("mine")
    done = threading.Event()
    real = outputs.OutputEntry.child

    def swapping(self: outputs.OutputEntry, name: str) -> outputs.OutputEntry:
        if name == "1" and not done.is_set():
            done.set()
            (out / "x").rename(out / "old")
            (out / "x").symlink_to(secret)
            (secret / "1").write_text("hidden")
        return real(self, name)

    monkeypatch.setattr(outputs.OutputEntry, "child", swapping)
    refused(list[str], out)
    assert done.is_set()


def test_a_directory_that_becomes_a_link_as_it_is_opened_does_not_leak(
    out: Path, secret: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (out / "x").mkdir()
    (out / "x" / "0").write_text("mine")
    real = os.open

    def swapping(path: Any, *args: Any, **options: Any) -> int:
        if path == "x" and not (out / "old").exists():
            (out / "x").rename(out / "old")
            (out / "x").symlink_to(secret)
        return real(path, *args, **options)

    for first in (1, 2):  # as it is listed, and on the way to what lies in it
        with outputs.Outputs(str(out)) as top, monkeypatch.context() as patch:
            entry = top.entry("x")
            patch.setattr(os, "open", swapping)
            with pytest.raises(outputs.OutputRefused, match="cannot be read"):
                entry.names() if first == 1 else entry.child("0")
        (out / "x").unlink()
        (out / "old").rename(out / "x")


def test_no_descriptor_is_left_open(out: Path) -> None:
    (out / "x").mkdir()
    for n in range(5):
        (out / "x" / str(n)).write_text("a")
    os.mkfifo(out / "x" / "5")
    before = len(os.listdir("/proc/self/fd"))
    refused(list[str], out)
    refused(list[File], out)
    assert len(os.listdir("/proc/self/fd")) == before


def test_names_that_are_no_text_are_refused(out: Path) -> None:
    (out / "x").mkdir()
    Path(os.fsdecode(bytes(out / "x") + b"/\xff")).touch()
    refused(dict[str, str], out, "not UTF-8")


def test_an_unreadable_output_is_refused(out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (out / "x").touch()
    real = os.open

    def denied(path: Any, *args: Any, **options: Any) -> int:
        if path == "x":
            raise PermissionError(13, "Permission denied")
        return real(path, *args, **options)

    monkeypatch.setattr(os, "open", denied)
    for type in (str, File):
        refused(type, out, "cannot be read (Permission denied)")


# -- _ERROR ----------------------------------------------------------------------------------------------------------


def test_no_error_file_is_no_error(out: Path) -> None:
    assert check_error_file(str(out)) is None
    assert check_error_file(str(out / "absent")) is None


@pytest.mark.parametrize(
    ("data", "text", "final"),
    [
        (b"", "", False),
        (b"it broke\nbadly", "it broke\nbadly", False),
        (b" Non-Recoverable \r\nno such key", " Non-Recoverable \r\nno such key", True),
        (b"non-recoverable", "non-recoverable", True),
        (b"it is\nnon-recoverable", "it is\nnon-recoverable", False),
        (b"\xff\n", "�\n", False),
        (b"a" * 70_000, "a" * 65_536, False),
    ],
)
def test_an_error_file_is_read(out: Path, data: bytes, text: str, final: bool) -> None:
    (out / "_ERROR").write_bytes(data)
    assert check_error_file(str(out)) == (text, final)


@pytest.mark.timeout(10)
def test_an_error_file_that_cannot_be_read_is_an_error(out: Path, secret: Path) -> None:
    started = time.monotonic()
    os.mkfifo(out / "_ERROR")
    assert check_error_file(str(out)) == (
        "(_ERROR is there, but it is a FIFO, and only files and directories are taken)",
        False,
    )
    (out / "_ERROR").unlink()
    (out / "_ERROR").symlink_to(secret / "0")
    found = check_error_file(str(out))
    assert found is not None
    assert "hidden" not in found[0]
    (out / "_ERROR").unlink()
    (out / "_ERROR").mkdir()
    assert check_error_file(str(out)) == ("(_ERROR is there, but it is a directory)", False)
    assert time.monotonic() - started < 5

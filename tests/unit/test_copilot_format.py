"""The copilot's format: every type, staged as the bytes that an image expects, and taken back from such bytes.

`TABLE` holds one line or more per type. Each is staged in both layouts with all three kinds of metadata, and what
was staged is collected again. The golden files hold all together; `PERDURE_UPDATE_GOLDEN=1` rewrites them.
"""

from __future__ import annotations

import enum
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal, NamedTuple, Optional, TypedDict, Union
from uuid import UUID

import msgspec
import pydantic
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from perdure import runtime
from perdure.api.container_files import ContainerFiles
from perdure.containers.copilot import Interface
from perdure.containers.engine import Mount
from perdure.errors import InputError, UnsupportedTypeError, UsageError, ValueMismatchError
from perdure.io import Dir, File

GOLDEN = Path(__file__).parent / "golden" / "copilot"
INPUTS = "/var/inputs"


class Color(enum.Enum):
    RED = "red"
    BLUE = "BLUE"


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Point:
    x: int
    y: float = 0.5


@dataclass
class Event:
    at: datetime
    tags: list[str] = field(default_factory=list)
    where: Point | None = None


class Options(TypedDict):
    depth: int


class Struct(msgspec.Struct):
    by_id: dict[int, bytes]


class Model(pydantic.BaseModel):
    size: int
    at: datetime
    point: Point = Point(1)


class Pair(NamedTuple):
    a: int


class Case(NamedTuple):
    """One value of one type.

    Attributes:
        files: what is staged under DIRECT, by path below the input directory; `None` for a directory.
        data: the value in inputs.json.
        back: what comes back from what was staged, where that is another value.
        named: what is staged under NAMED_DIR, and the value in inputs.json there, where that differs.
    """

    type: Any
    value: Any
    files: dict[str, bytes | None]
    data: Any
    back: Any = ...
    named: tuple[dict[str, bytes | None], Any] | None = None


NOON = datetime(2026, 11, 22, 12, 0, 0, 123456, tzinfo=UTC)


class Samples:
    """Files and directories for the table, made in a blob store of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, data: bytes) -> File:
        place = self.folder / name
        place.write_bytes(data)
        return File.from_local(place)

    def dir(self, name: str) -> Dir:
        top = self.folder / name
        (top / "sub").mkdir(parents=True, exist_ok=True)
        (top / "sub" / "leaf").write_bytes(b"green")
        return Dir.from_local(top)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Samples]:
    top = tmp_path_factory.mktemp("samples")
    runtime.init(str(top / "perdure.db"))
    yield Samples(top)
    runtime.init()


@functools.cache
def table(samples: Samples) -> dict[str, Case]:
    text, twin = samples.file("a.txt", b"A"), samples.file("a-1.txt", b"B")
    tree = samples.dir("tree")
    leaf: dict[str, bytes | None] = {"x/sub": None, "x/sub/leaf": b"green"}

    def kept(name: str, file: Any) -> Any:
        return type(file)(name=name, hash=file.hash, size=file.size)

    return {
        "str": Case(str, "naïve\nline", {"x": "naïve\nline".encode()}, "naïve\nline"),
        "str-empty": Case(str, "", {"x": b""}, ""),
        "str-blank": Case(str, "  padded ", {"x": b"  padded "}, "  padded ", back="padded"),
        "str-newline": Case(str, "line\n", {"x": b"line\n"}, "line\n", back="line"),
        "int": Case(int, -42, {"x": b"-42"}, -42),
        "int-large": Case(int, 2**63 - 1, {"x": b"9223372036854775807"}, 2**63 - 1),
        "true": Case(bool, True, {"x": b"true"}, True),
        "false": Case(bool, False, {"x": b"false"}, False),
        "float": Case(float, 0.1, {"x": b"0.1"}, 0.1),
        "float-whole": Case(float, 3.0, {"x": b"3"}, 3.0),
        "float-int": Case(float, 3, {"x": b"3"}, 3.0, back=3.0),
        "float-large": Case(float, 1e22, {"x": b"10000000000000000000000"}, 1e22),
        "float-small": Case(float, 1.5e-7, {"x": b"0.00000015"}, 1.5e-7),
        "float-inf": Case(float, float("inf"), {"x": b"+Inf"}, "Infinity"),
        "float-minus-inf": Case(float, float("-inf"), {"x": b"-Inf"}, "-Infinity"),
        "datetime": Case(
            datetime, NOON, {"x": b"2026-11-22T12:00:00.123456Z"}, "2026-11-22T12:00:00.123456Z"
        ),
        "datetime-naive": Case(
            datetime, NOON.replace(tzinfo=None), {"x": b"2026-11-22T12:00:00.123456Z"},
            "2026-11-22T12:00:00.123456Z", back=NOON,
        ),
        "datetime-offset": Case(
            datetime, NOON.astimezone(timezone(timedelta(hours=5, minutes=30))),
            {"x": b"2026-11-22T12:00:00.123456Z"}, "2026-11-22T12:00:00.123456Z", back=NOON,
        ),
        "date": Case(date, date(2026, 11, 22), {"x": b"2026-11-22"}, "2026-11-22"),
        "timedelta": Case(timedelta, timedelta(hours=1, minutes=2, seconds=3), {"x": b"1h2m3s"}, 3723 * 10**9),
        "timedelta-short": Case(timedelta, timedelta(microseconds=1500), {"x": b"1.5ms"}, 1_500_000),
        "timedelta-negative": Case(timedelta, timedelta(seconds=-90), {"x": b"-1m30s"}, -90 * 10**9),
        "decimal": Case(Decimal, Decimal("1.50"), {"x": b"1.50"}, "1.50"),
        "uuid": Case(UUID, UUID(int=7), {"x": str(UUID(int=7)).encode()}, str(UUID(int=7))),
        "none": Case(None, None, {"x": b"null"}, None),
        "optional-none": Case(Optional[int], None, {"x": b"null"}, None),  # noqa: UP045
        "optional": Case(int | None, 5, {"x": b"5"}, 5),
        "union-int": Case(Union[int, str], 5, {"x": b"5"}, 5),  # noqa: UP007
        "union-str": Case(int | str, "five", {"x": b"five"}, "five"),
        "union-list": Case(int | list[int], [1], {"x": None, "x/0": b"1"}, [1]),
        "enum": Case(Color, Color.BLUE, {"x": b"BLUE"}, "BLUE"),
        "enum-int": Case(Level, Level.LOW, {"x": b"LOW"}, "LOW"),
        "enum-name": Case(Color, Color.RED, {"x": b"RED"}, "RED"),
        "literal-str": Case(Literal["a", 1, True], "a", {"x": b"a"}, "a"),
        "literal-int": Case(Literal["a", 1, True], 1, {"x": b"1"}, 1),
        "bytes": Case(bytes, b"\xff\x00\n", {"x": b"\xff\x00\n"}, "/wAK"),
        "dataclass": Case(Point, Point(1), {"x": b'{"x": 1, "y": 0.5}'}, {"x": 1, "y": 0.5}),
        "dataclass-nested": Case(
            Event, Event(NOON, ["é"], Point(2, 1.0)),
            {"x": '{"at": "2026-11-22T12:00:00.123456Z", "tags": ["é"], "where": {"x": 2, "y": 1.0}}'.encode()},
            {"at": "2026-11-22T12:00:00.123456Z", "tags": ["é"], "where": {"x": 2, "y": 1.0}},
        ),
        "pydantic": Case(
            Model, Model(size=3, at=NOON),
            {"x": b'{"size": 3, "at": "2026-11-22T12:00:00.123456Z", "point": {"x": 1, "y": 0.5}}'},
            {"size": 3, "at": "2026-11-22T12:00:00.123456Z", "point": {"x": 1, "y": 0.5}},
        ),
        "typed-dict": Case(Options, Options(depth=2), {"x": b'{"depth": 2}'}, {"depth": 2}),
        "struct": Case(Struct, Struct({7: b"\x00"}), {"x": b'{"by_id": {"7": "AA=="}}'}, {"by_id": {"7": "AA=="}}),
        "list": Case(list[int], [7, 8], {"x": None, "x/0": b"7", "x/1": b"8"}, [7, 8]),
        "list-empty": Case(list[int], [], {"x": None}, []),
        "list-long": Case(
            list[int], list(range(11)), {"x": None, **{f"x/{n}": str(n).encode() for n in range(11)}}, list(range(11))
        ),
        "list-nested": Case(
            list[list[str]], [["a"], []], {"x": None, "x/0": None, "x/0/0": b"a", "x/1": None}, [["a"], []]
        ),
        "list-records": Case(list[Point], [Point(1)], {"x": None, "x/0": b'{"x": 1, "y": 0.5}'}, [{"x": 1, "y": 0.5}]),
        "dict": Case(
            dict[str, float], {"b": 1.0, "a c": 0.5}, {"x": None, "x/b": b"1", "x/a c": b"0.5"}, {"b": 1.0, "a c": 0.5}
        ),
        "dict-nested": Case(
            dict[str, list[int | None]], {"k": [1, None]},
            {"x": None, "x/k": None, "x/k/0": b"1", "x/k/1": b"null"}, {"k": [1, None]},
        ),
        "file": Case(
            File, text, {"x": b"A"}, f"{INPUTS}/x", back=kept("x", text),
            named=({"x": None, "x/a.txt": b"A"}, f"{INPUTS}/x/a.txt"),
        ),
        "optional-file": Case(
            File | None, text, {"x": b"A"}, f"{INPUTS}/x", back=kept("x", text),
            named=({"x": None, "x/a.txt": b"A"}, f"{INPUTS}/x/a.txt"),
        ),
        "optional-file-none": Case(File | None, None, {"x": b"null"}, None),
        "list-file": Case(
            list[File], [text, twin, text], {"x": None, "x/0": b"A", "x/1": b"B", "x/2": b"A"},
            [f"{INPUTS}/x/{n}" for n in range(3)], back=[kept("0", text), kept("1", twin), kept("2", text)],
            named=(
                {"x": None, "x/a.txt": b"A", "x/a-1.txt": b"B", "x/a-2.txt": b"A"},
                [f"{INPUTS}/x/{name}" for name in ("a.txt", "a-1.txt", "a-2.txt")],
            ),
        ),
        "dict-file": Case(
            dict[str, File], {"k": text}, {"x": None, "x/k": b"A"}, {"k": f"{INPUTS}/x/k"}, back={"k": kept("k", text)},
            named=({"x": None, "x/k": None, "x/k/a.txt": b"A"}, {"k": f"{INPUTS}/x/k/a.txt"}),
        ),
        # Mounted: an empty place for it is all that is staged.
        "dir": Case(
            Dir, tree, {"x": None}, f"{INPUTS}/x", back=kept("x", tree),
        ),
        "list-dir": Case(
            list[Dir], [tree], {"x": None, "x/0": None, "x/0/sub": None, "x/0/sub/leaf": b"green"}, [f"{INPUTS}/x/0"],
            back=[kept("0", tree)],
        ),
        "dict-dir": Case(
            dict[str, Dir], {"k": tree}, {"x": None, "x/k": None, **{f"x/k{path[1:]}": data for path, data in
            leaf.items()}}, {"k": f"{INPUTS}/x/k"}, back={"k": kept("k", tree)},
        ),
    }  # fmt: skip


def all_names() -> list[str]:
    """The table's keys, before there is a store to make its files in."""

    class Nothing:
        def file(self, name: str, data: bytes) -> File:
            return File(name=name, hash="0" * 64, size=1)

        def dir(self, name: str) -> Dir:
            return Dir(name=name, hash="0" * 64, size=1)

    return list(table(Nothing()))  # type: ignore[arg-type]


def tree_of(top: Path) -> dict[str, bytes | None]:
    return {str(path.relative_to(top)): None if path.is_dir() else path.read_bytes() for path in sorted(top.rglob("*"))}


def interface(type: Any, **options: Any) -> Interface:
    return Interface({"x": type}, {"x": type}, files=ContainerFiles(), **options)


def staged(made: Interface, value: Any, to: Path) -> list[Mount]:
    to.mkdir(exist_ok=True)
    return made.stage({"x": value}, str(to), INPUTS)


# -- the table -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["DIRECT", "NAMED_DIR"])
@pytest.mark.parametrize("name", all_names())
def test_a_value_is_staged_as_these_bytes(samples: Samples, tmp_path: Path, name: str, layout: Any) -> None:
    case = table(samples)[name]
    mounts = staged(interface(case.type, layout=layout), case.value, tmp_path / "in")
    files, data = case.named if case.named and layout == "NAMED_DIR" else (case.files, case.data)
    found = tree_of(tmp_path / "in")
    assert json.loads(found.pop("inputs.json") or b"") == {"x": data}
    assert found.pop("inputs.pb"), "Flyte always writes it"
    assert found == files
    assert mounts == ([Mount(case.value.path, data, True)] if isinstance(case.value, Dir) else [])


@pytest.mark.parametrize("name", all_names())
def test_a_staged_value_is_collected_again(samples: Samples, tmp_path: Path, name: str) -> None:
    case = table(samples)[name]
    made = interface(case.type)
    for mount in staged(made, case.value, tmp_path / "in"):
        (tmp_path / "in" / "x").rmdir()
        case.value.download(tmp_path / "in" / "x")
        assert mount.read_only
    [back] = made.collect(str(tmp_path / "in"))
    expected = case.value if case.back is ... else case.back
    assert back == expected
    assert type(back) is type(expected)


@pytest.mark.parametrize("name", [name for name in all_names() if "file" not in name and "dir" not in name])
def test_a_list_or_dict_also_comes_from_a_file_of_json(samples: Samples, tmp_path: Path, name: str) -> None:
    case = table(samples)[name]
    back = case.value if case.back is ... or name in ("str-newline", "str-blank") else case.back
    for type, data, expected in (
        (list[case.type], [case.data], [back]),  # type: ignore[name-defined]
        (dict[str, case.type], {"k/.": case.data}, {"k/.": back}),  # type: ignore[name-defined]
    ):
        out = tmp_path / type.__name__
        out.mkdir()
        (out / "x.json").write_text(json.dumps(data))
        assert interface(type).collect(str(out)) == (expected,)


def test_nan_is_kept(samples: Samples, tmp_path: Path) -> None:
    made = interface(float)
    staged(made, float("nan"), tmp_path / "in")
    found = tree_of(tmp_path / "in")
    assert found.pop("inputs.pb")
    assert found == {"x": b"NaN", "inputs.json": b'{"x": "NaN"}\n'}
    [back] = made.collect(str(tmp_path / "in"))
    assert back != back


# -- metadata --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["DIRECT", "NAMED_DIR"])
@pytest.mark.parametrize("name", all_names())
def test_yaml_and_json_hold_the_same(samples: Samples, tmp_path: Path, name: str, layout: Any) -> None:
    case = table(samples)[name]
    staged(interface(case.type, layout=layout, metadata_format="YAML"), case.value, tmp_path / "in")
    data = case.named[1] if case.named and layout == "NAMED_DIR" else case.data
    assert yaml.safe_load((tmp_path / "in" / "inputs.yaml").read_bytes()) == {"x": data}


@pytest.mark.parametrize("text", ["1e3", "0o7", "yes", "null", "2026-11-22", "a: b", "# c", "", "é\n\t'\""])
def test_text_in_yaml_is_quoted_for_parsers_of_other_versions(samples: Samples, tmp_path: Path, text: str) -> None:
    staged(interface(dict[str, str], metadata_format="YAML"), {"k": text}, tmp_path / "in")
    found = (tmp_path / "in" / "inputs.yaml").read_text()
    assert '"k": "' in found
    assert yaml.safe_load(found) == {"x": {"k": text}}


def literal_value(literal: Any) -> Any:
    """What a Literal says, by the fields of Flyte's message alone."""
    match literal.WhichOneof("value"):
        case "collection":
            return [literal_value(item) for item in literal.collection.literals]
        case "map":
            return {key: literal_value(item) for key, item in literal.map.literals.items()}
    scalar = literal.scalar
    match scalar.WhichOneof("value"):
        case "none_type":
            return None
        case "union":
            return literal_value(scalar.union.value)
        case "blob":
            return scalar.blob.uri
        case "binary":
            return msgspec.msgpack.decode(scalar.binary.value) if scalar.binary.tag else scalar.binary.value
    kind = scalar.primitive.WhichOneof("value")
    value = getattr(scalar.primitive, kind)
    if kind == "datetime":
        return value.ToDatetime(tzinfo=UTC)
    return value.ToTimedelta() if kind == "duration" else value


def read_literals(place: Path) -> Any:
    from flyteidl2.core.literals_pb2 import LiteralMap

    found = LiteralMap()
    found.ParseFromString(place.read_bytes())
    return found


@pytest.mark.parametrize("layout", ["DIRECT", "NAMED_DIR"])
@pytest.mark.parametrize("name", all_names())
def test_the_literal_map_reads_back(samples: Samples, tmp_path: Path, name: str, layout: Any) -> None:
    case = table(samples)[name]
    staged(interface(case.type, layout=layout, metadata_format="PROTO"), case.value, tmp_path / "in")
    data = case.named[1] if case.named and layout == "NAMED_DIR" else case.data
    if isinstance(case.value, (datetime, timedelta, bytes)) or name.startswith("float"):
        data = NOON if isinstance(case.value, datetime) else case.value
    assert literal_value(read_literals(tmp_path / "in" / "inputs.pb").literals["x"]) == data


def test_literals_carry_flytes_types(samples: Samples, tmp_path: Path) -> None:
    from flyteidl2.core import types_pb2 as types

    made = Interface(
        {"u": int | str, "o": list[int] | None, "f": File, "d": Dir, "r": Point, "e": Color | None},
        {},
        metadata_format="PROTO",
        files=ContainerFiles(),
    )
    (tmp_path / "in").mkdir()
    values = {"u": "a", "o": None, "f": samples.file("f", b""), "d": samples.dir("d"), "r": Point(1), "e": Color.RED}
    made.stage(values, str(tmp_path / "in"), INPUTS)
    found = read_literals(tmp_path / "in" / "inputs.pb").literals
    assert found["u"].scalar.union.type.simple == types.STRING
    assert found["o"].scalar.union.type.simple == types.NONE
    assert found["f"].scalar.blob.metadata.type.dimensionality == types.BlobType.SINGLE
    assert found["d"].scalar.blob.metadata.type.dimensionality == types.BlobType.MULTIPART
    assert found["r"].scalar.binary.tag == "msgpack"
    assert list(found["e"].scalar.union.type.enum_type.values) == ["RED", "BLUE"]


def test_an_integer_over_64_bits_does_not_fit_a_literal_map(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r'64 bits.*metadata_format="JSON"'):
        staged(interface(int, metadata_format="PROTO"), 2**63, tmp_path / "in")


def test_inputs_that_fit_no_literal_map_are_staged_in_the_declared_format(samples: Samples, tmp_path: Path) -> None:
    staged(interface(int, metadata_format="JSON"), 2**63, tmp_path / "in")
    assert sorted(tree_of(tmp_path / "in")) == ["inputs.json", "x"]


def test_without_the_extra_no_literal_map_is_written(
    samples: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flyteidl2.core.literals_pb2", None)
    staged(interface(int), 7, tmp_path / "in")
    assert sorted(tree_of(tmp_path / "in")) == ["inputs.json", "x"]


def test_a_missing_package_is_named_at_declaration(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "flyteidl2.core.literals_pb2", None)
    with pytest.raises(UsageError, match=r'pip install "perdure\[proto\]"'):
        interface(int, metadata_format="PROTO")


# -- golden files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["DIRECT", "NAMED_DIR"])
def test_all_types_together_are_staged_as_in_the_golden_files(samples: Samples, tmp_path: Path, layout: Any) -> None:
    from google.protobuf import text_format

    cases = table(samples)
    got: dict[str, str] = {}
    for format in ("JSON", "YAML", "PROTO"):
        made = Interface(
            {name: case.type for name, case in cases.items()}, {}, files=ContainerFiles(), layout=layout,
            metadata_format=format,
        )  # fmt: skip
        (tmp_path / format).mkdir()
        made.stage({name: case.value for name, case in cases.items()}, str(tmp_path / format), INPUTS)
        tree = tree_of(tmp_path / format)
        metadata = f"inputs.{'pb' if format == 'PROTO' else format.lower()}"
        beside = tree.pop("inputs.pb") if format != "PROTO" else None
        data = tree.pop(metadata) or b""
        if format == "PROTO":
            got[f"{layout}.pb.txt"] = text_format.MessageToString(read_literals(tmp_path / format / metadata))
        else:
            got[f"{layout}.{metadata}"] = data.decode()
            assert beside
        listing = "".join(f"{path}{'/' if data is None else f' {data!r}'}\n" for path, data in tree.items())
        assert got.setdefault(f"{layout}.files.txt", listing) == listing
    for name, text in got.items():
        if os.environ.get("PERDURE_UPDATE_GOLDEN"):
            GOLDEN.mkdir(parents=True, exist_ok=True)
            (GOLDEN / name).write_text(text)
        assert text == (GOLDEN / name).read_text(), name


# -- arguments -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("str", "naïve\nline"),
        ("float-whole", "3"),
        ("false", "false"),
        ("datetime", "2026-11-22T12:00:00.123456Z"),
        ("timedelta", "1h2m3s"),
        ("optional-none", "null"),
        ("enum", "BLUE"),
        ("bytes", "/wAK"),
        ("dataclass", '{"x": 1, "y": 0.5}'),
        ("list", "[7, 8]"),
        ("dict", '{"b": 1.0, "a c": 0.5}'),
        ("file", "/var/inputs/x"),
        ("dir", "/var/inputs/x"),
    ],
)
def test_an_argument_is_the_text_of_the_file_or_its_path_or_json(samples: Samples, name: str, text: str) -> None:
    case = table(samples)[name]
    assert interface(case.type).arguments({"x": case.value}, INPUTS) == {"x": text}


def test_an_argument_names_a_file_under_its_own_name(samples: Samples) -> None:
    files = [samples.file("a.txt", b"1"), samples.file("a.txt", b"2")]
    made = interface(list[File], layout="NAMED_DIR")
    assert made.arguments({"x": files}, INPUTS) == {"x": '["/var/inputs/x/a.txt", "/var/inputs/x/a-1.txt"]'}


# -- declarations ----------------------------------------------------------------------------------------------------


@dataclass
class Holder:
    file: File


@pytest.mark.parametrize(
    ("type", "remedy"),
    [
        (Any, "say what it holds"),
        (list, "say what it holds"),
        (dict[int, str], r"dict\[str, "),
        (tuple[int, ...], "list or a dataclass"),
        (tuple[int, str], "list or a dataclass"),
        (set[int], "list or a dataclass"),
        (Path, "File or Dir"),
        (complex, "str or a dataclass"),
        (Pair, "dataclass"),
        (Holder, "beside it"),
        (enum.Flag("F", "A B"), "list of an Enum"),
        (Literal["1", 1], "read the same"),
        (object(), "no stored form"),
    ],
)
def test_an_unsupported_type_is_refused_at_declaration(type: Any, remedy: str) -> None:
    with pytest.raises(UnsupportedTypeError, match=f"input 'x': type `.*{remedy}"):
        Interface({"x": type}, {}, files=ContainerFiles())
    with pytest.raises(UnsupportedTypeError, match=f"output 'y': type `.*{remedy}"):
        Interface({}, {"y": type}, files=ContainerFiles())


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".x", "a/b", "/a", "a b", "a\0", "inputs.json", "inputs.pb", "_ERROR", "a" * 256]
)
def test_a_name_that_is_no_file_name_is_refused_at_declaration(name: str) -> None:
    for inputs, outputs in (({name: int}, {}), ({}, {name: int})):
        with pytest.raises(UsageError, match="put name"):
            Interface(inputs, outputs, files=ContainerFiles())


def test_an_output_that_could_be_taken_for_another_is_refused() -> None:
    with pytest.raises(UsageError, match=r"'model.onnx' could be taken for output 'model'"):
        Interface({}, {"model": File, "model.onnx": File}, files=ContainerFiles())


def test_unknown_options_are_refused() -> None:
    with pytest.raises(UsageError, match="JSON, YAML, PROTO"):
        interface(int, metadata_format="TOML")
    with pytest.raises(UsageError, match="DIRECT, NAMED_DIR"):
        interface(int, layout="FLAT")


# -- values ----------------------------------------------------------------------------------------------------------


def test_values_are_checked_against_their_types(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(ValueMismatchError, match="input 'x': declared `int`"):
        staged(interface(int), "1", tmp_path / "in")
    with pytest.raises(InputError, match="'x' is missing"):
        interface(int).stage({}, str(tmp_path / "in"), INPUTS)
    with pytest.raises(InputError, match="unknown input 'y'"):
        interface(int).stage({"x": 1, "y": 1}, str(tmp_path / "in"), INPUTS)


@pytest.mark.parametrize("key", ["", ".", "..", "a/b", "/etc", "a\0b", "a" * 256, "\ud800"])
def test_a_dict_key_that_is_no_file_name_is_refused(samples: Samples, tmp_path: Path, key: str) -> None:
    for type, value in ((dict[str, int], {key: 1}), (list[dict[str, int]], [{key: 1}])):
        with pytest.raises(UsageError, match="dict key"):
            staged(interface(type), value, tmp_path / "in")
    assert tree_of(tmp_path / "in") == {}


def test_a_value_without_a_text_is_refused(samples: Samples, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="lone surrogates"):
        staged(interface(str), "\ud800", tmp_path / "in")
    with pytest.raises(UsageError, match="pass bytes instead"):
        staged(interface(int), 10**5000, tmp_path / "in")
    early = datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=1)))
    with pytest.raises(UsageError, match="years 1 to 9999"):
        staged(interface(datetime), early, tmp_path / "in")


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_any_text_comes_back_but_for_spaces_and_newlines_at_its_ends(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    top = tmp_path_factory.mktemp("text")
    made = interface(str)
    staged(made, text, top)
    assert made.collect(str(top)) == (text.strip(" \n\t"),)

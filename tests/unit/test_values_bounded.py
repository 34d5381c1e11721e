"""Encoding, decoding and previewing cost time and memory in proportion to the bytes, for any values.

The bytes of a journal may have been written by others, and a value of the user's may refer to one object many times.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
import time
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from perdure.cli import output
from perdure.core.ground.values import ANY, Signature, codec_for, preview
from perdure.core.ground.values import _wire as wire
from perdure.core.ground.values._preview import preview_inputs
from perdure.errors import ValueMismatchError, ValueTooLargeError

SAME_HASH = 2**61 - 1
"""CPython's modulus for hashes of numbers: all multiples have the hash 0."""


def colliding(count: int) -> list[object]:
    return [wire.Ext(wire.INT, (SAME_HASH * n).to_bytes(12, "big", signed=True)) for n in range(5, count + 5)]


def as_set(items: list[object]) -> bytes:
    return wire.encode(wire.Ext(wire.SET, wire.encode(items)))


def as_frozenset(items: list[object]) -> bytes:
    return wire.encode(wire.Ext(wire.FROZENSET, wire.encode(items)))


def as_pairs(items: list[object]) -> bytes:
    return wire.encode(wire.Ext(wire.PAIRS, wire.encode([part for item in items for part in (item, 1)])))


def as_map(items: list[object]) -> bytes:
    """A MessagePack map whose keys are extensions: no encoder of perdure's writes one."""
    return b"\xdf" + len(items).to_bytes(4, "big") + b"".join(wire.encode(item) + b"\x01" for item in items)


def as_list_of_pairs(items: list[object]) -> bytes:
    return wire.encode([[item, 1] for item in items])


def in_a_list(make: Any) -> Any:
    return lambda items: wire.encode([msgspec.Raw(make(items))])


def under_a_tuple(make: Any) -> Any:
    return lambda items: wire.encode(wire.Ext(wire.TUPLE, wire.encode([msgspec.Raw(make(items))])))


def as_decimals(items: list[object]) -> bytes:
    texts = [str(SAME_HASH * n).encode() for n in range(5, len(items) + 5)]
    return as_set([wire.Ext(wire.DECIMAL, text) for text in texts])


COLLIDING = [
    (Any, as_set),
    (Any, as_frozenset),
    (Any, as_pairs),
    (Any, as_map),
    (Any, in_a_list(as_map)),
    (Any, under_a_tuple(as_map)),
    (Any, under_a_tuple(as_set)),
    (Any, as_decimals),
    (set[int], wire.encode),
    (frozenset[int], wire.encode),
    (dict[int, int], as_list_of_pairs),
    (dict[int, int], as_map),
    (dict[str, set[int]], lambda items: wire.encode({"a": items})),
]


@pytest.mark.parametrize(("annotation", "write"), COLLIDING)
def test_decoding_numbers_of_one_hash_takes_time_in_proportion_to_the_bytes(annotation: Any, write: Any) -> None:
    data = write(colliding(40_000))
    began = time.thread_time()
    with pytest.raises(ValueMismatchError, match=r"hash|key"):
        codec_for(annotation).decode(data)
    assert time.thread_time() - began < 3


@pytest.mark.parametrize(
    "value",
    [
        set(range(100_000)),
        {n << 40 for n in range(30_000)},
        {(n, float(n), str(n)) for n in range(20_000)},
        {tuple(range(n, n + 500)) for n in range(1000)},
        {Decimal(n) for n in range(20_000)},
        {n: n for n in range(-50_000, 50_000)},
        {f"key {n}": n for n in range(50_000)},
    ],
)
def test_large_sets_and_dicts_of_ordinary_elements_come_back(value: Any) -> None:
    assert ANY.decode(ANY.encode(value)) == value


def test_large_declared_sets_and_dicts_come_back() -> None:
    for annotation, value in (
        (set[int], set(range(50_000))),
        (dict[int, str], {n: str(n) for n in range(50_000)}),
        (dict[str, int], {str(n): n for n in range(50_000)}),
    ):
        assert codec_for(annotation).decode(codec_for(annotation).encode(value)) == value


@dataclasses.dataclass
class Node:
    children: list[Node]


@dataclasses.dataclass
class Named:
    name: str


# Each makes `value` (of some megabytes at most) whose bytes would be many gigabytes, and says what it is declared as.
SHARING = {
    "lists": ("value = []\nfor _ in range(40): value = [value, value]", "Any"),
    "dicts by number": ("value = {}\nfor _ in range(40): value = {1: value, 2: value}", "Any"),
    "frozensets": ("value = ()\nfor n in range(40): value = frozenset([(1, value), (2, value)])", "Any"),
    "text": ("value = ['x' * 2**20] * 2**16", "Any"),
    "text beside decimals": ("value = ['x' * 2**20] * 2**16", "list[str | Decimal]"),
    "sets of text": ("value = [{'x' * 2**20}] * 2**16", "list[set[str]]"),
    "declared text": ("value = ['x' * 2**20] * 2**16", "list[str]"),
    "declared bytes": (
        "value = {n: b'x' * 2**20 for n in range(3)}; value = [value] * 2**16",
        "list[dict[int, bytes]]",
    ),
    "values of dicts": ("text = 'x' * 2**20\nvalue = {str(n): text for n in range(2**16)}", "dict[str, str]"),
    "lists of lists": ("value = [[[1] * 1000] * 10_000] * 10_000", "list[list[list[int]]]"),
    "records": ("value = Node([])\nfor _ in range(40): value = Node([value, value])", "Node"),
    "text in records": ("text = 'x' * 2**20\nvalue = [Named(text) for _ in range(2**16)]", "list[Named]"),
    "optional text": ("value = ['x' * 2**20, None] * 2**16", "list[str | None]"),
    "a union": ("value = ['x' * 2**20, 1] * 2**16", "list[str | int]"),
    "large integers": ("value = [10 ** 100_000] * 2**16", "list[int]"),
    "large integers under Any": ("value = [10 ** 100_000] * 2**16", "Any"),
    "bytearrays": ("value = [bytearray(2**20)] * 2**16", "Any"),
    "declared decimals": ("value = [Decimal('1' * 2**20)] * 2**16", "list[Decimal]"),
}


@pytest.mark.parametrize("kind", SHARING)
def test_a_value_that_refers_to_one_object_many_times_is_refused_in_little_memory(kind: str) -> None:
    make, annotation = SHARING[kind]
    refused(make, annotation, "roundtrip")


@pytest.mark.parametrize("kind", ["lists", "text", "declared text", "records"])
def test_an_argument_of_an_identity_that_shares_parts_is_refused_in_little_memory(kind: str) -> None:
    make, annotation = SHARING[kind]
    refused(make, annotation, "canonical")


def refused(make: str, annotation: str, use: str) -> None:
    """In a process of its own, whose memory is limited."""
    program = f"""
import resource
from decimal import Decimal
from typing import Any
from perdure.core.ground.values import codec_for
from perdure.errors import ValueTooLargeError
from test_values_bounded import Named, Node
{make}
limit = 2_500 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
try:
    codec_for({annotation}, "it").{use}(value)
except ValueTooLargeError as error:
    assert "it: more than" in str(error) and "perdure.io.File" in str(error), error
else:
    raise SystemExit("not refused")
"""
    folder = __file__.rpartition("/")[0]
    code = f"import sys; sys.path.insert(0, {folder!r})\n{program}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr


def test_all_arguments_together_are_limited_while_they_are_encoded() -> None:
    def many(*items: str, **more: str) -> None: ...

    signature = Signature.of(many)
    text = "x" * 2**20
    for args, kwargs in (((text,) * 2**14, {}), ((), {f"a{n}": text for n in range(2**14)})):
        with pytest.raises(ValueTooLargeError):
            signature.encode_inputs(args, kwargs)
        with pytest.raises(ValueTooLargeError):
            signature.identity(args, kwargs)


@pytest.mark.parametrize("size", [2_000, 5_000, 1_000_000])
def test_integers_of_many_digits_are_stored_and_shown(size: int) -> None:
    huge = 10**size
    for value in (huge, -huge, [huge], {huge}, {"a": huge}, range(huge), range(0, huge, 7), {huge: 1}, (huge, 2)):
        data = ANY.encode(value)
        assert ANY.decode(data) == value
        assert len(preview(data)) <= 200
        assert "unreadable" not in preview(data)
    assert preview(ANY.encode(huge)).startswith("0x" if size > 4000 else "1000")
    assert preview(ANY.encode(-huge)).startswith("-0x" if size > 4000 else "-1000")


@pytest.mark.parametrize(
    "data",
    [
        wire.encode([1] * 3_000_000),
        wire.encode([[]] * 3_000_000),
        wire.encode(["x" * 1_000_000] * 10),
        wire.encode("x" * 9_000_000),
        wire.encode(b"x" * 9_000_000),
        wire.encode(wire.Ext(wire.DECIMAL, b"9" * 9_000_000)),
        wire.encode(wire.Ext(wire.INT, b"\x11" * 9_000_000)),
        wire.encode(wire.Ext(wire.BYTEARRAY, b"\x11" * 9_000_000)),
        as_set(colliding(100_000)),
        as_map(colliding(100_000)),
        b"\x91" * 9_000_000,
        b"\xc7\xff\x03" * 1_000_000,
    ],
)
def test_a_preview_costs_by_what_it_shows_and_not_by_the_value(data: bytes) -> None:
    preview(ANY.encode(1))
    began = time.thread_time()
    for _ in range(10):
        assert len(preview(data, 120)) <= 120
        assert len(preview_inputs(data, 120)) <= 120
    assert time.thread_time() - began < 0.5


@pytest.mark.parametrize(
    "head",
    [b"\x91", b"\xdd\x00\x00\x00\x01", b"\x81\xa0", b"\xc7\x01\x03\x91", b"\xc7\xff\x04", b"\xc9\xff\xff\xff\xff\x07"],
)
def test_deeply_nested_bytes_are_a_clear_error(head: bytes) -> None:
    data = head * 200_000
    began = time.thread_time()
    with pytest.raises(ValueMismatchError):
        ANY.decode(data)
    for annotation in (list[Any], dict[str, Any], set[Any], Node):
        with pytest.raises(ValueMismatchError):
            codec_for(annotation).decode(data)
    assert time.thread_time() - began < 5


@pytest.mark.parametrize(
    "data",
    [
        ANY.encode(10**5000),
        ANY.encode({10**5000: {"a": 10**5000}}),
        ANY.encode(range(10**15)),
        ANY.encode([range(0, 10**5000, 3)]),
        as_set(colliding(40_000)),
        as_map(colliding(40_000)),
        b"\x91" * 800 + b"\x01",
        b"\xc1",
    ],
)
def test_any_stored_value_is_shown_as_json_in_bounded_time(data: bytes) -> None:
    began = time.thread_time()
    assert len(json.dumps(output._decoded(data))) < 100_000
    assert time.thread_time() - began < 3

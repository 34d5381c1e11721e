"""Arguments as identity and as recorded inputs."""

from __future__ import annotations

import collections.abc as abc
import dataclasses
import functools
import json
import os
import subprocess
import sys
import typing
from collections.abc import AsyncIterator, Callable, Generator, Iterator
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from perdure.core.ground.values import INLINE_LIMIT, Signature, preview
from perdure.errors import PerdureError, UnsupportedTypeError, UsageError, ValueMismatchError, ValueTooLargeError

SENTINEL = object()
PATIENT = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])


@dataclasses.dataclass
class Point:
    x: int
    y: int = 0


class Client:
    """Cannot be stored."""


def mixed(a: int, b: str = "b", /, c: float = 1.0, *more: int, d: list[int] | None = None, **rest: Point) -> None: ...


def untyped(a, b=2, *args, c=SENTINEL, **kwargs): ...  # type: ignore[no-untyped-def]


def scalars(a: int, b: str = "x", c: float = 0.0, d: bool = False) -> None: ...


def later(x: DefinedLater, y: list[DefinedLater] | None = None) -> DefinedLater: ...  # type: ignore[empty-body]


before = Signature.of(later)


@dataclasses.dataclass
class DefinedLater:
    x: int


def calls(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> bytes:
    return Signature.of(fn).identity(args, kwargs)


# ------------------------------------------------------------------------------------------------------- identity


def test_identity_does_not_depend_on_how_arguments_are_passed() -> None:
    assert (
        calls(scalars, 1, "y") == calls(scalars, a=1, b="y") == calls(scalars, b="y", a=1) == calls(scalars, 1, b="y")
    )
    assert calls(scalars, 1, "x", 0.0, False) == calls(scalars, 1) == calls(scalars, d=False, a=1)
    assert calls(mixed, 1, d=None) == calls(mixed, 1)


def test_identity_tells_apart_what_python_calls_equal() -> None:
    def f(x: Any = None) -> None: ...

    values = [1, 1.0, True, "1", b"1", [1], (1,), {1}, frozenset({1}), 0.0, -0.0, 0, False, 2**70, None, float("nan")]
    assert len({calls(f, value) for value in values}) == len(values)
    assert calls(f, [1]) != calls(f, [True]) != calls(f, [1.0])


@pytest.mark.parametrize("default", [0.0, 1, True, "x", None, [1], {"a": 1}, float("nan"), 2**70])
def test_an_argument_that_equals_its_default_is_left_out(default: object) -> None:
    def f(x: Any = default) -> None: ...

    again = json.loads(json.dumps(default))
    assert calls(f, default) == calls(f) == calls(f, again) == b"\x80"


@pytest.mark.parametrize(("default", "value"), [(0.0, -0.0), (1, True), (1, 1.0), ([1], [True]), ({}, []), ("", b"")])
def test_an_argument_that_only_seems_to_equal_its_default_is_kept(default: object, value: object) -> None:
    def f(x: Any = default) -> None: ...

    assert calls(f, value) != calls(f)


def test_a_default_that_cannot_be_stored_is_left_out_too() -> None:
    assert calls(untyped, 1, c=SENTINEL) == calls(untyped, 1)
    assert calls(untyped, 1, c=3) != calls(untyped, 1)


def test_an_argument_with_a_hostile_equality_is_only_encoded() -> None:
    class Hostile(list[int]):
        def __eq__(self, other: object) -> bool:
            raise RuntimeError

        __hash__ = None  # type: ignore[assignment]

    def f(x: list[int] = [1]) -> None: ...  # noqa: B006

    assert calls(f, Hostile([2])) == calls(f, [2])


def test_identity_does_not_depend_on_the_order_of_dicts_and_keywords() -> None:
    def f(x: Any, y: dict[str, int]) -> None: ...

    assert calls(f, {"a": 1, "b": {1: 2, "c": 3}}, {"a": 1, "b": 2}) == calls(
        f, {"b": {"c": 3, 1: 2}, "a": 1}, {"b": 2, "a": 1}
    )
    assert calls(untyped, 1, x=1, y=2) == calls(untyped, 1, y=2, x=1)


HASHED = """
import sys
from perdure.core.ground.values import Signature
def f(x, y: set[str] = set(), z: dict[frozenset[str], int] = {}): ...
words = ["alpha", "beta", "gamma", "delta"]
print(Signature.of(f).identity(({w: set(words) for w in set(words)}, set(words)), {"z": {frozenset(words): 1}}).hex())
"""


def test_identity_is_equal_in_processes_with_other_hash_seeds() -> None:
    seen = set()
    for seed in ("0", "1", "4711"):
        env = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run([sys.executable, "-c", HASHED], env=env, capture_output=True, text=True, check=True)
        seen.add(done.stdout)
    assert len(seen) == 1


@PATIENT
@given(
    args=st.lists(st.one_of(st.integers(), st.text(), st.floats(), st.booleans(), st.none(), st.binary()), max_size=4)
)
def test_the_fast_way_gives_the_same_bytes_as_the_general_one(args: list[Any]) -> None:
    def f(a=1, b="", c=0.0, d=None): ...  # type: ignore[no-untyped-def]

    signature = Signature.of(f)
    assert signature.identity(tuple(args), {}) == signature._identity(signature._bind(tuple(args), {}))


def test_an_argument_that_cannot_be_stored_is_named_with_the_way_out() -> None:
    def fetch(client, url: str): ...  # type: ignore[no-untyped-def]

    with pytest.raises(UnsupportedTypeError, match=r"'client' of .*fetch.*Client.*@trace\(ignore=\(\"client\",\)\)"):
        calls(fetch, Client(), "u")
    signature = Signature.of(fetch, ignore=("client",))
    assert signature.identity((Client(), "u"), {}) == signature.identity((None,), {"url": "u"})
    assert signature.identity((Client(), "u"), {}) == signature.identity((1, "u"), {})
    assert signature.preview(signature.identity((Client(), "u"), {})) == "url='u'"


def test_a_declared_type_that_cannot_be_stored_is_refused_at_declaration_unless_ignored() -> None:
    def fetch(client: Client, url: str) -> int: ...  # type: ignore[empty-body]

    with pytest.raises(UnsupportedTypeError, match=r"'client' of .*ignore=\(\"client\",\)"):
        Signature.of(fetch)
    assert Signature.of(fetch, ignore=("client",)).encode_inputs((Client(), "u"), {}) == b"\x81\xa3url\xa1u"

    def give() -> Client: ...  # type: ignore[empty-body]

    with pytest.raises(UnsupportedTypeError, match=r"return value of .*give"):
        Signature.of(give)


def test_ignoring_a_parameter_that_is_not_there_is_an_error() -> None:
    with pytest.raises(UsageError, match="no parameter 'clinet'"):
        Signature.of(scalars, ignore=("clinet",))
    with pytest.raises(UsageError, match=r"write ignore=\('a',\)"):
        Signature.of(scalars, ignore="a")


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1, 2, 3, 4, 5), {}), ((1,), {"a": 2}), ((1,), {"nope": 2}), ((), {"b": "x"})],
)
def test_a_wrong_call_is_a_type_error(args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    signature = Signature.of(scalars)
    for call in (signature.identity, signature.encode_inputs):
        with pytest.raises(TypeError, match=r"^scalars\(\) ") as caught:
            call(args, kwargs)
        assert not isinstance(caught.value, PerdureError)


def test_required_keyword_only_and_positional_only_parameters() -> None:
    def f(a, /, *, b): ...  # type: ignore[no-untyped-def]

    for args, kwargs in (((1,), {}), ((), {"a": 1, "b": 2}), ((1, 2), {})):
        with pytest.raises(TypeError):
            calls(f, *args, **kwargs)
    assert calls(f, 1, b=2)


# --------------------------------------------------------------------------------------------------------- inputs


@pytest.mark.parametrize(
    ("args", "kwargs", "again"),
    [
        ((1,), {}, ((1,), {})),
        ((1, "x"), {}, ((1, "x"), {})),
        ((1,), {"c": 2.0}, ((1,), {"c": 2.0})),
        ((1, "x", 3, 4, 5), {}, ((1, "x", 3.0, 4, 5), {})),
        ((1,), {"d": [1]}, ((1,), {"d": [1]})),
        ((1,), {"c": 2, "p": Point(1), "a": Point(2)}, ((1,), {"c": 2.0, "p": Point(1), "a": Point(2)})),
    ],
)
def test_inputs_come_back_as_a_call(args: Any, kwargs: Any, again: Any) -> None:
    signature = Signature.of(mixed)
    decoded = signature.decode_inputs(signature.encode_inputs(args, kwargs))
    assert decoded == again
    assert list(map(type, decoded[0])) == list(map(type, again[0]))


@PATIENT
@given(
    args=st.lists(st.integers(), min_size=1, max_size=6).map(tuple),
    kwargs=st.dictionaries(st.sampled_from("bcxyz"), st.lists(st.integers() | st.text(max_size=3), max_size=2)),
)
def test_inputs_call_the_function_alike(args: tuple[int, ...], kwargs: dict[str, Any]) -> None:
    def f(a: int, b: Any = 1, *more: int, c: Any = SENTINEL, **rest: Any) -> Any:
        return a, b, more, c, rest

    signature = Signature.of(f)
    if len(args) > 1:
        kwargs.pop("b", None)
    again = signature.decode_inputs(signature.encode_inputs(args, kwargs))
    assert f(*again[0], **again[1]) == f(*args, **kwargs)


def test_inputs_are_copies() -> None:
    given_list = [1]
    signature = Signature.of(mixed)
    _, kwargs = signature.decode_inputs(signature.encode_inputs((1,), {"d": given_list}))
    assert kwargs["d"] == [1]
    assert kwargs["d"] is not given_list


def test_gaps_before_positional_arguments_are_filled_with_defaults() -> None:
    def f(a=1, b=2, /, c=3, *more): ...  # type: ignore[no-untyped-def]

    encoded = Signature.of(f).identity((1, 2, 3, 4), {})
    assert preview(encoded) == "{'more': [4]}"
    assert Signature.of(f).decode_inputs(encoded) == ((1, 2, 3, 4), {})
    assert Signature.of(f).decode_inputs(Signature.of(f).identity((1, 5), {"c": 4})) == ((1, 5, 4), {})


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        (("1",), {}, "parameter 'a' of mixed: declared `int`, got str '1'"),
        ((1, "b", 1.0, "x"), {}, "parameter 'more' of mixed: declared `int`"),
        ((1,), {"d": ["x"]}, "parameter 'd' of mixed, at [0]: expected `int`"),
        ((1,), {"z": {"x": 1}}, "parameter 'rest' of mixed: declared `Point`"),
    ],
)
def test_an_argument_that_does_not_fit_names_its_parameter(args: Any, kwargs: Any, said: str) -> None:
    with pytest.raises(ValueMismatchError) as caught:
        Signature.of(mixed).encode_inputs(args, kwargs)
    assert said in str(caught.value)


def test_inputs_that_do_not_fit_the_parameters_any_more_say_so() -> None:
    def old(a: int, gone: int) -> None: ...
    def new(a: int) -> None: ...
    def more(a: int, gone: int, needed: int) -> None: ...

    encoded = Signature.of(old).encode_inputs((1, 2), {})
    for fn in (new, more):
        with pytest.raises(ValueMismatchError, match="recorded with a, gone, but its parameters are a"):
            Signature.of(fn).decode_inputs(encoded)


@PATIENT
@given(data=st.binary(max_size=30))
def test_corrupt_inputs_are_a_clear_error(data: bytes) -> None:
    signature = Signature.of(mixed)
    for attempt in (data, b"\x81\xa4rest" + data, b"\x81\xa4more" + data, b"\x81\xa1a" + data):
        try:
            signature.decode_inputs(attempt)
        except ValueMismatchError:
            pass
        signature.preview(attempt)


def test_inputs_over_the_inline_limit_are_refused_together() -> None:
    half = b"x" * (INLINE_LIMIT // 2)
    with pytest.raises(ValueTooLargeError, match=r"inputs of untyped: 10,4\d\d,\d\d\d bytes"):
        Signature.of(untyped).encode_inputs((half, half), {})


def test_preview_shows_arguments() -> None:
    signature = Signature.of(mixed)
    assert (
        signature.preview(signature.encode_inputs((3, "a"), {"p": Point(1)}))
        == "a=3, b='a', rest={'p': {'x': 1, 'y': 0}}"
    )
    assert signature.preview(signature.encode_inputs((3, "a" * 300), {}), limit=12) == "a=3, b='aaa…"
    assert signature.preview(b"\xc1") == "<unreadable inputs of 1 bytes>"
    assert signature.preview(b"\x80") == ""


# ---------------------------------------------------------------------------------------------------- annotations


def test_names_defined_further_down_are_resolved_on_first_use() -> None:
    encoded = before.encode_inputs((DefinedLater(1),), {"y": [DefinedLater(2)]})
    assert before.decode_inputs(encoded) == ((DefinedLater(1), [DefinedLater(2)]), {})
    assert before.returns.roundtrip(DefinedLater(3))[1] == DefinedLater(3)


def test_a_name_that_is_never_defined_is_named() -> None:
    def f(x: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    signature = Signature.of(f)
    with pytest.raises(UnsupportedTypeError, match=r"parameter 'x' of .*f: annotation 'Nowhere' cannot be resolved"):
        signature.encode_inputs((1,), {})
    assert Signature.of(f, ignore=("x",)).encode_inputs((1,), {}) == b"\x80"


def test_classes_local_to_a_function_are_found_with_their_fields() -> None:
    @dataclasses.dataclass
    class Inner:
        x: int

    @dataclasses.dataclass
    class Outer:
        inner: list[Inner]

    def f(x: Outer) -> Inner: ...  # type: ignore[empty-body]

    signature = Signature.of(f)
    value = Outer([Inner(1)])
    assert signature.decode_inputs(signature.encode_inputs((value,), {})) == ((value,), {})
    assert signature.returns.roundtrip(Inner(2))[1] == Inner(2)


def test_methods_partials_wrappers_and_callable_objects() -> None:
    class Service:
        def work(self, day: date) -> list[date]: ...  # type: ignore[empty-body]

        def __call__(self, day: date) -> None: ...

    @functools.wraps(scalars)
    def wrapper(*args: Any, **kwargs: Any) -> None: ...

    today = date(2020, 1, 1)
    method = Signature.of(Service.work, ignore=("self",))
    assert method.decode_inputs(method.encode_inputs((Service(), today), {})) == ((), {"day": today})
    assert Signature.of(Service()).identity((today,), {}) == Signature.of(Service().work).identity((today,), {})
    assert Signature.of(wrapper).identity((1,), {}) == Signature.of(scalars).identity((1,), {})
    assert Signature.of(functools.partial(scalars, 1)).identity((), {"b": "y"})


def test_the_return_type_of_functions_and_coroutines() -> None:
    async def work() -> int: ...  # type: ignore[empty-body]
    def start() -> abc.Awaitable[int]: ...  # type: ignore[empty-body]
    def free(): ...  # type: ignore[no-untyped-def]

    for fn in (work, start):
        with pytest.raises(ValueMismatchError, match=rf"return value of .*{fn.__name__}: declared `int`"):
            Signature.of(fn).returns.encode("x")
    assert Signature.of(free).returns.roundtrip((1,))[1] == (1,)
    assert Signature.of(free).yields.annotation is Any


@pytest.mark.parametrize(
    "annotation",
    [
        Generator[int, None, None], Iterator[int], abc.Iterable[int], AsyncIterator[int], abc.AsyncGenerator[int, None],
        abc.AsyncIterable[int], typing.Generator[int, None, str], typing.Iterator[int],
    ],
)  # fmt: skip
def test_the_item_type_of_generators(annotation: Any) -> None:
    def f(): ...  # type: ignore[no-untyped-def]

    f.__annotations__["return"] = annotation
    yields = Signature.of(f).yields
    assert yields.roundtrip(3)[1] == 3
    with pytest.raises(ValueMismatchError, match=r"item of .*f: declared `int`"):
        yields.encode("x")


def test_a_generator_whose_items_cannot_be_stored_is_refused_at_declaration() -> None:
    def f() -> Iterator[Client]:
        yield Client()

    with pytest.raises(UnsupportedTypeError, match="item of "):
        Signature.of(f)


def test_parameters_are_those_of_the_function() -> None:
    assert list(Signature.of(mixed).parameters) == ["a", "b", "c", "more", "d", "rest"]


def test_something_without_a_signature_is_refused() -> None:
    with pytest.raises(UsageError, match="no signature"):
        Signature.of(type)

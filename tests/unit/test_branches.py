"""A branch's name is made of the coroutine and its arguments, on every version of Python.

The family: names of CPython and asyncio whose meaning changes from one minor version to the next. Python 3.13 gives a
proxy instead of a dict for `frame.f_locals`, and branches lost their arguments there: two coroutines of one function
were then told apart by their order alone, which differs from run to run where a set of them is iterated over.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from types import MappingProxyType, SimpleNamespace
from typing import Any

import pytest

from perdure.core.body.branch import Branch, fork_for_coroutine, fork_for_function


def names(*work: Any, fork: Callable[[Branch, Any], Branch] = fork_for_coroutine) -> list[int]:
    """The branches' names, each forked from a parent of its own, so that no occurrence number tells them apart."""
    found = [fork(Branch(None, 0, "main", parent=None, floor=0), each).id for each in work]  # type: ignore[arg-type]
    for each in work:
        if hasattr(each, "close"):
            each.close()
    return found


async def plain(a: Any, b: int = 2) -> None: ...


async def keywords(*many: int, **more: int) -> None: ...


async def only_keywords(*, left: int, right: int) -> None: ...


def closure(cell: int) -> Coroutine[Any, Any, None]:
    async def inner(a: int) -> int:
        return a + cell

    return inner(1)  # type: ignore[return-value]


class Owner:
    async def method(self, a: int) -> None: ...


FAMILY: dict[str, Callable[[int], Coroutine[Any, Any, Any]]] = {
    "positional": lambda n: plain(n),
    "default overridden": lambda n: plain(0, n),
    "star arguments": lambda n: keywords(n, n),
    "double star arguments": lambda n: keywords(**{f"k{n}": 1}),
    "keyword only": lambda n: only_keywords(left=n, right=1),
    "variables of a closure": closure,
    "containers": lambda n: plain([{"deep": (n,)}]),
}


@pytest.mark.parametrize("kind", FAMILY)
def test_coroutines_are_named_by_their_arguments(kind: str) -> None:
    make = FAMILY[kind]
    one, same, other = names(make(1), make(1), make(2))
    assert one == same
    assert one != other


def test_the_locals_of_a_frame_may_be_a_proxy_and_no_dict() -> None:
    """What Python 3.13 gives, on every version."""

    def proxied(n: int) -> Any:
        frame = SimpleNamespace(f_locals=MappingProxyType({"a": n}))
        return SimpleNamespace(__qualname__="proxied", cr_frame=frame, cr_suspended=False, cr_running=False)

    one, same, other = names(proxied(1), proxied(1), proxied(2))
    assert one == same
    assert one != other


def test_an_argument_that_cannot_be_encoded_leaves_the_others_in_the_name() -> None:
    one, same, other = names(Owner().method(1), Owner().method(1), Owner().method(2))
    assert one == same != other


def test_a_coroutine_as_an_argument_counts_by_its_function_and_arguments() -> None:
    """A wrapper around pieces of work that a set holds (`asyncio.as_completed`) has no other name."""
    one, same, other = names(*(plain(plain(n)) for n in (1, 1, 2)))
    assert one == same != other


def test_a_clock_s_reading_in_a_closure_is_no_part_of_a_name() -> None:
    def named(reading: float) -> Coroutine[Any, Any, float]:
        async def inner() -> float:
            return reading

        return inner()

    one, other = names(named(1.5), named(2.5))
    assert one == other


def test_functions_for_threads_are_named_by_their_arguments() -> None:
    from contextvars import Context
    from functools import partial

    for wrap in (lambda n: partial(max, n, 3), lambda n: partial(Context().run, max, n, 3)):
        one, same, other = names(wrap(1), wrap(1), wrap(2), fork=fork_for_function)
        assert one == same
        assert one != other

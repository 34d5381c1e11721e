"""Classes of other layers that are stored as a value of another type.

The core does not know such a class. The layer that knows the class adds a *finder*, and the finder gives the class's
`Form`: how to turn an instance into a storable value and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from perdure.core.ground.values._nodes import Misfit, Node
from perdure.core.ground.values._wire import Mode, dump_any


class Form(NamedTuple):
    """How instances of a class are stored.

    Attributes:
        stored: the annotation of the stored value.
        put: turns an instance, or another value that `accepts` takes, into the stored value. Raises `ValueError` for a
            value that cannot be stored, with the reason.
        get: the inverse of `put`. Raises `ValueError` for a stored value that leads to no instance any more.
        accepts: whether `put` takes a value.
        identity: what stands for an instance in an identity, of built-in types: equal for equal instances.
    """

    stored: object
    put: Callable[[Any], object]
    get: Callable[[Any], object]
    accepts: Callable[[object], bool]
    identity: Callable[[Any], object] | None = None


Finder = Callable[[type], Form | None]

_finders: list[Finder] = []


def add_forms(find: Finder) -> None:
    """Make a finder known. A finder returns `None` for a class of another layer."""
    _finders.append(find)


def form_of(cls: type) -> Form | None:
    """The form of a class; `None` for a class without a form."""
    for find in _finders:
        form = find(cls)
        if form is not None:
            return form
    return None


class FormNode(Node):
    """A class that is stored through its form."""

    def __init__(self, cls: type, label: str, form: Form, inner: Node) -> None:
        self.label = label
        self.types = (cls,)
        self.form = form
        self.inner = inner

    def children(self) -> Iterable[Node]:
        return (self.inner,)

    def dump(self, value: Any, mode: Mode) -> object:
        if not self.form.accepts(value):
            raise Misfit(self.label, value)
        if type(value) not in self.types:
            mode.inexact += 1
        try:
            if mode.canonical and self.form.identity is not None:
                return dump_any(self.form.identity(value), mode)
            stored = self.form.put(value)
        except ValueError as error:
            raise Misfit(self.label, value, str(error)) from None
        return self.inner.dump(stored, mode)

    def load(self, wire: Any) -> object:
        stored = self.inner.load(wire)
        try:
            return self.form.get(stored)
        except ValueError as error:
            raise Misfit(self.label, stored, str(error)) from None

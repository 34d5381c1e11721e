"""Classes of other layers that are stored as a value of another type.

The core does not know such a class. The layer that knows the class adds a *finder*, and the finder gives the class's
`Form`: how to turn an instance into a storable value and back.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

from msgspec.msgpack import Ext

from perdure.core.ground.values._nodes import Misfit, Node
from perdure.core.ground.values._wire import FORM, Mode, NotStorable, add_form_types, dump_any, encode


class Form(NamedTuple):
    """How instances of a class are stored.

    Attributes:
        stored: the annotation of the stored value.
        put: turns an instance, or another value that `accepts` takes, into the stored value. Raises `ValueError` for a
            value that cannot be stored, with the reason.
        get: the inverse of `put`. Raises `ValueError` for a stored value that leads to no instance any more.
        accepts: whether `put` takes a value.
        identity: what stands for an instance in an identity, of built-in types: equal for equal instances.
        tag: names the form in stored data, where nothing is declared; empty: the class has to be declared. The stored
            value is then of types that need no declaration, or a dataclass of such types.
    """

    stored: object
    put: Callable[[Any], object]
    get: Callable[[Any], object]
    accepts: Callable[[object], bool]
    identity: Callable[[Any], object] | None = None
    tag: str = ""


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


# -- where nothing is declared ---------------------------------------------------------------------------------------

_tagged: dict[str, FormNode] = {}
"""Forms by their tags. The tags are few and fixed: no class is looked up by a name from data."""


def add_tagged(cls: type, form: Form, inner: Node) -> None:
    """Make the tag of a form known. `inner`: the node of the stored value."""
    _tagged[form.tag] = FormNode(cls, cls.__qualname__, form, inner)


def _writer(cls: type) -> Callable[[Any, Mode], object] | None:
    form = form_of(cls)
    if form is None or form.tag not in _tagged:
        return None
    node = _tagged[form.tag]

    def dump(value: Any, mode: Mode) -> object:
        mode.take(len(form.tag))
        try:
            return Ext(FORM, encode([form.tag, node.dump(value, mode)]))
        except Misfit as misfit:
            raise NotStorable(value, misfit.note) from None

    return dump


def _reader(wire: Any) -> object:
    tag, stored = wire
    node = _tagged.get(tag)
    if node is None:
        raise ValueError(f"a value of {tag} can be read only by a program that has imported {tag.rpartition('.')[0]}")
    return node.load(stored)


add_form_types(_writer, _reader)

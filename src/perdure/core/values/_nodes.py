"""Declared types as trees of nodes: each node knows how to write and to read the values of one type.

`dump` checks a value against its declaration and gives objects that `_wire.encode` writes; `load` is its inverse and
checks as strictly, because bytes may be corrupt or older than the declaration. Both raise `Misfit`.

Where msgspec alone writes and reads a tree losslessly (`native` on all its nodes), a codec uses one msgspec call
instead, and the nodes only for what that call refuses: both must therefore read and write the same bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Literal, cast

from perdure.core.values import _wire
from perdure.core.values._wire import NotStorable, short

Kind = Literal["none", "bool", "int", "float", "str", "bytes", "array", "map"]
_WIRE_KINDS: dict[type, Kind] = {
    bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", list: "array", dict: "map",
}  # fmt: skip


class Misfit(Exception):
    """A value or wire object that does not fit; `path` grows outwards as the exception passes containers."""

    def __init__(self, expected: str, found: object, note: str = "") -> None:
        super().__init__()
        self.expected = expected
        self.found = found
        self.note = note
        self.path: list[str] = []


class Node:
    """One type of a declaration.

    Attributes:
        label: the type as text, for messages and as the tag of a union's member.
        types: classes whose instances fit this node better than any other member of a union.
        native: whether msgspec alone handles this node (not looking at its children).
        kind: how MessagePack holds its values, where that is one way; tells the members of native unions apart.
    """

    label: str
    types: tuple[type, ...] = ()
    native: bool = False
    kind: Kind | None = None

    def children(self) -> Iterable[Node]:
        return ()

    def dump(self, value: Any, canonical: bool) -> object:
        raise NotImplementedError

    def load(self, wire: Any) -> object:
        raise NotImplementedError


def walk(root: Node) -> Iterator[Node]:
    """Every node of the tree once; trees of recursive types have cycles."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(node.children())


class AnyNode(Node):
    label = "Any"

    def dump(self, value: Any, canonical: bool) -> object:
        try:
            return _wire.dump_any(value, canonical)
        except NotStorable as refused:
            misfit = Misfit("Any", refused.value)
            misfit.path = refused.path
            raise misfit from None

    def load(self, wire: Any) -> object:
        return wire


class NeverNode(Node):
    """`NoReturn`: no value fits."""

    def __init__(self, label: str) -> None:
        self.label = label

    def dump(self, value: Any, canonical: bool) -> object:
        raise Misfit(self.label, value)

    load = dump  # type: ignore[assignment]


class NoneNode(Node):
    label, types, native, kind = "None", (type(None),), True, "none"

    def dump(self, value: Any, canonical: bool) -> object:
        return self.load(value)

    def load(self, wire: Any) -> object:
        if wire is not None:
            raise Misfit("None", wire)
        return None


class BoolNode(Node):
    label, types, native, kind = "bool", (bool,), True, "bool"

    def dump(self, value: Any, canonical: bool) -> object:
        return self.load(value)

    def load(self, wire: Any) -> object:
        if type(wire) is not bool:
            raise Misfit("bool", wire)
        return wire


class IntNode(Node):
    label, types, native, kind = "int", (int,), True, "int"

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, int) or type(value) is bool:
            raise Misfit("int", value)
        return _wire.dump_int(int.__int__(value))

    def load(self, wire: Any) -> object:
        if type(wire) is not int:
            raise Misfit("int", wire)
        return wire


class FloatNode(Node):
    """`float`, which in Python's typing takes integers: they become floats, live as on replay."""

    label, types, native, kind = "float", (float,), True, "float"

    def dump(self, value: Any, canonical: bool) -> object:
        if isinstance(value, float):
            return float.__float__(value)
        return self.load(value)

    def load(self, wire: Any) -> object:
        if type(wire) is float:
            return wire
        if isinstance(wire, int) and type(wire) is not bool:
            try:
                return float(wire)
            except OverflowError:
                raise Misfit("float", wire, "it is too large for a float") from None
        raise Misfit("float", wire)


class StrNode(Node):
    label, types, native, kind = "str", (str,), True, "str"

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, str):
            raise Misfit("str", value)
        return _wire.dump_str(str.__str__(value))

    def load(self, wire: Any) -> object:
        if type(wire) is not str:
            raise Misfit("str", wire)
        return wire


class BytesNode(Node):
    label, types, native, kind = "bytes", (bytes,), True, "bytes"

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise Misfit("bytes", value)
        return bytes(value)

    def load(self, wire: Any) -> object:
        if type(wire) is not bytes:
            raise Misfit("bytes", wire)
        return wire


class LeafNode(Node):
    """A standard value type that `_wire` has an extension for: datetime, Decimal, UUID and their like."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.label = cls.__qualname__
        self.types = (cls,)

    def dump(self, value: Any, canonical: bool) -> object:
        if type(value) is not self.cls:
            value = self._plain(value)
        try:
            return _wire.dump_any(value, canonical)
        except NotStorable as refused:
            raise Misfit(self.label, refused.value, "its time zone cannot be stored") from None

    def _plain(self, value: Any) -> object:
        """A subclass's instance as the declared class, if nothing is lost by that (nanoseconds would be)."""
        from datetime import date, datetime

        if isinstance(value, self.cls) and not (self.cls is date and isinstance(value, datetime)):
            try:
                copy = _downcast(self.cls, value)
                if copy is not None and bool(copy == value):
                    return copy
            except Exception:  # any error of a foreign class means the same: it is no plain value
                raise Misfit(self.label, value) from None
        raise Misfit(self.label, value)

    def load(self, wire: Any) -> object:
        if type(wire) is not self.cls:
            raise Misfit(self.label, wire)
        return wire


def _downcast(cls: type, value: Any) -> object:
    from datetime import date, datetime, timedelta

    if cls is datetime:
        return datetime.combine(value.date(), value.time(), value.tzinfo)
    if cls is date:
        return date(value.year, value.month, value.day)
    if cls is timedelta:
        return timedelta(value.days, value.seconds, value.microseconds)
    if cls.__name__ in ("Decimal", "bytearray"):
        return cls(value)
    return None


class PathNode(Node):
    """`pathlib` paths, as text."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.label = cls.__qualname__
        self.types = (cls, type(cls())) if cls.__qualname__ in ("Path", "PurePath") else (cls,)

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, self.cls):
            raise Misfit(self.label, value)
        return _wire.dump_str(str(value))

    def load(self, wire: Any) -> object:
        if type(wire) is not str:
            raise Misfit(self.label, wire)
        return self.cls(wire)


class EnumNode(Node):
    """Enum members by name (values need not be storable); flags by value (their combinations have no name)."""

    def __init__(self, cls: Any) -> None:
        from enum import Flag

        self.cls = cls
        self.label = cls.__qualname__
        self.types = (cls,)
        self.by_value = issubclass(cls, Flag)

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, self.cls):
            raise Misfit(self.label, value)
        return _wire.dump_int(int(value._value_)) if self.by_value else _wire.dump_str(value._name_)

    def load(self, wire: Any) -> object:
        if self.by_value and type(wire) is int:
            member = self.cls(wire)
            if isinstance(member, self.cls):
                return member
        elif type(wire) is str and wire in self.cls._member_map_:
            return self.cls._member_map_[wire]
        raise Misfit(self.label, wire)


class LiteralNode(Node):
    """`Literal[...]`: plain options as they are; Enum members as `[label of the class, name]`."""

    def __init__(self, label: str, options: tuple[Any, ...], enums: dict[type, EnumNode]) -> None:
        self.label = label
        self.options = options
        self.enums = enums
        self.types = tuple({type(option) for option in options})
        self.native = not enums and set(self.types) <= {str, int}

    def _fits(self, value: object) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)

    def dump(self, value: Any, canonical: bool) -> object:
        if not self._fits(value):
            raise Misfit(self.label, value)
        enum = self.enums.get(type(value))
        return [enum.label, enum.dump(value, canonical)] if enum else _wire.dump_any(value)

    def load(self, wire: Any) -> object:
        if type(wire) is list and len(wire) == 2:
            for enum in self.enums.values():
                if enum.label == wire[0]:
                    wire = enum.load(wire[1])
                    break
        if not self._fits(wire):
            raise Misfit(self.label, wire)
        return wire


class ArrayNode(Node):
    """Lists, sets, frozensets, tuples of any length, and the abstract collections (which come back as `build`)."""

    def __init__(self, label: str, item: Node, accepts: tuple[type, ...], build: Callable[[Any], Any]) -> None:
        self.label = label
        self.item = item
        self.accepts = accepts
        self.build = build
        self.types = (build,) if isinstance(build, type) else ()
        self.sorts = build in (set, frozenset)
        self.native = build in (list, tuple) and accepts == (build,)
        self.kind = "array"

    def children(self) -> Iterable[Node]:
        return (self.item,)

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, self.accepts) or isinstance(value, (str, bytes, bytearray, Iterator, Mapping)):
            raise Misfit(self.label, value, "an iterator is used up by storing it" * isinstance(value, Iterator))
        wires: list[object] = []
        dump = self.item.dump
        try:
            for item in cast("Iterable[Any]", value):
                wires.append(dump(item, canonical))
        except Misfit as misfit:
            misfit.path.append(f"[{len(wires)}]")
            raise
        return _wire.sorted_wires(wires) if self.sorts or isinstance(value, (set, frozenset)) else wires

    def load(self, wire: Any) -> object:
        if type(wire) is not list:
            raise Misfit(self.label, wire)
        return self.build(map(self.item.load, wire))


class TupleNode(Node):
    """A tuple of fixed length."""

    types, native, kind = (tuple,), True, "array"

    def __init__(self, label: str, items: list[Node]) -> None:
        self.label = label
        self.items = items

    def children(self) -> Iterable[Node]:
        return self.items

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, tuple) or len(value) != len(self.items):
            raise Misfit(self.label, value)
        wires: list[object] = []
        try:
            for node, item in zip(self.items, value, strict=True):
                wires.append(node.dump(item, canonical))
        except Misfit as misfit:
            misfit.path.append(f"[{len(wires)}]")
            raise
        return wires

    def load(self, wire: Any) -> object:
        if type(wire) is not list or len(wire) != len(self.items):
            raise Misfit(self.label, wire)
        return tuple(node.load(item) for node, item in zip(self.items, wire, strict=True))


class DictNode(Node):
    """Mappings, which come back as dicts in the same order.

    A map where MessagePack can hold all the keys, else a list of `[key, value]`.
    """

    types, kind = (dict,), "map"

    def __init__(self, label: str, key: Node, item: Node, accepts: type) -> None:
        self.label = label
        self.key = key
        self.item = item
        self.accepts = accepts
        self.plain_keys = isinstance(key, (StrNode, IntNode))
        self.native = self.plain_keys and accepts is dict

    def children(self) -> Iterable[Node]:
        return (self.key, self.item)

    def dump(self, value: Any, canonical: bool) -> object:
        if not isinstance(value, self.accepts):
            raise Misfit(self.label, value)
        pairs: list[list[object]] = []
        plain = self.plain_keys
        for key, item in cast("Mapping[Any, Any]", value).items():
            try:
                wire = self.key.dump(key, canonical)
                plain = plain and type(wire) in (str, int)
                pairs.append([wire, self.item.dump(item, canonical)])
            except Misfit as misfit:
                misfit.path.append(f"[{short(key)}]")
                raise
        if canonical:
            pairs.sort(key=_wire.key_order)
        return dict(pairs) if plain else pairs  # type: ignore[arg-type]

    def load(self, wire: Any) -> object:
        if type(wire) is list:
            wire = dict_of_pairs(self, wire)
        elif type(wire) is dict and self.plain_keys:
            wire = {self.key.load(key): self.item.load(item) for key, item in wire.items()}
        else:
            raise Misfit(self.label, wire)
        return wire


def dict_of_pairs(node: DictNode, wire: list[Any]) -> dict[Any, Any]:
    pairs = {}
    for pair in wire:
        if type(pair) is not list or len(pair) != 2:
            raise Misfit(node.label, pair)
        pairs[node.key.load(pair[0])] = node.item.load(pair[1])
    return pairs


class OptionalNode(Node):
    """`X | None`: nothing but `None` is written as nil, so no tag is needed."""

    native = True

    def __init__(self, label: str, inner: Node) -> None:
        self.label = label
        self.inner = inner
        self.types = (*inner.types, type(None))

    def children(self) -> Iterable[Node]:
        return (self.inner,)

    def dump(self, value: Any, canonical: bool) -> object:
        return None if value is None else self.inner.dump(value, canonical)

    def load(self, wire: Any) -> object:
        return None if wire is None else self.inner.load(wire)


class UnionNode(Node):
    """A union of at least two types besides `None`.

    A value belongs to the member of exactly its type; where there is none or it does not fit, to the first member
    that takes it. It is written as `[label of the member, value]`, except where MessagePack's own kinds already tell
    all members apart, as in `int | str`.
    """

    def __init__(self, label: str, members: list[Node], labels: list[str], tagged: bool) -> None:
        self.label = label
        self.members = members
        self.labels = labels
        self.types = tuple(cls for member in members for cls in member.types)
        self.native = not tagged
        self.tagged = tagged

    def children(self) -> Iterable[Node]:
        return self.members

    def dump(self, value: Any, canonical: bool) -> object:
        cls = type(value)
        exact = [position for position, member in enumerate(self.members) if cls in member.types]
        misfit = None
        for position in (*exact, *(other for other in range(len(self.members)) if other not in exact)):
            try:
                wire = self.members[position].dump(value, canonical)
            except Misfit as caught:
                misfit = misfit or caught
            else:
                return [self.labels[position], wire] if self.tagged else wire
        if misfit is not None and misfit.path and len(exact) == 1:
            raise misfit  # the member is clear, something inside it is wrong
        raise Misfit(self.label, value) from None

    def load(self, wire: Any) -> object:
        if self.tagged:
            if type(wire) is list and len(wire) == 2 and wire[0] in self.labels:
                return self.members[self.labels.index(wire[0])].load(wire[1])
        else:
            kind = _WIRE_KINDS.get(type(wire))
            kinds = [member.kind for member in self.members]
            if kind == "int" and kind not in kinds:
                kind = "float"
            if kind is not None and kind in kinds:
                return self.members[kinds.index(kind)].load(wire)
        raise Misfit(self.label, wire)


class RefNode(Node):
    """Stands for a type that is still being compiled, so that recursive types can name themselves."""

    target: Node

    def __init__(self, label: str) -> None:
        self.label = label

    def children(self) -> Iterable[Node]:
        return (self.target,)

    def dump(self, value: Any, canonical: bool) -> object:
        return self.target.dump(value, canonical)

    def load(self, wire: Any) -> object:
        return self.target.load(wire)

"""Nodes of types with inner types: collections, tuples, mappings, unions."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import Any, cast

from perdure.core.ground.values import _wire
from perdure.core.ground.values._hashed import dict_of, set_of
from perdure.core.ground.values._nodes import BytesNode, IntNode, Kind, Misfit, Node, StrNode
from perdure.core.ground.values._wire import Mode, TooLarge

_WIRE_KINDS: dict[type, Kind] = {
    bool: "bool", int: "int", float: "float", str: "str", bytes: "bytes", list: "array", dict: "map",
}  # fmt: skip


class ArrayNode(Node):
    """Lists, sets, frozensets, tuples of any length, and abstract collections; `build` makes the loaded value."""

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

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, self.accepts) or isinstance(value, (str, bytes, bytearray, Iterator, Mapping)):
            raise Misfit(self.label, value, "an iterator is used up by storing it" * isinstance(value, Iterator))
        if type(value) is not self.build:
            mode.inexact += 1
        mode.take(1 + mode.holder)
        wires: list[object] = []
        dump = self.item.dump
        try:
            for item in cast("Iterable[Any]", value):
                wires.append(dump(item, mode))
        except Misfit as misfit:
            misfit.path.append(f"[{len(wires)}]")
            raise
        return _wire.sorted_wires(wires) if self.sorts or isinstance(value, (set, frozenset)) else wires

    def load(self, wire: Any) -> object:
        if type(wire) is not list:
            raise Misfit(self.label, wire)
        items = list(map(self.item.load, wire))
        return self.build(set_of(items) if self.sorts else items)

    def gathers(self) -> bool:
        return not self.item.fixed

    def weigh(self, value: Any, limit: int) -> int:
        return _weigh_all(self.item, value, limit)


class TupleNode(Node):
    """A tuple of fixed length."""

    types, native, kind = (tuple,), True, "array"

    def __init__(self, label: str, items: list[Node]) -> None:
        self.label = label
        self.items = items

    def children(self) -> Iterable[Node]:
        return self.items

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, tuple) or len(value) != len(self.items):
            raise Misfit(self.label, value)
        if type(value) is not tuple:
            mode.inexact += 1
        mode.take(1 + mode.holder)
        wires: list[object] = []
        try:
            for node, item in zip(self.items, value, strict=True):
                wires.append(node.dump(item, mode))
        except Misfit as misfit:
            misfit.path.append(f"[{len(wires)}]")
            raise
        return wires

    def load(self, wire: Any) -> object:
        if type(wire) is not list or len(wire) != len(self.items):
            raise Misfit(self.label, wire)
        return tuple(node.load(item) for node, item in zip(self.items, wire, strict=True))

    def weigh(self, value: Any, limit: int) -> int:
        return 1 + sum(node.weigh(item, limit) for node, item in zip(self.items, value, strict=True))


class DictNode(Node):
    """Mappings, loaded as dicts in the same order.

    Written as a map if MessagePack can hold all keys as text or integers, else as a list of `[key, value]`.
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

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, self.accepts):
            raise Misfit(self.label, value)
        if type(value) is not dict:
            mode.inexact += 1
        mode.take(1 + mode.holder)
        pairs: list[list[object]] = []
        plain = self.plain_keys
        for key, item in cast("Mapping[Any, Any]", value).items():
            try:
                wire = self.key.dump(key, mode)
                plain = plain and type(wire) in (str, int)
                pairs.append([wire, self.item.dump(item, mode)])
            except Misfit as misfit:
                misfit.path.append(f"[{_wire.short(key)}]")
                raise
        if mode.canonical:
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

    def gathers(self) -> bool:
        return not self.item.fixed

    def weigh(self, value: Any, limit: int) -> int:
        return len(value) + _weigh_all(self.item, value.values(), limit)


def _weigh_all(node: Node, values: Collection[Any], limit: int) -> int:
    total = 1 + len(values)
    if type(node) is StrNode or type(node) is BytesNode:
        total += sum(map(len, values))
    elif not node.fixed:
        weigh = node.weigh
        for value in values:
            total += weigh(value, limit)
            if total > limit:
                raise TooLarge
    if total > limit:
        raise TooLarge
    return total


def dict_of_pairs(node: DictNode, wire: list[Any]) -> dict[Any, Any]:
    """The dict of a list of `[key, value]`."""
    keys, items = [], []
    for pair in wire:
        if type(pair) is not list or len(pair) != 2:
            raise Misfit(node.label, pair)
        keys.append(node.key.load(pair[0]))
        items.append(node.item.load(pair[1]))
    return dict_of(keys, items)


class OptionalNode(Node):
    """`X | None`. Only `None` is written as nil, so no tag is needed."""

    native = True

    def __init__(self, label: str, inner: Node) -> None:
        self.label = label
        self.inner = inner
        self.types = (*inner.types, type(None))
        self.fixed = inner.fixed

    def children(self) -> Iterable[Node]:
        return (self.inner,)

    def dump(self, value: Any, mode: Mode) -> object:
        if value is None:
            mode.take(1)
            return None
        return self.inner.dump(value, mode)

    def load(self, wire: Any) -> object:
        return None if wire is None else self.inner.load(wire)

    def weigh(self, value: Any, limit: int) -> int:
        return 1 if value is None else self.inner.weigh(value, limit)


class UnionNode(Node):
    """A union of at least two types besides `None`.

    A value belongs to the first member that takes the value and all parts without a change. Without such a member the
    value belongs to the first member that takes the value at all; the member of the value's exact type comes first. The
    value is written as `[label of the member, value]`. No label is needed where MessagePack's own kinds tell all
    members apart, as in `int | str`.
    """

    def __init__(self, label: str, members: list[Node], labels: list[str], tagged: bool) -> None:
        self.label = label
        self.members = members
        self.labels = labels
        self.types = tuple(cls for member in members for cls in member.types)
        self.native = not tagged
        self.tagged = tagged
        self.fixed = not tagged and all(member.fixed for member in members)

    def children(self) -> Iterable[Node]:
        return self.members

    def dump(self, value: Any, mode: Mode) -> object:
        position, wire = self.choose(value, mode)
        return [self.labels[position], wire] if self.tagged else wire

    def choose(self, value: Any, mode: Mode) -> tuple[int, object]:
        """The position of the member for a value, and the wire object from the member."""
        cls = type(value)
        exact = [position for position, member in enumerate(self.members) if cls in member.types]
        misfit = None
        fallback: tuple[int, object, int] | None = None
        before, room = mode.inexact, mode.room
        for position in (*exact, *(other for other in range(len(self.members)) if other not in exact)):
            try:
                wire = self.members[position].dump(value, mode)
            except Misfit as caught:
                misfit = misfit or caught
            else:
                if mode.inexact == before:
                    return position, wire
                fallback = fallback or (position, wire, mode.room)
            mode.inexact, mode.room = before, room
        if fallback is not None:
            mode.inexact += 1
            position, wire, mode.room = fallback
            return position, wire
        if misfit is not None and misfit.path and len(exact) == 1:
            raise misfit  # the member is clear, a part of the value is wrong
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

    def weigh(self, value: Any, limit: int) -> int:
        cls = type(value)
        for member in self.members:
            if cls in member.types or (cls is dict and member.kind == "map"):
                return member.weigh(value, limit)
        raise Misfit(self.label, value)


class RefNode(Node):
    """Stands for a type during the type's own compilation, for recursive types."""

    target: Node

    def __init__(self, label: str) -> None:
        self.label = label

    def bind(self, target: Node) -> None:
        self.target = target
        self.native = True

    def children(self) -> Iterable[Node]:
        return (self.target,) if self.native else ()

    def dump(self, value: Any, mode: Mode) -> object:
        return self.target.dump(value, mode)

    def load(self, wire: Any) -> object:
        return self.target.load(wire)

    def weigh(self, value: Any, limit: int) -> int:
        return self.target.weigh(value, limit)

"""Declared types as trees of nodes: a node writes and reads the values of a type.

`dump` checks a value against the declaration and gives objects for `_wire.encode`. `load` is the inverse and checks as
strictly, because bytes may be corrupt or older than the declaration. Both raise `Misfit`.

Where all nodes of a tree are `native`, msgspec alone writes and reads values without loss. A codec then calls msgspec,
and the nodes only for values that msgspec refuses. Both must therefore read and write the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Literal

from perdure.core.ground.values import _wire
from perdure.core.ground.values._wire import Mode, NotStorable

Kind = Literal["none", "bool", "int", "float", "str", "bytes", "array", "map"]


class Misfit(Exception):
    """A value or wire object does not fit; `path` grows outwards as the exception passes containers."""

    def __init__(self, expected: str, found: object, note: str = "") -> None:
        super().__init__()
        self.expected = expected
        self.found = found
        self.note = note
        self.path: list[str] = []


class Node:
    """A type of a declaration.

    Attributes:
        label: the type as text, for messages and as the tag of a union's member.
        types: classes with instances that fit this node better than any other member of a union.
        native: whether msgspec alone handles the node, leaving the children aside.
        fixed: whether all values take a few bytes.
        kind: the MessagePack kind of all values, where there is only one; tells the members of native unions apart.
    """

    label: str
    types: tuple[type, ...] = ()
    native: bool = False
    fixed: bool = False
    kind: Kind | None = None

    def children(self) -> Iterable[Node]:
        return ()

    def gathers(self) -> bool:
        """Whether a value holds any number of other values that may be large."""
        return False

    def dump(self, value: Any, mode: Mode) -> object:
        raise NotImplementedError

    def load(self, wire: Any) -> object:
        raise NotImplementedError

    def weigh(self, value: Any, limit: int) -> int:
        """A lower bound of the bytes that msgspec writes for a value.

        Raises `TooLarge` as soon as the bound is over the limit. Any other exception means: the value does not fit.
        """
        return 1


def walk(root: Node) -> Iterator[Node]:
    """Every node of the tree, once; trees of recursive types have cycles."""
    seen: set[int] = set()
    stack = [root]
    while stack:
        node = stack.pop()
        if id(node) not in seen:
            seen.add(id(node))
            yield node
            stack.extend(node.children())


def multiplies(root: Node) -> bool:
    """Whether the bytes of a value may be many times larger than the value itself, whose parts may be shared."""
    return any(node.gathers() or _contains_itself(node) for node in walk(root))


def _contains_itself(node: Node) -> bool:
    return any(inner is node for child in node.children() for inner in walk(child))


class AnyNode(Node):
    label = "Any"

    def dump(self, value: Any, mode: Mode) -> object:
        try:
            return _wire.dump_any(value, mode)
        except NotStorable as refused:
            misfit = Misfit("Any", refused.value, refused.note)
            misfit.path = refused.path
            raise misfit from None

    def load(self, wire: Any) -> object:
        return wire


class NeverNode(Node):
    """`NoReturn`: no value fits."""

    def __init__(self, label: str) -> None:
        self.label = label

    def dump(self, value: Any, mode: Mode) -> object:
        raise Misfit(self.label, value)

    def load(self, wire: Any) -> object:
        raise Misfit(self.label, wire)


class NoneNode(Node):
    label, types, native, kind = "None", (type(None),), True, "none"
    fixed = True

    def dump(self, value: Any, mode: Mode) -> object:
        mode.take(1)
        return self.load(value)

    def load(self, wire: Any) -> object:
        if wire is not None:
            raise Misfit("None", wire)
        return None


class BoolNode(Node):
    label, types, native, kind = "bool", (bool,), True, "bool"
    fixed = True

    def dump(self, value: Any, mode: Mode) -> object:
        mode.take(1)
        if type(value) is not bool and type(item := _wire.numpy_item(value)) is bool:
            mode.inexact += 1
            return item
        return self.load(value)

    def load(self, wire: Any) -> object:
        if type(wire) is not bool:
            raise Misfit("bool", wire)
        return wire


class IntNode(Node):
    label, types, native, kind = "int", (int,), True, "int"
    fixed = True

    def dump(self, value: Any, mode: Mode) -> object:
        if type(value) is int and _wire.INT_MIN <= value <= _wire.INT_MAX:
            mode.room -= 1  # looked at when the next list or dict begins
            return value
        if not isinstance(value, int):
            item = _wire.numpy_item(value)
            if type(item) is not int:
                raise Misfit("int", value)
            mode.inexact += 1
            value = item
        if type(value) is bool:
            raise Misfit("int", value)
        if type(value) is not int:
            mode.inexact += 1
            value = int.__int__(value)
        return _wire.dump_any(value, mode)

    def load(self, wire: Any) -> object:
        if type(wire) is not int:
            raise Misfit("int", wire)
        return wire


class FloatNode(Node):
    """`float`. In Python's typing `float` takes integers: integers become floats, live as on replay."""

    label, types, native, kind = "float", (float,), True, "float"
    fixed = True

    def dump(self, value: Any, mode: Mode) -> object:
        mode.take(1)
        if type(value) is float:
            return value
        mode.inexact += 1
        if isinstance(value, float):
            return float.__float__(value)
        item = _wire.numpy_item(value)
        return self.load(value if item is None else item)

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

    def dump(self, value: Any, mode: Mode) -> object:
        if type(value) is str and value.isascii():
            mode.room -= 1 + len(value)  # as above
            return value
        if not isinstance(value, str):
            raise Misfit("str", value)
        if type(value) is not str:
            mode.inexact += 1
            value = str.__str__(value)
        return _wire.dump_any(value, mode)

    def load(self, wire: Any) -> object:
        if type(wire) is not str:
            raise Misfit("str", wire)
        return wire

    def weigh(self, value: Any, limit: int) -> int:
        return 1 + len(value)


class BytesNode(Node):
    label, types, native, kind = "bytes", (bytes,), True, "bytes"

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, (bytes, bytearray, memoryview)):
            raise Misfit("bytes", value)
        if type(value) is not bytes:
            mode.inexact += 1
        mode.take(1 + len(value))
        return bytes(value)

    def load(self, wire: Any) -> object:
        if type(wire) is not bytes:
            raise Misfit("bytes", wire)
        return wire

    def weigh(self, value: Any, limit: int) -> int:
        return 1 + len(value)


class LeafNode(Node):
    """A value type of the standard library with an extension in `_wire`: datetime, Decimal, UUID and similar types."""

    def __init__(self, cls: type) -> None:
        self.cls = cls
        self.label = cls.__qualname__
        self.types = (cls,)

    def dump(self, value: Any, mode: Mode) -> object:
        if type(value) is not self.cls:
            mode.inexact += 1
            value = self._plain(value)
        try:
            return _wire.dump_any(value, mode)
        except NotStorable as refused:
            raise Misfit(self.label, refused.value, "its time zone cannot be stored") from None

    def _plain(self, value: Any) -> object:
        """A number of numpy's, or a subclass's instance, as the declared class; refused if something would be lost, as
        nanoseconds would be."""
        from datetime import date, datetime

        item = _wire.numpy_item(value)
        if item is not None and type(item) is self.cls:
            return item
        if isinstance(value, self.cls) and not (self.cls is date and isinstance(value, datetime)):
            try:
                copy = _downcast(self.cls, value)
                if copy is not None and bool(copy == value):
                    return copy
            except Exception:  # any error of a foreign class means the same: the value is not plain
                raise Misfit(self.label, value) from None
        raise Misfit(self.label, value)

    def load(self, wire: Any) -> object:
        if type(wire) is not self.cls:
            raise Misfit(self.label, wire)
        return wire


class FileNode(LeafNode):
    """`File` or `Dir`: a reference into the blob store, never the content."""

    def _plain(self, value: Any) -> object:
        from os import PathLike

        note = ""
        if isinstance(value, (str, PathLike)):
            how = "from_existing_remote(url)" if isinstance(value, str) and "://" in value else "from_local(path)"
            note = f"make one with {self.label}.{how}"
        raise Misfit(self.label, value, note)


class FrameNode(Node):
    """A class of data frames, or the reference to a data frame. Each takes the values of the other."""

    def __init__(self, cls: type, label: str, frames: _wire.Frames) -> None:
        self.cls = cls
        self.label = label
        self.types = (cls,)
        self.frames = frames

    def dump(self, value: Any, mode: Mode) -> object:
        value = self.frames.unwrapped(value)
        cls = type(value)
        if cls is not self.cls:
            if self.cls is not self.frames.reference and cls is not self.frames.reference:
                raise Misfit(self.label, value)
            mode.inexact += 1
        if cls is self.frames.reference:
            return _wire.dump_any(value, mode)
        if not self.frames.knows(cls):
            raise Misfit(self.label, value)
        try:
            if mode.canonical:  # nothing is stored for an identity
                return _wire.dump_content(self.frames.content(value))
            return _wire.dump_any(self.frames.put(value), mode)
        except ValueError as error:
            raise Misfit(self.label, value, str(error)) from None

    def load(self, wire: Any) -> object:
        if type(wire) is self.cls:
            return wire
        if type(wire) is not self.frames.reference:
            raise Misfit(self.label, wire)
        return self.frames.get(wire, self.cls)


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

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, self.cls):
            raise Misfit(self.label, value)
        return _wire.dump_any(str(value), mode)

    def load(self, wire: Any) -> object:
        if type(wire) is not str:
            raise Misfit(self.label, wire)
        return self.cls(wire)


class EnumNode(Node):
    """Enum members by name, because values need not be storable; flags by value, because combinations have no name."""

    def __init__(self, cls: Any) -> None:
        from enum import Flag

        self.cls = cls
        self.label = cls.__qualname__
        self.types = (cls,)
        self.by_value = issubclass(cls, Flag)

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, self.cls):
            raise Misfit(self.label, value)
        return _wire.dump_any(int(value._value_) if self.by_value else value._name_, mode)

    def load(self, wire: Any) -> object:
        if self.by_value and type(wire) is int:
            member = self.cls(wire)
            if isinstance(member, self.cls):
                return member
        elif type(wire) is str and wire in self.cls._member_map_:
            return self.cls._member_map_[wire]
        raise Misfit(self.label, wire)


class LiteralNode(Node):
    """`Literal[...]`: plain options unchanged; Enum members as `[label of the class, name]`."""

    def __init__(self, label: str, options: tuple[Any, ...], enums: dict[type, EnumNode]) -> None:
        self.label = label
        self.options = options
        self.enums = enums
        self.types = tuple({type(option) for option in options})
        self.native = not enums and set(self.types) <= {str, int}
        self.fixed = True

    def _fits(self, value: object) -> bool:
        return any(type(value) is type(option) and value == option for option in self.options)

    def dump(self, value: Any, mode: Mode) -> object:
        if not self._fits(value):
            raise Misfit(self.label, value)
        enum = self.enums.get(type(value))
        return [enum.label, enum.dump(value, mode)] if enum else _wire.dump_any(value, mode)

    def load(self, wire: Any) -> object:
        if type(wire) is list and len(wire) == 2:
            for enum in self.enums.values():
                if enum.label == wire[0]:
                    wire = enum.load(wire[1])
                    break
        if not self._fits(wire):
            raise Misfit(self.label, wire)
        return wire

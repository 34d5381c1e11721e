"""Nodes of types with named fields: dataclasses, msgspec Structs, TypedDicts, named tuples, pydantic models.

All are written as a map from field name to value. The class comes from the declaration, never from the data. Unknown
names are ignored and missing fields take the default, so that a class may gain and lose fields between writing and
reading.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import cached_property
from typing import Any

import msgspec

from perdure.core.ground.values import _wire
from perdure.core.ground.values._nodes import AnyNode, Misfit, Node
from perdure.core.ground.values._wire import Mode

EXTRAS = ""
"""The key of the attributes of an instance beyond the fields; no field can have this name."""

_MISSING: Any = object()


class Field:
    """A field of a record.

    Attributes:
        name: the attribute, and the key in the map.
        node: the field's type.
        default: makes the value of a field that the data lacks; `None` where there is no default.
        required: whether the data must hold a field without a default.
    """

    __slots__ = ("default", "name", "node", "required")

    def __init__(
        self, name: str, node: Node, default: Callable[[], object] | None = None, required: bool = True
    ) -> None:
        self.name = name
        self.node = node
        self.default = default
        self.required = required


class RecordNode(Node):
    """The common part: checks the exact class, writes the fields, reads the fields and calls `build`.

    An instance of a subclass is refused: the additions of the subclass would be lost.
    """

    kind = "map"
    fields: list[Field]
    annotation: Any
    """The declared class, or a generic class with types in the places of the type variables."""

    def __init__(self, cls: Any, label: str) -> None:
        self.cls = cls
        self.annotation = cls
        self.label = label
        self.types = (cls,)
        self.fields = []  # filled in later: a field may be of this very type

    def children(self) -> Iterable[Node]:
        return [field.node for field in self.fields]

    @cached_property
    def weighed(self) -> list[tuple[str, Callable[[Any, int], int]]]:
        """The fields with values that may be large, and the weighing of each."""
        return [(field.name, field.node.weigh) for field in self.fields if not field.node.fixed]

    @cached_property
    def names(self) -> int:
        """The least number of bytes that the names of the fields take."""
        return 1 + sum(1 + len(field.name) for field in self.fields)

    def dump(self, value: Any, mode: Mode) -> object:
        if type(value) is not self.cls:
            derived = isinstance(value, self.cls)
            raise Misfit(self.label, value, "a subclass would lose what it adds" if derived else "")
        mode.take(1 + mode.holder)
        wires: dict[str, object] = {}
        for field in self.fields:
            item = getattr(value, field.name, _MISSING)
            if item is not _MISSING:
                mode.take(1 + len(field.name))
                wires[field.name] = self._dump_field(field, item, mode)
            elif field.required:
                raise Misfit(self.label, value, f"it has no attribute {field.name!r}")
        return wires

    def _dump_field(self, field: Field, item: object, mode: Mode) -> object:
        try:
            return field.node.dump(item, mode)
        except Misfit as misfit:
            misfit.path.append(f".{field.name}")
            raise

    def load(self, wire: Any) -> object:
        return self.build(self._load_fields(wire), wire)

    def _load_fields(self, wire: Any) -> dict[str, object]:
        if type(wire) is not dict:
            raise Misfit(self.label, wire)
        values: dict[str, object] = {}
        for field in self.fields:
            item = wire.get(field.name, _MISSING)
            if item is not _MISSING:
                try:
                    values[field.name] = field.node.load(item)
                except Misfit as misfit:
                    misfit.path.append(f".{field.name}")
                    raise
            elif field.default is not None:
                values[field.name] = field.default()
            elif field.required:
                raise Misfit(self.label, wire, f"field {field.name!r} is missing")
        return values

    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        raise NotImplementedError

    def weigh(self, value: Any, limit: int) -> int:
        total = self.names
        for name, weigh in self.weighed:
            total += weigh(getattr(value, name), limit)
        return total


class DataclassNode(RecordNode):
    """A dataclass, rebuilt without `__init__` and `__post_init__`: both ran once, on the original.

    `keeps_extras`: the class has code that may set attributes besides the fields, and these attributes are kept.
    """

    keeps_extras = False
    skipped: frozenset[str] = frozenset()  # cached properties: computed again on demand

    def dump(self, value: Any, mode: Mode) -> object:
        wires: Any = super().dump(value, mode)
        held = getattr(value, "__dict__", None) if self.keeps_extras else None
        if held:
            names = {field.name for field in self.fields} | self.skipped
            extras = {name: item for name, item in held.items() if name not in names}
            if extras:
                wires[EXTRAS] = self._dump_extras(extras, mode)
        return wires

    def _dump_extras(self, extras: dict[str, object], mode: Mode) -> object:
        try:
            return AnyNode().dump(extras, mode)
        except Misfit as misfit:
            name = misfit.path[-1].strip("[]'\"")
            misfit.path[-1] = f".{name}"
            misfit.note = f"{name!r} is no field of {self.label}: declare it as one, or make it a cached_property"
            raise

    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        built = object.__new__(self.cls)
        for name, item in values.items():
            object.__setattr__(built, name, item)
        extras = wire.get(EXTRAS)
        if self.keeps_extras and type(extras) is dict and hasattr(built, "__dict__"):
            built.__dict__.update(extras)
        return built


class StructNode(RecordNode):
    """A `msgspec.Struct`. `__post_init__` runs, as in msgspec; recorded values win over values from `__post_init__`."""

    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        built = self.cls(**values)
        if hasattr(self.cls, "__post_init__"):
            for name, item in values.items():
                msgspec.structs.force_setattr(built, name, item)
        return built


class NamedTupleNode(RecordNode):
    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        return tuple.__new__(self.cls, [values[field.name] for field in self.fields])


class TypedDictNode(RecordNode):
    """A TypedDict: a plain dict with known keys, in the order that the value had."""

    def __init__(self, cls: Any, label: str) -> None:
        super().__init__(cls, label)
        self.types = ()  # all values are dicts, of any TypedDict

    def dump(self, value: Any, mode: Mode) -> object:
        if not isinstance(value, dict):
            raise Misfit(self.label, value)
        known = {field.name: field for field in self.fields}
        for key in value:
            if key not in known:
                raise Misfit(self.label, value, f"key {_wire.short(key)} is not declared")
        for field in self.fields:
            if field.required and field.name not in value:
                raise Misfit(self.label, value, f"key {field.name!r} is missing")
        mode.take(1 + mode.holder)
        order = sorted(value) if mode.canonical else list(value)
        return {name: self._dump_field(known[name], value[name], mode) for name in order}

    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        return {name: values[name] for name in wire if name in values}

    def weigh(self, value: Any, limit: int) -> int:
        return 1 + sum(weigh(value[name], limit) for name, weigh in self.weighed if name in value)


class PydanticNode(RecordNode):
    """A pydantic model, written field by field under the annotations and rebuilt by the model's `__setstate__`.

    Validators, aliases and serializers do not run again. Private attributes and extra fields are kept under `Any`.
    """

    _PARTS = ("__pydantic_extra__", "__pydantic_private__")

    def dump(self, value: Any, mode: Mode) -> object:
        wires: Any = super().dump(value, mode)
        extras: dict[str, object] = {"set": sorted(value.__pydantic_fields_set__)}
        for part in self._PARTS:
            held = getattr(value, part, None)
            if held:
                try:
                    extras[part] = AnyNode().dump(held, mode)
                except Misfit as misfit:
                    misfit.path[-1] = "." + misfit.path[-1].strip("[]'\"")
                    raise
        # The set of explicitly set fields is no part of the value's meaning: equal models have equal identities.
        if mode.canonical:
            del extras["set"]
        if extras:
            wires[EXTRAS] = extras
        return wires

    def build(self, values: dict[str, object], wire: dict[str, Any]) -> object:
        extras = wire.get(EXTRAS)
        if not isinstance(extras, Mapping):
            raise Misfit(self.label, wire)
        built = self.cls.__new__(self.cls)
        more = {part: extras.get(part) for part in self._PARTS}
        if more["__pydantic_extra__"] is None and self.cls.model_config.get("extra") == "allow":
            more["__pydantic_extra__"] = {}
        if more["__pydantic_private__"] is None and self.cls.__private_attributes__:
            more["__pydantic_private__"] = {}
        built.__setstate__({"__dict__": values, "__pydantic_fields_set__": set(extras.get("set", ())), **more})
        return built


class AdaptedNode(Node):
    """A type of pydantic's own inside a model, such as a URL or an e-mail address, in pydantic's JSON form.

    The JSON form may lose the value (a secret becomes asterisks), so it is read back and compared at once.
    """

    def __init__(self, adapter: Any, label: str) -> None:
        self.adapter = adapter
        self.label = label

    def dump(self, value: Any, mode: Mode) -> object:
        try:
            wire = self.adapter.dump_python(value, mode="json", warnings="error")
            same = bool(self.adapter.validate_python(wire) == value)
        except Exception as error:
            raise Misfit(self.label, value, f"pydantic says: {type(error).__name__}") from None
        if not same:
            raise Misfit(self.label, value, "pydantic does not read back what it writes for it")
        return AnyNode().dump(wire, mode)

    def load(self, wire: Any) -> object:
        try:
            loaded: object = self.adapter.validate_python(wire)
        except Exception as error:
            raise Misfit(self.label, wire, f"pydantic says: {type(error).__name__}") from None
        return loaded

"""Compiling annotations to trees of nodes."""

from __future__ import annotations

import collections.abc as abc
import sys
import types
import typing
from collections.abc import Callable, Mapping
from datetime import date, datetime, time, timedelta
from enum import Enum
from functools import lru_cache
from inspect import Parameter
from typing import Any

import msgspec

from perdure.core.ground.values import _containers as containers
from perdure.core.ground.values import _nodes as nodes
from perdure.core.ground.values import _records as records
from perdure.core.ground.values._forms import FormNode, add_tagged, form_of
from perdure.core.ground.values._names import type_text
from perdure.core.ground.values._nodes import Node
from perdure.core.ground.values._wire import frames_of, is_file_type
from perdure.errors import UnsupportedTypeError

Env = Mapping[Any, Any]  # type variables and the types in their places

_LEAVES = frozenset({bytearray, complex, range, datetime, date, time, timedelta})
_PRIMITIVES: dict[object, Callable[[], Node]] = {
    None: nodes.NoneNode,
    types.NoneType: nodes.NoneNode,
    bool: nodes.BoolNode,
    int: nodes.IntNode,
    float: nodes.FloatNode,
    str: nodes.StrNode,
    bytes: nodes.BytesNode,
    typing.LiteralString: nodes.StrNode,
    Any: nodes.AnyNode,
    object: nodes.AnyNode,
    Parameter.empty: nodes.AnyNode,
}
_ARRAYS: dict[object, tuple[tuple[type, ...], Callable[[Any], Any]]] = {
    list: ((list,), list),
    set: ((set,), set),
    frozenset: ((frozenset,), frozenset),
    abc.Set: ((abc.Set,), set),
    abc.MutableSet: ((abc.Set,), set),
    abc.Sequence: ((abc.Sequence,), list),
    abc.MutableSequence: ((abc.MutableSequence,), list),
    abc.Collection: ((abc.Collection,), list),
    abc.Iterable: ((abc.Iterable,), list),
}
_MAPPINGS: dict[object, type] = {
    dict: dict,
    abc.Mapping: abc.Mapping,
    abc.MutableMapping: abc.MutableMapping,
}
_TRANSPARENT = frozenset({
    typing.Annotated, typing.Required, typing.NotRequired, typing.Final, typing.ClassVar,
    getattr(typing, "ReadOnly", typing.Final),
})  # fmt: skip


class UnresolvedNameError(UnsupportedTypeError):
    """An annotation uses a name that is not defined (yet)."""


def node_of(annotation: object, scope: Mapping[str, Any] | None = None) -> Node:
    """The compiled tree of an annotation, from a cache.

    `scope`: further names for field annotations besides the names of the module, for classes inside functions.
    """
    if scope:
        return _Compiler(scope).compile(annotation, {})
    try:
        return _cached(annotation)
    except UnsupportedTypeError:
        raise
    except TypeError:
        return _Compiler({}).compile(annotation, {})  # unhashable, as `Annotated[int, []]` is


@lru_cache(maxsize=4096)
def _cached(annotation: object) -> Node:
    return _Compiler({}).compile(annotation, {})


class _Refused(Exception):
    """The reason why a type cannot be stored, and the remedy."""


class _Compiler:
    """Compiles an annotation; `open` holds the classes under way, because a type may contain itself."""

    def __init__(self, scope: Mapping[str, Any]) -> None:
        self.scope = scope
        self.open: dict[object, Node] = {}

    def compile(self, annotation: object, env: Env) -> Node:
        try:
            return self._node(annotation, env)
        except _Refused as refused:
            raise UnsupportedTypeError(str(refused)) from None
        except RecursionError:
            raise UnsupportedTypeError(f"{type_text(annotation)} is nested without end") from None

    def _node(self, tp: Any, env: Env) -> Node:
        try:
            make = _PRIMITIVES.get(tp)
        except TypeError:
            make = None
        if make is not None:
            return make()
        if isinstance(tp, typing.TypeVar):
            return self._typevar(tp, env)
        if hasattr(tp, "__supertype__"):  # NewType
            return self._node(tp.__supertype__, env)
        if tp in (typing.NoReturn, typing.Never):
            return nodes.NeverNode(type_text(tp))
        if isinstance(tp, (str, typing.ForwardRef)):
            raise UnresolvedNameError(f"{type_text(tp)!r} is not defined here")
        origin = typing.get_origin(tp)
        args = typing.get_args(tp)
        if origin in _TRANSPARENT:
            return self._node(args[0], env)
        if origin is typing.Union or origin is types.UnionType:
            return self._union(tp, args, env)
        if origin is typing.Literal:
            return self._literal(tp, args)
        alias = tp if origin is None else origin
        if type(alias).__name__ == "TypeAliasType":  # `type X = ...`, from Python 3.12 on
            return self._alias(tp, alias, args, env)
        if isinstance(alias, type):
            return self._class(tp, alias, args, env)
        raise _Refused(f"{type_text(tp)} has no stored form")

    def _typevar(self, tp: Any, env: Env) -> Node:
        if tp in env:
            return self._node(env[tp], {})
        if tp.__constraints__:
            return self._node(typing.Union[tp.__constraints__], env)  # noqa: UP007 - built at run time
        return self._node(tp.__bound__ if tp.__bound__ is not None else Any, env)

    def _alias(self, tp: Any, alias: Any, args: tuple[Any, ...], env: Env) -> Node:
        if tp in self.open:
            return self.open[tp]
        ref = self.open[tp] = containers.RefNode(type_text(tp))
        values = [env.get(arg, arg) if isinstance(arg, typing.TypeVar) else arg for arg in args]
        ref.bind(self._node(alias.__value__, dict(zip(alias.__type_params__, values, strict=False))))
        return ref

    def _union(self, tp: Any, args: tuple[Any, ...], env: Env) -> Node:
        members = [arg for arg in args if arg is not types.NoneType]
        label = type_text(tp)
        if len(members) == 1:
            inner = self._node(members[0], env)
        else:
            children = [self._node(member, env) for member in members]
            kinds = [child.kind for child in children]
            distinct = len(set(kinds)) == len(kinds) and None not in kinds
            tagged = not (distinct and all(is_native(child) for child in children))
            inner = containers.UnionNode(label, children, _distinct_labels(children, members), tagged)
        return inner if len(members) == len(args) else containers.OptionalNode(label, inner)

    def _literal(self, tp: Any, options: tuple[Any, ...]) -> Node:
        enums = {type(option): nodes.EnumNode(type(option)) for option in options if isinstance(option, Enum)}
        return nodes.LiteralNode(type_text(tp), options, enums)

    def _class(self, tp: Any, cls: Any, args: tuple[Any, ...], env: Env) -> Node:
        label = type_text(tp)
        if cls is tuple:
            return self._tuple(label, tp, args, env)
        if cls in _ARRAYS:
            accepts, build = _ARRAYS[cls]
            return containers.ArrayNode(label, self._node(args[0] if args else Any, env), accepts, build)
        if cls in _MAPPINGS:
            key, item = args or (Any, Any)
            return containers.DictNode(label, self._node(key, env), self._node(item, env), _MAPPINGS[cls])
        if cls in _LEAVES or _is_late_leaf(cls):
            return nodes.LeafNode(cls)
        if is_file_type(cls):
            return nodes.FileNode(cls)
        if (frames := frames_of(cls)) is not None:
            return nodes.FrameNode(cls, label, frames)
        if (form := form_of(cls)) is not None:
            return FormNode(cls, label, form, self._node(form.stored, env))
        if issubclass(cls, Enum) and cls._member_map_:
            return nodes.EnumNode(cls)
        if cls.__module__.partition(".")[0] == "pathlib" and hasattr(cls, "joinpath"):
            return nodes.PathNode(cls)
        if issubclass(cls, (abc.Iterator, abc.AsyncIterable, abc.Awaitable)):
            raise _Refused(f"{label} is used up by reading it, so it cannot be stored; use a list")
        return self._record(tp, cls, args, env)

    def _tuple(self, label: str, tp: Any, args: tuple[Any, ...], env: Env) -> Node:
        if not args and tp not in (tuple, typing.Tuple):  # noqa: UP006 - tuple[()] against a bare tuple
            return containers.TupleNode(label, [])
        if not args or (len(args) == 2 and args[1] is Ellipsis):
            return containers.ArrayNode(label, self._node(args[0] if args else Any, env), (tuple,), tuple)
        return containers.TupleNode(label, [self._node(arg, env) for arg in args])

    def _record(self, tp: Any, cls: Any, args: tuple[Any, ...], env: Env) -> Node:
        label = type_text(tp)
        node: records.RecordNode
        if issubclass(cls, msgspec.Struct):
            node, fill = records.StructNode(cls, label), _fill_struct
        elif typing.is_typeddict(cls):
            node, fill = records.TypedDictNode(cls, label), _fill_typed_dict
        elif issubclass(cls, tuple) and hasattr(cls, "_fields"):
            node, fill = records.NamedTupleNode(cls, label), _fill_named_tuple
        elif hasattr(cls, "__dataclass_fields__"):
            node, fill = records.DataclassNode(cls, label), _fill_dataclass
        elif is_pydantic(cls):
            node, fill = records.PydanticNode(cls, label), _fill_pydantic
        else:
            raise _Refused(
                f"{label} has no stored form; use a dataclass, a msgspec.Struct, a TypedDict, a NamedTuple or a "
                "pydantic model"
            )
        args = tuple(env.get(arg, arg) if isinstance(arg, typing.TypeVar) else arg for arg in args)
        key = (cls, args)
        if key in self.open:
            return self.open[key]
        self.open[key] = node
        node.annotation = tp
        variables = getattr(cls, "__parameters__", ())
        given = args or tuple(variable for variable in variables)
        fill(self, node, cls, _env_of(cls, dict(zip(variables, given, strict=False))))
        return node

    def field(self, owner: Any, name: str, tp: Any, env: Env) -> Node:
        try:
            return self._node(tp, env)
        except (_Refused, UnresolvedNameError) as refused:
            if refused.args and str(refused).startswith("field "):
                raise  # the innermost field gives the best message
            raise type(refused)(f"field {name!r} of {type_text(owner)}: {refused}") from None


def _env_of(cls: Any, given: dict[Any, Any]) -> dict[Any, Any]:
    """The types for the type variables of `cls` (`given`) and of the generic bases."""
    env = {variable: value for variable, value in given.items() if variable is not value}
    for base in getattr(cls, "__orig_bases__", ()):
        origin = typing.get_origin(base)
        variables = getattr(origin, "__parameters__", ())
        if origin is not typing.Generic and variables:
            values = [env.get(arg, arg) if isinstance(arg, typing.TypeVar) else arg for arg in typing.get_args(base)]
            env |= _env_of(origin, dict(zip(variables, values, strict=False)))
    return env


def _distinct_labels(children: list[Node], members: list[Any]) -> list[str]:
    labels = [child.label for child in children]
    return [
        label if labels.count(label) == 1 else f"{getattr(member, '__module__', '')}.{label}#{labels[:n].count(label)}"
        for n, (label, member) in enumerate(zip(labels, members, strict=True))
    ]


def is_native(root: Node) -> bool:
    """Whether msgspec alone reads and writes values of the tree without loss; `False` during compilation."""
    return all(node.native for node in nodes.walk(root))


_SCALAR_NODES = (
    nodes.NoneNode, nodes.BoolNode, nodes.IntNode, nodes.FloatNode, nodes.StrNode, nodes.BytesNode,
    containers.OptionalNode, containers.UnionNode,
)  # fmt: skip


def is_scalar(root: Node) -> bool:
    """Whether a native tree holds immutable built-in values only."""
    return all(isinstance(node, _SCALAR_NODES) for node in nodes.walk(root))


def _is_late_leaf(cls: type) -> bool:
    decimal, uuid = sys.modules.get("decimal"), sys.modules.get("uuid")
    return cls is getattr(decimal, "Decimal", None) or cls is getattr(uuid, "UUID", None)


def is_pydantic(cls: type) -> bool:
    base = getattr(sys.modules.get("pydantic.main"), "BaseModel", None)
    return base is not None and issubclass(cls, base)


def _hints(compiler: _Compiler, cls: Any) -> dict[str, Any]:
    """Resolved annotations of a class; a class inside a function may use its own name."""
    try:
        return typing.get_type_hints(cls, localns={**compiler.scope, cls.__name__: cls}, include_extras=True)
    except NameError as error:
        raise UnresolvedNameError(f"{type_text(cls)} has a field whose type is not defined here: {error}") from None
    except Exception as error:  # annotations are arbitrary expressions
        raise _Refused(f"the annotations of {type_text(cls)} cannot be resolved: {error!r}") from None


def _fill_dataclass(compiler: _Compiler, node: Any, cls: Any, env: Env) -> None:
    import dataclasses
    from functools import cached_property

    if cls.__new__ is not object.__new__:
        raise _Refused(f"{type_text(cls)} has a __new__ of its own, so it cannot be rebuilt from its fields")
    hints = _hints(compiler, cls)
    fields = dataclasses.fields(cls)
    for field in fields:
        default: Callable[[], object] | None = None
        if field.default is not dataclasses.MISSING:
            default = _constant(field.default)
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory
        inner = compiler.field(cls, field.name, hints.get(field.name, field.type), env)
        node.fields.append(records.Field(field.name, inner, default, required=field.init))
    generated_init = _is_generated(cls.__dict__.get("__init__"))
    node.keeps_extras = hasattr(cls, "__post_init__") or not generated_init
    node.skipped = frozenset(
        name for base in cls.__mro__ for name, held in vars(base).items() if isinstance(held, cached_property)
    )
    node.native = (
        not node.keeps_extras
        and not getattr(cls, "__parameters__", ())
        and not env
        and _is_generated(cls.__eq__)  # it compares the class and all fields of copy and original
        and all(field.compare and field.init for field in fields)
    )


def _is_generated(method: Any) -> bool:
    return getattr(getattr(method, "__code__", None), "co_filename", "") == "<string>"


def _constant(value: object) -> Callable[[], object]:
    return lambda: value


def _fill_struct(compiler: _Compiler, node: Any, cls: Any, env: Env) -> None:
    hints = _hints(compiler, cls)
    for field in msgspec.structs.fields(cls):
        default: Callable[[], object] | None = None
        if field.default is not msgspec.NODEFAULT:
            default = _constant(field.default)
        elif field.default_factory is not msgspec.NODEFAULT:
            default = field.default_factory
        inner = compiler.field(cls, field.name, hints.get(field.name, field.type), env)
        node.fields.append(records.Field(field.name, inner, default))
    config = cls.__struct_config__
    node.native = (
        config.eq
        and config.tag is None
        and not (config.array_like or config.omit_defaults or config.forbid_unknown_fields)
        and cls.__struct_encode_fields__ == cls.__struct_fields__
        and cls.__eq__ is msgspec.Struct.__eq__
        and not hasattr(cls, "__post_init__")
        and not env
        and not getattr(cls, "__parameters__", ())
    )


def _fill_typed_dict(compiler: _Compiler, node: Any, cls: Any, env: Env) -> None:
    node.native = not env and not getattr(cls, "__parameters__", ())
    for name, hint in _hints(compiler, cls).items():
        # Under postponed annotations `__required_keys__` does not show the qualifiers: read the qualifiers here.
        required = name in cls.__required_keys__
        layer = hint
        while (origin := typing.get_origin(layer)) in _TRANSPARENT:
            required = origin is typing.Required or (required and origin is not typing.NotRequired)
            layer = typing.get_args(layer)[0]
        node.fields.append(records.Field(name, compiler.field(cls, name, hint, env), required=required))


def _fill_named_tuple(compiler: _Compiler, node: Any, cls: Any, env: Env) -> None:
    hints = _hints(compiler, cls)
    for name in cls._fields:
        default = _constant(cls._field_defaults[name]) if name in cls._field_defaults else None
        node.fields.append(records.Field(name, compiler.field(cls, name, hints.get(name, Any), env), default))


def _fill_pydantic(compiler: _Compiler, node: Any, cls: Any, env: Env) -> None:
    cls.model_rebuild(raise_errors=False)  # forward references may have been defined since
    for name, info in cls.model_fields.items():
        try:
            inner = compiler.field(cls, name, info.annotation, env)
        except _Refused:
            inner = _adapted(info.annotation)
            if inner is None:
                raise
        default = None if info.is_required() else lambda info=info: info.get_default(call_default_factory=True)
        node.fields.append(records.Field(name, inner, default))


def _adapted(annotation: Any) -> Any:
    """A node that writes a type as pydantic does; `None` where pydantic cannot."""
    from pydantic import TypeAdapter

    try:
        return records.AdaptedNode(TypeAdapter(annotation), type_text(annotation))
    except Exception:  # pydantic raises several kinds of errors for types without a schema
        return None


def know_form(cls: type) -> None:
    """Let instances of a class with a tagged form be values where nothing is declared."""
    form = form_of(cls)
    assert form is not None
    add_tagged(cls, form, node_of(form.stored))

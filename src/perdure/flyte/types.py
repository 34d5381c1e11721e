"""Types: `TypeTransformer`s of users' classes, and what is left of Flyte's type engine.

A registered transformer turns instances of a class into Flyte's literals and back; the literal is what the journal
keeps. Classes that perdure stores itself, dataclasses and pydantic models among them, need no transformer.
"""

from __future__ import annotations

import threading
from collections.abc import Coroutine, KeysView
from typing import Any, Generic, Protocol, TypeVar, runtime_checkable

from ..core.ground.values import Form
from ..errors import UsageError
from ._absent import Absent

T = TypeVar("T")

__all__ = [
    "FlytePickle", "Renderable", "TypeEngine", "TypeTransformer", "TypeTransformerFailedError", "guess_interface",
    "literal_string_repr",
]  # fmt: skip


class TypeTransformerFailedError(TypeError, AssertionError, ValueError):
    """A transformer could not turn a value into a literal, or a literal into a value."""


@runtime_checkable
class Renderable(Protocol):
    """What makes HTML of a value."""

    def to_html(self, python_value: Any) -> str:
        """The value as HTML."""


class FlytePickle:
    """A value of any class, pickled: absent, because reading a pickle executes code from data."""

    @classmethod
    def python_type(cls) -> type:
        """The class itself."""
        return cls

    @classmethod
    async def to_pickle(cls, python_val: Any) -> str:
        """Raise `UsageError`."""
        raise UsageError(_NO_PICKLE)

    @classmethod
    async def from_pickle(cls, uri: str) -> Any:
        """Raise `UsageError`."""
        raise UsageError(_NO_PICKLE)


_NO_PICKLE = "pickled values are absent in perdure: use a dataclass, or a class with attributes that can be stored"


class TypeTransformer(Generic[T]):
    """The base class of transformers."""

    def __init__(self, name: str, t: type[T], enable_type_assertions: bool = True) -> None:
        self._name = name
        self._t = t
        self._type_assertions_enabled = enable_type_assertions

    @property
    def name(self) -> str:
        """The name, for people."""
        return self._name

    @property
    def python_type(self) -> type[T]:
        """The class."""
        return self._t

    @property
    def type_assertions_enabled(self) -> bool:
        """Whether `assert_type` is to be called."""
        return self._type_assertions_enabled

    def assert_type(self, t: type[T], v: T) -> None:
        """Raise `TypeTransformerFailedError` where the value is no instance."""
        if isinstance(t, type) and not isinstance(v, t):
            raise TypeTransformerFailedError(f"expected an instance of {t.__name__}, but got {type(v).__name__}")

    def isinstance_generic(self, obj: Any, generic_alias: Any) -> bool:
        """Whether an object is an instance of the class behind a generic alias."""
        return isinstance(obj, getattr(generic_alias, "__origin__", generic_alias))

    def schema_match(self, schema: dict[str, Any]) -> bool:
        """Whether a JSON schema describes the class."""
        return schema.get("title") == self._t.__name__

    def get_literal_type(self, t: type[T]) -> Any:
        """The literal type; a subclass says."""
        raise NotImplementedError(f"{type(self).__name__}.get_literal_type")

    async def to_literal(self, python_val: T, python_type: type[T], expected: Any) -> Any:
        """A value as a literal; a subclass says."""
        raise NotImplementedError(f"{type(self).__name__}.to_literal")

    async def to_python_value(self, lv: Any, expected_python_type: type[T]) -> Any:
        """A literal as a value; a subclass says."""
        raise NotImplementedError(f"{type(self).__name__}.to_python_value")

    def guess_python_type(self, literal_type: Any) -> type[T]:
        """The class for a literal type; a subclass says."""
        raise ValueError(f"{self._name} cannot tell the class from a literal type")

    def from_binary_idl(self, binary_idl_object: Any, expected_python_type: type[T]) -> Any:
        """A value from Flyte's binary form: absent."""
        raise UsageError("Flyte's binary form of values is absent in perdure: override to_python_value")

    def to_html(self, python_val: T, expected_python_type: type[T]) -> str:
        """A value as HTML."""
        from html import escape

        return escape(str(python_val))


class TypeEngine:
    """The registry of transformers."""

    _registry: dict[Any, TypeTransformer[Any]] = {}  # noqa: RUF012 - one registry
    lazy_import_lock = threading.Lock()

    @classmethod
    def register(cls, transformer: TypeTransformer[Any], additional_types: list[Any] | None = None) -> None:
        """Let a transformer store the instances of its class, and of more classes."""
        for each in (transformer.python_type, *(additional_types or ())):
            if each in cls._registry:
                raise ValueError(f"{each} has a transformer already: {cls._registry[each].name}")
            cls._registry[each] = transformer

    @classmethod
    def register_additional_type(
        cls, transformer: TypeTransformer[Any], additional_type: Any, override: bool = False
    ) -> None:
        """Let a transformer store the instances of another class."""
        if override or additional_type not in cls._registry:
            cls._registry[additional_type] = transformer

    @classmethod
    def register_restricted_type(cls, name: str, type: Any) -> None:
        """Nothing: classes without a stored form are refused where a task declares them."""

    @classmethod
    def lazy_import_transformers(cls) -> None:
        """Nothing: libraries are looked at when a value needs them."""

    @classmethod
    def get_available_transformers(cls) -> KeysView[Any]:
        """The classes with a registered transformer."""
        return cls._registry.keys()

    @classmethod
    def get_transformer(cls, python_type: Any) -> TypeTransformer[Any]:
        """The registered transformer of a class; for other classes one that only describes the class."""
        found = cls._registry.get(python_type)
        return (
            TypeTransformer(getattr(python_type, "__name__", str(python_type)), python_type) if found is None else found
        )

    @classmethod
    def to_html(cls, python_val: Any, expected_python_type: Any) -> str:
        """A value as HTML."""
        return cls.get_transformer(expected_python_type).to_html(python_val, expected_python_type)

    @classmethod
    async def to_literal(cls, python_val: Any, python_type: Any, expected: Any) -> Any:
        """A value as a literal, by a registered transformer."""
        return await cls._registered(python_type).to_literal(python_val, python_type, expected)

    @classmethod
    async def to_python_value(cls, lv: Any, expected_python_type: Any) -> Any:
        """A literal as a value, by a registered transformer."""
        return await cls._registered(expected_python_type).to_python_value(lv, expected_python_type)

    @classmethod
    def to_literal_type(cls, python_type: Any) -> Any:
        """The literal type of a class, by a registered transformer."""
        return cls._registered(python_type).get_literal_type(python_type)

    @classmethod
    def _registered(cls, python_type: Any) -> TypeTransformer[Any]:
        found = cls._registry.get(python_type)
        if found is None:
            raise UsageError(f"{python_type} has no registered transformer: perdure stores values in a form of its own")
        return found


_LITERALS = "perdure stores values in a form of its own, without Flyte's literals"
for _name in (
    "dict_to_literal_map", "guess_python_type", "guess_python_types", "literal_map_to_kwargs",
    "named_tuple_to_variable_map", "to_literal_checks", "unwrap_offloaded_literal",
):  # fmt: skip
    setattr(TypeEngine, _name, Absent(f"flyte.types.TypeEngine.{_name}", _LITERALS))

guess_interface = Absent("flyte.types.guess_interface", _LITERALS)
literal_string_repr = Absent("flyte.types.literal_string_repr", _LITERALS)


# -- across the boundary of a task -----------------------------------------------------------------------------------


def _finished(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """The result of a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        return end.value
    raise UsageError("a transformer may not wait for anything while it turns a value into a literal or back")


def registered_form(cls: type) -> Form | None:
    """The form of a class by the registered transformer; of `FlytePickle`, which refuses every value."""
    if cls is FlytePickle:
        return Form(None, _refuse_pickle, lambda stored: stored, lambda value: True)
    transformer = TypeEngine._registry.get(cls)
    if transformer is None or hasattr(cls, "__dataclass_fields__") or hasattr(cls, "model_fields"):
        return None

    def put(value: Any) -> bytes:
        literal = _finished(transformer.to_literal(value, cls, transformer.get_literal_type(cls)))
        data: bytes = literal.SerializeToString(deterministic=True)
        return data

    def get(data: Any) -> Any:
        from flyteidl2.core.literals_pb2 import Literal

        return _finished(transformer.to_python_value(Literal.FromString(data), cls))

    return Form(bytes, put, get, lambda value: isinstance(value, cls))


def _refuse_pickle(value: Any) -> Any:
    raise ValueError(_NO_PICKLE)

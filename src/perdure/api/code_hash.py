"""The version of a task's code, for `cache="auto"`: everything that the function's outcome depends on, besides inputs.

Hashed are the code of the function, its defaults, the cells of its closure, and every global name that the code reads:
helper functions, classes, constants and modules. Names lead from function to function as far as the code root reaches;
beyond the code root (the standard library, installed packages) a name is enough. A decorated function counts with its
wrapper and with the wrapped function.

Values are read once in a process, at the first call: a list that the code itself appends to is no new code. A value
without a stable form (an open connection, an object of a library's) refuses `cache="auto"`: two different values must
never give one key.
"""

from __future__ import annotations

import builtins
import dataclasses
import dis
import functools
import os
import sys
import types
from collections.abc import Callable, Iterable, Mapping
from datetime import date, datetime, time, timedelta, tzinfo
from enum import Enum
from pathlib import PurePath
from typing import Any, Final

from ..core.ground.digest import blake2b
from ..core.journal.source import PYTHON, code_root, hash_code
from ..errors import UsageError
from ._names import place_of, qualified

_PLAIN: Final = (bool, int, float, complex, str, bytes, bytearray, range, date, time, datetime, timedelta, PurePath)


class Unhashable(Exception):
    """A value without a stable form. `args`: the path to the value, from the function down."""


def code_version(fn: Callable[..., Any], task: str) -> bytes:
    """16 bytes over the code that the outcome of a task depends on.

    Raises:
        UsageError: the code reads a value without a stable form.
    """
    reach = _Reach(fn)
    try:
        return reach.digest()
    except (Unhashable, RecursionError) as error:
        name, value = error.args if isinstance(error, Unhashable) else (fn.__qualname__, fn)
        raise UsageError(
            f'task {task}: cache="auto" cannot tell whether {name} has changed (a {type(value).__name__}). Declare a '
            'version of the code instead, cache=Cache(version_override="1"), and change the version with the code'
        ) from None


class _Reach:
    """Walks everything that a function reaches, each object once, and feeds the objects to a digest."""

    def __init__(self, fn: Callable[..., Any]) -> None:
        self._fn = fn
        self._hash = blake2b(PYTHON.encode(), digest_size=16)
        file = place_of(fn.__module__).file
        self._root = os.path.join(code_root(file), "") if file else None
        self._seen: dict[int, int] = {}
        self._kept: list[Any] = []
        """Keeps temporary objects alive, so that no id is used twice."""

    def digest(self) -> bytes:
        self._value(self._fn, self._fn.__qualname__)
        return self._hash.digest()

    def _feed(self, *texts: str) -> None:
        for text in texts:
            data = text.encode("utf-8", "surrogatepass")
            self._hash.update(b"%d:" % len(data) + data)

    def _value(self, value: Any, name: str) -> None:
        kind = type(value)
        if value is None or value is ... or kind in _PLAIN or value is NotImplemented:
            self._feed(kind.__qualname__, repr(value))
            return
        if id(value) in self._seen:
            self._feed("again", str(self._seen[id(value)]))
            return
        self._seen[id(value)] = len(self._seen)
        self._kept.append(value)
        for test, feed in _FORMS:
            if test(value):
                self._feed(kind.__qualname__)
                feed(self, value, name)
                return
        self._record(value, name)

    # -- code --------------------------------------------------------------------------------------------------

    def _is_below_root(self, file: Any) -> bool:
        if self._root is None or not isinstance(file, str):
            return False
        path = os.path.abspath(file)
        return path.startswith(self._root) and f"{os.sep}site-packages{os.sep}" not in path

    def _is_own(self, module: str | None) -> bool:
        """Whether a module lies below the code root. A notebook is a root of its own."""
        if self._root is None:
            return module == self._fn.__module__
        return self._is_below_root(getattr(sys.modules.get(module or ""), "__file__", None))

    def _function(self, fn: types.FunctionType, name: str) -> None:
        self._feed(qualified(fn))
        code = fn.__code__
        own = fn is self._fn or (
            self._is_below_root(code.co_filename) if self._root is not None else self._is_own(fn.__module__)
        )
        if own:
            self._hash.update(_code_bytes(code))
            self._value(fn.__defaults__, f"a default of {name}")
            self._value(fn.__kwdefaults__, f"a default of {name}")
            for each in _globals_in(code):
                if each in fn.__globals__:
                    self._feed(each)
                    self._value(fn.__globals__[each], each)
        # A library's wrapper holds the user's function in its closure.
        for variable, cell in zip(code.co_freevars, fn.__closure__ or (), strict=True):
            self._feed(variable)
            try:
                content = cell.cell_contents
            except ValueError:  # a variable that is not assigned yet
                continue
            self._value(content, f"{variable} in the closure of {name}")
        if hasattr(fn, "__wrapped__"):
            self._value(fn.__wrapped__, f"the function wrapped by {name}")

    def _class(self, cls: type, name: str) -> None:
        self._feed(cls.__module__, cls.__qualname__)
        if not self._is_own(cls.__module__):
            return
        for base in cls.__bases__:
            self._value(base, f"a base of {name}")
        for attribute, value in sorted(vars(cls).items()):
            if _counts(attribute, value):
                self._feed(attribute)
                self._value(value, f"{name}.{attribute}")
        for field in getattr(cls, "__dataclass_fields__", {}).values():
            self._feed(field.name)
            for value in (field.default, field.default_factory):
                if value is not dataclasses.MISSING:
                    self._value(value, f"the default of {name}.{field.name}")
        if hasattr(cls, "model_fields"):  # pydantic
            self._text(cls.model_fields, name)

    def _module(self, module: types.ModuleType, name: str) -> None:
        self._feed(module.__name__)
        if self._is_own(module.__name__):
            # The code may read any attribute of the module, so all attributes count.
            for attribute, value in sorted(vars(module).items()):
                if not attribute.startswith("__"):
                    self._feed(attribute)
                    self._value(value, f"{name}.{attribute}")

    def _task(self, task: Any, name: str) -> None:
        """A task or a trace by its function; a container task by its declaration."""
        self._feed(getattr(task, "name", ""))
        declaration = getattr(task, "_declared", None)
        self._value(task.fn if declaration is None else declaration, name)

    # -- values ------------------------------------------------------------------------------------------------

    def _items(self, values: Iterable[Any], name: str) -> None:
        for number, value in enumerate(values):
            self._value(value, f"{name}[{number}]")
        self._feed("end")

    def _mapping(self, values: Mapping[Any, Any], name: str) -> None:
        for key, value in values.items():
            self._value(key, f"a key of {name}")
            self._value(value, f"{name}[{key!r}]")
        self._feed("end")

    def _set(self, values: Iterable[Any], name: str) -> None:
        # Each member alone, as the order of a set is the process's own.
        digests = []
        for value in values:
            alone = _Reach(self._fn)
            alone._value(value, f"a member of {name}")
            digests.append(alone._hash.hexdigest())
        self._feed(*sorted(digests), "end")

    def _text(self, value: Any, name: str) -> None:
        """A value by its text, unless the text shows an address of memory."""
        text = repr(value)
        if " at 0x" in text:
            raise Unhashable(name, value)
        self._feed(text)

    def _record(self, value: Any, name: str) -> None:
        """An object with fields, or an object of a class of the user's own."""
        cls = type(value)
        if dataclasses.is_dataclass(cls):
            fields = [field.name for field in dataclasses.fields(cls)]
        elif hasattr(cls, "__struct_fields__"):  # msgspec.Struct
            fields = list(cls.__struct_fields__)
        elif hasattr(cls, "model_fields"):  # pydantic
            fields = list(cls.model_fields)
        elif self._is_own(cls.__module__) and hasattr(value, "__dict__"):
            fields = sorted(vars(value))
        else:
            raise Unhashable(name, value)
        self._value(cls, name)
        for field in fields:
            self._feed(field)
            self._value(getattr(value, field, None), f"{name}.{field}")

    def _name(self, value: Any, name: str) -> None:
        kind = type(value)
        self._feed(str(getattr(value, "__module__", kind.__module__)))
        self._feed(str(getattr(value, "__qualname__", kind.__qualname__)), str(getattr(value, "name", "")))


_code_bytes = functools.lru_cache(4096)(hash_code)


@functools.lru_cache(4096)
def _globals_in(code: types.CodeType) -> tuple[str, ...]:
    """The global names that a code object, or code nested in it, reads."""
    names = {each.argval for each in dis.get_instructions(code) if each.opname in ("LOAD_GLOBAL", "LOAD_NAME")}
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            names.update(_globals_in(constant))
    return tuple(sorted(names))


def _counts(attribute: str, value: Any) -> bool:
    """Whether an attribute of a class is of the author's making, rather than of a decorator's or the interpreter's."""
    if attribute.startswith("_abc") or isinstance(value, _MADE):
        return False
    if isinstance(value, types.FunctionType):
        return not value.__code__.co_filename.startswith("<")
    return attribute in ("__annotations__", "__slots__", "__struct_defaults__") or not attribute.startswith("__")


_MADE: Final = (
    types.GetSetDescriptorType, types.MemberDescriptorType, types.WrapperDescriptorType, types.BuiltinFunctionType,
    types.MappingProxyType,
)  # fmt: skip


def _is_task(value: Any) -> bool:
    return type(value).__module__ in ("perdure.api.task", "perdure.api.trace", "perdure.api.container")


def _stands_for_its_name(value: Any) -> bool:
    """A logger, or a public object of perdure's such as an environment."""
    kind = type(value)
    if kind.__module__.startswith("perdure."):
        return not dataclasses.is_dataclass(kind) and not hasattr(kind, "__struct_fields__")
    return (kind.__module__, kind.__qualname__) == ("logging", "Logger")


_FORMS: Final[tuple[tuple[Callable[[Any], bool], Callable[[_Reach, Any, str], None]], ...]] = (
    (lambda value: isinstance(value, types.FunctionType), _Reach._function),
    (_is_task, _Reach._task),
    (_stands_for_its_name, _Reach._name),
    (lambda value: isinstance(value, Enum), lambda reach, value, name: reach._items((type(value), value.name), name)),
    (lambda value: isinstance(value, type), _Reach._class),
    (lambda value: isinstance(value, types.ModuleType), _Reach._module),
    (
        lambda value: isinstance(value, types.MethodType),
        lambda reach, value, name: reach._items((value.__func__, value.__self__), name),
    ),
    (
        lambda value: isinstance(value, (staticmethod, classmethod)),
        lambda reach, value, name: reach._value(value.__func__, name),
    ),
    (
        lambda value: isinstance(value, property),
        lambda reach, value, name: reach._items((value.fget, value.fset, value.fdel), name),
    ),
    (
        lambda value: isinstance(value, functools.partial),
        lambda reach, value, name: reach._items((value.func, value.args, value.keywords), name),
    ),
    (
        # A function behind `functools.lru_cache` or another C wrapper.
        lambda value: hasattr(value, "__wrapped__") and callable(value),
        lambda reach, value, name: reach._value(value.__wrapped__, name),
    ),
    (lambda value: isinstance(value, (types.BuiltinFunctionType, types.MethodWrapperType)), _Reach._name),
    (lambda value: getattr(builtins, getattr(value, "__name__", ""), None) is value, _Reach._name),
    (lambda value: isinstance(value, Mapping), _Reach._mapping),
    (lambda value: isinstance(value, (set, frozenset)), _Reach._set),
    (lambda value: isinstance(value, (list, tuple)), _Reach._items),
    (lambda value: isinstance(value, tzinfo), _Reach._text),
    (
        lambda value: type(value).__module__ in ("decimal", "uuid", "re", "fractions"),
        _Reach._text,
    ),
    (lambda value: type(value).__module__ in ("typing", "types", "typing_extensions"), _Reach._text),
)
"""The form of each kind of value, in order; the first that fits counts."""

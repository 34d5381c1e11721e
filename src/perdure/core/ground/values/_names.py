"""How types are called in messages and in stored data, and how a class is found again by its name.

A class that a script defines lives in `__main__`, a name that means another file in every process. The run driver
sets the script's logical module name once; from then on such classes are written under that name, and read back from
`__main__` in a process where that is its logical name.
"""

from __future__ import annotations

import sys
import typing
from types import ModuleType, NoneType, UnionType
from typing import Any, ForwardRef, TypeVar, cast

from perdure.core.ground.values._wire import SCALARS, numpy_item

_main_name: str | None = None
_MODULE_DICT: Any = cast(Any, vars(ModuleType)["__dict__"]).__get__
_CLASS_DICT: Any = cast(Any, vars(type)["__dict__"]).__get__


def set_main_name(name: str) -> None:
    """Set the logical module name of this process's `__main__`, for example `"demo"` for `python demo.py`."""
    global _main_name
    _main_name = name


def logical_module(name: str) -> str:
    """The module name to store for classes and functions of module `name`: never `__main__` once a name is set."""
    if name == "__main__" and _main_name is not None:
        return _main_name
    return name


def find_class(module: str, qualname: str) -> type | None:
    """The class of that name, if its module is already imported here; `None` otherwise.

    Reads the modules' and classes' dictionaries rather than their attributes: a module-level `__getattr__` or a
    descriptor would run code that the data chose.
    """
    homes = ["__main__", module] if module == _main_name else [module]
    for home in homes:
        found: object = sys.modules.get(home)
        for part in qualname.split("."):
            if not isinstance(found, (ModuleType, type)):
                break
            # Not `vars`: a lazily loaded module would be executed by it, and a metaclass may answer in its own way.
            held = _MODULE_DICT if isinstance(found, ModuleType) else _CLASS_DICT
            found = held(found).get(part)
        if isinstance(found, type):
            return found
    return None


def type_text(tp: Any) -> str:
    """A type as its author would write it: `list[int]`, `int | None`, `Order`."""
    if tp is None or tp is NoneType:
        return "None"
    if tp is Ellipsis:
        return "..."
    if isinstance(tp, (TypeVar, ForwardRef)) or hasattr(tp, "__supertype__"):
        return getattr(tp, "__forward_arg__", None) or str(tp.__name__)
    if isinstance(tp, type) and not hasattr(tp, "__origin__"):
        return tp.__qualname__
    if isinstance(tp, list):
        return f"[{', '.join(map(type_text, tp))}]"
    origin, args = getattr(tp, "__origin__", None), getattr(tp, "__args__", None)
    if args and (origin is typing.Union or isinstance(tp, UnionType)):
        return " | ".join(map(type_text, args))
    if args and isinstance(origin, type) and not hasattr(tp, "__metadata__"):
        return f"{type_text(origin)}[{', '.join(map(type_text, args))}]"
    return str(tp).replace("typing.", "")


def annotation_for(value: object, depth: int = 3) -> str | None:
    """The annotation under which `value` could be stored, as text; `None` where there is none."""
    cls = type(value)
    if value is None:
        return "None"
    number = numpy_item(value)
    if number is not None:
        return type(number).__name__
    if cls in SCALARS:
        return cls.__name__
    if depth and cls in (list, set, frozenset):
        members = _members(value, depth)
        return members and f"{cls.__name__}[{members}]"
    if depth and cls is tuple:
        parts = [annotation_for(item, depth - 1) for item in value[:8]]  # type: ignore[index]
        many = len(value) > 8  # type: ignore[arg-type]
        return "tuple" if None in parts or many else f"tuple[{', '.join(str(part) for part in parts) or '()'}]"
    if depth and cls is dict:
        keys, items = _members(value.keys(), depth), _members(value.values(), depth)  # type: ignore[attr-defined]
        return keys and items and f"dict[{keys}, {items}]"
    if cls in (list, set, frozenset, tuple, dict, bytearray, complex, range):
        return cls.__name__
    if is_declarable(cls):
        return cls.__qualname__
    return None


def _members(values: Any, depth: int) -> str | None:
    texts: dict[str, None] = {}
    for count, value in enumerate(values):
        if count == 100:  # a sample is enough for a hint
            break
        text = annotation_for(value, depth - 1)
        if text is None:
            return None
        texts[text] = None
    if len(texts) > 1 and "None" in texts:
        texts["None"] = texts.pop("None")
    return " | ".join(texts) or "Any"


def is_declarable(cls: type) -> bool:
    """Whether values of this very class can be stored once the class is named in an annotation."""
    from perdure.core.ground.values._compile import UnresolvedNameError, node_of
    from perdure.errors import UnsupportedTypeError

    if cls is object:
        return False
    try:
        node_of(cls)
    except UnresolvedNameError:
        return True  # where it is declared, its fields' types may be known
    except UnsupportedTypeError:
        return False
    return True

"""Names of types in messages and in stored data, and looking up a class by the stored name.

A class of a script lives in `__main__`, a name for another file in every process. The run driver sets the script's
logical module name once. From then on classes of `__main__` are written under the logical name, and the logical name
leads back to `__main__` in every process with the same script.
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
    """Set the logical module name of the process's `__main__`, for example `"demo"` for `python demo.py`."""
    global _main_name
    _main_name = name


def logical_module(name: str) -> str:
    """The module name to store for classes and functions of module `name`: never `__main__` once a name is set."""
    if name == "__main__" and _main_name is not None:
        return _main_name
    return name


def find_class(module: str, qualname: str) -> type | None:
    """The class of that name if the module is already imported; `None` otherwise.

    Reads the dictionaries of modules and classes and no attributes: a module-level `__getattr__` or a descriptor would
    run code that the data chose.
    """
    homes = ["__main__", module] if module == _main_name else [module]
    for home in homes:
        found: object = sys.modules.get(home)
        for part in qualname.split("."):
            if not isinstance(found, (ModuleType, type)):
                break
            # Not `vars`: `vars` executes a lazily loaded module, and a metaclass may answer falsely.
            held = _MODULE_DICT if isinstance(found, ModuleType) else _CLASS_DICT
            found = held(found).get(part)
        if isinstance(found, type):
            return found
    return None


def type_text(tp: Any) -> str:
    """A type as an author writes types: `list[int]`, `int | None`, `Order`."""
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
    """An annotation that fits `value`, as text; `None` where no annotation fits."""
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
    """Whether values of exactly this class can be stored once an annotation names the class."""
    from perdure.core.ground.values._compile import UnresolvedNameError, node_of
    from perdure.errors import UnsupportedTypeError

    if cls is object:
        return False
    try:
        node_of(cls)
    except UnresolvedNameError:
        return True  # the types of the fields may be known at the declaration
    except UnsupportedTypeError:
        return False
    return True

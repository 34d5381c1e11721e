"""Names of types in messages and in stored data, and looking up a class by the stored name.

A class of a script lives in `__main__`, a name for another file in every process. The run driver sets the script's
logical module name once. From then on classes of `__main__` are written under the logical name, and the logical name
leads back to `__main__` in every process with the same script.
"""

from __future__ import annotations

import sys
import typing
from types import ModuleType, NoneType, UnionType
from typing import Any, Final, ForwardRef, TypeVar, cast

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


FRAME_LIBRARIES: Final = frozenset({"pandas", "polars", "pyarrow"})
"""Libraries of data frames: several of them have a class `DataFrame`."""


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
        library = tp.__module__.partition(".")[0]
        return f"{library}.{tp.__qualname__}" if library in FRAME_LIBRARIES else tp.__qualname__
    if isinstance(tp, list):
        return f"[{', '.join(map(type_text, tp))}]"
    origin, args = getattr(tp, "__origin__", None), getattr(tp, "__args__", None)
    if args and (origin is typing.Union or isinstance(tp, UnionType)):
        return " | ".join(map(type_text, args))
    if args and isinstance(origin, type) and not hasattr(tp, "__metadata__"):
        return f"{type_text(origin)}[{', '.join(map(type_text, args))}]"
    return str(tp).replace("typing.", "")

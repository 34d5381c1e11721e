"""Values that Flyte pickles and perdure stores without pickle: objects of a script's plain classes, and functions.

An object is stored as its attributes, and comes back without a call of `__init__`. The class comes from the annotation.
A function or a task is stored as its module and name, and is looked up among the modules that are imported already
(P11): a name leads to a function of the user's own code, never to the standard library or an installed package.
"""

from __future__ import annotations

import collections.abc
import sys
import sysconfig
from types import FunctionType, ModuleType
from typing import Any

from ..api.task import Task
from ..api.trace import Trace
from ..core.ground.values import Form, add_forms, logical_module
from ._arrays import array_form
from .types import registered_form

_INSTALLED = tuple({sysconfig.get_path(name) for name in ("stdlib", "purelib", "platlib")})


def _form_of(cls: Any) -> Form | None:
    if cls is collections.abc.Callable:
        return _FUNCTION
    form = registered_form(cls) or array_form(cls)
    if form is not None:
        return form
    return _plain_form(cls) if _is_plain(cls) else None


# -- objects of plain classes ----------------------------------------------------------------------------------------


def _is_plain(cls: Any) -> bool:
    """Whether a class of the script's own keeps all that its objects know in `__dict__`."""
    bases = cls.__mro__[:-1]
    return (
        type(cls) is type
        and all("__new__" not in vars(base) for base in bases)
        and not hasattr(cls, "__dataclass_fields__")
        and any("__init__" in vars(base) for base in bases)
        and all(_is_own(base.__module__) and "__slots__" not in vars(base) for base in bases)
    )


def _is_own(module: str) -> bool:
    """Whether a module is the user's own code, rather than Python's or an installed package's."""
    file = getattr(sys.modules.get(module), "__file__", None)
    return isinstance(file, str) and not file.startswith(_INSTALLED) and not module.startswith("perdure.")


def _plain_form(cls: type) -> Form:
    def rebuilt(attributes: dict[str, Any]) -> Any:
        value: Any = object.__new__(cls)
        vars(value).update(attributes)
        return value

    return Form(
        stored=dict[str, Any],
        put=lambda value: dict(vars(value)),
        get=rebuilt,
        accepts=lambda value: type(value) is cls,
    )


# -- functions -------------------------------------------------------------------------------------------------------


def _place(value: Any) -> list[str]:
    """Module and qualified name; the name leads back to the function."""
    function = value.fn if isinstance(value, (Task, Trace)) else value
    module, name = function.__module__, function.__qualname__
    if _found(module, name) is not value:
        raise ValueError(
            f"{name} is not stored: only functions and tasks at the top level of your own modules can be passed to a "
            "task, as another process finds them by their names"
        )
    return [logical_module(module), name]


def _found(module: str, name: str) -> Any:
    for home in (module, "__main__"):
        loaded = sys.modules.get(home)
        if isinstance(loaded, ModuleType) and logical_module(home) == logical_module(module) and _is_own(home):
            found = vars(loaded).get(name)
            if isinstance(found, (FunctionType, Task, Trace)):
                return found
    return None


def _function(place: list[str]) -> Any:
    found = _found(*place)
    if found is None:
        raise ValueError(f"there is no function {place[1]} in {place[0]}, or the module is not imported")
    return found


_FUNCTION = Form(
    stored=list[str],
    put=_place,
    get=_function,
    accepts=lambda value: isinstance(value, (FunctionType, Task, Trace)),
)

add_forms(_form_of)

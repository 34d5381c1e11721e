"""The places where tasks are declared, and the names by which other processes find the tasks.

A task is declared by the module whose top level executes at the moment, which need not be the module of the
function (a factory, a function of a library). Importing the module again declares the task again, so `file`, module
and full name together are the address of a task. A task declared later, inside a function call, has no such address.

Invariants:
- TN1 within one execution of a module, a full name is declared at most once.
- TN2 two modules below the same code root never declare the same full name.

Redefinition stays possible: a notebook's cell that runs again, a reloaded module.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import CodeType
from typing import Any, Protocol

from msgspec import Struct

from ..core.journal.source import code_root
from ..errors import UsageError
from ._names import place_of

LOCAL = "<locals>."
"""In a target, in front of the name of a task that an import of the module does not declare."""

_OURS = __name__.partition(".")[0]


class Home(Struct, frozen=True):
    """The module of a declaration."""

    module: str
    """The name under which this process has the module, possibly `__main__`."""
    code: CodeType | None
    """The module's top level in execution; `None`: the declaration stands inside a function that is called later."""

    def target(self, name: str) -> str:
        """`file::logical.module::NAME`, by which another process finds the task."""
        place = place_of(self.module)
        return f"{place.file}::{place.module}::{name if self.code is not None else LOCAL + name}"


class Declarable(Protocol):
    """A task, as far as declarations care."""

    name: str
    fn: Callable[..., Any]


class _Declared(Struct):
    task: Declarable
    code: CodeType


_declared: dict[str, dict[str, _Declared]] = {}
"""By module and full name."""


def home_of(fn: Callable[..., Any]) -> Home:
    """The module whose top level is executing the declaration of `fn` as a task."""
    frame = sys._getframe(1)
    between: set[str] = set()
    while frame is not None:
        name = frame.f_globals.get("__name__", "")
        loaded = sys.modules.get(name)
        if frame.f_code.co_name == "<module>" and loaded is not None and vars(loaded) is frame.f_globals:
            # A test runner is `__main__`, too, and does not declare the tasks of its plugins.
            if name != "__main__" or between <= {fn.__module__, "__main__"}:
                return Home(name, frame.f_code)
            break
        if name.partition(".")[0] != _OURS:
            between.add(name)
        frame = frame.f_back  # type: ignore[assignment]
    return Home(fn.__module__, None)


def register(task: Declarable, home: Home) -> None:
    """Note a declaration for `tasks_of`.

    Raises:
        UsageError: another task has the full name.
    """
    if home.code is None:
        return
    here = _declared.setdefault(home.module, {})
    before = here.get(task.name)
    if before is not None and before.code is home.code:
        raise UsageError(_refusal(task, before.task))
    file = place_of(home.module).file
    for module, others in _declared.items():
        other = others.get(task.name)
        if other is None or module == home.module or not file or module not in sys.modules:
            continue
        theirs = place_of(module).file
        if theirs and theirs != file and code_root(theirs) == code_root(file):
            raise UsageError(_refusal(task, other.task))
    here[task.name] = _Declared(task, home.code)


def _refusal(task: Declarable, other: Declarable) -> str:
    return (
        f"two tasks are called {task.name}: {_shown(other.fn)} and {_shown(task.fn)}. A task's name is its identity in "
        'the journal and in other processes: give one of them another name with @env.task(short_name="...")'
    )


def _shown(fn: Callable[..., Any]) -> str:
    code = getattr(fn, "__code__", None)
    return fn.__qualname__ if code is None else f"{fn.__qualname__} ({code.co_filename}:{code.co_firstlineno})"


class _Counted(Struct):
    """The functions of one qualified name that an execution of a module has declared as traces."""

    code: CodeType
    count: int = 0


_counted: dict[tuple[str, str], _Counted] = {}
"""By module and qualified name."""


def distinct_name(fn: Callable[..., Any]) -> str:
    """The qualified name of a traced function, numbered from the second function of the name on.

    Lambdas, redefinitions and closures of a factory share a qualified name. Their order in the module tells them apart,
    in every process alike. A trace that is declared inside a later call keeps the plain name.
    """
    home = home_of(fn)
    if home.code is None:
        return fn.__qualname__
    key = (home.module, fn.__qualname__)
    counted = _counted.get(key)
    if counted is None or counted.code is not home.code:
        counted = _counted[key] = _Counted(home.code)
    counted.count += 1
    return fn.__qualname__ if counted.count == 1 else f"{fn.__qualname__}#{counted.count}"


def all_tasks() -> list[Any]:
    """The tasks declared by the top levels of all loaded modules."""
    return [declared.task for tasks in list(_declared.values()) for declared in list(tasks.values())]


def tasks_of(module: str) -> list[Any]:
    """The tasks declared by the top level of a loaded module, including tasks that no variable holds."""
    return [declared.task for declared in _declared.get(module, {}).values()]

"""Loading a run's code in another process: by file, as the logical module, and only where loading is allowed (P11)."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import os
import sys
import threading
from collections.abc import Iterator
from contextvars import ContextVar
from types import ModuleType
from typing import Any

from ..core.ground.private import stranger_of
from ..core.ground.spec import TaskSpec, parsed
from ..core.journal.source import code_root, logical_name
from ..errors import CodeNotLoadedError, PerdureError, TaskNotFoundError, UsageError
from ..runtime.process import Process
from . import flyte_alias
from .declaring import LOCAL, tasks_of
from .task import Task

_LOADING: ContextVar[str | None] = ContextVar("perdure_loading", default=None)
_LOCKS: dict[str, threading.RLock] = {}
"""By file: threads that load one file at once must not see a module whose import is under way. A thread may come back,
because the code of a file can lead to the file itself."""


def loading_file() -> str | None:
    """The file that perdure is loading right now; top-level code may not start runs meanwhile."""
    return _LOADING.get()


def load_file(path: str) -> ModuleType:
    """Import a file as its logical module: relative imports and packages work, the `__main__` part does not run.

    Raises:
        UsageError: there is no such file.
        CodeNotLoadedError: the import fails.
    """
    file = os.path.abspath(path)
    if not os.path.isfile(file):
        raise UsageError(f"{path}: no such file")
    if not file.endswith(".py"):
        raise UsageError(f"{path} is not a Python file (.py)")
    with _LOCKS.setdefault(file, threading.RLock()):
        return _load(path, file)


def _load(path: str, file: str) -> ModuleType:
    root, name = code_root(file), logical_name(file)
    loaded = sys.modules.get(name)
    if loaded is not None and _is_file(loaded, file):
        return loaded
    main = sys.modules.get("__main__")
    if main is not None and _is_file(main, file):
        return main
    with _loading(file):
        if root not in sys.path:
            sys.path.insert(0, root)
        try:
            if "." in name:
                importlib.import_module(name.rpartition(".")[0])
            return _execute(name, file)
        except PerdureError:
            raise
        except Exception as error:
            raise CodeNotLoadedError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
        except SystemExit as error:
            raise CodeNotLoadedError(
                f"{path} ended the process while it was imported (exit code {error.code})"
            ) from error


def load_source(source: str) -> ModuleType:
    """Import a file by its path, or a module by its dotted name, found as Python does or in the current directory.

    Raises:
        UsageError: there is no such file or module.
        CodeNotLoadedError: the import fails.
    """
    if source.endswith(".py") or os.sep in source or os.path.exists(source):
        return load_file(source)
    root = os.getcwd()
    if root not in sys.path:
        sys.path.insert(0, root)
    try:
        found = importlib.util.find_spec(source)
    except (ImportError, ValueError) as error:
        raise CodeNotLoadedError(f"{source} cannot be imported: {type(error).__name__}: {error}") from error
    if found is None or found.origin is None or not found.origin.endswith(".py"):
        raise UsageError(f"{source} is neither a Python file nor a module that can be found from here ({root})")
    return load_file(found.origin)


def _execute(name: str, file: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    before = sys.modules.get(name)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        if before is None:
            del sys.modules[name]
        else:
            sys.modules[name] = before
        raise
    return module


@contextlib.contextmanager
def _loading(file: str) -> Iterator[None]:
    flyte_alias.install()
    token = _LOADING.set(file)
    try:
        yield
    finally:
        _LOADING.reset(token)


def _is_file(module: ModuleType, file: str) -> bool:
    found = getattr(module, "__file__", None)
    return found is not None and os.path.abspath(found) == file


def tasks_in(module: ModuleType) -> dict[str, Task[..., Any]]:
    """The tasks that a module holds, by the names of the variables."""
    return {name: value for name, value in vars(module).items() if isinstance(value, Task)}


def find_task(path: str, name: str) -> Task[..., Any]:
    """The task of a file or module by the name of its variable, or by its full name such as `etl.fetch`.

    Raises:
        UsageError: there is no such file or module, or it cannot be loaded.
        TaskNotFoundError: the file holds no such task; the message lists the tasks there.
    """
    module = load_source(path)
    tasks = tasks_in(module)
    task = tasks.get(name) or next((task for task in (*tasks.values(), *_declared(module)) if task.name == name), None)
    if task is not None:
        return task
    other = vars(module).get(name)
    if other is not None:
        raise TaskNotFoundError(f"{name} in {path} is not a task ({type(other).__name__}); declare it with @env.task")
    known = ", ".join(sorted(tasks)) or "none"
    raise TaskNotFoundError(f"{path} holds no task {name!r}; its tasks are: {known}")


def spec_of_loaded(target: str) -> TaskSpec | None:
    """The task that `target` names, if the module is imported already; nothing is imported."""
    wanted = parsed(target)
    for found in (sys.modules.get(wanted.module), sys.modules.get("__main__")):
        if found is None or (wanted.file and not _is_file(found, wanted.file)):
            continue
        task = _task_named(found, wanted.name)
        if task is not None:
            return task.spec
    return None


def load_target(target: str, run: str, allowed_root: str) -> TaskSpec:
    """The task of a stored run. Loads the file where that is a file of this user's below `allowed_root` (P11).

    Raises:
        UsageError: the code may not be loaded, or cannot be; the message says how to name the file instead.
        TaskNotFoundError: the file no longer holds the task.
    """
    found = spec_of_loaded(target)
    if found is not None:
        return found
    file, _, name, _ = parsed(target)
    if not file:
        raise UsageError(
            f"run {run!r} was started from a notebook or an interactive session, and its code is in no file. "
            "Run the cell again with the same name and inputs to continue it."
        )
    if name.startswith(LOCAL):
        raise UsageError(
            f"run {run!r}: its task {name.removeprefix(LOCAL)} is defined inside a function and cannot be found again; "
            "define it at module level"
        )
    named = f"name it: perdure resume {run} --file {file}"
    real, root = os.path.realpath(file), os.path.realpath(allowed_root)
    if os.path.commonpath([real, root]) != root:
        raise UsageError(
            f"run {run!r}: its code, {file}, is outside this project ({root}). If you trust that file, {named}"
        )
    if not os.path.isfile(real):
        raise UsageError(
            f"run {run!r}: its code, {file}, is gone. If it has moved: perdure resume {run} --file NEW_PATH"
        )
    if os.path.commonpath([code_root(real), root]) != root:
        raise UsageError(
            f"run {run!r}: its code, {file}, is part of a package that reaches above this project ({root}). If you "
            f"trust that file, {named}"
        )
    for path in _loaded_with(real, root):
        reason = stranger_of(path)
        if reason is not None:
            raise UsageError(
                f"run {run!r}: its code, {file}, is not safe to load: {path} {reason}. If you trust that file, {named}"
            )
    # The checked file itself, not a link that leads there: a link's directory would be searched for modules.
    return task_at(load_file(real), name, file)


def _loaded_with(file: str, root: str) -> Iterator[str]:
    """The files and directories that decide which code an import of the file loads, up to the project."""
    yield file
    folder = os.path.dirname(file)
    while True:
        yield folder
        package = os.path.join(folder, "__init__.py")
        if os.path.exists(package):
            yield package
        if folder == root:
            return
        folder = os.path.dirname(folder)


def load_body(target: str, module: str) -> TaskSpec:
    """The task that the driving process has loaded already, under the module's name there.

    Raises:
        UsageError: the code cannot be loaded here.
        TaskNotFoundError: the file no longer holds the task.
    """
    found = spec_of_loaded(target)
    if found is not None:
        return found
    file, _, name, _ = parsed(target)
    return task_at(_module_of(file, module), name, file)


def _module_of(file: str, name: str) -> ModuleType:
    """A file as the same module as in the driving process, so that its classes have the same names."""
    loaded = sys.modules.get(name)
    if loaded is not None and _is_file(loaded, file):
        return loaded
    with _loading(file):
        try:
            spec = importlib.util.find_spec(name) if name else None
            if loaded is None and spec is not None and spec.origin is not None and os.path.abspath(spec.origin) == file:
                return importlib.import_module(name)
        except (ImportError, ValueError) as error:
            raise CodeNotLoadedError(f"{file} cannot be imported: {type(error).__name__}: {error}") from error
    return load_file(file)


def load_container(target: str, module: str, variable: str) -> TaskSpec:
    """The container task that another process of this program holds in a variable of a module.

    Raises:
        UsageError: the code cannot be loaded here.
        TaskNotFoundError: the variable holds no container task.
    """
    file = target.partition("::")[0]
    main = sys.modules.get("__main__")
    loaded = main if main is not None and _is_file(main, file) else _module_of(file, module)
    task = tasks_in(loaded).get(variable)
    if task is None or task.spec.dispose is None:
        raise TaskNotFoundError(f"{file} holds no container task {variable!r}")
    return task.spec


Process.find_container = staticmethod(load_container)


def task_at(module: ModuleType, name: str, file: str) -> TaskSpec:
    """The task of that full name in a loaded module."""
    task = _task_named(module, name)
    if task is None:
        known = ", ".join(sorted({task.name for task in (*tasks_in(module).values(), *_declared(module))})) or "none"
        raise TaskNotFoundError(f"{file} no longer holds a task {name!r}; its tasks are: {known}")
    return task.spec


def _task_named(module: ModuleType, name: str) -> Task[..., Any] | None:
    tasks = (*_declared(module), *tasks_in(module).values())
    for task in tasks:
        if parsed(task.spec.target()).name == name:
            return task
    return next((task for task in tasks if name in task.spec.names), None)


def _declared(module: ModuleType) -> list[Task[..., Any]]:
    return tasks_of(module.__name__)

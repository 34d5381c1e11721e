"""`import flyte` without Flyte: a finder that answers the name with `perdure.flyte`.

The finder stands last, so an installed Flyte comes first. `python -m perdure.flyte` and `import perdure.flyte` put the
finder in front, and set `PERDURE_FLYTE`, so that child processes do the same.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from importlib.util import find_spec, resolve_name
from types import ModuleType

VARIABLE = "PERDURE_FLYTE"
"""Set to 1: `import flyte` means perdure, even where Flyte is installed."""


class _Loader:
    """Loads `flyte.x` as the module `perdure.flyte.x` itself, so that both names share one state."""

    def __init__(self, ours: str) -> None:
        self._ours = ours
        self._spec: ModuleSpec | None = None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """The import system's hook."""
        module = importlib.import_module(self._ours)
        self._spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        """The import system's hook: the module has been executed, and keeps the spec of its own name."""
        module.__spec__ = self._spec


class _Finder:
    """Finds `flyte` and its submodules."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """The import system's hook."""
        if name != "flyte" and not name.startswith("flyte."):
            return None
        ours = resolve_name(f".{name}", "perdure")
        if find_spec(ours) is None:
            return None
        return ModuleSpec(name, _Loader(ours), is_package=True)  # type: ignore[arg-type]


_finder = _Finder()


def install(*, first: bool = False) -> None:
    """Let `import flyte` find perdure, after an installed Flyte or before."""
    if first:
        os.environ[VARIABLE] = "1"
    first = os.environ.get(VARIABLE) == "1"
    if _finder in sys.meta_path:
        if not first or sys.meta_path[0] is _finder:
            return
        sys.meta_path.remove(_finder)
    sys.meta_path.insert(0 if first else len(sys.meta_path), _finder)

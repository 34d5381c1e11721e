"""Logical names of functions, files and runs: the same in every process."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from ..core.ground.values import set_main_name
from ..core.journal.source import logical_name
from ..errors import UsageError

_ADJECTIVES = """
able amber apt arch azure bold brave brief bright brisk calm candid civil clear clever cool coral crisp daring deep
eager early even fair fine firm fond frank free fresh gentle glad golden grand green happy hardy ideal ivory jade
keen kind late lean light lively loyal lucid lunar mellow merry mild modest neat noble novel olive open patient
plain polite prime proud quick quiet rapid ready rosy round ruby safe sage silent silver simple sleek smart solar
solid sound spry steady stout sunny sure swift tidy timely true upbeat vivid warm wide wise witty young zesty
""".split()  # noqa: SIM905 - a list literal would take a line for each word
_NOUNS = """
acorn alder anchor apple arrow aspen badger basil bay beech birch bison bluff breeze bridge brook canyon cedar cliff
cloud clover comet coral cove crane creek dawn delta dove dune eagle elm ember falcon fern field finch fjord flint
forest fox garden glade glen grove harbor hawk hazel heron hill holly island ivy jasper kestrel lake lark laurel
leaf lily linden lynx maple marsh meadow mesa mint moss oak oasis ocean orchard osprey otter peak pebble pine plum
pond poplar quail rain raven reef ridge river robin rowan sage shore sparrow spruce star stone stream summit swan
thistle tide trail valley violet willow wren
""".split()  # noqa: SIM905 - a list literal would take a line for each word


def random_run_name() -> str:
    """A readable name that is unique for all practical purposes, such as `calm-otter-3f9a21c4`."""
    # One call for random bytes. The last eight digits make the name unique.
    number = int.from_bytes(os.urandom(8), "little")
    number, unique = divmod(number, 1 << 32)
    number, adjective = divmod(number, len(_ADJECTIVES))
    return f"{_ADJECTIVES[adjective]}-{_NOUNS[number % len(_NOUNS)]}-{unique:08x}"


def check_name(name: Any) -> None:
    """Check that a run's name can be typed in a shell, and printed.

    Raises:
        UsageError: the name cannot.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise UsageError(f"a run's name is text of 1 to 200 characters, not {name!r}")
    if name.startswith("-") or any(not char.isprintable() for char in name):
        raise UsageError(f"a run's name begins with no dash and holds only printable characters, not {name!r}")


class ModulePlace(NamedTuple):
    """A module by its file."""

    file: str
    """Absolute; empty for a notebook, a REPL or `python -c`."""
    module: str
    """The logical name: never `__main__` for a module with a file."""


_modules: dict[str, ModulePlace] = {}


def place_of(name: str) -> ModulePlace:
    """The place of a loaded module, by the name under which this process has the module."""
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        return ModulePlace("", name)
    known = _modules.get(file)
    if known is None:
        path = os.path.abspath(file)
        known = _modules[file] = ModulePlace(
            path, name if "site-packages" in path.split(os.sep) else logical_name(path)
        )
    return known


def qualified(fn: Callable[..., Any], name: str | None = None) -> str:
    """`logical.module:QualName`; `name`: in place of the qualified name."""
    return f"{place_of(fn.__module__).module}:{name or fn.__qualname__}"


def target(fn: Callable[..., Any]) -> str:
    """`file::logical.module::QualName` of a function, by which another process finds the function."""
    place = place_of(fn.__module__)
    return f"{place.file}::{place.module}::{fn.__qualname__}"


def name_main_module() -> None:
    """Tell the codecs the logical name for classes of `__main__`. To be called again where `__main__` is replaced."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is not None:
        set_main_name(logical_name(os.path.abspath(file)))


# Before anything can be encoded.
name_main_module()

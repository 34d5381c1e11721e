"""Logical names: what a function, a file and a run are called, whatever process looks at them."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

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
    # One look at the system's random numbers; the last eight digits are what makes it unique.
    number = int.from_bytes(os.urandom(8), "little")
    number, unique = divmod(number, 1 << 32)
    number, adjective = divmod(number, len(_ADJECTIVES))
    return f"{_ADJECTIVES[adjective]}-{_NOUNS[number % len(_NOUNS)]}-{unique:08x}"


def check_name(name: Any) -> None:
    """A run's name can be typed in a shell, and printed.

    Raises:
        UsageError: it cannot.
    """
    if not isinstance(name, str) or not name.strip() or len(name) > 200:
        raise UsageError(f"a run's name is text of 1 to 200 characters, not {name!r}")
    if name.startswith("-") or any(not char.isprintable() for char in name):
        raise UsageError(f"a run's name begins with no dash and holds only printable characters, not {name!r}")


_modules: dict[str, tuple[str, str]] = {}


def module_of(fn: Callable[..., Any]) -> tuple[str, str]:
    """`(file, logical module)` of the module that `fn` lives in; the file is empty where there is none."""
    name = fn.__module__
    module = sys.modules.get(name)
    file = getattr(module, "__file__", None)
    if file is None:
        # A notebook, `python -c` or a REPL. Functions know no file that could be loaded again.
        return "", "__main__" if name == "__main__" else name
    known = _modules.get(file)
    if known is None:
        path = os.path.abspath(file)
        known = _modules[file] = (path, name if "site-packages" in path.split(os.sep) else logical_name(path))
    return known


def qualified(fn: Callable[..., Any]) -> str:
    """`logical.module:QualName`."""
    return f"{module_of(fn)[1]}:{fn.__qualname__}"


def target(fn: Callable[..., Any]) -> str:
    """`file::logical.module::QualName`, from which another process finds the task again."""
    file, module = module_of(fn)
    return f"{file}::{module}::{fn.__qualname__}"


def _name_main_module() -> None:
    """Tell the codecs under which name classes of `__main__` are written."""
    file = getattr(sys.modules.get("__main__"), "__file__", None)
    if file is not None:
        set_main_name(logical_name(os.path.abspath(file)))


# Once, before anything can be encoded: a process's `__main__` does not change.
_name_main_module()

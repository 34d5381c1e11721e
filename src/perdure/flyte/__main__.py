"""`python -m perdure.flyte script.py [ARGUMENTS]`: run a script whose `import flyte` means perdure."""

from __future__ import annotations

import os
import sys
from types import ModuleType


def main(arguments: list[str]) -> None:
    """Execute the script as `__main__`, with its own arguments and directory, as `python script.py` does."""
    if not arguments or arguments[0] in ("-h", "--help"):
        print("usage: python -m perdure.flyte SCRIPT.py [ARGUMENTS]", file=sys.stderr)  # noqa: T201 - a program
        sys.exit(0 if arguments else 2)
    file = os.path.abspath(arguments[0])
    try:
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec", dont_inherit=True)
    except OSError as error:
        sys.exit(f"python -m perdure.flyte: {arguments[0]}: {error.strerror}")
    module = ModuleType("__main__")
    module.__file__ = file
    sys.modules["__main__"] = module
    sys.argv[:] = arguments
    sys.path[0] = os.path.dirname(file)
    from ..api._names import name_main_module

    name_main_module()
    exec(code, vars(module))


if __name__ == "__main__":
    main(sys.argv[1:])

"""`python -m perdure.flyte [--new] SCRIPT.py [ARGUMENTS]`: run a script whose `import flyte` means perdure."""

from __future__ import annotations

import os
import sys
from types import ModuleType

USAGE = """usage: python -m perdure.flyte [--new] SCRIPT.py [ARGUMENTS]

Runs a script whose `import flyte` means perdure. Killed, and started again by the same command, the script carries on:
finished runs give their recorded results, and unfinished runs continue. After --new the script begins new runs."""


def main(arguments: list[str]) -> None:
    """Execute the script as `__main__`, with its own arguments and directory, as `python script.py` does."""
    fresh = arguments[:1] == ["--new"]
    arguments = arguments[fresh:]
    if not arguments or arguments[0] in ("-h", "--help"):
        print(USAGE, file=sys.stdout if arguments else sys.stderr)
        sys.exit(0 if arguments else 2)
    file = os.path.abspath(arguments[0])
    try:
        with open(file, "rb") as source:
            code = compile(source.read(), file, "exec", dont_inherit=True)
    except OSError as error:
        print(f"python -m perdure.flyte: {arguments[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201 - a command
        sys.exit(2)
    module = ModuleType("__main__")
    module.__file__ = file
    # Before anything of perdure's is imported that looks at `__main__`.
    sys.modules["__main__"] = module
    sys.argv[:] = arguments
    sys.path[0] = os.path.dirname(file)
    from ..api._names import name_main_module
    from ._scripts import Script, begin

    name_main_module()
    script = Script(file, arguments[1:], fresh=fresh)
    begin(script)
    try:
        exec(code, vars(module))
    except KeyboardInterrupt:
        raise  # the same command carries on
    except SystemExit:
        script.end()
        raise
    except BaseException as error:
        script.end()
        # As Python does, but without the frames of this module.
        if error.__traceback__ is not None:
            error.__traceback__ = error.__traceback__.tb_next
        sys.excepthook(type(error), error, error.__traceback__)
        sys.exit(1)
    script.end()


if __name__ == "__main__":
    main(sys.argv[1:])

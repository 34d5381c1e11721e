"""Try the seeds of a generator: `python -m proof.generators NAME FIRST COUNT`."""

from __future__ import annotations

import argparse
import sys
import traceback

from . import MODULES, history_of


def main() -> int:
    """1 at the first seed that breaks an invariant."""
    parser = argparse.ArgumentParser(prog="python -m proof.generators", description=__doc__)
    parser.add_argument("name", choices=sorted(MODULES))
    parser.add_argument("first", type=int)
    parser.add_argument("count", type=int)
    given = parser.parse_args()
    history = history_of(given.name)
    for seed in range(given.first, given.first + given.count):
        try:
            history(seed)
        except Exception as error:
            traceback.print_exc()
            print(f"seed {seed}: {type(error).__name__}: {error}")
            return 1
    print(f"{given.name}: {given.count} histories, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())

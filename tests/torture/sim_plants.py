"""Faults planted in perdure, to see whether the simulation finds them.

python -m tests.torture.sim_plants [NAME ...]    the number of histories until each is found
"""

from __future__ import annotations

import importlib
import inspect
import sys
import textwrap
from typing import Any, NamedTuple

from .sim import history


class Plant(NamedTuple):
    """A change of the source of one function."""

    module: str
    function: str
    """The function's name in the module, or `Class.method`."""
    changes: tuple[tuple[str, str], ...]
    """Pieces of the source, each with its replacement."""


PLANTS = {
    "the store leaves out the fence": Plant(
        "perdure.store.memory", "MemoryStore._write", ((" or run.token != write.token", ""),)
    ),
    "an outcome is announced before its commit": Plant(
        "perdure.core.commit.writer",
        "Writer.commit_alone",
        (
            ("        body = record.announce()\n        if body is not None:", "        if body is not None:"),
            (
                "if segment is not None:",
                "body = record.announce()\n            body is None or pump(body)\n            if segment is not None:",
            ),
        ),
    ),
    "the lease is renewed too late by a factor of nine": Plant(
        "perdure.core.process.lease", "Lease._beat", (("self.seconds * US / 3", "self.seconds * US * 3"),)
    ),
}


def plant(change: Plant) -> None:
    """Replace the function in this interpreter."""
    module: Any = importlib.import_module(change.module)
    holder, _, name = change.function.rpartition(".")
    owner = getattr(module, holder) if holder else module
    function = vars(owner)[name]
    source = textwrap.dedent(inspect.getsource(function))
    source = textwrap.indent(source, "    ") if holder else source
    for old, new in change.changes:
        assert source.count(old) == 1, f"{change.function} no longer holds {old!r} once"
        source = source.replace(old, new)
    header = "if True:\n" if holder else ""
    names: dict[str, Any] = {}
    exec(
        compile(f"from __future__ import annotations\n{header}{source}", function.__code__.co_filename, "exec"),
        vars(module),
        names,
    )
    setattr(owner, name, names[name])


MOST = 600
"""Histories within which a planted fault has to be found."""


def first_found(change: Plant) -> tuple[int, list[str]] | None:
    """The first seed with which the fault is found, and how it shows."""
    for seed in range(MOST):
        violations = history(seed, lambda: plant(change)).violations
        if violations:
            return seed, violations
    return None


def main(names: list[str]) -> int:
    missed = 0
    for name in names or PLANTS:
        found = first_found(PLANTS[name])
        if found is None:
            missed += 1
            print(f"{name}: not found in {MOST} histories")
        else:
            print(f"{name}: found by seed {found[0]}:", *found[1], sep="\n  ", flush=True)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""A process that executes histories for `campaign`: requests and answers are JSON lines.

Real lives are forked from this process, so it starts no thread and opens no store; simulated histories have a process
of their own.
"""

from __future__ import annotations

import importlib.util
import itertools
import json
import os
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.torture import lives, programs

if TYPE_CHECKING:
    from tests.faults.run import FaultKinds

STRIDE = 1_000_003
"""Between the seeds of the kills of two attempts at one program."""
ON_DISK = 8
"""One history in so many has its SQLite file on a disk; the others have it in memory, where that is possible."""
_numbers = itertools.count(1)
_source = os.stat(programs.__file__).st_mtime_ns


def has_simulation() -> bool:
    """Whether simulated histories can be run."""
    return importlib.util.find_spec("tests.torture.sim") is not None


def postgres_place(dsn: str) -> lives.Place:
    """A directory, and a schema of its own on that server."""
    import psycopg

    schema = f"t{os.getpid()}_{next(_numbers)}"
    directory = Path(tempfile.mkdtemp(prefix="perdure-torture-", dir=lives.MEMORY))

    def remove() -> None:
        shutil.rmtree(directory)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")  # type: ignore[arg-type]

    return lives.Place(directory, f"{dsn}&schema={schema}", remove, postgres=True)


def the_program(seed: int) -> programs.Node:
    """The program of a seed in real lives: one of twenty has a body in a process of its own, two of five exchange
    messages, two of seven need slots of a limit and write to a database."""
    return programs.generate(seed, processes=seed % 20 == 19, messages=seed % 5 in (2, 4), resources=seed % 7 in (3, 5))


def answer(request: dict[str, Any]) -> dict[str, Any]:
    """Run one history."""
    if os.stat(programs.__file__).st_mtime_ns != _source:
        # Each run takes a snapshot of its source from the disk: a life under other source may rightly differ (P6).
        raise SystemExit("tests/torture/programs.py was edited while histories were run: start again")
    kind, seed, attempt = request["kind"], request["seed"], request["attempt"]
    if kind == "faults":
        return one_fault(seed)
    if kind == "simulated":
        from tests.torture.sim import history

        report = history(seed)
        return {"violations": report.violations, "faults": report.faults, "lives": report.lives, "nodes": report.nodes}
    program = programs.parse(request["program"]) if request.get("program") else the_program(seed)

    def make() -> lives.Place:
        on_disk = seed % ON_DISK == 0
        return postgres_place(request["dsn"]) if kind == "postgres" else lives.sqlite_place(on_disk=on_disk)

    found = lives.history(program, seed + STRIDE * attempt, make)
    nodes: dict[str, int] = {}
    for node in program.walk():
        nodes[node.kind] = nodes.get(node.kind, 0) + 1
    return {"violations": found.violations, "faults": dict(found.faults), "lives": found.lives, "nodes": nodes}


_faults: FaultKinds | None = None
_closing = ExitStack()


def one_fault(seed: int) -> dict[str, Any]:
    """One trial of `tests.faults`, of a kind that the seed chooses."""
    global _faults
    from tests.faults.run import fault_kinds, one_trial

    if _faults is None:
        _faults = _closing.enter_context(fault_kinds())
    name, ended, wrong = one_trial(_faults, seed)
    return {"violations": wrong, "faults": {f"{name}: {ended}": 1}, "lives": 1, "nodes": {}}


def _stay(number: int) -> None:
    """Stay on one processor: only one thread of a simulation runs at a time, and a switch to a thread on the same
    processor is cheaper."""
    able = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {able[number % len(able)]})


def serve(number: int) -> None:
    """Answer requests until the input ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # nothing that a life prints is an answer
    ready = False
    with _closing:
        for line in sys.stdin:
            request = json.loads(line)
            if not ready:
                ready = True
                if request["kind"] == "simulated":
                    _stay(number)
                elif request["kind"] != "faults":
                    lives.warm(postgres=bool(request["dsn"]))
            answers.write(json.dumps(answer(request)) + "\n")
            answers.flush()


if __name__ == "__main__":
    serve(int(sys.argv[1]))

"""Gives random programs several lives each, and prints where a later life differs from an earlier life.

python random_lives.py FIRST_SEED COUNT [LIVES_SEED]
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent / "workflows"))
import random_programs as programs

import perdure.api.run
import perdure.runtime  # noqa: F401

HANGS_AFTER = float(os.environ.get("PERDURE_TEST_HANG", "60"))


class Line(NamedTuple):
    kind: str
    body: str
    line: str
    what: str


class Wrong(Exception):
    """A promise that a life has broken."""


def read(log: Path) -> list[Line]:
    """The log of a life."""
    return [Line(*json.loads(text)) for text in log.read_text().splitlines()] if log.exists() else []


def seen(lines: list[Line]) -> dict[tuple[str, str], list[str]]:
    """What each thread of control of each body saw."""
    found: dict[tuple[str, str], list[str]] = {}
    for line in lines:
        if line.kind == "see":
            found.setdefault((line.body, line.line), []).append(line.what)
    return found


def binding(lines: list[Line], *, whole: bool) -> list[Line]:
    """The lines that later lives have to repeat: in each body, those before the last trace whose outcome the body saw.

    What a body saw of plain timers is in the journal as soon as the next entry is (docs/guarantees.md, P4)."""
    handed = {(line.body, line.what.split(" ")[0]) for line in lines if line.kind == "see"}
    if whole:
        handed.add(("root", "last"))
    last: dict[str, int] = {}
    for place, line in enumerate(lines):
        if line.kind == "end" and (line.body, line.what) in handed:
            last[line.body] = place
    return [line for place, line in enumerate(lines) if place < last.get(line.body, -1)]


def compare(before: list[Line], after: list[Line], *, whole: bool, killed: bool) -> None:
    """P4 and P1 of two lives of one run. `whole`: the earlier life was killed at its end. `killed`: the later life was
    killed, maybe before it had seen everything again."""
    kept = seen(binding(before, whole=whole))
    now = seen(after)
    for (body, thread), lines in kept.items():
        again = now.get((body, thread), [])
        if body != "root" and not any(b == body for b, _ in now):
            continue  # the outcome of the child task is recorded: the child is not executed
        if killed or thread:
            # Where a body ends before its threads, their last lines may be missing.
            lines = lines[: len(again)]
        if lines != again[: len(lines)]:
            place = next((n for n, (a, b) in enumerate(zip(lines, again, strict=False)) if a != b), len(again))
            raise Wrong(f"{body} {thread}: {lines[place - 3 : place + 3]}\n  then {again[place - 3 : place + 3]}")
    recorded = {line.what.split(" ")[0] for line in before if line.kind == "see" and " all " not in line.what}
    twice = [line.what for line in after if line.kind == "begin" and line.what in recorded]
    if twice:
        raise Wrong(f"executed again: {twice}")


def one_life(directory: Path, number: int, tree: programs.Node, kill_at: int, ends: bool) -> int:
    """Fork one life; the exit code."""
    pid = os.fork()
    if pid:
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    code = 3
    try:
        faulthandler.dump_traceback_later(HANGS_AFTER, exit=True, file=open(directory / f"hang{number}", "w"))  # noqa: SIM115
        os.dup2(os.open(directory / f"err{number}", os.O_WRONLY | os.O_CREAT, 0o600), 2)
        found = programs.live(tree, str(directory / "p.db"), str(directory / f"log{number}"), kill_at, ends)
        (directory / "result").write_text(found)
        code = 0
    except BaseException as error:
        (directory / f"failure{number}").write_text(f"{type(error).__name__}: {error}")
    finally:
        os._exit(code)


def lives(directory: Path, tree: programs.Node, rng: random.Random) -> None:
    """A few lives of one program; raises `Wrong`."""
    logs: list[list[Line]] = []
    kills = [rng.randint(1, 4 + 3 * size(tree)) for _ in range(rng.randrange(3))]
    for number, (kill_at, ends) in enumerate([*((kill, True) for kill in kills), (-1, True), (-1, False)]):
        code = one_life(directory, number, tree, kill_at, ends)
        logs.append(read(directory / f"log{number}"))
        wanted = (0,) if not ends else (programs.KILLED_AT_THE_END, -signal.SIGKILL)
        if code not in wanted or (code == -signal.SIGKILL and kill_at < 0):
            failure = directory / f"failure{number}"
            raise Wrong(f"life {number}: code {code} {failure.read_text() if failure.exists() else 'hung'}")
        for earlier in range(number):
            compare(logs[earlier], logs[number], whole=earlier == len(kills), killed=code == -signal.SIGKILL)


def size(tree: programs.Node) -> int:
    return 1 + sum(size(kid) for kid in tree.kids)


def attempt(tree: programs.Node, seed: int, keep: bool = False) -> str | None:
    """What is wrong with the lives of a program; `None`: nothing."""
    directory = Path(tempfile.mkdtemp(prefix="perdure-random-", dir="/dev/shm"))
    try:
        lives(directory, tree, random.Random(seed))
    except Wrong as error:
        return f"{error}\n  in {directory}" if keep else str(error)
    finally:
        if not keep:
            shutil.rmtree(directory)
    return None


def smaller(tree: programs.Node) -> list[programs.Node]:
    """Programs with one node less, or one subtree less."""
    found: list[programs.Node] = list(tree.kids)
    fixed = tree.kind in programs.KIDS or tree.kind == "child"
    for place, kid in enumerate(tree.kids):
        if not fixed and len(tree.kids) > 1:
            found.append(programs.Node(tree.kind, tree.amount, tree.choice, tree.kids[:place] + tree.kids[place + 1 :]))
        for other in smaller(kid):
            rest = [*tree.kids[:place], other, *tree.kids[place + 1 :]]
            found.append(programs.Node(tree.kind, tree.amount, tree.choice, rest))
    return found


def shrink(tree: programs.Node, tries: int, fails: Callable[[programs.Node], bool]) -> programs.Node:
    """The smallest program found that still goes wrong in one of `tries` attempts."""
    while True:
        for other in sorted(smaller(tree), key=size):
            if any(fails(other) for _ in range(tries)):
                tree = other
                break
        else:
            return tree


def main(arguments: list[str]) -> None:
    first, count = int(arguments[0]), int(arguments[1])
    offset = int(arguments[2]) if len(arguments) > 2 else 0
    until = time.monotonic() + float(os.environ.get("PERDURE_TEST_SECONDS", "1e9"))
    bad: list[Any] = []
    done = 0
    for seed in range(first, first + count):
        if time.monotonic() > until:
            break
        wrong = attempt(programs.program(seed), seed + offset)
        done += 1
        if wrong is not None:
            bad.append(seed)
            print(f"seed {seed}: {wrong}\n{programs.program(seed).show()}", flush=True)
    print(f"{done} programs, wrong: {bad}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main(sys.argv[1:])

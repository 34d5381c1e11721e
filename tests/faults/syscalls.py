"""Faults in system calls of a real process, by strace: SIGKILL, ENOSPC, EIO and EINTR at the N-th call of a kind.

A trial is one process with one fault, and then the same command again, undisturbed. The promises that are checked:

- P1: what was told of before is not executed again, and is in the journal.
- W1: the numbers of the entries have no gap, and the chain of segments verifies.
- The faulty process ends: killed, with its result, or with a typed error of perdure.
- The second process ends with the right result, and `perdure store check` finds nothing wrong.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import sqlite3
from collections import Counter
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tests.crash.harness import Hosts
from tests.journals import recorded_in

from perdure.upkeep.moving import checked

HERE = Path(__file__).parent
SMALL = HERE / "workflows" / "small.py"
CALLS = (
    "write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "unlink",
    "unlinkat", "link", "linkat", "mkdir", "mkdirat", "rmdir", "fchmod", "copy_file_range", "sendfile",
)  # fmt: skip
"""Every call that changes a file or a name. `writev` is left to the programs under test, for what they tell."""
_LINE = re.compile(r"^(\d+) +(?:<\.\.\. )?(\w+)(?:\(| resumed)")


class Fault(NamedTuple):
    """One fault: what happens at which call."""

    call: str
    number: int
    """Which call of that name, counted in each thread from 1."""
    action: str
    """`kill`, the name of an error, or `short`: no file may become longer than `number` bytes, so that the write which
    crosses that length is short."""
    lasting: bool = False
    """Whether all later calls of that name fail as well."""

    def arguments(self) -> list[str]:
        """What to give strace."""
        if self.action == "short":
            return []
        what = "signal=SIGKILL" if self.action == "kill" else f"error={self.action}"
        when = f"{self.number}{'+' if self.lasting else ''}"
        return ["-e", f"trace={self.call}", "-e", f"inject={self.call}:{what}:when={when}"]


class Violation(AssertionError):
    """A promise was not kept."""


@dataclass
class Ended:
    """How a process ended, and what it told of."""

    code: int
    answer: Any
    executed: list[str]
    told: list[str]
    errors: str


class Place:
    """A project directory with the small workflow's run in it."""

    def __init__(self, hosts: Hosts, directory: Path, store: str = "", script: Path = SMALL) -> None:
        """Make it. `store`: the URL of a Postgres store; by default a file in the directory."""
        directory.mkdir(parents=True, exist_ok=True)
        self._hosts = hosts
        self._script = script
        self._env = {"PERDURE_STORE": store} if store else {}
        self.directory = directory
        self.database = directory / ".perdure" / "perdure.db"
        self._log = directory / "log"
        self._read = 0
        self._processes = 0

    def run(self, mode: str, strace: list[str] | None = None, **env: str) -> Ended:
        """One process of the workflow, perhaps under strace."""
        self._processes += 1
        out, err = (self.directory / f"{kind}{self._processes}" for kind in ("out", "err"))
        request = {
            "script": str(self._script), "args": [mode], "cwd": str(self.directory), "out": str(out), "err": str(err),
            "env": {"LAB_LOG": str(self._log), "PERDURE_LEASE": "2", **self._env, **env}, "strace": strace,
        }  # fmt: skip
        answer = self._hosts.run(request)
        errors = err.read_text()
        if answer["hung"]:
            raise Violation(f"{mode}: the process hung\n{errors[-6000:]}")
        told = self._log.read_bytes() if self._log.exists() else b""
        lines = [json.loads(line) for line in told[self._read :].splitlines()]
        self._read = len(told)
        text = out.read_text()
        return Ended(
            answer["code"],
            json.loads(text) if text else None,
            [name for _, kind, name in lines if kind == "executed"],
            [name for _, kind, name in lines if kind == "told"],
            errors,
        )

    def entries(self) -> list[Any]:
        """The journal, verified."""
        if not self.database.exists():
            return []
        with closing(sqlite3.connect(self.database)) as connection:
            if not connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'segments'").fetchall():
                return []
        return [entry for _, entry in recorded_in(self.database)]

    def check(self) -> None:
        """The store is whole, and the entries are numbered without a gap."""
        found = checked(str(self.database))
        if found.problems:
            raise Violation(f"perdure store check: {found.problems}")
        numbers = [entry.n for entry in self.entries()]
        if numbers != list(range(1, len(numbers) + 1)):
            raise Violation(f"W1: the entries are numbered {numbers}")
        for blob in self.directory.glob(".perdure/blobs/sha256/*/*"):
            if hashlib.sha256(blob.read_bytes()).hexdigest() != blob.name:
                raise Violation(f"blob {blob.name} is not whole")


def counted(place: Place, mode: str = "first") -> Counter[str]:
    """How often each call is made by the thread of an undisturbed run that makes it most often."""
    log = place.directory / "calls"
    ended = place.run(mode, ["-e", f"trace={','.join(CALLS)}", "-o", str(log)])
    assert ended.answer is not None, ended.errors
    assert "value" in ended.answer, ended.answer
    by_thread: Counter[tuple[str, str]] = Counter()
    for line in log.read_text().splitlines():
        found = _LINE.match(line)
        if found is not None and "resumed" not in line:
            by_thread[found[1], found[2]] += 1
    most: Counter[str] = Counter()
    for (_, call), count in by_thread.items():
        most[call] = max(most[call], count)
    return most


LONGEST = 260_000
"""Bytes of the longest file of the small workflow, its write-ahead log, rounded up."""


def points(counts: Counter[str]) -> list[Fault]:
    """Every fault that the calls of an undisturbed process allow."""
    found = []
    for call, count in sorted(counts.items()):
        for number in range(1, count + 1):
            found.append(Fault(call, number, "kill"))
            for action in ("ENOSPC", "EIO"):
                found += [Fault(call, number, action), Fault(call, number, action, lasting=True)]
    found += [Fault("write", number, "EINTR") for number in range(1, counts["write"] + 1)]
    return found


def short_writes() -> list[Fault]:
    """Short writes at places all over the files of the small workflow, beyond the length of its outside log."""
    return [Fault("pwrite64", size, "short") for size in range(8_200, LONGEST, 2_741)]


def expected() -> list[str]:
    """The result of the small workflow."""
    hashes = [hashlib.sha256((HERE / "workflows" / name).read_bytes()).hexdigest() for name in ("small.py", "tree/a")]
    return ["a", "t0", "t1", "t2", "b", "child", *hashes, "z"]


def trial(hosts: Hosts, directory: Path, fault: Fault) -> str:
    """One process with that fault, and the same command again. How the first ended: killed, ended, or an error.

    Raises:
        Violation: a promise was not kept.
    """
    place = Place(hosts, directory)
    try:
        limit = {"LAB_LIMIT": str(fault.number)} if fault.action == "short" else {}
        first = place.run("first", fault.arguments(), **limit)
        how = _judge_first(first)
        place.entries()
        again = place.run("again")
        if again.answer != {"value": expected()}:
            raise Violation(f"the same command again ends with {again.answer}, code {again.code}\n{again.errors}")
        twice = set(first.told) & set(again.executed)
        if twice:
            raise Violation(f"P1: told of and executed again: {sorted(twice)}")
        place.check()
    except Violation as violation:
        raise Violation(f"{fault} in {directory}: {violation}") from None
    except Exception as error:
        raise Violation(f"{fault} in {directory}: {type(error).__name__}: {error}") from error
    shutil.rmtree(directory)
    return how


def _judge_first(first: Ended) -> str:
    if first.code == -9:
        return "killed"
    if first.answer is None:
        raise Violation(f"the faulty process ended with code {first.code} and no answer\n{first.errors}")
    if "value" in first.answer:
        if first.answer["value"] != expected():
            raise Violation(f"the faulty process has the wrong result {first.answer}")
        return "ended"
    if "PerdureError" not in first.answer["error"]:
        raise Violation(f"the faulty process ends with an error that is none of perdure's: {first.answer}")
    return str(first.answer["error"][0])

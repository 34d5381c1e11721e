"""The programs that perdure is compared with: where each lives, and which cases measure it.

A peer has an environment of its own under `.venvs`, so that what it needs never meets what perdure needs. One that is
not there leaves its cells empty, and the results say why; it is no failure.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from plan import Plan

PROJECT = Path(__file__).resolve().parent.parent
HOW = "`make bench` installs it where it can"


@dataclass(frozen=True)
class Peer:
    name: str
    package: str
    heading: str  # of its columns

    @property
    def python(self) -> Path:
        return PROJECT / ".venvs" / self.name / "bin" / "python"

    def absent(self) -> str | None:
        """Why it cannot be measured here, or None."""
        if not self.python.exists():
            return f"not installed ({HOW})"
        if self.name == "restate" and restate_server() is None:
            return f"its server is not installed ({HOW}; that takes npm)"
        return None

    def version(self) -> str:
        if self.absent() is not None:
            return "not installed"
        program = f"from importlib.metadata import version; print(version({self.package!r}))"
        done = subprocess.run([self.python, "-c", program], capture_output=True, text=True, check=False)
        version = done.stdout.strip() or "unknown"
        server = restate_server() if self.name == "restate" else None
        if server is None:
            return version
        done = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
        return f"{version} with {done.stdout.strip()}"


DBOS = Peer("dbos", "dbos", "dbos")
RESTATE = Peer("restate", "restate-sdk", "restate")
FLYTE = Peer("flyte", "flyte", "flyte, local (not durable)")
ABSURD = Peer("absurd", "absurd-sdk", "absurd")
PEERS = (DBOS, RESTATE, FLYTE, ABSURD)


def restate_server() -> Path | None:
    """The binary for this platform, which npm chose among the packages that the named one depends on."""
    packages = PROJECT / ".venvs" / "restate-server" / "node_modules" / "@restatedev"
    return next(packages.glob("restate-server-*/bin/restate-server"), None)


@dataclass(frozen=True)
class Case:
    """One measurement of a peer: the key of its figure, the script and its arguments."""

    peer: Peer
    key: str
    script: str
    arguments: tuple[object, ...]


def cases(work: str, plan: Plan) -> Iterator[Case]:
    """What stands beside perdure's own measurement of this work."""

    def dbos(key: str, script: str, count: int, *arguments: object) -> Case:
        return Case(DBOS, f"dbos_{key}", script, (*arguments, "--count", count))

    def restate(key: str, script: str, mode: str, count: int) -> Case:
        server = ("--server", restate_server() or "absent")
        return Case(RESTATE, f"restate_{key}", script, (*server, "--mode", mode, "--count", count))

    def flyte(key: str, script: str, count: int, *arguments: object) -> Case:
        return Case(FLYTE, f"flyte_{key}", script, (*arguments, "--count", count))

    if work == "sequential":
        for mode in ("sync", "async"):
            yield dbos(mode, "dbos_sequential.py", plan.dbos_sequential, "--mode", mode)
            yield dbos(f"{mode}_wal", "dbos_sequential.py", plan.dbos_sequential, "--wal", "--mode", mode)
        yield restate("async", "restate_steps.py", "sequential", plan.restate_sequential)
        for mode in ("sync", "async", "tasks"):
            yield flyte(mode, "flyte_calls.py", plan.flyte_sequential, "--mode", mode)
    elif work == "gathered":
        yield dbos("gathered", "dbos_gather.py", plan.dbos_gathered)
        yield restate("gathered", "restate_steps.py", "gathered", plan.restate_gathered)
        yield flyte("gathered", "flyte_calls.py", plan.flyte_gathered, "--mode", "gathered")
    elif work == "runs":
        yield dbos("runs", "dbos_empty.py", plan.dbos_runs, "--mode", "sequential")
        yield restate("runs", "restate_empty.py", "sequential", plan.restate_runs)
        yield flyte("runs", "flyte_empty.py", plan.flyte_runs)
    elif work == "runs_at_once":
        for mode in ("at-once", "at-once-threads"):
            yield dbos(mode, "dbos_empty.py", plan.dbos_at_once, "--mode", mode)
        yield restate("runs_at_once", "restate_empty.py", "at-once", plan.restate_at_once)
    elif work == "latency":
        server = ("--server", restate_server() or "absent")
        yield Case(RESTATE, "restate_latency", "restate_latency.py", (*server, "--count", plan.restate_latencies))

"""Runs the cases, each in a process of its own, and notes their figures."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

from peers import PEERS, PROJECT, Case
from plan import Plan
from timeline import Timeline

CASES = PROJECT / "benchmarks" / "cases"
PATIENCE = 900.0
"""Seconds for one case."""


def _run(command: Sequence[str], environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Like `subprocess.run`, but what the case started ends with it, however it ends."""
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        cwd=PROJECT,
        start_new_session=True,
    ) as process:
        try:
            output, errors = process.communicate(timeout=PATIENCE)
        finally:
            try:
                os.killpg(process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass  # nothing is left of it
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


class Runner:
    """One run of the benchmarks: the counts, a directory, and what was measured."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self.plan = plan
        self.directory = directory
        self.timeline = Timeline()
        self.timeline.absent |= {peer.name: why for peer in PEERS if (why := peer.absent()) is not None}
        if shutil.which("valgrind") is None:
            self.timeline.absent["valgrind"] = "not installed, so no instructions are counted"
        self._serial = 0

    def fresh(self) -> Path:
        self._serial += 1
        return self.directory / str(self._serial)

    def measure(self, key: str, script: str, *arguments: object, python: Path | None = None) -> None:
        """Run one case and note its figure; a case that fails is named in the table, and the rest goes on."""
        if key in self.timeline.failures:
            return
        where = self.fresh()
        command = [str(python or sys.executable), str(CASES / script), *map(str, arguments)]
        if script not in ("import_time.py", "raw_scan.py") and "--db" not in arguments:
            command += ["--dir", str(where)]
        environment = {
            name: value
            for name, value in os.environ.items()
            if not name.startswith(("PERDURE_", "DBOS_", "RESTATE_", "FLYTE_", "PYTHONDONTWRITE"))
        }
        print(f"  {key} ...", end="", file=sys.stderr, flush=True)
        try:
            done = _run(command, environment)
            if done.returncode != 0:
                lines = [line for line in done.stderr.splitlines() if line.strip()]
                reason = lines[-1] if lines else f"exit status {done.returncode}"
                self.timeline.failures[key] = reason.replace(f"{PROJECT}{os.sep}", "")
            else:
                answer = json.loads(done.stdout.strip().splitlines()[-1])
                self.timeline.taken.append((key, float(answer["figure"])))
                numbers = {name: float(value) for name, value in answer.items() if isinstance(value, (int, float))}
                self.timeline.extra.setdefault(key, []).append(numbers)
        except subprocess.TimeoutExpired:
            self.timeline.failures[key] = "took longer than 15 minutes"
        except (ValueError, KeyError, IndexError):
            self.timeline.failures[key] = "printed no figure"
        shutil.rmtree(where, ignore_errors=True)
        outcome = self.timeline.failures.get(key) or f"{self.timeline.taken[-1][1]:,.1f}"
        print(f" {outcome}", file=sys.stderr, flush=True)

    def measure_cases(self, *those: Case) -> None:
        for case in those:
            if case.peer.name not in self.timeline.absent:
                self.measure(case.key, case.script, *case.arguments, python=case.peer.python)

    def keep_the_better(self, key: str, *ways: str) -> None:
        """Of several ways to do the same, the latest figure of the fastest is the one that counts."""
        t = self.timeline
        latest = [figures[-1] for way in ways if way not in t.failures and (figures := t.figures(way))]
        if latest:
            t.taken.append((key, max(latest)))

    def note_parts(self, key: str, *names: str) -> None:
        """Note parts of the latest measurement as figures of their own: `start` and `start_p99` as `KEY_start`."""
        t = self.timeline
        if key in t.failures or key not in t.extra:
            return
        latest = t.extra[key][-1]
        for name in names:
            t.taken.append((f"{key}_{name}", latest[name]))
            t.extra.setdefault(f"{key}_{name}", []).append({"p99": latest[f"{name}_p99"]})

    @staticmethod
    def say(text: str) -> None:
        """Tell people how far the run is."""
        print(text, file=sys.stderr, flush=True)

"""`make demo`: a real workflow is killed with SIGKILL half-way, is started again, and carries on where it was.

Nothing here asks perdure how well it did. Each step of the example writes one line to a log of its own when it really
executes, so the count of that log's lines shows what ran, and their times show how long the sleep took. A promise that
is broken ends the demo with exit status 1.
"""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

PROJECT = Path(__file__).resolve().parent.parent
PERDURE = Path(sys.executable).with_name("perdure")
NAME = "stdlib"
FILES, BATCH, PAUSE = 200, 50, 4.0
KILL_AFTER = FILES // 2  # files: then the run sleeps between two batches
INTO_THE_SLEEP = 1.2  # seconds
PATIENCE = 120.0  # seconds that any part of the demo may take at most


@dataclass(frozen=True)
class Step:
    began: float
    ended: float
    pid: int
    name: str


def say(text: str = "") -> None:
    print(text, flush=True)


class Demo:
    def __init__(self, directory: Path) -> None:
        self.log = directory / "steps.log"
        self.output = directory / "output"
        self.messages = directory / "messages"
        self.report = directory / "report.txt"
        self.environment = {
            **os.environ,
            "PERDURE_STORE": f"sqlite:///{directory / 'perdure.db'}",
            "INDEX_LOG": str(self.log),
        }
        self.command = [
            *("perdure", "run", "examples/index_stdlib.py", "main", "--name", NAME),
            *("--limit", str(FILES), "--batch", str(BATCH), "--pause", f"{PAUSE:g}", "--report", str(self.report)),
        ]
        self.process: subprocess.Popen[bytes] | None = None

    def steps(self) -> list[Step]:
        if not self.log.exists():
            return []
        lines = [line.split(" ", 3) for line in self.log.read_text().splitlines()]
        return [Step(float(began), float(ended), int(pid), name) for began, ended, pid, name in lines]

    def files(self) -> int:
        return sum(step.name.startswith("file ") for step in self.steps())

    def fail(self, problem: str) -> NoReturn:
        say()
        say(f"BROKEN PROMISE: {problem}")
        if self.messages.exists() and (text := self.messages.read_text(errors="replace").strip()):
            say("The last lines that the run wrote:")
            say("\n".join(f"  | {line}" for line in text.splitlines()[-15:]))
        raise SystemExit(1)

    def perdure(self, *arguments: str) -> str:
        """A short perdure command: its stdout."""
        done = subprocess.run(
            [PERDURE, *arguments],
            cwd=PROJECT,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            check=False,
        )
        if done.returncode != 0:
            self.fail(
                f"`perdure {' '.join(arguments)}` ended with exit status {done.returncode}: {done.stderr.strip()}"
            )
        return done.stdout

    def status(self) -> str:
        runs: list[dict[str, Any]] = json.loads(self.perdure("ls", "--json"))
        return next((str(run["status"]) for run in runs if run["name"] == NAME), "absent")

    def start(self) -> subprocess.Popen[bytes]:
        say(f"$ {shlex.join(self.command)}")
        with self.output.open("wb") as output, self.messages.open("wb") as messages:
            self.process = subprocess.Popen(
                [PERDURE, *self.command[1:]],
                cwd=PROJECT,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=messages,
            )
        return self.process

    def watch(self, process: subprocess.Popen[bytes], until: int | None) -> None:
        """Report progress until so many files are indexed, or until the process ends."""
        deadline = time.monotonic() + PATIENCE
        reported = self.files() // BATCH
        while time.monotonic() < deadline:
            ended = process.poll() is not None
            files = self.files()
            if files // BATCH > reported:
                reported = files // BATCH
                say(f"  {files} of {FILES} files indexed" + ("" if files >= FILES else f", sleeping {PAUSE:g} s"))
            if ended:
                if until is not None:
                    self.fail(f"the run ended (exit status {process.returncode}) before it was killed")
                return
            if until is not None and files >= until:
                return
            time.sleep(0.02)
        self.fail(f"the run did not get on within {PATIENCE:g} s")

    def clean_up(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait()

    def play(self) -> None:
        say(f"1. Index {FILES} files of the standard library, {BATCH} at a time, {PAUSE:g} s of sleep in between.")
        process = self.start()
        self.watch(process, until=KILL_AFTER)
        time.sleep(INTO_THE_SLEEP)
        process.send_signal(signal.SIGKILL)
        process.wait()
        before = self.steps()
        asleep_since = max(step.ended for step in before)
        say(f"  kill -9 {process.pid}: dead, {time.time() - asleep_since:.1f} s into its sleep")

        say()
        say("2. What is left of it:")
        say("$ perdure ls")
        asked = time.monotonic()
        say(self.perdure("ls").rstrip())
        start_up = time.monotonic() - asked
        if (status := self.status()) != "INTERRUPTED":
            self.fail(f"the killed run is {status}, not INTERRUPTED")

        say()
        say("3. The same command again:")
        restarted = time.time()
        process = self.start()
        self.watch(process, until=None)
        finished = time.time()
        if process.returncode != 0:
            self.fail(f"the resumed run ended with exit status {process.returncode}")

        steps = self.steps()
        after = steps[len(before) :]
        if steps[: len(before)] != before:
            self.fail("the log of executed steps was rewritten")
        if twice := [name for name, count in Counter(step.name for step in steps).items() if count > 1]:
            self.fail(f"{len(twice)} steps were executed twice, {twice[0]!r} for one")
        if any(step.pid == process.pid for step in before) or any(step.pid != process.pid for step in after):
            self.fail("a step was executed by another process than the one that drove the run")
        if self.files() != FILES:
            self.fail(f"{self.files()} files were indexed, not {FILES}")
        if not self.report.exists():
            self.fail("there is no report")
        if (status := self.status()) != "SUCCEEDED":
            self.fail(f"the run is {status}, not SUCCEEDED")
        awake = min(step.began for step in after)
        if awake - asleep_since < PAUSE - 0.05:
            self.fail(f"the sleep of {PAUSE:g} s ended after {awake - asleep_since:.2f} s")
        # A sleep that had begun anew would take its whole time after the restart.
        if awake - restarted >= max(PAUSE, 2 * start_up + 1):
            self.fail(f"the sleep began anew: it ended {awake - restarted:.2f} s after the restart")

        result = self.output.read_bytes()
        say()
        say("4. And once more, now that it is finished: the recorded result, at once.")
        process = self.start()
        self.watch(process, until=None)
        if process.returncode != 0 or self.output.read_bytes() != result:
            self.fail("the finished run gave another result the second time")
        if self.steps() != steps:
            self.fail("the finished run executed something again")

        report = self.report.read_text(encoding="utf-8").splitlines()
        say()
        say("The report:")
        say("\n".join(f"  {line}" for line in report[:12]))
        if len(report) > 12:
            say(f"  ... and {len(report) - 12} lines more")
        say()
        say(f"Executed before the kill:   {len(before):4} steps")
        say(f"Replayed after the restart: {len(before):4} steps, none of them executed again")
        say(f"Executed after the restart: {len(after):4} steps")
        say(f"Executed in all:            {len(steps):4} steps, every one exactly once")
        say(
            f"The sleep of {PAUSE:g} s ended {awake - asleep_since:.2f} s after it began,"
            f" {awake - restarted:.2f} s after the restart: what had passed was not slept again."
        )
        say(f"From restart to result: {finished - restarted:.1f} s.")


def main() -> int:
    if not PERDURE.exists():
        say(f"There is no `perdure` beside {sys.executable}: run `make demo`, which installs it.")
        return 2
    with tempfile.TemporaryDirectory(prefix="perdure-demo-") as directory:
        demo = Demo(Path(directory).resolve())
        try:
            demo.play()
        finally:
            demo.clean_up()
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)

"""The `perdure` command in a directory of its own, for tests that meet it as people and scripts do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

from tests.waiting import PATIENCE, wait_for

WORKFLOWS = '''
import asyncio, os, threading
from dataclasses import dataclass
import perdure
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="etl")

def log(word):
    fd = os.open("log", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.write(fd, f"{word}\\n".encode())
    os.close(fd)

@dataclass
class Item:
    id: int
    tags: list[str]

@perdure.trace
def step(n: int) -> int:
    log(f"step{n}")
    return n * n

@env.task
def add(a: int, b: int = 2) -> int:
    """Add two numbers.

    A second paragraph.
    """
    print("adding", a, b)
    return a + b

@env.task
def echo(item: Item) -> Item:
    return item

@env.task
def text() -> str:
    return "plain text"

@env.task
def nothing() -> None:
    step(1)

def helper():
    raise ValueError("the file is\\nnot there")

@env.task
def fails() -> int:
    step(1)
    return helper()

@env.task
def fixable() -> int:
    step(1)
    if not os.path.exists("fixed"):
        raise RuntimeError("not fixed yet")
    return step(2)

@env.task
async def child(n: int) -> int:
    x = await step.aio(n)
    await durable_sleep.aio(0.3 if n == 2 else 0.01)
    if n == 2 and not os.path.exists("fixed"):
        raise RuntimeError("no two yet")
    y = await step.aio(n + 100)
    return x + y

@env.task
async def tree(n: int = 3) -> list[int]:
    t = await durable_time.aio()
    try:
        await child(2) if n < 0 else None
    except RuntimeError:
        pass
    with perdure.group("all"):
        return list(await asyncio.gather(*(child(i) for i in range(n))))

@env.task(retries=1)
def flaky() -> int:
    if step(7) and perdure.ctx().attempt == 1:
        raise OSError("first time")
    return 7

@env.task
def slow(s: float = 60) -> str:
    step(1)
    durable_sleep(s)
    step(2)
    return "woke"

@env.task
def blocked() -> int:
    step(1)
    threading.Event().wait()
    return 1

@env.task
async def stubborn() -> int:
    step.aio  # keep the loop free
    await step.aio(1)
    while True:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            pass
'''


class Shell:
    """A directory with a workflow file and a store, and the command to run in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
        self.write("wf.py", WORKFLOWS)

    def write(self, name: str, text: str) -> None:
        """Write a file. A file that is written again gets a later time, even within the same second: Python takes a
        compiled module for current whose source has the same size and second."""
        path = self.path / name
        before = path.stat().st_mtime if path.exists() else None
        path.write_text(textwrap.dedent(text))
        if before is not None:
            later = max(before + 1.0, path.stat().st_mtime)
            os.utime(path, (later, later))

    def __call__(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "perdure", *args], cwd=self.path, env=self.env | env, capture_output=True, text=True,
            timeout=PATIENCE, check=False,
        )  # fmt: skip

    def json(self, *args: str) -> Any:
        done = self(*args, "--json")
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def start(self, *args: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "perdure", *args], cwd=self.path, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def log(self) -> list[str]:
        file = self.path / "log"
        return file.read_text().split() if file.exists() else []

    def until_logged(self, word: str) -> None:
        wait_for(lambda: word in self.log(), story=lambda: f"{word} is not in {self.log()}")

    def until_it_sleeps(self, name: str) -> None:
        """Wait until the run has a recorded deadline that it waits for."""
        wait_for(lambda: any(node["kind"] == "sleep" for node in self.json("show", name)["actions"]))

    def until_status(self, name: str, status: str) -> None:
        wait_for(
            lambda: any(run["name"] == name and run["status"] == status for run in self.json("ls")),
            story=lambda: self("ls").stdout,
        )


def last(text: str) -> str:
    return text.splitlines()[-1]

"""Workers that park and wake many runs are killed at any moment, just before and after a park or a waking above all.

- P1 what was on disk when a worker died is not executed again by the next worker;
- P2 what is executed again was being executed by a process that was killed: to be parked and woken executes nothing;
- P7 every sleep ends once, and not before its time.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from tests.journals import recorded
from tests.stores import store_url

import perdure
from perdure import runtime
from perdure.api.loading import find_task
from perdure.core.ground.model import Kind, Result, Status

WORKER = """
import asyncio, os, random, sys, time
import perdure
from perdure import runtime
from perdure.core.process.serving import Server
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment("wf")
log = os.open(os.environ["LAB_LOG"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)

@perdure.trace
def mark(run: int, step: str) -> None:
    os.write(log, b"%d %d %d %s\\n" % (os.getpid(), time.time_ns() // 1000, run, step.encode()))

@env.task
def child(run: int, seconds: float) -> None:
    mark(run, "child begins")
    durable_sleep(seconds)
    mark(run, "child ends")

@env.task
async def main(run: int, first: float, second: float) -> int:
    await mark.aio(run, "begins")
    await asyncio.gather(durable_sleep.aio(first), child.aio(run, second))
    await mark.aio(run, "in between")
    try:
        await durable_sleep.aio(second)
    finally:
        await asyncio.sleep(0.001)  # a plain timer while the run unwinds
    await mark.aio(run, "ends")
    return run

if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    store = runtime.worker().store
    plain = store.commit, store.take_due

    def commit(writes):
        parks = any(getattr(write, "park", None) for write in writes)
        if parks:
            time.sleep(random.choice([0, 0, 0.01]))
        answers = plain[0](writes)
        if parks:
            time.sleep(random.choice([0, 0, 0.01]))
        return answers

    def take_due(tasks, claims):
        taken = plain[1](tasks, claims)
        if taken:
            time.sleep(random.choice([0, 0, 0.02]))
        return taken

    store.commit, store.take_due = commit, take_due
    print("ready", flush=True)
    Server(runtime.worker(), {task.name: task.spec for task in (main, child)}, park_after=0.05).serve()
"""
RUNS = 200
WORKERS = 3
KILLS = 8
STEPS = {"begins", "child begins", "child ends", "in between", "ends"}


class Workers:
    """Processes that serve. None outlives the test."""

    def __init__(self, file: Path, url: str) -> None:
        self._command = [sys.executable, str(file), url]
        self.live: list[subprocess.Popen[str]] = []
        self.killed: set[int] = set()

    def start(self) -> None:
        self.live.append(subprocess.Popen(self._command, stdout=subprocess.PIPE, text=True))

    def wait_ready(self, worker: subprocess.Popen[str]) -> None:
        assert worker.stdout is not None
        assert worker.stdout.readline() == "ready\n"

    def kill(self, worker: subprocess.Popen[str]) -> None:
        assert worker.poll() is None, "a worker ended by itself"
        worker.kill()
        worker.communicate()
        self.live.remove(worker)
        self.killed.add(worker.pid)


@pytest.mark.slow
def test_no_run_is_lost_or_repeated_when_workers_die_while_runs_park_and_wake(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file, database, log = place / "wf.py", place / "store.db", place / "log"
    file.write_text(WORKER)
    monkeypatch.setenv("LAB_LOG", str(log))
    url = store_url() or str(database)
    perdure.init(store=url)
    dice = random.Random(11)
    task = find_task(str(file), "main")
    lengths = [(dice.uniform(0.2, 1.5), dice.uniform(0.2, 1.5)) for _ in range(RUNS)]
    runs = [perdure.submit(task, number, *pair) for number, pair in enumerate(lengths)]
    workers = Workers(file, url)
    try:
        for _ in range(WORKERS):
            workers.start()
        while len(workers.killed) < KILLS:
            victim = workers.live[0]
            workers.wait_ready(victim)
            time.sleep(dice.uniform(0.0, 0.3))
            workers.kill(victim)
            workers.start()
        for run in runs:
            run.wait(40)
        killed = set(workers.killed)
    finally:
        for worker in list(workers.live):
            workers.kill(worker)
    executed: dict[tuple[int, str], list[tuple[int, int]]] = defaultdict(list)
    for line in log.read_text().splitlines():
        pid, at, number, step = line.split(" ", 3)
        executed[int(number), step].append((int(at), int(pid)))
    store = runtime.worker().store
    # The wall clock may be slewed between two readings, and what each process has read of a server's is wrong by half a
    # round trip at most, which takes as long as a busy machine makes it.
    slack = 200_000 if store_url() else 1_000
    again = 0
    for number, (run, (first, second)) in enumerate(zip(runs, lengths, strict=True)):
        assert run.status == Status.SUCCEEDED
        assert run.result == number
        entries = recorded(store, run.row)
        assert {entry.result for entry in entries} == {Result.VALUE}
        assert Counter(entry.kind for entry in entries) == {Kind.TRACE: 5, Kind.SLEEP: 3, Kind.TASK: 1}
        times = [executed[number, step] for step in STEPS]
        for attempts in times:
            pids = [pid for _, pid in attempts]
            assert len(set(pids)) == len(pids), "a process executed a step twice"
            assert killed.issuperset(pids[:-1]), "a step was executed again, though no worker had died"
            again += len(pids) - 1
        # What is recorded is the last execution of each: after that there was none.
        last = sorted(max(attempts)[0] for attempts in times)
        for at, entry in zip(last, sorted(e.at for e in entries if e.kind == Kind.TRACE), strict=True):
            assert -slack <= at - entry < 2_000_000 + slack
        slept = sorted(entry.took for entry in entries if entry.kind == Kind.SLEEP)
        for took, seconds in zip(slept, sorted((first, second, second)), strict=True):
            assert took >= seconds * 1e6 - max(slack, 20_000)
    print(f"{len(killed)} workers killed, {again} steps executed again")
    perdure.init()

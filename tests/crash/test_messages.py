"""Workers and senders are killed at any moment; every message that a sender had confirmed is received once (P12).

Each run receives the numbers from 0 on, and each sender repeats what it may have sent before it died, under the same
keys. Workers park runs that wait, so messages meet runs in memory, on their way out, parked, and without a driver.
"""

from __future__ import annotations

import random
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.stores import store_url
from tests.waiting import wait_for

import perdure
from perdure import runtime
from perdure.api.loading import find_task
from perdure.core.ground.model import Status

SCRIPT = """
import random, sys, time
import perdure
from perdure import runtime
from perdure.core.process.serving import Server

env = perdure.TaskEnvironment("wf")

@env.task
async def main(count: int) -> list[int]:
    got = []
    while len(got) < count:
        got.append(await perdure.receive.aio("box", int))
    go = await perdure.new_condition("go", data_type=int).wait.aio()
    return [*got, go]

def slowed(plain):
    def call(*args):
        time.sleep(random.choice([0, 0, 0.01]))
        answer = plain(*args)
        time.sleep(random.choice([0, 0, 0.01]))
        return answer
    return call

if __name__ == "__main__":
    perdure.init(store=sys.argv[2])
    store = runtime.worker().store
    store.send, store.commit = slowed(store.send), slowed(store.commit)
    print("ready", flush=True)
    if sys.argv[1] == "serve":
        Server(runtime.worker(), {main.name: main.spec}, park_after=0.05).serve()
    count, names = int(sys.argv[3]), sys.argv[4:]
    for number in range(count):
        for name in names:
            perdure.Run.get(name).send("box", number, key=str(number))
    for name in names:
        perdure.Run.get(name).signal("go", 99)
    print("sent", flush=True)
"""
RUNS = 6
COUNT = 12
KILLS = 10


@pytest.mark.slow
def test_every_confirmed_message_is_received_once_over_kills_of_workers_and_senders(
    place: Path,
) -> None:
    """P12, MS1, MS2, MS4."""
    file = place / "wf.py"
    file.write_text(SCRIPT)
    url = store_url() or str(place / "store.db")
    perdure.init(store=url)
    dice = random.Random(12)
    task = find_task(str(file), "main")
    names = [f"r{number}" for number in range(RUNS)]
    runs = [perdure.with_runcontext(name=name).submit(task, COUNT) for name in names]

    def start(role: str) -> subprocess.Popen[str]:
        words = [] if role == "serve" else [str(COUNT), *names]
        return subprocess.Popen(
            [sys.executable, str(file), role, url, *words], stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL
        )

    live = {"serve": start("serve"), "send": start("send")}
    kills = {"serve": 0, "send": 0}
    try:
        while sum(kills.values()) < KILLS:
            role = dice.choice(["serve", "send"])
            victim = live[role]
            assert victim.stdout is not None
            assert victim.stdout.readline() == "ready\n"
            time.sleep(dice.uniform(0.0, 0.4))
            victim.kill()
            victim.communicate()
            kills[role] += 1
            live[role] = start(role)
        wait_for(lambda: live["send"].poll() is not None)
        assert live["send"].returncode == 0
        for run in runs:
            run.wait(100)
    finally:
        for process in live.values():
            process.kill()
            process.communicate()
    store = runtime.worker().store
    for run in runs:
        assert run.status == Status.SUCCEEDED
        assert run.result == [*range(COUNT), 99]
        assert all(message.taken is not None for message in store.all_messages(run.row.id))
    perdure.init()

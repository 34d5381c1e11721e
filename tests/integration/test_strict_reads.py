"""`PERDURE_STRICT=1`: a body that reads more than recorded outcomes is warned about, once, at its line."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import asyncio, datetime, logging, os, pathlib, random, secrets, time, uuid
from time import time as clock
import perdure

env = perdure.TaskEnvironment("strict")

def helper():
    return time.time()  # clock

@perdure.trace
def traced():
    open(__file__).close()
    return [time.time(), random.random(), str(uuid.uuid4()), os.urandom(1)]

@perdure.trace
async def traced_too():
    await asyncio.to_thread(time.time)
    return [time.time(), random.random(), pathlib.Path(__file__).read_text()]

def quiet():
    import wave, colorsys
    logging.getLogger("x").warning("told")
    random.Random(1).random()
    time.time()  # perdure: ignore[clock]

@env.task
def sync_body() -> None:
    quiet()
    traced()
    perdure.durable.time()
    perdure.durable.random()
    perdure.durable.uuid4()
    helper()
    clock()  # clock
    datetime.datetime.now()  # clock
    random.randint(1, 6)  # random
    uuid.uuid4()  # uuid
    os.urandom(1)  # random
    secrets.token_hex(1)  # random
    pathlib.Path(__file__).read_text()  # io

@env.task
async def async_body() -> None:
    quiet()
    await traced_too()
    await perdure.durable.time.aio()
    await perdure.durable.uuid4.aio()
    await asyncio.sleep(0.001)
    helper()
    for _ in range(2):
        random.choice([1, 2])  # random
    open(__file__).close()  # io
    await asyncio.to_thread(in_thread)

def in_thread():
    time.monotonic()  # clock

perdure.init(store="memory://")
time.time(), random.random(), open(__file__).close()
perdure.run(sync_body)
perdure.run(async_body)
"""


def _warned(folder: Path, *options: str, strict: str = "1") -> list[tuple[int, str]]:
    file = folder / "program.py"
    file.write_text(PROGRAM)
    done = subprocess.run(
        [sys.executable, *options, str(file)],
        cwd=folder,
        env={**os.environ, "PERDURE_STRICT": strict},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    found = []
    for line in done.stderr.splitlines():
        place, _, rest = line.partition("program.py:")
        if place and ". Instead: " in rest:
            number, text = rest.split(":", 1)
            found.append((int(number), text.removeprefix(" PerdureWarning:").strip().partition(":")[0]))
    assert "the check failed" not in done.stderr
    return sorted(found)


EXPECTED = [
    (number, line.rpartition("  # ")[2])
    for number, line in enumerate(PROGRAM.splitlines(), 1)
    if line.rpartition("  # ")[2] in ("clock", "random", "uuid", "io")
]


def test_each_read_of_a_body_is_warned_about_once_at_its_line(tmp_path: Path) -> None:
    assert _warned(tmp_path) == EXPECTED


def test_a_filter_that_raises_changes_nothing_in_the_body(tmp_path: Path) -> None:
    assert _warned(tmp_path, "-W", "error::UserWarning") == EXPECTED


def test_without_the_variable_nothing_is_watched(tmp_path: Path) -> None:
    assert _warned(tmp_path, strict="") == []

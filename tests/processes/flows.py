"""Tasks for the tests of `executor="process"`: loaded by the test and by the pool's children, like a user's module."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from typing import Any

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time

far = perdure.TaskEnvironment(name="far", executor="process")
near = perdure.TaskEnvironment(name="near")
dressed = perdure.TaskEnvironment(name="dressed", executor="process", env_vars={"DRESS": "blue"})


def mark(path: str, text: str) -> None:
    """A line outside of perdure, that says which process wrote it."""
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.write(fd, f"{os.getpid()} {text}\n".encode())
    os.close(fd)


def marks(path: str) -> list[list[str]]:
    """What has been written so far, as pid and text."""
    try:
        with open(path) as stream:
            return [line.split(" ", 1) for line in stream.read().splitlines()]
    except FileNotFoundError:
        return []


@perdure.trace
def note(path: str, text: str) -> int:
    mark(path, text)
    return os.getpid()


@perdure.trace
async def anote(path: str, text: str, seconds: float = 0.0) -> str:
    mark(path, text)
    await asyncio.sleep(seconds)
    return text


# -- values and failures ---------------------------------------------------------------------------------------


@dataclasses.dataclass
class Point:
    x: int
    y: float | None = None


class OwnError(Exception):
    """With an attribute and a constructor of its own."""

    def __init__(self, code: int, *, hint: str) -> None:
        super().__init__(f"code {code}")
        self.code = code
        self.hint = hint


class OwnFinalError(perdure.errors.NonRecoverableError):
    """Nothing to be tried again."""


@far.task
async def leaves_a_thread(seconds: float) -> int:
    asyncio.get_running_loop().run_in_executor(None, time.sleep, seconds)
    return os.getpid()


@far.task
def pid() -> int:
    return os.getpid()


@far.task
async def apid() -> int:
    return os.getpid()


@far.task
def echo(value: Any) -> Any:
    return value


@far.task
def point(given: Point) -> Point:
    return Point(given.x + 1, given.y)


@far.task
def big(data: bytes) -> bytes:
    return bytes(reversed(data))


@far.task
def raises(kind: str) -> int:
    if kind == "own":
        raise OwnError(7, hint="left") from KeyError("cause")
    if kind == "group":
        raise ExceptionGroup("several", [ValueError(1), OwnError(2, hint="right")])
    if kind == "exit":
        sys.exit(4)
    if kind == "cancelled":
        raise asyncio.CancelledError
    raise ValueError(kind)


@far.task
def misfit() -> int:
    return "text"  # type: ignore[return-value]


@far.task(retries=3)
def final(path: str) -> None:
    mark(path, "final")
    raise OwnFinalError("no")


def kill_this_process(how: str) -> None:
    """A child's end that no Python code can catch."""
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(3)
    elif how == "kill":
        os.kill(os.getpid(), signal.SIGKILL)


@far.task
def dies(how: str) -> int:
    kill_this_process(how)
    return 0


@far.task
def dies_before_its_fork() -> None:
    if os.fork() == 0:
        signal.alarm(10)
        signal.pause()
    os._exit(1)


@far.task(retries=2)
def dies_twice(path: str, how: str) -> str:
    first = note(path, "once")
    mark(path, "attempt")
    if sum(text == "attempt" for _, text in marks(path)) < 3:
        kill_this_process(how)
    return f"{first != os.getpid()} {perdure.ctx().attempt}"  # type: ignore[union-attr]


@near.task
def near_dies(how: str) -> str:
    try:
        dies(how)
    except perdure.errors.BodyDiedError as error:
        return f"{error.task} {error.attempt} {error.exit_code} {error.signal}"
    return "lived"


# -- time ------------------------------------------------------------------------------------------------------


@far.task(timeout=0.5)
def too_long(path: str) -> None:
    mark(path, "begun")
    while True:
        pass


@far.task(timeout=0.7, retries=1)
async def too_long_at_first(path: str) -> str:
    await anote(path, "kept")
    mark(path, "attempt")
    if sum(text == "attempt" for _, text in marks(path)) < 2:
        threading.Event().wait()
    return "done"


@far.task
def naps(seconds: float) -> float:
    before = durable_time()
    durable_sleep(seconds)
    return durable_time() - before


@near.task
def nap_many(count: int, seconds: float) -> list[float]:
    return list(perdure.map(naps, [seconds] * count))


@far.task
def hangs(path: str) -> None:
    mark(path, "hangs")
    threading.Event().wait()


async def until_marked(path: str) -> None:
    while not marks(path):
        await asyncio.sleep(0.02)  # no event tells of another process's mark


@near.task
async def cancelled_by_timeout(path: str) -> str:
    hanging = asyncio.create_task(hangs.aio(path))
    await until_marked(path)
    try:
        async with asyncio.timeout(0.2):
            await hanging
    except TimeoutError:
        return "late"
    return "never"


@far.task
async def far_cancelled_by_timeout(path: str) -> str:
    hanging = asyncio.create_task(hangs.aio(path))
    await until_marked(path)
    try:
        async with durable.timeout(0.2):
            await hanging
    except TimeoutError:
        return "late"
    return "never"


@near.task
async def cancelled_by_group(path: str) -> str:
    async def fails() -> None:
        await until_marked(path)
        raise ValueError("enough")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(hangs.aio(path))
            group.create_task(fails())
    except* ValueError:
        pass
    return "group ended"


# -- many ------------------------------------------------------------------------------------------------------


@far.task
def burn(seconds: float) -> int:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass
    return os.getpid()


@near.task
def burn_many(count: int, seconds: float) -> list[int]:
    return list(perdure.map(burn, [seconds] * count))


@near.task
async def burn_many_async(count: int, seconds: float) -> list[int]:
    return [found async for found in perdure.map.aio(burn, [seconds] * count)]


@near.task
async def gather_many(count: int) -> list[int]:
    return list(await asyncio.gather(*(echo.aio(number) for number in range(count))))


@far.task
async def deep(depth: int) -> list[int]:
    return [os.getpid()] if depth == 0 else [*await deep(depth - 1), os.getpid()]


@far.task
def deep_sync(depth: int) -> list[int]:
    return [os.getpid()] if depth == 0 else [*deep_sync(depth - 1), os.getpid()]


@near.task
def near_child(n: int) -> list[int]:
    return [n, os.getpid()]


@far.task
async def everything(path: str) -> list[Any]:
    """Each kind of durable call, from a child."""
    with perdure.group("all"):
        found: list[Any] = [await anote(path, "first"), await near_child.aio(1)]
    found.append([number async for number in counted(path, 3)])
    before = await durable_time.aio()
    await durable_sleep.aio(0.01)
    found.append(await durable_time.aio() >= before + 0.01)
    found.append(str(await durable.uuid4.aio()))
    found.append(await durable.random.aio())
    found.append((await durable.now.aio()).isoformat())
    found.append([each async for each in perdure.map.aio(echo, ["a", "b"])])
    context = perdure.ctx()
    assert context is not None
    found.append([context.run_name, context.task, context.action, context.attempt])
    return found


@perdure.trace
async def counted(path: str, count: int) -> Any:
    for number in range(count):
        mark(path, f"yields {number}")
        yield number


@near.task
async def tells_everything(path: str) -> list[Any]:
    return await everything(path)


# -- surroundings ----------------------------------------------------------------------------------------------


@dressed.task
def dress() -> str:
    return os.environ["DRESS"]


@near.task
async def dresses() -> list[str | None]:
    return [await dress.aio(), os.environ.get("DRESS"), await undressed.aio()]


@far.task
def undressed() -> str | None:
    return os.environ.get("DRESS")


@far.task
def prints(text: str) -> None:
    print(text)
    print("unfinished", end="")


@far.task
def looks_at_runs() -> str:
    return str(list(perdure.runs()))


@far.task
def keeps(text: str) -> perdure.io.File:
    with open("kept.txt", "w") as stream:
        stream.write(text)
    return perdure.io.File.from_local("kept.txt")


@far.task
def reads(file: perdure.io.File) -> str:
    with file.open("r") as stream:
        return str(stream.read())


@near.task
def passes_files(text: str) -> str:
    return reads(keeps(text))


# -- crashes ---------------------------------------------------------------------------------------------------


@far.task
def steps(path: str, count: int, pause: float) -> list[int]:
    found = []
    for number in range(count):
        note(path, f"step {number}")
        time.sleep(pause)
        found.append(number)
    return found


@near.task
async def two_lines(path: str, pause: float) -> list[list[int]]:
    return list(await asyncio.gather(steps.aio(path + ".a", 6, pause), steps.aio(path + ".b", 6, pause)))


@far.task
def by_luck(path: str) -> str:
    """Asks for another step in each process, though its source is the same."""
    note(path, f"luck {os.getpid()}")
    mark(path, "asked")
    threading.Event().wait()
    return "never"


@near.task
async def calls_by_luck(path: str) -> None:
    """Calls a task in its first process only."""
    if not marks(path):
        await hangs.aio(path)
    await near_child.aio(1)


@far.task
async def far_calls_by_luck(path: str) -> None:
    """The same in a child."""
    if not marks(path):
        await hangs.aio(path)
    await near_child.aio(1)


@near.task
def late_luck(path: str) -> None:
    """Asks, after a while that nothing records, for another step in each process. The second one takes longer than
    the replay of what is done beside it."""
    time.sleep(4.0 if marks(path) else 0.3)
    note(path, f"luck {os.getpid()}")
    threading.Event().wait()


@far.task
def far_late_luck(path: str) -> None:
    time.sleep(4.0 if marks(path) else 0.3)
    note(path, f"luck {os.getpid()}")
    threading.Event().wait()


@near.task
def near_steps(path: str, count: int, pause: float) -> None:
    for number in range(count):
        note(path, f"step {number}")
        time.sleep(pause)


@near.task
async def beside_late_luck(path: str, luck: str, line: str) -> None:
    lucky = {"near": late_luck, "far": far_late_luck}[luck]
    stepping: Any = {"near": near_steps, "far": steps}[line]
    # Near ones cost little, and are closed one after the other: there is time for one of them to go astray.
    beside = 20 if line == "near" else 1
    await asyncio.gather(lucky.aio(path), *(stepping.aio(path + ".steps", 200, 0.05) for _ in range(beside)))


@far.task
def holds_the_interpreter(path: str) -> None:
    mark(path, "holds")
    ctypes.PyDLL(None).sleep(60)


# -- programs that a body starts -------------------------------------------------------------------------------


def start_program(path: str) -> None:
    """A program that runs for long, with a child of its own; each writes its number."""
    script = f"sleep 1000 & echo $! program >> {path}; echo $$ program >> {path}; wait"
    subprocess.Popen(["/bin/sh", "-c", script])
    while len(marks(path)) < 2:
        time.sleep(0.01)


@far.task(timeout=20.0)
def starts_a_program(path: str, then: str, seconds: float = 1000.0) -> int:
    """Leaves the program running, and ends as `then` says."""
    start_program(path)
    if then == "exit":
        os._exit(3)
    elif then == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    elif then == "wait":
        time.sleep(seconds)
    return os.getpid()


hasty_program = starts_a_program.override(timeout=4.0)


@far.task
def handles_signals(how: str) -> str:
    """Wants to handle a signal, as programs do in their main thread."""
    if how == "signal":
        signal.signal(signal.SIGALRM, lambda *_: None)
    elif how == "set_wakeup_fd":
        signal.set_wakeup_fd(-1)
    else:
        asyncio.run(add_a_handler())
    return "handled"


async def add_a_handler() -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGALRM, lambda: None)


@far.task
async def awaits_a_program(path: str) -> int:
    """Waits for the program on the event loop."""
    script = f"echo $$ program >> {path}; echo $$ program >> {path}; exec sleep 1000"
    program = await asyncio.create_subprocess_exec("/bin/sh", "-c", script)
    return await program.wait()


@near.task
async def gives_up_a_program(path: str) -> str:
    """Cancels the body when its program runs."""
    body = asyncio.ensure_future(awaits_a_program.aio(path))
    while len(marks(path)) < 2:
        await asyncio.sleep(0.01)
    body.cancel()
    await asyncio.wait([body])
    return "cancelled"


if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    _task = globals()[sys.argv[2]]
    _run = perdure.with_runcontext(name="r").run(_task, *(eval(text) for text in sys.argv[3:]))
    print(repr(_run.result))


# -- messages --------------------------------------------------------------------------------------------------


@far.task(retries=2)
async def receives(count: int, log: str) -> list[Any]:
    condition = perdure.new_condition("go", data_type=Point, timeout=100)
    go, first = await asyncio.gather(condition.wait.aio(), perdure.receive.aio("box", int))
    await anote(log, "going")
    found = [await perdure.receive.aio("box", int) for _ in range(count - 1)]
    try:
        await perdure.receive.aio("box", int, timeout=0.01)
    except perdure.errors.MessageTimedoutError:
        found.append("late")
    return [go.x, first, *found]


@far.task
def receives_in_a_thread(count: int) -> list[int]:
    return [perdure.receive("box", int) for _ in range(count)]


@far.task
async def receives_where_cancelled() -> list[Any]:
    found: list[Any] = []
    for _ in range(4):
        try:
            found.append(await asyncio.wait_for(perdure.receive.aio("box", int), 0.02))
        except TimeoutError:
            found.append("late")
    while len([one for one in found if one != "late"]) < 3:
        found.append(await perdure.receive.aio("box", int))
    return [one for one in found if one != "late"]


@far.task
async def talks_to_itself() -> list[int]:
    own = perdure.Run.get("r")
    for number in range(2):
        await own.send.aio("box", number)
    own.send("box", 2)
    return [await perdure.receive.aio("box", int) for _ in range(3)]


@near.task
async def receives_here_and_there() -> list[list[int]]:
    return list(await asyncio.gather(receives_in_a_thread.aio(2), receives_in_a_thread.aio(2)))

"""Tasks for the tests of `executor="ray"`: a user's file, run as a script or imported."""

from __future__ import annotations

import asyncio
import ctypes
import dataclasses
import importlib.util
import os
import socket
import sys
import threading
import time
from typing import Any

import beside

import perdure
from perdure import durable
from perdure.extras import durable_sleep, durable_time

far = perdure.TaskEnvironment(name="far", executor="ray", env_vars={"DRESS": "blue"})
broad = perdure.TaskEnvironment(name="broad", executor="ray", resources=perdure.Resources(cpu=3, memory="10Mi"))
narrow = perdure.TaskEnvironment(name="narrow", executor="ray", resources=perdure.Resources(cpu="100m"))
nowhere = perdure.TaskEnvironment(name="nowhere", executor="ray", resources=perdure.Resources(cpu=64, gpu=8))
special = perdure.TaskEnvironment(name="special", executor="ray", resources=perdure.Resources(cpu="10m", gpu=1))
fragile = perdure.TaskEnvironment(name="fragile", executor="ray", resources=perdure.Resources(cpu=5))
near = perdure.TaskEnvironment(name="near")
child = perdure.TaskEnvironment(name="child", executor="process")


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


# -- values and failures -----------------------------------------------------------------------------------------------


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


@far.task
def where() -> dict[str, Any]:
    import shutil

    return {
        "pid": os.getpid(), "node": os.environ["NODE"], "dress": os.environ["DRESS"], "word": beside.WORD,
        "beside": beside.__file__, "cwd": os.getcwd(), "which": shutil.which("python") is not None,
    }  # fmt: skip


@far.task
async def point(given: Point) -> Point:
    return Point(given.x + 1, given.y)


@far.task
def raises() -> int:
    raise OwnError(7, hint="left") from KeyError("cause")


@broad.task
def broad_node() -> str:
    return os.environ["NODE"]


@nowhere.task
def never() -> None: ...


@special.task
def on_special_node() -> None: ...


@far.task
def prints(text: str) -> str:
    print(text)
    return text


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


# -- ends --------------------------------------------------------------------------------------------------------------


@far.task(retries=2)
def dies_twice(path: str, how: str) -> str:
    first = note(path, "once")
    mark(path, "attempt")
    if sum(text == "attempt" for _, text in marks(path)) < 3:
        if how == "exit":
            os._exit(3)
        ctypes.string_at(0)
    return f"{first != os.getpid()} {perdure.ctx().attempt}"  # type: ignore[union-attr]


@far.task
def dies(code: int) -> None:
    os._exit(code)


@far.task(timeout=0.5)
def too_long(path: str) -> None:
    mark(path, "begun")
    ctypes.PyDLL(None).sleep(60)  # never lets go of the interpreter


@narrow.task
def hangs(path: str) -> None:
    mark(path, "hangs")
    threading.Event().wait()


@near.task
async def cancelled_by_timeout(path: str) -> str:
    async def begun() -> None:
        while not marks(path):
            await asyncio.sleep(0.01)
        raise ValueError("enough")

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(hangs.aio(path))
            group.create_task(begun())
    except* ValueError:
        pass
    return "cancelled"


@near.task
async def cancelled_in_the_queue() -> str:
    try:
        async with asyncio.timeout(6):
            await never.aio()
    except TimeoutError:
        return "late"
    return "never"


# -- all kinds of calls ------------------------------------------------------------------------------------------------


@near.task
def near_child(number: int) -> list[int]:
    return [number, os.getpid()]


@child.task
def child_pid() -> int:
    return os.getpid()


@narrow.task
def echo(value: Any) -> Any:
    return value


@narrow.task
async def everything(path: str) -> dict[str, Any]:
    found: dict[str, Any] = {"note": note(path, "first"), "near": await near_child.aio(1), "child": child_pid()}
    before = await durable_time.aio()
    await durable_sleep.aio(0.05)
    found["slept"] = await durable_time.aio() >= before + 0.05
    found["uuid"] = str(await durable.uuid4.aio())
    with perdure.group("all"):
        found["map"] = [each async for each in perdure.map.aio(echo, ["a", "b"])]
    context = perdure.ctx()
    assert context is not None
    found["context"] = [context.run_name, context.task, context.attempt]
    found["pid"] = os.getpid()
    return found


@near.task
async def tells_everything(path: str) -> dict[str, Any]:
    return await everything(path)


@far.task
def double(number: int) -> int:
    return 2 * number


@near.task
def maps(count: int) -> list[int]:
    return list(perdure.map(double, range(count)))


@near.task
def one_after_the_other(count: int) -> list[int]:
    found = []
    for number in range(count):
        found.append(double(number))
        time.sleep(0.5)  # so that the node is taken away between two calls
    return found


@far.task
def calls_a_task_of(path: str, module: str) -> int:
    """A task with `executor="process"` in a file that only this node has loaded."""
    spec = importlib.util.spec_from_file_location(module, path)
    assert spec is not None
    assert spec.loader is not None
    loaded = sys.modules[module] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    found: int = loaded.ends_well()
    return found


# -- crashes -----------------------------------------------------------------------------------------------------------


@narrow.task
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


@fragile.task
def until_told(path: str) -> list[Any]:
    """On the one node that will be killed, and then on another."""
    first = note(path, "once")
    mark(path, f"attempt on {os.environ['NODE']}")
    if len(marks(path)) < 3:
        threading.Event().wait()
    return [first == os.getpid(), os.environ["NODE"], perdure.ctx().attempt]  # type: ignore[union-attr]


@far.task
def cuts_its_connection_once(path: str) -> int:
    """As a network does that breaks."""
    note(path, "once")
    mark(path, "attempt")
    if len(marks(path)) < 3:
        for name in os.listdir("/proc/self/fd"):
            try:
                socket.socket(fileno=os.dup(int(name))).shutdown(socket.SHUT_RDWR)
            except OSError:
                pass  # no socket
        threading.Event().wait()
    return perdure.ctx().attempt  # type: ignore[union-attr]


# -- messages ----------------------------------------------------------------------------------------------------------


@perdure.trace
async def says(words: list[str]) -> int:
    """Publishes and streams from inside a trace."""
    perdure.publish("spoken", len(words))
    async with perdure.stream("trace", str) as out:
        for word in words:
            await out.write.aio(word)
    return len(words)


@far.task(retries=1)
async def talks(path: str) -> list[int]:
    """Waits for a condition, publishes, streams, sends and receives."""
    condition = await perdure.new_condition.aio("go", data_type=Point)
    go = await condition.wait.aio()
    note(path, "went")
    await perdure.publish.aio("progress", 0.5)
    async with perdure.stream("body", int) as out:
        for number in range(2):
            await out.write.aio(number)
    said = await says(["one", "two"])
    await perdure.Run.get("r").send.aio("box", 1)
    own = await perdure.receive.aio("box", int)
    note(path, "sent")
    return [go.x, said, own, await perdure.receive.aio("box", int)]


@narrow.task
async def awaits_for_ever(path: str) -> None:
    note(path, "awaits")
    await perdure.receive.aio("never")


@near.task
async def cleans_up_after_a_node(path: str) -> None:
    try:
        await awaits_for_ever.aio(path)
    finally:
        note(path, "cleaned")


if __name__ == "__main__":
    perdure.init(store=sys.argv[1])
    _task = globals()[sys.argv[2]]
    _run = perdure.with_runcontext(name="r").run(_task, *(eval(text) for text in sys.argv[3:]))
    print(repr(_run.result))

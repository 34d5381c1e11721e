"""Programs of `tests/crash/test_random_programs.py`: a seed makes a tree of nodes, and the tree is the body of a task.

Each choice of a program is made from the seed before the run. How long a trace or a plain sleep takes is random in each
execution, so races are won by another side each time, unless the journal decides. `see` logs what a body observes.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import signal
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import perdure
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="programs")

KILLED_AT_THE_END = 7
SCALE = 0.004
"""Seconds: the longest trace, and the length about which the timeouts lie."""


# -- the outside log -----------------------------------------------------------------------------------------------


class Outside:
    """The log of one life, and the moment at which the life is killed."""

    fd = -1
    lines = 0
    kill_at = -1
    ends = False
    """The process ends when the body has recorded its last step."""


def log(kind: str, body: str, line: str, what: str) -> None:
    """One line; `line` is the thread of control that orders the lines: the body's loop, or a thread of the body."""
    Outside.lines += 1
    if Outside.lines == Outside.kill_at:
        os.kill(os.getpid(), signal.SIGKILL)
    os.write(Outside.fd, json.dumps([kind, body, line, what]).encode() + b"\n")


def see(body: str, what: str, line: str = "") -> None:
    """What a body observes."""
    log("see", body, line, what)


class Broken(Exception):
    """The failure of a trace."""


@perdure.trace
async def step(name: str, body: str, seconds: float, fail: bool, cleanup: float) -> str:
    """An async trace; `cleanup`: seconds that the trace takes to leave when cancelled, negative if it then returns."""
    log("begin", body, "", name)
    try:
        await asyncio.sleep(random.random() * seconds)
    except asyncio.CancelledError:
        if cleanup:
            await asyncio.sleep(random.random() * abs(cleanup))
        if cleanup >= 0:
            log("end", body, "", name)
            raise
    log("end", body, "", name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace
def sync_step(name: str, body: str, seconds: float, fail: bool) -> str:
    """A sync trace."""
    log("begin", body, "", name)
    time.sleep(random.random() * seconds)
    log("end", body, "", name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace
async def items(name: str, body: str, count: int, seconds: float) -> Any:
    """A traced generator. After a crash the generator runs again; the recorded items replace its first items."""
    for number in range(count):
        await asyncio.sleep(random.random() * seconds)
        log("end", body, "", f"{name}.{number}")
        yield f"{name}.{number}"


# -- programs ------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    kind: str
    amount: float = 0.0
    choice: int = 0
    kids: list[Node] = field(default_factory=list)
    number: int = 0

    def show(self, depth: int = 0) -> str:
        """The program, for people."""
        text = f"{'  ' * depth}{self.kind} {self.amount:.4f} {self.choice}\n"
        return text + "".join(kid.show(depth + 1) for kid in self.kids)


NODES: list[Node] = []
"""The program of this process, by the numbers of its nodes: a coroutine's argument has to be encodable."""

LEAVES = [
    "step",
    "step",
    "step",
    "step",
    "fail",
    "cleanup",
    "sync",
    "thread",
    "thread",
    "nap",
    "spin",
    "later",
    "dsleep",
    "time",
    "items",
    "snipe",
    "child",
    "sync_child",
]
INNER = [
    "seq",
    "seq",
    "gather",
    "gather",
    "group",
    "group",
    "first",
    "wait",
    "completed",
    "timeout",
    "wait_for",
    "dtimeout",
    "cancel",
    "cancel",
    "swallow",
    "finally",
    "shield",
    "retry",
    "event",
    "queue",
    "lock",
    "attempt",
]
KIDS = {"timeout": 1, "wait_for": 1, "dtimeout": 1, "swallow": 1, "shield": 1, "retry": 1, "attempt": 1}
KIDS |= {"cancel": 2, "finally": 2}


def generate(rng: random.Random, depth: int) -> Node:
    """A random program."""
    kind = rng.choice(LEAVES) if depth == 0 or rng.random() < 0.2 else rng.choice(INNER)
    node = Node(kind, rng.choice([0.0, 0.1, 0.5, 1.0, 1.0, 2.0]) * SCALE, rng.randrange(1000))
    if kind in INNER:
        node.kids = [generate(rng, depth - 1) for _ in range(KIDS.get(kind) or rng.randint(2, 4))]
    elif kind == "child":
        node.kids = [generate(rng, min(depth, 2))]
    return node


FOUND = {
    "a cancelled job that its thread had not begun was not begun on replay, although its calls were recorded": """
first 0.0080 995
  thread 0.0004 132
  sync 0.0040 494
""",
    "the row of a sleep took events along that belong behind those of an earlier row": """
completed 0.0040 667
  step 0.0020 423
  gather 0.0000 326
    sync 0.0000 767
    later 0.0000 669
    spin 0.0004 525
  seq 0.0020 537
    nap 0.0040 403
    dsleep 0.0004 703
    step 0.0000 373
    step 0.0000 152
""",
    "the end of a job stood ahead of the outcome that the thread of the job waited for": """
wait 0.0000 724
  thread 0.0040 237
  group 0.0040 747
    group 0.0000 265
      thread 0.0080 747
      step 0.0040 43
    queue 0.0040 334
      fail 0.0080 652
      sync_child 0.0004 393
      sync 0.0000 232
  thread 0.0004 554
  attempt 0.0040 427
    sync 0.0000 956
""",
    "the members of a failing group were cancelled in the order of a set of addresses": """
group 0.0040 1
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  nap 0.0800 0
  spin 0.0000 3
  fail 0.0040 0
""",
}
"""Shrunken programs that once went wrong, and how; as `Node.show` writes a program."""


def parse(text: str) -> Node:
    """The reverse of `Node.show`."""
    path: list[Node] = []
    for line in text.strip("\n").splitlines():
        kind, amount, choice = line.split()
        node = Node(kind, float(amount), int(choice))
        del path[(len(line) - len(line.lstrip())) // 2 :]
        if path:
            path[-1].kids.append(node)
        path.append(node)
    return path[0]


def program(seed: int) -> Node:
    """The program of a seed; a negative seed: one that was found."""
    if seed < 0:
        return parse(list(FOUND.values())[-1 - seed])
    rng = random.Random(seed)
    return Node("seq", kids=[generate(rng, rng.randint(1, 4)) for _ in range(rng.randint(1, 3))])


def install(root: Node) -> None:
    """Number the nodes of the program of this process."""
    NODES.clear()
    stack = [root]
    while stack:
        node = stack.pop()
        node.number = len(NODES)
        NODES.append(node)
        stack += node.kids


# -- execution -----------------------------------------------------------------------------------------------------


async def run(path: str, number: int, body: str) -> str:
    """Execute a node; `path` names the execution, `body` is the path of the task that it belongs to."""
    node = NODES[number]
    return await HOW[node.kind](path, node, body)


def kids(path: str, node: Node, body: str) -> list[Any]:
    """A coroutine for each kid."""
    return [run(f"{path}{place}", kid.number, body) for place, kid in enumerate(node.kids)]


SPAWNED: dict[str, list[asyncio.Task[str]]] = {}
"""The tasks of each body, in the order in which they were made: for a node that cancels a task anywhere in the tree."""


def tasks(path: str, node: Node, body: str) -> list[asyncio.Task[str]]:
    found = [asyncio.create_task(kid) for kid in kids(path, node, body)]
    SPAWNED.setdefault(body, []).extend(found)
    return found


def name_of(error: BaseException) -> str:
    if isinstance(error, BaseExceptionGroup):
        return "[" + " ".join(name_of(inner) for inner in error.exceptions) + "]"
    return f"{type(error).__name__}({error})" if isinstance(error, Broken) else type(error).__name__


async def seen(path: str, body: str, work: Awaitable[Any]) -> str:
    """Await and log how it ends."""
    try:
        value = str(await work)
    except BaseException as error:
        if not isinstance(error, (perdure.errors.RunStopped, GeneratorExit)):
            see(body, f"{path} {name_of(error)}")
        raise
    see(body, f"{path} {value}")
    return value


async def settle(path: str, body: str, works: list[asyncio.Task[str]]) -> str:
    """Wait for all tasks; how they ended."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    text = " ".join(name_of(value) if isinstance(value, BaseException) else "ok" for value in ended)
    see(body, f"{path} all {text}")
    return text


async def do_step(path: str, node: Node, body: str) -> str:
    return await seen(path, body, step(path, body, node.amount, False, 0.0))


async def do_fail(path: str, node: Node, body: str) -> str:
    return await seen(path, body, step(path, body, node.amount, True, 0.0))


async def do_cleanup(path: str, node: Node, body: str) -> str:
    return await seen(path, body, step(path, body, 4 * node.amount, False, (node.choice % 3 - 1) * SCALE))


async def do_sync(path: str, node: Node, body: str) -> str:
    value = sync_step(path, body, node.amount / 4, False)
    see(body, f"{path} {value}")
    return value


def in_thread(path: str, number: int, body: str) -> str:
    """What a thread does."""
    node = NODES[number]
    rng = random.Random(node.choice)
    for place in range(rng.randrange(4)):
        what = rng.choice(["step", "step", "step", "nap", "time", "fail", "child", "dsleep"])
        name = f"{path}t{place}"
        if what == "nap":
            time.sleep(random.random() * node.amount)
        elif what == "time":
            durable_time()
        elif what == "dsleep":
            durable_sleep(node.amount)
        elif what == "child":
            see(body, sync_child(name, node.amount), path)
        else:
            see(body, sync_step(name, body, node.amount, what == "fail" and rng.random() < 0.5), path)
    time.sleep(random.random() * node.amount)
    return path


async def do_thread(path: str, node: Node, body: str) -> str:
    return await seen(path, body, asyncio.to_thread(in_thread, path, node.number, body))


async def do_nap(path: str, node: Node, body: str) -> str:
    return await seen(path, body, asyncio.sleep(random.random() * node.amount))


async def do_spin(path: str, node: Node, body: str) -> str:
    for _ in range(node.choice % 5):
        await asyncio.sleep(0)
    see(body, path)
    return path


async def do_later(path: str, node: Node, body: str) -> str:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(random.random() * node.amount, event.set)
    return await seen(path, body, event.wait())


async def do_dsleep(path: str, node: Node, body: str) -> str:
    return await seen(path, body, durable_sleep.aio(node.amount))


async def do_time(path: str, node: Node, body: str) -> str:
    return await seen(path, body, durable_time.aio())


async def do_snipe(path: str, node: Node, body: str) -> str:
    """Cancel some task of the body: a sibling, an ancestor, the task itself, or a task that has not begun."""
    await seen(path, body, step(path, body, node.amount, False, 0.0))
    left = [task for task in SPAWNED.get(body, ()) if not task.done()]
    if left:
        see(body, f"{path} snipes {node.choice % len(left)} {left[node.choice % len(left)].cancel()}")
    return path


async def do_items(path: str, node: Node, body: str) -> str:
    count = node.choice % 4 + 1
    generator = items(path, body, count, node.amount)
    taken = 0
    try:
        async for item in generator:
            see(body, item)
            taken += 1
            if taken > node.choice // 4 % 5:
                break
    finally:
        if node.choice % 2:
            await generator.aclose()
    return path


async def do_child(path: str, node: Node, body: str) -> str:
    return await seen(path, body, child(f"{path}c", node.kids[0].number))


async def do_sync_child(path: str, node: Node, body: str) -> str:
    return await seen(path, body, sync_child.aio(f"{path}c", node.amount))


async def do_seq(path: str, node: Node, body: str) -> str:
    for kid in kids(path, node, body):
        try:
            await kid
        except (Broken, TimeoutError, ExceptionGroup) as error:
            see(body, f"{path} goes on after {name_of(error)}")
    return path


async def do_gather(path: str, node: Node, body: str) -> str:
    if node.choice % 2:
        return await settle(path, body, tasks(path, node, body))
    return await seen(path, body, asyncio.gather(*kids(path, node, body)))


async def do_group(path: str, node: Node, body: str) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            for kid in kids(path, node, body):
                group.create_task(kid)
    except ExceptionGroup as error:
        see(body, f"{path} {name_of(error)}")
        if node.choice % 2:
            raise
    return path


async def _wait(path: str, node: Node, body: str, **how: Any) -> str:
    works = tasks(path, node, body)
    try:
        done, _ = await asyncio.wait(works, **how)
        see(body, f"{path} {''.join('x' if work in done else '.' for work in works)}")
    finally:
        if node.choice % 2:
            for work in works:
                work.cancel()
        await settle(path, body, works)
    return path


async def do_first(path: str, node: Node, body: str) -> str:
    return await _wait(path, node, body, return_when=asyncio.FIRST_COMPLETED)


async def do_wait(path: str, node: Node, body: str) -> str:
    return await _wait(path, node, body, timeout=node.amount, return_when=asyncio.FIRST_EXCEPTION)


async def do_completed(path: str, node: Node, body: str) -> str:
    works = tasks(path, node, body)
    timeout = node.amount if node.choice % 3 == 0 else None
    for place, ended in enumerate(asyncio.as_completed(works, timeout=timeout)):
        try:
            see(body, f"{path} {place} {await ended}")
        except (Broken, TimeoutError, ExceptionGroup) as error:
            see(body, f"{path} {place} {name_of(error)}")
    return await settle(path, body, works)


async def do_timeout(path: str, node: Node, body: str) -> str:
    try:
        async with asyncio.timeout(node.amount):
            await kids(path, node, body)[0]
        found = "in time"
    except TimeoutError:
        found = "late"
    see(body, f"{path} {found}")
    return found


async def do_wait_for(path: str, node: Node, body: str) -> str:
    try:
        await asyncio.wait_for(kids(path, node, body)[0], node.amount)
        found = "in time"
    except TimeoutError:
        found = "late"
    see(body, f"{path} {found}")
    return found


async def do_dtimeout(path: str, node: Node, body: str) -> str:
    try:
        async with perdure.durable.timeout(node.amount):
            await kids(path, node, body)[0]
        found = "in time"
    except TimeoutError:
        found = "late"
    see(body, f"{path} {found}")
    return found


async def do_cancel(path: str, node: Node, body: str) -> str:
    victim, killer = kids(path, node, body)
    work = asyncio.create_task(victim)
    try:
        await killer
    except (Broken, TimeoutError, ExceptionGroup):
        pass
    finally:
        see(body, f"{path} cancels {work.cancel()}")
    return await settle(path, body, [work])


async def do_swallow(path: str, node: Node, body: str) -> str:
    try:
        return await kids(path, node, body)[0]
    except asyncio.CancelledError:
        see(body, f"{path} swallows")
        return path


async def do_finally(path: str, node: Node, body: str) -> str:
    first, second = kids(path, node, body)
    try:
        return await first
    finally:
        see(body, f"{path} finally")
        await second


async def do_shield(path: str, node: Node, body: str) -> str:
    work = asyncio.create_task(kids(path, node, body)[0])
    try:
        return await asyncio.shield(work)
    except asyncio.CancelledError:
        see(body, f"{path} shielded")
        await settle(path, body, [work])
        raise


async def do_retry(path: str, node: Node, body: str) -> str:
    for turn in range(3):
        try:
            return await run(f"{path}r{turn}", node.kids[0].number, body)
        except (Broken, ExceptionGroup, TimeoutError) as error:
            see(body, f"{path} try {turn} {name_of(error)}")
    return path


async def do_attempt(path: str, node: Node, body: str) -> str:
    try:
        return await kids(path, node, body)[0]
    except (Broken, ExceptionGroup) as error:
        see(body, f"{path} {name_of(error)}")
        return path


async def do_event(path: str, node: Node, body: str) -> str:
    event = asyncio.Event()

    async def one(work: Any, place: int) -> None:
        if place:
            await event.wait()
        await work

    works = [asyncio.create_task(one(k, n)) for n, k in enumerate(kids(path, node, body))]
    works[0].add_done_callback(lambda _: event.set())
    return await settle(path, body, works)


async def do_queue(path: str, node: Node, body: str) -> str:
    queue: asyncio.Queue[int] = asyncio.Queue()

    async def produce(work: Any, place: int) -> None:
        try:
            await work
        finally:
            await queue.put(place)

    works = [asyncio.create_task(produce(k, n)) for n, k in enumerate(kids(path, node, body))]
    try:
        for _ in works:
            see(body, f"{path} gets {await asyncio.wait_for(queue.get(), node.amount or SCALE)}")
    except TimeoutError:
        see(body, f"{path} gets no more")
    finally:
        for work in works:
            work.cancel()
        await settle(path, body, works)
    return path


async def do_lock(path: str, node: Node, body: str) -> str:
    lock = asyncio.Lock()

    async def one(work: Any, place: int) -> None:
        async with lock:
            see(body, f"{path} {place} enters")
            await work

    return await settle(path, body, [asyncio.create_task(one(k, n)) for n, k in enumerate(kids(path, node, body))])


HOW: dict[str, Callable[[str, Node, str], Any]] = {
    name[3:]: value for name, value in globals().items() if name.startswith("do_")
}


@env.task
async def child(path: str, number: int) -> str:
    """A child task whose body is a part of the program."""
    try:
        return await run(path, number, path)
    finally:
        see(path, "leaves")


@env.task
def sync_child(path: str, seconds: float) -> str:
    """A sync child task."""
    see(path, sync_step(f"{path}a", path, seconds, False))
    see(path, sync_step(f"{path}b", path, seconds, False))
    return path


@env.task
async def root() -> str:
    """The whole program; the last step is recorded before the process ends."""
    try:
        found = await run("", 0, "root")
    except (Broken, ExceptionGroup, TimeoutError, asyncio.CancelledError) as error:
        found = name_of(error)
    see("root", f"found {found}")
    await step("last", "root", 0.0, False, 0.0)
    if Outside.ends:
        os._exit(KILLED_AT_THE_END)
    return found


def live(tree: Node, store: str, log_file: str, kill_at: int, ends: bool) -> str:
    """One life of a program in this process."""
    install(tree)
    Outside.fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    Outside.kill_at, Outside.ends = kill_at, ends
    perdure.init(store=store)
    found: str = perdure.with_runcontext(name="r").run(root).result
    return found

"""Random programs: a seed makes a tree of nodes, and the tree is the body of a task.

`generate` makes a program, `source` prints a program as Python, `smaller` gives simpler programs for shrinking. `root`
is the perdure task that executes the program of the installed `World`. Each choice of a program is made from its seed.
How long a step or a plain sleep takes is up to the world, so races are won by another side in each life, unless the
journal decides. Every node logs when its coroutine begins and how the coroutine ends; `oracle.judge` reads these logs.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sqlite3
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import sqlalchemy

import perdure
from perdure.api.run import Run
from perdure.core.body.scope import SCOPE, THREAD, TraceScope
from perdure.extras import durable_sleep, durable_time

env = perdure.TaskEnvironment(name="torture")
apart = perdure.TaskEnvironment(name="apart", executor="process")

SCALE = 0.004
"""Seconds: the longest step, and the length about which the timeouts lie."""


# -- programs ------------------------------------------------------------------------------------------------------


@dataclass
class Node:
    """One operation of a program. `amount`: seconds, `choice`: from which the node's other choices are taken."""

    kind: str
    amount: float = 0.0
    choice: int = 0
    kids: list[Node] = field(default_factory=list)
    number: int = 0

    def show(self, depth: int = 0) -> str:
        """The program as text that `parse` reads."""
        text = f"{'  ' * depth}{self.kind} {self.amount:.4f} {self.choice}\n"
        return text + "".join(kid.show(depth + 1) for kid in self.kids)

    def walk(self) -> Iterator[Node]:
        """This node and all below, parents first."""
        yield self
        for kid in self.kids:
            yield from kid.walk()


LEAVES = {
    "step": 4,
    "fail": 1,
    "cleanup": 1,
    "sync": 1,
    "thread": 2,
    "nap": 1,
    "spin": 1,
    "later": 1,
    "dsleep": 1,
    "time": 1,
    "random": 1,
    "items": 1,
    "sync_items": 1,
    "snipe": 1,
    "join": 1,
    "sync_child": 1,
    "flaky": 1,
    "sync_flaky": 1,
    "exhausted": 1,
    "map": 1,
    "cached": 1,
    "leave": 1,
    "stray": 1,
}
"""Kinds without kids, and how often `generate` takes each."""
INNER = {
    "seq": 3,
    "gather": 2,
    "group": 2,
    "first": 1,
    "wait": 1,
    "completed": 1,
    "winner": 1,
    "timeout": 1,
    "wait_for": 1,
    "dtimeout": 1,
    "cancel": 2,
    "swallow": 1,
    "finally": 1,
    "shield": 1,
    "retry": 1,
    "chain": 1,
    "event": 1,
    "queue": 1,
    "lock": 1,
    "attempt": 1,
    "spawn": 1,
    "child": 1,
}
"""Kinds with kids. Besides, `generate` puts a "process" into some programs, as processes take long to start."""
MESSAGES = {
    "receive": 4,
    "receive_in_thread": 2,
    "ask": 2,
    "post": 3,
    "answer": 1,
    "publish": 2,
    "stream": 1,
    "stream_step": 1,
}
"""Kinds without kids that exchange something with the outside (`exchange`). They need a sender beside the run, so
`generate` takes them only if asked to."""
RESOURCES = {"limited": 3, "holding": 2, "limited_child": 2, "effect": 2}
"""Kinds without kids that need a slot of a limit, or that write to a database of the user. `generate` takes them only
if asked to."""
KIDS = {
    "timeout": 1,
    "wait_for": 1,
    "dtimeout": 1,
    "swallow": 1,
    "shield": 1,
    "retry": 1,
    "attempt": 1,
    "chain": 1,
    "spawn": 1,
    "child": 1,
    "process": 1,
    "cancel": 2,
    "finally": 2,
    "winner": 3,
}
"""How many kids a node of that kind has; other inner nodes have one or more."""


def generate(
    seed: int, size: int = 4, *, processes: bool = False, messages: bool = False, resources: bool = False
) -> Node:
    """The program of a seed; `size` is the depth of its tree at most. A negative seed: one of `FOUND`. `processes`: a
    part of the program is a body in a process of its own. `messages`, `resources`: with nodes of these kinds."""
    if seed < 0:
        return parse(list(FOUND.values())[-1 - seed])
    rng = random.Random(seed)
    leaves = {**LEAVES, **(MESSAGES if messages else {}), **(RESOURCES if resources else {})}
    parts = [_random_node(rng, rng.randint(1, size), leaves) for _ in range(rng.randint(1, 3))]
    if processes:
        # A body in a process of its own takes no slots.
        below = {kind: weight for kind, weight in leaves.items() if kind not in RESOURCES}
        other = Node("process", kids=[_random_node(rng, 2, below)])
        parts.append(Node(rng.choice(("seq", "gather")), 0.0, 1, [other, parts.pop()]))
    return Node("seq", kids=parts)


def _random_node(rng: random.Random, depth: int, leaves: dict[str, int]) -> Node:
    table = leaves if depth == 0 or rng.random() < 0.2 else INNER
    kind = rng.choices(list(table), list(table.values()))[0]
    node = Node(kind, rng.choice([0.0, 0.1, 0.5, 1.0, 1.0, 2.0]) * SCALE, rng.randrange(1000))
    if kind in INNER:
        below = min(depth, 3) if kind == "child" else depth
        node.kids = [_random_node(rng, below - 1, leaves) for _ in range(KIDS.get(kind) or rng.randint(2, 4))]
    return node


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


def count(tree: Node) -> int:
    """How many nodes a program has."""
    return sum(1 for _ in tree.walk())


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


# -- shrinking -----------------------------------------------------------------------------------------------------


def smaller(tree: Node) -> list[Node]:
    """Programs with one node less or one subtree less, or with a simpler node at one place."""
    found: list[Node] = list(tree.kids)
    if tree.kind not in ("step", "seq"):
        found.append(Node("step", tree.amount, 0))
    for place, kid in enumerate(tree.kids):
        if tree.kind not in KIDS and len(tree.kids) > 1:
            found.append(Node(tree.kind, tree.amount, tree.choice, tree.kids[:place] + tree.kids[place + 1 :]))
        for other in smaller(kid):
            found.append(
                Node(tree.kind, tree.amount, tree.choice, [*tree.kids[:place], other, *tree.kids[place + 1 :]])
            )
    return found


def shrink(tree: Node, fails: Callable[[Node], bool], until: float = float("inf")) -> Node:
    """The smallest program found for which `fails` holds; `until`: when to stop, on the monotonic clock."""
    while True:
        for other in sorted(smaller(tree), key=count):
            if time.monotonic() > until:
                return tree
            if other.show() != tree.show() and fails(other):
                tree = other
                break
        else:
            return tree


# -- the world of a program ----------------------------------------------------------------------------------------


class Line(NamedTuple):
    """One line of the log of a life.

    `kind`: "drive", the root body begins; "begin" and "end" of the function of a step; "enter" and "leave" of a node's
    coroutine; "told", a durable call has answered; "holds" and "frees" a slot of the limit; "see", another observation
    of the body. `body`: the task that the line belongs to. `thread`: the line of control that orders the lines, "" for
    the body's loop. `name`: the step or the path of the node. `at`: seconds since boot.
    """

    kind: str
    body: str
    thread: str
    name: str
    what: str
    at: float


class World:
    """What surrounds the execution of one program in one life: the log, the time that work takes, the end."""

    def __init__(self, program: Node) -> None:
        """Number the nodes: the argument of a coroutine has to be encodable, so coroutines are given numbers."""
        self.nodes = list(program.walk())
        for number, node in enumerate(self.nodes):
            node.number = number
        self.spawned: dict[str, list[asyncio.Task[str]]] = {}
        """The tasks of each body, in the order in which the tasks were made."""
        self.apart: dict[str, list[asyncio.Task[str]]] = {}
        """The tasks of each body that other nodes may join."""

    def write(self, line: Line) -> None:
        """Append to the log of this life. Lines of several threads arrive in an order of their own."""
        raise NotImplementedError

    def now(self) -> float:
        """Seconds since boot."""
        return time.clock_gettime(time.CLOCK_BOOTTIME)

    def seconds(self, most: float) -> float:
        """How long a piece of work takes."""
        return random.random() * most

    def pause(self, seconds: float) -> None:
        """Let a thread sleep."""
        time.sleep(seconds)

    def target(self, choice: int) -> perdure.Run:
        """The run to which a program sends: its own."""
        return Run(driver().run)

    def recorded_all(self) -> None:
        """Called by the root body behind its last durable call."""


class LoggingWorld(World):
    """A world whose log is a file."""

    def __init__(self, program: Node, log_file: str) -> None:
        super().__init__(program)
        self._fd = os.open(log_file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)

    def write(self, line: Line) -> None:
        # What a body sees while perdure unwinds it is no observation: the run is parked, or another process has it.
        if line.kind in ("begin", "end") or (here := driver()) is None or not here.stopping:
            os.write(self._fd, encode(line))


def driver() -> Any:
    """The driver of the body whose code runs now."""
    scope: Any = SCOPE.get()
    if isinstance(scope, TraceScope):
        scope = scope.body
    if scope is None and THREAD.slot is not None:
        scope = THREAD.slot.branch.body
    return None if scope is None else scope.driver


_worlds: list[World] = []


def install(world: World) -> None:
    """From here on, this process executes the program of that world."""
    _worlds[:] = [world]


def world() -> World:
    """The world of this process. A process of `executor="process"` finds its world in the environment."""
    if not _worlds:
        install(LoggingWorld(parse(os.environ["TORTURE_PROGRAM"]), os.environ["TORTURE_LOG"]))
    return _worlds[0]


def log(kind: str, body: str, name: str, what: str = "", thread: str = "") -> None:
    """Write one line."""
    here = world()
    here.write(Line(kind, body, thread, name, what, here.now()))


def encode(line: Line) -> bytes:
    """A line as bytes of a file."""
    return json.dumps(line).encode() + b"\n"


def decode(text: str) -> list[Line]:
    """The lines of a file."""
    return [Line(*json.loads(line)) for line in text.splitlines()]


# -- what a program calls ------------------------------------------------------------------------------------------


class Broken(Exception):
    """The failure of a step."""


CAUGHT = (Broken, TimeoutError, ExceptionGroup)
"""What nodes catch that go on after a failure."""


@perdure.trace
async def step(name: str, body: str, seconds: float, fail: bool, cleanup: float) -> str:
    """An async step; `cleanup`: seconds that the step takes to leave when cancelled, negative if it then returns."""
    log("begin", body, name)
    try:
        await asyncio.sleep(world().seconds(seconds))
    except asyncio.CancelledError:
        if cleanup:
            await asyncio.sleep(world().seconds(abs(cleanup)))
        if cleanup >= 0:
            log("end", body, name, "cancelled")
            raise
    log("end", body, name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace
def sync_step(name: str, body: str, seconds: float, fail: bool) -> str:
    """A sync step."""
    log("begin", body, name)
    world().pause(world().seconds(seconds))
    log("end", body, name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace(ignore=("fail",))
async def flaky_step(name: str, body: str, fail: bool) -> str:
    """A step that fails in some attempts of its task."""
    log("begin", body, name)
    log("end", body, name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace(ignore=("fail",))
def sync_flaky_step(name: str, body: str, fail: bool) -> str:
    """The same, sync."""
    log("begin", body, name)
    log("end", body, name)
    if fail:
        raise Broken(name)
    return name


@perdure.trace
async def stray_step(name: str, body: str, seconds: float) -> str:
    """A step that ends in a cancellation of its own."""
    log("begin", body, name)
    await asyncio.sleep(world().seconds(seconds))
    log("end", body, name)
    inner = asyncio.ensure_future(asyncio.sleep(60))
    inner.cancel()
    await inner
    return name


@perdure.trace
async def items(name: str, body: str, many: int, seconds: float) -> Any:
    """A traced generator. After a crash the generator runs again; the recorded items replace its first items."""
    for number in range(many):
        await asyncio.sleep(world().seconds(seconds))
        log("end", body, f"{name}.{number}", "item")
        yield f"{name}.{number}"


@perdure.trace
def sync_items(name: str, body: str, many: int, seconds: float) -> Any:
    """The same, sync."""
    for number in range(many):
        world().pause(world().seconds(seconds))
        log("end", body, f"{name}.{number}", "item")
        yield f"{name}.{number}"


@perdure.trace
async def stream_step(name: str, body: str, values: list[str], seconds: float) -> str:
    """A step that writes a stream."""
    log("begin", body, name)
    async with perdure.stream(name, str) as out:
        for value in values:
            await asyncio.sleep(world().seconds(seconds))
            await out.write.aio(value)
    log("end", body, name)
    return name


SLOTS = perdure.Limit("torture", concurrency=2)


@contextlib.contextmanager
def holding(name: str, body: str) -> Iterator[None]:
    """Log that a slot is held meanwhile."""
    log("holds", body, name)
    try:
        yield
    finally:
        log("frees", body, name)


@perdure.trace(limit=SLOTS)
async def limited_step(name: str, body: str, seconds: float) -> str:
    """A step under the limit."""
    log("begin", body, name)
    with holding(name, body):
        await asyncio.sleep(world().seconds(seconds))
    log("end", body, name)
    return name


@perdure.trace
async def holding_step(name: str, body: str, seconds: float) -> str:
    """A step that holds a slot of the limit for a part of its time."""
    log("begin", body, name)
    async with SLOTS.hold.aio():
        with holding(name, body):
            await asyncio.sleep(world().seconds(seconds))
    log("end", body, name)
    return name


DATABASE_VARIABLE = "TORTURE_DATABASE"
"""The environment variable with the path of the user's database."""


def _connect() -> sqlite3.Connection:
    connection = sqlite3.connect(os.environ[DATABASE_VARIABLE], timeout=30.0)
    connection.execute("PRAGMA synchronous = OFF")  # no history cuts the power
    return connection


@perdure.transaction(sqlalchemy.create_engine("sqlite://", creator=_connect, poolclass=sqlalchemy.NullPool))
def effect(connection: sqlalchemy.Connection, name: str, body: str, seconds: float) -> str:
    """A step whose effect is a row in the user's database."""
    log("begin", body, name)
    connection.execute(sqlalchemy.text("INSERT INTO effects VALUES (:name)"), {"name": name})
    world().pause(world().seconds(seconds))
    log("end", body, name)
    return name


def box_name(node: Node) -> str:
    """The mailbox of a node that sends or receives."""
    return f"box{node.choice % 2}"


def condition_name(node: Node) -> str:
    """The condition of a node that signals or waits."""
    return f"fact{node.choice % 2}"


def condition_value(name: str) -> str:
    """The value of a condition."""
    return f"the value of {name}"


def has_limit(node: Node) -> bool:
    """Whether a wait of the program has a time limit."""
    return node.choice % 5 == 4


def limit(node: Node) -> float | None:
    """The time limit of a wait."""
    return node.amount if has_limit(node) else None


def stream_items(path: str, node: Node) -> list[str]:
    """The items that a node writes."""
    return [f"{path}.{number}" for number in range(node.choice % 3)]


def name_of(error: BaseException) -> str:
    """An exception, with those that it holds and the one that caused it."""
    if isinstance(error, BaseExceptionGroup):
        text = "[" + " ".join(name_of(inner) for inner in error.exceptions) + "]"
    else:
        text = f"{type(error).__name__}({error})" if isinstance(error, Broken) else type(error).__name__
    cause = error.__cause__
    return f"{text} from {name_of(cause)}" if isinstance(error, Broken) and cause is not None else text


def _counts(error: BaseException) -> bool:
    # perdure unwinds a body that it stops driving. What the body sees meanwhile is no observation of the program.
    return not isinstance(error, (perdure.errors.RunStopped, GeneratorExit))


async def told(name: str, body: str, work: Awaitable[Any]) -> str:
    """Await a durable call and log the answer."""
    try:
        value = str(await work)
    except BaseException as error:
        if _counts(error):
            log("told", body, name, name_of(error))
        raise
    log("told", body, name, f"ok {value}")
    return value


def told_in_thread(name: str, body: str, thread: str, work: Callable[[], Any]) -> str:
    """The same for a sync call."""
    try:
        value = str(work())
    except BaseException as error:
        if _counts(error):
            log("told", body, name, name_of(error), thread)
        raise
    log("told", body, name, f"ok {value}", thread)
    return value


# -- execution -----------------------------------------------------------------------------------------------------


async def run(path: str, number: int, body: str) -> str:
    """Execute a node; `path` names the execution, `body` is the path of the task that the node belongs to."""
    node = world().nodes[number]
    log("enter", body, path)
    try:
        value: str = await HOW[node.kind](path, node, body)
    except BaseException as error:
        if _counts(error):
            log("leave", body, path, name_of(error))
        raise
    log("leave", body, path, f"ok {value}")
    return value


def kid(path: str, node: Node, body: str, place: int = 0) -> Any:
    """The coroutine of one kid."""
    return run(f"{path}.{place}", node.kids[place].number, body)


def kids(path: str, node: Node, body: str) -> list[Any]:
    """A coroutine for each kid."""
    return [kid(path, node, body, place) for place in range(len(node.kids))]


def tasks(path: str, node: Node, body: str) -> list[asyncio.Task[str]]:
    """A task for each kid."""
    found = [asyncio.create_task(each) for each in kids(path, node, body)]
    world().spawned.setdefault(body, []).extend(found)
    return found


async def settle(path: str, body: str, works: list[asyncio.Task[str]]) -> str:
    """Wait for all tasks; how they ended."""
    ended = await asyncio.gather(*works, return_exceptions=True)
    text = " ".join(name_of(value) if isinstance(value, BaseException) else "ok" for value in ended)
    log("see", body, path, f"all {text}")
    return text


async def do_step(path: str, node: Node, body: str) -> str:
    return await told(path, body, step(path, body, node.amount, False, 0.0))


async def do_fail(path: str, node: Node, body: str) -> str:
    return await told(path, body, step(path, body, node.amount, True, 0.0))


async def do_cleanup(path: str, node: Node, body: str) -> str:
    return await told(path, body, step(path, body, 4 * node.amount, False, (node.choice % 3 - 1) * SCALE))


async def do_sync(path: str, node: Node, body: str) -> str:
    return told_in_thread(path, body, "", lambda: sync_step(path, body, node.amount / 4, False))


class Job(NamedTuple):
    """One thing that a thread does."""

    what: str
    name: str
    fail: bool


def jobs(path: str, node: Node) -> list[Job]:
    """What a thread does, one after the other."""
    rng = random.Random(node.choice)
    found = []
    for place in range(rng.randrange(4)):
        what = rng.choice(["step", "step", "step", "nap", "time", "fail", "child", "dsleep", "items"])
        found.append(Job(what, f"{path}t{place}", what == "fail" and rng.random() < 0.5))
    return found


def in_thread(path: str, number: int, body: str) -> str:
    """What a thread does."""
    node = world().nodes[number]
    for job in jobs(path, node):
        name, seconds = job.name, node.amount
        if job.what == "nap":
            world().pause(world().seconds(seconds))
        elif job.what == "time":
            told_in_thread(name, body, path, durable_time)
        elif job.what == "dsleep":
            told_in_thread(name, body, path, lambda: durable_sleep(seconds))  # noqa: B023 - called at once
        elif job.what == "child":
            told_in_thread(name, body, path, lambda: sync_child(f"{name}.c", seconds))  # noqa: B023
        elif job.what == "items":
            for item in sync_items(name, body, 2, seconds):
                log("told", body, str(item), "ok item", path)
        else:
            told_in_thread(name, body, path, lambda: sync_step(name, body, seconds, job.fail))  # noqa: B023
    world().pause(world().seconds(node.amount))
    return path


async def do_thread(path: str, node: Node, body: str) -> str:
    return await asyncio.to_thread(in_thread, path, node.number, body)


async def do_nap(path: str, node: Node, body: str) -> str:
    await asyncio.sleep(world().seconds(node.amount))
    return path


async def do_spin(path: str, node: Node, body: str) -> str:
    for _ in range(node.choice % 5):
        await asyncio.sleep(0)
    return path


async def do_later(path: str, node: Node, body: str) -> str:
    event = asyncio.Event()
    asyncio.get_running_loop().call_later(world().seconds(node.amount), event.set)
    await event.wait()
    return path


async def do_dsleep(path: str, node: Node, body: str) -> str:
    await told(path, body, durable_sleep.aio(node.amount))
    return path


async def do_time(path: str, node: Node, body: str) -> str:
    await told(path, body, durable_time.aio())
    return path


async def do_random(path: str, node: Node, body: str) -> str:
    reading = perdure.durable.uuid4 if node.choice % 2 else perdure.durable.random
    await told(path, body, reading.aio())
    return path


async def do_snipe(path: str, node: Node, body: str) -> str:
    """Cancel some task of the body: a sibling, an ancestor, the task itself, or a task that has not begun."""
    await told(path, body, step(path, body, node.amount, False, 0.0))
    left = [task for task in world().spawned.get(body, ()) if not task.done()]
    if left:
        log("see", body, path, f"snipes {node.choice % len(left)} {left[node.choice % len(left)].cancel()}")
    return path


async def do_items(path: str, node: Node, body: str) -> str:
    generator = items(path, body, node.choice % 4 + 1, node.amount)
    taken = 0
    try:
        async for item in generator:
            log("told", body, item, "ok item")
            taken += 1
            if taken > node.choice // 4 % 5:
                break
    finally:
        if node.choice % 2:
            await generator.aclose()
    return path


async def left_items(path: str, body: str, seconds: float, closed: asyncio.Event) -> AsyncIterator[str]:
    """A plain generator with steps, one of them behind its end."""
    try:
        for number in range(2):
            yield await told(f"{path}.{number}", body, step(f"{path}.{number}", body, seconds, False, 0.0))
    finally:
        try:
            await told(f"{path}.x", body, step(f"{path}.x", body, seconds, False, 0.0))
        finally:
            closed.set()


async def do_leave(path: str, node: Node, body: str) -> str:
    """Leave a generator behind its first item; asyncio closes it."""
    closed = asyncio.Event()
    async for _ in left_items(path, body, node.amount, closed):
        break
    await closed.wait()
    return path


async def do_stray(path: str, node: Node, body: str) -> str:
    """Swallow a cancellation, which may be the step's own or a real one."""
    with contextlib.suppress(asyncio.CancelledError):
        await told(path, body, stray_step(path, body, node.amount))
    return path


async def do_sync_items(path: str, node: Node, body: str) -> str:
    for taken, item in enumerate(sync_items(path, body, node.choice % 3 + 1, node.amount / 4)):
        log("told", body, item, "ok item")
        if taken == node.choice // 4 % 3:
            break
    return path


async def do_child(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, child(f"{path}.c", node.kids[0].number))


async def do_process(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, process_child(f"{path}.c", node.kids[0].number))


async def do_sync_child(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, sync_child.aio(f"{path}.c", node.amount))


async def do_flaky(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, flaky(f"{path}.c", node.choice % 3))


async def do_sync_flaky(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, sync_flaky.aio(f"{path}.c", node.choice % 3))


async def do_exhausted(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, exhausted(f"{path}.c"))


async def do_map(path: str, node: Node, body: str) -> str:
    names = [f"{path}.c{place}" for place in range(node.choice % 4)]
    kind = sync_unit if node.choice % 8 < 4 else unit
    found = perdure.map.aio(kind, names, [node.amount] * len(names), concurrency=node.choice // 8 % 3)
    async for name in found:
        log("told", body, str(name), f"ok {name}")
    return path


async def do_cached(path: str, node: Node, body: str) -> str:
    key = f"cached{node.choice % 3}"
    await told(key, body, cached(key))
    return path


async def do_limited(path: str, node: Node, body: str) -> str:
    return await told(path, body, limited_step(path, body, node.amount))


async def do_holding(path: str, node: Node, body: str) -> str:
    return await told(path, body, holding_step(path, body, node.amount))


async def do_limited_child(path: str, node: Node, body: str) -> str:
    return await told(f"{path}.c", body, limited_child(f"{path}.c", node.amount))


async def do_effect(path: str, node: Node, body: str) -> str:
    return await told(path, body, effect.aio(path, body, node.amount / 4))


async def do_receive(path: str, node: Node, body: str) -> str:
    try:
        await told(path, body, perdure.receive.aio(box_name(node), str, timeout=limit(node)))
    except perdure.errors.MessageTimedoutError:
        log("see", body, path, "late")
    return path


def receive_in_thread(path: str, number: int, body: str) -> str:
    """What a thread does that waits for a message."""
    node = world().nodes[number]
    try:
        told_in_thread(path, body, path, lambda: perdure.receive(box_name(node), str, timeout=limit(node)))
    except perdure.errors.MessageTimedoutError:
        log("see", body, path, "late", path)
    return path


async def do_receive_in_thread(path: str, node: Node, body: str) -> str:
    return await asyncio.to_thread(receive_in_thread, path, node.number, body)


async def do_ask(path: str, node: Node, body: str) -> str:
    condition = perdure.new_condition(condition_name(node), data_type=str, timeout=limit(node))
    try:
        await told(path, body, condition.wait.aio())
    except perdure.errors.ConditionTimedoutError:
        log("see", body, path, "late")
    return path


REFUSED = (perdure.errors.StoreError, perdure.errors.RunEndedError)
"""What a send may fail with."""


async def do_post(path: str, node: Node, body: str) -> str:
    """Send a message to a run; one of three messages is the same for all nodes, under one key."""
    run = world().target(node.choice)
    box = box_name(node)
    value, key = f"{box} from {driver().run.name} {path}", None
    if node.choice % 3 == 0:
        value = key = f"{box} shared"
    try:
        await told(path, body, run.send.aio(box, value, key=key))
    except REFUSED as error:
        log("see", body, path, f"gives up: {name_of(error)}")
    return path


async def do_answer(path: str, node: Node, body: str) -> str:
    name = condition_name(node)
    try:
        await told(path, body, world().target(node.choice).signal.aio(name, condition_value(name)))
    except REFUSED as error:
        log("see", body, path, f"gives up: {name_of(error)}")
    return path


async def do_publish(path: str, node: Node, body: str) -> str:
    await told(path, body, perdure.publish.aio(f"p{node.choice % 2}", path))
    return path


async def do_stream(path: str, node: Node, body: str) -> str:
    async with perdure.stream(path, str) as out:
        for item in stream_items(path, node):
            await told(item, body, out.write.aio(item))
    return path


async def do_stream_step(path: str, node: Node, body: str) -> str:
    try:
        await told(path, body, stream_step(path, body, stream_items(path, node), node.amount / 4))
    except perdure.errors.StoreError as error:
        log("see", body, path, f"gives up: {name_of(error)}")
    return path


async def do_seq(path: str, node: Node, body: str) -> str:
    for place in range(len(node.kids)):
        try:
            await kid(path, node, body, place)
        except CAUGHT as error:
            log("see", body, path, f"goes on after {name_of(error)}")
    return path


async def do_gather(path: str, node: Node, body: str) -> str:
    if node.choice % 2:
        return await settle(path, body, tasks(path, node, body))
    return str(len(await asyncio.gather(*kids(path, node, body))))


async def do_group(path: str, node: Node, body: str) -> str:
    try:
        async with asyncio.TaskGroup() as group:
            for each in kids(path, node, body):
                group.create_task(each)
    except ExceptionGroup as error:
        log("see", body, path, f"group {name_of(error)}")
        if node.choice % 2:
            raise
    return path


async def _wait(path: str, node: Node, body: str, **how: Any) -> str:
    works = tasks(path, node, body)
    try:
        done, _ = await asyncio.wait(works, **how)
        log("see", body, path, "".join("x" if work in done else "." for work in works))
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
            log("see", body, path, f"{place} ok {await ended}")
        except CAUGHT as error:
            log("see", body, path, f"{place} {name_of(error)}")
    return await settle(path, body, works)


async def do_winner(path: str, node: Node, body: str) -> str:
    """Two kids race; which of the two has won decides whether the third is executed."""
    works = [asyncio.create_task(kid(path, node, body, place)) for place in range(2)]
    world().spawned.setdefault(body, []).extend(works)
    try:
        await asyncio.wait(works, return_when=asyncio.FIRST_COMPLETED)
        won = 0 if works[0].done() else 1
        log("see", body, path, f"won by {won}")
        if won == node.choice % 2:
            await kid(path, node, body, 2)
    finally:
        works[1 - node.choice // 2 % 2].cancel()
        await settle(path, body, works)
    return str(won)


async def do_timeout(path: str, node: Node, body: str) -> str:
    try:
        async with asyncio.timeout(node.amount):
            await kid(path, node, body)
    except TimeoutError:
        return "late"
    return "in time"


async def do_wait_for(path: str, node: Node, body: str) -> str:
    try:
        await asyncio.wait_for(kid(path, node, body), node.amount)
    except TimeoutError:
        return "late"
    return "in time"


async def do_dtimeout(path: str, node: Node, body: str) -> str:
    try:
        async with perdure.durable.timeout(node.amount):
            await kid(path, node, body)
    except TimeoutError:
        return "late"
    return "in time"


async def do_cancel(path: str, node: Node, body: str) -> str:
    work = asyncio.create_task(kid(path, node, body, 0))
    try:
        await kid(path, node, body, 1)
    except CAUGHT:
        pass
    finally:
        log("see", body, path, f"cancels {work.cancel()}")
    return await settle(path, body, [work])


async def do_swallow(path: str, node: Node, body: str) -> str:
    try:
        return str(await kid(path, node, body))
    except asyncio.CancelledError:
        log("see", body, path, "swallows")
        return path


async def do_finally(path: str, node: Node, body: str) -> str:
    try:
        return str(await kid(path, node, body, 0))
    finally:
        log("see", body, path, "finally")
        await kid(path, node, body, 1)


async def do_shield(path: str, node: Node, body: str) -> str:
    work = asyncio.create_task(kid(path, node, body))
    try:
        return str(await asyncio.shield(work))
    except asyncio.CancelledError:
        log("see", body, path, "shielded")
        await settle(path, body, [work])
        raise


async def do_retry(path: str, node: Node, body: str) -> str:
    for turn in range(3):
        try:
            return await run(f"{path}r{turn}", node.kids[0].number, body)
        except CAUGHT as error:
            log("see", body, path, f"try {turn} {name_of(error)}")
    return path


async def do_chain(path: str, node: Node, body: str) -> str:
    try:
        return str(await kid(path, node, body))
    except CAUGHT as error:
        raise Broken(path) from error


async def do_attempt(path: str, node: Node, body: str) -> str:
    try:
        return str(await kid(path, node, body))
    except (Broken, ExceptionGroup) as error:
        log("see", body, path, name_of(error))
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
            log("see", body, path, f"gets {await asyncio.wait_for(queue.get(), node.amount or SCALE)}")
    except TimeoutError:
        log("see", body, path, "gets no more")
    finally:
        for work in works:
            work.cancel()
        await settle(path, body, works)
    return path


async def do_lock(path: str, node: Node, body: str) -> str:
    lock = asyncio.Lock()

    async def one(work: Any, place: int) -> None:
        async with lock:
            log("see", body, path, f"{place} enters")
            await work

    return await settle(path, body, [asyncio.create_task(one(k, n)) for n, k in enumerate(kids(path, node, body))])


async def do_spawn(path: str, node: Node, body: str) -> str:
    """Start the kid as a task; a `join` or the end of the body waits for the task."""
    work = asyncio.create_task(kid(path, node, body))
    world().spawned.setdefault(body, []).append(work)
    world().apart.setdefault(body, []).append(work)
    return path


async def do_join(path: str, node: Node, body: str) -> str:
    """Wait for a task that another node has started. The time-out ends a circle of tasks that wait for each other."""
    left = world().apart.get(body, [])
    if not left:
        return "none"
    place = node.choice % len(left)
    try:
        async with asyncio.timeout(2 * SCALE):
            await asyncio.shield(left[place])
    except CAUGHT as error:
        return f"{place} {name_of(error)}"
    except asyncio.CancelledError:
        log("see", body, path, f"{place} cancelled {left[place].cancelled()}")
        raise
    return f"{place} ok"


HOW: dict[str, Callable[[str, Node, str], Awaitable[str]]] = {
    name[3:]: value for name, value in globals().items() if name.startswith("do_")
}


# -- tasks ---------------------------------------------------------------------------------------------------------


async def whole_body(path: str, number: int, body: str) -> str:
    """A node as a whole body: the tasks that nothing has joined are awaited at the end."""
    try:
        return await run(path, number, body)
    finally:
        works = world().apart.get(body, [])
        while left := [work for work in works if not work.done()]:
            await asyncio.wait(left)  # a task may start further ones meanwhile
        if works:
            log("see", body, path, "joins " + " ".join("x" if work.cancelled() else "." for work in works))


@env.task
async def child(path: str, number: int) -> str:
    """A child task whose body is a part of the program."""
    return await whole_body(path, number, path)


@apart.task
async def process_child(path: str, number: int) -> str:
    """The same in a process of its own."""
    return await whole_body(path, number, path)


@env.task
def sync_child(path: str, seconds: float) -> str:
    """A sync child task."""
    for name in (f"{path}a", f"{path}b"):
        told_in_thread(name, path, "", lambda: sync_step(name, path, seconds, False))  # noqa: B023 - called at once
    return path


@env.task(limit=SLOTS)
async def limited_child(path: str, seconds: float) -> str:
    """A child task under the limit."""
    with holding(path, path):
        for name in (f"{path}a", f"{path}b"):
            await told(name, path, step(name, path, seconds, False, 0.0))
    return path


def _attempt_of(path: str, fails: int) -> tuple[str, bool]:
    """The name of a body in its current attempt, and whether the flaky step fails in this attempt."""
    here = perdure.ctx()
    assert here is not None
    return f"{path}#{here.attempt}", here.attempt <= fails


@env.task(retries=perdure.RetryStrategy(3, perdure.Backoff(initial=0.002, factor=1.5)))
async def flaky(path: str, fails: int) -> str:
    """A task whose second step fails in the first attempts; the first step is kept."""
    body, fail = _attempt_of(path, fails)
    await told(f"{path}a", body, step(f"{path}a", path, 0.0, False, 0.0))
    return await told(f"{path}f", body, flaky_step(f"{path}f", path, fail))


@env.task(retries=2)
def sync_flaky(path: str, fails: int) -> str:
    """The same, sync."""
    body, fail = _attempt_of(path, fails)
    told_in_thread(f"{path}a", body, "", lambda: sync_step(f"{path}a", path, 0.0, False))
    return told_in_thread(f"{path}f", body, "", lambda: sync_flaky_step(f"{path}f", path, fail))


@env.task(retries=1)
async def exhausted(path: str) -> str:
    """A task that fails in each attempt."""
    return await told(f"{path}f", _attempt_of(path, 0)[0], flaky_step(f"{path}f", path, True))


@env.task
async def unit(path: str, seconds: float) -> str:
    """A member of a map."""
    return await told(f"{path}a", path, step(f"{path}a", path, seconds, False, 0.0))


@env.task
def sync_unit(path: str, seconds: float) -> str:
    """The same, sync."""
    return told_in_thread(f"{path}a", path, "", lambda: sync_step(f"{path}a", path, seconds, False))


@env.task(cache=perdure.Cache(version_override="1"))
async def cached(key: str) -> str:
    """A task whose outcome is shared by all calls with that key."""
    log("begin", key, key)
    log("end", key, key)
    return key


LAST = "last"
"""The name of the last step of a root body."""


@env.task
async def root() -> str:
    """The whole program, and one more step."""
    world().spawned.clear()
    world().apart.clear()
    log("drive", "root", "0")
    try:
        found = f"ok {await whole_body('0', 0, 'root')}"
    except (*CAUGHT, asyncio.CancelledError, perdure.errors.RunCancelledError) as error:
        found = name_of(error)
    log("see", "root", "0", f"found {found}")
    await told(LAST, "root", step(LAST, "root", 0.0, False, 0.0))
    world().recorded_all()
    return found

"""Cases of `tests/crash/test_named_interleavings.py`: conditions and messages. The run sends to itself."""

from __future__ import annotations

import asyncio
from typing import Any

import lab
from lab import env, see, step

import perdure


async def post(name: str, value: Any) -> None:
    await perdure.Run.get("r").send.aio(name, value)


async def signal(name: str, value: Any) -> None:
    await perdure.Run.get("r").signal.aio(name, value)


async def take(name: str, timeout: float | None = None) -> Any:
    return await perdure.receive.aio(name, str, timeout=timeout)


async def rest(name: str) -> list[str]:
    """What is left in the mailbox, which has to be nothing."""
    try:
        return [await take(name, 0.001)]
    except TimeoutError:
        return []


@env.task
async def sent_before_the_receive() -> list[str]:
    for value in ("a", "b", "c"):
        await post("box", value)
    out = [await take("box") for _ in range(3)]
    see("main", out)
    return out + await rest("box")


@env.task
async def two_receivers() -> list[str]:
    out: list[str] = []

    async def receiver(name: str) -> None:
        for _ in range(2):
            found = await take("box")
            see("all", [name, found])
            out.append(await step(f"{name}{found}"))

    async def sender() -> None:
        for value in range(4):
            await step(f"before{value}", 0.002)
            await post("box", str(value))

    await asyncio.gather(receiver("x"), receiver("y"), sender())
    return [*sorted(name[1:] for name in out), *await rest("box")]


@env.task
async def first_waits_first() -> list[str]:
    older_waits, younger_waits = asyncio.Event(), asyncio.Event()

    async def older() -> str:
        for number in range(2):
            await step(f"older{number}")
        older_waits.set()
        return f"older {await take('box')}"

    async def younger() -> str:
        await older_waits.wait()
        await step("younger")
        younger_waits.set()
        return f"younger {await take('box')}"

    async def sender() -> None:
        await younger_waits.wait()
        await step("sender")
        for value in ("a", "b"):
            await post("box", value)

    older_found, younger_found, _ = await asyncio.gather(older(), younger(), sender())
    return [older_found, younger_found, *await rest("box")]


@env.task
async def receive_races_a_step() -> list[str]:
    out: list[str] = []

    async def sender() -> None:
        await step("sending", 0.004)
        await post("box", "late")

    sending = asyncio.create_task(sender())
    waits = asyncio.create_task(take("box"))
    steps = asyncio.create_task(step("quick", 0.002))
    done, _ = await asyncio.wait([waits, steps], return_when=asyncio.FIRST_COMPLETED)
    see("main", sorted(task.result() for task in done))
    out.append(await waits)
    out.append(await steps)
    await sending
    return out + await rest("box")


@env.task
async def receive_cancelled_gives_way() -> list[str]:
    first = asyncio.create_task(take("box"))
    await step("begun", 0.002)
    second = asyncio.create_task(take("box"))
    await step("both", 0.002)
    first.cancel()
    try:
        await first
        see("main", "not cancelled")
    except asyncio.CancelledError:
        see("main", "cancelled")
    await post("box", "m")
    out = [await second]
    return out + await rest("box")


@env.task
async def receive_cancelled_as_the_message_comes() -> list[str]:
    """The message is delivered once, to whichever call the commit order decides for."""
    out: list[str] = []

    async def canceller(waits: asyncio.Task[Any]) -> None:
        await post("box", "m")
        waits.cancel()

    waits = asyncio.create_task(take("box"))
    cancelling = asyncio.create_task(canceller(waits))
    try:
        out.append(await waits)
        see("main", "came")
    except asyncio.CancelledError:
        see("main", "cancelled")
        out.append(await take("box"))
    await cancelling
    return out + await rest("box")


@env.task
async def leaves_a_receive(name: str, steps: int) -> list[str]:
    heard: list[str] = []

    async def listen() -> None:
        heard.append(await take("box"))

    left = asyncio.create_task(listen())
    for number in range(steps):
        await step(f"{name}{number}")
    see(name, [*heard, left.done()])
    return heard


@env.task
async def child_ends_as_the_message_comes() -> list[str]:
    """The child has heard of the message, or the next receive gets it."""
    out: list[str] = []
    for number in range(3):
        heard, _ = await asyncio.gather(leaves_a_receive("abc"[number], number + 1), post("box", "m"))
        out += heard or [await take("box")]
    return out + await rest("box")


@env.task
async def timeout_then_message() -> list[str]:
    out: list[str] = []
    try:
        out.append(await take("box", 0.005))
    except TimeoutError:
        see("main", "late")
        out.append(await step("fallback"))
    await post("box", "m")
    out.append(await take("box", 5.0))
    return out + await rest("box")


@env.task
async def condition_for_two_branches() -> list[str]:
    async def branch(name: str) -> str:
        go = perdure.new_condition("go", data_type=str)
        found = await go.wait.aio()
        see("all", name)
        return await step(f"{name} {found}")

    async def signaller() -> None:
        await step("before")
        await signal("go", "yes")
        await signal("go", "yes")

    found = await asyncio.gather(branch("a"), branch("b"), signaller())
    late = await perdure.new_condition("go", data_type=str).wait.aio()
    return [*(name for name in found if name), late]


@env.task
def receive_in_a_sync_body() -> list[str]:
    perdure.Run.get("r").send("box", "a")
    perdure.Run.get("r").send("box", "b")
    out = [perdure.receive("box", str), perdure.receive("box", str)]
    see("main", out)
    try:
        out.append(perdure.receive("box", str, timeout=0.001))
    except TimeoutError:
        out.append("none")
    return out


@env.task
async def child(name: str) -> str:
    found = await take("box")
    await step(f"{name} has {found}")
    return str(found)


@env.task
async def receive_in_children() -> list[str]:
    async def sender() -> None:
        await step("before", 0.002)
        for value in ("a", "b"):
            await post("box", value)

    *found, _ = await asyncio.gather(child("one"), child("two"), sender())
    return sorted(str(name) for name in found) + await rest("box")


@env.task
async def misfit_in_the_mailbox() -> list[str]:
    await post("box", "no number")
    await post("box", 7)
    out: list[str] = []
    try:
        await perdure.receive.aio("box", int)
    except perdure.errors.ValueMismatchError:
        out.append(await step("misfit"))
    out.append(str(await perdure.receive.aio("box", int)))
    see("main", out)
    return out + await rest("box")


@perdure.trace
async def tell(name: str, value: str) -> None:
    perdure.publish(name, value)


@perdure.trace
async def told() -> dict[str, str]:
    found: dict[str, str] = await perdure.Run.get("r").published.aio()
    return found


@env.task
async def values_of_a_body_and_of_traces() -> list[str]:
    """A call that is replayed publishes nothing, so the value that a trace publishes later stays."""

    async def from_threads() -> None:
        for number in range(2):
            await asyncio.to_thread(perdure.publish, "thread", f"{number}")

    beside = asyncio.create_task(from_threads())
    for number in range(3):
        await perdure.publish.aio("body", f"{number}")
        await perdure.publish.aio("shared", f"body {number}")
        await tell("trace", f"{number}")
        await tell("shared", f"trace {number}")
        see("main", number)
    await beside
    return [f"{name} {value}" for name, value in (await told()).items()]


@perdure.trace
async def writes_in_a_trace() -> str:
    async with perdure.stream("inner", str) as out:
        for number in range(3):
            await out.write.aio(f"{number}")
            await asyncio.sleep(0.03)
    return "written"


@perdure.trace
def read(name: str) -> list[str]:
    """The items that count: those of the last attempt."""
    found: list[str] = []
    for item in perdure.Run.get("r").stream(name):
        found = [] if item.restarted else found
        found.append(item.value)
    return found


@env.task
async def streams_of_a_body_and_of_a_trace() -> list[str]:
    async with perdure.stream("body", str) as out:
        for number in range(3):
            await out.write.aio(f"{number}")
            see("main", number)
    await writes_in_a_trace()
    return [*await read.aio("body"), "inner", *await read.aio("inner")]


TASKS = {name: value for name, value in globals().items() if isinstance(value, perdure.Task)}

if __name__ == "__main__":
    lab.main(TASKS)

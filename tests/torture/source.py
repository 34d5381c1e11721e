"""A program of `programs` as Python source for a reader: one function for each node with kids."""

from __future__ import annotations

from tests.torture.programs import SCALE, Node, box_name, condition_name, jobs, limit

CALLS = {
    "step": "step({path!r}, {amount})",
    "fail": "failing_step({path!r}, {amount})",
    "cleanup": "step({path!r}, {long}, on_cancel={cleanup!r})",
    "sync": "sync_step({path!r}, {short})",
    "thread": "asyncio.to_thread(lambda: ({jobs}))",
    "nap": "asyncio.sleep({amount})",
    "spin": "sleep_zero(times={five})",
    "later": "event_set_by_call_later({amount})",
    "dsleep": "durable_sleep.aio({amount})",
    "time": "durable_time.aio()",
    "random": "{reading}.aio()",
    "items": "take({taken}, items({path!r}, {items}, {amount}), aclose={odd})",
    "sync_items": "take({sync_taken}, sync_items({path!r}, {sync_items}, {short}))",
    "snipe": "step_then_cancel_task({path!r}, {amount}, number={choice})",
    "join": "join_spawned(number={choice}, timeout={join})",
    "sync_child": "sync_child_of_two_steps.aio({path!r})",
    "flaky": "flaky({path!r}, failing_attempts={three})",
    "sync_flaky": "sync_flaky.aio({path!r}, failing_attempts={three})",
    "exhausted": "task_that_fails_in_both_attempts({path!r})",
    "map": "all_of(perdure.map.aio({unit}, range({mapped}), concurrency={limit}))",
    "cached": "cached('cached{three}')",
    "leave": "leave_behind_the_first_item({path!r}, {amount})  # its finally has a step",
    "stray": "step_that_cancels_itself({path!r})  # a CancelledError is swallowed",
    "limited": "limited_step({path!r}, {amount})  # two at once",
    "holding": "step_that_holds_a_slot({path!r}, {amount})  # two at once",
    "limited_child": "limited_child_of_two_steps({path!r}, {amount})  # two at once",
    "effect": "transaction_that_inserts.aio({path!r})",
    "receive": "perdure.receive.aio('{box}', str, timeout={until})  # late is well",
    "receive_in_thread": "asyncio.to_thread(lambda: perdure.receive('{box}', str, timeout={until}))  # late is well",
    "ask": "perdure.new_condition('{fact}', data_type=str, timeout={until}).wait.aio()  # late is well",
    "post": "perdure.Run.get(perdure.ctx().run).send.aio('{box}', {message})",
    "answer": "perdure.Run.get(perdure.ctx().run).signal.aio('{fact}', 'the value of {fact}')",
    "publish": "perdure.publish.aio('p{two}', {path!r})",
    "stream": "write_items(perdure.stream({path!r}, str), {streamed})",
    "stream_step": "step_that_writes_items(perdure.stream({path!r}, str), {streamed})",
}
"""What stands behind `await` for a node without kids."""

BODIES = {
    "seq": "{each_caught}",
    "gather": "await asyncio.gather({kids}, return_exceptions={odd})",
    "group": "async with asyncio.TaskGroup() as group:  # its ExceptionGroup is {raised}\n    {members}",
    "first": "await asyncio.wait([{kids}], return_when=FIRST_COMPLETED)\n{then_cancel}await all of them",
    "wait": "await asyncio.wait([{kids}], timeout={amount}, return_when=FIRST_EXCEPTION)\n"
    "{then_cancel}await all of them",
    "completed": "for ended in asyncio.as_completed([{kids}], timeout={patience}):\n    await ended",
    "winner": "await asyncio.wait([a := {0}, b := {1}], return_when=FIRST_COMPLETED)\n"
    "if {first_or_second} has won:\n    await {2}\ncancel {loser}, await both",
    "timeout": "async with asyncio.timeout({amount}):\n    await {0}",
    "wait_for": "await asyncio.wait_for({0}, {amount})",
    "dtimeout": "async with perdure.durable.timeout({amount}):\n    await {0}",
    "cancel": "work = create_task({0})\nawait {1}\nwork.cancel()\nawait work",
    "swallow": "try:\n    await {0}\nexcept CancelledError:\n    pass",
    "finally": "try:\n    await {0}\nfinally:\n    await {1}",
    "shield": "work = create_task({0})\ntry:\n    await asyncio.shield(work)\nexcept CancelledError:\n"
    "    await work\n    raise",
    "retry": "for _ in range(3):\n    try:\n        return await {0}\n    except FAILURES:\n        pass",
    "chain": "try:\n    await {0}\nexcept FAILURES as error:\n    raise Broken from error",
    "attempt": "try:\n    await {0}\nexcept (Broken, ExceptionGroup):\n    pass",
    "event": "first = create_task({0})\nthe others wait until it has ended: {kids}\nawait all of them",
    "queue": "each puts its number when it ends: {kids}\n"
    "for _ in ...: await asyncio.wait_for(queue.get(), {amount})\ncancel and await all of them",
    "lock": "await asyncio.gather({kids}), each inside of one asyncio.Lock",
    "spawn": "create_task({0})  # joined by `join`, or at the end of the body",
    "child": "await child(...)  # a task with this body:\nawait {0}",
    "process": "await process_child(...)  # a task with this body, in a process of its own:\nawait {0}",
}
"""The body of the function of a node with kids."""


def source(tree: Node) -> str:
    """The program as Python."""
    lines: list[str] = []
    _define("0", tree, lines)
    return "\n".join(lines)


def _name(path: str) -> str:
    return "part_" + path.replace(".", "_")


def _call(path: str, node: Node) -> str:
    if node.kids:
        return f"{_name(path)}()"
    choice = node.choice
    return CALLS[node.kind].format(
        path=path,
        amount=f"{node.amount:.4f}",
        long=f"{4 * node.amount:.4f}",
        short=f"{node.amount / 4:.4f}",
        cleanup=("return", "raise at once", "raise later")[choice % 3],
        jobs=", ".join(f"{job.what}{' (fails)' if job.fail else ''}" for job in jobs(path, node)) or "nothing durable",
        five=choice % 5,
        three=choice % 3,
        choice=choice,
        items=choice % 4 + 1,
        taken=choice // 4 % 5 + 1,
        sync_items=choice % 3 + 1,
        sync_taken=choice // 4 % 3 + 1,
        odd=choice % 2 == 1,
        reading="durable.uuid4" if choice % 2 else "durable.random",
        join=f"{2 * SCALE:.4f}",
        unit="sync_unit" if choice % 8 < 4 else "unit",
        mapped=choice % 4,
        limit=choice // 8 % 3,
        two=choice % 2,
        until=limit(node),
        box=box_name(node),
        fact=condition_name(node),
        message="'shared', key='shared'" if choice % 3 == 0 else repr(path),
        streamed=choice % 3,
    )


def _define(path: str, node: Node, lines: list[str]) -> None:
    paths = [f"{path}.{place}" for place in range(len(node.kids))]
    for below, kid in zip(paths, node.kids, strict=True):
        if kid.kids:
            _define(below, kid, lines)
    if not node.kids:
        lines.append(f"await {_call(path, node)}")
        return
    calls = [_call(below, kid) for below, kid in zip(paths, node.kids, strict=True)]
    text = BODIES[node.kind].format(
        *calls,
        kids=", ".join(calls),
        amount=f"{node.amount:.4f}",
        odd=node.choice % 2 == 1,
        raised="raised" if node.choice % 2 else "caught",
        each_caught="\n".join(f"await {call}  # a failure is caught" for call in calls),
        members="\n    ".join(f"group.create_task({call})" for call in calls),
        then_cancel="cancel all of them, " if node.choice % 2 else "",
        patience=f"{node.amount:.4f}" if node.choice % 3 == 0 else None,
        first_or_second="ab"[node.choice % 2],
        loser="ab"[1 - node.choice // 2 % 2],
    )
    lines.append(f"async def {_name(path)}():")
    lines += [f"    {line}" for line in text.splitlines()]
    lines.append("")

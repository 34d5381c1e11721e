"""Container tasks called from bodies with `executor="process"`."""

from __future__ import annotations

import os

import perdure
from perdure.extras import ContainerTask

IMAGE = os.environ.get("IMAGE", "none")

greet = ContainerTask(
    name="greet",
    image=IMAGE,
    command=["/bin/sh", "-c", 'echo "hello $0" > /var/outputs/o', "{{.inputs.who}}"],
    inputs={"who": str},
    outputs={"o": str},
    network="none",
    local_logs=False,
)
forever = ContainerTask(
    name="forever",
    image=IMAGE,
    command=["/bin/sh", "-c", "trap exit TERM; while true; do sleep 0.05; done"],
    network="none",
    local_logs=False,
)
hasty = forever.override(timeout=1.0)
env = perdure.TaskEnvironment.from_task("pooled", greet, forever, hasty, executor="process")


@env.task
async def greets(who: str) -> list[str]:
    first = await greet(who)
    try:
        await hasty()
    except perdure.errors.TaskTimeoutError:
        return [first, "late"]
    return [first]


@env.task
def greets_inline(who: str) -> str:
    return str(greet.override(timeout=5.0)(who))


@env.task(timeout=3.0)
async def waits_for_ever() -> None:
    await forever()

"""What the containers of the kill tests do."""

from __future__ import annotations

import os

import perdure
from perdure.extras import ContainerTask

IMAGE = os.environ["IMAGE"]

job = ContainerTask(
    name="job",
    image=IMAGE,
    command=[
        "/bin/sh", "-c",
        "echo started >> /shared/ran; sleep 0.7; echo \"$0 and $(cat /var/inputs/b)\" > /var/outputs/o; "
        "echo ended >> /shared/ran",
        "{{.inputs.a}}",
    ],
    inputs={"a": str, "b": int},
    outputs={"o": str},
    network="none",
    local_logs=False,
)  # fmt: skip
held = ContainerTask(
    name="held",
    image=IMAGE,
    command=["/bin/sh", "-c", "echo started >> /shared/ran; while [ ! -e /shared/go ]; do sleep 0.05; done; "
             "echo held > /var/outputs/o; echo ended >> /shared/ran"],
    outputs={"o": str},
    network="none",
    local_logs=False,
)  # fmt: skip
slow = ContainerTask(
    name="slow",
    image=IMAGE,
    command=["/bin/sh", "-c", "trap 'echo stopped >> /shared/ran; exit 0' TERM; echo started >> /shared/ran; "
             "while true; do sleep 0.05; done"],
    network="none",
    local_logs=False,
)  # fmt: skip
guarded = ContainerTask(
    name="guarded",
    image=IMAGE,
    command=["/bin/sh", "-c", "echo started >> /shared/ran; sleep 1; echo $TOKEN; echo ended >> /shared/ran"],
    secrets=["TOKEN"],
    network="none",
    local_logs=False,
)
hasty = slow.override(timeout=3.0, retries=1)
failing = ContainerTask(
    name="failing",
    image=IMAGE,
    command=["/bin/sh", "-c", "echo started >> /shared/ran; [ $(wc -l < /shared/ran) -ge 3 ] || exit 7"],
    retries=4,
    network="none",
    local_logs=False,
)
second = ContainerTask(
    name="second",
    image=IMAGE,
    command=["/bin/sh", "-c", "echo started >> /shared/ran; n=$(grep -c started /shared/ran); echo this is $n; "
             "[ $n = 2 ] || exit 7; sleep 2; echo ended >> /shared/ran"],
    network="none",
    local_logs=False,
)  # fmt: skip
timed = job.override(timeout=3.0)
env = perdure.TaskEnvironment(
    "jobs", depends_on=[perdure.TaskEnvironment.from_task("images", job, held, slow, failing, second)]
)


@perdure.trace
def note(text: str) -> str:
    """A step with a mark of its own."""
    with open(os.path.join(os.environ["SHARED"], "notes"), "a") as stream:
        stream.write(text + "\n")
    return text


@env.task
async def main(a: str) -> list[str]:
    """A container between two steps."""
    return [await note.aio("before"), await job(a=a, b=3), await note.aio("after")]


@env.task
async def holds() -> str:
    """A container that ends when the test says so."""
    return str(await held())


@env.task
def blocking(a: str) -> str:
    """The same from a sync task."""
    return str(job(a=a, b=4))


@env.task
async def retried() -> str:
    """Attempts that fail, and one that does not."""
    await failing()
    return "done"


@env.task(retries=1)
async def again() -> str:
    """Its first attempt fails with its container; the second one calls the same container again."""
    await second()
    return "done"


@env.task
async def cancelled() -> str:
    """A container that is cancelled while it runs."""
    import asyncio

    call = asyncio.ensure_future(slow())
    while not os.path.exists(os.path.join(os.environ["SHARED"], "ran")):
        await asyncio.sleep(0.02)
    call.cancel()
    try:
        await call
    except asyncio.CancelledError:
        return "late"
    return "never"

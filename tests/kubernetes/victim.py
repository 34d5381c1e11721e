"""Run a flow as run "r", and die (SIGKILL) or freeze (SIGSTOP) at one point of a pod's life.

victim.py POINT
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import Any

import perdure
from perdure.containers.kubernetes import life
from perdure.containers.kubernetes.cluster import Cluster
from perdure.containers.kubernetes.service import Pods
from perdure.core.run.attempts import Attached
from perdure.extras import ContainerTask

POINTS = (
    "before stage", "before create", "after create", "before keep", "after keep", "after open_gate", "running",
    "before _outcome", "after _outcome", "before _remove_all", "after delete", "before _clear", "after _clear",
)  # fmt: skip
OWNERS: dict[str, Any] = {
    "create": Cluster, "open_gate": Cluster, "delete": Cluster, "keep": Attached, "_outcome": life.PodLife,
    "_remove_all": Pods,
}  # fmt: skip

greet = ContainerTask(
    name="greet", image="img:1", command=["/bin/greet"], inputs={"name": str}, outputs={"greeting": str},
    local_logs=False,
)  # fmt: skip
env = perdure.TaskEnvironment("e", depends_on=[perdure.TaskEnvironment.from_task("c", greet)])


@perdure.trace
async def step(name: str) -> str:
    with open("steps", "a") as stream:
        stream.write(f"{name}\n")
    return name


@env.task
async def main(name: str) -> list[str]:
    return [await step("before"), await greet.aio(name=name), await step("after")]


def stop_here(sign: signal.Signals) -> None:
    """Not while another thread is in a commit, which would keep everybody else from the store."""
    if sign == signal.SIGKILL:
        os.kill(os.getpid(), sign)
    script = (
        "import os, signal, sqlite3, sys\n"
        "lock = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "lock.execute('BEGIN IMMEDIATE')\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\n"
    )
    subprocess.run([sys.executable, "-c", script, os.environ["PERDURE_STORE"]], check=True)


def arm(point: str) -> None:
    sign = signal.SIGKILL
    if point.startswith("freeze "):
        sign, point = signal.SIGSTOP, point.removeprefix("freeze ")
    when, _, name = point.partition(" ")
    if point == "running":
        owner, name, when = life._Waiting, "at", "after"
    elif name in ("stage", "_clear"):
        owner, name = (life.PodLife, "_stage") if name == "stage" else (Pods, "_clear")
        plain = getattr(owner, name)

        def blocking(self: Any, *args: Any) -> Any:
            if when == "before":
                stop_here(sign)
            result = plain(self, *args)
            if when == "after":
                stop_here(sign)
            return result

        setattr(owner, name, blocking)
        return
    else:
        owner = OWNERS[name]
    method = getattr(owner, name)

    async def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if when == "before":
            stop_here(sign)
        result = await method(self, *args, **kwargs)
        if when == "after" and (point != "running" or args[0].step.name == "RUNNING"):
            stop_here(sign)
        return result

    setattr(owner, name, patched)


if __name__ == "__main__":
    if sys.argv[1] != "never":
        arm(sys.argv[1])
    print(perdure.with_runcontext(name="r").run(main, name="Ada").result)

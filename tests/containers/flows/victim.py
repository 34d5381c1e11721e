"""Run a task of a flow as run "r", and die (SIGKILL) at one point of a container's life.

    victim.py FLOW TASK POINT INPUTS-AS-JSON

POINT is `never`, or one of `POINTS`. The directory in `SHARED` is seen by every container as /shared, so that what ran
leaves a mark that no engine and no perdure keeps.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import perdure
from perdure.containers import life, service
from perdure.containers.docker import DockerEngine
from perdure.containers.engine import Mount
from perdure.containers.place import Place
from perdure.core.run.attempts import Attached

POINTS = (
    "before stage", "before create", "after create", "before record", "after record", "after start", "running",
    "after exit", "before collect", "after collect", "before remove", "after remove",
)  # fmt: skip


def die(*_: Any) -> None:
    """What happens at the point."""
    os.kill(os.getpid(), signal.SIGKILL)


def around(owner: Any, name: str, before: bool, after: bool, wanted: Callable[..., bool] = lambda *_: True) -> None:
    """Die before or after a coroutine of that class."""
    plain = getattr(owner, name)

    async def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        if before and wanted(self, *args):
            die()
        result = await plain(self, *args, **kwargs)
        if after and wanted(self, *args):
            die()
        return result

    setattr(owner, name, patched)


def freeze() -> None:
    """Stop this process (SIGSTOP) until a signal continues it; not while another thread of it is in a commit, which
    would keep all others from the store. So this process holds the store's lock for that moment."""
    script = (
        "import os, signal, sqlite3, sys\n"
        "lock = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)\n"
        "lock.execute('BEGIN IMMEDIATE')\n"
        "os.kill(os.getppid(), signal.SIGSTOP)\n"
    )
    subprocess.run([sys.executable, "-c", script, ".perdure/perdure.db"], check=True)


def pause_after(owner: Any, name: str) -> None:
    """Stop (SIGSTOP) after a coroutine of that class, until a signal continues the process."""
    plain = getattr(owner, name)

    async def patched(self: Any, *args: Any, **kwargs: Any) -> Any:
        result = await plain(self, *args, **kwargs)
        freeze()
        return result

    setattr(owner, name, patched)


def arm(point: str) -> None:
    """Make this process die there."""
    if point == "before stage":
        plain_stage = life.ContainerLife._stage
        life.ContainerLife._stage = lambda *args: (die(), plain_stage(*args))[1]  # type: ignore[method-assign]
    elif point in ("before create", "after create"):
        around(DockerEngine, "create", point.startswith("before"), point.startswith("after"))
    elif point in ("before record", "after record"):
        around(Attached, "keep", point.startswith("before"), point.startswith("after"))
    elif point == "stop before stage":
        plain_begin = life.ContainerLife._stage
        life.ContainerLife._stage = lambda *args: (freeze(), plain_begin(*args))[1]  # type: ignore[method-assign]
    elif point == "stop after create":
        pause_after(DockerEngine, "create")
    elif point == "stop after record":
        pause_after(Attached, "keep")
    elif point == "after start":
        around(DockerEngine, "start", False, True)
    elif point == "running":
        around(DockerEngine, "wait", True, False)
    elif point == "after exit":
        around(DockerEngine, "wait", False, True)
    elif point == "after late stop":
        around(life.ContainerLife, "_stop", False, True)
    elif point == "before collect":
        around(life.ContainerLife, "_outcome", True, False)
    elif point == "after collect":
        around(life.ContainerLife, "_outcome", False, True)
    elif point == "before remove":
        around(service.Containers, "_remove", True, False)
    elif point == "after remove":
        Place.clear = lambda self: die() if os.path.exists(self.outputs) else None  # type: ignore[method-assign, assignment]


def share() -> None:
    """Mount the shared directory into every container."""
    shared = os.environ["SHARED"]
    plain = life.ContainerLife._stage
    life.ContainerLife._stage = lambda *args: (*plain(*args), Mount(shared, "/shared", False))  # type: ignore[method-assign]


def main() -> None:
    flow, task, point, inputs = sys.argv[1:]
    spec = importlib.util.spec_from_file_location("flow", flow)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["flow"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    share()
    arm(point)
    try:
        run = perdure.with_runcontext(name="r").run(getattr(module, task), **json.loads(inputs))
    except Exception as error:
        print(json.dumps({"error": type(error).__name__, "text": str(error)}))
    else:
        print(json.dumps({"value": run.result}))


if __name__ == "__main__":
    main()

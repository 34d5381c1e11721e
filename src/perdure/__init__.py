"""perdure: durable Python workflows from one `pip install`.

After a crash, start the run again under its name: the run carries on. No call with a recorded outcome is made again, no
sleep starts over, and every race is won by the same side as before.

Layers, each importing only from layers to its right (`lint-imports` checks the imports):

    perdure (names only), cli -> sql -> api, durable, extras, io, report -> runtime -> store, executors, containers
    -> core -> errors

`core` is the durable core and imports no adapter; `runtime` is the only place that puts adapters and core together.
"""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import durable, errors, extras, io, report, sql
    from .api.batching import Batch
    from .api.bulk import Bulk, bulk
    from .api.carrying import carry
    from .api.context import Context, ctx, group
    from .api.environment import TaskEnvironment
    from .api.hosting import Worker
    from .api.limiting import Limit, report_cost
    from .api.limits_known import LimitState, limits
    from .api.listing import RunPage, runs
    from .api.logs import ReplayFilter, log
    from .api.mapping import map
    from .api.patching import deprecate, patched
    from .api.pausing import pause_task, paused_tasks, resume_task
    from .api.publishing import publish
    from .api.queueing import Queue, Rate
    from .api.queues_known import QueueState, queues
    from .api.receiving import new_condition, receive
    from .api.resources import Image, Resources, Secret
    from .api.run import Run, run
    from .api.scheduling import TaskSchedule, schedules
    from .api.settings import Cache, Timeout
    from .api.streaming import StreamItem, stream
    from .api.submitting import submit, with_runcontext
    from .api.task import Task
    from .api.trace import trace
    from .api.triggers import Cron, FixedRate, Trigger, TriggerTime
    from .core.ground.model import Status
    from .core.ground.spec import Backoff, RetryStrategy
    from .runtime import init
    from .sql import transaction

__version__ = "0.1.0"

__all__ = [
    "Backoff",
    "Batch",
    "Bulk",
    "Cache",
    "Context",
    "Cron",
    "FixedRate",
    "Image",
    "Limit",
    "LimitState",
    "Queue",
    "QueueState",
    "Rate",
    "ReplayFilter",
    "Resources",
    "RetryStrategy",
    "Run",
    "RunPage",
    "Secret",
    "Status",
    "StreamItem",
    "Task",
    "TaskEnvironment",
    "TaskSchedule",
    "Timeout",
    "Trigger",
    "TriggerTime",
    "Worker",
    "bulk",
    "carry",
    "ctx",
    "deprecate",
    "durable",
    "errors",
    "extras",
    "group",
    "init",
    "io",
    "limits",
    "log",
    "map",
    "new_condition",
    "patched",
    "pause_task",
    "paused_tasks",
    "publish",
    "queues",
    "receive",
    "report",
    "report_cost",
    "resume_task",
    "run",
    "runs",
    "schedules",
    "sql",
    "stream",
    "submit",
    "trace",
    "transaction",
    "with_runcontext",
]

_HOMES = {
    "Backoff": ".core.ground.spec",
    "Batch": ".api.batching",
    "Bulk": ".api.bulk",
    "Cache": ".api.settings",
    "Context": ".api.context",
    "Cron": ".api.triggers",
    "FixedRate": ".api.triggers",
    "Image": ".api.resources",
    "Limit": ".api.limiting",
    "LimitState": ".api.limits_known",
    "Queue": ".api.queueing",
    "QueueState": ".api.queues_known",
    "Rate": ".api.queueing",
    "ReplayFilter": ".api.logs",
    "Resources": ".api.resources",
    "RetryStrategy": ".core.ground.spec",
    "Run": ".api.run",
    "RunPage": ".api.listing",
    "Secret": ".api.resources",
    "Status": ".core.ground.model",
    "StreamItem": ".api.streaming",
    "Task": ".api.task",
    "TaskEnvironment": ".api.environment",
    "TaskSchedule": ".api.scheduling",
    "Timeout": ".api.settings",
    "Trigger": ".api.triggers",
    "TriggerTime": ".api.triggers",
    "Worker": ".api.hosting",
    "bulk": ".api.bulk",
    "carry": ".api.carrying",
    "ctx": ".api.context",
    "deprecate": ".api.patching",
    "group": ".api.context",
    "init": ".runtime",
    "log": ".api.logs",
    "limits": ".api.limits_known",
    "map": ".api.mapping",
    "new_condition": ".api.receiving",
    "patched": ".api.patching",
    "pause_task": ".api.pausing",
    "paused_tasks": ".api.pausing",
    "publish": ".api.publishing",
    "queues": ".api.queues_known",
    "receive": ".api.receiving",
    "report_cost": ".api.limiting",
    "resume_task": ".api.pausing",
    "run": ".api.run",
    "runs": ".api.listing",
    "schedules": ".api.scheduling",
    "stream": ".api.streaming",
    "submit": ".api.submitting",
    "trace": ".api.trace",
    "transaction": ".sql",
    "with_runcontext": ".api.submitting",
}


def __getattr__(name: str) -> Any:
    # Late, so that `import perdure` costs little; afterwards the module holds the name.
    home = _HOMES.get(name)
    if home is not None:
        value = getattr(importlib.import_module(home, __name__), name)
    elif name in ("durable", "errors", "extras", "io", "report", "sql"):
        value = importlib.import_module(f".{name}", __name__)
    else:
        raise AttributeError(f"module 'perdure' has no attribute {name!r}{_elsewhere(name)}", name=name)
    globals()[name] = value
    return value


def _elsewhere(name: str) -> str:
    """Where a public name of a submodule is, as the end of a message."""
    for module in () if name.startswith("_") else ("errors", "extras", "durable"):
        if name in importlib.import_module(f".{module}", __name__).__all__:
            return f"; it is perdure.{module}.{name}"
    return ""


def __dir__() -> list[str]:
    return sorted(__all__)


if os.environ.get("PERDURE_STRICT") == "1":
    importlib.import_module(".testing.strict", __name__).install()

"""A task that workers find."""

from __future__ import annotations

import perdure

env = perdure.TaskEnvironment("jobs")


@env.task
def job(n: int) -> int:
    return n + 1


@env.task
def named(connection: str) -> str:
    return connection

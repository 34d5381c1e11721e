"""Tasks whose calls fail at first and ask for patience, for workers that are killed during the pauses."""

from __future__ import annotations

import asyncio
import json
import os

from served import log

import perdure

env = perdure.TaskEnvironment(name="pausing")
PAUSE = 2.0
PATIENT = perdure.RetryStrategy(3, perdure.Backoff(PAUSE, 1.0, jitter=0.25))


class Busy(Exception):
    retry_after = PAUSE


def attempt(tag: str) -> str:
    log("attempt", tag)
    with open(os.environ["LAB_LOG"]) as stream:
        count = sum(json.loads(line)[2:4] == ["attempt", tag] for line in stream)
    if count <= 2:
        raise Busy(tag)
    return tag


@perdure.trace(retries=PATIENT)
def sync_call(tag: str) -> str:
    return attempt(tag)


@perdure.trace(retries=PATIENT)
async def call(tag: str) -> str:
    return attempt(tag)


@perdure.trace(retries=perdure.RetryStrategy(2, perdure.Backoff(0.5)))
def hopeless(tag: str) -> str:
    log("attempt", tag)
    raise ValueError(tag)


@perdure.trace
def step(tag: str) -> str:
    log("step", tag)
    return tag


@env.task(retries=PATIENT)
async def child(tag: str) -> str:
    return attempt(tag)


@env.task
def sync_parent(tag: str) -> str:
    step(f"{tag}.before")
    found = sync_call(tag)
    step(f"{tag}.after")
    return found


@env.task
def gives_up(tag: str) -> str:
    try:
        return hopeless(tag)
    except ValueError:
        return "gave up"


@env.task
async def parent(tag: str) -> list[str]:
    return list(await asyncio.gather(call(f"{tag}.a"), child(f"{tag}.b")))


@env.task(retries=PATIENT)
def whole(tag: str) -> str:
    return attempt(tag)


@env.task
async def mapped(tag: str) -> list[str]:
    return [value async for value in perdure.map.aio(child, [f"{tag}.0", f"{tag}.1"])]

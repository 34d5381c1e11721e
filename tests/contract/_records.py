"""Records for the contract tests, complete but short to write."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from perdure.core.ground.model import (
    NO_PARENT,
    ROOT,
    Action,
    ActionState,
    Claim,
    Created,
    CreateRun,
    Entry,
    Finish,
    Kind,
    NewRun,
    Result,
    RunRow,
    RunWrites,
    Segment,
    Status,
    WorkerRow,
)
from perdure.core.ground.ports import Store
from perdure.core.journal.segment import Chain, again, mark_of

TOKEN = b"t" * 16
OTHER = b"o" * 16
DONE = Finish(Status.SUCCEEDED, int(Result.VALUE), b"result", 99)


def new_run(name: str = "run", *, task: str = "etl.main", inputs: bytes = b"in", reuse: str | None = None) -> NewRun:
    uid = name.encode().ljust(16, b"\0")
    return NewRun(uid, name, task, f"etl.py::etl::{task}", inputs, inputs.ljust(16, b"#"), 1_000, reuse, '{"k":"v"}')


def created(store: Store, name: str = "run", token: bytes | None = TOKEN, **fields: Any) -> RunRow:
    """The run of that name, submitted and (unless `token` is `None`) claimed."""
    claim = None if token is None else Claim(token, "worker-1")
    [answer] = store.commit([CreateRun(new_run(name, **fields), claim)])
    assert isinstance(answer, Created)
    return answer.run


def entry(n: int, action: int = ROOT, value: bytes | None = b"v", **fields: Any) -> Entry:
    plain = Entry(
        action, n, 0, n - 1, 0, 0, int(Kind.TRACE), int(Result.VALUE), b"f" * 16, "etl.fetch", None, value,
        None, 1, None, None, 5_000 + n, 7,
    )  # fmt: skip
    return replace(plain, **fields)


def action(run: int, number: int, parent: int = ROOT, **fields: Any) -> Action:
    plain = Action(
        run, parent, number, 0, number, 0, int(Kind.TASK), b"f" * 16, "etl.child", None, b"args", 1, 5_000, 1, 0,
        None, None, None,
    )  # fmt: skip
    return plain._replace(**fields)


def root_action(run: int) -> Action:
    return action(run, ROOT, NO_PARENT)


def state(run: int, number: int, parent: int = ROOT, attempt: int = 2, wake_at: int | None = 77) -> ActionState:
    return ActionState(run, parent, number, attempt, 1, wake_at, 78, "boot-1")


def segment(*entries: Entry, token: bytes = TOKEN) -> Segment:
    """These entries as the first segment of some run: a store keeps the bytes and does not look at the chain."""
    return Chain("run", b"u" * 16).add(entries, mark_of(token))


def entries(store: Store, run: int) -> list[Entry]:
    """The entries of a run, without a look at the chain."""
    found = list(store.segments(run))
    return [entry for kept in found for entry in again([kept], None)]


def writes(run: int, *entries: Entry, token: bytes = TOKEN, finish: Finish | None = None) -> RunWrites:
    return RunWrites(run, token, [segment(*entries, token=token)] if entries else (), finish=finish)


def worker(name: str = "worker-1", lease: int = 10) -> WorkerRow:
    return WorkerRow(name, 123, "host", "boot-1", lease, 5)

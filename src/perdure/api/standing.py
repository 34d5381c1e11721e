"""Why a run stands still, in one sentence for people, from what the store knows."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

from msgspec import json

from .. import runtime
from ..core.ground.clock import US
from ..core.ground.model import FINISHED, NEVER, WAITS, Action, Kind, Queued, Refusal, Result, RunRow, Serving, Status
from ..core.ground.values import describe_error
from ..core.journal.segment import journal_of
from ..core.process.worker import Worker
from ..errors import GeneratorDivergedError, NonDeterminismError, StoreError, UsageError
from .messages import asked_by, shown_box
from .status import derived_status

SHOWN = 3
"""Actions under way that a sentence names."""
HELD = 2_000
"""Driven runs that a sentence counts to find a free place."""
LOOK_BACK = 5_000
"""Entries of a journal up to which a sentence looks for the error of a failed attempt."""
LONGEST_CAUSE = 200
"""Characters up to which a sentence joins the lines of an error's message."""
MISMATCHES = (NonDeterminismError.__name__, GeneratorDivergedError.__name__)
"""The errors that say that the code does not fit what is recorded."""


def standing(row: RunRow, status: Status | None = None) -> str:
    """Why the run does not move, or what the run does right now; for a run that has ended, how the run ended.

    Args:
        row: the stored record of the run.
        status: the status for people, where the caller knows the status already.
    """
    worker = runtime.worker()
    status = derived_status(row) if status is None else status
    if status in FINISHED or status == Status.MOVED:
        return _end(row)
    told = _unfinished(worker, row, status)
    if row.cancel is None:
        return told
    reason = f" ({row.cancel})" if row.cancel else ""
    return f"The run was asked to cancel{reason}. {told}"


def _end(row: RunRow) -> str:
    if row.status == Status.FAILED and row.value is not None and row.result == Result.ERROR:
        try:
            kind, message, _ = describe_error(row.value)
        except UsageError:
            return "The run failed; its error cannot be read."
        first = _joined(message)
        return f"The run failed: {kind.rpartition('.')[2]}: {first}" if first else f"The run failed: {kind}"
    if row.status == Status.CANCELLED:
        return f"The run was cancelled: {row.cancel}" if row.cancel else "The run was cancelled."
    if row.status == Status.MOVED:
        return f"The run was moved to {row.worker}."
    return {Status.SUCCEEDED: "The run succeeded.", Status.ABORTED: "The run was aborted."}.get(row.status, "")


def _joined(message: str) -> str:
    """The lines of a message as one, as many as are shown: the first line of several is often only a heading."""
    lines = [line.strip() for line in message.splitlines() if line.strip()]
    shown = lines[0] if lines else ""
    for line in lines[1:]:
        if len(shown) + len(line) >= LONGEST_CAUSE:
            return f"{shown} …"
        shown = f"{shown} {line}"
    return shown


def _unfinished(worker: Worker, row: RunRow, status: Status) -> str:
    now = worker.clock.wall()
    since = worker.store.paused_tasks().get(row.task) if status in (Status.QUEUED, Status.PAUSED) else None
    if since is not None:
        return f"Task {row.task} is paused since {moment_text(since)}, until a person resumes the task."
    if status == Status.QUEUED:
        return _queued(worker, row, now)
    if status == Status.PAUSED and row.paused is not None:
        return f"The run is paused since {moment_text(row.paused)}, until a person resumes the run."
    if status == Status.INTERRUPTED:
        refused = worker.store.refusal(row.id)
        if refused is not None:
            return _refused(worker, row, refused)
        unserved = _unserved(worker, row.task)
        up = f"a worker that serves task {row.task} takes the run up" if unserved is None else unserved
        return f"No process drives the run{_last_holder(row)}: {up}, or resume the run."
    waits = [one for one in worker.store.open_actions(row.id) if one.parent != -1 or one.wake_at is not None]
    queued = worker.store.queued(row.id)
    if queued:
        return _limited(queued)
    if status == Status.WAITING:
        return _waiting(row, waits)
    if status == Status.SLEEPING:
        return _sleeping(worker, row, waits, now)
    return _running(worker, row, waits)


def _refused(worker: Worker, row: RunRow, refusal: Refusal) -> str:
    """Why the last process that tried could not drive the run, and when the next try comes."""
    kind, message = refusal.error.rpartition(".")[2], _fault(refusal)
    at = refusal.place.rpartition("/")[2].partition(" (")[0]
    cause = f"{kind}: {message}" if message else kind
    where = f" at {at}" if at and at not in message else ""
    tries = f"tried {refusal.tries} time{'s' if refusal.tries > 1 else ''}"
    if refusal.again is not None and worker.is_alive(refusal.worker):
        who = f"{_who(refusal.worker)} cannot drive the run ({tries}, again at {moment_text(refusal.again)})"
        return f"{who}: {cause}{where}"
    rest = f"A worker that serves task {row.task} tries again, or resume the run."
    return (
        f"{_who(refusal.worker)} could not drive the run ({tries}, last at {moment_text(refusal.at)}): "
        f"{cause}{where}{'' if (cause + where).endswith('.') else '.'} {rest}"
    )


def _fault(refusal: Refusal) -> str:
    """The message in one line: both sides of a mismatch, otherwise the first line."""
    lines = [line.strip() for line in refusal.message.splitlines()]
    sides = [line for line in lines if line.startswith(("expected: ", "received: "))]
    if len(sides) == 2:
        return ", ".join(side.replace(":", "", 1) for side in sides)
    return lines[0] if lines else ""


def is_mismatch(refusal: Refusal | None) -> bool:
    """Whether the code does not fit what the run has recorded."""
    return refusal is not None and refusal.error.rpartition(".")[2] in MISMATCHES


def ways_out(row: RunRow, refusal: Refusal) -> list[str]:
    """What a person can do about a run that could not be driven: a sentence and its command in each line."""
    if not is_mismatch(refusal):
        return [f"Once the cause is gone: perdure resume {row.name}"]
    return [
        f"Under code that fits: perdure resume {row.name}",
        f"Under this code, with the recorded outcomes that are still asked for: perdure resume {row.name} --accept",
        f"As a new run, with the outcomes that succeeded: perdure rerun {row.name} --recover",
    ]


def _who(worker: str) -> str:
    host, _, pid = worker.rpartition("-")[0].rpartition("-")
    return f"Worker {pid} on {host}" if host and pid else f"Worker {worker}"


def _queued(worker: Worker, row: RunRow, now: int) -> str:
    start_by = worker.store.start_by(row.id)
    late = "" if start_by is None else f" It is cancelled if it has not begun by {moment_text(start_by)}."
    if row.wake_at is not None and row.wake_at > now:
        return f"The run begins at {moment_text(row.wake_at)} at the earliest.{late}"
    since = moment_text(max(row.wake_at or 0, row.created_at))
    wait = None if row.queue is None else _waits_for_slot(worker, row.queue)
    if wait is not None:
        unserved = _unserved(worker, row.task)
        more = "" if unserved is None else f" Besides, {unserved}."
        return f"The run is due since {since}, and {wait}{more}{late}"
    return f"The run is due since {since}, and {_untaken(worker, row.task)}{late}"


def _waits_for_slot(worker: Worker, name: str) -> str | None:
    """What a run of the queue waits for; `None`: not for the queue as a whole."""
    queue = worker.store.queue(name)
    if queue is None:
        return None
    load = worker.store.queue_load(name)
    among = f"{load.waiting} runs wait" if load.waiting != 1 else "no other run waits"
    if queue.paused is not None:
        return f"waits for queue {name}, which is paused since {moment_text(queue.paused)}; {among}."
    limit = json.decode(queue.override or "{}").get("concurrency", json.decode(queue.declared).get("concurrency"))
    if limit is None or load.held < limit:
        return None
    return f"waits for one of the {limit} slots of queue {name}, which are in use; {among}."


def _limited(queued: list[Queued]) -> str:
    """What a run waits for whose calls wait for limits."""
    first = queued[0]
    place = "and is the next" if first.ahead == 0 else f"behind {first.ahead} other{'s' if first.ahead > 1 else ''}"
    more = f" {len(queued) - 1} more of its calls wait for limits." if len(queued) > 1 else ""
    return f"A call waits for limit {first.name} since {moment_text(first.since)}, {place}.{more}"


def _untaken(worker: Worker, task: str) -> str:
    unserved = _unserved(worker, task)
    if unserved is not None:
        return f"{unserved}."
    serving = _serving(worker, task)
    held = Counter(run.worker for run in worker.store.runs(statuses={Status.RUNNING}, limit=HELD))
    free = [one for one, places in serving.items() if held[one] < places]
    if len(serving) == 1:
        return f"the 1 worker that serves it {'has not taken the run yet' if free else 'is full'}."
    return f"the {len(serving)} workers that serve it {'have not taken the run yet' if free else 'are full'}."


def _serving(worker: Worker, task: str | None = None) -> dict[str, int]:
    """The live workers that serve a task, or any, and how many runs each may hold."""
    found = {}
    for row in worker.store.workers():
        if row.serves and worker.lives(row):
            serving = json.decode(row.serves, type=Serving)
            if task is None or task in serving.tasks:
                found[row.id] = serving.places
    return found


def _unserved(worker: Worker, task: str) -> str | None:
    """That no worker drives runs of the task; `None`: one does."""
    if not _serving(worker):
        return "no worker is alive: start one with `perdure serve`"
    if not _serving(worker, task):
        return f"no live worker serves task {task}: start one with `perdure serve` and its file"
    return None


def _last_holder(row: RunRow) -> str:
    if row.worker is None:
        return ""
    host, _, pid = row.worker.rpartition("-")[0].rpartition("-")
    return f" since process {pid} on {host} has gone" if host and pid else ""


def _waiting(row: RunRow, waits: list[Action]) -> str:
    boxes = [one for one in waits if one.kind in WAITS]
    if not boxes:
        return "The run waits for a message."
    first = boxes[0]
    asked = asked_by(first.inputs)
    prompt = f": {asked.prompt}" if asked.prompt else ""
    until = f" It gives up at {moment_text(first.wake_at)}." if first.wake_at is not None else ""
    more = f" {len(boxes) - 1} more waits are open." if len(boxes) > 1 else ""
    stop = "" if prompt.endswith(("?", ".", "!")) else "."
    return f"The run waits for {shown_box(first.name)}{prompt}{stop}{until}{more}"


def _sleeping(worker: Worker, row: RunRow, waits: list[Action], now: int) -> str:
    timed = [
        one for one in waits
        if one.wake_at is not None and one.state is None and one.kind != Kind.TIMEOUT and now < one.wake_at < NEVER
    ]  # fmt: skip
    if not timed:
        until = f" until {moment_text(row.wake_at)}" if row.wake_at is not None and row.wake_at < NEVER else ""
        return f"The run sleeps{until}."
    first = min(timed, key=lambda one: one.wake_at or 0)
    assert first.wake_at is not None
    if first.kind == Kind.SLEEP:
        return f"The run sleeps until {moment_text(first.wake_at)}."
    told = f"{first.name} failed, and attempt {first.attempt} begins at {moment_text(first.wake_at)}."
    return told + _last_error(worker, row, first.action)


def _last_error(worker: Worker, row: RunRow, action: int) -> str:
    """The error of the last failed attempt of a task, as a sentence; empty where it is not known."""
    if worker.store.journal_length(row.id) > LOOK_BACK:
        return ""
    found: bytes | None = None
    try:
        for entry in journal_of(worker.store, row):
            if entry.action == action and entry.result == Result.FAILED and entry.value is not None:
                found = entry.value
        if found is None:
            return ""
        kind, message, _ = describe_error(found)
    except (StoreError, UsageError):
        return ""
    first = message.partition("\n")[0]
    return f" It failed with {kind.rpartition('.')[2]}{': ' if first else ''}{first}"


def _running(worker: Worker, row: RunRow, open_: list[Action]) -> str:
    holder = worker.holder(row)
    where = f"Process {holder.pid} on {holder.host} drives the run" if holder is not None else "The run is driven"
    names = [one.name for one in open_ if one.kind in (Kind.TASK, Kind.CONTAINER) and one.parent != -1]
    if not names:
        return f"{where}."
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return f"{where}; under way: {shown}."


def moment_text(us: int) -> str:
    """A time for people, in the zone of this process, with the offset."""
    return datetime.fromtimestamp(us // US, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S %z")

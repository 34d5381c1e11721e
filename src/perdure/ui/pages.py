"""The data of each page, as JSON data. Times are texts in ISO 8601 and UTC, lengths are seconds."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any, Final

from msgspec import json

from .. import runtime
from ..api import looking
from ..api.bulk import OPERATIONS
from ..api.ending import useless_wake
from ..api.hosting import served_tasks
from ..api.jsonable import jsonable
from ..api.limits_known import limits
from ..api.looking import ActionNode, Picture
from ..api.messages import ConditionInfo, conditions, wait_for_box
from ..api.queues_known import queues
from ..api.run import Run
from ..api.scheduling import schedules
from ..api.standing import is_mismatch
from ..api.task import Task
from ..cli.logs import record_line
from ..cli.output import iso, run_data
from ..cli.queues import settings_words
from ..core.ground.clock import US
from ..core.ground.model import FINISHED, UNDRIVEN, Kind, Result, RunRow, Serving, Status, WorkerRow
from ..core.run.mailbox import box_of
from ..errors import UsageError
from . import forms
from .files import listed
from .filters import filter_of, filter_texts, number, place_of
from .settings import UiSettings
from .values import LONGEST, error_data, pretty

PAGE: Final = 50
"""Runs on a page."""
ROWS: Final = 200
"""Actions on a page."""
LOG_LINES: Final = 200
"""Lines of a log on the page of a run."""
INPUTS_LINE: Final = 60
"""Characters of an action's inputs in the tree."""
GROUPS: Final = 30
"""Names of actions in the summary of a run."""

Query = Mapping[str, str]


def tasks_of(files: tuple[str, ...]) -> Mapping[str, Task[..., Any]]:
    """The tasks of files and modules; none without files."""
    return served_tasks(files) if files else {}


# -- runs ------------------------------------------------------------------------------------------------------


def runs_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """A page of runs, newest first, by the filters in the query."""
    filters = filter_texts(asked)
    after = asked.get("after", "")
    below, problem = number(after, "after") if after else None, ""
    try:
        page = looking.search(filter_of(filters), below, PAGE)
    except UsageError as error:
        page, problem = looking.RunSearch([], None, None), str(error)
    return {
        "problem": problem,
        "invalid": bool(problem),
        "runs": [shown_run(ui, row) for row in page.rows],
        "after": page.after,
        "reached": iso(page.reached),
        "filters": filters,
        "statuses": [str(status) for status in Status],
        "operations": list(OPERATIONS) if any(filters.values()) and not problem else [],
        "first": not after,
        "store_exists": looking.store_exists(),
    }


def shown_run(ui: UiSettings, row: RunRow) -> dict[str, Any]:
    """A run as a list shows it."""
    info = looking.info_of(row)
    began, ended = info.started_at, info.ended_at
    now = runtime.worker().clock.wall()
    end = ended if ended is not None else now if info.status not in FINISHED else None
    return {
        **run_data(info),
        "inputs_line": ui.mask.inputs_line(row.inputs),
        "duration": (end - began) / US if began is not None and end is not None else None,
    }


# -- a run -----------------------------------------------------------------------------------------------------


def run_page(ui: UiSettings, name: str, asked: Query) -> dict[str, Any]:
    """A run: a part of its actions with places on the timeline, the summary by name, and the chosen action."""
    picture = looking.picture(name)
    only, order = asked.get("only", ""), asked.get("order", "")
    first = number(asked.get("from", "0"), "from")
    wanted = _chosen(picture, only, order)
    part = wanted[first : first + ROWS]
    begin, end = _range(picture)
    rows = [_action(ui, picture.node(position), position, begin, end) for position in part]
    at = asked.get("at", "0")
    chosen = _detail(ui, picture, number(at, "at"))
    return {
        "run": {**shown_run(ui, picture.row), "uid": picture.row.uid.hex()},
        "actions": rows,
        "total": picture.total,
        "matching": len(wanted),
        "first_row": first,
        "previous": max(0, first - ROWS) if first else None,
        "next": first + ROWS if first + ROWS < len(wanted) else None,
        "only": only,
        "order": order,
        "groups": _groups(picture),
        "chosen": chosen,
        "waits": [_condition(one) for one in conditions() if one.run == name],
        "published": ui.mask.masked(_published(name)),
        "length": (end - begin) / US,
        "acts": _acts(picture),
    }


def _acts(picture: Picture) -> list[str]:
    """The operations that a run allows."""
    run = picture.run
    status = run.status
    if status in FINISHED:
        again = ["rerun", "recover"]
        return ["resume", *again] if status == Status.FAILED else again
    if status == Status.MOVED:
        return []
    found = ["cancel", "abort"]
    if status == Status.PAUSED:
        return ["resume", *found]
    found = ["pause", *found]
    if picture.row.status in UNDRIVEN and useless_wake(picture.row) is None:
        return ["wake", *found]
    if status != Status.INTERRUPTED:
        return found
    return ["resume", *(["accept", "recover"] if is_mismatch(run.refusal) else []), *found]


def _chosen(picture: Picture, only: str, order: str) -> list[int]:
    positions = range(picture.total)
    if only == "failed":
        found = [one for one in positions if picture.node(one).status == "FAILED"]
    elif only == "open":
        found = [one for one in positions if picture.node(one).took is None]
    elif only:
        found = [one for one in positions if picture.node(one).name == only]
    else:
        found = list(positions)
    if order == "slowest":
        found.sort(key=lambda one: -(picture.node(one).took or 0))
    return found


def _range(picture: Picture) -> tuple[int, int]:
    row = picture.row
    begin = row.started_at if row.started_at is not None else row.created_at
    end = row.ended_at
    if end is None and picture.run.status == Status.INTERRUPTED:
        # Nothing has happened since the process went: the last sign of life is the last thing that was stored.
        end = max((_last_sign(picture.node(one)) for one in range(picture.total)), default=begin)
    return begin, max(runtime.worker().clock.wall() if end is None else end, begin + 1)


def _last_sign(node: ActionNode) -> int:
    return 0 if node.at is None else node.at + (node.took or 0)


def _action(ui: UiSettings, node: ActionNode, position: int, begin: int, end: int) -> dict[str, Any]:
    at = begin if node.at is None else node.at
    length = end - at if node.took is None and node.at is not None else node.took or 0
    if node.took is None and node.until is not None and node.kind == "sleep":
        length = max(0, min(length, node.until - at))
    whole = end - begin
    left = min(max((at - begin) * 1000 // whole, 0), 1000)
    width = max(2, min(length * 1000 // whole, 1000 - left))
    error = error_data(node.error)
    return {
        "position": position,
        "parent": node.parent,
        "depth": node.depth,
        "action": node.action,
        "entry": node.entry,
        "kind": node.kind,
        "name": node.name,
        "group": node.label,
        "status": node.status,
        "attempts": node.attempts,
        "start": iso(node.at),
        "duration": None if node.took is None else node.took / US,
        "until": iso(node.until),
        "items": node.items,
        "discarded": node.discarded,
        "earlier": node.earlier,
        "reused": node.reused,
        "cached": _is_cached(node),
        "inputs_line": ui.mask.inputs_line(node.inputs, INPUTS_LINE) if node.inputs else "",
        "phase": _phase(node),
        "bar": [min(left, 998), width],
        "error": None if error is None else f"{error['type'].rpartition('.')[2]}: {error['message']}",
    }


def _is_cached(node: ActionNode) -> bool:
    """Whether the outcome came without an attempt. A run that has not begun has no attempt either, but no outcome."""
    return node.attempts == 0 and node.entry is not None and node.status in ("SUCCEEDED", "FAILED")


def _phase(node: ActionNode) -> str:
    """The look of an action on the timeline."""
    if node.discarded or node.earlier or node.status == "UNFINISHED":
        return "dropped"
    if node.status == "FAILED":
        return "failed"
    if node.kind == "sleep" or node.status == "SLEEPING":
        return "sleeping"
    if node.kind in ("condition", "receive") or node.status == "WAITING":
        return "waiting"
    if node.reused or _is_cached(node):
        return "reused"
    if node.attempts == 0:
        return "not begun"
    return "container" if node.kind == "container" else "executing"


def _groups(picture: Picture) -> list[dict[str, Any]]:
    return [
        {
            "name": one.name, "count": one.actions, "failed": one.failed, "open": one.open, "time": one.time / US,
            "most": one.most / US,
        }
        for one in looking.summed(picture)[:GROUPS]
    ]  # fmt: skip


def _detail(ui: UiSettings, picture: Picture, position: int) -> dict[str, Any]:
    if position >= picture.total:
        raise UsageError(f"run {picture.run.name!r} has {picture.total} actions; there is no number {position}")
    node = picture.node(position)
    begin, end = _range(picture)
    path = []
    above = node.parent
    while above >= 0:
        path.append({"position": above, "name": picture.node(above).name})
        above = picture.node(above).parent
    return {
        **_action(ui, node, position, begin, end),
        "inputs": _shown(ui.mask.inputs(node.inputs), node.inputs),
        "outcome": _shown(ui.mask.value(node.value), node.value),
        "failure": error_data(node.error),
        "failures": [{**(error_data(one.error) or {}), "at": iso(one.at)} for one in node.failures],
        "files": listed(ui.mask, node),
        "log": _log(picture.run.name, node.action),
        "path": path[::-1],
    }


def _log(name: str, action: int | None) -> list[dict[str, Any]]:
    """The last lines of a task's or a container's logs, the last attempt at the end."""
    if action is None:
        return []
    found = [
        {"attempt": log.attempt, "at": iso(record.at or None), "source": record.source, "line": record_line(record)}
        for log in looking.log_files(name, str(action))
        for record in looking.last_records(log, LOG_LINES)
    ]
    return found[-LOG_LINES:]


def _shown(data: Any, stored: bytes | None) -> dict[str, Any] | None:
    if stored is None:
        return None
    text, cut = pretty(data)
    # A page must stay small, also as JSON: the download has the rest.
    return {"text": text, "cut": cut, "value": data if len(stored) <= LONGEST else None}


def _published(name: str) -> dict[str, Any]:
    found: dict[str, Any] = jsonable(Run.get(name).published())
    return found


def value_of(ui: UiSettings, name: str, position: int, which: str) -> str:
    """The whole inputs or outcome of an action as JSON text, for a download."""
    picture = looking.picture(name)
    if not 0 <= position < picture.total or which not in ("inputs", "outcome"):
        raise UsageError(f"run {name!r} has no such value")
    node = picture.node(position)
    data = ui.mask.inputs(node.inputs) if which == "inputs" else ui.mask.value(node.value)
    return pretty(data, None).text


# -- conditions ------------------------------------------------------------------------------------------------


def conditions_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The waits of all unfinished runs, and messages that no call has asked for."""
    found = conditions() if looking.store_exists() else []
    return {"conditions": [_condition(one) for one in found]}


def _condition(one: ConditionInfo) -> dict[str, Any]:
    return {
        "run": one.run, "kind": one.kind, "name": one.name, "prompt": one.prompt, "description": one.description,
        "type": one.type, "since": iso(one.since), "until": iso(one.until), "unread": one.unread, "waits": one.waits,
    }  # fmt: skip


def condition_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The page on which a person answers a wait of a run."""
    name, kind, box_name = asked.get("run", ""), asked.get("kind", "condition"), asked.get("box", "")
    row = looking.find(name)
    found = [one for one in conditions() if (one.run, one.kind, one.name) == (name, kind, box_name)]
    asks = wait_for_box(row.name, box_of(_kind(kind), box_name))
    shape = asks.shape if asks is not None else "Any"
    return {
        "run": shown_run(ui, row),
        "condition": _condition(found[0]) if found else None,
        "kind": kind,
        "name": box_name,
        "fields": [field._asdict() for field in forms.message_fields(shape)],
        "yes_no": shape == "bool" and kind == "condition",
    }


def _kind(text: str) -> Kind:
    if text not in ("condition", "mailbox"):
        raise UsageError(f"a message is for a condition or a mailbox, not {text!r}")
    return Kind.CONDITION if text == "condition" else Kind.RECEIVE


# -- start -----------------------------------------------------------------------------------------------------


def start_page(ui: UiSettings, asked: Query, given: Query | None = None, problem: str = "") -> dict[str, Any]:
    """The tasks that can be started, and the form of the chosen task."""
    texts = given or {}
    chosen = asked.get("task", "")
    task = ui.tasks.get(chosen)
    if chosen and task is None:
        raise UsageError(f"no task {chosen!r} is loaded here; name its file: perdure ui FILE")
    return {
        "tasks": [{"name": name, "doc": _doc(one)} for name, one in ui.tasks.items()],
        "task": None if task is None else {"name": chosen, "doc": _doc(task)},
        "fields": [] if task is None else _fields(ui, task, texts, problem),
        "name": texts.get("name", ""),
        "tags": texts.get("tags", ""),
        "at": texts.get("at", ""),
        "problem": problem,
        "invalid": bool(problem),
    }


def _fields(ui: UiSettings, task: Task[..., Any], texts: Query, problem: str) -> list[dict[str, Any]]:
    """The fields of a form, each with what is wrong with its text."""
    found = [one._asdict() for one in forms.task_fields(task, texts, ui.mask)]
    for one in found:
        option = f"--{one['name'].replace('_', '-')}"
        one["problem"] = problem if problem.startswith(f"input {option} of ") else ""
    return found


def _doc(task: Task[..., Any]) -> str:
    return (task.fn.__doc__ or "").strip().partition("\n")[0]


# -- workers, schedules, storage -------------------------------------------------------------------------------


def workers_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The workers that the store knows, and the runs that each drives."""
    if not looking.store_exists():
        return {"workers": []}
    worker = runtime.worker()
    driven: dict[str, list[str]] = {}
    for row in worker.store.runs(statuses={Status.RUNNING}, limit=looking.PAGE):
        if row.worker is not None:
            driven.setdefault(row.worker, []).append(row.name)
    known = sorted(worker.store.workers(), key=lambda one: one.started_at)
    return {"workers": [_worker(one, driven.get(one.id, [])) for one in known]}


def _worker(row: WorkerRow, driven: list[str]) -> dict[str, Any]:
    worker = runtime.worker()
    serving = json.decode(row.serves, type=Serving) if row.serves else None
    return {
        "id": row.id,
        "pid": row.pid,
        "host": row.host,
        "alive": worker.lives(row),
        "started_at": iso(row.started_at),
        "lease": row.lease / US,
        "runs": driven,
        "here": row.id == worker.id,
        "serves": [] if serving is None else serving.tasks,
        "places": None if serving is None else serving.places,
    }


def queues_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The queues of the store: the settings in force, what holds a slot and what waits."""
    return {
        "queues": [
            {
                "name": one.name,
                "running": one.running,
                "waiting": one.waiting,
                "paused": None if one.paused is None else one.paused.isoformat(),
                "declared": settings_words(one.declared),
                "override": settings_words(one.override),
            }
            for one in queues()
        ]
    }


def limits_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The limits of calls of the store: the settings in force, what holds a slot and what waits."""
    return {
        "limits": [
            {
                "name": one.name,
                "held": one.held,
                "waiting": one.waiting,
                "declared": settings_words(one.declared),
                "override": settings_words(one.override),
            }
            for one in limits()
        ]
    }


def failures_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The newest failed runs by cause: the task, the class of the error, and the line that raised."""
    page = looking.search(looking.RunFilter({Status.FAILED}), None, looking.LOOK)
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in page.rows:
        error = error_data(row.value) if row.result == Result.ERROR else None
        kind = "unknown" if error is None else str(error["type"])
        where = place_of(error)
        group = groups.setdefault((row.task, kind, where), {
            "task": row.task, "error": kind, "where": where, "count": 0, "newest": row.name, "at": iso(row.ended_at),
            "message": "" if error is None else error["message"],
        })  # fmt: skip
        group["count"] += 1
    return {
        "groups": sorted(groups.values(), key=lambda one: -one["count"]),
        "refused": _refused(),
        "looked": len(page.rows),
        "more": page.after is not None,
    }


def _refused() -> list[dict[str, Any]]:
    """The runs that no process could drive, by cause."""
    groups: dict[tuple[str, str, str], dict[str, Any]] = {}
    for row in looking.search(looking.RunFilter({Status.INTERRUPTED}), None, looking.LOOK).rows:
        found = runtime.worker().store.refusal(row.id)
        if found is not None:
            group = groups.setdefault((row.task, found.error, found.place), {
                "task": row.task, "error": found.error, "where": found.place, "count": 0, "newest": row.name,
                "at": iso(found.at), "message": looking.info_of(row).why,
            })  # fmt: skip
            group["count"] += 1
    return sorted(groups.values(), key=lambda one: -one["count"])


def schedules_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """The schedules of the store."""
    return {
        "schedules": [
            {
                "name": one.name,
                "task": one.task,
                "rule": one.rule,
                "next": [at.isoformat() for at in one.next],
                "paused": None if one.paused is None else one.paused.isoformat(),
                "fired": None if one.fired is None else one.fired.isoformat(),
                "overdue": None if one.overdue is None else one.overdue.isoformat(),
                "loaded": one.task in ui.tasks,
            }
            for one in schedules()
        ]
    }


def storage_page(ui: UiSettings, asked: Query) -> dict[str, Any]:
    """Where the store is, and how much it holds."""
    path = looking.store_path()
    sizes = {name: os.path.getsize(path + name) for name in ("", "-wal") if path and os.path.exists(path + name)}
    return {
        "url": runtime.store_name(),
        "exists": looking.store_exists(),
        "bytes": sum(sizes.values()) if path else None,
        "log_bytes": sizes.get("-wal", 0) if path else None,
        "files": runtime.blobs_at() or "beside the store",
    }

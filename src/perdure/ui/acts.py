"""Operations on runs and schedules, each from a sent form. An operation returns the address of the page to show."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from ..api import operate
from ..api._names import check_name
from ..api.forking import fork
from ..api.limits_known import limit_named
from ..api.local_time import local_moment
from ..api.messages import wait_for_box
from ..api.queues_known import queue_named
from ..api.requests import request_rerun
from ..api.run import Run
from ..api.scheduling import schedule_named
from ..api.submitting import due_at, enqueue, request_submission
from ..api.tags import tags_of_words
from ..cli.limits import limit_setting_of
from ..cli.queues import setting_of_word
from ..core.ground.model import Kind, Status
from ..core.run.mailbox import box_of
from ..errors import InputError, PerdureError, UsageError
from . import forms
from .filters import filter_texts
from .many import carry_out
from .rendering import query, run_link
from .resumed import followed
from .settings import UiSettings

Form = Mapping[str, str]
SHOWN_FAILURES = 3
"""Failures of an operation on many runs that the next page tells."""


class Done(NamedTuple):
    """What an operation has done."""

    text: str
    """For the next page."""
    page: str
    """The address of the next page."""


def _cancel(ui: UiSettings, name: str, form: Form) -> Done:
    run = Run.get(name)
    fresh = run.cancel(form.get("reason", ""))
    text = f"Run {name} is cancelled." if run.status == Status.CANCELLED else f"Run {name} is asked to cancel."
    return Done(text if fresh else f"Run {name} was asked to cancel before.", run_link(name))


def _abort(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = Run.get(name).abort()
    return Done(f"Run {name} is aborted." if fresh else f"Run {name} was aborted before.", run_link(name))


def _wake(ui: UiSettings, name: str, form: Form) -> Done:
    woken = Run.get(name).wake()
    return Done(f"Run {name} is due now." if woken else f"Run {name} waits for no time.", run_link(name))


def _pause(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = Run.get(name).pause()
    return Done(f"Run {name} is asked to pause." if fresh else f"Run {name} was paused before.", run_link(name))


def _resume(ui: UiSettings, name: str, form: Form) -> Done:
    handle = operate.resume(name, accept=bool(form.get("accept")), retry_failed=bool(form.get("retry_failed")))
    if handle.done is None:
        return Done(f"Run {name} has ended before.", run_link(name))
    fault = followed([handle]).get(name)
    if fault is not None:
        raise PerdureError(f"run {name} was resumed, and {fault}")
    if handle.done.done():
        return Done(f"Run {name} was resumed; it is {handle.run.status} now.", run_link(name))
    return Done(f"Run {name} is resumed; this process drives the run.", run_link(name))


def _rerun(ui: UiSettings, name: str, form: Form) -> Done:
    recover = bool(form.get("recover"))
    run = enqueue(request_rerun(name, recover=recover, new_name=form.get("new_name") or None), None)
    return Done(f"Run {run.name} waits for a worker.", run_link(run.name))


def _fork(ui: UiSettings, name: str, form: Form) -> Done:
    text = form.get("entry", "")
    if not text.isdecimal() or len(text) > 12:
        raise InputError(f"a fork begins at an entry's number, not {text!r}")
    run = fork(name, int(text))
    return Done(f"Run {run.name} has the outcomes before entry {text}, and waits for a worker.", run_link(run.name))


def _signal(ui: UiSettings, name: str, form: Form) -> Done:
    box = form.get("box", "")
    run = Run.get(name)
    found = _message(run, Kind.CONDITION, box, form)
    run.signal(box, found.value, data_type=found.type)
    return Done(f"Condition {box} of run {name} is set.", run_link(name))


def _send(ui: UiSettings, name: str, form: Form) -> Done:
    box = form.get("box", "")
    run = Run.get(name)
    found = _message(run, Kind.RECEIVE, box, form)
    run.send(box, found.value, key=form.get("key") or None, data_type=found.type)
    return Done(f"A message for mailbox {box} of run {name} is stored.", run_link(name))


def _message(run: Run, kind: Kind, box: str, form: Form) -> forms.MessageValue:
    asked = wait_for_box(run.name, box_of(kind, box))
    return forms.message_value("Any" if asked is None else asked.shape, form)


def _start(ui: UiSettings, name: str, form: Form) -> Done:
    task = ui.tasks.get(name)
    if task is None:
        raise UsageError(f"no task {name!r} is loaded here; name its file: perdure ui FILE")
    args, values = forms.task_values(task, form)
    called = form.get("name", "").strip() or None
    if called is not None:
        check_name(called)
    tags = tags_of_words(tuple(form.get("tags", "").split()))
    request = request_submission(task, args, values, called, tags or None)
    run = enqueue(request, due_at(_begin(form.get("at", "")), None))
    return Done(f"Run {run.name} is submitted.", run_link(run.name))


def _begin(text: str) -> datetime | None:
    try:
        return local_moment(datetime.fromisoformat(text)) if text else None
    except (ValueError, OverflowError):
        raise InputError(f"the beginning is a time such as 2026-11-23T02:00, not {text!r}") from None


def _pause_schedule(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = schedule_named(name).pause()
    return Done(f"Schedule {name} {'is paused' if fresh else 'was paused before'}.", "/schedules")


def _resume_schedule(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = schedule_named(name).resume()
    return Done(f"Schedule {name} {'fires again' if fresh else 'is not paused'}.", "/schedules")


def _pause_queue(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = queue_named(name).pause()
    return Done(f"Queue {name} {'is paused' if fresh else 'was paused before'}.", "/queues")


def _resume_queue(ui: UiSettings, name: str, form: Form) -> Done:
    fresh = queue_named(name).resume()
    return Done(f"Queue {name} {'gives runs again' if fresh else 'is not paused'}.", "/queues")


Act = Callable[[UiSettings, str, Form], Done]


def _set(kind: str, find: Callable[[str], Any], setting: Callable[[str], tuple[str, Any]]) -> Act:
    """An operation: give a queue or a limit other settings. `setting`: a setting from one word of the form."""

    def act(ui: UiSettings, name: str, form: Form) -> Done:
        words = form.get("settings", "").split()
        find(name).set(**dict(map(setting, words)))
        return Done(f"{kind.capitalize()} {name} has {', '.join(words)} now.", f"/{kind}s")

    return act


def _reset(kind: str, find: Callable[[str], Any]) -> Act:
    """An operation: give a queue or a limit the settings of the code again."""

    def act(ui: UiSettings, name: str, form: Form) -> Done:
        said = "has the settings of the code" if find(name).reset() else "had no other settings"
        return Done(f"{kind.capitalize()} {name} {said}.", f"/{kind}s")

    return act


def _bulk(ui: UiSettings, name: str, form: Form) -> Done:
    done = carry_out(name, form)
    failed = "".join(f" Run {run}: {text}" for run, text in list(done.refused.items())[:SHOWN_FAILURES])
    return Done(f"{done}.{failed}", "/runs" + query(filter_texts(form)))


def _trigger_schedule(ui: UiSettings, name: str, form: Form) -> Done:
    run = schedule_named(name).trigger()
    return Done(f"Run {run.name} of schedule {name} waits for a worker.", run_link(run.name))


ACTS: dict[str, Act] = {
    "cancel": _cancel,
    "abort": _abort,
    "wake": _wake,
    "pause": _pause,
    "resume": _resume,
    "rerun": _rerun,
    "fork": _fork,
    "signal": _signal,
    "send": _send,
    "start": _start,
    "schedule-pause": _pause_schedule,
    "schedule-resume": _resume_schedule,
    "schedule-trigger": _trigger_schedule,
    "queue-pause": _pause_queue,
    "queue-resume": _resume_queue,
    "queue-set": _set("queue", queue_named, setting_of_word),
    "queue-reset": _reset("queue", queue_named),
    "limit-set": _set("limit", limit_named, limit_setting_of),
    "limit-reset": _reset("limit", limit_named),
    "bulk": _bulk,
}
"""The operations by the names in their addresses, `/act/NAME`. An operation on a run needs an entry here, and a name in
`pages._acts` for the statuses of runs that allow the operation."""


def back_from(act: str, name: str, form: Form) -> str:
    """The page to return to where the operation was refused."""
    if act.startswith("schedule-"):
        return "/schedules"
    if act.startswith("queue-"):
        return "/queues"
    if act.startswith("limit-"):
        return "/limits"
    if act in ("signal", "send"):
        kind = "condition" if act == "signal" else "mailbox"
        return "/condition" + query({"run": name, "kind": kind, "box": form.get("box", "")})
    if act == "bulk":
        return "/bulk" + query({"operation": name, **filter_texts(form)})
    return "/start" if act == "start" else run_link(name)

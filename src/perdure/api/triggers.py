"""Triggers: schedules of tasks. `perdure serve` submits the runs; `core.process.schedule` decides which runs are due.

A trigger is checked when the task is declared. Where an annotation names something defined further down, the trigger is
checked when the task is served.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import KW_ONLY, dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final, get_args
from zoneinfo import ZoneInfo

from ..core.ground.clock import EPOCH, MICROSECOND
from ..core.ground.model import NewRun
from ..core.ground.ports import Store
from ..core.ground.spec import TaskSpec
from ..core.ground.values import UnresolvedNameError
from ..core.process.schedule import (
    Calendar,
    CatchUp,
    CronCalendar,
    RateCalendar,
    Rule,
    Schedule,
    TriggerTime,
)
from ..errors import InputError, UsageError
from ._names import check_name

if TYPE_CHECKING:
    from .task import Task

__all__ = ["Cron", "FixedRate", "Trigger", "TriggerTime", "Triggers", "rules_of", "schedule_for"]

_SHORTEST: Final = timedelta(milliseconds=1)


@dataclass(frozen=True, slots=True)
class Cron:
    """Fires when a clock on the wall shows certain times: `Cron("0 2 * * *", timezone="Europe/Berlin")`.

    Args:
        expression: five fields: minute, hour, day of month, month, day of week (0 and 7 are Sunday). Numbers, names
            (`MON`, `JAN`), `*`, lists, ranges and steps.
        timezone: an IANA name. Where clocks change, a skipped time fires at the end of the gap, and a repeated time
            fires the first time; with `*` first in the minute or hour, firings follow real time instead.
        inputs: the task's inputs; `TriggerTime` stands for the scheduled time. Parameters with a default may be left
            out.
        catch_up: treatment of missed firings, where no worker looked within a minute of the firing or before the next:
            `"one"`: a single run, for the newest firing, makes up for all; `"skip"`: none runs; `"all"`: each firing
            runs, the oldest first.
        name: part of the names of the runs. Needed where triggers of one task have different inputs.
    """

    expression: str
    timezone: str = "UTC"
    _: KW_ONLY
    inputs: Mapping[str, Any] | None = None
    catch_up: CatchUp = "one"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class FixedRate:
    """Fires at equal distances: `FixedRate(period=30)`, `FixedRate(timedelta(hours=6))`, `FixedRate(90)` as in Flyte.

    Args:
        interval_minutes: the distance in minutes, as Flyte counts it, or a `timedelta`.
        start_time: the first firing, with a time zone. By default the distance is counted from the Unix epoch: a
            quarter of an hour fires at :00, :15, :30 and :45 UTC.
        period: the distance in seconds, or a `timedelta`, in place of `interval_minutes`; a millisecond at least.
        inputs, catch_up, name: as for `Cron`.
    """

    interval_minutes: float | timedelta | None = None
    start_time: datetime | None = None
    _: KW_ONLY
    period: float | timedelta | None = None
    inputs: Mapping[str, Any] | None = None
    catch_up: CatchUp = "one"
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Trigger:
    """A named trigger, as Flyte writes it: `Trigger("nightly", Cron("0 2 * * *"), inputs={"day": TriggerTime})`.

    Args:
        name: as for `Cron`.
        automation: a `Cron` or a `FixedRate` with times only.
        description: for people.
        auto_activate: `False`: the trigger is declared but does not fire.
        inputs, catch_up: as for `Cron`.
    """

    name: str
    automation: Cron | FixedRate
    description: str = ""
    auto_activate: bool = True
    inputs: Mapping[str, Any] | None = None
    _: KW_ONLY
    catch_up: CatchUp = "one"

    @classmethod
    def minutely(cls, trigger_time_input_key: str = "trigger_time", *, name: str = "minutely", **more: Any) -> Trigger:
        """Every minute; `trigger_time_input_key` names the input for the time, `more` is as for `Trigger`."""
        return cls._at("* * * * *", trigger_time_input_key, name, more)

    @classmethod
    def hourly(cls, trigger_time_input_key: str = "trigger_time", *, name: str = "hourly", **more: Any) -> Trigger:
        """Every hour, on the hour; otherwise as `minutely`."""
        return cls._at("0 * * * *", trigger_time_input_key, name, more)

    @classmethod
    def daily(cls, trigger_time_input_key: str = "trigger_time", *, name: str = "daily", **more: Any) -> Trigger:
        """Every day at midnight UTC; otherwise as `minutely`."""
        return cls._at("0 0 * * *", trigger_time_input_key, name, more)

    @classmethod
    def weekly(cls, trigger_time_input_key: str = "trigger_time", *, name: str = "weekly", **more: Any) -> Trigger:
        """Every Sunday at midnight UTC; otherwise as `minutely`."""
        return cls._at("0 0 * * 0", trigger_time_input_key, name, more)

    @classmethod
    def monthly(cls, trigger_time_input_key: str = "trigger_time", *, name: str = "monthly", **more: Any) -> Trigger:
        """On the first of every month at midnight UTC; otherwise as `minutely`."""
        return cls._at("0 0 1 * *", trigger_time_input_key, name, more)

    @classmethod
    def _at(cls, expression: str, key: str, name: str, more: dict[str, Any]) -> Trigger:
        inputs = {key: TriggerTime, **(more.pop("inputs", None) or {})}
        return cls(name, Cron(expression), inputs=inputs, **more)


Triggers = Cron | FixedRate | Trigger | Sequence[Cron | FixedRate | Trigger]
"""A trigger, or several."""


def rules_of(triggers: Triggers, spec: TaskSpec) -> tuple[Rule, ...]:
    """`triggers=` as rules.

    Raises:
        UsageError: a trigger means nothing, its inputs do not fit the task, or two triggers cannot be told apart.
    """
    where = f"task {spec.name}"
    each: Any = (triggers,) if isinstance(triggers, (Cron, FixedRate, Trigger)) else triggers
    if isinstance(each, (str, bytes)) or not isinstance(each, Iterable):
        raise UsageError(f"{where}: triggers must be Cron, FixedRate or Trigger, or a list of them, not {triggers!r}")
    rules = tuple(_rule(trigger, spec, where) for trigger in each if _is_active(trigger))
    with suppress(UnresolvedNameError):  # checked again when the task is served
        _check(rules)
    return rules


def schedule_for(store: Store, tasks: Iterable[Task[..., Any]]) -> Schedule:
    """The schedule of the given tasks. Tasks without triggers do not count; no task counts twice.

    Raises:
        UsageError: a trigger's inputs do not fit its task, or two tasks with triggers have one name.
    """
    rules = [rule for task in dict.fromkeys(tasks) for rule in task.triggers]
    _check(rules)
    return Schedule(store, rules)


def _is_active(trigger: Any) -> bool:
    return not isinstance(trigger, Trigger) or trigger.auto_activate


def _rule(trigger: Any, spec: TaskSpec, where: str) -> Rule:
    if isinstance(trigger, Trigger):
        trigger = _unwrapped(trigger, where)
    if isinstance(trigger, Cron):
        calendar: Calendar = _cron(trigger, where)
    elif isinstance(trigger, FixedRate):
        calendar = _rate(trigger, where)
    else:
        raise UsageError(f"{where}: a trigger is a Cron, a FixedRate or a Trigger, not {trigger!r}")
    inputs = trigger.inputs if trigger.inputs is not None else {}
    if not isinstance(inputs, Mapping) or not all(isinstance(name, str) for name in inputs):
        raise UsageError(f"{where}: a trigger's inputs must map names of parameters to values, not {trigger.inputs!r}")
    if trigger.catch_up not in get_args(CatchUp):
        raise UsageError(f"{where}: catch_up must be 'skip', 'one' or 'all', not {trigger.catch_up!r}")
    name = trigger.name
    if name is not None and (not isinstance(name, str) or not name or not set(name).isdisjoint("@: ")):
        raise UsageError(f"{where}: a trigger's name is text without '@', ':' and spaces, not {name!r}")
    rule = Rule(spec, calendar, trigger.catch_up, dict(inputs), name)
    try:
        check_name(rule.run_name(1))
    except UsageError as error:
        raise UsageError(f"{where}: its triggers cannot name runs after it: {error}") from None
    return rule


def _unwrapped(trigger: Trigger, where: str) -> Any:
    inner = trigger.automation
    if not isinstance(inner, (Cron, FixedRate)):
        raise UsageError(f"{where}: a Trigger's automation is a Cron or a FixedRate, not {inner!r}")
    if not trigger.name:
        raise UsageError(f"{where}: a Trigger needs a name")
    if inner.name is not None or inner.inputs is not None or inner.catch_up != "one":
        raise UsageError(f"{where}: give name, inputs and catch_up to the Trigger {trigger.name!r}, not inside it")
    return replace(inner, name=trigger.name, inputs=trigger.inputs, catch_up=trigger.catch_up)


def _cron(trigger: Cron, where: str) -> CronCalendar:
    if not isinstance(trigger.expression, str):
        raise UsageError(f"{where}: a cron expression is text such as '0 2 * * *', not {trigger.expression!r}")
    try:
        zone = ZoneInfo(trigger.timezone)
    except (KeyError, ValueError, TypeError, OSError):
        raise UsageError(
            f"{where}: no time zone {trigger.timezone!r} is known here; use a name such as 'Europe/Berlin' (where even "
            "that is unknown: pip install tzdata)"
        ) from None
    try:
        return CronCalendar(trigger.expression, zone)
    except ValueError as error:
        raise UsageError(f"{where}: cron expression {trigger.expression!r}: {error}") from None


def _rate(trigger: FixedRate, where: str) -> RateCalendar:
    minutes, period, start = trigger.interval_minutes, trigger.period, trigger.start_time
    if (minutes is None) == (period is None):
        raise UsageError(f"{where}: FixedRate takes either interval_minutes or period (in seconds)")
    given, unit = (period, timedelta(seconds=1)) if minutes is None else (minutes, timedelta(minutes=1))
    try:
        if isinstance(given, bool):
            raise TypeError
        distance = given if isinstance(given, timedelta) else given * unit  # type: ignore[operator]
    except (TypeError, ValueError, OverflowError):
        distance = timedelta(0)
    if not isinstance(distance, timedelta) or distance < _SHORTEST:
        raise UsageError(f"{where}: FixedRate needs a distance of a millisecond at least, not {given!r}")
    if start is None:
        return RateCalendar(distance // MICROSECOND, 0)
    if not isinstance(start, datetime) or start.utcoffset() is None:
        raise UsageError(f"{where}: start_time must be a datetime with a time zone, not {start!r}")
    return RateCalendar(distance // MICROSECOND, (start - EPOCH) // MICROSECOND)


def _check(rules: Iterable[Rule]) -> None:
    """Check that every rule can make its runs, and that two rules with equal names ask for the same run."""
    keys: set[str] = set()
    first: dict[str, tuple[Rule, NewRun]] = {}
    for rule in rules:
        new = _sample(rule)
        if rule.key in keys:
            raise UsageError(f"task {rule.spec.name}: two of its triggers are the same: {rule.calendar.definition}")
        keys.add(rule.key)
        other, same = first.setdefault(rule.prefix, (rule, new))
        if other.spec is not rule.spec:
            raise UsageError(
                f"two tasks with triggers are called {rule.spec.name!r} ({same.target} and {new.target}), and their "
                "runs could not be told apart: rename one, or its environment"
            )
        if same.inputs_hash != new.inputs_hash:
            raise UsageError(
                f"task {rule.spec.name}: two of its triggers have different inputs but the same name, so that their "
                "runs could not be told apart: give them a name="
            )


def _sample(rule: Rule) -> NewRun:
    try:
        return rule.new_run(0, 0)
    except UnresolvedNameError:
        raise
    except UsageError as error:
        message = str(error).removeprefix(f"task {rule.spec.name}: ")
        raise InputError(
            f"task {rule.spec.name}: its trigger ({rule.calendar.definition}) has wrong inputs: {message}"
        ) from None

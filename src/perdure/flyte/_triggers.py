"""Triggers in Flyte's order of parameters, as perdure's schedules."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ..api import triggers as perdure_triggers
from ..api.triggers import TriggerTime
from ..errors import UsageError
from ._notes import note

if TYPE_CHECKING:
    from ..core.ground.spec import TaskSpec
    from ..core.process.schedule import Rule

log = logging.getLogger("perdure")


@dataclass
class Cron:
    """Times of the calendar."""

    expression: str
    timezone: str = "UTC"

    def __str__(self) -> str:
        return f"Cron Trigger: CRON_TZ={self.timezone} {self.expression}"


@dataclass
class FixedRate:
    """Every so many minutes."""

    interval_minutes: int
    start_time: datetime | None = None

    def __str__(self) -> str:
        return f"FixedRate Trigger: every {self.interval_minutes} minutes"


@dataclass(frozen=True)
class Trigger:
    """A schedule of a task, driven by `perdure serve`.

    Args:
        name: the trigger's name.
        automation: a `Cron` or a `FixedRate`; without one, the trigger is a name only.
        auto_activate: whether the schedule is in force.
        inputs: the task's inputs; `TriggerTime` stands for the scheduled time.
    """

    name: str
    automation: Any = None
    description: str = ""
    auto_activate: bool = True
    inputs: dict[str, Any] | None = None
    env_vars: dict[str, str] | None = None
    interruptible: bool | None = None
    overwrite_cache: bool = False
    queue: str | None = None
    max_action_concurrency: int | None = None
    labels: Mapping[str, str] | None = None
    annotations: Mapping[str, str] | None = None
    notifications: Any = None
    custom_context: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("a Trigger needs a name")
        for setting in ("env_vars", "queue", "notifications", "custom_context"):
            if getattr(self, setting):
                note(setting, f"trigger {self.name}")

    @classmethod
    def minutely(cls, trigger_time_input_key: str | None = None, *, name: str = "minutely", **more: Any) -> Trigger:
        """Every minute."""
        return cls._each("* * * * *", "A trigger that runs every minute", trigger_time_input_key, name, more)

    @classmethod
    def hourly(cls, trigger_time_input_key: str | None = None, *, name: str = "hourly", **more: Any) -> Trigger:
        """Every hour."""
        return cls._each("0 * * * *", "A trigger that runs every hour", trigger_time_input_key, name, more)

    @classmethod
    def daily(cls, trigger_time_input_key: str | None = None, *, name: str = "daily", **more: Any) -> Trigger:
        """Every day at midnight."""
        return cls._each("0 0 * * *", "A trigger that runs daily at midnight", trigger_time_input_key, name, more)

    @classmethod
    def weekly(cls, trigger_time_input_key: str | None = None, *, name: str = "weekly", **more: Any) -> Trigger:
        """Every Sunday at midnight."""
        return cls._each("0 0 * * 0", "A trigger that runs on Sundays at midnight", trigger_time_input_key, name, more)

    @classmethod
    def monthly(cls, trigger_time_input_key: str | None = None, *, name: str = "monthly", **more: Any) -> Trigger:
        """On the first day of each month at midnight."""
        return cls._each("0 0 1 * *", "A trigger that runs monthly at midnight", trigger_time_input_key, name, more)

    @classmethod
    def _each(cls, expression: str, description: str, key: str | None, name: str, more: dict[str, Any]) -> Trigger:
        inputs = dict(more.pop("inputs", None) or {})
        if key is not None:
            inputs[key] = TriggerTime
        more.setdefault("description", description)
        return cls(name, Cron(expression), inputs=inputs, **more)


def declared_triggers(value: Any) -> Any:
    """`triggers=` as perdure takes it."""
    given = value if isinstance(value, (tuple, list)) else (value,)
    return tuple(found for found in (_of_perdure(trigger) for trigger in given if trigger) if found is not None)


def rules_for(value: Any, spec: TaskSpec) -> tuple[Rule, ...]:
    """The schedule of a task. Flyte checks a trigger when it is deployed, so a trigger that does not fit the task is
    said here, and is not in force."""
    try:
        return perdure_triggers.rules_of(declared_triggers(value), spec)
    except UsageError as error:
        log.warning("a schedule is not in force: %s", error)
        return ()


def _of_perdure(trigger: Any) -> Any:
    if not isinstance(trigger, Trigger):
        return trigger
    automation = trigger.automation
    if automation is None or isinstance(automation, OnArtifact):
        note("a trigger without a time", f"trigger {trigger.name}")
        return None
    return perdure_triggers.Trigger(
        trigger.name, _calendar(automation), inputs=trigger.inputs, auto_activate=trigger.auto_activate
    )


def _calendar(automation: Any) -> Any:
    if isinstance(automation, Cron):
        return perdure_triggers.Cron(automation.expression, timezone=automation.timezone)
    if isinstance(automation, FixedRate):
        start = automation.start_time
        if start is not None and start.utcoffset() is None:
            start = start.replace(tzinfo=UTC)
        return perdure_triggers.FixedRate(automation.interval_minutes, start)
    return automation


class OnArtifact:
    """A trigger by a new artifact: declared, and never fired, as artifacts live in a Flyte cluster."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self.args = args
        self.kwargs = kwargs


@dataclass(frozen=True)
class TriggeredPartition:
    """An input that takes a partition of the new artifact: declared only."""

    key: str


class _TriggeredArtifact:
    """An input that takes the new artifact: declared only."""


TriggeredArtifact = _TriggeredArtifact()

__all__ = [
    "Cron", "FixedRate", "OnArtifact", "Trigger", "TriggerTime", "TriggeredArtifact", "TriggeredPartition",
    "declared_triggers", "rules_for",
]  # fmt: skip

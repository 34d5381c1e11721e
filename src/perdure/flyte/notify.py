"""Flyte's notifications. Each can be declared; perdure sends none: send the message in a trace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

_SUBJECT = "Run {{.Run.Name}} {{.Phase}}"
_BODY = "Run: {{.Run.Name}}\nProject/Domain: {{.Run.Project}}/{{.Run.Domain}}\nPhase: {{.Phase}}\nError: {{.Error}}\n"


@dataclass(frozen=True, kw_only=True)
class Notification:
    """A message at the end of a run."""

    on_phase: Any

    def __post_init__(self) -> None:
        phases = self.on_phase if isinstance(self.on_phase, (tuple, list)) else (self.on_phase,)
        if not phases:
            raise ValueError(f"{type(self).__name__}: on_phase names no phase")
        object.__setattr__(self, "on_phase", tuple(phases))


@dataclass(frozen=True, kw_only=True)
class Email(Notification):
    """A message by e-mail."""

    recipients: tuple[str, ...]
    cc: tuple[str, ...] = ()
    bcc: tuple[str, ...] = ()
    subject: str = _SUBJECT
    body: str = _BODY
    html_body: str | None = None


@dataclass(frozen=True, kw_only=True)
class Slack(Notification):
    """A message to a Slack channel."""

    webhook_url: str
    message: str | None = None
    blocks: tuple[dict[str, Any], ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Teams(Notification):
    """A message to a Teams channel."""

    webhook_url: str
    title: str = _SUBJECT
    message: str | None = None
    card: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class Webhook(Notification):
    """A request to a URL."""

    url: str
    method: Literal["POST", "PUT", "PATCH", "GET", "DELETE", "HEAD", "OPTIONS", "TRACE", "CONNECT"] = "POST"
    headers: dict[str, str] | None = None
    body: dict[str, Any] | None = None


@dataclass(frozen=True, kw_only=True)
class NamedDelivery(Notification):
    """A delivery that a cluster has under a name."""

    name: str


@dataclass(frozen=True)
class NamedRule:
    """A rule that a cluster has under a name."""

    name: str


__all__ = ["Email", "NamedDelivery", "NamedRule", "Notification", "Slack", "Teams", "Webhook"]

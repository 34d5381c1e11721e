"""Reports with Flyte's functions: HTML that is kept with the action, and shown by `perdure report RUN`."""

from __future__ import annotations

from datetime import datetime
from html import escape
from typing import Any

from ..api._dual import Dual
from ..api.reports import MAIN, Tab, current_report
from ..api.reports import HtmlReport as Report

__all__ = [
    "Report", "Tab", "Timeline", "abbreviate", "current_report", "duration_ms", "flush", "get_tab", "log", "replace",
]  # fmt: skip


def get_tab(name: str, /, create_if_missing: bool = True) -> Tab:
    """A tab of the current action's report."""
    return current_report().get_tab(name, create_if_missing)


def _log(content: str, do_flush: bool = False) -> None:
    """Add a piece of HTML to the main tab. `do_flush` is without an effect: each piece is kept at once."""
    get_tab(MAIN).log(content)


def _replace(content: str, do_flush: bool = False) -> None:
    """Let a piece of HTML take the place of all others in the main tab. `do_flush` is without an effect."""
    get_tab(MAIN).replace(content)


def _flush() -> None:
    """Keep the report as it is now, changes of `tabs` and `content` by hand included."""
    current_report().keep()


async def _log_aio(content: str, do_flush: bool = False) -> None:
    _log(content)


async def _replace_aio(content: str, do_flush: bool = False) -> None:
    _replace(content)


async def _flush_aio() -> None:
    _flush()


log = Dual(_log, _log_aio)
replace = Dual(_replace, _replace_aio)
flush = Dual(_flush, _flush_aio)


class Timeline:
    """A list of events in a tab, a line for each."""

    def __init__(self, tab_name: str = MAIN) -> None:
        self._tab_name = tab_name

    def heading(self, text: Any) -> None:
        """A heading."""
        get_tab(self._tab_name).log(f"<h3>{escape(str(text))}</h3>")

    def row(self, *, icon: str = "•", label: Any = "", meta: str = "", detail: str = "", error: Any = None) -> None:
        """An event.

        Args:
            icon, label: what happened; the label is escaped.
            meta: a short remark, as HTML.
            detail: more, as HTML.
            error: what went wrong; escaped.
        """
        parts = [icon, f"<b>{escape(str(label))}</b>", f"<small>{meta}</small>"]
        if detail:
            parts.append(f"— {detail}")
        if error is not None and error != "":
            parts.append(f'<span style="color: #c22">⚠ {escape(str(error))}</span>')
        get_tab(self._tab_name).log(f"<div>{' '.join(parts)}</div>")


def abbreviate(value: Any, limit: int = 300) -> str:
    """A value as escaped text of at most `limit` characters; nothing for `None`."""
    text = "" if value is None else str(value)
    return escape(text if len(text) <= limit else f"{text[:limit]}…")


def duration_ms(start_iso: Any, end_iso: Any) -> str:
    """The time between two timestamps in ISO 8601, in milliseconds; nothing where one cannot be read."""
    try:
        took = datetime.fromisoformat(str(end_iso)) - datetime.fromisoformat(str(start_iso))
    except (TypeError, ValueError):
        return ""
    return f"{took.total_seconds() * 1000:.0f} ms"

"""The filters of the list of runs, as texts in an address or a form, and as what the store is asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from ..api.listing import statuses_of
from ..api.local_time import local_moment
from ..api.looking import RunFilter
from ..api.tags import tags_of_words
from ..core.ground.clock import US, wall
from ..core.ground.model import Result, RunRow, Status
from ..errors import UsageError
from .values import error_data

NAMES: Final = ("status", "task", "name", "tag", "since", "until", "error", "place")
ATTENTION: Final = "attention"
"""In place of a status: runs that failed, that no process drives, and that are overdue."""
OVERDUE: Final = 300 * US
"""For how long a due run may wait for a worker before the run is overdue."""


def filter_texts(asked: Mapping[str, str]) -> dict[str, str]:
    """The text of each filter; empty where nothing is asked."""
    return {name: asked.get(name, "").strip() for name in NAMES}


def filter_of(texts: Mapping[str, str]) -> RunFilter:
    """The filter that the texts of all filters ask for.

    Raises:
        UsageError: a text means nothing.
    """
    needy = texts["status"].lower() == ATTENTION
    statuses = (Status.FAILED, Status.INTERRUPTED, Status.QUEUED) if needy else texts["status"] or None
    overdue, place = wall() - OVERDUE if needy else None, texts["place"] or None
    return RunFilter(
        statuses_of(statuses), texts["task"] or None, texts["name"] or None,
        since=_time(texts["since"], "since"), until=_time(texts["until"], "until"),
        tags=tags_of_words(tuple(texts["tag"].split())) or None, error=texts["error"] or None,
        also=None if overdue is None and place is None else lambda row: _is_meant(row, overdue, place),
    )  # fmt: skip


def _is_meant(row: RunRow, overdue: int | None, place: str | None) -> bool:
    if overdue is not None and row.status == Status.QUEUED and (row.wake_at or row.created_at) > overdue:
        return False
    return place is None or (row.result == Result.ERROR and place_of(error_data(row.value)) == place)


def place_of(error: Mapping[str, Any] | None) -> str:
    """The line that raised a stored exception, as a text; empty where the line is not known."""
    line = None if error is None else error["line"]
    return "" if line is None else f"{line['file']}:{line['line']} in {line['function']}"


def _time(text: str, name: str) -> int | None:
    if not text:
        return None
    try:
        return int(local_moment(datetime.fromisoformat(text)).timestamp() * US)
    except (ValueError, OverflowError):
        raise UsageError(f"{name} takes a time such as 2026-11-23T02:00, not {text!r}") from None


def number(text: str, name: str) -> int:
    """A number in an address or a form.

    Raises:
        UsageError: the text is no number from 0 up.
    """
    if not (text.isascii() and text.isdecimal()) or len(text) > 12:
        raise UsageError(f"{name} must be a number from 0 up, not {text!r}")
    return int(text)

"""The filters of the list of runs, as texts in an address or a form, and as what the store is asked."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Final

from ..api.listing import statuses_of
from ..api.local_time import local_moment
from ..api.looking import RunFilter
from ..api.tags import tags_of_words
from ..core.ground.clock import US
from ..errors import UsageError

NAMES: Final = ("status", "task", "name", "tag", "since", "until", "error")


def filter_texts(asked: Mapping[str, str]) -> dict[str, str]:
    """The text of each filter; empty where nothing is asked."""
    return {name: asked.get(name, "").strip() for name in NAMES}


def filter_of(texts: Mapping[str, str]) -> RunFilter:
    """The filter that the texts of all filters ask for.

    Raises:
        UsageError: a text means nothing.
    """
    return RunFilter(
        statuses_of(texts["status"] or None), texts["task"] or None, texts["name"] or None,
        since=_time(texts["since"], "since"), until=_time(texts["until"], "until"),
        tags=tags_of_words(tuple(texts["tag"].split())) or None, error=texts["error"] or None,
    )  # fmt: skip


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

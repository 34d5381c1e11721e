"""Templates and filters. Every value is escaped: no template marks a text as safe."""

from __future__ import annotations

import json
import os
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, urlencode

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..cli.output import span
from ..core.ground.clock import US, wall

HERE = os.path.dirname(os.path.abspath(__file__))
_STEPS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def environment() -> Environment:
    """The templates of the package."""
    found = Environment(
        loader=FileSystemLoader(os.path.join(HERE, "templates")), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    found.filters.update(ago=ago, clock=clock, duration=duration, short=short, size=size, tojson_text=json_text)
    found.globals.update(run_link=run_link, act_link=act_link, query=query)
    return found


def run_link(name: str, **more: Any) -> str:
    """The address of a run's page. Browsers resolve `.` and `..` in a path, so such names go into the query."""
    if name in (".", ".."):
        return f"/run?{urlencode({'name': name, **_given(more)})}"
    return f"/run/{quote(name, safe='')}" + query(more)


def act_link(act: str, name: str) -> str:
    """The address to which a form of an operation is sent."""
    return f"/act/{act}?{urlencode({'name': name})}"


def query(values: dict[str, Any]) -> str:
    """A query with the values that are given."""
    found = _given(values)
    return f"?{urlencode(found, doseq=True)}" if found else ""


def _given(values: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if value not in (None, "", [], False)}


def _moment(iso: str) -> datetime:
    return datetime.fromisoformat(iso)


def ago(iso: str | None) -> str:
    """A time as a distance from now: `3 min ago`, `in 2 h`."""
    if iso is None:
        return ""
    left = (datetime.fromtimestamp(wall() / US, UTC) - _moment(iso)).total_seconds()
    size = next((f"{int(abs(left) // unit)} {name}" for unit, name in _STEPS if abs(left) >= unit), None)
    if size is None:
        return "now"
    return f"{size} ago" if left > 0 else f"in {size}"


def clock(iso: str | None) -> str:
    """A time in the zone of this server."""
    return "" if iso is None else _moment(iso).astimezone().strftime("%Y-%m-%d %H:%M:%S %Z")


def duration(seconds: float | None) -> str:
    """A length of time."""
    return "" if seconds is None else span(int(seconds * US))


def size(count: int) -> str:
    """A number of bytes: `512 bytes`, `2.4 kB`, `5.1 MB`."""
    for unit, name in ((10**9, "GB"), (10**6, "MB"), (10**3, "kB")):
        if count >= unit:
            return f"{count / unit:,.1f} {name}"
    return f"{count} bytes"


def json_text(value: Any) -> str:
    """JSON data in one line, for a page: escaped like any text."""
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def short(text: str, limit: int = 120) -> str:
    """One line of a text."""
    line = text.replace("\n", " ")
    return line if len(line) <= limit else f"{line[: limit - 1]}…"

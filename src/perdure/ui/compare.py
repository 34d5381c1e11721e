"""Two runs side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from ..api import looking
from ..api.comparing import compared
from ..cli.compared import comparison_data
from .pages import shown_run
from .settings import UiSettings

OFFERED: Final = 8
"""Runs of the same task that the form offers."""


def compare_page(ui: UiSettings, asked: Mapping[str, str]) -> dict[str, Any]:
    """Two runs side by side; with one run the runs of the same task to choose from; without any the form alone."""
    names = asked.get("a", "").strip(), asked.get("b", "").strip()
    page: dict[str, Any] = {"names": {"a": names[0], "b": names[1]}, "a": None, "b": None, "found": None, "offered": []}
    if not all(names):
        given = names[0] or names[1]
        if given:
            task = looking.find(given).task
            rows = looking.search(looking.RunFilter(task=task), None, OFFERED + 1).rows
            page["offered"] = [row.name for row in rows if row.name != given][:OFFERED]
        return page
    found = compared(*names)
    data = comparison_data(found, ui.mask.value, ui.mask.inputs)
    return {**page, "a": shown_run(ui, found.a.row), "b": shown_run(ui, found.b.row), "found": data}

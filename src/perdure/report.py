"""Reports: HTML that a task writes for people, shown by `perdure report RUN`.

    @env.task
    def train() -> float:
        perdure.report.log("<h1>Training</h1>")
        perdure.report.get_tab("Loss").log(chart.to_html())

A report belongs to the action that wrote it, and grows while the action goes on. It is kept beside the store until the
run is removed.
"""

from __future__ import annotations

from .api.reports import HtmlReport as Report
from .api.reports import Tab, current_report

__all__ = ["Report", "Tab", "current_report", "get_tab", "log", "replace"]


def get_tab(name: str, create_if_missing: bool = True) -> Tab:
    """A tab of the current action's report."""
    return current_report().get_tab(name, create_if_missing)


def log(content: str) -> None:
    """Add a piece of HTML to the first tab of the current action's report."""
    get_tab("main").log(content)


def replace(content: str) -> None:
    """Let a piece of HTML take the place of all others in the first tab of the current action's report."""
    get_tab("main").replace(content)

"""Reports: HTML that an action writes for people, kept beside the store until the run is removed.

The report of an action is a list of lines of JSON, in a file for the action. Each call of `log` appends a line, so a
report can be read while the action goes on, and a crash loses nothing. A body that is executed again, after a crash,
logs again what it had logged: lines that are equal stay as they are, and from the first difference on the new lines
replace the old lines. A trace that is replayed is not executed, so the lines of traces always stay.

A report is for people and no part of a run's data: no outcome depends on it. Like the logs of containers, it is on the
machine that executed the action.
"""

from __future__ import annotations

import json
import os
import threading
from html import escape
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

from .. import runtime
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.model import Kind
from ..core.ground.private import make_private
from ..errors import UsageError
from .looking import find

MAIN = "main"
"""The tab of `report.log`."""


class Line(NamedTuple):
    """A line of a report's file."""

    verb: str
    """`log`: one more piece for a tab. `replace`: the only piece of a tab."""
    tab: str
    html: str
    traced: bool
    """Whether a trace wrote the line."""


class _File:
    """The file of a report, written by one execution of a body."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._earlier = read_lines(path)
        self._at = 0
        """Lines of an earlier execution in front of this position were logged again."""
        if os.path.exists(path) and os.path.getsize(path) != sum(len(_text(line)) for line in self._earlier):
            self._write(self._earlier)  # the last line was cut short by a crash

    def add(self, line: Line) -> None:
        """Append a line, or find it among the lines of an earlier execution."""
        for position in range(self._at, len(self._earlier)):
            before = self._earlier[position]
            if before == line:
                self._at = position + 1
                return
            if not before.traced:
                break
        rest = [before for before in self._earlier[self._at :] if before.traced]
        if len(rest) < len(self._earlier) - self._at:
            self._write([*self._earlier[: self._at], *rest])
        self._earlier, self._at = [], 0
        with open(self._path, "a", encoding="utf-8", opener=_closed) as file:
            file.write(_text(line))

    def _write(self, lines: list[Line]) -> None:
        new = f"{self._path}.new"
        with open(new, "w", encoding="utf-8", opener=_closed) as file:
            file.writelines(map(_text, lines))
        os.replace(new, self._path)


def _text(line: Line) -> str:
    """A line as the file holds it: ASCII alone, so that characters are bytes."""
    return json.dumps(line) + "\n"


def _closed(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def read_lines(path: str) -> list[Line]:
    """The lines of a report's file; a line that a crash cut short is left out."""
    lines = []
    try:
        with open(path, encoding="utf-8") as file:
            for text in file:
                try:
                    verb, tab, html, traced = json.loads(text if text.endswith("\n") else "")
                except ValueError:
                    break
                lines.append(Line(verb, tab, html, traced))
    except FileNotFoundError:
        pass
    return lines


class Tab:
    """A part of a report, with a name for people."""

    def __init__(self, name: str, report: HtmlReport) -> None:
        self.name = name
        self.content: list[str] = []
        """The pieces of HTML, in order."""
        self.kept: list[str] = []
        """The pieces that `log` and `replace` have kept."""
        self._report = report

    def __repr__(self) -> str:
        return f"Tab(name={self.name!r}, content={self.content!r})"

    def log(self, content: str) -> None:
        """Add a piece of HTML."""
        self._report._note("log", self.name, content)
        self.content.append(content)
        self.kept.append(content)

    def replace(self, content: str) -> None:
        """Let a piece of HTML take the place of all others."""
        self._report._note("replace", self.name, content)
        self.content[:] = self.kept[:] = [content]

    def get_html(self) -> str:
        """The pieces as one text."""
        return "\n".join(self.content)


class HtmlReport:
    """The report of an action, as far as it was written in this process."""

    def __init__(self, name: str, path: str | None = None) -> None:
        self.name = name
        self.tabs: dict[str, Tab] = {}
        self._path = path
        self._file: _File | None = None
        self._lock = threading.Lock()
        self.get_tab(MAIN)

    def __repr__(self) -> str:
        return f"Report(name={self.name!r}, tabs={self.tabs!r})"

    def get_tab(self, name: str, create_if_missing: bool = True) -> Tab:
        """The tab of that name.

        Raises:
            ValueError: there is none, and none is to be made.
        """
        if not isinstance(name, str) or not name:
            raise UsageError(f"{name!r} is no name of a tab: give text")
        if name not in self.tabs:
            if not create_if_missing:
                raise ValueError(f"the report has no tab {name!r}; it has: {', '.join(self.tabs)}")
            self.tabs[name] = Tab(name, self)
        return self.tabs[name]

    def has_content(self) -> bool:
        """Whether anything was logged."""
        return any(tab.content for tab in self.tabs.values())

    def get_final_report(self) -> str:
        """The report as a page of HTML."""
        return page(self.name, {name: tab.get_html() for name, tab in self.tabs.items()})

    def keep(self) -> None:
        """Keep what was changed by hand in `tabs` and in `Tab.content`."""
        if self._path is None:
            return
        for name, tab in self.tabs.items():
            if tab.content != tab.kept:
                self._note("replace", name, tab.get_html())
                tab.kept = list(tab.content)

    def _note(self, verb: str, tab: str, html: str) -> None:
        if not isinstance(html, str):
            raise UsageError(f"a report takes text of HTML, not {type(html).__name__}")
        if self._path is None:
            return
        with self._lock:
            if self._file is None:
                make_private(os.path.dirname(self._path))
                self._file = _File(self._path)
            self._file.add(Line(verb, tab, html, isinstance(SCOPE.get(), TraceScope)))


_reports: WeakKeyDictionary[Any, HtmlReport] = WeakKeyDictionary()
_outside = HtmlReport("outside of a run")


def current_report() -> HtmlReport:
    """The report of the action that the calling code belongs to. Outside of a run: a report that is kept nowhere."""
    scope = SCOPE.get()
    if scope is None:
        return _outside
    body = scope.body if isinstance(scope, TraceScope) else scope
    report = _reports.get(body)
    if report is None:
        path = os.path.join(runtime.reports(), body.driver.run.uid.hex(), f"{body.action}.jsonl")
        report = _reports.setdefault(body, HtmlReport(body.name, path))
    return report


# -- for people ------------------------------------------------------------------------------------------------------


class ReportFile(NamedTuple):
    """A kept report."""

    name: str
    """The name of the task."""
    action: int
    path: str

    def html(self) -> str:
        """The report as a page of HTML."""
        tabs: dict[str, list[str]] = {}
        for line in read_lines(self.path):
            pieces = tabs.setdefault(line.tab, [])
            if line.verb == "replace":
                pieces.clear()
            pieces.append(line.html)
        return page(self.name, {name: "\n".join(pieces) for name, pieces in tabs.items()})


def report_files(run: str) -> list[ReportFile]:
    """The kept reports of a run, by the number of the action.

    Raises:
        RunNotFoundError: no such run.
    """
    row = find(run)
    folder = os.path.join(runtime.reports(), row.uid.hex())
    names = os.listdir(folder) if os.path.isdir(folder) else []
    numbers = sorted(int(name.removesuffix(".jsonl")) for name in names if name.removesuffix(".jsonl").isdecimal())
    if not numbers:
        return []
    tasks = {one.action: one.name for one in runtime.worker().store.actions(row.id) if one.kind != Kind.SLEEP}
    return [
        ReportFile(tasks.get(number, row.task), number, os.path.join(folder, f"{number}.jsonl")) for number in numbers
    ]


def report_file(run: str, action: str | None) -> ReportFile:
    """The kept report of an action.

    Args:
        run: the run.
        action: a task's name, such as `fetch` or `etl.fetch`, or an action's number. May be left out where the run has
            a single report.

    Raises:
        RunNotFoundError: no such run.
        UsageError: there is no such report, or several are meant.
    """
    found = report_files(run)
    if not found:
        raise UsageError(f"run {run!r} has no report on this machine: a task writes one with perdure.report.log(html)")
    chosen = [
        one for one in found if action is None or action in (str(one.action), one.name, one.name.rpartition(".")[2])
    ]
    if len(chosen) == 1:
        return chosen[0]
    known = ", ".join(f"{one.name} ({one.action})" for one in found)
    what = "several reports" if chosen else f"no report of {action!r}"
    raise UsageError(f"run {run!r} has {what}; name an action by its number: {known}")


_PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>
body {{ font-family: system-ui, sans-serif; margin: 0; }}
nav {{ border-bottom: 1px solid #ccc; padding: 0 1rem; }}
nav button {{ background: none; border: 0; border-bottom: 3px solid transparent; cursor: pointer; font: inherit;
  padding: .75rem 1rem; }}
nav button[aria-selected=true] {{ border-color: #26c; }}
main {{ padding: 1rem; }}
</style>
</head>
<body>
<nav role="tablist">
{buttons}
</nav>
<main>
{panels}
</main>
<script>
document.querySelectorAll("nav button").forEach((button, chosen, buttons) => button.onclick = () => {{
  buttons.forEach((each, place) => each.setAttribute("aria-selected", place === chosen));
  document.querySelectorAll("main > section").forEach((panel, place) => panel.hidden = place !== chosen);
}});
</script>
</body>
</html>
"""


def page(title: str, tabs: dict[str, str]) -> str:
    """A page of HTML with a tab for each text of HTML. Empty tabs are left out."""
    shown = {name: html for name, html in tabs.items() if html} or {MAIN: ""}
    first = next(iter(shown))
    buttons = "\n".join(
        f'<button role="tab" aria-selected="{str(name == first).lower()}">{escape(name)}</button>' for name in shown
    )
    panels = "\n".join(
        f'<section role="tabpanel"{"" if name == first else " hidden"}>\n{html}\n</section>'
        for name, html in shown.items()
    )
    return _PAGE.format(title=escape(title), buttons=buttons, panels=panels)

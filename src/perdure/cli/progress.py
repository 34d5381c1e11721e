"""The display while runs are driven: a live tree on a terminal, now and then a plain line elsewhere."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from .. import runtime
from ..api.looking import picture
from ..api.operate import Handle, Progress, RunEnd, progress
from ..core.ground.clock import perf
from ..core.ground.harmless import harmless
from ..errors import PerdureError
from .output import Output, local_time, span

if TYPE_CHECKING:
    from rich.live import Live

LIVE_SECONDS = 0.2
"""Between two looks, on a terminal."""
PLAIN_SECONDS = 1.0
LINE_SECONDS = 15.0
"""Seconds between two plain lines about one run, if there is news."""
SHOWN = 8
"""Runs and names that fit into the live summary."""
BEGIN_SECONDS = 0.3
"""Runs shorter than this get no live summary."""


class Reporter:
    """Reports on runs. `tick` is called every `interval` seconds while the runs are driven."""

    def __init__(self, output: Output, handles: Sequence[Handle]) -> None:
        self._output = output
        self._handles = [handle for handle in handles if handle.driver is not None]
        self._began = perf()
        self._live: Live | None = None
        self._drawn = False
        self._terminal = not output.quiet and sys.stderr is not None and sys.stderr.isatty()
        self._told: dict[str, tuple[int, Progress | None]] = {}
        self.interval = LIVE_SECONDS if self._terminal else PLAIN_SECONDS

    def began(self) -> None:
        """Driving has begun."""
        for handle in self._handles:
            verb = "continues" if handle.continued else "started"
            self._output.note(f"run {handle.name} {verb}: {handle.task}")

    def tick(self) -> None:
        """Time has passed."""
        if self._output.quiet:
            return
        now = perf()
        going = [handle for handle in self._handles if handle.done is not None and not handle.done.done()]
        if self._terminal:
            if now - self._began > BEGIN_SECONDS * 1e9:
                self._draw(going)
            return
        for handle in going:
            at, before = self._told.get(handle.name, (self._began, None))
            if now - at < LINE_SECONDS * 1e9:
                continue
            current = progress(handle)
            self._told[handle.name] = (now, current)
            if current != before:
                self._output.note(f"run {handle.name}: {_text(current)}")

    def _draw(self, going: list[Handle]) -> None:
        from rich.console import Console, Group
        from rich.live import Live
        from rich.text import Text

        if self._live is None:
            console = Console(stderr=True, highlight=False)
            self._live = Live(console=console, auto_refresh=False, transient=True)
            self._live.start()
            runtime.attach_logs()  # rich has put itself in the place of `sys.stdout`
        elapsed = span((perf() - self._began) // 1000)
        began = perf()
        lines: list[Any] = [
            Text.assemble((handle.name, "bold"), f"  {_text(progress(handle))}  ", (elapsed, "dim"))
            for handle in going[:SHOWN]
        ]
        if len(going) > SHOWN:
            lines.append(Text(f"and {len(going) - SHOWN} more runs"))
        if len(going) == 1:
            lines += self._tree(going[0].name)
        self._live.update(Group(*lines), refresh=True)
        # A look costs a query. Where the query takes long (a large run), look less often.
        self.interval = max(LIVE_SECONDS, 20 * (perf() - began) / 1e9)

    def _tree(self, name: str) -> list[Any]:
        from .following import live_lines

        assert self._live is not None
        try:
            # One line less than the terminal has: the prompt of the shell stays on the screen.
            return list(live_lines(picture(name), self._live.console.height - 2))
        except PerdureError:
            return []  # a store that is away is told of by the run itself

    def end(self) -> None:
        """Nothing is driven any more: clear the live summary."""
        if self._live is not None:
            self._live.stop()
            self._live = None
            self._drawn = True

    def summarize(self, name: str) -> None:
        """Where a tree was shown: what the run has done, by name."""
        from .following import summary

        if self._drawn:
            for line in summary(name, SHOWN):
                self._output.note(line)

    def counts(self, ended: RunEnd) -> str:
        """The last line's numbers."""
        return f"{ended.replayed:,} replayed, {ended.executed:,} executed, {span((perf() - self._began) // 1000)}"


def _text(now: Progress) -> str:
    parts = [f"{now.replayed:,} replayed, {now.executed:,} executed"]
    if now.running:
        names = sorted(now.running.items(), key=lambda item: (-item[1], item[0]))
        listed = ", ".join(f"{name} ×{count}" if count > 1 else name for name, count in names[:SHOWN])
        more = f", and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
        parts.append(f"running {listed}{more}")
    if now.sleeping_until is not None:
        parts.append(f"sleeping until {local_time(now.sleeping_until)}")
    return harmless("; ".join(parts))

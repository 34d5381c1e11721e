"""`perdure top`: the runs, queues and workers of the store on a full screen, live; open a run and act."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, NamedTuple

from rich.text import Text
from textual import work
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.screen import ModalScreen, Screen
from textual.widgets import DataTable, Footer, Header, Label, Static, TabbedContent, TabPane

from .. import runtime
from ..api import looking
from ..api.looking import RunInfo
from ..api.queues_known import QueueState, queues
from ..api.run import Run
from ..core.ground.clock import seconds
from ..core.ground.harmless import harmless
from ..core.ground.model import Status
from ..core.ground.values._preview import preview_inputs
from ..errors import PerdureError
from .following import live_lines
from .logs import record_line
from .output import STYLES, cell, local, run_head, span

LOOK_SECONDS = 0.5
"""Between two looks whether the store has changed."""
ANYWAY_SECONDS = 2.0
"""After which everything is shown again: durations grow, and a process may have died."""
TREE_LINES = 400
LOG_LINES = 200


# -- data ------------------------------------------------------------------------------------------------------


class _WorkerState(NamedTuple):
    pid: int
    host: str
    alive: bool
    runs: list[str]


class _StoreNow(NamedTuple):
    runs: list[RunInfo]
    queues: list[QueueState]
    workers: list[_WorkerState]
    now: int


def _look(limit: int, status: Status | None) -> _StoreNow:
    if not looking.store_exists():
        return _StoreNow([], [], [], 0)
    worker = runtime.worker()
    runs = looking.runs(limit=limit, status=status).runs
    driven: dict[str, list[str]] = {}
    for row in worker.store.runs(statuses={Status.RUNNING}, limit=looking.PAGE):
        if row.worker is not None:
            driven.setdefault(row.worker, []).append(row.name)
    workers = [
        _WorkerState(one.pid, one.host, worker.lives(one), driven.get(one.id, []))
        for one in sorted(worker.store.workers(), key=lambda one: one.started_at)
    ]
    return _StoreNow(runs, queues(), workers, worker.clock.wall())


class _RunNow(NamedTuple):
    head: Text
    tree: list[Text]
    log: list[str]


def _look_at_run(name: str) -> _RunNow:
    picture = looking.picture(name)
    log: list[str] = []
    for file in looking.log_files(name):
        lines = looking.last_records(file, LOG_LINES)
        if lines:
            log.append(f"== {file.name}, action {file.action}, attempt {file.attempt}")
            log += [record_line(line) for line in lines]
    return _RunNow(run_head(picture.run), live_lines(picture, TREE_LINES), log[-LOG_LINES:])


# -- operations ------------------------------------------------------------------------------------------------


def _pause(name: str) -> str:
    return f"run {name} is asked to pause" if Run.get(name).pause() else f"run {name} was paused before"


def _resume(name: str) -> str:
    run = Run.get(name)
    run.resume(drive=False)
    return f"run {name} is {run.status}; a worker goes on with it"


def _cancel(name: str) -> str:
    return f"run {name} is asked to cancel" if Run.get(name).cancel() else f"run {name} was asked to cancel before"


def _abort(name: str) -> str:
    return f"run {name} is aborted" if Run.get(name).abort() else f"run {name} was aborted before"


def _wake(name: str) -> str:
    return f"run {name} is due now" if Run.get(name).wake() else f"run {name} waits for no time"


OPERATIONS: dict[str, Callable[[str], str]] = {
    "pause": _pause, "resume": _resume, "cancel": _cancel, "abort": _abort, "wake": _wake,
}  # fmt: skip
"""By their names in the key bindings. Each is asked about before it is done."""


# -- screens ---------------------------------------------------------------------------------------------------

_ACTS: list[BindingType] = [
    Binding("p", "operate('pause')", "Pause"),
    Binding("r", "operate('resume')", "Resume"),
    Binding("w", "operate('wake')", "Wake"),
    Binding("c", "operate('cancel')", "Cancel"),
    Binding("a", "operate('abort')", "Abort"),
]


class Question(ModalScreen[bool]):
    """Asks before something is done."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("y", "answer(True)", "Yes"), Binding("n,escape", "answer(False)", "No"),
    ]  # fmt: skip
    CSS = """
    Question { align: center middle; }
    Question Label { background: $surface; border: round $primary; padding: 1 2; max-width: 90%; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        """See textual."""
        yield Label(Text(f"{self._text}\n\ny: yes   n: no"))

    def action_answer(self, answer: bool) -> None:
        """A key."""
        self.dismiss(answer)


class _Acting(Screen[None]):
    """A screen with a chosen run, on which operations can be done."""

    def chosen(self) -> str | None:
        """The run that an operation is for."""
        raise NotImplementedError

    def action_operate(self, operation: str) -> None:
        """A key of an operation: ask, then do."""
        name = self.chosen()
        if name is None:
            return

        def answered(yes: bool | None) -> None:
            if yes:
                self.operate(operation, name)

        self.app.push_screen(Question(f"{operation.capitalize()} run {harmless(name)}?"), answered)

    @work(thread=True)
    def operate(self, operation: str, name: str) -> None:
        """Do it, in a thread: the store may be slow."""
        try:
            text, severity = OPERATIONS[operation](name), "information"
        except PerdureError as error:
            text, severity = str(error), "error"
        self.app.call_from_thread(self.notify, harmless(text), severity=severity, markup=False)


class RunScreen(_Acting):
    """One run: why it does not move, its tree, its logs."""

    BINDINGS: ClassVar[list[BindingType]] = [*_ACTS, Binding("escape,q", "app.pop_screen", "Back")]
    CSS = """
    RunScreen #head { height: auto; padding: 0 1; background: $surface; }
    RunScreen #tree-view { height: 2fr; }
    RunScreen #log-view { height: 1fr; border-top: solid $primary; }
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        self._name_of_run = name

    def chosen(self) -> str | None:
        """See `_Acting`."""
        return self._name_of_run

    def compose(self) -> ComposeResult:
        """See textual."""
        yield Static(id="head")
        with VerticalScroll(id="tree-view"):
            yield Static(id="tree")
        with VerticalScroll(id="log-view"):
            yield Static(id="log")
        yield Footer()

    def on_mount(self) -> None:
        """See textual."""
        self.look()

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Read the run, and show it."""
        try:
            found = _look_at_run(self._name_of_run)
        except PerdureError as error:
            found = _RunNow(Text(harmless(str(error)), "red"), [], [])
        self.app.call_from_thread(self._show, found)

    def _show(self, found: _RunNow) -> None:
        if not self.is_mounted:
            return
        log = self.query_one("#log-view", VerticalScroll)
        at_end = log.scroll_offset.y >= log.max_scroll_y
        self.query_one("#head", Static).update(found.head)
        self.query_one("#tree", Static).update(Text("\n").join(found.tree))
        self.query_one("#log", Static).update(Text("\n".join(map(harmless, found.log)) or "no output yet"))
        if at_end:
            log.scroll_end(animate=False)


class StoreScreen(_Acting):
    """The runs, queues and workers."""

    BINDINGS: ClassVar[list[BindingType]] = [*_ACTS, Binding("q", "app.quit", "Quit")]

    def __init__(self, limit: int, status: Status | None) -> None:
        super().__init__()
        self._limit = limit
        self._status = status
        self._names: list[str] = []

    def compose(self) -> ComposeResult:
        """See textual."""
        yield Header()
        with TabbedContent():
            with TabPane("Runs", id="runs-tab"):
                yield DataTable(id="runs", cursor_type="row", zebra_stripes=True)
            with TabPane("Queues", id="queues-tab"):
                yield DataTable(id="queues", cursor_type="row")
            with TabPane("Workers", id="workers-tab"):
                yield DataTable(id="workers", cursor_type="row")
        yield Footer()

    def on_mount(self) -> None:
        """See textual."""
        for name, columns in (
            ("runs", ("NAME", "TASK", "STATUS", "CREATED", "TOOK", "INPUTS", "STATE")),
            ("queues", ("QUEUE", "RUNNING", "WAITING", "PAUSED", "SETTINGS")),
            ("workers", ("PID", "HOST", "STATE", "RUNS")),
        ):
            self.query_one(f"#{name}", DataTable).add_columns(*columns)
        self.query_one("#runs", DataTable).focus()
        self.look()

    def chosen(self) -> str | None:
        """See `_Acting`."""
        row = self.query_one("#runs", DataTable).cursor_row
        return self._names[row] if row < len(self._names) else None

    def on_data_table_row_selected(self, event: DataTable.RowSelected) -> None:
        """Enter on a row."""
        name = self.chosen()
        if event.data_table.id == "runs" and name is not None:
            self.app.push_screen(RunScreen(name))

    @work(thread=True, exclusive=True)
    def look(self) -> None:
        """Read the store, and show it."""
        try:
            found = _look(self._limit, self._status)
        except PerdureError as error:
            self.app.call_from_thread(self.notify, harmless(str(error)), severity="error", markup=False)
            return
        self.app.call_from_thread(self._show, found)

    def _show(self, found: _StoreNow) -> None:
        if not self.is_mounted:
            return
        chosen = self.chosen()
        self._names = [run.name for run in found.runs]
        self._fill("runs", [_run_cells(run, found.now) for run in found.runs])
        if chosen in self._names:
            # The cursor stays on its run while new runs come above it.
            self.query_one("#runs", DataTable).move_cursor(row=self._names.index(chosen), animate=False)
        self._fill("queues", [_queue_cells(one) for one in found.queues])
        self._fill("workers", [_worker_cells(one) for one in found.workers])
        alive = sum(one.alive for one in found.workers)
        self.app.sub_title = f"{len(found.runs)} runs, {alive} of {len(found.workers)} workers alive"

    def _fill(self, name: str, rows: list[list[Text]]) -> None:
        table = self.query_one(f"#{name}", DataTable)
        top = table.scroll_offset.y
        table.clear()
        for row in rows:
            table.add_row(*row)
        table.scroll_to(y=top, animate=False)


def _run_cells(run: RunInfo, now: int) -> list[Text]:
    ended = run.ended_at if run.ended_at is not None else now
    took = None if run.started_at is None else max(0, ended - run.started_at)
    return [
        cell(run.name), cell(run.task), cell(str(run.status), STYLES.get(run.status, "")), cell(local(run.created_at)),
        cell(span(took)), cell(preview_inputs(run.inputs, 60)), cell("" if run.status == "SUCCEEDED" else run.why),
    ]  # fmt: skip


def _queue_cells(one: QueueState) -> list[Text]:
    settings = ", ".join(f"{name}={value}" for name, value in one.settings.items() if value is not None)
    return [
        cell(one.name), cell(str(one.running)), cell(str(one.waiting)), cell("paused" if one.paused else ""),
        cell(settings),
    ]  # fmt: skip


def _worker_cells(one: _WorkerState) -> list[Text]:
    state = Text("alive", "green") if one.alive else Text("gone", "red")
    return [cell(str(one.pid)), cell(one.host), state, cell(", ".join(one.runs))]


class TopApp(App[None]):
    """See the module text."""

    TITLE = "perdure"

    def __init__(self, limit: int, status: Status | None = None) -> None:
        super().__init__()
        self._limit = limit
        self._status = status
        self._version: Any = None
        self._looked = 0.0

    def on_mount(self) -> None:
        """See textual."""
        self.title = f"perdure {runtime.store_name()}"
        self.push_screen(StoreScreen(self._limit, self._status))
        self.set_interval(LOOK_SECONDS, self.check)

    @work(thread=True, exclusive=True, group="check")
    def check(self) -> None:
        """Show the store again where something may have changed."""
        try:
            version = runtime.worker().store.version() if looking.store_exists() else None
        except PerdureError:
            version = None
        if version == self._version and seconds() - self._looked < ANYWAY_SECONDS:
            return
        self._version, self._looked = version, seconds()
        self.call_from_thread(self._look)

    def _look(self) -> None:
        for screen in self.screen_stack:
            if isinstance(screen, StoreScreen | RunScreen) and screen.is_mounted:
                screen.look()

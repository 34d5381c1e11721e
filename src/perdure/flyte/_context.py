"""Where am I: `ctx`, labels, values for a block, and traces."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from ..api import context as perdure_context
from ..api.context import group
from ..api.trace import trace
from ..core.body.interfaces import BodyPort
from ..core.body.scope import SCOPE, TraceScope
from ..core.ground.clock import US
from ._absent import absent_names
from ._places import RAW_DATA, run_directory

if TYPE_CHECKING:
    from ._checkpoint import Checkpoint

CUSTOM: ContextVar[dict[str, str] | None] = ContextVar("perdure_flyte_custom", default=None)
"""The values of the run and of the enclosing `custom_context` blocks. Bodies take over the context variables of their
callers. `None`: another process than the run's first one drives the run, and has not looked for the values yet."""

_data: WeakKeyDictionary[BodyPort, dict[str, Any]] = WeakKeyDictionary()
"""`TaskContext.data` of each body."""


@dataclass(frozen=True)
class ActionID:
    """The names of an action."""

    name: str
    run_name: str | None = None
    project: str | None = None
    domain: str | None = None
    org: str | None = None

    def __repr__(self) -> str:
        return f"ActionID({self.name!r}, run_name={self.run_name!r})"

    def unique_id_str(self, salt: str | None = None) -> str:
        """The names in one."""
        parts = (self.project, self.domain, self.run_name, self.name, salt)
        return "-".join(part for part in parts if part)


@dataclass(frozen=True)
class GroupData:
    """A `group`."""

    name: str


@dataclass(frozen=True)
class RawDataPath:
    """A directory for a run's files."""

    path: str

    def get_random_remote_path(self, file_name: str | None = None) -> str:
        """A new path below the directory."""
        return os.path.join(self.path, uuid.uuid4().hex, *([file_name] if file_name else []))


@dataclass(frozen=True)
class CheckpointPaths:
    """The directories of an action's checkpoints."""

    prev_checkpoint_path: str | None = None
    checkpoint_path: str | None = None


class NullTaskContext:
    """What `ctx()` gives outside of any task: false, and each attribute is `None`."""

    attempt_number = 0
    data: dict[str, Any] | None = None

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "NullTaskContext()"

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)

    def is_in_cluster(self) -> bool:
        """Whether the code runs in a cluster."""
        return False


@dataclass(frozen=True)
class TaskContext:
    """The action that the calling code belongs to. Fields that describe a cluster are empty."""

    action: ActionID
    version: str
    raw_data_path: RawDataPath
    output_path: str
    run_base_dir: str
    input_path: str | None = None
    group_data: GroupData | None = None
    checkpoint_paths: CheckpointPaths | None = None
    data: dict[str, Any] = field(default_factory=dict)
    mode: str = "local"
    interactive_mode: bool = False
    custom_context: dict[str, str] = field(default_factory=dict)
    disable_run_cache: bool = False
    in_driver_literal_conversion: bool = False
    run_start_time: datetime | None = None
    task_action: ActionID | None = None
    attempt_number: int = 0
    """The number of the attempt, from 0."""
    code_bundle: None = None
    compiled_image_cache: None = None
    restart_attempt: None = None
    rank: None = None
    local_rank: None = None
    world_size: None = None
    local_world_size: None = None
    node_rank: None = None
    nnodes: None = None
    master_addr: None = None
    master_port: None = None

    def __getattr__(self, name: str) -> Any:
        # Plugins add values of their own under a name.
        data = object.__getattribute__(self, "data")
        if name in data:
            return data[name]
        raise AttributeError(f"the task context has no {name!r}")

    @property
    def report(self) -> Any:
        """The report of the action."""
        from .report import current_report

        return current_report()

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The checkpoints of the action."""
        from ._checkpoint import Checkpoint

        paths = self.checkpoint_paths
        if paths is None or paths.checkpoint_path is None:
            return None
        return Checkpoint(paths.checkpoint_path, paths.prev_checkpoint_path)

    def is_in_cluster(self) -> bool:
        """Whether the code runs in a cluster."""
        return False

    def replace(self, **changes: Any) -> TaskContext:
        """The context with other values."""
        from dataclasses import replace

        return replace(self, **changes)


def ctx() -> Any:
    """The context of the calling code; outside of any task a `NullTaskContext`, which is false."""
    found = perdure_context.ctx()
    if found is None:
        return NullTaskContext()
    scope = SCOPE.get()
    body: BodyPort = scope.body if isinstance(scope, TraceScope) else scope
    row = body.driver.run
    base = run_directory(row.uid)
    action = ActionID(f"a{found.action}", found.run_name, "local", "development")
    checkpoints = os.path.join(base, action.name, "checkpoints")
    return TaskContext(
        action=action,
        version="",
        raw_data_path=RawDataPath(os.path.join(base, RAW_DATA)),
        output_path=os.path.join(base, action.name),
        run_base_dir=base,
        group_data=GroupData(found.group) if found.group is not None else None,
        checkpoint_paths=CheckpointPaths(checkpoints, checkpoints),
        data=_data.setdefault(body, {}),
        custom_context=get_custom_context(),
        run_start_time=datetime.fromtimestamp(row.created_at / US, UTC),
        task_action=action,
        attempt_number=found.attempt - 1,
    )


@contextlib.contextmanager
def custom_context(**context: str) -> Iterator[None]:
    """Values that the actions of a block, and the actions that these call, read as `ctx().custom_context`."""
    token = CUSTOM.set({**get_custom_context(), **context})
    try:
        yield
    finally:
        CUSTOM.reset(token)


def get_custom_context() -> dict[str, str]:
    """The values of the run, and of the enclosing `custom_context` blocks."""
    values = CUSTOM.get()
    if values is None:
        scope = SCOPE.get()
        if scope is None:
            return {}
        body: BodyPort = scope.body if isinstance(scope, TraceScope) else scope
        values = _stored(body.driver.run.uid)
        CUSTOM.set(values)
    return dict(values)


@contextlib.contextmanager
def run_values(uid: bytes, values: dict[str, str]) -> Iterator[None]:
    """Give the run that is begun in the block its values, and keep the values for processes that resume the run."""
    if values:
        with open(os.path.join(run_directory(uid), _VALUES), "w", encoding="utf-8") as file:
            json.dump(values, file)
    token = CUSTOM.set(dict(values))
    try:
        yield
    finally:
        CUSTOM.reset(token)


_VALUES = "custom_context.json"


def _stored(uid: bytes) -> dict[str, str]:
    try:
        with open(os.path.join(run_directory(uid), _VALUES), encoding="utf-8") as file:
            found = json.load(file)
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


__getattr__ = absent_names(
    "flyte", ("load_interactive_ctx",), "there is no remote action to attach to; look at a run with: perdure show NAME"
)

__all__ = [
    "ActionID",
    "CheckpointPaths",
    "GroupData",
    "NullTaskContext",
    "RawDataPath",
    "TaskContext",
    "ctx",
    "custom_context",
    "get_custom_context",
    "group",
    "run_values",
    "trace",
]

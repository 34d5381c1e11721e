"""`run`, `with_runcontext` and `Run`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Coroutine, Iterator, Sequence
from typing import Any

import msgspec

from ..api._calling import caller, run_async, run_sync
from ..api._dual import Dual
from ..api._names import check_name
from ..api.requests import RunRequest, request_for, request_rerun
from ..api.run import Run as PerdureRun
from ..api.run import run_requested, run_requested_aio
from ..api.task import Task
from ..core.body.branch import Branch
from ..errors import RunAlreadyActive, UsageError
from . import _notes, _scripts
from ._context import custom_context, run_values
from ._handles import ActionOutputs, InnerRun, Run, flyte_failures
from ._init import in_two_colours

log = logging.getLogger("perdure")


class Runner:
    """Settings for the next run; see `with_runcontext`."""

    def __init__(
        self, name: str | None, env_vars: dict[str, str], log_level: int | None, custom_context: dict[str, str]
    ) -> None:
        self._name = name
        self._env_vars = env_vars
        self._log_level = log_level
        self._custom_context = custom_context

    @property
    def run(self) -> Dual[..., Run | InnerRun]:
        """Drive a run of a task until the run has ended; `run.aio(...)` as a coroutine."""
        return Dual(self._run, self._run_aio)

    def _run(self, task: Any, *args: Any, **kwargs: Any) -> Run | InnerRun:
        where = _within_task(task)
        if where is not None:
            with custom_context(**self._custom_context):
                return InnerRun(task.name, run_sync(task.protocol(where, args, kwargs)))
        with self._prepared(), flyte_failures():
            request = _named(request_for(task, args, kwargs, self._name, None), self._name)
            try:
                with run_values(request.new.uid, self._custom_context):
                    return Run(run_requested(request))
            except RunAlreadyActive as error:
                run = _driven_elsewhere(error)
            run.wait()
            run.result  # noqa: B018 - raises the run's own error
            return Run(run)

    def _run_aio(self, task: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Run | InnerRun]:
        return self._begin(task, args, kwargs)

    async def _begin(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run | InnerRun:
        where = _within_task(task)
        if where is not None:
            with custom_context(**self._custom_context):
                return InnerRun(task.name, await run_async(task.protocol(where, args, kwargs)))
        with self._prepared(), flyte_failures():
            request = _named(request_for(task, args, kwargs, self._name, None), self._name)
            try:
                with run_values(request.new.uid, self._custom_context):
                    return Run(await run_requested_aio(request))
            except RunAlreadyActive as error:
                run = _driven_elsewhere(error)
            await run.wait.aio()
            run.result  # noqa: B018 - raises the run's own error
            return Run(run)

    @contextlib.contextmanager
    def _prepared(self) -> Iterator[None]:
        _notes.say()
        os.environ.update(self._env_vars)
        if self._log_level is not None:
            logging.getLogger("flyte").setLevel(self._log_level)
        yield

    @property
    def rerun(self) -> Dual[..., Run]:
        """Run the task of an earlier run again; see `rerun`."""
        return rerun


def _within_task(task: Any) -> Branch | None:
    """The branch of the calling body, where `flyte.run` makes a child action."""
    where = caller(lambda: "flyte.run") if isinstance(task, Task) else None
    return where if isinstance(where, Branch) else None


def _named(request: RunRequest, name: str | None) -> RunRequest:
    """The request under the name that the script's next execution finds, where the caller gave none."""
    script = _scripts.current()
    if name is not None or script is None:
        return request
    first = not script.token
    new = request.new._replace(name=script.name_of(request))
    if first and script.carried_on:
        log.warning("the last execution of this command was cut off: its runs carry on (--new begins new runs)")
    return msgspec.structs.replace(request, new=new, named=True)


def _driven_elsewhere(error: RunAlreadyActive) -> PerdureRun:
    run: PerdureRun = error.__dict__["run"]
    log.warning("%s; waiting for its end", error)
    return run


def with_runcontext(
    mode: str | None = None,
    *,
    name: str | None = None,
    service_account: str | None = None,
    version: str | None = None,
    copy_style: str = "loaded_modules",
    dry_run: bool = False,
    copy_bundle_to: Any = None,
    interactive_mode: bool | None = None,
    raw_data_path: str | None = None,
    run_base_dir: str | None = None,
    run_start_time: Any = None,
    overwrite_cache: bool = False,
    project: str | None = None,
    domain: str | None = None,
    env_vars: dict[str, str] | None = None,
    labels: dict[str, str] | None = None,
    annotations: dict[str, str] | None = None,
    interruptible: bool | None = None,
    log_level: int | None = None,
    log_format: str = "console",
    user_log_level: int | None = None,
    reset_root_logger: bool = False,
    disable_run_cache: bool = False,
    queue: str | None = None,
    max_action_concurrency: int | None = None,
    notifications: Any = None,
    custom_context: dict[str, str] | None = None,
    cache_lookup_scope: str = "global",
    preserve_original_types: bool = False,
    debug: bool = False,
    tracked: bool = False,
    tracked_strict: bool = False,
    _tracker: Any = None,
) -> Runner:
    """Settings for a run: `flyte.with_runcontext(name="daily").run(main, n=3)`.

    Args:
        mode: `"local"`, which is the default.
        name: the run's name, and its idempotency key; see `perdure.with_runcontext`.
        env_vars: environment variables, set in this process.
        log_level: the level of Flyte's logger.
        custom_context: values that the actions of the run read as `ctx().custom_context`.

    Raises:
        UsageError: a mode that needs a cluster, or a name that cannot be used.
    """
    if mode not in (None, "local"):
        raise UsageError(f"mode={mode!r} needs a Flyte cluster, and perdure runs tasks on this machine: mode='local'")
    if name is not None:
        check_name(name)
    given = {
        "service_account": service_account, "raw_data_path": raw_data_path, "overwrite_cache": overwrite_cache,
        "labels": labels, "annotations": annotations, "interruptible": interruptible, "queue": queue,
        "max_action_concurrency": max_action_concurrency, "notifications": notifications,
        "disable_run_cache": disable_run_cache, "debug": debug, "run_start_time": run_start_time,
    }  # fmt: skip
    for setting, value in given.items():
        if value:
            _notes.note(setting, "with_runcontext")
    return Runner(name, dict(env_vars or {}), log_level, dict(custom_context or {}))


def _rerun(
    run_name: str,
    action_name: str = "a0",
    recover: bool = False,
    force_rerun_actions: Sequence[str] | None = None,
    allow_missing_source_outputs: bool = False,
    **inputs: Any,
) -> Run:
    """Run the task of an earlier run again, with the same inputs.

    Args:
        run_name: the earlier run.
        recover: reuse the outcomes of the calls that succeeded.

    Raises:
        UsageError: another action than the root, or other inputs.
    """
    if action_name != "a0" or force_rerun_actions or inputs:
        raise UsageError("flyte.rerun repeats whole runs with their inputs; for other inputs call flyte.run")
    with flyte_failures():
        return Run(run_requested(request_rerun(run_name, recover=recover)))


run: Dual[..., Run | InnerRun] = with_runcontext().run
rerun: Dual[..., Run] = in_two_colours(_rerun, "rerun")

__all__ = ["ActionOutputs", "Run", "rerun", "run", "with_runcontext"]

"""`run`, `with_runcontext` and `Run`."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Coroutine, Iterator
from typing import Any, NoReturn

import msgspec

from ..api import operate
from ..api._dual import Dual
from ..api._names import check_name
from ..api.run import Run as PerdureRun
from ..api.run import RunRequest, request_for, run_requested, run_requested_aio
from ..core.ground.model import FINISHED
from ..errors import RunAlreadyActive, UsageError
from . import _notes, _scripts
from ._context import run_values
from ._failures import failure
from ._phases import ActionPhase, phase_of

log = logging.getLogger("perdure")


class ActionOutputs(tuple[Any, ...]):
    """The outputs of a run by position and by name: `o0`, `o1`, ..., or the fields of a named tuple."""

    named_outputs: dict[str, Any]

    def __new__(cls, value: Any) -> ActionOutputs:
        values = tuple(value) if isinstance(value, tuple) else (value,)
        outputs = super().__new__(cls, values)
        names = getattr(value, "_fields", None) or [f"o{number}" for number in range(len(values))]
        outputs.named_outputs = dict(zip(names, values, strict=True))
        return outputs

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["named_outputs"][name]
        except KeyError:
            raise AttributeError(f"there is no output {name!r}; there are: {', '.join(self.named_outputs)}") from None

    def __repr__(self) -> str:
        shown = (f'{name}="{value}"' if isinstance(value, str) else f"{name}={value!r}"
                 for name, value in self.named_outputs.items())  # fmt: skip
        return f"ActionOutputs({', '.join(shown)})"


class Run:
    """A run with the methods of Flyte's. A run that `flyte.run` returns has ended."""

    def __init__(self, run: PerdureRun) -> None:
        self.perdure = run
        """The run as perdure has it."""

    def __repr__(self) -> str:
        return f"Run(name={self.name!r}, url={self.url!r}, phase={self.phase.value!r})"

    @property
    def name(self) -> str:
        """The run's name, as `perdure show` takes it."""
        return self.perdure.name

    @property
    def url(self) -> str:
        """The address of the run in its store."""
        return self.perdure.url

    @property
    def phase(self) -> ActionPhase:
        """The status in Flyte's words."""
        return phase_of(self.perdure.status)

    @property
    def action(self) -> Run:
        """The root action, which is the run itself here."""
        return self

    def done(self) -> bool:
        """Whether the run has ended."""
        return self.perdure.row.status in FINISHED

    def sync(self) -> Run:
        """The run itself: each attribute is read from the store when asked for."""
        return self

    @property
    def wait(self) -> Dual[..., None]:
        """Wait until the run has ended."""
        return Dual(self._wait, self._wait_aio)

    def _wait(self, *ignored: Any, **more: Any) -> None:
        self.perdure.wait()

    async def _wait_aio(self, *ignored: Any, **more: Any) -> None:
        await self.perdure.wait.aio()

    @property
    def outputs(self) -> Dual[..., ActionOutputs]:
        """The outputs; a failed run raises its error."""
        return _pair(self._outputs, "outputs")

    def _outputs(self) -> ActionOutputs:
        with flyte_failures():
            return ActionOutputs(self.perdure.result)

    @property
    def raise_for_status(self) -> Dual[..., None]:
        """Raise the error of a failed run."""
        return _pair(self._raise_for_status, "raise_for_status")

    def _raise_for_status(self) -> None:
        with flyte_failures():
            self.perdure.result  # noqa: B018 - raises the run's own error

    @property
    def abort(self) -> Dual[..., None]:
        """End the run for good."""
        return _pair(self._abort, "abort")

    def _abort(self, reason: str = "") -> None:
        if self.perdure.row.status not in FINISHED:
            operate.abort(self.name)

    @property
    def get_debug_url(self) -> Dual[..., None]:
        """Nothing: there is no debugger to attach to."""
        return _pair(lambda: None, "get_debug_url")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or name not in _ELSEWHERE:
            raise AttributeError(f"'Run' object has no attribute {name!r}")
        raise UsageError(f"Run.{name} is absent in perdure: look at the run with: perdure show {self.name}")


_ELSEWHERE = frozenset({
    "code_bundle", "details", "download_code", "first_failure", "get_logs", "input_literals", "inputs",
    "output_literals", "pb2", "raw_phase", "show_logs", "to_dict", "to_json", "typed_inputs", "typed_outputs", "watch",
})  # fmt: skip


def _pair(fn: Any, name: str) -> Dual[..., Any]:
    async def aio(*args: Any, **kwargs: Any) -> Any:
        return fn(*args, **kwargs)

    return Dual(fn, aio)


@contextlib.contextmanager
def flyte_failures() -> Iterator[None]:
    """Raise the failure of a run as Flyte does, with the run as `.run`."""
    try:
        yield
    except Exception as error:
        shown = failure(error)
        if shown is error:
            raise
    else:
        return
    found = shown.__dict__.get("run")
    if isinstance(found, PerdureRun):
        shown.__dict__["run"] = Run(found)
    raise shown


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
    def run(self) -> Dual[..., Run]:
        """Drive a run of a task until the run has ended; `run.aio(...)` as a coroutine."""
        return Dual(self._run, self._run_aio)

    def _run(self, task: Any, *args: Any, **kwargs: Any) -> Run:
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

    def _run_aio(self, task: Any, *args: Any, **kwargs: Any) -> Coroutine[Any, Any, Run]:
        return self._begin(task, args, kwargs)

    async def _begin(self, task: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Run:
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


def _rerun(run_name: str, action_name: str = "a0", recover: bool = False, **more: Any) -> Run:
    with flyte_failures():
        return Run(run_requested(operate.request_rerun(run_name, recover=recover)))


run: Dual[..., Run] = with_runcontext().run
rerun: Dual[..., Run] = _pair(_rerun, "rerun")

__all__ = ["ActionOutputs", "Run", "rerun", "run", "with_runcontext"]

"""A run as a script holds it: `Run`, and `ActionOutputs`."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, ClassVar, NoReturn

from ..api import looking
from ..api._dual import Dual
from ..api.loading import spec_of_loaded
from ..api.run import Run as PerdureRun
from ..core.ground.model import FINISHED
from ..errors import UsageError
from ._failures import failure
from ._init import in_two_colours
from ._phases import ActionPhase, phase_of
from ._task import result_for_callers


class ActionOutputs(tuple[Any, ...]):
    """The outputs of a run by position and by name: `o0`, `o1`, ...; also by the fields of a named tuple."""

    named_outputs: dict[str, Any]
    _by_field: dict[str, Any]

    def __new__(cls, value: Any) -> ActionOutputs:
        values = tuple(value) if isinstance(value, tuple) else (value,)
        outputs = super().__new__(cls, values)
        outputs.named_outputs = {f"o{number}": item for number, item in enumerate(values)}
        outputs._by_field = dict(zip(getattr(value, "_fields", ()), values, strict=False))
        return outputs

    def __getattr__(self, name: str) -> Any:
        known = self.__dict__.get("named_outputs", {}) | self.__dict__.get("_by_field", {})
        if name not in known:
            raise AttributeError(f"there is no output {name!r}; there are: {', '.join(known)}")
        return known[name]

    def __repr__(self) -> str:
        shown = (f"{name}={_shown(value)}" for name, value in self.named_outputs.items())
        return f"ActionOutputs({', '.join(shown)})"


def _get(name: str, **ignored: Any) -> Run:
    """The run of that name in the store in use."""
    return Run(PerdureRun.get(name))


def _listall(*, limit: int = 100, **ignored: Any) -> Iterator[Run]:
    """The newest runs of the store in use."""
    for found in looking.runs(limit=limit).runs:
        yield _get(found.name)


def _shown(value: Any) -> str:
    return f'"{value}"' if isinstance(value, str) else str(value)


class Run:
    """A run with the methods of Flyte's. A run that `flyte.run` returns has ended."""

    get: ClassVar[Dual[..., Run]] = in_two_colours(_get, "get")
    listall = staticmethod(_listall)

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
        return in_two_colours(self._outputs, "outputs")

    def _outputs(self) -> ActionOutputs:
        with flyte_failures():
            value = self.perdure.result
        spec = spec_of_loaded(self.perdure.row.target)
        return ActionOutputs(value if spec is None else result_for_callers(value, spec.signature))

    @property
    def raise_for_status(self) -> Dual[..., None]:
        """Raise the error of a failed run."""
        return in_two_colours(self._raise_for_status, "raise_for_status")

    def _raise_for_status(self) -> None:
        with flyte_failures():
            self.perdure.result  # noqa: B018 - raises the run's own error

    @property
    def abort(self) -> Dual[..., None]:
        """End the run for good."""
        return in_two_colours(self._abort, "abort")

    def _abort(self, reason: str = "") -> None:
        if self.perdure.row.status not in FINISHED:
            self.perdure.abort()

    @property
    def get_debug_url(self) -> Dual[..., None]:
        """Nothing: there is no debugger to attach to."""
        return in_two_colours(lambda: None, "get_debug_url")

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("_") or name not in _ELSEWHERE:
            raise AttributeError(f"'Run' object has no attribute {name!r}")
        raise UsageError(f"Run.{name} is absent in perdure: look at the run with: perdure show {self.name}")


_ELSEWHERE = frozenset({
    "code_bundle", "details", "download_code", "first_failure", "get_logs", "input_literals", "inputs",
    "output_literals", "pb2", "raw_phase", "show_logs", "to_dict", "to_json", "typed_inputs", "typed_outputs", "watch",
})  # fmt: skip


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


class InnerRun:
    """The end of a task that `flyte.run` called inside of another task: the task is a child action of the same run."""

    def __init__(self, name: str, value: Any) -> None:
        self.name = name
        self.url = name
        self.phase = ActionPhase.SUCCEEDED
        self._value = value

    def __repr__(self) -> str:
        return f"Run(name={self.name!r}, phase={self.phase.value!r})"

    def done(self) -> bool:
        """Always true."""
        return True

    @property
    def wait(self) -> Dual[..., None]:
        """Nothing is left to wait for."""
        return in_two_colours(lambda *ignored, **more: None, "wait")

    @property
    def outputs(self) -> Dual[..., ActionOutputs]:
        """The outputs."""
        return in_two_colours(lambda: ActionOutputs(self._value), "outputs")

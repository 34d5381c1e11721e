"""OpenTelemetry: a span for each action that is executed, in one trace for each run (`instrument`).

- OT1 a span is for what is executed: what a replay hands out again has no span.
- OT2 all lives of a run are one trace: a life that goes on after a crash, a pause or a move has a span of its own below
  the first life's span, with a link to the span of the life before. No span stays open while a run is parked.
- OT3 tracing changes nothing in a run: what fails in a tracer is logged, and the run goes on.
- OT4 the first life's span is below the span of the code that has submitted the run, on every worker: the trace context
  of that code goes with the run (`ground.carrying`).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from .. import __version__
from ..core.ground import carrying
from ..core.ground.model import Publication, Result
from ..core.ground.values import ANY
from ..core.run import observing
from ..errors import Parked
from ..runtime import task_logs
from ._absent import needed

with needed("otel", "perdure.integrations.opentelemetry"):
    from opentelemetry import context as contexts
    from opentelemetry import trace
    from opentelemetry.trace import Link, NonRecordingSpan, Span, SpanContext, Status, StatusCode, TracerProvider

if TYPE_CHECKING:
    from opentelemetry.context import Context

    from ..core.body.branch import Call
    from ..core.body.interfaces import BodyPort
    from ..core.ground.spec import Function, TaskSpec

log = logging.getLogger("perdure")

PUBLISHED = "perdure.trace"
"""The published value of a run that keeps the spans of its first and its last life."""


def instrument(tracer_provider: TracerProvider | None = None) -> None:
    """Trace the runs that this process drives from now on. Call this in the file of the tasks, or in the application.

    Args:
        tracer_provider: takes the spans; the global provider of OpenTelemetry by default.
    """
    observing.observer = _Tracing(trace.get_tracer("perdure", __version__, tracer_provider))
    carrying.declare(_Submitter())
    task_logs.correlate = _current


def uninstrument() -> None:
    """Trace nothing that begins from now on."""
    observing.observer = None
    carrying.withdraw(_Submitter.name)
    task_logs.correlate = None


class _Submitter:
    """The span of the code that submits a run (OT4)."""

    name = "otel:traceparent"

    def read(self) -> bytes | None:
        """See `Carrier`."""
        found = trace.get_current_span().get_span_context()
        return _written(found).encode() if found.is_valid else None

    def write(self, data: bytes) -> None:
        """See `Carrier`."""
        with _harmless():
            contexts.attach(trace.set_span_in_context(NonRecordingSpan(_read(data.decode()))))


def _current() -> tuple[str, str]:
    """The ids of the current trace and span; empty without a span."""
    found = trace.get_current_span().get_span_context()
    return (f"{found.trace_id:032x}", f"{found.span_id:016x}") if found.is_valid else ("", "")


@contextlib.contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except Exception as error:
        log.warning("a run could not be traced: %s: %s", type(error).__name__, error)


class _ActionSpan:
    """The span of one action in this life."""

    def __init__(self, tracing: _Tracing, key: tuple[Any, int], span: Span) -> None:
        self._tracing = tracing
        self._key = key
        self._open = True
        self.span = span

    def attempt(self, number: int) -> None:
        """See `ActionObserver`."""
        with _harmless():
            self.span.add_event("attempt", {"perdure.attempt": number})

    def ended(self, result: int, value: Any) -> None:
        """See `ActionObserver`."""
        with _harmless():
            if result == Result.ERROR:
                self.span.record_exception(value)
                self.span.set_status(Status(StatusCode.ERROR, f"{type(value).__name__}: {value}"))
            self._end("failed" if result == Result.ERROR else "succeeded")

    def left(self, error: BaseException | None) -> None:
        """See `ActionObserver`."""
        with _harmless():
            self._end("parked" if isinstance(error, Parked) else "interrupted")

    def _end(self, how: str) -> None:
        if self._open:
            self._open = False
            self._tracing.spans.pop(self._key, None)
            self.span.set_attribute("perdure.outcome", how)
            self.span.end()


class _Tracing:
    """The `Observer` that makes spans."""

    def __init__(self, tracer: trace.Tracer) -> None:
        self._tracer = tracer
        self.spans: dict[tuple[Any, int], _ActionSpan] = {}
        """By driver and action; changed by single operations."""

    def begins(self, driver: Any, spec: TaskSpec, action: int, parent: int | None) -> _ActionSpan:
        """See `Observer`."""
        key = (driver, action)
        span: Span = trace.INVALID_SPAN
        with _harmless():
            attributes = {"perdure.run": driver.run.name, "perdure.task": spec.name, "perdure.action": action}
            if parent is None:
                span = self._life(driver, spec.name, attributes)
            else:
                span = self._tracer.start_span(spec.name, self._above((driver, parent)), attributes=attributes)
        found = self.spans[key] = _ActionSpan(self, key, span)
        return found

    def _above(self, key: tuple[Any, int]) -> Context | None:
        """The context of a child: the current span of the calling code, or the span of the calling action."""
        if trace.get_current_span().get_span_context().is_valid:
            return None
        above = self.spans.get(key)
        return None if above is None else trace.set_span_in_context(above.span)

    def _life(self, driver: Any, name: str, attributes: dict[str, Any]) -> Span:
        """The span of a run's own task in this life (OT2)."""
        store = driver.worker.store
        before: Any = None
        if not driver.fresh:
            kept = [one.value for one in store.published(driver.run_id) if one.name == PUBLISHED]
            before = ANY.decode(kept[0]) if kept else None
        if before is None:
            span = self._tracer.start_span(name, attributes=attributes)
        else:
            span = self._tracer.start_span(
                name, trace.set_span_in_context(NonRecordingSpan(_read(before["first"]))), attributes=attributes,
                links=[Link(_read(before["last"]))],
            )  # fmt: skip
        own = span.get_span_context()
        if own.is_valid:
            told = _written(own)
            value = ANY.encode({"first": told if before is None else before["first"], "last": told})
            store.publish(driver.run_id, driver.token, [Publication(PUBLISHED, value, driver.worker.clock.wall())])
        return span

    def executed(self, body: BodyPort, spec: TaskSpec) -> Callable[..., Any]:
        """See `Observer`."""
        function = spec.fn
        found = self.spans.get((body.driver, body.action))
        if found is None:
            return function
        above = trace.set_span_in_context(found.span)

        # The context is this attempt's own, so the span need not be taken out of it.
        async def run_async(*args: Any, **kwargs: Any) -> Any:
            contexts.attach(above)
            return await function(*args, **kwargs)

        def run(*args: Any, **kwargs: Any) -> Any:
            contexts.attach(above)
            return function(*args, **kwargs)

        return run_async if spec.is_async else run

    def traced(self, call: Call, function: Function) -> Callable[..., Any]:
        """See `Observer`."""
        if not trace.get_current_span().get_span_context().is_valid:
            return function.fn  # in a process of a pool: the span is in another process
        body = call.body
        attributes = {
            "perdure.run": body.driver.run.name,
            "perdure.trace": function.name,
            "perdure.action": body.action,
        }

        async def run_async(*args: Any, **kwargs: Any) -> Any:
            with self._around(function.name, attributes):
                return await function.fn(*args, **kwargs)

        def run(*args: Any, **kwargs: Any) -> Any:
            with self._around(function.name, attributes):
                return function.fn(*args, **kwargs)

        return run_async if function.is_async else run

    @contextlib.contextmanager
    def _around(self, name: str, attributes: dict[str, Any]) -> Iterator[None]:
        span = self._tracer.start_span(name, attributes=attributes)
        token = contexts.attach(trace.set_span_in_context(span))
        closed = False
        try:
            yield
        except GeneratorExit:
            closed = True  # by the garbage collector, perhaps in another context
            raise
        except BaseException as error:
            span.record_exception(error)
            span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {error}"))
            raise
        finally:
            if not closed:
                contexts.detach(token)
            span.end()


def _written(context: SpanContext) -> str:
    return f"00-{context.trace_id:032x}-{context.span_id:016x}-{int(context.trace_flags):02x}"


def _read(text: str) -> SpanContext:
    _, trace_id, span_id, flags = text.split("-")
    return SpanContext(int(trace_id, 16), int(span_id, 16), True, trace.TraceFlags(int(flags, 16)))

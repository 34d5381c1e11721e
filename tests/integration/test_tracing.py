"""OpenTelemetry: spans of what is executed, in one trace for each run, against the SDK's exporters."""

from __future__ import annotations

import json
import logging
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.waiting import wait_for

import perdure
from perdure.extras import durable_sleep

pytest.importorskip("opentelemetry.sdk")
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from perdure.integrations import opentelemetry as tracing

env = perdure.TaskEnvironment("tracing")
provider = TracerProvider()
exporter = InMemorySpanExporter()
provider.add_span_processor(SimpleSpanProcessor(exporter))
own = provider.get_tracer("the user's own")


@pytest.fixture(autouse=True)
def spans(tmp_path: Path) -> Iterator[InMemorySpanExporter]:
    exporter.clear()
    perdure.init(store=tmp_path / "traced.db")
    tracing.instrument(provider)
    yield exporter
    tracing.uninstrument()
    perdure.init()


@perdure.trace
def step(n: int) -> int:
    with own.start_as_current_span("inside the trace"):
        return n


@perdure.trace
async def step_async(n: int) -> int:
    with own.start_as_current_span("inside the async trace"):
        return n


@perdure.trace
def fails() -> None:
    raise LookupError("no such row")


@env.task
def child(n: int) -> int:
    return step(n)


@env.task
async def main() -> int:
    with own.start_as_current_span("the user's"):
        first = await child.aio(1)
    return first + await step_async.aio(2)


@env.task
def threads() -> list[int]:
    return list(perdure.map(child, [1, 2, 3]))


@env.task(retries=1)
def flaky() -> int:
    if step(7) and perdure.ctx().attempt == 1:  # type: ignore[union-attr]
        fails()
    return 1


@env.task
def never() -> int:
    fails()
    return 1


def named(name: str) -> list[ReadableSpan]:
    return [span for span in exporter.get_finished_spans() if span.name == name]


def one(name: str) -> ReadableSpan:
    (found,) = named(name)
    return found


def below(span: ReadableSpan, parent: ReadableSpan) -> bool:
    assert span.parent is not None
    assert span.context is not None
    assert parent.context is not None
    same = span.context.trace_id == parent.context.trace_id
    return same and span.parent.span_id == parent.context.span_id


def test_each_action_has_a_span_below_its_caller() -> None:
    """Family: the ways to a span: a task, a child within a span of the user's, a trace of each colour, and spans that
    the code of these makes by itself. Variants: children in threads; no span where tracing has ended."""
    assert perdure.with_runcontext(name="t1").run(main).result == 3
    root = one("tracing.main")
    assert root.parent is None
    attributes = root.attributes or {}
    assert attributes["perdure.run"] == "t1"
    assert attributes["perdure.outcome"] == "succeeded"
    assert below(one("the user's"), root)
    assert below(one("tracing.child"), one("the user's"))
    assert below(one("step"), one("tracing.child"))
    assert below(one("inside the trace"), one("step"))
    assert below(one("step_async"), root)
    assert below(one("inside the async trace"), one("step_async"))
    exporter.clear()
    perdure.run(threads)
    assert all(below(span, one("tracing.threads")) for span in named("tracing.child"))
    assert len(named("tracing.child")) == len(named("step")) == 3
    exporter.clear()
    tracing.uninstrument()
    perdure.run(main)
    assert [span.name for span in exporter.get_finished_spans() if "tracing" in span.name] == []


def test_attempts_are_events_and_failures_are_told_once() -> None:
    assert perdure.run(flaky).result == 1
    flaky_span = one("tracing.flaky")
    numbers = [(event.attributes or {})["perdure.attempt"] for event in flaky_span.events if event.name == "attempt"]
    assert numbers == [1, 2]
    assert flaky_span.status.is_ok or flaky_span.status.status_code.name == "UNSET"
    # The second attempt replays the step, which is no second span; the failed trace was tried once.
    assert len(named("step")) == 1
    assert one("fails").status.description == "LookupError: no such row"
    exporter.clear()
    with pytest.raises(LookupError):
        perdure.run(never)
    assert (one("tracing.never").attributes or {})["perdure.outcome"] == "failed"
    assert one("tracing.never").status.status_code.name == "ERROR"


def test_a_tracer_that_fails_costs_the_spans_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    """OT3."""

    class Broken:
        def start_span(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("no tracer")

    class BrokenProvider:
        def get_tracer(self, *args: Any, **kwargs: Any) -> Any:
            return Broken()

    tracing.instrument(BrokenProvider())  # type: ignore[arg-type]
    with caplog.at_level(logging.WARNING, "perdure"):
        assert perdure.run(main).result == 3
    assert "a run could not be traced: RuntimeError: no tracer" in caplog.text


@env.task
def sleeps() -> int:
    step(1)
    durable_sleep(0.01)
    return step(2)


def test_a_span_of_the_submitter_is_not_disturbed() -> None:
    with own.start_as_current_span("caller") as span:
        assert perdure.run(sleeps).result == 2
        assert trace.get_current_span() is span


KILLED = """
import os, time
import perdure
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from perdure.integrations.opentelemetry import instrument
from perdure.extras import durable_sleep

class ToFile(SpanExporter):
    def export(self, spans):
        with open("spans", "a") as file:
            for span in spans:
                file.write(span.to_json(indent=None) + "\\n")
        return SpanExportResult.SUCCESS

provider = TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(ToFile()))
instrument(provider)
env = perdure.TaskEnvironment("k")

@perdure.trace
def step(n: int) -> int:
    print("step", n)
    return n

@env.task
def child(n: int) -> int:
    return step(n)

@env.task
def main() -> int:
    a = child(1)
    while not os.path.exists("go"):
        time.sleep(0.02)
    durable_sleep(0.5)
    return a + step(2)
"""


def test_a_recovered_run_continues_its_trace_and_doubles_nothing(shell: Shell) -> None:
    """OT1, OT2: a run is killed, resumed, parked by a worker and woken. Variants: the ids stand in the logs; the run
    tells its trace."""
    shell.write("k.py", KILLED)
    process = shell.start("run", "k.py", "main", "--name", "one")
    wait_for(lambda: "step 1" in shell("logs", "one").stdout)
    wait_for(lambda: any(node["status"] == "SUCCEEDED" for node in shell.json("show", "one")["actions"]))
    process.send_signal(signal.SIGKILL)
    process.communicate()
    (shell.path / "go").touch()
    worker = shell.start("serve", "k.py", "--park-after", "0.1s")
    try:
        assert shell("wait", "one").returncode == 0
    finally:
        worker.terminate()
        worker.communicate(timeout=60)
    spans = [json.loads(line) for line in (shell.path / "spans").read_text().splitlines()]
    assert len({span["context"]["trace_id"] for span in spans}) == 1
    assert [span["name"] for span in spans].count("k.child") == 1
    assert [span["name"] for span in spans].count("step") == 2
    lives = [span for span in spans if span["name"] == "k.main"]
    # The life that was killed has told nothing of its own end.
    assert [life["attributes"]["perdure.outcome"] for life in lives][-1] == "succeeded"
    assert len(lives) >= 2
    assert lives[0]["attributes"]["perdure.outcome"] == "parked"
    for life in lives:
        assert len(life["links"]) == 1
    assert lives[1]["links"][0]["context"]["span_id"] == lives[0]["context"]["span_id"]
    first = {life["parent_id"] for life in lives}
    assert len(first) == 1
    assert spans[0]["parent_id"] is not None
    told = json.loads(shell("published", "one", "--json").stdout)
    text = json.dumps(told)
    assert spans[0]["context"]["trace_id"].removeprefix("0x") in text
    records = [json.loads(line) for line in shell("logs", "one", "--json").stdout.splitlines()]
    by_step = {span["context"]["span_id"].removeprefix("0x") for span in spans if span["name"] == "step"}
    assert {record["span_id"] for record in records if record["text"].startswith("step")} == by_step


def test_a_run_of_a_worker_is_below_the_span_of_its_submitter() -> None:
    """OT4. Variants: a run that the submitting process drives, and one that is submitted and driven later."""
    tracer = trace.get_tracer("test", tracer_provider=provider)
    with tracer.start_as_current_span("request") as above:
        perdure.with_runcontext(name="later").submit(main)
        perdure.run(main)
    assert all(span.parent is not None for span in named("tracing.main"))
    exporter.clear()
    assert perdure.with_runcontext(name="later").run(main).result == 3
    parent = one("tracing.main").parent
    assert parent is not None
    assert parent.span_id == above.get_span_context().span_id
    assert parent.trace_id == above.get_span_context().trace_id

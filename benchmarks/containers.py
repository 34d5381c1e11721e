"""The rows about containers: perdure's life of a container against the engine's own client on the same engine."""

from __future__ import annotations

from statistics import median

from plan import Plan
from runner import Runner
from servers import MissingError, private_engine
from table import Line, at_most, times
from timeline import Timeline

ENGINES = ("docker", "podman")


def measure(runner: Runner) -> None:
    """All rounds of the rows."""
    for kind in ENGINES:
        try:
            with private_engine(kind) as (url, image):
                for number in range(runner.plan.container_rounds):
                    runner.say(f"{kind}, round {number + 1} of {runner.plan.container_rounds}")
                    _round(runner, kind, "--engine", url, "--image", image)
        except MissingError as error:
            runner.timeline.absent[kind] = str(error)


def _round(runner: Runner, kind: str, *engine: str) -> None:
    plan = runner.plan
    raw = ("--mode", "raw")
    for mode in ("raw", "call", "raw", "in-a-row", "raw"):
        key = f"{kind}_noop_{mode}"
        runner.measure(key, "container_noop.py", *engine, "--mode", mode, "--count", plan.containers)
    overlap = "container_overlap.py"
    at_once = (*engine, "--count", plan.containers_at_once)
    runner.measure(f"{kind}_at_once_raw", overlap, *at_once, *raw)
    runner.measure(f"{kind}_at_once", overlap, *at_once)
    runner.measure(f"{kind}_one_by_one", overlap, *engine, "--one-by-one", "--count", plan.containers_one_by_one)
    for what, size in (
        ("file", ("--bytes", plan.container_mib << 20)),
        ("dir", ("--files", plan.container_files)),
    ):
        case = (*engine, "--what", what, *size)
        runner.measure(f"{kind}_{what}_raw", "container_input.py", *case, *raw)
        runner.measure(f"{kind}_{what}", "container_input.py", *case)
    runner.measure(f"{kind}_output", "container_output.py", *engine, "--bytes", plan.container_mib << 20)


def lines(t: Timeline, plan: Plan) -> list[Line]:
    """The rows of the table."""
    return [line for kind in ENGINES for line in _lines(t, plan, kind)]


def _lines(t: Timeline, plan: Plan, kind: str) -> list[Line]:
    if kind in t.absent:
        return [Line(f"{kind}: containers", "-", verdict=f"not measured: {t.absent[kind]}")]

    def seconds(key: str) -> str:
        figure = t.median(key)
        return "-" if figure is None else f"{figure * 1000:,.0f} ms" if figure < 2 else f"{figure:,.1f} s"

    call, in_a_row = (t.ratio(f"{kind}_noop_{mode}", f"{kind}_noop_raw") for mode in ("call", "in-a-row"))
    result = [
        Line(f"{kind}: raw: create + start + wait + remove of a no-op", seconds(f"{kind}_noop_raw")),
        Line(f"{kind}: a no-op container, from call to result", seconds(f"{kind}_noop_call"), times(call),
             target="1.1x raw", verdict=at_most(call, 1.1)),
        Line(f"{kind}: no-op containers in a row, removals included, each", seconds(f"{kind}_noop_in-a-row"),
             times(in_a_row), target="1.1x raw", verdict=at_most(in_a_row, 1.1)),
    ]  # fmt: skip

    many = plan.containers_at_once
    at_once, each = t.median(f"{kind}_at_once"), t.median(f"{kind}_one_by_one")
    faster = None if at_once is None or each is None else many * each / at_once
    against = t.ratio(f"{kind}_at_once", f"{kind}_at_once_raw")
    shown = "" if faster is None else f", {faster:.1f} times as fast as one by one ({each:.2f} s each)"
    result += [
        Line(f"{kind}: raw: {many} containers of `sleep 1` at once", seconds(f"{kind}_at_once_raw")),
        Line(f"{kind}: {many} containers of `sleep 1` at once", seconds(f"{kind}_at_once") + shown, times(against)),
    ]

    for what, name in (
        ("file", f"a File of {plan.container_mib:,} MiB"),
        ("dir", f"a Dir of {plan.container_files:,} files"),
    ):
        key = f"{kind}_{what}"
        entries = t.extra.get(key, [])
        copied = max((entry["copied"] for entry in entries), default=None)
        first = median(entry["first"] for entry in entries) if entries else None
        figure = seconds(key) if first is None else f"{seconds(key)}; the first time {first * 1000:,.0f} ms"
        ratio = t.ratio(key, f"{key}_raw")
        result += [
            Line(f"{kind}: raw: the same of {name}, bind-mounted", seconds(f"{key}_raw")),
            Line(f"{kind}: {name} as an input", figure, times(ratio), target="no copy", verdict=
                 "not measured" if copied is None else f"{copied / (1 << 20):.1f} MiB copied" if copied else "met"),
        ]  # fmt: skip

    growth = t.median(f"{kind}_output")
    took = [entry["seconds"] for entry in t.extra.get(f"{kind}_output", [])]
    figure = "-" if growth is None else f"+{growth:.0f} MiB in {median(took):.1f} s"
    result.append(
        Line(f"{kind}: memory while an output of {plan.container_mib:,} MiB is collected", figure,
             target="64 MiB growth", verdict=at_most(growth, 64, " MiB"))
    )  # fmt: skip
    return result

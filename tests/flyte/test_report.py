"""Scripts that use `flyte.report`: both colours of each function, tabs, timelines, changes by hand."""

from __future__ import annotations

from tests.flyte.scripts import Scripts


def test_reports_are_kept_with_their_actions(scripts: Scripts) -> None:
    scripts.write("""
        import flyte.report

        @env.task(report=True)
        async def charts() -> str:
            tab = flyte.report.get_tab("Chart")
            tab.log("<svg/>")
            await flyte.report.log.aio("first", do_flush=True)
            await flyte.report.replace.aio("second")
            await flyte.report.flush.aio()
            timeline = flyte.report.Timeline("Events")
            timeline.heading("All & more")
            timeline.row(icon="!", label="<one>", meta="3 ms", detail="more", error="bad")
            flyte.report.current_report().tabs["main"].content.append("by hand")
            flyte.report.current_report().tabs["Late"] = flyte.report.Tab("Late", flyte.report.current_report())
            flyte.report.flush()
            return flyte.report.current_report().get_tab("main").get_html()

        @env.task(report=True)
        def plain() -> bool:
            flyte.report.log("plain")
            flyte.report.flush()
            return flyte.report.current_report().has_content()

        @env.task
        async def main() -> tuple[str, bool]:
            return await charts(), await plain.aio()

        run = flyte.run(main)
        print(run.name, flyte.report.abbreviate("<abcdef>", 4), flyte.report.duration_ms(
            "2026-01-01T00:00:00", "2026-01-01T00:00:00.250"))
        print(list(run.outputs()))
    """)
    head, outputs = scripts.run("script.py").splitlines()
    name, abbreviated, took = head.split(maxsplit=2)
    assert (abbreviated, took) == ("&lt;abc…", "250 ms")
    assert outputs == r"['second\nby hand', True]"
    charts = scripts.perdure("report", name, "charts")
    for part in ("<svg/>", "second", "by hand", "<h3>All &amp; more</h3>", "<b>&lt;one&gt;</b>", "⚠ bad"):
        assert part in charts
    assert "first" not in charts
    assert "plain" in scripts.perdure("report", name, "plain")

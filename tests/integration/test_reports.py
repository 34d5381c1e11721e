"""Reports: HTML of an action for people, complete after every crash, each piece once."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from tests.integration.shell import Shell, last

import perdure
from perdure import report, runtime
from perdure.api.reports import page, read_lines, report_file, report_files
from perdure.errors import UsageError
from perdure.upkeep.collecting import collect

env = perdure.TaskEnvironment(name="reports")
process_env = perdure.TaskEnvironment(name="process_reports", executor="process")


@pytest.fixture(autouse=True)
def store(tmp_path: Path) -> Iterator[Path]:
    perdure.init(store=tmp_path / "perdure.db")
    yield tmp_path
    perdure.init()


@env.task
def child(n: int) -> int:
    report.log(f"<p>child {n}</p>")
    return n


@perdure.trace
def traced(word: str) -> str:
    report.get_tab("Traces").log(word)
    return word


@env.task
async def parent() -> int:
    report.log("<h1>begin</h1>")
    traced_words = await asyncio.gather(traced.aio("one"), traced.aio("two"))
    report.get_tab("Numbers").log("1")
    report.get_tab("Numbers").replace("2")
    return len(traced_words) + await child.aio(1) + await child.aio(2)


@process_env.task
def in_a_process() -> None:
    report.log("<p>from a process</p>")


@env.task
def calls_a_process() -> None:
    in_a_process()


def test_each_action_has_a_report_of_its_own() -> None:
    run = perdure.run(parent)
    found = report_files(run.name)
    assert [(one.name, one.action) for one in found] == [
        ("reports.parent", 0), ("reports.child", 1), ("reports.child", 2),
    ]  # fmt: skip
    html = found[0].html()
    assert "<h1>begin</h1>" in html
    assert "one\ntwo" in html
    assert "\n2\n" in html
    assert "\n1\n" not in html
    assert "<p>child 2</p>" in found[2].html()
    mode = os.stat(found[0].path).st_mode
    assert stat.S_IMODE(mode) == 0o600


def test_bodies_in_other_processes_report_too() -> None:
    run = perdure.run(calls_a_process)
    assert "<p>from a process</p>" in report_file(run.name, "in_a_process").html()


def test_outside_of_a_run_a_report_is_kept_nowhere(store: Path) -> None:
    report.log("<p>nowhere</p>")
    assert "nowhere" in report.current_report().get_final_report()
    assert not Path(runtime.reports()).exists()


def test_what_is_no_report_is_refused_with_the_remedy() -> None:
    """The family: no text, no tab, no report, several reports, an action without one."""
    with pytest.raises(UsageError, match="takes text of HTML, not int"):
        report.log(3)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="'' is no name of a tab"):
        report.get_tab("")
    with pytest.raises(ValueError, match="has no tab 'none'; it has: main"):
        report.get_tab("none", create_if_missing=False)
    run = perdure.run(parent)
    with pytest.raises(UsageError, match=r"several reports; name an action by its number: reports.parent \(0\)"):
        report_file(run.name, None)
    with pytest.raises(UsageError, match="no report of 'absent'"):
        report_file(run.name, "absent")
    assert report_file(run.name, "2").action == 2
    assert report_file(run.name, "parent").action == 0


def test_names_are_escaped_and_content_is_not() -> None:
    html = page("<title>", {"a & b": "<b>bold</b>", "empty": ""})
    assert "&lt;title&gt;" in html
    assert "a &amp; b" in html
    assert "<b>bold</b>" in html
    assert "empty" not in html


FLOW = """
    import perdure, os
    from perdure import report
    from perdure.extras import durable_sleep
    env = perdure.TaskEnvironment(name="r")

    def log(word):
        with open("log", "a") as file:
            file.write(word + "\\n")

    @perdure.trace
    def step(n: int) -> int:
        report.log(f"trace{n}")
        log(f"step{n}")
        return n

    @env.task
    def main(s: float = 2) -> int:
        report.log("begin")
        step(1)
        report.log(os.environ.get("WORD", "middle"))
        report.get_tab("Other").replace("before")
        durable_sleep(s)
        report.get_tab("Other").replace("after")
        step(2)
        report.log("end")
        return 1
"""


def lines(shell: Shell) -> list[tuple[str, str]]:
    [path] = (shell.path / ".perdure").glob("*reports/*/0.jsonl")
    return [(line.tab, line.html) for line in read_lines(str(path))]


@pytest.mark.parametrize("word", ["middle", "changed"])
def test_a_resumed_action_completes_its_report(shell: Shell, word: str) -> None:
    """The family: lines that are logged again, lines that differ, lines of traces, which are not executed again."""
    shell.write("wf.py", FLOW)
    process = shell.start("run", "wf.py", "main", "--name", "x", "--s", "5")
    shell.until_logged("step1")
    shell.until_it_sleeps("x")
    process.kill()
    process.wait()
    begun = [("main", "begin"), ("main", "trace1"), ("main", "middle"), ("Other", "before")]
    assert lines(shell) == begun
    assert shell("resume", "x", WORD=word).returncode == 0
    begun[2] = ("main", word)
    assert lines(shell) == [*begun, ("Other", "after"), ("main", "trace2"), ("main", "end")]
    assert shell("resume", "x").returncode == 0
    assert len(lines(shell)) == 7


def test_the_command_prints_writes_and_names_reports(shell: Shell) -> None:
    shell.write("wf.py", FLOW)
    assert shell("run", "wf.py", "main", "--name", "x", "--s", "0").returncode == 0
    assert "reports of r.main (0); see one with: perdure report x ACTION" in shell("show", "x").stderr
    html = shell("report", "x").stdout
    assert html.startswith("<!DOCTYPE html>")
    assert "begin\ntrace1\nmiddle\ntrace2\nend" in html
    assert shell("report", "x", "main", "-o", "page.html").returncode == 0
    assert (shell.path / "page.html").read_text() == html
    assert shell.json("report", "x")["html"] == html
    assert "cannot be written" in last(shell("report", "x", "-o", "no/page.html").stderr)
    shell.write("plain.py", "import perdure\nenv = perdure.TaskEnvironment(name='p')\n@env.task\ndef main(): pass\n")
    shell("run", "plain.py", "main", "--name", "y")
    assert "run 'y' has no report on this machine" in last(shell("report", "y").stderr)


def test_a_line_that_a_crash_cut_short_is_left_out(shell: Shell) -> None:
    shell.write("wf.py", FLOW)
    process = shell.start("run", "wf.py", "main", "--name", "x", "--s", "5")
    shell.until_logged("step1")
    shell.until_it_sleeps("x")
    process.kill()
    process.wait()
    [path] = (shell.path / ".perdure").glob("*reports/*/0.jsonl")
    path.write_bytes(path.read_bytes()[:-9])
    assert len(lines(shell)) == 3
    assert shell("resume", "x").returncode == 0
    assert [html for _, html in lines(shell)] == ["begin", "trace1", "middle", "before", "after", "trace2", "end"]


def test_reports_go_with_their_runs() -> None:
    kept, gone = perdure.run(parent), perdure.run(parent)
    assert len(list(Path(runtime.reports()).iterdir())) == 2
    removed = collect(timedelta(0))
    assert {run.name for run in removed.runs} == {kept.name, gone.name}
    assert not list(Path(runtime.reports()).iterdir())

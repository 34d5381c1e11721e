"""Lists of very many runs: a page costs the same in a store of 100,000 runs, and no list reads the whole table."""

from __future__ import annotations

import json
import sqlite3
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest
from tests.integration.shell import Shell

from perdure.store._sql import queries

REPOSITORY = Path(__file__).resolve().parents[2]

MEASURE = """
import json, sys, time
import perdure
from perdure.api import looking
from perdure.ui import pages
from perdure.ui.values import Mask

perdure.init(sys.argv[1])
ui = pages.UiSettings({}, Mask())
found = {}
for query in json.loads(sys.argv[2]):
    spent = []
    for _ in range(3):
        begin = time.process_time()
        page = pages.runs_page(ui, query)
        spent.append(time.process_time() - begin)
    found[json.dumps(query)] = [min(spent), len(page["runs"]), page["after"], page["reached"]]
print(json.dumps(found))
"""

QUERIES: tuple[dict[str, str], ...] = (
    {},
    {"after": "50000"},
    {"status": "FAILED"},
    {"status": "FAILED", "after": "50000"},
    {"status": "ABORTED"},
    {"status": "INTERRUPTED"},
    {"task": "many.rare"},
    {"task": "many.rare", "status": "SUCCEEDED"},
    {"task": "many.nothing"},
    {"name": "run-77"},
    {"name": "*nothing*"},
    {"tag": "team=web"},
    {"error": "ValueError"},
    {"error": "KeyError"},
)


def test_each_page_of_a_list_of_100000_runs_is_made_within_200_ms(shell: Shell) -> None:
    """The family: no filter, the next page, a rare and an absent status, a rare and an absent task, a name, a pattern,
    a tag and an error that no run has. Processor time, because the machine may be busy."""
    subprocess.run(
        [sys.executable, REPOSITORY / "scripts/many_runs.py", "many.db", "100000"], cwd=shell.path, env=shell.env,
        check=True,
    )  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", MEASURE, "many.db", json.dumps(QUERIES)], cwd=shell.path, env=shell.env, check=True,
        capture_output=True, text=True,
    )  # fmt: skip
    found = json.loads(done.stdout)
    assert {query: spent for query, (spent, *_) in found.items() if spent > 0.2} == {}
    rows = {query: count for query, (_, count, *_) in found.items()}
    assert rows[json.dumps({})] == rows[json.dumps({"status": "FAILED"})] == 50
    assert rows[json.dumps({"task": "many.rare"})] == 10
    assert rows[json.dumps({"name": "run-77"})] == 1
    # A search that finds nothing says how far it looked, and where to go on.
    _, count, after, reached = found[json.dumps({"name": "*nothing*"})]
    assert (count, after is not None, reached is not None) == (0, True, True)


@pytest.mark.parametrize(
    ("name", "index"),
    [
        ("runs_all", "INTEGER PRIMARY KEY (rowid<?)"),
        ("runs_succeeded", "INTEGER PRIMARY KEY (rowid<?)"),
        ("runs_running", "runs_running"),
        ("runs_rare", "runs_rare (status=? AND rowid<?)"),
        ("runs_all_of_task", "runs_task (task=? AND rowid<?)"),
        ("runs_succeeded_of_task", "runs_task (task=? AND rowid<?)"),
        ("runs_running_of_task", "runs_running (task=?)"),
        ("runs_rare_of_task", "runs_rare (status=? AND rowid<?)"),
    ],
)
def test_no_list_reads_the_whole_table_nor_sorts_it(shell: Shell, name: str, index: str) -> None:
    shell("run", "wf.py", "text", "--name", "one", "--store", "one.db")
    sql = queries("sqlite")[name]
    with closing(sqlite3.connect(shell.path / "one.db")) as raw:
        steps = [row[3] for row in raw.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?"))]
    assert any(index in step for step in steps), steps
    assert not any(step.startswith("SCAN") and "INDEX runs_running" not in step for step in steps), steps

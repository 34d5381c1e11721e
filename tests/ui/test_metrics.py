"""Figures for Prometheus: the text format, and the rules and the dashboard that use the figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import yaml
from tests.ui.site import Site, Visitor

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_line = re.compile(r'(?P<name>\w+)(?:\{(?P<label>\w+)="(?P<value>\w+)"\})? (?P<number>\d+)')


def figures(visitor: Visitor) -> dict[tuple[str, str], int]:
    """The figures by name and value of the label."""
    answer = visitor.http.get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[tuple[str, str], int] = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            parts = _line.fullmatch(line)
            assert parts is not None, line
            found[parts["name"], parts["value"] or ""] = int(parts["number"])
    return found


def test_the_figures_agree_with_the_pages(visitor: Visitor) -> None:
    found = figures(visitor)
    failed = visitor.json("/runs.json?status=FAILED")
    assert found["perdure_runs", "FAILED"] >= len(failed["runs"]) > 0
    assert found["perdure_workers", "alive"] >= 1
    assert found["perdure_waits", "condition"] >= 2
    assert found["perdure_waits", "mailbox"] >= 1
    assert sum(found["perdure_schedules", state] for state in ("active", "paused", "overdue")) == 1
    assert found["perdure_runs_interrupted", ""] == 0
    assert found["perdure_store_bytes", "database"] > 0


def test_rules_and_dashboard_use_figures_that_exist(visitor: Visitor) -> None:
    known = {name for name, _ in figures(visitor)}
    rules = yaml.safe_load((DEPLOY / "prometheus-rules.yaml").read_text())
    board = json.loads((DEPLOY / "grafana-dashboard.json").read_text())
    texts = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
    texts += [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    assert len(texts) == 10
    for text in texts:
        assert set(re.findall(r"perdure_\w+", text)) <= known, text


def test_there_are_no_figures_without_a_store_and_none_without_the_link(site: Site) -> None:
    (site.path / "bare").mkdir(exist_ok=True)
    assert figures(Visitor(site.ui("--store", "bare/none.db"))) == {}
    assert Visitor(site.ui("--token")).http.get("/metrics").status_code == 401

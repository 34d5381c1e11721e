"""Figures for Prometheus: the text format, and the rules and the dashboard that use the figures."""

from __future__ import annotations

import json
import re
from pathlib import Path

import httpx
import pytest
import yaml
from tests.ui.site import Site, Visitor
from tests.waiting import PATIENCE, wait_for

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
_line = re.compile(r"(?P<name>\w+)(?:\{(?P<labels>[^}]*)\})? (?P<number>[\d.e-]+)")
_pair = re.compile(r'\w+="((?:[^"\\]|\\.)*)"')


def figures(visitor: Visitor) -> dict[tuple[str, ...], float]:
    """The figures by name and values of the labels."""
    return figures_in(visitor.http.get("/metrics"))


def figures_in(answer: httpx.Response) -> dict[tuple[str, ...], float]:
    """The same of an answer."""
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: dict[tuple[str, ...], float] = {}
    for line in answer.text.splitlines():
        if not line.startswith("#"):
            parts = _line.fullmatch(line)
            assert parts is not None, line
            found[parts["name"], *_pair.findall(parts["labels"] or "")] = float(parts["number"])
    return found


def test_the_figures_agree_with_the_pages(visitor: Visitor) -> None:
    found = figures(visitor)
    failed = visitor.json("/runs.json?status=FAILED")
    assert found["perdure_runs", "FAILED"] >= len(failed["runs"]) > 0
    assert found["perdure_workers", "alive"] >= 1
    assert found["perdure_waits", "condition"] >= 2
    assert found["perdure_waits", "mailbox"] >= 1
    assert sum(found["perdure_schedules", state] for state in ("active", "paused", "overdue")) == 1
    assert found["perdure_runs_interrupted",] == 0
    assert found["perdure_store_bytes", "database"] > 0


def test_rules_and_dashboard_use_figures_that_exist(visitor: Visitor) -> None:
    known = {name for name, *_ in figures(visitor)}
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


def test_a_worker_serves_the_page_and_its_figures(site: Site, visitor: Visitor) -> None:
    """One process drives runs, shows them, and counts what it has driven. Variants: the page with and without a token,
    figures with and without a page, a foreign name in Host."""
    worker, told = site.worker("--ui", "--port", "0", "--token", "--metrics", "0", "--store", "both.db")
    by_page = Visitor.by_link(told["web page"])
    alone = httpx.Client(timeout=PATIENCE)
    address = told["figures"]
    assert figures_in(alone.get(address))["perdure_worker_runs",] == 0
    assert by_page.post("start", "shop.order", name="here").status_code == 303
    by_page.until("here", "SUCCEEDED")
    left = ("perdure_worker_left_total", "shop.order", "SUCCEEDED")
    wait_for(lambda: figures_in(alone.get(address)).get(left) == 1)
    for found in (figures_in(alone.get(address)), figures(by_page)):
        assert found["perdure_worker_commit_seconds",] > 0
        assert found["perdure_runs", "SUCCEEDED"] == 1
    assert alone.get(address.replace("/metrics", "/runs")).status_code == 404
    assert alone.get(address, headers={"host": "evil.example"}).status_code == 421
    assert httpx.get(f"{by_page.url}/metrics").status_code == 401
    # The death of the page is the death of the worker, and nothing else.
    worker.terminate()
    assert worker.wait(PATIENCE) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--port", "0"), "belong to --ui"),
        (("--metrics", "nowhere"), "'nowhere' is no address such as 9464"),
        (("--metrics", "99999"), "'99999' is no address such as 9464"),
        (("--metrics", "192.0.2.1:0"), "nothing can listen at 192.0.2.1:0"),
        (("--ui", "--host", "192.0.2.1"), "nothing can listen at 192.0.2.1:8420"),
    ],
)
def test_a_wrong_address_is_refused_before_anything_is_driven(
    site: Site, options: tuple[str, ...], message: str
) -> None:
    done = site.perdure("serve", "shop.py", "--store", "wrong.db", *options)
    assert done.returncode == 2
    assert message in done.stderr

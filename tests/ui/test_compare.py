"""Two runs side by side, on the page, as JSON and on the command line: what differs, and what does not."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from tests.ui.site import MARKUP, SECRET, Site, Visitor


def start(visitor: Visitor, name: str, task: str = "order", **inputs: str) -> None:
    fields = {f"in-{key}": value for key, value in inputs.items()}
    assert visitor.post("start", f"shop.{task}", name=name, **fields).status_code == 303


def compared(visitor: Visitor, a: str, b: str) -> dict[str, Any]:
    found: dict[str, Any] = visitor.json(f"/compare.json?a={quote(a)}&b={quote(b)}")["found"]
    return found


def test_runs_with_the_same_inputs_agree_in_every_call(visitor: Visitor) -> None:
    for name in ("same-1", "same-2"):
        start(visitor, name, item="tea", n="2")
        visitor.until(name, "SUCCEEDED")
    found = compared(visitor, "same-1", "same-2")
    assert (found["total"], found["compared"], found["parts"]) == (0, 3, None)
    assert found["sentence"] == "The journals agree in all 3 calls that both runs have."
    assert {one["name"] for one in found["times"]} == {"shop.pick", "reserve"}
    assert found["outcome"]["same"]


def test_the_first_difference_is_the_earliest_call_that_differs(visitor: Visitor) -> None:
    """The family: another input changes the inputs of calls, and one run makes a call more; both ways round."""
    start(visitor, "two", item="tea", n="2")
    start(visitor, "three", item="tea", n="3")
    for name in ("two", "three"):
        visitor.until(name, "SUCCEEDED")
    found = compared(visitor, "two", "three")
    assert [(one["what"], one["parts"]) for one in found["differences"]] == [("call", True), ("missing", False)]
    call, first = found["differences"]
    assert (call["a"]["name"], call["b"]["name"]) == ("shop.pick", "shop.pick")
    assert (first["a"], first["b"]["name"], first["b"]["outcome"]) == (None, "reserve", '"tea-2"')
    assert "entry 3 calls shop.pick, entry 4 of the other run calls it with other inputs" in found["sentence"]
    assert [(one["a"], one["b"]) for one in found["inputs"] if one["a"] != one["b"]] == [("2", "3")]
    back = compared(visitor, "three", "two")
    assert back["differences"][1]["b"] is None


def test_a_run_that_has_not_got_there_yet_does_not_differ(visitor: Visitor, site: Site) -> None:
    """A run that is paused before a call; a run that failed where the other went on differs in that call."""
    start(visitor, "bad-a", "broken", text="one")
    start(visitor, "bad-b", "broken", text="two")
    for name in ("bad-a", "bad-b"):
        visitor.until(name, "FAILED")
    assert compared(visitor, "bad-a", "bad-b")["total"] == 0
    assert not compared(visitor, "bad-a", "bad-b")["outcome"]["same"]
    assert compared(visitor, "order-1", "later-2")["total"] == 0  # has not begun
    assert compared(visitor, "order-1", "bad-a")["total"] > 0


def test_secrets_are_masked_and_markup_stays_text(visitor: Visitor) -> None:
    for page in (f"/compare?a=order-1&b={quote(MARKUP)}", "/compare.json?a=order-1&b=broken-1"):
        text = visitor.http.get(page).text
        assert SECRET not in text
        assert "<img src=x" not in text or page.startswith("/compare.json")


def test_the_form_offers_runs_of_the_same_task(visitor: Visitor) -> None:
    """The family: no run, one run, a run that is not there, the same run twice."""
    assert visitor.json("/compare.json")["found"] is None
    offered = visitor.json("/compare.json?a=ask-1")["offered"]
    assert "ask-1" not in offered
    assert "nap-1" not in offered
    assert visitor.http.get("/compare?a=ask-1&b=nothing").status_code == 404
    assert visitor.http.get("/compare?a=nothing").status_code == 404
    assert compared(visitor, "order-1", "order-1")["total"] == 0
    assert "/compare?a=order-1" in visitor.http.get("/run/order-1").text


def test_the_command_line_tells_the_same(visitor: Visitor, site: Site) -> None:
    start(visitor, "cli-2", item="tea", n="2")
    start(visitor, "cli-3", item="tea", n="3")
    for name in ("cli-2", "cli-3"):
        visitor.until(name, "SUCCEEDED")
    told = site.perdure("compare", "cli-2", "cli-3")
    assert told.returncode == 0, told.stderr
    assert "input n: 2 | 3" in told.stdout
    assert 'missing: none | 3 reserve: "tea-2"' in told.stdout
    data = json.loads(site.perdure("compare", "cli-2", "cli-3", "--json").stdout)
    assert data["total"] == compared(visitor, "cli-2", "cli-3")["total"]
    assert "no run is called" in site.perdure("compare", "cli-2", "nothing").stderr

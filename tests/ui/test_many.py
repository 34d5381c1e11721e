"""Operations on all runs of a filter, on the page: a count first, and nothing but what was counted is done."""

from __future__ import annotations

import re
from typing import Any

import pytest
from tests.ui.site import MARKUP, Site, Visitor


def store(visitor: Visitor, *names: str, tags: str = "") -> None:
    """Runs that begin much later."""
    for name in names:
        answer = visitor.post("start", "shop.order", name=name, tags=tags, at="2999-01-01T00:00")
        assert answer.status_code == 303


def counted(visitor: Visitor, operation: str, **filters: str) -> dict[str, Any]:
    query = "&".join(f"{key}={value}" for key, value in filters.items())
    found: dict[str, Any] = visitor.json(f"/bulk.json?operation={operation}&{query}")
    return found


def carry_out(visitor: Visitor, found: dict[str, Any], **changed: str) -> str:
    """Send the form of a counted page, and give the page after."""
    form = {**found["filters"], "count": str(found["count"]), "below": str(found["below"]), **changed}
    answer = visitor.post("bulk", found["operation"], **form)
    assert answer.status_code == 303
    return visitor.http.get(answer.headers["location"]).text


def test_the_page_counts_and_the_form_does_what_was_counted(visitor: Visitor) -> None:
    store(visitor, "many-1", "many-2", "many-3", tags="lot=a")
    visitor.post("abort", "many-3")
    found = counted(visitor, "abort", tag="lot%3Da", name="many-*")
    assert found["sentence"] == "3 runs match: 2 would be aborted; left alone: 1 ended"
    assert (found["count"], found["names"], found["left"]) == (2, ["many-2", "many-1"], {"ended": 1})
    assert visitor.status("many-1") == "QUEUED"
    assert "3 runs match: 2 were aborted" in carry_out(visitor, found)
    assert [visitor.status(f"many-{n}") for n in (1, 2, 3)] == ["ABORTED"] * 3


def test_runs_that_came_since_the_count_are_left_alone(visitor: Visitor) -> None:
    store(visitor, "came-1")
    found = counted(visitor, "abort", name="came-*")
    store(visitor, "came-2")
    carry_out(visitor, found)
    assert (visitor.status("came-1"), visitor.status("came-2")) == ("ABORTED", "QUEUED")


def test_a_count_that_is_no_longer_right_is_told_and_nothing_is_done(visitor: Visitor) -> None:
    """More runs than a person has confirmed are never changed. The family: a smaller count, one that is no number."""
    store(visitor, "more-1", "more-2")
    found = counted(visitor, "abort", name="more-*")
    assert "nothing was done, because the runs have changed" in carry_out(visitor, found, count="1")
    for wrong in ("", "-1", "x", "1" * 13):
        assert "must be a number" in carry_out(visitor, found, count=wrong)
        assert "must be a number" in carry_out(visitor, found, below=wrong)
    assert (visitor.status("more-1"), visitor.status("more-2")) == ("QUEUED", "QUEUED")


def test_runs_are_paused_resumed_and_cancelled_with_a_reason(visitor: Visitor) -> None:
    store(visitor, "still-1", "still-2")
    carry_out(visitor, counted(visitor, "pause", name="still-*"))
    assert visitor.status("still-1") == "PAUSED"
    assert counted(visitor, "pause", name="still-*")["left"] == {"paused before": 2}
    assert "2 were resumed" in carry_out(visitor, counted(visitor, "resume", name="still-*"))
    assert visitor.status("still-2") == "QUEUED"
    carry_out(visitor, counted(visitor, "cancel", name="still-*"), reason=MARKUP)
    assert MARKUP in visitor.json("/run/still-1.json")["run"]["why"]


def test_failed_runs_are_driven_by_the_page_and_a_failure_is_told(visitor: Visitor, site: Site) -> None:
    visitor.post("start", "shop.broken", name="bad-1")
    visitor.until("bad-1", "FAILED")
    (site.path / "mended").touch()
    carry_out(visitor, counted(visitor, "resume", name="bad-*", status="failed"))
    visitor.until("bad-1", "SUCCEEDED")
    (site.path / "mended").unlink()


@pytest.mark.parametrize(
    "query", ["operation=abort", "operation=explode&name=a", "name=a", "operation=abort&status=odd", "operation="]
)
def test_a_request_that_means_nothing_or_everything_is_refused(visitor: Visitor, query: str) -> None:
    assert visitor.http.get(f"/bulk?{query}").status_code == 400
    operation = re.search("operation=([a-z]+)", query)
    name = operation[1] if operation else "x"
    fields = {"status": "odd"} if "odd" in query else {"name": "a"} if "explode" in query else {}
    answer = visitor.post("bulk", name, count="9", below="99999", **fields)
    assert answer.status_code == 303
    assert "Error:" in visitor.http.get("/runs").text
    assert visitor.status("nap-1") == "SLEEPING"


def test_the_form_needs_its_session_and_a_writable_page(visitor: Visitor, site: Site) -> None:
    """The family: no token, another session's token, another site, a page that may only read."""
    found = counted(visitor, "abort", name="nap-1")
    form = {"name": "nap-1", "count": "1", "below": str(found["below"])}
    for headers, csrf in (({}, "0" * 64), ({"origin": "http://evil.example"}, visitor.csrf()), ({}, "")):
        assert visitor.post("bulk", "abort", headers, **{**form, "csrf": csrf}).status_code == 403
    reader = Visitor(site.ui("--read-only"))
    page = reader.http.get("/bulk?operation=abort&name=nap-1").text
    assert "1 run matches: 1 would be aborted" in page
    assert "<form" not in page
    assert "/bulk" not in reader.http.get("/runs?name=nap-1").text
    answer = reader.http.post(
        "/act/bulk?name=abort", headers={"origin": reader.url}, data={"csrf": visitor.csrf(), **form}
    )
    assert answer.status_code == 403
    assert visitor.status("nap-1") == "SLEEPING"


def test_the_list_offers_the_operations_only_behind_a_filter(visitor: Visitor) -> None:
    assert "/bulk" not in visitor.http.get("/runs").text
    assert "/bulk?status=FAILED&amp;operation=abort" in visitor.http.get("/runs?status=FAILED").text

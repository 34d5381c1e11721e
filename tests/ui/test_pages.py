"""The pages and their JSON, as a program asks for them."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from typing import Any
from urllib.parse import quote, urlencode

from tests.ui.site import MARKUP, SECRET, Site, Visitor


def test_the_list_of_runs_is_filtered_by_the_address(visitor: Visitor) -> None:
    """The family: each filter alone, together, and one that means nothing."""

    def names(query: str) -> list[str]:
        return [run["name"] for run in visitor.json(f"/runs.json?{query}")["runs"]]

    assert "broken-1" in names("status=FAILED")
    assert names("task=shop.nap&name=nap-*") == ["nap-1"]
    assert names("tag=team%3Dweb&name=o*") == ["order-1"]
    assert names("tag=team%3Dother") == []
    assert names("status=waiting&name=mail*") == ["mail-1"]
    assert names("until=2001-01-01T00:00") == []
    assert "order-1" in names("since=2001-01-01T00:00")
    assert visitor.http.get("/runs?status=odd").status_code == 400
    assert visitor.http.get("/runs?since=yesterday").status_code == 400
    assert visitor.http.get("/runs?after=x").status_code == 400
    assert {"order-1", "nap-1"} <= set(names("task=shop.*"))
    assert names("task=other.*") == []
    assert "broken-1" in names("error=Exception&task=*.broken")
    assert "broken-1" in names("error=LookupError")
    assert "broken-1" not in names("error=TimeoutError")
    assert "broken-1" in names("status=attention")
    assert not {"order-1", "nap-1", "later-1", "later-2"} & set(names("status=attention"))


def test_a_filter_that_means_nothing_is_told_beside_the_form(visitor: Visitor) -> None:
    for asked in ("tag=team", "status=odd", "since=yesterday"):
        answer = visitor.http.get(f"/runs?{asked}")
        assert answer.status_code == 400
        assert 'role="alert"' in answer.text
        assert 'role="search"' in answer.text


def test_a_cause_leads_to_its_own_runs(visitor: Visitor) -> None:
    """Another line with the same error in the same task is another cause."""
    group = next(one for one in visitor.json("/failures.json")["groups"] if one["task"] == "shop.broken")
    asked = {"status": "FAILED", "task": group["task"], "error": group["error"], "place": group["where"]}
    assert "broken-1" in [run["name"] for run in visitor.json(f"/runs.json?{urlencode(asked)}")["runs"]]
    assert urlencode({"place": group["where"]}) in visitor.http.get("/failures").text.replace("&amp;", "&")
    asked["place"] = "elsewhere.py:1 in f"
    assert visitor.json(f"/runs.json?{urlencode(asked)}")["runs"] == []


def test_a_run_that_has_not_begun_is_not_called_reused(visitor: Visitor) -> None:
    page = visitor.http.get("/run/later-2").text
    assert "· reused" not in page
    assert "from the cache" not in page
    assert "not begun" in page
    root = visitor.json("/run/later-2.json")["chosen"]
    assert (root["cached"], root["phase"]) == (False, "not begun")


def test_limits_are_shown_changed_and_reset(site: Site, visitor: Visitor) -> None:
    assert site.perdure("run", "shop.py", "limited", "--name", "limited-1").returncode == 0
    found = visitor.json("/limits.json")["limits"]
    assert [(one["name"], one["held"], one["waiting"]) for one in found] == [("paid", 0, 0)]
    assert "concurrency=2" in found[0]["declared"]
    assert visitor.post("limit-set", "paid", settings="concurrency=5").headers["location"] == "/limits"
    assert visitor.json("/limits.json")["limits"][0]["override"] == "concurrency=5"
    visitor.post("limit-set", "paid", settings="odd=5")
    assert "Error: limit paid: odd cannot be set" in visitor.http.get("/limits").text
    visitor.post("limit-reset", "paid")
    assert not visitor.json("/limits.json")["limits"][0]["override"].strip("-")


def test_actions_of_one_name_are_told_apart_by_their_inputs(visitor: Visitor) -> None:
    found = visitor.json(f"/run/{quote('a/b .json', safe='')}?format=json")["actions"]
    assert [one["inputs_line"] for one in found if one["name"] == "reserve"] == ['item="tea", n=0', 'item="tea", n=1']
    assert SECRET not in visitor.http.get("/run/order-1").text


def test_wake_is_offered_only_where_it_changes_something(visitor: Visitor) -> None:
    """A delayed run begins; a recorded sleep and a condition stay, and the refusal says what the run waits for."""
    offered = {name: "wake" in visitor.json(f"/run/{name}.json")["acts"] for name in ("later-2", "nap-1", "ask-1")}
    assert offered == {"later-2": True, "nap-1": False, "ask-1": False}
    page = visitor.http.get(visitor.post("wake", "ask-1").headers["location"]).text
    assert "Error: waking run &#39;ask-1&#39; changes nothing" in page
    assert "The run waits for condition" in page


def test_broken_json_is_told_beside_its_field_and_nothing_is_stored(visitor: Visitor) -> None:
    for text in ("[1,", "{", " [1"):
        answer = visitor.post("start", "shop.packs", **{"in-items": text, "name": "packs-broken"})
        assert answer.status_code == 400, text
        assert re.search(r'class="error" id="in1-problem"[^>]*>input --items of shop.packs', answer.text)
    assert visitor.http.get("/run/packs-broken").status_code == 404


def test_a_run_tells_why_it_does_not_move(visitor: Visitor) -> None:
    """One sentence for each reason: a time, a condition, a message, an error, an earliest beginning."""
    said = {name: visitor.json(f"/run/{name}.json")["run"]["why"] for name in
            ("nap-1", "ask-1", "mail-1", "broken-1", "later-2", "order-1")}  # fmt: skip
    assert said["nap-1"].startswith("The run sleeps until ")
    assert said["ask-1"].startswith(f"The run waits for condition 'ship': Ship it? {MARKUP}")
    assert said["mail-1"] == "The run waits for mailbox 'numbers'."
    assert said["broken-1"] == f"The run failed: LookupError: {MARKUP}"
    assert re.fullmatch(r"The run begins at \S+ \S+ \S+ at the earliest.", said["later-2"])
    assert said["order-1"] == "The run succeeded."


def test_a_run_that_cannot_be_driven_tells_why_and_a_resume_on_the_page_tells_it_too(
    site: Site, visitor: Visitor
) -> None:
    """RF1. The sentence, the whole error and the ways out; a resume that fails at once is no success; and a run that is
    driven again for real is refused no more."""
    region = site.path / "region"
    region.write_text("orders")
    assert visitor.post("start", "shop.regional", name="region-1").status_code == 303
    visitor.until("region-1", "SLEEPING")
    region.write_text("invoices")
    visitor.until("region-1", "INTERRUPTED")
    run = visitor.json("/run/region-1.json")["run"]
    assert re.match(r"Worker \d+ on \S+ cannot drive the run \(tried \d+ times?, again at .+\): Non", run["why"]), run
    assert "expected trace reserve({'item': 'orders', 'n': 1})" in run["why"]
    assert "received trace reserve({'item': 'invoices', 'n': 1})" in run["why"]
    assert re.search(r"shop\.py:\d+ \(regional\)$", run["refusal"]["place"])
    assert [way.partition(": ")[2] for way in run["refusal"]["ways_out"]] == [
        "perdure resume region-1", "perdure resume region-1 --accept", "perdure rerun region-1 --recover",
    ]  # fmt: skip
    listed = json.loads(site.perdure("ls", "--name", "region-1", "--json").stdout)
    assert "cannot drive the run" in json.dumps(listed)
    assert "perdure resume region-1 --accept" in site.perdure("show", "region-1").stdout
    assert [one["newest"] for one in visitor.json("/failures.json")["refused"]] == ["region-1"]
    answer = visitor.post("resume", "region-1")
    page = visitor.http.get(answer.headers["location"]).text
    # The worker may be about to try again at that very moment.
    assert "Error: run region-1 was resumed, and cannot be driven" in page or "is being driven" in page
    assert "Why no process can drive the run" in page or "is being driven" in page
    region.write_text("orders")
    visitor.until("region-1", "SUCCEEDED")
    assert visitor.json("/run/region-1.json")["run"]["refusal"] is None
    assert visitor.json("/failures.json")["refused"] == []


def test_the_workers_tell_what_they_serve_and_the_page_itself_serves_nothing(visitor: Visitor) -> None:
    workers = visitor.json("/workers.json")["workers"]
    assert [one["places"] for one in workers if "shop.order" in one["serves"]] == [100]
    assert [one["serves"] for one in workers if one["here"]] in ([], [[]])
    assert "shop.order" in visitor.http.get("/workers").text


def test_a_failed_attempt_shows_its_error_while_the_next_one_waits(visitor: Visitor) -> None:
    assert visitor.post("start", "shop.bank", name="bank-1").status_code == 303
    visitor.until("bank-1", "SLEEPING")
    found = visitor.json("/run/bank-1.json")
    assert found["run"]["why"].endswith(f"It failed with ConnectionError: {MARKUP}")
    [failure] = found["chosen"]["failures"]
    assert failure["message"] == MARKUP
    assert failure["line"]["function"] == "bank"
    page = visitor.http.get("/run/bank-1").text
    assert "Failed attempts" in page
    assert "<img src=x" not in page


def test_a_failed_action_shows_its_error_with_the_line_that_raised(visitor: Visitor) -> None:
    found = visitor.json("/run/broken-1.json")["chosen"]["failure"]
    assert found["type"].endswith("LookupError")
    assert found["message"] == MARKUP
    assert found["line"]["file"].endswith("shop.py")
    assert found["line"]["function"] == "broken"
    assert "raise LookupError(text)" in found["frames"]


def test_actions_are_filtered_sorted_and_summed_up(visitor: Visitor) -> None:
    whole = visitor.json("/run/order-1.json")
    assert [one["name"] for one in whole["actions"]] == ["shop.order", "shop.pick", "reserve", "reserve"]
    assert {one["name"]: one["count"] for one in whole["groups"]} == {"shop.pick": 1, "reserve": 2}
    assert visitor.json("/run/order-1.json?only=failed")["matching"] == 0
    assert visitor.json("/run/order-1.json?only=reserve")["matching"] == 2
    slowest = [one["duration"] for one in visitor.json("/run/order-1.json?order=slowest")["actions"]]
    assert slowest == sorted(slowest, reverse=True)
    assert all(left + width <= 1002 for left, width in (one["bar"] for one in whole["actions"]))
    assert visitor.http.get("/run/order-1?at=99").status_code == 400
    assert visitor.http.get("/run/order-1?from=-1").status_code == 400


def test_a_run_is_found_under_any_name_that_a_run_may_have(visitor: Visitor) -> None:
    """The family: markup, slashes, blanks, a name that ends like the address of JSON, no such run."""
    for name in (MARKUP, "a/b .json"):
        path = f"/run/{quote(name, safe='')}"
        assert visitor.http.get(path).headers["content-type"].startswith("text/html")
        assert visitor.json(f"{path}.json")["run"]["name"] == name
        assert visitor.json(f"{path}?format=json")["run"]["name"] == name
    assert visitor.http.get("/run/nothing").status_code == 404
    assert visitor.json("/run?format=json&name=order-1")["run"]["name"] == "order-1"


def test_every_page_is_there_as_json(visitor: Visitor) -> None:
    assert {one["run"] for one in visitor.json("/conditions.json")["conditions"]} >= {"ask-1", "ask-2", "mail-1"}
    assert visitor.json("/condition.json?run=ask-1&box=ship")["yes_no"]
    assert any(one["alive"] for one in visitor.json("/workers.json")["workers"])
    assert [one["name"] for one in visitor.json("/schedules.json")["schedules"]] == ["shop.nap"]
    assert visitor.json("/storage.json")["bytes"] > 0
    fields = {one["name"]: one for one in visitor.json("/start.json?task=shop.order")["fields"]}
    assert fields["size"]["choices"] == ["SMALL", "LARGE"]
    assert fields["speed"]["choices"] == ["slow", "fast"]
    assert fields["gift"]["value"] == "false"
    assert fields["api_key"]["kind"] == "secret"
    assert fields["parts"]["kind"] == "long"


def test_an_unchanged_page_is_not_sent_again(visitor: Visitor) -> None:
    # A page without figures of the store, which another run may change in between.
    first = visitor.http.get("/start")
    again = visitor.http.get("/start", headers={"if-none-match": first.headers["etag"]})
    assert (again.status_code, again.text) == (304, "")


def test_a_wrong_input_is_told_beside_the_form_with_the_inputs_kept(visitor: Visitor) -> None:
    """The family: a text for a number, a choice that does not exist, JSON that is none, a name that is taken."""
    for field, text in (("n", "many"), ("size", "HUGE"), ("parts", "[1,"), ("gift", "perhaps")):
        answer = visitor.post("start", "shop.order", **{"in-item": "kept text", f"in-{field}": text})
        assert answer.status_code == 400, field
        assert 'role="alert"' in answer.text
        assert "kept text" in answer.text
    taken = visitor.post("start", "shop.order", name="broken-1")
    assert taken.status_code in (303, 400)
    assert visitor.status("broken-1") == "FAILED"


def test_a_message_that_does_not_fit_is_not_sent(visitor: Visitor) -> None:
    for act, name, box, field in (
        ("signal", "ask-1", "ship", {"in-value": "maybe"}),
        ("signal", "ask-2", "decide", {"in-ok": "perhaps"}),
        ("send", "mail-1", "numbers", {"in-value": "many"}),
    ):
        answer = visitor.post(act, name, box=box, **field)
        assert answer.status_code == 303
        assert "Error:" in visitor.http.get(answer.headers["location"]).text
        assert visitor.status(name) == "WAITING"


def test_the_page_of_a_store_that_does_not_exist_makes_no_store(site: Site) -> None:
    (site.path / "empty").mkdir()
    found = Visitor(site.ui("--store", "empty/none.db"))
    for page in ("/runs", "/conditions", "/workers", "/schedules", "/queues", "/failures", "/storage", "/runs.json"):
        assert found.http.get(page).status_code == 200, page
    assert found.http.get("/run/none").status_code == 404
    assert list((site.path / "empty").iterdir()) == []


def test_a_page_without_its_packages_says_what_to_install(site: Site) -> None:
    code = (
        "import sys; sys.modules['starlette'] = None; sys.argv = ['perdure', 'ui']; import perdure.cli as c; c.main()"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=site.path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "pip install 'perdure[ui]'" in done.stderr


def test_a_port_that_is_taken_is_one_clear_message(site: Site, url: str) -> None:
    port = url.rpartition(":")[2]
    done = subprocess.run(
        [sys.executable, "-m", "perdure", "ui", "--port", port], cwd=site.path, capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "choose another address with --host and --port" in done.stderr


def test_failed_runs_are_counted_by_cause_and_each_cause_leads_to_its_runs(visitor: Visitor) -> None:
    page = visitor.json("/failures.json")
    (cause,) = [one for one in page["groups"] if one["task"] == "shop.broken"]
    assert cause["error"] == "LookupError"
    assert re.search(r"shop\.py:\d+ in broken$", cause["where"])
    found = visitor.json("/runs.json?status=FAILED&task=shop.broken&error=LookupError")["runs"]
    assert cause["count"] == len(found) >= 1
    assert cause["newest"] == found[0]["name"]
    assert sum(one["count"] for one in page["groups"]) == page["looked"]


def test_a_queue_is_paused_changed_reset_and_resumed(visitor: Visitor) -> None:
    """Variants: settings that mean nothing, no settings, a queue that is not there."""

    def queue() -> dict[str, Any]:
        (found,) = visitor.json("/queues.json")["queues"]
        return dict(found)

    name = queue()["name"]
    assert "concurrency=2" in queue()["declared"]
    assert visitor.post("queue-pause", name).headers["location"] == "/queues"
    assert queue()["paused"] is not None
    visitor.post("queue-set", name, settings="concurrency=5 rate=10/60")
    assert queue()["override"] == "concurrency=5, rate=10/60s"
    for wrong in ("concurrency=none-at-all", "", "colour=red", "concurrency"):
        visitor.post("queue-set", name, settings=wrong)
        assert "Error: " in visitor.http.get("/queues").text
    assert queue()["override"] == "concurrency=5, rate=10/60s"
    visitor.post("queue-reset", name)
    assert queue()["override"] == ""
    visitor.post("queue-resume", name)
    assert queue()["paused"] is None
    visitor.post("queue-pause", "absent")
    assert "knows no queue" in visitor.http.get("/queues").text


def test_a_run_is_repeated_from_a_chosen_action(visitor: Visitor) -> None:
    """Variants: an entry that is no number, that does not exist, and a run that has not ended."""
    actions = visitor.json("/run/order-1.json")["actions"]
    entry = max(one["entry"] for one in actions if one["entry"] is not None)
    position = next(one["position"] for one in actions if one["entry"] == entry)
    assert f"Run again from entry {entry}" in visitor.http.get(f"/run/order-1?at={position}").text
    answer = visitor.post("fork", "order-1", entry=str(entry))
    name = answer.headers["location"].removeprefix("/run/")
    visitor.until(name, "SUCCEEDED")
    for run, wrong in (("order-1", "x"), ("order-1", "999"), ("ask-1", "1")):
        assert visitor.post("fork", run, entry=wrong).headers["location"] == f"/run/{run}"
        assert "Error: " in visitor.http.get(f"/run/{run}").text


def test_the_graph_of_a_run_counts_which_task_called_which(visitor: Visitor) -> None:
    """Variants: a task that fails, a task without calls, a run that is not there. Traces are no tasks."""
    found = visitor.json("/graph.json?name=order-1")
    assert [(one["name"], one["count"], one["failed"]) for one in found["tasks"]] == [
        ("shop.order", 1, 0), ("shop.pick", 1, 0)
    ]  # fmt: skip
    assert [(one["caller"], one["called"], one["count"]) for one in found["calls"]] == [("shop.order", "shop.pick", 1)]
    assert found["tasks"][1]["x"] > found["tasks"][0]["x"]
    assert visitor.json("/graph.json?name=broken-1")["tasks"][0]["failed"] == 1
    assert visitor.json("/graph.json?name=nap-1")["calls"] == []
    assert visitor.http.get("/graph?name=nothing").status_code == 404
    assert "/graph?name=order-1" in visitor.http.get("/run/order-1").text


def test_tasks_that_call_themselves_and_each_other_are_drawn_once(site: Site, visitor: Visitor) -> None:
    found = {}
    for name, n in (("deep-0", 0), ("deep-3", 3)):
        visitor.post("start", "shop.countdown", name=name, **{"in-n": str(n)})
        visitor.until(name, "SUCCEEDED")
        found[name] = visitor.json(f"/graph.json?name={name}")
    assert [one["count"] for one in found["deep-0"]["tasks"]] == [1]
    assert [(one["name"], one["count"]) for one in found["deep-3"]["tasks"]] == [("shop.countdown", 4)]
    assert [(one["caller"], one["called"], one["count"]) for one in found["deep-3"]["calls"]] == [
        ("shop.countdown", "shop.countdown", 3)
    ]

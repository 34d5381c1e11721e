"""The pages in a real browser: what people see and do, live, by keyboard, on a phone, and under attack."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any
from urllib.parse import quote

import pytest
from tests.ui.site import MARKUP, Site, Visitor
from tests.waiting import wait_for

PAGES = (
    "/runs", "/run/broken-1", f"/run/{quote(MARKUP, safe='')}", "/run/order-1?at=2", "/conditions",
    "/condition?run=ask-1&box=ship", "/condition?run=ask-2&box=decide", "/start", "/start?task=shop.order", "/workers",
    "/schedules", "/queues", "/failures", "/bulk?operation=cancel&name=*",
    *(f"/file?name=files-1&n={n}" for n in range(12)), "/file?name=files-1&n=10&entry=1", "/run/files-1",
    "/graph?name=order-1", f"/graph?name={quote(MARKUP)}",
    "/compare", "/compare?a=order-1", f"/compare?a=order-1&b={quote(MARKUP)}", "/compare?a=order-1&b=broken-1",
    f"/bulk?operation=abort&name={quote(MARKUP)}",
    "/storage", "/run/nothing",
)  # fmt: skip
PATIENT = 60_000
"""Milliseconds after which a wait in the browser fails."""


@pytest.fixture
def page(browser: Any, url: str, visitor: Visitor) -> Iterator[Any]:
    """A browser's page; a message of the browser about a refused script or style fails the test."""
    context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
    found = context.new_page()
    found.set_default_timeout(PATIENT)
    told: list[str] = []
    found.on("console", lambda message: told.append(message.text) if message.type == "error" else None)
    found.on("pageerror", lambda error: told.append(str(error)))
    yield found
    context.close()
    assert [text for text in told if "404" not in text and "400" not in text] == []


def start(visitor: Visitor, task: str, name: str, **inputs: str) -> None:
    """Start a run as the form does."""
    fields = {f"in-{key}": value for key, value in inputs.items()}
    assert visitor.post("start", f"shop.{task}", name=name, **fields).status_code == 303


def status_of(page: Any) -> str:
    return str(page.locator("#head .pill").inner_text())


def until_status(page: Any, status: str) -> None:
    page.locator("#head .pill", has_text=status).wait_for()


FAULTS = """() => {
  const named = (e) => (e.textContent || e.getAttribute('aria-label') || e.title || '').trim();
  const labelled = (e) => e.type === 'hidden' || e.labels.length > 0;
  const all = (selector) => [...document.querySelectorAll(selector)];
  const faults = [];
  if (all('h1').length !== 1) faults.push('not one h1');
  if (!document.documentElement.lang) faults.push('no language');
  all('input, select, textarea').filter((e) => !labelled(e)).forEach((e) => faults.push('no label: ' + e.name));
  all('a, button, svg[role=img]').filter((e) => !named(e)).forEach((e) => faults.push('no name: ' + e.outerHTML));
  const ids = all('[id]').map((e) => e.id);
  if (new Set(ids).size !== ids.length) faults.push('an id twice: ' + ids.filter((id, i) => ids.indexOf(id) !== i));
  const wide = document.documentElement.scrollWidth;
  if (wide > innerWidth) faults.push('wider than the window: ' + wide);
  if (document.title === 'owned' || document.querySelector('img[src=x]')) faults.push('a value ran as code');
  return faults;
}"""
"""What a screen reader, a phone or a reader of markup would stumble over."""

CONTRAST = """() => {
  const canvas = document.createElement('canvas').getContext('2d', { willReadFrequently: true });
  const rgb = (colour) => { canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
    return [...canvas.getImageData(0, 0, 1, 1).data]; };
  const light = ([r, g, b]) => { const [x, y, z] = [r, g, b].map((v) => { v /= 255;
    return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; }); return 0.2126 * x + 0.7152 * y + 0.0722 * z; };
  const ground = (e) => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor);
    if (c[3] > 250) return c; } return rgb('white'); };
  const poor = new Set();
  document.querySelectorAll('main *, header *').forEach((e) => {
    const text = [...e.childNodes].some((n) => n.nodeType === 3 && n.data.trim());
    if (!text || !e.checkVisibility() || e.closest('.dropped')) return;
    const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) poor.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
  });
  return [...poor];
}"""
"""Texts with less contrast to their ground than WCAG's level AA asks for."""


@pytest.mark.parametrize("width", [1280, 390])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_readable_at_each_width_and_in_light_and_dark(page: Any, width: int, scheme: str) -> None:
    page.set_viewport_size({"width": width, "height": 844})
    page.emulate_media(color_scheme=scheme)
    for path in PAGES:
        page.goto(path)
        assert page.evaluate(FAULTS) == [], path
        assert page.evaluate(CONTRAST) == [], path


def test_a_value_from_outside_never_runs_as_code_also_when_a_part_is_replaced(page: Any, visitor: Visitor) -> None:
    """The family: every field that a user fills, on first sight and in parts that live updates replace."""
    for path in (f"/run/{quote(MARKUP, safe='')}", "/run/broken-1", "/runs", "/conditions"):
        page.goto(path)
        page.locator("#live", has_text="live").wait_for()
        with page.expect_response(lambda answer: answer.request.headers.get("x-follows") == "1"):
            start(visitor, "pick", f"noise-{abs(hash(path))}", item=MARKUP, n="1")
        assert page.evaluate(FAULTS) == []
        assert MARKUP[:20] in page.content().replace("&lt;", "<").replace("&gt;", ">")


def test_the_list_shows_a_new_run_without_a_reload_and_keeps_what_is_typed(page: Any, visitor: Visitor) -> None:
    page.goto("/runs")
    page.evaluate("document.marked = true")
    page.fill("#f-name", "half typed")
    start(visitor, "order", "fresh-1")
    page.get_by_role("link", name="fresh-1", exact=True).wait_for()
    page.locator("tr", has_text="fresh-1").locator(".pill", has_text="succeeded").wait_for()
    assert page.input_value("#f-name") == "half typed"
    assert page.evaluate("document.marked")


def test_a_person_answers_a_condition_and_sees_the_run_end(page: Any, visitor: Visitor) -> None:
    start(visitor, "approval", "ask-yes")
    visitor.until("ask-yes", "WAITING")
    page.goto("/run/ask-yes")
    page.get_by_role("link", name="Answer condition ship").click()
    page.get_by_role("button", name="Yes").click()
    page.get_by_text("Condition ship of run ask-yes is set.").wait_for()
    until_status(page, "succeeded")
    assert "shipped" in page.locator("#chosen").inner_text()


def test_a_person_fills_the_form_of_a_record_and_sends_a_message(page: Any, visitor: Visitor) -> None:
    start(visitor, "review", "ask-record")
    start(visitor, "inbox", "mail-2")
    visitor.until("ask-record", "WAITING")
    visitor.until("mail-2", "WAITING")
    page.goto("/condition?run=ask-record&box=decide")
    page.get_by_label("ok").select_option("true")
    page.get_by_label("why").fill("because")
    page.get_by_role("button", name="Send").click()
    until_status(page, "succeeded")
    page.goto("/run/mail-2")
    page.get_by_role("link", name="Answer mailbox numbers").click()
    page.get_by_label("value").fill("41")
    page.get_by_role("button", name="Send").click()
    until_status(page, "succeeded")
    assert visitor.json("/run/ask-record.json")["chosen"]["outcome"]["value"] == "True because"
    assert visitor.json("/run/mail-2.json")["chosen"]["outcome"]["value"] == 42


def test_a_person_starts_a_run_from_the_form_of_its_signature(page: Any, visitor: Visitor) -> None:
    page.goto("/start")
    page.get_by_role("link", name="shop.order").click()
    page.get_by_label("n int").fill("3")
    page.get_by_label("size").select_option("LARGE")
    page.get_by_label("parts").fill("[1, 2]")
    page.locator("#name").fill("from-form")
    page.get_by_label("tags").fill("team=web why=test")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("Run from-form is submitted.").wait_for()
    until_status(page, "succeeded")
    found = visitor.json("/run/from-form.json")
    assert found["chosen"]["inputs"]["value"]["n"] == 3
    assert found["chosen"]["outcome"]["value"]["size"] == "LARGE"
    assert found["run"]["tags"] == {"team": "web", "why": "test"}


def test_a_person_cancels_aborts_wakes_resumes_and_repeats_runs(page: Any, site: Site, visitor: Visitor) -> None:
    for name, task in (("to-cancel", "nap"), ("to-abort", "nap"), ("to-resume", "broken")):
        start(visitor, task, name)
    visitor.until("to-resume", "FAILED")
    visitor.until("to-cancel", "SLEEPING")
    page.goto("/run/to-cancel")
    page.get_by_text("Cancel …").click()
    page.get_by_label("Reason").fill("no more needed")
    page.get_by_role("button", name="Cancel the run").click()
    until_status(page, "cancelled")
    assert "no more needed" in page.locator("#why").inner_text()
    visitor.until("to-abort", "SLEEPING")
    page.goto("/run/to-abort")
    page.get_by_text("Abort …").click()
    page.get_by_role("button", name="Abort the run").click()
    until_status(page, "aborted")
    start(visitor, "nap", "to-pause")
    visitor.until("to-pause", "SLEEPING")
    page.goto("/run/to-pause")
    page.get_by_role("button", name="Pause").click()
    until_status(page, "paused")
    assert "until a person resumes the run" in page.locator("#why").inner_text()
    page.get_by_role("button", name="Resume").click()
    until_status(page, "sleeping")
    (site.path / "mended").touch()
    page.goto("/run/to-resume")
    page.get_by_role("button", name="Resume").click()
    until_status(page, "succeeded")
    (site.path / "mended").unlink()
    page.get_by_role("button", name="Run again", exact=True).click()
    page.get_by_text("waits for a worker").wait_for()
    until_status(page, "failed")
    page.goto("/run/later-1")
    page.get_by_role("button", name="Wake now").click()
    until_status(page, "succeeded")


def test_a_person_aborts_all_runs_of_a_filter_by_keyboard_after_the_count(page: Any, visitor: Visitor) -> None:
    for name in ("lot-1", "lot-2"):
        visitor.post("start", "shop.order", name=name, at="2999-01-01T00:00")
    page.goto("/runs?name=lot-*&status=QUEUED")
    _tab_to(page, "Abort …")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="Abort 2 runs?").wait_for()
    assert page.locator("#count").inner_text() == "2 runs match: 2 would be aborted."
    assert visitor.status("lot-1") == "QUEUED"
    _tab_to(page, "Abort 2 runs")
    page.keyboard.press("Enter")
    page.get_by_text("2 runs match: 2 were aborted.").wait_for()
    assert (visitor.status("lot-1"), visitor.status("lot-2")) == ("ABORTED", "ABORTED")


def test_a_person_sees_the_files_of_a_run_and_downloads_one(page: Any, visitor: Visitor) -> None:
    """A picture is drawn, a table and a tree are read, a directory is entered; files with scripts are only text."""
    page.goto("/run/files-1")
    page.get_by_role("link", name="dot.png").click()
    page.get_by_role("heading", name="dot.png").wait_for()
    assert page.locator(".preview img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 1
    page.go_back()
    page.get_by_role("link", name="table.csv").click()
    assert page.locator(".cells td").nth(1).inner_text() == MARKUP
    with page.expect_download() as download:
        page.get_by_role("link", name="Download").click()
    assert download.value.suggested_filename == "table.csv"
    page.go_back()
    page.get_by_role("link", name="evil.svg").click()
    assert "<script>" in page.locator(".preview pre").inner_text()
    assert page.evaluate(FAULTS) == []
    page.go_back()
    page.get_by_role("link", name="folder").click()
    page.get_by_role("link", name="plain.txt").click()
    assert page.locator(".preview pre").inner_text().strip() == "plain text"


def test_a_person_pauses_resumes_and_triggers_a_schedule(page: Any, visitor: Visitor) -> None:
    page.goto("/schedules")
    page.get_by_role("button", name="Pause").click()
    page.locator(".pill", has_text="paused").wait_for()
    page.get_by_role("button", name="Resume").click()
    page.locator(".pill", has_text="active").wait_for()
    page.get_by_role("button", name="Run now").click()
    page.get_by_text("of schedule shop.nap waits for a worker").wait_for()


def test_everything_is_reached_by_keyboard_alone(page: Any, visitor: Visitor) -> None:
    start(visitor, "approval", "ask-keys")
    visitor.until("ask-keys", "WAITING")
    page.goto("/runs?name=ask-keys")
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("/")
    assert page.evaluate("document.activeElement.id") == "f-task"
    page.keyboard.press("Escape")
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("j")
    page.keyboard.press("Enter")
    page.get_by_role("heading", name="ask-keys").wait_for()
    _tab_to(page, "Answer condition ship")
    page.keyboard.press("Enter")
    page.get_by_role("button", name="No").wait_for()
    _tab_to(page, "No")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    page.keyboard.press("Enter")
    until_status(page, "succeeded")
    assert visitor.json("/run/ask-keys.json")["chosen"]["outcome"]["value"] == "kept"


def _tab_to(page: Any, text: str) -> None:
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.innerText").strip() == text:
            return
    raise AssertionError(f"{text} is not reached by the Tab key")


def test_a_form_on_another_site_reaches_nothing(page: Any, url: str, visitor: Visitor) -> None:
    """The browser of a person who is at work here opens a page of another site, which sends a form and asks for
    data."""
    done = threading.Event()
    target = f"{url}/act/abort?name=nap-1"
    text = f"""<form method=post action="{target}"><input name=csrf value=0></form>
    <script>fetch("{url}/runs.json").then(r => r.text()).then(t => document.title = "read " + t.length, () => 0)
    .finally(() => document.forms[0].submit())</script>"""

    class Evil(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("content-type", "text/html")
            self.end_headers()
            self.wfile.write(text.encode())
            done.set()

        def log_message(self, *args: Any) -> None: ...

    page.goto("/run/nap-1")
    server = HTTPServer(("127.0.0.1", 0), Evil)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        evil = page.context.new_page()
        evil.goto(f"http://127.0.0.1:{server.server_port}/")
        evil.get_by_text("The request comes from another site, so nothing was done.").wait_for()
        assert done.is_set()
        assert not evil.title().startswith("read")
    finally:
        server.shutdown()
        server.server_close()
    assert visitor.status("nap-1") == "SLEEPING"


def test_two_browsers_see_a_killed_worker_and_the_next_worker(browser: Any, tmp_path: Any) -> None:
    """A worker is killed in the middle of a run. Both browsers show that no process drives the run, and that another
    worker has ended the run."""
    site = Site(tmp_path)
    try:
        worker = site.serve()
        url = site.ui().rstrip("/")
        visitor = Visitor(url)
        start(visitor, "blocks", "victim")
        wait_for(lambda: (tmp_path / "blocked").exists())
        pages = [browser.new_context(base_url=url).new_page() for _ in range(2)]
        for one in pages:
            one.set_default_timeout(PATIENT)
            one.goto("/run/victim")
            until_status(one, "running")
            assert "drives the run" in one.locator("#why").inner_text()
        os.kill(worker.pid, signal.SIGKILL)
        for one in pages:
            until_status(one, "interrupted")
            assert "No process drives the run" in one.locator("#why").inner_text()
        (tmp_path / "open").touch()
        site.serve()
        for one in pages:
            until_status(one, "succeeded")
            assert "owned" not in one.title()
            one.context.close()
    finally:
        site.close()

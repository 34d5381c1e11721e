"""Take the pictures of the web page in README and docs: `make screenshots`. Needs Chromium."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"

FLOW = """
import time
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="shop")

@perdure.trace
def reserve(item: str) -> str:
    time.sleep(0.06)
    return f"{item} reserved"

@env.task
def pick(items: list[str]) -> list[str]:
    return [reserve(item) for item in items]

@env.task(retries=2)
def pay(amount: float) -> str:
    time.sleep(0.08)
    raise ConnectionError(f"the bank refused {amount} EUR")

@env.task
def order(items: list[str] = ["tea", "cups", "sugar"], amount: float = 9.5) -> str:
    pick(items)
    durable_sleep(0.2)
    return pay(amount)

@env.task
def report(day: str = "monday") -> str:
    return pick(["ink", "paper"])[0]

@env.task
def refund(order: str = "order-17") -> str:
    return "yes" if perdure.new_condition("approve", prompt=f"Refund {order}?").wait() else "no"

@env.task
def remind(days: float = 3) -> None:
    durable_sleep(days * 86400)
"""

RUNS = """
import contextlib, flow, perdure
for name, task in (("report-monday", flow.report), ("report-tuesday", flow.report), ("order-17", flow.order)):
    with contextlib.suppress(ConnectionError):
        perdure.with_runcontext(name=name, tags={"team": "web"}).run(task)
for name, task in (("refund-17", flow.refund), ("remind-anna", flow.remind)):
    perdure.with_runcontext(name=name).submit(task)
perdure.with_runcontext(name="report-friday", delay=7200).submit(flow.report)
"""


PAGES = {
    "runs": "/runs",
    "run": "/run/order-17?at=6",
    "condition": "/condition?run=refund-17&box=approve",
}


def take(page: Page, url: str) -> None:
    """The pictures, as PNG."""
    for name, path in PAGES.items():
        page.goto(url + path)
        page.wait_for_load_state("load")
        page.screenshot(path=PICTURES / f"{name}.png")


def main() -> None:
    """Make a store, serve its pages, and take the pictures."""
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium is not installed: make debian, or apt-get install chromium")
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "flow.py").write_text(FLOW)
        (Path(folder) / "runs.py").write_text(RUNS)
        subprocess.run([sys.executable, "runs.py"], cwd=folder, check=True)
        command = [sys.executable, "-m", "perdure"]
        worker = subprocess.Popen([*command, "serve", "flow.py", "--park-after", "0s"], cwd=folder)
        ui = subprocess.Popen(
            [*command, "ui", "flow.py", "--port", "0"], cwd=folder, stdout=subprocess.PIPE, text=True
        )  # fmt: skip
        try:
            assert ui.stdout is not None
            url = ui.stdout.readline().strip().rstrip("/")
            with sync_playwright() as started:
                sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
                browser = started.chromium.launch(executable_path=chromium, args=sandbox)
                page = browser.new_page(viewport={"width": 1280, "height": 760})
                page.goto(f"{url}/runs")
                page.locator(".pill", has_text="sleeping").wait_for()
                page.locator(".pill", has_text="waiting").wait_for()
                take(page, url)
                browser.close()
        finally:
            for process in (worker, ui):
                process.terminate()
                process.wait()


if __name__ == "__main__":
    main()

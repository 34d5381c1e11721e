"""A directory with a store, a worker and the web page, as real processes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import httpx
from tests.waiting import PATIENCE, wait_for

MARKUP = "<img src=x onerror=\"document.title='owned'\">'\"</script><script>document.title='owned'</script>"
"""A text that would run as code wherever a page took the text for markup."""
SECRET = "hunter2-hunter2"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNkYPhfDwAChwGA60e6kgAAAABJRU5ErkJggg=="
"""A picture of one pixel."""

WORKFLOWS = f"""
import os, time
from dataclasses import dataclass
from enum import Enum
from typing import Literal
import perdure, perdure.io
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="shop")
MARKUP = {MARKUP!r}

class Size(Enum):
    SMALL = 1
    LARGE = 2

@dataclass
class Decision:
    ok: bool
    why: str = ""

@perdure.trace
def reserve(item: str, n: int) -> str:
    return f"{{item}}-{{n}}"

@env.task
def pick(item: str, n: int) -> list[str]:
    with perdure.group(MARKUP):
        return [reserve(item, i) for i in range(n)]

@env.task
def order(
    item: str = "tea", n: int = 2, size: Size = Size.SMALL, speed: Literal["slow", "fast"] = "fast", gift: bool = False,
    api_key: str = "", parts: list[int] = [1],
) -> dict:
    '''Pick an order. {MARKUP.replace("'", "")}'''
    return {{"picked": pick(item, n), "password": {SECRET!r}, "size": size.name, "gift": gift, "note": MARKUP}}

@env.task
def broken(text: str = "no stock", access_token: str = "") -> str:
    pick("tea", 1)
    if os.path.exists("mended"):
        return "mended"
    raise LookupError(text)

@env.task
def approval() -> str:
    ok = perdure.new_condition("ship", prompt=f"Ship it? {{MARKUP}}", description=MARKUP).wait()
    return "shipped" if ok else "kept"

@env.task
def review() -> str:
    found = perdure.new_condition("decide", prompt="What now?", data_type=Decision).wait()
    return f"{{found.ok}} {{found.why}}"

@env.task
def inbox() -> int:
    return perdure.receive("numbers", int) + 1

@env.task(triggers=perdure.Cron("0 0 1 1 *"))
def nap(s: float = 3600) -> str:
    durable_sleep(s)
    return "woke"

@env.task
def files() -> dict:
    import base64, csv, json
    def made(name, data):
        with open(name, "wb") as file:
            file.write(data)
        return perdure.io.File.from_local(name)
    flat = MARKUP.replace("/", "")
    os.makedirs("folder/sub", exist_ok=True)
    with open("folder/sub/" + flat, "w") as file:
        file.write(MARKUP)
    with open("folder/plain.txt", "w") as file:
        file.write("plain text")
    os.makedirs("mine", exist_ok=True)
    with open("mine/outside.txt", "w") as file:
        file.write("content outside")
    head = "name,note\\nanna," + '"' + MARKUP.replace('"', '""') + '"\\n'
    tree = {{"password": {SECRET!r}, "note": MARKUP, "list": [1, {{"deep": None}}]}}
    return {{
        "table": made("table.csv", head.encode() + b"x,y\\n" * 300),
        "tree": made("tree.json", json.dumps(tree).encode()),
        "note": made(flat, MARKUP.encode()),
        "image": made("dot.png", base64.b64decode({PNG!r})),
        "vector": made("evil.svg", b"<svg xmlns='http://www.w3.org/2000/svg'><script>document.title='owned'</script></svg>"),
        "page": made("evil.html", b"<script>document.title='owned'</script>"),
        "fake": made("fake.png", b"<script>document.title='owned'</script>"),
        "raw": made("raw.bin", bytes(range(256))),
        "long": made("long.txt", "\u00e9".encode() * 100000),
        "none": made("none.txt", b""),
        "secret": made("hidden.txt", {SECRET!r}.encode()),
        "folder": perdure.io.Dir.from_local("folder"),
        "linked": perdure.io.File.from_existing_remote("file://" + os.path.abspath("mine/outside.txt")),
    }}

crawl_queue = perdure.Queue(f"crawl {{MARKUP}}", concurrency=2)

@env.task(queue=crawl_queue)
def crawl() -> int:
    return 1

@perdure.trace(limit=perdure.Limit("paid", concurrency=2))
def paid() -> int:
    return 1

@env.task
def limited() -> int:
    return paid()

@env.task
def packs(items: list[str]) -> int:
    return len(items)

@env.task
def size_of(file: perdure.io.File) -> int:
    return file.size

@env.task
def countdown(n: int) -> int:
    return countdown(n - 1) if n else 0

@env.task(retries=perdure.RetryStrategy(2, perdure.Backoff(3600, maximum=7200)))
def bank() -> str:
    raise ConnectionError(MARKUP)

@env.task
def regional() -> str:
    found = reserve(open("region").read(), 1)
    durable_sleep(0.5)
    return found

@env.task
def blocks() -> str:
    perdure.publish("progress", MARKUP)
    open("blocked", "w").close()
    while not os.path.exists("open"):
        time.sleep(0.02)
    return "done"
"""

SEED = """
import sys, contextlib
import shop, perdure

def run(name, task, tags=None, **inputs):
    with contextlib.suppress(LookupError):
        perdure.with_runcontext(name=name, tags=tags).run(task, **inputs)

run("order-1", shop.order, tags={"team": "web", "note": shop.MARKUP}, item=shop.MARKUP, api_key=sys.argv[1])
run("broken-1", shop.broken, text=shop.MARKUP, access_token=sys.argv[1])
run(shop.MARKUP, shop.order)
run("a/b .json", shop.order)
run("files-1", shop.files)
for name, task in (("ask-1", shop.approval), ("ask-2", shop.review), ("mail-1", shop.inbox), ("nap-1", shop.nap)):
    perdure.with_runcontext(name=name).submit(task)
for name in ("later-1", "later-2"):
    perdure.with_runcontext(name=name, delay=3600).submit(shop.order)
"""


class Site:
    """See the module text."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.env = {key: value for key, value in os.environ.items() if not key.startswith("PERDURE")}
        self.processes: list[subprocess.Popen[str]] = []
        (path / "shop.py").write_text(textwrap.dedent(WORKFLOWS))
        (path / "seed.py").write_text(SEED)

    def seed(self) -> None:
        """Make runs of every kind."""
        subprocess.run(
            [sys.executable, "seed.py", SECRET], cwd=self.path, env=self.env, check=True, timeout=PATIENCE,
            capture_output=True,
        )  # fmt: skip

    def _start(self, *words: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "perdure", *words], cwd=self.path, env=self.env, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        self.processes.append(process)
        return process

    def serve(self) -> subprocess.Popen[str]:
        """Start a worker."""
        process = self._start("serve", "shop.py", "--park-after", "0.2s")
        assert process.stderr is not None
        told = process.stderr.readline()
        assert told.startswith("serving"), told
        return process

    def worker(self, *options: str) -> tuple[subprocess.Popen[str], dict[str, str]]:
        """Start a worker with pages, and give what it says before it serves, by the beginning of the line."""
        process = self._start("serve", "shop.py", *options)
        assert process.stderr is not None
        told: dict[str, str] = {}
        while not (line := process.stderr.readline()).startswith("serving"):
            assert line, process.wait(PATIENCE)
            name, _, rest = line.strip().partition(": ")
            told[name] = rest
        return process, told

    def perdure(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command, to its end."""
        return subprocess.run(
            [sys.executable, "-m", "perdure", *words], cwd=self.path, env=self.env, text=True, capture_output=True,
            timeout=PATIENCE,
        )  # fmt: skip

    def ui(self, *options: str) -> str:
        """Start a web page at a free port, and give the link that the command prints."""
        process = self._start("ui", "shop.py", "--port", "0", *options)
        assert process.stdout is not None
        link = process.stdout.readline().strip()
        assert link.startswith("http://"), process.communicate()[1] if process.poll() is not None else link
        return link

    def close(self) -> None:
        """End all processes."""
        for process in self.processes:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
            process.communicate()


class Visitor:
    """A program with a session, which sends what a browser would send."""

    def __init__(self, url: str) -> None:
        self.url = url.partition("/login")[0].rstrip("/")
        self.http = httpx.Client(base_url=self.url, timeout=PATIENCE, follow_redirects=False)
        self.http.get("/runs")

    def json(self, page: str) -> Any:
        answer = self.http.get(page)
        assert answer.status_code == 200, answer.text
        return json.loads(answer.text)

    @classmethod
    def by_link(cls, link: str) -> Visitor:
        """A session that a one-time link has opened."""
        found = cls(link)
        assert found.http.get(link).status_code == 303
        return found

    def csrf(self) -> str:
        """The token in the forms of this session."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.http.get("/start?task=shop.order").text)
        assert found is not None
        return found[1]

    def post(self, act: str, name: str, headers: dict[str, str] | None = None, /, **fields: str) -> httpx.Response:
        """Send the form of an operation."""
        sent = {"origin": self.url, **(headers or {})}
        return self.http.post(
            f"/act/{act}", params={"name": name}, headers={key: value for key, value in sent.items() if value},
            data={"csrf": self.csrf(), **fields},
        )  # fmt: skip

    def status(self, name: str) -> str:
        return str(self.json(f"/run.json?name={httpx.QueryParams({'n': name})['n']}")["run"]["status"])

    def until(self, name: str, status: str) -> None:
        """Wait until the run has the status."""
        wait_for(lambda: self.status(name) == status, story=lambda: self.status(name))

"""The static check: each rule finds what it says, and nothing else, through the functions that a body calls."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from textwrap import dedent, indent

import pytest

from perdure.testing.check import RULES, CheckFinding, check, fix
from perdure.testing.check.formats import FORMATS
from perdure.testing.check.rules import page

PROJECT = Path(__file__).parents[2]
HEAD = """
import asyncio, datetime, os, random, secrets, subprocess, threading, time, uuid
from datetime import datetime as dt
from pathlib import Path
from time import sleep as nap
from typing import Callable, Iterator

import perdure
from perdure import durable

env = perdure.TaskEnvironment("x")
COUNTS = {}
SEEN = []
total = 0


@perdure.trace
async def step(n: int) -> int:
    time.sleep(1); open("x"); SEEN.append(random.random())
    return n


def helper():
    return time.time()


async def other(): ...


class Shop:
    def price(self):
        return random.random()


"""
BAD = {
    "clock": ["time.time()", "dt.now()", "datetime.date.today()", "helper()", "[time.monotonic() for _ in 'ab']"],
    "random": ["random.random()", "secrets.token_hex()", "os.urandom(3)", "random.SystemRandom()"],
    "uuid": ["uuid.uuid4()", "uuid.uuid1()"],
    "environment": ["os.environ['X']", "os.environ.get('X')", "os.getenv('X')", "os.getpid()", "Path.cwd()"],
    "set-order": [
        "for x in {1, 2}: pass", "[x for x in set('ab')]", "s = set()\nfor x in s: pass", "list({1, 2})",
        "{1, 2}.pop()",
    ],
    "hash": ["hash('x')", "id(env)"],
    "sleep": ["time.sleep(1)", "await asyncio.sleep(1)", "nap(2)", "await asyncio.to_thread(nap, 1)"],
    "io": ["open('x')", "subprocess.run(['x'])", "Path('x').read_text()", "os.listdir()"],
    "thread": ["threading.Thread(target=helper2)"],
    "global": ["global total\ntotal += 1", "SEEN.append(1)", "COUNTS['x'] = 1", "del COUNTS['x']"],
    "await": ["step(1)", "other()", "durable.sleep.aio(1)", "asyncio.sleep(0)"],
    "swallow": ["try: pass\nexcept: pass", "try: pass\nexcept BaseException as e: print(e)",
                "try: pass\nexcept (ValueError, BaseException): pass"],
    "finally": ["try: pass\nfinally: os.remove('x')"],
}  # fmt: skip
GOOD = [
    "await step(1)", "durable.time()", "for x in sorted({1, 2}): pass", "len({1, 2})", "sum(x for x in {1, 2})",
    "await asyncio.sleep(0)", "random.Random(42).random()", "uuid.uuid5(uuid.NAMESPACE_DNS, 'x')", "print('x')",
    "try: pass\nexcept Exception: pass", "try: pass\nexcept BaseException:\n    raise", "asyncio.create_task(step(1))",
    "x = step(1)\nawait x", "SEEN = []\nSEEN.append(1)", "time = 3", "await asyncio.gather(step(1), other())",
    "datetime.datetime(2026, 1, 1)", "datetime.timedelta(days=1)", "os.path.join('a', 'b')", "x = {1}\nx.add(2)",
    "time.time()  # perdure: ignore[clock]", "time.time()  # perdure: ignore",
    "time.sleep(1)  # perdure: ignore[io, sleep]",
]  # fmt: skip


def found(tmp_path: Path, body: str, more: str = "") -> list[CheckFinding]:
    file = tmp_path / "flow.py"
    file.write_text(f"{HEAD}{more}\n@env.task\nasync def main(n: int) -> int:\n{indent(body, '    ')}\n    return 1\n")
    ast.parse(file.read_text())
    return check(str(file))


@pytest.mark.parametrize(("rule", "code"), [(rule, code) for rule, codes in BAD.items() for code in codes])
def test_what_a_replay_would_do_differently_is_found(tmp_path: Path, rule: str, code: str) -> None:
    assert {one.rule for one in found(tmp_path, code)} == {rule}


@pytest.mark.parametrize("code", GOOD)
def test_what_is_deterministic_or_left_alone_is_not_found(tmp_path: Path, code: str) -> None:
    assert found(tmp_path, code) == []


def test_each_rule_has_an_example() -> None:
    assert {rule.name for rule in RULES} == {*BAD, "type"}


def test_code_outside_of_bodies_is_left_alone(tmp_path: Path) -> None:
    """Traces, functions that no body calls, module level, ignored functions."""
    more = "def unused():\n    time.sleep(1)\ndef log():  # perdure: ignore\n    open('log')\nopen('x')\n"
    assert found(tmp_path, "await step(n)\nlog()", more) == []


def test_methods_and_other_modules_of_the_package_are_followed(tmp_path: Path) -> None:
    package = tmp_path / "shop"
    (package / "tools").mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "tools" / "__init__.py").write_text("from .clocks import now\n")
    (package / "tools" / "clocks.py").write_text("import time\n\ndef now():\n    return time.time()\n")
    (package / "envs.py").write_text("import perdure\nenv = perdure.TaskEnvironment('x')\n")
    (package / "flows.py").write_text(
        dedent("""
        from .envs import env
        from .tools import clocks
        from shop.tools.clocks import now as jetzt

        class Flow:
            def run(self):
                return self.inner()

            def inner(self):
                return hash("x")

        @env.task
        def main() -> float:
            return clocks.now()

        @env.task
        def second() -> float:
            return jetzt()
        """)
    )
    places = [(Path(one.path).name, one.line, one.rule) for one in check(str(package))]
    assert places == [("clocks.py", 4, "clock")]
    assert [one.rule for one in check(str(package / "flows.py"))] == ["clock"]


def test_parameters_that_cannot_be_stored_are_found(tmp_path: Path) -> None:
    more = (
        "@perdure.trace\ndef call(f: Callable[[], int], lock: threading.Lock | None, n: list[int]) -> int: ...\n"
        "@perdure.trace(ignore=('f',))\ndef other_call(f: Callable[[], int]) -> int: ...\n"
    )
    assert [(one.rule, one.message.partition(":")[0]) for one in found(tmp_path, "pass", more)] == [
        ("type", "f"), ("type", "lock"),
    ]  # fmt: skip


def test_safe_places_are_replaced_and_the_rest_is_left(tmp_path: Path) -> None:
    body = dedent("""
        at = time.time()
        step(1)
        await asyncio.sleep(5)
        try:
            uuid.uuid4()
        except BaseException:
            pass
        except:
            pass
        late = time.time() ** 2
        os.getpid()
    """)
    assert len(found(tmp_path, body)) == 8
    left = fix(found(tmp_path, body))
    assert [one.rule for one in left] == ["clock", "environment"]
    text = (tmp_path / "flow.py").read_text()
    ast.parse(text)
    for line in (
        "at = await perdure.durable.time.aio()", "    await step(1)", "await perdure.durable.sleep.aio(5)",
        "await perdure.durable.uuid4.aio()", "except Exception:",
    ):  # fmt: skip
        assert line in text
    assert {one.rule for one in check(str(tmp_path / "flow.py"))} == {"clock", "environment"}


def test_each_format_can_be_read_by_its_reader(tmp_path: Path) -> None:
    findings = found(tmp_path, "time.time()\nos.getpid()")
    line = findings[0].line
    assert FORMATS["text"](findings).splitlines()[0].startswith(f"{tmp_path}/flow.py:{line}: clock: ")
    assert [one["rule"] for one in json.loads(FORMATS["json"](findings))] == ["clock", "environment"]
    assert FORMATS["github"](findings).startswith(f"::error file={tmp_path}/flow.py,line={line},")
    [run] = json.loads(FORMATS["sarif"](findings))["runs"]
    assert {result["ruleId"] for result in run["results"]} <= {rule["id"] for rule in run["tool"]["driver"]["rules"]}


def test_the_projects_own_examples_are_clean() -> None:
    assert check(str(PROJECT / "examples")) == []


def test_the_command_exits_with_1_and_with_2_for_mistakes(tmp_path: Path) -> None:
    found(tmp_path, "time.time()")

    def command(*words: str) -> subprocess.CompletedProcess[str]:
        line = [sys.executable, "-m", "perdure", "check", *words]
        return subprocess.run(line, cwd=tmp_path, capture_output=True, text=True, check=False)

    done = command("flow.py")
    assert (done.returncode, done.stdout.count("clock:")) == (1, 1)
    assert json.loads(command("flow.py", "--format", "json").stdout)[0]["task"] == "flow.main"
    (tmp_path / "broken.py").write_text("def (")
    for words in (["none.py"], ["broken.py"], ["flow.py", "--format", "x"]):
        assert command(*words).returncode == 2, words
    assert command("flow.py", "--fix").returncode == 0


def test_the_page_of_the_rules_is_up_to_date() -> None:
    assert page() in (PROJECT / "docs" / "checks.md").read_text()

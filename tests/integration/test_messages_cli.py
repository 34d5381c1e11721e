"""`perdure signal`, `perdure send` and `perdure conditions`, as people and scripts meet them (P12)."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from tests.integration.shell import Shell
from tests.waiting import wait_for

WORKFLOWS = """
from dataclasses import dataclass
import perdure

env = perdure.TaskEnvironment("refunds")

@dataclass
class Decision:
    ok: bool
    why: str = ""

@env.task
async def refund(amount: int) -> str:
    wait = perdure.new_condition("approve", prompt=f"Refund {amount}?", data_type=Decision, timeout=3600).wait.aio()
    decision = await wait
    order = await perdure.receive.aio("orders", int)
    return f"{decision.ok} {decision.why} {order}"
"""


@pytest.fixture
def served(shell: Shell) -> Iterator[Shell]:
    """A worker in the shell's directory, and a run that waits."""
    shell.write("refund.py", WORKFLOWS)
    assert shell("submit", "refund.py", "refund", "--name", "r1", "--amount", "400").returncode == 0
    worker = shell.start("serve", "refund.py")
    try:
        wait_for(lambda: shell.json("conditions"))
        yield shell
    finally:
        worker.kill()
        worker.communicate()


def test_a_person_approves_and_an_order_follows(served: Shell) -> None:
    [waits] = served.json("conditions")
    assert (waits["run"], waits["kind"], waits["name"], waits["type"]) == ("r1", "condition", "approve", "Decision")
    assert (waits["prompt"], waits["waits"], waits["unread"]) == ("Refund 400?", True, 0)
    assert waits["since"] < waits["until"]
    assert [run["status"] for run in served.json("ls", "--status", "WAITING")] == ["WAITING"]
    misfit = served("signal", "r1", "approve", '{"ok": 3}')
    assert misfit.returncode == 2
    assert 'takes `Decision`, {"ok": bool, "why": str (optional)}; nothing was sent: at .ok' in misfit.stderr
    assert served("signal", "r1", "approve", '{"ok": true}').stderr == "run r1: condition 'approve' is set\n"
    assert served("signal", "r1", "approve", '{"ok": true}').returncode == 0
    other = served("signal", "r1", "approve", '{"ok": false}')
    assert other.returncode == 2
    assert "the first value counts" in other.stderr
    for _ in range(2):
        assert served.json("send", "r1", "orders", "7", "--key", "k") == {
            "run": "r1", "kind": "mailbox", "name": "orders",
        }  # fmt: skip
    assert served("wait", "r1").stdout == "True  7\n"
    ended = served("send", "r1", "orders", "8")
    assert ended.returncode == 2
    assert "run 'r1' has ended (SUCCEEDED) and takes no more messages" in ended.stderr


def test_a_message_that_no_call_asks_for_is_shown_and_goes_with_the_run(served: Shell) -> None:
    assert served("send", "r1", "never", "[1, 2]").returncode == 0
    assert served("send", "r1", "never", "plain text").returncode == 0
    unread = served.json("conditions")[1]
    assert (unread["name"], unread["unread"], unread["waits"], unread["until"]) == ("never", 2, False, None)
    shown = served("conditions").stdout
    assert "2 unread" in shown
    assert "Refund 400?" in shown
    assert served("abort", "r1").returncode == 0
    assert served.json("conditions") == []
    assert served("gc", "--older-than", "0s").returncode == 0
    assert served("send", "r1", "never", "3").returncode == 2


def test_conditions_without_a_store_say_so(shell: Shell) -> None:
    done = shell("conditions")
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == "no run waits for a message\n"
    assert shell.json("conditions") == []


def test_published_values_are_shown_and_given_as_json(shell: Shell) -> None:
    shell.write(
        "told.py",
        "import perdure\nenv = perdure.TaskEnvironment('told')\n@env.task\n"
        "def tells(text: str) -> None:\n    if text:\n        perdure.publish('text', [text])\n",
    )
    assert shell("run", "told.py", "tells", "--name", "r1", "--text", "\x1b[31mred").returncode == 0
    assert shell.json("published", "r1") == {"text": ["\x1b[31mred"]}
    shown = shell("published", "r1").stdout
    assert shown.splitlines()[0].split() == ["NAME", "VALUE"]
    assert "red" in shown
    assert "\x1b" not in shown
    assert shell("run", "told.py", "tells", "--name", "r2", "--text", "").returncode == 0
    assert shell("published", "r2").stderr == "run r2 has published nothing\n"
    assert shell("published", "r3").returncode == 2

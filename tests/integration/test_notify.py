"""`perdure notify` against a real HTTP server and real programs: which events arrive, over kills of all processes."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.integration.shell import Shell
from tests.postgres_server import programs, server
from tests.waiting import kill, wait_for


class Receiver:
    """An HTTP server that keeps what it is sent."""

    def __init__(self) -> None:
        self.events: list[tuple[str, dict[str, Any]]] = []
        self.answers: list[int] = []
        """The statuses of the next answers; then 200."""
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                status = receiver.answers.pop(0) if receiver.answers else 200
                receiver.events.append((self.headers["Idempotency-Key"], body))
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/secret-path"
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def ids(self) -> list[str]:
        return [id for id, _ in self.events]


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.http.shutdown()
    found.http.server_close()


@pytest.fixture(params=["sqlite", "postgres"])
def shell(request: pytest.FixtureRequest, tmp_path: Path) -> Shell:
    found = Shell(tmp_path)
    if request.param == "postgres":
        if programs() is None:
            pytest.skip("needs the programs of Postgres")
        found.env["PERDURE_STORE"] = server().url()
        assert found("store", "migrate").returncode == 0
    return found


def notify(shell: Shell, receiver: Receiver, *args: str) -> subprocess.CompletedProcess[str]:
    done = shell("notify", "--once", *args, PERDURE_NOTIFY_URL=receiver.url)
    assert "secret-path" not in done.stdout + done.stderr
    return done


def test_a_failure_arrives_with_its_id_and_no_secret(shell: Shell, receiver: Receiver) -> None:
    """NT1, NT2, NT4."""
    shell("run", "wf.py", "fails", "--name", "before")
    assert notify(shell, receiver, "--link", "https://flows.example.org/").returncode == 0
    assert receiver.events == []  # a failure before the first start is no event
    shell("run", "wf.py", "fails", "--name", "first", "--tag", "team=data")
    shell("run", "wf.py", "add", "--a", "1", "--name", "good")
    assert notify(shell, receiver, "--link", "https://flows.example.org/").returncode == 0
    [(id, body)] = receiver.events
    assert body == {
        "id": id, "event": "failure", "at": body["at"], "run": "first", "task": "etl.fails", "status": "FAILED",
        "tags": {"team": "data"}, "error": {"type": "ValueError", "message": "the file is\nnot there"},
        "url": "https://flows.example.org/run/first",
    }  # fmt: skip
    assert notify(shell, receiver).returncode == 0
    assert len(receiver.events) == 1
    listed = shell("notify", "--list", "--json")
    assert "secret-path" not in listed.stdout
    found = json.loads(listed.stdout)
    assert found["receivers"] == [{"name": "default", "on": ["failure", "stuck"], "events": {"delivered": 1}}]
    assert [(one["run"], one["state"]) for one in found["events"]] == [("first", "DELIVERED")]
    # A failed run that fails again is another event.
    shell("resume", "first")
    notify(shell, receiver)
    assert len(set(receiver.ids())) == len(receiver.ids()) == 2


def test_a_filter_leaves_events_out(shell: Shell, receiver: Receiver) -> None:
    wanted = ("--task", "etl.f*", "--name", "my-*", "--tag", "team=data")
    notify(shell, receiver, *wanted)
    for name, task, tag in (
        ("my-one", "fails", "team=data"), ("my-two", "fails", "team=ops"),
        ("your", "fails", "team=data"), ("my-three", "child", "team=data"),
    ):  # fmt: skip
        inputs = ("--n", "2") if task == "child" else ()
        assert shell("run", "wf.py", task, *inputs, "--name", name, "--tag", tag).returncode == 1
    notify(shell, receiver, *wanted)
    assert [body["run"] for _, body in receiver.events] == ["my-one"]


def test_a_refused_event_is_tried_again_and_dead_at_last(shell: Shell, receiver: Receiver) -> None:
    notify(shell, receiver)
    shell("run", "wf.py", "fails", "--name", "first")
    receiver.answers = [500, 302]
    done = notify(shell, receiver, "--attempts", "2")
    assert done.returncode == 1
    assert "status 500" in done.stderr
    [event] = json.loads(shell("notify", "--list", "--json").stdout)["events"]
    assert (event["state"], event["failed_attempts"]) == ("PENDING", 1)
    wait_for(lambda: notify(shell, receiver, "--attempts", "2").returncode == 1)
    [event] = json.loads(shell("notify", "--list", "--json").stdout)["events"]
    assert (event["state"], event["failed_attempts"]) == ("DEAD", 2)
    assert event["reason"] == "the receiver answered with status 302"
    assert notify(shell, receiver).returncode == 0
    assert len(receiver.events) == 2
    assert "1 event for default" in shell("notify", "--retry", "default").stderr
    assert notify(shell, receiver).returncode == 0
    assert len(receiver.events) == 3
    assert len(set(receiver.ids())) == 1


def test_stuck_and_waiting_runs_are_told_once(shell: Shell, receiver: Receiver) -> None:
    """NT2."""
    shell.write("ask.py", """
        import perdure
        env = perdure.TaskEnvironment(name="ask")

        @env.task
        def approve() -> bool:
            return perdure.new_condition("ok", prompt="Really?", data_type=bool).wait()
        """)  # fmt: skip
    args = ("--on", "stuck,waiting", "--stuck-after", "0s")
    assert notify(shell, receiver, *args).returncode == 0
    process = shell.start("run", "ask.py", "approve", "--name", "asks")
    try:
        wait_for(lambda: notify(shell, receiver, *args) and receiver.events)
    finally:
        kill(process)
    [(_, waiting)] = receiver.events
    assert (waiting["event"], waiting["run"], waiting["condition"]) == ("waiting", "asks", "condition 'ok'")
    wait_for(lambda: notify(shell, receiver, *args) and len(receiver.events) > 1)
    assert shell("submit", "wf.py", "nothing", "--name", "lies").returncode == 0
    assert shell("submit", "wf.py", "nothing", "--name", "lies-too").returncode == 0
    wait_for(lambda: notify(shell, receiver, *args) and len(receiver.events) > 2)
    notify(shell, receiver, *args)
    stuck = [body for _, body in receiver.events if body["event"] == "stuck"]
    assert [body["run"] for body in stuck] == ["asks", "lies"]
    assert "No process drives the run" in stuck[0]["why"]
    assert "no worker is alive" in stuck[1]["why"]


DYING = """
import os, signal, sys, threading
from perdure.upkeep import notifying
from perdure.cli.entry import run
from perdure import runtime

wanted = int(os.environ["DIE_AT"])
steps = 0

def step():
    global steps
    steps += 1
    if steps == wanted:
        os.kill(os.getpid(), signal.SIGKILL)

def around(function):
    def call(*args, **kwargs):
        step()
        answer = function(*args, **kwargs)
        step()
        return answer
    return call

notifying.LEASE_SECONDS = 0.5
store = type(runtime.worker().store)
for verb in ("subscribe", "take_notice", "settle_notice"):
    setattr(store, verb, around(getattr(store, verb)))
to_webhook = notifying.to_webhook
notifying.to_webhook = lambda url: around(to_webhook(url))
run(["notify", "--once"])
"""


def test_a_notifier_killed_at_any_step_loses_no_event_and_keeps_each_id(shell: Shell, receiver: Receiver) -> None:
    """NT2, NT3."""
    notify(shell, receiver)
    names = {"one", "two"}
    for name in names:
        shell("run", "wf.py", "fails", "--name", name)
    died = 0
    for at in range(1, 100):
        done = subprocess.run(
            [sys.executable, "-c", DYING], cwd=shell.path, env=shell.env | {
                "PERDURE_NOTIFY_URL": receiver.url, "DIE_AT": str(at),
            }, capture_output=True, text=True, check=False, timeout=100,
        )  # fmt: skip
        if done.returncode == 0 and at > 4:
            break
        died += done.returncode == -9
        if at % 6 == 0:
            shell("run", "wf.py", "fails", "--name", f"more-{at}")
            names.add(f"more-{at}")
        # The lease of the dead process has to run out before its event comes back.
        threading.Event().wait(0.6)
    assert died >= 5, done.stderr
    wait_for(lambda: notify(shell, receiver).returncode == 0 and {body["run"] for _, body in receiver.events} == names)
    # Each event arrived with one id, however often it arrived, and each id stands for one event.
    assert len({(id, body["run"]) for id, body in receiver.events}) == len(names)
    assert len(receiver.events) > len(names)


FAILING = """
import os, signal
from perdure.cli.entry import run
from perdure import runtime
from perdure.core.ground.model import RunWrites

store = type(runtime.worker().store)
commit = store.commit

def dying(self, writes):
    ends = any(isinstance(write, RunWrites) and write.finish is not None for write in writes)
    if ends and os.environ["DIE"] == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    answers = commit(self, writes)
    if ends:
        os.kill(os.getpid(), signal.SIGKILL)
    return answers

store.commit = dying
run(["run", "wf.py", "fails", "--name", "first"])
"""


@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_worker_killed_at_the_end_of_a_run_tells_of_the_failure_once(
    shell: Shell, receiver: Receiver, moment: str
) -> None:
    """NT1."""
    notify(shell, receiver, "--on", "failure")
    done = subprocess.run(
        [sys.executable, "-c", FAILING], cwd=shell.path, env=shell.env | {"DIE": moment}, capture_output=True,
        check=False, timeout=100,
    )  # fmt: skip
    assert done.returncode == -9
    notify(shell, receiver, "--on", "failure")
    assert len(receiver.events) == (moment == "after")
    if moment == "before":
        wait_for(lambda: shell("resume", "first").returncode == 1 and shell.json("ls")[0]["status"] == "FAILED")
        notify(shell, receiver, "--on", "failure")
    assert [body["run"] for _, body in receiver.events] == ["first"]


def test_a_command_gets_the_event_and_its_id(tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    shell.write("tell.py", """
        import json, os, sys
        event = json.load(sys.stdin)
        assert event["id"] == os.environ["PERDURE_EVENT_ID"]
        open("told", "a").write(event["run"] + "\\n")
        sys.exit(0 if os.path.exists("ready") else 3)
        """)  # fmt: skip
    command = ("notify", "--once", "--command", f"{sys.executable} tell.py")
    assert shell(*command).returncode == 0
    shell("run", "wf.py", "fails", "--name", "first")
    refused = shell(*command)
    assert refused.returncode == 1
    assert "exit code 3" in refused.stderr
    (tmp_path / "ready").touch()
    wait_for(lambda: shell(*command) and len((tmp_path / "told").read_text().split()) == 2)


def test_a_wrong_call_names_the_remedy_and_never_the_address(tmp_path: Path) -> None:
    """NT4."""
    shell = Shell(tmp_path)
    for args, text in (
        (("--url", "ftp://host/secret-path"), "http:// or https://"),
        (("--url", "http://[secret-path"), "http:// or https://"),
        ((), "PERDURE_NOTIFY_URL"),
        (("--url", "http://h/secret-path", "--command", "true"), "give one of"),
        (("--command", "true", "--on", "sometimes"), "failure, stuck, waiting"),
        (("--remove", "unknown"), "no store"),
    ):
        done = shell("notify", "--once", *args)
        assert done.returncode == 2 or "Error" in done.stderr
        assert text in done.stderr
        assert "secret-path" not in done.stderr

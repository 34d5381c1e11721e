"""P10, and what a container gets and gives: real containers, driven in this process."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.containers.engines import IMAGE, Engine
from tests.waiting import wait_for

import perdure
from perdure.errors import (
    ContainerError,
    ImageNotFoundError,
    OOMError,
    OutputMissingError,
    OutputParseError,
    TaskTimeoutError,
    UsageError,
)
from perdure.extras import ContainerTask
from perdure.io import Dir, File


@pytest.fixture
def here(engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project directory of its own, with that engine; nothing is left there afterwards."""
    monkeypatch.chdir(tmp_path)
    perdure.init(tmp_path / "perdure.db", container_engine=engine.url)
    yield tmp_path
    perdure.init()
    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []
    root = tmp_path / "perdure.db-containers"
    assert not root.exists() or os.listdir(root) == []


def shell(script: str, *arguments: str, **settings: Any) -> ContainerTask:
    """A container that runs a script."""
    settings = {"name": "shell", "image": IMAGE, "network": "none", "local_logs": False, **settings}
    return ContainerTask(command=["/bin/sh", "-c", script, "shell", *arguments], **settings)


@dataclass
class Point:
    """A record."""

    x: int
    y: float


def test_files_at_a_url_are_inputs(here: Path) -> None:
    (here / "data" / "sub").mkdir(parents=True)
    (here / "data" / "sub" / "words").write_text("far away")
    count = shell(
        "cat /var/inputs/file /var/inputs/dir/words > /var/outputs/both", inputs={"file": File, "dir": Dir},
        outputs={"both": str},
    )  # fmt: skip
    env = perdure.TaskEnvironment.from_task("remote", count)

    @env.task
    def main(url: str) -> str:
        file = File.from_existing_remote(f"{url}/sub/words")
        return str(count(file=file, dir=Dir.from_existing_remote(f"{url}/sub")))

    assert perdure.run(main, url=f"file://{here}/data").result == "far awayfar away"


def test_one_output_is_the_value_and_several_are_a_named_tuple(here: Path) -> None:
    one = shell("echo 7 > /var/outputs/n", outputs={"n": int})
    assert perdure.run(one).result == 7
    several = shell("echo 7 > /var/outputs/n; echo true > /var/outputs/yes.txt", outputs={"n": int, "yes": bool})
    found = perdure.run(several).result
    assert (found.n, found.yes) == (7, True)
    assert perdure.run(shell("true")).result is None


def test_all_inputs_are_there_and_read_only(here: Path) -> None:
    task = shell(
        "cat /var/inputs/p > /var/outputs/p; (echo x > /var/inputs/p) 2>/dev/null && exit 1; "
        "cat /var/inputs/inputs.json > /var/outputs/all; cat /var/inputs/numbers/1 > /var/outputs/n",
        inputs={"p": Point, "numbers": list[int]},
        outputs={"p": Point, "all": str, "n": int},
    )
    found = perdure.run(task, p=Point(1, 2.5), numbers=[4, 5]).result
    assert found.p == Point(1, 2.5)
    assert found.n == 5
    assert '"numbers":[4,5]' in found.all.replace(" ", "")


def test_a_value_stays_a_single_word_of_the_command(here: Path) -> None:
    task = shell('printf %s "$1" > /var/outputs/o', "{{.inputs.v}}", inputs={"v": str}, outputs={"o": str})
    evil = "'; touch /var/outputs/x; echo {{.inputs.v}} $(id) \"\\"
    assert perdure.run(task, v=evil).result == evil


def test_files_and_directories_go_in_and_out(here: Path) -> None:
    (here / "tree" / "sub").mkdir(parents=True)
    (here / "tree" / "sub" / "a").write_text("a")
    (here / "data.txt").write_text("c\nb\na\n")
    task = shell(
        "sort {{.inputs.f}} > /var/outputs/sorted; cp -r {{.inputs.d}} /var/outputs/copy; echo b > /var/outputs/copy/b",
        inputs={"f": File, "d": Dir},
        outputs={"sorted": File, "copy": Dir},
    )
    found = perdure.run(task, f=File.from_local(here / "data.txt"), d=Dir.from_local(here / "tree")).result
    with found.sorted.open("r") as stream:
        assert stream.read() == "a\nb\nc\n"
    assert sorted(found.copy.files()) == ["b", "sub/a"]


def test_a_users_file_cannot_be_changed_by_a_container(here: Path) -> None:
    (here / "mine").write_text("mine")
    task = shell("chmod 666 /var/inputs/f 2>/dev/null; echo theirs > /var/inputs/f", inputs={"f": File})
    with pytest.raises(ContainerError):
        perdure.run(task, f=File.from_local(here / "mine"))
    assert (here / "mine").read_text() == "mine"


def test_exit_codes_become_typed_errors(here: Path) -> None:
    """P10."""
    with pytest.raises(ContainerError) as caught:
        perdure.run(shell("echo one; echo two >&2; exit 3"))
    error = caught.value
    assert (error.exit_code, error.signal, error.oom_killed) == (3, None, False)
    assert sorted(error.log_tail) == ["one", "two"]
    assert error.command[:2] == ["/bin/sh", "-c"]
    assert IMAGE in error.image
    assert "sha256:" in error.image
    assert "exit code 3" in str(error)
    assert "two" in str(error)
    with pytest.raises(ContainerError) as caught:
        perdure.run(shell("sh -c 'kill -9 $$'; exit $?"))
    assert (caught.value.exit_code, caught.value.signal) == (137, "SIGKILL")


def test_the_last_fifty_lines(here: Path) -> None:
    with pytest.raises(ContainerError) as caught:
        perdure.run(shell("seq 1 300; exit 1"))
    assert caught.value.log_tail == [str(n) for n in range(251, 301)]


def test_out_of_memory(here: Path) -> None:
    task = shell(
        "head -c 200000000 /dev/zero | tail -c 200000000 > /dev/null", resources=perdure.Resources(memory="32Mi")
    )
    with pytest.raises(ContainerError) as caught:
        perdure.run(task)
    assert isinstance(caught.value, OOMError) == caught.value.oom_killed


def test_missing_and_unfit_outputs(here: Path) -> None:
    """P10."""
    with pytest.raises(OutputMissingError) as missing:
        perdure.run(shell("echo hello; echo 1 > /var/outputs/other", outputs={"n": int}))
    assert (missing.value.output, missing.value.declared) == ("n", "int")
    assert "other" in missing.value.found
    with pytest.raises(OutputParseError) as unfit:
        perdure.run(shell("echo one > /var/outputs/n", outputs={"n": int}))
    assert (unfit.value.output, unfit.value.declared) == ("n", "int")
    assert "one" in unfit.value.found
    with pytest.raises(OutputParseError):
        perdure.run(shell("ln -s /etc/passwd /var/outputs/f", outputs={"f": File}))
    with pytest.raises(OutputParseError):
        perdure.run(shell("mkfifo /var/outputs/f", outputs={"f": str}))


def test_an_error_file_fails_the_task_and_may_stop_retries(here: Path) -> None:
    count = "echo x >> /var/outputs/_ERROR"
    with pytest.raises(ContainerError, match="reported an error: it broke"):
        perdure.run(shell("echo it broke > /var/outputs/_ERROR"))
    started = time.monotonic()
    with pytest.raises(ContainerError, match="non-recoverable"):
        perdure.run(shell(f"echo non-recoverable > /var/outputs/_ERROR; {count}; exit 1", retries=50))
    assert time.monotonic() - started < 10


def test_images_and_programs_that_are_not_there(here: Path) -> None:
    with pytest.raises(ImageNotFoundError, match="no-such-image"):
        perdure.run(shell("true", image="no-such-image:1", pull="never"))
    with pytest.raises(ImageNotFoundError, match="no-such-image"):
        perdure.run(shell("true", image="localhost:1/no-such-image:1"))
    task = ContainerTask(name="absent", image=IMAGE, command=["/no/such/program"], network="none")
    with pytest.raises((UsageError, ContainerError), match="/no/such/program"):
        perdure.run(task)


def test_a_timeout_that_a_program_ignores(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("perdure.containers.life.GRACE", 1.0)
    started = time.monotonic()
    with pytest.raises(TaskTimeoutError):
        perdure.run(shell("trap '' TERM; while true; do sleep 1; done", timeout=0.5))
    assert time.monotonic() - started < 10


def test_output_files_of_every_user_are_readable(here: Path) -> None:
    task = shell(
        "mkdir /var/outputs/d; echo x > /var/outputs/d/f; chmod 700 /var/outputs/d; chmod 600 /var/outputs/d/f; id -u",
        outputs={"d": Dir},
        user="1000:1000",
    )
    assert list(perdure.run(task).result.files()) == ["f"]


def test_secrets_reach_the_container_and_nothing_else(
    here: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("API_KEY", "hunter2-hunter2")
    (here / "token").write_text("token-of-mine\n")
    task = shell(
        'echo "$API_KEY"; cat /run/token; [ ${#API_KEY} = 15 ] || exit 9; '
        "[ $(wc -c < /run/token) = 14 ] || exit 9; exit 1",
        secrets=["API_KEY", perdure.Secret("token", file=str(here / "token"), mount="/run/token")],
    )
    with pytest.raises(ContainerError) as caught:
        perdure.with_runcontext(name="secretive").run(task)
    assert (caught.value.exit_code, caught.value.log_tail) == (1, ["***", "***"])
    perdure.init(here / "perdure.db", container_engine=engine.url)
    for path in here.rglob("*"):
        if path.is_file() and path.name != "token":
            data = path.read_bytes()
            assert b"hunter2" not in data, path
            assert b"token-of-mine" not in data, path
    with pytest.raises(UsageError, match="secret NOT_THERE is not here"):
        perdure.run(shell("true", secrets=["NOT_THERE"]))


def test_settings_reach_the_container(here: Path) -> None:
    task = shell(
        "id -u > /var/outputs/uid; pwd > /var/outputs/cwd; echo $A$B > /var/outputs/env; "
        "grep -c . /proc/net/dev > /var/outputs/net; grep NoNewPrivs /proc/self/status | cut -f 2 > /var/outputs/nnp",
        outputs={"uid": int, "cwd": str, "env": str, "net": int, "nnp": int},
        user="1000", workdir="/tmp", env_vars={"A": "a"},
    )  # fmt: skip
    perdure.TaskEnvironment.from_task("settings", task, env_vars={"A": "no", "B": "b"})
    found = perdure.run(task).result
    assert tuple(found) == (1000, "/tmp", "ab", 3, 1)


def test_a_shared_outcome_needs_no_container(here: Path, engine: Engine) -> None:
    settings: dict[str, Any] = {
        "inputs": {"a": int}, "outputs": {"o": str}, "cache": "auto",
    }  # fmt: skip
    script = "cat /proc/sys/kernel/random/uuid > /var/outputs/o"
    first = perdure.run(shell(script, **settings), a=1).result
    assert perdure.run(shell(script, **settings), a=1).result == first
    assert perdure.run(shell(script, **settings), a=2).result != first
    assert perdure.run(shell(script + "; true", **settings), a=1).result != first
    plain = settings | {"cache": "disable"}
    assert perdure.run(shell(script, **plain), a=1).result != first


def test_logs_are_kept_for_each_attempt(here: Path, capfd: pytest.CaptureFixture[str]) -> None:
    task = shell("echo out; echo err >&2; exit 1", retries=1, local_logs=True)
    with pytest.raises(ContainerError):
        perdure.with_runcontext(name="noisy").run(task)
    assert capfd.readouterr().err.count("[shell] out") == 2
    environ = {**os.environ, "PERDURE_STORE": str(here / "perdure.db")}
    shown = subprocess.run(
        [sys.executable, "-m", "perdure", "logs", "noisy"], env=environ, capture_output=True, text=True, check=True
    )
    assert sorted(shown.stdout.split()) == ["err", "err", "out", "out"]
    assert "attempt 2" in shown.stderr


def test_logs_are_followed_until_the_run_has_ended(here: Path, engine: Engine) -> None:
    program = """
import perdure
from perdure.extras import ContainerTask
talk = ContainerTask(name="talk", image="perdure-test/busybox:1", network="none", local_logs=False,
                     command=["/bin/sh", "-c", "for i in 1 2 3 4; do echo $i; sleep 0.5; done"])
"""
    (here / "talk.py").write_text(program)
    environ = {**os.environ, **engine.environ(), "PERDURE_STORE": str(here / "perdure.db")}
    cli = [sys.executable, "-m", "perdure"]
    run = subprocess.Popen([*cli, "-q", "run", "talk.py", "talk", "--name", "r"], cwd=here, env=environ)
    log = next_log(here)
    followed = subprocess.Popen([*cli, "logs", "r", "-f"], cwd=here, env=environ, stdout=subprocess.PIPE, text=True)
    assert followed.stdout is not None
    assert followed.stdout.readline() == "1\n"
    early = run.poll() is None
    rest = followed.stdout.read()  # not `communicate`, which loses what was read ahead
    followed.wait(20)
    assert (rest, run.wait(10), early) == ("2\n3\n4\n", 0, True)
    assert log.read_text() == "1\n2\n3\n4\n"


def next_log(here: Path) -> Path:
    """The first log that appears."""
    return wait_for(lambda: next(here.glob("perdure.db-logs/*/*.log"), None))


def test_fifty_containers_run_at_once(here: Path) -> None:
    task = shell("sleep 2; echo $1 > /var/outputs/o", "{{.inputs.n}}", inputs={"n": int}, outputs={"o": int})
    env = perdure.TaskEnvironment("many")

    @env.task
    async def many() -> list[int]:
        return list(await asyncio.gather(*(task(n=n) for n in range(50))))

    started = time.monotonic()
    assert perdure.run(many).result == list(range(50))
    assert time.monotonic() - started < 50


def test_a_container_task_outside_of_a_run(here: Path) -> None:
    with pytest.raises(UsageError, match="needs a run"):
        shell("true")()


def test_other_users_of_the_machine_cannot_read_a_mounted_secret(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The container may run as any user, and reads it; the directory around the file is closed to all other users."""
    monkeypatch.setenv("TOKEN", "hush-hush")
    seen: list[int] = []
    plain = os.mkdir

    def mkdir(path: Any, mode: int = 0o777, **options: Any) -> None:
        plain(path, mode, **options)
        if str(path).startswith("/dev/shm/perdure-"):
            seen.append(os.stat(path).st_mode & 0o777)

    monkeypatch.setattr(os, "mkdir", mkdir)
    umask = os.umask(0o077)
    try:
        task = shell(
            "wc -c < /run/token > /var/outputs/n",
            outputs={"n": int},
            user="12345",
            secrets=[perdure.Secret("TOKEN", mount="/run/token")],
        )
        assert perdure.run(task).result == 9
    finally:
        os.umask(umask)
    assert seen == [0o700]


def test_a_store_in_memory_leaves_nothing(engine: Engine, tmp_path: Path) -> None:
    program = f"""
import asyncio, os, sys, tempfile, perdure
sys.path.insert(0, {str(Path(__file__).resolve().parents[2])!r})
from tests.containers.test_tasks import shell
perdure.init("memory://", container_engine={engine.url!r})
print(perdure.run(shell("echo 5 > /var/outputs/n", outputs={{"n": int}})).result)
print(f"perdure-memory-{{os.getpid()}}")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    result, base = done.stdout.split()
    assert result == "5"
    assert not list(Path(tempfile.gettempdir()).glob(f"{base}*"))
    assert engine.run_cli("ps", "-a", "--format", "{{.Names}}").split() == []


@pytest.mark.parametrize("attempts", [2, 3])
def test_a_timed_out_container_ends_before_the_next_attempt_begins(here: Path, attempts: int) -> None:
    """L6: Attempts never overlap, however long a program takes to end; its last lines are in its own log."""
    task = shell(
        'trap \'sleep 2; echo "end $(date +%s)"; exit 1\' TERM; echo "begin $(date +%s)"; '
        "while true; do sleep 0.1; done",
        timeout=5, retries=attempts - 1,
    )  # fmt: skip
    with pytest.raises(TaskTimeoutError):
        perdure.run(task)
    perdure.init()  # waits until nothing is left
    logs = [path.read_text().split() for path in sorted(here.glob("perdure.db-logs/*/*.log"))]
    assert [log[::2] for log in logs] == [["begin", "end"]] * attempts
    times = [int(number) for log in logs for number in log[1::2]]
    assert times == sorted(times)


def test_command_and_arguments_follow_the_images_entrypoint(here: Path, engine: Engine) -> None:
    """As in Flyte, run with the same image and engine: `entrypoint=` alone replaces the image's ENTRYPOINT."""
    engine.import_image(engine._tar, "perdure-test/entry:1", 'ENTRYPOINT ["/bin/sh", "-c"]', 'CMD ["exit 3"]')
    settings: dict[str, Any] = {
        "image": "perdure-test/entry:1", "network": "none", "local_logs": False, "outputs": {"o": str},
    }  # fmt: skip
    told = ContainerTask("told", command=['printf %s "$0" > /var/outputs/o', "{{.perRetryUniqueKey}}"], **settings)
    key = perdure.run(told).result
    assert key.isalnum()
    assert key[0] == "a"
    both = ContainerTask("both", command=['printf %s "$0$1" > /var/outputs/o'], arguments=["a", "b"], **settings)
    assert perdure.run(both).result == "ab"
    own = ContainerTask(
        "own", entrypoint=["/bin/sh", "-ec"], command=['printf %s "$0" > /var/outputs/o', "{{.State}}"], **settings
    )
    assert perdure.run(own).result == "{{.State}}"
    with pytest.raises(ContainerError, match="exit code 3"):
        perdure.run(ContainerTask("plain", **settings))


def test_a_secret_stays_out_of_every_text(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a real container: `_ERROR`, quoted content, a file's name, a link's target, and a log line of 64 KiB."""
    secret = "tok-3f9a21c4-very-secret"
    monkeypatch.setenv("API_KEY", secret)
    scripts = {
        "reported": 'echo "bad $API_KEY" > /var/outputs/_ERROR',
        "quoted": 'echo "is $API_KEY" > /var/outputs/n',
        "linked": 'ln -s "/$API_KEY" /var/outputs/n',
        "named": 'touch "/var/outputs/other-$API_KEY"',
        "logged": "head -c 65530 /dev/zero | tr '\\0' x; echo $API_KEY; exit 1",
        "listed": 'touch "/var/outputs/n.$API_KEY" /var/outputs/n.b',
    }
    texts = []
    for name, script in scripts.items():
        task = shell(script, name=name, secrets=["api_key"], outputs={"n": int})
        with pytest.raises((ContainerError, OutputParseError, OutputMissingError)) as caught:
            perdure.run(task)
        texts.append(f"{caught.value} {vars(caught.value)}")
    perdure.init()
    texts += [path.read_text() for path in here.glob("perdure.db-logs/*/*.log")]
    texts += [path.read_bytes().decode("latin-1") for path in here.glob("perdure.db*") if path.is_file()]
    assert len(texts) > len(scripts)
    for text in texts:
        assert secret not in text
        assert "very-secret" not in text
        assert "tok-3f9a" not in text


def test_a_cancelled_container_has_its_last_lines_in_the_log(here: Path) -> None:
    task = shell("trap 'sleep 1; echo last words; exit 0' TERM; echo begun; while true; do sleep 0.1; done")
    env = perdure.TaskEnvironment("racing", depends_on=[perdure.TaskEnvironment.from_task("raced", task)])

    @env.task
    async def main() -> str:
        try:
            await asyncio.wait_for(task(), 4.0)
        except TimeoutError:
            return "late"
        return "never"

    assert perdure.run(main).result == "late"
    perdure.init()
    [log] = here.glob("perdure.db-logs/*/*.log")
    assert log.read_text() == "begun\nlast words\n"


def test_the_key_of_an_attempt_does_not_keep_outcomes_from_being_shared(here: Path) -> None:
    """`{{.perRetryUniqueKey}}` differs between attempts, and a cached outcome is still found."""
    task = shell(
        'printf %s "$1" > /var/outputs/o', "{{.perRetryUniqueKey}}-{{.runName}}", outputs={"o": str}, cache="auto"
    )
    first = perdure.run(task).result
    assert perdure.run(task).result == first
    assert perdure.run(task.override(cache="disable")).result != first

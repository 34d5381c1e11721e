"""The contract of `Liveness`, and what lock files add: real processes that die, fork and freeze.

See docs/development/recovery.md#leases.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from tests.postgres_server import server
from tests.waiting import wait_for

from perdure.core.ground.ports import Hold, Liveness
from perdure.errors import StoreUnavailableError, UsageError
from perdure.store.locks import FileLiveness
from perdure.store.memory import MemoryLiveness
from perdure.store.postgres import PostgresStore

MAKERS: dict[str, Callable[[Path], Liveness]] = {
    "memory": lambda _: MemoryLiveness(),
    "file": lambda path: FileLiveness(path / "workers"),
    "postgres": lambda _: PostgresStore(server().url()).liveness(grace=0),
}

HOLD = """
import sys
from perdure.store.locks import FileLiveness
FileLiveness(sys.argv[1]).hold(sys.argv[2])
print("held", flush=True)
sys.stdin.read()
"""

# The worker forks a child that outlives it and has inherited every descriptor.
HOLD_AND_FORK = """
import os, signal, sys
from perdure.store.locks import FileLiveness
live = FileLiveness(sys.argv[1])
live.hold(sys.argv[2])
child = os.fork()
if child == 0:
    seen = live.is_dead(sys.argv[2])
    live.drop(sys.argv[2])
    live.sweep()
    os.write(1, f"child {seen}\\n".encode())
    signal.alarm(600)
    signal.pause()
os.write(1, f"held {child}\\n".encode())
sys.stdin.read()
"""


@pytest.fixture(params=MAKERS)
def liveness(request: pytest.FixtureRequest, tmp_path: Path) -> Liveness:
    return MAKERS[request.param](tmp_path)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "workers"


@contextmanager
def process(script: str, directory: Path | str, worker: str, *more: str) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [sys.executable, "-c", script, str(directory), worker, *more],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def first_line(child: subprocess.Popen[str]) -> list[str]:
    assert child.stdout
    return child.stdout.readline().split()


class TestEveryImplementation:
    def test_who_holds_is_alive_until_it_drops(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        assert not liveness.is_dead("w1")
        liveness.drop("w1")
        assert liveness.is_dead("w1")

    def test_asking_about_a_lock_of_our_own_does_not_lose_it(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        assert [liveness.is_dead("w1") for _ in range(3)] == [False] * 3

    def test_workers_do_not_touch_each_other(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        liveness.hold("w2")
        liveness.drop("w1")
        assert liveness.is_dead("w1")
        assert not liveness.is_dead("w2")

    def test_a_worker_without_a_holder_is_dead(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        assert liveness.is_dead("w9")

    def test_holding_twice_is_refused_and_the_first_hold_stays(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        with pytest.raises(UsageError, match="already held"):
            liveness.hold("w1")
        assert not liveness.is_dead("w1")

    def test_dropping_is_idempotent_and_a_worker_may_hold_again(self, liveness: Liveness) -> None:
        liveness.drop("w1")
        liveness.hold("w1")
        liveness.drop("w1")
        liveness.drop("w1")
        liveness.hold("w1")
        assert not liveness.is_dead("w1")

    def test_a_held_lock_is_at_work_and_a_dropped_lock_is_free(self, liveness: Liveness) -> None:
        liveness.hold("w1")
        assert liveness.hold_of("w1") is Hold.AT_WORK
        liveness.drop("w1")
        assert liveness.hold_of("w1") is Hold.FREE


class TestLockFiles:
    def test_a_stopped_process_keeps_its_lock_and_is_not_at_work(self, directory: Path) -> None:
        """P3: the lease decides about a process that a signal has stopped, and not about a process that runs."""
        live = FileLiveness(directory)
        with process(HOLD, directory, "w1") as child:
            assert first_line(child) == ["held"]
            assert live.hold_of("w1") is Hold.AT_WORK
            child.send_signal(signal.SIGSTOP)
            wait_for(lambda: live.hold_of("w1") is Hold.KEPT)
            assert not live.is_dead("w1")
            child.send_signal(signal.SIGCONT)
            wait_for(lambda: live.hold_of("w1") is Hold.AT_WORK)
        assert live.hold_of("w1") is Hold.FREE
        assert FileLiveness(directory / "elsewhere").hold_of("w1") is Hold.UNKNOWN

    def test_another_process_sees_a_holder_alive_and_dead_at_once_after_sigkill(self, directory: Path) -> None:
        with process(HOLD, directory, "w1") as child:
            assert first_line(child) == ["held"]
            live = FileLiveness(directory)
            assert not live.is_dead("w1")
            child.send_signal(signal.SIGSTOP)
            assert not live.is_dead("w1")
            child.kill()
            child.wait()
            assert live.is_dead("w1")

    def test_our_own_lock_is_seen_by_others_after_we_asked_about_it(self, directory: Path) -> None:
        live = FileLiveness(directory)
        live.hold("w1")
        live.is_dead("w1")
        FileLiveness(directory).is_dead("w1")
        live.sweep()
        answer = subprocess.run(
            [
                sys.executable,
                "-c",
                "import sys; from perdure.store.locks import FileLiveness as F; print(F(sys.argv[1]).is_dead('w1'))",
                str(directory),
            ],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
            check=True,
        )
        assert answer.stdout.strip() == "False"
        live.drop("w1")

    def test_a_forked_child_neither_keeps_nor_drops_the_lock(self, directory: Path) -> None:
        with process(HOLD_AND_FORK, directory, "w1") as child:
            words = [*first_line(child), *first_line(child)]
            orphan = int(words[words.index("held") + 1])
            try:
                assert words[words.index("child") + 1] == "False"
                live = FileLiveness(directory)
                assert not live.is_dead("w1")
                child.kill()
                child.wait()
                assert live.is_dead("w1")
                os.kill(orphan, 0)  # the child is still there, with every descriptor that it inherited
            finally:
                os.kill(orphan, signal.SIGKILL)

    def test_the_name_of_a_living_worker_is_refused_to_others(self, directory: Path) -> None:
        with process(HOLD, directory, "w1") as child:
            assert first_line(child) == ["held"]
            with pytest.raises(UsageError, match="another process"):
                FileLiveness(directory).hold("w1")
            assert not FileLiveness(directory).is_dead("w1")

    def test_files_are_private_and_leave_with_their_worker(self, directory: Path) -> None:
        live = FileLiveness(directory)
        live.hold("w1")
        assert directory.stat().st_mode & 0o777 == 0o700
        assert (directory / "w1.lock").stat().st_mode & 0o777 == 0o600
        live.drop("w1")
        assert list(directory.iterdir()) == []

    def test_a_new_worker_sweeps_the_files_of_dead_ones_only(self, directory: Path) -> None:
        with process(HOLD, directory, "alive") as alive, process(HOLD, directory, "dead") as dead:
            assert first_line(alive) == first_line(dead) == ["held"]
            dead.kill()
            dead.wait()
            live = FileLiveness(directory)
            live.hold("w1")
            assert sorted(path.name for path in directory.iterdir()) == ["alive.lock", "w1.lock"]
            assert live.is_dead("dead")
            assert not live.is_dead("alive")
            live.drop("w1")

    def test_without_the_directory_nothing_can_be_told(self, directory: Path) -> None:
        assert not FileLiveness(directory).is_dead("w1")

    def test_ids_that_are_no_file_names_are_never_opened(self, directory: Path) -> None:
        live = FileLiveness(directory)
        live.hold("w1")
        (directory.parent / "x.lock").touch()
        for odd in ("../x", "", ".", "a/b", "a\0b", "x" * 200, "w1.lock/../../x"):
            assert not live.is_dead(odd)
            with pytest.raises(UsageError, match="worker's id"):
                live.hold(odd)
        live.drop("w1")

    def test_a_link_in_place_of_a_lock_file_is_not_followed(self, directory: Path) -> None:
        live = FileLiveness(directory)
        live.hold("w1")
        target = directory.parent / "precious"
        target.write_text("x")
        (directory / "w2.lock").symlink_to(target)
        assert not live.is_dead("w2")
        live.sweep()
        assert target.read_text() == "x"
        with pytest.raises(StoreUnavailableError):
            live.hold("w2")
        live.drop("w1")

    def test_holders_and_sweepers_that_race_never_lose_a_lock(self, directory: Path) -> None:
        """Two workers come and go, and sweep as they do, beside a third that sweeps: a holder is never seen dead."""
        script = """
import sys, time
from perdure.store.locks import FileLiveness
live, me = FileLiveness(sys.argv[1]), sys.argv[2]
end = time.monotonic() + 1
held = FileLiveness(sys.argv[1])
rounds = 0
while time.monotonic() < end:
    held.hold(me)
    print("+", flush=True)
    sys.stdin.readline()
    held.drop(me)
    rounds += 1
print("end", rounds, flush=True)
"""
        with process(script, directory, "w1") as one, process(script, directory, "w2") as two:
            live = FileLiveness(directory)
            finished: set[int] = set()
            deadline = time.monotonic() + 30
            while len(finished) < 2 and time.monotonic() < deadline:
                for index, (child, name) in enumerate(((one, "w1"), (two, "w2"))):
                    if index in finished:
                        continue
                    if first_line(child)[0] == "end":
                        finished.add(index)
                        continue
                    live.sweep()
                    assert not live.is_dead(name)
                    assert child.stdin
                    child.stdin.write("go\n")
                    child.stdin.flush()
            assert len(finished) == 2


class TestPostgresOnOneMachine:
    """Each store object stands for a process of its own; lock files belong to processes, so one process is real."""

    HOLD_OVER_POSTGRES = """
import sys
from perdure.core.ground.model import WorkerRow
from perdure.store.postgres import PostgresStore
store = PostgresStore(sys.argv[1])
live = store.liveness()
live.hold(sys.argv[2])
store.renew(WorkerRow(sys.argv[2], 1, "host", store.clock.boot_id, int(float(sys.argv[3]) * 1_000_000), 0))
print("held", flush=True)
sys.stdin.read()
"""

    def test_a_worker_that_cannot_renew_its_lease_lets_go_of_its_lock_file(self) -> None:
        """P3: at work until the lease is over. From then on the lease decides, as for a worker of another machine; the
        session may still be there."""
        url = server().url()
        store = PostgresStore(url)
        with closing(store), process(self.HOLD_OVER_POSTGRES, url, "w1", "3") as child:
            assert first_line(child) == ["held"]
            live = store.liveness()
            assert live.hold_of("w1") is Hold.AT_WORK
            row = store.worker("w1")
            assert row is not None
            assert row.lease > 0
            # That process has no heartbeat.
            wait_for(lambda: live.hold_of("w1") in (Hold.KEPT, Hold.UNKNOWN))
            row = store.worker("w1")
            assert row is not None
            assert row.lease <= 0
            assert not live.is_dead("w1")

"""What the Postgres store adds to the contract: faults of connections and servers, its clock, notifications, errors."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from tests.contract._records import DONE, TOKEN, action, created, entries, entry, new_run, segment, writes
from tests.postgres_server import PASSWORD, Server, programs, server
from tests.waiting import stays_true, wait_for

from perdure.core.ground.clock import US, SystemClock
from perdure.core.ground.model import (
    CachePut,
    Claim,
    Created,
    CreateRun,
    Park,
    RunWrites,
    ScheduleRow,
    Status,
    Wake,
    WorkerRow,
)
from perdure.errors import ForeignStoreError, StoreError, StoreUnavailableError, UsageError
from perdure.store import files_base, open_store, public_url
from perdure.store.postgres import PostgresStore
from perdure.store.postgres.direct import Statement
from perdure.store.postgres.link import PostgresLink
from perdure.store.postgres.session import Session


@pytest.fixture
def url(postgres: Server) -> str:
    return postgres.url()


@pytest.fixture
def store(url: str) -> Iterator[PostgresStore]:
    found = PostgresStore(url)
    yield found
    found.close()


# -- connections that break ------------------------------------------------------------------------------------------


class Cut(psycopg.Cursor[Any]):
    """Ends its own session before, or right after, the statement whose turn it is."""

    turn = -1
    after = False
    count = 0

    @staticmethod
    def _cut(connection: Any) -> None:
        server().execute("SELECT pg_terminate_backend(%s)", (connection.info.backend_pid,))

    @staticmethod
    def at_its_turn(connection: Any, work: Callable[[], Any]) -> Any:
        mine = Cut.count == Cut.turn
        Cut.count += 1
        if mine and not Cut.after:
            Cut._cut(connection)
        found = work()
        if mine and Cut.after:
            # The server has done it, and the answer never arrives.
            Cut._cut(connection)
            connection.close()
            raise psycopg.OperationalError("server closed the connection unexpectedly")
        return found

    def execute(self, *args: Any, **kwargs: Any) -> Any:
        return Cut.at_its_turn(self.connection, lambda: super(Cut, self).execute(*args, **kwargs))

    def executemany(self, *args: Any, **kwargs: Any) -> Any:
        if Cut.count == Cut.turn:
            self._cut(self.connection)
        Cut.count += 1
        return super().executemany(*args, **kwargs)


@contextmanager
def cutting(turn: int, after: bool) -> Iterator[None]:
    plain = PostgresLink._open

    def opened(self: PostgresLink) -> Any:
        connection = plain(self)
        connection.cursor_factory = Cut
        return connection

    directly = Statement.change

    def change(self: Statement, connection: Any, row: Any) -> int:
        return int(Cut.at_its_turn(connection, lambda: directly(self, connection, row)))

    PostgresLink._open = opened  # type: ignore[method-assign]
    Statement.change = change  # type: ignore[method-assign]
    Cut.turn, Cut.after, Cut.count = turn, after, 0
    try:
        yield
    finally:
        PostgresLink._open = plain  # type: ignore[method-assign]
        Statement.change = directly  # type: ignore[method-assign]
        Cut.turn = -1


def full(run: int, first: int) -> RunWrites:
    return RunWrites(
        run, TOKEN, [segment(entry(first), entry(first + 1))], [action(run, first)], (), (CachePut(b"k", b"v", 1),)
    )


SHAPES: dict[str, Callable[[PostgresStore, int], tuple[Callable[[], Any], Any, Callable[[], Any], Any]]] = {
    "one entry": lambda store, run: (
        lambda: store.commit([writes(run, entry(1))]), [True],
        lambda: entries(store, run), [entry(1)],
    ),
    "finish": lambda store, run: (
        lambda: store.commit([writes(run, finish=DONE)]), [True],
        lambda: [found.status for found in store.runs()], [Status.SUCCEEDED],
    ),
    "batch": lambda store, run: (
        lambda: [
            getattr(answer, "fresh", answer)
            for answer in store.commit([full(run, 1), CreateRun(new_run("b"), None), writes(run, finish=DONE)])
        ],
        [True, True, True],
        lambda: ([found.name for found in store.runs()], entries(store, run), store.actions(run)),
        (["b", "run"], [entry(1), entry(2)], [action(run, 1)]),
    ),
    "park": lambda store, run: (
        lambda: store.commit([RunWrites(run, TOKEN, park=Park(Wake(1, 1), 0))]), [True],
        lambda: [found.status for found in store.runs()], [Status.SLEEPING],
    ),
    "claim": lambda store, run: (
        lambda: store.claim(run, Claim(b"n" * 16, "w"), expect=TOKEN, entries=0, statuses={Status.RUNNING}) is not None,
        True,
        lambda: [(found.token, found.crashes) for found in store.runs()], [(b"n" * 16, 2)],
    ),
    "release": lambda store, run: (
        lambda: store.release(run, TOKEN), True, lambda: [found.token for found in store.runs()], [None],
    ),
    "abort": lambda store, run: (
        lambda: store.abort(run, 7), True, lambda: [found.status for found in store.runs()], [Status.ABORTED],
    ),
    "advance": lambda store, run: (
        lambda: [answer.fresh for answer in store.advance("daily", 5, expect=None, runs=[new_run("b")]) or ()], [True],
        lambda: (store.schedules(), [found.name for found in store.runs()]),
        ([ScheduleRow("daily", 5)], ["b", "run"]),
    ),
    "pause": lambda store, run: (
        lambda: [store.advance("daily", 5, expect=None), store.pause_schedules("daily", 9)], [[], 1],
        lambda: store.schedules(), [ScheduleRow("daily", 5, 9)],
    ),
    "resume": lambda store, run: (
        lambda: [store.adopt_schedule(ScheduleRow("daily", 5, 6)), store.resume_schedules("daily", 9)], [True, 1],
        lambda: store.schedules(), [ScheduleRow("daily", 9)],
    ),
}  # fmt: skip


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("shape", SHAPES)
def test_a_connection_that_breaks_at_any_statement_loses_and_doubles_nothing(url: str, shape: str, after: bool) -> None:
    turn = 0
    while True:
        with cutting(-1, after):
            store = PostgresStore(f"{url}_{turn}")
            run = created(store)
            work, answer, look, expected = SHAPES[shape](store, run.id)
            Cut.count, Cut.turn = 0, turn
            assert work() == answer, f"statement {turn}"
            reached = Cut.count > turn
            Cut.turn = -1
            assert look() == expected, f"statement {turn}"
            store.close()
        if not reached:
            break
        turn += 1
    assert turn >= 1


def test_a_pooler_that_gives_another_connection_forgets_statements(store: PostgresStore) -> None:
    run = created(store)
    assert store.commit([writes(run.id, entry(1))]) == [True]
    connection = store._writer.connection
    assert connection is not None
    connection.execute("DEALLOCATE ALL")
    for number in (2, 3):
        assert store.commit([writes(run.id, entry(number))]) == [True]
    assert entries(store, run.id) == [entry(number) for number in (1, 2, 3)]


def test_due_runs_are_taken_once_when_the_answer_is_lost(url: str) -> None:
    for turn in range(5):
        with cutting(-1, True):
            store = PostgresStore(f"{url}_{turn}")
            store.commit([CreateRun(new_run(name), None) for name in ("a", "b")])
            Cut.count, Cut.turn = 0, turn
            taken = store.take_due({"etl.main"}, [Claim(bytes([n]) * 16, "w") for n in range(3)])
            Cut.turn = -1
            assert [(one.run.name, one.run.crashes) for one in taken] == [("a", 1), ("b", 1)]
            assert [one.run for one in taken] == store.runs()[::-1]
            store.close()


@pytest.fixture
def own_server(postgres: Server) -> Iterator[Server]:
    """A server for a test that ends it: the shared one has hundreds of schemas, and its recovery syncs every file."""
    folder = programs()
    assert folder
    found = Server(folder)
    yield found
    found.close()


def test_a_server_that_is_killed_and_started_again_under_load_loses_and_doubles_nothing(own_server: Server) -> None:
    url = own_server.url()
    store = PostgresStore(url)
    acknowledged: dict[int, int] = {}
    runs = [created(store, f"r{number}").id for number in range(3)]
    stop = threading.Event()
    failures: list[BaseException] = []

    def drive(run: int) -> None:
        mine = PostgresStore(url)
        n = 0
        try:
            while not stop.is_set():
                n += 1
                if n % 5 == 0:
                    assert mine.commit([writes(run, entry(n), entry(n + 1))]) == [True]
                    n += 1
                else:
                    assert mine.commit([writes(run, entry(n))]) == [True]
                acknowledged[run] = n
        except BaseException as error:
            failures.append(error)
        finally:
            mine.close()

    threads = [threading.Thread(target=drive, args=(run,)) for run in runs]
    for thread in threads:
        thread.start()
    for end in (own_server.kill, own_server.stop):
        begun = dict(acknowledged)
        wait_for(lambda: failures or all(acknowledged.get(run, 0) > begun.get(run, 0) + 2 for run in runs))  # noqa: B023
        before = dict(acknowledged)
        end()
        stays_true(lambda: not failures, 0.3)
        own_server.start()
        wait_for(lambda: failures or all(acknowledged[run] > before[run] + 2 for run in runs))  # noqa: B023
    stop.set()
    for thread in threads:
        thread.join(30)
    assert failures == []
    for run in runs:
        assert [row.n for row in entries(store, run)] == list(range(1, acknowledged[run] + 1))
    store.close()


def test_while_all_connections_are_taken_work_waits(postgres: Server, store: PostgresStore) -> None:
    run = created(store).id
    store._writer._drop()
    taken: list[psycopg.Connection[Any]] = []
    with suppress(psycopg.OperationalError):
        while True:
            taken.append(psycopg.connect(postgres.dsn()))
    with pytest.raises(psycopg.OperationalError, match="connection"):
        psycopg.connect(postgres.dsn())
    threading.Timer(0.5, lambda: [connection.close() for connection in taken]).start()
    assert store.commit([writes(run, entry(1))]) == [True]
    assert entries(store, run) == [entry(1)]


# -- time, and who is alive ------------------------------------------------------------------------------------------


class Wrong:
    """The clock of a machine that is an hour ahead of the server, and has booted just now."""

    boot_id = "boot-9"

    def wall(self) -> int:
        return time.time_ns() // 1000 + 3600 * US

    def boot(self) -> int:
        return 5 * US


def test_what_is_due_is_decided_by_the_servers_clock(url: str, store: PostgresStore) -> None:
    wrong = PostgresStore(url, clock=Wrong())
    wrong.commit([CreateRun(new_run("soon"), None, Wake(Wrong().wall() + US // 5, 5 * US + US // 5))])
    assert store.take_due({"etl.main"}, [Claim(TOKEN, "w")]) == []
    left = store.next_due({"etl.main"})
    assert left is not None
    assert 0 < left <= 0.2
    taken = wait_for(lambda: store.take_due({"etl.main"}, [Claim(TOKEN, "w")]))
    assert [one.run.name for one in taken] == ["soon"]
    wrong.close()


def test_a_lease_runs_out_on_the_servers_clock(url: str, store: PostgresStore) -> None:
    wrong = PostgresStore(url, clock=Wrong())
    wrong.renew(WorkerRow("w", 1, "host", "boot-9", US, 5))
    row = store.worker("w")
    assert row is not None
    assert 0 < row.lease <= US
    wait_for(lambda: store.workers()[0].lease <= 0)
    wrong.close()


HOLD = """
import sys
from perdure.store.postgres import PostgresStore
store = PostgresStore(sys.argv[1])
store.liveness().hold("w1")
print("held", flush=True)
sys.stdin.read()
"""


def process(script: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", script, *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )  # fmt: skip


def test_a_worker_is_seen_dead_soon_after_its_process_was_killed(url: str, store: PostgresStore) -> None:
    live = store.liveness(grace=0.3)
    child = process(HOLD, url)
    try:
        assert child.stdout
        assert child.stdout.readline() == "held\n"
        assert not live.is_dead("w1")
        child.kill()
        child.wait()
        began = time.monotonic()
        wait_for(lambda: live.is_dead("w1"))
        assert time.monotonic() - began >= 0.25
    finally:
        child.kill()
        child.wait()


def test_a_worker_whose_session_was_lost_takes_its_lock_again(postgres: Server, url: str, store: PostgresStore) -> None:
    other = PostgresStore(url)
    other.liveness().hold("w1")
    live = store.liveness(grace=2)
    assert not live.is_dead("w1")
    session = other._session
    assert session is not None
    assert session._connection is not None
    postgres.execute("SELECT pg_terminate_backend(%s)", (session._connection.info.backend_pid,))
    stays_true(lambda: not live.is_dead("w1"), 3.0)
    other.close()


# -- hearing of changes ----------------------------------------------------------------------------------------------


def test_a_submitted_run_is_heard_of_within_20_ms(url: str, store: PostgresStore) -> None:
    rang = threading.Event()
    assert store.listen(rang.set)
    other = PostgresStore(url)
    waits = []
    for number in range(20):
        version = store.version()
        rang.clear()
        other.commit([CreateRun(new_run(f"r{number}"), None)])
        began = time.perf_counter()
        assert rang.wait(2)
        waits.append(time.perf_counter() - began)
        assert store.version() != version
    assert sorted(waits)[10] < 0.02
    other.close()


def test_without_notifications_changes_are_polled_for(
    url: str, store: PostgresStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    deaf = PostgresStore(url)
    with monkeypatch.context() as patch:
        patch.setattr(Session, "_notified", lambda self, notification: None)
        assert not deaf.listen(lambda: None)
    version = deaf.version()
    store.commit([CreateRun(new_run("a"), None)])
    assert deaf.version() != version
    live = deaf.liveness()
    live.hold("w1")
    deaf.renew(WorkerRow("w1", 1, "host", "b", US, 5))
    assert not store.liveness(grace=0).is_dead("w1")
    deaf.close()


# -- making and opening ----------------------------------------------------------------------------------------------


def test_processes_that_open_a_new_store_at_once_make_it_once(url: str, postgres: Server) -> None:
    script = """
import sys
from perdure.store.postgres import PostgresStore
sys.stdin.readline()
store = PostgresStore(sys.argv[1])
print(store.id, flush=True)
store.close()
"""
    children = [process(script, url) for _ in range(3)]
    for child in children:
        assert child.stdin
        child.stdin.write("go\n")
        child.stdin.flush()
    ids = {child.communicate(timeout=60)[0] for child in children}
    assert len(ids) == 1
    assert len(ids.pop()) == 33


def test_the_password_is_shown_nowhere(store: PostgresStore, postgres: Server) -> None:
    assert PASSWORD not in store.url
    assert store.url.startswith("postgresql://tester@/perdure?")
    for bad in (
        f"postgresql://tester:{PASSWORD}@/nowhere?host={postgres.root}",
        f"postgresql://no-such-user:{PASSWORD}@/perdure?host={postgres.root}",
        f"postgresql://tester:{PASSWORD}@127.0.0.1:1/perdure",
        f"postgresql://tester:{PASSWORD}@host.invalid/perdure",
        f"postgresql://tester:{PASSWORD}@a:b:c/perdure",
        f"postgresql://tester:{PASSWORD}@/perdure?host={postgres.root}&nonsense=1",
    ):
        with pytest.raises((StoreError, UsageError)) as caught:
            PostgresStore(bad)
        assert PASSWORD not in str(caught.value)
        assert "\n" not in str(caught.value)
        assert PASSWORD not in public_url(bad)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("s3cret-word", "wrong"), "check user and password"),
        (("/perdure?", "/nowhere?"), "no such database"),
        (("host=/tmp", "host=/nowhere"), "cannot be reached"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(url: str, change: tuple[str, str], words: str) -> None:
    with pytest.raises(StoreUnavailableError, match=words):
        PostgresStore(url.replace(*change))


def test_a_role_that_may_not_make_the_schema_is_told(url: str, postgres: Server) -> None:
    postgres.execute("DROP ROLE IF EXISTS guest")
    postgres.execute("CREATE ROLE guest LOGIN PASSWORD 'guest'")
    with pytest.raises(StoreUnavailableError, match="GRANT CREATE"):
        PostgresStore(url.replace(f"tester:{PASSWORD}", "guest:guest"))


def test_the_tables_of_another_program_are_left_alone(url: str, postgres: Server) -> None:
    schema = url.rpartition("=")[2]
    postgres.execute(f"CREATE SCHEMA {schema}")
    postgres.execute(f"CREATE TABLE {schema}.runs (id int)")
    with pytest.raises(ForeignStoreError, match="another program"):
        PostgresStore(url)


def test_a_url_opens_it_and_names_the_place_of_its_files(url: str) -> None:
    store, liveness = open_store(url.replace("postgresql://", "postgres://"))
    liveness.hold("w1")
    assert not liveness.is_dead("w1")
    assert files_base(store.url) == files_base(url)
    store.close()
    with pytest.raises(UsageError, match="SQLite"):
        open_store(url, durability="process")


def test_without_psycopg_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(sys.modules, "psycopg", None)
    for name in [name for name in sys.modules if name.startswith("perdure.store.postgres")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "perdure.store.postgres", raising=False)
    with pytest.raises(UsageError, match=r"pip install 'perdure\[postgres\]'"):
        open_store(url)


def test_a_created_run_is_answered_as_it_is_stored(store: PostgresStore) -> None:
    [answer] = store.commit([CreateRun(new_run("x\0y\x01z"), None)])
    assert isinstance(answer, Created)
    assert store.run("x\0y\x01z") == answer.run


# -- the whole of it -------------------------------------------------------------------------------------------------


def test_deadlines_are_counted_on_the_servers_clock(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = SystemClock.wall
    monkeypatch.setattr(SystemClock, "wall", lambda self: real(self) - 3600 * US)
    store = PostgresStore(url)
    [[now]] = server().execute("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")
    assert abs(store.clock.wall() - now) < US // 2
    store.close()


FLOW = """
import perdure
from perdure.extras import durable_sleep

env = perdure.TaskEnvironment(name="etl")

@perdure.trace
def fetch(i: int) -> int:
    return i * 2

@env.task
def main(n: int, nap: float) -> int:
    total = sum(fetch(i) for i in range(n))
    durable_sleep(nap)
    return total
"""


def test_a_worker_takes_over_from_a_killed_one(url: str, tmp_path: Path) -> None:
    (tmp_path / "flow.py").write_text(FLOW)
    env = {**os.environ, "PERDURE_STORE": url, "PYTHONPATH": os.pathsep.join(sys.path)}

    def perdure(*words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "perdure", *words], cwd=tmp_path, env=env, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip

    one = perdure("serve", "flow.py")
    try:
        submitted = perdure("submit", "flow.py", "main", "--n", "20", "--nap", "3", "--name", "run")
        assert submitted.wait(60) == 0
        store = PostgresStore(url)
        run = wait_for(lambda: store.run("run"))
        wait_for(lambda: store.journal_length(run.id) >= 20)
        one.kill()
        shown = one.communicate()[0]
        assert PASSWORD not in shown
        two = perdure("serve", "flow.py")
        try:
            waited = perdure("wait", "run")
            text = waited.communicate(timeout=60)[0]
            assert waited.returncode == 0, text
            assert "380" in text
        finally:
            two.terminate()
            assert two.communicate(timeout=30)[0] is not None
        assert store.journal_length(run.id) == 21
        assert store.workers() == [] or all(not row.id.endswith(str(two.pid)) for row in store.workers())
        store.close()
    finally:
        one.kill()
        one.wait()

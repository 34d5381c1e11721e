"""The SQLite store in the real world: several processes, kills, full and read-only disks, files that are not ours.

P1: what was acknowledged is there after any death, whole; what was not is there whole or not at all.
"""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import IO

import pytest
from tests.contract._records import (
    OTHER,
    TOKEN,
    action,
    created,
    entries,
    entry,
    new_run,
    segment,
    state,
    worker,
    writes,
)
from tests.waiting import is_stopped, wait_for

from perdure.core.ground.model import Claim, Created, CreateRun, RunWrites, Status
from perdure.errors import ForeignStoreError, StoreError, StoreUnavailableError, StoreVersionError, UsageError
from perdure.store import open_store
from perdure.store._sql import migrations, queries
from perdure.store.memory import MemoryLiveness, MemoryStore
from perdure.store.sqlite import SQLiteStore
from perdure.store.sqlite.file import APPLICATION_ID, MIGRATIONS, VERSION, StoreFile

REPOSITORY = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join([*sys.path, str(REPOSITORY)])}

PRELUDE = """
import os, sys, signal, time, sqlite3
from perdure.errors import *
from perdure.store.sqlite import SQLiteStore
from perdure.core.ground.model import *
from tests.contract._records import *
path = sys.argv[1]
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "store.db"


@contextmanager
def process(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> Iterator[subprocess.Popen[str]]:
    child = subprocess.Popen(
        [*prefix, sys.executable, "-c", PRELUDE + script, *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=ENVIRONMENT,
    )
    try:
        yield child
    finally:
        child.kill()
        child.wait()


def output(script: str, *arguments: object, prefix: tuple[str, ...] = ()) -> str:
    with process(script, *arguments, prefix=prefix) as child:
        return child.communicate(timeout=60)[0]


def pipe(child: subprocess.Popen[str]) -> tuple[IO[str], IO[str]]:
    assert child.stdin
    assert child.stdout
    return child.stdin, child.stdout


def assert_one_sentence(error: BaseException, path: Path) -> None:
    text = str(error)
    assert str(path) in text or str(path.parent) in text
    assert "\n" not in text
    assert "Traceback" not in text


class TestOpening:
    def test_a_new_file_and_its_directory_are_private(self, tmp_path: Path) -> None:
        path = tmp_path / ".perdure" / "perdure.db"
        old = os.umask(0)
        try:
            with closing(SQLiteStore(path)) as store:
                created(store)
                store.renew(worker())
                modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in (path.parent, *path.parent.iterdir())}
        finally:
            os.umask(old)
        assert modes == {".perdure": 0o700, "perdure.db": 0o600, "perdure.db-wal": 0o600, "perdure.db-shm": 0o600}

    def test_what_was_written_is_there_after_reopening(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            run, name = created(store), store.id
            store.commit([writes(run.id, entry(1))])
        assert [p.name for p in path.parent.iterdir()] == [path.name]
        with closing(SQLiteStore(path)) as store:
            assert (store.id, store.run("run"), entries(store, run.id)) == (name, run, [entry(1)])

    def test_a_missing_directory_of_another_name_is_not_created(self, tmp_path: Path) -> None:
        path = tmp_path / "data" / "store.db"
        with pytest.raises(StoreUnavailableError, match="does not exist: create it") as caught:
            SQLiteStore(path)
        assert_one_sentence(caught.value, path)
        assert not path.parent.exists()

    def test_a_directory_in_place_of_the_file(self, tmp_path: Path) -> None:
        with pytest.raises(StoreUnavailableError, match="is a directory: name a file in it"):
            SQLiteStore(tmp_path)

    def test_a_path_through_a_file(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(StoreUnavailableError, match="not a directory: name another file"):
            SQLiteStore(tmp_path / "file" / "store.db")

    def test_a_file_that_is_no_database(self, path: Path) -> None:
        path.write_text("dear diary, " * 100)
        with pytest.raises(ForeignStoreError, match=r"not a perdure store.*name another file") as caught:
            SQLiteStore(path)
        assert_one_sentence(caught.value, path)
        assert path.read_text() == "dear diary, " * 100

    @pytest.mark.parametrize(
        "statement", ["CREATE TABLE runs (id)", "PRAGMA user_version = 3", "PRAGMA application_id = 7"]
    )
    def test_the_database_of_another_program_is_left_alone(self, path: Path, statement: str) -> None:
        with closing(sqlite3.connect(path)) as other:
            other.execute(statement)
            other.commit()
        before = path.read_bytes()
        with pytest.raises(ForeignStoreError, match="of another program: name another file"):
            SQLiteStore(path)
        assert path.read_bytes() == before

    def test_a_newer_schema_is_left_alone(self, path: Path) -> None:
        SQLiteStore(path).close()
        with closing(sqlite3.connect(path)) as newer:
            newer.execute(f"PRAGMA user_version = {VERSION + 1}")
        with pytest.raises(StoreVersionError, match=r"newer perdure.*upgrade perdure") as caught:
            SQLiteStore(path)
        assert_one_sentence(caught.value, path)

    def test_an_empty_file_that_a_crash_left_becomes_a_store(self, path: Path) -> None:
        path.touch()
        with closing(sqlite3.connect(path)) as half:
            half.execute("PRAGMA journal_mode = WAL")
        with closing(SQLiteStore(path)) as store:
            created(store)

    def test_a_name_with_odd_characters(self, tmp_path: Path) -> None:
        path = tmp_path / "ä ?mode=ro#%41.db"
        with closing(SQLiteStore(path)) as store:
            created(store)
        assert path.exists()

    def test_a_link_leads_to_one_store(self, tmp_path: Path) -> None:
        (tmp_path / "link.db").symlink_to(tmp_path / "real.db")
        with closing(SQLiteStore(tmp_path / "link.db")) as one, closing(SQLiteStore(tmp_path / "real.db")) as two:
            created(one)
            assert one.id == two.id
            assert two.run("run") == one.run("run")

    def test_a_process_that_was_faster_with_the_schema_is_noticed(
        self, path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look = StoreFile._version
        others: list[str] = []

        def look_then_be_overtaken(self: StoreFile, cursor: sqlite3.Cursor) -> int:
            version = look(self, cursor)
            if not others:
                others.append("begun")
                with closing(SQLiteStore(path)) as other:
                    others.append(other.id)
            return version

        monkeypatch.setattr(StoreFile, "_version", look_then_be_overtaken)
        with closing(SQLiteStore(path)) as store:
            assert others == ["begun", store.id]

    def test_many_processes_open_a_new_store_at_once(self, path: Path) -> None:
        script = """
print("ready", flush=True)
sys.stdin.readline()
store = SQLiteStore(path, busy_timeout=30)
print(store.id, created(store, sys.argv[2]).name, flush=True)
store.close()
"""
        children = []
        try:
            for i in range(6):
                children.append(
                    subprocess.Popen(
                        [sys.executable, "-c", PRELUDE + script, str(path), f"run-{i}"],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                        env=ENVIRONMENT,
                    )
                )
            for child in children:
                assert pipe(child)[1].readline() == "ready\n"
            for child in children:
                pipe(child)[0].write("\n")
                pipe(child)[0].flush()
            answers = [child.communicate(timeout=60)[0].split() for child in children]
        finally:
            for child in children:
                child.kill()
                child.wait()
        with closing(SQLiteStore(path)) as store:
            assert sorted(answers) == [[store.id, f"run-{i}"] for i in range(6)]
            assert {run.name for run in store.runs()} == {f"run-{i}" for i in range(6)}


class TestReadOnly:
    """As an ordinary user: root's permissions bind nothing, so the child gives them up."""

    SCRIPT = """
if os.geteuid() == 0:
    os.setgroups([]); os.setgid(65534); os.setuid(65534)
try:
    store = SQLiteStore(path)
    created(store)
except StoreUnavailableError as error:
    print(error)
"""

    @pytest.fixture
    def public(self) -> Iterator[Path]:
        # pytest's own temporary directories are closed to the user that the child becomes.
        directory = Path("/tmp") / f"perdure-test-{os.getpid()}-{random.getrandbits(32):x}"
        directory.mkdir(mode=0o755)
        yield directory
        shutil.rmtree(directory)

    def test_a_directory(self, public: Path) -> None:
        public.chmod(0o555)
        text = output(self.SCRIPT, public / "store.db")
        assert re.fullmatch(f"the directory {public} is not writable for this user.*: change its permissions.*\n", text)

    @pytest.mark.parametrize("mode", [0o444, 0o000])
    def test_a_file(self, public: Path, mode: int) -> None:
        path = public / "store.db"
        SQLiteStore(path).close()
        path.chmod(mode)
        public.chmod(0o777)
        text = output(self.SCRIPT, path)
        assert re.fullmatch(f"{path} is not readable and writable for this user: change its permissions.*\n", text)

    def test_a_store_in_a_directory_that_became_read_only(self, public: Path) -> None:
        path = public / "store.db"
        SQLiteStore(path).close()
        path.chmod(0o666)
        public.chmod(0o555)
        text = output(self.SCRIPT, path)
        assert re.fullmatch(f"the directory {public} is not writable for this user.*: change its permissions.*\n", text)

    def test_a_file_that_becomes_read_only_while_it_is_open(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            created(store)
            path.unlink()
            with pytest.raises(StoreUnavailableError, match="moved or deleted while in use"):
                store.run("run")  # the reader is opened only now


class TestFullDisks:
    FILL = """
store = SQLiteStore(path)
run = created(store).id
n = 0
try:
    while True:
        rows = [segment(entry(n + 1, value=bytes(9000)), entry(n + 2))]
        store.commit([RunWrites(run, TOKEN, rows, [action(run, n + 1)])])
        n += 2
except StoreUnavailableError as error:
    print("full:", error)
good = entries(store, run)
assert len(good) == n and len(store.actions(run)) == n // 2, (len(good), n)
"""
    AFTERWARDS = """
assert store.commit([RunWrites(run, TOKEN, [segment(entry(n + 1, value=bytes(9000)), entry(n + 2))])]) == [True]
store.close()
store = SQLiteStore(path)
assert store.journal_length(run) == n + 2
assert sqlite3.connect(path).execute("PRAGMA integrity_check").fetchone() == ("ok",)
print("works again", flush=True)
"""

    def test_beyond_a_file_size_limit_the_batch_fails_whole_and_the_store_lives_on(self, path: Path) -> None:
        limit = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, resource.RLIM_INFINITY))\n"
        unlimit = "resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))\n"
        lines = output(limit + self.FILL + unlimit + self.AFTERWARDS, path).splitlines()
        assert len(lines) == 2, lines
        assert re.fullmatch(f"full: {path} cannot be (read or )?written.*ulimit -f.*then carry on", lines[0])
        assert lines[1] == "works again"

    def test_on_a_full_disk_the_batch_fails_whole_and_the_store_lives_on(self, tmp_path: Path) -> None:
        namespace = ("unshare", "--mount")
        if shutil.which("unshare") is None or subprocess.run([*namespace, "true"], capture_output=True).returncode:
            pytest.skip("needs the right to mount a small file system")
        command = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(tmp_path)]
        mount = f"import subprocess; subprocess.run({command!r}, check=True)\n"
        ballast = f"ballast = {str(tmp_path / 'ballast')!r}; open(ballast, 'wb').write(bytes(200_000))\n"
        lines = output(
            mount + ballast + self.FILL + "os.unlink(ballast)\n" + self.AFTERWARDS, tmp_path / "s.db", prefix=namespace
        ).splitlines()
        assert len(lines) == 2, lines
        assert re.fullmatch(f"full: the disk of {tmp_path}/s.db is full: free some space.*", lines[0])
        assert lines[1] == "works again"


def read_whole(path: Path, run: int) -> None:
    with closing(SQLiteStore(path)) as store:
        entries(store, run)


class TestDamage:
    def test_a_damaged_file_is_named(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            run = created(store).id
            store.commit([writes(run, *(entry(n, value=bytes(500)) for n in range(1, 500)))])
        with path.open("r+b") as file:
            for page in range(2, path.stat().st_size // 4096):
                file.seek(page * 4096)
                file.write(random.Random(page).randbytes(4096))
        with pytest.raises(StoreUnavailableError, match=r"is damaged .*: restore it from a backup") as caught:
            read_whole(path, run)
        assert_one_sentence(caught.value, path)

    def test_a_store_without_its_id(self, path: Path) -> None:
        SQLiteStore(path).close()
        with closing(sqlite3.connect(path)) as other:
            other.execute("DELETE FROM meta")
            other.commit()
        with pytest.raises(StoreError, match="lost its store id"):
            SQLiteStore(path)

    def test_text_that_is_no_unicode_is_the_callers_error_and_leaves_the_store_usable(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            run = created(store).id
            with pytest.raises(UsageError, match="not valid Unicode"):
                store.commit([RunWrites(run, TOKEN, [segment(entry(1))], [action(run, 1, name="\udc80")])])
            assert store.commit([writes(run, entry(1))]) == [True]


HOLD_THE_WRITE_LOCK = """
other = sqlite3.connect(path, isolation_level=None)
other.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.readline()
other.execute("COMMIT")
print("free", flush=True)
sys.stdin.readline()
"""


class TestLocks:
    def test_a_process_frozen_inside_a_commit_is_named(self, path: Path) -> None:
        with (
            closing(SQLiteStore(path, busy_timeout=0.3)) as store,
            process("store = SQLiteStore(path)\nprint('idle', flush=True)\nsys.stdin.readline()", path) as bystander,
            process(HOLD_THE_WRITE_LOCK, path) as child,
        ):
            run = created(store).id
            assert pipe(bystander)[1].readline() == "idle\n"
            stdin, stdout = pipe(child)
            assert stdout.readline() == "locked\n"
            os.kill(child.pid, signal.SIGSTOP)
            wait_for(lambda: is_stopped(child.pid))
            for call in (
                lambda: store.commit([writes(run, entry(1))]),
                lambda: store.commit([writes(run, entry(1), entry(2))]),
                lambda: store.release(run, TOKEN),
                lambda: store.renew(worker()),
            ):
                began = time.monotonic()
                with pytest.raises(StoreUnavailableError, match=rf"process {child.pid}, which is stopped") as caught:
                    call()
                assert 0.3 <= time.monotonic() - began < 3
                assert f"kill -CONT {child.pid}" in str(caught.value)
                assert_one_sentence(caught.value, path)
            assert store.run("run") is not None  # readers do not wait for writers
            os.kill(child.pid, signal.SIGCONT)
            stdin.write("\n")
            stdin.flush()
            assert stdout.readline() == "free\n"
            assert store.commit([writes(run, entry(1))]) == [True]

    def test_a_lock_that_is_let_go_in_time_is_only_waited_for(self, path: Path) -> None:
        with closing(SQLiteStore(path, busy_timeout=20)) as store, process(HOLD_THE_WRITE_LOCK, path) as child:
            run = created(store).id
            stdin, stdout = pipe(child)
            assert stdout.readline() == "locked\n"
            release = threading.Timer(0.3, lambda: (stdin.write("\n"), stdin.flush()))
            release.start()
            assert store.commit([writes(run, entry(1))]) == [True]
            release.join()

    def test_asking_who_holds_the_lock_does_not_lose_our_own(self, path: Path) -> None:
        """Closing any descriptor of a file drops the locks of the process on it; the question must not do that."""
        with closing(SQLiteStore(path, busy_timeout=0.1)) as store:
            run = created(store).id
            with process(HOLD_THE_WRITE_LOCK, path) as child:
                assert pipe(child)[1].readline() == "locked\n"
                with pytest.raises(StoreUnavailableError, match=str(child.pid)):
                    store.renew(worker())
            held = os.stat(f"{path}-shm")
            locks = Path("/proc/locks")
            if locks.exists():
                mine = [line for line in locks.read_text().splitlines() if f" {os.getpid()} " in line]
                assert any(line.split()[5].endswith(f":{held.st_ino}") for line in mine)
            assert store.commit([writes(run, entry(1))]) == [True]

    def test_a_second_store_on_the_file_in_this_process_keeps_the_first_ones_locks(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            created(store)
            SQLiteStore(path).close()
            inode = path.stat().st_ino
            locks = Path("/proc/locks")
            if locks.exists():
                mine = [line for line in locks.read_text().splitlines() if f" {os.getpid()} " in line]
                assert any(line.split()[5].endswith(f":{inode}") for line in mine)

    def test_a_heartbeat_passes_while_this_process_commits_without_pause(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            run = created(store).id
            stop = threading.Event()

            def write() -> None:
                n = 0
                while not stop.is_set():
                    store.commit([writes(run, *(entry(n + i) for i in range(1, 201)))])
                    n += 200

            busy = threading.Thread(target=write)
            busy.start()
            began = time.monotonic()
            for number in range(10):
                store.renew(worker()._replace(started_at=number))
            took = time.monotonic() - began
            stop.set()
            busy.join()
            found = store.worker("worker-1")
            assert found is not None
            assert found.started_at == 9
            assert took < 10


class TestKills:
    DRIVE = """
store = SQLiteStore(path)
one, two = store.run("one").id, store.run("two").id
batch = store.journal_length(one) // 3
while True:
    n = 3 * batch
    elements = [
        RunWrites(
            one, TOKEN, [segment(*(entry(n + i, action=i) for i in (1, 2, 3)))], [action(one, batch + 1)],
            (state(one, batch + 1, attempt=batch + 2),),
        ),
        RunWrites(two, TOKEN, [segment(entry(batch + 1))]),
        CreateRun(new_run(f"made-{batch}"), None),
    ]
    store.commit(elements)
    store.commit([RunWrites(two, TOKEN, [segment(entry(1_000_000 + batch))])])
    batch += 1
    os.write(1, b"%d\\n" % batch)
"""

    def test_every_acknowledged_batch_is_whole_after_sigkill_and_no_other_is_half_there(self, path: Path) -> None:
        with closing(SQLiteStore(path)) as store:
            one, two = created(store, "one").id, created(store, "two").id
        dice = random.Random(7)
        done: set[int] = set()
        begun = 0
        for _ in range(6):
            with process(self.DRIVE, path) as child:
                _, stdout = pipe(child)
                lines = [stdout.readline()]
                time.sleep(dice.uniform(0.001, 0.15))
                child.kill()
                acknowledged = {int(line) for line in lines + stdout.read().split("\n")[:-1]}
            assert min(acknowledged) == begun + 1
            done |= acknowledged
            with closing(sqlite3.connect(path)) as raw:
                assert raw.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            with closing(SQLiteStore(path)) as store:
                begun = len(store.actions(one))
                assert max(done) <= begun <= max(done) + 1
                assert [e.n for e in entries(store, one)] == list(range(1, 3 * begun + 1))
                assert [a.attempt for a in store.actions(one)] == [n + 1 for n in range(1, begun + 1)]
                assert [e.n for e in entries(store, two) if e.n < 1_000_000] == list(range(1, begun + 1))
                assert len([run for run in store.runs() if run.name.startswith("made-")]) == begun
                singles = {e.n - 999_999 for e in entries(store, two) if e.n >= 1_000_000}
                assert done <= singles
        # At least one by each process; how many more, the machine decides.
        assert len(done) >= 6


class TestForks:
    def test_a_forked_child_is_refused_and_harms_nothing(self, path: Path) -> None:
        script = """
store = SQLiteStore(path)
run = created(store).id
store.run("run")
sys.stdout.flush()
pid = os.fork()
if pid == 0:
    write = lambda: store.commit([writes(run, entry(1))])
    for call in (lambda: store.run("run"), write, lambda: SQLiteStore(path)):
        try:
            call()
        except StoreUnavailableError as error:
            print(error)
    store.close()
    del store
    import gc; gc.collect()
    sys.exit()
os.waitpid(pid, 0)
assert store.commit([writes(run, entry(1))]) == [True]
print("parent", store.journal_length(run), os.path.exists(path + "-wal"), flush=True)
os._exit(0)
"""
        lines = output(script, path).splitlines()
        assert len(lines) == 4, lines
        assert "forked child" in lines[0]
        assert "forked child" in lines[1]
        assert "was open when this process was forked" in lines[2]
        assert all("by spawn" in line for line in lines[:3])
        assert lines[3] == "parent 1 True"
        with closing(SQLiteStore(path)) as store:
            assert store.journal_length(1) == 1

    def test_a_child_that_outlives_its_parent_does_not_take_the_wal_away(self, path: Path) -> None:
        script = """
store = SQLiteStore(path)
run = created(store).id
store.commit([writes(run, entry(1))])
ours, parents = os.pipe()
if os.fork():
    os._exit(0)  # dies with its WAL not copied into the database
os.setsid()
os.close(parents)
os.read(ours, 1)  # ends when the parent has ended
store.close()
del store
import gc; gc.collect()
print("child ends", flush=True)
"""
        with process(script, path, os.getpid()) as child:
            assert child.communicate(timeout=60)[0] == "child ends\n"
        assert Path(f"{path}-wal").stat().st_size > 0
        with closing(SQLiteStore(path)) as store:
            assert store.journal_length(1) == 1


class TestPlans:
    """Queries that must not read whole tables do not."""

    @pytest.mark.parametrize(
        ("name", "index"),
        [
            ("similar", "runs_running"),
            ("runs_running", "runs_running"),
            ("runs_rare", "runs_rare"),
            ("run_by_name", "sqlite_autoindex_runs_1"),
            ("segments_of_run", "PRIMARY KEY"),
            ("journal_length", "PRIMARY KEY"),
            ("actions_of_parent", "PRIMARY KEY"),
            ("actions_of_run", "PRIMARY KEY"),
            ("open_actions", "actions_open"),
            ("holder", "PRIMARY KEY"),
            ("insert_segment_fenced", "PRIMARY KEY"),
            ("finish", "PRIMARY KEY"),
            ("source_id", "sqlite_autoindex_sources_1"),
            ("cache_get", "PRIMARY KEY"),
        ],
    )
    def test_an_index_is_used(self, path: Path, name: str, index: str) -> None:
        SQLiteStore(path).close()
        sql = queries("sqlite")[name]
        with closing(sqlite3.connect(path)) as raw:
            plan = raw.execute(f"EXPLAIN QUERY PLAN {sql}", [None] * sql.count("?")).fetchall()
        steps = [row[3] for row in plan]
        assert any(index in step for step in steps), steps
        assert not any(step.startswith("SCAN") and "USING" not in step and "CONSTANT" not in step for step in steps), (
            steps
        )

    def test_every_file_of_migrations_is_named_in_order(self) -> None:
        folder = REPOSITORY / "src/perdure/store/sqlite/migrations"
        assert sorted(file.name for file in folder.iterdir()) == list(MIGRATIONS)
        assert [step.version for step in migrations("sqlite", MIGRATIONS)] == list(range(1, VERSION + 1))

    def test_the_file_says_whose_it_is_and_its_connections_how_durable_they_are(self, path: Path) -> None:
        for durability, level in (("power", 2), ("process", 1)):
            with closing(SQLiteStore(path, durability)) as store:  # type: ignore[arg-type]
                assert store._writer.rows("PRAGMA synchronous", ()) == [(level,)]
                assert store._aside.rows("PRAGMA synchronous", ()) == [(1,)]
                assert store._reader.rows("PRAGMA query_only", ()) == [(1,)]
                assert store._writer.rows("PRAGMA journal_mode", ()) == [("wal",)]
                assert store._writer.rows("PRAGMA application_id", ()) == [(APPLICATION_ID,)]


class TestURLs:
    def test_relative_absolute_and_plain_paths(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.chdir(tmp_path)
        for url in ("sqlite:///a.db", f"sqlite:///{tmp_path}/a.db", "a.db", tmp_path / "a.db"):
            store, liveness = open_store(url)
            assert store.url == f"sqlite:///{tmp_path}/a.db"
            liveness.hold("w1")
            assert (tmp_path / "a.db-workers" / "w1.lock").exists()
            liveness.drop("w1")
            store.close()

    def test_memory(self) -> None:
        store, liveness = open_store("memory://")
        assert isinstance(store, MemoryStore)
        assert isinstance(liveness, MemoryLiveness)

    @pytest.mark.parametrize(
        ("url", "text"),
        [
            ("mongodb://localhost/x", "no store is called 'mongodb'; supported are .*sqlite:///.*memory://"),
            ("mysql://localhost/x", "supported are"),
            ("sqlite:///:memory:", "nothing would survive"),
            (":memory:", "nothing would survive"),
            ("sqlite:///", "names no file"),
            ("", "names no file"),
            ("sqlite://relative.db", "third slash"),
            ("memory://name", "takes no name"),
        ],
    )
    def test_what_cannot_be_opened_is_refused_with_what_can(self, url: str, text: str) -> None:
        with pytest.raises(UsageError, match=text):
            open_store(url)

    def test_memory_is_opened_without_importing_sqlite(self) -> None:
        script = (
            "import sys; from perdure.store import open_store; open_store('memory://'); print('sqlite3' in sys.modules)"
        )
        answer = subprocess.run(
            [sys.executable, "-c", script], env=ENVIRONMENT, capture_output=True, text=True, check=True
        )
        assert answer.stdout == "False\n"


def test_a_claim_is_durable_once_a_commit_follows_it(path: Path) -> None:
    """Claims are written on a connection that does not sync; the writes under them carry them along."""
    with closing(SQLiteStore(path)) as store:
        run = created(store).id
        assert store.claim(run, Claim(OTHER, "w2"), expect=TOKEN, entries=0, statuses={Status.RUNNING})
        assert store.commit([RunWrites(run, OTHER, [segment(entry(1))], [action(run, 1)], (state(run, 1),))]) == [True]
        # A reader of the files on the disk sees both.
        for name in ("store.db", "store.db-wal"):
            shutil.copy(path.parent / name, path.parent / f"copy-{name}")
    os.rename(path.parent / "copy-store.db-wal", path.parent / "copy.db-wal")
    os.rename(path.parent / "copy-store.db", path.parent / "copy.db")
    with closing(SQLiteStore(path.parent / "copy.db")) as copy:
        found = copy.run_by_id(run)
        assert found is not None
        assert (found.token, copy.journal_length(run)) == (OTHER, 1)


def test_many_creations_in_one_batch_are_answered_without_reading_them_back(path: Path) -> None:
    with closing(SQLiteStore(path)) as store:
        answers = store.commit([CreateRun(new_run(f"r{i}"), None) for i in range(1000)])
        assert all(isinstance(answer, Created) and answer.fresh for answer in answers)
        assert [answer.run for answer in answers if isinstance(answer, Created)] == store.runs()[::-1]

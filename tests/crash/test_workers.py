"""Several workers on one store: killed, frozen and drained, with a store that fails, and more runs than they can hold.

Real processes (`perdure serve`), real signals. What a run's steps did stands in a file, one line each; what was
recorded, in the store."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from tests.crash.fleet import CLOCK, SERVED, Fleet, Worker
from tests.crash.harness import Late, patient
from tests.journals import SEGMENTS, decoded
from tests.stores import ON_POSTGRES, sqlite_only
from tests.waiting import PATIENCE, Stall, stays_true, wait_for

from perdure.core.ground.clock import US
from perdure.core.ground.model import Claim, Created, CreateRun, Kind, Park, RunWrites, Status, Wake
from perdure.core.ground.values import ANY

STORM = int(os.environ.get("PERDURE_STORM", "3000"))
"""How many runs sleep in the store until one moment."""


@pytest.fixture
def fleet(place: Path) -> Iterator[Fleet]:
    found = Fleet(place / "fleet")
    yield found
    found.close()


def repeated(fleet: Fleet) -> dict[str, int]:
    return {name: count for name, count in Counter(fleet.steps()).items() if count > 1}


def gapless(fleet: Fleet) -> bool:
    """Whether every run's entries are numbered from 1 on without a gap."""
    numbers: dict[int, list[int]] = {}
    for run, entry in decoded(fleet.query(SEGMENTS)):
        numbers.setdefault(run, []).append(entry.n)
    return all(found == list(range(1, len(found) + 1)) for found in numbers.values())


# -- one driver ------------------------------------------------------------------------------------------------


def test_every_run_has_one_driver_and_a_killed_workers_runs_go_on(fleet: Fleet) -> None:
    """P3, P2, SV1: three workers share the runs; of the one that is killed, only what was under way is done again."""
    workers = [fleet.serve("--concurrency", 20, wait=False) for _ in range(3)]
    for worker in workers:
        worker.ready()
    runs = [fleet.new("ticking", f"r{number}", tag=f"r{number}", count=4, seconds=0.05) for number in range(120)]
    fleet.submit(*runs)
    wait_for(lambda: all(len(fleet.steps(worker.pid)) > 20 for worker in workers), story=fleet.story)
    victim = workers[0]
    victim.kill()
    fleet.wait()
    assert {name.partition(".")[0] for name in fleet.steps()} == {run.name for run in runs}
    again = repeated(fleet)
    assert len(again) <= 20, again
    assert set(again.values()) <= {2}, again
    last = {name.partition(".")[0]: name for name in fleet.steps(victim.pid)}
    assert set(again) <= set(last.values()), again
    assert gapless(fleet)
    assert all(run.crashes <= 2 for run in fleet.store.runs())
    for worker in workers[1:]:
        assert "Error" not in worker.errors()
        assert "locked" not in worker.errors()


def test_a_killed_workers_runs_go_on_within_a_second(place: Path) -> None:
    """The lock of a dead process is free at once, long before its lease (15 s) is over. On Postgres a free lock is
    believed after a second."""
    go_on_within_a_second(place)


@patient
def go_on_within_a_second(place: Path) -> None:
    fleet = Fleet(place / f"second-{time.monotonic_ns()}")
    try:
        first, second = fleet.serve(wait=False), fleet.serve(wait=False)
        first.ready()
        second.ready()
        fleet.submit(*(fleet.new("ticking", f"r{n}", tag=f"r{n}", count=200, seconds=0.02) for n in range(8)))
        wait_for(lambda: len(fleet.steps()) > 40, story=fleet.story)
        victim = max(first, second, key=lambda worker: len(fleet.steps(worker.pid)))
        other = second if victim is first else first
        mine = {name.partition(".")[0] for name in fleet.steps(victim.pid)}
        victim.kill()
        killed = time.clock_gettime(time.CLOCK_BOOTTIME)
        with Stall() as stall:
            wait_for(lambda: mine <= {name.partition(".")[0] for name in fleet.steps(other.pid)}, story=fleet.story)
        theirs = [line for line in fleet.log() if line.pid == other.pid]
        took = max(min(line.boot for line in theirs if line.fields[0].startswith(f"{run}.")) for run in mine) - killed
        print(f"{len(mine)} runs went on {took:.2f} s after the kill")
        if took > stall.bound(2.5 if ON_POSTGRES else 1.0, work=0.1):
            raise Late(f"{took:.2f} s\n{fleet.story()}")
    finally:
        fleet.close()


def test_a_frozen_worker_is_fenced(fleet: Fleet) -> None:
    """P3, D1.

    Others take over within the lease; continued, the frozen one writes nothing for these runs and serves on."""
    env = {"PERDURE_LEASE": "1"}
    frozen = fleet.serve(env=env)
    fleet.submit(*(fleet.new("ticking", f"r{n}", tag=f"r{n}", count=30, seconds=0.1) for n in range(5)))
    fleet.submit(fleet.new("sync_waking", "nap", tag="nap", seconds=4.0))
    wait_for(lambda: len(fleet.steps()) > 15, story=fleet.story)
    with frozen.frozen():
        with Stall() as stall:
            other = fleet.serve(env=env)
            wait_for(lambda: len({name.partition(".")[0] for name in fleet.steps(other.pid)}) == 5, story=fleet.story)
        assert stall.took < stall.bound(6.0, work=1.0)
        taken = time.clock_gettime(time.CLOCK_BOOTTIME)
    fleet.wait()
    after = [line for line in fleet.log() if line.pid == frozen.pid and line.boot > taken]
    # Each thread may have ended the step that it was in; nothing of it was recorded.
    assert len(after) <= 5, fleet.story()
    assert gapless(fleet)
    assert all(count <= 3 for count in repeated(fleet).values()), repeated(fleet)
    errors = frozen.says("run 'nap' is no longer this process's")
    assert errors.count("no longer this process's") == 6, errors
    other.terminate()
    assert other.code() == 0
    fleet.submit(fleet.new("ticking", "later", tag="later", count=1))
    fleet.wait("later")


def test_runs_come_back_to_the_worker_that_lost_them(fleet: Fleet) -> None:
    """A worker is frozen past its lease, the one that took over dies, and the first one takes its runs again while it
    still has their old drivers in memory: those leave, and the new ones are all it counts."""
    env = {"PERDURE_LEASE": "1"}
    first = fleet.serve("--concurrency", 2, "-v", env=env)
    fleet.submit(
        fleet.new("sync_waking", "nap", tag="nap", seconds=4.5),
        fleet.new("ticking", "steps", tag="steps", count=40, seconds=0.1),
    )
    wait_for(lambda: len(fleet.steps()) > 3, story=fleet.story)
    with first.frozen():
        second = fleet.serve(env=env)
        wait_for(lambda: len(fleet.steps(second.pid)) > 2, story=fleet.story)
        second.kill()
    fleet.wait("nap", "steps")
    assert fleet.steps().count("nap") == 1
    assert gapless(fleet)
    # It has both its places again, and has told how the runs ended.
    fleet.submit(*(fleet.new("ticking", f"r{n}", tag=f"r{n}", count=10, seconds=0.1) for n in range(2)))
    fleet.wait()
    both = [line for line in fleet.log() if line.fields[0].startswith("r")]
    assert min(line.boot for line in both if line.fields[0].startswith("r1")) < max(line.boot for line in both[:10])
    if "nap" in fleet.steps(first.pid):  # on a slow machine the nap may have ended at the second worker
        first.says("run nap (served.sync_waking) succeeded")
    first.says("run steps (served.ticking) succeeded")


def test_a_run_that_comes_back_takes_one_place(fleet: Fleet) -> None:
    """The same without a freeze: another worker claims a run that sleeps in memory and releases the claim at once."""
    worker = fleet.serve("--park-after", "2h", "--concurrency", 2)
    [run] = fleet.submit(fleet.new("waking", "nap", tag="nap", seconds=3600.0))
    wait_for(lambda: fleet.store.open_actions(run.id), story=fleet.story)
    for number in range(3):
        held = fleet.run("nap")
        claim = Claim(bytes([number]) * 16, "another")
        assert fleet.store.claim(run.id, claim, expect=held.token, entries=0, statuses={Status.RUNNING}) is not None
        assert fleet.store.release(run.id, claim.token)
        wait_for(lambda: fleet.run("nap").token is not None, story=fleet.story)
    worker.says("run 'nap' is no longer this process's")
    worker.terminate()
    assert worker.code() == 0
    assert "SIGTERM: 1 run is let go" in worker.errors()
    assert fleet.status("nap") is Status.SLEEPING


def test_eight_processes_share_one_database_file_without_lock_errors(fleet: Fleet) -> None:
    """`database is locked` reaches no user: six workers, a process that submits, and one that lists."""
    workers = [fleet.serve("--concurrency", 10, "--park-after", "0s", wait=False) for _ in range(6)]
    script = fleet.directory / "submits.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(SERVED.parent)!r})\n"
        "import perdure, served\n"
        "for n in range(150):\n"
        "    perdure.with_runcontext(name=f'r{n}').submit(served.stepwise, tag=f'r{n}', count=3, seconds=0.01)\n"
    )
    lists = "import perdure, time\nfrom perdure.api import looking\nend = time.monotonic() + 4\n"
    lists += "while time.monotonic() < end:\n    looking.runs(limit=50)\n"
    others = [
        subprocess.Popen(
            [sys.executable, *words], cwd=fleet.directory, env={**os.environ, **fleet.env}, stderr=subprocess.PIPE
        )
        for words in ([str(script)], ["-c", lists])
    ]
    for other in others:
        _, errors = other.communicate(timeout=60)
        assert (other.returncode, errors) == (0, b"")
    fleet.wait()
    assert len(fleet.store.runs()) == 150
    assert repeated(fleet) == {}
    assert gapless(fleet)
    for worker in workers:
        assert worker.errors().count("\n") == 1, worker.errors()
        assert worker.row() is not None, "its lease was not renewed"


@sqlite_only
def test_a_process_frozen_inside_a_commit_is_named(fleet: Fleet) -> None:
    """A process that waits for the file names the process that holds it, and goes on when that process does."""
    worker = fleet.serve(env={"PERDURE_LEASE": "3"})
    fleet.submit(fleet.new("ticking", "before", tag="before", count=1))
    fleet.wait("before")
    code = (
        "import os, signal, sqlite3, sys\n"
        "db = sqlite3.connect(sys.argv[1], isolation_level=None)\n"
        "db.execute('BEGIN IMMEDIATE')\n"
        "os.kill(os.getpid(), signal.SIGSTOP)\n"
        "db.execute('ROLLBACK')\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", code, str(fleet.database)])
    try:
        stat = Path(f"/proc/{holder.pid}/stat")
        wait_for(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T")
        asked = fleet.perdure("submit", SERVED, "ticking", "--tag", "x")
        assert asked.returncode == 1
        named = f"process {holder.pid}, which is stopped inside a commit: continue it (`kill -CONT {holder.pid}`)"
        assert asked.stderr.startswith(f"Error: {fleet.database} has been locked by another writer for more than 5 s")
        assert named in asked.stderr
        worker.says(named, 20)
    finally:
        holder.send_signal(signal.SIGCONT)
        assert holder.wait(10) == 0
    fleet.submit(fleet.new("ticking", "after", tag="after", count=1))
    fleet.wait("after")
    assert "database is locked" not in worker.errors()


# -- what cannot be driven -------------------------------------------------------------------------------------


def test_a_run_that_cannot_go_on_holds_up_no_other_run(fleet: Fleet) -> None:
    """P5, SV4.

    It is reported and tried again after growing pauses; the others are driven, queued and left behind alike."""
    first = fleet.serve()
    fleet.submit(*(fleet.new("fickle", f"bad{n}", tag=f"bad{n}") for n in range(3)))
    fleet.submit(*(fleet.new("ticking", f"good{n}", tag=f"good{n}", count=30, seconds=0.1) for n in range(3)))
    wait_for(lambda: len(fleet.steps()) >= 9 and len(fleet.log("begins")) > 9, story=fleet.story)
    wait_for(lambda: all(fleet.store.journal_length(fleet.run(f"bad{n}").id) for n in range(3)))
    first.kill()
    broken = fleet.directory / "broken.py"
    broken.write_text("import perdure\nimport not_there_at_all\n")
    began = time.monotonic()
    second = fleet.serve("--concurrency", 4, files=[broken, SERVED])
    assert "broken.py cannot be imported: ModuleNotFoundError: No module named 'not_there_at_all'" in second.errors()
    fleet.submit(*(fleet.new("ticking", f"new{n}", tag=f"new{n}", count=3) for n in range(10)))
    fleet.wait(*(f"good{n}" for n in range(3)), *(f"new{n}" for n in range(10)))
    errors = second.says("it is tried again in 2 s")
    took = time.monotonic() - began
    for number in range(3):
        told = errors.count(f"run bad{number} (served.fickle) cannot be driven; it is tried again in")
        assert 1 <= told <= 2 + took / 2, errors
    assert "expected: trace step(" in errors
    assert fleet.status("bad0") is Status.RUNNING
    # What the worker said stands with the run, for every process to read.
    wait_for(lambda: fleet.store.refusal(fleet.run("bad0").id), story=fleet.story)
    refusal = fleet.store.refusal(fleet.run("bad0").id)
    assert refusal is not None
    assert refusal.error == "NonDeterminismError"
    assert "expected: trace step(" in refusal.message
    assert refusal.tries >= 2
    assert refusal.again is not None
    assert f"-{second.pid}-" in refusal.worker


def test_the_run_of_a_dead_worker_gets_a_free_place_before_queued_runs(fleet: Fleet) -> None:
    """With more runs in the queue than there are places for, a dead worker's run gets the next place that is free."""
    fleet.submit(fleet.new("ticking", "left", tag="left", count=4, seconds=0.6))
    first = fleet.serve("--concurrency", 1, wait=False)
    wait_for(lambda: fleet.log("begins"), story=fleet.story)
    fleet.submit(
        *(fleet.new("ticking", f"q{n}", tag=f"q{n}", count=1, seconds=0.7 + n * 0.0371) for n in range(30)),
    )
    fleet.serve("--concurrency", 2)
    wait_for(lambda: len([line for line in fleet.log("begins") if line.pid != first.pid]) >= 2, story=fleet.story)
    first.kill()
    fleet.wait("left", seconds=60)
    assert fleet.counts()[Status.QUEUED] > 10, fleet.story()


def test_each_worker_takes_only_its_own_tasks(fleet: Fleet) -> None:
    """Workers of different files share a store, and so do two on one file; the runs of tasks that are called alike in
    two files go to the file that they were submitted from."""
    text = (
        'import perdure\nenv = perdure.TaskEnvironment("flow")\n\n@env.task\ndef where() -> str:\n    return __file__\n'
    )
    one, two = fleet.directory / "one.py", fleet.directory / "two.py"
    for file in (one, two):
        file.write_text(text)
    first, other = fleet.serve(files=[one], wait=False), fleet.serve(wait=False)
    first.ready()
    other.ready()
    # Each file is loaded in a process of its own: in one process a name belongs to one task.
    for n in range(2):
        assert fleet.perdure("submit", two, "where", "--name", f"two{n}").returncode == 0
    errors = first.says("are left alone: their task flow.where is two.flow.where in")
    assert f"{two}, and the one served here is one.flow.where" in errors
    second = fleet.serve(files=[two], wait=False)
    twin = fleet.serve(files=[two], wait=False)
    for n in range(2):
        assert fleet.perdure("submit", one, "where", "--name", f"one{n}").returncode == 0
    fleet.submit(*(fleet.new("reading", f"served{n}") for n in range(5)))
    fleet.wait()
    for run in fleet.store.runs():
        file = {"one": one, "two": two, "ser": SERVED}[run.name[:3]]
        assert run.value is not None
        assert ANY.decode(run.value) == str(file), run.name
    assert errors.count("are left alone") == 1
    for worker in (second, twin, other):
        assert worker.process.poll() is None
    both = fleet.perdure("serve", one, two)
    assert both.returncode == 2
    assert "two tasks are called flow.where: where (" in both.stderr


# -- waking ----------------------------------------------------------------------------------------------------


def parked_at_once(fleet: Fleet, count: int, wake: Wake) -> None:
    """Write that many runs as a worker would have parked them: each with its sleep under way."""
    fleet.submit(fleet.new("waking", "model", tag="model", seconds=3600.0))
    worker = fleet.serve("--park-after", "1s")
    fleet.wait("model", status=Status.SLEEPING)
    worker.kill()
    model = fleet.run("model")
    [sleep] = fleet.store.actions(model.id)
    assert sleep.kind == Kind.SLEEP
    fleet.store.abort(model.id, 1)
    assert fleet.store.remove([model.id], 2, {Status.ABORTED}) == [True]
    while fleet.store.purge(1000):
        pass
    claim = Claim(b"t" * 16, "another")
    sleep = sleep._replace(wake_at=wake.at, wake_boot=wake.boot)
    for low in range(0, count, 2000):
        names = [f"w{number}" for number in range(low, min(count, low + 2000))]
        new = [fleet.new("waking", name, tag=name, seconds=3600.0) for name in names]
        created = fleet.store.commit([CreateRun(each, claim) for each in new])
        ids = [answer.run.id for answer in created if isinstance(answer, Created)]
        fleet.store.commit(
            [RunWrites(id, claim.token, actions=[sleep._replace(run=id)], park=Park(wake, 0)) for id in ids]
        )


@pytest.mark.timeout(600)
def test_thousands_of_due_sleeps_end_once_each_over_kills(fleet: Fleet) -> None:
    """P7, P2: runs that are due all at once, and a worker that is killed again and again while they wake.

    Each sleep ends once. What runs behind it may run again only where it was under way when a kill came. The times
    were long past when the first worker began."""
    places, dice = 50, random.Random(5)
    parked_at_once(fleet, STORM, Wake(CLOCK.wall() - US, CLOCK.boot() - US))
    began = time.monotonic()
    kills = 0
    worker = fleet.serve("--concurrency", places)
    while kills < 5:
        limit = STORM * (1 - (kills + dice.random()) / 6)
        wait_for(lambda limit=limit: STORM - fleet.counts()[Status.SUCCEEDED] < limit, story=fleet.story)
        assert worker.process.poll() is None, fleet.story()
        worker.kill()
        kills += 1
        worker = fleet.serve("--concurrency", places)
    fleet.wait(seconds=5 * PATIENCE)
    assert worker.process.poll() is None, fleet.story()
    print(f"{STORM} runs woke within {time.monotonic() - began:.1f} s, {kills} kills")
    assert kills == 5
    steps = Counter(fleet.steps())
    assert set(steps) == {f"w{number}" for number in range(STORM)}
    assert sum(count - 1 for count in steps.values()) <= kills * places
    kinds = [(run, entry.kind) for run, entry in decoded(fleet.query(SEGMENTS))]
    assert len(kinds) == len(set(kinds)) == 2 * STORM
    assert Counter(kind for _, kind in kinds) == {Kind.TRACE: STORM, Kind.SLEEP: STORM}


@sqlite_only
def test_a_step_of_the_clock_moves_no_wake_time(fleet: Fleet) -> None:
    """P7: neither of parked runs nor of queued ones with a delay, even if the next worker has another clock.

    Without libfaketime, under which `time.sleep` fails now and then."""
    clock, tools = fleet.directory / "clock", fleet.directory / "tools"
    tools.mkdir()
    (tools / "sitecustomize.py").write_text(
        f"import time\nreal = time.time_ns\ntime.time_ns = lambda: real() + int(open({str(clock)!r}).read()) * 10**9\n"
    )

    def step(seconds: int) -> None:
        clock.with_suffix(".new").write_text(str(seconds))
        clock.with_suffix(".new").replace(clock)

    step(0)
    paths = [str(tools), *filter(None, [os.environ.get("PYTHONPATH")])]
    env = {"PYTHONPATH": os.pathsep.join(paths)}
    worker = fleet.serve("--park-after", "1s", env=env)
    began = time.clock_gettime(time.CLOCK_BOOTTIME)
    fleet.submit(*(fleet.new(task, task, tag=task, seconds=3.0) for task in ("waking", "sync_waking")))
    fleet.submit(fleet.new("ticking", "queued", tag="queued", count=1, seconds=0.0), after=3.0)
    fleet.wait("waking", "sync_waking", status=Status.SLEEPING)
    step(3600)
    # The worker reads the clock many times meanwhile.
    stays_true(lambda: worker.process.poll() is None, 0.3)
    worker.kill()
    step(-7200)
    with Stall() as stall:
        fleet.serve("--park-after", "1s", env=env)
        fleet.wait()
    for line in fleet.log():
        assert 2.9 < line.boot - began < stall.bound(5.5, work=1.0), (line, began)
    ended = fleet.run("queued").ended_at
    assert ended is not None
    assert ended < CLOCK.wall() - 7000 * US, "the clock did not step"


# -- more than there are places --------------------------------------------------------------------------------


def test_runs_that_sleep_give_their_places_to_others(fleet: Fleet) -> None:
    """A thousand runs on four places: those that sleep make room at once, so that all can begin, and none is lost."""
    fleet.submit(*(fleet.new("stepwise", f"r{n}", tag=f"r{n}", count=1, seconds=3.0) for n in range(1000)))
    with Stall() as stall:
        fleet.serve("--concurrency", 4)
        fleet.wait(seconds=3 * PATIENCE)
    print(f"1000 runs that sleep for 3 s each, on 4 places: {stall.took:.1f} s")
    assert Counter(Counter(fleet.steps()).values()) == {1: 1000}
    # One after the other on each place they would take 750 s.
    assert stall.took < stall.bound(60.0, work=10.0)


def test_tasks_nest_deeper_than_there_are_threads(fleet: Fleet) -> None:
    """On one place, with more runs waiting."""
    for task, depth in (("deep", 150), ("sync_deep", 151), ("nested", 80)):
        fleet.submit(fleet.new(task, task, depth=depth))
    fleet.serve("--concurrency", 1)
    fleet.wait()


def test_a_hundred_thousand_queued_runs_cost_neither_memory_nor_the_lease(fleet: Fleet) -> None:
    """SV2: on sixteen places: memory stays flat, and the lease is renewed in time, meanwhile."""
    model = fleet.new("ticking", "model", tag="x", count=2, seconds=0.0)
    for low in range(0, 100_000, 10_000):
        names = [f"q{number}" for number in range(low, low + 10_000)]
        fleet.submit(*(model._replace(name=name, uid=name.encode().ljust(16)) for name in names))
    worker = fleet.serve("--concurrency", 16, env={"PERDURE_LEASE": "3"})
    wait_for(lambda: fleet.counts()[Status.SUCCEEDED] > 300, story=fleet.story)
    before, leases = worker.memory(), [3.0]
    with Stall() as stall:
        # It is renewed every second; what is left is never more than a renewal late.
        stays_true(lambda: leases.append(worker.row().lease / US) or leases[-1] > 1.0 - stall.worst, 3.5)  # type: ignore[func-returns-value]
    least = min(leases)
    grown, done = worker.memory() - before, fleet.counts()[Status.SUCCEEDED]
    print(
        f"{done} of 100,000 runs are done; memory {before >> 20} MiB and {grown >> 10} KiB more; "
        f"least lease {least:.2f} of 3 s"
    )
    assert before < 100 << 20
    assert grown < 8 << 20
    with Stall() as stall:
        worker.terminate()
        assert worker.code() == 0
    assert stall.took < stall.bound(3.0, work=0.5)
    assert fleet.counts()[Status.RUNNING] <= 16


def test_a_task_that_blocks_its_loop_is_named(place: Path) -> None:
    """With the line, wherever the project lies: in a folder called perdure, say."""
    folder = place / "perdure" / "lib"
    folder.mkdir(parents=True)
    file = folder / "flow.py"
    shutil.copy(SERVED, file)
    fleet = Fleet(place / "fleet", file)
    try:
        pipe = fleet.directory / "pipe"
        os.mkfifo(pipe)
        fleet.submit(fleet.new("blocks", "b", path=str(pipe)), fleet.new("ticking", "t", tag="t", count=2))
        worker = fleet.serve()
        errors = worker.says("task served.blocks of run b has kept the event loop for ")
        line = file.read_text().splitlines().index("    Path(path).read_bytes()") + 1
        assert f"at {file}:{line} (blocks)" in errors
        pipe.write_bytes(b"")
        fleet.wait()
        assert worker.errors().count("task served.blocks of run b has kept the event loop") == 1
    finally:
        fleet.close()


# -- the end ---------------------------------------------------------------------------------------------------


def test_a_drained_worker_records_what_is_under_way_and_hands_its_runs_over(fleet: Fleet) -> None:
    """SIGTERM: nothing new begins, what is under way is recorded, what sleeps is parked, and all of it goes on at once
    with another worker, which repeats nothing."""
    first = fleet.serve()
    fleet.submit(
        *(fleet.new("ticking", f"t{n}", tag=f"t{n}", count=4, seconds=1.5) for n in range(3)),
        fleet.new("waking", "nap", tag="nap", seconds=5.0),
        fleet.new("sync_waking", "sync_nap", tag="sync_nap", seconds=5.0),
        fleet.new("stepwise", "long", tag="long", count=2, seconds=3600.0),
    )
    wait_for(lambda: len(fleet.log("begins")) == 3 and "long.0" in fleet.steps(), story=fleet.story)
    second = fleet.serve()
    fleet.submit(fleet.new("ticking", "other", tag="other", count=1, seconds=0.1))
    fleet.wait("other")
    first.terminate()
    asked = time.clock_gettime(time.CLOCK_BOOTTIME)
    fleet.wait("nap", "sync_nap", "long", status=Status.SLEEPING, seconds=1.4)
    fleet.submit(fleet.new("ticking", "late", tag="late", count=1))
    assert first.code() == 0
    ended = time.clock_gettime(time.CLOCK_BOOTTIME)
    assert ended - asked < 4
    fleet.wait(*(f"t{n}" for n in range(3)), "nap", "sync_nap", "late")
    assert repeated(fleet) == {}
    begun = Counter(line.fields[0] for line in fleet.log("begins"))
    assert set(begun.values()) == {1}, begun
    assert fleet.steps(first.pid).count("late.0") == 0
    for number in range(3):
        mine = [line for line in fleet.log("begins") if line.fields[0].startswith(f"t{number}.")]
        handed = next(at for at, line in enumerate(mine) if line.pid == second.pid)
        assert handed >= 1
        done = max(line.boot for line in fleet.log() if line.fields[0] == mine[handed - 1].fields[0])
        assert mine[handed].boot - done < 2, fleet.story()
    assert fleet.status("long") is Status.SLEEPING
    assert all(run.crashes <= 1 for run in fleet.store.runs())
    # On a busy machine "other" has ended, or "long" been parked, a moment ago.
    assert first.errors().splitlines()[1:] in ([f"SIGTERM: {n} runs are let go, for at most 30 s"] for n in (5, 6))
    assert first.row() is None


@pytest.mark.parametrize("task", ["computes", "spins"])
def test_a_drain_ends_although_a_body_never_returns(fleet: Fleet, task: str) -> None:
    """In a thread, or on the event loop, where it holds up the others' end too: these are handed over all the same."""
    first = fleet.serve("--drain", "1s")
    fleet.submit(fleet.new(task, "endless", tag="endless"), fleet.new("waking", "nap", tag="nap", seconds=3600.0))
    wait_for(lambda: "endless" in fleet.steps(), story=fleet.story)
    second = fleet.serve("--drain", "1s", wait=False)
    second.ready()
    with Stall() as stall:
        first.terminate()
        assert first.code() == 0
    assert stall.took < stall.bound(6.0, work=0.5)
    assert " came to no point to be let go at; what they were doing is done again elsewhere" in first.errors()
    run = fleet.run("endless")
    wait_for(lambda: fleet.run("endless").worker not in (run.worker, None) or run.worker == second.row().id)
    wait_for(lambda: fleet.run("endless").worker == second.row().id, story=fleet.story)
    assert fleet.run("endless").crashes <= 1
    assert fleet.steps().count("endless") == 1


def test_a_second_signal_ends_the_worker_at_once(fleet: Fleet) -> None:
    worker = fleet.serve()
    fleet.submit(fleet.new("ticking", "r", tag="r", count=1, seconds=20.0))
    wait_for(lambda: fleet.log("begins"), story=fleet.story)
    worker.terminate()
    worker.says("SIGTERM: 1 run is let go, for at most 30 s")
    stays_true(lambda: worker.process.poll() is None, 0.7)
    with Stall() as stall:
        worker.signal(signal.SIGINT)
        assert worker.code() == 130
    assert stall.took < stall.bound(1.0, work=0.1)


# -- a store that fails ----------------------------------------------------------------------------------------


@sqlite_only
def test_a_worker_waits_for_a_store_that_was_moved_away(fleet: Fleet) -> None:
    """The worker says so, once, and goes on when the file is back. SQLite would write to the moved file."""
    worker = fleet.serve(env={"PERDURE_LEASE": "1"})
    fleet.submit(fleet.new("ticking", "before", tag="before", count=60, seconds=0.05))
    wait_for(lambda: len(fleet.steps()) > 3, story=fleet.story)
    folder, away = fleet.database.parent, fleet.directory / "away"
    folder.rename(away)
    worker.says(f"{fleet.database} was moved or deleted while in use: put it back, then carry on")
    steps = len(fleet.steps())
    shutil.copytree(away, folder)
    worker.says(f"{fleet.database} was replaced by another file while in use: put the old one back, or start this")
    assert len(fleet.steps()) <= steps + 1
    asked = fleet.perdure("ls", "--json")
    assert asked.returncode == 0, asked.stderr
    folder.rename(fleet.directory / "copy")
    away.rename(folder)
    worker.says("the store can be used again")
    fleet.submit(fleet.new("ticking", "after", tag="after", count=2))
    fleet.wait()
    # Twice where the worker looks just between those two renames.
    assert worker.errors().count("moved or deleted") in (1, 2)
    assert sum(count - 1 for count in Counter(fleet.steps()).values()) <= 1
    assert gapless(fleet)


@sqlite_only
def test_a_worker_goes_on_after_its_disk_was_full(fleet: Fleet) -> None:
    """A full disk, by way of a limit on the size of files: one message, no loop, and everything goes on afterwards,
    also the runs whose claims could not be given back."""
    worker = fleet.serve("--park-after", "1s", limit=400_000)
    fleet.submit(*(fleet.new("ticking", f"t{n}", tag=f"t{n}", count=60, seconds=0.01) for n in range(15)))
    fleet.submit(*(fleet.new("stepwise", f"s{n}", tag=f"s{n}", count=3, seconds=1.2) for n in range(5)))
    worker.says("ulimit -f")
    stays_true(lambda: worker.process.poll() is None, 2.0)
    steps = len(fleet.steps())
    stays_true(lambda: len(fleet.steps()) - steps < 100, 0.5)
    resource.prlimit(worker.pid, resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
    fleet.wait()
    assert worker.errors().count("ulimit -f") <= 2, worker.errors()
    assert worker.errors().count("\n") <= 5, worker.errors()
    assert gapless(fleet)


def test_workers_that_begin_and_end_at_once_lose_no_run(fleet: Fleet) -> None:
    """Lock files and rows of workers come and go beside each other; none is left behind, and no run is lost."""
    fleet.submit(*(fleet.new("ticking", f"r{n}", tag=f"r{n}", count=6, seconds=0.05) for n in range(60)))
    dice = random.Random(3)

    def live(number: int) -> Worker:
        worker = fleet.serve("--concurrency", 8)
        time.sleep(dice.random() * 0.6)
        if number % 2:
            worker.kill()
        else:
            worker.terminate()
            assert worker.code() == 0, worker.errors()
        return worker

    with ThreadPoolExecutor(3) as pool:
        ended = list(pool.map(live, range(6)))
    last = fleet.serve()
    fleet.wait()
    killed = {worker.pid for worker in ended[1::2]}
    again = repeated(fleet)
    assert {line.pid for line in fleet.log() if line.fields[0] in again} & killed or not again
    assert sum(again.values()) <= 2 * 8 * len(killed)
    wait_for(lambda: [row.pid for row in fleet.store.workers()] == [last.pid], story=fleet.story)
    for worker in ended:
        assert "Error" not in worker.errors(), worker.errors()
        assert "Traceback" not in worker.errors(), worker.errors()

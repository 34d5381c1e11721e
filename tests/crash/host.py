"""A warm process that forks one child per trial; each child is a real process that can be killed for real.

Start-up of Python and of perdure's modules is paid once. The parent has opened nothing and has no threads, so a fork
of it is as good as a fresh process (it says so if that ever stops being true). Requests and answers are JSON lines.

In the child, `commit` and `send` of its store are wrapped so that the process kills itself (SIGKILL) at a chosen write:

    kill_at = "3:before"   nothing of the third commit is written
              "3:inside"   its statements have run, its transaction is not committed
              "3:after"    it is on disk, and no caller has been told

`strace` has the child traced from its script's first line on, with these arguments of strace: to record system calls,
or to inject faults into them.

`slow` adds that many seconds to every commit and ten times as many to the first three, which moves commits from the
event loop to the writer thread.
"""

from __future__ import annotations

import asyncio  # noqa: F401 - warm
import atexit
import faulthandler
import gc
import importlib
import json
import os
import random
import select
import signal
import sys
import threading
import time
import types
from typing import Any

WORKFLOWS = os.path.join(os.path.dirname(os.path.abspath(__file__)), "workflows")
HANG_SECONDS = 25.0

commits = 0
"""How many commits this process has made."""


_WARM = """
    concurrent.futures.thread datetime sqlite3 uuid msgspec perdure perdure.api.run perdure.core.ground.values._preview
    perdure.store.locks perdure.store.sqlite
"""
ON_POSTGRES = os.environ.get("PERDURE_TEST_STORE") == "postgres"


def _warm() -> None:
    for name in _WARM.split():
        importlib.import_module(name)
    perdure = sys.modules["perdure"]
    for name in perdure.__all__:  # type: ignore[attr-defined]
        getattr(perdure, name)
    sys.modules["perdure.store._sql"].queries("sqlite")  # type: ignore[attr-defined]
    if ON_POSTGRES:
        importlib.import_module("perdure.store.postgres")
    sys.path.insert(0, WORKFLOWS)
    importlib.import_module("lab")
    del sys.path[0]


def arm(kill_at: str, slow: float, *, postgres: bool = ON_POSTGRES) -> None:
    """Make this process kill itself at that commit of its store, and every commit take longer."""
    number, when = kill_at.split(":")
    inside = threading.local()
    store = _arm_postgres(inside) if postgres else _arm_sqlite(inside)

    def arming(plain: Any) -> Any:
        def commit(self: Any, *what: Any) -> Any:
            global commits
            if getattr(inside, "commit", False):
                return plain(self, *what)  # `commit` by way of `append`
            commits += 1
            if slow:
                time.sleep(slow if commits > 3 else 10 * slow)
            if commits == int(number):
                if when == "before":
                    _die()
                inside.now = when == "inside"
            inside.commit = True
            try:
                answer = plain(self, *what)
            finally:
                inside.commit = False
            if commits == int(number):
                _die()
            return answer

        return commit

    for write in ("commit", "append", "send", "cancel", "pause", "unpause", "pause_task", "resume_task", "adopt"):
        setattr(store, write, arming(getattr(store, write)))


def _arm_sqlite(inside: threading.local) -> Any:
    from perdure.store.sqlite import file as _sqlite_file
    from perdure.store.sqlite import store as sqlite

    plain_transaction = _sqlite_file.SQLiteLink.transaction
    plain_change = _sqlite_file.SQLiteLink.change

    def transaction(self: Any, work: Any) -> Any:
        def whole(cursor: Any) -> Any:
            answer = work(cursor)
            if getattr(inside, "now", False):
                _die()
            return answer

        return plain_transaction(self, whole)

    def change(self: Any, sql: str, row: Any) -> Any:
        # A single statement is a transaction by itself: open one around it, so that there is an inside.
        if getattr(inside, "now", False):
            return transaction(self, lambda cursor: cursor.execute(sql, row).rowcount == 1)
        return plain_change(self, sql, row)

    _sqlite_file.SQLiteLink.transaction = transaction  # type: ignore[method-assign]
    _sqlite_file.SQLiteLink.change = change  # type: ignore[method-assign]
    return sqlite.SQLiteStore


class _Doomed:
    """A cursor whose process dies instead of committing; a statement by itself gets a transaction, to be inside of."""

    def __init__(self, cursor: Any) -> None:
        self._cursor = cursor
        self._begun = False

    def execute(self, sql: Any, *args: Any) -> Any:
        if sql == "COMMIT":
            _die()
        if sql != "BEGIN" and not self._begun:
            self._cursor.execute("BEGIN")
        self._begun = True
        return self._cursor.execute(sql, *args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


def _arm_postgres(inside: threading.local) -> Any:
    from perdure.store.postgres import link as _postgres_link
    from perdure.store.postgres import store as postgres

    plain_run = _postgres_link.PostgresLink.run
    plain_liveness = postgres.PostgresStore.liveness

    def run(self: Any, work: Any, *args: Any, **kwargs: Any) -> Any:
        def doomed(cursor: Any) -> Any:
            work(_Doomed(cursor))
            _die()

        return plain_run(self, doomed if getattr(inside, "now", False) else work, *args, **kwargs)

    _postgres_link.PostgresLink.run = run  # type: ignore[method-assign]
    # A free lock is believed at once: a second for each of thousands of kills would take too long.
    postgres.PostgresStore.liveness = lambda self: plain_liveness(self, grace=0.05)  # type: ignore[method-assign]
    return postgres.PostgresStore


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    while True:  # the signal is on its way
        signal.pause()


def _child(request: dict[str, Any]) -> None:
    os.chdir(request["cwd"])
    os.environ.update(request["env"])
    out = os.open(request["out"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    err = os.open(request["err"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    null = os.open(os.devnull, os.O_RDONLY)
    for source, target in ((null, 0), (out, 1), (err, 2)):
        os.dup2(source, target)
        os.close(source)
    faulthandler.register(signal.SIGUSR1, file=2, all_threads=True)
    # Other addresses than the siblings', so that no order of a set is the same by accident.
    junk = [bytearray(random.randrange(32, 700)) for _ in range(random.randrange(3000))]
    del junk[:: random.randrange(2, 5)]
    if request.get("strace"):
        _be_traced(request["strace"], request["err"] + ".strace")
    arm(request.get("kill_at") or "0:never", request.get("slow") or 0.0)
    script = request["script"]
    sys.argv = [script, *request["args"]]
    sys.path[:0] = [os.path.dirname(script), WORKFLOWS]
    warm = _warm_scripts.get(script)
    if warm is not None:
        main, arguments = warm
        sys.modules["__main__"] = main
        sys.modules["lab"].waiting = None  # type: ignore[attr-defined]
        sys.modules["lab"].main(*arguments)
    else:
        main = types.ModuleType("__main__")
        main.__file__ = script
        sys.modules["__main__"] = main
        exec(_compiled(script), main.__dict__)
    del junk
    # What the interpreter does at its end, without taking apart every module (which costs more than the trial).
    atexit._run_exitfuncs()
    sys.stdout.flush()
    with open(request["out"] + ".commits", "w") as stream:
        stream.write(str(commits))
    os._exit(0)


def _be_traced(arguments: list[str], log: str) -> None:
    """Return once strace is attached to this process. It ends with this process."""
    null = os.open(os.devnull, os.O_WRONLY)
    words = ["strace", "-f", "-q", "-p", str(os.getpid()), *arguments]
    if "-o" not in words:
        words[1:1] = ["-o", log]
    os.posix_spawnp("strace", words, os.environ, file_actions=[(os.POSIX_SPAWN_DUP2, null, 2)])
    os.close(null)
    while True:
        with open("/proc/self/status") as file:
            if "TracerPid:\t0\n" not in file.read():
                return
        time.sleep(0.002)  # no event tells


_code: dict[str, tuple[int, types.CodeType]] = {}


def _compiled(path: str) -> types.CodeType:
    """The code of a file, compiled once for all children (the parent calls this first)."""
    changed = os.stat(path).st_mtime_ns
    known = _code.get(path)
    if known is None or known[0] != changed:
        with open(path, "rb") as stream:
            known = _code[path] = changed, compile(stream.read(), path, "exec", dont_inherit=True)
    return known[1]


_warm_scripts: dict[str, tuple[types.ModuleType, list[Any]]] = {}


def _warm_script(script: str) -> None:
    """Import a script as `__main__` without running what it is there for; children take over from there."""
    if script in _warm_scripts:
        return
    lab = sys.modules["lab"]
    main = types.ModuleType("__main__")
    main.__file__ = script
    arguments: list[Any] = []
    lab.waiting = arguments  # type: ignore[attr-defined]
    ours, sys.modules["__main__"] = sys.modules["__main__"], main
    try:
        exec(_compiled(script), main.__dict__)
    finally:
        sys.modules["__main__"] = ours
        lab.waiting = None  # type: ignore[attr-defined]
    _warm_scripts[script] = main, arguments
    gc.freeze()


def _watch(pid: int, kill_after: float | None) -> dict[str, Any]:
    fd = os.pidfd_open(pid)
    hung = False
    try:
        limit = HANG_SECONDS if kill_after is None else kill_after
        if not select.select([fd], [], [], limit)[0]:
            if kill_after is None:
                hung = True
                os.kill(pid, signal.SIGUSR1)
                select.select([fd], [], [], 0.5)
            os.kill(pid, signal.SIGKILL)
        _, status, usage = os.wait4(pid, 0)
    finally:
        os.close(fd)
    return {"code": os.waitstatus_to_exitcode(status), "hung": hung, "cpu": usage.ru_utime + usage.ru_stime}


def serve() -> dict[str, Any] | None:
    """Answer requests until the input ends; in a child, give it its request."""
    _warm()
    gc.collect()
    gc.freeze()
    commands, answers = os.fdopen(0, "rb", buffering=0, closefd=False), 1
    pending = b""
    while True:
        while b"\n" not in pending:
            data = commands.read(65536)
            if not data:
                return None
            pending += data
        line, _, pending = pending.partition(b"\n")
        request = json.loads(line)
        assert threading.active_count() == 1, threading.enumerate()
        if request.get("warm"):
            _warm_script(request["script"])
        else:
            _compiled(request["script"])
        pid = os.fork()
        if pid == 0:
            return request
        answer = _watch(pid, request.get("kill_after"))
        os.write(answers, json.dumps(answer).encode() + b"\n")


if __name__ == "__main__":
    found = serve()
    if found is not None:
        _child(found)

"""Scripts that carry on: which runs belong to one execution of a script, and its next one after a kill.

A script under `python -m perdure.flyte` begins runs without names. Killed, and started again by the same command, the
script shall find these runs: finished runs give their recorded results, and unfinished runs carry on.

Invariants:
- SC1 a run's name is made of the script's token, the task, the inputs, and the number of such calls so far. So the
  order in which concurrent calls begin does not matter.
- SC2 the token is on disk before the first run begins. It is removed when the script has ended, well or with an
  exception, and every run has ended. So the next start begins new runs.
- SC3 one live process has the token. A second start of the command, meanwhile, has a token of its own, in no file.
- SC4 where the file of the script has changed, a finished run is not repeated from its record: a new run begins.
"""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections import Counter

from .. import runtime
from ..api._names import random_run_name
from ..api.requests import RunRequest
from ..core.ground.digest import blake2b
from ..core.ground.model import FINISHED
from ..core.ground.private import make_private
from ..core.journal.source import hash_file


class Script:
    """One execution of a script, from the first run on."""

    def __init__(self, file: str, arguments: list[str], *, fresh: bool = False) -> None:
        self._file = file
        self._arguments = arguments
        self._fresh = fresh
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        """Holds the lock of the token's file (SC3)."""
        self._path = ""
        self.token = ""
        """The first part of the runs' names; empty before the first run."""
        self._source = ""
        self._edited = False
        self._calls: Counter[bytes] = Counter()
        self._names: set[str] = set()
        self.carried_on = False
        """Whether an earlier execution of this command was cut off."""

    def name_of(self, request: RunRequest) -> str:
        """The name of a run (SC1)."""
        with self._lock:
            if not self.token:
                self._open()
            new = request.new
            key = new.task.encode("utf-8", "surrogatepass") + b"\0" + new.inputs_hash
            self._calls[key] += 1
            number = self._calls[key]
            digest = blake2b(b"%b\0%d" % (key, number), digest_size=3).hexdigest()
            name = f"{self.token}-{digest}"
            if self._edited:
                row = runtime.worker().store.run(name)
                if row is not None and row.status in FINISHED:
                    name = f"{name}-{self._source[:6]}"
            self._names.add(name)
            return name

    def end(self) -> None:
        """The script has ended (SC2)."""
        with self._lock:
            # A forked child that leaves the script is not the end of the script.
            if self._descriptor is None or os.getpid() != self._pid:
                return
            store = runtime.worker().store
            rows = [store.run(name) for name in self._names]
            if all(row is None or row.status in FINISHED for row in rows):
                os.unlink(self._path)
            os.close(self._descriptor)
            self._descriptor = None

    def _open(self) -> None:
        """Take the token of the cut-off execution, or a new one."""
        self._source = hash_file(self._file).hex()
        command = json.dumps([os.path.realpath(self._file), self._arguments, runtime.store_name()])
        digest = blake2b(command.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
        folder = os.path.join(runtime.project_root(), ".perdure", "scripts")
        make_private(folder)
        self._path = os.path.join(folder, digest)
        self._descriptor = _locked(self._path)
        kept = b"" if self._descriptor is None or self._fresh else os.pread(self._descriptor, 1000, 0)
        token, _, source = kept.decode("utf-8", "replace").strip().partition(" ")
        if token and source:
            self.token = token
            self._edited = source != self._source
            self.carried_on = True
            return
        self.token = random_run_name()
        if self._descriptor is not None:
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"{self.token} {self._source}\n".encode(), 0)
            os.fsync(self._descriptor)


def _locked(path: str) -> int | None:
    """The file, locked until this process ends; `None` if another process has the lock."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.lockf(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(descriptor)
            return None
        if os.fstat(descriptor).st_nlink:
            return descriptor
        os.close(descriptor)  # removed between the two calls


_current: Script | None = None


def begin(script: Script) -> None:
    """Make the script the one that this process executes."""
    global _current
    _current = script


def current() -> Script | None:
    """The script that `python -m perdure.flyte` executes in this process."""
    return _current

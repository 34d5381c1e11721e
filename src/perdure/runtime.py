"""The composition root: which store, which threads, one worker for this process.

The only module that knows adapters by name. Everything is opened on first use; `import perdure` opens nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
from typing import Literal

from .core.worker import Worker
from .errors import PerdureError, UsageError
from .executors.local import DaemonThreads
from .store import open_store

DEFAULT_STORE = os.path.join(".perdure", "perdure.db")
DEFAULT_LEASE = 15.0

Durability = Literal["power", "process"]

_lock = threading.Lock()
_worker: Worker | None = None
_pid = 0
_store: str | None = None
_durability: Durability = "power"


def init(store: str | os.PathLike[str] | None = None, *, durability: Durability = "power") -> None:
    """Choose the store. Without it: `PERDURE_STORE`, else `.perdure/perdure.db` in the current directory.

    Args:
        store: a URL such as `sqlite:///path/to.db` or a path.
        durability: `"power"`: what is recorded survives a power cut (fsync on every commit). `"process"`: it survives
            the death of the process, but the last moments before a power cut may be lost; faster.

    Raises:
        UsageError: no such kind of store or durability, or a run is being driven by this process.
    """
    global _store, _durability, _worker
    if durability not in ("power", "process"):
        raise UsageError(f"durability must be 'power' or 'process', not {durability!r}")
    with _lock:
        if _worker is not None and _pid == os.getpid():
            if _worker.drivers:
                names = ", ".join(driver.run.name for driver in list(_worker.drivers.values())[:3])
                raise UsageError(f"perdure.init cannot change the store while runs are driven here: {names}")
            _worker.close()
            _worker = None
        _store = os.fspath(store) if store is not None else None
        _durability = durability


def store_url() -> str:
    """The URL or path of the store that is used, or would be."""
    return _store or os.environ.get("PERDURE_STORE") or DEFAULT_STORE


def project_root() -> str:
    """The directory that holds this store's project: whoever owns it may have its code loaded by `resume` (P11)."""
    path = store_url()
    if "://" in path:
        scheme, _, rest = path.partition("://")
        path = rest[1:] if scheme == "sqlite" else ""
    folder = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
    return os.path.dirname(folder) if os.path.basename(folder) == ".perdure" else os.getcwd()


def worker() -> Worker:
    """This process's worker, opened on first use.

    Raises:
        StoreError: the store cannot be opened.
        UsageError: `PERDURE_LEASE` makes no sense.
    """
    global _worker, _pid
    found = _worker
    if found is not None and _pid == os.getpid():
        return found
    with _lock:
        if _worker is None or _pid != os.getpid():
            store, liveness = open_store(store_url(), durability=_durability)
            _worker = Worker(store, liveness, DaemonThreads(), lease=_lease())
            _pid = os.getpid()
        return _worker


def _lease() -> float:
    text = os.environ.get("PERDURE_LEASE")
    if text is None:
        return DEFAULT_LEASE
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 0.1 <= seconds <= 86_400:
        raise UsageError(f"PERDURE_LEASE must be seconds from 0.1 to 86400, not {text!r}")
    return seconds


@atexit.register
def _at_exit() -> None:
    # A clean end leaves nothing behind; after any other end the free lock tells the same.
    if _worker is not None and _pid == os.getpid():
        with contextlib.suppress(PerdureError):
            _worker.retire()

"""The composition root: which store, which threads, one worker for this process.

The only module that knows adapters by name. Everything is opened on first use; `import perdure` opens nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import math
import os
import threading
from collections.abc import Iterator
from functools import partial
from typing import TYPE_CHECKING, Literal

from .core.ground.model import Run
from .core.ground.ports import Blobs, Store
from .core.ground.spec import TaskSpec
from .core.ground.values import find_file_types
from .core.process.worker import Worker
from .errors import PerdureError, UsageError
from .executors.local import DaemonThreads
from .store import (
    check_blobs_at,
    files_base,
    is_bucket,
    is_postgres,
    open_blobs,
    open_bucket,
    open_store,
    public_url,
    store_path,
)

if TYPE_CHECKING:
    from .containers.background import Background
    from .containers.engine import ContainerEngine
    from .core.run.elsewhere import Elsewhere
    from .executors.on_ray import RayPool
    from .executors.process import ProcessPool

DEFAULT_STORE = os.path.join(".perdure", "perdure.db")
DEFAULT_LEASE = 15.0

Durability = Literal["power", "process"]

_lock = threading.Lock()
_worker: Worker | None = None
_pid = 0
_store: str | None = None
_durability: Durability = "power"
_blobs: dict[tuple[str, str], Blobs] = {}
_blobs_at: str | None = None
_container_engine: str | None = None
_containers: Background | None = None
_containers_pid = 0
_processes: ProcessPool | None = None
_processes_pid = 0
_ray: RayPool | None = None
_ray_pid = 0
_ray_address: str | None = None


def init(
    store: str | os.PathLike[str] | None = None,
    *,
    durability: Durability = "power",
    container_engine: str | None = None,
    blobs: str | os.PathLike[str] | None = None,
    ray_address: str | None = None,
) -> None:
    """Choose the store. Without it: `PERDURE_STORE`, else `.perdure/perdure.db` in the current directory.

    Args:
        store: a URL such as `sqlite:///path/to.db` or `postgresql://user@host/database`, or a path.
        durability: `"power"`: what is recorded survives a power cut (fsync on every commit). `"process"`: it survives
            the death of the process, but the last moments before a power cut may be lost; faster.
        container_engine: what runs containers: `"docker"`, `"podman"`, or a URL such as `unix:///run/docker.sock` or
            `kubernetes://namespace?context=name`. Without it: `PERDURE_CONTAINER_ENGINE`, `DOCKER_HOST`, else whichever
            is found on this machine.
        blobs: where the content of files lies: a bucket such as `s3://bucket/prefix`, `gs://bucket/prefix` or
            `az://container/prefix`, or a directory. Without it: `PERDURE_BLOBS`, else beside the store.
        ray_address: the Ray cluster for tasks with `executor="ray"`, such as `"ray.example.org:6379"`. Without it:
            `PERDURE_RAY_ADDRESS`, `RAY_ADDRESS`, else one on this machine, which Ray starts if none runs.

    Raises:
        UsageError: no such kind of store or durability, no address, or a run is being driven by this process.
    """
    global _store, _durability, _worker, _container_engine, _containers, _processes, _blobs_at
    global _ray, _ray_address
    if durability not in ("power", "process"):
        raise UsageError(f"durability must be 'power' or 'process', not {durability!r}")
    refuse_ray_address(ray_address)
    with _lock:
        if _worker is not None and _pid == os.getpid():
            if _worker.drivers:
                names = ", ".join(driver.run.name for driver in list(_worker.drivers.values())[:3])
                raise UsageError(f"perdure.init cannot change the store while runs are driven here: {names}")
            _worker.close()
            _worker = None
            if _processes is not None:
                _processes.close()
                _processes = None
        if _containers is not None:
            if _containers_pid == os.getpid():
                # Not a parent's, in a process that was forked: its threads are not here.
                _containers.close()
            _containers = None
        _store = os.fspath(store) if store is not None else None
        _durability = durability
        _container_engine = container_engine
        _blobs_at = os.fspath(blobs) if blobs is not None else None
        _ray, _ray_address = None, ray_address


def store_url() -> str:
    """The URL or path of the store that is used, or would be."""
    return _store or os.environ.get("PERDURE_STORE") or DEFAULT_STORE


def store_name(url: str | None = None) -> str:
    """The same, or that URL, as it may be shown: without a password."""
    return public_url(url or store_url())


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
        UsageError: `PERDURE_LEASE` or `PERDURE_BLOBS` makes no sense.
    """
    global _worker, _pid
    found = _worker
    if found is not None and _pid == os.getpid():
        return found
    with _lock:
        if _worker is None or _pid != os.getpid():
            check_blobs_at(blobs_at())
            store, liveness = open_store(store_url(), durability=_durability)
            _worker = Worker(store, liveness, DaemonThreads(), lease=_lease(), clock=store.clock)
            _worker.on_end = _run_ended
            _worker.elsewhere = elsewhere
            _pid = os.getpid()
            found = _worker
        else:
            return _worker
    if _container_leftovers():
        containers().sweep()
    return found


@contextlib.contextmanager
def opened(url: str, at: str | None = None, *, create: bool = True) -> Iterator[tuple[Store, Blobs]]:
    """Another store than the one in use, with its blobs, for as long as the block lasts. `at`: as `open_blobs`."""
    store, _ = open_store(url, create=create)
    try:
        yield store, open_blobs(url, at or blobs_at())
    finally:
        store.close()


def exists(url: str) -> bool:
    """Whether there may be a store at that URL; of a database on a server only opening it tells."""
    if is_postgres(url):
        return True
    path = store_path(url)
    return path is not None and os.path.exists(path)


def elsewhere(executor: str) -> Elsewhere:
    """What executes bodies in other processes, by the name of the executor."""
    return on_ray() if executor == "ray" else processes()


def on_ray() -> RayPool:
    """The connection to Ray; made when the first body needs it."""
    global _ray, _ray_pid
    store = worker().store
    with _lock:
        if _ray is None or _ray_pid != os.getpid():
            from importlib.util import find_spec

            # Looked for only: it takes seconds to load.
            if find_spec("ray") is None:
                raise UsageError("executor=\"ray\" needs ray, which is not installed: pip install 'perdure[ray]'")
            from .executors.on_ray import RayPool

            address = _ray_address or os.environ.get("PERDURE_RAY_ADDRESS") or os.environ.get("RAY_ADDRESS") or None
            refuse_ray_address(address)
            _ray = RayPool(
                store_id=store.id, store_url=public_url(store.url), blobs=_blobs_elsewhere(store),
                find=_find_container, address=address,
            )  # fmt: skip
            _ray_pid = os.getpid()
        return _ray


def refuse_ray_address(address: str | None) -> None:
    """Raise `UsageError` for what Ray would take for something else, or try for a long time."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or "://" in host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"ray_address must be HOST:PORT of the head of a Ray cluster (its port is 6379 by default), not {address!r}"
        )


def processes() -> ProcessPool:
    """The pool for bodies with `executor="process"`; no process is started before one is needed."""
    global _processes, _processes_pid
    store = worker().store
    with _lock:
        if _processes is None or _processes_pid != os.getpid():
            from .executors.process import ProcessPool

            _processes = ProcessPool(
                _process_count(), store_id=store.id, store_url=store.url, blobs=_blobs_elsewhere(store),
                find=_find_container,
            )  # fmt: skip
            _processes_pid = os.getpid()
        return _processes


def _blobs_elsewhere(store: Store) -> str:
    """Where blobs lie, for a process that executes bodies for this one. The directory by default is found by the
    store's path; of a store that is no file it has to be named."""
    return blobs_at() or ("" if not is_postgres(store.url) and store_path(store.url) else blobs().root)


def _find_container(target: str, module: str, variable: str) -> TaskSpec:
    from .api.loading import load_container

    return load_container(target, module, variable)


def adopt(found: Worker, blobs_at: str) -> None:
    """In a pool child: the worker that stands for the one in the process that drives the run, and its blobs."""
    global _worker, _pid, _blobs_at
    with _lock:
        _worker, _pid = found, os.getpid()
        _blobs_at = blobs_at or None


def containers() -> Background:
    """What runs containers for the store in use; nothing is connected before it is needed."""
    global _containers, _containers_pid
    store = worker().store
    with _lock:
        if _containers is None or _containers_pid != os.getpid():
            base = _container_base()
            wanted = _wanted_engine()
            if _is_cluster(wanted):
                _containers = _pods(wanted, base, store)
            else:
                from .containers.service import Containers

                _containers = Containers(
                    f"{base}-containers", f"{base}-logs", lambda: store, partial(_connect, wanted),
                    lasting=_database() is not None,
                )  # fmt: skip
            _containers_pid = os.getpid()
        return _containers


def _wanted_engine() -> str:
    return _container_engine or os.environ.get("PERDURE_CONTAINER_ENGINE") or ""


def _is_cluster(wanted: str) -> bool:
    return wanted.strip().startswith("kubernetes://")


def _pods(wanted: str, base: str, store: Store) -> Background:
    place = blobs_at()
    if not is_bucket(place):
        raise UsageError(
            "containers on Kubernetes get their inputs and outputs through a bucket: name one with "
            "PERDURE_BLOBS=s3://bucket/prefix or perdure.init(blobs=...)"
        )
    try:
        from .containers.kubernetes.service import Pods
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "kubernetes_asyncio":
            raise
        raise UsageError("containers on Kubernetes need its client: pip install 'perdure[kubernetes]'") from None
    from .containers.kubernetes.where import read_where

    return Pods(f"{base}-pods", f"{base}-logs", lambda: store, read_where(wanted.strip()), partial(open_bucket, place))


async def _connect(wanted: str | None) -> ContainerEngine:
    from .containers.discovery import open_engine

    return await open_engine(wanted, os.environ)


def _container_base() -> str:
    """What the names of the directories of this store's containers begin with."""
    database = _database()
    if database is not None:
        return database
    import tempfile  # here, because it costs as much as a quarter of all that `import perdure` loads

    return os.path.join(tempfile.gettempdir(), f"perdure-memory-{os.getpid()}")


def container_logs() -> str:
    """The directory that holds what containers have written, one directory for each run."""
    return f"{_container_base()}-logs"


def drop_containers(run: Run) -> None:
    """Stop and remove what a run that is over has left running, wherever it was driven; waits for it."""
    if _container_leftovers() or _is_cluster(_wanted_engine()):
        found = containers()
        found.sweep(run.uid)
        found.drain()


def sweep_containers() -> None:
    """Remove what containers of runs that are over, or gone, have left; waits for it."""
    if _container_leftovers() or _is_cluster(_wanted_engine()):
        found = containers()
        found.sweep()
        found.drain()


def _container_leftovers() -> bool:
    base = _database()
    try:
        return base is not None and bool(os.listdir(f"{base}-containers"))
    except OSError:
        return False


def _run_ended(run: Run, fresh: bool) -> None:
    if not fresh and (_container_leftovers() or _is_cluster(_wanted_engine())):
        with contextlib.suppress(UsageError):  # no engine is named that makes sense
            containers().sweep(run.uid)


def blobs() -> Blobs:
    """The blob store that belongs to the store in use, or to the one that would be used. Opens no database."""
    place, at = _database() or "memory://", blobs_at()
    found = _blobs.get((place, at))
    if found is None:
        url = store_url() if is_postgres(store_url()) else place
        found = _blobs[place, at] = open_blobs(url, at)
    return found


def blobs_at() -> str:
    """Where blobs are to lie, if not beside the store."""
    return _blobs_at or os.environ.get("PERDURE_BLOBS") or ""


def refuse_own_files(path: str) -> None:
    """Raise `UsageError` where a path that the user wants stored is, or holds, files that the store itself works on.

    They would be different a moment later, and worse: closing any descriptor of a database or lock file drops every
    lock that this process holds on it (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    database = _database()
    root = blobs().root
    own = [f"{root}/sha256", f"{root}/staging"]
    if database is not None:
        own += [
            database,
            *(f"{database}-{part}" for part in ("wal", "shm", "journal", "workers")),
        ]
    real = os.path.realpath(path)
    for mine in own:
        if real == mine or real.startswith(f"{mine}/"):
            verb = "belongs to"
        elif mine.startswith(f"{real.rstrip('/')}/"):
            verb = "holds"
        else:
            continue
        if not real.startswith(f"{root}/sha256/"):  # a blob never changes
            raise UsageError(
                f"{path} {verb} what perdure itself works on ({mine}): name something else, or move the store with "
                f"perdure.init(store=...)"
            )


def _database() -> str | None:
    """What the files of the store in use, or of the one that would be, are named after: the database itself, links
    resolved, where it is a file; `None` for `memory://`."""
    found = _worker
    if found is not None and _pid == os.getpid() and not is_postgres(found.store.url):
        # An open store names its file as it is; this is asked at the end of every run.
        return store_path(found.store.url)
    return files_base(store_url())


def _file_types() -> tuple[type, type]:
    from .io import Dir, File

    return File, Dir


find_file_types(_file_types)


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


def _process_count() -> int:
    text = os.environ.get("PERDURE_PROCESSES")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UsageError(f"PERDURE_PROCESSES must be a number of processes from 1 to 4096, not {text!r}")
    return int(text)


@atexit.register
def _at_exit() -> None:
    # A clean end leaves nothing behind; after any other end the free lock tells the same.
    if _containers is not None and _containers_pid == os.getpid():
        with contextlib.suppress(PerdureError):
            _containers.close()
    if _worker is not None and _pid == os.getpid():
        with contextlib.suppress(PerdureError):
            _worker.retire()

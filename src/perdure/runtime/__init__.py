"""The composition root: one `Process` for each operating-system process, made on first use.

The functions here are the ways in; `process` holds the adapters, `settings` the choices. The import opens nothing.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from ..core.ground.model import Created, CreateRun, NewRun, RunRow, Wake
from ..core.ground.ports import Blobs, Store
from ..core.ground.steps import Steps
from ..core.process.worker import Worker
from ..store import is_postgres, open_blobs, open_store, public_url, store_path
from ..store.joining import joined
from .process import Process
from .settings import Durability, Settings, refuse_durability, refuse_ray_address

if TYPE_CHECKING:
    from ..containers.background import Background

_lock = threading.Lock()
_process = Process(Settings())


def process() -> Process:
    """The state of this process. A forked child gets a state of its own, with the parent's settings."""
    global _process
    if _process.pid != os.getpid():
        with _lock:
            if _process.pid != os.getpid():
                _process = Process(_process.settings)
    return _process


def init(
    store: str | os.PathLike[str] | None = None,
    *,
    durability: Durability = "power",
    container_engine: str | None = None,
    blobs: str | os.PathLike[str] | None = None,
    ray_address: str | None = None,
) -> None:
    """Choose the store. Without a choice: `PERDURE_STORE`, else `.perdure/perdure.db` in the current directory.

    Args:
        store: a URL such as `sqlite:///path/to.db` or `postgresql://user@host/database`, or a path.
        durability: `"power"`: recorded outcomes survive a power cut (fsync on every commit). `"process"`: recorded
            outcomes survive the death of the process, but a power cut may lose the last moments; faster.
        container_engine: the engine that runs containers: `"docker"`, `"podman"`, or a URL such as
            `unix:///run/docker.sock` or `kubernetes://namespace?context=name`. Without a choice:
            `PERDURE_CONTAINER_ENGINE`, `DOCKER_HOST`, else the first engine found on this machine.
        blobs: where the content of files lies: a bucket such as `s3://bucket/prefix`, `gs://bucket/prefix` or
            `az://container/prefix`, or a directory. Without a choice: `PERDURE_BLOBS`, else beside the store.
        ray_address: the Ray cluster for tasks with `executor="ray"`, such as `"ray.example.org:6379"`. Without a
            choice: `PERDURE_RAY_ADDRESS`, `RAY_ADDRESS`, else a cluster on this machine, started by Ray if need be.

    Raises:
        UsageError: no such kind of store or durability, no address, or this process is driving a run.
    """
    global _process
    refuse_durability(durability)
    refuse_ray_address(ray_address)
    current = process()
    with _lock:
        _process = current.successor(
            Settings(
                store=os.fspath(store) if store is not None else None,
                durability=durability,
                container_engine=container_engine,
                blobs=os.fspath(blobs) if blobs is not None else None,
                ray=ray_address,
            )
        )


def worker() -> Worker:
    """This process's worker, opened on first use.

    Raises:
        StoreError: the store cannot be opened.
        UsageError: `PERDURE_LEASE` or `PERDURE_BLOBS` makes no sense.
    """
    return process().worker()


def enqueue_within(connection: Any, new: NewRun, due: Wake | None) -> Steps[Created]:
    """Store a run without a driver in the transaction of the caller's connection, which the caller commits.

    Raises:
        UsageError: the connection is of no known kind, has no transaction, or leads to another database.
    """
    return joined(worker().store, connection, CreateRun(new, None, due))


def adopt(found: Worker, blobs_at: str) -> None:
    """In a pool child: use this stand-in for the worker of the driving process, and its blobs."""
    process().adopt(found, blobs_at)


def store_url() -> str:
    """The URL or path of the store that is used, or would be."""
    return process().settings.store_url


def store_name(url: str | None = None) -> str:
    """The URL of a store (by default the store in use) for messages: without a password."""
    return public_url(url or store_url())


def run_url(name: str) -> str:
    """The address of a run, as `perdure show` takes it: the store's URL, without a password, and the name behind `#`.

    The path of a file is absolute, so that the address holds in every directory.
    """
    url = store_url()
    path = None if is_postgres(url) else store_path(url)
    base = public_url(url) if path is None else f"sqlite:///{os.path.abspath(path)}"
    return f"{base}#{quote(name)}"


def project_root() -> str:
    """The directory of the store's project; see `Settings.project_root`."""
    return process().settings.project_root()


@contextlib.contextmanager
def opened(url: str, at: str | None = None, *, create: bool = True) -> Iterator[tuple[Store, Blobs]]:
    """A second store and its blobs, open for the length of the block. `at`: as `open_blobs` takes it."""
    store, _ = open_store(url, create=create)
    try:
        yield store, open_blobs(url, at or blobs_at())
    finally:
        store.close()


def is_open() -> bool:
    """Whether this process has opened the store, or stands for a process that has."""
    return process().is_open


def exists(url: str) -> bool:
    """Whether a store may exist at that URL. For a database on a server, only opening tells."""
    if is_postgres(url):
        return True
    path = store_path(url)
    return path is not None and os.path.exists(path)


def blobs() -> Blobs:
    """The blob store that belongs to the store in use. Opens no database."""
    return process().blobs()


def blobs_at() -> str:
    """The chosen place of blobs; empty where blobs lie beside the store."""
    return process().settings.blobs_at


def attach_logs() -> None:
    """Keep what tasks print from now on, where something else has taken the place of `sys.stdout`."""
    process().attach_logs()


def container_logs() -> str:
    """The directory that holds the output of containers and tasks, one directory for each run."""
    return process().container_logs()


def reports() -> str:
    """The directory that holds the reports of actions, one directory for each run."""
    return process().reports()


def run_files() -> str:
    """The directory that holds files of runs outside of the journal, one directory for each run."""
    return process().run_files()


def drop_containers(run: RunRow) -> None:
    """Stop and remove the containers that an ended run has left, wherever the run was driven, and wait for the end."""
    process().drop_containers(run.uid)


def sweep_containers() -> None:
    """Remove the containers that ended or removed runs have left, and wait for the end."""
    process().drop_containers()


def containers() -> Background:
    """The container service of the store in use."""
    return process().containers()


def refuse_own_files(path: str) -> None:
    """Raise `UsageError` where a path to be stored is, or holds, a working file of the store itself.

    Such files change a moment later. Worse, closing any descriptor of a database or lock file drops every lock that
    this process holds on the file (https://www.sqlite.org/howtocorrupt.html, 2.2).
    """
    process().refuse_own_files(path)


@atexit.register
def _at_exit() -> None:
    if _process.pid == os.getpid():
        _process.end()

"""Everything that perdure has open in one operating-system process: store, worker, pools, engines, blobs.

The only module that knows adapters by name. Each adapter is opened on first use. A forked child inherits the settings
and opens its own adapters: threads, sockets and locks of the parent do not work there.
"""

from __future__ import annotations

import contextlib
import os
import threading
from functools import partial
from typing import TYPE_CHECKING, ClassVar

from msgspec import structs

from ..core.ground.model import RunRow
from ..core.ground.ports import Blobs, Store
from ..core.ground.spec import TaskSpec
from ..core.ground.trees import remove_tree
from ..core.process.worker import Worker
from ..errors import PerdureError, UsageError
from ..executors.local import DaemonThreads
from ..store import check_blobs_at, files_base, is_bucket, is_postgres, open_blobs, open_bucket, open_store, public_url
from ..store import store_path as path_of
from . import task_logs
from .settings import Settings, lease_seconds, process_count

if TYPE_CHECKING:
    from ..containers.background import Background
    from ..containers.engine import ContainerEngine
    from ..core.run.interfaces import Elsewhere
    from ..executors.on_ray import RayPool
    from ..executors.process import ProcessPool


class Process:
    """The adapters of one process. `_lock` guards the opening and closing of each; fields are read without the lock."""

    find_container: ClassVar[staticmethod[[str, str, str], TaskSpec]]
    """Gives a container task by target, module and variable. Set by `api.loading`, a layer above."""

    def __init__(self, settings: Settings, blobs: dict[tuple[str, str], Blobs] | None = None) -> None:
        self.settings = settings
        self.pid = os.getpid()
        self._lock = threading.Lock()
        self._worker: Worker | None = None
        self._blobs = {} if blobs is None else blobs
        """Blob stores by the place of their store and the setting `blobs_at`."""
        self._containers: Background | None = None
        self._pool: ProcessPool | None = None
        self._ray: RayPool | None = None
        self._serving = False
        """A worker inside the application serves."""
        self._temporary: str | None = None
        """A directory for containers of a store in memory, removed at exit."""

    def successor(self, settings: Settings) -> Process:
        """Close everything, and return the process state under other settings.

        Raises:
            UsageError: runs are driven here.
        """
        with self._lock:
            if self._serving:
                raise UsageError("perdure.init cannot change the store while a perdure.Worker is at work here")
            if self._worker is not None:
                if self._worker.drivers:
                    names = ", ".join(driver.run.name for driver in list(self._worker.drivers.values())[:3])
                    raise UsageError(f"perdure.init cannot change the store while runs are driven here: {names}")
                self._worker.close()
                self._worker = None
            if self._pool is not None:
                self._pool.close()
            if self._containers is not None:
                self._containers.close()
            return Process(settings, self._blobs)

    def end(self) -> None:
        """Leave nothing behind at a clean exit. After any other end, the free lock file tells that the worker died."""
        for close in (self._containers and self._containers.close, self._worker and self._worker.retire):
            if close:
                with contextlib.suppress(PerdureError):
                    close()
        if self._temporary is not None:
            with contextlib.suppress(OSError):
                remove_tree(self._temporary)

    # -- store and worker --------------------------------------------------------------------------------------

    def worker(self) -> Worker:
        """The worker; see `perdure.runtime.worker`."""
        found = self._worker
        if found is not None:
            return found
        with self._lock:
            if self._worker is not None:
                return self._worker
            check_blobs_at(self.settings.blobs_at)
            self.settings.refuse_foreign_store()
            store, liveness = open_store(self.settings.store_url, durability=self.settings.durability)
            found = Worker(store, liveness, DaemonThreads(), lease=lease_seconds(), clock=store.clock)
            found.on_end = self._run_ended
            found.elsewhere = self.elsewhere
            self._worker = found
        self.attach_logs()
        if self._has_leftovers():
            self.containers().sweep()
        return found

    @property
    def is_open(self) -> bool:
        """Whether the worker, and with it the store, is open."""
        return self._worker is not None

    def begin_serving(self) -> None:
        """A worker inside the application begins.

        Raises:
            UsageError: one is at work already.
        """
        with self._lock:
            if self._serving:
                raise UsageError(
                    "this process has a perdure.Worker already: end that worker first, or give all tasks to one"
                )
            self._serving = True

    def end_serving(self) -> None:
        """The worker inside the application has ended."""
        self._serving = False

    def adopt(self, worker: Worker, blobs_at: str) -> None:
        """In a pool child: use a worker that stands for the worker of the driving process, and the same blobs."""
        with self._lock:
            self._worker = worker
            self.settings = structs.replace(self.settings, blobs=blobs_at or None)
        self.attach_logs()

    def attach_logs(self) -> None:
        """Keep what tasks print and log in this process; a store in memory keeps nothing."""
        task_logs.attach(lambda: None if self.database() is None else self.container_logs())

    def database(self) -> str | None:
        """The path that the names of the store's files begin with, links resolved; `None` for `memory://`."""
        found = self._worker
        if found is not None and not is_postgres(found.store.url):
            # The fast way, as the end of every run asks: an open store names its real file.
            return path_of(found.store.url)
        return files_base(self.settings.store_url)

    # -- blobs -------------------------------------------------------------------------------------------------

    def blobs(self) -> Blobs:
        """The blob store of the store in use. Opens no database."""
        place, at = self.database() or "memory://", self.settings.blobs_at
        found = self._blobs.get((place, at))
        if found is None:
            url = self.settings.store_url
            found = self._blobs[place, at] = open_blobs(url if is_postgres(url) else place, at)
        return found

    def _blobs_elsewhere(self, store: Store) -> str:
        """Where blobs lie, for a process that executes bodies. A database file implies the directory by default; a
        store without a file does not, so the directory is named."""
        return self.settings.blobs_at or (
            "" if not is_postgres(store.url) and path_of(store.url) else self.blobs().root
        )

    # -- bodies in other processes -----------------------------------------------------------------------------

    def elsewhere(self, executor: str) -> Elsewhere:
        """The pool or cluster that executes bodies, by the name of the executor."""
        return self.on_ray() if executor == "ray" else self.pool()

    def pool(self) -> ProcessPool:
        """The pool for bodies with `executor="process"`; a process starts when a body needs one."""
        store = self.worker().store
        with self._lock:
            if self._pool is None:
                from ..executors.process import ProcessPool

                self._pool = ProcessPool(
                    process_count(), store_id=store.id, store_url=store.url, blobs=self._blobs_elsewhere(store),
                    find=self.find_container,
                )  # fmt: skip
            return self._pool

    def on_ray(self) -> RayPool:
        """The connection to Ray, made for the first body."""
        store = self.worker().store
        with self._lock:
            if self._ray is None:
                from importlib.util import find_spec

                # Importing Ray takes seconds, so the check only looks for the package.
                if find_spec("ray") is None:
                    raise UsageError("executor=\"ray\" needs ray, which is not installed: pip install 'perdure[ray]'")
                from ..executors.on_ray import RayPool

                self._ray = RayPool(
                    store_id=store.id, store_url=public_url(store.url), blobs=self._blobs_elsewhere(store),
                    find=self.find_container, address=self.settings.ray_address,
                )  # fmt: skip
            return self._ray

    # -- containers --------------------------------------------------------------------------------------------

    def containers(self) -> Background:
        """The container service of the store in use; connects to the engine when a container needs the engine."""
        store = self.worker().store
        with self._lock:
            if self._containers is None:
                self._containers = self._pods(store) if self.settings.on_cluster else self._engine(store)
            return self._containers

    def _engine(self, store: Store) -> Background:
        from ..containers import life
        from ..containers.service import Containers

        base = self._files_base()
        return Containers(
            f"{base}-containers", f"{base}-logs", lambda: store, partial(_connect, self.settings.engine), life.run,
            lasting=self.database() is not None,
        )  # fmt: skip

    def _pods(self, store: Store) -> Background:
        place = self.settings.blobs_at
        if not is_bucket(place):
            raise UsageError(
                "containers on Kubernetes get their inputs and outputs through a bucket: name one with "
                "PERDURE_BLOBS=s3://bucket/prefix or perdure.init(blobs=...)"
            )
        try:
            from ..containers.kubernetes import life
            from ..containers.kubernetes.service import Pods
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("kubernetes_asyncio"):
                raise
            raise UsageError("containers on Kubernetes need its client: pip install 'perdure[kubernetes]'") from None
        from ..containers.kubernetes.where import read_where

        base, where = self._files_base(), read_where(self.settings.engine)
        return Pods(f"{base}-pods", f"{base}-logs", lambda: store, where, partial(open_bucket, place), life.run)

    def _files_base(self) -> str:
        """The path that the names of directories beside the store begin with."""
        database = self.database()
        if database is not None:
            return database
        if self._temporary is None:
            import tempfile  # a late import: loading tempfile costs a quarter of `import perdure`

            self._temporary = tempfile.mkdtemp(prefix="perdure-memory-")
        return os.path.join(self._temporary, "store")

    def container_logs(self) -> str:
        """The directory that holds the output of containers and tasks, one directory for each run."""
        return f"{self._files_base()}-logs"

    def reports(self) -> str:
        """The directory that holds the reports of actions, one directory for each run."""
        return f"{self._files_base()}-reports"

    def run_files(self) -> str:
        """The directory that holds files of runs outside of the journal, one directory for each run."""
        return f"{self._files_base()}-files"

    def drop_containers(self, uid: bytes | None = None) -> None:
        """Stop and remove leftover containers of an ended run, or of all ended runs, and wait for the removal."""
        if self._has_leftovers() or self.settings.on_cluster:
            found = self.containers()
            found.sweep(uid)
            found.drain()

    def _has_leftovers(self) -> bool:
        base = self.database()
        try:
            return base is not None and bool(os.listdir(f"{base}-containers"))
        except OSError:
            return False

    def _run_ended(self, run: RunRow, fresh: bool) -> None:
        if not fresh and (self._has_leftovers() or self.settings.on_cluster):
            with contextlib.suppress(UsageError):  # the engine's name makes no sense
                self.containers().sweep(run.uid)

    # -- files of perdure's own --------------------------------------------------------------------------------

    def refuse_own_files(self, path: str) -> None:
        """See `perdure.runtime.refuse_own_files`."""
        database, root = self.database(), self.blobs().root
        own = [f"{root}/sha256", f"{root}/staging"]
        if database is not None:
            own += [database, *(f"{database}-{part}" for part in ("wal", "shm", "journal", "workers"))]
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


async def _connect(wanted: str | None) -> ContainerEngine:
    from ..containers.discovery import open_engine

    return await open_engine(wanted, os.environ)

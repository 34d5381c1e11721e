"""The cluster as this process uses the cluster, and the removal of leftovers in cluster and bucket.

Labels name the store, run and attempt of a pod, and the bucket has a directory for each attempt. So any user of the
store finds the leftovers of a crash, from any machine.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from contextlib import suppress
from typing import Any, Final, Protocol

import msgspec

from ...core.ground.clock import US, wall
from ...core.ground.detached import Detached
from ...core.ground.ports import Store
from ...core.ground.trees import remove_tree
from ...errors import PerdureError
from ..background import GRACE, Background
from ..place import About, key_of
from ..program import Program
from .cluster import Cluster
from .spec import ABOUT, ATTEMPT, MANAGED, RUN, STORE
from .status import Phase, look, newest
from .tree import Objects
from .where import Where

log = logging.getLogger("perdure")

ATTEMPTS: Final = "attempts"
ABOUT_KEY: Final = "about"
STRAY_SECONDS: Final = 3600.0
"""Age at which objects of no known attempt are removed."""
OVER_SECONDS: Final = 60.0
"""Seconds for the end of a deleted pod, before the objects are removed."""


class PodLiving(Protocol):
    """The life of one attempt (`life.run`), handed in by the composition root."""

    def __call__(
        self, program: Program, pods: Pods, attempt: Detached, values: dict[str, Any], identity: bytes, /
    ) -> Coroutine[Any, Any, Any]: ...


class Pods(Background):
    """See the module text. Everything public may be called from any thread."""

    def __init__(
        self,
        root: str,
        log_root: str,
        store: Callable[[], Store],
        where: Where,
        objects: Callable[[str], Objects],
        live: PodLiving,
    ) -> None:
        """`objects`: a part of the bucket, by a suffix to the URL of the blobs."""
        super().__init__(root, log_root, store)
        self.where = where
        self._objects = objects
        self._live = live
        self._cluster: Cluster | None = None
        self._connecting: asyncio.Lock | None = None
        self._swept = False
        self._driven: set[str] = set()
        """Runs with attempts begun or joined here, whose pods are never too old."""

    async def run(self, program: Program, attempt: Detached, values: dict[str, Any], identity: bytes) -> Any:
        self._driven.add(attempt.run.uid.hex())
        if not self._swept:
            self._swept = True
            await self.ask(self._sweep(None))
        return await self._live(program, self, attempt, values, identity)

    # -- the cluster (on the loop) -----------------------------------------------------------------------------

    async def cluster(self) -> Cluster:
        """The API server, found on first use."""
        if self._connecting is None:
            self._connecting = asyncio.Lock()
        async with self._connecting:
            if self._cluster is not None and self._cluster.expired:
                await self._disconnect()
            if self._cluster is None:
                self._cluster = await Cluster.open(self.where)
            return self._cluster

    async def _disconnect(self) -> None:
        cluster, self._cluster = self._cluster, None
        if cluster is not None:
            await cluster.close()

    # -- names -------------------------------------------------------------------------------------------------

    def blobs(self) -> Objects:
        """The bucket that holds the content of files."""
        return self._objects("")

    def objects(self, key: str) -> Objects:
        """The part of the bucket that belongs to an attempt."""
        return self._objects(f"{ATTEMPTS}/{self.store_label}/{key}")

    def folder(self, key: str) -> str:
        """A directory of this machine for an attempt, whose content can be fetched again."""
        return os.path.join(self.root, key)

    @property
    def store_label(self) -> str:
        """The store, as the value of a label."""
        return "".join(char for char in self._store().id if char.isalnum() or char in "-_")[:60]

    def may_be_left(self, key: str) -> bool:
        return True  # only the cluster knows

    # -- removal -----------------------------------------------------------------------------------------------

    async def _remove_all(self, key: str) -> None:
        cluster = await self.cluster()
        until = wall() + OVER_SECONDS * US
        while pods := (await cluster.list("pods", labels=f"{STORE}={self.store_label},{ATTEMPT}={key}"))["items"]:
            if wall() > until:
                raise PerdureError(f"pod {pods[0]['metadata']['name']} does not end")
            for pod in pods:
                meta = pod["metadata"]
                if meta.get("deletionTimestamp") is None:
                    over = look(pod).step in (Phase.ENDED, Phase.GATED)
                    await cluster.delete("pods", meta["name"], uid=meta["uid"], grace=0 if over else GRACE)
            await asyncio.sleep(0.2)
        await self.last_output(key)
        for secret in (await cluster.list("secrets", labels=f"{STORE}={self.store_label},{ATTEMPT}={key}"))["items"]:
            await cluster.delete("secrets", secret["metadata"]["name"])
        # Only now: until then a copilot may have written there.
        await self.in_thread(lambda: self._clear(key))

    def _clear(self, key: str) -> None:
        with suppress(OSError):
            remove_tree(self.folder(key))
        objects = self.objects(key)
        for meta in list(objects.list("")):
            if meta["path"] != ABOUT_KEY:
                objects.delete(meta["path"])
        objects.delete(ABOUT_KEY)  # last, as a sweep finds the others by this object

    def sweep(self, uid: bytes | None = None) -> list[Future[None]]:
        with self._lock:
            # Listed with the removals, so that a wait for removals includes the sweep.
            name = f"sweep {uid.hex() if uid is not None else ''}"
            future = self._leaving[name] = self.call(self._sweep(uid))
        future.add_done_callback(lambda done: self._left(name, done))
        return [future]

    def _left(self, name: str, done: Future[None]) -> None:
        if done.exception() is not None:
            log.warning("leftovers of containers are not removed now", exc_info=done.exception())
        with self._lock:
            if self._leaving.get(name) is done:
                del self._leaving[name]

    async def _sweep(self, uid: bytes | None) -> None:
        labels = f"{MANAGED}=perdure,{STORE}={self.store_label}" + (f",{RUN}={uid.hex()}" if uid is not None else "")
        try:
            cluster = await self.cluster()
            pods = (await cluster.list("pods", labels=labels))["items"]
            self.known = True
            for pod in pods:
                key, about = (pod["metadata"].get("labels") or {}).get(ATTEMPT), _about(pod)
                # A pod with these labels and no attempt is not perdure's.
                if about is None or key != key_of(bytes.fromhex(about.uid), about.action, about.attempt):
                    continue
                if await self._over(about) or self._is_stale(pod, about):
                    self.remove(key)
            await self.in_thread(self._clear_folders)
            for key, about in await self.in_thread(lambda: self._left_in_bucket(uid)):
                if key not in self._leaving and await self._over(about):
                    self.remove(key)
        except PerdureError as error:
            log.warning("leftovers of containers are not removed now: %s", error)
        except Exception:
            # A container of another run has no part in a failed sweep.
            log.warning("leftovers of containers are not removed now", exc_info=True)

    async def _over(self, about: About) -> bool:
        return await self.in_thread(lambda: self._is_over(about))

    def _left_in_bucket(self, uid: bytes | None) -> list[tuple[str, About]]:
        """Attempts with objects, also without a pod. Objects of no attempt are removed after a while, as a slow
        writer may still be at work."""
        objects = self._objects(f"{ATTEMPTS}/{self.store_label}")
        found = []
        written: dict[str, float] = {}
        for meta in list(objects.list("")):
            key, _, name = meta["path"].partition("/")
            written[key] = max(written.get(key, 0.0), meta["last_modified"].timestamp())
            if name == ABOUT_KEY:
                written[key] = float("inf")
                about = _decoded(objects.get(meta["path"]))
                if about is not None and (uid is None or about.uid == uid.hex()):
                    found.append((key, about))
        for key, at in written.items():
            if wall() / US - at > STRAY_SECONDS:
                self._clear(key)
        return found

    def _clear_folders(self) -> None:
        """Remove directories of this machine whose attempts went on elsewhere."""
        with suppress(OSError):
            for name in os.listdir(self.root):
                path = os.path.join(self.root, name)
                if wall() / US - os.stat(path).st_mtime > STRAY_SECONDS * 24:
                    remove_tree(path)

    def _is_stale(self, pod: dict[str, Any], about: About) -> bool:
        """Whether the pod ended longer ago than `ttl`."""
        if about.uid in self._driven or look(pod).step in (Phase.RUNNING, Phase.UPLOADING):
            return False
        then = newest(pod)
        return then > 0 and wall() / US - then > self.where.ttl


def _about(pod: dict[str, Any]) -> About | None:
    return _decoded((pod["metadata"].get("annotations") or {}).get(ABOUT, "").encode("utf-8", "replace"))


def _decoded(data: bytes | None) -> About | None:
    try:
        about = msgspec.json.decode(data or b"", type=About)
        bytes.fromhex(about.uid)
    except (ValueError, RecursionError):
        return None
    return about

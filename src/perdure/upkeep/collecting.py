"""Removal of finished runs, and of everything without a reference after their removal. Data of live runs stays.

Rows go first, files afterwards. A killed collection therefore leaves files without references, never a reference to a
missing file; the next collection removes those files.

Runs
- G1 a run goes whole or not at all: one transaction looks again whether the run is finished and old enough, and takes
  the run out of sight. From then on no process can resume the run, and its name is free. A process that resumed the run
  earlier keeps it.
- G2 the rows of a removed run are purged afterwards, in short transactions with pauses for other writers. Such rows
  remain recognizable, so any later collection finishes the work.
- G3 a run stays while an unfinished run is to begin with its work (`rerun --recover`).

The cache and snapshots of code
- G4 a live run may have read a cached outcome and not recorded the outcome yet. So before cached outcomes are removed,
  their files count as just put (G7): a later collection removes the files.
- G5 a worker keeps the numbers of snapshots in memory. So snapshots go only while no worker is alive.

Blobs (the content of files)
- G6 every hash in a stored value, of any type, counts as a reference, as digest or as text; so does every hash in the
  manifest of a referenced `Dir`. Values are not decoded: too much may stay, no reference may be missed.
- G7 content is put before the reference to the content is committed. So a blob without a reference may belong to a body
  that has just made the blob. The blob stays if it was put, again or for the first time, after the first start of any
  run of a worker that may be alive, or within the last day (the user's own programs may still be about to pass the blob
  to a run). The held runs are read before the references: a run that has ended by then has committed its references.
- G8 a put that finds its content there refreshes the time of the blob, under a lock that excludes removal, and removal
  looks at the time again (`store.blobs.directory`). So content that is put during a collection stays, or is written
  again.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from itertools import islice
from typing import Final

from .. import runtime
from ..api.looking import store_exists
from ..core.ground.clock import US
from ..core.ground.model import FINISHED, EndedRun, Status
from ..core.ground.ports import Blobs, Store
from ..core.ground.trees import discard_tree
from ..core.process.worker import Worker
from ..errors import UsageError
from ..store.blobs import manifest
from ..store.blobs.user_files import each

RUNS: Final = 500
"""Runs per transaction of removal."""
ROWS: Final = 5_000
"""Rows per transaction of purging."""
FILES: Final = 200
PAUSE: Final = 0.01
"""Seconds between transactions, for other writers."""
MARGIN: Final = 24 * 3600 * US
"""How long a blob without a reference stays (G7)."""
SLACK: Final = 120 * US
"""The time of a blob may be so much earlier than the put (`store.blobs.copying.REFRESH`, and a reserve)."""
FOREVER: Final = 1 << 52

_LOGS: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(rb"\xc4\x20(?=([\s\S]{32}))")  # MessagePack: 32 bytes
_TEXT: Final = re.compile(rb"[0-9a-f]{64,}")


@dataclass(frozen=True, slots=True)
class Removed:
    """The removed objects; with `dry_run`, the objects to be removed."""

    runs: tuple[EndedRun, ...]
    cached: int
    """Outcomes of cached tasks."""
    sources: int | None
    """Snapshots of code; `None`: not counted."""
    logs: int
    """Directories with container logs, reports or other files of removed runs."""
    blobs: int
    """Contents of files."""
    size: int
    """The bytes of these contents."""


def collect(older_than: timedelta, statuses: Collection[Status] = FINISHED, *, dry_run: bool = False) -> Removed:
    """Remove finished runs that ended longer ago, and everything without a reference afterwards. May be killed at any
    moment.

    Args:
        older_than: the least age of a run's end, and of a cached outcome.
        statuses: the statuses of the runs; all finished runs by default.
        dry_run: only look.

    Raises:
        UsageError: a negative time, or a status of unfinished runs.
        StoreError: the store or the blob store cannot be used. The removals until then are consistent.
    """
    if older_than < timedelta(0):
        raise UsageError(f"runs cannot have ended in the future: {older_than} is negative")
    wanted = frozenset(statuses)
    if not wanted <= FINISHED:
        raise UsageError(f"only finished runs can be removed, not {', '.join(sorted(wanted - FINISHED))} ones")
    if not store_exists():
        return Removed((), 0, None, 0, 0, 0)
    worker = runtime.worker()
    store, blobs = worker.store, runtime.blobs()
    now = worker.clock.wall()
    before = max(0, now - older_than // timedelta(microseconds=1))
    if dry_run:
        runs = tuple(_ended(store, before, wanted))
        cached = len(store.cached(before, limit=FOREVER))
        logs = len(_orphaned_logs(store, {run.uid for run in runs}))
        old = _unreferenced(worker, blobs, now, {run.id for run in runs})
        return Removed(runs, cached, None, logs, len(old), sum(old.values()))
    runs = tuple(_remove_runs(store, before, wanted))
    cached = _remove_cached(store, blobs, before)
    sources = store.drop_sources(worker.liveness.is_dead)
    runtime.sweep_containers()
    logs = _remove_logs(store)
    gone = _remove_blobs(worker, blobs, now)
    return Removed(runs, cached, sources, logs, len(gone), sum(gone))


# -- rows ------------------------------------------------------------------------------------------------------


def _ended(store: Store, before: int, statuses: frozenset[Status]) -> Iterator[EndedRun]:
    above = 0
    while page := store.ended(before, statuses, above=above, limit=RUNS):
        yield from page
        above = page[-1].id


def _remove_runs(store: Store, before: int, statuses: frozenset[Status]) -> Iterator[EndedRun]:
    _purge(store)  # leftovers of an earlier collection
    ended = _ended(store, before, statuses)
    while page := list(islice(ended, RUNS)):
        answers = store.remove([run.id for run in page], before, statuses)
        yield from (run for run, removed in zip(page, answers, strict=True) if removed)
        _purge(store)


def _purge(store: Store) -> None:
    while store.purge(ROWS):
        time.sleep(PAUSE)


def _remove_cached(store: Store, blobs: Blobs, before: int) -> int:
    removed = 0
    while page := store.cached(before, limit=FILES):
        blobs.refresh({hash for put in page for hash in references(put.value)})
        removed += store.uncache([put.key for put in page], before)
        time.sleep(PAUSE)
    return removed


# -- files -----------------------------------------------------------------------------------------------------


def _orphaned_logs(store: Store, removed: Collection[bytes] = ()) -> list[str]:
    """The directories of logs, reports and other files of runs that are gone. The directories are listed before the
    runs: a run comes first."""
    found = [
        os.path.join(folder, name)
        for folder in (runtime.container_logs(), runtime.reports(), runtime.run_files())
        for name in (os.listdir(folder) if os.path.isdir(folder) else [])
        if _LOGS.fullmatch(name)
    ]
    if not found:
        return []
    kept = {uid.hex() for uid in store.uids() if uid not in removed}
    return [path for path in found if os.path.basename(path) not in kept]


def _remove_logs(store: Store) -> int:
    paths = _orphaned_logs(store)
    for path in paths:
        discard_tree(path)
    return sum(not os.path.exists(path) for path in paths)


def _unreferenced(worker: Worker, blobs: Blobs, now: int, skip: Collection[int] = ()) -> dict[str, int]:
    """The blobs to remove (G6, G7), with their sizes. `skip`: runs to count as removed."""
    old = dict(blobs.older(_line(worker, now)))
    if old:
        for hash in _referenced(worker.store, blobs, skip):
            old.pop(hash, None)
    return old


def _line(worker: Worker, now: int) -> int:
    """A moment: no process is about to refer to an unreferenced blob from before (G7)."""
    held = worker.store.claimed_since()
    return min(now - MARGIN, *(since - SLACK for id, since in held.items() if not worker.liveness.is_dead(id)), now)


def _referenced(store: Store, blobs: Blobs, skip: Collection[int]) -> set[str]:
    return reachable(blobs, dict(blobs.older(FOREVER)), store.stored(skip))


def reachable(blobs: Blobs, sizes: Mapping[str, int], values: Iterable[bytes]) -> set[str]:
    """The blobs in `sizes` with a reference in encoded values, directly or through the manifest of a `Dir`."""
    found: set[str] = set()
    new = {hash for value in values for hash in references(value) if hash in sizes}
    while new:
        found |= new
        hashes = list(new)
        are_folders = each(lambda hash: blobs.start(hash, sizes[hash], len(manifest.HEAD)) == manifest.HEAD, hashes)
        folders = (hash for hash, is_folder in zip(hashes, are_folders, strict=True) if is_folder)
        new = {hash for folder in folders for hash in references(blobs.read(folder)) if hash in sizes} - found
    return found


def references(data: bytes) -> Iterator[str]:
    """Every possible hash of a blob in encoded values (G6)."""
    for digest in _DIGEST.finditer(data):
        yield digest[1].hex()
    for text in _TEXT.finditer(data):
        for start in range(len(text[0]) - 63):
            yield text[0][start : start + 64].decode()


def _remove_blobs(worker: Worker, blobs: Blobs, now: int) -> list[int]:
    line = _line(worker, now)
    sizes: list[int] = []
    for batch in _batches(_unreferenced(worker, blobs, now).items()):
        gone = blobs.remove([hash for hash, _ in batch], line)
        sizes.extend(size for (_, size), removed in zip(batch, gone, strict=True) if removed)
    return sizes


def _batches(items: Iterable[tuple[str, int]]) -> Iterator[list[tuple[str, int]]]:
    rest = iter(items)
    while batch := list(islice(rest, FILES)):
        yield batch

"""Removing what is over: finished runs, and what nothing refers to once they are gone. Never what a live run needs.

Rows first, files after them, so that whatever is killed leaves files too many and never a reference to a file that is
gone; the next collection removes those.

Runs
- G1 a run goes whole or not at all: one transaction looks again whether it is still finished and old enough, and takes
  it out of sight. From then on nobody can resume it, and its name is free. Whoever resumed it before keeps it.
- G2 its rows are purged after that in short transactions with pauses between them, so that others' writes go on. They
  can be told apart from all others for as long as they are there, so any later collection finishes the work.
- G3 a run stays while an unfinished one is to begin with its work (`rerun --recover`).

The cache and snapshots of code
- G4 a live run may have read a cached outcome that it has not recorded yet. So before cached outcomes are removed,
  their files count as just put (G7): those go with a later collection.
- G5 a worker keeps the numbers of snapshots in memory. So snapshots go only while no worker is there.

Blobs (the content of files)
- G6 every hash that stands anywhere in what the store holds counts as a reference, as digest or as text, whatever the
  type around it; and so do those in the manifest of a `Dir` that is referred to. Values are not decoded: too much may
  stay, nothing may be missed.
- G7 content is put before the reference to it is committed. So a blob without a reference may belong to a body that has
  just made it, and stays if it was put, again or for the first time, after the first start of any run that a worker
  which may be alive holds now, or within the last day (the user's own programs, which may still be about to pass it to
  a run). Which runs are held is read before the references are: a run that has ended by then has committed them.
- G8 a put that finds its content there refreshes the blob's time, under a lock that excludes removal, which looks at
  the time again (`store.blobs.directory`). So content that is put while its blob is being looked for stays, or is
  written again.
"""

from __future__ import annotations

import os
import re
import shutil
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
from ..core.process.worker import Worker
from ..errors import UsageError
from ..store.blobs import manifest
from ..store.blobs.user_files import each

RUNS: Final = 500
"""Runs that one transaction takes away."""
ROWS: Final = 5_000
"""Rows that one transaction purges."""
FILES: Final = 200
PAUSE: Final = 0.01
"""Seconds between transactions, in which whoever waits for the database gets it."""
MARGIN: Final = 24 * 3600 * US
"""For how long a blob stays that nothing refers to (G7)."""
SLACK: Final = 120 * US
"""How much earlier than it was put a blob's time may be (`store.blobs.directory.REFRESH`), and then some."""
FOREVER: Final = 1 << 52

_LOGS: Final = re.compile(r"[0-9a-f]{32}")
_DIGEST: Final = re.compile(rb"\xc4\x20(?=([\s\S]{32}))")  # MessagePack: 32 bytes
_TEXT: Final = re.compile(rb"[0-9a-f]{64,}")


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed, or would be."""

    runs: tuple[EndedRun, ...]
    cached: int
    """Outcomes of cached tasks."""
    sources: int | None
    """Snapshots of code; `None` where this was not looked at."""
    logs: int
    """Runs whose containers' logs went."""
    blobs: int
    """Contents of files."""
    size: int
    """Their bytes."""


def collect(older_than: timedelta, statuses: Collection[Status] = FINISHED, *, dry_run: bool = False) -> Removed:
    """Remove finished runs that ended longer ago, and what nothing refers to any more. May be killed at any moment.

    Args:
        older_than: how long ago a run must have ended, and an outcome been cached.
        statuses: which runs; all finished ones by default.
        dry_run: only look.

    Raises:
        UsageError: a negative time, or a status of runs that have not ended.
        StoreError: the store or the blob store cannot be used. What was removed until then is consistent.
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
    _purge(store)  # what an earlier collection has left
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
    """The log directories of runs that are gone. The directories are listed before the runs: a run comes first."""
    folder = runtime.container_logs()
    names = [name for name in os.listdir(folder) if _LOGS.fullmatch(name)] if os.path.isdir(folder) else []
    if not names:
        return []
    kept = {uid.hex() for uid in store.uids() if uid not in removed}
    return [os.path.join(folder, name) for name in names if name not in kept]


def _remove_logs(store: Store) -> int:
    paths = _orphaned_logs(store)
    for path in paths:
        shutil.rmtree(path, ignore_errors=True)
    return sum(not os.path.exists(path) for path in paths)


def _unreferenced(worker: Worker, blobs: Blobs, now: int, skip: Collection[int] = ()) -> dict[str, int]:
    """The blobs that may go (G6, G7), with their sizes. `skip`: runs that count as removed."""
    old = dict(blobs.older(_line(worker, now)))
    if old:
        for hash in _referenced(worker.store, blobs, skip):
            old.pop(hash, None)
    return old


def _line(worker: Worker, now: int) -> int:
    """What was put before this moment, and has no reference, nobody is about to refer to (G7)."""
    held = worker.store.claimed_since()
    return min(now - MARGIN, *(since - SLACK for id, since in held.items() if not worker.liveness.is_dead(id)), now)


def _referenced(store: Store, blobs: Blobs, skip: Collection[int]) -> set[str]:
    return reachable(blobs, dict(blobs.older(FOREVER)), store.stored(skip))


def reachable(blobs: Blobs, sizes: Mapping[str, int], values: Iterable[bytes]) -> set[str]:
    """The blobs, of those in `sizes`, that encoded values refer to, directly or through the manifest of a `Dir`."""
    found: set[str] = set()
    new = {hash for value in values for hash in references(value) if hash in sizes}
    while new:
        found |= new
        hashes = list(new)
        are_folders = each(lambda hash: blobs.begins(hash, sizes[hash], manifest.HEAD), hashes)
        folders = (hash for hash, is_folder in zip(hashes, are_folders, strict=True) if is_folder)
        new = {hash for folder in folders for hash in references(blobs.read(folder)) if hash in sizes} - found
    return found


def references(data: bytes) -> Iterator[str]:
    """Whatever may be the hash of a blob in encoded values (G6)."""
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

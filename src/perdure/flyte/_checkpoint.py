"""Checkpoints of a task's own making: bytes, a file or a directory that a later attempt finds again.

A checkpoint is kept outside of the journal, so that a body can save as often as it likes.

Invariants:
- CP1 `load` gives the newest checkpoint where the body has nothing recorded after the call, and otherwise the
  checkpoint that the call gave before. So a body that is replayed past the call takes the same path, and a body without
  any further durable calls goes on where the body has saved last.
- CP2 a checkpoint is complete or not there. The checkpoint is written beside its place, and renamed.
"""

from __future__ import annotations

import abc
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..api._calling import caller, run_async, run_sync
from ..core.body.branch import Branch
from ..core.ground.digest import blake2b
from ..core.ground.model import Entry, Kind
from ..core.ground.trees import discard_tree
from ..core.ground.values import codec_for
from ..core.run import calls
from ..errors import UsageError

_FP = blake2b(b"%d\0flyte.Checkpoint.load" % Kind.TRACE, digest_size=16).digest()
_VERSION = codec_for(int)
_PAYLOAD = "payload"
KEPT = 3
"""Checkpoints that are kept before the newest."""


class BaseCheckpoint(abc.ABC):
    """What a checkpoint can do."""

    @property
    @abc.abstractmethod
    def path(self) -> Path:
        """The local directory into which a checkpoint is loaded."""

    @abc.abstractmethod
    def prev_exists(self) -> bool:
        """Whether an earlier attempt can have saved."""

    @abc.abstractmethod
    async def load(self) -> Path | None:
        """The last checkpoint."""

    @abc.abstractmethod
    def load_sync(self) -> Path | None:
        """The last checkpoint."""

    @abc.abstractmethod
    async def save(self, data: Path | str | bytes) -> None:
        """Keep a checkpoint."""

    @abc.abstractmethod
    def save_sync(self, data: Path | str | bytes) -> None:
        """Keep a checkpoint."""


class Checkpoint(BaseCheckpoint):
    """Checkpoints in a directory: the newest of `checkpoint_src` is loaded, and `checkpoint_dest` takes new ones."""

    def __init__(self, checkpoint_dest: str, checkpoint_src: str | None = None) -> None:
        self._destination = checkpoint_dest
        self._source = checkpoint_src
        self._path: Path | None = None

    @property
    def path(self) -> Path:
        """The local directory into which a checkpoint is loaded."""
        if self._path is None:
            self._path = Path(tempfile.mkdtemp(prefix="perdure-checkpoint-"))
        return self._path

    @property
    def remote_destination(self) -> str:
        """Where `save` writes."""
        return self._destination

    @property
    def remote_source(self) -> str | None:
        """Where `load` reads."""
        return self._source

    def prev_exists(self) -> bool:
        """Whether there is a place to load from."""
        return self._source is not None

    async def load(self) -> Path | None:
        """The last checkpoint: the path of the file (named `payload`), or the directory; `None` without one."""
        where = caller(lambda: "Checkpoint.load")
        if not isinstance(where, Branch):
            return self._fetch(self._newest())
        version: int | None = None
        while self._is_stale(where, version):
            version = await run_async(self._reading(where))
        return self._fetch(version)

    def load_sync(self) -> Path | None:
        """As `load`, blocking."""
        where = caller(lambda: "Checkpoint.load_sync")
        if not isinstance(where, Branch):
            return self._fetch(self._newest())
        version: int | None = None
        while self._is_stale(where, version):
            version = run_sync(self._reading(where))
        return self._fetch(version)

    async def save(self, data: Path | str | bytes) -> None:
        """Keep bytes, a file or the content of a directory as the newest checkpoint."""
        self.save_sync(data)  # no thread: the end of a thread's job is an event of the body, which the journal keeps

    def save_sync(self, data: Path | str | bytes) -> None:
        """As `save`, blocking."""
        os.makedirs(self._destination, mode=0o700, exist_ok=True)
        made = tempfile.mkdtemp(prefix=".", dir=self._destination)
        if isinstance(data, bytes):
            Path(made, _PAYLOAD).write_bytes(data)
        elif os.path.isdir(data):
            shutil.copytree(data, os.path.join(made, "tree"))
        elif os.path.isfile(data):
            shutil.copyfile(data, os.path.join(made, _PAYLOAD))
        else:
            os.rmdir(made)
            raise UsageError(f"Checkpoint.save takes bytes, a file or a directory; there is none at {str(data)!r}")
        version = _newest(self._destination) + 1
        while True:
            try:
                os.rename(made, os.path.join(self._destination, str(version)))
                break
            except OSError:  # another thread has saved meanwhile
                version += 1
        # The one before stays: a replay of the body may ask for what it was given.
        for old in os.listdir(self._destination):
            if old.isdecimal() and int(old) < version - KEPT:
                discard_tree(os.path.join(self._destination, old))

    def _newest(self) -> int:
        return _newest(self._source) if self._source is not None else 0

    def _reading(self, where: Branch) -> Any:
        call = where.call(Kind.TRACE, "Checkpoint.load", _FP)
        return calls.reading(call, lambda _: self._newest(), _VERSION)

    def _is_stale(self, where: Branch, version: int | None) -> bool:
        """Whether the body has to read the newest version once more (CP1)."""
        if version is None:
            return True
        delivery = where.body.delivery
        replay = delivery.replay
        if replay is not None and not replay.drained:
            head = replay.head()
            return isinstance(head, Entry) and (head.branch, head.fp) == (where.id, _FP)
        return not delivery.unasked_actions and version != self._newest()

    def _fetch(self, version: int | None) -> Path | None:
        if not version or self._source is None:
            return None
        at = Path(self._source, str(version))
        if not at.is_dir():  # it was followed by many others: those hold more
            at = Path(self._source, str(_newest(self._source)))
        discard_tree(str(self.path))
        if (at / "tree").is_dir():
            shutil.copytree(at / "tree", self.path)
            return self.path
        self.path.mkdir(mode=0o700)
        shutil.copyfile(at / _PAYLOAD, self.path / _PAYLOAD)
        return self.path / _PAYLOAD


def latest_checkpoint(root: Path, glob_pattern: str = "**/last.ckpt", *, key: Any = None) -> Path | None:
    """The newest file below `root` that matches: by modification time, or by `key`."""
    found = [path for path in Path(root).glob(glob_pattern) if path.is_file()]
    return max(found, key=key or (lambda path: path.stat().st_mtime), default=None)


def _newest(directory: str) -> int:
    try:
        return max((int(name) for name in os.listdir(directory) if name.isdecimal()), default=0)
    except FileNotFoundError:
        return 0

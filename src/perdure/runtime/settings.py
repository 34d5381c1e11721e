"""Settings of a process: the arguments of `perdure.init`, else environment variables, else defaults. Opens nothing."""

from __future__ import annotations

import math
import os
from typing import Literal

from msgspec import Struct

from ..errors import UsageError
from ..store import is_postgres, store_path

Durability = Literal["power", "process"]

DEFAULT_STORE = os.path.join(".perdure", "perdure.db")
DEFAULT_LEASE = 15.0


class Settings(Struct, frozen=True):
    """The arguments of `perdure.init`. Each property falls back on the environment, which is read at every call."""

    store: str | None = None
    durability: Durability = "power"
    container_engine: str | None = None
    blobs: str | None = None
    ray: str | None = None

    @property
    def store_url(self) -> str:
        """The URL or path of the store."""
        return self.store or os.environ.get("PERDURE_STORE") or DEFAULT_STORE

    @property
    def blobs_at(self) -> str:
        """The bucket or directory for blobs; empty where blobs lie beside the store."""
        return self.blobs or os.environ.get("PERDURE_BLOBS") or ""

    @property
    def engine(self) -> str:
        """The container engine asked for; empty where the machine is searched for an engine."""
        return (self.container_engine or os.environ.get("PERDURE_CONTAINER_ENGINE") or "").strip()

    @property
    def on_cluster(self) -> bool:
        """Whether containers run as pods of a Kubernetes cluster."""
        return self.engine.startswith("kubernetes://")

    @property
    def ray_address(self) -> str | None:
        """The address of the Ray cluster, checked; `None` leaves the choice to Ray."""
        address = self.ray or os.environ.get("PERDURE_RAY_ADDRESS") or os.environ.get("RAY_ADDRESS") or None
        refuse_ray_address(address)
        return address

    def project_root(self) -> str:
        """The directory of the store's project: `resume` may load code below that directory only (P11)."""
        url = self.store_url
        path = None if is_postgres(url) else store_path(url)
        folder = os.path.dirname(os.path.abspath(path)) if path else os.getcwd()
        return os.path.dirname(folder) if os.path.basename(folder) == ".perdure" else os.getcwd()

    def refuse_foreign_store(self) -> None:
        """Raise `UsageError` for a store of another user's that was found rather than named.

        A prepared store, in a directory that every user may write to, would decide which runs `resume` carries on.
        """
        if self.store or os.environ.get("PERDURE_STORE"):
            return
        for path in (os.path.dirname(DEFAULT_STORE), DEFAULT_STORE):
            try:
                owner = os.stat(path).st_uid
            except OSError:
                continue
            if owner not in (os.geteuid(), 0):
                raise UsageError(
                    f"{os.path.abspath(path)} belongs to another user. If you trust the store, name it: --store "
                    f"{DEFAULT_STORE}, PERDURE_STORE or perdure.init(store=...). Else go to a directory of your own"
                )


def refuse_durability(durability: object) -> None:
    """Raise `UsageError` for an unknown durability."""
    if durability not in ("power", "process"):
        raise UsageError(f"durability must be 'power' or 'process', not {durability!r}")


def refuse_ray_address(address: str | None) -> None:
    """Raise `UsageError` for an address that Ray would misread, or try to reach for a long time."""
    if address in (None, "auto", "local"):
        return
    host, _, port = address.rpartition(":") if isinstance(address, str) else ("", "", "")
    if not host or "://" in host or not port.isdecimal() or int(port) > 65535:
        raise UsageError(
            f"ray_address must be HOST:PORT of the head of a Ray cluster (its port is 6379 by default), not {address!r}"
        )


def lease_seconds() -> float:
    """The lease of this process's claims."""
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


def process_count() -> int:
    """The width of the pool for bodies with `executor="process"`."""
    text = os.environ.get("PERDURE_PROCESSES")
    if text is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not text.isdecimal() or not 1 <= int(text) <= 4096:
        raise UsageError(f"PERDURE_PROCESSES must be a number of processes from 1 to 4096, not {text!r}")
    return int(text)

"""Backups of a store in one SQLite file, online and verified."""

from __future__ import annotations

import os

from .. import runtime
from ..errors import StoreError, UsageError
from ..store.sqlite import SQLiteStore
from .moving import Look, checked


def backup(url: str, to: str) -> Look:
    """Copy a store's database to a new file while workers go on, and check the copy. Files (blobs) are not copied.

    Raises:
        UsageError: the store is not an SQLite file, or the new file cannot be made.
        StoreError: the store cannot be read, or the copy has problems; the copy is then removed.
    """
    path = os.path.abspath(to)
    if not runtime.exists(url):
        raise UsageError(f"there is no store {runtime.store_name(url)}")
    with runtime.opened(url, create=False) as (store, _):
        if not isinstance(store, SQLiteStore):
            raise UsageError(
                f"{store.url} is no SQLite file: back a Postgres store up with pg_dump, or with its archive"
            )
        looks: list[Look] = []

        def verify(copy: str) -> None:
            looks.append(found := checked(f"sqlite:///{copy}"))
            if found.problems:
                raise StoreError(
                    f"the copy of {runtime.store_name(url)} has problems and was removed: {'; '.join(found.problems)}"
                )

        store.backup(path, verify)
    return looks[0]

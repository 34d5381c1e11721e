"""A run's journal as it is stored, for scripts."""

from __future__ import annotations

from collections.abc import Iterator

from .. import runtime
from ..api.looking import find
from ..core.ground.model import Entry
from ..core.journal.segment import journal_of


def entries(name: str) -> Iterator[Entry]:
    """The entries of a run in commit order, verified while they are read.

    Raises:
        RunNotFoundError: there is no such run.
        JournalDamagedError, StoreVersionError: a segment cannot be used; the entries before that segment came first.
    """
    return journal_of(runtime.worker().store, find(name))

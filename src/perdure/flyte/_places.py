"""Directories of a run outside of the journal: what Flyte keeps below `run_base_dir`."""

from __future__ import annotations

import os

from .. import runtime
from ..core.ground.private import make_private

RAW_DATA = "raw_data"
"""The directory, in a run's own, whose files have random names."""


def run_directory(uid: bytes) -> str:
    """The directory of the run with that uid, beside the store; made on first use."""
    path = os.path.abspath(runtime.run_files())
    for made in (path, os.path.join(path, uid.hex())):
        if not os.path.isdir(made):
            make_private(made)
    return os.path.join(path, uid.hex())


def has_fixed_name(path: str) -> bool:
    """Whether a path is the same on every replay of a body, though its content may change: the path lies in the
    directory of a run, and the code has chosen the name."""
    root = os.path.abspath(runtime.run_files()) + os.sep
    parts = os.path.abspath(path).removeprefix(root).split(os.sep)
    return os.path.abspath(path).startswith(root) and len(parts) > 1 and parts[1] != RAW_DATA

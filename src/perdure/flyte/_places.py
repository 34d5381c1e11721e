"""Directories of a run outside of the journal: what Flyte keeps below `run_base_dir`."""

from __future__ import annotations

import os

from .. import runtime
from ..core.ground.private import make_private


def run_directory(uid: bytes) -> str:
    """The directory of the run with that uid, beside the store; made on first use."""
    base = runtime.process().database() or os.path.join(runtime.project_root(), ".perdure", "perdure.db")
    path = f"{os.path.abspath(base)}-flyte"
    for made in (path, os.path.join(path, uid.hex())):
        if not os.path.isdir(made):
            make_private(made)
    return os.path.join(path, uid.hex())

"""Process groups of bodies: a body and the programs that the body has started end together."""

from __future__ import annotations

import os
import signal
from contextlib import suppress


def kill_group(leader: int) -> None:
    """SIGKILL for all processes of a group. A program that began a session of its own is in no group of ours."""
    # macOS refuses a signal to a group of zombies.
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(leader, signal.SIGKILL)
